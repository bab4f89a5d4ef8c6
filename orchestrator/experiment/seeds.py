"""The seeds of an arm: a list, or their number."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

_MOST_SEEDS = 1000


def _seed_list(value: Any) -> Any:
    """Accept `seeds: 3` for `seeds: [0, 1, 2]`."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value > _MOST_SEEDS:
        raise ValueError(f"{value} seeds are too many; at most {_MOST_SEEDS} are possible")
    return list(range(value))


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds {seeds} repeat; each seed is trained once")
    return seeds


Seeds = Annotated[
    list[Annotated[int, Field(ge=0)]],
    Field(
        min_length=1,
        description="A list, or a number of seeds counted from 0. Arms that share seeds are paired.",
    ),
    BeforeValidator(_seed_list, json_schema_input_type=int | list[int]),
    AfterValidator(_distinct),
]


def default_seeds() -> list[int]:
    """The seeds of an arm that names none."""
    return [0, 1, 2]
