"""Where a job runs: this machine, a Ray cluster, or Kubernetes, behind one interface.

`interface` is what every cluster does, `job_cluster` what those that accept jobs have in common, and `registry` opens
a cluster by its address. A new kind of cluster is a module of its own. What trains does not belong here: a cluster
starts `orchestrator.workflows`, here or on its head node.
"""
