"""What parity needs of a worker: traces of steps, the update rules of both frameworks, corresponding weights."""
