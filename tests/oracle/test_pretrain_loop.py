"""The training against a plain PyTorch loop that shares no code with it but the network's class and its first weights."""

import gc
import json
import math
import resource
import statistics
import weakref
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from pretraining import TINY, job, naive_stream, workspace
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, get_wsd_schedule

from repro.errors import SettingError
from repro.pretrain import compiled as in_blocks
from repro.pretrain import loop
from repro.pretrain.engine import can_compile
from repro.pretrain.health import Spikes, stop_if_not_finite
from repro.pretrain.model import build, next_token_loss
from repro.pretrain.order import open_stream
from repro.pretrain.schedule import decay_start, learning_rate
from repro.pretrain.settings import Train
from repro.tracking import read_rows

SAME = 2e-6  # of losses near 5.8 in float32: the order of sums differs, nothing else


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    torch.set_num_threads(1)
    return workspace(tmp_path_factory.mktemp("loop"))


def losses(out):
    return [row["loss"] for row in read_rows(out / "loss.jsonl")]


def plain_loop(paths, train, seed, end_token, model=TINY):
    """AdamW over the naive stream, one batch a step, float32; returns the losses and the network."""
    network = build(model, train.context, end_token, seed)
    ids = torch.tensor(naive_stream(paths, seed, 4)[0])
    matrices = [p for p in network.parameters() if p.ndim > 1]
    norms = [p for p in network.parameters() if p.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": train.weight_decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(train.beta1, train.beta2))
    n, curve = train.batch_sequences * train.context, []
    for step in range(train.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(train, step)
        x = ids[step * n : (step + 1) * n].view(train.batch_sequences, train.context)
        y = ids[step * n + 1 : (step + 1) * n + 1].view_as(x)
        logits = network(input_ids=x).logits
        loss = -torch.log_softmax(logits, -1).gather(-1, y.unsqueeze(-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), train.clip)
        optimizer.step()
        curve.append(loss.item())
    return curve, network


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_losses_and_weights_equal_a_plain_loop(paths, tmp_path, stage):
    this = job(paths, tmp_path, zero_stage=stage, seed=5, clip=0.5, learning_rate=1e-2)
    facts = loop.train(this)
    end = AutoTokenizer.from_pretrained(tmp_path / "model").eos_token_id
    expected, network = plain_loop(paths, this.train, 5, end)
    np.testing.assert_allclose(losses(tmp_path), expected, atol=SAME * 5, rtol=0)
    assert expected[-1] < expected[0] - 0.3  # it learned
    trained = load_file(tmp_path / "model" / "model.safetensors")
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(trained[name], parameter.detach(), atol=2e-5, rtol=0)
    assert facts["logits_difference"] <= 1e-5


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_bfloat16_stays_near_float32(paths, tmp_path, stage):
    this = job(paths, tmp_path, dtype="bfloat16", zero_stage=stage)
    loop.train(this)
    end = AutoTokenizer.from_pretrained(tmp_path / "model").eos_token_id
    expected, _ = plain_loop(paths, this.train, 0, end)
    np.testing.assert_allclose(losses(tmp_path), expected, atol=2e-2, rtol=0)
    assert (
        load_file(tmp_path / "model" / "model.safetensors")["model.embed_tokens.weight"].dtype
        == torch.bfloat16
    )


@pytest.mark.parametrize("dtype,tolerance", [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_accumulation_changes_nothing_but_rounding(paths, tmp_path, dtype, tolerance):
    loop.train(job(paths, tmp_path / "whole", dtype=dtype))
    loop.train(job(paths, tmp_path / "parts", dtype=dtype, micro_batch=2))
    np.testing.assert_allclose(losses(tmp_path / "parts"), losses(tmp_path / "whole"), atol=tolerance, rtol=0)


def test_paired_arms_start_from_the_same_weights(paths):
    first, again = build(TINY, 64, 0, seed=3), build(TINY, 64, 0, seed=3)
    other = build(TINY, 64, 0, seed=4)
    for (name, a), b, c in zip(first.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.ndim == 1 or not torch.equal(a, c), name
    wide = build(replace(TINY, layers=8, hidden=256, ffn=512), 64, 0, seed=0)
    deviations = {
        name.split(".", 3)[-1]: parameter.std().item() for name, parameter in wide.named_parameters()
    }
    assert deviations["self_attn.q_proj.weight"] == pytest.approx(0.02, rel=0.02)
    assert deviations["self_attn.o_proj.weight"] == pytest.approx(0.02 / math.sqrt(16), rel=0.02)
    assert deviations["mlp.down_proj.weight"] == pytest.approx(0.02 / math.sqrt(16), rel=0.02)


def test_attention_can_stay_inside_documents(paths):
    """A packed row gives the losses of its documents, each run alone behind the end token, as it is evaluated."""
    end, rng = 0, np.random.default_rng(0)
    documents = [[end, *rng.integers(1, 320, n)] for n in (5, 1, 17, 8)]
    network = build(TINY, 64, end, seed=0)
    row = torch.tensor([token for document in documents for token in document])[None]
    packed = next_token_loss(network, row, end, reduction="none")
    alone = []
    for document, after in zip(documents, [*documents[1:], None], strict=True):
        with_next = torch.tensor([document + (after[:1] if after else [])])
        alone.append(next_token_loss(network, with_next, None, reduction="none"))
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-5, rtol=0)
    crossing = next_token_loss(network, row, None, reduction="none")
    assert (crossing - packed).abs().max() > 1e-3


@pytest.mark.parametrize("shape", ["linear", "cosine", "1-sqrt"])
def test_the_schedule_is_the_librarys(shape):
    """Behind the warm-up, equal to transformers'. Theirs starts at the final rate at step 0, ours at one step's rise from 0."""
    train = Train(
        tokens=2048 * 200, warmup=0.05, decay=0.25, decay_shape=shape, learning_rate=2e-3, final_lr=0.1
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-3)
    theirs = get_wsd_schedule(optimizer, 10, 50, num_training_steps=200, decay_type=shape, min_lr_ratio=0.1)
    curve = []
    for _ in range(201):
        curve.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    ours = [learning_rate(train, step) for step in range(200)]
    np.testing.assert_allclose(ours[9:], curve[10:], rtol=1e-12)
    np.testing.assert_allclose(ours[:10], [2e-4 * (step + 1) for step in range(10)], rtol=1e-12)
    assert ours[149] == 2e-3 and decay_start(train) == 150 and ours[-1] == pytest.approx(2e-4)
    assert all(a > b for a, b in zip(ours[149:], ours[150:], strict=False))


def test_validation_is_bits_per_byte_of_the_heldout_text(paths, tmp_path):
    loop.train(job(paths, tmp_path, validate_tokens=10**6))
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    rows = read_rows(tmp_path / "metrics.jsonl")
    logged = next(row for row in rows if "validation/bits_per_byte/code" in row)
    index = pl.read_parquet(paths["tokens"] / "index.parquet").filter(pl.col("split") == "heldout")
    for domain in ("code", "prose"):
        held = sorted(paths["tokens"].parent.glob(f"corpus/heldout/{domain}-*.parquet"))
        texts = dict(pl.concat([pl.read_parquet(path) for path in held]).select("doc_id", "text").iter_rows())
        order = index.filter(pl.col("domain") == domain).sort("key")["doc_id"].to_list()
        ids = [tokenizer.eos_token_id]
        for name in order:
            ids += [*tokenizer(texts[name], split_special_tokens=True).input_ids, tokenizer.eos_token_id]
        nats = 0.0
        for start in range(0, len(ids) - 1, 64):
            window = torch.tensor(ids[start : start + 65])
            with torch.no_grad():
                logits = network(input_ids=window[None, :-1]).logits[0]
            nats -= torch.log_softmax(logits.double(), -1).gather(-1, window[1:, None]).sum().item()
        n_bytes = sum(len(texts[name].encode()) for name in order)
        assert logged[f"validation/bits_per_byte/{domain}"] == pytest.approx(
            nats / math.log(2) / n_bytes, abs=1e-5
        )


def test_the_exported_model_is_whole(paths, tmp_path):
    this = job(paths, tmp_path)
    facts = loop.train(this)
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
    } <= files
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert network.lm_head.weight is network.model.embed_tokens.weight
    assert facts["parameters"] == sum(p.numel() for p in network.parameters())
    assert facts["tokens"] == 8 * 64 * 12 and not (tmp_path / "checkpoints").exists()
    reads = pl.read_parquet(tmp_path / "reads.parquet")
    assert reads["tokens_read"].sum() == facts["tokens"]
    chosen = pl.read_parquet(paths["selection"] / "selection.parquet")
    unread = reads.join(chosen.filter(pl.col("repeats") == 0), on="doc_id")
    assert unread.height > 0 and unread["reads"].sum() == 0
    assert facts["reads"] == counted_by_hand(paths, facts["tokens"])
    assert json.loads((tmp_path / "training.json").read_text())["reads"] == facts["reads"]


def counted_by_hand(paths, tokens):
    """The facts about reads, from the naive stream: which document every token that was read belongs to."""
    _, owners = naive_stream(paths, 0, 4)
    lengths = dict(pl.read_parquet(paths["tokens"] / "index.parquet").select("doc_id", "length").iter_rows())
    counts = Counter(owners[:tokens])
    found = {}
    for domain in ("code", "prose"):
        names = [name for name in lengths if name.startswith(f"{domain}/documents/")]
        often = [counts[name] / lengths[name] for name in names if counts[name]]
        values = {"mean": statistics.mean(often), "median": statistics.median(often), "max": max(often)}
        found[domain] = pytest.approx({"documents": len(names), "unread": len(names) - len(often), **values})
    return found


def test_untied_embeddings_are_exported(paths, tmp_path):
    this = job(paths, tmp_path, model=replace(TINY, tie_embeddings=False))
    assert loop.train(this)["logits_difference"] <= 1e-5


def test_many_trainings_in_one_process_leave_nothing_behind(paths, tmp_path, monkeypatch):
    alive = []
    original = loop.build

    def remembering(*arguments):
        network = original(*arguments)
        alive.append(weakref.ref(network))
        return network

    monkeypatch.setattr(loop, "build", remembering)
    memory = []
    for i in range(6):
        loop.train(job(paths, tmp_path / str(i), dtype="bfloat16", tokens=8 * 64 * 2))
        gc.collect()
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert not any(reference() is not None for reference in alive)
    assert memory[-1] - memory[2] < 20_000  # KiB


def test_continuing_a_model(paths, tmp_path):
    loop.train(job(paths, tmp_path / "first"))
    further = job(
        paths, tmp_path / "second", model=replace(TINY, init_from=str(tmp_path / "first" / "model")), seed=9
    )
    loop.train(further)
    assert losses(tmp_path / "second")[0] < losses(tmp_path / "first")[0] - 0.3
    with pytest.raises(SettingError, match=r"train.context=128 is longer than the 64 tokens"):
        loop.train(replace(further, out=str(tmp_path), train=replace(further.train, context=128)))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_model_of_any_family_is_continued_without_dropout(paths, tmp_path, family):
    """Tied under other names, with dropout in its configuration and several end tokens: trained as a plain
    loop trains it, and published.
    """
    sizes = dict(vocab_size=320, eos_token_id=[0, 7], bos_token_id=0, tie_word_embeddings=True)
    if family == "gpt2":
        sizes |= dict(n_layer=2, n_embd=32, n_head=2, n_positions=64)  # dropout of 0.1 is its default
    else:
        sizes |= dict(num_hidden_layers=2, hidden_size=32, num_attention_heads=2, intermediate_size=64)
        sizes |= dict(max_position_embeddings=64, attention_dropout=0.5)
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes))
    network.save_pretrained(tmp_path / "first")
    AutoTokenizer.from_pretrained(paths["tokens"] / "tokenizer").save_pretrained(tmp_path / "first")
    for again in ("second", "third"):
        further = job(paths, tmp_path / again, model=replace(TINY, init_from=str(tmp_path / "first")))
        facts = loop.train(further)
        assert facts["logits_difference"] <= 1e-5
    assert losses(tmp_path / "second") == losses(tmp_path / "third")
    curve, trained = plain_loop(paths, further.train, 0, 0, further.model)
    np.testing.assert_allclose(losses(tmp_path / "second"), curve, atol=SAME, rtol=0)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "second" / "model")
    for name, value in trained.named_parameters():
        torch.testing.assert_close(saved.get_parameter(name), value, atol=2e-4, rtol=0)
    assert not (tmp_path / "second" / "start").exists()


