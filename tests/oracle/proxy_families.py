"""Tiny random models of many families, float32, built without download."""

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from repro.proxy import masking

COMMON = {
    "vocab_size": 96,
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
GPT2 = {"vocab_size": 96, "n_embd": 48, "n_layer": 3, "n_head": 6, "n_positions": 256, "initializer_range": 0.3}
FAMILIES = {
    "llama": {"attention_bias": True},
    "mistral": {"sliding_window": 5},
    "mixtral": {"num_local_experts": 2},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "gpt_neox": {"attention_bias": True},
    "gpt2": {"bos_token_id": 1, "eos_token_id": 2} | GPT2,
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.3},
    "olmo": {},
    "olmo2": {},
    "olmo3": {"sliding_window": 5},
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16, "sliding_window": 5, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "gemma3_text": {"head_dim": 16, "sliding_window": 5},
    "phi": {},
    "phi3": {"sliding_window": 5},
    "starcoder2": {"sliding_window": 5},
    "stablelm": {},
    "smollm3": {},
    "granite": {"logits_scaling": 8.0, "attention_multiplier": 0.1},
    "cohere": {"logit_scale": 0.25, "use_qk_norm": True},
    "falcon_h1": {"mamba_d_ssm": 48, "mamba_n_heads": 6, "mamba_d_head": 8, "mamba_n_groups": 1},
}


class Tokenizer:
    """As much of a tokenizer as loading looks at."""

    bos_token_id = None

    def __len__(self):
        return 96

    def __call__(self, text, **options):
        return {"input_ids": [5] if isinstance(text, str) else [[5] for _ in text]}


def build(family: str, attn_implementation: str = masking.NAME):
    """The same random weights whatever the attention implementation."""
    torch.manual_seed(0)
    options = FAMILIES[family]
    config = CONFIG_MAPPING[family](**(options if family == "gpt2" else COMMON | options))
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attn_implementation).eval()
    with torch.no_grad():  # biases start at zero, where a test could not see them
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3)
    return model
