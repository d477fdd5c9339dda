"""``python -m repro.sweep sweep=NAME [overrides]``: a set of ordinary runs over one store, and one table at
the end.

A member is a process of ``repro.run``: it resumes, shares every stage that its settings do not touch (the
store's locks keep two members from doing the same work), and its failure does not stop the others.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any

import yaml

from repro import environment, places
from repro.device import gpus
from repro.errors import SettingError, require
from repro.execution import processes
from repro.settings.compose import compose
from repro.settings.files import option_file, option_name, options, read_option
from repro.settings.root import GROUPS, Settings, to_yaml
from repro.store import digest, read_json, write_json
from repro.store.bucket import must_be_folder
from repro.store.disk import make_folder


@dataclass
class Sweep:
    """``configs/sweep/<name>.yaml``: the experiment, settings common to all members, and the grid (their
    product).
    """

    exp: str
    grid: dict[str, list[Any]] = field(metadata={"schema": Settings})
    overrides: list[str] = field(default_factory=list)


def read(name: str) -> Sweep:
    """A sweep by its name, or of a YAML file of one's own."""
    file = option_file("sweep", name)
    try:
        sweep = Sweep(**read_option("sweep", name, Sweep))
    except TypeError as error:
        raise SettingError(f"{file}: {error}; it holds exp, grid and overrides") from None
    require(
        isinstance(sweep.grid, dict) and all(isinstance(key, str) for key in sweep.grid),
        f"{file}: the grid maps settings to lists of values, as in {{budget.share: [0.1, 0.3]}}; it is"
        f" {sweep.grid!r}",
    )
    for key, values in sweep.grid.items():
        require(isinstance(values, list), f"{file}: {key} needs a list of values in the grid: [{values}]")
    require(
        isinstance(sweep.overrides, list) and all(isinstance(own, str) for own in sweep.overrides),
        f"{file}: overrides is a list of settings, as in ['corpus.seed=1']; it is {sweep.overrides!r}",
    )
    return sweep


def members(name: str, overrides: list[str]) -> dict[str, list[str]]:
    """Label -> arguments of ``repro.run``, for every point of the grid; overrides of the command line win."""
    sweep = read(name)
    require(bool(sweep.grid) and all(sweep.grid.values()), f"{option_file('sweep', name)}: the grid is empty")
    _apart(name, sweep, overrides)
    points = {}
    grid = _resolved(sweep, overrides)
    for values in itertools.product(*grid.values()):
        chosen = [f"{key}={_text(value)}" for key, value in zip(grid, values, strict=True)]
        label = " ".join(chosen)
        require(label not in points, f"{option_file('sweep', name)} names {label} twice")
        points[label] = [*_own(sweep, overrides), *chosen, *overrides]
    return points


def _own(sweep: Sweep, overrides: list[str]) -> list[str]:
    """What the sweep sets beside its grid, less what the command line sets instead."""
    typed = {override.partition("=")[0].strip() for override in overrides}
    return [own for own in (f"exp={sweep.exp}", *sweep.overrides) if own.partition("=")[0] not in typed]


def _apart(name: str, sweep: Sweep, overrides: list[str]) -> None:
    """Refuse an override of what the grid sets, of a part of it or of what it is a part of: the labels would
    be wrong.

    ``exp=``, ``scale=`` and ``group=`` name whole files, and the grid's dotted values stand above theirs.
    """
    for override in overrides:
        key = override.partition("=")[0].strip()
        for own in sweep.grid:
            require(
                not f"{key}.".startswith(f"{own}.")
                and (key in (*GROUPS, "exp", "scale") or not f"{own}.".startswith(f"{key}.")),
                f"{override} touches {own}, which sweep={name} sets to {len(sweep.grid[own])} values of its"
                " own; leave it out, or write a sweep of your own values into configs/sweep",
            )


