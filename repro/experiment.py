"""An experiment is arms x seeds; this file turns settings into the stages to run. It runs nothing and imports no library.

Arms share every stage they can: three arms score the corpus once, and another share of the same ranking rescores nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from repro.config import Budget, Mixture, Settings, Train, nearest, require, typed_params
from repro.store import Stage


@dataclass
class Experiment:
    """The stages of a run. ``arms[name][seed]`` holds "selection", "pretrain" and "evaluate" of one trained model.

    Where selections are compared (``exp.kind: analyse``) it holds "selection", "describe" and, with a judge, "judge", and
    ``pairs`` the comparisons by name. Where scores are compared (``agree``) it holds "heads", "score" and "ranking", and
    where checkpoints are (``evolve``) "pretrain" or "proxy"; ``pairs`` are then the agreements and the series.
    """

    shared: dict[str, Stage] = field(default_factory=dict)  # items, corpus, proxy, heads, score, tokens, baselines
    arms: dict[str, dict[int, dict[str, Stage]]] = field(default_factory=dict)
    pairs: dict[str, Stage] = field(default_factory=dict)

    def order(self) -> list[Stage]:
        """Every stage once, inputs before what reads them; all selections before the first training, then all arms of a seed
        before the next seed."""
        seen: dict[str, Stage] = {}
        for target in self._targets():
            for stage in target.ancestors():
                seen.setdefault(stage.fingerprint, stage)
        return list(seen.values())

    def read_by_report(self, settings: Settings) -> list[Stage]:
        """Stages that the report reads with their text: a scoring run exports the documents it keeps."""
        return [self.shared["corpus"]] if settings.exp.kind == "score" else []

    def title(self, stage: Stage) -> str:
        """What a stage is called on the terminal: the arms and the seed it belongs to, else its label."""
        owners = [(arm, seed) for arm, by_seed in self.arms.items() for seed, stages in by_seed.items()
                  if stage.fingerprint in {s.fingerprint for s in stages.values()}]  # fmt: skip
        pair = next((name for name, other in self.pairs.items() if other.fingerprint == stage.fingerprint), None)
        if pair is not None:
            return pair
        if not owners:
            return f"{stage.label}, {stage.inputs['proxy'].label}" if "proxy" in stage.inputs else stage.label
        arms, seeds = dict.fromkeys(arm for arm, _ in owners), dict.fromkeys(seed for _, seed in owners)
        return f"{', '.join(arms)}" + (f", seed {next(iter(seeds))}" if len(seeds) == 1 else "")

    def _targets(self) -> Iterator[Stage]:
        yield from self.shared.values()
        yield from self.selections()
        seeds = dict.fromkeys(seed for by_seed in self.arms.values() for seed in by_seed)
        for seed in seeds:
            for by_seed in self.arms.values():
                yield from by_seed.get(seed, {}).values()
        yield from self.pairs.values()

    def selections(self) -> list[Stage]:
        """The selection of every arm and seed."""
        return [s["selection"] for by_seed in self.arms.values() for s in by_seed.values() if "selection" in s]

    def as_dict(self) -> dict[str, Any]:
        """The shape the report reads: the shared stages by name, the arms, and comparisons of selections by name."""
        return {**self.shared, "arms": self.arms, "pairs": self.pairs}


def build(settings: Settings) -> Experiment:
    """The stages of ``settings``; cheap, so that ``--plan`` answers at once."""
    from repro import items
    from repro.corpus import stage as corpus
    from repro.heads import stage as heads
    from repro.influence import stage as influence
    from repro.proxy import stage as proxy

    shared: dict[str, Stage] = {}
    evaluates = settings.exp.kind in ("train", "mirror")
    if evaluates or settings.corpus.decontaminate:
        shared["items"] = items.stage(settings.items)
    shared["corpus"] = corpus.stage(settings.corpus, shared["items"] if settings.corpus.decontaminate else None)
    if settings.exp.kind == "evolve":
        return _evolved(settings, shared)
    shared["proxy"] = proxy.stage(settings.proxy)
    if settings.exp.kind == "train" and not any(_reads_losses(settings, name) for name in settings.exp.arms):
        return Experiment(shared, _trained_arms(settings, shared))
    shared["heads"] = heads.stage(settings.heads, settings.proxy, shared["proxy"], shared["corpus"])
    if settings.exp.kind == "mirror":
        return Experiment(shared, _masked_arms(settings, shared))
    if settings.exp.kind == "planted":
        return _planted(settings, shared)
    shared["score"] = influence.stage(
        settings.score, settings.heads, settings.proxy, shared["proxy"], shared["corpus"], shared["heads"]
    )
    if settings.exp.kind == "analyse":
        return _analysed(settings, shared)
    if settings.exp.kind == "agree":
        return _agreed(settings, shared)
    if settings.exp.kind == "score":
        return _scored(settings, shared)
    return Experiment(shared, _trained_arms(settings, shared))


def _planted(settings: Settings, shared: dict[str, Stage]) -> Experiment:
    """Heads come from the corpus as it is, so that they are those of other experiments; what is scored is the planted one."""
    from repro.analysis import planted

    seed, arms = settings.exp.seeds[0], settings.exp.arms
    corpus = planted.stage(settings.corpus, settings.exp.params, settings.score.max_tokens or 4096, shared["corpus"])
    scores = {name: _scores(settings, shared, name, corpus) for name in arms}
    found = {name: planted.found_stage(arm.select, seed, corpus, scores[name]) for name, arm in arms.items()}
    same = {"score": scores[next(iter(arms))]} if len({stage.fingerprint for stage in scores.values()}) == 1 else {}
    return Experiment(shared | {"corpus": corpus} | same, {name: {seed: {"found": stage}} for name, stage in found.items()})


def _scored(settings: Settings, shared: dict[str, Stage]) -> Experiment:
    """Scores for others to use: one set of them, whatever the arms keep of it."""
    seed = settings.exp.seeds[0]
    selections = {name: _selection(settings, shared, name, seed, scored=True) for name in settings.exp.arms}
    scores = {stage.inputs["scores"].fingerprint: stage.inputs["scores"] for stage in selections.values()}
    require(
        len(scores) == 1,
        f"exp={settings.exp.name} writes one set of scores, and its arms have {len(scores)}: some override proxy, heads or "
        "score; run them one by one, or compare them with exp=score_agreement",
    )
    score = next(iter(scores.values()))
    own = {"proxy": score.inputs["proxy"], "heads": score.inputs["heads"], "score": score}
    return Experiment(shared | own, {name: {seed: {"selection": stage}} for name, stage in selections.items()})


def _analysed(settings: Settings, shared: dict[str, Stage]) -> Experiment:
    from repro.analysis import selected

    seed = settings.exp.seeds[0]
    selections = {name: _selection(settings, shared, name, seed) for name in settings.exp.arms}
    described, pairs = selected.stages(settings, selections)
    arms = {name: {seed: {"selection": selections[name], **described[name]}} for name in selections}
    return Experiment(shared, arms, pairs)


def _agreed(settings: Settings, shared: dict[str, Stage]) -> Experiment:
    """Rankings of every arm's scores, compared as ``exp.contrasts`` says or each with the first arm's."""
    from repro.analysis import agreement

    seed, arms = settings.exp.seeds[0], settings.exp.arms
    require(len(arms) >= 2, f"exp={settings.exp.name} compares scores: it needs two arms")
    params = typed_params(agreement.Agreement, settings.exp.params)
    stages: dict[str, dict[int, dict[str, Stage]]] = {}
    for name, arm in arms.items():
        scores = _scores(settings, shared, name)
        ranking = agreement.ranking_stage(arm.select, seed, shared["corpus"], scores)
        stages[name] = {seed: {"heads": scores.inputs["heads"], "score": scores, "ranking": ranking}}
    first, *others = arms
    wanted = [(c.treatment, c.control) for c in settings.exp.contrasts] or [(other, first) for other in others]
    ranked = {name: by_seed[seed]["ranking"] for name, by_seed in stages.items()}
    return Experiment(shared, stages, {f"{a} | {b}": agreement.stage(params, ranked[a], ranked[b]) for a, b in wanted})


def _evolved(settings: Settings, shared: dict[str, Stage]) -> Experiment:
    """Head scores of checkpoints: of each arm's training, or, for arms with a proxy of their own, of those proxies."""
    from repro.analysis import evolution
    from repro.proxy import stage as proxy

    seed, corpus = settings.exp.seeds[0], shared["corpus"]
    params = typed_params(evolution.Evolution, settings.exp.params)
    require(bool(settings.exp.arms), f"exp={settings.exp.name} has no arms: name a training or checkpoints")
    arms: dict[str, dict[int, dict[str, Stage]]] = {}
    sources: dict[str, list[evolution.Checkpoint]] = {}
    for name, arm in settings.exp.arms.items():
        if arm.proxy:
            own = replace(settings.proxy, **arm.proxy)
            model = proxy.stage(own)
            arms[name] = {seed: {"proxy": model}}
            sources.setdefault("published", []).append(evolution.Checkpoint(name, params.tokens.get(name), model, own))
            continue
        train = evolution.kept(train_of(settings, name), params)
        whole = (arm.select.selector, arm.mixture) == ("all", Mixture())
        selection = evolution.everything(corpus) if whole else _selection(settings, shared, name, seed)
        model = _pretrained(settings, shared, name, seed, train, selection)
        arms[name] = {seed: {"pretrain": model}}
        sources[name] = evolution.trained(train, model, settings.proxy)
    series = {
        measure if len(sources) == 1 else f"{source}, {measure}": stage
        for source, checkpoints in sources.items()
        for measure, stage in evolution.series(settings.heads, params, checkpoints, corpus).items()
    }
    return Experiment(shared, arms, series)


