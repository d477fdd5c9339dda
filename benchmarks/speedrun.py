"""A rung of the ladder of our own models, trained once: held-out bits per byte against the time of the cores.

    python -m benchmarks.speedrun 1m train=muon train.tokens=2000000 --corpus ../shared/data/corpus/wide

Further words are settings of ``train`` and ``model`` as ``python -m repro.run`` takes them. Nothing that a
comparison uses is touched: passages beyond the first 2,000 a domain in the order that corpus.seed=0 draws
them, and training seeds from 1,000. Held out are whole source groups. The measure is the mean over domains of
their bits per byte, behind the last step. Time is that of the process on its cores (validation included), so
that a busy machine does not count against a recipe; the record of a rung is the lowest within 20 minutes of
two cores. Every run is appended to results/speedrun/speedrun.json; the page beside it is written anew from
there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from benchmarks.machine import cpu_name
from repro.corpus.documents import sampling_key
from repro.corpus.settings import Corpus
from repro.corpus.stage import stage as corpus_stage
from repro.errors import require
from repro.pretrain import loop
from repro.pretrain.job import Job
from repro.pretrain.stage import tokens_stage
from repro.selection.stage import everything
from repro.settings.compose import compose
from repro.settings.root import Settings
from repro.store import Store, atomic, digest, provenance, read_json, sha256_file, write_json
from repro.tracking import Tracking, read_rows

ROOT = Path(__file__).resolve().parent.parent
COMPARED, TAKEN = 2000, 1150  # passages a domain: those of comparisons, and those taken behind them
FIRST_SEED = 1000
CORE_SECONDS = 2 * 20 * 60
HELD_OUT = 8192  # tokens a domain that a record is measured on
DEFAULTS = {
    "train.tokens": 2_000_000,
    "train.context": 512,
    "train.batch_sequences": 8,
    "train.micro_batch": 8,
    "train.dtype": "float32",
    "train.checkpoint_every_steps": 1_000_000,  # at the end only
    "train.validate_tokens": HELD_OUT,
}


def passages(folder: Path, work: Path) -> Path:
    """The passages that no comparison draws, as JSON lines."""
    sources = sorted(folder.glob("*.jsonl.zst"))
    require(bool(sources), f"--corpus={folder} holds no *.jsonl.zst")
    key = digest([COMPARED, TAKEN, *(sha256_file(path) for path in sources)])[:8]
    out = work / f"passages-{key}.jsonl"
    if not out.is_file():
        rows: dict[str, list[dict[str, Any]]] = {}
        for path in sources:
            # not splitlines: U+2028 is text
            for line in pa.input_stream(path, compression="zstd").read().split(b"\n"):
                if line:
                    row = json.loads(line)
                    rows.setdefault(row["domain"], []).append(row)
        with atomic(out) as temporary, open(temporary, "w") as handle:
            for domain in sorted(rows):
                drawn = sorted(rows[domain], key=lambda row: sampling_key(0, row["id"]))
                handle.writelines(json.dumps(row) + "\n" for row in drawn[COMPARED : COMPARED + TAKEN])
    return out


def run(settings: Settings, corpus: Path, work: Path, seed: int) -> dict[str, Any]:
    """Train once; returns what the record holds of it."""
    store = Store(work)
    texts = corpus_stage(
        Corpus(kind="files", paths=[str(corpus)], decontaminate=False, near_duplicates="off", seed=1), None
    )
    tokens = tokens_stage(settings.model, texts)
    selection = everything(texts)
    for stage in (texts, tokens, selection):
        store.ensure(stage)
    name = digest([asdict(settings.model), asdict(settings.train), seed, tokens.fingerprint])[:8]
    out = work / "runs" / name
    out.mkdir(parents=True, exist_ok=True)
    places = {"tokens": str(store.path(tokens)), "selection": str(store.path(selection)), "out": str(out)}
    named = {"tracking": Tracking(wandb="disabled"), "group": "speedrun", "arm": settings.model.name}
    job = Job(settings.model, settings.train, seed, **places, device="cpu", **named)
    require(not loop.finished(job), f"this run was made before; it lies in {out}")
    wall, cores = time.perf_counter(), time.process_time()
    facts = loop.train(job)
    wall, cores = time.perf_counter() - wall, time.process_time() - cores
    bits = {}
    for row in read_rows(out / "metrics.jsonl"):
        bits |= {
            key.rpartition("/")[2]: value
            for key, value in row.items()
            if key.startswith("validation/bits_per_byte/")
        }
    losses = [row["loss"] for row in read_rows(out / "loss.jsonl")]
    return {
        "bits_per_byte": statistics.fmean(bits.values()),
        "by_domain": bits,
        "last_training_loss": statistics.fmean(losses[-len(losses) // 20 - 1 :]),
        "tokens": facts["tokens"],
        "passes": facts["passes"],
        "core_seconds": round(cores, 1),
        "wall_seconds": round(wall, 1),
        "tokens_per_core_second": round(facts["tokens"] / cores),
        "parameters": facts["parameters"],
        "corpus": sha256_file(corpus)[:16],
    }


def page(rows: list[dict[str, Any]]) -> str:
    """The history as Markdown, by rung; the record of each in bold."""
    lines = [
        "**Speedrun** (`python -m benchmarks.speedrun`)",
        "",
        (
            "Held-out bits per byte (mean over domains; lower is better) of one training, from"
            " `benchmarks/speedrun.py`, which"
        ),
        (
            "alone writes this page. Passages and seeds are none that a comparison uses. Core seconds are the"
            " time of the process"
        ),
        f"on all its cores. **Bold**: the lowest of its rung within {CORE_SECONDS:,} core seconds.",
    ]
    columns = [
        "settings",
        "parameters",
        "tokens",
        "bits per byte",
        "held out a domain",
        "core s",
        "tokens / core s",
        "CPU",
    ]
    for rung in sorted({row["rung"] for row in rows}, key=lambda name: (len(name), name)):
        own = [row for row in rows if row["rung"] == rung]
        within = [
            row
            for row in own
            if row["core_seconds"] <= CORE_SECONDS and row["train"]["validate_tokens"] == HELD_OUT
        ]
        best = min(within, key=lambda row: row["bits_per_byte"], default=None)
        lines += ["", f"## {rung}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        for row in own:
            bits = f"{row['bits_per_byte']:.4f}"
            cells = [
                f"`{' '.join(row['settings'])}` seed {row['seed']}",
                f"{row['parameters'] / 1e6:.2f} M",
                f"{row['tokens']:,}",
                f"**{bits}**" if row is best else bits,
                f"{row['train']['validate_tokens']:,} tokens",
                f"{row['core_seconds']:,.0f}",
                f"{row['tokens_per_core_second']:,}",
                row["cpu"],
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run, append, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rung", help="an option of configs/model: 1m, 4m, 10m, 30m")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument(
        "--corpus", type=Path, required=True, help="folder of *.jsonl.zst with id, domain, group, text"
    )
    parser.add_argument("--work", type=Path, default=Path("work/speedrun"))
    parser.add_argument("--seed", type=int, default=0, help=f"counted from {FIRST_SEED}")
    parser.add_argument("--record", type=Path, default=ROOT / "results" / "speedrun")
    given = parser.parse_intermixed_args()
    made = provenance()
    chosen = [word for word in given.settings if word.partition("=")[0] not in DEFAULTS]
    own = DEFAULTS | dict(word.split("=", 1) for word in given.settings if word not in chosen)
    base = [
        "exp=pilot",
        "scale=overnight",
        f"model={given.rung}",
        *(f"{key}={value}" for key, value in own.items()),
    ]
    settings = compose([*base, *chosen])
    given.work.mkdir(parents=True, exist_ok=True)
    seed = FIRST_SEED + given.seed
    found = run(settings, passages(given.corpus, given.work), given.work, seed)
    row = {
        "rung": given.rung,
        "settings": given.settings,
        "seed": seed,
        **found,
        "threads": torch.get_num_threads(),
        "cpu": cpu_name(),
        "model": asdict(settings.model),
        "train": asdict(settings.train),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        # without the folders of this machine: the corpus is named by its content above
        "provenance": (
            made | {"command": ["speedrun.py", given.rung, *given.settings, "--seed", str(given.seed)]}
        ),
    }
    path = given.record / "speedrun.json"
    rows = [*(read_json(path) if path.is_file() else []), row]
    write_json(path, rows)
    (given.record / "speedrun.md").write_text(page(rows))
    print(json.dumps({key: row[key] for key in ("rung", "settings", *found)}))


if __name__ == "__main__":
    main()
