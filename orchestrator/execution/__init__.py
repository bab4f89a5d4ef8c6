"""What trains: the driver, groups of Ray Train workers, retries, the watchdog, the lease."""
