"""Train one model in PyTorch, data-parallel under `DistributedDataParallel`. Twin of the Keras engine.

The module is long because one class implements all of `Engine`.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import io
import os
import shutil

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.flop_counter import FlopCounterMode

from trainers.contract import AUXILIARY_WEIGHT, State, Task, UnbiasedVariance, logits_of, training_logits
from trainers.data.batches import IN_CACHE, ON_GPU, Selection, Steps
from trainers.errors import InputError, no_gpu
from trainers.flops import forward_flops
from trainers.initial import Weights, initial_weights
from trainers.machine.matmul import fastest_matmul, matmul_side
from trainers.machine.processor import has_bfloat16
from trainers.recipes import OwnOptimizer
from trainers.test_time_augmentation import augmented_copies
from trainers.torch.device_images import DeviceImages, ImageStore, to_device
from trainers.torch.exported_model import ExportedModel
from trainers.torch.losses import build_loss
from trainers.torch.models import (
    build_model,
    get_gradients,
    get_optimizer_state,
    get_weights,
    named_tensors,
    set_optimizer_state,
    set_weights,
)
from trainers.torch.optimizers import build_optimizer, decay_apart, state_names

_SHARE_FOR_IMAGES = 0.25
"""Of a GPU's free memory, for the training images."""
_GRAPH_WARM_UP = 3
"""Steps until `torch.compile` replays a CUDA graph: it compiles and runs the first, and records the second."""


class Runtime:
    """What a worker process sets up once, however many runs it then trains."""

    def __init__(self, *, threads: int, use_gpu: bool) -> None:
        torch.set_num_threads(threads)
        self._device = torch.device("cpu")
        memory = 0
        if use_gpu:
            if not torch.cuda.is_available():
                raise no_gpu("PyTorch", torch.__version__, cuda=torch.version.cuda)
            self._device = torch.device("cuda", torch.cuda.current_device())
            free, _ = torch.cuda.mem_get_info(self._device)
            memory = int(free * _SHARE_FOR_IMAGES)
        self._images = ImageStore(self._device, memory)

    def computes_bfloat16(self) -> bool:
        """Whether the processors have instructions for it."""
        if self._device.type == "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        return has_bfloat16()

    def engine(self, task: Task) -> TorchEngine:
        """A fresh model for one run."""
        return TorchEngine(task, self._device, self._images)


