"""How fast shards reach the model: a scoring whose model takes no time, against the tokenizer alone.

    python -m benchmarks.feeding --tokenizer FOLDER --texts FILE... [--processes 2] [--rounds 3] [--out FILE]

The scoring is the real one (claims, reading, tokenising ahead in ``--processes``, windows, batches laid out,
statistics, files put in place); only the forward pass is left out. In turns with it, as many processes do
nothing but tokenise the same documents: the limit. Ratios of neighbouring rounds, and their median, by the
clock and by the processor time of all processes: other work on the machine takes from the clock. Batches are
those of ``scale=gpu``: how full they are is counted, not timed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import active_children, get_context
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.machine import cpu_name
from repro.corpus import documents
from repro.corpus.documents import Document
from repro.influence import claiming, claims, loop
from repro.influence.feeding import PART, Feed
from repro.influence.scorer import Scorer, Started, Tokens, laid_out
from repro.pretrained import Encoder, load_tokenizer
from repro.proxy.load import ProxyModel
from repro.settings.compose import compose
from repro.store import parquet, sha256_file


@dataclass
class StandIn(Scorer):
    """A scorer whose forward pass takes no time. Batches are laid out as for the model."""

    fills: list[tuple[int, int]] = field(default_factory=list)  # tokens and places of each batch

    def start(self, rows: Sequence[Tokens]) -> Started:
        """Lay a batch out, and be done."""
        ids, lengths = laid_out(rows)
        self.fills.append((int(lengths.sum()), ids.size))
        losses = torch.ones(2 * int((lengths - 1).sum()))
        return Started(losses, lengths - 1, None)


@cache
def encoder(folder: str) -> Encoder:
    """The tokenizer, once a process."""
    return Encoder(load_tokenizer(folder, local_files_only=True))


def tokenised(folder: str, texts: list[str]) -> int:
    """Tokens of some texts."""
    return sum(map(len, encoder(folder)(texts)))


@dataclass(frozen=True)
class Rate:
    """How many tokens came through, in which time, of how much of the processor."""

    tokens: int
    seconds: float
    processor: float

    def of(self, limit: Rate) -> tuple[float, float]:
        """The share of the limit that was reached: by the clock, and by processor time a token."""
        by_clock = self.tokens / self.seconds * limit.seconds / limit.tokens
        return by_clock, limit.processor / limit.tokens * self.tokens / self.processor


def processor_seconds() -> float:
    """Processor time so far of this process and of those it has started that still run."""
    ticks = 0
    for child in active_children():
        stat = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(stat[11]) + int(stat[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def limit(folder: str, texts: list[str], processes: int) -> Rate:
    """What ``processes`` tokenizers make that do nothing else."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        parts = [texts[at : at + PART] for at in range(0, len(texts), PART)]
        list(pool.map(tokenised, [folder] * 2 * processes, [parts[0]] * 2 * processes))  # started
        began, processor = time.perf_counter(), processor_seconds()
        tokens = sum(pool.map(tokenised, [folder] * len(parts), parts))
        return Rate(tokens, time.perf_counter() - began, processor_seconds() - processor)


def fed(folder: str, corpus: Path, processes: int, scorer: StandIn) -> Rate:
    """Documents scored by a model that takes no time, from the first claim to the last file."""
    names = documents.shards(corpus)
    with tempfile.TemporaryDirectory() as store:
        partial = Path(store) / "score" / "x.partial"
        claims.open_job(
            partial,
            {
                "tokens": {p.name: 1 for p in names},
                "digests": {p.name: sha256_file(p) for p in names},
                "corpus": os.path.relpath(corpus, partial),
                "model": folder,
                "means": None,
                "settings": {},
                "heads": [],
                "version": 0,
                "lease_seconds": 60.0,
            },
        )
        with claiming.Worker(partial) as worker, Feed(folder, processes) as feed:
            first = documents.shards(corpus, "heldout")[0]
            feed.read(first, sha256_file(first), 1.0).result()  # its processes have started
            began, processor = time.perf_counter(), processor_seconds()
            loop.Loop(worker, feed, lambda: scorer, 1.0, lambda: None).run()
            seconds, processor = time.perf_counter() - began, processor_seconds() - processor
        tokens = parquet.read(sorted((partial / "scores").iterdir()))["n_tokens_doc"].sum()
    return Rate(int(tokens), seconds, processor)


