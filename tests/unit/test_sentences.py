"""Thousands of planted experiments: each sentence is checked against the data, the table and the planted truth.

What a sentence says is read back from its text, and compared with what was planted, not with the code that wrote it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
from scipy import stats

from orchestrator.analysis.pairs import PairComparison
from orchestrator.analysis.statistics.verdicts import Verdict
from orchestrator.report import tables
from tests.unit.planted import Planted, plant_arm, planted
from tests.unit.simulated import POPULATIONS

NAMES = ["keras", "torch", "a", "b-2", "c", "d", "e", "f", "g", "3x3"]
NUMBER = r"[-+]?\d+(?:\.\d+)?"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What was planted."""

    told: Planted
    means: dict[str, float]
    """Of all finished seeds, from the planted predictions."""
    finished: dict[str, int]
    truths: dict[str, float] | None
    """The accuracy that each arm's seeds have on average over all images; None where seeds were tampered with."""
    margin: float
    baseline: str | None
    collapsed: dict[str, list[int]]


def plant(number: int) -> Experiment:
    """The experiment of a number: arms, seeds, ties, collapses, NaN, missing predictions, all by chance."""
    generator = np.random.default_rng(number)
    count = int(generator.choice([2, 2, 2, 3, 4, 5, 7, 10]))
    images = int(generator.choice([60, 150, 359]))
    population = POPULATIONS[str(generator.choice([*POPULATIONS]))]
    labels = labels_of(generator, images)
    seeds = seeds_of(generator, count)
    gaps = [float(generator.choice([0, 0, 0, 0.002, 0.01, 0.03, 0.1])) for _ in range(count)]
    rights = population.draw(generator, [len(own) for own in seeds], images, gaps)
    truths: dict[str, float] | None = {
        name: population.accuracy - gap for name, gap in zip(NAMES, gaps, strict=False)
    }
    for place in range(1, count):
        if generator.random() < 0.08 and len(seeds[place]) == len(seeds[place - 1]):
            rights[place] = rights[place - 1].copy()  # a tie in every prediction
            truths = None
    if generator.random() < 0.08:
        rights = [np.repeat(own[:1], len(own), axis=0) for own in rights]  # the seeds change nothing
        truths = None
    collapsed: dict[str, list[int]] = {}
    if generator.random() < 0.1:
        place = int(generator.integers(count))
        rows = generator.random(len(seeds[place])) < 0.5
        rights[place][rows] = labels == int(np.bincount(labels).argmax())
        collapsed[NAMES[place]] = [seed for seed, row in zip(seeds[place], rows, strict=True) if row]
        truths = None
    per_image = generator.random() < 0.9
    bad = [generator.random(len(own)) < (0.1 if generator.random() < 0.2 else 0) for own in seeds]
    pending = [generator.random(len(own)) < (0.1 if generator.random() < 0.2 else 0) for own in seeds]
    agrees = generator.choice([None, True, False], p=[0.6, 0.3, 0.1])
    other = {"batch_size": 64} if generator.random() < 0.3 else {}
    arms = [
        plant_arm(
            NAMES[place],
            rights[place],
            labels,
            seeds=seeds[place],
            framework="torch" if place % 2 else "keras",
            seconds=generator.uniform(5, 15, len(seeds[place])).tolist(),
            accuracies=[math.nan if nan else None for nan in bad[place]],
            finished=[not wait for wait in pending[place]],
            per_image=per_image,
            agrees=None if agrees is None else bool(agrees),
            recipe={"batch_size": 128} | (other if place else {}),
        )
        for place in range(count)
    ]
    margin = float(generator.choice([0.005, 0.01, 0.05]))
    baseline = NAMES[int(generator.integers(count))] if generator.random() < 0.2 and count > 2 else None
    told = planted(
        arms,
        labels if per_image else None,
        margin=margin,
        baseline=baseline,
        measure_speed=bool(generator.random() < 0.3),
    )
    kept = [~(nan | wait) for nan, wait in zip(bad, pending, strict=True)]
    return Experiment(
        told=told,
        means={
            NAMES[place]: float(rights[place][kept[place]].mean())
            for place in range(count)
            if kept[place].any()
        },
        finished={NAMES[place]: int(kept[place].sum()) for place in range(count)},
        truths=truths if per_image else None,
        margin=margin,
        baseline=baseline,
        collapsed={
            name: [seed for seed in own if kept[NAMES.index(name)][seeds[NAMES.index(name)].index(seed)]]
            for name, own in collapsed.items()
        },
    )