def test_bfloat16_gradients_are_summed_in_float32(paths, tmp_path, monkeypatch):
    """What the optimizer gets of four micro-batches: sums that bfloat16 could not hold."""
    seen, original = [], torch.optim.AdamW.step

    def step(self, *given, **named):
        for group in self.param_groups:
            seen.extend(p.grad.float().flatten().clone() for p in group["params"] if p.grad is not None)
        return original(self, *given, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    loop.train(job(paths, tmp_path, dtype="bfloat16", micro_batch=2, tokens=8 * 64))
    sums = torch.cat(seen)
    rounded = sums.bfloat16().float() != sums
    assert rounded.float().mean() > 0.5


def test_checkpointed_activations_change_nothing(paths, tmp_path):
    loop.train(job(paths, tmp_path / "kept"))
    loop.train(job(paths, tmp_path / "again", activation_checkpointing=True))
    np.testing.assert_allclose(losses(tmp_path / "again"), losses(tmp_path / "kept"), atol=SAME, rtol=0)


@pytest.mark.slow
def test_compiling_changes_nothing_but_rounding_and_is_done_without_where_there_is_no_compiler(
    paths, tmp_path, monkeypatch, capsys
):
    loop.train(job(paths, tmp_path / "eager"))
    compiled, original = [], torch.nn.Module.compile
    calls, blocks = [], in_blocks.blocks
    monkeypatch.setattr(in_blocks, "blocks", lambda *given: calls.append(1) or blocks(*given))
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda network, **how: compiled.append(how) or original(network, backend="aot_eager", **how),
    )  # the graph as the compiler gets it, without half a minute of C++
    if can_compile("cpu"):
        loop.train(job(paths, tmp_path / "compiled", compile=True))
        np.testing.assert_allclose(
            losses(tmp_path / "compiled"), losses(tmp_path / "eager"), atol=SAME, rtol=0
        )
        assert calls  # attention was seen by the compiler in blocks
        assert compiled == [{"dynamic": False}]
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    loop.train(job(paths, tmp_path / "without", compile=True))
    assert losses(tmp_path / "without") == losses(tmp_path / "eager") and len(compiled) <= 1
    assert "train.compile=true needs a C++ compiler" in capsys.readouterr().err


