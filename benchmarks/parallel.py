"""Two trainings side by side, one thread each, against one after the other with every core: what
run.parallel=2 gains.

    python -m benchmarks.parallel --model 1m --steps 60 --rounds 5 --out results/benchmarks/parallel.md

The trainings are the shipped loop with its logging, checks, checkpoint and export, in processes as a run has
them, warmed up. The ways alternate, in one order and the other; each figure is the median over rounds, by the
clock: leave the machine alone.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path

from benchmarks.machine import cpu_name
from benchmarks.training import made_up_tokens
from repro.device import cores
from repro.execution.schedule import workers
from repro.pretrain.job import Job
from repro.pretrain.settings import Model, Train
from repro.settings.files import read_option
from repro.tracking import Tracking


def train(job, seed: str):
    """One training from the weights and in the order of ``seed``; its losses go to a file. Returns no
    failure.
    """
    import shutil

    from repro.pretrain import loop

    out = Path(job.out) / seed
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    loop.train(replace(job, seed=int(seed), out=str(out)))


def timed(start) -> float:
    """Seconds until everything that ``start`` begins is done."""
    began = time.perf_counter()
    for future in wait(start()).done:
        future.result()
    return time.perf_counter() - began


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="1m")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8, help="sequences a step")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the table to this file, too")
    given = parser.parse_args()

    model = replace(Model(**read_option("model", given.model)), tokenizer="bpe")
    settings = Train(
        tokens=given.batch * given.context * given.steps,
        context=given.context,
        batch_sequences=given.batch,
        micro_batch=given.batch,
        dtype=given.dtype,
        checkpoint_every_steps=10**6,
        validate_tokens=1,
    )
    every = cores()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        paths = {name: str(path) for name, path in made_up_tokens(root, model.vocabulary).items()}
        job = Job(model, settings, 0, **paths, out=str(root / "out"), device="cpu",
                  tracking=Tracking(wandb="disabled"),
                  group="benchmark", arm="all")  # fmt: skip
        call = functools.partial(train, job)
        threads = [{"OMP_NUM_THREADS": str(n)} for n in (every, 1, 1)]
        with workers(threads) as (all_cores, one, other):

            def in_turn(worker):
                return [wait([worker.start(call, seed)]).done.pop() for seed in "01"]

            ways = {
                f"one after the other, {every} threads": lambda: in_turn(all_cores),
                "one after the other, 1 thread": lambda: in_turn(one),
                "side by side, 1 thread each": lambda: [one.start(call, "0"), other.start(call, "1")],
            }
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            losses: dict[str, set[bytes]] = {way: set() for way in ways}
            for worker in (all_cores, one, other):  # the first of a process is slow
                wait([worker.start(call, "2")])
            for round_ in range(given.rounds):
                for way in list(ways)[:: 1 if round_ % 2 == 0 else -1]:
                    seconds[way].append(timed(ways[way]))
                    losses[way].add(
                        b"".join((root / "out" / seed / "loss.jsonl").read_bytes() for seed in "01")
                    )
    first, single, beside = ways
    tokens = 2 * settings.steps * settings.batch_tokens
    ratio = {
        way: statistics.median(a / b for a, b in zip(seconds[first], seconds[way], strict=True))
        for way in ways
    }
    lines = [
        "**Side by side** (`python -m benchmarks.parallel`)\n",
        (
            f"Two trainings of model {given.model}, {given.dtype}, {given.batch} x {given.context} tokens a"
            f" step, {given.steps} steps, with export; median of {given.rounds} rounds, {every} CPU cores of"
            f" {cpu_name()}.\n"
        ),
        "| two trainings | tokens/s | against the first |",
        "|---|---|---|",
        *(f"| {way} | {tokens / statistics.median(seconds[way]):,.0f} | {ratio[way]:.2f}x |" for way in ways),
        "",
        (
            "Losses side by side"
            f" {'equal' if losses[single] == losses[beside] and len(losses[single]) == 1 else 'DIFFER from'}"
            " those of one after the other with one thread, to the bit, in every round."
        ),
    ]
    print("\n".join(lines))
    if given.out:
        given.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
