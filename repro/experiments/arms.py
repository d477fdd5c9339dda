"""What kinds of experiments share: the stages that all arms read, and an arm's own scores, selection and training.

Arms share every stage they can: three arms score the corpus once, and another share of the same ranking rescores nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from repro import items
from repro.config import Budget, Settings, Train, nearest, require
from repro.corpus import stage as corpus
from repro.heads import stage as heads
from repro.influence import stage as influence
from repro.pretrain import stage as pretrain
from repro.proxy import stage as proxy
from repro.selection import stage as selection
from repro.store import Stage


def with_corpus(settings: Settings, evaluates: bool = False) -> dict[str, Stage]:
    """The corpus, and the benchmark items where they are asked or documents that share text with them are dropped."""
    shared: dict[str, Stage] = {}
    if evaluates or settings.corpus.decontaminate:
        shared["items"] = items.stage(settings.items)
    shared["corpus"] = corpus.stage(settings.corpus, shared["items"] if settings.corpus.decontaminate else None)
    return shared


def with_heads(settings: Settings, evaluates: bool = False) -> dict[str, Stage]:
    """What :func:`with_corpus` gives, the proxy, and its heads found in that corpus."""
    shared = with_corpus(settings, evaluates)
    shared["proxy"] = proxy.stage(settings.proxy)
    shared["heads"] = heads.stage(settings.heads, settings.proxy, shared["proxy"], shared["corpus"])
    return shared


def with_scores(settings: Settings, evaluates: bool = False) -> dict[str, Stage]:
    """What :func:`with_heads` gives, and the influence scores of the corpus."""
    shared = with_heads(settings, evaluates)
    shared["score"] = influence.stage(
        settings.score, settings.heads, settings.proxy, shared["proxy"], shared["corpus"], shared["heads"]
    )
    return shared


def scores(settings: Settings, shared: dict[str, Stage], name: str, scored: Stage | None = None) -> Stage:
    """What an arm ranks by: scores of its own proxy, heads and mask; those of the run where it overrides none of them.

    ``scored`` is another corpus than the one whose text the heads are found in.
    """
    arm = settings.exp.arms[name]
    own, how = replace(settings.proxy, **arm.proxy), replace(settings.heads, **arm.heads)
    model = proxy.stage(own)
    important = heads.stage(how, own, model, shared["corpus"])
    return influence.stage(replace(settings.score, **arm.score), how, own, model, scored or shared["corpus"], important)


def selected(settings: Settings, shared: dict[str, Stage], name: str, seed: int) -> Stage:
    """What an arm selects with a seed."""
    arm = settings.exp.arms[name]
    reference = None
    if other := arm.select.params.get("match"):  # a control that matches the tokens per domain of another arm
        require(
            other != name and other in settings.exp.arms,
            f"arm {name!r} matches {other!r}; did you mean {nearest(other, set(settings.exp.arms) - {name})}?",
        )
        reference = selected(settings, shared, other, seed)
    budget = budget_of(settings, name)
    return selection.stage(arm.select, arm.mixture, budget, seed, shared["corpus"], scores(settings, shared, name), reference)


def budget_of(settings: Settings, name: str) -> Budget:
    """What an arm may select: the experiment's budget, the arm's and its selector's own values over it."""
    arm = settings.exp.arms[name]
    return replace(settings.budget, **arm.budget | arm.select.budget)


def train_of(settings: Settings, name: str) -> Train:
    """An arm's training settings; one that ends sooner keeps the models up to its end."""
    arm = settings.exp.arms[name]
    own: dict[str, Any] = {"tokens": settings.train.tokens, "keep_at_tokens": settings.train.keep_at_tokens} | arm.train
    if arm.equal_passes:
        own["tokens"] = round(own["tokens"] * budget_of(settings, name).share)
    own["keep_at_tokens"] = [at for at in own["keep_at_tokens"] if at <= own["tokens"]]
    return replace(settings.train, **own).resolved()


def trained(settings: Settings, shared: dict[str, Stage], name: str, seed: int, train: Train, selection: Stage) -> Stage:
    """The model of an arm and seed; the token ids that all arms share are made for the first."""
    tokenizer_from = proxy.stage(settings.proxy) if settings.model.tokenizer == "proxy" else None
    shared.setdefault("tokens", pretrain.tokens_stage(settings.model, shared["corpus"], tokenizer_from))
    named = {"tracking": settings.tracking, "group": settings.exp.name, "arm": name}
    return pretrain.stage(settings.model, train, seed, shared["tokens"], selection, **named)
