"""How time, memory and FLOPs of every stage grow with the corpus: three sizes, fitted slopes, and what other
sizes take.

    python -m benchmarks.growth [--documents 12 25 50] [--settings key=value ...]   # measures, then writes
    python -m benchmarks.growth --again [--price 0.05]     # writes the pages again from what was measured

Each stage of ``exp=selection_30pct`` (the selected arm and the random one, one seed) runs in a process of its
own, so that its peak of memory is its own; trainings read 3,584 tokens for each document of a domain. Time is
processor time of the process and those it started: it does not depend on what else the machine does (memory
bandwidth aside). A slope of 1 is linear. What was measured is ``results/benchmarks/growth.json``; made from
it are ``growth.md`` beside it and the table of ``docs/cluster.md``, which goes on by the fitted lines a + b x
documents and says nothing of limits that were not met yet (disk, memory of one process).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.machine import cpu_name
from repro.experiments import build
from repro.plan.table import estimates
from repro.settings.compose import compose
from repro.store import Stage, Store, read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
MEASURED, PAGE = ROOT / "results/benchmarks/growth.json", ROOT / "results/benchmarks/growth.md"
DOCUMENT, BEGIN, END = ROOT / "docs/cluster.md", "<!-- growth:begin -->", "<!-- growth:end -->"
PRICE = 0.05  # dollars of an hour of one core, as clouds ask on demand: an assumption, --price sets another
WANTED = (1_000, 10_000, 100_000, 1_000_000)  # documents to go on to
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


@dataclass(frozen=True)
class Took:
    """What a stage took; of stages of both arms the sum, and the largest peak."""

    seconds: float  # of one core
    rss: float  # bytes at most
    flops: float  # as the plan says


@dataclass(frozen=True)
class Size:
    """A corpus, and what each stage took of it."""

    documents: int
    tokens: float  # as its bytes say
    stages: dict[str, Took]


@dataclass(frozen=True)
class Growth:
    """What was measured, where, and with which settings."""

    machine: str
    settings: list[str]
    sizes: list[Size]

    @staticmethod
    def read(path: Path) -> Growth:
        """As :func:`main` wrote it."""
        found = read_json(path)
        sizes = [
            Size(s["documents"], s["tokens"], {name: Took(**took) for name, took in s["stages"].items()})
            for s in found["sizes"]
        ]
        return Growth(found["machine"], found["settings"], sizes)

    @property
    def names(self) -> list[str]:
        """Stages that every size has; those that are made once are not among them."""
        return [n for n in self.sizes[-1].stages if all(n in s.stages for s in self.sizes) and n not in WARM]

    def column(self, name: str, what: str) -> list[float]:
        """``seconds``, ``rss`` or ``flops`` of a stage, by size."""
        return [getattr(size.stages[name], what) for size in self.sizes]

    def at(self, name: str, what: str, documents: float) -> float:
        """The fitted line a + b x documents; what grew by less than a tenth counts as flat."""
        x, y = [size.documents for size in self.sizes], self.column(name, what)
        if max(y) < 1.1 * min(y):
            return max(y)
        b, a = np.polyfit(x, y, 1)
        return float(max(a, 0) + max(b, 0) * documents)


def measured(arguments: list[str]) -> Size:
    """Run every stage that the store lacks, each in its own process."""
    settings = compose(arguments)
    store, order = Store(Path(settings.work)), build(settings).order()
    found: dict[str, Took] = {}
    costs = estimates(order, store)
    for stage in order:
        if store.has(stage):
            continue
        own = ["--stage", stage.fingerprint, "--settings", *arguments]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.growth", *own], capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{stage.name}: {done.stderr.strip().splitlines()[-1]}")
        took = json.loads(done.stdout.strip().splitlines()[-1])
        before = found.get(stage.name, Took(0.0, 0.0, 0.0))
        found[stage.name] = Took(
            before.seconds + took["seconds"],
            max(before.rss, took["rss"]),
            before.flops + costs[stage.fingerprint].flops,
        )
        print(f"  {stage.name:10} {took['seconds']:8.1f} s  {took['rss'] / 1e9:6.2f} GB", flush=True)
    return Size(*corpus_of(store, order), found)


def corpus_of(store: Store, order: list[Stage]) -> tuple[int, float]:
    """Documents and tokens of the corpus, the latter as its bytes say."""
    from repro.store.cost import BYTES_PER_TOKEN

    corpus = next(stage for stage in order if stage.name == "corpus")
    counts = read_json(store.path(corpus) / "counts.json")["domains"].values()
    return sum(c["documents"] for c in counts), sum(c["bytes"] for c in counts) / BYTES_PER_TOKEN


def slope(x: list[float], y: list[float]) -> float:
    """Of log y over log x."""
    return float(np.polyfit(np.log(x), np.log(np.maximum(y, 1e-9)), 1)[0])


def page(growth: Growth) -> str:
    """What was measured, with its slopes."""
    documents = [float(size.documents) for size in growth.sizes]
    heads = " / ".join(f"{n:,.0f}" for n in documents)
    tokens = " / ".join(f"{size.tokens:,.0f}" for size in growth.sizes)
    rows = [
        "**Growth of the stages** (`python -m benchmarks.growth`)",
        "",
        f"{growth.machine}; `{' '.join(growth.settings)}`; corpora of {heads} documents ({tokens} tokens).",
        "",
        "| stage | core seconds | slope | peak GB | slope | GFLOP/s a core |",
        "|---|---|---|---|---|---|",
    ]
    for name in growth.names:
        seconds, rss = growth.column(name, "seconds"), growth.column(name, "rss")
        rate = growth.column(name, "flops")[-1] / seconds[-1] / 1e9
        took, memory = (
            " / ".join(cells) for cells in ([f"{s:.1f}" for s in seconds], [f"{r / 1e9:.2f}" for r in rss])
        )
        slopes = slope(documents, seconds), slope(documents, rss)
        rows.append(
            f"| {name} | {took} | {slopes[0]:.2f} | {memory} | {slopes[1]:.2f} |"
            f" {f'{rate:.1f}' if rate > 0.1 else ''} |"
        )
    return "\n".join(rows) + "\n"


def block(growth: Growth, price: float = PRICE) -> str:
    """The table of other sizes, for docs/cluster.md."""
    largest = growth.sizes[-1]
    hours = {n: {name: growth.at(name, "seconds", n) / 3600 for name in growth.names} for n in WANTED}
    most = sorted(growth.names, key=lambda name: -hours[WANTED[-1]][name])[:3]
    rows = [
        f"| documents | tokens | {' | '.join(most)} | all stages | memory of one process | money |",
        "|---:|---:|" + "---:|" * (len(most) + 3),
    ]
    for n in WANTED:
        memory = max(growth.at(name, "rss", n) for name in growth.names) / 1e9
        whole = sum(hours[n].values())
        cells = [f"{hours[n][name]:,.3g} h" for name in most] + [f"{whole:,.3g} h", f"{memory:,.2g} GB"]
        cells = [f"{n:,}", f"{largest.tokens / largest.documents * n:,.2g}", *cells, f"${whole * price:,.2g}"]
        rows.append(f"| {' | '.join(cells)} |")
    sizes, times = ", ".join(str(s.documents) for s in growth.sizes), WANTED[-1] / largest.documents
    return f"""Hours of one core, by the lines fitted to corpora of {sizes} documents on
{growth.machine}
(`{" ".join(growth.settings)}`:
one arm and its control, one seed, the proxy reads the first 256 tokens of a document), at ${price:g} an hour
of a core, which is an assumption. Beyond {largest.documents:,} documents they are extrapolated, the last row
{times:,.0f}-fold; what grew by less than a tenth over these sizes counts as flat. Time and memory
of cleaning more are in the first tables of [speed.md](speed.md). Hours of a GPU: not measured.

