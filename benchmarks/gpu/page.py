"""Fill the tables of docs/gpu.md from results/benchmarks/gpu-*.json; what was not measured says so.

python -m benchmarks.gpu.page
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from repro.store import atomic, read_json

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "benchmarks"  # where `make gpu-card` leaves them
PARTS = ("correctness", "speed")
START, END = "<!-- {} -->", "<!-- end of {} -->"
FACTS = ("row", "ok", "error", "seconds", "parameters", "ways", "kernels", "heads", "losses", "mean_losses")


def filled(page: str, results: Path) -> str:
    """The page with a table for each part between its marks."""
    for part in PARTS:
        start, end = START.format(part), END.format(part)
        before, rest = page.split(start)
        after = rest.split(end)[1]
        page = f"{before}{start}\n{table(part, results / f'gpu-{part}.json')}\n{end}{after}"
    return page


def table(part: str, path: Path) -> str:
    """Markdown of one part, or that there is none."""
    if not path.is_file():
        return "Not measured."
    found = read_json(path)
    about = ", ".join(
        f"{key} {found[key]}" for key in ("driver", "cuda", "torch", "transformers") if found.get(key)
    )
    head = f"{found['card']}; {about}; commit {(found['commit'] or 'unknown')[:12]}, {found['date']}.\n\n"
    if part == "correctness":
        rows = [f"| {row['row']} | {verdict(row)} | {details(row)} |" for row in found["rows"]]
        return head + "\n".join(["| compared | as it should be | what was found |", "|---|---|---|", *rows])
    return head + "\n".join(
        ["| row | way | tokens/s | MFU | peak GB | ms |", "|---|---|---|---|---|---|", *speeds(found["rows"])]
    )


def verdict(row: dict[str, Any]) -> str:
    """Whether a row is as it should be."""
    return "not measured" if "error" in row else "yes" if row["ok"] else "**no**"


def details(row: dict[str, Any]) -> str:
    """The numbers of a row in a line, or its error."""
    if "error" in row:
        return escaped(row["error"])
    return "; ".join(
        f"{key.replace('_', ' ')} {short(value)}" for key, value in row.items() if key not in FACTS
    )


def speeds(rows: list[dict[str, Any]]) -> list[str]:
    """A line for every contender of every row."""
    lines = []
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['row']} | {escaped(row['error'])} | | | | |")
        for way, found in row.get("ways", {}).items():
            if "error" in found:
                lines.append(f"| {row['row']} | {way}: {escaped(found['error'])} | | | | |")
                continue
            speed = f"{found['tokens_per_second']:,.0f}" if "tokens_per_second" in found else ""
            share = f"{found['mfu']:.1%}" if "mfu" in found else ""
            memory = "" if found.get("peak_gb") is None else f"{found['peak_gb']:.1f}"
            lines.append(
                f"| {row['row']} | {way} | {speed} | {share} | {memory} | {1e3 * found['seconds']:,.1f} |"
            )
        for kernel in row.get("kernels", []):
            lines.append(
                f"| {row['row']} | `{escaped(kernel['name'])}` | | {kernel['share']:.1%} of the time | | |"
            )
        if "ways" not in row and "kernels" not in row and "error" not in row:
            lines.append(f"| {row['row']} | {details(row)} | | | | |")
    return lines


def short(value: Any) -> str:
    """A number in a few digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def escaped(text: str) -> str:
    """For a cell of a table."""
    return text.replace("|", "/")


def main() -> int:
    """Rewrite the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "gpu.md")
    options = parser.parse_args()
    with atomic(options.page) as temporary:
        temporary.write_text(filled(options.page.read_text(), options.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
