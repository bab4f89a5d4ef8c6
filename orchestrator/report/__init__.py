"""The report of an experiment, made from its records alone, at any time."""

from orchestrator.report.writers import write

__all__ = ["write"]
