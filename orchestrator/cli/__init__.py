"""The commands of `tandem`, their options, and what they print.

A command reads its arguments, calls one function of a package below, and prints what it returns. Anything that a
Python program could use as well belongs into that package. Modules are imported inside the commands, so that
`tandem --help` stays fast.
"""

from orchestrator.cli.app import main

__all__ = ["main"]
