"""Records in, numbers and sentences out: statistics, pairs, attribution, verdicts, parity, scaling, search results.

A metric or a verdict belongs here. How it is drawn or written belongs into `report`, and what measures it during
training into `execution` or `trainers`.
"""
