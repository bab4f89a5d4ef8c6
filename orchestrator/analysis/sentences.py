"""What an experiment shows, in plain words, and what it does not show."""

from __future__ import annotations

from orchestrator.analysis import attribution
from orchestrator.analysis.arms import ArmSummary
from orchestrator.analysis.attribution import Attribution
from orchestrator.analysis.inference import LEAST_SEEDS, Interval
from orchestrator.analysis.metrics import Metric
from orchestrator.analysis.pairs import LEAST_GROUPS, PairComparison, times
from orchestrator.analysis.performance import Performance
from orchestrator.analysis.verdicts import Judgement, Obstacle, Verdict
from orchestrator.analysis.wording import counted, duration, listed, points

_TELLING = 0.005
_LISTED = 6


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
        return " ".join([f"{_scored(arms[0])}; there is no second arm to compare it with.", *_cautions(arms)])
    missing = [arm for arm in arms if arm.score is None]
    without = _without(missing) if missing else ""
    if len(measured) == 1:
        told = f"{_scored(measured[0])}; {without}, so there is nothing to compare it with."
        return " ".join([told, *_cautions(measured)])
    if baseline is not None and len(arms) > 2:
        sentences = _against(baseline, measured, pairs)
    elif len(measured) == 2:
        sentences = [verdict(measured, _pair(pairs, *measured))]
    else:
        sentences = _several(measured, pairs)
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


def _pair(pairs: list[PairComparison], first: ArmSummary, second: ArmSummary) -> PairComparison:
    return next(pair for pair in pairs if {*pair.names} == {first.name, second.name})


def _leading(
    arms: list[ArmSummary], pairs: list[PairComparison], baseline: str | None
) -> PairComparison | None:
    """The comparison of the two best arms, or of the best with the baseline; None where it was not made."""
    order = ranked(arms)
    order.sort(key=lambda arm: _seeds(arm) < LEAST_SEEDS)
    if baseline is not None:
        order.sort(key=lambda arm: arm.name != baseline)
    names = {arm.name for arm in order[:2]}
    return next((pair for pair in pairs if {*pair.names} == names), None)


def ranked(arms: list[ArmSummary]) -> list[ArmSummary]:
    """Arms with a result, the best mean first."""
    return sorted(arms, key=lambda arm: -arm.metric.advantage(arm.score.mean) if arm.score else 0.0)


def _seeds(arm: ArmSummary) -> int:
    """Finished seeds that have the metric."""
    return len(arm.scores.by_seed)


def _scored(arm: ArmSummary) -> str:
    assert arm.score is not None
    metric = arm.metric
    seeds = f"mean of {_seeds(arm)} seeds" if _seeds(arm) > 1 else "one seed"
    return f"{arm.name} scored {metric.value(arm.score.mean)}{metric.where} ({seeds})"


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
    best, other = _means(ahead, behind)
    gap = metric.gap(abs(judgement.gap.mean))
    if pair.ahead is not None:
        more = metric.compared("more")
        lead = f"{ahead.name} is {more} than {behind.name}: {best} against {other}{metric.where}."
        held = f"The gap of {gap} ({_interval(judgement, pair)}; {_basis(pair)})"
        if metric.margin is None:
            proof = f"{held} is proven; no margin is set, so its size is not judged."
        elif judgement.verdict is Verdict.BETTER_BY_MORE:
            proof = f"{held} is larger than the margin of {metric.tolerance}."
        elif judgement.is_below_margin:
            proof = f"{held} is smaller than the margin of {metric.tolerance} ({_equality(judgement, pair)})."
        else:
            proof = f"{held} is proven; whether it is larger than the margin of {metric.tolerance} is open."
        unexpected = " That is unexpected, since parity found the same work in both frameworks."
        return f"{lead} {proof}{unexpected if pair.is_same_work else ''}"
    favour = f" in favour of {ahead.name}" if judgement.gap.mean else ""
    if judgement.verdict is Verdict.EQUAL:
        expected = ", as parity predicts" if pair.is_same_work else ""
        return (
            f"{ahead.name} and {behind.name} are {metric.compared('equally')} within {metric.tolerance}{expected}: "
            f"{best} and {other}{metric.where}. The gap of {gap}{favour} ({_basis(pair)}) has a "
            f"{_equality(judgement, pair)}, inside the margin ({_interval(judgement, pair)})."
        )
    expected = (
        " Parity found the same work in both frameworks, so no gap is expected." if pair.is_same_work else ""
    )
    return (
        f"{ahead.name} and {behind.name} cannot be told apart in {metric.noun}: {best} and {other}{metric.where}. "
        f"The gap of {gap}{favour} is not enough evidence ({_interval(judgement, pair)}; {_basis(pair)})."
        f"{_detectable(judgement, pair)}{_no_margin(metric)}{expected}"
    )


def _means(ahead: ArmSummary, behind: ArmSummary) -> list[str]:
    assert ahead.score is not None and behind.score is not None
    return ahead.metric.values([ahead.score.mean, behind.score.mean])


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
        f"({_equality(judgement, pair)})."
    )


