"""Values laid over a schema, and one line for what does not fit: what was given, and what is expected."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin

from repro.errors import SettingError, first_line, nearest, require
from repro.plain import Json
from repro.settings.root import Settings
from repro.settings.words import kind_at, required

EXPECTED = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}


def overlay(conf: Any, where: str, values: Json, schema: type = Settings, path: str = "") -> Any:
    """``values`` merged over ``conf``, a structured config of ``schema``.

    ``where`` is a file, or the argument itself; ``path`` is what the keys of ``schema`` stand below. Raises
    :class:`SettingError` for an unknown key and for a value of another type.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    complete(where, values, path)
    check_keys(where, values, schema, path)
    try:
        return OmegaConf.merge(conf, values)
    except (OmegaConfBaseException, TypeError) as error:  # a list for a mapping is Python's own TypeError
        raise _wrong_type(where, error, values, schema, path) from None


def laid_over(conf: Any, argument: str, values: Json, schema: type = Settings) -> Any:
    """``conf`` with the ``values`` of a command line's ``path=value``. A free-form dictionary that is given
    whole replaces the one there, or none could be narrowed; one key of it, ``path.key=value``, is added.
    """
    from omegaconf import OmegaConf

    path = argument.partition("=")[0]
    before, given = (
        OmegaConf.select(side, path, throw_on_resolution_failure=False)
        for side in (conf, OmegaConf.create(values))
    )
    free = not is_dataclass(required(kind_at(schema, path)))
    if free and OmegaConf.is_dict(before) and OmegaConf.is_dict(given):
        before.clear()
    return overlay(conf, argument, values, schema)


def complete(where: str, values: Any, path: str = "") -> None:
    """Refuse ``???`` wherever it stands: it says that a value is missing, and a default would take its
    place.
    """
    inner = (
        values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    )
    for key, value in inner:
        require(value != "???", f"{where}: {path}{key}=??? says that a value is missing; give one")
        complete(where, value, f"{path}{key}.")


def check_keys(where: str, given: Json, schema: type, path: str = "") -> None:
    """Refuse keys that the schema does not have, with the nearest valid one. Free-form dictionaries are not
    descended.
    """
    known = [f.name for f in fields(schema)]
    for key, value in given.items():
        require(
            key in known,
            f"{where}: unknown setting {f'{path}{key}'!r}; did you mean {path}{nearest(key, known)[1:-1]}?",
        )
        inner = kind_at(schema, key)
        if isinstance(value, dict) and isinstance(inner, type) and is_dataclass(inner):
            check_keys(where, value, inner, f"{path}{key}.")


def _misshaped(where: str, values: Any, schema: Any, path: str) -> str:
    """In words: a list stands where settings belong, or settings where a list does."""
    for name, value in values.items() if isinstance(values, dict) else ():
        kind = kind_at(schema, str(name))
        if get_origin(kind) is list and isinstance(value, dict):
            return f"{where}: {path}{name} must be a list: write {path}{name}=[...]"
        if isinstance(value, list) and (get_origin(kind) is dict or is_dataclass(kind)):
            return (
                f"{where}: {path}{name} must hold settings (key: value), not a list: write"
                f" {path}{name}.<key>=value"
            )
        if isinstance(value, dict) and kind is not Any:
            return _misshaped(where, value, kind, f"{path}{name}.")
    return f"{where}: {path.removesuffix('.')} must hold settings (key: value), not a list"


def _wrong_type(where: str, error: Exception, values: Any, schema: type, path: str) -> SettingError:
    """Name the setting once, the value that was given and what is expected."""
    if isinstance(error, TypeError):
        return SettingError(_misshaped(where, values, schema, path))
    key = re.sub(r"\[\d+\]", "", str(getattr(error, "full_key", None) or ""))
    for name in key.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    kind = required(kind_at(schema, key))
    setting = where if where.startswith(f"{path}{key}=") else f"{path}{key}={values}"
    setting = setting if setting.startswith(where) else f"{where}: {setting}"
    expected = EXPECTED.get(kind)
    if get_origin(kind) is list and get_args(kind)[0] in EXPECTED:
        if not isinstance(values, list):
            inside = "" if values is None else values
            return SettingError(f"{setting} must be a list: write {path}{key}=[{inside}]")
        expected = f"a list of {EXPECTED[get_args(kind)[0]].removeprefix('a ')}s"
    if not expected:
        return SettingError(f"{where}: {f'{path}{key}: ' if key else ''}{first_line(error)}")
    percent = re.fullmatch(r"(\d+\.?\d*|\.\d+) ?%", str(values)) if kind is float else None
    mend = f"; write {float(percent[1]) / 100:g}" if percent else ""
    return SettingError(f"{setting} must be {expected}{mend}")


def override(schema: type, given: Json, path: str) -> Json:
    """What an arm overrides, its types checked. A number is of the setting's type, however it was written: 1
    and 1.0 would be two fingerprints. Other values stay as they were written where they are equal.
    """
    from omegaconf import OmegaConf

    if not given:
        return {}
    typed: Any = OmegaConf.to_container(
        overlay(OmegaConf.structured(schema), path, given, schema, f"{path}.")
    )

    def same(value: Any, read: Any) -> bool:
        return value == read and not (isinstance(read, (int, float)) and type(value) is not type(read))

    return {key: value if same(value, typed[key]) else typed[key] for key, value in given.items()}


def as_object(schema: type, value: Any, path: str) -> Any:
    """``value`` as an object of ``schema``, its types checked; mistakes are named below ``path``."""
    from omegaconf import OmegaConf

    require(isinstance(value, dict), f"{path}={value} must name an option, or hold its settings")
    return OmegaConf.to_object(overlay(OmegaConf.structured(schema), path, value, schema, f"{path}."))
