"""Whether a model's heads can be masked exactly, found by trying it on a few tokens; refused in one line
otherwise.

Nothing here knows families by name. A model passes if every layer hands its heads to our attention function;
if the family's own attention, given a zero query, weighs all visible positions alike, and does nothing to
other queries that ours does not do; if what is visible follows from positions, none of them later; and if
hidden states and losses are the library's own.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from repro.errors import SettingError, require
from repro.proxy import masking

if TYPE_CHECKING:
    from repro.proxy.load import ProxyModel

REMEDY = (
    "use a decoder of softmax attention throughout (Llama, Qwen, Mistral, GPT-NeoX, GPT-2, OPT, Gemma, Phi,"
    " OLMo, ...)"
)
ROWS, LENGTH = 2, 12  # of the sample
# tensors that say where tokens stand, beyond which ours takes none
POSITIONS = ("position_ids", "cache_position")
# of foreign code
FAILURES = (RuntimeError, AttributeError, TypeError, IndexError, KeyError, ValueError, AssertionError)


@dataclass
class Call:
    """What one layer handed to the attention function."""

    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    options: dict[str, Any]


def heads_of(model: Any, decoder: Any, what: str) -> tuple[list[nn.Module], int]:
    """The modules that call our attention function, in order, and their number of query heads.

    Raises :class:`SettingError` where heads of a layer are not separable, or not uniform under a zero query.
    """
    ids, calls = sample(model), []
    try:
        with (
            torch.inference_mode(),
            masking.observed(list(model.modules()), lambda *call: calls.append(Call(*call))),
        ):
            hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
    except FAILURES as error:
        where = (
            "does not run as a plain decoder"
            if calls
            else "does not hand its heads to transformers' attention interface"
        )
        raise SettingError(f"{what} {where} ({_line(error)}); {REMEDY}") from error
    config = model.config.get_text_config()
    layers, modules, heads = (
        config.num_hidden_layers,
        [c.module for c in calls],
        {c.query.shape[1] for c in calls},
    )
    require(
        len(set(modules)) == layers,
        f"{what}: {len(set(modules))} of {layers} layers have separable attention heads; {REMEDY}",
    )
    require(
        len(modules) == layers and heads == {config.num_attention_heads},
        f"{what} mixes or splits its {config.num_attention_heads} attention heads; they cannot be masked one"
        f" by one; {REMEDY}",
    )
    half = LENGTH // 2
    with torch.inference_mode():
        other = decoder(input_ids=torch.cat([ids[:, :half], ids[:, half:].flip(0, 1)], 1), use_cache=False)
    require(
        close(other.last_hidden_state[:, :half], hidden[:, :half]),
        f"{what} looks at later tokens: it is no causal language model; {REMEDY}",
    )
    for call in calls:
        _check_attention(call, what)
    return modules, heads.pop()


def sample(model: Any) -> Tensor:
    """A few tokens: [ROWS, LENGTH]."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    return torch.randint(vocabulary, (ROWS, LENGTH), generator=generator).to(model.device)


@torch.inference_mode()
def _check_attention(call: Call, what: str) -> None:
    """The family's own attention on what the layer handed over, with and without a zero query, in float32."""
    own = getattr(sys.modules[type(call.module).__module__], "eager_attention_forward", None)
    if own is None:
        raise SettingError(f"{what} has no attention of its own to compare with; {REMEDY}")
    query, key, value = call.query.float(), call.key.float(), call.value.float()
    allowed = masking.visible(call.mask, query.shape[2], key.shape[2], query.device)
    if call.mask is None or call.mask.dtype == torch.bool:
        mask = torch.zeros_like(allowed, dtype=torch.float32).masked_fill(
            ~allowed, torch.finfo(torch.float32).min
        )
    else:
        mask = call.mask.float()
    try:
        silent = own(call.module, torch.zeros_like(query), key, value, mask, **call.options)[0]
        plain = own(call.module, query, key, value, mask, **call.options)[0]
        ours, _ = masking.attention(
            call.module, query, key, value, None if call.mask is None else mask, **call.options
        )
    except FAILURES as error:
        raise SettingError(f"{what}: its attention does not run alone ({_line(error)}); {REMEDY}") from error
    weights = allowed.float() / allowed.sum(-1, keepdim=True)
    values = masking.repeat_kv(value, query.shape[1] // value.shape[1])
    require(
        close(silent, (weights @ values).transpose(1, 2)),
        f"{what}: its attention is not uniform for a zero query (a position bias or a sink): no exact uniform"
        f" mask; {REMEDY}",
    )
    require(close(ours, plain), f"{what}: its attention is not the softmax of scaled scores; {REMEDY}")
    more = [
        name for name, option in call.options.items() if isinstance(option, Tensor) and name not in POSITIONS
    ]
    require(
        not more and (call.mask is None or getattr(call.mask, "positional", False)),
        f"{what}: its layers choose by content which positions are visible: no uniform mask; {REMEDY}",
    )


@torch.inference_mode()
def check(proxy: ProxyModel, what: str) -> None:
    """The model as it is loaded here is the library's own, and our losses are its losses."""
    model, ids = proxy.model, sample(proxy.model)
    hidden = proxy.hidden(ids)
    own = torch.log_softmax(model(input_ids=ids, use_cache=False).logits.float(), -1)
    expected = -own[:, :-1].gather(2, ids[:, 1:, None]).flatten()
    losses = proxy.losses(hidden[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    require(
        bool(torch.isfinite(expected).all()) and close(losses, expected, _tolerance(hidden)),
        f"{what} changes its logits after the output embedding; its losses would be wrong here",
    )
    model.set_attn_implementation("eager")  # layers may look at this name and do otherwise
    try:
        eager = proxy.hidden(ids)
    finally:
        model.set_attn_implementation(masking.NAME)
    # Most of the positions: in bfloat16 a mixture of experts may send a few tokens elsewhere.
    alike = [close(one, other) for one, other in zip(hidden.flatten(0, 1), eager.flatten(0, 1), strict=True)]
    require(
        sum(alike) > 0.75 * len(alike),
        f"{what} computes something else with another attention function; {REMEDY}",
    )


@torch.inference_mode()
def forks(proxy: ProxyModel) -> bool:
    """Whether one pass, doubled at any layer, equals two. Not where rows have a state beside the hidden one
    (Gemma 4).
    """
    ids = sample(proxy.model)
    hidden = proxy.hidden(ids)
    for layer in {0, proxy.num_layers // 2, proxy.num_layers - 1}:
        with masking.masked(proxy.attentions, [(layer, 0)]):
            reference = proxy.hidden(ids)
        try:
            with masking.forked(proxy.layers, proxy.attentions, [[(layer, 0)]]):
                both = proxy.hidden(ids)
        except FAILURES:
            return False
        if not close(both, torch.cat([hidden, reference])):
            return False
    return True


def close(found: Tensor, expected: Tensor, tolerance: float = 0.0) -> bool:
    """Equal but for the rounding of the dtype that ``found`` is computed in, relative to the largest
    entry.
    """
    if found.shape != expected.shape:
        return False
    gap = float((found.float() - expected.float()).abs().max())
    return not math.isnan(gap) and gap <= (tolerance or _tolerance(found)) * float(
        expected.float().abs().max()
    )


def _tolerance(computed: Tensor) -> float:
    return 1e-4 if computed.dtype == torch.float32 else 0.05


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