def _trained_arms(settings: Settings, shared: dict[str, Stage]) -> dict[str, dict[int, dict[str, Stage]]]:
    from repro.evaluate import baselines
    from repro.evaluate import stage as evaluate

    require(bool(settings.exp.arms), f"exp={settings.exp.name} has no arms to train")
    if baselines.wanted(settings.eval):
        shared["baselines"] = baselines.stage(settings.eval, shared["items"], shared["corpus"])
    arms: dict[str, dict[int, dict[str, Stage]]] = {}
    for name in settings.exp.arms:
        arms[name] = {}
        for seed in settings.exp.arms[name].seeds or settings.exp.seeds:
            selection = _selection(settings, shared, name, seed)
            model = _pretrained(settings, shared, name, seed, train_of(settings, name), selection)
            result = evaluate.stage(settings.eval, seed, shared["items"], shared["corpus"], model)
            arms[name][seed] = {"selection": selection, "pretrain": model, "evaluate": result}
    return arms


def train_of(settings: Settings, name: str) -> Train:
    """An arm's training settings; one that ends sooner keeps the models up to its end."""
    arm = settings.exp.arms[name]
    own: dict[str, Any] = {"tokens": settings.train.tokens, "keep_at_tokens": settings.train.keep_at_tokens} | arm.train
    if arm.equal_passes:
        own["tokens"] = round(own["tokens"] * budget_of(settings, name).share)
    own["keep_at_tokens"] = [at for at in own["keep_at_tokens"] if at <= own["tokens"]]
    return replace(settings.train, **own).resolved()


