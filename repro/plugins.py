"""Selectors and detectors of one's own: files of an included folder, or entry points of an installed package.

A file ``selectors/NAME.py`` of a folder of ``REPRO_PATH`` (``include=FOLDER``) is the selector NAME,
``detectors/NAME.py`` the detector; a package names its modules under the entry points ``repro.selectors`` and
``repro.detectors``. They are modules like those of this project and count by the content of their file. A
name that this project has, or two of them have, is refused.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from repro import places
from repro.errors import SettingError, require


def found(kind: str) -> dict[str, str]:
    """{name: where it is from} of all plug-ins of a ``kind``, "selectors" or "detectors"; of one name, the
    first.
    """
    return {name: where for name, where, _ in reversed(list(_all(kind)))}


def _all(kind: str) -> Iterable[tuple[str, str, Callable[[], ModuleType]]]:
    for folder in places.included():
        for path in sorted((folder / kind).glob("*.py")):
            if not path.stem.startswith("_"):
                yield path.stem, str(path), partial(_from_file, kind, path)
    for point in _points(kind, tuple(sys.path)):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else "an installed package"
        yield point.name, package, point.load


@cache  # folders that every stage would list anew
def modules(path: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the modules in some folders."""
    return tuple(module.name for module in pkgutil.iter_modules(path))


@cache
def _points(kind: str, path: tuple[str, ...]) -> list[EntryPoint]:
    """Of all packages on ``path``: some hundredths of a second, and asked for by every stage."""
    return sorted(entry_points(group=f"repro.{kind}"))


def _from_file(kind: str, path: Path) -> ModuleType:
    name = f"repro_path.{kind}.{path.stem}"
    module = sys.modules.get(name)
    if module is not None and module.__file__ == str(path):
        return module
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    return module


def load(kind: str, name: str, wanted: str) -> ModuleType | None:
    """The plug-in's module, with a function ``wanted``; ``None`` if there is none of this name.

    Raises :class:`SettingError` for one that cannot be imported, has no such function, or whose name two
    have.
    """
    having = [entry for entry in _all(kind) if entry[0] == name]
    if not having:
        return None
    require(
        len(having) == 1,
        f"{kind[:-1]} {name!r} is in {' and in '.join(where for _, where, _ in having)}; rename one of them",
    )
    _, where, imported = having[0]
    try:
        module = imported()
    except Exception as error:
        raise SettingError(f"{kind[:-1]} {name!r} of {where} cannot be imported: {said(error)}") from error
    require(
        isinstance(module, ModuleType) and callable(getattr(module, wanted, None)),
        f"{kind[:-1]} {name!r} of {where} must be a module with a function {wanted}(...)",
    )
    return module


def refuse_taken(kind: str, own: Iterable[str]) -> None:
    """Raise :class:`SettingError` for a plug-in with a name that this project has: it would never be used."""
    others = found(kind)
    for name in sorted(others.keys() & set(own)):
        require(
            False,
            f"{kind[:-1]} {name!r} of {others[name]} has the name of one of this project's; rename yours",
        )


def said(error: BaseException) -> str:
    """What an error of foreign code says, and where it arose, in one line."""
    text = str(error).strip().split("\n")[0]
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = (
        f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})" if trace is not None else ""
    )
    return f"{type(error).__name__}{f': {text}' if text else ''}{place}"


def called(kind: str, name: str, function: Callable[..., Any], *words: Any, **named: Any) -> Any:
    """What foreign code answers; what it raises in one line that names it."""
    try:
        return function(*words, **named)
    except (SettingError, KeyboardInterrupt, MemoryError, OSError):
        raise
    except Exception as error:
        raise SettingError(f"{kind[:-1]} {name!r} failed: {said(error)}") from error
