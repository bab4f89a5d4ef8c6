"""The report's part on a sweep: what was spent and found, and interactive figures of the trials, which are Optuna's."""

from __future__ import annotations

import dataclasses
import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.analysis.sweeps import ArmSearch, SweepSummary
from orchestrator.report.figures.chart import Axis, Chart, Series, Table, cut, limits, thinned
from orchestrator.report.tables.text import Number, number
from orchestrator.store.trial_records import TrialRecord, busy_seconds

if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects as go

MOST_TRIALS = 300
"""Of an arm, in its figures and its table."""
_MOST_LINES = 150
_HEIGHT = 420
_IMPORTANCE_TREES_UP_TO = 250
_STATE_COLOURS = {"done": "#0072B2", "stopped": "#E69F00", "diverged": "#CC79A7", "failed": "#D55E00"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepFigures:
    """Figures of one arm's trials, and the trials as a table."""

    arm: str
    figures: list[tuple[str, dict[str, Any]]]
    """Title, and data and layout for Plotly."""
    trials: list[dict[str, str]]
    """A row for each trial that is drawn."""


def draw(summary: SweepSummary) -> list[SweepFigures]:
    """Draw the trials of every arm that has two or more with a value."""
    drawn = []
    for search in summary.arms:
        trials = _thinned(search, summary, MOST_TRIALS)
        if len(trials) > 1:
            drawn.append(
                SweepFigures(
                    arm=search.arm,
                    figures=[(title, _json(figure)) for title, figure in _figures(search, trials, summary)],
                    trials=_rows(trials, summary),
                )
            )
    return drawn


def _rows(trials: list[TrialRecord], summary: SweepSummary) -> list[dict[str, str]]:
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    rows = []
    for trial in trials:
        row: dict[str, str] = {
            "trial": Number(str(trial.number), trial.number),
            "state": trial.state or "",
        }
        for objective in summary.sweep.objective:
            value = trial.value(objective)
            row[objective.title] = number(value, f"{value or 0:.4g}")
        rows.append(row | {name: _parameter(trial.params.get(name)) for name in names})
    return rows


def _parameter(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Number(f"{value:.4g}", value)
    return "–" if value is None else str(value)


def _thinned(search: ArmSearch, summary: SweepSummary, at_most: int) -> list[TrialRecord]:
    """Trials with a value: all of them, or the best half and an even choice of the others."""
    objective = summary.sweep.objective[0]
    scored = [
        (score, trial) for trial in search.history.trials if (score := trial.score(objective)) is not None
    ]
    if len(scored) <= at_most:
        return [trial for _, trial in scored]
    ranked = [trial for _, trial in sorted(scored, key=lambda entry: -entry[0])]
    rest = ranked[at_most // 2 :]
    places = np.linspace(0, len(rest) - 1, at_most - at_most // 2).astype(int)
    chosen = [*ranked[: at_most // 2], *(rest[place] for place in places)]
    return sorted(chosen, key=lambda trial: trial.number)


def _figures(
    search: ArmSearch, trials: list[TrialRecord], summary: SweepSummary
) -> list[tuple[str, go.Figure]]:
    import optuna.visualization as show

    from orchestrator.sweep.studies import study_of

    sweep = summary.sweep
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = study_of(trials, sweep, search.arm, complete_stopped=True)
        few = study_of(_thinned(search, summary, _MOST_LINES), sweep, search.arm, complete_stopped=True)
        goal = sweep.objective[0]
        target: dict[str, Any] = {"target_name": goal.title}
        if len(sweep.objective) > 1:
            target["target"] = lambda trial: trial.values[0]
        figures = [
            ("Optimisation history", show.plot_optimization_history(study, **target)),
            ("Parallel coordinates", show.plot_parallel_coordinate(few, **target)),
            ("Slices", show.plot_slice(study, **target)),
        ]
        importance = _importance(study, target)
        if importance:
            figures.insert(1, ("Importance of the parameters", _bars(importance)))
        if len(importance) > 1:
            figures.append(
                ("The two that matter most", show.plot_contour(few, list(importance)[:2], **target))
            )
        if len(sweep.objective) in (2, 3):
            names = [objective.title for objective in sweep.objective]
            figures.append(("Pareto front", show.plot_pareto_front(study, target_names=names)))
    figures.append(("Time line by worker", _time_line(trials)))
    return figures


def _importance(study: optuna.Study, target: dict[str, Any]) -> dict[str, float]:
    """fANOVA (Hutter et al., 2014), or PED-ANOVA (Watanabe et al., 2023) for many trials."""
    import optuna

    completed = len(study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE]))
    evaluator: Any = (
        optuna.importance.FanovaImportanceEvaluator(seed=0)
        if completed <= _IMPORTANCE_TREES_UP_TO
        else optuna.importance.PedAnovaImportanceEvaluator()
    )
    try:
        return optuna.importance.get_param_importances(
            study, evaluator=evaluator, target=target.get("target")
        )
    except (ValueError, RuntimeError):  # too few trials, or values that are all the same
        return {}


def _bars(importance: dict[str, float]) -> go.Figure:
    import plotly.graph_objects as go

    names, shares = list(importance)[::-1], list(importance.values())[::-1]
    figure = go.Figure(go.Bar(x=shares, y=names, orientation="h"))
    figure.update_layout(xaxis_title="share of the objective's variance")
    return figure


def _time_line(trials: list[TrialRecord]) -> go.Figure:
    import plotly.graph_objects as go

    began = min(_started(trial) for trial in trials)
    figure = go.Figure()
    for state, colour in _STATE_COLOURS.items():
        group = [trial for trial in trials if trial.state == state]
        figure.add_bar(
            base=[round(_started(trial) - began, 2) for trial in group],
            x=[round(trial.epochs[-1]["time"] - _started(trial), 2) for trial in group],
            y=[f"worker {str(trial.epochs[-1].get('slot', '')).partition('-')[0]}" for trial in group],
            hovertext=[f"trial {trial.number}" for trial in group],
            orientation="h",
            name=state,
            marker_color=colour,
        )
    figure.update_layout(barmode="overlay", xaxis_title="seconds since the first trial")
    return figure


def _started(trial: TrialRecord) -> float:
    first = trial.epochs[0]
    return float(first["time"]) - busy_seconds(first)


def _json(figure: go.Figure) -> dict[str, Any]:
    figure.update_layout(title=None, margin={"t": 30}, template="none", width=None, height=_HEIGHT)
    made: dict[str, Any] = json.loads(figure.to_json())
    return {"data": made["data"], "layout": made["layout"]}


def best_so_far(summary: SweepSummary) -> Chart | None:
    """Each arm's best first objective by the number of trials."""
    objective = summary.sweep.objective[0]
    better = np.maximum if objective.goal == "maximize" else np.minimum
    series: list[Series] = []
    rows: list[list[str]] = []
    for place, search in enumerate(summary.arms):
        known = {
            number: value
            for number, trial in enumerate(search.history.trials, 1)
            if trial.score(objective) is not None and (value := trial.value(objective)) is not None
        }
        if not known:
            continue
        numbers, best = [*known], better.accumulate([*known.values()]).tolist()
        chosen = thinned(len(numbers)).tolist()
        series.append(
            Series(
                name=search.arm,
                x=[numbers[number] for number in chosen],
                y=[[*known.values()][number] for number in chosen],
                kind="points",
                place=place,
                size=4,
                is_faint=True,
                is_named=False,
            )
        )
        steps = [number for number in range(len(best)) if number == 0 or best[number] != best[number - 1]]
        ends = [*steps[1:], len(best) - 1]
        series.append(
            Series(
                name=search.arm,
                x=[numbers[at] for pair in zip(steps, ends, strict=True) for at in pair],
                y=[best[at] for at in steps for _ in range(2)],
                place=place,
                size=0,
            )
        )
        rows += [[search.arm, f"{numbers[at]:,}", f"{best[at]:.4g}"] for at in steps]
    if not series:
        return None
    found = limits([value for each in series for value in each.y])
    return Chart(
        name="best-by-trials",
        title="Best value so far",
        x=Axis(title="trials", has_integers=True),
        y=Axis(title=objective.title, limits=found),
        series=series,
        table=Table(columns=["arm", "from trial", objective.title], rows=rows),
        notes=cut(found, "vertical"),
    )
