"""How fast detection and scoring are, against the two common ways, in one process, alternating.

    python -m benchmarks.scoring [--model DIR] [--device cuda] [--documents 96] [--json FILE]

- padded two-pass: the common way. 8 documents a batch in the order they arrive, padded to the longest, an
  attention mask, the library's full logits, one pass with the intact and one with the masked model.
- unpadded two-pass: the same batches (length buckets) and the same cross-entropy as ours, but two whole
  passes.
- forked: ours. Its floor is the ratio of the FLOPs of the two, counted operator by operator.

Documents are modules of the standard library and topics of the language reference, cut at ``--window``
tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics as plain
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import command
from repro import environment
from repro.device import DTYPES, matrix_rate, resolved
from repro.heads import importance, probes
from repro.heads.controls import same_layers
from repro.heads.detectors import retrieval
from repro.heads.settings import Heads
from repro.influence import reference, statistics
from repro.influence.scorer import Scorer, batches, right_padded
from repro.proxy import masking
from repro.proxy.load import ProxyModel, load
from repro.proxy.settings import Proxy


def main() -> None:
    """Measure and print a Markdown table."""
    options = arguments()
    environment.keep_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.dtype = resolved(options.dtype, options.device)
    proxy = load(model_folder(options), options.dtype, options.device)
    texts = documents()
    report: dict = {"machine": machine(options), "model": parameters(proxy), "dtype": options.dtype}
    heads = detection(proxy, texts, options, report)
    encoded = [ids[: options.window] for ids in proxy.encode(texts) if len(ids) > 1]
    rng = np.random.default_rng(0)
    encoded = [encoded[i] for i in rng.permutation(len(encoded))[: options.documents]]
    scorer = Scorer(proxy, heads, options.window, options.window, options.tokens_per_batch)
    speed(scorer, encoded, options, report)
    linear(scorer, encoded, options, report)
    sets(scorer, encoded, options, report)
    exactness(scorer, encoded[:: max(1, len(encoded) // 24)], options, report)
    print(table(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, help="a Hugging Face folder; default: SmolLM2-135M from the package registry"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="auto", choices=DTYPES, help="default: what the device is fast in")
    parser.add_argument("--documents", type=int, help="default: 24 on the CPU, 600 on a GPU")
    parser.add_argument(
        "--window", type=int, help="tokens of a document at most; default: 256 on the CPU, 1024 on a GPU"
    )
    parser.add_argument("--tokens-per-batch", type=int, help="default: 2048 on the CPU, 65536 on a GPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--probes", type=int, default=50)
    parser.add_argument("--probe-tokens", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; default: all cores")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    gpu = options.device.startswith("cuda")
    options.documents = options.documents or (600 if gpu else 24)
    options.window = options.window or (1024 if gpu else 256)
    options.tokens_per_batch = options.tokens_per_batch or (65536 if gpu else 2048)
    return options


def say(what: str) -> None:
    """What is being measured now."""
    print(f"    {time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def model_folder(options: argparse.Namespace) -> Path:
    """The given folder, or the default proxy out of the store."""
    if options.model:
        return options.model
    from repro.proxy.stage import stage
    from repro.store import Store

    return Store(Path("work")).ensure(stage(Proxy())) / "model"


def documents() -> list[str]:
    """Real text that every Python has: topics of the language reference and modules of the standard
    library.
    """
    import pydoc_data.topics

    topics = [pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics)]
    modules = sorted(Path(os.__file__).parent.glob("*.py"))
    return topics + [p.read_text(encoding="utf-8", errors="ignore") for p in modules]


def synchronise(proxy: ProxyModel) -> None:
    """Wait for the device, so that a time is a time."""
    if proxy.device.type == "cuda":
        torch.cuda.synchronize(proxy.device)


def detection(
    proxy: ProxyModel, texts: list[str], options: argparse.Namespace, report: dict
) -> list[tuple[int, int]]:
    """Important heads, and how long they took."""
    s = Heads(probes=options.probes, probe_tokens=options.probe_tokens)
    values, _ = probes.values_from(texts, proxy.encode, s)
    samples = [probes.build(i, values, proxy.encode, s, proxy.prefix) for i in range(s.probes)]
    say(f"detection: {s.probes} probes")
    started = time.perf_counter()
    scores = np.array([retrieval.detect(proxy, sample, s).scores for sample in samples])
    synchronise(proxy)
    heads = importance.top(scores.mean(0), s.share)
    report["detection"] = {
        "probes": s.probes,
        "tokens": sum(len(sample.ids) for sample in samples),
        "seconds": time.perf_counter() - started,
        "halves_overlap": importance.halves_overlap(scores, s.share) if s.probes > 1 else None,
        "lowest_layer": min(layer for layer, _ in heads),
        "heads": heads,
    }
    return heads


@torch.inference_mode()
def padded_two_pass(scorer: Scorer, documents: list[list[int]], rows: int = 8) -> list[float]:
    """The common way; scores in the order of the documents."""
    proxy, scores = scorer.proxy, []
    for start in range(0, len(documents), rows):
        ids, lengths = right_padded(documents[start : start + rows], proxy.device)
        real = torch.arange(ids.shape[1], device=ids.device)[None] < lengths[:, None]
        losses = []
        for heads in ([], scorer.heads):
            with masking.masked(proxy.attentions, heads):
                logits = proxy.model(input_ids=ids, attention_mask=real.long(), use_cache=False).logits
            targets = ids.masked_fill(~real, -100)[:, 1:]
            token = torch.nn.functional.cross_entropy(
                logits[:, :-1].float().transpose(1, 2), targets, reduction="none"
            )
            losses.append(token.sum(1) / (lengths - 1))
        scores += ((losses[1] - losses[0]) / losses[0]).tolist()
    return scores


@torch.inference_mode()
def unpadded_two_pass(scorer: Scorer, documents: list[list[int]]) -> None:
    """Two whole passes with our batches and our cross-entropy."""
    proxy = scorer.proxy
    for batch in batches([len(ids) for ids in documents], scorer.tokens_per_batch):
        ids, lengths = right_padded([documents[i] for i in batch], proxy.device)
        predicts = torch.arange(ids.shape[1] - 1, device=ids.device)[None] < (lengths - 1)[:, None]
        for heads in ([], scorer.heads):
            with masking.masked(proxy.attentions, heads):
                hidden = proxy.hidden(ids)
            proxy.losses(hidden[:, :-1][predicts], ids[:, 1:][predicts]).cpu()


def forked(scorer: Scorer, documents: list[list[int]]) -> list[float | None]:
    """Ours; scores in the order of the documents."""
    return [statistics.score(found)["score"] for found in scorer.losses(documents)]


WAYS = {"padded two-pass": padded_two_pass, "unpadded two-pass": unpadded_two_pass, "forked (ours)": forked}


def speed(scorer: Scorer, documents: list[list[int]], options: argparse.Namespace, report: dict) -> None:
    """Tokens per second of each way, best of the rounds; the ways alternate, so that a slow minute hits all
    of them.
    """
    tokens = sum(map(len, documents))
    few = documents[:: max(1, len(documents) // 8)][:8]
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    memory, flops = {}, {}
    for name, way in WAYS.items():  # warm up, and measure what time should not pay for
        say(f"{name}: memory and FLOPs")
        memory[name] = peak_extra_memory(scorer.proxy, lambda way=way: way(scorer, few))
        with FlopCounterMode(display=False) as counter:
            way(scorer, few)
        flops[name] = counter.get_total_flops()
    for number in range(options.rounds):
        for name, way in WAYS.items():
            say(f"{name}: round {number + 1}")
            synchronise(scorer.proxy)
            started = time.perf_counter()
            way(scorer, documents)
            synchronise(scorer.proxy)
            times[name].append(time.perf_counter() - started)
    padding = batches([len(ids) for ids in documents], scorer.tokens_per_batch)
    bucketed = sum(len(batch) * len(documents[batch[0]]) for batch in padding)
    arrival = sum(8 * max(map(len, documents[i : i + 8])) for i in range(0, len(documents) - 7, 8))
    rate = matrix_rate(options.device, options.dtype)
    counted = sum(map(len, few))
    report["tokens"] = tokens
    report["padding_in_arrival_order"] = 1 - sum(map(len, documents[: len(documents) // 8 * 8])) / arrival
    report["padding_in_buckets"] = 1 - tokens / bucketed
    report["matrix_rate"] = rate
    report["floor"] = flops["unpadded two-pass"] / flops["forked (ours)"]
    report["ways"] = {
        name: {
            "tokens_per_second": tokens / min(seconds),
            "median_tokens_per_second": tokens / plain.median(seconds),
            "peak_extra_memory": memory[name],
            "flops_per_token": flops[name] / counted,
            "share_of_matrix_rate": flops[name] / counted * tokens / min(seconds) / rate,
        }
        for name, seconds in times.items()
    }
    paired = zip(times["unpadded two-pass"], times["forked (ours)"], strict=True)
    report["ratio_to_unpadded"] = plain.median(a / b for a, b in paired)
    paired = zip(times["padded two-pass"], times["forked (ours)"], strict=True)
    report["ratio_to_padded"] = plain.median(a / b for a, b in paired)


def peak_extra_memory(proxy: ProxyModel, work) -> float | None:
    """Bytes beyond what was held before, at the worst moment: device memory, or resident memory on Linux."""
    if proxy.device.type == "cuda":
        work()
        torch.cuda.reset_peak_memory_stats(proxy.device)
        before = torch.cuda.memory_allocated(proxy.device)
        work()
        return torch.cuda.max_memory_allocated(proxy.device) - before
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = resident("VmRSS")
        work()
        return resident("VmHWM") - before
    except OSError:
        return None


def resident(field: str) -> float:
    """Bytes of a field of this process's status, Linux only."""
    line = next(line for line in Path("/proc/self/status").read_text().split("\n") if line.startswith(field))
    return float(line.split()[1]) * 1024


