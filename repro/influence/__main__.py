"""``python -m repro.influence exp=NAME [settings of repro.run] --part R/N``: one machine's share of a scoring.

For N machines over one work folder, each started with its own R = 0 ... N-1 (by hand, a Slurm array, a datatrove executor).
What scoring needs is made by the first that comes; then each scores every N-th shard of documents. ``repro.run`` with the
same settings finds the shards, scores what is missing and goes on. Started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from repro import environment
from repro.config import SettingError, Settings, compose, require


def score_part(settings: Settings, rank: int, machines: int, device: str) -> int:
    """Score shards ``rank``, ``rank + machines``, ... of every scoring that the run lacks; returns how many there were."""
    from repro.experiments import build
    from repro.store import Context, Store

    store = Store(Path(settings.work))
    stages = [stage for stage in build(settings).order() if stage.name == "score" and not store.has(stage)]
    for stage in stages:
        for needed in store.demanded(stage.ancestors())[:-1]:
            store.ensure(needed, device, whole=True)
        partial = store.path(stage).with_name(store.path(stage).name + ".partial")
        partial.mkdir(parents=True, exist_ok=True)
        inputs = {key: store.path(child) for key, child in stage.inputs.items()}
        stage.run(Context(partial, inputs, device, part=(rank, machines)))
    return len(stages)


def main(arguments: list[str] | None = None) -> int:
    """The door. Exit 2 for a user's mistake."""
    environment.prepare(restart=arguments is None)
    parser = argparse.ArgumentParser(prog="python -m repro.influence", description=__doc__.split("\n\n")[0])
    parser.add_argument("settings", nargs="*", metavar="key=value", help="as for repro.run")
    parser.add_argument("--part", required=True, metavar="R/N", help="this machine of how many, counted from 0")
    parsed = parser.parse_intermixed_args(arguments)
    try:
        found = re.fullmatch(r"(\d+)/(\d+)", parsed.part)
        require(found is not None and int(found[1]) < int(found[2]), f"--part {parsed.part} must be R/N with R from 0 to N-1")
        settings = compose(parsed.settings)
        from repro import checks
        from repro.device import device_of
        from repro.experiments import build

        checks.machine(settings, build(settings))
        number = score_part(settings, int(found[1]), int(found[2]), device_of(settings.device))  # type: ignore[index]
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"part {parsed.part} of {number} scorings is done; run python -m repro.run with the same settings behind the last part"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
