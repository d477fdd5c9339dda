"""An experiment is arms x seeds; this file turns settings into the stages to run. It runs nothing and imports no library.

Arms share every stage they can: three arms score the corpus once, and another share of the same ranking rescores nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from repro.config import Budget, Settings, nearest, require
from repro.store import Stage


@dataclass
class Experiment:
    """The stages of a run. ``arms[name][seed]`` holds "selection", "pretrain" and "evaluate" of one trained model.

    Where selections are compared (``exp.kind: analyse``) it holds "selection", "describe" and, with a judge, "judge", and
    ``pairs`` the comparisons by name.
    """

    shared: dict[str, Stage] = field(default_factory=dict)  # items, corpus, proxy, heads, score, tokens
    arms: dict[str, dict[int, dict[str, Stage]]] = field(default_factory=dict)
    pairs: dict[str, Stage] = field(default_factory=dict)

    def order(self) -> list[Stage]:
        """Every stage once, inputs before what reads them, all arms of a seed before the next seed."""
        seen: dict[str, Stage] = {}
        for target in self._targets():
            for stage in target.ancestors():
                seen.setdefault(stage.fingerprint, stage)
        return list(seen.values())

    def title(self, stage: Stage) -> str:
        """What a stage is called on the terminal: the arms and the seed it belongs to, else its label."""
        owners = [(arm, seed) for arm, by_seed in self.arms.items() for seed, stages in by_seed.items()
                  if stage.fingerprint in {s.fingerprint for s in stages.values()}]  # fmt: skip
        if not owners:
            return stage.label
        arms, seeds = dict.fromkeys(arm for arm, _ in owners), dict.fromkeys(seed for _, seed in owners)
        return f"{', '.join(arms)}" + (f", seed {next(iter(seeds))}" if len(seeds) == 1 else "")

    def _targets(self) -> Iterator[Stage]:
        yield from self.shared.values()
        seeds = dict.fromkeys(seed for by_seed in self.arms.values() for seed in by_seed)
        for seed in seeds:
            for by_seed in self.arms.values():
                yield from by_seed.get(seed, {}).values()
        yield from self.pairs.values()

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
    shared["proxy"] = proxy.stage(settings.proxy)
    shared["heads"] = heads.stage(settings.heads, settings.proxy, shared["proxy"], shared["corpus"])
    if settings.exp.kind == "mirror":
        return Experiment(shared, _masked_arms(settings, shared))
    if settings.exp.kind == "planted":
        from repro.analysis import planted

        # Heads come from the corpus as it is, so that they are those of other experiments; what is scored is the planted one.
        shared["corpus"] = planted.stage(settings.corpus, settings.exp.params, settings.score.max_tokens, shared["corpus"])
    shared["score"] = influence.stage(
        settings.score, settings.heads, settings.proxy, shared["proxy"], shared["corpus"], shared["heads"]
    )
    if settings.exp.kind == "analyse":
        return _analysed(settings, shared)
    if settings.exp.kind == "planted":
        seed = settings.exp.seeds[0]
        arms = {
            name: planted.found_stage(arm.select, seed, shared["corpus"], shared["score"])
            for name, arm in settings.exp.arms.items()
        }
        return Experiment(shared, {name: {seed: {"found": stage}} for name, stage in arms.items()})
    if settings.exp.kind == "score":
        seed = settings.exp.seeds[0]
        return Experiment(
            shared, {name: {seed: {"selection": _selection(settings, shared, name, seed)}} for name in settings.exp.arms}
        )
    return Experiment(shared, _trained_arms(settings, shared))


def _analysed(settings: Settings, shared: dict[str, Stage]) -> Experiment:
    from repro.analysis import selected

    seed = settings.exp.seeds[0]
    selections = {name: _selection(settings, shared, name, seed) for name in settings.exp.arms}
    described, pairs = selected.stages(settings, selections)
    arms = {name: {seed: {"selection": selections[name], **described[name]}} for name in selections}
    return Experiment(shared, arms, pairs)


def _trained_arms(settings: Settings, shared: dict[str, Stage]) -> dict[str, dict[int, dict[str, Stage]]]:
    from repro.evaluate import stage as evaluate
    from repro.pretrain import stage as pretrain

    require(bool(settings.exp.arms), f"exp={settings.exp.name} has no arms to train")
    tokenizer_from = shared["proxy"] if settings.model.tokenizer == "proxy" else None
    shared["tokens"] = pretrain.tokens_stage(settings.model, shared["corpus"], tokenizer_from)
    arms: dict[str, dict[int, dict[str, Stage]]] = {}
    for name, arm in settings.exp.arms.items():
        arms[name] = {}
        train = replace(settings.train, **arm.train)
        if arm.equal_passes:
            train = replace(train, tokens=round(train.tokens * _budget(settings, name).share))
        for seed in settings.exp.seeds:
            selection = _selection(settings, shared, name, seed)
            model = pretrain.stage(
                settings.model,
                train,
                seed,
                shared["tokens"],
                selection,
                tracking=settings.tracking,
                group=settings.exp.name,
                arm=name,
            )
            result = evaluate.stage(settings.eval, seed, shared["items"], shared["corpus"], model)
            arms[name][seed] = {"selection": selection, "pretrain": model, "evaluate": result}
    return arms


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
        for seed in settings.exp.seeds:
            stages = {}
            if how.detector != "none":
                stages["heads"] = heads.stage(replace(how, control_seed=seed), own, model, shared["corpus"])
            result = evaluate.masked_stage(settings.eval, own, shared["items"], shared["corpus"], model, stages.get("heads"))
            arms[name][seed] = stages | {"evaluate": result}
    return arms


def _selection(settings: Settings, shared: dict[str, Stage], name: str, seed: int) -> Stage:
    from repro.selection import stage as selection

    arm = settings.exp.arms[name]
    reference = None
    if other := arm.select.params.get("match"):  # a control that matches the tokens per domain of another arm
        require(
            other != name and other in settings.exp.arms,
            f"arm {name!r} matches {other!r}; did you mean {nearest(other, set(settings.exp.arms) - {name})}?",
        )
        reference = _selection(settings, shared, other, seed)
    budget = _budget(settings, name)
    return selection.stage(arm.select, arm.mixture, budget, seed, shared["corpus"], _scores(settings, shared, name), reference)


def _scores(settings: Settings, shared: dict[str, Stage], name: str) -> Stage:
    """What an arm ranks by: scores of its own proxy, heads and mask; those of the run where it overrides none of them."""
    from repro.heads import stage as heads
    from repro.influence import stage as influence
    from repro.proxy import stage as proxy

    arm = settings.exp.arms[name]
    own, how = replace(settings.proxy, **arm.proxy), replace(settings.heads, **arm.heads)
    model = proxy.stage(own)
    important = heads.stage(how, own, model, shared["corpus"])
    return influence.stage(replace(settings.score, **arm.score), how, own, model, shared["corpus"], important)


def _budget(settings: Settings, name: str) -> Budget:
    return replace(settings.budget, **settings.exp.arms[name].budget)