def labels_of(generator: np.random.Generator, images: int) -> np.ndarray:
    """Classes of the images, all alike or one of them by far the commonest; each has at least one image."""
    classes = int(generator.choice([2, 3, 10]))
    shares = np.full(classes, 1 / classes)
    if generator.random() < 0.3:
        shares = np.array([0.8, *np.full(classes - 1, 0.2 / (classes - 1))])
    labels = generator.choice(classes, images, p=shares)
    labels[:classes] = np.arange(classes)
    return labels


def seeds_of(generator: np.random.Generator, arms: int) -> list[list[int]]:
    """Of each arm: the same, partly the same, or none in common; 1 to 20."""
    number = int(generator.choice([1, 2, 3, 3, 4, 5, 10, 20]))
    kind = generator.choice(["shared", "partly", "none", "unequal"], p=[0.6, 0.15, 0.1, 0.15])
    if kind == "shared":
        return [list(range(number)) for _ in range(arms)]
    if kind == "partly":
        return [list(range(arm, arm + number)) for arm in range(arms)]
    if kind == "none":
        return [list(range(100 * arm, 100 * arm + number)) for arm in range(arms)]
    return [list(range(int(generator.integers(1, 8)))) for _ in range(arms)]


def expected_verdict(pair: PairComparison, margin: float) -> Verdict:
    """From the two intervals alone."""
    judgement = pair.judgement
    assert judgement is not None
    if judgement.gap.low is None or judgement.gap.high is None:
        return Verdict.UNDECIDED
    assert judgement.equality.low is not None and judgement.equality.high is not None
    if judgement.gap.low > margin or judgement.gap.high < -margin:
        return Verdict.BETTER_BY_MORE
    if judgement.gap.low > 0 or judgement.gap.high < 0:
        return Verdict.BETTER
    if -margin < judgement.equality.low and judgement.equality.high < margin:
        return Verdict.EQUAL
    return Verdict.UNDECIDED


def check_pairs(made: Experiment) -> None:
    """Every comparison: its mean, its interval, its p-value and its verdict agree."""
    told = made.told
    table = {row["pair"]: row for row in tables.evidences(told.pairs)}
    names = [arm.name for arm in told.arms]
    expected = (
        {(name, made.baseline) for name in names if name != made.baseline}
        if made.baseline
        else set(itertools.combinations(names, 2))
    )
    assert {pair.names for pair in told.pairs} == expected
    judged = sum(min(made.finished[name] for name in pair.names) >= 3 for pair in told.pairs)
    for pair in told.pairs:
        judgement = pair.judgement
        if not all(made.finished[name] for name in pair.names):
            assert judgement is None
            continue
        assert judgement is not None
        gap, first, second = judgement.gap, pair.first, pair.second
        assert gap.mean == pytest.approx(made.means[first] - made.means[second], abs=1e-9)
        assert pair.seeds == (made.finished[first], made.finished[second])
        assert judgement.verdict is expected_verdict(pair, made.margin)
        if min(pair.seeds) < 3:
            assert gap.low is None and judgement.p_value is None and judgement.detectable is None
            assert not judgement.is_decided
        else:
            assert judgement.comparisons == judged
        if gap.low is not None and gap.high is not None:
            equality = judgement.equality
            assert equality.low is not None and equality.high is not None and judgement.p_value is not None
            assert -1 <= gap.low <= equality.low <= gap.mean <= equality.high <= gap.high <= 1
            if abs(judgement.p_value - 0.05) > 1e-6:
                assert (judgement.p_value < 0.05) == judgement.tells_apart
        if pair.discordant is not None and pair.images is not None:
            assert (pair.discordant[0] - pair.discordant[1]) / pair.images == pytest.approx(
                gap.mean, abs=1e-9
            )
        row = table[f"{first} − {second}"]
        if pair.ahead is not None:
            assert pair.ahead == (first if gap.mean > 0 else second)
            assert row["verdict"].startswith(f"{pair.ahead} is better")
        else:
            assert "better" not in row["verdict"]
        shown = [float(text) / 100 for text in re.findall(NUMBER, row["gap, 95 %"])]
        assert shown == pytest.approx(
            [value for value in (gap.mean, gap.low, gap.high) if value is not None], abs=0.5e-4 + 1e-9
        )


