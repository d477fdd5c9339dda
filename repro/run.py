"""``python -m repro.run exp=NAME [group=option] [key.path=value]``: run an experiment, or with ``--plan`` say
what it takes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from repro import environment
from repro.device import device_of
from repro.errors import SettingError
from repro.execution import processes
from repro.secrecy import hidden
from repro.settings.compose import compose
from repro.settings.files import options
from repro.settings.registration import stated
from repro.settings.root import GROUPS, Settings, as_dict, to_yaml
from repro.store import Stage, Store, digest, read_json, sweep
from repro.store.disk import room_on

DEMONSTRATIONS = ("smoke", "laptop")  # scales too small for evidence

if TYPE_CHECKING:
    from repro.execution.running import About, Record
    from repro.execution.stages import Carried, Share


def main(arguments: list[str] | None = None) -> int:
    """The door: parse, compose, plan or run, print ``run: <dir>`` last.

    Exit 1 when something failed, 2 for a user's mistake, 130 when interrupted, 143 when terminated.
    """
    environment.prepare(restart=arguments is None)
    parser = argparse.ArgumentParser(
        prog=environment.program or "python -m repro.run",
        description=(
            "Run an experiment end to end. Stages that are in the store are not run again; a run that was "
            "stopped anywhere goes on with the same command."
        ),
        epilog=_choices(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="exp=NAME, scale=NAME, group=option, or key.path=value",
    )
    parser.add_argument(
        "--show", action="store_true", help="print the composed settings as YAML; run nothing"
    )
    parser.add_argument(
        "--plan", action="store_true", help="show stages, cached or not, and cost estimates; run nothing"
    )
    parser.add_argument(
        "--so-far",
        action="store_true",
        help="report on the models that are there, also while the run is at work; run nothing",
    )
    parsed = parser.parse_intermixed_args(arguments)
    try:
        settings = compose(parsed.settings, parsed.plan)
        if parsed.show:
            print(to_yaml(settings), end="")
        elif parsed.plan:
            from repro.plan.table import describe

            print(describe(settings))
        else:
            with processes.terminable():
                folder = run(settings, so_far=parsed.so_far)
            failed = _say_failed(folder)
            print(f"run: {folder}", flush=True)
            return 1 if failed else 0
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except processes.StageFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 143 if isinstance(stopped, processes.Terminated) else 130
    return 0


def _say_failed(folder: Path) -> bool:
    """Name what failed, as the summary has it; the same command tries it again."""
    failed = read_json(folder / "summary.json").get("failed", [])
    for row in failed:
        print(
            f"error: {row['arm']}, seed {row['seed']}: {row['stage']} failed: {row['reason']}",
            file=sys.stderr,
            flush=True,
        )
    if failed:
        print(f"{len(failed)} models failed; the same command tries them again", file=sys.stderr, flush=True)
    return bool(failed)


def _choices() -> str:
    lines = [f"  {group + '=':10}{' | '.join(options(group))}" for group in ("exp", "scale", *GROUPS)]
    return "\n".join(
        [
            "choices:",
            *lines,
            "",
            "example: python -m repro.run exp=selection_30pct scale=laptop budget.share=0.2",
            "every setting, with its default, unit and meaning: repro settings [PREFIX]\n",
        ]
    )


def run(settings: Settings, brief: bool = False, so_far: bool = False) -> Path:
    """Run every stage that the store lacks, then the report; returns the run's folder. ``brief``: print no
    comparison. ``so_far``: run nothing and report on what is there.
    """
    from repro.fetch.hub_commits import STORE_OF_REVISIONS
    from repro.fetch.remote import refuse
    from repro.store.bucket import at_home, of

    refuse(settings, ("corpus.paths", "work"))
    settings = replace(settings, work=at_home(settings.work))
    bucket = of(Path(settings.work))
    revisions = f"{bucket.url}/revisions" if bucket else str(Path(settings.work).absolute() / "revisions")
    with environment.variables({STORE_OF_REVISIONS: revisions}):
        folder = _checked(settings, brief, so_far)
    if bucket:
        bucket.push_run(folder)
        print(f"kept in {bucket.url}/runs/{folder.name}", flush=True)
    return folder


def _checked(settings: Settings, brief: bool, so_far: bool) -> Path:
    from repro.execution import stages
    from repro.experiments import build
    from repro.plan import checks
    from repro.pretrain import cost

    experiment = build(settings)
    checks.names(settings, experiment)
    checks.terms(settings)
    with room_on(Path(settings.work)):
        checks.machine(settings, experiment)
        settings = cost.sized(settings)
        device = "cpu" if settings.run.jobs else device_of(settings.device)
        share = stages.share(settings, device)
        with environment.variables(share.variables):
            if so_far:
                return _report(stages.so_far(settings, Store(Path(settings.work))), brief)
            return _run(settings, device, share, brief)


def _run(settings: Settings, device: str, share: Share, brief: bool) -> Path:
    from repro.execution import notice
    from repro.execution.running import recorded
    from repro.execution.stages import carry_out
    from repro.outcomes import registration

    environment.quiet(device)
    _say_where_from(settings)
    for line in registration.lines(settings):
        print(line, flush=True)
    about: About = {
        "experiment": settings.exp.name,
        "scale": settings.scale,
        "command": [hidden(word) for word in sys.argv],
    }
    with recorded(Path(settings.work), about) as record:
        try:
            started = time.monotonic()
            carried = carry_out(settings, Store(Path(settings.work)), device, share, record)
            folder = _report(carried, brief, record, started)
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):
                notice.give(settings.run.notice, f"{settings.exp.name} {settings.scale} failed")
            raise
    said = "ended, with failures" if record.values["failed"] else "is done"
    notice.give(settings.run.notice, f"{settings.exp.name} {settings.scale} {said}: {folder}")
    return folder


def _report(
    carried: Carried, brief: bool, record: Record | None = None, started: float | None = None
) -> Path:
    from filelock import FileLock

    from repro.execution.lines import duration
    from repro.report.build import build as report
    from repro.report.terminal import render

    settings, store = carried.settings, Store(Path(carried.settings.work))
    folder = run_folder(settings, store, carried.stages)
    folder.mkdir(parents=True, exist_ok=True)
    if record:
        record.values["run"] = str(folder)
    (folder / "config.yaml").write_text(to_yaml(settings))
    lacking = {"failed": [], "absent": []} | {"absent" if carried.interim else "failed": carried.rows()}
    with FileLock(f"{folder}.lock"):  # the same run twice at once makes the same folder
        sweep(folder)
        summary = report(folder, settings, store, carried.whole().as_dict() | lacking)
    if not brief:
        print(render(summary))
        took = f"   ({duration(time.monotonic() - started)} in all)" if started else ""
        print(f"report: {folder / 'report.html'}{took}")
    return folder


def run_folder(settings: Settings, store: Store, stages: Sequence[Stage]) -> Path:
    """Where a run's report goes: by its stages and by what is compared, so that another endpoint or contrast
    of the same models replaces no report.
    """
    compared = as_dict(settings)["exp"]["contrasts"]
    key = digest([[stage.fingerprint for stage in stages], stated(as_dict(settings)), compared])
    return store.root.parent / "runs" / f"{settings.exp.name}-{settings.scale}-{key[:8]}"


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


if __name__ == "__main__":
    sys.exit(main())
