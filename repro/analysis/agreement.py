"""How far two rankings of the same documents agree, in each domain. Scores are only comparable within one.

Spearman's correlation looks at all documents; the overlap of the highest 10, 20, 30 and 50 % at those that a selection would
keep. Two rankings that know nothing of each other share as much of their top as the top is of the domain.

Documents of one source are not independent, so whole sources are drawn in the bootstrap. Its percentiles cover 88 to 94 % at
5 to 15 sources, not 95. What the draws are used for is therefore their spread: Student's interval with one degree of freedom
less than sources, on a scale where the spread hardly depends on the value and which ends where values do (Fisher's for
correlations, the arc sine of the root for shares). That covers 93 % and more; shown by simulation in ``tests/oracle``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from repro import parquet
from repro.config import Select, require
from repro.store import Context, Stage

if TYPE_CHECKING:
    import polars

SOURCES = 5  # with fewer, documents are drawn
FEWEST = 10  # documents of a domain, below which nothing is said
LEVEL = 0.95


@dataclass
class Agreement:
    """``exp.params`` of an experiment that compares scores."""

    shares: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.3, 0.5])  # of the ranked documents of a domain
    draws: int = 1000  # of the bootstrap
    seed: int = 0

    def __post_init__(self) -> None:
        require(all(0 < share < 1 for share in self.shares), f"exp.params.shares={self.shares} must lie between 0 and 1")
        require(self.draws >= 100, "exp.params.draws must be at least 100")


def ranking_stage(select: Select, seed: int, corpus: Stage, scores: Stage) -> Stage:
    """``ranking.parquet``: what a selector says of every training document (doc_id, domain, group, priority)."""
    from repro.selection import priority, selectors

    given = {key: value for key, value in select.params.items() if key != "match"}
    seed = seed if getattr(selectors.load(select.selector), "SEEDED", False) else 0
    settings = {"selector": select.selector, "params": selectors.identity(select.selector, given), "seed": seed}
    inputs = {"corpus": corpus, "scores": scores} | priority.stages(select.selector, given, corpus)
    return Stage(
        "ranking", select.selector, settings, lambda ctx: _rank(ctx, select.selector, given, seed), inputs, light=("corpus",)
    )


def _rank(context: Context, selector: str, given: dict[str, Any], seed: int) -> None:
    from repro.selection import priority, rank

    query = f'SELECT doc_id, "group", {rank.TAIL} AS tie FROM documents'
    found, known = priority.of_documents(context, selector, given, seed, query)
    # In the order in which equal priorities are taken.
    ranking = found.join(known, on="doc_id").sort("domain", "tie").select("doc_id", "domain", "group", "priority")
    ranking.write_parquet(context.out / "ranking.parquet")
    context.facts |= {"documents": len(ranking), "unranked": int(ranking["priority"].null_count())}


def stage(s: Agreement, left: Stage, right: Stage) -> Stage:
    """``agreement.json``: for each domain, how far two rankings agree."""
    return Stage(
        "agreement", f"{left.label}-{right.label}", asdict(s), lambda ctx: _agree(ctx, s), {"left": left, "right": right}
    )


def _agree(context: Context, s: Agreement) -> None:

    from repro.store import write_json

    left, right = (parquet.read(context.inputs[side] / "ranking.parquet") for side in ("left", "right"))
    both = left.join(right.select("doc_id", other="priority"), on="doc_id", maintain_order="left")
    found = {str(domain): measure(part, s) for (domain,), part in both.group_by("domain", maintain_order=True)}
    write_json(context.out / "agreement.json", found)
    context.facts |= {
        "documents": sum(d["documents"] for d in found.values()),
        "dropped": sum(d["dropped"] for d in found.values()),
    }


def measure(documents: polars.DataFrame, s: Agreement) -> dict[str, Any]:
    """Agreement within one domain; ``documents`` has group, priority and other, in the order that breaks ties.

    ``dropped`` documents have no priority in one ranking or in both. ``drawn`` says what the bootstrap draws, and of how many
    ``units``; ``reason`` why there is no estimate.
    """
    import polars

    ranked = documents.filter(polars.col("priority").is_finite() & polars.col("other").is_finite())
    n = len(ranked)
    found: dict[str, Any] = {"documents": n, "dropped": len(documents) - n, "spearman": None, "overlap": {}}
    if n < FEWEST:
        return found | {"reason": "too few documents"}
    if min(ranked["priority"].n_unique(), ranked["other"].n_unique()) < 2:
        return found | {"reason": "all scores equal"}
    x, y = (Ranks.of(ranked[column].to_numpy()) for column in ("priority", "other"))
    unit, units, drawn_of = units_of(ranked["group"])

    def statistics(weight: np.ndarray) -> list[float]:
        return [spearman(x, y, weight), *(overlap(x, y, weight, share) for share in s.shares)]

    drawn = np.array([statistics(weight) for weight in resampled(unit, units, s.draws, s.seed)]).T
    values = statistics(np.ones(n))
    found |= {"drawn": drawn_of, "units": units}
    found["spearman"] = correlation_interval(values[0], drawn[0], units)
    for share, value, of_share in zip(s.shares, values[1:], drawn[1:], strict=True):
        estimate = share_interval(value, of_share, units)
        found["overlap"][str(share)] = estimate | {"chance": round(_number(share, n) / n, 6)}
    return found


def rank_correlation(
    groups: polars.Series, x: np.ndarray, y: np.ndarray, draws: int = 300, seed: int = 0
) -> dict[str, float] | None:
    """Spearman's correlation of two quantities [n] with its interval; ``groups`` are the documents' sources."""
    a, b = Ranks.of(x), Ranks.of(y)
    unit, units, _ = units_of(groups)
    drawn = np.array([spearman(a, b, weight) for weight in resampled(unit, units, draws, seed)])
    return correlation_interval(spearman(a, b, np.ones(len(x))), drawn, units)


def units_of(groups: polars.Series) -> tuple[np.ndarray, int, str]:
    """What a bootstrap draws: the unit of each document [n], how many units there are, and their name."""
    if groups.n_unique() < SOURCES:
        return np.arange(len(groups)), len(groups), "documents"
    unit = groups.rank("dense").to_numpy() - 1
    return unit, int(unit.max()) + 1, "sources"


def resampled(unit: np.ndarray, units: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each document [n] occurs in every draw of as many units as there are."""
    generator = np.random.default_rng(seed)
    for _ in range(draws):
        yield generator.multinomial(units, np.full(units, 1 / units))[unit].astype(float)


