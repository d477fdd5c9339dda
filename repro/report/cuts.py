"""What was not read: prompts cut to a model's context, documents scored by their first part."""

from __future__ import annotations

from repro.outcomes.outcome import Outcome
from repro.outcomes.spent import artifacts
from repro.report.cells import Cell
from repro.report.table import Table


def prompts(summary: Outcome) -> Table | None:
    """Cut prompts by task; ``None`` where nothing was cut."""
    note = (
        "The first tokens are cut, which are those of worked examples where there are any. The most of all"
        " models."
    )
    columns = ["task", "items", "items cut", "tokens cut"]
    rows = _prompts(summary)
    return Table("prompts_cut", "Prompts longer than the context", columns, rows, [note]) if rows else None


def documents(summary: Outcome) -> Table | None:
    """Cut documents by domain; ``None`` where nothing was cut."""
    note = (
        "These documents are scored by their first tokens only; score.max_tokens=null scores every document"
        " whole."
    )
    columns = ["scores", "domain", "documents", "documents cut", "tokens unscored"]
    rows = _documents(summary)
    return Table("documents_cut", "Documents scored in part", columns, rows, [note]) if rows else None


def _prompts(summary: Outcome) -> list[list[Cell]]:
    most: dict[str, dict[str, int]] = {}
    for arm in summary["arms"].values():
        for seed in arm["seeds"].values():
            for task, cell in seed.get("evaluation", {}).get("cut", {}).items():
                if cell["tokens_cut"] >= most.get(task, {}).get("tokens_cut", 0):
                    most[task] = cell
    return [[task, cell["items"], cell["items_cut"], cell["tokens_cut"]] for task, cell in most.items()]


def _documents(summary: Outcome) -> list[list[Cell]]:
    return [
        [artifact["label"], domain, row["documents"], row["documents_cut"], row["tokens_unscored"]]
        for artifact in artifacts(summary)
        if artifact["stage"] == "score"
        for domain, row in artifact["facts"].get("cut", {}).items()
    ]
