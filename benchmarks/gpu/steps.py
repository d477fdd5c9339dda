"""Training steps of the card's speed part: DeepSpeed's engine as we start it against a plain loop, eager and
compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.rows import alternate, first_line
from repro.pretrain import engine as ds
from repro.pretrain.cost import flops_per_token, parameters
from repro.pretrain.model import initialise, llama_config, next_token_loss
from repro.pretrain.settings import Model, Train
from repro.settings.files import read_option

TINY = Model(
    name="tiny", layers=2, hidden=32, heads=2, kv_heads=1, ffn=64, vocabulary=320, tie_embeddings=True
)
# Sequences of 1,024 tokens that are computed at once: what keeps the logits of a large vocabulary within some
# 15 GB.
AT_ONCE = {"1m": 64, "10m": 64, "30m": 32, "135m": 16, "360m": 16}
Step = Callable[[], Any]


class Steps:
    """Steps of one batch on made-up tokens."""

    def __init__(self, device: str, tiny: bool, rate: Callable[[str], float]) -> None:
        self.device, self.tiny, self.rate = device, tiny, rate
        self.context = 32 if tiny else 1024
        self.rounds = 2 if tiny else 5

    def setting(self, name: str) -> tuple[Model, Train]:
        """The shape, and how it is trained: two micro-batches a step."""
        model = TINY if self.tiny else Model(**read_option("model", name))
        at_once = 2 if self.tiny else AT_ONCE[name]
        batch = 2 * at_once
        train = Train(
            tokens=batch * self.context,
            context=self.context,
            batch_sequences=batch,
            micro_batch=at_once,
            dtype="bfloat16",
            zero_stage=1,
        )
        return model, train

    def network(self, model: Model) -> Any:
        """The network with its first weights; random numbers are drawn on the device, which is faster
        there.
        """
        from transformers import LlamaForCausalLM

        torch.manual_seed(0)
        with torch.device(self.device):
            network = LlamaForCausalLM(llama_config(model, self.context, 0))
        if self.tiny:
            initialise(network, 0)
        return network

    def batch(self, model: Model, train: Train) -> list[torch.Tensor]:
        """The micro-batches of a step: [micro_batch, context + 1] each."""
        shape = (train.micro_batch, train.context + 1)
        return [torch.randint(model.vocabulary, shape, device=self.device) for _ in range(2)]

    def engine(self, model: Model, train: Train, opened: list[Any], repeatable: bool = True) -> Step:
        """A step of the shipped loop: DeepSpeed, one look at the loss and one at the norm."""
        ds.join(self.device, 1)
        engine = ds.start(self.network(model), train, self.device)
        opened.append(engine)
        batch = self.batch(model, train)

        def step() -> float:
            total = torch.zeros((), device=self.device)
            torch.use_deterministic_algorithms(repeatable and self.device == "cuda")
            torch.utils.deterministic.fill_uninitialized_memory = False
            try:
                for ids in batch:
                    loss = next_token_loss(engine, ids, None)
                    engine.backward(loss)
                    engine.step()
                    total += loss.detach() / len(batch)
            finally:
                torch.use_deterministic_algorithms(False)
                torch.utils.deterministic.fill_uninitialized_memory = True
            return total.item() + float(engine.get_global_grad_norm())

        return step

    def plain(self, model: Model, train: Train, compile: bool = False) -> Step:
        """The same in PyTorch alone: float32 weights, autocast, fused AdamW."""
        network = self.network(model).train()
        forward = torch.compile(network, dynamic=False) if compile else network
        optimizer = torch.optim.AdamW(
            ds.parameter_groups(network, train), lr=1e-4, betas=(0.9, 0.95), fused=True
        )
        batch = self.batch(model, train)

        def step() -> float:
            total = torch.zeros((), device=self.device)
            for ids in batch:
                with torch.autocast(self.device, torch.bfloat16):
                    logits = forward(input_ids=ids[:, :-1], use_cache=False).logits
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())
                (loss / len(batch)).backward()
                total += loss.detach() / len(batch)
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), train.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return total.item() + float(norm)

        return step

    def compare(self, name: str, ways: dict[str, Callable[..., Step]], rounds: int) -> dict[str, Any]:
        """Seconds a step, tokens a second and MFU of each way; one that cannot be set up is its error."""
        model, train = self.setting(name)
        opened: list[Any] = []
        ready: dict[str, Step] = {}
        failed: dict[str, dict[str, Any]] = {}
        try:
            for way, make in ways.items():
                try:
                    ready[way] = make(model, train, opened)
                except Exception as error:
                    failed[way] = {"error": first_line(error)}
            found = alternate(ready, rounds, self.device) | failed
        finally:
            ready.clear()
            for engine in opened:
                ds.stop(engine)
            torch.compiler.reset()
            ds.leave()
        flops = flops_per_token(model, train.context)
        for measured in found.values():
            if "seconds" in measured:
                measured["tokens_per_second"] = train.batch_tokens / measured["seconds"]
                measured["mfu"] = measured["tokens_per_second"] * flops / self.rate("bfloat16")
        return {
            "parameters": parameters(model),
            "tokens_a_step": train.batch_tokens,
            "at_once": train.micro_batch,
            "ways": found,
        }

    def eager(self, name: str) -> dict[str, Any]:
        """DeepSpeed with sums in one order, DeepSpeed without, and the plain loop."""
        return self.compare(
            name,
            {
                "DeepSpeed": self.engine,
                "DeepSpeed, sums in any order": partial(self.engine, repeatable=False),
                "plain PyTorch": lambda model, train, _: self.plain(model, train),
            },
            self.rounds,
        )

    def compiled(self, name: str) -> dict[str, Any]:
        """The same with torch.compile, beside the eager engine; compiling is in ``first_seconds``."""

        def fast(model: Model, train: Train, opened: list[Any]) -> Step:
            return self.engine(model, replace(train, compile=True), opened)

        return self.compare(
            name,
            {
                "DeepSpeed": self.engine,
                "DeepSpeed, compiled": fast,
                "plain PyTorch, compiled": lambda model, train, _: self.plain(model, train, compile=True),
            },
            self.rounds,
        )

    def profile(self, name: str) -> dict[str, Any]:
        """The kernels that take most of the time of a step of the engine."""
        model, train = self.setting(name)
        opened: list[Any] = []
        try:
            return profiled(self.engine(model, train, opened), self.device)
        finally:
            for engine in opened:
                ds.stop(engine)
            ds.leave()


def compiles(device: str) -> dict[str, Any]:
    """Whether torch.compile works at all, and how long a first small function takes; raises what it
    raises.
    """
    import time

    began = time.perf_counter()
    torch.compile(lambda x: torch.nn.functional.silu(x) * 2 + 1)(torch.ones(1024, device=device)).sum().item()
    return {"compile_seconds": time.perf_counter() - began}


def profiled(run: Step, device: str, most: int = 14) -> dict[str, Any]:
    """What takes most of the time of ``run``, in shares of all, behind two runs that warm up."""
    from torch.profiler import ProfilerActivity, profile

    run(), run()
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    with profile(activities=kinds) as seen:
        run()
        if device == "cuda":
            torch.cuda.synchronize()
    time = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    events = [event for event in seen.key_averages() if getattr(event, time) > 0]
    events = [event for event in events if device != "cuda" or "CUDA" in str(event.device_type)]
    whole = sum(getattr(event, time) for event in events)
    events.sort(key=lambda event: -getattr(event, time))
    top = [
        {"name": event.key[:110], "share": getattr(event, time) / whole, "calls": event.count}
        for event in events[:most]
    ]
    return {"milliseconds": whole / 1e3, "kernels": top}
