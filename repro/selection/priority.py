"""Stage ``priority``: what a selector that reads text says of every document, once for all budgets, mixtures
and scores.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from repro.plain import Json
from repro.selection import selectors
from repro.selection.settings import Select
from repro.store import Context, Stage, atomic
from repro.store.cost import READ, Cost, Known

if TYPE_CHECKING:
    import duckdb
    import polars


def stages(selector: str, params: Json, corpus: Stage) -> dict[str, Stage]:
    """Inputs of a stage that calls ``selector``: one for each selector in it that reads text; none for a
    formula.
    """
    selectors.identity(selector, params)  # refuses what is wrong with the parameters
    return {
        selectors.key(name, own): _stage(name, own, corpus)
        for name, own in selectors.readers(selector, params)
    }


def asking(select: Select, seed: int, corpus: Stage, scores: Stage) -> tuple[int, Json, dict[str, Stage]]:
    """Of a stage that asks a selector about every document: the seed it depends on, its settings and its
    inputs.
    """
    seed = seed if getattr(selectors.load(select.selector), "SEEDED", False) else 0
    settings = {
        "selector": select.selector,
        "params": selectors.identity(select.selector, select.params),
        "seed": seed,
    }
    return (
        seed,
        settings,
        {"corpus": corpus, "scores": scores} | stages(select.selector, select.params, corpus),
    )


def _stage(selector: str, params: Json, corpus: Stage) -> Stage:
    settings = {"selector": selector, "params": selectors.identity(selector, params)}
    parameters = getattr(selectors.load(selector), "PARAMETERS", 0)

    def cost(known: Known) -> Cost:
        tokens = known.inputs["corpus"].tokens
        return Cost(tokens, 2 * parameters * tokens, 0, tokens / READ)

    return Stage(
        "priority",
        selector,
        settings,
        lambda context: _run(context, selector, params),
        {"corpus": corpus},
        cost=cost,
    )


def _run(context: Context, selector: str, params: Json) -> None:
    from repro.selection import inputs, rank

    corpus = context.inputs["corpus"]
    with rank.connect(spill=context.out / "spill") as connection:
        inputs.open_documents(connection, corpus)
        asked = selectors.Context(corpus, None, connection, device=context.device, out=context.out)
        found = selectors.call(selector, asked, params)
    assert not isinstance(found, str)  # an expression over the scores needs no stage of its own
    with atomic(context.out / "priorities.parquet") as temporary:
        found.select("doc_id", "priority").write_parquet(temporary)
    for name in ("spill", "judged"):
        shutil.rmtree(context.out / name, ignore_errors=True)
    context.facts |= {
        "documents": len(found),
        "unranked": len(found) - int(found["priority"].is_finite().sum()),
    }


def asked(context: Context, connection: duckdb.DuckDBPyConnection, seed: int) -> selectors.Context:
    """What a selector is given by a stage with the inputs "corpus", "scores" and :func:`stages`."""
    made = {name: folder for name, folder in context.inputs.items() if name.startswith("priority ")}
    corpus, scores = context.inputs["corpus"], context.inputs["scores"]
    return selectors.Context(corpus, scores, connection, seed, context.device, made=made)


def of_documents(
    context: Context,
    selector: str,
    params: Json,
    seed: int,
    query: str = "SELECT doc_id FROM documents",
) -> tuple[polars.DataFrame, polars.DataFrame]:
    """What a selector says of every training document (doc_id, domain, priority), and the rows of ``query``
    over ``documents`` and ``scores``. For a stage with the inputs that :func:`asked` needs.
    """
    from repro.selection import inputs, rank

    with rank.connect(spill=context.out / "spill") as connection:
        inputs.open_inputs(connection, context.inputs["corpus"], context.inputs["scores"])
        found = asked(context, connection, seed).priorities(selector, params)
        rows = connection.sql(query).pl()
    shutil.rmtree(context.out / "spill", ignore_errors=True)
    return found, rows
