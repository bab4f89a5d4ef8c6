"""Sentences of a report: its conclusion and its notes."""