def numbers(text: str) -> list[float]:
    return [float(number) / 100 for number in re.findall(NUMBER, text)]


def same(shown: float, value: float) -> bool:
    return abs(shown - value) <= 0.5e-4 + 1e-9


NAME = r"([a-z0-9][a-z0-9-]*)"
MORE = re.compile(
    rf"^{NAME} is more accurate than {NAME}: ({NUMBER}) % against ({NUMBER}) % on the test images\. The gap of "
    rf"({NUMBER}) points \(95 % interval ({NUMBER}) to ({NUMBER}); over ([^)]*)\) (.*?)\.( |$)"
)
EQUAL = re.compile(
    rf"^{NAME} and {NAME} are equally accurate within ({NUMBER}) points?(, as parity predicts)?: ({NUMBER}) % and "
    rf"({NUMBER}) % on the test images\. The gap of ({NUMBER}) points(?: in favour of {NAME})? \(over ([^)]*)\) has a "
    rf"90 % interval ({NUMBER}) to ({NUMBER}), inside the margin \(95 % interval ({NUMBER}) to ({NUMBER})\)\."
)
OPEN = re.compile(
    rf"^{NAME} and {NAME} cannot be told apart in accuracy: ({NUMBER}) % and ({NUMBER}) % on the test images\. The gap "
    rf"of ({NUMBER}) points(?: in favour of {NAME})? is not enough evidence \(95 % interval ({NUMBER}) to ({NUMBER}); "
    rf"over ([^)]*)\)\."
)
SAME = re.compile(
    rf"^{NAME} and {NAME} gave the same prediction for all ([\d,]+) test images with (?:each of (\d+) seeds|their seed)"
    rf"(, as parity predicts)?: ({NUMBER}) % are right\."
)
NONE = re.compile(r"^No verdict on accuracy: ")


def check_basis(basis: str, pair: PairComparison) -> None:
    first, second = pair.seeds
    assert f"{first} paired seeds" in basis if pair.is_paired else f"{first} and {second} seeds" in basis
    assert ("test images" in basis) == (pair.images is not None) == ("alone" not in basis)


