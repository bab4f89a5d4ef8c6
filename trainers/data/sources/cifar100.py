"""CIFAR-100, downloaded where it is not at hand; its files are read by the source that recognizes them."""

from __future__ import annotations

from functools import partial

from trainers.data import cifar
from trainers.data.source import Source

_URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
_MD5 = "eb9058c3a382ffc7106e4002c42a8d85"

SOURCE = Source(locate=partial(cifar.locate, "cifar100", url=_URL, md5=_MD5, directory="cifar-100-python"))
