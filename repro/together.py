"""Train all models of an experiment side by side on one GPU: ``python -m repro.together exp=NAME
[settings]``.

Worth it where a training keeps the GPU busy for a small part of the time (below about 30 M parameters). Runs
first what the trainings read, heads, scores and selections; ``python -m repro.run`` with the same settings
then publishes them, evaluates and reports. ``--part R/N`` trains every N-th model, from R = 0, so that
several processes share the work; ``--before`` runs all that comes before any training, and no training.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import cast

from repro import environment
from repro.device import device_of
from repro.errors import SettingError, require
from repro.experiments import build
from repro.pretrain.stage import Training
from repro.settings.arms import picked
from repro.settings.compose import compose
from repro.settings.root import Settings
from repro.store import Stage, Store


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
        rank, of = _part(given.part)
        train(given.settings, given.arms.split(","), rank, of, given.before)
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _part(said: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", said)
    require(found is not None, f"--part {said} must be R/N, such as 0/4")
    assert found is not None
    rank, of = int(found[1]), int(found[2])
    require(rank < of, f"--part {said} must be R/N with 0 <= R < N")
    return rank, of


def train(arguments: list[str], arms: list[str], rank: int, of: int, before: bool) -> None:
    """Finish the trainings of these arms, or ``before``: what the experiment's trainings read; see the
    module.
    """
    from repro.fetch.remote import refuse
    from repro.plan import checks
    from repro.pretrain import cost, together

    settings = compose(arguments)
    refuse(settings, ("corpus.paths",))
    experiment = build(settings)
    checks.names(settings, experiment)
    checks.terms(settings)
    checks.machine(settings, experiment)
    settings = cost.sized(settings)
    device, store = device_of(settings.device), Store(Path(settings.work))
    checks.sizes(settings, build(settings).order(), store, device)
    trainings = _prepared(settings, store, device, [arm.strip() for arm in arms], before)
    if not before:
        left = [stage for stage in trainings[rank::of] if not store.has(stage)]
        together.train([cast(Training, stage.run).job(store.context(stage, device)) for stage in left])


def _prepared(settings: Settings, store: Store, device: str, arms: list[str], before: bool) -> list[Stage]:
    """The trainings of these arms, what they read finished; domains that turn out to be empty are refused, or
    left out of every arm, as in a run.
    """
    from repro.execution.stages import empty_domains
    from repro.plan import checks

    experiment = build(settings)
    order = experiment.order()
    wanted = {
        stages["pretrain"].fingerprint
        for name in _named(settings, list(experiment.arms), arms)
        for stages in experiment.arms[name].values()
        if "pretrain" in stages
    }
    require(bool(wanted), f"exp={settings.exp.name} trains nothing; start it with repro run")
    trainings = [stage for stage in order if stage.fingerprint in wanted]
    first = [stage for stage in order if all(other.name != "pretrain" for other in stage.ancestors())]
    used = {stage.fingerprint for training in trainings for stage in training.ancestors()}
    for stage in first if before else [stage for stage in first if stage.fingerprint in used]:
        if not store.has(stage):
            print(f"{stage.name}  {stage.label}", flush=True)
            store.ensure(stage, device)
        if empty := empty_domains(settings, experiment, store, stage):
            return _prepared(checks.without(settings, empty), store, device, arms, before)
    return trainings


def _named(settings: Settings, names: list[str], arms: list[str]) -> list[str]:
    """The names of the arms that some pattern fits; each has to fit one."""
    for arm in arms:
        require(
            bool(picked(names, [arm])),
            f"--arms: exp={settings.exp.name} has no arm {arm}; it has {', '.join(names)}",
        )
    return picked(names, arms)


if __name__ == "__main__":
    sys.exit(main())
