"""A bag-of-n-grams classifier that tells one domain from the others: an educational filter that needs no
download.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy
import polars

from repro.errors import nearest, require
from repro.plain import Json
from repro.selection.selectors import Context
from repro.selection.words import splitter

READS_TEXT = True
BUCKETS = 1 << 18


def priority(
    context: Context,
    positive: str | list[str] = "textbook",
    folds: int = 5,
    ngrams: int = 2,
    train_documents: int = 20_000,
) -> polars.DataFrame:
    """Log odds that the document is of the domain ``positive``, by logistic regression on hashed word
    n-grams.

    Every document is judged by a classifier that saw neither it nor anything of its source group or of its
    near-duplicates' (:func:`deal`). ``positive`` may be a list: the first that the corpus has. At most
    ``train_documents`` of ``positive``, and of all others together, are learned from (smallest hash of the id
    first); classes weigh the same and documents have unit length, so that no size counts.
    """
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier

    positive = domain(context, positive)
    require(folds >= 2, f"params.folds={folds} must be at least 2")
    dealt_to = deal(context, folds)
    hashing: Any = HashingVectorizer  # its own signature names its default alone, a word
    vectorizer = hashing(
        n_features=BUCKETS,
        ngram_range=(1, ngrams),
        tokenizer=splitter(r"\b\w\w+\b", shortest=2),
        token_pattern=None,
        alternate_sign=False,
        norm="l2",
    )
    learned_from = {
        ident
        for (ident,) in context.query(
            f"""SELECT doc_id FROM (SELECT doc_id,
                                    row_number() OVER (PARTITION BY domain = '{positive.replace("'", "''")}'
                ORDER BY md5(doc_id)) AS place FROM documents) WHERE place <= {train_documents}"""
        )
    }
    wanted = polars.col("doc_id").is_in(list(learned_from))
    train = polars.concat([shard.filter(wanted) for shard in context.texts()]).sort("doc_id")
    features, label, dealt = (
        vectorizer.transform(train["text"]),
        (train["domain"] == positive).to_numpy(),
        dealt_to(train),
    )
    classifiers = []
    for held_out in range(folds):
        rest = dealt != held_out
        require(
            len(set(label[rest])) == 2,
            f"selector 'ngram_classifier': without fold {held_out} there is no source group left of"
            f" {positive!r} or of the others; lower params.folds or give more source groups",
        )
        classifier = SGDClassifier(loss="log_loss", alpha=1e-5, class_weight="balanced", random_state=0)
        classifiers.append(classifier.fit(features[rest], label[rest]))

    def odds(shard: polars.DataFrame) -> numpy.ndarray:
        features, dealt = vectorizer.transform(shard["text"]), dealt_to(shard)
        found = numpy.empty(len(shard))
        for held_out, classifier in enumerate(classifiers):
            if (mine := dealt == held_out).any():
                found[mine] = classifier.decision_function(features[mine])
        return found

    return context.judged(odds)


def domain(context: Context, wanted: str | list[str]) -> str:
    """The first wanted domain that the corpus has; refused where it has none of them, or no other domain."""
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    domains = [name for (name,) in context.query("SELECT DISTINCT domain FROM documents ORDER BY 1")]
    found = [name for name in names if name in domains]
    require(
        bool(found) and len(domains) > 1,
        f"params: {', '.join(names)} must be one of several domains; did you mean"
        f" {nearest(names[0], domains)}? this corpus has {', '.join(domains)}",
    )
    return found[0]


def identity(**params: Any) -> Json:
    """The parameters, and by what documents are dealt to folds: in the fingerprint."""
    return {**params, "dealt_by": "group and cluster"}


def deal(context: Context, folds: int) -> Callable[[polars.DataFrame], numpy.ndarray]:
    """What gives the fold of each document of a frame, by its source group: groups that share a cluster of
    near-duplicates go to one fold, whatever their domains, by a stable hash, so that no order of files
    matters.
    """
    from scipy.cluster.hierarchy import DisjointSet

    shared = context.query(
        """SELECT DISTINCT cluster, "group" FROM documents WHERE cluster IN (
               SELECT cluster FROM documents GROUP BY cluster HAVING count(DISTINCT "group") > 1)"""
    )
    linked, first = DisjointSet({group for _, group in shared}), dict[int, str]()
    for cluster, group in shared:
        linked.merge(first.setdefault(cluster, group), group)
    names = {group: min(members) for members in linked.subsets() for group in members}

    def dealt_to(documents: polars.DataFrame) -> numpy.ndarray:
        dealt = (names.get(group, group) for group in documents["group"].to_list())
        return numpy.array(
            [int.from_bytes(hashlib.blake2b(n.encode(), digest_size=8).digest()) % folds for n in dealt]
        )

    return dealt_to
