"""Causal attention in blocks, for CPUs that multiply in bfloat16.

torch's own kernel for CPUs multiplies there at a quarter of the rate of a matrix product. Here query heads
that share keys stand below one another in one product, blocks end where nothing more is visible, and the
scores of a block stay in the cache. Measured on one kind of CPU, an AMD EPYC Zen 4 (avx512_bf16): 1.5 to 2
times as fast with shared keys, 1.2 times without from 512 tokens on. On CPUs with AMX: not measured.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 192  # queries of a product, those of heads that share keys together
SCORES = 1 << 18  # of a product
LONG = 512  # tokens, from which on it is faster without shared keys, too


def faster(query: Tensor, key: Tensor) -> bool:
    """Whether :func:`attention` is for these, [B, H, T, D] and [B, H_kv, T, D]: bfloat16 on a CPU."""
    return (
        query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and 1 < query.shape[2] == key.shape[2]
        and (query.shape[1] > key.shape[1] or query.shape[2] >= LONG)
    )


def attention(query: Tensor, key: Tensor, value: Tensor, scaling: float | None = None) -> Tensor:
    """softmax(scaling * query key^T) value over the positions up to each query's own.

    Args:
        query: [B, H, T, D].
        key: [B, H_kv, T, D]; H is a multiple of H_kv.
        value: [B, H_kv, T, E].
        scaling: absent = 1 / sqrt(D).

    Returns:
        [B, T, H, E]. Scores and weights are rounded to the dtype of ``query``, the softmax is not.
    """
    batch, heads, length, depth = query.shape
    groups, sharing = key.shape[1], heads // key.shape[1]
    queries = (query * (depth**-0.5 if scaling is None else scaling)).reshape(-1, sharing, length, depth)
    keys = key.reshape(-1, length, depth).transpose(1, 2)
    values = value.reshape(-1, length, value.shape[-1])
    output = query.new_empty(batch * groups, length, sharing, value.shape[-1])
    block = min(length, max(32, ROWS // sharing // 32 * 32))
    later = torch.ones(block, block, dtype=torch.bool, device=query.device).triu(1)
    for start in range(0, length, block):
        end = min(length, start + block)
        n = end - start
        together = max(1, SCORES // (sharing * n * end))
        for first in range(0, batch * groups, together):
            own = slice(first, first + together)
            rows = queries[own, :, start:end].reshape(-1, sharing * n, depth)
            scores = torch.bmm(rows, keys[own, :, :end])
            scores.view(-1, sharing, n, end)[..., start:].masked_fill_(later[:n, :n], float("-inf"))
            found = torch.bmm(torch.softmax(scores, -1), values[own, :end])
            output[own, start:end] = found.view(-1, sharing, n, value.shape[-1]).transpose(1, 2)
    return output.view(batch, groups, length, sharing, -1).transpose(1, 2).flatten(2, 3)
