"""Which tokens stand in the batch of a step: a pure function of (seed, step, selection, tokens).

An arm is a number of repeats for each document of the shared token ids. One pass (epoch) over the arm holds
each document that many times, sorted by hash(seed, epoch, copy, doc_id). The copy is in the hash so that the
repeats of a document are spread over the pass like documents of their own instead of standing side by side;
copy 0 has the same key in every arm, so paired arms meet their common documents in the same relative order.
The passes, one after the other, are one endless stream of tokens; batch n is its n-th cut, whatever the
number of ranks or micro-batches.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl

from repro.errors import require
from repro.pretrain.tokens import open_ids, read_index
from repro.store import parquet, read_json


def mix(keys: np.ndarray, seed: int, epoch: int, copy: int) -> np.ndarray:
    """hash(seed, epoch, copy, key) for 64-bit keys: splitmix64 over the key and the three numbers."""

    def splitmix(x: np.ndarray) -> np.ndarray:
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))

    with np.errstate(over="ignore"):
        salt = np.zeros(1, np.uint64)
        for number in (seed, epoch, copy):
            salt = splitmix(salt ^ np.uint64(number % 2**64))
        return splitmix(keys ^ salt)


class TokenStream:
    """The endless stream of an arm's tokens. Positions count tokens from 0; documents are rows of the token
    index.
    """

    def __init__(
        self,
        ids: np.ndarray,
        offset: np.ndarray,
        length: np.ndarray,
        key: np.ndarray,
        repeats: np.ndarray,
        seed: int,
    ):
        self.ids, self.offset, self.length, self.key = ids, offset, length, key
        self.repeats, self.seed = repeats, seed
        self.per_epoch = int((length * repeats).sum())
        require(self.per_epoch > 0, "the selection holds no tokens; raise budget.share")
        self.epoch = lru_cache(maxsize=2)(self._epoch)  # a batch may span the end of a pass

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Documents of a pass in their order, and the position in the pass where each ends."""
        copies = [np.flatnonzero(self.repeats > copy) for copy in range(int(self.repeats.max()))]
        keys = [mix(self.key[documents], self.seed, epoch, copy) for copy, documents in enumerate(copies)]
        documents = np.concatenate(copies)[np.argsort(np.concatenate(keys), kind="stable")]
        return documents, np.cumsum(self.length[documents])

    def pieces(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Stream positions [start, start + count) as pieces of documents: (document, first token in it,
        number of tokens).
        """
        documents, firsts, counts = [], [], []
        end = start + count
        while start < end:
            epoch, within = divmod(start, self.per_epoch)
            order, ends = self.epoch(epoch)
            until = min(end - epoch * self.per_epoch, self.per_epoch)
            a, b = np.searchsorted(ends, within, "right"), np.searchsorted(ends, until, "left") + 1
            begins = ends[a:b] - self.length[order[a:b]]
            first = np.maximum(within - begins, 0)
            documents.append(order[a:b])
            firsts.append(first)
            counts.append(np.minimum(ends[a:b], until) - begins - first)
            start = epoch * self.per_epoch + until
        return np.concatenate(documents), np.concatenate(firsts), np.concatenate(counts)

    def read(self, start: int, count: int) -> np.ndarray:
        """Token ids of stream positions [start, start + count), int64."""
        out = np.empty(count, np.int64)
        at = 0
        for document, first, size in zip(*self.pieces(start, count), strict=True):
            begin = self.offset[document] + first
            out[at : at + size] = self.ids[begin : begin + size]
            at += size
        return out

    def sequences(self, first: int, count: int, context: int) -> np.ndarray:
        """Training sequences ``first`` .. ``first + count``: [count, context + 1], inputs and the next tokens
        in one.

        Neighbours share one token, so that every token of the stream but the very first is predicted exactly
        once.
        """
        flat = self.read(first * context, count * context + 1)
        return np.lib.stride_tricks.sliding_window_view(flat, context + 1)[::context].copy()

    def identity(self) -> str:
        """A short hash of everything the order follows from."""
        sha = hashlib.sha256(str(self.seed).encode())
        for array in (self.length, self.key, self.repeats):
            sha.update(np.ascontiguousarray(array).data)
        return sha.hexdigest()[:12]

    def tokens_read(self, tokens: int) -> np.ndarray:
        """How many tokens of each document stand in the first ``tokens`` positions of the stream."""
        whole, rest = divmod(tokens, self.per_epoch)
        read = self.length * self.repeats * whole
        if rest:
            documents, _, counts = self.pieces(whole * self.per_epoch, rest)
            read += np.bincount(documents, weights=counts, minlength=len(read)).astype(np.int64)
        return read


def repeats_of(tokens: Path, selection: Path) -> np.ndarray:
    """The selection's repeats for each training document of the token index, in its order.

    Raises :class:`SettingError` for a selection of other documents, or one that leaves a domain empty
    unasked.
    """
    index = read_index(tokens, "documents", ["doc_id", "domain"])
    chosen = parquet.read(selection / "selection.parquet", columns=["doc_id", "repeats"])
    joined = index.join(chosen, on="doc_id", how="left", maintain_order="left", validate="1:1")
    missing = joined["repeats"].null_count()
    require(
        missing == 0 and chosen.height == index.height,
        f"the selection in {selection} does not match the tokens in {tokens}: it has {chosen.height}"
        f" documents, the tokens {index.height}, {missing} of them not in the selection; select again from"
        " the same corpus",
    )
    empty = (
        joined.group_by("domain")
        .agg(pl.col("repeats").sum())
        .filter(pl.col("repeats") == 0)["domain"]
        .sort()
        .to_list()
    )
    record = selection / "selection.json"
    asked = read_json(record).get("left_out", []) if empty and record.is_file() else []
    empty = [domain for domain in empty if domain not in asked]
    require(
        not empty,
        f"the selection holds no document of domain {', '.join(empty)}; raise budget.share, or leave the"
        " domain out with corpus.domains or, out of every arm, exp.empty_domains=leave_out",
    )
    return joined["repeats"].to_numpy().astype(np.int64)


def open_stream(tokens: Path, selection: Path, seed: int) -> TokenStream:
    """The stream of the arm that ``selection`` makes of ``tokens``."""
    index = read_index(tokens, "documents", ["offset", "length", "key"])
    offset, length, key = (index[name].to_numpy() for name in ("offset", "length", "key"))
    return TokenStream(
        open_ids(tokens, "documents"), offset, length, key, repeats_of(tokens, selection), seed
    )
