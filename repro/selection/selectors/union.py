"""The union of what two or more selectors would take, each to the same depth, as deep as the budget
allows.
"""

import polars

from repro.plain import Json
from repro.selection.selectors import Context
from repro.selection.selectors.rank_sum import combined, identity

__all__ = ["identity", "priority"]


def priority(context: Context, of: list[Json]) -> polars.DataFrame:
    """A document's best rank within its domain. ``of`` lists selectors as ``{selector: name, params:
    {...}}``.
    """
    return combined(context, of, polars.max_horizontal)