def _pretrained(settings: Settings, shared: dict[str, Stage], name: str, seed: int, train: Train, selection: Stage) -> Stage:
    """The model of an arm and seed; the token ids that all arms share are made for the first."""
    from repro.pretrain import stage as pretrain
    from repro.proxy import stage as proxy

    model = settings.model
    own = proxy.stage(settings.proxy) if "proxy" in (model.init_from, model.tokenizer) else None
    shared.setdefault("tokens", pretrain.tokens_stage(model, shared["corpus"], own))
    named = {"tracking": settings.tracking, "group": settings.exp.name, "arm": name}
    start = own if model.init_from == "proxy" else None
    return pretrain.stage(model, train, seed, shared["tokens"], selection, **named, proxy=start)


def _masked_arms(settings: Settings, shared: dict[str, Stage]) -> dict[str, dict[int, dict[str, Stage]]]:
    """The proxy itself, evaluated with the heads of each arm masked (table 6). A seed is a draw of the control heads: arms
    that draw nothing have one evaluation, whatever the seed."""
    from repro.evaluate import stage as evaluate
    from repro.heads import stage as heads
    from repro.proxy import stage as proxy

    arms: dict[str, dict[int, dict[str, Stage]]] = {}
    for name, arm in settings.exp.arms.items():
        own, how = replace(settings.proxy, **arm.proxy), replace(settings.heads, **arm.heads)
        model = proxy.stage(own)
        arms[name] = {}
        for seed in arm.seeds or settings.exp.seeds:
            stages = {}
            if how.detector != "none":
                stages["heads"] = heads.stage(replace(how, control_seed=seed), own, model, shared["corpus"])
            result = evaluate.masked_stage(settings.eval, own, shared["items"], shared["corpus"], model, stages.get("heads"))
            arms[name][seed] = stages | {"evaluate": result}
    return arms


