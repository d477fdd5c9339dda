"""What can be refused before it has cost anything: names that do not exist, models too large, domains too
small.
"""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from repro import plugins, pretrained
from repro.device import present, warn_if_emulated
from repro.errors import one_of, require
from repro.evaluate.cost import SIZES
from repro.evaluate.tasks import check_names, filters
from repro.experiments.arms import budget_of, reads_losses
from repro.fetch import assets, hub_access
from repro.fetch.hub_commits import must_be_commit
from repro.heads import detectors
from repro.items import TEXT_COLUMNS
from repro.outcomes import measure, registration
from repro.pretrain import cost, source
from repro.pretrain.stage import Training
from repro.proxy import pinned
from repro.proxy.stage import config as of_proxy
from repro.proxy.stage import within_context
from repro.selection import selectors
from repro.settings.root import Settings
from repro.store import read_json
from repro.store.disk import make_folder
from repro.tracking import logged_in

if TYPE_CHECKING:
    from repro.experiments import Experiment
    from repro.store import Stage, Store


def names(settings: Settings, experiment: Experiment) -> None:
    """Look up the benchmarks that the last stages will ask for; raises :class:`SettingError` naming the
    nearest. Refuses plug-ins of other packages with a name of this project's.
    """
    plugins.refuse_taken("selectors", selectors.here())
    plugins.refuse_taken("detectors", detectors.here())
    if experiment.has("evaluate"):
        check_names(settings.eval.tasks)
        for task in settings.eval.text_tasks:
            one_of("eval.text_tasks", task, tuple(sorted(TEXT_COLUMNS)))
        endpoint(settings)
        pairs(settings)
    if experiment.has("pretrain"):
        sample(settings)


def pairs(settings: Settings) -> None:
    """Refuse a primary contrast of arms that share no seed: nothing would be compared."""
    primary = next((c for c in settings.exp.contrasts if c.primary), None)
    if primary is not None:
        arms = f"{primary.treatment} and {primary.control}"
        require(
            registration.pairs(settings) > 0,
            f"exp.contrasts: {arms} share no seed, so nothing pairs them; give both the same seeds",
        )


def sample(settings: Settings) -> None:
    """Refuse to train an arm that can take no document outside ``score.sample`` beside arms that can."""
    for name, arm in settings.exp.arms.items():
        # one that reads text beside scores can rank what has none
        learns = not selectors.light(arm.select.selector, arm.select.params)
        known = learns or not reads_losses(settings, name)
        require(
            settings.score.sample == 1 or known,
            f"score.sample={settings.score.sample:g}: {name} ranks by scores, and could take none of the"
            f" other documents; set exp.arms.{name}.select=distilled, or score.sample=1",
        )


def endpoint(settings: Settings) -> None:
    """Refuse a primary endpoint that the suite cannot measure: that would show after the last training
    only.
    """
    wanted, tasks = settings.exp.endpoint, [Path(task).stem for task in settings.eval.tasks]
    group, _, name = wanted.partition("/")
    of_tasks = {
        "gold_bits_per_byte": tasks,
        "gold_probability": tasks,
        "text_bits_per_byte": settings.eval.text_tasks,
    }
    whole = ("bits_per_byte", "accuracy_average")
    require(
        not measure.of(wanted).perplexity,
        f"exp.endpoint={wanted}: perplexities are compared nowhere, bits per byte say the same and do not"
        " explode; set exp.endpoint=bits_per_byte or gold_bits_per_byte/<task>",
    )
    written = all((size := SIZES.get(task)) is not None and size.written for task in tasks)
    require(
        wanted != measure.ENDPOINT or not written or bool(settings.eval.text_tasks),
        f"exp.endpoint={wanted} needs a text or a task whose answers are read, and the answers of"
        f" {', '.join(tasks) or 'no task'} are written; name one of eval.text_tasks, or a metric such as"
        " exp.endpoint=gsm8k/exact_match,flexible-extract",
    )
    if wanted in whole or name in of_tasks.get(group, ()) or (group == "heldout_bits_per_byte" and name):
        return
    known = any(group in (task, f"{task}_acc") or group.startswith(f"{task}_") for task in tasks) and bool(
        name
    )
    require(
        known,
        f"exp.endpoint={wanted}: eval.tasks has no such task; name one of {', '.join(whole)}, <task>/acc,"
        " <task>/acc_norm, gold_probability/<task>, gold_bits_per_byte/<task>, with a task of"
        f" {', '.join(tasks)}",
    )
    for entry in settings.eval.tasks:
        ways = filters(entry) if Path(entry).stem == group else []
        require(
            not ways or name.partition(",")[2] in ways,
            f"exp.endpoint={wanted}: {group} is scored through {' and '.join(ways)}; name one:"
            f" exp.endpoint={group}/{name.partition(',')[0]},{ways[-1] if ways else ''}",
        )


