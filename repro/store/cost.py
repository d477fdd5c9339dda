"""What stages are expected to take, for ``--plan``: each says so itself, from what its inputs are expected to
be.

Costs are arithmetic on the settings: 2 FLOPs per parameter and token forward, 6 with the backward pass. Text
is read, cleaned, tokenised and compared by CPU cores: their seconds are those of one core.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

BYTES_PER_TOKEN = 4  # of English text and code with a vocabulary of some 50,000
STORED_BYTES = 1.8  # a token of a corpus in packed parquet
# a token that is written takes as long as so many that are read: each needs all weights from memory
WRITING = 8
STARTED = 5  # seconds until a model is loaded
# A second of one CPU core, seen on laptops: tokens,
CLEANED, TOKENISED, READ, WORDS_COUNTED = 1.3e5, 2e5, 1e5, 3e5
RANKED = 1e6  # and documents
TOKENS_OF_DOCUMENT = 1000


@dataclass(frozen=True)
class Made:
    """How large that is which a stage makes, as far as stages that read it ask."""

    tokens: float = 0.0  # of the training split
    domains: int = 0
    documents: float = math.inf  # at most
    parameters: float = 0.0  # of a model
    models: int = 1  # the last one, and those that were kept on the way


@dataclass(frozen=True)
class Cost:
    """What one stage is expected to take, and what it makes of it."""

    tokens: float = 0.0  # read, scored, trained on or written
    flops: float = 0.0
    disk_bytes: float = 0.0
    seconds: float = 0.0  # of one CPU core, or of waiting for others
    writing_flops: float = 0.0  # the part of the FLOPs that goes into tokens a model writes
    made: Made = field(default=Made(), compare=False)

    def __add__(self, other: Cost) -> Cost:
        added = ("tokens", "flops", "disk_bytes", "seconds", "writing_flops")
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in added})

    def hours(self, rate: float) -> float:
        """Hours of one device at ``rate`` FLOP/s."""
        return (self.flops + (WRITING - 1) * self.writing_flops) / rate / 3600


@dataclass(frozen=True)
class Known:
    """What a stage may look at to say its cost: what its inputs make, its own artifact where it is there
    already, the tokens of the corpus where somebody has counted them, and what a run that was stopped has
    left.
    """

    inputs: Mapping[str, Made]
    folder: Path | None = None
    tokens: float | None = None
    begun: Path | None = None


def nothing(known: Known) -> Cost:
    """The cost of what only links or divides numbers."""
    return Cost()


def of_rows(made: Made) -> Cost:
    """The cost of looking at one row a document, of which some thirty bytes are kept; makes what it reads."""
    rows = made.tokens / TOKENS_OF_DOCUMENT
    return Cost(0, 0, 30 * rows, 1 + rows / RANKED, made=made)
