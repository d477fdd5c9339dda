"""``report.html``: the summary, its tables and plots as one page that asks no network for anything."""

from __future__ import annotations

import base64
import json
import shlex
from pathlib import Path
from typing import Any

from repro.report import endpoint, registered
from repro.report.interactive import plotly_script, to_plotly
from repro.report.plots import Plot
from repro.report.table import Table, cell_text

NO_INTERVAL = "One seed gives no interval, and a table without intervals is not shown. The values are in tables/seeds.csv."
LEVELS = (0.1, 0.5, 1.0, 3.0)  # nats a token's loss rises before it gets the next colour


Section = tuple[str, str, list[tuple[str, Any]]]  # id, title, blocks: ("table" | "folded" | "figure" | "text", content)
Examples = dict[str, list[dict[str, Any]]]  # domain -> documents, highest score first


def render(
    summary: dict[str, Any], tables: list[Table], plots: list[Plot], stills: Path, examples: Examples, config: str
) -> str:
    """The page. ``stills`` is the folder with ``<plot>.svg`` for paper and for readers without scripts."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    sections = _sections(summary, {t.name: t for t in tables}, {p.name: p for p in plots})
    contents = [("arms", "What is compared"), *((i, title) for i, title, _ in sections)]
    contents += [("documents", "Documents")] if examples else []
    from markupsafe import Markup

    return environment.get_template("page.html.j2").render(
        summary=summary,
        endpoint=endpoint.sentence(summary),
        sections=sections,
        contents=[*contents, ("again", "Run it again")],
        cell_text=cell_text,
        stills={p.name: _data_uri(stills / f"{p.name}.svg") for p in plots},
        examples={domain: [_coloured(row) for row in rows] for domain, rows in examples.items()},
        said=registered.lines(summary),
        has_tokens=any(row.get("tokens") for rows in examples.values() for row in rows),
        plots=Markup(json.dumps({p.name: to_plotly(p) for p in plots}).replace("<", "\\u003c")),
        library=Markup(plotly_script().replace("</script", "<\\/script")),
        command=command(summary),
        config=config,
    )


def command(summary: dict[str, Any]) -> str:
    """The command that makes this run: the one that was typed where it was ``repro.run``, else experiment and scale.

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


def _coloured(row: dict[str, Any]) -> dict[str, Any]:
    """Tokens as (text, level 0 to 4, rise): level counts the thresholds that the rise in loss reaches."""
    if not row.get("tokens"):
        return row
    return {**row, "tokens": [(text, sum(rise >= limit for limit in LEVELS), rise) for text, rise in row["tokens"]]}


def _effect(summary: dict[str, Any]) -> str | None:
    """What masking the selected heads does to the probes, in a sentence."""
    effect = summary.get("heads", {}).get("effect_on_probes")
    if not effect:
        return None
    return (
        f"With the selected heads masked the loss on {effect['probes']} probe answers goes from {effect['loss_base']:.2f} to "
        f"{effect['loss_masked']:.2f} nats, "
        f"the token accuracy from {effect['accuracy_base']:.2f} to {effect['accuracy_masked']:.2f}."
    )


def _sections(summary: dict[str, Any], tables: dict[str, Table], plots: dict[str, Plot]) -> list[Section]:
    """The page in order; empty sections are left out."""
    plan: list[tuple[str, str, list[str]]] = [
        (
            "outcome",
            "Outcome",
            [
                "figure contrasts",
                "table noise",
                "table contrasts",
                "table outcome",
                "table missing",
                "table prompts_cut",
                "table blimp",
                "table over_baselines",
                "table likelihoods",
                "figure accuracies",
                "figure benchmarks",
                "figure by_share",
                "figure benchmarks_share",
                "folded seeds",
            ],
        ),
        ("registered", "Stated before the run", ["table registered"]),
        ("planted", "What each selector finds", ["figure planted", "table planted", "table repeated"]),
        ("agreement", "How far scores agree", ["figure agreement", "table agreement"]),
        (
            "evolution",
            "Heads over checkpoints",
            [*(f"figure {p}" for p in plots if p.startswith("evolution")), "table evolution"],
        ),
        ("training", "Training", ["figure learning", "figure performance", "figure benchmarks_training"]),
        ("heads", "Heads", ["figure heads", "text heads", "folded heads", "table masked"]),
        ("scores", "Scores", ["figure scores", "table documents_cut", "table correlations"]),
        ("selection", "What was selected", ["table selection", "figure sources", "folded sources"]),
        (
            "compared",
            "Selections compared",
            [
                "table shared",
                "table judged",
                "table overlap",
                "figure distributions",
                "figure clusters",
                "figure map",
                "figure clouds",
                "folded words",
            ],
        ),
        ("corpus", "Corpus", ["table corpus"]),
        ("cost", "Cost and time", ["table net_compute", "figure cost", "folded cost"]),
    ]
    texts = {"heads": text} if (text := _effect(summary)) else {}
    result = []
    for identity, title, wanted in plan:
        blocks: list[tuple[str, Any]] = []
        compares = summary["kind"] == "train" and not summary.get("noise")
        if identity == "outcome" and compares and "outcome" not in tables:
            blocks.append(("text", NO_INTERVAL))
        for entry in wanted:
            kind, name = entry.split()
            found = {"figure": plots, "text": texts}.get(kind, tables).get(name)
            if found is not None:
                blocks.append((kind, found))
        if blocks:
            result.append((identity, title, blocks))
    return [*result, *_rest(result, tables, plots)]


def _rest(sections: list[Section], tables: dict[str, Table], plots: dict[str, Plot]) -> list[Section]:
    """What no section names stands at the end: nothing that a run found is left off its page."""
    named = {id(block) for _, _, blocks in sections for _, block in blocks}
    blocks: list[tuple[str, Any]] = [("figure", plot) for plot in plots.values() if id(plot) not in named]
    blocks += [("table", table) for table in tables.values() if id(table) not in named]
    return [("more", "More of what was found", blocks)] if blocks else []
