"""Words of a selection: how often they occur, which are frequent, and how much two selections share (tables 4
and 11).

A word is a letter and at least one more letter, digit or underscore, in lower case: identifiers of code stay
whole. TF is how often a word occurs in a set of documents; TF-IDF multiplies it by ln((1 + N) / (1 + df)) +
1, where df of the domain's N documents contain the word. The domain, not the selection, sets the second
factor, so that two selections weigh alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars

WORD = r"\p{L}[\p{L}\p{M}\p{N}_]+"
LONGEST = 64  # characters of a word; what is longer is encoded data
EDGES = (0.01, 0.1, 0.2, 0.5, 1.0)  # shares of a ranking at which counts are split, to serve tables 4 and 11
EVERYWHERE = 0.5  # words in more than this share of a domain's documents name nothing


def count(documents: polars.DataFrame, by: Sequence[str]) -> polars.DataFrame:
    """Words of ``documents`` (one row each, with ``text`` and the columns ``by``): ``by``, word, tf, df
    (documents).
    """
    rows = documents.with_row_index("row").select(
        "row", *by, word=polars.col("text").str.to_lowercase().str.extract_all(WORD)
    )
    per_document = (
        rows.explode("word")
        .filter(polars.col("word").is_not_null() & (polars.col("word").str.len_chars() <= LONGEST))
        .group_by("row", *by, "word")
        .agg(tf=polars.len().cast(polars.Int64))
    )
    return (
        per_document.group_by(*by, "word")
        .agg(tf=polars.col("tf").sum(), df=polars.len().cast(polars.Int64))
        .sort(*by, "word")
    )


def total(counts: Sequence[polars.DataFrame], by: Sequence[str]) -> polars.DataFrame:
    """Counts of disjoint sets of documents added up: ``by``, word, tf, df."""
    return (
        polars.concat(counts)
        .group_by(*by, "word")
        .agg(polars.col("tf").sum(), polars.col("df").sum())
        .sort(*by, "word")
    )


def weigh(counts: polars.DataFrame, domain: polars.DataFrame, documents: int) -> polars.DataFrame:
    """``counts`` (word, tf, df) with ``tfidf``; ``domain`` has the df of the whole domain of ``documents``
    documents.
    """
    frequency = domain.select("word", everywhere=polars.col("df"))
    idf = ((1 + documents) / (1 + polars.col("everywhere"))).log() + 1
    return counts.join(frequency, on="word", how="left").with_columns(tfidf=polars.col("tf") * idf)


def top(weights: polars.DataFrame, column: str, number: int) -> list[str]:
    """The ``number`` words of highest ``column``, highest first; ties in alphabetical order."""
    return weights.sort([column, "word"], descending=[True, False])["word"].head(number).to_list()


def overlap(left: Sequence[str], right: Sequence[str]) -> float | None:
    """Shared words over the smaller set; ``None`` where a set is empty."""
    smaller = min(len(set(left)), len(set(right)))
    return len(set(left) & set(right)) / smaller if smaller else None


def naming(weights: polars.DataFrame, documents: int, number: int) -> list[str]:
    """What the documents behind ``weights`` are about: words of highest tf x ln(N / df), of those that stand
    in at most half of the domain's ``documents``. Without the added 1 of :func:`weigh`, which keeps words
    like "the" on top.
    """
    rare = weights.filter(polars.col("everywhere") <= EVERYWHERE * documents)
    apart = polars.col("tf") * (documents / polars.col("everywhere")).log()
    return top(rare.with_columns(apart=apart), "apart", number)


def clouds(
    left: polars.DataFrame, right: polars.DataFrame, frequent: int, number: int
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """(word, tf) of each selection's cloud, most frequent first: its ``frequent`` most frequent words without
    those that are among the other's as well (figure 18).
    """
    tops = [top(weights, "tf", frequent) for weights in (left, right)]

    def cloud(weights: polars.DataFrame, own: list[str], other: list[str]) -> list[tuple[str, int]]:
        kept = weights.filter(polars.col("word").is_in(sorted(set(own) - set(other))))
        return list(
            kept.sort(["tf", "word"], descending=[True, False]).head(number).select("word", "tf").iter_rows()
        )

    return cloud(left, tops[0], tops[1]), cloud(right, tops[1], tops[0])