def _read_back(name: str, grid: dict[str, list[Any]], settings: dict[str, Settings]) -> None:
    """Every label is what its member will run with, and no two members are one run; else a
    :class:`SettingError`.
    """
    seen: dict[str, str] = {}
    for values, (label, own) in zip(itertools.product(*grid.values()), settings.items(), strict=True):
        for key, value in zip(grid, values, strict=True):
            found = _at(own, key)
            plain = isinstance(found, (int, float, str, list)) and not isinstance(value, dict)
            require(
                (found is None) == (value is None)
                and (not plain or found == value or str(found) == str(value)),
                f"sweep={name}: the member {label} would run with {key}={found}",
            )
        known = seen.setdefault(digest(asdict(own)), label)
        require(
            known == label,
            f"sweep={name}: the members {known} and {label} have the same settings; name one of them",
        )


def _at(settings: Settings, key: str) -> Any:
    """The value of a dotted setting, None where there is no such setting."""
    found: Any = settings
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else getattr(found, part, None)
    return found


def _resolved(sweep: Sweep, overrides: list[str]) -> dict[str, list[Any]]:
    """The grid with values like ``x0.5`` as that multiple of what the members would have without the grid.

    Where that is no number they stay text, for :func:`compose` to refuse or to take.
    """
    grid = {}
    for key, values in sweep.grid.items():
        factors = [
            value for value in values if isinstance(value, str) and re.fullmatch(r"x\d+(\.\d+)?", value)
        ]
        if factors:
            present = _at(compose([*_own(sweep, overrides), *overrides]), key)
            if isinstance(present, (int, float)) and not isinstance(present, bool):
                times = {v: float(f"{present * float(v[1:]):.6g}") for v in factors}
                if isinstance(present, int):
                    times = {v: round(found) for v, found in times.items()}
                values = [times.get(v, v) if isinstance(v, str) else v for v in values]
        grid[key] = values
    return grid


def _text(value: Any) -> str:
    """As YAML reads it back."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(_text, value))}]" if isinstance(value, list) else str(value)


def wandb_sweep(name: str, overrides: list[str]) -> str:
    """The same grid as a W&B sweep file: ``wandb sweep FILE`` and ``wandb agent ID`` then drive it."""
    sweep = read(name)
    command = [
        "${env}",
        "python",
        "-m",
        "repro.run",
        *_own(sweep, overrides),
        *overrides,
        "${args_no_hyphens}",
    ]
    parameters = {
        key: {"values": [_text(v) if isinstance(v, list) else v for v in vs]}
        for key, vs in _resolved(sweep, overrides).items()
    }
    content = {
        "name": option_name(name),
        "method": "grid",
        "program": "repro.run",
        "command": command,
        "parameters": parameters,
    }
    return yaml.safe_dump(content, sort_keys=False)


def composed(
    name: str, overrides: list[str], points: dict[str, list[str]], planning: bool = False
) -> dict[str, Settings]:
    """The settings of every member; refuses all mistakes before any work."""
    settings = {label: compose(arguments, planning) for label, arguments in points.items()}
    _read_back(name, _resolved(read(name), overrides), settings)
    return settings


def _returned(command: list[str], log: Path, place: dict[str, str], stopped: threading.Event) -> int:
    """The exit code of a member, which is ended in order once ``stopped`` is set: by that signal alone, for
    Ctrl-C does not reach it.
    """
    with open(log, "w") as handle, processes.interrupts_held():
        process = subprocess.Popen(command, stdout=handle, stderr=subprocess.STDOUT, env=os.environ | place)
    while process.poll() is None and not stopped.wait(0.1):
        pass
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(2 * processes.GRACE_SECONDS)  # it gives as much to what it started
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def run(name: str, overrides: list[str], jobs: int = 1) -> tuple[Path, list[str]]:
    """Run every member; returns the sweep's folder and the labels that failed. An interrupt ends them all."""
    points = members(name, overrides)
    settings = composed(name, overrides, points)
    work = Path(next(iter(settings.values())).work)
    must_be_folder(work)
    folder = work / "sweeps" / f"{option_name(name)}-{digest(points)[:8]}"
    for own in (work, folder):
        make_folder(own, "work=")
    (folder / "wandb_sweep.yaml").write_text(wandb_sweep(name, overrides))

    apart = jobs > 1 and all(own.train.processes == 1 for own in settings.values())
    devices = gpus() if apart else []
    free: Queue[dict[str, str]] = Queue()  # an environment for each member that may run at once
    for job in range(jobs):
        free.put({"CUDA_VISIBLE_DEVICES": devices[job % len(devices)]} if devices else {})
    stopped = threading.Event()
    partly: set[str] = set()

    def member(label: str) -> Path | None:
        if stopped.is_set():
            return None
        log = folder / f"member-{list(points).index(label):02}.log"
        print(f"[{label}]  running, log in {log}", flush=True)
        command, place = [sys.executable, "-m", "repro.run", *points[label]], free.get()
        try:
            returned = _returned(command, log, place, stopped)
        finally:
            free.put(place)
        if stopped.is_set():
            return None
        lines = log.read_text().strip().split("\n")
        # 1 with a run's folder: some of its models failed, and it has numbers of the others
        if returned not in (0, 1) or not lines[-1].startswith("run: "):
            print(f"[{label}]  FAILED: {lines[-1]}", flush=True)
            return None
        path = Path(lines[-1].removeprefix("run: "))
        if (path / "config.yaml").read_text() != to_yaml(settings[label]):
            print(f"[{label}]  FAILED: {path} was run with other settings than the member's", flush=True)
            return None
        if failed := read_json(path / "summary.json").get("failed", []):
            partly.add(label)
            print(
                f"[{label}]  done but for {len(failed)} failed model{'s' * (len(failed) > 1)}, see {log}",
                flush=True,
            )
        else:
            print(f"[{label}]  done", flush=True)
        return path

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        try:
            done = {label: pool.submit(member, label) for label in points}
            while wait(done.values(), timeout=0.2).not_done:
                pass  # a library's thread may get the signal, and Python answers it here, once this one wakes
        finally:
            stopped.set()
    runs = {label: future.result() for label, future in done.items()}
    from repro.report.sweep import collate

    write_json(folder / "sweep.json", {label: str(path) if path else None for label, path in runs.items()})
    print(collate(folder, option_name(name), runs, overrides))
    return folder, [label for label, path in runs.items() if path is None or label in partly]


