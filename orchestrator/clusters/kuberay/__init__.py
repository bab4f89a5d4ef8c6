"""Kubernetes with KubeRay: the API, the objects of a job, their status, and why a job does not run.

Everything that knows Kubernetes belongs here. What all clusters that accept jobs have in common is in
`orchestrator.clusters.job_cluster`, and the fields of the experiment file are in `orchestrator.experiment.kubernetes`.
"""
