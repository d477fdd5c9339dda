"""The union of what two or more selectors would take, each to the same depth, as deep as the budget
allows.
"""

from typing import Any

import polars

from repro.selection.selectors import Context
from repro.selection.selectors.rank_sum import combined, identity

__all__ = ["identity", "priority"]


def priority(context: Context, of: list[dict[str, Any]]) -> polars.DataFrame:
    """A document's best rank within its domain. ``of`` lists selectors as ``{selector: name, params:
    {...}}``.
    """
    return combined(context, of, polars.max_horizontal)
