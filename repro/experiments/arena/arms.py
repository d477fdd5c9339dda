"""The arms of an arena: every selector that was written, once for each size of the model."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

from repro.errors import nearest, require
from repro.plain import Json
from repro.settings.arms import picked
from repro.settings.files import options, read_option
from repro.settings.typed import as_object

CONTROL = "random"


@dataclass
class Arena:
    """``exp.params`` of an arena."""

    models: list[str] = field(default_factory=list)  # options of configs/model, smallest first


SHAPE = ("name", "layers", "hidden", "heads", "kv_heads", "ffn", "tie_embeddings")


def expand(exp: Json) -> Json:
    """``exp`` in plain values with arms ``<arm>_<size>`` for each size of ``params.models``, smallest first,
    in place of those written (and of ``only``, which names those), each against random of its size. What was
    to be compared is compared at the largest size.

    All sizes read the same token ids: tokenizer and vocabulary are those of ``model``. Raises
    :class:`SettingError` for an unknown size and an arena without the arm it compares with.
    """
    sizes = as_object(Arena, exp["params"], "exp.params").models
    require(bool(sizes), "exp.params.models names no size of a model; exp.params.models=[mini,1m]")
    written = picked(list(exp["arms"]), exp["only"])
    require(CONTROL in written, f"an arena compares with the arm {CONTROL!r}; name it in exp.only, too")
    shapes = {size: _shape(size) for size in sizes}
    found = {}
    for size, shape in shapes.items():
        for name in written:
            own = deepcopy(exp["arms"][name])
            found[f"{name}_{size}"] = own | {"model": shape | (own.get("model") or {})}
    stated = [
        dict(c, treatment=f"{c['treatment']}_{sizes[-1]}", control=f"{c['control']}_{sizes[-1]}")
        for c in exp["contrasts"]
    ]
    contrasts = [c for c in stated if c["treatment"] in found and c["control"] in found]
    pairs = [(c["treatment"], c["control"]) for c in contrasts]
    against = [
        (f"{name}_{size}", f"{CONTROL}_{size}") for size in sizes[::-1] for name in written if name != CONTROL
    ]
    contrasts += [{"treatment": one, "control": other} for one, other in against if (one, other) not in pairs]
    return {**exp, "arms": found, "contrasts": contrasts, "only": []}


def _shape(size: str) -> Json:
    require(
        size in options("model"),
        f"exp.params.models: no size {size!r}; did you mean {nearest(size, options('model'))}?",
    )
    found = {key: value for key, value in read_option("model", size).items() if key in SHAPE}
    require(
        "layers" in found,
        f"exp.params.models: {size} has no layers of its own, it continues another model; name sizes such as"
        " [mini,1m]",
    )
    return found
