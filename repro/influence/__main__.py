"""``python -m repro.influence --join work=STORE [device=...] [score.processes=N]
[score.tokenizers=N]``: help with the scorings of a store.

A run that scores writes what it scores into its store. Any machine that sees the store may join and leave at
any time; each takes shards that nobody is at. The run goes on once all shards are there. Settings that change
scores stand in the store.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from repro import environment
from repro.device import present
from repro.errors import SettingError, nearest, require
from repro.execution import processes
from repro.influence import claims
from repro.influence.settings import Score
from repro.influence.stage import VERSION
from repro.settings.words import held
from repro.store.disk import room_on

LOOK_SECONDS = 2.0  # between two looks for a scoring
OF_MACHINE = ("processes", "tokenizers")  # settings of score that each machine has for itself


def join(root: Path, own: dict[str, str], device: str) -> int:
    """Score shards of every scoring that is open below ``root`` (the store's artifacts); returns how many
    scorings.
    """
    from repro.influence import workers

    def pairs(heads: Sequence[Sequence[int]]) -> workers.HeadSet:
        return tuple((layer, head) for layer, head in heads)

    seen: set[Path] = set()
    said = False
    while True:
        found = [partial for partial in claims.waiting(root) if partial not in seen]
        if not found and seen:
            return len(seen)
        if not found:
            if not said:
                print(
                    f"waits for a run that scores in {root.parent}; Ctrl-C ends it",
                    file=sys.stderr,
                    flush=True,
                )
            said = True
            time.sleep(LOOK_SECONDS)
        for partial in found:
            seen.add(partial)
            try:
                written = claims.Board(partial).job
                require(
                    written["version"] == VERSION,
                    f"{partial.name} is scored by another version of this code; install the run's version"
                    " here",
                )
                claims.joined(partial, {k: v for k, v in own.items() if k not in OF_MACHINE})
                settings = written["settings"]
                job = workers.Job(
                    model=str((partial / written["model"]).resolve()),
                    heads=pairs(written["heads"]),
                    others=tuple(
                        (str(partial / folder), pairs(heads)) for folder, heads in written.get("others", [])
                    ),
                    device=device,
                    tokenizers=int(own["tokenizers"]) if "tokenizers" in own else None,
                    means=str(partial / written["means"]) if written["means"] else None,
                    **settings,
                )
                workers.score_all(partial, job, int(own.get("processes", 0)), lambda: None)
            except claims.Closed:
                continue
            if now := claims.progress(partial):
                print(now.line(), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """The door. Exit 2 for a user's mistake, 130 or 143 for one who leaves by Ctrl-C or SIGTERM."""
    environment.prepare(restart=arguments is None)
    said = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(
        prog=environment.program or "python -m repro.influence", description=said
    )
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="work=STORE, device=..., score.processes=N, score.tokenizers=N",
    )
    parser.add_argument(
        "--join", action="store_true", required=True, help="score shards of what is being scored there"
    )
    parsed = parser.parse_intermixed_args(arguments)
    try:
        given = dict(setting.partition("=")[::2] for setting in parsed.settings)
        own = {key.removeprefix("score."): value for key, value in given.items() if key.startswith("score.")}
        others = [key for key in given if key not in ("work", "device") and not key.startswith("score.")]
        require(
            not others,
            f"--join takes work=, device=, score.processes= and score.tokenizers=, not {', '.join(others)}:"
            " what is scored stands there",
        )
        for name in own:
            require(
                name in held(Score),
                f"unknown setting score.{name}; did you mean score.{nearest(name, held(Score))[1:-1]}?",
            )
        require("work" in given, "--join needs work=STORE, the work folder of the run that scores")
        for name in OF_MACHINE:
            require(own.get(name, "0").isdigit(), f"score.{name}={own.get(name)} must be a whole number")
        work = Path(given["work"]).expanduser()
        require(work.is_dir(), f"work={work} is no folder on this machine")
        device = present(given.get("device", "auto"))
        with processes.terminable(), room_on(work):
            number = join(work / "artifacts", own, device)
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print("left; others go on", file=sys.stderr)
        return 143 if isinstance(stopped, processes.Terminated) else 130
    print(f"nothing is left to score here ({number} scorings); the run that began goes on with them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
