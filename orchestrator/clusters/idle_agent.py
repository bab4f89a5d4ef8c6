"""Stands where a Ray node has agents, which serve nobody on one machine: waits until the node ends."""

import os
import time

if __name__ == "__main__":
    node = os.getppid()
    while os.getppid() == node:
        time.sleep(1)