class TorchEngine:
    """One model being trained; see `trainers.contract.Engine`."""

    framework = "torch"

    def __init__(self, task: Task, device: torch.device, images: ImageStore) -> None:
        torch.manual_seed(task.seed)
        recipe = task.recipe
        on_gpu = device.type == "cuda"
        self._rounds_to_tf32 = on_gpu and recipe.precision == "tf32"
        torch.set_float32_matmul_precision("high" if self._rounds_to_tf32 else "highest")
        self._task = task
        self._device = device
        self._image_store = images
        self._images: DeviceImages | None = None
        self._is_deterministic = recipe.is_deterministic(on_gpu=on_gpu)
        self._uploads = None
        if on_gpu:  # on CPUs PyTorch's kernels are deterministic
            if self._is_deterministic:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS is not
            torch.use_deterministic_algorithms(self._is_deterministic, warn_only=True)
            torch.cuda.reset_peak_memory_stats(device)
            self._uploads = torch.cuda.Stream(device)
        self._precision = (
            torch.autocast(self._device.type, dtype=torch.bfloat16)
            if recipe.precision == "bfloat16"
            else contextlib.nullcontext()
        )
        self._scale = torch.from_numpy(task.inputs.scale).view(-1, 1, 1).to(self._device)
        self._offset = torch.from_numpy(task.inputs.offset).view(-1, 1, 1).to(self._device)
        self._kernel = None
        if task.inputs.kernel is not None:
            self._kernel = torch.from_numpy(task.inputs.kernel).permute(3, 2, 0, 1).to(self._device)
        class_weights = None
        if task.class_weights is not None:
            class_weights = torch.from_numpy(task.class_weights).to(self._device)
        self._loss_of = build_loss(recipe, task.num_classes, class_weights, self._device)

        module = build_model(recipe.model, task.model_shape, task.num_classes, batch_norm=recipe.batch_norm)
        if ":" not in recipe.model and recipe.init != "framework":
            shapes = {name: weight.shape for name, weight in get_weights(module).items()}
            set_weights(module, initial_weights(shapes, init=recipe.init, seed=task.seed))
        if recipe.sync_batch_norm and task.world_size > 1:
            module = torch.nn.SyncBatchNorm.convert_sync_batchnorm(module)
        self._module = module.to(self._device, memory_format=torch.channels_last)
        self._optimizer, self._scheduler = build_optimizer(recipe.optimizer, self._module)
        self._average = (
            AveragedModel(self._module, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))
            if recipe.ema_decay
            else None
        )
        self._model: torch.nn.Module = self._module
        if task.world_size > 1:
            self._model = DistributedDataParallel(
                self._module, find_unused_parameters=recipe.find_unused_parameters
            )
        self.block_limits = ON_GPU if on_gpu else IN_CACHE
        # A replay overwrites the outputs of the one before, and so the gradients that `accumulate` adds up.
        adds_up = recipe.accumulate is not None and recipe.accumulate > 1
        self._replays_graphs = recipe.compile and on_gpu and task.world_size == 1 and not adds_up
        self.warm_up_steps = _GRAPH_WARM_UP if self._replays_graphs else 1
        if recipe.compile:
            _check_compiler(self._device)
            # A graph for each batch size. `DistributedDataParallel` exchanges gradients between parts of the backward
            # pass, so that several GPUs do without CUDA graphs.
            mode = "reduce-overhead" if self._replays_graphs else None
            self._model = torch.compile(self._model, mode=mode, dynamic=False if on_gpu else None)

    def parameter_count(self) -> int:
        """Trainable weights."""
        return sum(weight.numel() for weight in self._module.parameters() if weight.requires_grad)

    @torch.no_grad()
    def forward_flops(self) -> int:
        """Floating-point operations of the convolutions and matrix products for one image, a multiply-add as two."""
        self._module.eval()
        pixels = torch.zeros((1, *self._task.image_shape), dtype=torch.uint8, device=self._device)
        if ":" in self._task.recipe.model:
            with FlopCounterMode(display=False) as counter:
                self._module(self._inputs(pixels))
            return counter.get_total_flops()
        layers: list[tuple[int, int]] = []

        def note(module: torch.nn.Module, _: tuple[torch.Tensor], output: torch.Tensor) -> None:
            layers.append((module.weight.numel(), output[0, 0].numel()))

        kinds = (torch.nn.Conv2d, torch.nn.Linear)
        hooks = [
            module.register_forward_hook(note)
            for module in self._module.modules()
            if isinstance(module, kinds)
        ]
        self._module(self._inputs(pixels))
        for hook in hooks:
            hook.remove()
        return forward_flops(self._task, layers)

    @torch.inference_mode()
    def matmul_flops(self) -> float:
        """Floating-point operations per second that a large matrix product reaches here, in the recipe's precision."""
        dtype = torch.bfloat16 if self._task.recipe.precision == "bfloat16" else torch.float32
        side = matmul_side(on_gpu=self._device.type == "cuda")
        values = torch.ones((side, side), dtype=dtype, device=self._device)
        return fastest_matmul(lambda: float((values @ values)[0, 0]), side)

    def device_memory_peak(self) -> int:
        """Bytes of the GPU's memory that this model's training used at most; 0 without a GPU."""
        return torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else 0

    def hold(self, images: np.ndarray) -> bool:
        """Keep the training images on the GPU if they fit, so that blocks need only name them."""
        self._images = self._image_store.held(images)
        return self._images is not None

    def staged(self, steps: Steps) -> Steps:
        """The same steps with their images and labels on the device, copied beside the training steps."""
        uploads = contextlib.nullcontext() if self._uploads is None else torch.cuda.stream(self._uploads)
        with uploads:
            images = steps.images
            are_held = isinstance(images, Selection)
            pixels = self._images.block(images) if are_held else to_device(images, self._device)
            labels = to_device(steps.labels, self._device)
            ready = None if self._uploads is None else self._uploads.record_event()
        return dataclasses.replace(steps, staged=(pixels, labels, ready))

    def _on_device(self, steps: Steps) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and labels of steps, which the training steps may use from now on."""
        pixels, labels, ready = (steps if steps.staged is not None else self.staged(steps)).staged
        if ready is not None:
            training = torch.cuda.current_stream(self._device)
            training.wait_event(ready)
            for tensor in (pixels, labels):
                tensor.record_stream(training)
        return pixels, labels

    def _inputs(self, pixels: torch.Tensor) -> torch.Tensor:
        x = torch.addcmul(self._offset, pixels.permute(0, 3, 1, 2).float(), self._scale)
        if self._kernel is not None:
            x = F.relu(F.conv2d(x, self._kernel, stride=self._task.inputs.stride))
        return x

    def _convolutions(self) -> contextlib.AbstractContextManager[None]:
        """How GPUs compute convolutions, both ways, within its block."""
        return torch.backends.cudnn.flags(
            enabled=True,
            benchmark=not self._is_deterministic,
            deterministic=self._is_deterministic,
            allow_tf32=self._rounds_to_tf32,
        )

    def _loss(self, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean loss of the share, and logits."""
        if self._replays_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        with self._precision:
            outputs = self._model(self._inputs(pixels))
        logits, auxiliary = training_logits(self._task.recipe.model, outputs, self._task.num_classes)
        logits = logits.float()
        loss = self._loss_of(logits, labels)
        for other in auxiliary:
            loss = loss + AUXILIARY_WEIGHT * self._loss_of(other.float(), labels)
        return loss, logits

    def _share_gradients(
        self, pixels: torch.Tensor, labels: torch.Tensor, loss_scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take the gradients of the mean over the global batch, from a share of it, in parts one after the other.

        Returns:
            The mean loss of the share, and its logits.
        """
        self._optimizer.zero_grad()
        size, parts = len(labels), self._task.recipe.accumulate or 1
        loss, logits = torch.zeros((), device=self._device), []
        for part in range(parts):
            first, last = size * part // parts, size * (part + 1) // parts
            weight = last - first  # an empty part takes part with one example of no weight
            first = min(first, size - 1)
            some = slice(first, max(last, first + 1))
            with self._unsynchronized() if part < parts - 1 else contextlib.nullcontext():
                of_part, predicted = self._loss(pixels[some], labels[some])
                # DDP averages over the workers.
                (of_part * (weight * loss_scale * self._task.world_size)).backward()
            if weight:
                loss = loss + of_part.detach() * (weight / size)
                logits.append(predicted.detach())
        return loss, torch.cat(logits)

    def _unsynchronized(self) -> contextlib.AbstractContextManager[None]:
        """Gradients stay on their worker within its block."""
        if isinstance(self._model, DistributedDataParallel):
            return self._model.no_sync()
        return contextlib.nullcontext()

    def train_steps(self, steps: Steps) -> tuple[np.ndarray, int]:
        """Take the steps; returns each one's loss, summed over this worker's share, and correct predictions."""
        self._model.train()
        images, labels = self._on_device(steps)
        share = labels.shape[1]
        losses, outputs = [], []
        with self._convolutions():
            for step in range(len(steps)):
                loss, logits = self._share_gradients(images[step], labels[step], steps.loss_scale)
                self._update(float(steps.learning_rates[step]))
                losses.append(loss)
                outputs.append(logits)
        correct = torch.stack(outputs).argmax(2) == labels
        return torch.stack(losses).double().cpu().numpy() * share, int(correct.sum())

    def _update(self, learning_rate: float) -> None:
        described = self._task.recipe.optimizer
        if self._task.recipe.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self._module.parameters(), self._task.recipe.gradient_clip)
        if not isinstance(described, OwnOptimizer):
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            decay_apart(described, self._module.parameters(), learning_rate)
        self._optimizer.step()
        if self._scheduler is not None:
            self._scheduler.step()
        if self._average is not None:
            self._average.update_parameters(self._module)

    def take_step(self, step: Steps) -> tuple[float, Weights]:
        """As `train_steps`, but a single step, and with what it took; see `trainers.contract.Engine`."""
        losses, _ = self.train_steps(step)
        return float(losses[0]), get_gradients(self._module)

    def forward(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32 [n, num_classes], for uint8 [n, height, width, channels], of the weights under training."""
        return self._logits(self._module, images)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """As `forward`, with `ema_decay` of the averaged weights."""
        return self._logits(self._evaluated, images)

    @torch.inference_mode()
    def _logits(self, module: torch.nn.Module, images: np.ndarray) -> np.ndarray:
        module.eval()
        pixels = to_device(images, self._device)
        with self._convolutions(), self._precision:
            return logits_of(module(self._inputs(pixels))).float().cpu().numpy()

    @property
    def _evaluated(self) -> torch.nn.Module:
        """The averaged weights with the moving statistics under training, or the weights themselves."""
        return self._module if self._average is None else self._average.module

    def unused_parameters(self) -> list[str]:
        """Trainable weights without a gradient in the last step, which `DistributedDataParallel` refuses."""
        return [
            name
            for name, weight in self._module.named_parameters()
            if weight.requires_grad and weight.grad is None
        ]

    def single_value_norms(self) -> list[str]:
        """Layers of batch normalization that get one value of each channel from an image."""
        return [
            name.removesuffix(".variance")
            for name, variance in self.unbiased_variances().items()
            if variance.values == 1
        ]

    @torch.no_grad()
    def share_statistics(self) -> None:
        """Give every worker the first one's moving statistics, which evaluation uses; called by all at once."""
        if self._task.world_size > 1:
            for module in {self._module, self._evaluated}:
                for buffer in module.buffers():
                    dist.broadcast(buffer, 0)

    def weights(self) -> Weights:
        """The model's weights by neutral name."""
        return get_weights(self._module)

    def weight_names(self) -> dict[str, str]:
        """The key of each weight in the `state_dict` by its neutral name."""
        return {name: key for name, (key, _) in named_tensors(self._module).items()}

    @torch.no_grad()
    def unbiased_variances(self) -> dict[str, UnbiasedVariance]:
        """By their neutral names, the moving variances that keep the unbiased variance of each batch."""
        found = {}

        def note(path: str, module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
            found[f"{path}.variance"] = UnbiasedVariance(module.momentum, inputs[0][0, 0].numel())

        hooks = [
            module.register_forward_pre_hook(functools.partial(note, path))
            for path, module in self._module.named_modules()
            if getattr(module, "running_var", None) is not None and getattr(module, "momentum", None)
        ]
        self._module.eval()
        pixels = torch.zeros((1, *self._task.image_shape), dtype=torch.uint8, device=self._device)
        self._module(self._inputs(pixels))
        for hook in hooks:
            hook.remove()
        return found

    def exported_model(self) -> torch.nn.Module:
        """The trained model with its preprocessing: uint8 [n, height, width, channels] to probabilities."""
        exported = ExportedModel(
            copy.deepcopy(self._evaluated),
            augmented_copies(self._task.recipe),
            self._scale,
            self._offset,
            self._kernel,
            self._task.inputs.stride,
        )
        return exported.cpu().eval()

    def neutral_state(self) -> Weights:
        """The model's weights and its optimizer's state, which both frameworks can load."""
        kept = self._optimizer.state_dict()["state"]
        weights = list(self._module.parameters())
        state = get_weights(self._module)
        for ending, kind in state_names(self._task.recipe.optimizer).items():
            of_weights = {
                weights[place]: entries[kind]
                for place, entries in kept.items()
                if entries.get(kind) is not None
            }
            state |= get_optimizer_state(self._module, of_weights, ending)
        steps = [int(entries["step"]) for entries in kept.values() if "step" in entries]
        return state | {"#steps": np.array(max(steps, default=0))}

    def load_neutral_state(self, state: Weights) -> None:
        """Take over what either framework's `neutral_state` gave."""
        set_weights(self._module, state)
        places = {weight: place for place, weight in enumerate(self._module.parameters())}
        kept: dict[int, dict[str, torch.Tensor]] = {}
        for ending, kind in state_names(self._task.recipe.optimizer).items():
            for weight, value in set_optimizer_state(self._module, state, ending).items():
                entries = kept.setdefault(places[weight], {})
                entries[kind] = value
                if kind != "momentum_buffer":
                    entries["step"] = torch.tensor(float(state["#steps"]))
        self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": kept})

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
        if self._average is not None:
            state |= {f"average/{name}": value for name, value in self._average.state_dict().items()}
        state["random/cpu"] = torch.get_rng_state()
        if self._device.type == "cuda":
            state["random/cuda"] = torch.cuda.get_rng_state()
        kept = {"optimizer": self._optimizer.state_dict()}
        if self._scheduler is not None:
            kept["scheduler"] = self._scheduler.state_dict()
        buffer = io.BytesIO()
        torch.save(kept, buffer)
        arrays = {name: np.array(value.detach().cpu()) for name, value in state.items()}
        return arrays | {"optimizer": np.frombuffer(buffer.getvalue(), np.uint8)}

    def load_state(self, state: State) -> None:
        """The reverse of `state`."""
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}

        def of(owner: str) -> dict[str, torch.Tensor]:
            return {
                name.removeprefix(owner): value for name, value in tensors.items() if name.startswith(owner)
            }

        self._module.load_state_dict(of("model/"))
        if self._average is not None:
            self._average.load_state_dict(of("average/"))
        kept = torch.load(io.BytesIO(state["optimizer"].tobytes()), map_location="cpu", weights_only=True)
        self._optimizer.load_state_dict(kept["optimizer"])
        if self._scheduler is not None:
            self._scheduler.load_state_dict(kept["scheduler"])
        torch.set_rng_state(tensors["random/cpu"])
        if "random/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random/cuda"])


def _check_compiler(device: torch.device) -> None:
    """Whether `torch.compile` finds what it needs, before it fails in the midst of a step.

    Raises:
        InputError: it does not.
    """
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise InputError(
            f"compile: torch.compile needs a C++ compiler on CPUs, but there is no {compiler!r} on this node; "
            "install g++, name another compiler in the environment variable CXX, or leave compile out"
        )
