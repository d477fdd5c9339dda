"""Per-token losses, to look at where in a document the reference model is worse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import polars

from repro.influence.scorer import Scorer
from repro.proxy.load import ProxyModel
from repro.store import parquet


class Token(TypedDict):
    """A predicted token and its two losses in nats."""

    token: str
    loss_base: float
    loss_ref: float


class Extreme(TypedDict):
    """A document of the ``highest`` or ``lowest`` scores of its domain."""

    domain: str
    end: str
    doc_id: str
    score: float
    tokens: list[Token]


def token_losses(
    proxy: ProxyModel,
    heads: Sequence[tuple[int, int]],
    text: str,
    window: int = 1024,
    mask: str = "uniform",
    max_tokens: int | None = None,
) -> list[Token]:
    """Every predicted token of a text, in order: ``token`` (its text), ``loss_base`` and ``loss_ref`` in
    nats.
    """
    return _of_document(Scorer(proxy, heads, window, max_tokens, mask=mask), text)


def _of_document(scorer: Scorer, text: str) -> list[Token]:
    ids = scorer.proxy.encode([text])[0]
    found = scorer.losses([ids])[0]
    tokens: list[Token] = []
    for window, (base, reference) in zip(scorer.windows(ids), found, strict=True):
        predicted = window[scorer.proxy.lead :]
        for token, one, other in zip(predicted, base.tolist(), reference.tolist(), strict=True):
            tokens.append(
                {"token": scorer.proxy.tokenizer.decode([token]), "loss_base": one, "loss_ref": other}
            )
    return tokens


def extremes(scorer: Scorer, corpus: Path, out: Path, count: int) -> list[Extreme]:
    """Per-token losses of the ``count`` documents with the highest and with the lowest score of each
    domain.
    """
    from repro.corpus.documents import shards

    scores = parquet.read(sorted((out / "scores").glob("*.parquet")), columns=["doc_id", "domain", "score"])
    ranked = scores.drop_nulls("score").sort(["domain", "score", "doc_id"], descending=[False, True, False])
    chosen: list[tuple[str, str, str, float]] = []
    for (domain,), group in ranked.group_by(["domain"], maintain_order=True):
        n = min(count, group.height // 2)
        for end, rows in (("highest", group.head(n)), ("lowest", group.tail(n))):
            chosen += [
                (str(domain), end, doc_id, score)
                for doc_id, score in rows.select("doc_id", "score").iter_rows()
            ]
    wanted = [doc_id for _, _, doc_id, _ in chosen]
    texts: dict[str, str] = {}
    for path in shards(corpus):
        found = (
            parquet.scan(path).filter(polars.col("doc_id").is_in(wanted)).select("doc_id", "text").collect()
        )
        texts |= dict(found.iter_rows())
    return [
        {
            "domain": domain,
            "end": end,
            "doc_id": doc_id,
            "score": score,
            "tokens": _of_document(scorer, texts[doc_id]),
        }
        for domain, end, doc_id, score in chosen
    ]
