"""What our evaluation costs beside lm-eval alone: the same model, items and batch size, in turn.

    python -m benchmarks.evaluation --items DIR [--tasks arc_easy] [--limit 1000] [--parameters 10]
    python -m benchmarks.evaluation --items DIR --floor [--tasks hellaswag blimp] [--dtype bfloat16]
    python -m benchmarks.evaluation --items DIR --whole [--dtype bfloat16]

``--items`` is a folder of ``<task>/<split>.jsonl``; the model is a Llama of random weights. Prints both
processor times, their ratio (goal: at most 1.2) and whether the metrics agree to the last digit. With
``--floor``, for each task of ``eval=signal`` or those that are named: processor time of one thread against
what its matrix products alone would take at the rate of a square one. With ``--whole``, the time by the
clock of ``eval=signal`` on all cores, every item of it, by task.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.machine import command, cpu_name
from repro import environment
from repro.device import matrix_rate
from repro.settings.files import read_option

SIZES = {1: (4, 128), 10: (6, 320)}  # million parameters: layers, width, at 4,096 tokens


def model(folder: Path, items: Path, size: int) -> None:
    """A random Llama with a byte-level BPE trained on the items."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train(
        [str(path) for path in sorted(items.rglob("*.jsonl"))[:8]],
        vocab_size=4096,
        special_tokens=["<|end|>"],
    )
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|end|>")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, **special).save_pretrained(folder)
    layers, width = SIZES[size]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=8,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def floor(folder: Path, items: Path, tasks: list[str], limit: int, dtype: str) -> None:
    """Print the processor time of each task beside the time of its matrix products at the measured rate."""
    from repro.evaluate.evaluate import evaluate
    from repro.evaluate.settings import Eval

    torch.set_num_threads(1)
    out = folder.parent / "floor"
    print(f"A model of random weights, {dtype} (BLiMP in float32), one thread, at most {limit:,} items")
    print("a task; loading the model, the items and lm-eval's tasks are in the time, too.\n")
    print("| task | items | GFLOP | seconds | at the matrix rate | times |\n|---|---:|---:|---:|---:|---:|")
    total, least = 0.0, 0.0
    for task in tasks:
        settings = Eval(tasks=[task], limit=limit, text_tasks=[], dtype=dtype)
        with FlopCounterMode(display=False) as counter:
            evaluate(folder, settings, items, out / task / "counted")
        flops = counter.get_total_flops()
        rate = matrix_rate("cpu", "float32" if task == "blimp" else dtype)
        started = time.process_time()
        found = evaluate(folder, settings, items, out / task / "timed")
        seconds, fastest = time.process_time() - started, flops / rate
        count = next(cell["n"] for name, cell in found["metrics"].items() if name.startswith(f"{task}/acc"))
        total, least = total + seconds, least + fastest
        print(
            f"| {task} | {count:,} | {flops / 1e9:,.0f} | {seconds:.1f} | {fastest:.1f} |"
            f" {seconds / fastest:.2f} |",
            flush=True,
        )
    print(f"| all | | | {total:.1f} | {least:.1f} | {total / least:.2f} |")


def whole(folder: Path, items: Path, dtype: str) -> None:
    """Print what each part of ``eval=signal`` takes by the clock, with the threads that this process has."""
    from repro.evaluate.evaluate import evaluate
    from repro.evaluate.settings import Eval
    from repro.items import stage
    from repro.items.settings import Items
    from repro.store import Store

    items = Store(folder.parent / "work").ensure(stage(Items("folder", str(items))))  # where text is found
    s = read_option("eval", "signal")
    first = s["tasks"][0]
    parts = [(task, task, s["limits"], []) for task in s["tasks"]]
    parts += [("text, and one item", first, {first: 1}, s["text_tasks"])]
    print(f"A model of random weights, {dtype} (BLiMP in float32), {torch.get_num_threads()} threads;")
    print("loading the model, the items and lm-eval's tasks are in the time of every part.\n")
    print("| part | items or texts | seconds |\n|---|---:|---:|")
    total = 0.0
    for number, (name, task, limits, texts) in enumerate(parts):
        settings = Eval(
            tasks=[task], limits=limits, text_tasks=texts, text_bytes=s["text_bytes"], dtype=dtype
        )
        started = time.perf_counter()
        found = evaluate(folder, settings, items, folder.parent / "whole" / str(number))
        seconds = time.perf_counter() - started
        read = found["text_bits_per_byte"] if texts else {"": found["metrics"][f"{task}/acc"]}
        print(f"| {name} | {sum(cell['n'] for cell in read.values()):,} | {seconds:.0f} |", flush=True)
        total += 0 if name == "blimp" else seconds
    print(f"| all but BLiMP | | {total:.0f} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", help="default: arc_easy")
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--parameters", type=int, choices=SIZES, default=10, help="millions")
    parser.add_argument("--floor", action="store_true", help="against the rate of a matrix product")
    parser.add_argument("--whole", action="store_true", help="all of eval=signal by the clock")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of these two")
    arguments = parser.parse_args()
    environment.keep_memory()
    if arguments.floor or arguments.whole:
        print(f"**Evaluation** (`{command('evaluation')}`)\n\n{cpu_name()}.")
        named = arguments.tasks or read_option("eval", "signal")["tasks"]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "model"
            model(folder, arguments.items, arguments.parameters)
            if arguments.floor:
                floor(folder, arguments.items, named, arguments.limit, arguments.dtype)
            else:
                whole(folder, arguments.items, arguments.dtype)
        return
    arguments.tasks = arguments.tasks or ["arc_easy"]

    import lm_eval
    from lm_eval.tasks import TaskManager

    from repro.evaluate import harness
    from repro.evaluate.evaluate import evaluate
    from repro.evaluate.settings import Eval

    settings = Eval(tasks=arguments.tasks, limit=arguments.limit, text_tasks=[])
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name) / "model", Path(name) / "out"
        model(folder, arguments.items, arguments.parameters)
        evaluate(
            folder,
            Eval(tasks=arguments.tasks, limit=1, text_tasks=[]),
            arguments.items,
            Path(name) / "warm-up",
        )
        times: dict[str, list[float]] = {"ours": [], "lm-eval": []}
        for _ in range(2):
            started = time.process_time()
            summary = evaluate(folder, settings, arguments.items, out, definitions=out / "tasks")
            times["ours"].append(time.process_time() - started)
            started = time.process_time()
            with harness.quiet():
                lm = harness.load(folder, settings.batch_size, settings.dtype)
                by_hand = {}
                for task in arguments.tasks:
                    manager = TaskManager(include_path=str(out / "tasks" / task), include_defaults=False)
                    found = lm_eval.simple_evaluate(
                        lm,
                        tasks=[task],
                        limit=arguments.limit,
                        task_manager=manager,
                        batch_size=settings.batch_size,
                    )
                    by_hand |= found["results"]
            times["lm-eval"].append(time.process_time() - started)
    ours, alone = min(times["ours"]), min(times["lm-eval"])
    same = all(
        summary["metrics"][f"{task}/acc"]["value"] == by_hand[task]["acc,none"] for task in arguments.tasks
    )
    print("**Evaluation** (`python -m benchmarks.evaluation`)\n")
    print(f"{arguments.limit:,} items of {', '.join(arguments.tasks)}, a model of {arguments.parameters} M "
          f"parameters: this project {ours:.1f} s, lm-eval alone {alone:.1f} s of processor time, "
          f"ratio {ours / alone:.2f}; metrics "
          f"{'equal to the last digit' if same else 'NOT equal'}.")  # fmt: skip


if __name__ == "__main__":
    main()
