"""The workers of a run: how a group is launched, what each does, and what the first one records."""
