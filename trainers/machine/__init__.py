"""The machine under a worker: its processor, memory, preset environment and speed."""
