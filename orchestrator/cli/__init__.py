"""The commands of `tandem` and what they print."""

from orchestrator.cli.app import main

__all__ = ["main"]
