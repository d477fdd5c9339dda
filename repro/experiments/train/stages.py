"""Selection, training and evaluation of every arm and seed."""

from __future__ import annotations

from repro.config import Settings, require
from repro.evaluate import baselines
from repro.evaluate import stage as evaluate
from repro.experiments import Experiment, arms
from repro.store import Stage


def stages(settings: Settings) -> Experiment:
    """``arms[name][seed]``: "selection", "pretrain" and "evaluate"."""
    require(bool(settings.exp.arms), f"exp={settings.exp.name} has no arms to train")
    if any(arms.reads_losses(settings, name) for name in settings.exp.arms):
        shared = arms.with_scores(settings, evaluates=True)
    else:
        shared = arms.with_proxy(settings, evaluates=True)
    if baselines.wanted(settings.eval):
        shared["baselines"] = baselines.stage(settings.eval, shared["items"], shared["corpus"])
    found: dict[str, dict[int, dict[str, Stage]]] = {}
    for name, arm in settings.exp.arms.items():
        found[name] = {}
        for seed in arm.seeds or settings.exp.seeds:
            selection = arms.selected(settings, shared, name, seed)
            model = arms.trained(settings, shared, name, seed, arms.train_of(settings, name), selection)
            result = evaluate.stage(settings.eval, seed, shared["items"], shared["corpus"], model)
            found[name][seed] = {"selection": selection, "pretrain": model, "evaluate": result}
    return Experiment(shared, found, apart=True)
