"""The network that is trained: a Llama of a given size from scratch, or any causal model from a Hugging Face
folder.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from repro.errors import SettingError, require
from repro.pretrain.settings import Model
from repro.pretrained import fuse_float32, load_model

INIT_STD = 0.02
RESIDUAL_OUTPUTS = ("o_proj.weight", "down_proj.weight")


def llama_config(model: Model, context: int, end_token: int) -> LlamaConfig:
    """The Hugging Face configuration of ``model``; ``context`` is the longest sequence it will see."""
    return LlamaConfig(
        vocab_size=model.vocabulary,
        hidden_size=model.hidden,
        intermediate_size=model.ffn,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        max_position_embeddings=context,
        tie_word_embeddings=model.tie_embeddings,
        bos_token_id=end_token,
        eos_token_id=end_token,
        use_cache=False,
    )


def initialise(network: PreTrainedModel, seed: int) -> None:
    """Weights that depend on seed, parameter name and shape alone, so that paired arms start equal on any
    device count.

    Normal with standard deviation 0.02; the two matrices of a layer that write into the residual stream
    divided by sqrt(2 x layers), so that the stream's variance does not grow with depth (GPT-2, section 2.3).
    Norms are 1.
    """
    depth = math.sqrt(2 * network.config.num_hidden_layers)
    for name, parameter in network.named_parameters():
        with torch.no_grad():
            if parameter.ndim < 2:
                parameter.fill_(1.0)
                continue
            number = int.from_bytes(
                hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "little", signed=True
            )
            generator = torch.Generator().manual_seed(number)
            std = INIT_STD / depth if name.endswith(RESIDUAL_OUTPUTS) else INIT_STD
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))


def build(model: Model, context: int, end_token: int, seed: int) -> PreTrainedModel:
    """The network at step 0, float32.

    Raises :class:`SettingError` where a model to continue from cannot take ``context`` tokens.
    """
    if model.init_from is not None:
        config = AutoConfig.from_pretrained(model.init_from, trust_remote_code=False)
        longest = getattr(config, "max_position_embeddings", None)
        require(
            longest is None or context <= longest,
            f"train.context={context} is longer than the {longest} tokens {model.init_from} was made for;"
            " lower train.context",
        )
        try:
            network = load_model(Path(model.init_from), dtype=torch.float32).train()
        except SettingError as error:
            raise SettingError(f"model.init_from={model.init_from}: {error}") from None
        network.config.use_cache = False
        without_dropout(network)
        return network
    fuse_float32()
    network = LlamaForCausalLM(llama_config(model, context, end_token))
    initialise(network, seed)
    return network


def without_dropout(network: PreTrainedModel) -> None:
    """No dropout: drawn without a seed of ours, paired models would differ by it, and a run that goes on from
    one that was cut.
    """
    for module in (network.config, *network.modules()):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
                setattr(module, name, 0.0)


def document_positions(ids: torch.Tensor, end_token: int) -> torch.Tensor:
    """Position of each token within its document, [B, T]; a document starts with the end token in front of
    it, as every text that is evaluated does.

    Given as ``position_ids`` without an attention mask, transformers reads packed documents from them and
    keeps attention inside each.
    """
    at = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    return at - torch.where(ids == end_token, at, 0).cummax(dim=1).values


def next_token_loss(
    network: Any,
    ids: torch.Tensor,
    documents_end: int | None,
    reduction: str = "mean",
    inside: bool = False,
) -> torch.Tensor:
    """Cross-entropy in nats, float32, of each next token in ``ids`` [B, T + 1]; targets of -100 do not count.

    ``documents_end``: the end token, where attention must stay inside documents; ``None`` lets it cross them.
    ``inside``: by the network's own loss, the same mean, so that a compiler sees it with the rest.
    """
    inputs, targets = ids[:, :-1].clamp(min=0), ids[:, 1:]
    positions = None if documents_end is None else document_positions(inputs, documents_end)
    if inside:
        targets = targets.contiguous()
        return network(
            input_ids=inputs, position_ids=positions, use_cache=False, labels=targets, shift_labels=targets
        ).loss
    logits = network(input_ids=inputs, position_ids=positions, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), reduction=reduction
    )
