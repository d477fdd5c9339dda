"""Cross-entropy per token without the full logits (eq. 5 needs two of them per document)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

# Logits that exist at one time. On the CPU 25 MB in float32: allocations above 32 MB go back to the system
# every time.
CHUNK_LOGITS = {"cpu": 6 << 20, "cuda": 1 << 27}


def token_losses(
    hidden: Tensor, head: nn.Module, targets: Tensor, scale: float = 1.0, softcap: float | None = None
) -> Tensor:
    """Negative log-likelihood of each target, in nats.

    Args:
        hidden: [N, D] last hidden states, each at the position BEFORE its target.
        head: output embedding, [N, D] -> [N, V].
        targets: [N] token ids.
        scale: the logits are multiplied by it (Granite, Cohere).
        softcap: of the final logits (Gemma 2 and 3 configurations have one).

    Returns:
        [N] float32. The product runs in the dtype of ``hidden``, the reduction over V in float32.
    """
    vocabulary = cast(Tensor, head.weight).shape[0]
    rows = max(32, CHUNK_LOGITS.get(hidden.device.type, CHUNK_LOGITS["cpu"]) // vocabulary)
    losses = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
    for start in range(0, len(targets), rows):
        part = slice(start, start + rows)
        logits = head(hidden[part]).float()
        if scale != 1:
            logits *= scale
        if softcap is not None:
            logits = torch.tanh(logits / softcap) * softcap
        losses[part] = nn.functional.cross_entropy(logits, targets[part], reduction="none")
    return losses
