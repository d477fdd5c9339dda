"""The README's blocks of results and of benchmarks: written from ``results/``, so that no number there is typed."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import stdev

from repro.analysis.statistics import detectable
from repro.report.paper_tables import Result
from repro.store import atomic

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
MEASURED_BEGIN, MEASURED_END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"


def rewrite(readme: Path, results: list[Result], benchmarks: Path | None = None) -> None:
    """Replace what stands between the markers; a file without them is left alone.

    ``benchmarks`` is a folder of Markdown files, each the output of a script of ``benchmarks/``.
    """
    if not readme.is_file():
        return
    old = text = readme.read_text(encoding="utf-8")
    for begin, end, content in ((BEGIN, END, block(results)), (MEASURED_BEGIN, MEASURED_END, measured(benchmarks))):
        if begin in text and end in text:
            text = re.sub(f"{begin}.*?{end}", lambda _, b=begin, c=content, e=end: f"{b}\n{c}{e}", text, flags=re.S)
    if text != old:
        with atomic(readme) as temporary:
            temporary.write_text(text, encoding="utf-8")


def measured(folder: Path | None) -> str:
    """What the benchmark scripts printed, file by file, in the order of their names."""
    files = sorted(folder.glob("*.md")) if folder is not None and folder.is_dir() else []
    return "".join(f"{path.read_text(encoding='utf-8').strip()}\n\n" for path in files)


def block(results: list[Result]) -> str:
    """What was found: one row a committed result, then the noise between seeds. Empty without results."""
    compared = [line for result in results if (line := _compared(result))]
    noise = [line for result in results if (line := _noise(result))]
    if not compared and not noise:
        return ""
    lines = ["## What was found", ""]
    if compared:
        lines += [
            "Differences in bits per byte (mean over out-of-corpus text and gold answers; below zero favours the first arm),",
            "paired by seed, 95 % intervals. A *demonstration* is too small for a verdict, whatever its interval says.",
            "",
            "| run | contrast | difference [95 %] | seeds | could see | verdict |",
            "|---|---|---|---|---|---|",
            *compared,
            "",
        ]
    lines += [*noise, ""] if noise else []
    lines += [
        "Claim by claim, with what was not run: [paper_tables/verdicts.md](paper_tables/verdicts.md). What was tried and what",
        "failed: [results/LOG.md](results/LOG.md). Each result's folder holds the settings and command that make it again.",
        "",
    ]
    return "\n".join(lines)


def _compared(result: Result) -> str | None:
    summary = result.summary
    row = next((c for c in summary["comparisons"] if c["primary"] and c["metric"] == summary["endpoint"]), None)
    if row is None or row["low"] is None:
        return None
    return (
        f"| [{result.name}](results/{result.name}) | {row['treatment']} − {row['control']} | {row['difference']:+.3f} "
        f"[{row['low']:+.3f}, {row['high']:+.3f}] | {row['seeds']} | {row['detectable']:.3f} | {summary['verdict']['words']} |"
    )


def _noise(result: Result) -> str | None:
    """Of a pilot: the spread over seeds, and what 3, 5 and 8 paired seeds of two such arms would see with 80 % power."""
    summary = result.summary
    if summary["experiment"] != "pilot":
        return None
    (arm,) = summary["arms"].values()
    values = [seed["metrics"][summary["endpoint"]]["value"] for seed in arm["seeds"].values()]
    spread = stdev(values)
    effects = ", ".join(f"{n} seeds {detectable(spread * 2**0.5, n):.3f}" for n in (3, 5, 8))
    return (
        f"Noise ([{result.name}](results/{result.name}), scale {summary['scale']}): over {len(values)} seeds of one arm the "
        f"endpoint has a standard deviation of {spread:.3f} bits per byte. Two such arms whose noise is independent would "
        f"need a true difference of: {effects}. Pairing by seed lowers this where arms share their noise."
    )
