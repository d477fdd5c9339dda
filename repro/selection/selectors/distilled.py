"""AttentionInfluence distilled: the score of documents nobody scored, from what their text looks like.

Learned from the documents that have a score (all of them, or those that ``score.sample`` drew), for corpora
that are too large to be read by a model. How faithful it is, ``exp=score_agreement`` measures: its arm
``distilled`` against the scores themselves, by domain, every document predicted without its own source.
"""

from __future__ import annotations

from typing import Any

import numpy
import polars

from repro.errors import require
from repro.selection.selectors import Context
from repro.selection.selectors.ngram_classifier import deal, identity

__all__ = ["identity", "priority"]  # dealt as the classifier's are
TEXT_BESIDE_SCORES = True
LEAST = 100  # scored documents that something can be learned from
MULTIPLIER = 0x9E3779B97F4A7C15  # of the running hash of neighbouring words


def priority(
    context: Context,
    folds: int = 5,
    trees: int = 200,
    characters: int | None = None,
    train_documents: int = 100_000,
) -> polars.DataFrame:
    """The predicted rank of a document's score among those of its domain, in (0, 1).

    Gradient boosting (scikit-learn) of ``trees`` trees on the columns of :func:`features` and the domain.
    Every document is predicted by trees that saw nothing of its source group or of its near-duplicates'
    (``deal``).
    ``characters``: how much of a document is read; ``None`` reads it whole. At most ``train_documents`` are
    learned from, smallest hash of the id first.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    require(folds >= 2, f"params.folds={folds} must be at least 2")
    ranked = context.connection.sql(
        """SELECT doc_id, percent_rank() OVER (PARTITION BY domain ORDER BY score) AS target
           FROM scores WHERE isfinite(score) ORDER BY md5(doc_id)"""
    ).pl()
    require(
        len(ranked) >= LEAST,
        f"selector 'distilled' learns from scores, and {len(ranked)} documents have one; it needs {LEAST}:"
        " raise score.sample, or score more documents",
    )
    ranked = ranked.head(train_documents)
    names = [name for (name,) in context.query("SELECT DISTINCT domain FROM documents ORDER BY 1")]

    def read(shard: polars.DataFrame) -> numpy.ndarray:
        place = shard["domain"].replace_strict(names, list(range(len(names))), return_dtype=polars.Float64)
        return numpy.column_stack([features(shard["text"], characters), place.to_numpy()])

    learned = [
        (part.select("domain", "group", "target"), read(part))
        for shard in context.texts()
        if len(part := shard.join(ranked, on="doc_id", maintain_order="left"))
    ]
    train, x = polars.concat([rows for rows, _ in learned]), numpy.concatenate([row for _, row in learned])
    dealt_to = deal(context, folds)
    groups, target = dealt_to(train), train["target"].to_numpy()
    models = []
    for held_out in range(folds):
        rest = groups != held_out
        require(
            bool(rest.any()),
            f"selector 'distilled': without fold {held_out} no scored document is left; lower params.folds or"
            " give more source groups",
        )
        # Domains are numbered by name; whatever order that is, trees can tell them apart.
        never: Any = False  # scikit-learn's own signature names its default alone, a word
        model = HistGradientBoostingRegressor(
            max_iter=trees, learning_rate=0.05, early_stopping=never, random_state=0
        )
        models.append(model.fit(x[rest], target[rest]))

    def predicted(shard: polars.DataFrame) -> numpy.ndarray:
        values, mine = read(shard), dealt_to(shard)
        found = numpy.empty(len(shard))
        for held_out, model in enumerate(models):
            if (here := mine == held_out).any():
                found[here] = model.predict(values[here])
        return found

    return context.judged(predicted)


def features(texts: polars.Series, characters: int | None = None) -> numpy.ndarray:
    """[n, features] of texts: size, make-up of characters, words and lines, and how much of it is said twice.

    What masked copying heads hurt is repetition inside a document, so that words, and runs of two, three and
    five of them, that stand earlier in it are counted. No Python per document: polars does it.
    """
    read = texts if characters is None else texts.str.slice(0, characters)
    text = polars.col("text")
    flat = text.str.replace_all("[\n\t]", " ")
    frame = polars.DataFrame({"text": read}).with_row_index("row")
    size = text.str.len_chars().cast(polars.Float64).clip(lower_bound=1)

    def share(pattern: str) -> polars.Expr:
        return text.str.count_matches(pattern) / size

    plain = frame.select(
        size.log().alias("size"),
        (text.str.len_bytes() / size).alias("bytes"),
        share(r"[0-9]").alias("digits"),
        share(r"[A-Z]").alias("capitals"),
        share(r"[.,;:!?]").alias("punctuation"),
        share(r"[(){}\[\]<>=_/\\*#|$]").alias("marks"),
        share("\n").alias("lines"),
        share(r"[ \t\n]{2,}").alias("gaps"),
        (text.str.split("\n").list.n_unique() / (text.str.count_matches("\n") + 1)).alias("own_lines"),
    )
    words = (
        frame.select("row", word=flat.str.split(" "))
        .explode("word")
        .filter(polars.col("word") != "")
        .with_columns(h1=polars.col("word").hash(0), length=polars.col("word").str.len_chars())
    )
    inside = polars.col("row") == polars.col("row").shift(1)
    for n in range(2, 6):  # a hash of the last n words, null where the document has fewer before this one
        earlier = polars.when(inside).then(polars.col(f"h{n - 1}").shift(1))
        words = words.with_columns(((earlier * MULTIPLIER) ^ polars.col("h1")).alias(f"h{n}"))
    counted = words.group_by("row").agg(
        polars.len().alias("words"),
        polars.col("length").mean().alias("word_length"),
        *(
            (polars.col(h).drop_nulls().n_unique() / polars.len()).alias(f"own_{h}")
            for h in ("h1", "h2", "h3", "h5")
        ),
    )
    times = words.group_by("row", "h1").len()
    spread = times.group_by("row").agg(
        (polars.col("len").max() / polars.col("len").sum()).alias("most"),
        (polars.col("len") / polars.col("len").sum()).entropy(base=2).alias("entropy"),
    )
    joined = (
        frame.select("row")
        .hstack(plain)
        .join(counted, on="row", how="left", maintain_order="left")
        .join(spread, on="row", how="left", maintain_order="left")
    )
    return joined.drop("row").cast(polars.Float64).to_numpy()
