"""Selection, training and evaluation of every selector, size and seed."""

from __future__ import annotations

from repro.experiments import Experiment, arms
from repro.settings.root import Settings


def stages(settings: Settings) -> Experiment:
    """``arms[name][seed]``: "selection", "pretrain", "copying" and "evaluate"; sizes share their
    selections.
    """
    return arms.trained_arms(settings)
