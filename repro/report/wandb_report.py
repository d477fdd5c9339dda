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
from repro.tracking import logged_in, offline_runs

SPECIFICATION = "wandb_report.json"
TABLES = ("failed", "outcome", "contrasts", "registered", "selection", "heads", "cost")


class NotTaken(Exception):
    """W&B did not answer, or refused the report: one line that says what to do."""


def publish(run_dir: Path, summary: Outcome) -> str:
    """Log the run's stages, tables and images, save the report to W&B, and return a line with its address.

    The specification is written to ``<run_dir>/wandb_report.json`` in any case. Without a login the runs are
    written offline. The line says how to send what is offline, the trainings' runs with it: the report draws
    them. Raises :class:`NotTaken` when W&B does not answer.
    """
    import wandb
    from pydantic import TypeAdapter

    report = build(summary)
    specification = TypeAdapter(type(report)).dump_python(report, mode="json")
    with atomic(run_dir / SPECIFICATION) as temporary:
        temporary.write_text(json.dumps(specification, indent=1) + "\n", encoding="utf-8")
    written = f"the report's specification is in {run_dir / SPECIFICATION}"
    tracking, work = summary["settings"]["tracking"], wandb_log.folder(run_dir)
    curves = [run for artifact in _trained(summary) for run in offline_runs(work, artifact)]
    if not logged_in():
        runs = wandb_log.log(run_dir, summary, "offline") + curves
        return (
            f"no W&B login; {written}, {len(runs)} offline runs are in {work / 'wandb'}. To send them: wandb"
            f" login, then: {_sync(run_dir, tracking['project'], runs)}"
        )
    try:
        wandb_log.log(run_dir, summary, "online")
        # the library takes an empty entity for one, and has no other for the runs
        report = build(summary, tracking["entity"] or wandb.Api().default_entity or "")
        report.save(draft=False)
    except Exception as error:  # W&B's client raises anything; the local record is whole
        raise NotTaken(
            f"W&B did not take the report ({first_line(error)}); try again later; {written}"
        ) from error
    line = f"W&B report: {report.url}"
    if not curves:
        return line
    return (
        f"{line}; its training curves are in {len(curves)} offline runs. To send them:"
        f" {_sync(run_dir, tracking['project'], curves)}"
    )


def _sync(run_dir: Path, project: str, runs: list[Path]) -> str:
    """Write the list of these offline runs, and return the command that sends them."""
    listed = wandb_log.folder(run_dir) / "wandb" / f"{run_dir.resolve().name}.txt"
    with atomic(listed) as temporary:
        temporary.write_text("".join(f"{run}\n" for run in sorted(runs)), encoding="utf-8")
    return f"xargs -I@ wandb sync --project {shlex.quote(project)} @ < {shlex.quote(str(listed))}"


def _trained(summary: Outcome) -> list[str]:
    """Folders of the artifacts of all trainings."""
    seeds = [seed["artifacts"] for arm in summary["arms"].values() for seed in arm["seeds"].values()]
    return sorted({Path(own["pretrain"]["folder"]).name for own in seeds if "pretrain" in own})


def build(summary: Outcome, entity: str = "") -> Any:
    """The report's blocks: question, verdict and what stands with it, tables, training curves of the logged
    runs, how to run it again. ``entity`` of W&B: whose they are, if not ``tracking.entity``.
    """
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces import expr

    tracking, verdict = summary["settings"]["tracking"], summary["verdict"]
    entity = entity or tracking["entity"] or ""
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
    if trained := _trained(summary):
        runs = wr.Runset(
            project=tracking["project"],
            entity=entity,
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
        entity=entity,
        title=f"{summary['experiment']} ({summary['scale']})",
        description=summary["question"],
        blocks=blocks,
    )