def written_corpus(folder: Path, texts: list[str], per_shard: int, count: int) -> Path:
    """``count`` shards of ``per_shard`` documents, and a small one held out; texts begin again at the end."""
    for split, number, size in (("documents", count, per_shard), ("heldout", 1, 4 * PART)):
        (folder / split).mkdir()
        for shard in range(number):
            some = [(i, texts[i % len(texts)]) for i in range(shard * size, (shard + 1) * size)]
            rows = [documents.row(Document(str(i), "web", "g", "s", "l", text), i) for i, text in some]
            documents.write(folder / split / f"web-{shard:05d}.parquet", rows)
    return folder


def texts_of(paths: list[Path], most: int) -> Iterator[str]:
    """Texts of JSON lines."""
    import json

    import zstandard

    left = most
    for path in paths:
        raw = zstandard.open(path, "rb") if path.suffix == ".zst" else path.open("rb")
        with raw as lines:
            for line in lines.read().split(b"\n"):
                if line and left:
                    left -= 1
                    yield json.loads(line)["text"]


def main() -> None:
    """Measure, print, and write with ``--out``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", required=True, help="a model folder")
    parser.add_argument("--texts", nargs="+", type=Path, required=True, help="JSON lines, field text")
    parser.add_argument("--processes", type=int, default=2, help="tokenizers")
    parser.add_argument("--documents", type=int, default=4096, help="of a shard")
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    s = compose(["exp=selection_30pct", "scale=gpu", "proxy.dtype=float32", "train.dtype=float32"]).score
    texts = list(texts_of(given.texts, given.documents))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    nothing = ProxyModel(torch.nn.Module(), None, encoder(given.tokenizer), [], [], 0)
    rates: list[tuple[Rate, Rate]] = []
    with tempfile.TemporaryDirectory() as folder:
        corpus = written_corpus(Path(folder), texts, given.documents, given.shards)
        for _ in range(given.rounds):
            cut = (s.window, s.max_tokens, s.tokens_per_batch)
            scorer = StandIn(nothing, [], *cut, padding=s.padding)
            alone = limit(given.tokenizer, texts, given.processes)
            rates.append((alone, fed(given.tokenizer, corpus, given.processes, scorer)))
            print(
                "{:.2f} of the limit by the clock, {:.2f} by processor time".format(*rates[-1][1].of(alone))
            )
    text = page(given.processes, given.documents, texts, rates, scorer)
    print(text)
    if given.out:
        given.out.write_text(text)


def page(
    processes: int, count: int, texts: list[str], rates: list[tuple[Rate, Rate]], scorer: StandIn
) -> str:
    """What was measured, in Markdown."""
    by_clock, by_processor = zip(*(whole.of(alone) for alone, whole in rates), strict=True)
    tokens, places = (np.array(column) for column in zip(*scorer.fills, strict=True))
    size = sum(len(text.encode()) for text in texts) / len(texts)
    at_once = scorer.tokens_per_batch
    return f"""**Feeding the model** (`python -m benchmarks.feeding`)

{cpu_name()}, {os.cpu_count()} cores. {processes} tokenizers, shards of {count:,} documents
of {size:,.0f} bytes on average, {len(rates)} rounds.

| median of the rounds | tokens/s | processor time, microseconds a token |
|---|---:|---:|
| tokenizers alone: the limit | {_row([alone for alone, _ in rates])} |
| scoring whose model takes no time | {_row([whole for _, whole in rates])} |

Share of the limit, median and range of the rounds: {_spread(by_clock)} by the clock,
{_spread(by_processor)} by processor time.

{len(tokens)} batches of at most {at_once:,} tokens: {tokens.mean() / at_once:.1%} full on average,
{places.mean() / at_once:.1%} with padding, {1 - tokens.sum() / places.sum():.1%} of what is computed.
"""


def _row(rates: list[Rate]) -> str:
    speed = median(rate.tokens / rate.seconds for rate in rates)
    return f"{speed:,.0f} | {median(rate.processor / rate.tokens for rate in rates) * 1e6:.2f}"


def _spread(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
