"""Each chosen document held against the benchmarks, and its shingles; a file of the spool at a time, so that
a killed cleaning goes on behind the last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from repro.corpus.clean import benchmark_index, examine
from repro.corpus.minhash import shingles
from repro.corpus.ngrams import shingle_words, words
from repro.corpus.spool import Candidate, texts
from repro.items import texts as items_texts
from repro.store import atomic, parquet


def examined(
    spool: Path, chosen: list[Candidate], items: Path | None, with_shingles: bool
) -> Iterator[tuple[Candidate, bool, np.ndarray | None]]:
    """(document, whether it shares text with a benchmark, its shingles where they are asked for), in the
    order of ``chosen``; ``items`` is the folder of the benchmarks.
    """

    @cache
    def index() -> dict[int, np.ndarray]:
        return benchmark_index(items_texts(items)) if items is not None else {}

    for file, inside in groupby(chosen, key=lambda c: c.file):
        own = list(inside)
        path = spool / f"examined-{file:05d}.parquet"
        found = _read(path, own)
        if found is None:
            found = [_one(text, index(), with_shingles) for text in texts(spool, own)]
            _write(path, own, found)
        for candidate, (shares, sets) in zip(own, found, strict=True):
            yield candidate, shares, sets if with_shingles else None


def _one(text: str, index: dict[int, np.ndarray], with_shingles: bool) -> tuple[bool, np.ndarray]:
    hashes = words(text)
    shares = examine(hashes, index)
    sets = shingles(shingle_words(text, hashes)) if with_shingles and not shares else hashes[:0]
    return shares, sets


def _write(path: Path, own: list[Candidate], found: list[tuple[bool, np.ndarray]]) -> None:
    offsets = np.cumsum([0, *(len(sets) for _, sets in found)])
    values = np.concatenate([sets for _, sets in found])
    table = pa.table(
        {
            "row": [candidate.row for candidate in own],
            "shares": [shares for shares, _ in found],
            "shingles": pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values)),
        }
    )
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="none", use_dictionary=False)


def _read(path: Path, own: list[Candidate]) -> list[tuple[bool, np.ndarray]] | None:
    """What an attempt that was killed had found for the same documents."""
    if not path.is_file():
        return None
    table = parquet.table(path).combine_chunks()
    if table["row"].to_pylist() != [candidate.row for candidate in own]:
        return None
    sets = table["shingles"].chunk(0)
    offsets, values = sets.offsets.to_numpy(), sets.values.to_numpy()
    # Copies: the sets outlive the file's table, of which each would hold the whole.
    lists = [values[start:stop].copy() for start, stop in zip(offsets[:-1], offsets[1:], strict=True)]
    return list(zip(table["shares"].to_pylist(), lists, strict=True))
