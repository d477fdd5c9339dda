"""Warmup, stable, decay (WSD, section 5.1): the learning rate as a function of the step."""

from __future__ import annotations

import math

from repro.pretrain.settings import Train


def decay_start(train: Train) -> int:
    """The first step of the decay; the branch point is the checkpoint before it."""
    return train.steps - round(train.decay * train.steps)


def warmup_steps(train: Train) -> int:
    """At least one step."""
    return max(1, round(train.warmup * train.steps))


def learning_rate(train: Train, step: int) -> float:
    """The learning rate of step 0 .. steps - 1.

    Rises linearly to the peak over the warm-up steps (at least one; the first step is not wasted on a rate of
    0), stays, and falls over the decay to ``final_lr`` times the peak at the last step.
    """
    warmup = warmup_steps(train)
    if step < warmup:
        return train.learning_rate * (step + 1) / warmup
    start = decay_start(train)
    if step < start:
        return train.learning_rate
    share = (step - start + 1) / (train.steps - start)
    falls = {
        "linear": 1 - share,
        "cosine": (1 + math.cos(math.pi * share)) / 2,
        "1-sqrt": 1 - math.sqrt(share),
    }
    return train.learning_rate * (train.final_lr + (1 - train.final_lr) * falls[train.decay_shape])