JOBS = (
    "members that run at once (default 1), each a process of its own, on a GPU of its own where there are"
    " several; on a CPU rather run.parallel=N: members one by one, N stages of each at once, so that none"
    " waits for another; both multiply"
)


def main(arguments: list[str] | None = None) -> int:
    """The door. Exit 1 when a member failed, 2 for a user's mistake, 130 when interrupted, 143 when
    terminated.
    """
    environment.prepare(restart=arguments is None)
    parser = argparse.ArgumentParser(
        prog=environment.program or "python -m repro.sweep",
        description=(__doc__ or "").split("\n\n")[0],
        epilog="sweeps: " + ", ".join(options("sweep")),
    )
    parser.add_argument(
        "settings", nargs="*", metavar="key=value", help="sweep=NAME, then settings of repro.run"
    )
    parser.add_argument("--jobs", type=int, default=1, help=JOBS)
    parser.add_argument(
        "--plan", action="store_true", help="each member's stages still to run and their cost; run nothing"
    )
    parsed = parser.parse_intermixed_args(arguments)
    names = [a.removeprefix("sweep=") for a in parsed.settings if a.startswith("sweep=")]
    overrides = [a for a in parsed.settings if not a.startswith("sweep=")]
    try:
        require(parsed.jobs >= 1, f"--jobs {parsed.jobs}: at least one member runs at once")
        require(len(names) == 1, f"name one sweep: sweep=NAME with one of {', '.join(options('sweep'))}")
        for argument in [a for a in overrides if a.startswith("include=")]:  # before the sweep is looked for
            places.include(argument.removeprefix("include="))
        if parsed.plan:
            from repro.plan.table import together

            print(together(composed(names[0], overrides, members(names[0], overrides), planning=True)))
            return 0
        with processes.terminable():
            folder, failed = run(names[0], overrides, parsed.jobs)
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 143 if isinstance(interrupt, processes.Terminated) else 130
    if failed:
        print(
            f"error: {len(failed)} of the members failed, whole or in part: {'; '.join(failed)}",
            file=sys.stderr,
        )
    print(f"sweep: {folder}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
