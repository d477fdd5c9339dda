"""A uniform draw, another one for every seed: the control that a selection must beat."""

from repro.selection.selectors import Context

SEEDED = True
READS_LOSSES = False


def priority(context: Context, draw: int = 0) -> str:
    """A hash of (seed, draw, id), uniform in [0, 1). Another ``draw`` is another sample for the same seed
    (``exp=pilot``).
    """
    salt = f"{int(context.seed)}:{f'{int(draw)}:' if draw else ''}"
    return f"md5_number_lower('{salt}' || doc_id) / 18446744073709551616.0"
