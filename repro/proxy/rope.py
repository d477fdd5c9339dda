"""Position encodings that depend on the longest row of a batch (dynamic NTK, longrope), made to depend on the
row alone.

Such a model has other frequencies for inputs longer than it was trained on, chosen once for all rows of a
batch; dynamic NTK also keeps those of the longest input it has seen. A document's loss then depends on its
neighbours.
"""

from __future__ import annotations

from typing import Any

VARYING = ("dynamic", "longrope")


def alone(model: Any) -> bool:
    """Whether rows of different lengths must not share a batch; such a model forgets earlier inputs from now
    on.

    Batches of rows of one length, without padding, are exact. May be called any number of times.
    """
    found = False
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        named = kinds if isinstance(kinds, dict) else {None: kinds}
        layers = [layer for layer, kind in named.items() if kind in VARYING]
        found |= bool(layers)
        if layers and not getattr(module, "forgets", False):
            module.forgets = True
            module.register_forward_pre_hook(lambda module, _, layers=layers: _forget(module, layers))
    return found


def _forget(module: Any, layers: list[str | None]) -> None:
    for layer in layers:
        prefix = "" if layer is None else f"{layer}_"
        current = getattr(module, f"{prefix}inv_freq")
        original = getattr(module, f"{prefix}original_inv_freq").to(current.device)
        module.register_buffer(f"{prefix}inv_freq", original.clone(), persistent=False)
        setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