def terms(settings: Settings) -> None:
    """Refuse to download a proxy whose terms of use are not accepted; raises :class:`SettingError` that shows
    them.
    """
    for proxy in [
        settings.proxy,
        *(replace(settings.proxy, **arm.proxy) for arm in settings.exp.arms.values()),
    ]:
        if proxy.kind == "gguf" and proxy.path is None:
            pinned.permitted(proxy.name, proxy.accept_terms)


def machine(settings: Settings, experiment: Experiment) -> None:
    """Refuse a device or a login that is not there and a work folder that cannot be made or written; warn of
    an emulated dtype.
    """
    require(
        settings.tracking.wandb != "online" or not experiment.has("pretrain") or logged_in(),
        "tracking.wandb=online: there is no W&B login on this machine; wandb login, or set"
        " tracking.wandb=offline",
    )
    if settings.run.jobs:
        require(
            settings.run.executor == "slurm",
            f"run.sbatch is for jobs of Slurm and run.executor={settings.run.executor}; set"
            " run.executor=slurm",
        )
        require(shutil.which("sbatch") is not None, "run.sbatch: there is no sbatch on this machine's PATH")
        require(
            settings.device != "auto",
            "run.sbatch: device=auto would be what this machine has; say what the jobs have: device=cuda or"
            " device=cpu",
        )
    else:
        present(settings.device)
    make_folder(Path(settings.work), "work=")
    warn_if_emulated(dtypes(settings, experiment), settings.device)


def no_file_at_work(settings: Settings) -> None:
    """Refuse, for a plan, which makes no folder, a work folder where a file stands, or below one."""
    work = Path(settings.work)
    for place in (work, *work.parents):
        require(
            not os.path.isfile(place),
            f"work={work}: cannot make the folder ({place} is a file); name another",
        )


def dtypes(settings: Settings, experiment: Experiment) -> dict[str, str]:
    """Every dtype that some stage computes in, by the name of its setting."""
    trains, evaluates = experiment.has("pretrain"), experiment.has("evaluate")
    shared = {"proxy.dtype": settings.proxy.dtype}
    shared |= {"train.dtype": settings.train.dtype} if trains else {}
    shared |= {"eval.dtype": settings.eval.dtype} if trains and evaluates else {}
    return shared | {
        f"exp.arms.{name}.{group}.dtype": override["dtype"]
        for name, arm in settings.exp.arms.items()
        for group, override in (("proxy", arm.proxy), ("train", arm.train))
        if "dtype" in override
    }


def domains(settings: Settings, experiment: Experiment, corpus: Path) -> list[str]:
    """Domains of a finished corpus that some arm's share is less than one document of: no model is trained
    without a domain unasked.

    With ``exp.empty_domains: leave_out`` they are returned, to be left out of every arm (:func:`without`);
    otherwise they raise :class:`SettingError`. Experiments that train nothing do without such a domain, and
    say so.
    """
    lacking: dict[str, None] = {}
    counts = {
        domain: found["documents"] for domain, found in read_json(corpus / "counts.json")["domains"].items()
    }
    _some(settings, experiment, counts)
    for name, by_seed in experiment.trained().items():
        arm = settings.exp.arms[name]
        budget = budget_of(settings, name)
        if arm.mixture.kind == "add" or arm.select.match:
            continue  # trained on all documents too, or given the size of another arm
        dispensable = all("selection" in stages for stages in by_seed.values())
        share = Fraction(repr(budget.share)) if budget.scope == "domain" else 1
        small = [domain for domain, documents in counts.items() if 0 < documents * share < 1]
        small = [domain for domain in small if domain not in budget.leave_out]
        if dispensable and settings.exp.empty_domains == "leave_out":
            lacking |= dict.fromkeys(small)
            continue
        others = [domain for domain in counts if domain not in small]
        named = ", ".join(f"{domain!r} ({counts[domain]} documents)" for domain in small)
        require(
            not small,
            f"domain {named}: arm {name!r} selects {budget.share:.0%} of it, less than one document, and a"
            " model is not trained without a domain; "
            + (f"leave it out with corpus.domains=[{','.join(others)}], or " if others else "")
            + "bring more documents, or raise budget.share"
            + (", or leave it out of every arm with exp.empty_domains=leave_out" if dispensable else ""),
        )
    return list(lacking)


