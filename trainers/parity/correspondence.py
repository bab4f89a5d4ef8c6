"""Which weight of a PyTorch model is which of a Keras model, for models of a user's own. Pure numpy.

Both frameworks give weights under neutral names and in Keras' layout: kernels [..., in, out]. What is left to convert
are names that differ, kernels of depthwise convolutions, and dense kernels behind a flattening: PyTorch flattens
channels, height, width, and Keras height, width, channels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TypeVar

from trainers.errors import InputError
from trainers.initial import Weights

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Described:
    """The weights of one framework's model, by neutral name."""

    names: Mapping[str, str]
    """The framework's own: a path in Keras, without the model's name; a key of the `state_dict` in PyTorch."""
    shapes: Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Match:
    keras: str
    torch: str
    shape: tuple[int, ...]
    """In Keras."""
    torch_shape: tuple[int, ...]
    flattened: tuple[int, int, int] | None
    """Height, width and channels that are flattened into a dense kernel's inputs."""


@dataclasses.dataclass(frozen=True)
class Correspondence:
    """Converts arrays by name between PyTorch's neutral names and Keras'."""

    matches: tuple[_Match, ...]

    def to_keras(self, arrays: Weights) -> Weights:
        """PyTorch's arrays under Keras' names; `<weight>#<name>` likewise, and anything else as it is."""
        by_torch = {match.torch: match for match in self.matches}
        converted = {}
        for name, value in arrays.items():
            weight, hash_, kind = name.partition("#")
            if (match := by_torch.get(weight)) is None:
                converted[name] = value
                continue
            if match.flattened:
                height, width, channels = match.flattened
                value = value.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
            converted[f"{match.keras}{hash_}{kind}"] = value.reshape(match.shape)
        return converted

    def to_torch(self, arrays: Weights) -> Weights:
        """The reverse."""
        by_keras = {match.keras: match for match in self.matches}
        converted = {}
        for name, value in arrays.items():
            weight, hash_, kind = name.partition("#")
            if (match := by_keras.get(weight)) is None:
                converted[name] = value
                continue
            if match.flattened:
                value = value.reshape(*match.flattened, -1).transpose(2, 0, 1, 3)
            converted[f"{match.torch}{hash_}{kind}"] = value.reshape(match.torch_shape)
        return converted

    def renamed(self, values: Mapping[str, T]) -> dict[str, T]:
        """Values of anything by PyTorch's names, by Keras' names."""
        names = {match.torch: match.keras for match in self.matches}
        return {names.get(name, name): value for name, value in values.items()}


SAME_NAMES = Correspondence(())
"""For built-in models, whose neutral names are the same in both frameworks."""


def correspond(
    keras: Described,
    torch: Described,
    *,
    weights: Mapping[str, str],
    flattened: Mapping[str, tuple[int, int, int]],
) -> Correspondence:
    """Match the weights of two models: as the user says, and else by their neutral names.

    Args:
        keras: the Keras model's weights.
        torch: the PyTorch model's.
        weights: names in PyTorch by names in Keras, as the frameworks write them.
        flattened: height, width and channels that Keras flattens into a dense kernel, by its name in Keras.

    Raises:
        InputError: a weight has no match, or not of the same shape; says which and what to write.
    """
    paths = {path: name for name, path in keras.names.items()}
    keys = {key: name for name, key in torch.names.items()}
    for path in [*weights, *flattened]:
        if path not in paths:
            field = "weights" if path in weights else "flattened"
            raise InputError(f"parity.{field}: the Keras model has no weight {path!r}; {_listed(paths)}")
    for key in weights.values():
        if key not in keys:
            raise InputError(f"parity.weights: the PyTorch model has no weight {key!r}; {_listed(keys)}")
    named = {paths[path]: keys[key] for path, key in weights.items()}
    matches = []
    for name in sorted(keras.names, key=lambda name: name not in named):
        other = named.get(name, name)
        if other not in torch.names or (name not in named and name in named.values()):
            raise InputError(
                f"parity: no weight of the PyTorch model is called like {keras.names[name]} in Keras; "
                f"write parity.weights: {{{keras.names[name]}: NAME}} with one of "
                f"{', '.join(sorted(set(keys) - set(weights.values())))}"
            )
        matches.append(_match(name, other, keras, torch, flattened.get(keras.names[name])))
    if unmatched := torch.names.keys() - {match.torch for match in matches}:
        key = torch.names[min(unmatched)]
        raise InputError(f"parity: no weight of the Keras model corresponds to {key} in PyTorch")
    return Correspondence(tuple(matches))


def _match(
    name: str, other: str, keras: Described, torch: Described, flattened: tuple[int, int, int] | None
) -> _Match:
    shape, torch_shape = tuple(keras.shapes[name]), tuple(torch.shapes[other])
    is_depthwise = len(shape) > 2 and torch_shape == (*shape[:-2], 1, shape[-2] * shape[-1])
    if shape != torch_shape and not is_depthwise:
        raise InputError(
            f"parity: {keras.names[name]} in Keras has shape {list(shape)}, and {torch.names[other]} in PyTorch "
            f"{list(torch_shape)} in Keras' order of dimensions"
        )
    if flattened and (len(shape) != 2 or shape[0] != math.prod(flattened)):
        raise InputError(
            f"parity.flattened: {keras.names[name]} has shape {list(shape)}; height * width * channels of "
            f"{list(flattened)} must be the first of two dimensions"
        )
    return _Match(keras=name, torch=other, shape=shape, torch_shape=torch_shape, flattened=flattened)


def _listed(names: Mapping[str, str]) -> str:
    return f"it has {', '.join(sorted(names))}"
