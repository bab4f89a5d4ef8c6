"""What runs on Ray Train: how `fit` is launched, and how workers of each framework are connected."""
