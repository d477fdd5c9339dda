"""Evaluations of the proxy with the heads of each arm masked. Nothing is scored, selected or trained."""

from __future__ import annotations

from dataclasses import replace

from repro.evaluate import stage as evaluate
from repro.experiments import Experiment, arms
from repro.heads import stage as heads
from repro.proxy import stage as proxy
from repro.settings.experiment import Arm
from repro.settings.root import Settings
from repro.store import Stage

MASKED = {
    "retrieval": "its retrieval heads",
    "induction": "its induction heads",
    "random": "as many other heads",
    "random_same_layers": "as many other heads of the same layers",
    "random_matched_damage": "as many other heads that hurt ordinary text as much",
    "bottom": "the heads that copy least",
    "none": "no heads",
}


def made_of(settings: Settings, arm: Arm) -> str:
    """What an arm is made of, for ``exp.question``."""
    detector = arm.heads.get("detector", settings.heads.detector)
    return MASKED.get(detector, f"heads of {detector}")


def stages(settings: Settings) -> Experiment:
    """``arms[name][seed]``: "heads", if any are masked, and "evaluate". A seed is a draw of the control
    heads: arms that draw nothing have one evaluation, whatever the seed.
    """
    shared = arms.with_heads(settings, evaluates=True)
    found: dict[str, dict[int, dict[str, Stage]]] = {}
    for name, arm in settings.exp.arms.items():
        own, how = replace(settings.proxy, **arm.proxy), replace(settings.heads, **arm.heads)
        model = proxy.stage(own)
        found[name] = {}
        for seed in arm.seeds or settings.exp.seeds:
            masked = {}
            if how.detector != "none":
                masked["heads"] = heads.stage(replace(how, control_seed=seed), own, model, shared["corpus"])
            result = evaluate.masked_stage(
                settings.eval, own, shared["items"], shared["corpus"], model, masked.get("heads")
            )
            found[name][seed] = masked | {"evaluate": result}
    return Experiment(shared, found, apart=True)
