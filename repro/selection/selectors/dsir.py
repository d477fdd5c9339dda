"""DSIR (Xie et al., arXiv 2302.03169): importance weights of hashed n-grams, the corpus against a target.

As in the authors' package ``data-selection``: lower-cased words and marks, unigrams and bigrams in 10,000
buckets, log p_target - log p_raw summed over a document's n-grams. Here the best are taken (their ``top_k``)
instead of drawn with noise, and the hash is scikit-learn's, which needs no Python loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import polars

from repro.errors import require
from repro.selection.selectors import Context
from repro.selection.selectors.ngram_classifier import domain
from repro.selection.words import splitter
from repro.store import sha256_file

READS_TEXT = True
SMOOTHING = 1e-8  # the package's


def priority(
    context: Context,
    target: str | list[str] = "textbook",
    target_file: str | None = None,
    per_token: bool = False,
    buckets: int = 10_000,
) -> polars.DataFrame:
    """Log importance weight. The target is the corpus's domain ``target`` (of a list, the first it has), or
    the lines of the text file ``target_file``.

    The sum grows with a document's length, as in the paper; ``per_token`` divides it by the number of
    n-grams.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing: Any = HashingVectorizer  # its own signature names its defaults alone, words
    vectorizer = hashing(
        n_features=buckets,
        ngram_range=(1, 2),
        tokenizer=splitter(r"\w+|[^\w\s]+", marks=True),
        token_pattern=None,
        alternate_sign=False,
        norm=None,
    )
    if target_file is None:
        target = domain(context, target)
    raw, aimed = numpy.zeros(buckets), numpy.zeros(buckets)
    for shard in context.texts():
        counts = vectorizer.transform(shard["text"])
        raw += numpy.asarray(counts.sum(axis=0)).ravel()
        if target_file is None:
            aimed += numpy.asarray(counts[(shard["domain"] == target).to_numpy()].sum(axis=0)).ravel()
    if target_file is not None:
        lines = [line for line in _checked(target_file).read_text().split("\n") if line.strip()]
        require(
            bool(lines), f"params.target_file={target_file} is empty; give text of the kind that is wanted"
        )
        aimed += numpy.asarray(vectorizer.transform(lines).sum(axis=0)).ravel()
    gain = numpy.log(aimed / aimed.sum() + SMOOTHING) - numpy.log(raw / raw.sum() + SMOOTHING)

    def weight(shard: polars.DataFrame) -> numpy.ndarray:
        counts = vectorizer.transform(shard["text"])
        return (
            counts @ gain / (numpy.maximum(1, numpy.asarray(counts.sum(axis=1)).ravel()) if per_token else 1)
        )

    return context.judged(weight)


def _checked(path: str) -> Path:
    require(Path(path).is_file(), f"params.target_file={path} is not a file; give text, one passage a line")
    return Path(path)


def identity(target_file: str | None = None, **params: object) -> dict[str, object]:
    """The target file's contents, wherever it lies."""
    return params | ({"target_sha256": sha256_file(_checked(target_file))} if target_file else {})
