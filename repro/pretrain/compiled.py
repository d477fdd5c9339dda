"""What compiling gains most by on a CPU: attention as matrix products.

torch's fused attention takes a quarter of a step there, most of it backwards, and the compiler cannot look
inside. Written out in blocks of rows, each over no more than the columns it may see, its softmax is fused and
its products run as fast as any others. What that gains is in results/benchmarks/training_compiled_cpu.md.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.modeling_llama import repeat_kv

NAME = "causal_blocks"
ROWS = 256  # of a block: fewer save more of what is masked anyway, and take longer to compile


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: None,
    **named: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it: in blocks where it is compiled. What is computed without
    (validation, the check of an exported model) is torch's own, as in the model that is loaded again.
    """
    if not torch.compiler.is_compiling():
        return sdpa_attention_forward(module, query, key, value, mask, **named)
    return blocks(query, key, value, named["scaling"]), None


def blocks(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """Causal softmax attention of query [B, H, T, D], key and value [B, KV, T, D]; returns [B, T, H, D].

    For whole sequences without a mask or dropout; the softmax is float32.
    """
    groups, length = query.shape[1] // key.shape[1], query.shape[2]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    mixed = []
    for first in range(0, length, ROWS):
        last = min(first + ROWS, length)
        logits = (query[:, :, first:last] * scaling) @ key[:, :, :last].transpose(-1, -2)
        seen = torch.ones(last - first, last, dtype=torch.bool, device=query.device).tril(first)
        weights = logits.float().masked_fill(~seen, -torch.inf).softmax(-1).to(query.dtype)
        mixed.append(weights @ value[:, :, :last])
    return torch.cat(mixed, 2).transpose(1, 2).contiguous()


AttentionInterface.register(NAME, attention)


def compile_network(network: PreTrainedModel, device: str, packed: bool) -> None:
    """Compile ``network`` in place. ``packed``: attention stays inside documents, which needs torch's own."""
    if device == "cpu" and not packed and network.config.model_type == "llama":
        network.set_attn_implementation(NAME)
    network.compile(dynamic=False)
