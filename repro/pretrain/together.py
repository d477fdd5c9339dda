"""Many small trainings on one GPU at once, each a CUDA graph of its own.

Launching the kernels of a model of a few million parameters takes longer than running them, so one training
keeps a GPU busy for a few per cent of the time. Here one whole step (batch, loss, gradient, clipping, update,
learning rate) is a graph that reads its number from the device: a replay costs the host microseconds, and the
graphs of several trainings run side by side on streams of their own. The computation is that of
:mod:`repro.pretrain.loop` on one rank in float32 (a test compares); what is left in ``job.out`` is what that
leaves, and the stage publishes it. A training that is killed starts anew.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from repro.errors import SettingError, require
from repro.pretrain import engine
from repro.pretrain.export import export, model_card
from repro.pretrain.health import NOT_FINITE, stop_if_not_finite
from repro.pretrain.job import Facts, Job
from repro.pretrain.log import Log, write_reads
from repro.pretrain.loop import FACTS, describe, finished, only_run_in
from repro.pretrain.model import build, next_token_loss
from repro.pretrain.order import open_stream
from repro.pretrain.schedule import learning_rate
from repro.pretrain.validate import heldout_windows, validate
from repro.store import read_json, write_json
from repro.tracking import progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGS = ("loss.jsonl", "metrics.jsonl")
CHUNK = 200  # steps that are launched before the host writes down those before
STREAMS = 16  # at most: CUDA has 32, and two graphs on one would wait for each other
WARM_UP = 3  # steps before a graph is captured, undone afterwards


def fits(job: Job) -> str | None:
    """Why a training cannot go on beside others in this way, or ``None``."""
    s = job.train
    wrong = {
        "train.dtype": s.dtype != "float32",
        "train.processes": s.processes != 1,
        "train.attend_across_documents": not s.attend_across_documents,
        "train.branch_at_decay": s.branch_at_decay,
        "train.branch_from": s.branch_from is not None,
        "train.activation_checkpointing": s.activation_checkpointing,
    }
    return next((f"{name}={getattr(s, name.partition('.')[2])}" for name, bad in wrong.items() if bad), None)


class Training:
    """A job's weights, optimizer, batches and step on the device."""

    def __init__(self, job: Job) -> None:
        s, device = job.train, job.device
        require(
            (why := fits(job)) is None,
            f"{why} cannot be trained beside others on one GPU; run it with repro.run",
        )
        self.job, self.order = job, open_stream(Path(job.tokens), Path(job.selection), job.seed)
        self.end_token = read_json(Path(job.tokens) / "tokens.json")["end_token"]
        module: Any = build(job.model, s.context, self.end_token, job.seed)
        self.module: PreTrainedModel = module.to(device).train()
        cuda = device != "cpu"
        self.stream = torch.cuda.Stream() if cuda else None
        self.optimizer = engine.optimizer_of(self.module, s, capturable=cuda)
        sequences = self.order.sequences(0, s.steps * s.batch_sequences, s.context)
        self.batches = (
            torch.from_numpy(sequences).to(torch.int32).view(s.steps, s.batch_sequences, -1).to(device)
        )
        self.rates = torch.tensor([learning_rate(s, step) for step in range(s.steps)], device=device)
        self.losses, self.norms = torch.zeros(2, s.steps, device=device)
        self.at = torch.zeros(1, dtype=torch.long, device=device)
        self.rate, self.muon_rate = torch.zeros((), device=device), torch.zeros((), device=device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.muon_rate if "shape" in group else self.rate
        self.replay = self._captured() if cuda else self._step
        self.log: Log | None = None

    def __call__(self, **inputs: Any) -> Any:
        """The model as it is, as an engine answers."""
        return self.module(**inputs)

    def _step(self) -> None:
        """Step number ``at``, and the next one."""
        s, at = self.job.train, self.at
        rate = self.rates.index_select(0, at)[0]
        self.rate.copy_(rate)
        self.muon_rate.copy_(rate * (s.muon_learning_rate / s.learning_rate))
        parts = self.batches.index_select(0, at)[0].long().split(s.micro_batch)
        total = torch.zeros((), device=at.device)
        for ids in parts:
            loss = next_token_loss(self, ids, None) / len(parts)
            loss.backward()
            total = total + loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), s.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.losses.index_copy_(0, at, total[None])
        self.norms.index_copy_(0, at, norm[None])
        self.at += 1

    def _captured(self) -> Any:
        weights = [p.detach().clone() for p in self.module.parameters()]
        assert self.stream is not None
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(min(WARM_UP, self.job.train.steps)):
                self._step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # thread_local: whatever else asks the device about its own events must not end the capture
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            self._step()
        with torch.no_grad():
            for p, start in zip(self.module.parameters(), weights, strict=True):
                p.copy_(start)
            for state in self.optimizer.state.values():
                for tensor in state.values():
                    tensor.zero_()
            self.at.zero_()
        torch.cuda.synchronize()
        return graph.replay

    def launch(self, steps: int) -> None:
        """The next steps; on a GPU they run when it comes to them."""
        with torch.cuda.stream(self.stream) if self.stream else nullcontext():
            for _ in range(steps):
                self.replay()

    def write(self, steps: range, seconds: float) -> None:
        """Losses of finished ``steps`` to the log, ``seconds`` each."""
        losses, norms = (found[steps.start : steps.stop].tolist() for found in (self.losses, self.norms))
        assert self.log is not None
        for step, loss, norm in zip(steps, losses, norms, strict=True):
            stop_if_not_finite(self.job, self.order, step, loss, norm, None)
            self.log.step(step + 1, loss, norm, learning_rate(self.job.train, step), seconds, 0.0)

    def publish(self, name: str, step: int) -> Facts:
        """Export the model as it is behind ``step`` to ``out/name``."""
        facts = describe(self.job, self, self.order, step)
        facts["together"] = True
        probe = self.batches[0, :1, :-1].long()
        tokenizer = Path(self.job.tokens) / "tokenizer"
        facts["logits_difference"] = export(
            self, Path(self.job.out) / name, tokenizer, model_card(facts), probe
        )
        return facts

    @property
    def validated(self) -> range:
        """Steps behind which it is validated on the way."""
        every, steps = self.job.train.validate_every_steps, self.job.train.steps
        return range(every or steps, steps, every or steps)

    def validate(self, step: int) -> None:
        """Loss and bits of held-out text behind ``step``, to the log."""
        job, log = self.job, self.log
        heldout = heldout_windows(
            Path(job.tokens), job.train.context, self.end_token, job.train.validate_tokens
        )
        assert log is not None  # as of every training that has taken its steps
        log.tracker.log(validate(self, heldout, 32, None, job.device), step)

    def end(self) -> None:
        """What :func:`repro.pretrain.loop.train` leaves behind its last step."""
        job, out, log = self.job, Path(self.job.out), self.log
        assert log is not None
        self.validate(job.train.steps)
        facts = self.publish("model", job.train.steps)
        log.tracker.finish(facts)
        facts["reads"] = write_reads(out / "reads.parquet", Path(job.tokens), self.order, facts["tokens"])
        (out / NOT_FINITE).unlink(missing_ok=True)
        write_json(out / FACTS, facts)
        log.close()


