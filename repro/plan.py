"""``--plan``: the stages of a run, which are in the store, and what the others are expected to cost. Runs nothing.

Costs are arithmetic on the settings: 2 FLOPs per parameter and token forward, 6 with the backward pass. Tokens come from
the store where the corpus is there already, else from the settings' limits or the sizes of the files. Times divide FLOPs
by the device's rate: what the scale's ``hardware`` says, or a matrix product measured now.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from repro.config import Proxy, Settings
from repro.corpus.sources import expected_tokens
from repro.experiment import build
from repro.pretrain import cost
from repro.store import Stage, Store, read_json

DAMAGE_TOKENS = 4096  # that a draw of random_matched_damage is measured on (repro.heads.controls.CALIBRATION_TOKENS)
BYTES_PER_TOKEN = 4  # of English text and code with a vocabulary of some 50,000


@dataclass(frozen=True)
class Cost:
    """What one stage is expected to take."""

    tokens: float = 0.0  # read, scored or trained on
    flops: float = 0.0
    disk_bytes: float = 0.0


def describe(settings: Settings) -> str:
    """The plan as text: one line a stage, then the totals and what cannot fit."""
    store, experiment = Store(Path(settings.work)), build(settings)
    stages = experiment.order()
    tokens = corpus_tokens(settings, store, stages)
    rate, rate_from = matrix_rate(settings)
    lines = [
        f"{'stage':10} {'of':44} {'state':7} {'tokens':>9} {'FLOPs':>9} {'GPU-hours' if _gpu(settings) else 'hours':>9} "
        f"{'disk':>8}"
    ]
    total = Cost()
    for stage in stages:
        cached = store.has(stage)
        estimate = Cost() if cached else estimate_stage(stage, settings, tokens)
        total = Cost(total.tokens + estimate.tokens, total.flops + estimate.flops, total.disk_bytes + estimate.disk_bytes)
        lines.append(
            f"{stage.name:10} {experiment.title(stage)[:44]:44} "
            f"{'cached' if cached else 'to run':7} {_amount(estimate.tokens):>9} "
            f"{_amount(estimate.flops):>9} {estimate.flops / rate / 3600:>9.2f} {_amount(estimate.disk_bytes):>7}B"
        )
    hours = total.flops / rate / 3600
    devices = settings.hardware.devices
    lines += [
        "",
        f"to run: {_amount(total.flops)} FLOPs, {hours:,.2f} {'GPU-' if _gpu(settings) else ''}hours"
        + (f" = {hours / devices:,.2f} hours on {devices} x {settings.hardware.name}" if devices > 1 else "")
        + f", {_amount(total.disk_bytes)}B of disk",
        f"rate: {rate_from}",
    ]
    if any(stage.name == "pretrain" for stage in stages):
        memory = settings.hardware.memory_gb
        lines += cost.report(settings.model, settings.train, memory * 1e9 if memory else None)
    return "\n".join(lines)


def corpus_tokens(settings: Settings, store: Store, stages: list[Stage]) -> float:
    """Tokens of the training split: counted where the corpus is in the store, estimated otherwise."""
    corpus = next(stage for stage in stages if stage.name == "corpus")
    if store.has(corpus):
        domains = read_json(store.path(corpus) / "counts.json")["domains"].values()
        return sum(domain["bytes"] for domain in domains) / BYTES_PER_TOKEN
    return expected_tokens(settings.corpus) * (1 - settings.corpus.heldout_share)


def estimate_stage(stage: Stage, settings: Settings, tokens: float) -> Cost:
    """The cost of one stage at ``tokens`` training tokens."""
    train, model, proxy = settings.train, cost.parameters(settings.model), _proxy_of(stage, settings)
    if stage.name == "corpus":
        return Cost(tokens, 0, tokens * 1.5)
    if stage.name == "proxy":
        return Cost(0, 0, 0 if "pretrain" in stage.inputs else proxy * 4)  # a checkpoint's files are linked
    if stage.name == "detection":
        read = stage.settings["probes"] * stage.settings["probe_tokens"]
        return Cost(read, 2 * proxy * read)
    if stage.name == "score":
        documents = settings.corpus.max_documents_per_domain
        domains = len(settings.corpus.domains) or 3
        scored = min(tokens, documents * domains * stage.settings["max_tokens"]) if documents else tokens
        return Cost(scored, 2 * 2 * proxy * scored, scored / 10)  # base and reference; at most two full passes
    if stage.name == "tokens":
        return Cost(tokens, 0, tokens * (2 if settings.model.vocabulary < 2**16 else 4))
    if stage.name == "pretrain":
        own = ("tokens", "context", "keep_at_tokens")  # an arm may have its own
        train = replace(train, **{key: stage.settings["train"][key] for key in own})
        return Cost(train.tokens, cost.training_flops(settings.model, train), cost.disk_bytes(settings.model, train))
    if stage.name == "heads" and stage.settings["detector"] == "random_matched_damage":
        read = (stage.settings["draws"] + 2) * DAMAGE_TOKENS  # at most: a draw that matches ends the search
        return Cost(read, 2 * proxy * read)
    if stage.name == "evaluate":
        items = len(settings.eval.tasks) * (settings.eval.limit or 1000)
        read = items * 4 * 64 + 2 * settings.eval.text_bytes / BYTES_PER_TOKEN  # 177 tokens an item in eval=mirror
        evaluated = proxy if settings.exp.kind == "mirror" else model
        return Cost(read, 2 * evaluated * read, items * 500)
    return Cost()


def _proxy_of(stage: Stage, settings: Settings) -> float:
    """Parameters of the model that a stage is or reads: a checkpoint of ours, an arm's own proxy or the run's."""
    from repro.proxy import stage as proxy

    model = stage if stage.name == "proxy" else stage.inputs.get("proxy")
    if model is not None and "pretrain" in model.inputs:
        return cost.parameters(settings.model)
    own = [replace(settings.proxy, **arm.proxy) for arm in settings.exp.arms.values() if arm.proxy]
    same = [s for s in own if model is not None and proxy.stage(s).fingerprint == model.fingerprint]
    return proxy_parameters(same[0] if same else settings.proxy)


def proxy_parameters(proxy: Proxy) -> float:
    """Parameters of the proxy: of a folder counted in its safetensors headers, else as its YAML says."""
    if proxy.kind != "folder":
        return proxy.parameters
    total = 0
    for path in Path(str(proxy.path)).glob("*.safetensors"):
        with open(path, "rb") as handle:
            header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        total += sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    return total


def matrix_rate(settings: Settings) -> tuple[float, str]:
    """Useful FLOP/s of one device, and where the number comes from."""
    hardware = settings.hardware
    if hardware.tflops is not None:
        return (
            hardware.tflops * 1e12 * hardware.utilisation,
            f"{hardware.name}, {hardware.tflops:g} TFLOP/s at {hardware.utilisation:.0%} use (assumed)",
        )
    rate = cost.matrix_rate("cpu", settings.proxy.dtype)
    return (
        rate * hardware.utilisation,
        f"this machine's {settings.proxy.dtype} matrix product just now: {rate / 1e9:.0f} GFLOP/s, "
        f"at {hardware.utilisation:.0%} use",
    )


def _gpu(settings: Settings) -> bool:
    return settings.hardware.tflops is not None


def _amount(value: float) -> str:
    for size, suffix in ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f} {suffix}"
    return f"{value:.0f} "
