"""``repro status [WORK]``: what runs in a work folder, how far it is, what ended, what failed and why. From
any terminal.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
import time
from pathlib import Path
from typing import TypedDict

from repro import environment
from repro.errors import SettingError, require
from repro.execution.lines import duration
from repro.execution.running import FOLDER, Values, alive

ENDED = 5  # runs that are shown after their end
PATIENCE = 0.4  # seconds that counting what lies on the disk may take


def main(arguments: list[str] | None = None) -> int:
    """The door. Exit 2 for a folder that is none."""
    environment.prepare(restart=arguments is None)
    parser = argparse.ArgumentParser(
        prog=environment.program or "python -m repro.status", description=__doc__
    )
    parser.add_argument(
        "work", nargs="?", type=Path, default=Path("work"), help="the work folder (default: work)"
    )
    parser.add_argument("--json", action="store_true", help="the same for programs")
    parsed = parser.parse_args(arguments)
    try:
        require(
            parsed.work.is_dir(),
            f"{parsed.work} is no folder; name the work folder of a run (work=DIR): repro status DIR",
        )
        found = read(parsed.work)
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        json.dumps(found, indent=1)
        if parsed.json
        else render(found, shutil.get_terminal_size((100, 24)).columns)
    )
    return 0


class Run(Values):
    """The record of a run, and where what it said is."""

    log: str


class Disk(TypedDict):
    """Bytes that are free and that the work folder holds, ``least`` where not all were counted."""

    free: int
    held: int
    least: bool


class Found(TypedDict):
    """What there is in a work folder."""

    work: str
    runs: list[Run]  # newest first
    disk: Disk


def read(work: Path) -> Found:
    """``runs``, newest first, as their records say, ``state`` being ``killed`` where the run is gone without
    a word; each of what is ``current`` with its ``progress``. ``disk``: bytes that are free, and that the
    folder holds, at ``least``.
    """
    runs: list[Run] = []
    for path in sorted((work / FOLDER).glob("*.json")):
        try:
            runs.append(_run(work, path))
        except OSError:  # forgotten meanwhile
            continue
        except (ValueError, KeyError, TypeError, AttributeError):  # whatever is missing or is something else
            print(f"warning: {path} is no record of a run and is left out; delete it", file=sys.stderr)
    held, whole = _held(work)
    free = shutil.disk_usage(work).free
    runs.sort(key=lambda run: -run["started"])
    return {"work": str(work), "runs": runs, "disk": {"free": free, "held": held, "least": not whole}}


def _run(work: Path, path: Path) -> Run:
    """A record with what is shown of it; raises one of Python's own errors where it cannot be shown."""
    record: Values = json.loads(path.read_text(encoding="utf-8"))
    if record["state"] == "running" and not alive(path):
        record["state"] = "killed"
    for entry in record["current"]:
        entry["progress"] = _progress(work, entry["folder"])
    run: Run = {**record, "log": str(path.with_suffix(".log"))}
    _at_work(run)
    _ended(run)
    return run


def _progress(work: Path, folder: str) -> str:
    try:
        return (work / "artifacts" / f"{folder}.progress").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _held(folder: Path) -> tuple[int, bool]:
    """Bytes of all files below a folder, and whether all were counted in the time there is."""
    total, todo, until = 0, [folder], time.monotonic() + PATIENCE
    while todo:
        if time.monotonic() > until:
            return total, False
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(Path(entry.path))
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total, True


def render(found: Found, width: int = 100) -> str:
    """The same for a reader, in ``width`` columns."""
    disk, lines = found["disk"], []
    least = "at least " if disk["least"] else ""
    lines.append(f"{found['work']}: {least}{disk['held'] / 1e9:.2f} GB, {disk['free'] / 1e9:.1f} GB free")
    running = [run for run in found["runs"] if run["state"] == "running"]
    ended = [run for run in found["runs"] if run["state"] != "running"]
    if not running:
        lines.append("nothing runs")
    for run in running:
        lines += _at_work(run)
    if ended:
        lines += ["", "ended"]
    for run in ended[:ENDED]:
        lines += _ended(run)
    return "\n".join(part for line in lines for part in _wrapped(line, width))


def _at_work(run: Run) -> list[str]:
    lines = [
        "",
        (
            f"{run['experiment']} {run['scale']}: running for {duration(time.time() - run['started'])}, "
            f"{run['done'] + run['cached']} of {run['stages']} stages there ({run['cached']} were); "
            f"process {run['pid']} on {run['host']}"
        ),
    ]
    for entry in run["current"]:
        said = entry.get("progress") or f"for {duration(time.time() - entry['since'])}"
        lines.append(f"  {entry['stage']} {entry['title']}: {said}")
    lines += _failed(run)
    lines.append(f"  log: {run['log']}")
    return lines


def _ended(run: Run) -> list[str]:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.get("ended", run["started"])))
    where = f": {run['run']}" if run["run"] else ""
    why = (
        f": {reason}"
        if (reason := run.get("reason"))
        else ": gone without a word"
        if run["state"] == "killed"
        else ""
    )
    lines = [f"  {run['experiment']} {run['scale']}, {when}, {run['state']}{where}{why}"]
    lines += _failed(run)
    if run["state"] != "done":
        lines.append(f"    log: {run['log']}; the same command goes on")
    return lines


def _wrapped(line: str, width: int) -> list[str]:
    indent = line[: len(line) - len(line.lstrip())] + "    "
    return textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ) or [""]


def _failed(run: Run) -> list[str]:
    return [f"    FAILED {entry['stage']} {entry['title']}: {entry['reason']}" for entry in run["failed"]]


if __name__ == "__main__":
    sys.exit(main())
