"""Experiments that several files of tests look at."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.datasets import load_digits

from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Storage
from tests.conftest import tandem

EXPERIMENT = """\
name: {name}
data: {{path: {root}/oblong.npz, limit: 500}}
defaults:
  model: tutorial_cnn
  optimizer: {{name: adam, learning_rate: 0.002}}
  augmentation: {{crop: 1}}
  batch_size: 32
  epochs: 2
  seeds: [3]
arms:
  keras: {{framework: keras}}
  torch: {{extends: keras, framework: torch}}
  keras-norm:
    extends: keras
    model: speednet
    optimizer: {{learning_rate: 0.0005}}
    init: he_normal
    batch_size: 30
    epochs: 1
    sync_batch_norm: true
  torch-norm: {{extends: keras-norm, framework: torch, sync_batch_norm: false}}
  keras-averaged:
    extends: keras
    model: speednet
    precision: bfloat16
    optimizer: {{name: adamw, learning_rate: 0.01}}
    batch_size: 30
    epochs: 3
    ema_decay: 0.9
    test_time_augmentation: {{flip: true, shift: 1}}
    whitening: {{patch: 2}}
  torch-averaged: {{extends: keras-averaged, framework: torch}}
scale: {{workers: {workers}}}
storage: {root}
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[int, ExperimentRecords]:
    """The same arms in both frameworks, trained by 1 and by 2 workers; pictures are 8 wide and 11 high.

    Of the 500 examples 450 are trained on, so that a last batch of 2 is shared as 1 and 1.
    """
    root = tmp_path_factory.mktemp("trained")
    digits = load_digits()
    oblong = np.pad(digits.images * (255 / 16), ((0, 0), (2, 1), (0, 0))).astype(np.uint8)
    np.savez(root / "oblong.npz", images=oblong, labels=digits.target)

    def train(workers: int) -> ExperimentRecords:
        name = f"workers-{workers}"
        file = root / f"{name}.yaml"
        file.write_text(EXPERIMENT.format(name=name, workers=workers, root=root))
        finished = tandem("run", file)
        assert finished.returncode == 0, finished.stderr
        return ExperimentRecords(Storage(str(root / name)))

    with ThreadPoolExecutor() as pool:
        return dict(zip((1, 2), pool.map(train, (1, 2)), strict=True))
