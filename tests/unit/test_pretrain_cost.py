"""Counts of the cost model against the networks themselves and against DeepSpeed's estimator."""

import subprocess
import sys

import pytest
import torch

from repro.errors import NoRoom, SettingError
from repro.pretrain import cost
from repro.pretrain.settings import Model, Train
from repro.settings.files import options, read_option

SHIPPED = options("model")


def shipped(name):
    return Model(**read_option("model", name))


def on_meta(model, context=64):
    from transformers import LlamaForCausalLM

    from repro.pretrain.model import llama_config

    with torch.device("meta"):
        return LlamaForCausalLM(llama_config(model, context, 0))


@pytest.mark.parametrize("name", SHIPPED)
def test_parameters_are_those_of_the_network(name):
    model = shipped(name)
    network = on_meta(model)
    assert cost.parameters(model) == sum(p.numel() for p in network.parameters())
    embeddings = ("embed_tokens", "lm_head")
    body = sum(p.numel() for n, p in network.named_parameters() if not any(e in n for e in embeddings))
    assert cost.parameters(model, embeddings=False) == body


def test_the_sizes_carry_their_names():
    millions = {
        "1m": 1.3,
        "4m": 4.0,
        "10m": 11,
        "30m": 33,
        "60m": 65,
        "135m": 134.5,
        "360m": 361.8,
        "1.7b": 1711,
    }
    for name, expected in millions.items():
        assert cost.parameters(shipped(name)) / 1e6 == pytest.approx(expected, rel=0.05), name
    paper, literal = shipped("7b"), shipped("7b_ffn8192")
    assert (
        round(cost.parameters(paper, embeddings=False) / 1e9, 2) == 6.98
    )  # the paper's table 9, the number it prints
    assert round(cost.parameters(literal) / 1e9, 2) == 4.97  # and what its printed FFN gives


def test_the_flops_are_those_of_the_products():
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import LlamaForCausalLM

    from repro.pretrain.model import llama_config

    model, context, batch = Model(layers=3, hidden=64, heads=4, kv_heads=2, ffn=128, vocabulary=500), 32, 2
    config = llama_config(model, context, 0)
    config._attn_implementation = "eager"
    network = LlamaForCausalLM(config)
    with FlopCounterMode(display=False) as counter:
        network(input_ids=torch.zeros(batch, context, dtype=torch.long)).logits.sum().backward()
    other_half = (
        6 * model.layers * model.hidden * context
    )  # of the attention map, which an explicit product computes too
    assert counter.get_total_flops() == (cost.flops_per_token(model, context) + other_half) * batch * context


@pytest.mark.parametrize("nodes,gpus", [(1, 1), (1, 8), (32, 8)])
def test_memory_is_what_deepspeed_estimates(nodes, gpus):
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    model = shipped("7b")
    n, largest = cost.parameters(model), cost.layer_parameters(model)
    _, two = estimate_zero2_model_states_mem_needs(n, gpus, nodes, cpu_offload=False)
    _, three, *_ = estimate_zero3_model_states_mem_needs(n, largest, gpus, nodes, cpu_offload=False)
    assert cost.state_bytes(model, nodes * gpus, 2) == pytest.approx(two, rel=1e-6)
    assert cost.state_bytes(model, nodes * gpus, 3) == pytest.approx(three, rel=1e-6)


def test_what_cannot_fit_is_refused():
    model, train = (
        shipped("7b"),
        Train(tokens=2**30, context=8192, batch_sequences=1024, micro_batch=1, processes=256),
    )
    train.activation_checkpointing, train.zero_stage, train.dtype = True, 1, "bfloat16"
    with pytest.raises(
        SettingError,
        match=r"needs \d+\.\d GB on each of 256 ranks at train.zero_stage=1.*train.zero_stage=2$",
    ):
        cost.must_fit(model, train, 40e9, None)
    train.zero_stage = 2
    cost.must_fit(model, train, 40e9, None)
    with pytest.raises(SettingError, match="more ranks"):
        cost.must_fit(model, Train(tokens=2**24, context=512, zero_stage=2, dtype="bfloat16"), 80e9, None)
    with pytest.raises(NoRoom, match=r"need 324.8 GB of disk and 100 GB are free"):
        cost.must_fit(model, Train(dtype="bfloat16"), None, 100e9)
    assert any("7,382.2 M parameters" in line for line in cost.report(model, train))


def test_the_plan_needs_no_torch():
    code = "import sys; import repro.pretrain.cost, repro.pretrain.stage; assert not {'torch', 'polars', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_plan_counts_the_disk_of_the_models_that_stay():
    """Of fifty trainings one after the other the checkpoints are never there at once."""
    train = Train(tokens=2**20, context=512, keep_at_tokens=[2**18, 2**19], dtype="float32")
    assert cost.of(shipped("1m"), train).disk_bytes == 3 * 4 * cost.parameters(shipped("1m"))