def test_a_training_with_attention_inside_documents(paths, tmp_path):
    this = job(paths, tmp_path, attend_across_documents=False)
    facts = loop.train(this)
    end = AutoTokenizer.from_pretrained(tmp_path / "model").eos_token_id
    crossing, _ = plain_loop(paths, this.train, 0, end)
    found = losses(tmp_path)
    assert found[0] == pytest.approx(crossing[0], abs=5e-3) and found[0] != crossing[0]
    assert found[-1] < found[0] - 0.1 and facts["logits_difference"] <= 1e-5


def test_spikes_are_told_from_noise():
    rng = np.random.default_rng(0)
    calm = [5 - 0.01 * i + 0.05 * rng.standard_normal() for i in range(200)]
    spikes = Spikes([])
    assert not any([spikes.see(loss) for loss in calm])
    assert spikes.see(calm[-1] + 1.5) and not spikes.see(calm[-1])
    resumed = Spikes(calm[:150])
    assert not any([resumed.see(loss) for loss in calm[150:]]) and list(resumed.recent) == calm[-50:]


@contextmanager
def poisoned(monkeypatch, at_call):
    """The loss turns to NaN at one forward pass."""
    calls = []
    original = loop.next_token_loss

    def loss(*arguments, **options):
        calls.append(1)
        value = original(*arguments, **options)
        return value * float("nan") if len(calls) == at_call else value

    with monkeypatch.context() as patch:
        patch.setattr(loop, "next_token_loss", loss)
        yield


