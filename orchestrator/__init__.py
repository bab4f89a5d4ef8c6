"""What surrounds training: experiment files, plans, drivers, records, statistics, reports, clusters and commands.

Packages import in one direction: `cli`, `clusters`, `head`, `workflows`, `report`, `sweep`, `analysis`, `execution`,
`planning`, `store`, `experiment`, and below them `trainers`. `lint-imports` checks it. No module imports a framework.
"""
