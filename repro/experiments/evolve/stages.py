"""Head scores of checkpoints: of each arm's training, or, for arms with a proxy of their own, of those
proxies.
"""

from __future__ import annotations

from dataclasses import replace

from repro.errors import require
from repro.experiments import Experiment, arms
from repro.experiments.evolve import series
from repro.proxy import stage as proxy
from repro.selection.settings import Mixture
from repro.selection.stage import everything
from repro.settings.root import Settings
from repro.settings.typed import as_object
from repro.store import Stage


def stages(settings: Settings) -> Experiment:
    """``arms[name][seed]``: "pretrain" or "proxy"; ``pairs``: the series by measure."""
    shared = arms.with_corpus(settings)
    seed, corpus = settings.exp.seeds[0], shared["corpus"]
    params = as_object(series.Evolution, settings.exp.params, "exp.params")
    require(bool(settings.exp.arms), f"exp={settings.exp.name} has no arms: name a training or checkpoints")
    found: dict[str, dict[int, dict[str, Stage]]] = {}
    sources: dict[str, list[series.Checkpoint]] = {}
    for name, arm in settings.exp.arms.items():
        if arm.proxy:
            own = replace(settings.proxy, **arm.proxy)
            model = proxy.stage(own)
            found[name] = {seed: {"proxy": model}}
            # of a folder its config.json is at hand
            context = proxy.config(own).get("max_position_embeddings") if own.kind == "folder" else None
            published = series.Checkpoint(name, params.tokens.get(name), model, own, context)
            sources.setdefault("published", []).append(published)
            continue
        train = series.kept(arms.train_of(settings, name), params)
        whole = (arm.select.selector, arm.mixture) == ("all", Mixture())
        selection = everything(corpus) if whole else arms.selected(settings, shared, name, seed)
        model = arms.trained(settings, shared, name, seed, train, selection)
        found[name] = {seed: {"pretrain": model}}
        sources[name] = series.trained(train, model, settings.proxy)
    pairs = {
        measure if len(sources) == 1 else f"{source}, {measure}": stage
        for source, checkpoints in sources.items()
        for measure, stage in series.series(settings.heads, params, checkpoints, corpus).items()
    }
    return Experiment(shared, found, pairs)
