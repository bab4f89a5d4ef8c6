"""Hyperparameter sweeps: Ray Tune proposes trials, and worker groups train them, under equal budgets for all arms.

A search algorithm or a scheduler belongs here. The fields of the `sweep:` block are in `experiment`, the records of
trials in `store`, and what a report says about a search in `analysis` and `report`.
"""
