"""Training in plain PyTorch, as its tutorials have it: what `native_steps` compares tandem's engine with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.unit import own_models
from tests.unit.native_steps import CLASSES, IMAGE_SHAPE, IMAGES, OFFSET, SCALE, SEED, Case
from trainers.torch.models import build_model

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "tutorial_cnn": lambda weights: torch.optim.Adam(weights, lr=0.001, fused=True),
    "lenet5": lambda weights: torch.optim.SGD(weights, lr=0.01, momentum=0.9, nesterov=True, fused=True),
    "resnet9": lambda weights: torch.optim.AdamW(weights, lr=0.001, fused=True),
    "resnet18": lambda weights: torch.optim.SGD(weights, lr=0.01, fused=True),
    "speednet": lambda weights: torch.optim.SGD(weights, lr=0.01, momentum=0.9, fused=True),
    "own": lambda weights: torch.optim.Adam(weights, lr=0.001, fused=True),
}


def join(rank: int, addresses: Sequence[str]) -> None:
    torch.set_num_threads(1)
    if addresses:
        dist.init_process_group(
            "gloo", init_method=f"tcp://{addresses[0]}", rank=rank, world_size=len(addresses)
        )


def leave() -> None:
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def steps(name: str, case: Case, start: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Train from an engine's state."""
    torch.manual_seed(SEED)
    model = build_model(case.recipe.model, IMAGE_SHAPE, CLASSES)
    kept = {key.removeprefix("model/"): torch.from_numpy(value) for key, value in start.items()}
    model.load_state_dict({key: kept[key] for key in model.state_dict()})
    model = model.to(memory_format=torch.channels_last)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    parallel = DistributedDataParallel(model) if case.world_size > 1 else model
    scheduler = None
    if name == "own parts":
        optimizer, scheduler = own_models.torch_optimizer(model)
    else:
        optimizer = OPTIMIZERS[name](parallel.parameters())

    pixels = torch.from_numpy(case.images).permute(0, 1, 4, 2, 3).float()
    inputs = torch.addcmul(
        torch.from_numpy(OFFSET).view(-1, 1, 1), pixels, torch.from_numpy(SCALE).view(-1, 1, 1)
    )
    labels = torch.from_numpy(case.labels)
    smoothing = 0.1 if name == "speednet" else 0.0
    losses = []
    for step, rate in enumerate(case.rates):
        logits = parallel(inputs[step])
        if scheduler is None:
            for group in optimizer.param_groups:
                group["lr"] = float(rate)
            loss = F.cross_entropy(logits, labels[step], label_smoothing=smoothing)
        else:
            loss = own_models.torch_loss(logits, labels[step]).mean()
        optimizer.zero_grad()
        loss.backward()
        if name == "speednet":  # decay apart from the gradient
            with torch.no_grad():
                for weight in model.parameters():
                    weight.mul_(1 - float(rate) * 0.1)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        averaged.update_parameters(model)
        losses.append(loss.item())
    mean = torch.tensor(losses, dtype=torch.float64)
    if case.world_size > 1:
        dist.all_reduce(mean)
        for module in (model, averaged.module):
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)
    shown = averaged.module if name == "speednet" else model
    images = torch.from_numpy(IMAGES[0]).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        offset, scale = (torch.from_numpy(values).view(-1, 1, 1) for values in (OFFSET, SCALE))
        logits = shown.eval()(torch.addcmul(offset, images, scale))
    weights = [value for value in model.state_dict().values() if value.dtype == torch.float32]
    return {
        "losses": (mean / case.world_size).numpy(),
        "weights": np.concatenate([np.array(weight).ravel() for weight in weights]),
        "logits": logits.numpy(),
    }
