"""Metrics: a local JSONL that is the truth, W&B beside it, and progress on the terminal."""

from __future__ import annotations

import glob
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro import environment
from repro.errors import first_line
from repro.plain import Json
from repro.schema import check, how

LINE_SECONDS = 30.0  # between two lines of progress where there is no terminal
FIRST_SECONDS = 10.0  # before the first of them
_told: Path | None = None
_beside: Path | None = None


@dataclass
class Tracking:
    """W&B; the local JSONL is the truth."""

    wandb: str = how("offline", choices="offline | online | disabled")
    project: str = how("attention-influence", "of W&B")
    entity: str | None = how(None, "of W&B: a user or a team; null = your default")

    def __post_init__(self) -> None:
        check("tracking", self)


@contextmanager
def progress_in(path: Path) -> Iterator[None]:
    """Progress goes to ``path``, one line that is written over: of a process that has no terminal to
    itself.
    """
    global _told
    before, _told = _told, path
    try:
        yield
    finally:
        _told = before
        path.unlink(missing_ok=True)


@contextmanager
def progress_beside(path: Path) -> Iterator[None]:
    """Progress goes to the terminal as ever, and once a second to ``path`` for others to see."""
    global _beside
    before, _beside = _beside, path
    try:
        yield
    finally:
        _beside = before
        path.unlink(missing_ok=True)