def check_two(made: Experiment) -> str:
    """The first sentences of a comparison of two arms; returns their kind."""
    told = made.told
    names = [arm.name for arm in told.arms if made.finished[arm.name]]
    pair = told.pair(names[0], names[1])
    judgement = pair.judgement
    assert judgement is not None
    oriented = {name: made.means[name] for name in names}
    if found := MORE.match(told.conclusion):
        ahead, behind, best, other, gap, low, high, basis, size, _ = found.groups()
        assert judgement.verdict in (Verdict.BETTER, Verdict.BETTER_BY_MORE) and pair.ahead == ahead
        assert oriented[ahead] > oriented[behind] and float(best) > float(other)
        assert same(float(best) / 100, oriented[ahead]) and same(float(other) / 100, oriented[behind])
        assert same(float(gap) / 100, oriented[ahead] - oriented[behind])
        assert 0 < float(low) <= float(gap) <= float(high)
        ends = sorted(abs(end) for end in (judgement.gap.low, judgement.gap.high) if end is not None)
        assert same(float(low) / 100, ends[0]) and same(float(high) / 100, ends[1])
        check_basis(basis, pair)
        if size.startswith("is larger than the margin"):
            assert float(low) / 100 > made.margin - 1e-4
        elif size.startswith("is smaller than the margin"):
            assert abs(judgement.gap.mean) < made.margin
            ninety = numbers(size.partition("90 % interval")[2])
            assert all(-made.margin - 1e-4 < end < made.margin + 1e-4 for end in ninety) and len(ninety) == 2
        else:
            assert size.startswith("is proven; whether it is larger") and size.endswith("is open")
        return "more"
    if found := EQUAL.match(told.conclusion):
        one, two, margin, expected, first, second, gap, favour, basis, *ends = found.groups()
        assert judgement.verdict is Verdict.EQUAL and float(margin) / 100 == pytest.approx(made.margin)
        assert same(float(first) / 100, oriented[one]) and same(float(second) / 100, oriented[two])
        assert same(float(gap) / 100, abs(oriented[one] - oriented[two]))
        assert favour is None or oriented[favour] == max(oriented.values())
        low, high = float(ends[0]) / 100, float(ends[1]) / 100
        assert -made.margin - 1e-4 < low <= high < made.margin + 1e-4, "the interval that proves it is inside"
        assert float(ends[2]) <= float(ends[0]) <= float(ends[1]) <= float(ends[3])
        assert (expected is not None) == pair.is_same_work
        check_basis(basis, pair)
        return "equal"
    if found := OPEN.match(told.conclusion):
        one, two, first, second, gap, favour, low_text, high_text, basis = found.groups()
        assert judgement.verdict is Verdict.UNDECIDED and judgement.obstacle is None
        assert same(float(first) / 100, oriented[one]) and same(float(second) / 100, oriented[two])
        assert favour is None or oriented[favour] == max(oriented.values())
        assert float(low_text) <= 0 <= float(high_text)
        check_basis(basis, pair)
        return "open"
    if found := SAME.match(told.conclusion):
        _, _, images, seeds, expected, score = found.groups()
        assert pair.same_predictions and int(images.replace(",", "")) == pair.images
        assert seeds is None or int(seeds) == pair.seeds[0] == pair.seeds[1]
        assert same(float(score) / 100, oriented[names[0]]) and oriented[names[0]] == oriented[names[1]]
        assert (expected is not None) == pair.is_same_work
        return "same"
    assert NONE.match(told.conclusion), told.conclusion
    assert judgement.obstacle is not None
    for name in names:
        found_score = re.search(rf"(?<![\w-]){name} (?:scored )?({NUMBER}) %", told.conclusion)
        assert found_score is not None and same(float(found_score[1]) / 100, made.means[name]), (
            told.conclusion
        )
    return "none"


