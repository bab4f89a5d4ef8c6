"""Stands where a Ray node has its dashboard's agent, which serves nobody on one machine: waits until the node ends."""

import os
import time

if __name__ == "__main__":
    node = os.getppid()
    while os.getppid() == node:
        time.sleep(1)
