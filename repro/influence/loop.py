"""One worker at a scoring: it claims shards, reads ahead, scores, and puts results in place behind it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import torch

from repro.influence.claiming import Claim, Worker
from repro.influence.claims import Closed
from repro.influence.feeding import Feed
from repro.influence.scorer import Scorer
from repro.influence.shards import Shard

LOOK_SECONDS = 0.5  # between two looks at what others are at
GIVE_UP = 5  # shards that raised, after which a worker that has scored none leaves


class Loop:
    """Shards on their way through one worker: read ahead of the model, put in place behind it."""

    def __init__(
        self,
        worker: Worker,
        feed: Feed,
        model: Callable[[], Scorer],
        sample: float,
        advance: Callable[[], None],
        others: Sequence[Path] = (),
    ) -> None:
        self.worker, self.feed, self.sample, self.advance = worker, feed, sample, advance
        self.others = others  # folders of scores, one for each further set of heads of the model
        self.load = model
        self.documents = worker.board.partial / worker.board.job["corpus"] / "documents"
        self.ahead: deque[tuple[Claim, Future[Shard]]] = deque()
        self.behind: deque[tuple[Claim, Future[list[bytes]], Sequence[Path]]] = deque()
        self.model: Scorer | None = None
        self.scored = self.raised = 0

    def run(self) -> None:
        """Until nothing is left. Raises :class:`Closed`."""
        while True:
            self._claim()
            if self.ahead:
                self._score(*self.ahead.popleft())
            elif not self.behind:
                state = self.worker.board.look()
                if not state.held and not state.free:
                    return
                self.worker.moved()
                time.sleep(LOOK_SECONDS)
            while self.behind and (self.behind[0][1].done() or not self.ahead):
                self._publish(*self.behind.popleft())
            self.advance()

    def _claim(self) -> None:
        while len(self.ahead) <= self.feed.ahead and (claim := self.worker.claim()) is not None:
            if self.model is None:  # what is wrong with the model is no shard's fault
                self.model = self.load()
                self.feed.encode_here(self.model.proxy.encode)
            expected = self.worker.board.job["digests"][claim.shard]
            self.ahead.append((claim, self.feed.read(self.documents / claim.shard, expected, self.sample)))

    def _score(self, claim: Claim, reading: Future[Shard]) -> None:
        assert self.model is not None  # there is a claim

        def fed(tokens: int) -> None:
            self.worker.moved(claim, tokens)
            self.advance()

        try:
            shard = reading.result()
            try:
                losses = self.model.losses(shard.tokens, fed)
            except torch.OutOfMemoryError:
                if not self.others:
                    raise
                # these have passes of their own, later
                self.model, self.others = replace(self.model, others=()), ()
                losses = self.model.losses(shard.tokens, fed)
            finishing = self.feed.finish(shard, losses, 1 + len(self.others))
            self.behind.append((claim, finishing, self.others))
        except Closed:
            raise
        except Exception as error:
            self._failed(claim, error)

    def _publish(self, claim: Claim, finishing: Future[list[bytes]], folders: Sequence[Path]) -> None:
        try:
            own, *further = finishing.result()
            places = [folder / claim.shard for folder in folders]
            self.scored += self.worker.publish(claim, own, list(zip(places, further, strict=True)))
        except Closed:
            raise
        except Exception as error:
            self._failed(claim, error)

    def _failed(self, claim: Claim, error: Exception) -> None:
        """A shard that cannot be scored is left to a later try, unless no shard can."""
        self.worker.failed(claim, error)
        self.raised += 1
        if self.raised >= GIVE_UP and not self.scored:
            raise error
