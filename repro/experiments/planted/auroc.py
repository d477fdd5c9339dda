"""How well a ranking tells two kinds of documents apart: AUROC with intervals that allow for sources.

The area under the ROC curve is the chance that a document of the one kind stands above one of the other, ties
counting half. Documents of one source are alike, so the variance is that of sources, not of documents
(Obuchowski, Biometrics 1997; with every document its own source it is DeLong's). Only documents of one domain
are compared; domains are averaged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    import polars


@dataclass(frozen=True)
class Estimate:
    """An AUROC with its interval, and what it rests on: documents of both kinds, and sources of the kind that
    has fewer.
    """

    auroc: float
    low: float
    high: float
    wanted: int
    others: int
    sources: int


def auroc(wanted: polars.DataFrame, others: polars.DataFrame, level: float = 0.95) -> Estimate | None:
    """Chance that one of ``wanted`` stands above one of ``others`` of its domain; frames of domain, group,
    priority.

    The mean over domains is weighted by their number of wanted documents. ``None`` where no domain has two of
    either.
    """
    areas, seen, floors, sources, sizes = [], [], [], [], []
    for (domain,), x in wanted.group_by("domain", maintain_order=True):
        y = others.filter(others["domain"] == domain)
        if len(x) < 2 or len(y) < 2:
            continue
        area, variance, fewer = _one_domain(x, y)
        # All apart: no spread is seen, and yet the next source may differ.
        apart = min(area, 1 - area) <= _edge(fewer, level) / 2
        areas.append(area)
        seen.append(variance)
        floors.append((_edge(fewer, level) / _quantile(fewer, level)) ** 2 if apart else 0.0)
        sources.append(fewer)
        sizes.append((len(x), len(y)))
    if not areas:
        return None
    (m, n), fewer = np.sum(sizes, axis=0).tolist(), sum(sources)
    share = np.array(sizes)[:, 0] / m
    area = float(share @ areas)
    at_an_end = min(area, 1 - area) <= _edge(fewer, level) / 2
    # at the ends the interval has a floor of its own
    variances = seen if at_an_end else np.maximum(seen, floors)
    low, high = _interval(area, math.sqrt(float(share**2 @ variances)), fewer, level)
    return Estimate(area, low, high, m, n, fewer)


def _one_domain(x: polars.DataFrame, y: polars.DataFrame) -> tuple[float, float, int]:
    """Area, its variance, and the number of sources of the kind that has fewer."""
    import polars

    above, below = placements(x["priority"].to_numpy(), y["priority"].to_numpy())
    area = float(above.mean())
    influence = polars.concat(
        part.select("group", value=polars.Series((placement - area) / len(part)))
        for part, placement in ((x, above), (y, below))
    )
    by_source = influence.group_by("group").agg(polars.col("value").sum())["value"].to_numpy()
    fewer = min(x["group"].n_unique(), y["group"].n_unique())
    if fewer < 2:
        return area, 0.25, fewer
    return area, len(by_source) / (len(by_source) - 1) * float((by_source**2).sum()), fewer


def placements(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of ``y`` below each of ``x``, and share of ``x`` above each of ``y``; ties count half."""
    x_sorted, y_sorted = np.sort(x), np.sort(y)
    above = (np.searchsorted(y_sorted, x, "left") + np.searchsorted(y_sorted, x, "right")) / (2 * len(y))
    below = 1 - (np.searchsorted(x_sorted, y, "left") + np.searchsorted(x_sorted, y, "right")) / (2 * len(x))
    return above, below


def _quantile(sources: int, level: float) -> float:
    """Of Student's distribution; infinite where there is no spread to estimate from."""
    return float(stats.t.ppf(0.5 + level / 2, sources - 1)) if sources > 1 else math.inf


def _edge(sources: int, level: float) -> float:
    """How far a share may be from 0 or 1 that was seen to be 0 or 1 in so many trials (Clopper and
    Pearson).
    """
    return 1 - (0.5 - level / 2) ** (1 / max(1, sources))


def _interval(area: float, error: float, sources: int, level: float) -> tuple[float, float]:
    """On the logit scale, where it stays inside (0, 1); at the ends never tighter than so few sources can say
    of a share.
    """
    if sources < 2:
        return 0.0, 1.0
    edge = _edge(sources, level)
    inside = min(max(area, edge / 2), 1 - edge / 2)
    width = _quantile(sources, level) * error / (inside * (1 - inside))
    logit = math.log(inside / (1 - inside))
    low, high = (float(1 / (1 + np.exp(-x))) for x in (logit - width, logit + width))
    if area >= 1 - edge / 2:
        low, high = min(low, 1 - edge), 1.0
    if area <= edge / 2:
        low, high = 0.0, max(high, edge)
    return low, high
