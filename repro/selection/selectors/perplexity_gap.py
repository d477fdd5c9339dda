"""The gap between two models' losses: what a larger model, or a later checkpoint, reads better than a smaller
or earlier.
"""

from pathlib import Path
from typing import Any

from repro.errors import one_of, require
from repro.plain import Json
from repro.selection.selectors import Context
from repro.store import parquet
from repro.store.cached import content_digests


def priority(context: Context, other: str, keep: str = "high", relative: bool = False) -> str:
    """(other model's base loss) - (this proxy's base loss), in nats a token; ``relative``: divided by the
    other's.

    ``other`` is the folder of a finished score artifact of the same corpus with another proxy. With the
    larger model as the proxy and the smaller as the other, ``keep: high`` takes what gains most from size.
    Losses per token compare between models of one tokenizer that read as much of a document; another
    tokenizer shows in ``n_tokens_doc``, another window or ``score.max_tokens`` in ``n_tokens``: refused.
    """
    one_of("params.keep", keep, ("high", "low"))
    folder = _checked(other)
    scored = parquet.sql(sorted((folder / "scores").glob("*.parquet")))
    context.query(
        "CREATE OR REPLACE VIEW other_scores AS"
        f" SELECT doc_id, n_tokens_doc, n_tokens, loss_base FROM {scored}"
    )
    for column, mend in (
        ("n_tokens_doc", "have another number of tokens there; the two models need one tokenizer"),
        ("n_tokens", "were read further, or in other windows, there; score both with one score.window and"
         " score.max_tokens"),
    ):  # fmt: skip
        ((different,),) = context.query(
            "SELECT count(*) FROM scores AS s JOIN other_scores AS o USING (doc_id)"
            f" WHERE s.{column} <> o.{column}"
        )
        require(not different, f"params.other={other}: {different} documents {mend}")
    found = context.connection.sql(
        f"""SELECT doc_id, {"-1" if keep == "low" else "1"} * (o.loss_base - s.loss_base)
                   {"/ o.loss_base" if relative else ""} AS priority
                   FROM scores AS s JOIN other_scores AS o USING (doc_id)"""
    ).pl()
    require(
        found.height > 0,
        f"params.other={other} scored none of these documents; score the same corpus with the other proxy",
    )
    return found


def _checked(other: str) -> Path:
    folder = Path(other)
    require(
        (folder / "manifest.json").is_file() and any((folder / "scores").glob("*.parquet")),
        f"params.other={other} is not a finished score artifact; give the folder <work>/artifacts/score/..."
        " of a run with another proxy",
    )
    return folder


def identity(other: str, **params: Any) -> Json:
    """The content of the other artifact's scores, wherever they lie."""
    return {"other": content_digests(sorted((_checked(other) / "scores").glob("*.parquet"))), **params}
