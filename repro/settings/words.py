"""Text stays as it was written where a setting is text; YAML takes ``off``, ``007``, ``12e4567`` and ``null``
for something else, and cannot read ``[*.jsonl]`` or ``#1``.

What a setting wants is what its schema says, so the same holds for files and for the command line. There a
text needs quotes only where it begins with one, is empty, or is ``null`` and the setting may be left out; in
a list also where it holds a comma or half a pair of brackets. ``${...}`` is OmegaConf's interpolation
everywhere.
"""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, cast, get_args, get_origin, get_type_hints

from repro.errors import SettingError
from repro.plain import Json

ITEM = re.compile(
    r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|(?!["'])(?:\[[^][]*]|\{[^{}]*}|[^],[{}])+)\s*(?:,|$)"""
)


@cache
def held(schema: type) -> Json:
    """What each field of a schema holds: a type, or the schema whose fields a dictionary may hold."""
    types = get_type_hints(schema)
    return {f.name: f.metadata.get("schema") or types[f.name] for f in fields(schema)}


def kind_at(kind: Any, path: str) -> Any:
    """The type of what stands at a dotted path below ``kind``; ``Any`` where nothing is said of it."""
    for key in path.split(".") if path else ():
        kind = required(kind)
        of = get_args(kind)
        kind = held(kind).get(key, Any) if is_dataclass(kind) else of[-1] if of else Any
    return kind


def required(kind: Any) -> Any:
    """``X`` of ``X | None``."""
    return next(k for k in get_args(kind) if k is not NoneType) if isinstance(kind, UnionType) else kind


def as_written(kind: Any, read: Any, words: Any) -> Any:
    """What YAML ``read``, with the ``words`` of the same YAML where ``kind`` wants text. A list for a kind
    that is none holds several of it.
    """
    wanted = required(kind)
    if words is None:
        return read
    if isinstance(read, list):
        inner = get_args(wanted)[0] if get_origin(wanted) is list else kind
        return [as_written(inner, *pair) for pair in zip(read, words, strict=True)]
    if isinstance(read, dict):
        keys = words if is_dataclass(wanted) or get_origin(wanted) is dict else read
        return {
            key: as_written(kind_at(kind, str(key)), *pair)
            for key, *pair in zip(keys, read.values(), words.values(), strict=True)
        }
    text = wanted is str or is_dataclass(wanted)  # of a schema: an option by its name
    # 4:00:00 is a time of a batch system, which YAML 1.1 takes for a number of base sixty
    sixty = isinstance(read, int | float) and ":" in str(words)
    if sixty or text and (read is not None or kind is str):
        return words
    # of eight is what YAML 1.1 takes 010 for
    return int(words) if isinstance(read, int) and re.fullmatch(r"[-+]?0[0-9_]+", str(words)) else read


def of_file(kind: Any, path: Path) -> Any:
    """The content of a YAML file that holds a ``kind``; raises an error of YAML's or the system's."""
    from omegaconf import OmegaConf

    read = OmegaConf.to_container(OmegaConf.load(path))
    return as_written(kind, read, _words(path.read_text(encoding="utf-8")))


def value(kind: Any, text: str) -> Any:
    """What ``text`` of a command line says where a ``kind`` is wanted; raises an error of YAML's or
    ``ValueError``.
    """
    from omegaconf import OmegaConf

    wanted, text = required(kind), text.strip()
    if wanted is str and text and text[0] not in "\"'":
        return None if text == "null" and kind is not str else text
    if wanted == list[str] and text[:1] + text[-1:] == "[]":
        return _items(text[1:-1].strip().removesuffix(","))
    read: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))
    return as_written(kind, read["value"], _words(text))


def _words(text: str) -> Any:
    """A YAML document with every value as text."""
    import yaml

    class Words(yaml.SafeLoader):
        """What ``<<`` means stays."""

        yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}

    return yaml.load(text, Words)  # a SafeLoader


def _items(text: str) -> list[str]:
    """Text between commas; raises ``ValueError`` where it cannot be told apart."""
    found, at = [], 0
    while at < len(text):
        match = ITEM.match(text, at)
        if match is None or not match[1].strip():
            raise ValueError(text)
        found.append(str(value(str, match[1])) if match[1][0] in "\"'" else match[1].strip())
        at = match.end()
    return found


def container(conf: Any) -> Json:
    """The plain values of a configuration of OmegaConf's that has keys."""
    from omegaconf import OmegaConf

    found = OmegaConf.to_container(conf)
    assert isinstance(found, dict)
    return cast(Json, found)


def nested(schema: type, argument: str) -> Json:
    """The settings that ``key.path=value`` stands for; raises :class:`SettingError` for a broken value."""
    from omegaconf import OmegaConf

    path, _, text = argument.partition("=")
    conf = OmegaConf.create()
    try:
        OmegaConf.update(conf, path, value(kind_at(schema, path), text))
    except Exception:  # whatever YAML and OmegaConf call it
        raise SettingError(
            f"{argument}: the value cannot be read; is a bracket, brace or quote left open?"
        ) from None
    return container(conf)
