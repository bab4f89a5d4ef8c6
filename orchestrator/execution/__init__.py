"""What trains on a Ray cluster: the driver, worker groups, retries, the watchdog, the lease, and what they record.

The driver is the same on every cluster. Statistics over what was trained belong into `analysis`, the order of check,
training and report into `workflows`, and what a worker computes into `trainers`.
"""
