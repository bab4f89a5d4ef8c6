"""Paired measurements against peers; each prints a ratio."""
