"""A text classifier: which library is a docstring of? The corpus is the source of installed packages."""

from __future__ import annotations

import ast
import importlib.util
import random
import re
import zlib
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from torch import nn
from torch.utils.data import DataLoader

LIBRARIES = ("numpy", "pandas", "scipy", "sklearn")
WORDS = 4096
FILES = 60
"""Of each library, the first by name."""


def corpus() -> list[tuple[list[int], int]]:
    """Each docstring as numbers of its words, with the number of its library."""
    examples = []
    for label, library in enumerate(LIBRARIES):
        spec = importlib.util.find_spec(library)
        assert spec is not None and spec.origin is not None
        files = sorted(Path(spec.origin).parent.rglob("*.py"))
        for file in [file for file in files if "tests" not in file.parts][:FILES]:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                    words = re.findall(r"[a-z]+", text.lower().replace(library, ""))
                    examples.append(([zlib.crc32(word.encode()) % WORDS for word in words] or [0], label))
    random.Random(0).shuffle(examples)
    return examples


def collate(batch: list[tuple[list[int], int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The words of all texts in a row, where each text begins, and the labels."""
    offsets = torch.tensor([0, *(len(words) for words, _ in batch)][:-1]).cumsum(0)
    return (
        torch.tensor([word for words, _ in batch for word in words]),
        offsets,
        torch.tensor([label for _, label in batch]),
    )


class Classifier(nn.Module):
    """The mean of the words' embeddings, and a linear layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(WORDS, size)
        self.output = nn.Linear(size, len(LIBRARIES))

    def forward(self, words: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        """Logits [n, libraries]."""
        return self.output(self.embedding(words, offsets))


def train_loop(config: dict[str, Any]) -> None:
    """Ray Train calls this on every worker."""
    examples = corpus()
    held_out = len(examples) // 5
    loader = DataLoader(
        examples[held_out:], batch_size=config["batch_size"], shuffle=True, collate_fn=collate
    )
    loader = ray.train.torch.prepare_data_loader(loader)
    words, offsets, labels = collate(examples[:held_out])
    model = ray.train.torch.prepare_model(Classifier(config["size"]))
    optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"])
    for _ in range(config["epochs"]):
        for batch_words, batch_offsets, batch_labels in loader:
            loss = nn.functional.cross_entropy(model(batch_words, batch_offsets), batch_labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            predicted = model(words, offsets).argmax(1)
        ray.train.report({"accuracy": (predicted == labels).float().mean().item()})
