"""Where Ray is: on this machine, or on a cluster that an experiment is submitted to."""