def _no_verdict(ahead: ArmSummary, behind: ArmSummary, obstacle: Obstacle) -> str:
    metric = ahead.metric
    best, other = _means(ahead, behind)
    scores = f"{ahead.name} scored {best} and {behind.name} {other}{metric.where}."
    if obstacle is Obstacle.NO_SPREAD:
        return (
            f"No verdict on {metric.noun}: the seeds of {ahead.name} and {behind.name} do not vary, which proves "
            f"nothing, and the values of single test examples are not known. {scores}"
        )
    seeds = f"{ahead.name} has {counted(_seeds(ahead), 'finished seed')} and {behind.name} {_seeds(behind)}"
    return f"No verdict on {metric.noun}: {seeds}, and a verdict needs {LEAST_SEEDS} on each side. {scores}"


def _basis(pair: PairComparison) -> str:
    first, second = pair.seeds
    seeds = f"{first} paired seeds" if pair.is_paired else f"{first} and {second} seeds"
    return f"over {seeds} and {pair.images:,} test images" if pair.images else f"over {seeds} alone"


def _interval(judgement: Judgement, pair: PairComparison) -> str:
    return f"{_together('95 %', judgement)} {_ends(judgement.gap, judgement.gap.mean, pair.metric)}"


def _equality(judgement: Judgement, pair: PairComparison) -> str:
    return f"{_together('90 %', judgement)} {_ends(judgement.equality, judgement.gap.mean, pair.metric)}"


def _together(level: str, judgement: Judgement) -> str:
    several = f" for {judgement.comparisons} comparisons together" if judgement.comparisons > 1 else ""
    return f"{level} interval{several}"


def _ends(interval: Interval, direction: float, metric: Metric) -> str:
    """Both ends, of a gap that is positive in this direction; with signs where zero lies between them."""
    assert interval.low is not None and interval.high is not None
    ends = (interval.low, interval.high) if direction >= 0 else (-interval.high, -interval.low)
    signed = ends[0] <= 0 <= ends[1]
    return " to ".join(metric.difference(end, signed=signed) for end in ends)


def _detectable(judgement: Judgement, pair: PairComparison) -> str:
    if judgement.detectable is None or judgement.detectable > pair.metric.span:
        return ""
    images, gap = " and images" if pair.images else "", pair.metric.gap(judgement.detectable)
    return f" With these seeds{images}, a true gap of {gap} would be found with a power of 80 %."


def _no_margin(metric: Metric) -> str:
    return " No margin is set, so it is not judged whether they are equal." if metric.margin is None else ""


def _several(arms: list[ArmSummary], pairs: list[PairComparison]) -> list[str]:
    """Of three arms or more: who is ahead, who cannot be told apart, and who is behind whom."""
    metric = arms[0].metric
    judged = [arm for arm in ranked(arms) if _seeds(arm) >= LEAST_SEEDS]
    few = [arm.name for arm in arms if _seeds(arm) < LEAST_SEEDS]
    verb = "has" if len(few) == 1 else "have"
    without = (
        f"{listed(few)} {verb} fewer than {LEAST_SEEDS} finished seeds, too few for a verdict." if few else ""
    )
    if len(judged) < 2:
        order = ranked(arms)
        scores = metric.values([arm.score.mean for arm in order if arm.score])
        told = _shortened([f"{arm.name} {score}" for arm, score in zip(order, scores, strict=True)])
        return [
            f"No verdict on {metric.noun}: {without} Of {len(arms)} arms, the means of {metric.title} are {told}."
        ]
    top, *others = judged
    by_name = {arm.name: arm for arm in arms}
    with_top = {other.name: _pair(pairs, top, other) for other in others}
    tied = [top.name, *(name for name, pair in with_top.items() if pair.ahead is None)]
    behind = [name for name, pair in with_top.items() if pair.ahead is not None]
    ahead_of = {pair.names: pair.ahead for pair in pairs if pair.ahead is not None}
    opening = f"Of {counted(len(judged), 'arm')}{' with enough seeds' if few else ''}, "
    assert top.score is not None
    score = metric.value(top.score.mean)
    sentences = []
    if len(tied) == 1:
        nearest = by_name[behind[0]]
        pair = with_top[nearest.name]
        assert pair.judgement is not None
        gap = metric.gap(abs(pair.judgement.gap.mean))
        sentences.append(
            f"{opening}{top.name} is {metric.compared('more')} than all others: {score}{metric.where}, {gap} ahead of "
            f"{nearest.name} ({_interval(pair.judgement, pair)}; {_basis(pair)}){_beyond(pair)}."
        )
    else:
        within = [
            _pair(pairs, by_name[a], by_name[b]) for place, a in enumerate(tied) for b in tied[place + 1 :]
        ]
        best = f"the {metric.best} {metric.title} is {score}, by {top.name}"
        if all(pair.judgement and pair.judgement.verdict is Verdict.EQUAL for pair in within):
            state = f"{listed(tied)} are {metric.compared('equally')} within {metric.tolerance}"
        elif not any(pair.ahead for pair in within):
            state = f"{listed(tied)} cannot be told apart in {metric.noun}"
        else:
            state = f"{listed(tied[1:], last='and')} cannot be told from {top.name} in {metric.noun}"
        sentences.append(f"{opening}{state}; {best}.")
        widest = max((pair.judgement.detectable or 0.0 for pair in within if pair.judgement), default=0.0)
        if not any(pair.ahead for pair in within) and 0 < widest <= metric.span and "cannot" in state:
            images = " and images" if all(pair.images for pair in within) else ""
            sentences.append(
                f"With these seeds{images}, a true gap of {metric.gap(widest)} between any two of them would be found "
                "with a power of 80 %."
            )
        sentences += _behind(tied, behind, ahead_of)
    if few:
        sentences.append(without)
    return sentences


