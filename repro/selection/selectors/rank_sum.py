"""Two or more selectors in one: the sum of a document's ranks within its domain."""

from typing import Any

import polars

from repro.errors import require
from repro.plain import Json
from repro.selection.selectors import Context, load
from repro.selection.selectors import identity as one


def priority(context: Context, of: list[Json]) -> polars.DataFrame:
    """``of`` lists selectors as ``{selector: name, params: {...}}``. Ranks are shares of the domain, so all
    count the same.
    """
    return combined(context, of, polars.sum_horizontal)


def combined(context: Context, of: list[Json], join: Any) -> polars.DataFrame:
    """``join`` of the ranks (1 = highest, equal priorities share the mean rank); null where one selector has
    no priority.
    """
    check(of)
    ranked = None
    for number, one_of in enumerate(of):
        found = context.priorities(one_of["selector"], one_of.get("params"))
        rank = (
            (polars.col("priority").rank("average") / polars.col("priority").count())
            .over("domain")
            .alias(f"rank{number}")
        )
        found = found.select("doc_id", rank)
        ranked = found if ranked is None else ranked.join(found, on="doc_id")
    assert ranked is not None  # of two selectors or more
    ranks = [name for name in ranked.columns if name != "doc_id"]
    known = polars.all_horizontal(polars.col(ranks).is_not_null())
    return ranked.select("doc_id", priority=polars.when(known).then(join(ranks)))


def check(of: list[Json]) -> None:
    """Refuse what is not a list of two selectors or more that do not depend on the seed."""
    require(
        isinstance(of, list) and len(of) >= 2 and all(isinstance(o, dict) and "selector" in o for o in of),
        "params.of must list two selectors or more, each as {selector: name, params: {...}}",
    )
    seeded = [o["selector"] for o in of if getattr(load(o["selector"]), "SEEDED", False)]
    require(not seeded, f"params.of cannot hold {', '.join(seeded)}, which is another one for every seed")


def identity(of: list[Json]) -> Json:
    """The selectors with what identifies them."""
    check(of)
    return {
        "of": [{"selector": o["selector"], "params": one(o["selector"], o.get("params") or {})} for o in of]
    }
