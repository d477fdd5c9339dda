"""How long ranking and selecting takes, at 1 to 240 million documents (the size of SmolLM-Corpus).

    python -m benchmarks.selection [--documents 1e6 1e7 1e8 2.4e8] [--folder DIR] [--threads 2]

Synthetic ids (as long as FineWeb-Edu's), lengths and scores in five domains and 2,000 sources, with ties, in
parquet files of a million rows, written first and not timed. Then the whole stage is timed in a process of
its own: ids checked on both sides, ranked, selected, described and written. Prints a Markdown table: seconds,
processor seconds (on a busy machine the ones to trust), peak memory of the process, sizes on disk.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PER_FILE = 1_000_000
DOMAINS = ("fineweb-edu", "cosmopedia", "python-edu", "openwebmath", "stories")


def write(folder: Path, documents: int, threads: int) -> None:
    """``documents/*.parquet`` (without text) and ``scores/*.parquet``, row by row the same ids."""
    import duckdb

    for name in ("documents", "scores"):
        (folder / name).mkdir(parents=True)
    connection = duckdb.connect()
    connection.execute(f"SET threads={threads}")
    domains = ", ".join(f"'{d}'" for d in DOMAINS)
    for number, start in enumerate(range(0, documents, PER_FILE)):
        stop = min(documents, start + PER_FILE)
        connection.execute(f"SELECT setseed({(number % 1000) / 1000})")
        connection.execute(f"""CREATE OR REPLACE TABLE part AS
                SELECT '<urn:uuid:' || uuid() || '>' AS doc_id,
                [{domains}][1 + {number} % {len(DOMAINS)}] AS domain,
                       'site' || (hash(range) % 2000) AS "group", 'synthetic' AS source,
                       (40 + 800 * -ln(1 - random()))::BIGINT AS n_tokens_doc, 1000::BIGINT AS n_bytes,
                       range AS cluster,
                       round(random() + random() + random(), 5) AS score, 2 + random() AS loss_base
                FROM range({start}, {stop})""")
        for name, columns in (
            ("documents", 'doc_id, domain, "group", source, n_bytes, cluster'),
            ("scores", 'doc_id, domain, "group", n_tokens_doc, n_bytes, loss_base, score'),
        ):
            target = folder / name / f"{number:05d}.parquet"
            connection.execute(
                f"COPY (SELECT {columns} FROM part) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
            )


def select(folder: Path, threads: int, memory: str) -> None:
    """The stage's work in this process; prints a row."""
    from repro.selection import rank, stage
    from repro.selection.settings import Budget, Mixture, Select
    from repro.store import Context, Stage

    plain = rank.connect
    rank.connect = lambda **settings: plain(memory=memory, threads=threads, **settings)
    none = Stage("none", "none", {}, lambda context: None)
    context = Context(folder / "out", {"corpus": folder, "scores": folder}, "cpu")
    context.out.mkdir(exist_ok=True)
    started = time.perf_counter()
    stage.stage(Select("attention_influence"), Mixture("add"), Budget(0.3), 0, none, none).run(context)
    seconds = time.perf_counter() - started
    sizes = {
        d: round(sum(p.stat().st_size for p in (folder / d).rglob("*.parquet")) / 1e9, 3)
        for d in ("scores", "out")
    }
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"| {context.facts['documents']:,} | {seconds:.1f} | {used.ru_utime + used.ru_stime:.1f} | "
        f"{used.ru_maxrss * 1024 / 1e9:.2f} | {sizes['scores']:g} | {sizes['out']:g} |",
        flush=True,
    )


def main() -> None:
    """Every size in turn, each in a fresh process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=float, nargs="+", default=[1e6, 1e7, 1e8, 2.4e8])
    parser.add_argument("--folder", type=Path, help="where to write; 35 GB for the largest size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--memory", default="4GB", help="DuckDB's share; the ids' hashes take 8 bytes a document more"
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.worker:
        return select(parsed.folder, parsed.threads, parsed.memory)
    print(f"**Selection** (`python -m benchmarks.selection`, {parsed.threads} threads)\n")
    print("| documents | seconds | processor seconds | peak GB | GB of scores | GB written |")
    print("|---|---|---|---|---|---|", flush=True)
    for documents in map(int, parsed.documents):
        folder = Path(tempfile.mkdtemp(prefix="selection-", dir=parsed.folder))
        try:
            write(folder, documents, parsed.threads)
            command = [
                sys.executable,
                __file__,
                "--worker",
                "--folder",
                str(folder),
                "--threads",
                str(parsed.threads),
            ]
            subprocess.run([*command, "--memory", parsed.memory], check=True)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
