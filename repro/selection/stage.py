"""The selection stage: scores in, how often each document is seen in one pass out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro import schema
from repro.errors import SettingError, require
from repro.plain import Json
from repro.selection import priority, selectors
from repro.selection.record import Domain, Notes, Record, Whole
from repro.selection.settings import Budget, Mixture, Select
from repro.store import Context, Stage, atomic, digest, parquet, read_json, write_json
from repro.store.cost import of_rows

if TYPE_CHECKING:
    import duckdb

    from repro.selection.rank import Cut


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
            f"select {select.selector!r} matches another selection's tokens; leave out budget.length_bins,"
            " within_group and one_per_cluster",
        )
        require(
            budget.frozen is None,
            f"select {select.selector!r} matches another selection's tokens; leave out budget.frozen",
        )
    require(
        (select.match is not None) == (reference is not None),
        f"select {select.selector!r}: match names the arm whose tokens per domain are matched, and needs"
        " that arm",
    )
    seed = seed if getattr(selectors.load(select.selector), "SEEDED", False) else 0
    params = select.params
    settings = {
        "selector": select.selector,
        "params": selectors.identity(select.selector, params),
        "budget": identity(budget),
        "mixture": schema.identity(mixture),
        "seed": seed,
    }
    inputs = {"corpus": corpus, "scores": scores} | priority.stages(select.selector, params, corpus)
    inputs |= {"reference": reference} if reference else {}
    label = f"{select.selector}{'' if mixture.kind == 'alone' else '-added'}-{budget.share:g}-seed{seed}"
    return Stage(
        "selection",
        label,
        settings,
        lambda ctx: _run(ctx, select.selector, params, mixture, budget, seed),
        inputs,
        version=2,
        light=selectors.light(select.selector, params),
        cost=lambda known: of_rows(known.inputs["corpus"]),
    )


def everything(corpus: Stage) -> Stage:
    """The whole training split as a selection: it needs no scores, so nothing has to be scored for it."""
    return Stage(
        "selection",
        "everything",
        {"selector": "all, without scores"},
        _everything,
        {"corpus": corpus},
        light=("corpus",),
        cost=lambda known: of_rows(known.inputs["corpus"]),
    )


def _everything(context: Context) -> None:
    import polars

    from repro.corpus.documents import shards

    documents = (
        parquet.scan(shards(context.inputs["corpus"]))
        .select("doc_id", "domain", repeats=polars.lit(1))
        .collect()
    )
    with atomic(context.out / "selection.parquet") as temporary:
        documents.write_parquet(temporary)
    context.facts |= {"documents": len(documents)}


def identity(budget: Budget) -> Json:
    """The budget as it enters the fingerprint: of frozen cuts their content; no word of what is not asked
    for.
    """
    values = schema.identity(budget)
    if budget.leave_out:
        values["leave_out"] = sorted(budget.leave_out)
    if budget.frozen is not None:
        record = frozen_record(budget)
        cuts = {domain: found["cut"] for domain, found in record["domains"].items()}
        values["frozen"] = digest({"formula": record["formula"], "cuts": cuts})
    return values


def frozen_record(budget: Budget) -> Record:
    """The ``selection.json`` that ``budget.frozen`` names; raises :class:`SettingError` if it is none or has
    no cuts.
    """
    from repro.selection.outcome import frozen_cuts

    path = Path(str(budget.frozen))
    try:
        record = read_json(path)
        frozen_cuts(record)
    except OSError as error:
        raise SettingError(
            f"budget.frozen={path}: cannot read it ({error.strerror}); name a selection.json"
        ) from None
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError):
        raise SettingError(f"budget.frozen={path} is no selection.json of a finished selection") from None
    except ValueError as error:
        raise SettingError(f"budget.frozen={path}: {error}") from None
    return record


def heads_behind(artifact: Path) -> Any:
    """The heads that were masked for a selection or for scores; ``None`` where the artifacts they come from
    are not there.
    """
    root = artifact.parent.parent
    try:
        while artifact.parent.name != "heads":
            inputs = read_json(artifact / "manifest.json")["inputs"]
            artifact = root / inputs["scores" if "scores" in inputs else "heads"]["folder"]
        return read_json(artifact / "heads.json")["selected"]
    except (OSError, KeyError, ValueError):
        return None


def _frozen(
    context: Context, connection: duckdb.DuckDBPyConnection, budget: Budget, formula: object
) -> dict[str, Cut]:
    """The cuts of ``budget.frozen`` for the documents of ``pool``. What they were made for must be what is
    ranked here.
    """
    from repro.selection import outcome, rank

    record = frozen_record(budget)
    require(
        formula == record["formula"],
        f"budget.frozen={budget.frozen} has cuts for {record['selector']} ({record['formula']}), and this arm"
        f" ranks by {formula if isinstance(formula, str) else 'something else'}; select as the earlier"
        " run did",
    )
    earlier = heads_behind(Path(str(budget.frozen)).parent)
    if earlier is not None and earlier != heads_behind(context.inputs["scores"]):
        context.warn(
            f"the scores here come from other heads than those that {budget.frozen} was cut with; its"
            " thresholds may not fit: score with the same proxy and heads"
        )
    try:
        cuts = outcome.frozen_cuts(record)
    except ValueError as error:
        raise SettingError(f"budget.frozen={budget.frozen}: {error}") from None
    whole = [
        name
        for name, domain in record["domains"].items()
        if cuts[name].tie == rank.ALL and domain["shortfall"]
    ]
    require(
        not whole,
        f"budget.frozen={budget.frozen}: in {', '.join(whole)} the earlier run took every document that had a"
        " priority, so its cut is no threshold for others; score more of that corpus, or leave the domain out"
        " with corpus.domains",
    )
    try:
        return outcome.apply_cuts(connection, cuts, budget.unit)
    except ValueError as error:
        raise SettingError(
            f"budget.frozen={budget.frozen}: {error}; leave it out with corpus.domains"
        ) from None


def _constrained(budget: Budget) -> bool:
    """Whether the choice is more than a cut in the order of priorities."""
    return budget.length_bins > 1 or budget.within_group or budget.one_per_cluster


def _run(context: Context, selector: str, params: Json, mixture: Mixture, budget: Budget, seed: int) -> None:
    from repro.selection import inputs, outcome, rank

    limits = None
    if "reference" in context.inputs:
        matched = read_json(context.inputs["reference"] / "selection.json")["domains"]
        limits = {domain: values["selected_tokens"] for domain, values in matched.items()}
        budget = replace(budget, unit="tokens", scope="domain")
    corpus, scores = context.inputs["corpus"], context.inputs["scores"]
    with rank.connect(spill=context.out / "spill") as connection:
        missing = inputs.open_inputs(connection, corpus, scores)
        inputs.leave_out(connection, budget.leave_out)
        found = selectors.call(selector, priority.asked(context, connection, seed), params)
        with selectors.named(selector):
            rank.build_pool(connection, found, budget)
            cuts = (
                _frozen(context, connection, budget, found)
                if budget.frozen
                else rank.cuts(connection, budget, limits)
            )
        domains = outcome.describe(connection, cuts, mixture, budget.unit)
        outcome.write_selection(
            connection, context.out / "selection.parquet", cuts, mixture, budget.leave_out
        )
    shutil.rmtree(context.out / "spill", ignore_errors=True)

    unranked = sum(d["unranked"] for d in domains.values())
    empty = _judge(context, selector, budget, domains, unranked, missing)
    freezes = isinstance(found, str) and budget.scope == "domain" and not _constrained(budget)
    left_out: Notes = {"left_out": sorted(budget.leave_out)} if budget.leave_out else {}
    whole: Whole = {
        "documents": sum(d["documents"] for d in domains.values()),
        "selected_documents": sum(d["selected_documents"] for d in domains.values()),
        "selected_tokens": sum(d["selected_tokens"] for d in domains.values()),
    }
    record: Record = {
        "selector": selector,
        "params": params,
        "budget": identity(budget),
        "mixture": schema.identity(mixture),
        "seed": seed,
        "matched_tokens": limits,  # the budget's share counts without a match
        "formula": found if isinstance(found, str) and freezes else None,
        "missing_scores": missing,
        "unranked": unranked,
        **whole,
        **empty,
        **left_out,
        "domains": domains,
    }
    write_json(context.out / "selection.json", record)
    context.facts.update(**whole, unranked=unranked, missing_scores=missing, **empty)


def _judge(
    context: Context, selector: str, budget: Budget, domains: dict[str, Domain], unranked: int, missing: int
) -> Notes:
    """Warn of domains left empty, and of documents without priority; returns ``{"empty_domains": [...]}`` if
    there are any.

    Refused is a choice of nothing at all, and documents without priority where ``budget.unranked`` says so.
    An empty domain is refused by what trains on the selection, not here: scores and what is kept of the other
    domains are good.
    """
    every = sum(d["documents"] for d in domains.values())
    if unranked:
        where = ", ".join(f"{d['unranked']} in {name}" for name, d in domains.items() if d["unranked"])
        message = f"selector {selector!r}: {unranked} of {every} documents have no finite priority ({where})"
        message += f", {missing} of them no scores at all" if missing else ""
        require(budget.unranked != "refuse", f"{message}; score them, or allow it with budget.unranked=skip")
        context.warn(f"{message}; they are never selected")
    empty = [name for name, d in domains.items() if not d["selected_documents"]]
    silent = [name for name in empty if domains[name]["unranked"] == domains[name]["documents"]]
    reasons = (
        ["the first one is longer than the budget; raise budget.share"] if len(silent) < len(empty) else []
    )
    reasons += [f"no document of {', '.join(silent)} has a priority"] if silent else []
    message = (
        f"selector {selector!r} at budget.share={budget.share} takes no document of domain"
        f" {', '.join(empty)}: {'; '.join(reasons)}"
    )
    require(len(empty) < len(domains), message)
    empty = empty if budget.scope == "domain" else []  # of a global budget a domain may get nothing
    if empty:
        context.warn(f"{message}; or leave such domains out with corpus.domains=[those to keep]")
    short = {name: d["shortfall"] / max(1, d["budget"]) for name, d in domains.items()}
    low = [name for name in short if short[name] > 0.1 and name not in empty and budget.scope == "domain"]
    all_taken = [name for name in low if _all_taken(domains[name])]
    for names, reason in (
        (all_taken, "all documents that have a priority and are no near-duplicate are taken"),
        (
            [name for name in low if name not in all_taken and budget.unit == "tokens"],
            "the next document is longer than what is left; lower corpus.max_bytes so that arms hold equal"
            " tokens",
        ),
    ):
        if names:
            unused = ", ".join(f"{short[name]:.0%} of the budget of {name}" for name in names)
            context.warn(f"selector {selector!r} leaves {unused} unused: {reason}")
    return {"empty_domains": empty} if empty else {}


def _all_taken(d: Domain) -> bool:
    return d["selected_documents"] + d["unranked"] + d["near_duplicates"] >= d["documents"]
