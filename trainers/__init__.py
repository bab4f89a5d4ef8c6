"""What runs inside a training worker: data, recipes, models and the two frameworks."""
