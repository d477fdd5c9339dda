"""``repro COMMAND ...``: every door under one name. ``python -m repro.COMMAND`` are the same doors.

Only the command that is asked for is imported, so that help comes at once.
"""

from __future__ import annotations

import difflib
import importlib
import sys

from repro import environment

# command: the module with its ``main``, what stands before the user's own words, and what it does
COMMANDS: dict[str, tuple[str, list[str], str]] = {
    "run": ("repro.run", [], "run an experiment, or go on with it: repro run exp=NAME [key=value ...]"),
    "plan": ("repro.run", ["--plan"], "stages, cached or not, time, disk and cost of a run; runs nothing"),
    "sweep": ("repro.sweep", [], "a grid of runs over one store: repro sweep sweep=NAME"),
    "score": ("repro.score", [], "score files of your own and keep the best of them: repro score FILES..."),
    "influence": ("repro.influence.__main__", [], "help another machine's run to score: --join work=STORE"),
    "together": ("repro.together", [], "train all models of an experiment side by side on one GPU"),
    "evaluate": ("repro.evaluate.__main__", [], "a model folder on the benchmarks"),
    "tables": ("repro.tables", [], "the paper's tables beside ours, from results/"),
    "report": ("repro.report.__main__", [], "draw a run's page, tables and figures again"),
    "publish": (
        "repro.publish.__main__",
        [],
        "kept documents, scores and heads, or models, as a folder for the hub, with its card",
    ),
    "judge": ("repro.judge", [], "a finished run judged once more, by the rules of this version"),
    "compare": ("repro.compare", [], "what differs between two runs"),
    "status": ("repro.status", [], "what runs in a work folder, how far it is, what failed"),
    "settings": ("repro.listing", [], "every setting with its default and meaning: repro settings [PREFIX]"),
    "store": ("repro.store.__main__", [], "carry finished stages to another machine: pack, unpack"),
}


def usage() -> str:
    """The help page."""
    lines = ["usage: repro COMMAND [...]", ""]
    lines += [f"  {name:9} {said}" for name, (_, _, said) in COMMANDS.items()]
    return "\n".join([*lines, "", "repro COMMAND --help says more of each"])


def main(arguments: list[str] | None = None) -> int:
    """Hand the words behind the command to its door. Exit 2 for a command that is none."""
    environment.prepare(restart=arguments is None)
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("attention-influence-repro"))
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.0)[0]
        print(
            f"error: {name!r} is no command; did you mean {near!r}? valid: {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    module, before, _ = COMMANDS[name]
    door = importlib.import_module(module)
    # what a run records as its command, however it was started
    sys.argv = [str(door.__file__), *before, *rest]
    environment.program = f"repro {name}"  # in usage lines
    return door.main([*before, *rest])


if __name__ == "__main__":
    sys.exit(main())
