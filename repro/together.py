"""Train all models of an experiment side by side on one GPU: ``python -m repro.together exp=NAME
[settings]``.

Worth it where a training keeps the GPU busy for a small part of the time (below about 30 M parameters). Runs
first what the trainings read, heads, scores and selections; ``python -m repro.run`` with the same settings
then publishes them, evaluates and reports. ``--part R/N`` trains every N-th model, from R = 0, so that
several processes share the work; ``--before`` runs all that comes before any training, and no training.
"""

from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import cast

from repro import environment
from repro.device import device_of
from repro.errors import SettingError, require
from repro.pretrain.stage import Training
from repro.settings.compose import compose
from repro.store import Store


def main(arguments: list[str] | None = None) -> int:
    """The door; a user's mistake is one line."""
    environment.prepare(restart=arguments is None)
    said = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(prog=environment.program or "python -m repro.together", description=said)
    parser.add_argument("settings", nargs="+", help="as of repro.run")
    parser.add_argument(
        "--arms", default="*", metavar="A,B", help="only of these arms; * and ? stand for anything"
    )
    parser.add_argument("--part", default="0/1", metavar="R/N", help="every N-th training, from R = 0")
    parser.add_argument("--before", action="store_true", help="only what the trainings read")
    given = parser.parse_args(arguments)
    try:
        rank, of = (int(number) for number in given.part.split("/"))
        require(0 <= rank < of, f"--part {given.part} must be R/N with 0 <= R < N")
        train(given.settings, given.arms.split(","), rank, of, given.before)
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ValueError:
        print(f"error: --part {given.part} must be R/N, such as 0/4", file=sys.stderr)
        return 2
    return 0


def train(arguments: list[str], arms: list[str], rank: int, of: int, before: bool) -> None:
    """Finish the trainings of these arms, or ``before``: what the experiment's trainings read; see the
    module.
    """
    from repro.experiments import build
    from repro.pretrain import cost, together

    settings = cost.sized(compose(arguments))
    device, store = device_of(settings.device), Store(Path(settings.work))
    experiment = build(settings)
    named = [name for name in experiment.arms if any(fnmatch(name, arm) for arm in arms)]
    require(
        bool(named),
        f"exp={settings.exp.name} has no arm {', '.join(arms)}; it has {', '.join(experiment.arms)}",
    )
    wanted = {stages["pretrain"].fingerprint for name in named for stages in experiment.arms[name].values()}
    trainings = [stage for stage in experiment.order() if stage.fingerprint in wanted]
    first = [
        stage for stage in experiment.order() if all(other.name != "pretrain" for other in stage.ancestors())
    ]
    used = {stage.fingerprint for training in trainings for stage in training.ancestors()}
    read = first if before else [stage for stage in first if stage.fingerprint in used]
    for stage in read:
        if not store.has(stage):
            print(f"{stage.name}  {stage.label}", flush=True)
            store.ensure(stage, device)
    if not before:
        left = [stage for stage in trainings[rank::of] if not store.has(stage)]
        together.train([cast(Training, stage.run).job(store.context(stage, device)) for stage in left])


if __name__ == "__main__":
    sys.exit(main())
