"""How fast shards reach the model: a scoring whose model takes no time, against the tokenizer alone.

    python -m benchmarks.feeding --tokenizer FOLDER --texts FILE... [--processes 2] [--rounds 3] [--out FILE]

The scoring is the real one (claims, reading, tokenising ahead in ``--processes``, windows, batches laid out,
statistics, files put in place); only the forward pass is left out. In turns with it, as many processes do
nothing but tokenise the same documents: the limit. Ratios of neighbouring rounds, and their median: other
work on the machine slows both. Batches are those of ``scale=gpu``: how full they are is counted, not timed.
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
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.speedrun import cpu_name
from repro import parquet
from repro.corpus import documents
from repro.corpus.documents import Document
from repro.influence import claims, loop
from repro.influence.feeding import PART, Feed
from repro.influence.scorer import Scorer, Started, Tokens, laid_out
from repro.pretrained import Encoder, load_tokenizer
from repro.proxy.load import ProxyModel
from repro.settings.compose import compose
from repro.store import sha256_file


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


def limit(folder: str, texts: list[str], processes: int) -> float:
    """Tokens a second that ``processes`` tokenizers make, and nothing else."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        parts = [texts[at : at + PART] for at in range(0, len(texts), PART)]
        list(pool.map(tokenised, [folder] * 2 * processes, [parts[0]] * 2 * processes))  # started
        began = time.perf_counter()
        tokens = sum(pool.map(tokenised, [folder] * len(parts), parts))
        return tokens / (time.perf_counter() - began)


def fed(folder: str, corpus: Path, processes: int, scorer: StandIn) -> float:
    """Tokens a second of documents scored by a model that takes no time, from the first claim to the last
    file.
    """
    names = documents.shards(corpus)
    with tempfile.TemporaryDirectory() as store:
        partial = Path(store) / "score" / "x.partial"
        claims.open_job(
            partial,
            {
                "tokens": {p.name: 1 for p in names},
                "lease_seconds": 60,
                "settings": {},
                "corpus": os.path.relpath(corpus, partial),
                "digests": {p.name: sha256_file(p) for p in names},
            },
        )
        with claims.Worker(partial) as worker, Feed(folder, processes) as feed:
            first = documents.shards(corpus, "heldout")[0]
            feed.read(first, sha256_file(first), 1.0).result()  # its processes have started
            began = time.perf_counter()
            loop.Loop(worker, feed, lambda: scorer, 1.0, lambda: None).run()
            seconds = time.perf_counter() - began
        tokens = parquet.read(sorted((partial / "scores").iterdir()))["n_tokens_doc"].sum()
    return tokens / seconds


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
    rates: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        corpus = written_corpus(Path(folder), texts, given.documents, given.shards)
        for _ in range(given.rounds):
            cut = (s.window, s.max_tokens, s.tokens_per_batch)
            scorer = StandIn(nothing, [], *cut, padding=s.padding)
            alone = limit(given.tokenizer, texts, given.processes)
            rates.append((alone, fed(given.tokenizer, corpus, given.processes, scorer)))
            print(f"tokenizers alone {alone:,.0f} tokens/s, fed {rates[-1][1]:,.0f}", flush=True)
    text = page(given.processes, given.documents, texts, rates, scorer)
    print(text)
    if given.out:
        given.out.write_text(text)


def page(
    processes: int, count: int, texts: list[str], rates: list[tuple[float, float]], scorer: StandIn
) -> str:
    """What was measured, in Markdown."""
    ratios = [whole / alone for alone, whole in rates]
    tokens, places = (np.array(column) for column in zip(*scorer.fills, strict=True))
    size = sum(len(text.encode()) for text in texts) / len(texts)
    at_once = scorer.tokens_per_batch
    return f"""# Feeding the model

{cpu_name()}, {os.cpu_count()} cores, beside other work. {processes} tokenizers, shards of {count:,} documents
of {size:,.0f} bytes on average, {len(rates)} rounds.

| | tokens/s, median |
|---|---:|
| tokenizers alone: the limit | {median(alone for alone, _ in rates):,.0f} |
| scoring whose model takes no time | {median(whole for _, whole in rates):,.0f} |

The second over the first, round by round: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}).

{len(tokens)} batches of at most {at_once:,} tokens: {tokens.mean() / at_once:.1%} full on average,
{places.mean() / at_once:.1%} with padding, {1 - tokens.sum() / places.sum():.1%} of what is computed.
"""


if __name__ == "__main__":
    main()
