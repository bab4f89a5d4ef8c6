"""What surrounds training: experiment files, planning, driving Ray, records and reports."""
