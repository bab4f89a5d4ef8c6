"""CIFAR-10, downloaded where it is not at hand; its files are read by the source that recognizes them."""

from __future__ import annotations

from functools import partial

from trainers.data import cifar
from trainers.data.source import Source

_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
_MD5 = "c58f30108f718f92721af3b95e74349a"

SOURCE = Source(locate=partial(cifar.locate, "cifar10", url=_URL, md5=_MD5, directory="cifar-10-batches-py"))
