"""Trainings of the card: DeepSpeed against plain PyTorch, and a run that was cut against one that was not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.training import made_up_tokens, plain
from repro.pretrain import checkpoint, loop
from repro.pretrain.job import Job
from repro.pretrain.settings import Model, Train
from repro.store import sha256_file
from repro.tracking import Tracking, read_rows

NOISE = {"float32": 1e-4, "bfloat16": 0.03}  # of a loss near 8 nats
KILLED = """
import os, signal, sys
from repro.pretrain import checkpoint, loop
from repro.pretrain.job import Job
loop.checkpoint.prune = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
loop.train(Job.from_json(open(sys.argv[1]).read()))
"""


class Cut(Exception):
    """The end of a training that is cut."""


class Trainings:
    """Short trainings of one small model, by the shipped loop, on the device."""

    def __init__(self, root: Path, device: str, tiny: bool) -> None:
        self.root, self.device, self.tiny = root, device, tiny
        small = {"layers": 2, "hidden": 64, "heads": 2, "kv_heads": 1, "ffn": 128, "vocabulary": 512}
        large = {"layers": 4, "hidden": 256, "heads": 4, "kv_heads": 2, "ffn": 704, "vocabulary": 2048}
        self.model = Model(name="card", **(small if tiny else large), tie_embeddings=True, tokenizer="bpe")

    @cached_property
    def paths(self) -> dict[str, str]:
        """Folders of the tokens and of the selection."""
        return {name: str(path) for name, path in made_up_tokens(self.root, self.model.vocabulary).items()}

    def job(self, name: str, dtype: str, device: str | None = None) -> Job:
        """A training of eight steps; bfloat16 runs as ZeRO-1, float32 without."""
        context, batch, steps = (32, 4, 8) if self.tiny else (256, 16, 8)
        train = Train(
            tokens=steps * batch * context,
            context=context,
            batch_sequences=batch,
            micro_batch=batch // 2,
            dtype=dtype,
            zero_stage=1 if dtype == "bfloat16" else 0,
            checkpoint_every_steps=4,
            validate_tokens=64,
        )
        out = self.root / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        disabled = Tracking(wandb="disabled")
        return Job(self.model, train, 0, **self.paths, out=str(out), device=device or self.device,
                   tracking=disabled,
                   group="card", arm="card")  # fmt: skip

    def trained(self, job: Job) -> list[float]:
        """The losses of a training by the shipped loop."""
        loop.train(job)
        return losses(job)

    def against_plain(self, dtype: str) -> dict[str, Any]:
        """The losses of the shipped loop against those of one written out in PyTorch; the first is before any
        update.
        """
        job = self.job("ours", dtype)
        ours = self.trained(job)
        whole = replace(job, train=replace(job.train, micro_batch=job.train.batch_sequences))
        theirs = plain(whole, nano=False)["losses"]
        gaps = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
        stage = job.train.zero_stage
        said = {
            "zero_stage": stage,
            "steps": len(ours),
            "first": gaps[0],
            "second": gaps[1],
            "largest": max(gaps),
        }
        return said | {"losses": [ours[0], ours[-1]], "ok": max(gaps) <= NOISE[dtype] and ours[-1] < ours[0]}

    def resumed(self, dtype: str) -> dict[str, Any]:
        """Eight steps in one go, twice, and four, a cut in the sixth, and the rest: weights and losses to the
        bit.
        """
        whole, again, cut = (self.job(name, dtype) for name in ("whole", "again", "cut"))
        self.trained(whole)
        self.trained(again)
        saved = checkpoint.prune

        def cut_off(*_: Any) -> None:
            raise Cut

        checkpoint.prune = cut_off  # behind the first checkpoint
        try:
            self.trained(cut)
        except Cut:
            pass
        finally:
            checkpoint.prune = saved
        reached = len(losses(cut))
        self.trained(cut)
        return {
            "cut_behind_step": reached,
            "ok": same(whole, cut) and reached < 8,
            "resumed_equals_whole": same(whole, cut),
        } | {
            "two_runs_equal": same(whole, again),
            "largest_difference": max(abs(a - b) for a, b in zip(losses(whole), losses(cut), strict=True)),
        }

    def against_cpu(self) -> dict[str, Any]:
        """The same training in float32 on the CPU; skipped losses would show here."""
        here = self.trained(self.job("here", "float32"))
        there = plain(self.job("there", "float32", "cpu"), nano=False)["losses"]
        gap = max(abs(a - b) for a, b in zip(here, there, strict=True))
        return {
            "steps": len(here),
            "largest": gap,
            "first": abs(here[0] - there[0]),
            "ok": gap <= 5 * NOISE["float32"],
        }

    def killed(self, dtype: str) -> dict[str, Any]:
        """The first part in a process that is killed behind its checkpoint, the rest in this one."""
        whole, cut = self.job("whole", dtype), self.job("killed", dtype)
        self.trained(whole)
        path = self.root / "killed.json"
        path.write_text(cut.to_json())
        source = Path(__file__).parents[2]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])
        }
        for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"):
            environment.pop(name, None)
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, str(path)], env=environment, capture_output=True, text=True
        )
        if ended.returncode != -signal.SIGKILL:
            raise RuntimeError((ended.stderr.strip().splitlines() or ["it was not killed"])[-1])
        reached = len(losses(cut))
        self.trained(cut)
        return {"cut_behind_step": reached, "ok": same(whole, cut) and reached < 8}


def losses(job: Job) -> list[float]:
    """The loss of every step, as it is on disk."""
    return [row["loss"] for row in read_rows(Path(job.out) / "loss.jsonl")]


def same(one: Job, other: Job) -> bool:
    """Whether two trainings left the same weights and the same losses, to the bit."""
    files = ("model/model.safetensors", "loss.jsonl")
    return all(sha256_file(Path(one.out) / name) == sha256_file(Path(other.out) / name) for name in files)
