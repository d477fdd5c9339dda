"""Documents are read and tokenised ahead of the model and results written behind it, so that the model never
waits: beside a GPU in processes of their own and threads, beside a CPU in the scoring process itself, whose
cores have better to do.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from multiprocessing import active_children, get_context
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import pyarrow as pa

from repro.device import gpu_count
from repro.errors import require
from repro.execution.processes import interrupts_held, leave_with_parent
from repro.influence import shards
from repro.influence.shards import Shard
from repro.pretrained import Encoder, load_tokenizer
from repro.store import sha256_file

if TYPE_CHECKING:
    from types import TracebackType

    from repro.influence.scorer import Losses

PART = 64  # documents that one process tokenises at once
AHEAD = 2  # shards that are read while the model is at another
MOST = 8  # tokenizers beside one device

P = ParamSpec("P")
T = TypeVar("T")
Encode = Callable[[list[str]], list[list[int]]]


class AtOnce(Executor):
    """An executor that does what it is given before it answers, in this very thread."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """``fn``, done."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Feed:
    """What reads shards for one model and finishes their scores. Used in ``with``: its processes end with the
    block, however that ends, and with this process.

    Args:
        model: folder whose tokenizer is used.
        tokenizers: processes; 0 = none, all is done in this one.
    """

    def __init__(self, model: str, tokenizers: int) -> None:
        self.ahead = AHEAD if tokenizers else 0
        self._encode: Encode = partial(_encoded, model)
        self._tokenizers = tokenizers
        self._others = set(active_children())
        self._threads: Executor = ThreadPoolExecutor(AHEAD + 1) if tokenizers else AtOnce()
        self._changing, self._left = Lock(), False
        self._pool = self._started()

    def _started(self) -> Executor:
        if not self._tokenizers:
            return AtOnce()
        pool = ProcessPoolExecutor(self._tokenizers, get_context("spawn"), _begin)
        with interrupts_held():
            for _ in range(self._tokenizers):
                pool.submit(_nothing)
        return pool

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changing:  # a reader must not start others now
            self._left = True
        ending = set(active_children()) - self._others
        for process in ending:
            process.kill()
        for process in ending:
            process.join()
        self._pool.shutdown(wait=kind is None, cancel_futures=True)
        self._threads.shutdown(wait=kind is None, cancel_futures=True)

    def encode_here(self, encode: Encode) -> None:
        """The tokenizer that this process has loaded is used where it has no others."""
        if not self._tokenizers:
            self._encode = encode

    def read(self, source: Path, sha256: str, sample: float) -> Future[Shard]:
        """The documents of ``source``; a :class:`SettingError` where it has another sha256."""
        return self._threads.submit(self._read, source, sha256, sample)

    def _read(self, source: Path, sha256: str, sample: float) -> Shard:
        require(sha256_file(source) == sha256, f"{source.name} changed since the scoring began")
        rows, texts = shards.documents(source)
        parts = [
            self._submit(shards.measured, self._encode, rows[at : at + PART], texts[at : at + PART], sample)
            for at in range(0, len(rows), PART)
        ]
        return shards.collected(sha256, (part.result() for part in parts))

    def finish(self, shard: Shard, losses: list[Losses], sets: int = 1) -> Future[list[bytes]]:
        """The file of scores of a shard for each of ``sets`` of heads: in a thread, since its losses are as
        long as its texts.
        """
        return self._threads.submit(_files, shard, losses, sets)

    def _submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        pool = self._pool
        try:
            return pool.submit(fn, *args, **kwargs)
        except BrokenProcessPool:  # a process was killed: what it was at has failed, the rest goes on
            with self._changing:
                if self._left:
                    raise
                if self._pool is pool:  # no other reader was faster
                    self._pool = self._started()
            return self._pool.submit(fn, *args, **kwargs)


def automatic(device: str, cores: int) -> int:
    """Tokenizers beside each model of a scoring on ``device``: beside a GPU its share of the cores but for
    the one that drives it.
    """
    gpus = gpu_count(device)
    return min(MOST, max(1, cores // gpus - 1)) if gpus else 0


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    leave_with_parent()


def _nothing() -> None:
    """What a process is started with."""


@cache
def _encoder(model: str) -> Encode:
    return Encoder(load_tokenizer(model, local_files_only=True))


def _encoded(model: str, texts: list[str]) -> list[list[int]]:
    return _encoder(model)(texts)


def _files(shard: Shard, losses: list[Losses], sets: int) -> list[bytes]:
    files = []
    for at in range(1, 1 + sets):
        sink = pa.BufferOutputStream()
        pairs: list[Losses] = [[(window[0], window[at]) for window in windows] for windows in losses]
        shards.write(shards.scored(shard, pairs), sink)
        files.append(sink.getvalue().to_pybytes())
    return files
