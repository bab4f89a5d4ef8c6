"""Metrics, intervals, tests and verdicts. Nothing here knows arms."""
