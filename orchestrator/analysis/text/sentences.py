"""What an experiment shows, in plain words, and what it does not show."""

from __future__ import annotations

from orchestrator.analysis import attribution
from orchestrator.analysis.arms import ArmSummary
from orchestrator.analysis.attribution import Attribution
from orchestrator.analysis.pairs import LEAST_GROUPS, PairComparison, times
from orchestrator.analysis.performance import Performance
from orchestrator.analysis.statistics.inference import LEAST_SEEDS, Interval
from orchestrator.analysis.statistics.verdicts import Judgement, Obstacle, Verdict
from orchestrator.analysis.text.many_arms import against, several
from orchestrator.analysis.text.phrases import (
    basis,
    detectable,
    equality,
    interval_of,
    means,
    no_margin,
    pair_of,
    ranked,
    scored,
    seeds_of,
    shortened,
)
from orchestrator.analysis.wording import counted, duration, listed, points

_TELLING = 0.005


def conclusion(
    arms: list[ArmSummary],
    pairs: list[PairComparison],
    found: Attribution | None,
    performance: Performance,
    *,
    baseline: str | None = None,
) -> str:
    """What the experiment shows.

    Args:
        arms: in their order.
        pairs: the comparisons that were made.
        found: what the gap is made of, where that was asked.
        performance: what the arms took.
        baseline: the arm that the others are compared with, and not with each other.
    """
    if found is not None:
        return _taken_apart(arms, pairs, found, performance)
    return _ranked(arms, pairs, performance, baseline)


def _ranked(
    arms: list[ArmSummary], pairs: list[PairComparison], performance: Performance, baseline: str | None
) -> str:
    measured = [arm for arm in arms if arm.score is not None]
    if not measured and any(arm.done for arm in arms):
        return f"No run has {arms[0].metric.title}, so there is nothing to compare."
    if not measured:
        return "No run has finished, so there is nothing to compare yet."
    if len(arms) == 1:
        return " ".join([f"{scored(arms[0])}; there is no second arm to compare it with.", *_cautions(arms)])
    missing = [arm for arm in arms if arm.score is None]
    without = _without(missing) if missing else ""
    if len(measured) == 1:
        told = f"{scored(measured[0])}; {without}, so there is nothing to compare it with."
        return " ".join([told, *_cautions(measured)])
    if baseline is not None and len(arms) > 2:
        sentences = against(baseline, measured, pairs)
    elif len(measured) == 2:
        sentences = [verdict(measured, pair_of(pairs, *measured))]
    else:
        sentences = several(measured, pairs)
    sentences += _cautions(measured)
    if missing:
        sentences.append(f"{without}.")
    leading = _leading(measured, pairs, baseline)
    if leading is not None:
        sentences += _second_half(measured, leading, performance)
    return " ".join(sentences)


def _without(missing: list[ArmSummary]) -> str:
    names = listed([arm.name for arm in missing])
    what = f"no {missing[0].metric.title}" if any(arm.done for arm in missing) else "no finished run"
    return f"{names} {'has' if len(missing) == 1 else 'have'} {what}"


def _second_half(arms: list[ArmSummary], pair: PairComparison, performance: Performance) -> list[str]:
    """What two arms differ in, and how long they took."""
    by_name = {arm.name: arm for arm in arms}
    first, second = by_name[pair.first], by_name[pair.second]
    told = [
        _reversal(pair),
        _credit(pair),
        _parity(first, second, pair),
        _speed(first, second, pair, performance),
    ]
    subject = f"Between {pair.first} and {pair.second}: " if len(arms) > 2 else ""
    sentences = [sentence.strip() for sentence in told if sentence]
    return [f"{subject}{sentences[0]}", *sentences[1:]] if sentences else []


def _leading(
    arms: list[ArmSummary], pairs: list[PairComparison], baseline: str | None
) -> PairComparison | None:
    """The comparison of the two best arms, or of the best with the baseline; None where it was not made."""
    order = ranked(arms)
    order.sort(key=lambda arm: seeds_of(arm) < LEAST_SEEDS)
    if baseline is not None:
        order.sort(key=lambda arm: arm.name != baseline)
    names = {arm.name for arm in order[:2]}
    return next((pair for pair in pairs if {*pair.names} == names), None)


