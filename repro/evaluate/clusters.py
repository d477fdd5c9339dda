"""Means of items that are drawn in groups, such as the pairs of a BLiMP paradigm."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np


def cluster_means(values: np.ndarray, clusters: Sequence[Hashable]) -> np.ndarray:
    """(..., items) to (..., clusters): the mean of every cluster, in the order in which they come."""
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    index = np.array([names[name] for name in clusters])
    member = np.eye(len(names))[index] if len(names) else np.zeros((0, 0))
    return values @ member / member.sum(axis=0)


def clustered(values: np.ndarray, clusters: Sequence[Hashable]) -> tuple[float, float | None, int]:
    """Mean of the clusters' means, its standard error over clusters (``None`` with one) and their number.

    For items that are drawn in groups: the pairs of a BLiMP paradigm come from one template, so another
    sample of grammar would bring other paradigms. Treating 13,400 pairs as independent gives intervals
    several times too narrow. The interval is Student's with one degree of freedom less than there are
    clusters.
    """
    means = cluster_means(np.asarray(values, dtype=np.float64), clusters)
    n = len(means)
    return float(means.mean()), float(means.std(ddof=1) / math.sqrt(n)) if n > 1 else None, n
