"""``--plan``: the stages of a run, which are in the store, and what the others are expected to cost. Runs
nothing.

Each stage says its own cost (:mod:`repro.store.cost`); here they are added up. Times divide FLOPs by the
device's rate: what the scale's ``hardware`` says, or a matrix product measured now. Hours of CPU cores on
text stand in a column of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from repro import device, environment
from repro.experiments import Experiment, build
from repro.fetch.hub_commits import STORE_OF_REVISIONS
from repro.outcomes import registration
from repro.plan import checks, passes, prospects
from repro.plan.cuts import unread
from repro.plan.fidelity import fidelity
from repro.pretrain import cost
from repro.settings.root import Settings
from repro.store import Stage, Store
from repro.store.bucket import at_home
from repro.store.cost import Cost, Known

MACHINE_GPUS = 8


def describe(settings: Settings) -> str:
    """The plan as text: one line a stage, then the totals and what cannot fit."""
    settings = replace(settings, work=at_home(settings.work))
    known = Path(settings.work).absolute() / "revisions"  # what the store calls a revision of the hub
    with environment.variables({STORE_OF_REVISIONS: str(known)} if known.is_dir() else {}):
        return _described(settings)


def _described(settings: Settings) -> str:
    settings = cost.sized(settings)
    store, experiment = Store(Path(settings.work)), build(settings)
    checks.names(settings, experiment)
    checks.no_file_at_work(settings)
    left_out = []
    for known in ("corpus", "selections"):
        if empty := _empty_domains(settings, experiment, store, known):
            settings = checks.without(settings, empty)
            experiment, left_out = build(settings), settings.budget.leave_out
    stages = experiment.order()
    known = estimates(stages, store)
    rates, rates_from = matrix_rates(settings, {dtype_of(stage) for stage in stages})
    unit = "GPU-hours" if _gpu(settings) else "hours"
    lines = [
        f"{'stage':10} {'of':44} {'state':7} {'tokens':>9} {'FLOPs':>9} {unit:>9} {'text':>8} {'disk':>8}"
    ]
    total, hours = Cost(), 0.0
    run_now = {stage.fingerprint for stage in store.demanded(stages, experiment.exported)}
    for stage in stages:
        cached = stage.fingerprint not in run_now
        estimate = Cost() if cached else known[stage.fingerprint]
        taken = 0.0 if cached else estimate.hours(rates[dtype_of(stage)] * _at_once(settings, stage))
        total, hours = total + estimate, hours + taken
        lines.append(
            f"{stage.name:10} {experiment.title(stage)[:44]:44} {_state(cached, store.begun(stage)):7} "
            f"{_amount(estimate.tokens):>9} {_amount(estimate.flops):>9} {_hours(taken):>9} "
            f"{_hours(estimate.seconds / 3600):>8} {_amount(estimate.disk_bytes):>7}B"
        )
    devices, text = settings.hardware.devices, total.seconds / 3600
    lines += [
        "",
        f"to run: {_amount(total.flops)} FLOPs, {_hours(hours)} {unit}"
        + (
            f" = {_hours(hours / devices)} hours on {devices} x {settings.hardware.name}"
            if devices > 1
            else ""
        )
        + f", and {_hours(text)} hours of one CPU core for text; {_amount(total.disk_bytes)}B of disk",
        f"rate: {rates_from}",
        dtypes(settings, experiment),
    ]
    if devices > MACHINE_GPUS and experiment.has("score"):
        lines.append(
            "scoring: one process a GPU of this machine; any other machine helps by python -m repro.influence"
            " --join work=STORE"
        )
    if experiment.has("pretrain"):
        memory = settings.hardware.memory_gb
        lines += cost.report(settings.model, settings.train, memory * 1e9 if memory else None)
    lines += [*unread(settings, store, stages), *fidelity(settings, stages)]
    if any("selection" in s for by_seed in experiment.trained().values() for s in by_seed.values()):
        lines += passes.lines(
            settings, experiment, store, known[experiment.shared["corpus"].fingerprint].made.tokens
        )
    if said := prospects.lines(settings, experiment, store):
        lines += ["", *said]
    if left_out:
        lines += [
            "",
            f"left out of every arm: {', '.join(left_out)}; some share is less than its first document",
        ]
    if said := registration.lines(settings):
        lines += ["", *said]
    return "\n".join(lines)


def together(members: dict[str, Settings]) -> str:
    """The plan of a sweep: of each member the stages still to run that no member before it runs, and the
    sum.
    """
    lines = [f"{'member':60} {'to run':>8} {'cached':>7} {'shared':>7} {'hours':>8} {'text':>8} {'disk':>8}"]
    seen: set[str] = set()
    total, hours = Cost(), 0.0
    for label, settings in members.items():
        settings = cost.sized(settings)
        store, experiment = Store(Path(settings.work)), build(settings)
        checks.names(settings, experiment)
        checks.no_file_at_work(settings)
        stages = experiment.order()
        known = estimates(stages, store)
        rates, _ = matrix_rates(settings, {dtype_of(stage) for stage in stages})
        todo = store.demanded(stages, experiment.exported)
        own = [stage for stage in todo if stage.fingerprint not in seen]
        seen |= {stage.fingerprint for stage in own}
        spent = sum((known[stage.fingerprint] for stage in own), Cost())
        taken = sum(
            known[stage.fingerprint].hours(rates[dtype_of(stage)] * _at_once(settings, stage))
            for stage in own
        )
        total, hours = total + spent, hours + taken
        lines.append(
            f"{label[:60]:60} {len(own):>8} {len(stages) - len(todo):>7} {len(todo) - len(own):>7}"
            f" {_hours(taken):>8} {_hours(spent.seconds / 3600):>8} {_amount(spent.disk_bytes):>7}B"
        )
    text = _hours(total.seconds / 3600)
    return "\n".join(
        [
            *lines,
            "",
            (
                f"in all: {_hours(hours)} hours, {text} of one CPU core for text,"
                f" {_amount(total.disk_bytes)}B of disk"
            ),
        ]
    )


def _empty_domains(settings: Settings, experiment: Experiment, store: Store, known: str) -> list[str]:
    """Domains to leave out, as far as the store knows; refused as the run would refuse them."""
    if known == "corpus" and "corpus" in experiment.shared and store.has(experiment.shared["corpus"]):
        return checks.domains(settings, experiment, store.path(experiment.shared["corpus"]))
    made = experiment.selections()
    if known == "selections" and made and all(store.has(stage) for stage in made):
        return checks.selections(settings, experiment, store)
    return []


def estimates(
    stages: Iterable[Stage], store: Store | None = None, tokens: float | None = None
) -> dict[str, Cost]:
    """By fingerprint, what each of ``stages`` takes, inputs first. ``tokens`` of the corpus stand for what it
    says itself.
    """
    found: dict[str, Cost] = {}
    for stage in stages:
        inputs = {key: found[child.fingerprint].made for key, child in stage.inputs.items()}
        folder = store.path(stage) if store is not None and store.has(stage) else None
        found[stage.fingerprint] = stage.cost(Known(inputs, folder, tokens, store and store.begun(stage)))
    return found


def estimate_stage(stage: Stage, tokens: float | None = None) -> Cost:
    """What one stage takes."""
    return estimates(stage.ancestors(), tokens=tokens)[stage.fingerprint]


def dtype_of(stage: Stage) -> str:
    """The dtype a stage computes in, by its settings."""
    return str(stage.settings.get("dtype") or stage.settings.get("train", {}).get("dtype") or "float32")


def matrix_rates(settings: Settings, wanted: set[str]) -> tuple[dict[str, float], str]:
    """Useful FLOP/s of one device in each of the ``wanted`` dtypes, and where the numbers come from."""
    hardware = settings.hardware
    if hardware.tflops is not None:
        return (
            dict.fromkeys(wanted, hardware.tflops * 1e12 * hardware.utilisation),
            f"{hardware.name}, {hardware.tflops:g} TFLOP/s at {hardware.utilisation:.0%} use (assumed)",
        )
    found = device.measured()
    # float16: as float32
    rates = {dtype: found[dtype if dtype in found else "float32"] for dtype in sorted(wanted)}
    said = ", ".join(f"{dtype} {rate / 1e9:.3g} GFLOP/s" for dtype, rate in rates.items())
    return (
        {dtype: rate * hardware.utilisation for dtype, rate in rates.items()},
        (
            f"matrix product of this CPU, measured {found['measured']}: {said}, at"
            f" {hardware.utilisation:.0%} use"
        ),
    )


def _at_once(settings: Settings, stage: Stage) -> float:
    """Threads that a stage takes over those that the rate counts: scoring on a CPU has its own processes."""
    if stage.name != "score" or _gpu(settings):
        return 1.0
    score, cores = settings.score, device.cores()
    return max(1.0, min(score.threads * score.processes or cores, cores) / device.threads())


def dtypes(settings: Settings, experiment: Experiment) -> str:
    """One line: the dtypes in use, what ``auto`` is where the run is meant for, and what is slow."""
    auto = device.choose(settings.device, settings.hardware)
    used = ", ".join(
        f"{name.removesuffix('.dtype')} {dtype}"
        for name, dtype in checks.dtypes(settings, experiment).items()
    )
    return f"dtype: {used} (auto is {auto.dtype}: {auto.why})"


def _state(cached: bool, begun: Path | None) -> str:
    return "cached" if cached else "begun" if begun else "to run"


def _gpu(settings: Settings) -> bool:
    return settings.hardware.tflops is not None


def _hours(value: float) -> str:
    return f"{value:,.2f}" if value >= 0.1 else f"{value:.2g}"


def _amount(value: float) -> str:
    for size, suffix in (
        (1e21, "Z"),
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
    ):
        if value >= size:
            return f"{value / size:.1f} {suffix}"
    return f"{value:.0f} "