def check_several(made: Experiment) -> str:
    """The first sentences on three arms or more."""
    told = made.told
    judged = [name for name, seeds in made.finished.items() if seeds >= 3]
    if NONE.match(told.conclusion):
        assert len(judged) < 2
        return "none of several"
    top = max(judged, key=lambda name: made.means[name])
    behind_top = {name for name in judged if name != top and (told.pair(top, name).ahead is not None)}
    assert all(told.pair(top, name).ahead == top for name in behind_top)
    start = rf"^Of {len(judged)} arms(?: with enough seeds)?, "
    if found := re.match(
        start
        + rf"{NAME} is more accurate than all others: ({NUMBER}) % on the test images, ({NUMBER}) points ahead of "
        rf"{NAME} \(95 % interval(?: for \d+ comparisons together)? ({NUMBER}) to ({NUMBER}); over [^)]*\), "
        r"(.*?)\.( |$)",
        told.conclusion,
    ):
        name, score, gap, nearest, low, _, size, _ = found.groups()
        assert behind_top == set(judged) - {top} and made.means[name] == made.means[top]
        assert same(float(score) / 100, made.means[name]) and float(low) > 0
        assert same(float(gap) / 100, made.means[name] - made.means[nearest])
        assert made.means[nearest] == max(made.means[other] for other in judged if other != name)
        by_more = told.pair(name, nearest).judgement
        assert by_more is not None
        assert ("not proven" not in size) == (by_more.verdict is Verdict.BETTER_BY_MORE)
        return "first of several"
    found = re.match(
        start
        + rf"(.*?) (are equally accurate within ({NUMBER}) points?|cannot be told apart in accuracy|cannot be told "
        rf"from {NAME} in accuracy); the highest test accuracy is ({NUMBER}) %, by {NAME}\.",
        told.conclusion,
    )
    assert found is not None, told.conclusion
    names = re.split(r", | and ", found[1])
    from_top = "told from" in found[2]
    assert made.means[found[6]] == made.means[top] and same(float(found[5]) / 100, made.means[top])
    group = set(names) | ({found[4]} if from_top else set())
    assert group == set(judged) - behind_top
    within = [told.pair(one, two) for one, two in itertools.combinations(sorted(group), 2)]
    verdicts = {pair.judgement.verdict for pair in within if pair.judgement}
    if found[2].startswith("are equally"):
        assert verdicts == {Verdict.EQUAL}
    elif not from_top:
        assert all(pair.ahead is None for pair in within)
    for sentence in re.findall(r"(?:^|\. )([^.:]*?) (?:is|are) behind ([^.]*)\.", told.conclusion):
        for name in re.split(r", | and ", sentence[0]):
            assert told.pair(top, name).ahead == top
            if sentence[1] in ("both", "all of them"):
                assert all(told.pair(leader, name).ahead == leader for leader in group)
    return "tied of several"


def check_baseline(made: Experiment) -> str:
    told, base = made.told, made.baseline
    assert base is not None
    if not made.finished[base]:
        assert told.conclusion.startswith(f"The baseline {base} has no finished run")
        return "no baseline"
    found = re.match(
        rf"^Compared with the baseline {base}, ({NUMBER}) % on the test images, in points with 95 % intervals for "
        r"(\d+) comparisons? together: (.*?)\.( |$)",
        told.conclusion,
    )
    assert found is not None, told.conclusion
    assert same(float(found[1]) / 100, made.means[base])
    for part in found[3].split("; "):
        kind, _, names = re.sub(r" and \d+ more$", "", part).partition(": ")
        for item in re.finditer(
            rf"{NAME}(?: by ({NUMBER}) \(({NUMBER}) to ({NUMBER})\))?(?:, | and |$)", names
        ):
            pair = told.pair(item[1], base)
            better, worse = kind.startswith("more"), kind.startswith("less")
            assert (pair.ahead == item[1]) == better and (pair.ahead == base) == worse
            if better or worse:
                assert same(float(item[2]) / 100, abs(made.means[item[1]] - made.means[base]))
                assert 0 < float(item[3]) <= float(item[4])
            assert kind.startswith("equally") == (
                pair.judgement is not None and pair.judgement.verdict is Verdict.EQUAL
            )
    return "baseline"


