"""Base loss of the proxy: what a perplexity filter would keep."""

from repro.errors import one_of
from repro.selection.selectors import Context


def priority(context: Context, keep: str = "low") -> str:
    """``low``, ``high``, or ``middle``: nearest to the domain's median loss."""
    one_of("params.keep", keep, ("low", "high", "middle"))
    if keep != "middle":
        return "-loss_base" if keep == "low" else "loss_base"
    medians = context.query(
        "SELECT domain, median(loss_base) FROM scores WHERE isfinite(loss_base) GROUP BY ALL ORDER BY 1"
    )
    # Numbers, not a window over all rows: streams, and stays the same for shards that are added later.
    cases = " ".join(
        "WHEN '{}' THEN {!r}".format(domain.replace("'", "''"), median) for domain, median in medians
    )
    return f"-abs(loss_base - CASE domain {cases} END)" if cases else "NULL"
