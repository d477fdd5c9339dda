"""Selection, training and evaluation of every arm and seed."""

from __future__ import annotations

from repro.config import Settings
from repro.experiments import Experiment, arms


def stages(settings: Settings) -> Experiment:
    """``arms[name][seed]``: "selection", "pretrain" and "evaluate"."""
    return arms.trained_arms(settings)
