"""``python -m repro.judge RUN_DIR ...``: judge finished runs once more, by the rules of this version.

Nothing is measured anew: intervals, corrections and words come from the values, the items' variances and the
pilot's noise that ``summary.json`` records. Which words changed is printed. A folder that has a report is
drawn again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from repro import environment
from repro.errors import SettingError
from repro.outcomes.outcome import Outcome


def main(arguments: list[str] | None = None) -> int:
    """The door. Exit 2 for a user's mistake."""
    environment.prepare(restart=arguments is None)
    parser = argparse.ArgumentParser(prog=environment.program or "python -m repro.judge", description=__doc__)
    parser.add_argument(
        "runs", type=Path, metavar="RUN_DIR", nargs="+", help="folder of a run, or its summary.json"
    )
    parsed = parser.parse_args(arguments)
    try:
        from repro.outcomes import summary
        from repro.report import build

        for run in parsed.runs:
            before = summary.read(run)
            file = run / "summary.json" if run.is_dir() else run
            folder = file.parent
            after = build.again(before)
            told = list(changes(before, after))
            print("\n".join([f"{folder.name}: {len(told)} words changed", *told]))
            if summary.seal(after) != before:
                after = summary.write(file, after)
                # the page beside a copy is that of another summary
                if file.name == "summary.json" and (folder / "report.html").is_file():
                    build.draw(folder, after)
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def changes(before: Outcome, after: Outcome) -> Iterator[str]:
    """A line for every comparison whose words are others now, and for the sentence of the run."""
    old = {(r["treatment"], r["control"], r["metric"]): r["verdict"] for r in before["comparisons"]}
    for row in after["comparisons"]:
        was = old.get((row["treatment"], row["control"], row["metric"]), "absent")
        if was != row["verdict"]:
            yield f"  {row['treatment']} - {row['control']}, {row['metric']}: {was} -> {row['verdict']}"
    if before["verdict"]["sentence"] != after["verdict"]["sentence"]:
        yield f"  sentence: {before['verdict']['sentence']} -> {after['verdict']['sentence']}"


if __name__ == "__main__":
    sys.exit(main())
