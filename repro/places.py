"""Where things are: what this package brings along, and the folders that a user adds.

A checkout has ``configs/``, ``results/`` and ``paper_tables/`` beside the package, and commands find them
from anywhere. An installed wheel brings its configs inside; results and tables are then those of the folder a
command is started in.

``REPRO_PATH``, and ``include=FOLDER`` of a command, name folders of one's own laid out like ``configs/``
(``exp/NAME.yaml``, ``select/NAME.yaml``, ...), with Python beside them: ``selectors/NAME.py``,
``detectors/NAME.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
VARIABLE = "REPRO_PATH"


def configs() -> Path:
    """The YAML that comes with this package; ``$REPRO_CONFIGS`` moves it."""
    installed = PACKAGE / "configs"
    return Path(
        os.environ.get("REPRO_CONFIGS") or (installed if installed.is_dir() else PACKAGE.parent / "configs")
    )


def docs() -> Path:
    """The pages that reports link; a wheel has those alone."""
    installed = PACKAGE / "docs"
    return installed if installed.is_dir() else PACKAGE.parent / "docs"


def checkout() -> Path | None:
    """The repository this code lies in, ``None`` where it was installed from a wheel."""
    return PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None


def home() -> Path:
    """Where ``results/`` and ``paper_tables/`` are looked for: the repository, else the present folder."""
    return checkout() or Path.cwd()


def included() -> list[Path]:
    """Folders of one's own, first named first."""
    return [
        Path(entry).expanduser() for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry.strip()
    ]


def include(folder: str) -> None:
    """Add a folder for this process and all that it starts."""
    added = str(Path(folder).expanduser().resolve())
    present = [
        entry for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry.strip() and entry != added
    ]
    os.environ[VARIABLE] = os.pathsep.join([added, *present])
