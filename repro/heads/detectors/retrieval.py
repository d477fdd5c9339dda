"""The paper's detector, after Wu et al. (arXiv 2404.15574): share of the needle's tokens that a head copies.

At the row that predicts answer token w, one BEFORE w, the head copies if the position it attends to most
holds w.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.heads.detectors import PROBES, Measurement
from repro.heads.settings import Heads

if TYPE_CHECKING:
    from repro.heads.probes import Probe
    from repro.proxy.load import ProxyModel

READS = (*PROBES, "match", "decoding")


def detect(proxy: ProxyModel, probe: Probe, s: Heads) -> Measurement:
    """Retrieval score of every head on one probe (section 4.1): copied needle tokens / needle tokens."""
    import numpy as np
    import torch

    from repro.heads import attention

    answer = probe.needle if s.decoding == "teacher_forcing" else attention.greedy(proxy, probe)
    ids = [*probe.ids[: probe.answer_start], *answer]
    rows = list(range(probe.answer_start - 1, len(ids) - 1))
    # [L, H, R]
    positions, hidden = attention.attention_rows(proxy, ids, rows, lambda scores: scores.argmax(-1))
    tokens = torch.tensor(ids, device=positions.device)
    copied = tokens[positions] == torch.tensor(answer, device=positions.device)
    needle = set(probe.needle)
    copied &= torch.tensor([token in needle for token in answer], device=positions.device)
    start, length = probe.needle_start, len(probe.needle)
    if s.match == "needle":
        inside = copied & (positions >= start) & (positions < start + length)
        # A needle position counts once, however many rows attend to it.
        seen = torch.zeros(*positions.shape[:2], length + 1, dtype=torch.bool, device=positions.device)
        seen.scatter_(2, torch.where(inside, positions - start, length), True)
        counts = seen[..., :length].sum(-1)
    else:
        counts = copied.sum(-1)
    accuracy, loss = attention.quality(proxy, hidden, answer, probe.needle)
    return Measurement((counts / length).clamp(max=1).cpu().numpy().astype(np.float64), accuracy, loss)
