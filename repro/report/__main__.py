"""``python -m repro.report RUN_DIR [--wandb]``: draw a run's tables, figures and page again from its
summary; of a folder of such folders, a static site with an index.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from repro import environment
from repro.errors import SettingError, require


def main(arguments: list[str] | None = None) -> int:
    """The door. Exit 1 when W&B does not take the report, 2 for a user's mistake, 130 when interrupted."""
    environment.prepare(restart=arguments is None)
    parser = argparse.ArgumentParser(
        prog=environment.program or "python -m repro.report", description=__doc__
    )
    parser.add_argument(
        "run",
        type=Path,
        metavar="RUN_DIR",
        help="the folder named in the last line of a run, or one of such folders",
    )
    parser.add_argument("--wandb", action="store_true", help="also build the W&B Report with the same story")
    parser.add_argument(
        "--out", type=Path, help="of a folder of runs: where the site goes (default: site/ beside the folder)"
    )
    parsed = parser.parse_args(arguments)
    try:
        from repro.outcomes import summary
        from repro.report import build, terminal
        from repro.store.disk import make_folder

        if parsed.run.is_dir() and not (parsed.run / "summary.json").is_file():
            from repro.report import site

            require(
                not parsed.wandb, f"--wandb is of one run, and {parsed.run} holds several; name one of them"
            )
            print(f"site: {site.write(parsed.run, parsed.out or parsed.run.resolve().parent / 'site')}")
            return 0
        require(
            parsed.out is None,
            f"--out is of a folder of runs, and {parsed.run} is one: it is drawn in its folder; leave --out"
            " out, or copy the folder",
        )
        found = summary.read(parsed.run)
        require(
            parsed.run.is_dir() or parsed.run.name == "summary.json",
            f"{parsed.run} would be drawn over what lies beside it; give it a folder of its own, as"
            " summary.json",
        )
        folder = parsed.run if parsed.run.is_dir() else parsed.run.parent
        for own in (folder, folder / "tables", folder / "figures"):
            make_folder(own, "", "draw a copy of the run")
        build.draw(folder, found)
        print(terminal.render(found))
        print(f"report: {folder / 'report.html'}")
        if parsed.wandb:
            from repro.report.wandb_report import NotTaken, publish

            try:
                print(publish(folder, found))
            except NotTaken as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command draws it whole", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
