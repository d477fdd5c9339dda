"""Every document: with ``budget.share: 1`` the full corpus."""

from repro.selection.selectors import Context

READS_LOSSES = False


def priority(context: Context) -> str:
    """No preference; ties fall to the hash of the id."""
    return "0.0"