def _beyond(pair: PairComparison) -> str:
    assert pair.judgement is not None
    if pair.metric.margin is None:
        return ""
    if pair.judgement.verdict is Verdict.BETTER_BY_MORE:
        return f", more than the margin of {pair.metric.tolerance}"
    return f", not proven to be more than the margin of {pair.metric.tolerance}"


def _behind(tied: list[str], behind: list[str], ahead_of: dict[tuple[str, str], str]) -> list[str]:
    def beats(one: str, other: str) -> bool:
        return one in (ahead_of.get((one, other)), ahead_of.get((other, one)))

    of_all = [name for name in behind if all(beats(leader, name) for leader in tied)]
    of_some = [name for name in behind if name not in of_all]
    sentences = []
    if of_all:
        everyone = "both" if len(tied) == 2 else "all of them"
        sentences.append(f"{listed(of_all)} {'is' if len(of_all) == 1 else 'are'} behind {everyone}.")
    if of_some:
        verb = "is" if len(of_some) == 1 else "are"
        sentences.append(f"{listed(of_some)} {verb} behind {tied[0]}, but not behind all of them.")
    return sentences


def _against(baseline: str, arms: list[ArmSummary], pairs: list[PairComparison]) -> list[str]:
    """Each arm against the baseline, those that are proven better or worse first."""
    by_name = {arm.name: arm for arm in arms}
    base = by_name.get(baseline)
    if base is None or base.score is None:
        return [f"The baseline {baseline} has no finished run, so nothing is compared with it."]
    metric = base.metric
    score = metric.value(base.score.mean)
    kinds: dict[str, list[str]] = {"better": [], "worse": [], "equal": [], "open": [], "few": []}
    for pair in pairs:
        judgement = pair.judgement
        if pair.first not in by_name or judgement is None:
            continue
        gap = pair.first
        if judgement.tells_apart:
            gap = f"{pair.first} by {metric.difference(abs(judgement.gap.mean))}"
        if judgement.obstacle is not None:
            kinds["few"].append(pair.first)
        elif pair.ahead is not None:
            interval = f"{gap} ({_ends(judgement.gap, judgement.gap.mean, metric)})"
            kinds["better" if pair.ahead == pair.first else "worse"].append(interval)
        else:
            kinds["equal" if judgement.verdict is Verdict.EQUAL else "open"].append(pair.first)
    comparisons = max((pair.judgement.comparisons for pair in pairs if pair.judgement), default=1)
    sentences = [
        f"Compared with the baseline {baseline}, {score}{metric.where}, {_in_unit(metric)}with 95 % intervals for "
        f"{counted(comparisons, 'comparison')} together:"
    ]
    texts = {
        "better": f"{metric.compared('more')}: {{}}",
        "worse": f"{metric.compared('less')}: {{}}",
        "open": "not told apart from it: {}",
        "few": f"fewer than {LEAST_SEEDS} finished seeds or no spread, so no verdict: {{}}",
    }
    if metric.margin is not None:
        texts["equal"] = f"{metric.compared('equally')} within {metric.tolerance}: {{}}"
    parts = [texts[kind].format(_shortened(names)) for kind, names in kinds.items() if names]
    return [f"{sentences[0]} {'; '.join(parts)}."]


def _in_unit(metric: Metric) -> str:
    return f"in{metric.gap_unit} " if metric.gap_unit else ""


def _shortened(items: list[str]) -> str:
    if len(items) <= _LISTED:
        return listed(items)
    return f"{', '.join(items[:_LISTED])} and {len(items) - _LISTED} more"


def _cautions(arms: list[ArmSummary]) -> list[str]:
    """What a reader of the first sentence must know: unfinished seeds, and seeds that learned nothing."""
    sentences = []
    partial = [
        f"{arm.name} finished {len(arm.done)} of {counted(len(arm.runs), 'seed')}"
        for arm in arms
        if len(arm.done) < len(arm.runs)
    ]
    if partial:
        sentences.append(f"{_shortened(partial)}.")
    guessing = []
    for arm in arms:
        if arm.guessing:
            all_of_them = len(arm.guessing) == len(arm.done)
            seeds = f"seed{'' if len(arm.guessing) == 1 else 's'} {listed([*map(str, arm.guessing)])}"
            guessing.append(arm.name if all_of_them else f"{arm.name} with {seeds}")
    if guessing:
        sentences.append(f"Not told from guessing: {_shortened(guessing)}.")
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
