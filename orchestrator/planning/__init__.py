"""From an experiment to runs, estimates and crossings. Pure: no Ray, no training."""
