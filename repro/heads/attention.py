"""What a detector sees of a model: attention scores of the rows that matter, and how well it answers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from repro.errors import SettingError
from repro.heads.probes import Probe
from repro.proxy import masking
from repro.proxy.load import ProxyModel

OUTPUT_PROJECTIONS = ("o_proj", "out_proj", "c_proj", "dense")  # of the attention module, by family


@torch.inference_mode()
def attention_rows(
    proxy: ProxyModel, ids: list[int], rows: list[int], reduce: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Run the model on ``ids`` [T] and keep, of each layer, ``reduce(scores)`` of the wanted query rows.

    ``scores`` are the attention scores before the softmax, [heads, rows, T] in float32, minus infinity where
    not visible.

    Returns:
        stacked results [layers, ...] and last hidden states at ``rows`` [rows, D].
    """
    index = {module: layer for layer, module in enumerate(proxy.attentions)}
    kept: list[Tensor] = [torch.empty(0)] * len(index)
    at = torch.tensor(rows, device=proxy.device)

    def observe(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        options: dict,
    ) -> None:
        length = key.shape[2]
        wanted = query[0, :, at].float()  # [H, R, D]
        keys = key[0].float()  # [H_kv, T, D]
        # query heads that share a key head stand side by side
        grouped = wanted.view(keys.shape[0], -1, wanted.shape[-1])
        scores = (grouped @ keys.transpose(1, 2)).view(wanted.shape[0], len(rows), length)
        if (scaling := options.get("scaling")) is not None:
            scores *= scaling
        if (softcap := options.get("softcap")) is not None:
            scores = torch.tanh(scores / softcap) * softcap
        if attention_mask is None:
            seen = torch.arange(length, device=at.device)[None] <= at[:, None]
        else:
            seen = masking.visible(attention_mask, length, length, at.device)[0, 0, at]
        kept[index[module]] = reduce(scores.masked_fill(~seen, float("-inf")))

    with masking.observed(proxy.attentions, observe):
        hidden = proxy.hidden(torch.tensor([ids], device=proxy.device))[0, at]
    return torch.stack(kept), hidden


@torch.inference_mode()
def quality(proxy: ProxyModel, hidden: Tensor, answer: list[int], needle: list[int]) -> tuple[float, float]:
    """Share of needle tokens that the model ranks first, and its mean loss on the answer."""
    targets = torch.tensor(answer, device=hidden.device)
    first = proxy.model.get_output_embeddings()(hidden).argmax(-1).tolist()
    right = sum(a == b for a, b in zip(first, needle, strict=False))
    return right / len(needle), float(proxy.losses(hidden, targets).mean())


@torch.inference_mode()
def greedy(proxy: ProxyModel, probe: Probe) -> list[int]:
    """The model's own answer, the likeliest token each time: at most as long as the needle, at least one
    token.
    """
    from transformers import GenerationConfig

    prompt = torch.tensor([probe.ids[: probe.answer_start]], device=proxy.device)
    plain = GenerationConfig(
        max_new_tokens=len(probe.needle),
        min_new_tokens=1,
        do_sample=False,
        eos_token_id=proxy.model.generation_config.eos_token_id,
        pad_token_id=0,
    )
    # generate() takes what it is not told from the model's: penalties for repeating, which copying is
    own, proxy.model.generation_config = proxy.model.generation_config, GenerationConfig()
    try:
        written = proxy.model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), generation_config=plain
        )
    finally:
        proxy.model.generation_config = own
    return written[0, prompt.shape[1] :].tolist()


@torch.inference_mode()
def copying(proxy: ProxyModel, outputs: list[Tensor], tokens: list[int]) -> Tensor:
    """How far each head writes the given tokens: [layers, heads], 0 (as often against as for, or worse) to 1
    (always for).

    The direct path only: head output [rows, heads, head_dim], output projection, output embedding; no final
    norm.
    """
    unembedding = proxy.model.get_output_embeddings().weight
    # [R, D]
    directions = (unembedding[torch.tensor(tokens, device=proxy.device)] - unembedding.mean(0)).float()
    found = []
    for module, output in zip(proxy.attentions, outputs, strict=True):
        projection = next(
            (getattr(module, name) for name in OUTPUT_PROJECTIONS if hasattr(module, name)), None
        )
        width = output.shape[1] * output.shape[2]
        weight = None if projection is None else projection.weight.float()
        if weight is not None and not isinstance(projection, nn.Linear):
            weight = weight.T  # the Conv1D of GPT-2 keeps [in, out]
        if weight is None or weight.shape != (directions.shape[1], width):
            raise SettingError(
                f"heads.detector=induction does not know the output projection of {type(module).__name__}; "
                "use heads.detector=retrieval"
            )
        raised = ((directions @ weight).view(output.shape) * output.float()).sum(-1) > 0  # [R, heads]
        found.append((2 * raised.float().mean(0) - 1).clamp(min=0))
    return torch.stack(found)
