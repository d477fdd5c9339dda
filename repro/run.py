"""``python -m repro.run exp=NAME [group=option] [key.path=value]``: run an experiment, or with ``--plan`` say what it takes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from repro import environment
from repro.config import GROUPS, SettingError, Settings, compose, options, to_yaml

DEMONSTRATIONS = ("smoke", "laptop")  # scales too small for evidence

if TYPE_CHECKING:
    from repro.experiment import Experiment
    from repro.store import Stage, Store


def main(arguments: list[str] | None = None) -> int:
    """The door: parse, compose, plan or run, print ``run: <dir>`` last. Exit 2 for a user's mistake, 130 when interrupted."""
    environment.prepare(restart=arguments is None)
    parser = argparse.ArgumentParser(
        prog="python -m repro.run",
        description="Run an experiment end to end. Stages that are in the store are not run again; a run that was "
        "stopped anywhere goes on with the same command.",
        epilog=_choices(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "settings", nargs="*", metavar="key=value", help="exp=NAME, scale=NAME, group=option, or key.path=value"
    )
    parser.add_argument("--plan", action="store_true", help="show stages, cached or not, and cost estimates; run nothing")
    parsed = parser.parse_intermixed_args(arguments)
    try:
        settings = compose(parsed.settings, parsed.plan)
        if parsed.plan:
            from repro import checks
            from repro.plan import describe

            checks.names(settings)
            print(describe(settings))
        else:
            print(f"run: {run(settings)}")
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _choices() -> str:
    lines = [f"  {group + '=':10}{' | '.join(options(group))}" for group in ("exp", "scale", *GROUPS)]
    return "\n".join(
        ["choices:", *lines, "", "example: python -m repro.run exp=selection_30pct scale=laptop budget.share=0.2\n"]
    )


def run(settings: Settings) -> Path:
    """Run every stage that the store lacks, then the report; returns the run's folder."""
    from repro.store import room_on

    with room_on(Path(settings.work)):
        return _run(settings)


def _run(settings: Settings) -> Path:
    from repro import checks
    from repro.device import device_of
    from repro.experiment import build
    from repro.outcomes import registration
    from repro.store import Store, digest

    started = time.monotonic()
    checks.names(settings)
    checks.machine(settings)
    store, experiment = Store(Path(settings.work)), build(settings)
    stages = experiment.order()
    device = device_of(settings.device)
    _quiet(device)
    _say_where_from(settings)
    checks.sizes(settings, stages, store, device)
    run_now = {stage.fingerprint for stage in store.demanded(stages, experiment.read_by_report(settings))}
    for line in registration.lines(settings):
        print(line, flush=True)
    seen: set[str] = set()
    while (number := next((i for i, stage in enumerate(stages) if stage.fingerprint not in seen), None)) is not None:
        stage = stages[number]
        seen.add(stage.fingerprint)
        place = f"[{number + 1:>{len(str(len(stages)))}}/{len(stages)}] {stage.name:9} {experiment.title(stage)}"
        if stage.fingerprint not in run_now:
            print(f"{place}  cached{'' if store.whole(stage) else ', from a pack'}", flush=True)
            for warning in store.facts(stage).get("warnings", []):  # a running stage says them itself
                print(f"warning: {warning}", file=sys.stderr, flush=True)
        else:
            again = ", again: a pack left out what a later stage reads" if store.has(stage) else ""
            print(f"{place}  running{again}", flush=True)
            begun = time.monotonic()
            store.ensure(stage, device, whole=True)
            if stage.name == "proxy":
                checks.sizes(settings, stages, store, device)
            print(f"{place}  done in {_duration(time.monotonic() - begun)}", flush=True)
        if stage.summary:
            print(f"    {stage.summary(store.facts(stage))}", flush=True)
        if empty := empty_domains(settings, experiment, store, stage):
            settings = checks.without(settings, empty)
            print(f"left out of every arm: {', '.join(settings.budget.leave_out)}; {LEFT_OUT}", flush=True)
            experiment = build(settings)
            stages = experiment.order()
            run_now = {stage.fingerprint for stage in store.demanded(stages, experiment.read_by_report(settings))}
            seen -= run_now

    key = digest([stage.fingerprint for stage in stages])
    folder = Path(settings.work) / "runs" / f"{settings.exp.name}-{settings.scale}-{key[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(to_yaml(settings))
    from repro.report.build import build as report
    from repro.report.terminal import render

    summary = report(folder, settings, store, experiment.as_dict())
    print(render(summary))
    print(f"report: {folder / 'report.html'}   ({_duration(time.monotonic() - started)} in all)")
    return folder


def _say_where_from(settings: Settings) -> None:
    """Before hours are spent: what comes from uncommitted code is no result that can be committed."""
    from repro.store import provenance

    if settings.scale in DEMONSTRATIONS:
        return
    code = provenance()
    if code["dirty"] or code["commit"] is None:
        state = "has uncommitted changes" if code["dirty"] else "is not under git"
        print(
            f"warning: this code {state}: results to be committed come from a clean clone of a tag",
            file=sys.stderr,
            flush=True,
        )


LEFT_OUT = "some share is less than its first document (exp.empty_domains)"


def empty_domains(settings: Settings, experiment: Experiment, store: Store, finished: Stage) -> list[str]:
    """Domains to be left out of every arm, as known behind the ``finished`` stage: by the counts of the corpus, and behind the
    last selection. Refused unless ``exp.empty_domains`` allows it."""
    from repro import checks

    if finished is experiment.shared.get("corpus"):
        return checks.domains(settings, store.path(finished))
    if finished.name == "selection" and finished is [s for s in experiment.order() if s.name == "selection"][-1]:
        return checks.selections(settings, experiment, store)
    return []


def _quiet(device: str) -> None:
    """Keep the libraries' own chatter off the terminal; warnings that matter reach the user through this project."""
    os.environ.setdefault("DS_ACCELERATOR", device)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("WANDB_SILENT", "true")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02.0f} s" if minutes else f"{seconds:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
