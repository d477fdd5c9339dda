"""Tiny GGUF files of tiny random models, written as llama.cpp's converter writes them."""

from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

ARCHITECTURES = ("llama", "qwen2", "gemma3")
END = "<|endoftext|>"
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}


def model_of(architecture: str, vocabulary: int) -> torch.nn.Module:
    """A random model, float32, whose biases and norms are not at their defaults."""
    torch.manual_seed(0)
    shape = SHAPE | {
        "vocab_size": vocabulary,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
    }
    if architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=False))
    elif architecture == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**shape, tie_word_embeddings=True))
    else:
        del shape["rope_parameters"]
        shape |= {
            "head_dim": 256,
            "sliding_window": 4,
            "num_hidden_layers": 6,
        }  # the sixth layer sees everything
        model = Gemma3ForCausalLM(Gemma3TextConfig(**shape))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def vocabulary_of(architecture: str) -> tuple[list[str], list[int], list[str]]:
    """Tokens, their types (1 normal, 3 control, 6 byte) and merges."""
    if architecture == "gemma3":
        tokens = [
            "<pad>",
            "<eos>",
            "<bos>",
            "<unk>",
            "<mask>",
            *(f"<0x{byte:02X}>" for byte in range(256)),
            "▁",
            "a",
            "b",
            "ab",
            "▁a",
        ]
        return tokens, [3] * 5 + [6] * 256 + [1] * 5, []
    merges = ["h e", "Ġ t", "Ċ Ċ", "Ġ Ġ"]
    tokens = [*bytes_to_unicode().values(), *(merge.replace(" ", "") for merge in merges), END]
    return tokens, [1] * (len(tokens) - 1) + [3], merges


def write(
    path: Path,
    architecture: str,
    kind: str | None = None,
    left_out: str | None = None,
    extra: bool = False,
    **changed: object,
) -> torch.nn.Module:
    """Write ``path`` and return the model that is in it.

    ``kind`` is a quantisation of the matrices (Q8_0), ``left_out`` a tensor, ``extra`` adds a bias that the family has no
    place for, ``changed`` overrides or adds metadata (dots as two underscores;
    ``general`` is the architecture that the file claims, ``split`` how it splits text).
    """
    tokens, types, merges = vocabulary_of(architecture)
    model = model_of(architecture, len(tokens))
    config = model.config
    writer = gguf.GGUFWriter(path, str(changed.pop("general", architecture)))
    writer.add_name("A tiny model")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if architecture == "gemma3":
        writer.add_key_length(int(changed.pop("key_length", config.head_dim)))
        writer.add_value_length(config.head_dim)
        writer.add_sliding_window(config.sliding_window)
        writer.add_rope_freq_base(1_000_000.0)
    else:
        writer.add_rope_freq_base(5000.0)
    pieces = "llama" if architecture == "gemma3" else "gpt2"
    writer.add_tokenizer_model(str(changed.pop("tokenizer", pieces)))
    writer.add_tokenizer_pre(str(changed.pop("split", "qwen2" if architecture == "qwen2" else "gpt-2")))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if architecture == "gemma3":
        writer.add_token_scores([0.0] * len(tokens))
        writer.add_bos_token_id(2)
        writer.add_eos_token_id(1)
        writer.add_add_bos_token(True)
        writer.add_add_space_prefix(False)
    else:
        writer.add_token_merges(merges)
        writer.add_eos_token_id(tokens.index(END))
    for key, value in changed.items():
        name = key.replace("__", ".")
        writer.add_string(name, value) if isinstance(value, str) else writer.add_uint32(name, int(value))
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        stem, _, suffix = name.rpartition(".")
        value = parameter.detach().numpy()
        theirs = f"{names.get_name(stem)}.{suffix}"
        if architecture == "llama" and (".attn_q." in theirs or ".attn_k." in theirs):
            heads = config.num_attention_heads if ".attn_q." in theirs else config.num_key_value_heads
            value = (
                value.reshape(heads, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
            )  # pairs side by side
        if architecture == "gemma3" and "norm" in name:
            value = value + 1
        if theirs == left_out:
            continue
        if kind and value.ndim == 2:
            wanted = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(
                theirs, gguf.quants.quantize(np.ascontiguousarray(value), wanted), raw_dtype=wanted
            )
        else:
            writer.add_tensor(theirs, np.ascontiguousarray(value))
    if extra:
        writer.add_tensor("blk.0.attn_q.bias", np.ones(config.hidden_size, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model
