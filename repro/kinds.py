"""The kinds of experiments: every folder of ``repro/experiments`` with a ``stages.py``. None is imported
until it is asked for.

Below everything, so that settings know the names and a kind can be looked up from wherever it is needed.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from repro.plain import Json

FOLDER = Path(__file__).resolve().parent / "experiments"
NAMES = tuple(sorted(path.parent.name for path in FOLDER.glob("*/stages.py")))


def load(kind: str, part: str = "stages") -> ModuleType:
    """A module of the kind's folder."""
    return importlib.import_module(f"repro.experiments.{kind}.{part}")


def expanded(values: Json) -> Json:
    """Plain settings with what their kind makes of the arms that were written: ``expand`` of its ``arms.py``,
    if it has one.
    """
    kind = values["exp"]["kind"]
    if not (FOLDER / kind / "arms.py").is_file():
        return values
    return {**values, "exp": load(kind, "arms").expand(values["exp"])}
