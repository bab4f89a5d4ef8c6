"""The engine on a GPU: the same work as on CPUs, bit for bit where that is promised."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.gpu import checks


@pytest.mark.parametrize("side", [32, 48])
def test_batches_made_on_the_gpu(device: torch.device, side: int) -> None:
    checks.device_batches_equal_those_of_the_host(device, side=side)


def test_who_holds_the_images(device: torch.device) -> None:
    checks.training_does_not_depend_on_who_holds_the_images(device, images=500)


@pytest.mark.parametrize(("model", "steps", "tolerance"), [("tutorial_cnn", 50, 2e-3), ("resnet9", 10, 1e-2)])
def test_losses(device: torch.device, model: str, steps: int, tolerance: float) -> None:
    checks.losses_are_those_of_cpus(device, model=model, steps=steps, tolerance=tolerance)


@pytest.mark.parametrize("model", ["tutorial_cnn", "resnet9"])
def test_resumption(device: torch.device, model: str) -> None:
    checks.a_resumed_run_is_the_same_bit_for_bit(device, model=model, steps=20)


@pytest.mark.parametrize("model", ["tutorial_cnn", "resnet9", "resnet18", "speednet"])
def test_gradients(device: torch.device, model: str) -> None:
    checks.a_step_takes_the_gradients_of_cpus(device, model=model, tolerance=2e-3)


def test_bfloat16(device: torch.device) -> None:
    checks.bfloat16_learns_with_float32_weights(device, model="resnet9", steps=40)


def test_compile(device: torch.device) -> None:
    checks.compiled_steps_have_the_losses_of_the_others(device, model="lenet5", steps=40)


def test_memory(device: torch.device) -> None:
    checks.memory_peak_grows_with_the_batch(device, model="resnet9")


def test_nccl(device: torch.device, tmp_path: Path) -> None:
    checks.one_process_exchanges_gradients(device, tmp_path)


def test_the_host_waits_once_a_block(device: torch.device) -> None:
    few, many = (checks.synchronizations(device, model="resnet9", steps=steps) for steps in (2, 16))
    assert few == many
