"""datatrove's three steps of MinHash, with this project's shingles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupSignature,
)
from datatrove.utils.word_tokenizers import WhitespaceTokenizer

from repro.corpus.minhash import SHINGLE, bands, shingles
from repro.corpus.ngrams import shingle_words, words


class Signature(MinhashDedupSignature):
    """With the shingles of :func:`repro.corpus.minhash.shingles`: datatrove's own words need a package for
    each script.
    """

    def get_shingles(self, text: str) -> np.ndarray:
        """Hashes of the text's word 5-grams, uint64 [N, 1]."""
        return shingles(shingle_words(text, words(text))).reshape(-1, 1)


@dataclass(frozen=True)
class Steps:
    """Signatures of each file, pairs of each of ``buckets`` buckets, clusters of all."""

    folder: Path
    config: MinhashConfig

    @property
    def buckets(self) -> int:
        """How many buckets a signature has."""
        return self.config.num_buckets

    @property
    def clusters(self) -> Path:
        """Where ``NNNNNN.clusters`` of each file are: pairs of a position and a number, 32 bits each."""
        return self.folder / "clusters"

    def sign(self) -> MinhashDedupSignature:
        """Of the documents that come in."""
        folder = str(self.folder / "signatures")
        tokenizer: Any = WhitespaceTokenizer()  # taken as well as the name of a language
        return Signature(folder, self.config, tokenizer)

    def pair(self) -> MinhashDedupBuckets:
        """Documents that share a whole bucket."""
        folders = str(self.folder / "signatures"), str(self.folder / "pairs")
        return MinhashDedupBuckets(*folders, config=self.config)

    def cluster(self) -> MinhashDedupCluster:
        """What the pairs tie together."""
        return MinhashDedupCluster(
            str(self.folder / "pairs"), str(self.clusters), self.config, save_cluster_id=True
        )


def steps(folder: Path, threshold: float, permutations: int) -> Steps:
    """The steps over a folder."""
    buckets, rows = bands(threshold, permutations)
    return Steps(folder, MinhashConfig(n_grams=SHINGLE, num_buckets=buckets, hashes_per_bucket=rows))