def linear(scorer: Scorer, documents: list[list[int]], options: argparse.Namespace, report: dict) -> None:
    """Tokens per second at a quarter, half and all of the documents."""
    report["linear"] = []
    for parts in (4, 2, 1):
        say(f"one document of {parts}")
        some = documents[::parts]
        seconds = []
        for _ in range(2):
            synchronise(scorer.proxy)
            started = time.perf_counter()
            scorer.losses(some)
            synchronise(scorer.proxy)
            seconds.append(time.perf_counter() - started)
        tokens = sum(map(len, some))
        report["linear"].append({"tokens": tokens, "tokens_per_second": tokens / min(seconds)})


def sets(scorer: Scorer, documents: list[list[int]], options: argparse.Namespace, report: dict) -> None:
    """Time of several sets of heads in one pass over that of the first alone, in turns: others of the same
    layers, and of any.
    """
    say("several sets of heads")
    some = documents[::2]
    everywhere = [(a, b) for a in range(scorer.proxy.num_layers) for b in range(scorer.proxy.num_heads)]
    rng = random.Random(0)
    draws = {
        "of the same layers": lambda: same_layers(
            rng, [pair for pair in everywhere if pair not in set(scorer.heads)], list(scorer.heads)
        ),
        "of any layers": lambda: rng.sample(everywhere, len(scorer.heads)),
    }
    ways = {("alone", 1): scorer}
    for kind, draw in draws.items():
        for count in (2, 4, 8):
            ways[kind, count] = replace(scorer, others=[draw() for _ in range(count - 1)])
    seconds: dict[tuple[str, int], list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, several in ways.items():
            synchronise(scorer.proxy)
            started = time.perf_counter()
            several.losses(some)
            synchronise(scorer.proxy)
            seconds[way].append(time.perf_counter() - started)
    report["sets"] = [
        {
            "sets": count,
            "drawn": kind,
            "times_one": plain.median(
                a / b for a, b in zip(seconds[kind, count], seconds["alone", 1], strict=True)
            ),
        }
        for kind, count in ways
        if count > 1
    ]


def exactness(scorer: Scorer, documents: list[list[int]], options: argparse.Namespace, report: dict) -> None:
    """Against the plain scorer (one document at a time, two passes, full logits) in float32."""
    say("exactness")
    exact = Scorer(
        load(model_folder(options), "float32", options.device), scorer.heads, scorer.window, scorer.max_tokens
    )
    expected = [statistics.score(reference.losses(exact, ids))["score"] for ids in documents]
    ours = forked(exact, documents)
    computed = forked(scorer, documents)
    report["exactness"] = {
        "documents": len(documents),
        "largest_score_difference_float32": max(abs(a - b) for a, b in zip(ours, expected, strict=True)),
        "rank_correlation": float(spearmanr(computed, expected).statistic),
        "largest_score_difference": max(abs(a - b) for a, b in zip(computed, expected, strict=True)),
    }


def parameters(proxy: ProxyModel) -> str:
    """The model in words."""
    return (
        f"{type(proxy.model).__name__}, {sum(p.numel() for p in proxy.model.parameters()) / 1e6:.0f} M"
        " parameters"
    )


def machine(options: argparse.Namespace) -> str:
    """The device in words."""
    if options.device.startswith("cuda"):
        return torch.cuda.get_device_name()
    cpu = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in cpu.read_text().split("\n") if "model name" in line]
        if cpu.exists()
        else []
    )
    return f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} cores"


