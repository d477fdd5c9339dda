"""What a field of a schema says of itself: its meaning, unit, valid values, and which fingerprints it enters.

The schemas are dataclasses beside what they set (``repro/<stage>/settings.py``, ``repro/settings``). Help,
checks and fingerprints are made of what their fields say; a stage adds what is no plain value, such as the
content of a file.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import MISSING, Field, asdict, field, fields
from functools import partial
from typing import Any

from repro.errors import nearest, one_of, require
from repro.plain import Json

# Enters where it is not its default: a setting that came later, and makes nobody's results again.
IF_SET = "if set"
COUNT, ANY, POSITIVE = "[1, inf)", "[0, inf)", "(0, inf)"


def setting(
    default: Any,
    meaning: str = "",
    *,
    unit: str = "",
    identity: bool | str = True,
    choices: str = "",
    within: str = "",
    schema: type | None = None,
) -> Any:
    """A field of a schema; its ``default`` is a value, or a schema whose defaults are meant.

    ``identity`` says which fingerprints it enters: ``True``, those of what its schema sets; ``False``, none,
    it changes no result; :data:`IF_SET`; or a word of whom reads it (of several stages; :func:`identity` asks
    by it), or how it enters, such as a file by its content. Several words stand with spaces between.

    ``choices`` are valid values, ``"linear | cosine (of half a period)"``; ``within`` is an interval such as
    ``"(0, 1]"``; ``schema`` is whose fields a dictionary may hold.
    """
    metadata = {
        "meaning": ": ".join(filter(None, [meaning, choices])),
        "choices": [choice.split()[0] for choice in choices.split(" | ") if choice],
        **{"unit": unit, "identity": identity, "within": within, "schema": schema},
    }
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    if isinstance(default, list | dict):
        return field(default_factory=lambda: deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


how = partial(setting, identity=False)  # something is done, whatever comes of it


def default_of(f: Field[Any]) -> Any:
    """The default of a field."""
    return f.default if f.default_factory is MISSING else f.default_factory()


def identity(settings: Any, word: str = "") -> Json:
    """What of ``settings`` enters a fingerprint, by name: the fields that always do, or those that say
    ``word``.
    """
    values, kept = asdict(settings), {}
    for f in fields(settings):
        own = f.metadata["identity"]
        if word:
            own = word in str(own).split()
        elif own == IF_SET:
            own = values[f.name] != default_of(f)
        if own is True:
            kept[f.name] = values[f.name]
    return kept


def check(path: str, settings: Any) -> None:
    """Raise :class:`SettingError` for a value that its field does not allow; ``None`` stands for no limit."""
    for f in fields(settings):
        value, name = getattr(settings, f.name), f"{path}.{f.name}"
        if value is None:
            continue
        if choices := f.metadata["choices"]:
            one_of(name, value, choices)
        if interval := f.metadata["within"]:
            _inside(name, value, interval)
        known = [inner.name for inner in fields(schema)] if (schema := f.metadata["schema"]) else []
        for key in value if known else ():
            require(key in known, f"{name} has no setting {key!r}; did you mean {nearest(key, known)}?")


def _inside(name: str, value: float, interval: str) -> None:
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = value > low or value == low and interval[0] == "["
    below = value < high or value == high and interval[-1] == "]"
    percent = f"; {value:g} % is {name}={value / 100:g}" if high == 1 < value <= 100 else ""
    wanted = f"in {interval}{percent}"
    if high == float("inf"):  # what is not finite is refused everywhere
        below, wanted = True, f"{'at least' if interval[0] == '[' else 'above'} {low:g}"
    require(above and below, f"{name}={value} must be {wanted}")
