"""The README's blocks of results and of benchmarks: written from ``results/``, so that no number there is
typed.
"""

from __future__ import annotations

import re
from pathlib import Path
from statistics import stdev
from textwrap import wrap

from repro.outcomes import measure
from repro.outcomes.command import command
from repro.outcomes.compare import differences, masked, primary, seed_values
from repro.outcomes.outcome import Difference, bounds
from repro.outcomes.spent import artifacts
from repro.outcomes.statistics import detectable, upper_limit
from repro.outcomes.words import outwards
from repro.paper import claims, picture
from repro.paper.committed import Result, is_the_method
from repro.paper.sizes import sizes
from repro.report import during
from repro.report.plots import Panel, Plot, Series
from repro.store import atomic

PICTURE_BEGIN, PICTURE_END = "<!-- picture:begin -->", "<!-- picture:end -->"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
MEASURED_BEGIN, MEASURED_END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"


def rewrite(readme: Path, results: list[Result], benchmarks: Path | None = None) -> None:
    """Replace what stands between the markers; a file without them is left alone.

    ``benchmarks`` is a folder of Markdown files, each the output of a script of ``benchmarks/``.
    """
    if not readme.is_file():
        return
    old = text = readme.read_text(encoding="utf-8")
    for begin, end, content in (
        (PICTURE_BEGIN, PICTURE_END, front(results)),
        (BEGIN, END, block(results)),
        (MEASURED_BEGIN, MEASURED_END, measured(benchmarks)),
    ):
        if begin in text and end in text:
            text = re.sub(
                f"{begin}.*?{end}", lambda _, b=begin, c=content, e=end: f"{b}\n{c}{e}", text, flags=re.S
            )
    if text != old:
        with atomic(readme) as temporary:
            temporary.write_text(text, encoding="utf-8")


def measured(folder: Path | None) -> str:
    """What the benchmark scripts printed, file by file, in the order of their names."""
    files = sorted(folder.glob("*.md")) if folder is not None and folder.is_dir() else []
    return "".join(f"{path.read_text(encoding='utf-8').strip()}\n\n" for path in files)


def front(results: list[Result]) -> str:
    """The first screen: one picture, and what was found in a few plain sentences. Empty without results."""
    said = [
        f"{result.name}: {result.summary['verdict']['sentence']}"
        for result in results
        if _primary(result) and not masked(result.summary) and not result.summary["verdict"]["demonstration"]
    ]
    text = " ".join([answer(results), *said])
    return "\n".join([picture.block(results), *wrap(text, 110), "", ""]) if results else ""


def block(results: list[Result]) -> str:
    """What was found: the answer, a figure, a row a comparison, a sentence for every other result, and the
    commands.

    Empty without results.
    """
    ordered = sorted(results, key=lambda r: r.summary["verdict"]["demonstration"])  # evidence first
    fallen = claims.not_established(results)
    compared = {r.name: line for r in ordered if (line := _compared(r, r.name in fallen))}
    if not ordered:
        return ""
    lines = ["## What was found", ""]
    if (plot := figure(results)) is not None:
        lines += [
            f"[Every contrast of trained models as a picture](paper_tables/{plot.name}.svg): {plot.alt}",
            "",
        ]
    if compared:
        lines += [
            (
                "Primary contrasts (in bits per byte below zero favours the first arm), paired, 95 %"
                " intervals; *could see*:"
            ),
            (
                "the smallest true difference seen with 80 % power at a pilot's noise, empty without one. A"
                " *demonstration* is too"
            ),
            (
                "small for a verdict, whatever it shows. What intervals and words mean:"
                " [docs/statistics.md](docs/statistics.md)."
            ),
            "",
            "| run | contrast | difference [95 %] | pairs | could see | verdict |",
            "|---|---|---|---|---|---|",
            *compared.values(),
            "",
            *(line for result in ordered if (line := _during(result))),
            *(line for result in ordered if (line := _deviations(result))),
        ]
    lines += [*(_said(result) for result in ordered if result.name not in compared), ""]
    lines += [
        (
            "Claim by claim, with what was not run: [paper_tables/verdicts.md](paper_tables/verdicts.md)."
            " Accuracies and"
        ),
        (
            "likelihoods by share kept and tokens read:"
            " [paper_tables/accuracy_vs_data.md](paper_tables/accuracy_vs_data.md). What was"
        ),
        (
            "tried and what failed: [results/LOG.md](results/LOG.md). Each result's folder holds its"
            " settings, versions and every number shown; packs hold those of single items."
        ),
        "",
        "<details><summary>Every line again: its command, and how long its stages took</summary>",
        "",
        "```bash",
        *(_again(result) for result in ordered),
        "```",
        "",
        "Machines are named in each folder; stages that runs share are counted in each.",
        "",
        "</details>",
        "",
    ]
    return "\n".join(lines)


