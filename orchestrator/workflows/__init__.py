"""What a job does, from the check of an experiment to its report. For the command line, a job's driver and Python.

What a command prints belongs into `cli`; how runs are trained belongs into `execution`.
"""

from orchestrator.workflows.checking import check, check_here, summary
from orchestrator.workflows.resources import local_capacity
from orchestrator.workflows.training import run, train

__all__ = ["check", "check_here", "local_capacity", "run", "summary", "train"]
