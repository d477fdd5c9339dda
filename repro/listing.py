"""``repro settings [PREFIX]``: every setting with its type, default, unit and meaning, as its schema says."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass

from repro import environment
from repro.errors import nearest
from repro.schema import default_of
from repro.settings.experiment import OVERRIDES
from repro.settings.files import options
from repro.settings.root import GROUPS, Settings


@dataclass(frozen=True)
class Setting:
    """One setting: ``name`` as the command line takes it, its ``type``, its ``default`` in YAML, and its
    ``meaning``.
    """

    name: str
    type: str
    default: str
    meaning: str


def settings(schema: type = Settings, path: str = "") -> Iterator[Setting]:
    """Every setting below ``schema``, in the order of the code."""
    for f in fields(schema):
        default, said = default_of(f), f.metadata
        if is_dataclass(default):
            yield from settings(type(default), f"{path}{f.name}.")
            continue
        shown = json.dumps(default, ensure_ascii=False)
        meaning = " ".join(filter(None, [said["unit"], said["meaning"]]))
        meaning += "" if said["identity"] else "; enters no fingerprint"
        yield Setting(f"{path}{f.name}", str(f.type), shown, meaning)


def described(prefix: str = "") -> str:
    """The settings below ``prefix``, or with it in their names, in the width of the terminal; empty where
    there are none.
    """
    every = list(settings())
    chosen = [s for s in every if not prefix or f"{s.name}.".startswith(f"{prefix.rstrip('.')}.")]
    chosen = chosen or [s for s in every if prefix in s.name]
    width = max(40, shutil.get_terminal_size((100, 24)).columns)

    def wrapped(text: str, first: str = "") -> list[str]:
        return textwrap.wrap(
            text, width, initial_indent=first, subsequent_indent="    ", break_on_hyphens=False
        )

    lines = []
    for s in chosen:
        lines += wrapped(f"{s.name}={s.default}  ({s.type})") + wrapped(s.meaning, "    ")
    for group in ("exp", "scale", *GROUPS):
        if prefix in ("", group) or prefix.startswith(f"{group}."):
            lines += [
                "",
                *wrapped(f"{group}=NAME takes {', '.join(options(group))}, or a YAML file of your own"),
            ]
    if not prefix or prefix.startswith("exp"):
        said = (
            "exp.arms.NAME.KEY=VALUE overrides for one arm; KEY is select, mixture, or begins with"
            f" {', '.join(OVERRIDES)}"
        )
        lines += ["", *wrapped(said)]
    return "\n".join(lines) if chosen else ""


def main(arguments: list[str] | None = None) -> int:
    """The door. Exit 2 for a prefix that no setting has."""
    environment.prepare(restart=arguments is None)
    parser = argparse.ArgumentParser(
        prog=environment.program or "python -m repro.listing", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "prefix", nargs="?", default="", metavar="PREFIX", help="a group (score) or a part of a name (tokens)"
    )
    parsed = parser.parse_args(arguments)
    text = described(parsed.prefix)
    if not text:
        names = [s.name for s in settings()]
        near = nearest(parsed.prefix, {*names, *(name.rpartition(".")[0] for name in names)} - {""})
        print(f"error: no setting has {parsed.prefix!r} in its name; did you mean {near}?", file=sys.stderr)
        return 2
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
