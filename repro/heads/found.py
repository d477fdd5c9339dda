"""What a detection leaves, typed: the fields of ``heads.json``."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from repro.plain import Json


class Control(TypedDict, total=False):
    """How control heads were drawn, and how well those of matched damage match."""

    drawn_from: int  # heads
    score_at_most: float
    draws_tried: int
    loss_base: float  # nats a token, nothing masked
    loss_rise: float  # with the control heads masked
    loss_rise_of_important: float
    tolerance: float
    within_tolerance: bool
    tokens: int
    same_layers_as_important: int


class Example(TypedDict):
    """A probe that is kept to see the effect of masking on its answer."""

    ids: list[int]
    needle_start: int
    answer_start: int


class Chosen(TypedDict):
    """``heads.json``: the heads to mask and what they were chosen by."""

    model: str
    num_layers: int
    num_heads: int
    scores: list[list[float]] | None  # [layers][heads]; heads that are named by hand have none
    selected: list[tuple[int, int]]  # (layer, head); lists on disk
    detector: str
    share: float
    probe: NotRequired[Json]  # the settings of the probes, their number, tokens, accuracy and loss
    zero_heads: NotRequired[int]
    lowest_selected_score: NotRequired[float]
    tied_at_lowest: NotRequired[int]
    tie_among_zeros: NotRequired[bool]
    stability: NotRequired[dict[str, float | int | None]]
    effect_on_probes: NotRequired[dict[str, float | int]]
    control: Control | None
