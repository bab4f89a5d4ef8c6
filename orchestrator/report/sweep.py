"""The report's part on a sweep: what was spent and found, and interactive pictures of the trials.

The pictures are Optuna's own, drawn by Plotly, whose script is put into the page: nothing is loaded.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.analysis.sweeps import ArmSearch, SweepSummary
from orchestrator.store.trial_records import TrialRecord, busy_seconds

if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

_DRAWN = 300
_DRAWN_AS_LINES = 150
_IMPORTANCE_TREES_UP_TO = 250
_STATE_COLOURS = {"done": "#0072B2", "stopped": "#E69F00", "diverged": "#CC79A7", "failed": "#D55E00"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepPictures:
    """Interactive pictures as HTML, and the script that they need."""

    script: str
    """Plotly, in full."""
    arms: dict[str, list[tuple[str, str]]]
    """For each arm, title and HTML of its pictures."""
    drawn: int
    """At most so many trials of an arm are drawn."""


def draw(summary: SweepSummary) -> SweepPictures | None:
    """Draw every arm's trials; None where there are not even two with a value."""
    import plotly.offline

    pictures = {}
    for search in summary.arms:
        trials = _thinned(search, summary, _DRAWN)
        if len(trials) > 1:
            pictures[search.arm] = [
                (title, _html(figure)) for title, figure in _figures(search, trials, summary)
            ]
    if not pictures:
        return None
    return SweepPictures(script=plotly.offline.get_plotlyjs(), arms=pictures, drawn=_DRAWN)


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
        few = study_of(_thinned(search, summary, _DRAWN_AS_LINES), sweep, search.arm, complete_stopped=True)
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


def _html(figure: go.Figure) -> str:
    figure.update_layout(title=None, margin={"t": 30}, template="plotly_white", width=None, autosize=True)
    return str(
        figure.to_html(
            full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True}
        )
    )


def best_so_far(summary: SweepSummary) -> Figure | None:
    """Each arm's best first objective by the number of trials, for paper and Markdown."""
    import matplotlib.pyplot as plt

    from orchestrator.report.figures import COLOURS, STYLE

    objective = summary.sweep.objective[0]
    better = np.maximum if objective.goal == "maximize" else np.minimum
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(5.2, 3.6))
        for search, colour in zip(summary.arms, itertools.cycle(COLOURS), strict=False):
            known = {
                number: trial.value(objective)
                for number, trial in enumerate(search.history.trials, 1)
                if trial.score(objective) is not None
            }
            if known:
                numbers, values = [*known], np.array([*known.values()])
                axis.plot(numbers, values, ".", color=colour, alpha=0.3, rasterized=len(known) > 500)
                axis.step(numbers, better.accumulate(values), color=colour, where="post", label=search.arm)
        if not axis.lines:
            plt.close(figure)
            return None
        axis.set_xlabel("trials")
        axis.set_ylabel(objective.title)
        axis.legend(frameon=False)
    return figure
