"""Every file that a user's task definition reads, by content: its YAML, what that includes, its functions,
its items.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from repro.errors import SettingError
from repro.plain import Json
from repro.store.cached import content_digests


@contextmanager
def definition(entry: str | Path) -> Iterator[None]:
    """Whatever a user's task definition provokes in the readers of YAML, in one line: it is the file's
    fault.
    """
    try:
        yield
    except SettingError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise SettingError(f"{entry} is no task definition that lm-eval reads ({reason}); mend it") from None


def identity(entry: str, overrides: Json) -> Json:
    """Names and digests of the files behind ``entry``, the path of a YAML file; ``overrides`` may name
    further items.

    Definitions of lm-eval itself end a chain: they count by its version. Names are without their folders, so
    that a task may be moved. Raises :class:`SettingError` for a file that is named and is not there.
    """
    if not Path(entry).is_file():
        raise SettingError(
            f"eval.tasks names {entry}, which is not a file; give a task's name or its YAML's path"
        )
    found: dict[Path, None] = {}
    with definition(entry):
        _definition(Path(entry).resolve(), found)
        for path in data_files(overrides):
            found.setdefault(path)
    paths = list(found)
    return {
        "yaml": Path(entry).name,
        "files": sorted(zip([p.name for p in paths], content_digests(paths), strict=True)),
    }


def _definition(path: Path, found: dict[Path, None]) -> None:
    """Add a YAML file and all that it reads."""
    from repro.evaluate import tasks

    if path in found or path.is_relative_to(tasks.OFFICIAL) or not path.is_file():
        return
    found[path] = None
    text = path.read_text(encoding="utf-8")
    if "!function" in text:  # a module may import its neighbours
        for module in sorted(path.parent.rglob("*.py")):
            found.setdefault(module)
    for name in re.findall(r"[\w./~-]+\.ya?ml", text):
        _definition((path.parent / Path(name).expanduser()).resolve(), found)
    cfg = tasks._read(path)
    for data in data_files(cfg):
        found.setdefault(data)
    known = tasks._scan(path.parent)
    for name in _names(cfg.get("task")) if "group" in cfg else _names(cfg.get("include")):
        if name in known:
            _definition(known[name].resolve(), found)


def _names(value: Any) -> list[str]:
    """Names of tasks below a group, whatever their nesting."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [name for key in ("task", "group") for name in _names(value.get(key))]
    return [name for entry in value for name in _names(entry)] if isinstance(value, list) else []


def data_files(cfg: Any) -> list[Path]:
    """Local files that ``dataset_path``, ``data_files`` or ``data_dir`` name anywhere in a definition."""
    if isinstance(cfg, list):
        return [path for entry in cfg for path in data_files(entry)]
    if not isinstance(cfg, dict):
        return []
    found: list[Path] = []
    for key, value in cfg.items():
        if key in ("data_files", "data_dir", "dataset_path"):
            for name in _texts(value):
                found += _files(name)
        else:
            found += data_files(value)
    return found


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for entry in inner for text in _texts(entry)]


def _files(name: str) -> list[Path]:
    path = Path(name)
    if path.is_file():
        return [path.resolve()]
    if path.is_dir():
        return sorted(p.resolve() for p in path.rglob("*") if p.is_file())
    glob = any(c in name for c in "*?[")
    return (
        sorted(p.resolve() for p in Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
        if glob
        else []
    )