def _some(settings: Settings, experiment: Experiment, counts: dict[str, int]) -> None:
    """Refuse a share of documents that is less than one in every domain: scoring would be in vain."""
    for name, by_seed in experiment.arms.items():
        arm = settings.exp.arms[name]
        budget = budget_of(settings, name)
        chosen = all("selection" in stages for stages in by_seed.values())
        if not chosen or budget.unit == "tokens" or budget.frozen or arm.select.match:
            continue
        there = [number for domain, number in counts.items() if domain not in budget.leave_out]
        most = sum(there) if budget.scope == "global" else max(there, default=0)
        require(
            most == 0 or Fraction(repr(budget.share)) * most >= 1,
            f"arm {name!r} at budget.share={budget.share:g} takes no document: it is less than one of"
            f" {most} documents; raise budget.share to {math.ceil(100 / max(most, 1)) / 100:g} or more",
        )


def selections(settings: Settings, experiment: Experiment, store: Store) -> list[str]:
    """The same of finished selections, before the first training: domains whose first document is longer than
    the share.
    """
    lacking: dict[str, list[str]] = {}
    for name, by_seed in experiment.trained().items():
        for seed, stages in by_seed.items():
            selection = stages.get("selection")
            if selection is None or not store.has(selection):
                continue  # it failed
            for domain in store.facts(selection).get("empty_domains", []):
                lacking.setdefault(domain, []).append(f"{name} seed {seed}")
    if settings.exp.empty_domains != "leave_out":
        where = "; ".join(f"{domain!r} in {', '.join(arms[:4])}" for domain, arms in lacking.items())
        require(
            not lacking,
            f"selections without a document of a domain: {where}: the first document is longer than the"
            " share, and a model is not trained without a domain; lower corpus.max_bytes, raise the share,"
            " leave the domain out with corpus.domains, or out of every arm with"
            " exp.empty_domains=leave_out",
        )
    return list(lacking)


def without(settings: Settings, empty: list[str]) -> Settings:
    """The settings with these domains left out of every arm's selection."""
    found = sorted({*settings.budget.leave_out, *empty})
    arms = {
        name: replace(arm, budget=arm.budget | ({"leave_out": found} if "leave_out" in arm.budget else {}))
        for name, arm in settings.exp.arms.items()
    }
    return replace(
        settings, budget=replace(settings.budget, leave_out=found), exp=replace(settings.exp, arms=arms)
    )


def sizes(settings: Settings, stages: list[Stage], store: Store, device: str) -> None:
    """Refuse, before the first stage, what is known to end in an error hours from now: models and data sets
    that the hub does not hand out or whose commit it could not name, an embedding model that cannot be
    fetched, and what :func:`fits` refuses.

    Raises :class:`SettingError`.
    """
    todo = store.demanded(stages)
    for stage in todo:
        if stage.name == "items" and stage.settings["kind"] == "hub":
            for repo, revision in stage.settings["revisions"].items():
                if repo != revision:  # else a folder
                    must_be_commit(repo, revision)
        if stage.name == "corpus" and (hub := stage.settings.get("source", {}).get("hub")):
            from repro.corpus.hub import check

            check(hub)
    embedders = [stage.settings["embedder"] for stage in todo if stage.name == "describe"]
    if any(own and own["embedder"] == assets.MINILM for own in embedders):
        assets.fetch(assets.MINILM)  # its stage comes behind the scoring
    for setting, repo, revision in sorted({found for stage in todo for found in _of_hub(stage)}):
        if not hub_access.held(repo, must_be_commit(repo, revision)):
            hub_access.ask(repo, "model", setting, "give a local folder")
    fits(settings, stages, store, device)


