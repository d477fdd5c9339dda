"""Scoring shards in this process, or in several: one per device. A killed worker costs the shard it was at."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

from repro.config import Score, SettingError
from repro.device import cores
from repro.influence.scorer import Scorer
from repro.influence.shards import score_shard
from repro.processes import interrupts_held, leave_with_parent
from repro.store import Context


@dataclass(frozen=True)
class Job:
    """What a worker needs to build its scorer; plain values, so that it can be sent anywhere."""

    model: str
    heads: tuple[tuple[int, int], ...]
    dtype: str
    mask: str
    window: int
    max_tokens: int | None
    tokens_per_batch: int
    device: str
    threads: int
    means: str | None = None

    @staticmethod
    def of(s: Score, dtype: str, context: Context) -> Job:
        """The job of a stage."""
        from repro.heads.stage import read

        heads = tuple(read(context.inputs["heads"])["selected"])
        model = str(context.inputs["proxy"] / "model")
        return Job(model, heads, dtype, s.mask, s.window, s.max_tokens, s.tokens_per_batch, context.device, s.threads)


def scorer(job: Job, device: str | None = None) -> Scorer:
    """The scorer of a job, on ``device`` if another than the job's."""
    from safetensors.torch import load_file

    from repro.proxy.load import load

    means = load_file(job.means)["means"] if job.means else None
    proxy = load(job.model, job.dtype, device or job.device)
    return Scorer(proxy, job.heads, job.window, job.max_tokens, job.tokens_per_batch, job.mask, means)


def score_all(job: Job, sources: list[Path], folder: Path, processes: int, advance: Callable[[int], None]) -> None:
    """Score ``sources`` into ``folder``; each file is a function of its shard alone, whatever ``processes`` is.

    A worker that is killed breaks the pool: the shards that were not finished are given to a new one, as long as every
    pool finishes something. ``advance`` is called with numbers of tokens.
    """
    count = min(len(sources), processes or automatic(job))
    if count <= 1:
        with threads(job):
            worker = scorer(job)
            for source in sources:
                score_shard(worker, source, folder / source.name, advance)
        return
    todo = list(sources)
    while todo:
        done = _score_in_pool(job, todo, folder, min(count, len(todo)), advance)
        if not done:
            raise SettingError(
                "scoring processes were killed before any of them finished a shard (out of memory?); lower score.processes "
                "or score.tokens_per_batch"
            )
        todo = [source for source in todo if source not in done]


def automatic(job: Job) -> int:
    """One process per GPU, or per CPU core as far as half the memory reaches."""
    import torch

    if job.device.startswith("cuda"):
        return torch.cuda.device_count()
    weights = sum(p.stat().st_size for p in Path(job.model).glob("*.safetensors"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores() // job.threads, int(memory / 2 // (2 * weights + 1e9))))


def _score_in_pool(job: Job, sources: list[Path], folder: Path, processes: int, advance: Callable[[int], None]) -> set[Path]:
    """The shards that one pool of workers finished; all of them unless a worker was killed.

    An interrupt reaches this process alone, which then ends the workers at once: what they are at is lost, what they
    finished is kept.
    """
    context = get_context("spawn")
    ranks, tokens = context.Value("i", 0), context.Value("q", 0)
    others = set(active_children())
    done: set[Path] = set()
    told = 0
    with ProcessPoolExecutor(processes, context, initializer=_start_worker, initargs=(job, ranks, tokens)) as pool:
        try:
            with interrupts_held():  # workers inherit it from their first moment, long before they run anything of ours
                running = {pool.submit(_score_one, str(source), str(folder / source.name)): source for source in sources}
            waiting = set(running)
            while waiting:
                finished, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                    done.add(running[future])
                now = tokens.value
                advance(now - told)
                told = now
        except BrokenProcessPool:
            pass
        except BaseException:
            for worker in set(active_children()) - others:
                worker.kill()
            raise
    return done


@contextmanager
def threads(job: Job) -> Iterator[None]:
    """As many CPU threads as the job says: the last bits of a product can depend on their number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(job.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_scorer: Scorer | None = None
_tokens: Any = None


def _start_worker(job: Job, ranks: Any, tokens: Any) -> None:
    global _scorer, _tokens
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_with_parent()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(job.threads)
    device = job.device
    if device == "cuda":
        with ranks.get_lock():
            rank, ranks.value = ranks.value, ranks.value + 1
        device = f"cuda:{rank % torch.cuda.device_count()}"
    _scorer, _tokens = scorer(job, device), tokens


def _score_one(source: str, target: str) -> None:
    def advance(tokens: int) -> None:
        with _tokens.get_lock():
            _tokens.value += tokens

    assert _scorer is not None
    score_shard(_scorer, Path(source), Path(target), advance)
