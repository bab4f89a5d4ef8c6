from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from trainers.data.batches import augment, epoch_steps, prefetched, steps_per_epoch
from trainers.recipes import Augmentation

N = 103


@dataclasses.dataclass
class Batch:
    """One step of a block."""

    images: np.ndarray
    labels: np.ndarray
    learning_rate: float
    loss_scale: float


def batches(
    *,
    rank: int = 0,
    world_size: int = 1,
    epoch: int = 1,
    seed: int = 0,
    batch_size: int = 12,
    augmentation: Augmentation | None = None,
    images: np.ndarray | None = None,
    first_step: int = 0,
) -> list[Batch]:
    if images is None:
        images = np.arange(N, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    steps = steps_per_epoch(N, batch_size)
    blocks = epoch_steps(
        images,
        np.arange(N),
        augmentation=augmentation or Augmentation(),
        batch_size=batch_size,
        learning_rates=np.linspace(1, 2, steps),
        seed=seed,
        epoch=epoch,
        rank=rank,
        world_size=world_size,
        first_step=first_step,
    )
    return [
        Batch(block.images[step], block.labels[step], block.learning_rates[step], block.loss_scale)
        for block in prefetched(blocks)
        for step in range(len(block))
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 12])
def test_the_union_of_the_shares_does_not_depend_on_the_world_size(world_size: int) -> None:
    whole = batches()
    shares = [batches(rank=rank, world_size=world_size) for rank in range(world_size)]
    for step, batch in enumerate(whole):
        counted = [share[step] for share in shares if share[step].loss_scale]
        labels = np.concatenate([share.labels for share in counted])
        assert labels.tolist() == batch.labels.tolist()
        assert sum(len(share.labels) * share.loss_scale for share in counted) == pytest.approx(1)
        assert {share[step].learning_rate for share in shares} == {batch.learning_rate}
        assert all(len(share[step].labels) for share in shares), "everyone takes part"


def test_every_example_is_seen_once_an_epoch_in_an_order_of_its_own() -> None:
    first, second = ([label for batch in batches(epoch=epoch) for label in batch.labels] for epoch in (1, 2))
    assert sorted(first) == sorted(second) == list(range(N))
    assert first != second
    assert first == [label for batch in batches(epoch=1) for label in batch.labels]


@pytest.mark.parametrize("first_step", [1, 5, 8])
def test_an_epoch_goes_on_in_its_middle_with_the_same_batches(first_step: int) -> None:
    augmentation = Augmentation(flip=True, crop=1)
    whole = batches(augmentation=augmentation)
    rest = batches(augmentation=augmentation, first_step=first_step)
    assert len(rest) == len(whole) - first_step
    for expected, batch in zip(whole[first_step:], rest, strict=True):
        assert np.array_equal(batch.images, expected.images)
        assert batch.learning_rate == expected.learning_rate


@pytest.mark.parametrize(
    ("side", "step_seconds", "longest"),
    [(4, 0.001, 32), (4, 0.1, 5), (4, 0.7, 1), (256, 0.001, 8 * 2**20 // (8 * 256 * 256)), (2048, 0.001, 1)],
)
def test_a_block_is_bounded_in_steps_bytes_and_seconds(side: int, step_seconds: float, longest: int) -> None:
    images = np.broadcast_to(np.zeros((1, side, side, 1), np.uint8), (8 * 70, side, side, 1))
    blocks = epoch_steps(
        images,
        np.zeros(len(images), np.int64),
        augmentation=Augmentation(),
        batch_size=8,
        learning_rates=np.ones(70),
        seed=0,
        epoch=1,
        rank=0,
        world_size=1,
        step_seconds=step_seconds,
    )
    assert len(next(blocks)) == longest


def test_images_stay_with_their_labels() -> None:
    for batch in batches(world_size=2, rank=1):
        assert np.array_equal(batch.images[:, 0, 0, 0], batch.labels)


def test_flip_mirrors_and_crop_shifts_with_reflected_edges() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    mirrored = augment(image.copy(), Augmentation(flip=True), np.array([[1], [0], [0]]))
    assert np.array_equal(mirrored[0, :, :, 0], image[0, :, ::-1, 0])
    still = augment(image, Augmentation(crop=1), np.array([[0], [1], [1]]))
    assert np.array_equal(still, image)
    shifted = augment(image, Augmentation(crop=1), np.array([[0], [0], [2]]))
    padded = np.pad(image[0, :, :, 0], 1, mode="reflect")
    assert np.array_equal(shifted[0, :, :, 0], padded[0:4, 2:6])
    both = augment(image, Augmentation(flip=True, crop=1), np.array([[1], [0], [2]]))
    assert np.array_equal(both[0], shifted[0, :, ::-1])


def test_an_image_is_mirrored_in_every_other_epoch() -> None:
    images = np.zeros((N, 4, 4, 1), np.uint8)
    images[:, :, 0] = 1

    def mirrored(epoch: int) -> np.ndarray:
        of_label = np.zeros(N, np.bool_)
        for batch in batches(images=images, augmentation=Augmentation(flip=True), epoch=epoch):
            of_label[batch.labels] = batch.images[:, 0, -1, 0] == 1
        return of_label

    assert 0.3 * N < mirrored(1).sum() < 0.7 * N
    assert np.array_equal(mirrored(2), ~mirrored(1))
    assert np.array_equal(mirrored(3), mirrored(1))


def test_augmentation_is_the_same_whatever_the_world_size() -> None:
    augmentation = Augmentation(flip=True, crop=2)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (N, 8, 8, 3)).astype(np.uint8)

    def gather(world_size: int) -> np.ndarray:
        shares = [
            [
                batch.images
                for batch in batches(
                    images=images,
                    augmentation=augmentation,
                    seed=5,
                    epoch=3,
                    rank=rank,
                    world_size=world_size,
                )
                if batch.loss_scale
            ]
            for rank in range(world_size)
        ]
        return np.concatenate([np.concatenate(step) for step in zip(*shares, strict=True)])

    assert np.array_equal(gather(1), gather(3))
    assert not np.array_equal(gather(1), images)
