"""Text of the items: every string for decontamination, running text for bits per byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from repro.errors import SettingError, require
from repro.items.stage import read_rows, splits

# Where a task carries running text, and so can serve as out-of-corpus text for bits per byte.
TEXT_COLUMNS = {
    "wikitext": "page",
    "lambada_openai": "text",
    "squad": "context",
    "coqa": "story",
    "drop": "passage",
    "boolq": "passage",
    "sciq": "support",
    "race": "article",
}
MIN_CHARACTERS = 100  # shorter passages say more about their first token than about the text


def texts(folder: Path) -> Iterator[str]:
    """Every string of every item of an items folder, all splits: what a corpus is decontaminated against."""
    for task, by_split in splits(folder).items():
        for split in by_split:
            for row in read_rows(folder / task / f"{split}.jsonl"):
                yield from _strings(row)
                yield from _filled(row)


def _filled(row: Mapping[str, Any]) -> Iterator[str]:
    """A sentence with a blank (Winogrande) as other text has it: with either option in its place."""
    sentence, options = row.get("sentence"), [row.get("option1"), row.get("option2")]
    if isinstance(sentence, str) and "_" in sentence:
        yield from (sentence.replace("_", option) for option in options if isinstance(option, str))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def out_of_corpus_text(folder: Path, tasks: list[str], max_bytes: int) -> dict[str, list[str]]:
    """Running text by source: distinct passages of each task's test (else validation) split, at most
    ``max_bytes`` of each.

    Passages come in an order fixed by their own content, so the draw is the same for every model. A task that
    this folder has not is absent from the answer, for the caller to report; a task without running text, or
    no task at all, is an error.
    """
    found: dict[str, list[str]] = {}
    have = splits(folder)
    for task in tasks:
        if task not in TEXT_COLUMNS:
            raise SettingError(
                f"eval.text_tasks: {task!r} has no running text; possible: {', '.join(sorted(TEXT_COLUMNS))}"
            )
        if task not in have:
            continue
        split = "test" if "test" in have[task] else "validation"
        passages = {
            str(row.get(TEXT_COLUMNS[task], "")) for row in read_rows(folder / task / f"{split}.jsonl")
        }
        if task == "wikitext":
            from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer

            passages = {wikitext_detokenizer({"page": p}) for p in passages}
        ordered = sorted(
            (p for p in passages if len(p) >= MIN_CHARACTERS),
            key=lambda p: hashlib.sha256(p.encode()).digest(),
        )
        require(
            bool(ordered), f"eval.text_tasks: {task!r} has no passage of {MIN_CHARACTERS} characters or more"
        )
        found[task] = list(_head(ordered, max_bytes))
    usable = ", ".join(sorted(set(have) & set(TEXT_COLUMNS))) or "none"
    require(
        bool(found) or not tasks,
        f"eval.text_tasks={tasks}: none of them is among the items, which offer {usable}",
    )
    return found


def _head(passages: list[str], max_bytes: int) -> Iterator[str]:
    """Passages until the next would pass the limit; the first in any case, cut to fit."""
    total = 0
    for passage in passages:
        size = len(passage.encode())
        if total + size > max_bytes:
            if total == 0:
                yield passage.encode()[:max_bytes].decode(errors="ignore")
            return
        total += size
        yield passage
