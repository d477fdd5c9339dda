"""The scorer: base and reference loss of every token, for less than two passes (eq. 5).

One model in memory. Below the lowest masked layer the two models are the same, so these layers run once;
there the batch is doubled, and base and reference rows go on together (:func:`repro.proxy.masking.forked`).
Several sets of heads share the base model, each the layers below its own lowest.
Windows of nearly the same length share a batch, so that almost nothing is padding; padding stands on the
right, where a causal model never looks. Which windows share a batch depends on the windows given and on
nothing else. A batch is laid out and started while the device is still at the one before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repro.errors import require
from repro.proxy import rope
from repro.proxy.load import ProxyModel

PADDING = 0.04  # of a batch may be padding
Tokens = list[int] | np.ndarray
# Of a document's windows: base and reference; where there are other sets of heads, a reference for each.
Losses = list[tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Started:
    """A batch that the device is at: base losses, then those of each set of heads, [(1 + k) N], and how many
    of each row.
    """

    losses: Tensor
    predicted: np.ndarray  # [B], N in all
    ready: torch.cuda.Event | None  # when the losses have come from a GPU


@dataclass
class Scorer:
    """A proxy, the heads to mask and how to cut documents."""

    proxy: ProxyModel
    heads: Sequence[tuple[int, int]]
    window: int = 1024
    max_tokens: int | None = None  # of a document; the rest is not scored
    tokens_per_batch: int = 4096
    mask: str = "uniform"
    means: Tensor | None = None  # mask=mean: [layers, heads, head_dim]
    padding: float = PADDING
    others: Sequence[Sequence[tuple[int, int]]] = ()  # further sets of heads, each a model of its own

    def __post_init__(self) -> None:
        prefix = len(self.proxy.prefix)
        require(
            self.window > prefix,
            f"score.window={self.window} has no room for text behind the {prefix} tokens that every text of"
            " this model begins with; raise score.window",
        )

    def windows(self, ids: Tokens) -> list[Tokens]:
        """Non-overlapping windows, each starting with the prefix where there is one; of the first
        ``max_tokens`` tokens, if given.

        A last window that would predict nothing is left out.
        """
        prefix = self.proxy.prefix
        room = self.window - len(prefix)
        capped = ids[: self.max_tokens]
        parts = [_led(prefix, capped[start : start + room]) for start in range(0, len(capped), room)]
        return [part for part in parts if len(part) > 1]

    def losses(
        self, documents: Sequence[Tokens], advance: Callable[[int], None] | None = None
    ) -> list[Losses]:
        """Per document and window: base and reference loss of every predicted token, float32 nats, and then
        those of ``others``.

        Args:
            documents: token ids of each.
            advance: called with the number of tokens fed after every batch.
        """
        cut = [self.windows(document) for document in documents]
        windows = [(d, w, ids) for d, parts in enumerate(cut) for w, ids in enumerate(parts)]
        found: dict[tuple[int, int], tuple[np.ndarray, ...]] = {}

        def take(rows: list[tuple[int, int, Tokens]], started: Started) -> None:
            for (d, w, _), *losses in zip(rows, *self.finish(started), strict=True):
                found[d, w] = tuple(losses)
            if advance:
                advance(sum(len(ids) for _, _, ids in rows))

        before: tuple[list[tuple[int, int, Tokens]], Started] | None = None
        padding = 0.0 if rope.alone(self.proxy.model) else self.padding
        for batch in batches([len(ids) for _, _, ids in windows], self.tokens_per_batch, padding):
            rows = [windows[i] for i in batch]
            started = self.start([ids for _, _, ids in rows])
            if before is not None:
                take(*before)
            before = rows, started
        if before is not None:
            take(*before)
        return [[found[d, w] for w in range(len(parts))] for d, parts in enumerate(cut)]

    @torch.inference_mode()
    def start(self, rows: Sequence[Tokens]) -> Started:
        """Begin a batch of windows, by one forked pass where the model can; nothing here waits for a GPU."""
        device = self.proxy.device
        padded, lengths = laid_out(rows)
        lead, place = self.proxy.lead, np.arange(padded.shape[1])[None]
        # [B, T]: the next token is one of the text
        within = (place >= lead - 1) & (place < (lengths - 1)[:, None])
        at = torch.from_numpy(np.flatnonzero(within))
        ids, at = _on(torch.from_numpy(padded), device), _on(at, device)
        hidden = self.proxy.each(ids, [self.heads, *self.others], self.mask, self.means).flatten(1, 2)
        targets = ids.flatten()[at + 1].repeat(len(hidden))
        losses = self.proxy.losses(hidden[:, at].flatten(0, 1), targets)
        if device.type != "cuda":
            return Started(losses, lengths - lead, None)
        here = torch.empty(losses.shape, dtype=losses.dtype, pin_memory=True).copy_(losses, non_blocking=True)
        ready = torch.cuda.Event()
        ready.record()
        return Started(here, lengths - lead, ready)

    def finish(self, started: Started) -> list[list[np.ndarray]]:
        """Base losses of each row of a batch that was begun, then those of each set of heads."""
        if started.ready is not None:
            started.ready.synchronize()
        every, ends = started.losses.numpy(), np.cumsum(started.predicted)[:-1]
        return [np.split(part, ends) for part in np.split(every, 2 + len(self.others))]


def _led(prefix: list[int], part: Tokens) -> Tokens:
    if not prefix:
        return part
    return np.concatenate([prefix, part]) if isinstance(part, np.ndarray) else [*prefix, *part]


def _on(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def laid_out(rows: Sequence[Tokens]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [B, T] padded with 0 on the right, and lengths [B]."""
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return ids, lengths


def right_padded(rows: Sequence[Tokens], device: torch.device) -> tuple[Tensor, Tensor]:
    """As :func:`laid_out`, on a device."""
    ids, lengths = laid_out(rows)
    return torch.from_numpy(ids).to(device), torch.from_numpy(lengths).to(device)


def batches(lengths: list[int], tokens_per_batch: int, padding: float = PADDING) -> list[list[int]]:
    """Indices in batches: longest first, at most ``tokens_per_batch`` tokens with padding (one window at
    least), and at most the share ``padding`` of them padding.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    result: list[list[int]] = []
    tokens = 0
    for i in order:
        longest = lengths[result[-1][0]] if result else 0
        rows = len(result[-1]) + 1 if result else 0
        fits = rows * longest <= tokens_per_batch and tokens + lengths[i] >= (1 - padding) * rows * longest
        if result and fits:
            result[-1].append(i)
            tokens += lengths[i]
        else:
            result.append([i])
            tokens = lengths[i]
    return result
