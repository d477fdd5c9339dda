"""``report.html``: the summary, its tables and plots as one page that asks no network for anything."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from repro.outcomes.command import command
from repro.outcomes.documents import Example
from repro.outcomes.outcome import Json, Outcome
from repro.outcomes.samples import Sample
from repro.outcomes.verdict import of_arm
from repro.report import endpoint
from repro.report.cells import cell_text
from repro.report.interactive import plotly_script, to_plotly
from repro.report.plots import Plot
from repro.report.sections import Folded, Section, said
from repro.report.table import Table

SHOWN_ROWS = 60  # a longer table is folded
SHOWN_PANELS = 8  # a plot of more is folded
MOST_ROWS = 1500  # of a folded one on the page: ten thousand are 4 MB
SHOWN_DOMAINS = 24  # with example documents
CAPTION = 300  # letters of a plot in words; more are folded
LEVELS = (0.1, 0.5, 1.0, 3.0)  # nats a token's loss rises before it gets the next colour


OF_SEEDS = ("contrasts", "benchmarks", "accuracies", "by_share", "performance", "during", "learning",
            "benchmarks_training", "benchmarks_share")  # fmt: skip
WORDS = [
    ("difference [95 %]", "first arm minus second, paired by seed; 95 of 100 such intervals hold the truth"),
    ("better, worse", "zero lies outside the interval; if secondary, after Holm's correction, too"),
    ("undecided; up to x not excluded", "zero lies inside; a difference of up to x is not excluded"),
    ("not established after correction", "zero lies outside, but Holm's corrected p is above 5 %"),
    ("not tested", "secondary, and the primary comparison shows no difference"),
    ("at chance", "neither arm is shown to be above guessing; in no verdict"),
    ("demonstration only", "too few seeds, selected documents or sources for a verdict, whatever it shows"),
    ("could see x", "a true difference of x is seen with 80 % power at the noise that a pilot measured"),
]  # fmt: skip

Examples = dict[str, list[Example]]  # by domain, highest score first


def render(
    summary: Outcome,
    sections: list[Section],
    stills: Path,
    examples: Examples,
    config: str,
    samples: Sample | None = None,
) -> str:
    """The page: ``sections``, the documents that serve as ``examples``, a few that each arm keeps and drops
    (``samples``), and how to run it again.

    ``stills`` is the folder with ``<plot>.svg`` for paper and for readers without scripts."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    contents = [(section.name, section.title) for section in sections]
    drawn = [block for section in sections for block in section.unfolded if isinstance(block, Plot)]
    contents += [("documents", "Documents")] if examples else []
    contents += [("samples", "Kept and dropped")] if samples else []
    from markupsafe import Markup

    return environment.get_template("page.html.j2").render(
        summary=summary,
        endpoint=endpoint.sentence(summary),
        sections=[(s.name, s.title, [_shown(block) for block in s.blocks]) for s in sections],
        contents=[*contents, ("again", "Run it again")],
        cell_text=cell_text,
        most_rows=MOST_ROWS,
        caption=_caption,
        words=WORDS,
        of_seeds=OF_SEEDS,
        seeds=_seeds(summary),
        stills={p.name: _data_uri(stills / f"{p.name}.svg") for p in drawn},
        examples={
            domain: [_coloured(row) for row in rows]
            for domain, rows in list(examples.items())[:SHOWN_DOMAINS]
        },
        domains=len(examples),
        samples=samples,
        said=said(summary),
        has_tokens=any(row.get("tokens") for rows in examples.values() for row in rows),
        plots=Markup(json.dumps({p.name: to_plotly(p) for p in drawn}).replace("<", "\\u003c")),
        library=Markup(plotly_script().replace("</script", "<\\/script")),
        command=command(summary),
        config=config,
    )


def _caption(alt: str) -> tuple[str, str]:
    """What stands under a plot of these words, and what is folded: of long ones all but the first sentence,
    which says what is drawn.
    """
    if len(alt) <= CAPTION:
        return alt, ""
    first = alt.partition(". ")[0] + "."
    return (first, alt) if len(first) <= CAPTION else ("", alt)


def _seeds(summary: Outcome) -> str:
    """How many seeds the arms have, for the captions."""
    counts = sorted({len(arm["seeds"]) for arm in summary["arms"].values()})
    return (
        f"{' to '.join(map(str, counts[:1] + counts[1:][-1:]))} {of_arm(summary)} an arm." if counts else ""
    )


def _data_uri(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


def _coloured(row: Example) -> Json:
    """Tokens as (text, level 0 to 4, rise): level counts the thresholds that the rise in loss reaches."""
    tokens = row.get("tokens", [])
    coloured = [(text, sum(rise >= limit for limit in LEVELS), rise) for text, rise in tokens]
    return {**row, "tokens": coloured} if coloured else {**row}


def _shown(block: Any) -> tuple[str, Any]:
    """How the template shows a block, and the block."""
    unfolded = block.block if isinstance(block, Folded) else block
    if isinstance(unfolded, str):
        return "text", unfolded
    what, long = (
        ("table", len(unfolded.rows) > SHOWN_ROWS)
        if isinstance(unfolded, Table)
        else ("figure", len(unfolded.panels) > SHOWN_PANELS)
    )
    return f"folded {what}" if isinstance(block, Folded) or long else what, unfolded