def train(jobs: Sequence[Job]) -> None:
    """Train what of ``jobs`` is not finished, so that each ``job.out`` is whole. All are for one device.

    Raises :class:`SettingError` for what cannot be trained so, and when a training diverges, once all others
    are whole.
    """
    left = [job for job in jobs if not finished(job)]
    if left and not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    failed: list[SettingError] = []
    for first in range(0, len(left), STREAMS):
        with ExitStack() as locks:
            group = [job for job in left[first : first + STREAMS] if _mine(job, locks)]
            with torch.cuda.device(left[0].device) if left[0].device != "cpu" else nullcontext():
                failed += _side_by_side([Training(job) for job in group])
    if failed:
        raise failed[0]


def _mine(job: Job, locks: ExitStack) -> bool:
    """Whether no other process is at this training; the lock is held as long as ``locks`` are."""
    Path(job.out).mkdir(parents=True, exist_ok=True)
    try:
        locks.enter_context(only_run_in(Path(job.out)))
    except SettingError as error:
        print(f"left out: {error}", file=sys.stderr, flush=True)
        return False
    return True


def _side_by_side(trainings: list[Training]) -> list[SettingError]:
    """Train them to their end; returns why some did not reach it."""
    failed: dict[int, SettingError] = {}
    if not trainings:
        return []
    for training in trainings:
        for name in LOGS:
            (Path(training.job.out) / name).unlink(missing_ok=True)
        training.log = Log(training.job, training.order, 0)
    longest = max(training.job.train.steps for training in trainings)
    stops = {step for t in trainings for step in (*t.job.train.kept_steps, *t.validated, t.job.train.steps)}
    marks = sorted({*range(0, longest, CHUNK), *stops})
    total = sum(t.job.train.steps * t.job.train.batch_tokens for t in trainings)
    with progress(total, "tokens", f"{len(trainings)} trainings together") as bar:
        for start, stop in zip(marks, marks[1:], strict=False):
            began = time.perf_counter()
            running = [t for t in trainings if t.job.train.steps > start and id(t) not in failed]
            for training in running:
                training.launch(stop - start)
            if trainings[0].stream:
                torch.cuda.synchronize()
            seconds = (time.perf_counter() - began) / (stop - start)
            for training in running:
                bar.update((stop - start) * training.job.train.batch_tokens)
                try:
                    training.write(range(start, stop), seconds)
                except SettingError as error:  # it diverged; the others go on
                    print(f"failed: {error}", file=sys.stderr, flush=True)
                    failed[id(training)] = error
                    continue
                if stop in training.validated:
                    training.validate(stop)
                if stop in training.job.train.kept_steps:
                    training.publish(f"models/{stop * training.job.train.batch_tokens}", stop)
                if stop == training.job.train.steps:
                    training.end()
    return list(failed.values())
