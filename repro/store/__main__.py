"""``python -m repro.store pack exp=... | RUN_DIR`` and ``unpack FILE... [work=DIR]``: finished stages for
another machine.

A pack holds the finished stages of a run without text and without weights, and the finished shards of a
scoring that is not done. Text comes from its source again where a stage reads it; a training whose weights
are asked for is trained again; an unfinished training starts again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from repro import environment
from repro.errors import SettingError, require
from repro.settings.compose import compose
from repro.settings.root import Settings
from repro.store import Store, sha256_file
from repro.store.pack import ALL_MB, NAME, RUN_MB, pack


def settings_of(arguments: list[str]) -> Settings:
    """Settings as ``repro.run`` takes them, or those of the run whose folder is given (by the command in its
    summary).
    """
    if arguments and "=" not in arguments[0]:
        from repro.outcomes import summary

        found = summary.read(Path(arguments[0]))
        command = found["provenance"]["command"]
        require(
            command[0] == "run.py",
            f"{arguments[0]} was made by {command[0]}; give its settings as for repro.run instead",
        )
        # auto was this there
        ran_in = {f"{group}.dtype": found["settings"][group]["dtype"] for group in ("proxy", "train")}
        said = [argument for argument in command[1:] if argument.partition("=")[0] not in ran_in]
        return compose([*said, *(f"{name}={dtype}" for name, dtype in ran_in.items()), *arguments[1:]])
    return compose(arguments)


def main(arguments: list[str] | None = None) -> int:
    """The door. Exit 2 for a user's mistake."""
    environment.prepare(restart=arguments is None)
    parser = argparse.ArgumentParser(
        prog=environment.program or "python -m repro.store",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    doors = parser.add_subparsers(dest="door", required=True)
    packing = doors.add_parser(
        "pack", help="write the finished stages of a run, without text and weights, to one file"
    )
    packing.add_argument(
        "settings", nargs="+", metavar="key=value | RUN_DIR", help="as for repro.run, or a run's folder"
    )
    packing.add_argument(
        "--to", type=Path, metavar="DIR", help=f"folder of {NAME}; results/<exp>_<scale> unless said"
    )
    packing.add_argument(
        "--half",
        action="store_true",
        help="items' log-likelihoods in half precision and less of what no report reads (docs/packs.md)",
    )
    packing.add_argument("--run-mb", type=float, default=RUN_MB, help="refuse a larger pack")
    packing.add_argument(
        "--all-mb", type=float, default=ALL_MB, help="refuse when the packs of all results are larger"
    )
    unpacking = doors.add_parser("unpack", help="put the stages of packs into a store")
    unpacking.add_argument(
        "files", nargs="+", metavar="FILE | work=DIR", help="packs, and the work folder (work unless said)"
    )
    parsed = parser.parse_args(arguments)
    try:
        if parsed.door == "pack":
            print(_packed(parsed))
        else:
            from repro.store.unpack import unpack

            work = [a.removeprefix("work=") for a in parsed.files if a.startswith("work=")] or ["work"]
            for file in [Path(a) for a in parsed.files if not a.startswith("work=")]:
                print(f"{file}: {unpack(file, Path(work[-1]))}")
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _packed(parsed: argparse.Namespace) -> str:
    from repro.experiments import build

    settings = settings_of(parsed.settings)
    target = (parsed.to or Path("results") / f"{settings.exp.name}_{settings.scale}") / NAME
    store, stages = Store(Path(settings.work)), build(settings).order()
    content = pack(
        store,
        stages,
        target,
        "half" if parsed.half else None,
        parsed.run_mb,
        parsed.all_mb,
        endpoint=settings.exp.endpoint,
    )
    done = [entry for entry in content["artifacts"] if entry["state"] == "finished"]
    parts = sum(len(e["files"]) for e in content["artifacts"] if e["state"] != "finished")
    unfinished = f" and {parts} shards of unfinished scorings" if parts else ""
    return (
        f"pack: {target}, {target.stat().st_size / 1e6:.2f} MB: {len(done)} finished stages{unfinished}; "
        f"without text and weights\nsha256: {sha256_file(target)}"
    )


if __name__ == "__main__":
    sys.exit(main())
