"""``report.html``: the summary, its tables and plots as one page that asks no network for anything."""

from __future__ import annotations

import base64
import json
import shlex
from pathlib import Path
from typing import Any

from repro.outcomes.outcome import Json, Outcome
from repro.report import endpoint, failed, registered
from repro.report.interactive import plotly_script, to_plotly
from repro.report.plots import Plot
from repro.report.sections import Folded, Section
from repro.report.table import Table, cell_text

SHOWN_ROWS = 60  # a longer table is folded
SHOWN_DOMAINS = 24  # with example documents
LEVELS = (0.1, 0.5, 1.0, 3.0)  # nats a token's loss rises before it gets the next colour


Examples = dict[str, list[Json]]  # domain -> documents, highest score first


def render(summary: Outcome, sections: list[Section], stills: Path, examples: Examples, config: str) -> str:
    """The page: ``sections``, the documents that serve as ``examples``, and how to run it again.

    ``stills`` is the folder with ``<plot>.svg`` for paper and for readers without scripts."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    contents = [(section.name, section.title) for section in sections]
    plots = [block for section in sections for block in section.blocks if isinstance(block, Plot)]
    contents += [("documents", "Documents")] if examples else []
    from markupsafe import Markup

    return environment.get_template("page.html.j2").render(
        summary=summary,
        endpoint=endpoint.sentence(summary),
        sections=[(s.name, s.title, [_shown(block) for block in s.blocks]) for s in sections],
        contents=[*contents, ("again", "Run it again")],
        cell_text=cell_text,
        stills={p.name: _data_uri(stills / f"{p.name}.svg") for p in plots},
        examples={
            domain: [_coloured(row) for row in rows]
            for domain, rows in list(examples.items())[:SHOWN_DOMAINS]
        },
        domains=len(examples),
        said=[*failed.lines(summary), *registered.lines(summary)],
        has_tokens=any(row.get("tokens") for rows in examples.values() for row in rows),
        plots=Markup(json.dumps({p.name: to_plotly(p) for p in plots}).replace("<", "\\u003c")),
        library=Markup(plotly_script().replace("</script", "<\\/script")),
        command=command(summary),
        config=config,
    )


def command(summary: Outcome) -> str:
    """The command that makes this run: the one that was typed where it was ``repro.run``, else experiment and
    scale.

    With the number of threads where one was set, since last bits depend on it.
    """
    program, *arguments = summary["provenance"]["command"]
    threads = summary["provenance"].get("omp_num_threads")
    python = f"{f'OMP_NUM_THREADS={threads} ' if threads else ''}python -m repro.run "
    if program == "run.py":
        return python + shlex.join(a for a in arguments if not a.startswith("work="))
    return f"{python}exp={summary['experiment']} scale={summary['scale']}"


def _data_uri(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


def _coloured(row: Json) -> Json:
    """Tokens as (text, level 0 to 4, rise): level counts the thresholds that the rise in loss reaches."""
    if not row.get("tokens"):
        return row
    return {
        **row,
        "tokens": [(text, sum(rise >= limit for limit in LEVELS), rise) for text, rise in row["tokens"]],
    }


def _shown(block: Any) -> tuple[str, Any]:
    """How the template shows a block, and the block."""
    if isinstance(block, Folded):
        return "folded", block.table
    if isinstance(block, Table) and len(block.rows) > SHOWN_ROWS:
        return "folded", block
    return ("table" if isinstance(block, Table) else "figure" if isinstance(block, Plot) else "text"), block
