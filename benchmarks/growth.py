"""How time, memory and FLOPs of every stage grow with the corpus: three sizes, fitted slopes, and what other
sizes take.

    python -m benchmarks.growth [--documents 10 20 40] [--out results/benchmarks/growth.md] [--settings
    key=value ...]

Each stage of ``exp=selection_30pct`` (the selected arm and the random one, one seed) runs in a process of its
own, so that its peak of memory is its own; trainings read 512 tokens for each document. Time is processor
time of the process and those it started: it does not depend on what else the machine does (memory bandwidth
aside). A slope of 1 is linear. The last table goes on by the fitted line a + b x tokens, and says nothing of
limits that were not met yet (disk, memory of one process).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from repro.experiments import build
from repro.plan import estimates
from repro.settings.compose import compose
from repro.store import Store

DEFAULTS = [
    "exp=selection_30pct",
    "scale=laptop",
    "exp.only=[attention_influence,random]",
    "exp.seeds=[0]",
    "device=cpu",
]
WARM = ("proxy",)  # made once, whatever the size


def one(arguments: list[str], fingerprint: str) -> None:
    """Run a stage whose inputs are there; print what it took as JSON."""
    settings = compose(arguments)
    stage = next(stage for stage in build(settings).order() if stage.fingerprint == fingerprint)
    before = sum(os.times()[:4])
    Store(Path(settings.work)).ensure(stage)
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"seconds": sum(os.times()[:4]) - before, "rss": max(peaks) * 1024}))


def measured(arguments: list[str]) -> dict[str, dict[str, float]]:
    """By stage: processor seconds, peak bytes, FLOPs, and tokens of the corpus. Stages of both arms are added
    up.
    """
    settings = compose(arguments)
    store, order = Store(Path(settings.work)), build(settings).order()
    found: dict[str, dict[str, float]] = {}
    for stage in order:
        if store.has(stage):
            continue
        command = [
            sys.executable,
            "-m",
            "benchmarks.growth",
            "--stage",
            stage.fingerprint,
            "--settings",
            *arguments,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{stage.name}: {done.stderr.strip().splitlines()[-1]}")
        took = json.loads(done.stdout.strip().splitlines()[-1])
        row = found.setdefault(stage.name, {"seconds": 0.0, "rss": 0.0})
        row["seconds"], row["rss"] = row["seconds"] + took["seconds"], max(row["rss"], took["rss"])
        print(f"  {stage.name:10} {took['seconds']:8.1f} s  {took['rss'] / 1e9:6.2f} GB", flush=True)
    costs = estimates(order, store)
    tokens = tokens_of(store, order)
    for name, row in found.items():
        row["flops"] = sum(costs[stage.fingerprint].flops for stage in order if stage.name == name)
        row["tokens"] = tokens
    return found


def tokens_of(store: Store, order: list) -> float:
    """Tokens of the corpus, as its bytes say."""
    from repro.cost import BYTES_PER_TOKEN
    from repro.store import read_json

    corpus = next(stage for stage in order if stage.name == "corpus")
    counts = read_json(store.path(corpus) / "counts.json")["domains"].values()
    return sum(domain["bytes"] for domain in counts) / BYTES_PER_TOKEN


def slope(x: list[float], y: list[float]) -> float:
    """Of log y over log x."""
    return float(np.polyfit(np.log(x), np.log(np.maximum(y, 1e-9)), 1)[0])


def table(sizes: list[dict[str, dict[str, float]]], wanted: list[float]) -> str:
    """Markdown: what was measured with its slopes, then hours of one core and gigabytes at other sizes."""
    names = [name for name in sizes[-1] if all(name in size for size in sizes) and name not in WARM]
    tokens = [size[names[0]]["tokens"] for size in sizes]
    heads = " | ".join(f"{n:,.0f}" for n in tokens)
    rows = [
        f"| stage | core seconds at {heads} tokens | slope | peak GB | slope | GFLOP/s a core |",
        "|---|---|---|---|---|---|",
    ]
    lines = {}
    for name in names:
        seconds, rss = ([size[name][key] for size in sizes] for key in ("seconds", "rss"))
        lines[name] = np.polyfit(tokens, seconds, 1), np.polyfit(tokens, rss, 1)
        rate = sizes[-1][name]["flops"] / seconds[-1] / 1e9
        took = " / ".join(f"{s:.1f}" for s in seconds)
        memory = " / ".join(f"{r / 1e9:.2f}" for r in rss)
        rows.append(
            f"| {name} | {took} | {slope(tokens, seconds):.2f} | {memory} | {slope(tokens, rss):.2f} | "
            f"{f'{rate:.1f}' if rate > 0.1 else ''} |"
        )
    rows += [
        "",
        "| stage | " + " | ".join(f"{n:.0e} tokens" for n in wanted) + " |",
        "|---|" + "---|" * len(wanted),
    ]
    for name, (time, memory) in lines.items():
        cells = [
            f"{max(np.polyval(time, n), 0) / 3600:,.3g} h, {max(np.polyval(memory, n), 0) / 1e9:,.3g} GB"
            for n in wanted
        ]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    """Measure, print, and write with ``--out``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--documents", type=int, nargs="+", default=[10, 20, 40], help="a domain, smallest first"
    )
    parser.add_argument("--tokens", type=float, nargs="+", default=[1e8, 1e9, 1e11], help="sizes to go on to")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--settings", nargs="*", default=[], help="as of repro.run")
    given = parser.parse_args()
    if given.stage:
        return one(given.settings, given.stage)
    sizes = []
    with tempfile.TemporaryDirectory() as folder:
        for n in given.documents:
            print(f"{n} documents a domain", flush=True)
            own = [
                f"work={folder}",
                f"corpus.max_documents_per_domain={n}",
                "corpus.max_tokens_per_domain=null",
            ]
            sizes.append(measured([*DEFAULTS, *given.settings, *own, f"train.tokens={n * 7 * 512}"]))
    machine = (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores,"
        f" {os.environ.get('OMP_NUM_THREADS')} threads"
    )
    said = f"{machine}; {' '.join([*DEFAULTS, *given.settings])}"
    text = f"# Growth of the stages\n\n{said}\n\n{table(sizes, given.tokens)}\n"
    print(text)
    if given.out:
        given.out.write_text(text)


if __name__ == "__main__":
    main()
