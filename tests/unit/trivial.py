"""An experiment whose stages are trivial and fail when told, for this process and for those that a run starts."""

import functools
import json
import os
import signal

from repro import experiments, store
from repro.errors import SettingError
from repro.execution import stages
from repro.experiments import Experiment
from repro.store import Stage, write_json


def learn(name, seed, context):
    """A training that does what a file says."""
    told = json.loads(os.environ["TRAININGS"]).get(f"{name}-{seed}")
    if told == "diverges":
        raise SettingError("the loss is not finite at step 3")
    if told == "breaks":
        raise ZeroDivisionError("division by zero")
    if told == "full":
        raise OSError(28, "No space left on device")
    if told == "killed":
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where the memory ends
    context.warn(f"{name} {seed} was here")
    (context.out / "threads").write_text(os.environ.get("OMP_NUM_THREADS", "any"))


def publish(context):
    if json.loads(os.environ["TRAININGS"]).get("corpus"):
        raise SettingError("there is no corpus")
    write_json(context.out / "counts.json", {"domains": {"web": {"documents": 500, "bytes": 9, "groups": 9}}})


def choose(context):
    write_json(context.out / "selection.json", {"domains": {"web": {"selected_documents": 150}}})


def world(settings):
    """The experiment with trivial stages."""
    corpus, arms = Stage("corpus", "tiny", {}, publish), {}
    for arm in settings.exp.arms:
        chosen = Stage("selection", arm, {"arm": arm}, choose, {"corpus": corpus})
        arms[arm] = {}
        for seed in settings.exp.seeds:
            of = {"arm": arm, "seed": seed}
            model = Stage(
                "training", f"{arm}-{seed}", of, functools.partial(learn, arm, seed), {"selection": chosen}
            )
            result = Stage("evaluate", f"{arm}-{seed}", of, lambda context: None, {"model": model})
            arms[arm][seed] = {"selection": chosen, "pretrain": model, "evaluate": result}
    return Experiment({"corpus": corpus}, arms, apart=True)


def in_world(settings, device, fingerprint):
    """As ``repro.execution.stages.in_process``, where ``experiments.build`` makes a world."""
    experiments.build, store.provenance = world, dict
    return stages.in_process(settings, device, fingerprint)
