"""What a training writes down: its losses, its metrics, and how often each document was read."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
import torch

from repro.device import matrix_rate
from repro.errors import require
from repro.pretrain.cost import flops_per_token
from repro.pretrain.health import Spikes
from repro.pretrain.job import Job
from repro.pretrain.order import TokenStream
from repro.pretrain.tokens import read_index
from repro.store import atomic
from repro.tracking import Tracker, read_rows

OFTEN = {"mean": np.mean, "median": np.median, "max": np.max}


def write_reads(path: Path, tokens: Path, stream: TokenStream, read: int) -> dict[str, dict[str, float]]:
    """How often each training document was read: tokens read / its tokens, end token included.

    Returns for each domain the number of its ``documents`` and of those ``unread``, and over the others
    ``mean``, ``median`` and ``max`` of how often.
    """
    index = read_index(tokens, "documents", ["doc_id", "domain", "length"])
    counted = pl.Series("tokens_read", stream.tokens_read(read))
    index = index.with_columns(counted, (counted / index["length"]).alias("reads"))
    with atomic(path) as temporary:
        index.write_parquet(temporary)
    found = {}
    for (domain,), part in index.sort("domain").group_by("domain", maintain_order=True):
        reads = part.filter(pl.col("reads") > 0)["reads"].to_numpy()
        often = {name: float(of(reads)) if len(reads) else 0.0 for name, of in OFTEN.items()}
        found[str(domain)] = {"documents": len(part), "unread": len(part) - len(reads), **often}
    return found


class Log:
    """``loss.jsonl`` (every step, nothing that differs between two equal runs) and the metrics with
    timings.
    """

    def __init__(self, job: Job, stream: TokenStream, done: int) -> None:
        out = Path(job.out)
        self.settings, self.stream = job.train, stream
        self.batch_tokens = job.train.batch_tokens
        rows = [row for row in read_rows(out / "loss.jsonl") if row["step"] <= done]
        require(
            [row["step"] for row in rows] == list(range(1, done + 1)),
            f"{out / 'loss.jsonl'} does not reach the checkpoint at step {done}; delete {out} to train from"
            " the start",
        )
        self.spikes = Spikes([row["loss"] for row in rows])
        with atomic(out / "loss.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.losses = open(out / "loss.jsonl", "a")
        self.tracker = Tracker(
            out / "metrics.jsonl",
            job.tracking,
            f"{job.arm}-seed{job.seed}",
            job.group,
            [job.arm, f"seed{job.seed}"],
            {
                "model": asdict(job.model),
                "train": asdict(job.train),
                "seed": job.seed,
                "arm": job.arm,
                "artifact": out.name.removesuffix(".partial"),  # by which a report finds it
            },
        )
        self.tracker.rewind(done)

        index = read_index(Path(job.tokens), "documents", ["domain"])["domain"]
        self.domains = index.unique().sort().to_list()
        self.peak = job.train.processes * matrix_rate(job.device, job.train.dtype)
        self.flops = flops_per_token(job.model, job.train.context)
        self.domain_of = index.replace_strict(self.domains, range(len(self.domains))).to_numpy()
        read = stream.tokens_read(done * self.batch_tokens)
        self.by_domain = np.bincount(self.domain_of, weights=read, minlength=len(self.domains))
        self.seconds = self.waited = self.steps = 0.0

    def step(self, step: int, loss: float, norm: float, rate: float, seconds: float, waited: float) -> None:
        """Log a finished step that took ``seconds``, ``waited`` of them for its tokens."""
        tokens = step * self.batch_tokens
        self.losses.write(json.dumps({"step": step, "tokens": tokens, "loss": loss}) + "\n")
        self.losses.flush()
        documents, _, counts = self.stream.pieces(tokens - self.batch_tokens, self.batch_tokens)
        self.by_domain += np.bincount(self.domain_of[documents], weights=counts, minlength=len(self.domains))
        self.seconds, self.waited, self.steps = self.seconds + seconds, self.waited + waited, self.steps + 1
        spike = self.spikes.see(loss)
        if spike:
            print(f"warning: the loss jumped to {loss:.3f} at step {step}", file=sys.stderr)
        if spike or step % self.settings.log_every_steps == 0 or step == self.settings.steps:
            speed = self.steps * self.batch_tokens / self.seconds
            row = {
                "loss": loss,
                "grad_norm": norm,
                "learning_rate": rate,
                "tokens": tokens,
                "tokens_per_second": speed,
                "mfu": speed * self.flops / self.peak,
                "waiting_share": self.waited / self.seconds,
                "memory_gb": peak_memory_gb(),
                "passes": tokens / self.stream.per_epoch,
                "spike": spike,
            }
            self.tracker.log(
                row | {f"tokens/{d}": int(n) for d, n in zip(self.domains, self.by_domain, strict=True)}, step
            )
            self.seconds = self.waited = self.steps = 0.0

    def close(self) -> None:
        """Close the files, however the training ended."""
        self.losses.close()
        self.tracker.finish()


def peak_memory_gb() -> float:
    """Peak memory of the device on a GPU, of the process on a CPU."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