def answer(results: list[Result]) -> str:
    """The one sentence for a reader in a hurry: what the primary contrasts of the method's selection with
    another say, of models trained from nothing, demonstrations left out.
    """
    rows = [
        (result.name, row)
        for result in results
        if not masked(result.summary)
        and not result.summary["verdict"]["demonstration"]
        and not result.summary["settings"].get("model", {}).get("init_from")
        and (row := _primary(result))
        and is_the_method(result, row["treatment"])
        and result.summary["arms"][row["control"]]["select"]["selector"] in ("random", "all")
    ]
    if not rows:
        return "**No evidence yet on training:** every comparison of trained models here is a demonstration."
    sides: dict[str, list[str]] = {"better": [], "worse": []}
    for name, row in rows:
        if row["verdict"] in sides:
            sides[row["verdict"]].append(name)
    told = [f"{word} than its control in {', '.join(names)}" for word, names in sides.items() if names]
    runs = (
        f"{len(rows)} comparison{'s' if len(rows) > 1 else ''} of trained models with enough data for a"
        " verdict"
    )
    end = (
        f"These are {sizes([r for r in results if r.name in {name for name, _ in rows}])}: nothing follows"
        " for larger ones."
    )
    if told:
        if open_ := [name for name, row in rows if row["verdict"] not in sides]:
            told.append(f"not shown to differ in {', '.join(open_)}")
        fallen = sorted(claims.not_established(results) & {n for names in sides.values() for n in names})
        but = f" Corrected over all claims tested here, that of {', '.join(fallen)} is not established."
        return (
            f"**Training on the selection was {' and '.join(told)}** ({runs}).{but if fallen else ''} {end}"
        )
    ends: dict[str, list[float]] = {}
    for _, row in rows:
        if limits := bounds(row):
            ends.setdefault(row["metric"], []).append(max(-limits[1], limits[2]))
    most = [f"{outwards(max(found))} {metric.replace('_', ' ')}" for metric, found in ends.items()]
    return (
        f"**No difference from training on the selection was shown:** in {runs}, every 95 % interval of the"
        f" primary contrast holds zero. Not excluded are differences of up to {' and '.join(most)}. {end}"
    )


def figure(results: list[Result]) -> Plot | None:
    """Every contrast of every trained result on its endpoint, evidence first."""
    rows = [
        (f"{result.name}: {row['treatment']} − {row['control']}", limits, differences(result.summary, row))
        for result in sorted(results, key=lambda r: r.summary["verdict"]["demonstration"])
        if not masked(result.summary)
        for row in result.summary["comparisons"]
        if row["metric"] == result.summary["endpoint"] and (limits := bounds(row)) is not None
    ]
    if not rows:
        return None
    said = {
        f"{result.name}: {row['treatment']} − {row['control']}": row["verdict"]
        for result in results
        for row in result.summary["comparisons"]
        if row["metric"] == result.summary["endpoint"]
    }
    x, low, high = ([limits[end] for _, limits, _ in rows] for end in range(3))
    series = Series(
        "", x, [label for label, _, _ in rows], "interval", low, high, dots=[seeds for _, _, seeds in rows]
    )
    # short: long names of arms leave little room
    endpoints = {result.summary["endpoint"] for result in results}
    axis = f"difference, {' or '.join(sorted(endpoints)).replace('_', ' ')}"
    clear = [f"{label} ({said[label]})" for label, (_, low, high), _ in rows if low > 0 or high < 0]
    alt = (
        f"{len(rows)} contrasts with 95 % intervals, uncorrected; zero lies outside for"
        f" {', '.join(clear) or 'none of them'}."
    )
    return Plot(
        "found",
        "What training on each selection changed",
        alt,
        [Panel("", axis, "", [series], zero_line=True)],
    )


