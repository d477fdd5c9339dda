"""What a run found, typed: the fields of ``summary.json``, in memory as on disk, so that there is one form
and no conversion.

``Outcome`` is the whole. What several kinds of run share has fields of its own; what one stage alone writes
and one view alone reads (the head scores, a profile, an agreement) stays as that stage's JSON. Its version is
``repro.outcomes.summary.SCHEMA``; ``tests/unit/test_outcome.py`` holds every committed summary against these
types.
"""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict  # that of the standard library cannot be validated before Python 3.12

from repro.plain import Json


class Metric(TypedDict):
    """One metric of one model. ``repro.outcomes.measure`` says what the metric is."""

    value: float
    stderr: NotRequired[float | None]  # over the items of this model, or their clusters
    n: NotRequired[int]  # items
    chance: NotRequired[float | None]  # accuracy of guessing; without one an accuracy's is zero
    guess: NotRequired[float | None]  # what guessing gives of a probability
    clusters: NotRequired[int]  # that items were drawn in (paradigms of BLiMP)
    ties: NotRequired[int]  # pairs of equal likelihood
    lower_is_better: NotRequired[bool]  # where the task says otherwise than the metric's name does


class Artifact(TypedDict):
    """Provenance of a stage: identity, inputs, device, time and facts."""

    stage: str
    label: str
    folder: str
    fingerprint: str
    inputs: dict[str, str]  # name -> fingerprint
    device: str
    seconds_last_attempt: float
    facts: Json
    commit: str | None
    dirty: bool | None
    tag: NotRequired[str | None]
    outside: NotRequired[list[str]]  # sha256 of files outside the repository


class Group(TypedDict):
    """A source group of a domain, in documents and bytes."""

    group: str
    documents: int
    selected: int
    bytes: int
    selected_bytes: int


class MakeUp(TypedDict):
    """What a selection took of one domain; each document once."""

    documents: int
    selected: int
    bytes: int
    selected_bytes: int
    groups: int
    selected_groups: int
    by_group: list[Group]


class Masked(TypedDict):
    """The heads masked in one evaluation or scoring, as (layer, head)."""

    detector: NotRequired[str]
    selected: list[list[int]]
    control: NotRequired[Json | None]  # how control heads were matched


class Seed(TypedDict):
    """One model of an arm: what it read, how it learned, what it can do. Which parts there are depends on its
    stages.
    """

    artifacts: dict[str, Artifact]
    metrics: NotRequired[dict[str, Metric]]
    checkpoints: NotRequired[dict[str, dict[str, Metric]]]  # tokens -> metrics
    loss: NotRequired[list[list[float]]]  # [tokens, training loss]
    evaluation: NotRequired[Json]  # missing, notes, shots, config, cut
    selection: NotRequired[Json]  # selection.json
    make_up: NotRequired[dict[str, MakeUp]]
    masked: NotRequired[Masked]
    profile: NotRequired[Json]
    found: NotRequired[Json]
    judged: NotRequired[Json]


class Arm(TypedDict):
    """What is selected, mixed or masked, and its models by seed; ``missed`` are draws that are no control."""

    select: Json
    mixture: Json
    strata: NotRequired[Json]
    share: float
    equal_passes: bool
    heads: Json
    seeds: dict[str, Seed]
    missed: NotRequired[dict[str, Seed]]
    at_chance: list[str]


class Statistics(TypedDict):
    """What is recorded of a comparison (``repro.outcomes.statistics.Comparison``)."""

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    detectable: float | None
    no_interval: NotRequired[str]  # why there is none
    test: str


class Difference(Statistics):
    """A contrast on one metric: treatment minus control, its 95 % interval, its test and the words for it.

    ``low``, ``high`` and ``p`` are ``None`` where nothing says how far the difference may be off
    (``no_interval`` says why), ``detectable`` where no pilot measured the noise. ``p_holm`` is ``None`` where
    the comparison is not tested.
    """

    treatment: str
    control: str
    primary: bool
    metric: str
    lower_is_better: bool
    # a part of a benchmark, or of another contrast on another metric: an interval, no word
    exploratory: NotRequired[bool]
    at_chance: bool
    seeds: int  # that compare other evaluations
    item_variance: float | None
    noise: NotRequired[float | None]  # standard deviation of one seed's difference, upper limit of a pilot
    p_holm: float | None
    verdict: str


class During(Statistics):
    """A contrast on one metric after the tokens at which models of both arms were kept."""

    treatment: str
    control: str
    primary: bool
    tokens: int
    metric: str
    lower_is_better: bool
    seeds: int
    item_variance: float | None


class Gap(TypedDict):
    """A difference of two arms as every table shows it, and whether the run itself ``compared`` them."""

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    detectable: float | None
    seeds: int
    compared: bool


def bounds(row: Difference | During | Gap) -> tuple[float, float, float] | None:
    """A difference and the limits of its interval; ``None`` where there is no interval."""
    difference, low, high = row["difference"], row["low"], row["high"]
    return None if difference is None or low is None or high is None else (difference, low, high)


class Verdict(TypedDict):
    """What may be concluded of the primary contrast, and the ``reasons`` why nothing may."""

    demonstration: bool
    reasons: list[str]
    words: str
    sentence: str


class Noise(TypedDict):
    """Standard deviations of the difference of two models that differ in the draw alone, with upper 80 %
    limits.
    """

    seeds: int
    paired: float
    paired_limit: float
    unpaired: float
    unpaired_limit: float
    detectable: dict[str, float]  # pairs -> effect seen with 80 % power


class Conclusion(TypedDict):
    """The outcome of the primary contrast and what was stated for it beforehand."""

    outcome: str
    text: str


class Registration(TypedDict):
    """What was stated before the run (``repro.settings.registration.stated``), what the run had, and what
    follows.
    """

    registered: Json
    run: Json
    deviations: list[str]
    power: Json | None
    conclusion: NotRequired[Conclusion | None]


class Failed(TypedDict):
    """A model that is not there because a stage of its own failed or has not run yet."""

    arm: str
    seed: int
    stage: str
    reason: str


class Outcome(TypedDict):
    """Everything that a run found."""

    schema: NotRequired[int]
    checksum: NotRequired[str]
    experiment: str
    kind: str
    question: str
    scale: str
    endpoint: str
    settings: Json
    settings_digest: str
    provenance: Json
    code: NotRequired[Json]
    # what is shared, by its plain name, then what arms and comparisons read besides; a model's own: Seed
    artifacts: dict[str, Artifact]
    arms: dict[str, Arm]
    failed: NotRequired[list[Failed]]
    absent: NotRequired[list[Failed]]  # of a report in between
    corpus: NotRequired[Json]
    heads: NotRequired[Json]
    scores: NotRequired[dict[str, Json]]
    items: NotRequired[Json]
    baselines: NotRequired[Json]
    averaged: list[str]  # metrics of the average accuracy
    comparisons: list[Difference]
    during: NotRequired[list[During]]
    verdict: Verdict
    noise: NotRequired[dict[str, Noise]]
    registration: NotRequired[Registration]
    # arm -> other arm -> share of its documents the other selects, too
    overlap: NotRequired[dict[str, dict[str, float]]]
    pairs: NotRequired[Json]  # of analyse
    agreement: NotRequired[Json]  # of agree
    evolution: NotRequired[Json]  # of evolve
