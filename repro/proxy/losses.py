"""Cross-entropy per token without the full logits (eq. 5 needs two of them per document)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

CHUNK_LOGITS = 1 << 27  # that exist at one time on a GPU
# Of a block of logits on a CPU: what is done with it happens in the cache, and the output embedding comes
# from memory once for so many rows.
ROWS, COLUMNS = 512, 2048
NONE = -1e30  # below any logit, and finite: a whole block may hold minus infinity
LOG2_E = math.log2(math.e)  # torch's exp2 took a third of the time of its exp on an AMD EPYC


def token_losses(
    hidden: Tensor, head: nn.Module, targets: Tensor, scale: float = 1.0, softcap: float | None = None
) -> Tensor:
    """Negative log-likelihood of each target, in nats.

    Args:
        hidden: [N, D] last hidden states, each at the position BEFORE its target.
        head: output embedding, a linear layer [N, D] -> [N, V].
        targets: [N] token ids.
        scale: the logits are multiplied by it (Granite, Cohere).
        softcap: of the final logits (Gemma 2 and 3 configurations have one).

    Returns:
        [N] float32. The product runs in the dtype of ``hidden``, the reduction over V in float32. In 16 bits
        the product begins at minus the target's own logit: a loss is made of differences from it, and what
        is rounded then is a difference of some nats and no logit of 20 (a tenth of the error).
    """
    weight, bias = cast(Tensor, head.weight), cast("Tensor | None", head.bias)
    vocabulary = len(weight)
    if hidden.device.type == "cpu":
        rows, columns = ROWS, COLUMNS
    else:
        rows, columns = max(32, CHUNK_LOGITS // vocabulary), vocabulary
    losses = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
    relative = hidden.dtype.itemsize < 4 and bias is None and softcap is None

    def logits(rows: Tensor, own: slice, start: Tensor | None) -> Tensor:
        if start is None:
            found = nn.functional.linear(rows, weight[own], None if bias is None else bias[own]).float()
        else:
            found = torch.addmm(start.expand(-1, own.stop - own.start), rows, weight[own].T).float()
        if scale != 1:
            found *= scale
        return found if softcap is None else torch.tanh(found / softcap) * softcap

    owns = [slice(first, min(first + columns, vocabulary)) for first in range(0, vocabulary, columns)]
    for first in range(0, len(targets), rows):
        part = slice(first, first + rows)
        own_hidden, own_targets, start = hidden[part], targets[part], None
        if relative:
            chosen = (own_hidden.float() * weight[own_targets].float()).sum(-1, keepdim=True)
            start = (-chosen).to(hidden.dtype)
        blocks = ((own, logits(own_hidden, own, start)) for own in owns)
        if len(owns) == 1:
            ((_, every),) = blocks
            losses[part] = nn.functional.cross_entropy(every, own_targets, reduction="none")
        else:
            losses[part] = _in_blocks(blocks, own_targets)
    return losses


def _in_blocks(blocks: Iterable[tuple[slice, Tensor]], targets: Tensor) -> Tensor:
    """Cross-entropy [N] from logits [N, columns] that come block by block, and are used up."""
    chosen = torch.zeros(len(targets), device=targets.device)
    top = torch.full_like(chosen, NONE)  # the largest logit so far
    total = torch.zeros_like(chosen)  # of exp(logit - top)
    for own, logits in blocks:
        inside = ((targets >= own.start) & (targets < own.stop)).nonzero()[:, 0]
        chosen[inside] = logits[inside, targets[inside] - own.start]
        before, top = top, torch.maximum(top, logits.amax(-1))
        total *= torch.exp(before - top)
        total += torch.add(-LOG2_E * top[:, None], logits, alpha=LOG2_E, out=logits).exp2_().sum(-1)
    return top + total.log() - chosen