def _primary(result: Result) -> Difference | None:
    """The primary contrast on the endpoint, where it has an interval."""
    row = primary(result.summary)
    return row if row is not None and row["low"] is not None else None


def _unit(row: Difference) -> str:
    """The metric, where it is not the one of the table's heading, and which side is better."""
    if row["metric"] == measure.ENDPOINT:
        return ""
    return f" {row['metric']} ({'lower' if row['lower_is_better'] else 'higher'} is better)"


def _compared(result: Result, fallen: bool) -> str | None:
    """A row of the table; ``fallen``: its difference falls to the correction over all claims."""
    if (row := _primary(result)) is None:
        return None
    seen = "" if row["detectable"] is None else f"{row['detectable']:.3f}"
    return (
        f"| [{result.name}](results/{result.name}) | {row['treatment']} − {row['control']} |"
        f" {row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]{_unit(row)} | {row['seeds']} |"
        f" {seen} |"
        f" {row['verdict']}{'; not after correction over all claims' if fallen else ''} |"
    )


def _during(result: Result) -> str | None:
    """The primary contrast where models were kept during training."""
    rows = [
        f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] at {row['tokens'] / 1e6:.1f}"
        f" million tokens ({row['seeds']} pairs)"
        for row in during.of_primary(result.summary)
    ]
    if not rows:
        return None
    return (
        f"- **[{result.name}](results/{result.name})**, the same contrast before the end of training (neither"
        f" tested nor corrected for their number): {'; '.join(rows)}."
    )


def _deviations(result: Result) -> str | None:
    """What a run with a primary contrast changed of what was stated before it."""
    found = result.summary.get("registration")
    if not found or not found["deviations"] or not _primary(result):
        return None
    told = "; ".join(found["deviations"])
    return f"- **[{result.name}](results/{result.name})** deviates from its registration: {told}."


def _said(result: Result) -> str:
    """A result's sentence; of a pilot of one arm, the noise."""
    return (
        f"- **[{result.name}](results/{result.name})**:"
        f" {_noise(result) or result.summary['verdict']['sentence']}"
    )


def _again(result: Result) -> str:
    """The command that makes a result again, and how long its stages took."""
    minutes = sum(artifact["seconds_last_attempt"] for artifact in artifacts(result.summary)) / 60
    return f"# {result.name}: {minutes:.0f} minutes\n{command(result.summary)}"


def _noise(result: Result) -> str | None:
    """Of a pilot: the spread over seeds, and what 3, 5 and 8 paired seeds of two such arms would see with 80
    % power.
    """
    summary = result.summary
    if summary["experiment"] != "pilot":
        return None
    if "noise" in summary:  # a pilot of two arms says it itself
        return None
    (arm,) = summary["arms"].values()
    values = list(seed_values(arm, summary["endpoint"]).values())
    if len(values) < 2:
        return None
    spread = stdev(values)
    limit = upper_limit(spread, len(values) - 1)
    effects = ", ".join(f"{n} seeds {detectable(limit * 2**0.5, n):.3f}" for n in (3, 5, 8))
    bits = " bits per byte" if summary["endpoint"] == measure.ENDPOINT else ""
    return (
        f"over {len(values)} seeds of one arm the endpoint has a standard deviation of {spread:.3f}{bits}"
        f" (upper 80 % limit {limit:.3f}). At the limit two such arms whose noise is independent need a"
        f" true difference of: {effects}. Pairing by seed lowers this where arms share their noise."
    )