def table(report: dict) -> str:
    """The measurements as Markdown."""
    megabytes = lambda n: "not measured" if n is None else f"{n / 1e6:,.0f} MB"  # noqa: E731
    lines = [
        f"**Scoring** (`{command('scoring')}`)",
        "",
        (
            f"{report['model']}, {report['dtype']}, {report['machine']}; {report['tokens']:,} tokens, both"
            " losses included."
        ),
        (
            f"Padding: {report['padding_in_arrival_order']:.0%} in arrival order,"
            f" {report['padding_in_buckets']:.1%} in buckets. Measured matrix rate:"
            f" {report['matrix_rate'] / 1e12:.2f} TFLOP/s."
        ),
        "",
        (
            "| way | tokens/s (best) | tokens/s (median) | MFLOP/token | share of matrix rate | peak extra"
            " memory |"
        ),
        "|---|---|---|---|---|---|",
    ]
    for name, row in report["ways"].items():
        lines.append(
            f"| {name} | {row['tokens_per_second']:,.0f} | {row['median_tokens_per_second']:,.0f} |"
            f" {row['flops_per_token'] / 1e6:,.0f} | {row['share_of_matrix_rate']:.0%} |"
            f" {megabytes(row['peak_extra_memory'])} |"
        )
    found, exact = report["detection"], report["exactness"]
    lines += [
        "",
        (
            f"Forked against padded two-pass: {report['ratio_to_padded']:.2f}x; against unpadded two-pass:"
            f" {report['ratio_to_unpadded']:.2f}x of at most {report['floor']:.2f}x by FLOPs"
            f" ({report['ratio_to_unpadded'] / report['floor']:.0%}; lowest masked layer"
            f" {found['lowest_layer']})."
        ),
        "Cost is linear: "
        + ", ".join(
            f"{row['tokens']:,} tokens at {row['tokens_per_second']:,.0f}/s" for row in report["linear"]
        )
        + ".",
        "Several sets of heads in one pass, in times of one: "
        + ", ".join(f"{row['sets']} {row['drawn']} {row['times_one']:.2f}" for row in report["sets"])
        + ".",
        f"Detection: {found['probes']} probes, {found['tokens']:,} tokens, {found['seconds']:.0f} s"
        + (
            f", halves overlap {found['halves_overlap']:.0%}." if found["halves_overlap"] is not None else "."
        ),
        (
            f"Score against the plain two-pass scorer in float32, {exact['documents']} documents: largest"
            f" difference {exact['largest_score_difference_float32']:.1e} in float32,"
            f" {exact['largest_score_difference']:.1e} in {report['dtype']} (rank correlation"
            f" {exact['rank_correlation']:.5f})."
        ),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
