"""Load a proxy from a Hugging Face folder, find its attention heads, and refuse in one line what would not be exact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repro.config import SettingError, require
from repro.pretrained import Encoder, load_model, load_tokenizer
from repro.proxy import masking, rope
from repro.proxy.losses import token_losses

REMEDY = "use a decoder of softmax attention throughout (Llama, Qwen, Mistral, GPT-NeoX, GPT-2, OPT, Gemma, Phi, OLMo, ...)"


@dataclass
class ProxyModel:
    """A causal language model whose heads can be masked."""

    model: Any  # transformers PreTrainedModel
    encoder: Encoder
    attentions: list[nn.Module]  # attention module of each layer
    layers: list[nn.Module]  # decoder layer that holds it
    num_heads: int  # query heads of a layer
    scale: float = 1.0  # of the final logits
    softcap: float | None = None  # of the final logits

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return len(self.layers)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def context(self) -> int | None:
        """Longest input in tokens, where the model has a limit."""
        config = self.model.config.get_text_config()
        return getattr(config, "max_position_embeddings", None)

    def hidden(self, ids: Tensor) -> Tensor:
        """Last hidden states, after the final norm: [B, T] -> [B, T, D] ([2B, T, D] inside ``forked``)."""
        return self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state

    def losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of [N, D] hidden states against [N] next tokens: [N] float32, nats."""
        return token_losses(hidden, self.model.get_output_embeddings(), targets, self.scale, self.softcap)

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.encoder.tokenizer

    @property
    def prefix(self) -> list[int]:
        """Token ids every window starts with: the bos, for models trained with it, else nothing."""
        return self.encoder.prefix

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, as text and nothing else."""
        return self.encoder(texts)


def load(folder: Path | str, dtype: str = "bfloat16", device: str = "cpu") -> ProxyModel:
    """The proxy in ``folder`` (safetensors and tokenizer), ready for detection and scoring.

    Raises :class:`SettingError` for models without separable attention heads, models whose uniform mask or losses would
    not be exact, and tokenizers that do not fit.
    """
    folder = Path(folder)
    try:
        tokenizer = load_tokenizer(folder, local_files_only=True)
        model = load_model(folder, dtype=getattr(torch, dtype), attn_implementation=masking.NAME, local_files_only=True)
    except Exception as error:  # whatever a foreign folder provokes in the library is the folder's fault
        if masking.NAME in str(error):
            reason = f"its architecture does not use transformers' attention interface; {REMEDY}"
        else:
            reason = str(error).strip().split("\n")[0]
        raise SettingError(f"cannot use the model in {folder} as proxy: {reason}") from error
    return prepare(model.to(device), tokenizer, str(folder.name))


def prepare(model: Any, tokenizer: Any, name: str = "proxy") -> ProxyModel:
    """Find the heads of a model loaded with ``attn_implementation=masking.NAME`` and check that it can be scored exactly."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    head = model.get_output_embeddings()
    require(isinstance(head, nn.Linear), f"the proxy {name} has no plain output embedding; use a causal language model")
    require(
        len(tokenizer) <= model.get_input_embeddings().weight.shape[0],
        f"the tokenizer of {name} has {len(tokenizer)} entries, its model {model.get_input_embeddings().weight.shape[0]}: "
        "they do not belong together; put the model's own tokenizer into the folder",
    )
    rope.alone(model)  # detection and scoring must not depend on what the model read before
    attentions, num_heads = _find_attentions(model, name)
    config = model.config.get_text_config()
    proxy = ProxyModel(
        model=model,
        encoder=Encoder(tokenizer),
        attentions=attentions,
        layers=[_decoder_layer(model, module) for module in attentions],
        num_heads=num_heads,
        scale=float(getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)),
        softcap=getattr(config, "final_logit_softcapping", None),
    )
    _check_exact(proxy, name)
    return proxy


def _sample_ids(model: Any, rows: int = 2, length: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    return torch.randint(vocabulary, (rows, length), generator=generator).to(model.device)


@torch.inference_mode()
def _find_attentions(model: Any, name: str) -> tuple[list[nn.Module], int]:
    """The modules that call our attention function, in order, and their number of query heads."""
    called: list[nn.Module] = []
    heads: set[int] = set()
    biased = False

    def record(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *_: Any) -> None:
        nonlocal biased
        called.append(module)
        heads.add(query.shape[1])
        if mask is not None and mask.dtype != torch.bool:  # a family's own mask: it may hide a position bias
            biased |= bool(((mask != 0) & (mask > torch.finfo(mask.dtype).min / 2)).any())

    what = f"{type(model).__name__} ({name})"
    try:
        with masking.observed(list(model.modules()), record):
            model.base_model(input_ids=_sample_ids(model), use_cache=False).last_hidden_state  # noqa: B018
    except (RuntimeError, AttributeError, TypeError, IndexError) as error:
        raise SettingError(f"{what} does not run as a plain decoder ({str(error).splitlines()[0]}); {REMEDY}") from error
    config = model.config.get_text_config()
    layers = config.num_hidden_layers
    require(
        len(set(called)) == layers,
        f"{what}: {len(set(called))} of {layers} layers have separable attention heads; {REMEDY}",
    )
    require(
        len(called) == layers and heads == {config.num_attention_heads},
        f"{what} mixes or splits its {config.num_attention_heads} attention heads; they cannot be masked one by one; {REMEDY}",
    )
    require(not biased, f"{what} adds a position bias to its attention scores: no exact uniform mask; {REMEDY}")
    return called, heads.pop()


def _decoder_layer(model: nn.Module, attention: nn.Module) -> nn.Module:
    """The item of the model's layer list that holds an attention module."""
    path = next(name for name, module in model.named_modules() if module is attention).split(".")
    index = next(i for i, part in enumerate(path) if part.isdigit())
    return model.get_submodule(".".join(path[: index + 1]))


@torch.inference_mode()
def _check_exact(proxy: ProxyModel, name: str) -> None:
    """Our losses equal the model's own, and a forked pass equals two passes, on a few tokens."""
    ids = _sample_ids(proxy.model)
    hidden = proxy.hidden(ids)
    own = torch.log_softmax(proxy.model(input_ids=ids, use_cache=False).logits.float(), -1)
    expected = -own[:, :-1].gather(2, ids[:, 1:, None]).flatten()
    losses = proxy.losses(hidden[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    tolerance = 1e-4 if hidden.dtype == torch.float32 else 0.05
    require(
        bool(torch.isfinite(expected).all())
        and float((losses - expected).abs().max()) < tolerance * (1 + float(expected.abs().max())),
        f"{type(proxy.model).__name__} ({name}) changes its logits after the output embedding; its losses would be wrong here",
    )
    heads = [(proxy.num_layers // 2, 0)]
    with masking.masked(proxy.attentions, heads):
        reference = proxy.hidden(ids)
    try:
        with masking.forked(proxy.layers, proxy.attentions, heads):
            both = proxy.hidden(ids)
        gap = float((both - torch.cat([hidden, reference])).float().abs().max())
    except (RuntimeError, IndexError, TypeError):
        gap = math.inf
    require(
        gap <= tolerance * (1 + float(hidden.float().abs().max())),
        f"{type(proxy.model).__name__} ({name}) carries per-row state between layers, so two models cannot "
        f"share one pass; {REMEDY}",
    )
