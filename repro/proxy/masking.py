"""Masking attention heads (appendix C), and several models in one pass.

transformers calls a registered function for the attention of every decoder layer. Ours is the library's own
``scaled_dot_product_attention`` with the masked heads changed before or after it:

- ``uniform``: the head's query vectors become zero, so that all its scores are equal and every kernel returns
  the mean of V over the visible positions. Keys and values are never touched: grouped-query attention shares
  them.
- ``zero``: the head's output becomes zero. ``mean``: it becomes a given vector, its mean over a calibration
  set.

Works for whatever mask, bias, q-norm, rotary embedding or sliding window the family has, because it acts
where these are done. What is not so simple (position biases, sinks, positions chosen by content)
:mod:`repro.proxy.exact` refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from repro.proxy import causal

NAME = "maskable_heads"
Heads = Sequence[tuple[int, int]]  # (layer, head)


@dataclass
class HeadMask:
    """What happens to the heads of one attention module."""

    heads: Tensor  # [n] head indices
    mode: str  # uniform | zero | mean
    output: Tensor | None = None  # mean: [n, head_dim]
    part: tuple[int, int] = (0, 1)  # (i, n): only the i-th of n equal parts of the rows, of a forked pass

    def rows(self, batch: int) -> slice:
        """Where in a batch they are masked."""
        index, of = self.part
        return slice(batch * index // of, batch * (index + 1) // of)


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention of one layer: query [B, H, T, D], key and value [B, H_kv, T, D] -> [B, T, H, D]."""
    batch = query.shape[0]
    if attention_mask is not None and attention_mask.shape[0] not in (1, batch):  # made before the fork
        attention_mask = attention_mask.repeat(batch // attention_mask.shape[0], 1, 1, 1)
    elif 1 < query.shape[2] < key.shape[2] and _plainly_causal(module, attention_mask, kwargs):
        # The last queries alone (Gemma 4, where later layers share keys). The kernel would take them for the
        # first.
        attention_mask = visible(None, query.shape[2], key.shape[2], query.device)
    masks: Sequence[HeadMask] = getattr(module, "head_masks", ())
    if any(mask.mode == "uniform" for mask in masks):
        query = query.clone()
    for mask in masks:
        if mask.mode == "uniform":
            query[mask.rows(batch), mask.heads] = 0
    if observer := getattr(module, "observer", None):
        observer(module, query, key, value, attention_mask, kwargs)
    if kwargs.get("softcap") is not None:
        output = _softcapped(module, query, key, value, attention_mask, **kwargs)
    elif _plainly_causal(module, attention_mask, kwargs) and causal.faster(query, key):
        output = causal.attention(query, key, value, kwargs.get("scaling"))
    else:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    for mask in masks:
        if mask.mode != "uniform":
            output[mask.rows(batch), :, mask.heads] = (
                0 if mask.output is None else mask.output.to(output.dtype)
            )
    if output_observer := getattr(module, "output_observer", None):
        output_observer(module, output)
    return output, None


def _plainly_causal(module: nn.Module, attention_mask: Tensor | None, options: dict[str, Any]) -> bool:
    """Whether the library would attend to all earlier positions by their scores alone."""
    own = options.get("is_causal")
    wanted = getattr(module, "is_causal", True) if own is None else own
    return attention_mask is None and wanted and options.get("position_bias") is None


def _softcapped(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> Tensor:
    """Explicit attention for families that squash the scores (Gemma 2), which the fused kernel cannot."""
    groups = query.shape[1] // key.shape[1]
    scores = query @ repeat_kv(key, groups).transpose(2, 3) * kwargs["scaling"]
    scores = (torch.tanh(scores / kwargs["softcap"]) * kwargs["softcap"]).float()
    # Not -inf: a padded row that sees nothing would be NaN, and NaN in V reaches every row.
    hidden = ~visible(attention_mask, query.shape[2], key.shape[2], query.device)
    scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1).to(value.dtype)
    return (weights @ repeat_kv(value, groups)).transpose(1, 2).contiguous()


def visible(attention_mask: Tensor | None, queries: int, keys: int, device: torch.device) -> Tensor:
    """Which keys each query may attend to: bool [B or 1, 1, queries, keys]. No mask means causal."""
    if attention_mask is None:
        offset = keys - queries
        rows = torch.arange(queries, device=device)[:, None] + offset
        return (torch.arange(keys, device=device)[None, :] <= rows)[None, None]
    allowed = (
        attention_mask
        if attention_mask.dtype == torch.bool
        else attention_mask > torch.finfo(attention_mask.dtype).min / 2
    )
    return allowed[..., :keys]


def positional(*arguments: Any, **options: Any) -> Tensor | None:
    """The library's own mask, signed: it follows from positions and padding. What a layer makes of it has no
    signature.
    """
    mask: Any = sdpa_mask(*arguments, **options)
    if mask is not None:
        mask.positional = True
    return mask


AttentionInterface.register(NAME, attention)
# Without this, padded input would silently get no mask at all.
AttentionMaskInterface.register(NAME, positional)


@contextmanager
def observed(
    attentions: Sequence[nn.Module], observer: Callable[..., None], outputs: bool = False
) -> Iterator[None]:
    """Within the block, ``observer`` sees every call of the given attention modules: module, query, key,
    value, mask and options, or with ``outputs`` the module and the heads' outputs [B, T, H, D].
    """
    name = "output_observer" if outputs else "observer"
    try:
        for module in attentions:
            setattr(module, name, observer)
        yield
    finally:
        for module in attentions:
            delattr(module, name)


@contextmanager
def masked(
    attentions: Sequence[nn.Module], heads: Heads, mode: str = "uniform", means: Tensor | None = None
) -> Iterator[None]:
    """Within the block, ``heads`` are masked.

    Args:
        attentions: the attention module of each layer.
        heads: (layer, head) pairs.
        mode: ``uniform``, ``zero`` or ``mean``.
        means: for ``mean``: [layers, heads, head_dim].
    """
    with _masked(attentions, {layer: [(heads, (0, 1))] for layer, _ in heads}, mode, means):
        yield


@contextmanager
def _masked(
    attentions: Sequence[nn.Module],
    sets: dict[int, list[tuple[Heads, tuple[int, int]]]],
    mode: str,
    means: Tensor | None,
) -> Iterator[None]:
    """Within the block, in each layer the heads of some sets are masked, each in its part of the rows."""
    try:
        for layer, own in sets.items():
            module: Any = attentions[layer]
            device = next(module.parameters()).device
            module.head_masks = []
            for heads, part in own:
                index = torch.tensor(sorted(head for at, head in heads if at == layer), device=device)
                output = None
                if mode == "mean" and means is not None:
                    output = means[layer, index.to(means.device)].to(device)
                module.head_masks.append(HeadMask(index, mode, output, part))
        yield
    finally:
        for layer in sets:
            if hasattr(attentions[layer], "head_masks"):
                del attentions[layer].head_masks


@contextmanager
def forked(
    layers: Sequence[nn.Module],
    attentions: Sequence[nn.Module],
    sets: Sequence[Heads],
    mode: str = "uniform",
    means: Tensor | None = None,
) -> Iterator[None]:
    """Within the block, a batch [B, T] comes out as [(1 + k) B, T]: base rows, then those with the heads of
    each of k sets masked.

    Below the lowest masked layer of a set its model is the base model; its rows are added at that layer's
    door. They stand in the order of these layers until they have passed all of them.
    """
    lowest, order = _by_lowest(sets)
    joined = {layer: sum(low <= layer for low in lowest) for layer in range(len(layers))}  # sets by then
    masks: dict[int, list[tuple[Heads, tuple[int, int]]]] = {}
    for place, i in enumerate(order):
        for layer in sorted({layer for layer, _ in sets[i]}):
            masks.setdefault(layer, []).append((sets[i], (1 + place, 1 + joined[layer])))

    def join(new: int, before: int) -> Callable[..., Any]:
        def more(hidden: Tensor) -> Tensor:
            base = hidden[: len(hidden) // (1 + before)]
            return torch.cat([hidden, *[base] * new])

        def hook(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            if args:
                return (more(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": more(kwargs["hidden_states"])}

        return hook

    with ExitStack() as stack:
        stack.enter_context(_masked(attentions, masks, mode, means))
        for layer in set(lowest):
            new = lowest.count(layer)
            hook = join(new, joined[layer] - new)
            stack.callback(layers[layer].register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _by_lowest(sets: Sequence[Heads]) -> tuple[list[int], list[int]]:
    """The lowest layer of each set, and the sets by it: the order in which their rows are added."""
    lowest = [min(layer for layer, _ in heads) for heads in sets]
    return lowest, sorted(range(len(sets)), key=lambda i: lowest[i])


def in_order(hidden: Tensor, sets: Sequence[Heads]) -> Tensor:
    """What came out of :func:`forked`, [(1 + k) B, ...], by the model: [1 + k, B, ...], sets as given."""
    _, order = _by_lowest(sets)
    parts = hidden.unflatten(0, (1 + len(sets), -1))
    return parts if order == sorted(order) else parts[[0, *(1 + order.index(i) for i in range(len(sets)))]]
