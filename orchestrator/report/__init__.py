"""How results are shown: the report as HTML, Markdown, JSON, CSV and JUnit, its figures, and exported models.

A section, a table or a figure belongs here. The numbers in it belong into `analysis`: the report can be written again
from the records at any time.
"""

from orchestrator.report.writers import write

__all__ = ["write"]