@dataclass(frozen=True)
class Ranks:
    """What is computed of a ranking once: ``place`` [n] among the distinct values, lowest first, and the documents in
    descending ``order`` [n], equal ones as they came."""

    place: np.ndarray
    order: np.ndarray

    @staticmethod
    def of(values: np.ndarray) -> Ranks:
        """Ranks of priorities [n]."""
        return Ranks(np.unique(values, return_inverse=True)[1], np.argsort(-values, kind="stable"))

    def middle(self, weight: np.ndarray) -> np.ndarray:
        """Ranks [n] of documents that occur ``weight`` times each; equal ones share the mean of theirs."""
        counts = np.bincount(self.place, weights=weight)
        return (np.cumsum(counts) - counts / 2)[self.place]

    def taken(self, weight: np.ndarray, number: int) -> np.ndarray:
        """How often each document [n] is among the first ``number``."""
        found = np.empty_like(weight)
        here = weight[self.order]
        found[self.order] = np.clip(number - (np.cumsum(here) - here), 0, here)
        return found


def spearman(x: Ranks, y: Ranks, weight: np.ndarray) -> float:
    """Spearman's correlation of documents that occur ``weight`` times each; NaN where a ranking is constant."""
    n = weight.sum()
    a, b = (ranks - weight @ ranks / n for ranks in (x.middle(weight), y.middle(weight)))
    spread = math.sqrt((weight @ (a * a)) * (weight @ (b * b)))
    return float(weight @ (a * b) / spread) if spread else math.nan


def overlap(x: Ranks, y: Ranks, weight: np.ndarray, share: float) -> float:
    """Share of the highest ``share`` of one ranking that is among the highest of the other."""
    number = _number(share, weight.sum())
    return float(np.minimum(x.taken(weight, number), y.taken(weight, number)).sum() / number)


def _number(share: float, n: float) -> int:
    return max(1, round(share * n))


def correlation_interval(value: float, drawn: np.ndarray, units: int) -> dict[str, float] | None:
    """Value, low and high of a correlation from its bootstrap's draws [draws], on Fisher's scale.

    The spread is taken of the draws as they are and carried over: on that scale a draw of exactly 1 would be infinite.
    """
    drawn = drawn[np.isfinite(drawn)]
    if not math.isfinite(value) or len(drawn) < 2:
        return None
    slope, spread = 1 - value**2, float(drawn.std(ddof=1))
    if slope < 1e-9 or spread < 1e-9:
        return _rounded(value, value, value)
    half = _student(units) * spread / slope
    return _rounded(value, math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half))


def share_interval(value: float, drawn: np.ndarray, units: int) -> dict[str, float]:
    """Value, low and high of a share from its bootstrap's draws [draws], on the scale of the arc sine of its root."""
    middle, half = math.asin(math.sqrt(value)), _student(units) * float(np.arcsin(np.sqrt(drawn)).std(ddof=1))
    low, high = (math.sin(min(max(angle, 0.0), math.pi / 2)) ** 2 for angle in (middle - half, middle + half))
    return _rounded(value, low, high)


def _student(units: int) -> float:
    """Student's quantile, and that draws of n units out of n spread less than samples do."""
    from scipy.special import stdtrit

    return float(stdtrit(units - 1, 0.5 + LEVEL / 2)) * math.sqrt(units / (units - 1))


def _rounded(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": round(value, 6), "low": round(low, 6), "high": round(high, 6)}
