"""Sentences about three arms or more, and about arms and their baseline."""

from __future__ import annotations

from orchestrator.analysis.arms import ArmSummary
from orchestrator.analysis.pairs import PairComparison
from orchestrator.analysis.statistics.inference import LEAST_SEEDS
from orchestrator.analysis.statistics.verdicts import Verdict
from orchestrator.analysis.text.phrases import (
    basis,
    ends,
    in_unit,
    interval_of,
    pair_of,
    ranked,
    seeds_of,
    shortened,
)
from orchestrator.analysis.wording import counted, listed


def several(arms: list[ArmSummary], pairs: list[PairComparison]) -> list[str]:
    """Of three arms or more: who is ahead, who cannot be told apart, and who is behind whom."""
    metric = arms[0].metric
    judged = [arm for arm in ranked(arms) if seeds_of(arm) >= LEAST_SEEDS]
    few = [arm.name for arm in arms if seeds_of(arm) < LEAST_SEEDS]
    verb = "has" if len(few) == 1 else "have"
    without = (
        f"{listed(few)} {verb} fewer than {LEAST_SEEDS} finished seeds, too few for a verdict." if few else ""
    )
    if len(judged) < 2:
        order = ranked(arms)
        scores = metric.values([arm.score.mean for arm in order if arm.score])
        told = shortened([f"{arm.name} {score}" for arm, score in zip(order, scores, strict=True)])
        return [
            f"No verdict on {metric.noun}: {without} Of {len(arms)} arms, the means of {metric.title} are {told}."
        ]
    top, *others = judged
    by_name = {arm.name: arm for arm in arms}
    with_top = {other.name: pair_of(pairs, top, other) for other in others}
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
            f"{nearest.name} ({interval_of(pair.judgement, pair)}; {basis(pair)}){_beyond(pair)}."
        )
    else:
        within = [
            pair_of(pairs, by_name[a], by_name[b]) for place, a in enumerate(tied) for b in tied[place + 1 :]
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


def against(baseline: str, arms: list[ArmSummary], pairs: list[PairComparison]) -> list[str]:
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
            interval = f"{gap} ({ends(judgement.gap, judgement.gap.mean, metric)})"
            kinds["better" if pair.ahead == pair.first else "worse"].append(interval)
        else:
            kinds["equal" if judgement.verdict is Verdict.EQUAL else "open"].append(pair.first)
    comparisons = max((pair.judgement.comparisons for pair in pairs if pair.judgement), default=1)
    sentences = [
        f"Compared with the baseline {baseline}, {score}{metric.where}, {in_unit(metric)}with 95 % intervals for "
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
    parts = [texts[kind].format(shortened(names)) for kind, names in kinds.items() if names]
    return [f"{sentences[0]} {'; '.join(parts)}."]
