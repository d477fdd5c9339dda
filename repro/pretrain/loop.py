"""The training: everything that happens between the first step and the exported model, in one place."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from filelock import FileLock, Timeout

from repro.errors import SettingError, require
from repro.execution.processes import Terminated, termination_noted
from repro.pretrain import checkpoint
from repro.pretrain import engine as ds
from repro.pretrain.export import export, model_card
from repro.pretrain.health import NOT_FINITE, stop_if_not_finite
from repro.pretrain.job import Facts, Job
from repro.pretrain.log import Log, write_reads
from repro.pretrain.model import build, next_token_loss
from repro.pretrain.order import TokenStream, open_stream
from repro.pretrain.schedule import decay_start, learning_rate, warmup_steps
from repro.pretrain.source import branch_point
from repro.pretrain.validate import heldout_windows, validate
from repro.schema import identity
from repro.store import digest, provenance, read_json, write_json
from repro.tracking import progress

FACTS = "training.json"  # of a training that is finished


def train(job: Job) -> Facts:
    """Train, or go on where a killed run was, until ``job.out/model`` stands. Returns facts for the manifest.

    Raises :class:`SettingError` for a selection, model or checkpoint that does not fit, and when the training
    diverges.
    """
    out, tokens = Path(job.out), Path(job.tokens)
    # killed between the end of the training and the publishing of its artifact, or trained by hand
    if finished(job):
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
        return read_json(out / FACTS)
    engine = log = None
    try:
        rank, _ = ds.join(job.device, job.train.processes)
        with only_run_in(out) if rank == 0 else contextlib.nullcontext(), ds.repeatable(job.device):
            stream = open_stream(tokens, Path(job.selection), job.seed)
            end_token = read_json(tokens / "tokens.json")["end_token"]
            engine = ds.start(build(job.model, job.train.context, end_token, job.seed), job.train, job.device)
            done, found = resume(job, engine, stream)
            log = Log(job, stream, done) if rank == 0 else None
            facts = run_steps(job, engine, stream, end_token, log, done, found)
            if log is not None:
                log.tracker.finish(facts)
                facts["reads"] = write_reads(out / "reads.parquet", tokens, stream, facts["tokens"])
                (out / NOT_FINITE).unlink(missing_ok=True)  # of an earlier attempt
                write_json(out / FACTS, facts)
                shutil.rmtree(out / "checkpoints")
            return facts
    finally:
        if log is not None:
            log.close()
        if engine is not None:
            ds.stop(engine)
        ds.leave()


def finished(job: Job) -> bool:
    """Whether the training is done, and only its facts have to be read."""
    return (Path(job.out) / FACTS).is_file()


@contextlib.contextmanager
def only_run_in(out: Path) -> Iterator[None]:
    """Refuse a second run in one folder; the lock ends with the process, however it ends."""
    lock = FileLock(out / ".training.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise SettingError(f"another process is training in {out}; wait for it or stop it first") from None
    try:
        yield
    finally:
        lock.release()
        (out / ".training.lock").unlink(missing_ok=True)


def run_steps(
    job: Job, engine: Any, stream: TokenStream, end_token: int, log: Log | None, done: int, found: Path | None
) -> Facts:
    """Steps ``done`` .. ``steps - 1`` and the export. ``found`` is the checkpoint the engine stands at; rank
    0 has a log.
    """
    s, out = job.train, Path(job.out)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    accumulation = s.batch_sequences // (s.micro_batch * ranks)
    documents_end = None if s.attend_across_documents else end_token
    heldout = heldout_windows(Path(job.tokens), s.context, end_token, s.validate_tokens)

    def sequences(step: int, micro: int) -> torch.Tensor:
        """This rank's share of a micro-batch, [micro_batch, context + 1]."""
        first = step * s.batch_sequences + (micro * ranks + rank) * s.micro_batch
        return torch.from_numpy(stream.sequences(first, s.micro_batch, s.context)).to(
            job.device, non_blocking=True
        )

    def publish(name: str, step: int) -> Facts:
        """Export the model as it is behind ``step`` to ``out/name``."""
        facts = describe(job, engine, stream, step)
        tokenizer, probe = Path(job.tokens) / "tokenizer", sequences(0, 0)[:1, :-1]
        facts["logits_difference"] = export(engine, out / name, tokenizer, model_card(facts), probe)
        return facts

    branch = decay_start(s) if s.branch_at_decay else None
    exports = {*s.kept_steps, branch}
    # Ranks that a launcher started cannot end at one step without asking one another; they go on from their
    # last checkpoint.
    noted = termination_noted() if ranks == 1 else contextlib.nullcontext(lambda: False)
    if job.model.init_from is not None and done == 0:
        publish("start", 0)  # whatever model this is: hours from now is too late to learn that it cannot be
        if rank == 0:
            shutil.rmtree(out / "start")
    with (
        progress((s.steps - done) * s.batch_tokens, "tokens", f"{job.arm}, seed {job.seed}") as bar,
        noted as ending,
    ):
        for step in range(done, s.steps):
            began, waited = time.perf_counter(), 0.0
            rate = learning_rate(s, step)
            for group in engine.optimizer.param_groups:
                group["lr"] = rate * s.muon_learning_rate / s.learning_rate if "shape" in group else rate
            loss = torch.zeros((), device=job.device)
            for micro in range(accumulation):
                asked = time.perf_counter()
                ids = sequences(step, micro)
                waited += time.perf_counter() - asked
                micro_loss = next_token_loss(engine, ids, documents_end, inside=s.compile)
                engine.backward(micro_loss)
                engine.step()  # updates the weights behind the last micro-batch only
                loss += micro_loss.detach() / accumulation
            dist.all_reduce(loss)
            loss_value, norm = loss.item() / ranks, float(engine.get_global_grad_norm())
            stop_if_not_finite(job, stream, step, loss_value, norm, found)
            finished = step + 1
            if log is not None:
                log.step(finished, loss_value, norm, rate, time.perf_counter() - began, waited)
                bar.update(s.batch_tokens)

            if finished == s.steps or (s.validate_every_steps and finished % s.validate_every_steps == 0):
                with torch.compiler.set_stance("force_eager"):  # compiling it takes longer than it does
                    bits = validate(engine, heldout, s.micro_batch, documents_end, job.device)
                if log is not None:
                    log.tracker.log(bits, finished)
            if finished in exports:
                publish(f"models/{finished * s.batch_tokens}", finished)
            if finished == branch:
                checkpoint.save(
                    engine, out / "branch", finished, setup(job, stream, ranks), out / "loss.jsonl"
                )
            ends = ending()
            if finished == s.steps or finished % s.checkpoint_every_steps == 0 or ends:
                began = time.perf_counter()
                found = checkpoint.save(engine, out / "checkpoints", finished, setup(job, stream, ranks))
                checkpoint.prune(out / "checkpoints", s.keep_checkpoints)
                if log is not None:
                    log.tracker.log({"checkpoint_seconds": time.perf_counter() - began}, finished)
            if ends:
                raise Terminated

    return publish("model", s.steps)


