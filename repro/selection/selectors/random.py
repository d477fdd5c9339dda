"""A uniform draw, another one for every seed: the control that a selection must beat."""

from repro.selection.selectors import Context

SEEDED = True


def priority(context: Context) -> str:
    """A hash of (seed, id), uniform in [0, 1)."""
    return f"md5_number_lower('{int(context.seed)}:' || doc_id) / 18446744073709551616.0"
