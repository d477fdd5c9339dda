"""A tiny Llama whose weights are written by hand, so that it is known which heads copy. No download, no
training.

Layer 0, heads 0 to 2 are previous-token heads: they write the codes of the tokens 1, 2 and 3 places back into
the residual stream. Layer 1, head :data:`INDUCTION` [1] is an induction head: it looks for earlier places
whose three preceding tokens are the last three tokens, and copies what stands there into the prediction. All
other heads are idle. The tokenizer is a small byte-level BPE trained on Python's own language reference.

Residual stream: token | 1 back | 2 back | 3 back | prediction (each ``CODE`` wide) | a constant.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

VOCABULARY = 1024
END = "<|endoftext|>"  # the last of them; no text holds it
CODE = 32  # width of a token's random +-1 code
BACK = 3  # preceding tokens that must match
HEADS, HEAD_DIM = 4, 256
POSITION_PAIRS = 24  # rotary pairs, fastest first, that the previous-token heads use
INDUCTION = (1, 0)
SHARPNESS = 5.0  # score, in nats, of one matching token
CONFIDENCE = 14.0  # logit of a token that is copied with certainty


def build() -> tuple[Any, Any]:
    """The model (float32) and its tokenizer."""
    return _model(), _tokenizer()


def _tokenizer() -> Any:
    import pydoc_data.topics

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    topics = pydoc_data.topics.topics
    tokenizer.train_from_iterator((topics[key] for key in sorted(topics)), trainer)
    tokenizer.add_special_tokens([END])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)


def _model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    from repro.proxy import masking

    # transformers wants a multiple of the number of heads; one entry is used
    width = CODE * (BACK + 2) + HEADS
    configured: Any = LlamaConfig  # takes what every model takes, beyond what it declares
    config = configured(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 1e8},
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=VOCABULARY - 1,
        attn_implementation=masking.NAME,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)
        _write(model)
    return model.eval()


def _write(model: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 2, (VOCABULARY, CODE), generator=generator).float() * 2 - 1
    constant = CODE * (BACK + 2)
    embedding = model.model.embed_tokens.weight
    embedding[:, :CODE] = codes
    embedding[:, constant] = CODE**0.5

    # After RMSNorm a code's entries are of this size, in layer 0 and in layer 1 (where BACK more codes
    # stand).
    width = embedding.shape[1]
    sizes = [(width / (CODE * (2 + more))) ** 0.5 for more in (0, BACK)]

    first, second = (layer.self_attn for layer in model.model.layers)
    pair = torch.arange(POSITION_PAIRS)
    angles = 1e8 ** (-2.0 * pair / HEAD_DIM)  # radians a place
    for head in range(BACK):
        at = head * HEAD_DIM + pair
        # Query and key are constant but for their angle: the score is highest `head + 1` places back.
        amplitude = 20.0 / (sizes[0] * CODE**0.5)
        turn = (head + 1) * angles
        first.q_proj.weight[at, constant] = amplitude * torch.cos(turn)
        first.q_proj.weight[at + HEAD_DIM // 2, constant] = -amplitude * torch.sin(turn)
        first.k_proj.weight[at, constant] = amplitude
        _copy(first.v_proj.weight, head * HEAD_DIM, 0, 1.0)
        _copy(first.o_proj.weight, CODE * (head + 1), head * HEAD_DIM, 1 / sizes[0])

    # Content uses the slowest rotary pairs, which hardly turn over a few thousand places.
    gain = (SHARPNESS * HEAD_DIM**0.5 / CODE) ** 0.5 / sizes[1]
    slow = HEAD_DIM // 2 - BACK * CODE // 2
    head = INDUCTION[1] * HEAD_DIM
    for back in range(BACK):
        place = slow + back * CODE // 2
        for half, offset in ((0, 0), (CODE // 2, HEAD_DIM // 2)):
            rows = torch.arange(CODE // 2)
            second.q_proj.weight[head + offset + place + rows, back * CODE + half + rows] = gain
            second.k_proj.weight[head + offset + place + rows, (back + 1) * CODE + half + rows] = gain
    _copy(second.v_proj.weight, head, 0, 1.0)
    prediction = CODE * (BACK + 1)
    _copy(second.o_proj.weight, prediction, head, 1 / sizes[1])

    final = (width / (CODE * (3 + BACK))) ** 0.5
    model.lm_head.weight[:, prediction : prediction + CODE] = codes * CONFIDENCE / (CODE * final)


def _copy(weight: Tensor, to: int, source: int, gain: float) -> None:
    rows = torch.arange(CODE)
    weight[to + rows, source + rows] = gain
