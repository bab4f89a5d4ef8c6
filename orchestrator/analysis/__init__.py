"""Statistics, pairs, attribution, verdicts, scaling: records in, numbers and sentences out. Pure."""
