"""A Kubernetes control plane to test against: an API server, and an operator that runs real Ray."""
