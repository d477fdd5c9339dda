"""Training speed against a plain PyTorch loop and a nanoGPT-style one: same model, batches, optimizer and
machine.

    python -m benchmarks.training --model 10m --dtype float32 --steps 10 --rounds 5

Whole short trainings alternate in one process; each figure is the median over rounds. Ours is the shipped
loop with its logging, data and checks, not a part of it. ``waiting`` is the share of step time spent on
getting tokens, ``checkpoint`` the pause of writing one checkpoint over the time between two at the default
interval.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import command, cpu_name
from repro import environment
from repro.device import matrix_rate
from repro.pretrain import loop, tokens
from repro.pretrain.job import Job
from repro.pretrain.model import build
from repro.pretrain.order import open_stream
from repro.pretrain.schedule import learning_rate
from repro.pretrain.settings import Model, Train
from repro.settings.files import read_option
from repro.tracking import Tracking, read_rows


class NanoLlama(torch.nn.Module):
    """The same Llama in as few operations as PyTorch allows: fused QKV and gate/up products, fused norms, no
    library.
    """

    def __init__(self, model: Model, network: torch.nn.Module, context: int):
        super().__init__()
        self.model, self.head = model, model.hidden // model.heads
        self.embed = torch.nn.Parameter(network.model.embed_tokens.weight.detach().clone())
        self.norm = torch.nn.Parameter(network.model.norm.weight.detach().clone())
        layers = network.model.layers

        def stack(pick):
            return torch.nn.ParameterList(
                [torch.nn.Parameter(pick(layer).detach().clone()) for layer in layers]
            )

        self.qkv = stack(
            lambda l: torch.cat(
                [l.self_attn.q_proj.weight, l.self_attn.k_proj.weight, l.self_attn.v_proj.weight]
            )
        )
        self.out = stack(lambda l: l.self_attn.o_proj.weight)
        self.gate_up = stack(lambda l: torch.cat([l.mlp.gate_proj.weight, l.mlp.up_proj.weight]))
        self.down = stack(lambda l: l.mlp.down_proj.weight)
        self.norm1, self.norm2 = (
            stack(lambda l: l.input_layernorm.weight),
            stack(lambda l: l.post_attention_layernorm.weight),
        )
        frequency = 10000.0 ** (-torch.arange(0, self.head, 2) / self.head)
        angle = torch.outer(torch.arange(context), frequency).repeat(1, 2)
        self.register_buffer("cos", angle.cos()), self.register_buffer("sin", angle.sin())

    def rotate(self, x):
        """Rotary positions of [B, heads, T, head]."""
        half = x.shape[-1] // 2
        return x * self.cos.to(x.dtype) + torch.cat([-x[..., half:], x[..., :half]], -1) * self.sin.to(
            x.dtype
        )

    def forward(self, ids):
        """Logits [B, T, V] of ids [B, T]."""
        m, (b, t) = self.model, ids.shape
        x = F.embedding(ids, self.embed)
        for i in range(m.layers):
            h = F.rms_norm(x, (m.hidden,), self.norm1[i], 1e-6)
            q, k, v = F.linear(h, self.qkv[i]).split(
                [m.hidden, m.kv_heads * self.head, m.kv_heads * self.head], -1
            )
            q, k, v = (y.view(b, t, -1, self.head).transpose(1, 2) for y in (q, k, v))
            a = F.scaled_dot_product_attention(
                self.rotate(q), self.rotate(k), v, is_causal=True, enable_gqa=True
            )
            x = x + F.linear(a.transpose(1, 2).reshape(b, t, -1), self.out[i])
            gate, up = F.linear(F.rms_norm(x, (m.hidden,), self.norm2[i], 1e-6), self.gate_up[i]).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, self.down[i])
        return F.linear(F.rms_norm(x, (m.hidden,), self.norm, 1e-6), self.embed)


def made_up_tokens(root: Path, vocabulary: int) -> dict[str, Path]:
    """Tokens and a selection of everything, from random words."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnopqrst"), rng.integers(2, 9))) for _ in range(5000)]
    texts = [" ".join(rng.choice(words, rng.integers(50, 800))) for _ in range(1000)]
    frame = pl.DataFrame({"doc_id": [str(i) for i in range(1000)], "domain": "text", "text": texts})
    frame = frame.with_columns(pl.col("text").str.len_bytes().cast(pl.Int64).alias("n_bytes"))
    frame[:950].write_parquet(root / "documents.parquet")
    frame[950:].write_parquet(root / "heldout.parquet")
    (root / "tokens").mkdir()
    (root / "selection").mkdir()
    tokens.train_bpe(texts, vocabulary, root / "tokens" / "tokenizer")
    files = {split: [root / f"{split}.parquet"] for split in tokens.SPLITS}
    tokens.write_corpus(root / "tokens", files, vocabulary)
    frame[:950].select("doc_id", pl.lit("text").alias("domain"), pl.lit(1).alias("repeats")).write_parquet(
        root / "selection" / "selection.parquet"
    )
    return {"tokens": root / "tokens", "selection": root / "selection"}


def ours(job: Job) -> dict:
    """One training by the shipped loop."""
    shutil.rmtree(job.out, ignore_errors=True)
    Path(job.out).mkdir()
    loop.train(job)
    rows = read_rows(Path(job.out) / "metrics.jsonl")
    logged = [row for row in rows if "loss" in row][1:]  # the first rows hold the warm-up of kernels
    return {
        "tokens_per_second": statistics.median(row["tokens_per_second"] for row in logged),
        "waiting": statistics.median(row["waiting_share"] for row in logged),
        "checkpoint": next(row["checkpoint_seconds"] for row in rows if "checkpoint_seconds" in row),
        "losses": [row["loss"] for row in read_rows(Path(job.out) / "loss.jsonl")],
    }


