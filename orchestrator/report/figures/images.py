"""Test images that arms classify differently, or that all classify wrongly: a gallery, and a picture for Markdown."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from orchestrator.analysis.compare import Comparison
from orchestrator.report.figures.static import STYLE, plain

MOST = 48
"""Images of a kind in the gallery."""
DISPUTED, WRONG = "disputed", "wrong in every arm"
_IN_PICTURE = 24
_SIDE = 96
"""Pixels of an image's longer side in the page."""
_GROUPS, _NAMES = 4, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One image of the gallery."""

    kind: str
    file: str
    """The image's name, or its place in the test split where the records have no name."""
    label: str
    predictions: list[tuple[str, str]]
    """What was predicted, and by which arms."""
    source: str
    """The image as a data URL."""


def gallery(comparison: Comparison, predicted: Mapping[str, np.ndarray], files: Sequence[str]) -> list[Item]:
    """The kept images with what each arm predicted, at most `MOST` of a kind.

    Args:
        comparison: the arms.
        predicted: for each arm, its seeds' predictions int [seeds, n] over the whole test split.
        files: of the whole test split; empty where images have none.
    """
    names, items = comparison.class_names, []
    kept = comparison.disagreements
    for kind, places in _places(comparison, predicted).items():
        for place in places[:MOST]:
            assert kept is not None
            index, label = int(kept["indices"][place]), int(kept["labels"][place])
            votes: dict[str, list[str]] = {}
            for arm, given in predicted.items():
                votes.setdefault(_votes(given[:, index], names), []).append(arm)
            items.append(
                Item(
                    kind=kind,
                    file=files[index] if index < len(files) else f"test image {index}",
                    label=names[label],
                    predictions=_grouped(votes),
                    source=_data_url(kept["images"][place]),
                )
            )
    return items


def _places(comparison: Comparison, predicted: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    """Of each kind, places among the kept images; empty without predictions."""
    kept = comparison.disagreements
    places: dict[str, list[int]] = {DISPUTED: [], WRONG: []}
    if kept is None or not predicted:
        return places
    for place, (index, label) in enumerate(zip(kept["indices"], kept["labels"], strict=True)):
        is_wrong = all((given[:, index] != label).all() for given in predicted.values())
        if is_wrong or len(predicted) > 1:
            places[WRONG if is_wrong else DISPUTED].append(place)
    return places


def _grouped(votes: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    """Predictions with the arms that made them, the commonest first."""
    ordered = sorted(votes.items(), key=lambda entry: -len(entry[1]))
    rows = [
        (vote, ", ".join(arms[:_NAMES]) + (f" and {len(arms) - _NAMES} more" if len(arms) > _NAMES else ""))
        for vote, arms in ordered[:_GROUPS]
    ]
    if rest := ordered[_GROUPS:]:
        rows.append(("something else", f"{sum(len(arms) for _, arms in rest)} arms"))
    return rows


def _data_url(image: np.ndarray) -> str:
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def disagreements(comparison: Comparison, predicted: Mapping[str, np.ndarray]) -> Figure | None:
    """Test images on which the arms differ, with what each arm's seeds predicted.

    Args:
        comparison: the arms.
        predicted: for each arm, its seeds' predictions int [seeds, n] over the whole test split.
    """
    kept = comparison.disagreements
    places = _places(comparison, predicted)[DISPUTED][:_IN_PICTURE]
    if kept is None or not places:
        return None
    names = [plain(name) for name in comparison.class_names]
    texts = []
    for place in places:
        votes: dict[str, list[str]] = {}
        for arm, given in predicted.items():
            votes.setdefault(_votes(given[:, kept["indices"][place]], names), []).append(plain(arm))
        lines = [f"{arms}: {vote}" for vote, arms in _grouped(votes)]
        texts.append("\n".join([f"is {names[kept['labels'][place]]}", *lines]))
    columns = 6
    rows = -(-len(places) // columns)
    # Inches, which the axis counts in, downwards.
    width, height, side = 1.55, 1.7 + 0.14 * max(text.count("\n") for text in texts), 1.45
    size = columns * width, rows * height
    with plt.rc_context(STYLE | {"axes.grid": False, "figure.constrained_layout.use": False}):
        figure = plt.figure(figsize=size)
        axis = figure.add_axes((0, 0, 1, 1))
        for number, (place, text) in enumerate(zip(places, texts, strict=True)):
            image = kept["images"][place]
            row, column = divmod(number, columns)
            down, across = np.array(image.shape[:2]) * side / max(image.shape[:2])
            middle, bottom = (column + 0.5) * width, (row + 1) * height - 0.05
            axis.imshow(
                image[..., 0] if image.shape[-1] == 1 else image,
                cmap="gray",
                vmin=0,
                vmax=255,
                extent=(middle - across / 2, middle + across / 2, bottom, bottom - down),
            )
            axis.text(middle, bottom - down - 0.03, text, ha="center", va="bottom", fontsize=7.5)
        axis.set(xlim=(0, size[0]), ylim=(size[1], 0), aspect="auto")
        axis.set_axis_off()
    return figure


def _votes(predicted: np.ndarray, names: list[str]) -> str:
    """The seeds' predictions, the most frequent first: `cat` or `cat ×2, dog ×1`."""
    labels, counts = np.unique(predicted, return_counts=True)
    if len(labels) == 1:
        return str(names[labels[0]])
    order = np.argsort(-counts, kind="stable")[:2]
    return ", ".join(f"{names[labels[place]]} ×{counts[place]}" for place in order)
