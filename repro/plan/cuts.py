"""What a run will not read, for ``--plan``: documents beyond ``score.max_tokens``, prompts beyond a model's
context.

Counted from the texts that lie on this disk, at four bytes a token; what is not there yet is said without a
number.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repro.settings.root import Settings
from repro.store import Stage, Store, parquet

BYTES_PER_TOKEN = 4


def unread(settings: Settings, store: Store, stages: list[Stage]) -> list[str]:
    """A line for every kind of cut that the settings make possible."""
    return [*_documents(store, stages), *_prompts(settings, store, stages)]


def _documents(store: Store, stages: list[Stage]) -> list[str]:
    lines = {}
    for stage in stages:
        if stage.name != "score" or stage.settings["max_tokens"] is None:
            continue
        most, corpus = stage.settings["max_tokens"], store.path(stage.inputs["corpus"])
        if store.has(stage):
            facts = store.facts(stage)
            if "documents_cut" not in facts:
                continue
            what = f"{facts['documents_cut']:,} were, and {facts['tokens_unscored']:,} tokens are unscored"
        elif store.has(stage.inputs["corpus"]):
            what = _estimated(corpus, most)
        else:
            what = "how many that are is known once the corpus is there"
        lines[
            f"cut: documents are scored by their first {most:,} tokens (score.max_tokens; null = whole):"
            f" {what}"
        ] = None
    return list(lines)


def _estimated(corpus: Path, most: int) -> str:
    import polars

    from repro.corpus.documents import shards

    tokens = parquet.scan(shards(corpus)).select("domain", tokens=polars.col("n_bytes") // BYTES_PER_TOKEN)
    beyond = tokens.with_columns(beyond=(polars.col("tokens") - most).clip(lower_bound=0)).group_by("domain")
    found = beyond.agg(
        n=polars.len(), cut=(polars.col("beyond") > 0).sum(), left=polars.col("beyond").sum()
    ).sort("domain")
    return "about " + ", ".join(
        f"{row['cut']:,} of {row['n']:,} in {row['domain']} ({row['left']:,} tokens)"
        for row in found.collect().iter_rows(named=True)
    )


def _prompts(settings: Settings, store: Store, stages: list[Stage]) -> list[str]:
    """Items whose text, times one more than the shots, is longer than the context that they are read in."""
    if not any(stage.name == "evaluate" for stage in stages):
        return []
    trains = any(stage.name == "pretrain" for stage in stages)
    given = settings.model.init_from  # a model that is continued keeps its own context
    context = settings.eval.max_length or (settings.train.context if trains and given is None else None)
    if context is None:
        whose = "continued model" if trains else "proxy"
        return [
            f"cut: prompts longer than the {whose}'s context lose their first tokens; the report counts them"
        ]
    items = next((stage for stage in stages if stage.name == "items"), None)
    folder = (
        store.path(items) if items is not None and store.has(items) else Path(settings.items.folder or "")
    )
    known = {}
    for task in settings.eval.tasks if folder != Path() else []:
        sizes = [
            len(line) / BYTES_PER_TOKEN
            for path in _splits(folder / task)
            for line in path.open("rb")
            if line.strip()
        ]
        read = 1 + settings.eval.shots.get(task, 0)
        if cut := sum(size * read > context for size in sizes):
            known[task] = f"{task} {cut:,} of {len(sizes):,}"
    told = f": about {', '.join(known.values())}" if known else "; the report counts them"
    return [f"cut: prompts longer than the context of {context:,} tokens lose their first tokens{told}"]


def _splits(folder: Path) -> list[Any]:
    found = sorted(folder.rglob("test.jsonl"))
    return found or sorted(folder.rglob("validation.jsonl"))
