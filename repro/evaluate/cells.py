"""What an evaluation says, typed: the fields of its ``summary.json``."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from repro.plain import Json


class Cell(TypedDict):
    """One metric of one task or group."""

    value: float
    stderr: float | None  # ``None`` of one item
    n: int  # items
    chance: NotRequired[float | None]  # accuracy of guessing
    guess: NotRequired[float | None]  # what guessing gives of a probability
    clusters: NotRequired[int]  # that items were drawn in
    ties: NotRequired[int]  # pairs of equal likelihood
    bytes: NotRequired[int]  # of the right answers
    covers_chance: NotRequired[bool | None]  # whether the 95 % interval does
    higher_is_better: NotRequired[bool]  # as lm-eval's task says; absent where it says nothing


class Pooled(TypedDict):
    """Bits per byte of a collection of texts; ``value`` is ``None`` where none is finite."""

    value: float | None
    stderr: float | None
    n: int  # texts
    bytes: int
    non_finite: int  # texts left out


class Cut(TypedDict):
    """Prompts of an entry that were longer than the context."""

    items: int
    items_cut: int
    tokens_cut: int


class Summary(TypedDict):
    """``summary.json`` of an evaluation."""

    metrics: dict[str, Cell]
    gold_bits_per_byte: dict[str, Cell]
    gold_probability: dict[str, Cell]
    text_bits_per_byte: dict[str, Pooled]
    heldout_bits_per_byte: dict[str, Pooled]
    bits_per_byte: float | None
    missing: dict[str, str]  # entry -> why
    notes: dict[str, list[str]]
    cut: dict[str, Cut]
    non_finite: dict[str, list[int]]
    shots: dict[str, int]
    n_items: int
    config: Json


class Absent(TypedDict):
    """A cell that was not measured."""

    why: str
