"""What kinds of experiments share: the stages that all arms read, and an arm's own scores, selection and
training.

Arms share every stage they can: three arms score the corpus once, and another share of the same ranking
rescores nothing.
"""

from __future__ import annotations

from dataclasses import replace

from repro import items
from repro.corpus import stage as corpus
from repro.errors import nearest, require
from repro.evaluate import baselines
from repro.evaluate import stage as evaluate
from repro.experiments import Experiment
from repro.heads import stage as heads
from repro.influence import measures
from repro.influence import stage as influence
from repro.plain import Json
from repro.pretrain import stage as pretrain
from repro.pretrain.settings import Train
from repro.proxy import stage as proxy
from repro.selection import selectors
from repro.selection import stage as selection
from repro.selection.settings import Budget
from repro.settings.root import Settings
from repro.store import Stage


def with_corpus(settings: Settings, evaluates: bool = False) -> dict[str, Stage]:
    """The corpus, and the benchmark items where they are asked or documents that share text with them are
    dropped.
    """
    shared: dict[str, Stage] = {}
    if evaluates or settings.corpus.decontaminate:
        shared["items"] = items.stage(settings.items)
    shared["corpus"] = corpus.stage(
        settings.corpus, shared["items"] if settings.corpus.decontaminate else None, settings.run
    )
    return shared


def with_proxy(settings: Settings, evaluates: bool = False) -> dict[str, Stage]:
    """What :func:`with_corpus` gives, and the proxy."""
    return with_corpus(settings, evaluates) | {"proxy": proxy.stage(settings.proxy)}


def with_heads(settings: Settings, evaluates: bool = False) -> dict[str, Stage]:
    """What :func:`with_proxy` gives, and the proxy's heads found in that corpus."""
    shared = with_proxy(settings, evaluates)
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
    """What an arm ranks by: scores of its own proxy, heads and mask; those of the run where it overrides none
    of them.

    ``scored`` is another corpus than the one whose text the heads are found in.
    """
    arm = settings.exp.arms[name]
    own, how = replace(settings.proxy, **arm.proxy), replace(settings.heads, **arm.heads)
    model = proxy.stage(own)
    important = heads.stage(how, own, model, shared["corpus"])
    return influence.stage(
        replace(settings.score, **arm.score), how, own, model, scored or shared["corpus"], important
    )


def selected(
    settings: Settings, shared: dict[str, Stage], name: str, seed: int, scored: bool = False
) -> Stage:
    """What an arm selects with a seed; with ``scored`` from scores, even if it reads none of their losses."""
    arm = settings.exp.arms[name]
    reference = None
    if other := arm.select.match:  # a control that matches the tokens per domain of another arm
        require(
            other != name and other in settings.exp.arms,
            f"arm {name!r} matches {other!r}; did you mean"
            f" {nearest(other, set(settings.exp.arms) - {name})}?",
        )
        reference = selected(settings, shared, other, seed, scored)
    budget = budget_of(settings, name)
    ranked = scores if scored or reads_losses(settings, name) else measured
    return selection.stage(
        arm.select, arm.mixture, budget, seed, shared["corpus"], ranked(settings, shared, name), reference
    )


def reads_losses(settings: Settings, name: str) -> bool:
    """Whether an arm's selection needs scores; else the measures of the documents are enough."""
    select = settings.exp.arms[name].select
    return selectors.reads_losses(select.selector, select.params)


def measured(settings: Settings, shared: dict[str, Stage], name: str) -> Stage:
    """What is known of the documents without scoring them: lengths in the tokens of the arm's own proxy."""
    own = replace(settings.proxy, **settings.exp.arms[name].proxy)
    return measures.stage(proxy.stage(own), shared["corpus"])


def budget_of(settings: Settings, name: str) -> Budget:
    """What an arm may select: the experiment's budget, its selector's own values over it, the arm's over
    both.
    """
    arm = settings.exp.arms[name]
    budget = replace(settings.budget, **arm.select.budget | arm.budget)
    require(
        arm.select.selector != "all" or budget.share == 1,
        f"exp.arms.{name}.budget.share={budget.share:g}: the selector 'all' ranks nothing, so there is no top"
        f" share; set exp.arms.{name}.select=random",
    )
    return budget


def train_of(settings: Settings, name: str) -> Train:
    """An arm's training settings; one that ends sooner keeps the models up to its end."""
    arm = settings.exp.arms[name]
    own: Json = {
        "tokens": settings.train.tokens,
        "keep_at_tokens": settings.train.keep_at_tokens,
    } | arm.train
    if arm.equal_passes:
        budget = budget_of(settings, name)
        require(
            budget.unit == "tokens" and arm.mixture.kind == "alone" and budget.frozen is None,
            f"exp.arms.{name}.equal_passes=true shortens the training to budget.share of the tokens, which"
            " makes equal passes of a selection alone that is a share of the tokens, and of nothing else"
            f" (here budget.unit={budget.unit}, mixture={arm.mixture.kind}, budget.frozen={budget.frozen});"
            " state"
            f" exp.arms.{name}.train.tokens=N instead",
        )
        own["tokens"] = round(own["tokens"] * budget.share)
    own["keep_at_tokens"] = [at for at in own["keep_at_tokens"] if at <= own["tokens"]]
    return replace(settings.train, **own).resolved()


def trained(
    settings: Settings, shared: dict[str, Stage], name: str, seed: int, train: Train, selection: Stage
) -> Stage:
    """The model of an arm and seed. Arms share token ids but where one has a tokenizer, a vocabulary or a
    model to continue of its own; ``shared`` holds the first arm's.
    """
    model = replace(settings.model, **settings.exp.arms[name].model)
    own = proxy.stage(settings.proxy) if "proxy" in (model.init_from, model.tokenizer) else None
    tokens = pretrain.tokens_stage(model, shared["corpus"], own)
    shared.setdefault("tokens", tokens)
    named = {"tracking": settings.tracking, "group": settings.exp.name, "arm": name}
    start = own if model.init_from == "proxy" else None
    return pretrain.stage(model, train, seed, tokens, selection, **named, proxy=start)


def trained_arms(settings: Settings) -> Experiment:
    """Every arm selected, trained and evaluated with each of its seeds, and how far each model copies."""
    require(bool(settings.exp.arms), f"exp={settings.exp.name} has no arms to train")
    if any(reads_losses(settings, name) for name in settings.exp.arms):
        shared = with_scores(settings, evaluates=True)
    else:
        shared = with_proxy(settings, evaluates=True)
    if baselines.wanted(settings.eval):
        shared["baselines"] = baselines.stage(settings.eval, shared["items"], shared["corpus"])
    found: dict[str, dict[int, dict[str, Stage]]] = {}
    for name, arm in settings.exp.arms.items():
        found[name] = {}
        for seed in arm.seeds or settings.exp.seeds:
            selection = selected(settings, shared, name, seed)
            model = trained(settings, shared, name, seed, train_of(settings, name), selection)
            result = evaluate.stage(settings.eval, seed, shared["items"], shared["corpus"], model)
            found[name][seed] = {
                "selection": selection,
                "pretrain": model,
                "copying": evaluate.copying_stage(seed, model),
                "evaluate": result,
            }
    return Experiment(shared, found, apart=True)
