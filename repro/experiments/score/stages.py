"""One set of scores, whatever the arms keep of it."""

from __future__ import annotations

from repro.errors import require
from repro.experiments import Experiment, arms
from repro.settings.root import Settings


def stages(settings: Settings) -> Experiment:
    """``arms[name][seed]``: "selection". The corpus is exported with its text."""
    shared = arms.with_scores(settings)
    seed = settings.exp.seeds[0]
    selections = {
        name: arms.selected(settings, shared, name, seed, scored=True) for name in settings.exp.arms
    }
    scores = {stage.inputs["scores"].fingerprint: stage.inputs["scores"] for stage in selections.values()}
    require(
        len(scores) == 1,
        f"exp={settings.exp.name} writes one set of scores, and its arms have {len(scores)}: some override"
        " proxy, heads or score; run them one by one, or compare them with exp=score_agreement",
    )
    score = next(iter(scores.values()))
    shared |= {"proxy": score.inputs["proxy"], "heads": score.inputs["heads"], "score": score}
    found = {name: {seed: {"selection": stage}} for name, stage in selections.items()}
    return Experiment(shared, found, exported=[shared["corpus"]])