def verdict(arms: list[ArmSummary], pair: PairComparison) -> str:
    """What is proven of two arms, with the means and the interval that prove it."""
    judgement = pair.judgement
    assert judgement is not None
    by_name = {arm.name: arm for arm in arms}
    metric = pair.metric
    names = pair.names if pair.leader == pair.first else pair.names[::-1]
    ahead, behind = by_name[names[0]], by_name[names[1]]
    if pair.same_predictions and not judgement.gap.mean:
        return _same_predictions(ahead, pair, judgement)
    if judgement.obstacle is not None:
        return _no_verdict(ahead, behind, judgement.obstacle)
    best, other = means(ahead, behind)
    gap = metric.gap(abs(judgement.gap.mean))
    if pair.ahead is not None:
        more = metric.compared("more")
        lead = f"{ahead.name} is {more} than {behind.name}: {best} against {other}{metric.where}."
        held = f"The gap of {gap} ({interval_of(judgement, pair)}; {basis(pair)})"
        if metric.margin is None:
            proof = f"{held} is proven; no margin is set, so its size is not judged."
        elif judgement.verdict is Verdict.BETTER_BY_MORE:
            proof = f"{held} is larger than the margin of {metric.tolerance}."
        elif judgement.is_below_margin:
            proof = f"{held} is smaller than the margin of {metric.tolerance} ({equality(judgement, pair)})."
        else:
            proof = f"{held} is proven; whether it is larger than the margin of {metric.tolerance} is open."
        unexpected = " That is unexpected, since parity found the same work in both frameworks."
        return f"{lead} {proof}{unexpected if pair.is_same_work else ''}"
    favour = f" in favour of {ahead.name}" if judgement.gap.mean else ""
    if judgement.verdict is Verdict.EQUAL:
        expected = ", as parity predicts" if pair.is_same_work else ""
        return (
            f"{ahead.name} and {behind.name} are {metric.compared('equally')} within {metric.tolerance}{expected}: "
            f"{best} and {other}{metric.where}. The gap of {gap}{favour} ({basis(pair)}) has a "
            f"{equality(judgement, pair)}, inside the margin ({interval_of(judgement, pair)})."
        )
    expected = (
        " Parity found the same work in both frameworks, so no gap is expected." if pair.is_same_work else ""
    )
    return (
        f"{ahead.name} and {behind.name} cannot be told apart in {metric.noun}: {best} and {other}{metric.where}. "
        f"The gap of {gap}{favour} is not enough evidence ({interval_of(judgement, pair)}; {basis(pair)})."
        f"{detectable(judgement, pair)}{no_margin(metric)}{expected}"
    )


def _same_predictions(arm: ArmSummary, pair: PairComparison, judgement: Judgement) -> str:
    assert arm.score is not None
    metric = pair.metric
    seeds = f"each of {len(arm.done)} seeds" if len(arm.done) > 1 else "their seed"
    expected = ", as parity predicts" if pair.is_same_work else ""
    images = f"all {pair.images:,} test images" if pair.images else "every test image"
    lead = (
        f"{pair.first} and {pair.second} gave the same prediction for {images} with {seeds}{expected}: "
        f"{metric.attained(arm.score.mean)}."
    )
    if judgement.verdict is not Verdict.EQUAL:
        return lead
    return (
        f"{lead} On other images they are {metric.compared('equally')} within {metric.tolerance} "
        f"({equality(judgement, pair)})."
    )


def _no_verdict(ahead: ArmSummary, behind: ArmSummary, obstacle: Obstacle) -> str:
    metric = ahead.metric
    best, other = means(ahead, behind)
    scores = f"{ahead.name} scored {best} and {behind.name} {other}{metric.where}."
    if obstacle is Obstacle.NO_SPREAD:
        return (
            f"No verdict on {metric.noun}: the seeds of {ahead.name} and {behind.name} do not vary, which proves "
            f"nothing, and the values of single test examples are not known. {scores}"
        )
    seeds = (
        f"{ahead.name} has {counted(seeds_of(ahead), 'finished seed')} and {behind.name} {seeds_of(behind)}"
    )
    return f"No verdict on {metric.noun}: {seeds}, and a verdict needs {LEAST_SEEDS} on each side. {scores}"


def _cautions(arms: list[ArmSummary]) -> list[str]:
    """What a reader of the first sentence must know: unfinished seeds, and seeds that learned nothing."""
    sentences = []
    partial = [
        f"{arm.name} finished {len(arm.done)} of {counted(len(arm.runs), 'seed')}"
        for arm in arms
        if len(arm.done) < len(arm.runs)
    ]
    if partial:
        sentences.append(f"{shortened(partial)}.")
    guessing = []
    for arm in arms:
        if arm.guessing:
            all_of_them = len(arm.guessing) == len(arm.done)
            seeds = f"seed{'' if len(arm.guessing) == 1 else 's'} {listed([*map(str, arm.guessing)])}"
            guessing.append(arm.name if all_of_them else f"{arm.name} with {seeds}")
    if guessing:
        sentences.append(f"Not told from guessing: {shortened(guessing)}.")
    return sentences


def _reversal(pair: PairComparison) -> str:
    """That balanced accuracy puts two arms in the other order."""
    if pair.ahead is None or pair.judgement is None or pair.balanced_gap is None or not pair.metric.rival:
        return ""
    if pair.balanced_gap * pair.judgement.gap.mean >= 0 or abs(pair.balanced_gap) < _TELLING:
        return ""
    other = pair.second if pair.ahead == pair.first else pair.first
    return (
        f"By balanced accuracy, which counts every class alike, the order is the reverse: {other} is "
        f"{points(abs(pair.balanced_gap))} points ahead."
    )


