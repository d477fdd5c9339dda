"""The stages of a run, carried out: what the store has is told, what it lacks is run, and what fails is
remembered.

With ``run.parallel`` above 1, or ``run.threads``, stages run in processes of their own. Their output goes to
``<artifact>.log``, which stays where a stage failed, and their progress to ``<artifact>.progress`` while they
run.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from repro.errors import SettingError, require
from repro.execution.jobs import AT_ONCE, batch
from repro.execution.lines import Lines
from repro.execution.processes import StageFailed
from repro.execution.schedule import Call, Failure, Here, Place, attempt, finish, workers
from repro.experiments import Experiment
from repro.plan import checks, prospects
from repro.settings.root import Settings, as_dict
from repro.store import Stage, Store, digest
from repro.store.soundness import Memory, damage, make_sound
from repro.tracking import progress_beside, progress_in

if TYPE_CHECKING:
    from repro.execution.running import Record
    from repro.outcomes.outcome import Failed

LEFT_OUT = "some share is less than its first document (exp.empty_domains)"


@dataclass(frozen=True)
class Share:
    """Of the machine: how many stages run at once, and what each process of them has in its environment."""

    parallel: int
    variables: dict[str, str]  # of all: the number of threads, where it is not what this process has already
    own: list[dict[str, str]]  # of each

    @property
    def apart(self) -> bool:
        """Whether stages run in processes of their own."""
        return self.parallel > 1 or bool(self.variables)


def share(settings: Settings, device: str) -> Share:
    """What ``run.parallel`` and ``run.threads`` come to here. Raises :class:`SettingError` for what cannot
    run side by side.
    """
    from repro.device import cores, gpus

    if settings.run.jobs:  # their threads are a matter of the job
        return Share(1, {}, [{}])
    present = os.environ.get("OMP_NUM_THREADS")
    devices = (
        gpus() if device == "cuda" and settings.train.processes == 1 and settings.run.parallel != 1 else []
    )
    parallel = settings.run.parallel or max(1, len(devices) if device.startswith("cuda") else cores())
    threads = settings.run.threads
    if threads is None and present is None and parallel > 1:
        threads = max(1, cores() // parallel)
    variables = {"OMP_NUM_THREADS": str(threads)} if threads is not None and str(threads) != present else {}
    own = [{"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]} if devices else {} for i in range(parallel)]
    found = Share(parallel, variables, own)
    require(
        not found.apart or settings.train.launcher != "manual",
        "train.launcher=manual says on the terminal what to start: leave run.parallel and run.threads out",
    )
    return found


@dataclass
class Carried:
    """What came of it. ``settings`` and ``experiment`` are those that ran: domains may have been left out on
    the way.
    """

    settings: Settings
    experiment: Experiment
    stages: list[Stage]
    # by fingerprint, with all that could not run for want of it
    failed: dict[str, Failure] = field(default_factory=dict)
    interim: bool = False  # nothing ran: what ``failed`` holds was not there yet

    def whole(self) -> Experiment:
        """The experiment without arms, seeds and comparisons that failed or are not there yet."""
        arms = {
            arm: kept
            for arm, by_seed in self.experiment.arms.items()
            if (kept := {seed: named for seed, named in by_seed.items() if not self._of(named)})
        }
        return replace(self.experiment, arms=arms)

    def rows(self) -> list[Failed]:
        """What failed or is not there yet, by arm and seed: at which stage, and why."""
        return [
            {
                "arm": arm,
                "seed": seed,
                "stage": found.stage.name if found.stage else "",
                "reason": found.reason,
            }
            for arm, by_seed in self.experiment.arms.items()
            for seed, named in by_seed.items()
            if (found := self._of(named))
        ]

    def _of(self, named: dict[str, Stage]) -> Failure | None:
        return next(
            (self.failed[s.fingerprint] for s in named.values() if s.fingerprint in self.failed), None
        )


def carry_out(
    settings: Settings, store: Store, device: str, share: Share, record: Record | None = None
) -> Carried:
    """Run every stage that the store lacks. Raises what a stage raised that the rest cannot do without.

    ``record``: where it is noted for others to see (:mod:`repro.execution.running`).
    """
    from repro.experiments import build

    run = Carried(settings, experiment := build(settings), experiment.order())
    checks.sizes(settings, run.stages, store, device)
    seen: set[str] = set()
    sound: set[str] = set()

    def demanded() -> set[str]:
        make_sound(store, [stage for stage in run.stages if stage.fingerprint not in sound])
        sound.update(stage.fingerprint for stage in run.stages)
        read = run.experiment.exported
        return {stage.fingerprint for stage in store.demanded(run.stages, read)}

    run_now = demanded()
    context: AbstractContextManager[Sequence[Place]] = nullcontext([Here()])
    if settings.run.jobs:
        at_once = settings.run.parallel if settings.run.parallel > 1 else AT_ONCE
        context = batch(lambda: (run.settings, run.experiment, run_now), store, at_once)
    elif share.apart and run_now:
        context = workers(share.own)
    with context as places, _Watched(run, store, device, record) as lines:
        while todo := [stage for stage in run.stages if stage.fingerprint not in seen]:
            last = next((i for i, stage in enumerate(todo) if _asks(run.experiment, stage)), len(todo) - 1)
            call: Call = (
                partial(in_process, run.settings, device)
                if share.apart
                else here(run.experiment, store, device)
            )
            finish(todo[: last + 1], run_now, places, call, run.failed, lines)
            seen |= {stage.fingerprint for stage in todo[: last + 1]}
            if empty := empty_domains(run.settings, run.experiment, store, todo[last]):
                run.settings = checks.without(run.settings, empty)
                lines.say(f"left out of every arm: {', '.join(run.settings.budget.leave_out)}; {LEFT_OUT}")
                run.experiment = build(run.settings)
                lines.stages = run.stages = run.experiment.order()
                run_now = demanded()
                seen -= run_now - run.failed.keys()
            elif _is_last_selection(run.experiment, todo[last]):
                for line in prospects.lines(run.settings, run.experiment, store):
                    lines.say(line)
    if run.failed and not run.whole().arms:
        give_up(next(iter(run.failed.values())), store)
    return run


def so_far(settings: Settings, store: Store) -> Carried:
    """What the store has of a run, for a report in between: nothing runs, and no run that is at work is
    disturbed.

    Raises :class:`SettingError` where something is missing that no model can do without.
    """
    from repro.experiments import build

    run = Carried(settings, build(settings), [], interim=True)
    # what a run finds empty behind the corpus, and then behind the last selection
    for behind in ("corpus", "selection"):
        finished = [s for s in run.experiment.order() if s.name == behind and store.has(s)]
        if finished and (empty := empty_domains(run.settings, run.experiment, store, finished[-1])):
            run.settings = checks.without(run.settings, empty)
            run.experiment = build(run.settings)
    run.stages, memory = run.experiment.order(), Memory(store.root / ".verified.json")
    for stage in run.stages:
        broken = store.has(stage) and bool(damage(store, stage, memory))
        if store.has(stage) and not broken:
            continue
        if not run.experiment.apart or stage.fingerprint in _shared(run.experiment):
            raise SettingError(
                f"--so-far: nothing to report yet: {stage.name} {run.experiment.title(stage)} is"
                f" {'damaged' if broken else 'not there'}; the same command without --so-far goes on with it"
            )
        why = "damaged: the run makes it anew" if broken else "not there yet"
        run.failed[stage.fingerprint] = Failure(why, stage=stage)
    if run.failed and not run.whole().arms:
        raise SettingError("--so-far: nothing to report yet: no model is there")
    return run


def _shared(experiment: Experiment) -> set[str]:
    """Fingerprints of what no arm can do without."""
    return {stage.fingerprint for shared in experiment.shared.values() for stage in shared.ancestors()}


class _Watched(Lines):
    """The lines, and behind some of them what ends the run."""

    def __init__(self, run: Carried, store: Store, device: str, record: Record | None) -> None:
        super().__init__(store, run.stages, lambda stage: run.experiment.title(stage), record)
        self.run, self.device = run, device

    def ended(self, stage: Stage) -> None:
        """A proxy that is here can be measured."""
        if stage.name == "proxy":
            checks.fits(self.run.settings, self.run.stages, self.store, self.device)
        super().ended(stage)

    def failed(self, stage: Stage, failure: Failure) -> None:
        """Raises unless the stage belongs to some arms and seeds alone, and the others may go on."""
        run, settings = self.run, self.run.settings
        needed = stage.fingerprint in _shared(run.experiment)
        alone = run.experiment.apart and settings.run.keep_going and not needed
        if failure.hopeless or not alone:
            if self.record:
                self.record.failed(stage, self.title(stage), failure.reason)
            give_up(failure, self.store)
        if failure.error is not None:
            traceback.clear_frames(failure.error.__traceback__)  # they hold the model
        super().failed(stage, failure)


def _asks(experiment: Experiment, stage: Stage) -> bool:
    """Whether it has to be there, with all before it, before it is known what runs next: see
    :func:`empty_domains`.
    """
    return stage is experiment.shared.get("corpus") or _is_last_selection(experiment, stage)


def _is_last_selection(experiment: Experiment, stage: Stage) -> bool:
    names = {selection.fingerprint for selection in experiment.selections()}
    if stage.fingerprint not in names:
        return False
    last = [one.fingerprint for one in experiment.order() if one.fingerprint in names][-1:]
    return last == [stage.fingerprint]


def empty_domains(settings: Settings, experiment: Experiment, store: Store, finished: Stage) -> list[str]:
    """Domains to be left out of every arm, as known behind the ``finished`` stage: by the counts of the
    corpus, and behind the last selection. Refused unless ``exp.empty_domains`` allows it.
    """
    if finished is experiment.shared.get("corpus"):
        return checks.domains(settings, experiment, store.path(finished))
    if _is_last_selection(experiment, finished):
        return checks.selections(settings, experiment, store)
    return []


def give_up(failure: Failure, store: Store) -> None:
    """Raise what a stage failed of."""
    if failure.error is not None:
        raise failure.error
    if failure.mistake or failure.stage is None:
        raise SettingError(failure.reason)
    raise StageFailed(
        f"{failure.stage.name}: {failure.reason}; its log is {store.beside(failure.stage, '.log')}"
    )


def of_one_pass(stage: Stage, experiment: Experiment, store: Store) -> list[Stage]:
    """What else must run and can share a pass with ``stage``."""
    if stage.one_pass is None:
        return []
    left = store.demanded(experiment.order(), experiment.exported)
    return [one for one in left if one.one_pass == stage.one_pass and one.fingerprint != stage.fingerprint]


def here(experiment: Experiment, store: Store, device: str) -> Call:
    """How a stage is run in this process."""
    known = {stage.fingerprint: stage for stage in experiment.order()}

    def call(fingerprint: str) -> Failure | None:
        stage = known[fingerprint]
        others = of_one_pass(stage, experiment, store)
        with progress_beside(store.beside(stage, ".progress")):
            return attempt(
                lambda: store.ensure(stage, device, whole=True, others=others), store.beside(stage, ".log")
            )

    return call


_known: tuple[str, Experiment] = ("", Experiment())  # of the settings that this process built last


def in_process(settings: Settings, device: str, fingerprint: str) -> Failure | None:
    """Run a stage of these settings in a process for stages: found again by its fingerprint, its output in
    its log.
    """
    from repro.experiments import build

    global _known
    if _known[0] != (key := digest(as_dict(settings))):
        _known = key, build(settings)
    store, experiment = Store(Path(settings.work)), _known[1]
    stage = next((one for one in experiment.order() if one.fingerprint == fingerprint), None)
    if stage is None:
        return Failure("what it reads has changed since the run began; start the run again", mistake=True)
    log = store.beside(stage, ".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    # side by side, each has a device of its own
    alone = settings.run.parallel == 1 and not settings.run.jobs
    others = of_one_pass(stage, experiment, store) if alone else []
    with _output_in(log), progress_in(store.beside(stage, ".progress")):
        return attempt(lambda: store.ensure(stage, device, whole=True, others=others), log)


@contextmanager
def _output_in(log: Path) -> Iterator[None]:
    """What this process and its children print goes to ``log``."""
    streams = (sys.stdout, sys.stderr)
    kept = [os.dup(number) for number in (1, 2)]
    try:
        with open(log, "ab") as handle:
            for number in (1, 2):
                os.dup2(handle.fileno(), number)
        yield
    finally:
        for stream, number, own in zip(streams, (1, 2), kept, strict=True):
            stream.flush()
            os.dup2(own, number)
            os.close(own)