@pytest.mark.parametrize("stage,dtype", [(0, "float32"), (1, "bfloat16"), (2, "bfloat16"), (3, "bfloat16")])
def test_a_loss_that_is_not_a_number_stops_and_names_its_documents(
    paths, tmp_path, monkeypatch, stage, dtype
):
    this = job(paths, tmp_path, zero_stage=stage, dtype=dtype)
    with poisoned(monkeypatch, 7), pytest.raises(SettingError) as stopped:
        loop.train(this)
    message = str(stopped.value)
    assert "stopped at step 6" in message and "step-4" in message and "\n" not in message
    _, owners = naive_stream(paths, 0, 3)
    batch = 8 * 64
    assert list(dict.fromkeys(owners[6 * batch : 7 * batch]))[0] in message
    assert [row["step"] for row in read_rows(tmp_path / "loss.jsonl")] == list(range(1, 7))
    loop.train(this)  # and the same command goes on from the last good checkpoint
    expected = job(paths, tmp_path / "undisturbed", zero_stage=stage, dtype=dtype)
    loop.train(expected)
    assert losses(tmp_path) == losses(tmp_path / "undisturbed")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "stage,dtype",
    [
        (0, "float32"),
        (1, "float32"),
        (2, "float32"),
        (3, "float32"),
        (1, "bfloat16"),
        (2, "bfloat16"),
        (3, "bfloat16"),
    ],
)
def test_a_gradient_that_is_not_finite_stops_while_the_loss_still_is(
    paths, tmp_path, monkeypatch, stage, dtype, value
):
    """At once, not when the loss shows it: by then a checkpoint of lost weights may be the last one."""
    original, calls = loop.build, []

    def poison(gradient):
        calls.append(1)
        return torch.full_like(gradient, value) if len(calls) == 7 else gradient

    def poisoned_build(*arguments):
        network = original(*arguments)
        network.model.layers[0].mlp.register_full_backward_hook(
            lambda _, given, __: tuple(poison(g) for g in given)
        )
        return network

    monkeypatch.setattr(loop, "build", poisoned_build)
    with pytest.raises(SettingError, match=r"stopped at step 6: loss \d+\.\d+, gradient norm (nan|inf)"):
        loop.train(job(paths, tmp_path, zero_stage=stage, dtype=dtype))
    assert len(calls) == 7


