"""Near-duplicate clusters through MinHash: in memory (datasketch) or on disk at any size (datatrove's
blocks).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import numpy as np

from repro.corpus.ngrams import distinct, ngrams
from repro.errors import SettingError
from repro.tracking import progress

SHINGLE = 5  # words


def shingles(hashes: np.ndarray) -> np.ndarray:
    """Distinct 5-grams of a document, sorted, uint64; of a shorter one its single longest run."""
    runs = [run for _, run in ngrams(hashes, SHINGLE)]
    return distinct(runs[-1] if runs else hashes)


def near_duplicates(sets: list[np.ndarray], threshold: float, permutations: int) -> list[list[int]]:
    """Clusters (of two and more) of documents linked by pairs whose shingle sets have Jaccard similarity >=
    ``threshold``.

    ``sets``: sorted distinct shingle hashes of each document. MinHash and LSH propose the pairs, tuned to
    miss few; the similarity itself is then computed exactly, so that no cluster rests on an estimate.
    """
    from datasketch import MinHash, MinHashLSH
    from scipy.cluster.hierarchy import DisjointSet

    lsh = MinHashLSH(threshold=threshold, num_perm=permutations, weights=(0.1, 0.9))
    empty = MinHash(num_perm=permutations, seed=1, hashfunc=int)
    linked = DisjointSet(range(len(sets)))
    with progress(len(sets), "documents", "near-duplicates") as bar:
        for i, own in enumerate(sets):
            bar.update(1)
            if not len(own):
                continue
            sketch = empty.copy()
            # [shingles, permutations] would be large for a long document
            for start in range(0, len(own), 4096):
                sketch.update_batch((own[start : start + 4096] >> np.uint64(32)).tolist())
            for other in cast(list[int], lsh.query(sketch)):
                if not linked.connected(i, other) and jaccard(own, sets[other]) >= threshold:
                    linked.merge(i, other)
            lsh.insert(i, sketch, check_duplication=False)
    return sorted(sorted(members) for members in linked.subsets() if len(members) > 1)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Similarity of two sorted sets: shared over all."""
    if min(len(a), len(b)) == 0:
        return 0.0
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def near_duplicates_on_disk(
    files: Iterable[tuple[int, Iterator[str]]], folder: Path, threshold: float, permutations: int
) -> list[list[tuple[int, int]]]:
    """Clusters of (file, position in the file) by datatrove's signature, bucket and cluster blocks, for any
    size.

    ``files``: the texts of each file. A pair is one that shares a whole bucket: nothing is verified, unlike
    in :func:`near_duplicates`; the bands are those whose threshold is nearest. Signatures of finished files
    are used again.
    """
    try:
        from datatrove.data import Document as Entry

        from repro.corpus import signatures
    except ImportError:
        raise SettingError(
            "corpus.minhash=datatrove needs datatrove: pip install 'attention-influence-repro[cluster]'"
        ) from None

    steps = signatures.steps(folder, threshold, permutations)
    for file, texts in files:
        signed = folder / "signed" / str(file)  # a kill leaves whole records, so the files do not tell
        if not signed.exists():
            steps.sign().run((Entry(text=text, id=str(i)) for i, text in enumerate(texts)), rank=file)
            signed.parent.mkdir(exist_ok=True)
            signed.touch()
    with progress(steps.buckets, "buckets", "near-duplicates") as bar:
        for bucket in range(steps.buckets):
            steps.pair().run(rank=bucket, world_size=steps.buckets)
            bar.update(1)
    steps.cluster().run()
    found: dict[int, list[tuple[int, int]]] = {}
    for path in sorted(steps.clusters.glob("*.clusters")):
        for position, cluster in struct.iter_unpack("<II", path.read_bytes()):
            found.setdefault(cluster, []).append((int(path.stem), position))
    return sorted(sorted(members) for members in found.values())


def bands(threshold: float, permutations: int) -> tuple[int, int]:
    """(buckets, hashes in a bucket) of at most ``permutations`` hashes whose threshold (1 / b)^(1 / r) is
    nearest.
    """
    choices = [(permutations // rows, rows) for rows in range(1, permutations + 1)]
    return min(choices, key=lambda choice: abs((1 / choice[0]) ** (1 / choice[1]) - threshold))
