"""How much of a difference between two arms comes from which benchmark items and texts were asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from repro.outcomes import measure
from repro.store import finite, parquet

if TYPE_CHECKING:
    import numpy


def item_variances(pairs: Sequence[tuple[Path, Path]], tasks: bool = True) -> dict[str, float]:
    """{metric: variance of the mean difference over items}, for ``repro.outcomes.statistics.compare``.

    ``pairs`` are (treatment, control) folders of finished evaluations, one pair a seed. Items are matched by
    task and index, texts by source and index. A metric of a group of tasks is taken over all its items.
    Without ``tasks`` of likelihoods alone, which is several times as fast.
    """
    from repro.outcomes.statistics import paired_item_variance

    found: dict[str, float] = {}
    for name, read in (("items.parquet", partial(_items, tasks=tasks)), ("texts.parquet", _texts)):
        if pairs and all((folder / name).is_file() for pair in pairs for folder in pair):
            for metric, drawn in _differences(pairs, name, read).items():
                found[metric] = paired_item_variance(*drawn)
    return found | of_endpoint(found)


def over_baseline(models: Sequence[Path], baseline: Path) -> dict[str, dict[str, float | int | None]]:
    """{metric: {difference, low, high, seeds}}: the models of an arm (one folder a seed) minus a baseline on
    the same items.

    95 % intervals over seeds and items (or their clusters); below three seeds the interval takes in the items
    only.
    """
    from repro.outcomes.statistics import FEWEST, cluster_means, limits, paired_item_variance

    found = {}
    pairs = [(model / "items.parquet", baseline) for model in models]
    for metric, (gaps, clusters, weights) in _differences_of(
        [(_items(a), _items(b)) for a, b in pairs]
    ).items():
        means = gaps.mean(axis=1) if clusters is None else cluster_means(gaps, clusters).mean(axis=1)
        centre = float(means.mean())
        seeds = means
        if len(means) < FEWEST:  # no spread over seeds to hold what items and seeds do together
            seeds, gaps = [centre] * FEWEST, gaps.mean(axis=0, keepdims=True)
        low, high = (float(end) for end in limits(seeds, paired_item_variance(gaps, clusters, weights)))
        found[metric] = {"difference": centre, "low": finite(low), "high": finite(high), "seeds": len(means)}
    return found


Differences = dict[str, tuple["numpy.ndarray", list[str] | None, "numpy.ndarray"]]


def _differences(pairs: Sequence[tuple[Path, Path]], name: str, read: Any) -> Differences:
    return _differences_of([(read(treatment / name), read(control / name)) for treatment, control in pairs])


def _differences_of(seeds: Sequence[tuple[Any, Any]]) -> Differences:
    """{metric: ((seeds, items) treatment minus control, the items' clusters if they have any, their
    weights)}, of the pairs that have the metric; items that some model of these lacks are left out.
    """
    import numpy

    found: Differences = {}
    for metric in dict.fromkeys(metric for treatment, _ in seeds for metric in treatment):
        whole = [pair for pair in seeds if all(metric in side for side in pair)]
        tables = [side[metric] for pair in whole for side in pair]
        if not whole:
            continue
        shared = sorted(set.intersection(*map(set, tables)))
        if shared:
            sides = zip(tables[::2], tables[1::2], strict=True)
            rows = [[one[key][0] - other[key][0] for key in shared] for one, other in sides]
            weights = numpy.array([tables[0][key][1] for key in shared], dtype=float)
            clusters = [tables[0][key][2] for key in shared]
            found[metric] = numpy.array(rows, dtype=float), None if None in clusters else clusters, weights
    return found


def _items(
    path: Path, tasks: bool = True
) -> dict[str, dict[tuple[str, int], tuple[float, float, str | None]]]:
    """{metric: {(task, index): (value, weight 1, cluster)}} under the names of the evaluation's summary."""
    import polars

    rows = parquet.read(path).filter(polars.col("finite"))
    found: dict[str, dict[tuple[str, int], tuple[float, float, str | None]]] = {}
    for row in rows.iter_rows(named=True):
        key = (row["task"], row["doc_id"])
        suffix = "" if row["filter"] == "none" else f",{row['filter']}"
        for metric, value in json.loads(row["metrics"]).items() if tasks else ():
            names = [f"{name}/{metric}{suffix}" for name in dict.fromkeys((row["entry"], row["task"]))]
            if row.get("cluster") is not None:  # a minimal pair: shown over all, and by phenomenon
                names = [names[0], f"{row['entry']}_{metric}/{row['phenomenon']}"]
            for name in names:
                found.setdefault(name, {})[key] = (value, 1.0, row.get("cluster"))
        for column in (measure.GOLD, measure.PROBABILITY):
            if row.get(column) is not None:
                found.setdefault(f"{column}/{row['entry']}", {})[key] = (row[column], 1.0, row.get("cluster"))
    return found


def _texts(path: Path) -> dict[str, dict[tuple[str, str], tuple[float, float, str | None]]]:
    """{metric: {(source, index): (bits, bytes, no cluster)}}."""
    import polars

    found: dict[str, dict[tuple[str, str], tuple[float, float, str | None]]] = {}
    for row in parquet.read(path).filter(polars.col("bits").is_finite()).iter_rows(named=True):
        group = measure.HELD_OUT if row["kind"] == "heldout" else measure.TEXT
        found.setdefault(f"{group}/{row['source']}", {})[row["source"], row["doc_id"]] = (
            row["bits"],
            row["n_bytes"],
            None,
        )
    return found


def of_endpoint(found: dict[str, float]) -> dict[str, float]:
    """Variance of the primary endpoint: the mean of two means of independent parts
    (``repro.evaluate.summary.endpoint``).
    """
    kinds = [
        [v for m, v in found.items() if measure.of(m).group == group]
        for group in (measure.TEXT, measure.GOLD)
    ]
    means = [mean(kind) / len(kind) for kind in kinds if kind]
    return {measure.ENDPOINT: mean(means) / len(means)} if means else {}
