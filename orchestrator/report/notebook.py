"""A comparison as a value for scripts and notebooks: its verdict, and its runs and reports as tables of pandas."""

from __future__ import annotations

import dataclasses
import html
from typing import Any

import pandas as pd

from orchestrator.analysis.compare import Comparison
from orchestrator.analysis.results import pair_json
from orchestrator.report import columns


@dataclasses.dataclass(frozen=True)
class ComparisonResult:
    """What `tandem.compare` returns."""

    comparison: Comparison
    """All that the report is made of."""
    report: str
    """The report's page, a path or a URL."""

    @property
    def verdict(self) -> str:
        """The report's first paragraph."""
        return self.comparison.conclusion

    @property
    def pairs(self) -> pd.DataFrame:
        """A row for each pair of arms: gap, interval, verdict; the fields of `pairs` in results.json."""
        return pd.DataFrame([pair_json(pair) for pair in self.comparison.pairs])

    @property
    def runs(self) -> pd.DataFrame:
        """A row for each run, with a column for each of its metrics; the other columns are those of results.csv."""
        runs = _frame(columns.RUNS, columns.run_rows(self.comparison))
        metrics = pd.DataFrame(columns.metric_rows(self.comparison), columns=["id", "metric", "value"])
        wide = metrics.pivot_table(index="id", columns="metric", values="value")
        return runs.join(wide[[name for name in wide if name not in runs]], on="id")

    @property
    def reports(self) -> pd.DataFrame:
        """A row for each metric of each report of each run; the columns are those of reports.csv."""
        return _frame(columns.REPORTS, columns.report_rows(self.comparison))

    def __str__(self) -> str:
        return f"{self.verdict}\nreport: {self.report}"

    def _repr_html_(self) -> str:
        """The verdict, a table of the arms, and where the report is."""
        metric = self.comparison.metric
        rows = "".join(
            f"<tr><td>{html.escape(arm.name)}</td><td>{len(arm.done)}</td>"
            f"<td>{'–' if (mean := arm.mean(metric.name)) is None else html.escape(metric.value(mean))}</td></tr>"
            for arm in self.comparison.arms
        )
        return (
            f"<p>{html.escape(self.verdict)}</p>"
            f"<table><thead><tr><th>arm</th><th>seeds</th><th>mean {html.escape(metric.name)}</th></tr></thead>"
            f"<tbody>{rows}</tbody></table><p>Report: <code>{html.escape(self.report)}</code></p>"
        )


def _frame(described: tuple[columns.Column, ...], rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[column.name for column in described])
