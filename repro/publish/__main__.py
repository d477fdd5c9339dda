"""``repro publish RUN_DIR --to FOLDER``: the kept documents of a run with their scores and heads as a data
set for ``datasets`` and the hub, with its card; or the trained models as a model repository.

Nothing leaves this machine without --push.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from repro import environment
from repro.errors import SettingError, require
from repro.publish import cards, dataset, models, portable
from repro.publish.made import Made
from repro.publish.model_card import model_card
from repro.store import replace_folder
from repro.store.disk import make_folder, room_on

RECORD = "published.json"  # what is in the folder, and where it comes from


def main(arguments: list[str] | None = None) -> int:
    """The door. Exit 2 for a user's mistake."""
    environment.prepare(restart=arguments is None)
    parsed = _parser().parse_args(arguments)
    try:
        from repro.publish import hub, made

        repo = hub.name_of(parsed.push) if parsed.push else None
        found = made.read(parsed.run, parsed.work)
        said = publish(found, parsed.to, parsed.what, parsed.arm, parsed.seed)
        print(f"{said}: {parsed.to}   (read its README.md before you send it anywhere)", flush=True)
        if repo:
            kind = {"data": "dataset", "models": "model"}[parsed.what]
            print(f"sent: {hub.push(parsed.to, repo, kind, parsed.private)}")
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was published", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=environment.program or "python -m repro.publish",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: repro publish work/runs/score_corpus-laptop-1a2b3c4d --to kept --push me/kept",
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN_DIR", help="what a run printed last, or where repro score left scores"
    )
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument(
        "--what", choices=("data", "models"), default="data", help="the data set (default), or the models"
    )
    parser.add_argument(
        "--arm", metavar="NAME", help="whose documents or models (default: the selection; of models, all)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="(default: the first; of models, all)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="the run's work folder, if it is elsewhere")
    parser.add_argument("--push", metavar="OWNER/NAME", help="send it to this repository of the hub")
    parser.add_argument(
        "--private",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="a repository that only its owner sees (default), or --no-private",
    )
    return parser


def publish(made: Made, target: Path, what: str, arm: str | None = None, seed: int | None = None) -> str:
    """Write the folder, whole or not at all; returns what is in it, in words."""
    require(
        not target.exists() or (target / RECORD).is_file() or target.is_dir() and not any(target.iterdir()),
        f"--to {target} is there and was not published by this command; name a new folder",
    )
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    make_folder(partial.parent, "--to ")
    partial.mkdir()
    try:
        with room_on(target.absolute().parent):
            said = _data(partial, made, arm, seed) if what == "data" else _models(partial, made, arm, seed)
        replace_folder(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return said


def _data(folder: Path, made: Made, arm: str | None, seed: int | None) -> str:
    source = dataset.source(made, arm, seed)
    kept = dataset.write(folder, source)
    cards.dataset_card(folder, source).save(folder / "README.md")
    stages = {name: artifact["fingerprint"] for name, artifact in source.behind().items()}
    _seal(folder, made, {"arm": source.arm, "seed": int(source.seed), "kept": kept, "stages": stages})
    return f"{kept:,} documents kept by {source.arm}"


def _models(folder: Path, made: Made, arm: str | None, seed: int | None) -> str:
    chosen = models.chosen(made, arm, seed)
    models.write(folder, made, chosen)
    model_card(made, chosen, len(chosen) > 1).save(folder / "README.md")
    of = made.summary["arms"]
    stages = {
        name: of[a]["seeds"][s]["artifacts"]["pretrain"]["fingerprint"] for name, (a, s) in chosen.items()
    }
    _seal(folder, made, {"stages": stages})
    return f"{len(chosen)} model{'' if len(chosen) == 1 else 's'}"


def _seal(folder: Path, made: Made, said: dict[str, object]) -> None:
    """Write the record, and refuse what tells of this machine."""
    from repro.store import sha256_file, write_json

    files = {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    about = {
        "experiment": made.summary["experiment"],
        "scale": made.summary["scale"],
        "command": made.command(),
        "code": made.summary.get("code"),
    }
    write_json(folder / RECORD, {**about, **said, "files": files})
    portable.check(folder, made.places())


if __name__ == "__main__":
    sys.exit(main())