def _taken_apart(
    arms: list[ArmSummary], pairs: list[PairComparison], found: Attribution, performance: Performance
) -> str:
    """The conclusion of an attribution: the gap between its two arms, and what it is made of."""
    by_name = {arm.name: arm for arm in arms}
    ends = first, second = [by_name[found.plan.first], by_name[found.plan.second]]
    split = attribution.sentence(found)
    if not found.shares:
        return f"{_ranked(ends, pairs, performance, None)} {split}"
    (pair,) = pairs
    told = [
        verdict(ends, pair),
        *_cautions(ends),
        split,
        _parity(first, second, pair),
        _speed(first, second, pair, performance),
    ]
    return " ".join(sentence.strip() for sentence in told if sentence)


def _parity(first: ArmSummary, second: ArmSummary, pair: PairComparison) -> str:
    """The verdict on both arms' recipes; nothing where the verdict on accuracy tells it already."""
    found = [arm.parity for arm in (first, second) if arm.parity is not None]
    tells_already = pair.is_same_work and pair.judgement is not None and pair.judgement.obstacle is None
    if pair.same_framework or not pair.same_code or tells_already or not found:
        return ""
    if failures := dict.fromkeys(pair.parity_failures):
        return (
            f" Beware: the two frameworks do not do the same work on these recipes ({'; '.join(failures)})."
        )
    named = dict.fromkeys(difference.sentence for parity in found for difference in parity.named)
    up_to = f" up to named differences: {'; '.join(named)}" if named else ""
    return f" Both frameworks do the same work on these recipes{up_to}."


def _credit(pair: PairComparison) -> str:
    subject = "arms" if pair.same_framework else "arms besides the framework"
    factors = "; ".join(pair.differences)
    if not pair.same_code:
        known = f"What differs between the arms: {factors}; what" if factors else "What"
        return (
            f"{known} a training function does is not known to tandem, so nothing can be credited with a gap."
        )
    if not pair.differences:
        if pair.same_framework:
            return "The arms differ in nothing."
        return "The arms differ in nothing but the framework."
    credit = (
        "so no single one of these can be credited"
        if pair.same_framework
        else "so the framework alone cannot be credited with any gap"
    )
    if pair.same_framework and len(pair.differences) == 1:
        return f"The {subject} differ only in {factors}."
    return f"What differs between the {subject}: {factors}; {credit}."


def _speed(first: ArmSummary, second: ArmSummary, pair: PairComparison, performance: Performance) -> str:
    """Time to the end and to the target, then images/s, then start-up; a verdict only on independent groups."""
    found = pair.speed
    if found is None or found.end is None:
        return ""
    arms = [first, second] if found.end.mean <= 0 else [second, first]
    took = [performance.arms[arm.name] for arm in arms]
    names = [arm.name for arm in arms]
    ends, targets = (
        [duration(measure.interval.mean) for measure in measures if measure is not None]
        for measures in ([arm.end_seconds for arm in took], [arm.target_seconds for arm in took])
    )
    end = "the end" if first.is_own or second.is_own else "the end of the test"
    whole = f"{names[0]} took {ends[0]} and {names[1]} {ends[1]} from a cold start to {end}"
    parts = []
    if found.target is not None and performance.target is not None:
        parts.append(
            f"{targets[0]} and {targets[1]} to {performance.target * 100:.1f} % {performance.split} accuracy"
            f"{_ratio(found.target, names[0] == pair.first)}"
        )
    if found.rate is not None:
        rates = [arm.images_per_second.mean if arm.images_per_second else 0.0 for arm in arms]
        parts.append(
            f"{rates[0]:,.0f} and {rates[1]:,.0f} images/s once warm{_ratio(found.rate, names[0] == pair.first)}"
        )
    starts = [arm.seconds.get("start-up", 0.0) for arm in took]
    if any(starts):
        parts.append(f"{duration(starts[0])} and {duration(starts[1])} of start-up")
    detail = f" ({'; '.join(parts)})" if parts else ""
    doubt = f" Beware: {found.doubt}." if found.doubt else ""
    if found.groups is None or found.end.low is None or found.end.high is None:
        if performance.is_apart:
            why = f"a verdict needs {LEAST_GROUPS} groups of fresh processes on each side"
        elif first.is_own and second.is_own:
            why = "measure_speed: true trains the runs one at a time, arms in turn"
        else:
            why = "runs share processes; measure_speed: true trains each in fresh ones"
        return f"{whole}{detail}. There is no verdict on speed: {why}.{doubt}"
    groups = f"over {found.groups[0]} and {found.groups[1]} groups of fresh processes"
    ratio = _ratio(found.end, names[0] == pair.first).removeprefix(", ")
    told = (
        "They cannot be told apart in time"
        if found.end.low <= 0 <= found.end.high
        else f"{names[0]} is faster"
    )
    return f"{told}: {whole}, {ratio}, {groups}{detail}.{doubt}"


def _ratio(log_ratio: Interval, in_order: bool) -> str:
    """`, ratio 0.80 (0.75 to 0.86)`, of the arm that is named first; empty without an interval."""
    if log_ratio.low is None or log_ratio.high is None:
        return ""
    sign = 1 if in_order else -1
    low, high = sorted((sign * log_ratio.low, sign * log_ratio.high))
    return f", ratio {times(sign * log_ratio.mean)} (95 % interval {times(low)} to {times(high)})"
