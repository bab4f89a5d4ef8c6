"""What is measured and shown while runs train: progress, resources, contention, the driver's log, hangs."""
