"""Tiny random models of many families, float32, built without download, and an oracle for their masked heads.

The oracle is another attention function: the whole T x T map by hand, with what is visible worked out from positions,
window and padding alone, and the masked heads' weights written as 1 / (number of visible positions).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from repro.errors import SettingError
from repro.proxy import masking
from repro.proxy.load import ProxyModel, loadable, prepare

VOCABULARY = 96
TOLERANCE = 1e-5  # of the largest entry, float32
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "moe_layer_start_index": 1,
}
LATENT = {  # keys and values out of a small common vector (DeepSeek)
    "num_key_value_heads": 6,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "head_dim": 8,
}
INDEXED = LATENT | {
    "index_topk": 4,
    "index_n_heads": 2,
    "index_head_dim": 16,
}  # each query reads the positions it chooses
SEQ2SEQ = {
    "d_model": 48,
    "decoder_layers": 3,
    "decoder_attention_heads": 6,
    "decoder_ffn_dim": 64,
    "encoder_layers": 3,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 64,
    "init_std": 0.3,
}
GPT2 = {
    "vocab_size": 96,
    "n_embd": 48,
    "n_layer": 3,
    "n_head": 6,
    "n_positions": 256,
    "initializer_range": 0.3,
}
GPT2 |= {"bos_token_id": 1, "eos_token_id": 2}
CHUNKS = ["chunked_attention", "full_attention", "chunked_attention"]
TEXT = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
}
TEXT |= {
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
}
VISION |= {"patch_size": 14}

# What a family needs beside COMMON; its special feature is what the table says of it.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("grouped queries, biases", {"attention_bias": True}),
    "mistral": ("sliding window", {"sliding_window": 5}),
    "ministral": ("windows in some layers", {"sliding_window": 5, "head_dim": 8}),
    "ministral3": ("queries scaled by position", {}),
    "mixtral": ("mixture of experts", EXPERTS),
    "qwen2": ("biases of q, k, v", {}),
    "qwen2_moe": ("mixture of experts, a shared one", EXPERTS),
    "qwen3": ("q-norm", {"head_dim": 16}),
    "qwen3_moe": ("q-norm, mixture of experts", EXPERTS),
    "gpt_neox": ("fused q, k, v; parallel blocks; rotary in part", {"attention_bias": True}),
    "gpt2": ("learned positions", GPT2),
    "gpt_bigcode": ("one key head", GPT2),
    "ctrl": (
        "sinusoidal positions",
        {"n_embd": 48, "n_layer": 3, "n_head": 6, "n_positions": 256, "dff": 64},
    ),
    "opt": ("narrower embeddings", {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.3}),
    "biogpt": ("learned positions", {}),
    "bart": ("the decoder alone", SEQ2SEQ),
    "blenderbot": ("the decoder alone", SEQ2SEQ),
    "bert-generation": ("as a decoder", {"is_decoder": True}),
    "olmo": ("norm without weights", {}),
    "olmo2": ("norms after the blocks, q-norm", {}),
    "olmo3": ("windows in some layers", {"sliding_window": 5}),
    "olmoe": ("q-norm, mixture of experts", EXPERTS),
    "flex_olmo": ("mixture of experts", EXPERTS),
    "gemma": ("scaled embeddings", {"head_dim": 16}),
    "gemma2": (
        "soft-capped scores and logits, windows",
        {"head_dim": 16, "sliding_window": 5, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    ),
    "vaultgemma": (
        "soft-capped scores and logits, windows",
        {"head_dim": 16, "sliding_window": 5, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    ),
    "gemma3_text": ("q-norm, windows", {"head_dim": 16, "sliding_window": 5}),
    "gemma3n_text": (
        "several residual streams, keys shared by layers",
        {
            "head_dim": 8,
            "num_hidden_layers": 3,
            "vocab_size_per_layer_input": 96,
            "hidden_size_per_layer_input": 8,
            "num_kv_shared_layers": 1,
            "laurel_rank": 8,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            "activation_sparsity_pattern": [0.0, 0.0, 0.0],
            "sliding_window": 5,
        },
    ),
    "gemma4_text": (
        "an input of its own a layer, keys shared by layers",
        {
            "head_dim": 8,
            "global_head_dim": 8,
            "vocab_size_per_layer_input": 96,
            "hidden_size_per_layer_input": 8,
            "num_kv_shared_layers": 1,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "sliding_window": 5,
        },
    ),
    "phi": ("parallel blocks, rotary in part", {}),
    "phi3": ("fused q, k, v; sliding window", {"sliding_window": 5}),
    "phimoe": ("mixture of experts", EXPERTS),
    "persimmon": ("fused q, k, v; q-norm", {}),
    "starcoder2": ("sliding window", {"sliding_window": 5}),
    "stablelm": ("rotary in part", {}),
    "smollm3": ("layers without positions", {"no_rope_layers": [1, 0, 1]}),
    "granite": ("scaled scores, residuals and logits", {"logits_scaling": 8.0, "attention_multiplier": 0.1}),
    "granitemoe": ("mixture of experts", EXPERTS),
    "cohere": ("parallel blocks, q-norm, scaled logits", {"logit_scale": 0.25, "use_qk_norm": True}),
    "cohere2": ("parallel blocks, windows", {"sliding_window": 5, "logit_scale": 0.25}),
    "glm": ("rotary in part", {"head_dim": 8}),
    "glm4": ("four norms a layer", {"head_dim": 8}),
    "glm4_moe": ("mixture of experts", EXPERTS),
    "exaone4": ("q-norm, windows", {"sliding_window": 5}),
    "nemotron": ("squared ReLU, rotary in part", {}),
    "nanochat": ("q-norm after rotary, soft-capped logits", {}),
    "helium": ("interleaved rotary", {"head_dim": 8}),
    "hunyuan_v1_dense": ("q-norm after rotary", {"head_dim": 8}),
    "seed_oss": ("head width of its own", {"head_dim": 16}),
    "apertus": ("xIELU", {}),
    "bitnet": ("norms inside the blocks", {}),
    "ernie4_5_moe": ("mixture of experts", EXPERTS),
    "deepseek_v2": ("latent keys and values", LATENT | EXPERTS),
    "deepseek_v3": ("latent keys and values, mixture of experts", LATENT | EXPERTS),
    "minicpm3": ("latent keys and values, scaled residuals", LATENT),
    "llama4_text": (
        "chunks of attention, mixture of experts",
        {"head_dim": 8, "attention_chunk_size": 5, "intermediate_size_mlp": 64, "layer_types": CHUNKS}
        | EXPERTS,
    ),
    "falcon_h1": (
        "attention and a state space side by side",
        {
            "mamba_d_ssm": 48,
            "mamba_n_heads": 6,
            "mamba_d_head": 8,
            "mamba_n_groups": 1,
            "mamba_chunk_size": 16,
        },
    ),
    "gemma3": (
        "text and images: its text part",
        {"text_config": TEXT | {"head_dim": 16}, "vision_config": VISION},
    ),
    # What is refused, and stays so.
    "bloom": ("ALiBi", {}),
    "mpt": ("ALiBi", {"d_model": 48, "n_heads": 6, "n_layers": 3}),
    "falcon": ("attention of its own", {}),
    "gptj": ("attention of its own", GPT2 | {"rotary_dim": 8}),
    "codegen": ("attention of its own", GPT2 | {"n_head": 4, "rotary_dim": 8, "n_ctx": 64}),
    "gpt_neo": (
        "attention of its own",
        {"attention_types": [[["global", "local"], 1], [["global"], 1]], "window_size": 5, "num_layers": 3},
    ),
    "gpt_oss": ("sinks", EXPERTS),
    "granite_swa": ("sinks", {}),
    "doge": ("a mask that depends on values", {}),
    "diffllama": ("differences of two heads", {}),
    "jetmoe": ("experts choose the heads", EXPERTS),
    "deepseek_v32": ("positions chosen by content", INDEXED | EXPERTS),
    "glm_moe_dsa": ("positions chosen by content", INDEXED | EXPERTS),
    "minimax_m3_vl_text": (
        "blocks of positions chosen by content",
        EXPERTS
        | {
            "layer_types": ["full_attention", "minimax_m3_sparse", "minimax_m3_sparse"],
            "index_block_size": 128,
        },
    ),
    "mamba": ("state space", {}),
    "mamba2": ("state space", {"head_dim": 16, "num_heads": 6, "n_groups": 1}),
    "rwkv": ("recurrence", {}),
    "jamba": ("state space in some layers", EXPERTS),
    "recurrent_gemma": ("recurrence in some layers", {}),
    "qwen3_next": ("linear attention in some layers", EXPERTS),
    "lfm2": ("convolutions in some layers", {"layer_types": ["conv", "full_attention", "full_attention"]}),
    "bert": ("reads to both sides", {}),
    "roberta": ("a transformation before the output embedding", {"is_decoder": True}),
    "t5": ("encoder and decoder", {"num_layers": 3, "num_heads": 6, "d_model": 48, "d_ff": 64, "d_kv": 8}),
    "bigbird_pegasus": ("not causal under a fused kernel", SEQ2SEQ),
    "llava": ("text and images", {"text_config": TEXT | {"model_type": "llama"}, "vision_config": VISION}),
}
NO_COMMON = (
    "gpt2",
    "gpt_bigcode",
    "gptj",
    "codegen",
    "gemma3",
    "llava",
    "t5",
)  # configurations with names of their own
HEADS = [(0, 1), (1, 0), (1, 3), (2, 3)]
ORACLE: dict[str, Any] = {}


class Tokenizer:
    """As much of a tokenizer as loading looks at."""

    bos_token_id = None

    def __len__(self):
        return VOCABULARY

    def __call__(self, text, **options):
        return {"input_ids": [5] if isinstance(text, str) else [[5] for _ in text]}


def build(family: str, attn_implementation: str = masking.NAME):
    """The same random weights whatever the attention implementation."""
    torch.manual_seed(0)
    options = FAMILIES[family][1]
    config = CONFIG_MAPPING[family](**(options if family in NO_COMMON else COMMON | options))
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attn_implementation).eval()
    with torch.no_grad():  # biases start at zero, where a test could not see them
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3)
    return model


def load(family: str) -> ProxyModel:
    """The proxy, by the same checks and messages as one from a folder."""
    with loadable(f"a tiny {family}"):
        model = build(family)
    return prepare(model, Tokenizer(), family)


def explicit(module, query, key, value, attention_mask, scaling=None, softcap=None, sliding_window=None, **_):
    """The oracle. ``ORACLE``: heads to mask, mode, real tokens [B, T], chunk and windows of the family."""
    length, groups = query.shape[2], query.shape[1] // key.shape[1]
    i, j = torch.arange(length)[:, None], torch.arange(length)[None]
    visible = (j <= i) & (i - j < (sliding_window or length))
    if chunk := ORACLE["chunks"].get(module.layer_idx):
        visible &= i // chunk == j // chunk
    visible = visible[None, None] & ORACLE["real"][:, None, None, :]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = torch.einsum("bhid,bhjd->bhij", query, key) * (
        query.shape[-1] ** -0.5 if scaling is None else scaling
    )
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    weights = scores.masked_fill(~visible, -1e30).softmax(-1)
    masked = [head for layer, head in ORACLE["heads"] if layer == module.layer_idx]
    uniform = visible.float() / visible.sum(-1, keepdim=True).clamp(min=1)
    for head in masked:
        weights[:, head] = uniform[:, 0]
    out = torch.einsum("bhij,bhjd->bihd", weights, value)
    for head in masked:
        if ORACLE["mode"] == "zero":
            out[:, :, head] = 0
        if ORACLE["mode"] == "mean":
            out[:, :, head] = ORACLE["means"][module.layer_idx, head]
    return out.contiguous(), None


AttentionInterface.register("explicit", explicit)
AttentionMaskInterface.register("explicit", lambda *arguments, **options: None)


@contextmanager
def oracle(heads=(), mode="uniform", real=None, means=None, chunks=None) -> Iterator[None]:
    """Within the block, models built with ``explicit`` are masked so; without, they are as they are."""
    before = dict(ORACLE)
    real = torch.ones(1, 1, dtype=torch.bool) if real is None else real
    ORACLE.update(
        heads=heads,
        mode=mode,
        real=real,
        means=means,
        chunks=before.get("chunks", {}) if chunks is None else chunks,
    )
    try:
        yield
    finally:
        ORACLE.clear()
        ORACLE.update(before)


def gap(found, expected) -> float:
    """Largest difference, as a share of the largest entry."""
    assert found.shape == expected.shape and bool(torch.isfinite(expected).all())
    return float((found - expected).abs().max() / expected.abs().max())


@torch.inference_mode()
def differences(family: str, proxy: ProxyModel) -> dict[str, float]:
    """:func:`gap` of everything that a score is made of: against the oracle, and it against the library's own attention."""
    own, by_hand = build(family, "eager"), build(family, "explicit")
    torch.manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (2, 17))
    inside = next(name for name, module in proxy.model.named_modules() if module is proxy.decoder)
    body = by_hand.get_submodule(inside)
    chunks = {
        layer: 5 for layer, kind in enumerate(FAMILIES[family][1].get("layer_types", [])) if "chunk" in kind
    }
    found = {}
    with oracle(chunks=chunks):
        plain = own(ids).logits
        found["oracle, nothing masked"] = gap(by_hand(ids).logits, plain)
        found["nothing masked"] = gap(proxy.model(ids).logits, plain)
        base = body(ids).last_hidden_state
        with oracle(HEADS), masking.masked(proxy.attentions, HEADS):
            expected = by_hand(ids).logits
            found["heads masked"] = gap(proxy.model(ids).logits, expected)
            assert gap(plain, expected) > 1e-3  # masking these heads does something
        for layer in range(proxy.num_layers):
            heads = [(layer, 1), (proxy.num_layers - 1, 2)]
            with oracle(heads):
                masked, logits = body(ids).last_hidden_state, by_hand(ids).logits
            both = proxy.both(ids, heads)
            found[f"both at once, from layer {layer}"] = gap(both, torch.cat([base, masked]))
            losses = proxy.losses(both[2:, :-1].flatten(0, 1), ids[:, 1:].flatten())
            expected = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none"
            )
            found[f"losses, from layer {layer}"] = gap(losses, expected)
    return found


def outcome(family: str) -> tuple[str, str]:
    """("exact", how it is scored) or ("refused", why), as the table of families says."""
    try:
        proxy = load(family)
    except SettingError as error:
        return "refused", str(error).split("; use ")[0]
    wrong = {name: found for name, found in differences(family, proxy).items() if not found <= TOLERANCE}
    if wrong:
        return "WRONG", f"{wrong}"
    return "exact", "one pass" if proxy.forks else "two passes"
