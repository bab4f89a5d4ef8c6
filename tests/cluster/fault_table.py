"""The table of faults in docs/kubernetes.md, made from the cases that the tests hold the diagnosis to.

    python -m tests.cluster.fault_table

writes it into the document again.
"""

from __future__ import annotations

from orchestrator.clusters.kuberay.diagnosis import diagnose
from orchestrator.clusters.kuberay.snapshot import Snapshot
from tests.conftest import ROOT

DOCUMENT = ROOT / "docs" / "kubernetes.md"
_BEGIN, _END = "<!-- faults: made by tests/cluster/fault_table.py -->\n", "<!-- faults end -->\n"


def table() -> str:
    """One row for each cause, with the sentence of its first case."""
    from tests.cluster.test_diagnosis import CASES

    rows = {}
    for cause, objects, _ in CASES:
        finding = diagnose(Snapshot(namespace="team", **objects))[0]
        rows.setdefault(cause, f"| `{cause}` | {_cell(finding.sentence)} | {_cell(finding.remedy)} |")
    return "\n".join(["| cause | what is said | what to do |", "|---|---|---|", *rows.values()]) + "\n"


def document() -> str:
    """The document with the present table."""
    before, _, rest = DOCUMENT.read_text().partition(_BEGIN)
    return f"{before}{_BEGIN}{table()}{_END}{rest.partition(_END)[2]}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    DOCUMENT.write_text(document())
