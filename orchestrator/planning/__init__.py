"""From an experiment to runs, queues, jobs and estimates. Pure: nothing here starts Ray or trains.

A rule about which runs an experiment consists of belongs here, and what a job is told to do. Who trains the runs, and
where, belongs into `execution` and `clusters`.
"""
