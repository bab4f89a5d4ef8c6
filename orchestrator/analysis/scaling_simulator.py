"""How an experiment would train on many workers and nodes, from what a few workers measured.

A step computes as `scaling.fit` models it. Gradients are exchanged by a ring all-reduce (Patarasuk and Yuan, 2009):
2 * (n - 1) rounds, each of which sends an n-th of the bytes over the slowest link. On GPUs the exchange overlaps the
backward pass, in buckets, as `DistributedDataParallel` does it (Li et al., 2020); on CPUs it uses the same cores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from orchestrator.analysis import scaling
from orchestrator.analysis.scaling import Point, ScalingModel
from orchestrator.store.storage import Record
from trainers.errors import InputError

_GRADIENT_BYTES = 4
"""Of a weight: gradients are exchanged in float32."""
_FIRST_BUCKET, _BUCKET = 1 << 20, 25 << 20
"""Bytes, as in `DistributedDataParallel`."""
_BACKWARD = 2 / 3
"""Of the time that an image takes."""
_PAYS = 4 / 3
"""Speed on twice the workers over that on once, below which more workers are not worth it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Link:
    """How one worker sends to the next in the ring."""

    bytes_per_second: float
    latency_seconds: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """The links of a cluster."""

    workers_per_node: int
    within: Link
    between: Link
    """Of two nodes."""

    def slowest(self, workers: int) -> Link:
        """What limits a ring of so many workers."""
        return self.within if workers <= self.workers_per_node else self.between

    def nodes(self, workers: int) -> int:
        """That so many workers need."""
        return -(-workers // self.workers_per_node)


def exchange_seconds(size: float, workers: int, link: Link) -> float:
    """Time of a ring all-reduce of so many bytes."""
    rounds = 2 * (workers - 1)
    return rounds * (size / workers / link.bytes_per_second + link.latency_seconds)


def step_seconds(
    model: ScalingModel,
    *,
    share: float,
    workers: int,
    gradient_bytes: int,
    network: Network,
    overlaps: bool,
) -> float:
    """Time of one step.

    Args:
        model: what a worker's step takes without the exchange.
        share: images per worker.
        workers: that train together.
        gradient_bytes: of all weights.
        network: that connects them.
        overlaps: whether gradients are exchanged during the backward pass.
    """
    computed = model.per_step + model.per_image * share
    link = network.slowest(workers)
    if not overlaps or workers == 1:
        return computed + exchange_seconds(gradient_bytes, workers, link)
    backward = _BACKWARD * model.per_image * share
    ended, there = 0.0, 0
    for bucket in _buckets(gradient_bytes):
        there += bucket
        ready = computed - backward * (1 - there / gradient_bytes)
        ended = max(ended, ready) + exchange_seconds(bucket, workers, link)
    return max(ended, computed)


def _buckets(size: int) -> Iterator[int]:
    following = _FIRST_BUCKET
    while size:
        bucket = min(size, following)
        yield bucket
        size -= bucket
        following = _BUCKET


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """What is predicted for one number of workers."""

    workers: int
    nodes: int
    images_per_second: float
    efficiency: float
    """Against as many times one worker's speed."""
    price_per_million: float | None
    """Of training on a million images."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecast:
    """What is predicted for an arm, each worker with its share of the batch as measured."""

    arm: str
    gradient_bytes: int
    link_bytes_per_second: float | None
    """As measured between the workers; None if the exchange took no time."""
    error: float | None
    """Of the largest measured scale, predicted from the smaller ones."""
    scales: tuple[Scale, ...]
    pays_up_to: int | None
    """The most workers among the scales up to which each doubling is worth it; None if it always is."""


def forecast(
    arm: str,
    points: Sequence[Point],
    *,
    workers: Sequence[int],
    workers_per_node: int,
    link_bytes_per_second: float | None,
    overlaps: bool,
    price_per_worker_hour: float | None,
    mode: scaling.Mode,
) -> Forecast:
    """Predict an arm's speed on larger numbers of workers.

    Args:
        arm: its name.
        points: what was measured of it.
        workers: numbers of workers to predict.
        workers_per_node: of the cluster.
        link_bytes_per_second: between two nodes; as between the measured workers when left out.
        overlaps: whether gradients are exchanged during the backward pass, as on GPUs.
        price_per_worker_hour: if there is one.
        mode: strong keeps the global batch, weak each worker's share.

    Raises:
        InputError: what was measured is of a version that did not count the weights.
    """
    model = scaling.fit(points)
    parameters = points[0].parameters
    if parameters is None:
        raise InputError(
            f"arm {arm}: scaling was measured by an earlier version, without the number of weights; delete "
            "the directory scaling of the results and measure again: tandem bench scaling FILE"
        )
    gradient_bytes = parameters * _GRADIENT_BYTES
    # c * (1 - 1/n) = 2 * (n - 1) / n * bytes / speed. An exchange that took no time is not the limit.
    measured = Link(bytes_per_second=2 * gradient_bytes / model.exchange if model.exchange else float("inf"))
    between = Link(bytes_per_second=link_bytes_per_second) if link_bytes_per_second else measured
    network = Network(workers_per_node=workers_per_node, within=measured, between=between)
    fewest = min(points, key=lambda point: point.workers)
    share = fewest.batch_size / fewest.workers

    def speed(count: int) -> float:
        of_worker = share if mode == "weak" else fewest.batch_size / count
        seconds = step_seconds(
            model,
            share=of_worker,
            workers=count,
            gradient_bytes=gradient_bytes,
            network=network,
            overlaps=overlaps,
        )
        return of_worker * count / seconds

    scales = []
    for count in workers:
        reached = speed(count)
        price = None
        if price_per_worker_hour is not None:
            price = price_per_worker_hour * count * 1e6 / reached / 3600
        scales.append(
            Scale(
                workers=count,
                nodes=network.nodes(count),
                images_per_second=reached,
                efficiency=reached / (count * speed(1)),
                price_per_million=price,
            )
        )
    stops = (count for count in workers if speed(2 * count) < _PAYS * speed(count))
    return Forecast(
        arm=arm,
        gradient_bytes=gradient_bytes,
        link_bytes_per_second=measured.bytes_per_second if model.exchange else None,
        error=scaling.error_of_largest(points),
        scales=tuple(scales),
        pays_up_to=next(stops, None),
    )


def points_of(scales: Record) -> dict[str, list[Point]]:
    """What scaling.json says was measured of each arm."""
    return {
        arm: [Point(**point) for point in scale["measured"]]
        for arm, scale in scales.items()
        if arm != "schema"
    }


def lines(made: Forecast, *, mode: scaling.Mode) -> Iterator[str]:
    """A forecast as a table in plain text, and what follows from it."""
    speed = made.link_bytes_per_second
    link = "too fast to measure" if speed is None else f"{speed * 8 / 1e9:.2f} Gbit/s"
    yield f"{made.arm}, {mode} scaling: {made.gradient_bytes / 1e6:.1f} MB of gradients, measured link {link}"
    yield f"{'workers':>9}{'nodes':>7}{'images/s':>12}{'efficiency':>12}{'price of a million images':>27}"
    for scale in made.scales:
        price = "" if scale.price_per_million is None else f"{scale.price_per_million:.2f}"
        yield (
            f"{scale.workers:>9}{scale.nodes:>7}{scale.images_per_second:>12,.0f}{scale.efficiency:>12.0%}"
            f"{price:>27}".rstrip()
        )
    if made.pays_up_to is None:
        yield f"each doubling up to {made.scales[-1].workers} workers shortens training by a quarter or more"
    else:
        yield (
            f"it stops paying at {made.pays_up_to} workers: twice as many shorten training by less than a quarter"
        )
    if made.error is None:
        yield "error not known: measure on three numbers of workers, such as --workers 1,2,4"
    else:
        yield f"error on the largest measured scale, predicted from the smaller ones: {made.error:.0%}"