def _selection(settings: Settings, shared: dict[str, Stage], name: str, seed: int, scored: bool = False) -> Stage:
    """An arm's selection; with ``scored`` from scores, even if it reads none of their losses."""
    from repro.selection import stage as selection

    arm = settings.exp.arms[name]
    reference = None
    if other := arm.select.params.get("match"):  # a control that matches the tokens per domain of another arm
        require(
            other != name and other in settings.exp.arms,
            f"arm {name!r} matches {other!r}; did you mean {nearest(other, set(settings.exp.arms) - {name})}?",
        )
        reference = _selection(settings, shared, other, seed, scored)
    budget = budget_of(settings, name)
    ranked = _scores if scored or _reads_losses(settings, name) else _measures
    return selection.stage(arm.select, arm.mixture, budget, seed, shared["corpus"], ranked(settings, shared, name), reference)


def _reads_losses(settings: Settings, name: str) -> bool:
    """Whether an arm's selection needs scores; else the measures of the documents are enough."""
    from repro.selection import selectors

    select = settings.exp.arms[name].select
    return selectors.reads_losses(select.selector, select.params)


def _measures(settings: Settings, shared: dict[str, Stage], name: str) -> Stage:
    """What is known of the documents without scoring them: lengths in the tokens of the arm's own proxy."""
    from repro.influence import measures
    from repro.proxy import stage as proxy

    own = replace(settings.proxy, **settings.exp.arms[name].proxy)
    return measures.stage(proxy.stage(own), shared["corpus"])


def _scores(settings: Settings, shared: dict[str, Stage], name: str, scored: Stage | None = None) -> Stage:
    """What an arm ranks by: scores of its own proxy, heads and mask; those of the run where it overrides none of them.

    ``scored`` is another corpus than the one whose text the heads are found in.
    """
    from repro.heads import stage as heads
    from repro.influence import stage as influence
    from repro.proxy import stage as proxy

    arm = settings.exp.arms[name]
    own, how = replace(settings.proxy, **arm.proxy), replace(settings.heads, **arm.heads)
    model = proxy.stage(own)
    important = heads.stage(how, own, model, shared["corpus"])
    return influence.stage(replace(settings.score, **arm.score), how, own, model, scored or shared["corpus"], important)


def budget_of(settings: Settings, name: str) -> Budget:
    """What an arm may select: the experiment's budget, the arm's and its selector's own values over it."""
    arm = settings.exp.arms[name]
    return replace(settings.budget, **arm.budget | arm.select.budget)
