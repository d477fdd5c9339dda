"""``--plan``: the stages of a run, which are in the store, and what the others are expected to cost. Runs nothing.

Costs are arithmetic on the settings: 2 FLOPs per parameter and token forward, 6 with the backward pass. Tokens come from
the store where the corpus is there already, else from the settings' limits or the sizes of the files. Times divide FLOPs
by the device's rate: what the scale's ``hardware`` says, or a matrix product measured now. Text is read, cleaned, tokenised
and compared by CPU cores: their hours stand in a column of their own, as those of one core.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import prod
from pathlib import Path

from repro import checks, device, passes
from repro.analysis.planted import KINDS
from repro.config import Proxy, Settings
from repro.corpus.sources import expected_domains, expected_tokens
from repro.evaluate.cost import work
from repro.experiment import Experiment, build
from repro.outcomes import registration
from repro.plan_cuts import unread
from repro.pretrain import cost
from repro.store import Stage, Store, read_json

DAMAGE_TOKENS = 4096  # that a draw of random_matched_damage is measured on (repro.heads.controls.CALIBRATION_TOKENS)
EXAMPLES = 8  # probes that are read again with the heads masked (repro.heads.stage.EXAMPLES)
BYTES_PER_TOKEN = 4  # of English text and code with a vocabulary of some 50,000
STORED_BYTES = 1.8  # a token of a corpus in packed parquet
WRITING = 8  # a token that is written takes as long as so many that are read: each needs all weights from memory
MACHINE_GPUS = 8
EMBEDDER, CLASSIFIER = 22e6, 109e6  # parameters of MiniLM and of the FineWeb-Edu classifier

STARTED = 5  # seconds until a model is loaded
# A second of one CPU core, seen on laptops: tokens,
CLEANED, TOKENISED, READ, WORDS_COUNTED = 1.3e5, 2e5, 1e5, 3e5
RANKED, EVALUATED = 1e6, 70  # documents, and items: what lm-eval does besides asking the model


@dataclass(frozen=True)
class Cost:
    """What one stage is expected to take."""

    tokens: float = 0.0  # read, scored, trained on or written
    flops: float = 0.0
    disk_bytes: float = 0.0
    seconds: float = 0.0  # of one CPU core, or of waiting for others
    writing_flops: float = 0.0  # the part of the FLOPs that goes into tokens a model writes

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Cost)))

    def hours(self, rate: float) -> float:
        """Hours of one device at ``rate`` FLOP/s."""
        return (self.flops + (WRITING - 1) * self.writing_flops) / rate / 3600


def describe(settings: Settings) -> str:
    """The plan as text: one line a stage, then the totals and what cannot fit."""
    settings = cost.sized(settings)
    store, experiment = Store(Path(settings.work)), build(settings)
    left_out = []
    for known in ("corpus", "selections"):
        if empty := _empty_domains(settings, experiment, store, known):
            settings = checks.without(settings, empty)
            experiment, left_out = build(settings), settings.budget.leave_out
    stages = experiment.order()
    tokens = corpus_tokens(settings, store, stages)
    rates, rates_from = matrix_rates(settings, {dtype_of(stage) for stage in stages})
    unit = "GPU-hours" if _gpu(settings) else "hours"
    lines = [f"{'stage':10} {'of':44} {'state':7} {'tokens':>9} {'FLOPs':>9} {unit:>9} {'text':>8} {'disk':>8}"]
    total, hours = Cost(), 0.0
    run_now = {stage.fingerprint for stage in store.demanded(stages, experiment.read_by_report(settings))}
    for stage in stages:
        cached = stage.fingerprint not in run_now
        estimate = Cost() if cached else estimate_stage(stage, settings, tokens)
        taken = 0.0 if cached else estimate.hours(rates[dtype_of(stage)])
        total, hours = total + estimate, hours + taken
        lines.append(
            f"{stage.name:10} {experiment.title(stage)[:44]:44} {'cached' if cached else 'to run':7} "
            f"{_amount(estimate.tokens):>9} {_amount(estimate.flops):>9} {_hours(taken):>9} "
            f"{_hours(estimate.seconds / 3600):>8} {_amount(estimate.disk_bytes):>7}B"
        )
    devices, text = settings.hardware.devices, total.seconds / 3600
    lines += [
        "",
        f"to run: {_amount(total.flops)} FLOPs, {_hours(hours)} {unit}"
        + (f" = {_hours(hours / devices)} hours on {devices} x {settings.hardware.name}" if devices > 1 else "")
        + f", and {_hours(text)} hours of one CPU core for text; {_amount(total.disk_bytes)}B of disk",
        f"rate: {rates_from}",
        dtypes(settings),
    ]
    if devices > MACHINE_GPUS and any(stage.name == "score" and stage.fingerprint in run_now for stage in stages):
        lines.append(
            "scoring: one process a GPU of this machine; on N machines, python -m repro.influence ... --part R/N on each"
        )
    if any(stage.name == "pretrain" for stage in stages):
        memory = settings.hardware.memory_gb
        lines += cost.report(settings.model, settings.train, memory * 1e9 if memory else None)
    lines += unread(settings, store, stages)
    if settings.exp.kind == "train":
        lines += passes.lines(settings, experiment, store, tokens)
    if left_out:
        lines += ["", f"left out of every arm: {', '.join(left_out)}; some share is less than its first document"]
    if said := registration.lines(settings):
        lines += ["", *said]
    return "\n".join(lines)


def _empty_domains(settings: Settings, experiment: Experiment, store: Store, known: str) -> list[str]:
    """Domains to leave out, as far as the store knows; refused as the run would refuse them."""
    if known == "corpus" and "corpus" in experiment.shared and store.has(experiment.shared["corpus"]):
        return checks.domains(settings, store.path(experiment.shared["corpus"]))
    made = experiment.selections()
    if known == "selections" and made and all(store.has(stage) for stage in made):
        return checks.selections(settings, experiment, store)
    return []


def corpus_tokens(settings: Settings, store: Store, stages: list[Stage]) -> float:
    """Tokens of the training split: counted where the corpus is in the store, estimated otherwise."""
    corpus = next(stage for stage in stages if stage.name == "corpus")
    if store.has(corpus):
        domains = read_json(store.path(corpus) / "counts.json")["domains"].values()
        return sum(domain["bytes"] for domain in domains) / BYTES_PER_TOKEN
    return expected_tokens(settings.corpus) * (1 - settings.corpus.heldout_share)


def estimate_stage(stage: Stage, settings: Settings, tokens: float) -> Cost:
    """The cost of one stage at ``tokens`` training tokens; what a stage of an unknown name takes is nothing."""
    s, domains = stage.settings, expected_domains(settings.corpus)
    match stage.name:
        case "items":
            return Cost(disk_bytes=1e8, seconds=5)
        case "corpus":
            # The spool and the shards made from it lie side by side; on disk, MinHash adds a kilobyte a document.
            working = 2 * STORED_BYTES + (settings.corpus.minhash == "datatrove")
            return Cost(tokens, 0, tokens * working, 10 + tokens / CLEANED)
        case "planted":
            made = domains * (s["real"] + 1.5 * s["documents"] * len(KINDS))  # some stand there deduplicated, too
            read = made * s["characters"] / BYTES_PER_TOKEN
            return Cost(read, 0, read * STORED_BYTES, read / WORDS_COUNTED)
        case "proxy":
            return Cost(0, 0, 0 if "pretrain" in stage.inputs else _proxy_of(stage, settings) * 4)  # a checkpoint is linked
        case "detection":
            read = s["probes"] * s["probe_tokens"]
            return Cost(read, 2 * _proxy_of(stage, settings) * read, 0, STARTED)
        case "heads":
            read = 2 * EXAMPLES * settings.heads.probe_tokens
            if s["detector"] == "random_matched_damage":
                read += (s["draws"] + 2) * DAMAGE_TOKENS  # at most: a draw that matches ends the search
            return Cost(read, 2 * _proxy_of(stage, settings) * read, 0, STARTED)
        case "score":
            source, documents = stage.inputs["corpus"], settings.corpus.max_documents_per_domain
            whole = estimate_stage(source, settings, tokens).tokens if source.name == "planted" else tokens
            most = s["max_tokens"]
            scored = min(whole, documents * domains * most) if documents and most and whole == tokens else whole
            return Cost(scored, 4 * _proxy_of(stage, settings) * scored, scored / 10, STARTED)  # at most two full passes
        case "measures":
            return Cost(tokens, 0, tokens / 100, STARTED + tokens / TOKENISED)
        case "priority":
            return Cost(tokens, 2 * CLASSIFIER * tokens if s["selector"] == "educational" else 0, 0, tokens / READ)
        case "selection" | "ranking" | "found" | "agreement" | "analyse" | "evolution":
            rows = tokens / 1000  # a document, of which some thirty bytes are kept
            return Cost(0, 0, 30 * rows, 1 + rows / RANKED)
        case "describe":
            sample = domains * settings.analysis.documents * settings.analysis.embed_tokens
            embedded = sample if settings.analysis.embedder != "none" else 0
            counted = min(tokens, domains * settings.analysis.word_documents * 1000)
            return Cost(counted + embedded, 2 * EMBEDDER * embedded, 0, counted / WORDS_COUNTED)
        case "judge":
            asked = domains * s["documents"] * len(s["questions"])
            pace = settings.judge.requests_per_minute / 60 or settings.judge.workers  # an answer takes about a second
            return Cost(asked * (s["characters"] / BYTES_PER_TOKEN + s["answer_tokens"]), seconds=asked / pace)
        case "tokens":
            return Cost(tokens, 0, tokens * (2 if settings.model.vocabulary < 2**16 else 4), tokens / TOKENISED)
        case "pretrain":
            train = replace(settings.train, **s["train"])  # an arm may have its own
            flops, disk = cost.training_flops(settings.model, train), cost.disk_bytes(settings.model, train)
            return Cost(train.tokens, flops, disk, STARTED)
        case "baselines":
            counted = min(tokens, s["bytes"] / BYTES_PER_TOKEN)
            return Cost(counted, 0, 1e6, STARTED + counted / WORDS_COUNTED)
        case "evaluate":
            return _evaluation(stage, settings, domains)
    return Cost()


def _evaluation(stage: Stage, settings: Settings, domains: int) -> Cost:
    """One evaluation reads the suite with every model that its training leaves: checkpoints, branch point and the last."""
    evaluated, models = stage.inputs.get("model") or stage.inputs["proxy"], 1
    if evaluated.name == "pretrain":
        parameters = cost.parameters(settings.model)
        train = evaluated.settings["train"]
        models += len(train["keep_at_tokens"]) + train["branch_at_decay"]
    else:
        parameters = _proxy_of(stage, settings)
    suite = work(settings.eval, domains)
    read, written = models * suite.read, models * suite.written
    seconds = models * (STARTED + suite.items / EVALUATED)
    return Cost(
        read + written, 2 * parameters * (read + written), models * suite.items * 500, seconds, 2 * parameters * written
    )


def _proxy_of(stage: Stage, settings: Settings) -> float:
    """Parameters of the model that a stage is or reads: a checkpoint of ours, an arm's own proxy or the run's."""
    from repro.proxy import stage as proxy

    model = stage if stage.name == "proxy" else stage.inputs.get("proxy", stage.inputs.get("model"))
    if model is not None and "pretrain" in model.inputs:
        return cost.parameters(settings.model)
    own = [replace(settings.proxy, **arm.proxy) for arm in settings.exp.arms.values() if arm.proxy]
    same = [s for s in own if model is not None and proxy.stage(s).fingerprint == model.fingerprint]
    return proxy_parameters(same[0] if same else settings.proxy)


def proxy_parameters(proxy: Proxy) -> float:
    """Parameters of the proxy: of a folder counted in its safetensors headers, else as its YAML says."""
    if proxy.kind == "gguf" and proxy.path:
        from repro.proxy import gguf

        return gguf.header(Path(proxy.path)).parameters
    if proxy.kind != "folder":
        return proxy.parameters
    from repro.proxy.stage import tensors

    files = Path(str(proxy.path)).glob("*.safetensors")
    return sum(prod(tensor["shape"]) for path in files for tensor in (tensors(path) or {}).values())


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
    rates = {dtype: found[dtype if dtype in found else "float32"] for dtype in sorted(wanted)}  # float16: as float32
    said = ", ".join(f"{dtype} {rate / 1e9:.3g} GFLOP/s" for dtype, rate in rates.items())
    return (
        {dtype: rate * hardware.utilisation for dtype, rate in rates.items()},
        f"matrix product of this CPU, measured {found['measured']}: {said}, at {hardware.utilisation:.0%} use",
    )


def dtypes(settings: Settings) -> str:
    """One line: the dtypes in use, what ``auto`` is where the run is meant for, and what is slow."""
    auto = device.choose(settings.device, settings.hardware)
    used = ", ".join(f"{name.removesuffix('.dtype')} {dtype}" for name, dtype in device.in_use(settings).items())
    return f"dtype: {used} (auto is {auto.dtype}: {auto.why})"


def _gpu(settings: Settings) -> bool:
    return settings.hardware.tflops is not None


def _hours(value: float) -> str:
    return f"{value:,.2f}" if value >= 0.1 else f"{value:.2g}"


def _amount(value: float) -> str:
    for size, suffix in ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f} {suffix}"
    return f"{value:.0f} "