def test_a_norm_that_deepspeed_masked_is_not_finite(paths, tmp_path):
    stream = open_stream(paths["tokens"], paths["selection"], 0)
    stop_if_not_finite(job(paths, tmp_path), stream, 6, 5.0, 0.0, None)
    with pytest.raises(SettingError, match="stopped at step 6: loss 5.0, gradient norm nan"):
        stop_if_not_finite(job(paths, tmp_path), stream, 6, 5.0, -1.0, None)


@pytest.mark.parametrize("length", [1, 7, 40])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_in_blocks_is_causal_attention(monkeypatch, length, kv_heads):
    """Values and gradients against torch's own, blocks that divide the length and blocks that do not."""
    monkeypatch.setattr(in_blocks, "ROWS", 16)
    g = torch.Generator().manual_seed(length)
    query, key, value = (
        torch.randn(2, heads, length, 8, generator=g, dtype=torch.float64, requires_grad=True)
        for heads in (4, kv_heads, kv_heads)
    )
    found = in_blocks.blocks(query, key, value, 0.3)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=0.3, enable_gqa=True
    ).transpose(1, 2)
    weight = torch.randn(found.shape, generator=g, dtype=torch.float64)
    grads = [torch.autograd.grad((out * weight).sum(), (query, key, value)) for out in (found, expected)]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)  # its softmax is float32
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