{chr(10).join(rows)}

Slopes: [growth.md](../results/benchmarks/growth.md). `python -m benchmarks.growth` measures anew,
`--again --price N` only writes the table."""


def written(document: str, text: str) -> str:
    """``document`` with ``text`` between the markers."""
    before, _, rest = document.partition(BEGIN)
    return f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Measure and write, or write only."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--documents", type=int, nargs="+", default=[12, 25, 50], help="a domain, smallest first"
    )
    parser.add_argument("--again", action="store_true", help="measure nothing, write the pages")
    parser.add_argument("--price", type=float, default=PRICE, help="dollars of an hour of one core")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--settings", nargs="*", default=[], help="as of repro.run")
    given = parser.parse_args()
    if given.stage:
        return one(given.settings, given.stage)
    if not given.again:
        write_json(MEASURED, asdict(measure(given.documents, given.settings)))
    growth = Growth.read(MEASURED)
    PAGE.write_text(page(growth))
    DOCUMENT.write_text(written(DOCUMENT.read_text(), block(growth, given.price)))
    print(page(growth), block(growth, given.price), sep="\n")


def measure(documents: list[int], settings: list[str]) -> Growth:
    """Every size, smallest first, in one store: what does not depend on the size is made once."""
    sizes = []
    with tempfile.TemporaryDirectory() as folder:
        for n in documents:
            print(f"{n} documents a domain", flush=True)
            own = [
                f"work={folder}",
                f"corpus.max_documents_per_domain={n}",
                "corpus.max_tokens_per_domain=null",
            ]
            sizes.append(measured([*DEFAULTS, *settings, *own, f"train.tokens={n * 7 * 512}"]))
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    machine = f"{cpu_name()}, {os.cpu_count()} cores, {threads} threads"
    return Growth(machine, [*DEFAULTS, *settings], sizes)


if __name__ == "__main__":
    main()
