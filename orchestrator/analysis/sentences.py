"""What an experiment shows, in plain words."""

from __future__ import annotations

from orchestrator.analysis import attribution
from orchestrator.analysis.arms import ArmSummary
from orchestrator.analysis.attribution import Attribution
from orchestrator.analysis.pairs import PairComparison, times


def answer(arms: list[ArmSummary], pairs: list[PairComparison], found: Attribution | None) -> str:
    """What the experiment shows, in plain words, with what it cannot show."""
    return _ranked(arms, pairs) if found is None else _taken_apart(arms, pairs, found)


def _ranked(arms: list[ArmSummary], pairs: list[PairComparison]) -> str:
    measured = [arm for arm in arms if arm.accuracy is not None]
    if not measured:
        return "No run has finished, so there is nothing to compare yet."
    if len(arms) == 1:
        return f"{_scored(arms[0])}; there is no second arm to compare it with."
    missing = [arm.name for arm in arms if arm.accuracy is None]
    without = f"{', '.join(missing)} {'has' if len(missing) == 1 else 'have'} no finished run"
    if len(measured) == 1:
        return f"{_scored(measured[0])}; {without}, so there is nothing to compare it with."
    return _first_two(measured, pairs) + (f" {without}." if missing else "")


def _first_two(arms: list[ArmSummary], pairs: list[PairComparison]) -> str:
    """The two best of several arms."""
    best, runner_up = sorted(arms, key=lambda arm: -(arm.accuracy.mean if arm.accuracy else 0))[:2]
    pair = next(pair for pair in pairs if {pair.first, pair.second} == {best.name, runner_up.name})
    by_name = {arm.name: arm for arm in (best, runner_up)}
    told = _pair_answer(by_name[pair.first], by_name[pair.second], pair)
    return told if len(arms) == 2 else f"Of {len(arms)} arms, the first two: {told}"


def _scored(arm: ArmSummary) -> str:
    assert arm.accuracy is not None
    seeds = f"mean of {len(arm.done)} seeds" if len(arm.done) > 1 else "one seed"
    return f"{arm.name} scored {arm.accuracy.mean:.2%} on the test images ({seeds})"


def _pair_answer(first: ArmSummary, second: ArmSummary, pair: PairComparison) -> str:
    return f"{_verdict(first, second, pair)} {_credit(pair)}{_parity(first, second, pair)}{_speed(first, second, pair)}"


def _verdict(first: ArmSummary, second: ArmSummary, pair: PairComparison) -> str:
    assert first.accuracy is not None and second.accuracy is not None and pair.gap is not None
    ahead, behind = (first, second) if pair.gap.mean >= 0 else (second, first)
    assert ahead.accuracy is not None and behind.accuracy is not None
    scores = f"{ahead.accuracy.mean:.2%} against {behind.accuracy.mean:.2%} on the test images"
    points = f"{abs(pair.gap.mean) * 100:.2f} points"
    if pair.gap.low is None or pair.gap.high is None:
        lead = f"{ahead.name} scored higher than {behind.name}, {scores}"
        proof = "with one seed on a side, chance cannot be told from a real difference"
    elif pair.gap.mean == 0 and pair.gap.low == pair.gap.high:
        lead = f"{first.name} and {second.name} scored the same, {first.accuracy.mean:.2%}"
        proof = "the seeds show no difference at all"
    else:
        low, high = sorted((abs(pair.gap.low), abs(pair.gap.high)))
        how = (
            f"{len(pair.paired_seeds)} paired seeds"
            if pair.paired_seeds
            else f"{len(first.done)} and {len(second.done)} seeds"
        )
        if pair.conclusive:
            lead = f"{ahead.name} is more accurate than {behind.name}, {scores}"
            proof = (
                f"the gap of {points} holds over {how} (95 % interval {low * 100:.2f} to {high * 100:.2f})"
            )
        else:
            sign = 1 if ahead is first else -1
            ends = sorted((sign * pair.gap.low * 100, sign * pair.gap.high * 100))
            bounds = f"(95 % interval {ends[0]:+.2f} to {ends[1]:+.2f})"
            if pair.equivalent:
                margin = round(pair.margin * 100, 6)
                within = f"within {margin:g} point{'' if margin == 1 else 's'}"
                lead = f"{first.name} and {second.name} are equally accurate {within}, {scores}"
                proof = f"a gap of {points} over {how} proves it {bounds}"
            else:
                lead = f"{first.name} and {second.name} cannot be told apart in accuracy, {scores}"
                proof = f"a gap of {points} over {how} is not enough evidence {bounds}{_needed(pair)}"
    return f"{lead}; {proof}."


def _needed(pair: PairComparison) -> str:
    if pair.evidence is None or pair.evidence.seeds_needed is None:
        return ""
    return f", and some {pair.evidence.seeds_needed} seeds would be needed to tell a gap of this size"


def _taken_apart(arms: list[ArmSummary], pairs: list[PairComparison], found: Attribution) -> str:
    """The answer of an attribution: the gap between its two arms, and what it is made of."""
    by_name = {arm.name: arm for arm in arms}
    ends = first, second = [by_name[found.plan.first], by_name[found.plan.second]]
    split = attribution.sentence(found)
    if not found.shares:
        return f"{_ranked(ends, pairs)} {split}"
    (pair,) = pairs
    return (
        f"{_verdict(first, second, pair)} {split}{_parity(first, second, pair)}{_speed(first, second, pair)}"
    )


def _parity(first: ArmSummary, second: ArmSummary, pair: PairComparison) -> str:
    """The verdict on both arms' recipes; nothing where no parity was traced, or the framework is the same."""
    found = [arm.parity for arm in (first, second) if arm.parity is not None]
    if pair.same_framework or not found:
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
    if not pair.differences:
        if pair.same_framework:
            return "The arms differ in nothing."
        return "The arms differ in nothing but the framework."
    factors = "; ".join(pair.differences)
    verdict = (
        "so no single one of these can be credited"
        if pair.same_framework
        else "so the framework alone cannot be credited with any gap"
    )
    if pair.same_framework and len(pair.differences) == 1:
        return f"The {subject} differ only in {factors}."
    return f"What differs between the {subject}: {factors}; {verdict}."


def _speed(first: ArmSummary, second: ArmSummary, pair: PairComparison) -> str:
    found = pair.log_speed
    if found is None or not first.images_per_second or not second.images_per_second:
        return f" Their speeds are not compared: {pair.speed_doubt}." if pair.speed_doubt else ""
    faster, slower = (first, second) if found.mean >= 0 else (second, first)
    assert faster.images_per_second and slower.images_per_second
    rates = f"{faster.images_per_second.mean:,.0f} against {slower.images_per_second.mean:,.0f} images/s"
    lead = f"{faster.name} trained {times(abs(found.mean))} times as fast as {slower.name}"
    if found.low is None or found.high is None:
        told = f"{lead} ({rates}), by one run on a side"
    else:
        low, high = sorted(end if faster is first else -end for end in (found.low, found.high))
        bounded = f"{lead} (95 % interval {times(low)} to {times(high)}; {rates})"
        if {times(low), times(high)} == {"1.00"}:
            told = f"Both trained equally fast, {faster.images_per_second.mean:,.0f} images/s"
        else:
            told = bounded if low > 0 else f"They cannot be told apart in speed: {bounded}"
    if pair.speed_doubt:
        told += f"; but {pair.speed_doubt}"
    return f" {told}."
