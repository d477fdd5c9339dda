"""The plain scorer: one window at a time, two whole passes, the library's own logits. Slow; tests compare
with it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from repro.influence.scorer import Scorer
from repro.proxy import masking


@torch.inference_mode()
def losses(scorer: Scorer, document: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per window: base and reference loss of every predicted token of one document."""
    proxy = scorer.proxy
    result = []
    for window in scorer.windows(document):
        ids = torch.tensor([window], device=proxy.device)
        base = _pass(proxy.model(input_ids=ids).logits[0], ids[0], proxy.lead)
        with masking.masked(proxy.attentions, scorer.heads, scorer.mask, scorer.means):
            reference = _pass(proxy.model(input_ids=ids).logits[0], ids[0], proxy.lead)
        result.append((base, reference))
    return result


def _pass(logits: Tensor, ids: Tensor, lead: int) -> np.ndarray:
    losses = torch.nn.functional.cross_entropy(logits[:-1].float(), ids[1:], reduction="none")
    return losses[lead - 1 :].cpu().numpy()
