"""What a metric is, from its name: the one place that takes names apart.

``bits_per_byte`` (the endpoint), ``accuracy_average``, ``copying_gain``, ``<group>/<source or task>`` for
bits per byte and probabilities, ``<entry>_acc/<part>`` for parts of a benchmark,
``<task>/<lm-eval's metric>[,<filter>]`` for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

ENDPOINT = "bits_per_byte"
TEXT, HELD_OUT, GOLD = "text_bits_per_byte", "heldout_bits_per_byte", "gold_bits_per_byte"
PROBABILITY = "gold_probability"
COPYING = "copying_gain"  # nats a token (``repro.evaluate.copying``)
# the first that a task has is its headline metric
ACCURACIES = ("acc_norm", "acc", "exact_match", "f1", "pass@1", "math_verify")


@dataclass(frozen=True)
class Measure:
    """``group`` stands before the name of a text source or task, ``task`` is the one measured, ``name``
    lm-eval's metric.
    """

    group: str = ""
    task: str = ""
    name: str = ""
    lower_is_better: bool = False
    accuracy: bool = False
    perplexity: bool = False  # bits per byte say the same
    part: bool = False  # of a benchmark

    @property
    def bits(self) -> bool:
        """Whether it is in bits per byte."""
        return self.group in (ENDPOINT, TEXT, HELD_OUT, GOLD)


@cache
def of(metric: str) -> Measure:
    """The measure behind the name of a metric."""
    group, _, rest = metric.partition("/")
    if group in (ENDPOINT, TEXT, HELD_OUT, GOLD):
        return Measure(group, rest, lower_is_better=True)
    if group in (PROBABILITY, "accuracy_average"):
        return Measure(group, rest)
    if group == COPYING:  # what explains other differences is not tested beside them
        return Measure(group, part=True)
    if group.endswith("_acc"):
        return Measure(group, rest, part=True)
    task, _, name = metric.rpartition("/")
    perplexity = "perplexity" in name
    lower = perplexity or "bits_per_byte" in name or "loss" in name
    return Measure("", task, name, lower, name.split(",")[0] in ACCURACIES, perplexity)
