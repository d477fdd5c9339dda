"""Scoring shards in this process, or in several: one per device. A killed worker costs the shards it was
at.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from repro.device import cores, gpu_count
from repro.errors import SettingError, require
from repro.execution.processes import interrupts_held, leave_with_parent
from repro.influence import feeding
from repro.influence.claiming import Worker
from repro.influence.claims import Board, Closed
from repro.influence.feeding import Feed
from repro.influence.loop import LOOK_SECONDS, Loop
from repro.influence.scorer import PADDING, Scorer
from repro.influence.settings import Score
from repro.store import Context

SETS = 4  # of heads in one pass: more of them save little, and each needs memory for its rows
HeadSet = tuple[tuple[int, int], ...]  # (layer, head)


@dataclass(frozen=True)
class Job:
    """What a worker needs to build its scorer; plain values, so that it can be sent anywhere."""

    model: str
    heads: HeadSet
    dtype: str
    mask: str
    window: int
    max_tokens: int | None
    tokens_per_batch: int
    device: str
    threads: int
    means: str | None = None
    sample: float = 1.0  # of the documents that are scored
    padding: float = PADDING
    tokenizers: int | None = None  # beside each device; None = as feeding.automatic says
    # further sets of heads, each with the unfinished stage that its scores go to
    others: tuple[tuple[str, HeadSet], ...] = ()

    @staticmethod
    def of(s: Score, dtype: str, context: Context) -> Job:
        """The job of a stage."""
        from repro.heads.stage import read

        heads = tuple(read(context.inputs["heads"])["selected"])
        model = str(context.inputs["proxy"] / "model")
        return Job(
            model,
            heads,
            dtype,
            s.mask,
            s.window,
            s.max_tokens,
            s.tokens_per_batch,
            context.device,
            s.threads,
            sample=s.sample,
            padding=s.padding,
            tokenizers=s.tokenizers,
        )


def scorer(job: Job, device: str | None = None) -> Scorer:
    """The scorer of a job, on ``device`` if another than the job's."""
    from safetensors.torch import load_file

    from repro.proxy.load import load

    means = load_file(job.means)["means"] if job.means else None
    proxy = load(job.model, job.dtype, device or job.device)
    return Scorer(
        proxy,
        job.heads,
        job.window,
        job.max_tokens,
        job.tokens_per_batch,
        job.mask,
        means,
        job.padding,
        [heads for _, heads in job.others],
    )


def work(
    partial: Path, job: Job, device: str | None = None, advance: Callable[[], None] | None = None
) -> int:
    """Score shards of the scoring in ``partial`` until none is left, wherever it is scored; returns how many
    were scored here.

    A shard that cannot be scored is left to a later try. ``advance`` is called whenever something was done,
    and while this waits for shards that others are at. A worker that can score nothing raises what it last
    met.
    """
    at = device or job.device
    count = feeding.automatic(job.device, cores()) if job.tokenizers is None else job.tokenizers
    with Worker(partial, at) as worker, threads(job), Feed(job.model, count) as feed:
        others = [Path(folder) / "scores" for folder, _ in job.others]
        loop = Loop(worker, feed, lambda: scorer(job, at), job.sample, advance or (lambda: None), others)
        with suppress(Closed):
            loop.run()
    return loop.scored


def score_all(partial: Path, job: Job, processes: int, advance: Callable[[], None]) -> None:
    """Score what is left of the scoring in ``partial``, in this process or in several that claim shards from
    one another and from other machines; each file is a function of its shard alone.

    A worker that is killed is started again, as long as something was finished since. ``advance`` is called
    now and then.
    """
    board = Board(partial)
    count = min(len(board.job["tokens"]), processes or automatic(job))
    if count <= 1:
        work(partial, job, advance=advance)
        return
    context = get_context("spawn")
    failures = context.SimpleQueue()

    def start(rank: int) -> Any:
        # workers inherit it from their first moment, long before they run anything of ours
        with interrupts_held():
            process = context.Process(target=_process, args=(str(partial), job, rank, failures))
            process.start()
        return process

    others = set(active_children())
    try:
        finished, killed = len(board.look().finished), 0
        running = {rank: start(rank) for rank in range(count)}
        while running:
            wait([process.sentinel for process in running.values()], timeout=LOOK_SECONDS)
            advance()
            for rank, process in list(running.items()):
                if process.is_alive():
                    continue
                process.join()
                del running[rank]
                if not failures.empty():
                    raise failures.get()
                if process.exitcode == 0:
                    continue
                now = len(board.look().finished)
                killed = killed + 1 if now == finished else 1
                finished = now
                require(
                    killed <= count,
                    "scoring processes were killed before any of them finished a shard (out of memory?);"
                    " lower score.processes or score.tokens_per_batch",
                )
                running[rank] = start(rank)
    except Closed:
        pass
    finally:
        for process in set(active_children()) - others:  # an interrupt may come between a start and its note
            process.kill()
            process.join()


def automatic(job: Job) -> int:
    """One process per GPU of the device, or per CPU core as far as half the memory reaches."""
    if gpus := gpu_count(job.device):
        return gpus
    weights = sum(p.stat().st_size for p in Path(job.model).glob("*.safetensors"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores() // job.threads, int(memory / 2 // (2 * weights + 1e9))))


@contextmanager
def threads(job: Job) -> Iterator[None]:
    """As many CPU threads as the job says: the last bits of a product can depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(job.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _process(partial: str, job: Job, rank: int, failures: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_with_parent()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    device = f"cuda:{rank % torch.cuda.device_count()}" if job.device == "cuda" else job.device
    try:
        work(Path(partial), job, device)
    except Closed:
        pass
    except SettingError as error:
        failures.put(error)
    except Exception as error:
        failures.put(RuntimeError(f"{type(error).__name__}: {error}"))
