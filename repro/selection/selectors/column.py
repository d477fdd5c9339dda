"""Any number that scoring keeps per document: length, compressibility, repetition."""

from repro.errors import one_of
from repro.selection.selectors import Context

COLUMNS = ("n_tokens_doc", "n_bytes", "compressibility", "repetition", "score_error")


def priority(context: Context, column: str = "n_tokens_doc", keep: str = "high") -> str:
    """``column`` from :data:`COLUMNS`; ``keep: high`` or ``low`` values first."""
    one_of("params.column", column, COLUMNS)
    one_of("params.keep", keep, ("high", "low"))
    return ("-" if keep == "low" else "") + column


def READS_LOSSES(column: str = "n_tokens_doc", **_: object) -> bool:
    """The error of the score comes from losses; the other columns are measures of the text."""
    return column == "score_error"
