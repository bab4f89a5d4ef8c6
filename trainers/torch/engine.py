"""Train one model in PyTorch, data-parallel under Ray Train's TorchTrainer. Twin of the Keras engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from trainers.contract import Batch, State, Task
from trainers.initial import initial_weights
from trainers.torch.batch_norm import synchronize
from trainers.torch.models import build_model, get_weights, set_weights
from trainers.torch.optimizers import build_optimizer

_EVALUATION_BATCH = 512


class Runtime:
    """What a worker process sets up once, however many runs it then trains."""

    def __init__(self, *, threads: int, use_gpu: bool) -> None:
        torch.set_num_threads(threads)
        self.use_gpu = use_gpu
        if use_gpu:
            if not torch.cuda.is_available():
                raise RuntimeError("a GPU was asked for but PyTorch sees none on this node")
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.backends.cudnn.benchmark = False

    def engine(self, task: Task) -> TorchEngine:
        """A fresh model for one run."""
        return TorchEngine(task, use_gpu=self.use_gpu)


class TorchEngine:
    """One model being trained; see `trainers.contract.Engine`."""

    def __init__(self, task: Task, *, use_gpu: bool) -> None:
        torch.manual_seed(task.seed)
        recipe = task.recipe
        self._task = task
        self._device = torch.device("cuda", torch.cuda.current_device()) if use_gpu else torch.device("cpu")
        self._precision = (
            torch.autocast(self._device.type, dtype=torch.bfloat16)
            if recipe.precision == "bfloat16"
            else contextlib.nullcontext()
        )
        self._scale = torch.from_numpy(task.input_scale).view(-1, 1, 1).to(self._device)
        self._offset = torch.from_numpy(task.input_offset).view(-1, 1, 1).to(self._device)

        module = build_model(recipe.model, task.image_shape, task.num_classes)
        if ":" not in recipe.model:
            shapes = {name: weight.shape for name, weight in get_weights(module).items()}
            set_weights(module, initial_weights(shapes, init=recipe.init, seed=task.seed))
        if task.world_size > 1:
            module = synchronize(module, use_gpu=use_gpu)
        self._module = module.to(self._device, memory_format=torch.channels_last)
        self._optimizer = build_optimizer(recipe.optimizer, self._module.parameters())
        self._model: torch.nn.Module = self._module
        if task.world_size > 1:
            self._model = DistributedDataParallel(
                self._module, gradient_as_bucket_view=True, broadcast_buffers=False
            )

    def parameter_count(self) -> int:
        """Trainable weights."""
        return sum(weight.numel() for weight in self._module.parameters() if weight.requires_grad)

    def _inputs(self, images: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(images).to(self._device, non_blocking=True)
        return torch.addcmul(self._offset, pixels.permute(0, 3, 1, 2).float(), self._scale)

    def train_epoch(self, batches: Iterable[Batch]) -> tuple[float, int]:
        """Take one step for each batch; returns this worker's summed loss and correct answers."""
        self._model.train()
        smoothing = self._task.recipe.loss.label_smoothing
        world_size = self._task.world_size  # DDP averages over the workers, the loss is a sum
        score = _Score(self._device)
        for batch in batches:
            labels = torch.from_numpy(batch.labels).to(self._device, non_blocking=True)
            with self._precision:
                logits = self._model(self._inputs(batch.images)).float()
                loss = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
            self._optimizer.zero_grad(set_to_none=True)
            (loss * (batch.loss_scale * world_size)).backward()
            for group in self._optimizer.param_groups:
                group["lr"] = batch.learning_rate
            self._optimizer.step()
            if batch.loss_scale:
                score.add(loss.detach(), logits.detach(), labels)
        return score.total()

    @torch.inference_mode()
    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32 [n, num_classes], for uint8 [n, height, width, channels]."""
        self._module.eval()
        logits = np.empty((len(images), self._task.num_classes), np.float32)
        for start in range(0, len(images), _EVALUATION_BATCH):
            part = slice(start, start + _EVALUATION_BATCH)
            with self._precision:
                logits[part] = self._module(self._inputs(np.array(images[part]))).float().cpu()
        return logits

    def all_reduce(self, values: np.ndarray) -> np.ndarray:
        """Sum over the workers of a float64 array."""
        if self._task.world_size == 1:
            return values
        total = torch.from_numpy(values.astype(np.float64)).to(self._device)
        dist.all_reduce(total)
        return total.cpu().numpy()

    def state(self) -> State:
        """Everything needed to go on bit for bit: model, optimizer, random states."""
        state = {f"model/{name}": value for name, value in self._module.state_dict().items()}
        for index, slots in self._optimizer.state_dict()["state"].items():
            state |= {
                f"optimizer/{index}/{slot}": value for slot, value in slots.items() if value is not None
            }
        state["random/cpu"] = torch.get_rng_state()
        if self._device.type == "cuda":
            state["random/cuda"] = torch.cuda.get_rng_state()
        return {name: np.array(value.detach().cpu()) for name, value in state.items()}

    def load_state(self, state: State) -> None:
        """The reverse of `state`."""
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
        self._module.load_state_dict(
            {
                name.removeprefix("model/"): value
                for name, value in tensors.items()
                if name.startswith("model/")
            }
        )
        slots: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer/"):
                _, index, slot = name.split("/")
                slots.setdefault(int(index), {})[slot] = value
        self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": slots})
        torch.set_rng_state(tensors["random/cpu"])
        if "random/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random/cuda"])


class _Score:
    """Summed loss and right answers, worked out for many steps at once to keep the steps short."""

    _STEPS = 64

    def __init__(self, device: torch.device) -> None:
        self._loss = torch.zeros((), device=device)
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self._waiting: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        self._waiting.append((loss, logits, labels))
        if len(self._waiting) == self._STEPS:
            self._settle()

    def _settle(self) -> None:
        if self._waiting:
            losses, logits, labels = zip(*self._waiting, strict=True)
            self._loss += torch.stack(losses).sum()
            self._correct += (torch.cat(logits).argmax(1) == torch.cat(labels)).sum()
            self._waiting.clear()

    def total(self) -> tuple[float, int]:
        self._settle()
        return self._loss.item(), int(self._correct.item())