def setup(job: Job, stream: TokenStream, ranks: int) -> checkpoint.Setup:
    """What a run that goes on from a checkpoint must share with the one that wrote it."""
    s = job.train
    return {
        "train.processes": ranks,
        "train.zero_stage": ds.zero_stage(s),
        "train.dtype": s.dtype,
        "train.context": s.context,
        "train.batch_sequences": s.batch_sequences,
        "train.optimizer": s.optimizer,
        "train.learning_rate": s.learning_rate,
        "train.weight_decay": s.weight_decay,  # the optimizer's state brings its own, and these two
        "train.beta1": s.beta1,
        "train.beta2": s.beta2,
        "train.clip": s.clip,
        "train.attend_across_documents": s.attend_across_documents,
        "warm-up steps": warmup_steps(s),
        "model": digest(identity(job.model))[:12],
        "order of the documents": stream.identity(),
        **(
            {"train.muon_learning_rate": s.muon_learning_rate, "train.muon_momentum": s.muon_momentum}
            if s.optimizer == "muon"
            else {}
        ),
    }


def resume(job: Job, engine: Any, stream: TokenStream) -> tuple[int, Path | None]:
    """Finished steps and the checkpoint they come from: this run's newest, else the branch point, else
    none.
    """
    s, out = job.train, Path(job.out)
    shared = setup(job, stream, dist.get_world_size())
    found = checkpoint.newest(out / "checkpoints")
    if found is None and s.branch_from is not None:
        found = branch_point(Path(s.branch_from))
        wrong = checkpoint.damage(found)
        require(wrong is None, f"the branch point {found} is damaged: {wrong}; train its run again")
        if dist.get_rank() == 0:
            shutil.copyfile(found / "loss.jsonl", out / "loss.jsonl")
    done = checkpoint.restore(engine, found, shared) if found else 0
    require(
        s.branch_from is None or done <= decay_start(s) or (found is not None and found.parent.parent == out),
        f"the branch point {found} lies behind step {decay_start(s)}, where this run's decay starts; raise"
        " train.tokens or lower train.decay",
    )
    if found is not None and found.parent.parent != out:
        lost = [step * s.batch_tokens for step in s.kept_steps if step <= done]
        require(
            not lost,
            f"train.keep_at_tokens asks for models at {lost} tokens, which lie before the branch point at"
            f" {done * s.batch_tokens}; they are the former run's: leave them out",
        )
    return done, found


def describe(job: Job, engine: Any, stream: TokenStream, step: int) -> Facts:
    """Facts about the model behind ``step``, for its card and the manifest."""
    tokens = step * job.train.batch_tokens
    return {
        "arm": job.arm,
        "seed": job.seed,
        "experiment": job.group,
        "parameters": sum(getattr(p, "ds_numel", p.numel()) for p in engine.module.parameters()),
        "steps": step,
        "tokens": tokens,
        "passes": tokens / stream.per_epoch,
        "selection": Path(job.selection).name,
        "device": job.device,
        "ranks": dist.get_world_size(),
        "commit": provenance()["commit"],
    }
