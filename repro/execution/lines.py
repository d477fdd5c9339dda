"""What the terminal is told about stages while they run."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from repro.execution.schedule import Failure
from repro.store import Stage, Store

if TYPE_CHECKING:
    from repro.execution.running import Record

LINE_SECONDS = 30.0  # between two lines of what runs, where there is no terminal


class Lines:
    """What the terminal is told: a line when a stage begins and one when it ends, and in between how far
    those are that run elsewhere: one line on a terminal, one every half minute without.
    """

    def __init__(
        self,
        store: Store,
        stages: Sequence[Stage],
        title: Callable[[Stage], str],
        record: Record | None = None,
    ) -> None:
        self.store, self.stages, self.title, self.record = store, stages, title, record
        self.begun: dict[str, float] = {}
        self.looked = time.monotonic()
        self.drawn = False

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def say(self, line: str, warning: bool = False) -> None:
        """A line of its own."""
        self._clear()
        print(line, file=sys.stderr if warning else sys.stdout, flush=True)
        if self.record:
            self.record.line(line)

    def cached(self, stage: Stage) -> None:
        """What it found when it ran is told again."""
        self._count()
        if self.record:
            self.record.cached()
        self.say(f"{self._place(stage)}  cached{'' if self.store.whole(stage) else ', from a pack'}")
        self._facts(stage, warnings=True)

    def started(self, stage: Stage) -> None:
        """The first line of a stage."""
        self._count()
        if self.record:
            self.record.started(stage, self.title(stage))
        again = ", again: a pack left out what a later stage reads" if self.store.has(stage) else ""
        self.store.beside(stage, ".log").unlink(missing_ok=True)
        self.say(f"{self._place(stage)}  running{again}")
        self.begun.setdefault(stage.fingerprint, time.monotonic())

    def again(self, stage: Stage) -> None:
        """Between its first line and a second first one."""
        self.say(f"{self._place(stage)}  its process was killed; it goes on in another")

    def ended(self, stage: Stage) -> None:
        """The last line of a stage, behind the warnings in its log."""
        if self.record:
            self.record.ended(stage)
        log = self.store.beside(stage, ".log")
        lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
        warnings = [line for line in lines if line.startswith("warning: ")]
        for line in warnings:
            self.say(line, warning=True)
        log.unlink(missing_ok=True)
        if self.record:
            for warning in self.store.facts(stage).get("warnings", []):
                if f"warning: {warning}" not in warnings:  # this process has told the terminal
                    self.record.line(f"warning: {warning}")
        self.say(
            f"{self._place(stage)}  done in {duration(time.monotonic() - self.begun[stage.fingerprint])}"
        )
        self._facts(stage)

    def failed(self, stage: Stage, failure: Failure) -> None:
        """In place of the last line."""
        if self.record:
            self.record.failed(stage, self.title(stage), failure.reason)
        self.say(f"{self._place(stage)}  FAILED: {failure.reason}")

    def skipped(self, stage: Stage, failure: Failure) -> None:
        """In place of both lines."""
        self.say(
            f"{self._place(stage)}  left out: {failure.stage.name if failure.stage else 'what it reads'}"
            " failed"
        )

    def look(self, running: Sequence[Stage]) -> None:
        """How far they are, as their own progress says."""
        terminal = sys.stderr.isatty()
        if not terminal and time.monotonic() - self.looked < LINE_SECONDS:
            return
        self.looked = time.monotonic()
        found = [self.store.beside(stage, ".progress") for stage in running]
        said = []
        for stage, path in zip(running, found, strict=True):
            try:
                said.append(path.read_text())
            except FileNotFoundError:
                spent = duration(time.monotonic() - self.begun[stage.fingerprint])
                said.append(f"{stage.name} {self.title(stage)}: {spent}")
        line = "    " + " | ".join(said)
        if terminal:
            print(
                f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}",
                end="",
                file=sys.stderr,
                flush=True,
            )
            self.drawn = True
        else:
            print(line, file=sys.stderr, flush=True)

    def _count(self) -> None:
        if self.record:
            self.record.stages(len(self.stages))

    def _place(self, stage: Stage) -> str:
        stages = [s.fingerprint for s in self.stages]
        number, many = stages.index(stage.fingerprint) + 1, len(stages)
        return f"[{number:>{len(str(many))}}/{many}] {stage.name:9} {self.title(stage)}"

    def _facts(self, stage: Stage, warnings: bool = False) -> None:
        facts = self.store.facts(stage)
        for warning in facts.get("warnings", []) if warnings else ():  # a stage that runs says them itself
            self.say(f"warning: {warning}", warning=True)
        if stage.summary:
            self.say(f"    {stage.summary(facts)}")

    def _clear(self) -> None:
        if self.drawn:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        self.drawn = False


def duration(seconds: float) -> str:
    """A stretch of time in words."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (
        f"{hours} h {minutes:02} min"
        if hours
        else f"{minutes} min {seconds:02.0f} s"
        if minutes
        else f"{seconds:.1f} s"
    )
