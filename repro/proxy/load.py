"""Load a proxy from a Hugging Face folder, find its attention heads, and refuse in one line what would not be
exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import SettingError, require
from repro.pretrained import Encoder, load_model, load_tokenizer
from repro.proxy import exact, masking, rope
from repro.proxy.losses import token_losses


@dataclass
class ProxyModel:
    """A causal language model whose heads can be masked."""

    model: Any  # transformers PreTrainedModel
    decoder: Any  # the part of it that ends before the output embedding
    encoder: Encoder
    attentions: list[nn.Module]  # attention module of each layer
    layers: list[nn.Module]  # decoder layer that holds it
    num_heads: int  # query heads of a layer
    scale: float = 1.0  # of the final logits
    softcap: float | None = None  # of the final logits
    forks: bool = True  # two models can share one pass

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return len(self.layers)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def hidden(self, ids: Tensor) -> Tensor:
        """Last hidden states, after the final norm: [B, T] -> [B, T, D] (more rows inside
        ``masking.forked``).
        """
        return self.decoder(input_ids=ids, use_cache=False).last_hidden_state

    def both(
        self, ids: Tensor, heads: masking.Heads, mode: str = "uniform", means: Tensor | None = None
    ) -> Tensor:
        """Last hidden states as the model is, then with ``heads`` masked: [B, T] -> [2B, T, D]."""
        return self.each(ids, [heads], mode, means).flatten(0, 1)

    def each(
        self,
        ids: Tensor,
        sets: Sequence[masking.Heads],
        mode: str = "uniform",
        means: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states as the model is, then with each of k sets of heads masked: [B, T] ->
        [1 + k, B, T, D]; one pass where it can be.
        """
        if self.forks:
            with masking.forked(self.layers, self.attentions, sets, mode, means):
                return masking.in_order(self.hidden(ids), sets)
        found = [self.hidden(ids)]
        for heads in sets:
            with masking.masked(self.attentions, heads, mode, means):
                found.append(self.hidden(ids))
        return torch.stack(found)

    def losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of [N, D] hidden states against [N] next tokens: [N] float32, nats."""
        return token_losses(hidden, self.model.get_output_embeddings(), targets, self.scale, self.softcap)

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.encoder.tokenizer

    @property
    def prefix(self) -> list[int]:
        """Token ids every window starts with: the bos, or several, of models trained so; else nothing."""
        return self.encoder.prefix

    @property
    def lead(self) -> int:
        """Tokens at the start of a window that have no loss: the prefix, or else the first of the text."""
        return max(1, len(self.prefix))

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, as text and nothing else."""
        return self.encoder(texts)


def load(folder: Path | str, dtype: str = "bfloat16", device: str = "cpu") -> ProxyModel:
    """The proxy in ``folder`` (safetensors and tokenizer), ready for detection and scoring.

    Raises :class:`SettingError` for models without separable attention heads, models whose uniform mask or
    losses would not be exact, and tokenizers that do not fit.
    """
    folder = Path(folder)
    with loadable(f"the model in {folder}"):
        tokenizer = load_tokenizer(folder, local_files_only=True)
        model = load_model(
            folder, dtype=getattr(torch, dtype), attn_implementation=masking.NAME, local_files_only=True
        )
    return prepare(model.to(device), tokenizer, str(folder.name))


@contextmanager
def loadable(what: str) -> Iterator[None]:
    """Whatever a foreign model provokes in the library, in one line: it is the model's fault."""
    try:
        yield
    except Exception as error:
        if masking.NAME in str(error):
            reason = f"its architecture does not use transformers' attention interface; {exact.REMEDY}"
        elif str(error).startswith("Unrecognized configuration class"):
            reason = f"transformers has no causal language model of its architecture; {exact.REMEDY}"
        else:
            reason = str(error).strip().split("\n")[0]
        raise SettingError(f"cannot use {what} as proxy: {reason}") from error


def prepare(model: Any, tokenizer: Any, name: str = "proxy") -> ProxyModel:
    """Find the heads of a model loaded with ``attn_implementation=masking.NAME`` and check that it can be
    scored exactly.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    head = model.get_output_embeddings()
    require(
        isinstance(head, nn.Linear),
        f"the proxy {name} has no plain output embedding; use a causal language model",
    )
    require(
        len(tokenizer) <= model.get_input_embeddings().weight.shape[0],
        f"the tokenizer of {name} has {len(tokenizer)} entries, its model"
        f" {model.get_input_embeddings().weight.shape[0]}: they do not belong together; put the model's own"
        " tokenizer into the folder",
    )
    rope.alone(model)  # detection and scoring must not depend on what the model read before
    decoder = _decoder(model)
    attentions, num_heads = exact.heads_of(model, decoder, f"{type(model).__name__} ({name})")
    config = model.config.get_text_config()
    proxy = ProxyModel(
        model=model,
        decoder=decoder,
        encoder=Encoder(tokenizer),
        attentions=attentions,
        layers=[_decoder_layer(model, module) for module in attentions],
        num_heads=num_heads,
        scale=float(
            getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
        ),
        softcap=getattr(config, "final_logit_softcapping", None),
    )
    exact.check(proxy, f"{type(model).__name__} ({name})")
    proxy.forks = exact.forks(proxy)
    return proxy


def _decoder(model: Any) -> Any:
    """The model without its output embedding; a family that does not name this part has one such part."""
    from transformers import PreTrainedModel

    if model.base_model is not model:
        return model.base_model
    return next((part for part in model.children() if isinstance(part, PreTrainedModel)), model)


def _decoder_layer(model: nn.Module, attention: nn.Module) -> nn.Module:
    """The item of the model's layer list that holds an attention module."""
    path = next(name for name, module in model.named_modules() if module is attention).split(".")
    index = next(i for i, part in enumerate(path) if part.isdigit())
    return model.get_submodule(".".join(path[: index + 1]))
