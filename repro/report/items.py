"""How much of a difference between two arms comes from which benchmark items and texts were asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from repro import parquet

if TYPE_CHECKING:
    import numpy


def item_variances(pairs: Sequence[tuple[Path, Path]]) -> dict[str, float]:
    """{metric: variance of the mean difference over items}, for ``repro.analysis.statistics.compare``.

    ``pairs`` are (treatment, control) folders of finished evaluations, one pair a seed. Items are matched by task and index,
    texts by source and index. A metric of a group of tasks is taken over all its items.
    """
    from repro.analysis.statistics import paired_item_variance

    found: dict[str, float] = {}
    for name, read in (("items.parquet", _items), ("texts.parquet", _texts)):
        if pairs and all((folder / name).is_file() for pair in pairs for folder in pair):
            for metric, differences in _differences(pairs, name, read).items():
                found[metric] = paired_item_variance(differences)
    return found | _endpoint(found)


def _differences(pairs: Sequence[tuple[Path, Path]], name: str, read: Any) -> dict[str, numpy.ndarray]:
    """{metric: (seeds, items) treatment minus control}; items that some model lacks are left out."""
    import numpy

    seeds = [(read(treatment / name), read(control / name)) for treatment, control in pairs]
    found = {}
    for metric in seeds[0][0]:
        tables = [side.get(metric, {}) for pair in seeds for side in pair]
        shared = sorted(set.intersection(*map(set, tables)))
        if shared:
            sides = zip(tables[::2], tables[1::2], strict=True)
            rows = [[one[key][0] - other[key][0] for key in shared] for one, other in sides]
            weights = numpy.array([tables[0][key][1] for key in shared], dtype=float)
            gaps = numpy.array(rows, dtype=float)
            # a ratio of sums (bits over bytes) as a mean over texts, linearised: each text's share of the error of the ratio
            ratio = gaps.sum(axis=1, keepdims=True) / weights.sum()
            found[metric] = (gaps - ratio * weights) / weights.mean() + ratio
    return found


def _items(path: Path) -> dict[str, dict[tuple[str, int], tuple[float, float]]]:
    """{metric: {(task, index): (value, weight 1)}} under the names of the evaluation's summary."""
    import polars

    rows = parquet.read(path).filter(polars.col("finite"))
    found: dict[str, dict[tuple[str, int], tuple[float, float]]] = {}
    for row in rows.iter_rows(named=True):
        key = (row["task"], row["doc_id"])
        suffix = "" if row["filter"] == "none" else f",{row['filter']}"
        for metric, value in json.loads(row["metrics"]).items():
            for name in dict.fromkeys((row["entry"], row["task"])):
                found.setdefault(f"{name}/{metric}{suffix}", {})[key] = (value, 1.0)
        for column, group in (("gold_bits_per_byte", "gold_bits_per_byte"), ("margin", "gold_margin")):
            if row[column] is not None:
                found.setdefault(f"{group}/{row['entry']}", {})[key] = (row[column], 1.0)
    return found


def _texts(path: Path) -> dict[str, dict[tuple[str, str], tuple[float, float]]]:
    """{metric: {(source, index): (bits, bytes)}}."""
    import polars

    found: dict[str, dict[tuple[str, str], tuple[float, float]]] = {}
    for row in parquet.read(path).filter(polars.col("bits").is_finite()).iter_rows(named=True):
        group = "heldout_bits_per_byte" if row["kind"] == "heldout" else "text_bits_per_byte"
        found.setdefault(f"{group}/{row['source']}", {})[row["source"], row["doc_id"]] = (row["bits"], row["n_bytes"])
    return found


def _endpoint(found: dict[str, float]) -> dict[str, float]:
    """Variance of the primary endpoint: the mean of two means of independent parts (``repro.evaluate.summary.endpoint``)."""
    kinds = [[v for m, v in found.items() if m.startswith(f"{kind}_bits_per_byte/")] for kind in ("text", "gold")]
    means = [mean(kind) / len(kind) for kind in kinds if kind]
    return {"bits_per_byte": mean(means) / len(means)} if means else {}