def check_rest(made: Experiment) -> None:
    """What follows the verdict: unfinished seeds, guessing, speed."""
    told = made.told
    partial = [arm for arm in told.arms if 0 < len(arm.done) < len(arm.runs)]
    for arm in partial[:6]:
        assert f"{arm.name} finished {len(arm.done)} of {len(arm.runs)} seed" in told.conclusion
    for name, seeds in made.collapsed.items():
        arm = told.arm(name)
        assert set(seeds) <= set(arm.guessing)
        if seeds:
            assert re.search(rf"Not told from guessing: [^.]*(?<![\w-]){name}\b", told.conclusion), (
                told.conclusion
            )
    if "is faster" in told.conclusion:
        found = re.search(rf"{NAME} is faster: {NAME} took ([\d.]+) s and {NAME} ([\d.]+) s", told.conclusion)
        assert found is not None and found[1] == found[2] and float(found[3]) <= float(found[5])
        pair = told.pair(found[2], found[4])
        assert pair.speed is not None and pair.speed.groups is not None and min(pair.speed.groups) >= 3
        assert (
            pair.speed.end is not None and pair.speed.end.low is not None and pair.speed.end.high is not None
        )
        assert pair.speed.end.low > 0 or pair.speed.end.high < 0
    assert (
        "nan" not in told.conclusion.lower()
        and "None" not in told.conclusion
        and "-0.00 " not in told.conclusion
    )


def check(made: Experiment) -> str:
    """Everything that is said of an experiment; returns the kind of its first sentence."""
    check_pairs(made)
    check_rest(made)
    measured = [name for name, seeds in made.finished.items() if seeds]
    if not measured:
        assert made.told.conclusion.startswith("No run has finished")
        return "nothing"
    if len(measured) == 1:
        assert "nothing to compare it with" in made.told.conclusion
        return "one"
    if made.baseline is not None:
        return check_baseline(made)
    return check_two(made) if len(measured) == 2 else check_several(made)


def is_false(made: Experiment) -> tuple[bool, bool]:
    """Whether any verdict contradicts the planted truth, and whether any interval leaves it out."""
    assert made.truths is not None
    wrong = outside = False
    for pair in made.told.pairs:
        judgement = pair.judgement
        if judgement is None or judgement.gap.low is None or judgement.gap.high is None:
            continue
        truth = made.truths[pair.first] - made.truths[pair.second]
        outside |= not judgement.gap.low - 1e-12 <= truth <= judgement.gap.high + 1e-12
        if pair.ahead is not None:
            lead = truth if pair.ahead == pair.first else -truth
            wrong |= lead <= (made.margin if judgement.verdict is Verdict.BETTER_BY_MORE else 0)
        elif judgement.verdict is Verdict.EQUAL:
            wrong |= abs(truth) >= made.margin
    return wrong, outside


def run(numbers: range) -> dict[str, Any]:
    kinds: dict[str, int] = {}
    wrong = outside = known = 0
    for number in numbers:
        made = plant(number)
        try:
            kind = check(made)
        except AssertionError as error:
            raise AssertionError(f"experiment {number}: {made.told.conclusion}") from error
        kinds[kind] = kinds.get(kind, 0) + 1
        if made.truths is not None:
            false = is_false(made)
            known, wrong, outside = known + 1, wrong + false[0], outside + false[1]
    return {"kinds": kinds, "known": known, "wrong": wrong, "outside": outside}


KINDS = {
    "more",
    "equal",
    "open",
    "same",
    "none",
    "none of several",
    "first of several",
    "tied of several",
    "baseline",
}


def test_every_sentence_agrees_with_its_numbers() -> None:
    found = run(range(600))
    print(found)
    assert {*found["kinds"]} >= KINDS, "every kind of sentence was planted"
    assert found["wrong"] <= stats.binom.ppf(0.999, found["known"], 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_every_sentence_of_ten_thousand_experiments_agrees_with_its_numbers(part: int) -> None:
    found = run(range(10_000 + 2500 * part, 12_500 + 2500 * part))
    print(found)
    assert {*found["kinds"]} >= KINDS
    assert found["wrong"] <= stats.binom.ppf(0.999, found["known"], 0.05)
    assert found["outside"] <= stats.binom.ppf(0.999, found["known"], 0.05), (
        "all intervals of a report together"
    )
