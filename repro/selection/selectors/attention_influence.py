"""AttentionInfluence: how much the loss rises when the important heads are masked (section 4.2, eq. 5)."""

from repro.errors import one_of
from repro.selection.selectors import Context


def priority(context: Context, form: str = "relative", order: str = "top") -> str:
    """``relative``: (L_ref - L_base) / L_base, eq. 5; ``difference``: L_ref - L_base. ``order: bottom`` turns
    it round.
    """
    one_of("params.form", form, ("relative", "difference"))
    one_of("params.order", order, ("top", "bottom"))
    return ("-" if order == "bottom" else "") + ("score" if form == "relative" else "(loss_ref - loss_base)")
