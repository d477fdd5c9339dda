"""What a plan loses by ranking documents nobody scored: how far a distilled order is the order of the scores,
as it was measured elsewhere.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from repro import places
from repro.errors import SettingError
from repro.outcomes import summary
from repro.settings.root import Settings
from repro.store import Stage, canonical

if TYPE_CHECKING:
    from repro.analysis.ranks import Estimate
    from repro.experiments.agree.measure import Agreed

DISTILLED, RESULT = "distilled", "score_agreement_distilled"
PAIR = f"{DISTILLED} | attention_influence"
MEASURE = "repro run exp=score_agreement 'exp.only=[attention_influence,distilled]' measures it on a sample"


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
    domains: dict[str, Agreed] = {}
    with suppress(SettingError, KeyError):
        domains = summary.read(folder).get("agreement", {})[PAIR]
    ranked = _values({name: row["spearman"] for name, row in domains.items()})
    if not ranked:
        return [f"{said} The loss of fidelity was not measured: {MEASURE}"]
    share = min(
        set.intersection(*(set(domains[name]["overlap"]) for _, name in ranked)),
        key=lambda key: (abs(float(key) - settings.budget.share), key),
    )
    kept = _values({name: domains[name]["overlap"][share] for _, name in ranked})
    documents = sum(row["documents"] for row in domains.values())
    return [
        f"{said} Loss of fidelity in results/{RESULT} ({documents:,} documents of its own corpus):"
        f" rank correlation with the scores {_range(ranked, '.2f')}; of the best {float(share):.0%} it finds"
        f" {_range(kept, '.0%')}. Of this corpus it is not measured: {MEASURE}"
    ]


def _values(estimates: dict[str, Estimate | None]) -> list[tuple[float, str]]:
    """Lowest first, of the domains that have one."""
    found = ((estimate["value"], name) for name, estimate in estimates.items() if estimate is not None)
    return sorted((value, name) for value, name in found if value is not None)


def _range(values: list[tuple[float, str]], form: str) -> str:
    (low, worst), (high, best) = values[0], values[-1]
    return f"{low:{form}} ({worst}) to {high:{form}} ({best})"
