"""Hyperparameter sweeps: each arm's best recipe, found with Ray Tune under an equal budget."""
