"""The selection stage: scores in, how often each document is seen in one pass out."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from typing import Any

from repro.config import Budget, Mixture, Select, require
from repro.selection import priority, selectors
from repro.store import Context, Stage


def stage(
    select: Select,
    mixture: Mixture,
    budget: Budget,
    seed: int,
    corpus: Stage,
    scores: Stage,
    reference: Stage | None = None,
) -> Stage:
    """A selector's choice as a training mixture. Only ``SEEDED`` selectors depend on ``seed``.

    ``reference`` is another selection whose tokens per domain are matched (the control that the paper lacks).
    """
    budget = replace(budget, **select.budget)
    if reference is not None:
        require(
            not _constrained(budget),
            f"select {select.selector!r} matches another selection's tokens; leave out budget.length_bins, within_group "
            "and one_per_cluster",
        )
    require(
        ("match" in select.params) == (reference is not None),
        f"select {select.selector!r}: params.match names the arm whose tokens per domain are matched, and needs that arm",
    )
    seed = seed if getattr(selectors.load(select.selector), "SEEDED", False) else 0
    params = {key: value for key, value in select.params.items() if key != "match"}
    settings = {
        "selector": select.selector,
        "params": selectors.identity(select.selector, params),
        "budget": asdict(budget),
        "mixture": asdict(mixture),
        "seed": seed,
    }
    inputs = {"corpus": corpus, "scores": scores} | priority.stages(select.selector, params, corpus)
    inputs |= {"reference": reference} if reference else {}
    label = f"{select.selector}{'' if mixture.kind == 'alone' else '-added'}-{budget.share:g}-seed{seed}"
    return Stage(
        "selection", label, settings, lambda ctx: _run(ctx, select.selector, params, mixture, budget, seed), inputs, version=2
    )


def _constrained(budget: Budget) -> bool:
    """Whether the choice is more than a cut in the order of priorities."""
    return budget.length_bins > 1 or budget.within_group or budget.one_per_cluster


def _run(context: Context, selector: str, params: dict[str, Any], mixture: Mixture, budget: Budget, seed: int) -> None:
    from repro.selection import inputs, outcome, rank
    from repro.store import read_json, write_json

    limits = None
    if "reference" in context.inputs:
        matched = read_json(context.inputs["reference"] / "selection.json")["domains"]
        limits = {domain: values["selected_tokens"] for domain, values in matched.items()}
        budget = replace(budget, unit="tokens", scope="domain")
    corpus, scores = context.inputs["corpus"], context.inputs["scores"]
    with rank.connect(spill=context.out / "spill") as connection:
        missing = inputs.open_inputs(connection, corpus, scores)
        found = selectors.call(selector, priority.asked(context, connection, seed), params)
        rank.build_pool(connection, found, budget)
        cuts = rank.cuts(connection, budget, limits)
        domains = outcome.describe(connection, cuts, mixture, budget.unit)
        outcome.write_selection(connection, context.out / "selection.parquet", cuts, mixture)
    shutil.rmtree(context.out / "spill", ignore_errors=True)

    whole = {key: sum(d[key] for d in domains.values()) for key in ("documents", "selected_documents", "selected_tokens")}
    unranked = sum(d["unranked"] for d in domains.values())
    empty = _judge(context, selector, budget, domains, unranked, missing)
    freezes = isinstance(found, str) and budget.scope == "domain" and not _constrained(budget)
    record = {"selector": selector, "params": params, "budget": asdict(budget), "mixture": asdict(mixture), "seed": seed}
    record |= {"matched_tokens": limits, "formula": found if freezes else None}  # the budget's share counts without a match
    record |= {"missing_scores": missing, "unranked": unranked, **whole} | empty
    write_json(context.out / "selection.json", {**record, "domains": domains})
    context.facts.update(**whole, unranked=unranked, missing_scores=missing, **empty)


def _judge(
    context: Context, selector: str, budget: Budget, domains: dict[str, Any], unranked: int, missing: int
) -> dict[str, list[str]]:
    """Warn of domains left empty, and of documents without priority; returns ``{"empty_domains": [...]}`` if there are any.

    Refused is a choice of nothing at all, and documents without priority where ``budget.unranked`` says so. An empty domain is
    refused by what trains on the selection, not here: scores and what is kept of the other domains are good.
    """
    every = sum(d["documents"] for d in domains.values())
    if unranked:
        where = ", ".join(f"{d['unranked']} in {name}" for name, d in domains.items() if d["unranked"])
        message = f"selector {selector!r}: {unranked} of {every} documents have no finite priority ({where})"
        message += f", {missing} of them no scores at all" if missing else ""
        require(budget.unranked != "refuse", f"{message}; score them, or allow it with budget.unranked=skip")
        context.warn(f"{message}; they are never selected")
    empty = [name for name, d in domains.items() if not d["selected_documents"]]
    message = (
        f"selector {selector!r} at budget.share={budget.share} takes no document of domain {', '.join(empty)}: "
        "the first one is longer than the budget, or none has a priority; raise budget.share"
    )
    require(len(empty) < len(domains), message)
    empty = empty if budget.scope == "domain" else []  # of a global budget a domain may get nothing
    if empty:
        context.warn(f"{message}, or leave small domains out with corpus.domains=[those to keep]")
    short = {name: d["shortfall"] / max(1, d["shortfall"] + d["selected_tokens"]) for name, d in domains.items()}
    low = [name for name in short if short[name] > 0.1 and name not in empty]
    if budget.unit == "tokens" and budget.scope == "domain" and low:
        context.warn(
            f"selector {selector!r} leaves {', '.join(f'{short[name]:.0%} of the budget of {name}' for name in low)} "
            "unused: the next document is longer than what is left; lower corpus.max_bytes so that arms hold equal tokens"
        )
    return {"empty_domains": empty} if empty else {}
