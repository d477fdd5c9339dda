"""The scorer: base and reference loss of every token, for less than two passes (eq. 5).

One model in memory. Below the lowest masked layer the two models are the same, so these layers run once;
there the batch is doubled, and base and reference rows go on together (:func:`repro.proxy.masking.forked`).
Windows of nearly the same length share a batch, so that almost nothing is padding; padding stands on the
right, where a causal model never looks. Which windows share a batch depends on the windows given and on
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repro.proxy import rope
from repro.proxy.load import ProxyModel

PADDING = 0.04  # of a batch may be padding


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

    def windows(self, ids: list[int]) -> list[list[int]]:
        """Non-overlapping windows, each starting with the bos where there is one; of the first ``max_tokens``
        tokens, if given.

        A last window that would predict nothing is left out.
        """
        room = self.window - len(self.proxy.prefix)
        capped = ids[: self.max_tokens]
        parts = [[*self.proxy.prefix, *capped[start : start + room]] for start in range(0, len(capped), room)]
        return [part for part in parts if len(part) > 1]

    def losses(
        self, documents: list[list[int]], advance: Callable[[int], None] | None = None
    ) -> list[list[tuple[np.ndarray, np.ndarray]]]:
        """Per document and window: base and reference loss of every predicted token, float32 nats.

        Args:
            documents: token ids of each.
            advance: called with the number of tokens fed after every batch.
        """
        windows = [
            (d, w, ids)
            for d, document in enumerate(documents)
            for w, ids in enumerate(self.windows(document))
        ]
        found: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        padding = 0.0 if rope.alone(self.proxy.model) else PADDING
        for batch in batches([len(ids) for _, _, ids in windows], self.tokens_per_batch, padding):
            rows = [windows[i] for i in batch]
            base, reference = self.batch_losses([ids for _, _, ids in rows])
            for (d, w, _), one, other in zip(rows, base, reference, strict=True):
                found[d, w] = (one, other)
            if advance:
                advance(sum(len(ids) for _, _, ids in rows))
        counts = [len(self.windows(document)) for document in documents]
        return [[found[d, w] for w in range(count)] for d, count in enumerate(counts)]

    @torch.inference_mode()
    def batch_losses(self, rows: list[list[int]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Losses of one batch of windows, base and reference, by one forked pass where the model can."""
        ids, lengths = right_padded(rows, self.proxy.device)
        hidden = self.proxy.both(ids, self.heads, self.mask, self.means)  # [2B, T, D]
        # [B, T-1]
        predicts = torch.arange(ids.shape[1] - 1, device=ids.device)[None] < (lengths - 1)[:, None]
        targets = ids[:, 1:][predicts]
        both = self.proxy.losses(hidden[:, :-1][predicts.repeat(2, 1)], targets.repeat(2)).cpu().numpy()
        ends = np.cumsum((lengths - 1).cpu().numpy())[:-1]
        return np.split(both[: len(targets)], ends), np.split(both[len(targets) :], ends)


def right_padded(rows: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids [B, T] padded with 0 on the right, and lengths [B]."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids.to(device), lengths.to(device)


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
