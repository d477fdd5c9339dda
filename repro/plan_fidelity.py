"""What a plan loses by ranking documents nobody scored: how far a distilled order is the order of the scores,
as it was measured elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from repro import places
from repro.errors import SettingError
from repro.outcomes import summary
from repro.settings.root import Settings
from repro.store import Stage, canonical

DISTILLED, RESULT = "distilled", "score_agreement_distilled"
PAIR = f"{DISTILLED} | attention_influence"
MEASURE = "repro run exp=score_agreement 'exp.only=[attention_influence,distilled]' measures it on a sample"


class _Value(TypedDict):
    value: float


class _Domain(TypedDict):
    """Of the agreement of two orders, one domain."""

    documents: int
    spearman: _Value
    overlap: dict[str, _Value]  # by the share that is kept


def fidelity(settings: Settings, stages: list[Stage], results: Path | None = None) -> list[str]:
    """The line for arms that rank by a distilled score; none where none does. ``results`` is where committed
    results lie.
    """
    if not any(s.name == "selection" and f'"{DISTILLED}"' in canonical(s.settings) for s in stages):
        return []
    sample = settings.score.sample
    learned = f"{sample:.3g} of the documents are" if sample < 1 else "documents were"
    said = f"distilled: arms rank by what is learned where {learned} scored, and not by scores."
    folder = (results or places.home() / "results") / RESULT
    try:
        found = summary.read(folder)
        domains: dict[str, _Domain] = found.get("agreement", {})[PAIR]
    except (SettingError, KeyError):
        return [f"{said} The loss of fidelity was not measured: {MEASURE}"]
    share = min(
        set.intersection(*(set(row["overlap"]) for row in domains.values())),
        key=lambda key: (abs(float(key) - settings.budget.share), key),
    )
    ranked = sorted((row["spearman"]["value"], name) for name, row in domains.items())
    kept = sorted((row["overlap"][share]["value"], name) for name, row in domains.items())
    documents = sum(row["documents"] for row in domains.values())
    return [
        f"{said} Loss of fidelity in results/{RESULT} ({documents:,} documents of its own corpus):"
        f" rank correlation with the scores {_range(ranked, '.2f')}; of the best {float(share):.0%} it finds"
        f" {_range(kept, '.0%')}. Of this corpus it is not measured: {MEASURE}"
    ]


def _range(values: list[tuple[float, str]], form: str) -> str:
    (low, worst), (high, best) = values[0], values[-1]
    return f"{low:{form}} ({worst}) to {high:{form}} ({best})"
