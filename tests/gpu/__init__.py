"""Checks of the PyTorch engine on one GPU; `make test-gpu` runs them.

They need only PyTorch, NumPy, Pydantic, PyArrow and pytest. The same functions run on CPUs, in tiny sizes, in
`tests/unit/test_device.py`.
"""
