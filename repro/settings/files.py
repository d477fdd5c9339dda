"""The YAML of ``configs/``, of a file of one's own, and of the folders in ``REPRO_PATH``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro import places, plugins
from repro.errors import SettingError, nearest, require
from repro.plain import Json
from repro.schema import setting
from repro.selection.settings import Mixture, Select
from repro.settings import words
from repro.settings.root import GROUPS, Settings

CONFIGS = places.configs()


@dataclass
class File(Settings):
    """What the YAML of an experiment or of a scale may hold."""

    defaults: dict[str, str] = setting({}, "options by group")
    scales: dict[str, Settings] = setting({}, "values of its own at one scale, by its name")


HOLDS = {"select": Select, "mixture": Mixture, "exp": File, "scale": File}
HOLDS |= {group: words.held(Settings)[group] for group in GROUPS}


def options(group: str) -> list[str]:
    """Names of the YAML options of a group, those of included folders among them."""
    own = set(plugins.found("selectors")) if group == "select" and places.included() else set()
    return sorted(
        {p.stem for folder in (CONFIGS, *places.included()) for p in (folder / group).glob("*.yaml")} | own
    )


def option_name(name: str) -> str:
    """What an option is called: its name, or of a file of one's own the file's without ``.yaml``."""
    return Path(name).stem if name.endswith((".yaml", ".yml")) else name


def option_file(group: str, name: str) -> str:
    """How messages name the file of an option."""
    return name if name.endswith((".yaml", ".yml")) else f"configs/{group}/{name}.yaml"


def read_option(group: str, name: str, schema: type | None = None) -> Json:
    """The content of ``configs/<group>/<name>.yaml``, of a file of one's own, or of an option in a folder of
    ``REPRO_PATH``; ``schema`` says what it holds where the group does not.

    Raises :class:`SettingError` for a name that is none, naming the nearest, and for a file that is no
    mapping.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        require(path.is_file(), f"{group}={name}: there is no such file")
        found = [path]
    else:
        paths = [folder / group / f"{name}.yaml" for folder in (CONFIGS, *places.included())]
        found = [path for path in paths if re.fullmatch(r"[\w.-]+", name) and path.is_file()]
    require(len(found) <= 1, f"{group}={name} is in {' and in '.join(map(str, found))}; rename one of them")
    if not found:
        # a selector without parameters needs no YAML
        if group == "select" and name in plugins.found("selectors"):
            return {"selector": name}
        raise SettingError(
            f"{group}={name} is not known; did you mean {nearest(name, options(group))}? valid:"
            f" {', '.join(options(group))}"
        )
    try:
        content = words.of_file(schema or HOLDS.get(group, Any), found[0])
    except Exception as error:
        raise SettingError(
            f"{group}={name}: {found[0]} cannot be read: {' '.join(str(error).split())[:200]}"
        ) from None
    require(isinstance(content, dict), f"{group}={name}: {found[0]} must hold settings (key: value)")
    return content