class Tracker:
    """One run's log. Rows go to ``path`` (JSON lines, in order) and, unless disabled, to W&B.

    A run that is resumed calls :meth:`rewind` so that no step stands twice in the file. W&B resumed offline
    starts a second run (its limitation), so each row carries its own ``step``.
    """

    def __init__(
        self,
        path: Path,
        settings: Tracking,
        name: str,
        group: str,
        tags: list[str] | None = None,
        config: Json | None = None,
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.run = None
        self._handle = open(path, "a")
        if settings.wandb != "disabled":
            self.run = _start_wandb(settings, path.parent, name, group, tags or [], config or {})

    def log(self, row: Json, step: int) -> None:
        """Append one row."""
        self._handle.write(json.dumps({"step": step, **row}) + "\n")
        self._handle.flush()
        if self.run is not None:
            self.run.log({"own_step": step, **row})

    def rewind(self, step: int) -> None:
        """Drop rows after ``step``: they are about to be written again."""
        self._handle.close()
        rows = [row for row in read_rows(self.path) if row["step"] <= step]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
        os.replace(temporary, self.path)
        self._handle = open(self.path, "a")

    def finish(self, summary: Mapping[str, Any] | None = None) -> None:
        """Close both logs."""
        self._handle.close()
        if self.run is not None:
            self.run.summary.update(summary or {})
            self.run.finish()
            self.run = None


def _start_wandb(
    settings: Tracking, folder: Path, name: str, group: str, tags: list[str], config: Json
) -> Any:
    """A W&B run, or ``None`` with one warning line: an outage must not stop the experiment."""
    os.environ.setdefault("WANDB_SILENT", "true")
    environment.forget(environment.WANDB)
    try:
        import wandb

        mode: Any = settings.wandb
        return wandb.init(
            project=settings.project,
            entity=settings.entity,
            mode=mode,
            id=f"{_key(config)}{secrets.token_hex(4)}",
            name=name,
            group=group,
            tags=tags,
            config=config,
            dir=str(wandb_folder(folder)),
            reinit="create_new",
            settings=wandb_settings(),
        )
    except Exception as error:
        print(
            f"warning: W&B is off for {name}: {first_line(error)}; the local log goes on",
            file=sys.stderr,
        )
        return None


def _key(config: Mapping[str, Any]) -> str:
    """How the id of a run begins: with the artifact that it becomes, for :func:`offline_runs` (W&B takes 128
    characters).
    """
    return f"{config['artifact'][-64:]}-" if "artifact" in config else ""


def offline_runs(folder: Path, artifact: str) -> list[Path]:
    """The offline runs below ``folder`` of what became ``artifact``: one for each time that it was begun or
    resumed.
    """
    key = glob.escape(_key({"artifact": artifact}))
    return sorted(folder.glob(f"wandb/offline-run-*-{key}{'[0-9a-f]' * 8}"))


def logged_in() -> bool:
    """Whether there is a login to W&B on this machine; asks nobody, neither on the terminal nor the
    server.
    """
    environment.forget(environment.WANDB)
    import wandb

    return bool(wandb.login(prompt=False, verify=False))


def wandb_folder(folder: Path) -> Path:
    """The top of the work folder, where the W&B runs of all its artifacts lie together; else ``folder``."""
    above = [parent.parent for parent in folder.resolve().parents if parent.name == "artifacts"]
    return above[0] if above else folder


def wandb_settings() -> Any:
    """Nothing is sent but what is logged: no terminal, no machine statistics, no code, no remote of the git
    checkout.
    """
    import wandb

    return wandb.Settings(console="off", x_disable_stats=True, disable_git=True, save_code=False)


def read_rows(path: Path) -> list[Json]:
    """Rows of a JSONL log; a last line cut off by a kill is ignored."""
    rows = []
    for line in path.read_text().split("\n") if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _note(path: Path, text: str) -> None:
    """A line that others read, whole at any time; a disk that is full does not end the work for it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with suppress(OSError):
        temporary.write_text(text.strip())
        os.replace(temporary, path)


def _said(line: str) -> str:
    """Without what is not known yet, and without the blanks that tqdm puts before a unit."""
    return re.sub(r"(?<=\S) {2,}", " ", line.replace(", ? left", "").replace("/ ", "/")) if line else line


def _untimed(line: str) -> str:
    """Without the time left: a first item alone may have waited for what is set up before it."""
    return re.sub(r", [\d:]+ left$", "", line)


@contextmanager
def progress(total: float | None, unit: str, label: str) -> Iterator[Any]:
    """A progress bar with rate and time left; ``bar.update(n)``. One line every half minute where there is no
    terminal.
    """
    from tqdm import tqdm

    path, beside = _told, _beside
    line = "{desc}: {n_fmt}{unit}, {rate_fmt}, {elapsed} gone"
    if total is not None:  # else how much is left is not known
        line = "{desc}: {n_fmt} of {total_fmt}{unit}, {rate_fmt}, {elapsed} gone, {remaining} left"

    class Noted(tqdm):
        """Beside what it shows, it notes how far it is in the file of :func:`progress_beside`."""

        updates = 0

        def update(self, n: float | None = 1) -> bool | None:
            self.updates += 1
            shown = super().update(n)
            now = time.monotonic()
            if beside is not None and now - getattr(self, "noted", 0.0) >= 1:
                self.noted = now
                how = {**self.format_dict, "bar_format": line, "ncols": None}
                _note(beside, self.line(tqdm.format_meter(**how)))
            return shown

        def line(self, meter: str) -> str:
            said = _said(meter)
            return said if self.updates > 1 else _untimed(said)

    class Lines(Noted):
        """A line for a log file, or in the file of :func:`progress_in`, instead of a bar that is drawn over
        itself.
        """

        _time: Callable[[], float]  # tqdm's own clock

        def display(self, msg: str | None = None, pos: int | None = None) -> None:
            now = self._time()
            if msg is None and path is not None:
                _note(path, self.line(str(self)).strip())
            elif msg is None and now - getattr(self, "told", -LINE_SECONDS) >= LINE_SECONDS:
                self.told = now
                print(self.line(str(self)), file=self.fp, flush=True)

    terminal = sys.stderr.isatty() and path is None
    how: dict[str, Any] = {"dynamic_ncols": True, "mininterval": 0.5, "delay": 2.0}
    if not terminal:
        how = {
            "bar_format": line,
            "mininterval": 1.0,
            "maxinterval": 1.0,
            "delay": FIRST_SECONDS if path is None else 1.0,
        }
    how["unit_scale"] = not total or total >= 1000  # "12 of 24 probes", but "1.2k of 4.8k tokens"
    bar = (Noted if terminal else Lines)(
        total=total, unit=f" {unit}", desc=f"    {label}", leave=False, file=sys.stderr, **how
    )
    try:
        yield bar
    finally:
        bar.close()
