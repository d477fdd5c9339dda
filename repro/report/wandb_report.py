"""The same story as ``report.html`` as a W&B Report (wandb-workspaces); without a login, as a file."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from repro.errors import first_line
from repro.outcomes.command import command
from repro.outcomes.outcome import Outcome
from repro.report import sections, wandb_log
from repro.store import atomic

SPECIFICATION = "wandb_report.json"
TABLES = ("failed", "outcome", "contrasts", "registered", "selection", "heads", "cost")


class NotTaken(Exception):
    """W&B did not answer, or refused the report: one line that says what to do."""


def publish(run_dir: Path, summary: Outcome) -> str:
    """Log the run's stages, tables and images, save the report to W&B, and return a line with its address.

    The specification is written to ``<run_dir>/wandb_report.json`` in any case. Without a login the runs are
    written offline and the line says what to do. Raises :class:`NotTaken` when W&B does not answer.
    """
    from pydantic import TypeAdapter

    report = build(summary)
    specification = TypeAdapter(type(report)).dump_python(report, mode="json")
    with atomic(run_dir / SPECIFICATION) as temporary:
        temporary.write_text(json.dumps(specification, indent=1) + "\n", encoding="utf-8")
    written = f"the report's specification is in {run_dir / SPECIFICATION}"
    if not _logged_in():
        runs = wandb_log.log(run_dir, summary, "offline")
        there = wandb_log.folder(run_dir) / "wandb"
        listed = there / f"{run_dir.resolve().name}.txt"
        with atomic(listed) as temporary:
            temporary.write_text("".join(f"{run}\n" for run in sorted(runs)), encoding="utf-8")
        project = summary["settings"]["tracking"]["project"]
        return (
            f"no W&B login; {written}, {len(runs)} offline runs are in {there}. To send them: wandb login,"
            f" then: xargs -I@ wandb sync --project {shlex.quote(project)} @ < {shlex.quote(str(listed))}"
        )
    try:
        wandb_log.log(run_dir, summary, "online")
        report.save(draft=False)
    except Exception as error:  # W&B's client raises anything; the local record is whole
        raise NotTaken(
            f"W&B did not take the report ({first_line(error)}); try again later; {written}"
        ) from error
    return f"W&B report: {report.url}"


def _logged_in() -> bool:
    """Whether an API key is at hand; asks nobody."""
    import wandb

    return bool(wandb.login(prompt=False))


def build(summary: Outcome) -> Any:
    """The report's blocks: question, verdict and what stands with it, tables, training curves of the logged
    runs, how to run it again.
    """
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces import expr

    tracking, verdict = summary["settings"]["tracking"], summary["verdict"]
    heading = "**This is a demonstration.** " if verdict["demonstration"] else ""
    reasons = "\n".join(f"- {reason}" for reason in verdict["reasons"])
    said = [heading + verdict["sentence"], *([reasons] if reasons else []), *sections.said(summary)]
    blocks: list[Any] = [
        wr.P(text=f"Experiment {summary['experiment']}, scale {summary['scale']}."),
        wr.MarkdownBlock(text="\n\n".join(said)),
    ]
    for table in sections.tables(summary):
        if table.name in TABLES:
            blocks += [wr.H2(text=table.title), wr.MarkdownBlock(text=table.markdown().split("\n", 2)[2])]
    blocks += [
        wr.H2(text="Figures in words"),
        wr.UnorderedList(items=[f"{p.title}: {p.alt}" for p in sections.plots(summary)]),
    ]
    seeds = [seed["artifacts"] for arm in summary["arms"].values() for seed in arm["seeds"].values()]
    if trained := sorted({Path(own["pretrain"]["folder"]).name for own in seeds if "pretrain" in own}):
        runs = wr.Runset(
            project=tracking["project"],
            entity=tracking["entity"] or "",
            name=summary["experiment"],
            filters=[expr.Config("artifact").isin(trained)],  # no runs of another scale or settings
            groupby=["config.arm"],
        )
        panels: list[Any] = [
            wr.LinePlot(title=key, x="tokens", y=[key]) for key in ("loss", "learning_rate", "grad_norm")
        ]
        blocks += [wr.H2(text="Training"), wr.PanelGrid(runsets=[runs], panels=panels)]
    again = [
        command(summary),
        f"# commit {summary['provenance']['commit']}, settings {summary['settings_digest'][:12]}",
    ]
    blocks += [wr.H2(text="Run it again"), wr.MarkdownBlock(text="\n".join(["```bash", *again, "```"]))]
    return wr.Report(
        project=tracking["project"],
        entity=tracking["entity"] or "",
        title=f"{summary['experiment']} ({summary['scale']})",
        description=summary["question"],
        blocks=blocks,
    )
