"""Which weights of a user's own models correspond."""

from __future__ import annotations

import numpy as np
import pytest

from trainers.errors import InputError
from trainers.parity.correspondence import Described, correspond

KERAS = Described(
    names={
        "conv.kernel": "net/conv/kernel",
        "depth.kernel": "net/depth/kernel",
        "dense.kernel": "net/dense/kernel",
        "norm.scale": "net/norm/gamma",
    },
    shapes={
        "conv.kernel": (3, 3, 1, 4),
        "depth.kernel": (3, 3, 4, 2),
        "dense.kernel": (24, 5),
        "norm.scale": (4,),
    },
)
TORCH = Described(
    names={
        "conv.kernel": "conv.weight",
        "depth.kernel": "depth.weight",
        "head.kernel": "head.weight",
        "norm.scale": "norm.weight",
    },
    shapes={
        "conv.kernel": (3, 3, 1, 4),
        "depth.kernel": (3, 3, 1, 8),
        "head.kernel": (24, 5),
        "norm.scale": (4,),
    },
)
WEIGHTS = {"net/dense/kernel": "head.weight"}


def test_names_and_layouts_are_converted_there_and_back() -> None:
    found = correspond(KERAS, TORCH, weights=WEIGHTS, flattened={"net/dense/kernel": (2, 3, 4)})
    rng = np.random.default_rng(0)
    keras = {name: rng.normal(size=shape) for name, shape in KERAS.shapes.items()}
    keras |= {"dense.kernel#mean": keras["dense.kernel"] * 2, "#steps": np.array(3)}
    torch = found.to_torch(keras)
    assert torch.keys() == {*TORCH.shapes, "head.kernel#mean", "#steps"}
    assert all(torch[name].shape == shape for name, shape in TORCH.shapes.items())
    # What Keras flattens as height, width, channels is channels, height, width in PyTorch.
    features = rng.normal(size=(2, 3, 4))
    flat = features.transpose(2, 0, 1).ravel()
    assert np.allclose(features.ravel() @ keras["dense.kernel"], flat @ torch["head.kernel"])
    assert np.array_equal(torch["head.kernel#mean"], torch["head.kernel"] * 2)
    back = found.to_keras(torch)
    assert back.keys() == keras.keys()
    assert all(np.array_equal(back[name], keras[name]) for name in keras)
    assert found.renamed({"head.kernel": 1}) == {"dense.kernel": 1}


@pytest.mark.parametrize(
    ("weights", "flattened", "sentence"),
    [
        (
            {},
            {},
            r"called like net/dense/kernel in Keras; write parity.weights: {net/dense/kernel: NAME} with one",
        ),
        (
            {"dense": "head.weight"},
            {},
            r"parity.weights: the Keras model has no weight 'dense'; it has net/conv/",
        ),
        (
            {"net/dense/kernel": "tail"},
            {},
            r"parity.weights: the PyTorch model has no weight 'tail'; it has conv.",
        ),
        (
            {"net/dense/kernel": "conv.weight"},
            {},
            r"net/dense/kernel in Keras has shape \[24, 5\], and conv.weight",
        ),
        (WEIGHTS, {"net/dense/kernel": (2, 2, 4)}, r"parity.flattened: net/dense/kernel has shape \[24, 5\]"),
        (WEIGHTS, {"net/norm/gamma": (1, 1, 4)}, r"parity.flattened: net/norm/gamma has shape \[4\]"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(
    weights: dict[str, str], flattened: dict[str, tuple[int, int, int]], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        correspond(KERAS, TORCH, weights=weights, flattened=flattened)


def test_no_weight_is_left_over() -> None:
    more = Described(
        names={**TORCH.names, "extra.bias": "extra.bias"}, shapes={**TORCH.shapes, "extra.bias": (2,)}
    )
    with pytest.raises(InputError, match=r"no weight of the Keras model corresponds to extra.bias"):
        correspond(KERAS, more, weights=WEIGHTS, flattened={})
