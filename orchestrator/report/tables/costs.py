"""What training and searching took, as rows of text."""

from __future__ import annotations

from orchestrator.analysis.compare import Comparison
from orchestrator.analysis.performance import ArmPerformance
from orchestrator.analysis.sweeps import ArmSearch, SweepSummary
from orchestrator.analysis.wording import duration
from orchestrator.report.tables.text import Number, cost, energy, number, scaled, seconds, share, size


def took(comparison: Comparison) -> list[dict[str, str]]:
    """What each arm's training took, a table's row each."""
    found = comparison.performance
    target = "–" if found.target is None else share(found.target)
    rows = []
    for arm in comparison.arms:
        used = found.arms[arm.name]
        rows.append(
            {
                "arm": arm.name,
                "time to the end": seconds(used.end_seconds),
                f"time to {target}": "–" if found.target is None else _time_to(used, len(arm.done)),
                "cost": cost(used.cost),
                "peak memory": size(used.memory_peak_bytes),
                "GPU memory": size(used.device_memory_peak_bytes),
                "training": scaled(used.training_flops, "FLOP"),
                "speed": scaled(used.flops_per_second, "FLOP/s"),
                "MFU": number(
                    used.model_flops_utilisation, f"{(used.model_flops_utilisation or 0) * 100:.3g} %"
                ),
                "latency": number(used.latency_seconds, f"{(used.latency_seconds or 0) * 1000:.3g} ms"),
                "predictions/s": number(
                    used.predictions_per_second, f"{used.predictions_per_second or 0:,.0f}"
                ),
                "energy": energy(used.energy_joules),
            }
        )
    empty = [name for name in rows[0] if name != "arm" and all(row[name] == "–" for row in rows)]
    return [{name: value for name, value in row.items() if name not in empty} for row in rows]


def _time_to(used: ArmPerformance, runs: int) -> str:
    if used.target_seconds is not None:
        return seconds(used.target_seconds)
    return f"reached by {used.reached} of {runs} runs" if runs else "–"


def took_note(comparison: Comparison) -> str:
    """What the figures of `took` mean."""
    if all(arm.is_own for arm in comparison.arms):
        return (
            "Time to the end is from a cold start to the end of the training function. Cost includes start-up. What a "
            "training function does not report is left out."
        )
    return (
        "Time to the end is from a cold start to the end of the test, or of the training function; time to an accuracy "
        f"is from a cold start to the end of the first epoch with that {comparison.performance.split} accuracy. Cost "
        "includes start-up. "
        "Peak memory is the largest worker's. FLOP count "
        "convolutions and matrix products, a training step as three forward passes. Model FLOPs utilisation (MFU) is "
        "their rate divided by that of a large matrix product on the same workers. Latency is for one image, and "
        "predictions/s are in batches of 64, both of the trained model on one worker. Energy is that of the nodes' "
        "processors and GPUs, whatever ran on them. "
        "What the machine does not report is left out."
    )


def searches(comparison: Comparison) -> list[dict[str, str]]:
    """What each arm's search spent and found, a table's row each."""
    if comparison.sweep is None:
        return []
    return [
        {
            "arm": search.arm,
            "trials": Number(str(len(search.history.trials)), len(search.history.trials)),
            "ended": ", ".join(f"{count} {state}" for state, count in sorted(search.states.items())),
            "epochs": Number(f"{search.history.epochs:,}", search.history.epochs),
            "workers' time": Number(duration(search.busy_seconds), search.busy_seconds),
            "wall time": Number(duration(search.history.seconds), search.history.seconds),
            "cost": number(search.cost, f"{search.cost or 0:.2f}"),
            "best": _best(search, comparison.sweep),
        }
        for search in comparison.sweep.arms
    ]


def _best(search: ArmSearch, summary: SweepSummary) -> str:
    if search.winner is None:
        return "–"
    goal = summary.sweep.objective[0]
    winner = search.winner
    return f"{goal.title} {winner.value(goal):.4g} in trial {winner.number}: {winner.describe()}"
