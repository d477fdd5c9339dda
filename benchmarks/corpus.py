"""How long cleaning takes and what memory it needs, at 10 thousand to millions of documents.

    python -m benchmarks.corpus [--documents 1e4 1e5] [--executor local --workers 1 2] [--folder DIR]

Synthetic documents of about 2.25 kB (360 words of a vocabulary whose frequencies fall as in text), 4 % of
them copies and 5 % near copies, in 16 JSONL files, written first and not timed. Without ``--executor`` the
corpus is made in one process, with ``--minhash`` datasketch or datatrove. Prints a Markdown table: seconds,
processor seconds of all processes (on a busy machine the ones to trust), peak memory of the process and of
the largest of its workers. Numbers of workers take turns on the same files, and must give the same corpus.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import cpu_name
from repro.store import sha256_file

FILES, WORDS, VOCABULARY = 16, 360, 50_000


def write(folder: Path, documents: int) -> None:
    """The JSONL files."""
    import numpy as np

    draw = np.random.default_rng(0)
    names = np.array([f"w{i:x}" for i in range(VOCABULARY)], object)
    frequencies = 1 / np.arange(1, VOCABULARY + 1)
    cumulated = np.cumsum(frequencies / frequencies.sum())
    folder.mkdir(parents=True)
    files = [open(folder / f"part-{k:02d}.jsonl", "w") for k in range(FILES)]
    last = ""
    for i in range(documents):
        kind = draw.random()
        if kind >= 0.09 or not last:
            last = " ".join(names[np.searchsorted(cumulated, draw.random(WORDS))])
        text = last if kind >= 0.05 else f"{last} and {i}"
        row = {"id": f"d{i:09d}", "domain": "abcd"[i % 4], "group": f"site{i % 5000}", "text": text}
        files[i % FILES].write(json.dumps(row) + "\n")
    for file in files:
        file.close()


def clean(folder: Path, parsed: argparse.Namespace) -> None:
    """The stage's work in this process; prints a row."""
    from multiprocessing import forkserver

    from repro.corpus.settings import Corpus
    from repro.corpus.stage import stage
    from repro.settings.execution import Run
    from repro.store import Store

    minhash = "datatrove" if parsed.executor else parsed.minhash
    settings = Corpus(kind="files", paths=[str(folder / "in")], minhash=minhash)
    (workers,) = parsed.workers
    how = Run(executor=parsed.executor, cluster={"tasks": parsed.tasks, "workers": workers})
    started = time.perf_counter()
    store = Store(folder / "work")
    made = stage(settings, None, how if parsed.executor else None)
    found = store.facts(made) if store.ensure(made) else {}
    seconds = time.perf_counter() - started
    forkserver._forkserver._stop()  # only then are its workers counted
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    worked = sum(used.ru_utime + used.ru_stime for used in (own, others))
    print(
        f"| {found['in']:,} | {found['kept']:,} | {workers} | {seconds:.0f} | {worked:.0f} |"
        f" {own.ru_maxrss * 1024 / 1e9:.2f} | {others.ru_maxrss * 1024 / 1e9:.2f} |",
        flush=True,
    )
    files = sorted(path for path in store.path(made).rglob("*.parquet"))
    digest = hashlib.sha256("".join(map(sha256_file, files)).encode()).hexdigest()
    (folder / "found.json").write_text(json.dumps({"seconds": seconds, "shards": digest}))


def main() -> None:
    """Every size in turn, each in a fresh process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=float, nargs="+", default=[1e4, 1e5])
    parser.add_argument("--folder", type=Path, help="where to write; 12 kB a document")
    parser.add_argument("--executor", help="local, in place of one process")
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--minhash", default="datatrove", help="of one process")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.worker:
        return clean(parsed.folder, parsed)
    words = sys.argv[1:]
    if "--folder" in words:  # says nothing about the figures
        at = words.index("--folder")
        words = words[:at] + words[at + 2 :]
    print(f"**Cleaning** (`python -m benchmarks.corpus {' '.join(words)}`)\n\n{cpu_name()}.\n")
    print("| documents | kept | workers | seconds | processor seconds | GB, process | GB, largest worker |")
    print("|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    ratios = []
    for documents in map(int, parsed.documents):
        folder = Path(tempfile.mkdtemp(prefix="corpus-", dir=parsed.folder))
        try:
            write(folder / "in", documents)
            found = {workers: once(folder, workers, parsed) for workers in parsed.workers}
        finally:
            shutil.rmtree(folder)
        if len({one["shards"] for one in found.values()}) != 1:
            sys.exit(f"{documents:,} documents: another number of workers made another corpus")
        first, *others = found.items()
        ratios += [
            f"{documents:,} documents, {workers} workers against {first[0]}:"
            f" {first[1]['seconds'] / one['seconds']:.2f}x, same bytes"
            for workers, one in others
        ]
    if ratios:
        print("\n" + "  \n".join(ratios))


def once(folder: Path, workers: int, parsed: argparse.Namespace) -> dict:
    """Seconds and shards of a corpus made with this many workers, in a fresh process and an empty store."""
    own = ["--worker", "--folder", str(folder), "--tasks", str(parsed.tasks)]
    own += ["--workers", str(workers), "--minhash", parsed.minhash]
    own += ["--executor", parsed.executor] if parsed.executor else []
    subprocess.run([sys.executable, "-m", "benchmarks.corpus", *own], check=True)
    shutil.rmtree(folder / "work")
    return json.loads((folder / "found.json").read_text())


if __name__ == "__main__":
    main()