def fits(settings: Settings, stages: list[Stage], store: Store, device: str) -> None:
    """Refuse ranks that cannot be started, models that do not fit the memory or the disk, windows longer than
    the context of a proxy that is here already.

    Asked again behind each proxy. Raises :class:`SettingError`.
    """
    todo = store.demanded(stages)
    for stage in todo:
        name = {"score": "window", "detection": "probe_tokens"}.get(stage.name)
        if name and store.whole(stage.inputs["proxy"]):
            setting = f"{'score' if stage.name == 'score' else 'heads'}.{name}"
            within_context(setting, stage.settings[name], store.path(stage.inputs["proxy"]) / "model")
    trainings = [stage for stage in todo if stage.name == "pretrain"]
    if trainings:
        _trainings(settings, trainings, store, device)


def _of_hub(stage: Stage) -> list[tuple[str, str, str]]:
    """(setting, owner/name, revision) of the model of the hub that a stage loads: none, or one."""
    own = stage.settings
    chosen = own.get("params") if own.get("selector") == "educational" else None
    setting, name, said = {
        "proxy": ("proxy.repo", "repo", own),
        "tokens": ("model.init_from", "repo", own.get("tokenizer_of")),
        "pretrain": ("model.init_from", "repo", own.get("init_from")),
        "priority": ("params.model", "model", chosen),
        "describe": ("analysis.embedder", "embedder", own.get("embedder")),
    }.get(stage.name, ("", "", None))
    # of a folder stand the digests of its files
    return [(setting, said[name], said["revision"])] if isinstance(said, dict) and "revision" in said else []


def _trainings(settings: Settings, stages: list[Stage], store: Store, device: str) -> None:
    """Each training with the memory of its ranks, and what runs at once with all of it; all of them with the
    disk, where the models of one stay beside the next.
    """
    from repro.device import cores
    from repro.pretrain.launch import held, memory_of_rank, must_start

    asked = [  # an arm's own, all of it
        replace(stage.run, model=cost.sized(replace(settings, model=stage.run.model)).model)
        for stage in stages
        if isinstance(stage.run, Training)
    ]
    at_once = min(settings.run.parallel or cores(), len(asked))
    for training in () if settings.run.jobs else asked:  # a job has a machine of its own
        model, train = training.model, training.train
        elsewhere = train.launcher in ("slurm", "manual") or train.hostfile is not None
        require(
            not elsewhere or (settings.device, device) != ("auto", "cpu"),
            f"train.launcher={train.launcher} starts the ranks on other machines, and device=auto finds no"
            " GPU on this one: start the run where a GPU is, or say device=cpu if the ranks have none",
        )
        must_start(train, device)
        memory = memory_of_rank(train, device)
        cost.must_fit(model, train, memory, None)
        needed = at_once * cost.rank_bytes(model, train)
        require(
            memory is None or device != "cpu" or needed <= memory,
            f"{at_once} trainings of model={model.name} at once need {needed / 1e9:.1f} GB of memory, and"
            f" there are {(memory or 0) / 1e9:.1f} GB; lower run.parallel",
        )
    for begun in sorted({t.model.init_from for t in asked if t.model.init_from is not None}):
        source.check(begun)
        config = of_proxy(settings.proxy) if begun == source.PROXY else pretrained.config(begun)
        longest = config.get("max_position_embeddings")
        context = max(t.train.context for t in asked if t.model.init_from == begun)
        require(
            longest is None or context <= longest,
            f"train.context={context} is longer than the {longest} tokens {begun} was made for;"
            " lower train.context",
        )
    kept = [cost.exported_bytes(t.model, t.train) for t in asked]
    passing = sorted(cost.disk_bytes(t.model, t.train) - own for t, own in zip(asked, kept, strict=True))
    needed = sum(kept) + sum(passing[-at_once:])
    called = " and ".join(sorted({cost.called(training.model) for training in asked}))
    work = next(folder for folder in (store.root, *store.root.parents) if folder.exists())
    partial = [store.path(stage).with_name(store.path(stage).name + ".partial") for stage in stages]
    free = shutil.disk_usage(work).free + sum(map(held, partial))
    require(
        needed <= free,
        f"{len(asked)} trainings of {called} need {needed / 1e9:.4g} GB of disk and"
        f" {free / 1e9:.4g} GB are free; free some, lower train.keep_checkpoints, or move the work folder"
        " with work=DIR",
    )