def compiled(job: Job) -> dict:
    """The same by the shipped loop with train.compile; what compiling takes falls in the first step, which is
    not counted.
    """
    return ours(replace(job, train=replace(job.train, compile=True)))


def plain(job: Job, nano: bool) -> dict:
    """The same training written out in PyTorch: autocast for bfloat16, as nanoGPT has it."""
    s, device = job.train, job.device
    network = build(job.model, s.context, 0, job.seed)
    network = (NanoLlama(job.model, network, s.context) if nano else network).to(device)
    stream = open_stream(Path(job.tokens), Path(job.selection), job.seed)
    matrices, norms = ([p for p in network.parameters() if (p.ndim > 1) == big] for big in (True, False))
    groups = [{"params": matrices, "weight_decay": s.weight_decay}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(s.beta1, s.beta2), fused=True)
    seconds, losses = [], []
    for step in range(s.steps):
        began = time.perf_counter()
        ids = torch.from_numpy(stream.sequences(step * s.batch_sequences, s.batch_sequences, s.context)).to(
            device
        )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(s, step)
        with torch.autocast(device, torch.bfloat16, enabled=s.dtype == "bfloat16"):
            logits = network(ids[:, :-1]) if nano else network(input_ids=ids[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), s.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - began)
    speed = s.batch_sequences * s.context / statistics.median(seconds[1:])
    return {"tokens_per_second": speed, "losses": losses}


def flops_per_token(job: Job) -> float:
    """Floating-point operations of forward and backward pass: torch's count of the matrix products, and what
    causal attention needs (it counts none on a CPU, and the whole square on a GPU).
    """
    s, model = job.train, job.model
    network = build(model, s.context, 0, job.seed)
    ids = torch.zeros(1, s.context, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        network(input_ids=ids, labels=ids).loss.backward()
    products = counter.get_flop_counts()["Global"]
    counted = sum(n for operation, n in products.items() if "attention" not in str(operation))
    attention = 3 * model.layers * 2 * s.context * model.hidden  # a half of 4 T D, backward twice forward
    return counted / s.context + attention


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="10m")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8, help="sequences a step")
    parser.add_argument(
        "--micro-batch", type=int, help="sequences computed at once by this project; default: the batch"
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    environment.keep_memory()
    model = replace(Model(**read_option("model", given.model)), tokenizer="bpe")
    train = Train(
        tokens=given.batch * given.context * given.steps,
        context=given.context,
        batch_sequences=given.batch,
        micro_batch=given.micro_batch or given.batch,
        dtype=given.dtype,
        log_every_steps=1,
        checkpoint_every_steps=10**6,
        validate_tokens=1,
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        paths = {name: str(path) for name, path in made_up_tokens(root, model.vocabulary).items()}
        job = Job(model, train, 0, **paths, out=str(root / "out"), device=given.device,
                  tracking=Tracking(wandb="disabled"),
                  group="benchmark", arm="all")  # fmt: skip
        ways = {
            "this project": ours,
            "this project, compiled": compiled,
            "plain PyTorch": lambda j: plain(j, False),
            "nanoGPT style": lambda j: plain(j, True),
        }
        results: dict[str, list[dict]] = {way: [] for way in ways}
        rates = [matrix_rate(given.device, given.dtype)]
        for round_ in range(given.rounds):
            for way in list(ways)[:: 1 if round_ % 2 == 0 else -1]:
                results[way].append(ways[way](job))
            rates.append(matrix_rate(given.device, given.dtype))
        counted = flops_per_token(job)
    speed = {way: statistics.median(r["tokens_per_second"] for r in runs) for way, runs in results.items()}
    paired = {
        way: statistics.median(
            a["tokens_per_second"] / b["tokens_per_second"]
            for a, b in zip(results["this project"], runs, strict=True)
        )
        for way, runs in results.items()
    }
    apart = {
        way: max(
            abs(a - b) for a, b in zip(runs[0]["losses"], results["this project"][0]["losses"], strict=True)
        )
        for way, runs in results.items()
    }
    where = (
        f"{given.device}, {torch.get_num_threads()} threads"
        if given.device == "cpu"
        else torch.cuda.get_device_name()
    )
    print(f"**Training** (`{command('training', ())}`)\n{cpu_name()}.\n")
    print(
        f"Model {given.model}, {given.dtype}, {given.batch} x {given.context} tokens a step"
        f" ({train.micro_batch} at once by this project), {given.steps} steps, median of {given.rounds}"
        f" rounds, {where}.\n"
    )
    rate = statistics.median(rates)
    print(
        f"{counted / 1e6:,.1f} MFLOP a token; matrix rate {rate / 1e9:,.0f} GFLOP/s"
        f" ({min(rates) / 1e9:,.0f} to {max(rates) / 1e9:,.0f}).\n"
    )
    print("| training loop | tokens/s | share of matrix rate | ours / this | largest difference of losses |")
    print("|---|---|---|---|---|")
    for way in ways:
        share = counted * speed[way] / rate
        print(f"| {way} | {speed[way]:,.0f} | {share:.0%} | {paired[way]:.3f} | {apart[way]:.2g} |")
    ran = results["this project"]
    interval = Train().checkpoint_every_steps * given.batch * given.context / speed["this project"]
    waiting, checkpoint = (statistics.median(r[key] for r in ran) for key in ("waiting", "checkpoint"))
    same = all(r["losses"] == ran[0]["losses"] for r in ran)
    print(
        f"\nWaiting for data {waiting:.2%} of a step; a checkpoint pauses {checkpoint / interval:.2%} of the"
        " time between two."
    )
    print(f"{len(ran)} runs of ours, losses {'identical' if same else 'NOT identical'} to the bit.")


if __name__ == "__main__":
    main()
