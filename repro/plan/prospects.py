"""Whether a verdict can be given, said before the trainings that it would rest on: a run of many hours must
not end as a demonstration because a domain is too small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.experiments.arms import budget_of
from repro.outcomes.verdict import DOCUMENTS, SOURCES
from repro.settings.root import Settings
from repro.store import read_json

if TYPE_CHECKING:
    from repro.experiments import Experiment
    from repro.store import Store


# Of a share of the tokens, a selection that ranks by scores may keep so many of the documents that a random
# one keeps: those of results/curve at 20 % keep 0.70 (perplexity) and 0.74 (AttentionInfluence) in law.
WHERE_LONG_ONES_LEAD = 0.7


def lines(settings: Settings, experiment: Experiment, store: Store) -> list[str]:
    """A line for what a verdict on the primary contrast would need and the corpus or its selections do not
    have (``repro.outcomes.verdict.shortfalls``), and what they may not have; empty where nothing is known to
    stand against one.
    """
    corpus = experiment.shared.get("corpus")
    primary = next((c for c in settings.exp.contrasts if c.primary), None)
    if primary is None or corpus is None or not store.has(corpus):
        return []
    counts = read_json(store.path(corpus) / "counts.json")["domains"]
    counts = {domain: found for domain, found in counts.items() if domain not in settings.budget.leave_out}
    said, perhaps = [], []
    if few := {d: c["groups"] for d, c in counts.items() if c["groups"] < SOURCES}:
        said.append(f"{_listed(few, 'sources')}; a verdict needs {SOURCES} in every domain")
    for arm in (primary.treatment, primary.control):
        kept, exact = _kept(settings, experiment, store, arm, {d: c["documents"] for d, c in counts.items()})
        if few := {d: n for d, n in kept.items() if n < DOCUMENTS}:
            about = "" if exact else "about "
            said.append(
                f"{arm} keeps {about}{_listed(few, 'documents')}; a verdict needs {DOCUMENTS} in every domain"
            )
        elif not exact and _by_length(settings, arm):
            few = {d: n for d, n in kept.items() if WHERE_LONG_ONES_LEAD * n < DOCUMENTS}
            perhaps += [
                f"{arm} keeps about {_listed(few, 'documents')}, and down to {WHERE_LONG_ONES_LEAD:.0%} of"
                f" that where long ones lead; a verdict needs {DOCUMENTS} in every domain"
            ] * bool(few)
    return [f"there will be no verdict: {text}" for text in said] + [
        f"there may be no verdict: {text}" for text in perhaps
    ]


def _by_length(settings: Settings, arm: str) -> bool:
    """Whether how many documents an arm keeps depends on which: of a share of tokens, by their length."""
    selector = settings.exp.arms[arm].select.selector
    return budget_of(settings, arm).unit == "tokens" and selector not in ("all", "random")


def _kept(
    settings: Settings, experiment: Experiment, store: Store, arm: str, documents: dict[str, int]
) -> tuple[dict[str, int], bool]:
    """({domain: the fewest documents that any seed keeps}, whether all selections were there to count): else
    the share of the documents, from which a share of the tokens differs a little. Empty where neither says.
    """
    by_seed = experiment.trained().get(arm, {})
    selections = [stages["selection"] for stages in by_seed.values() if "selection" in stages]
    if not selections:
        return {}, False
    if all(store.has(stage) for stage in selections):
        found = [read_json(store.path(stage) / "selection.json")["domains"] for stage in selections]
        return {
            d: min(of[d]["selected_documents"] for of in found if d in of) for d in documents if d in found[0]
        }, True
    budget, select = budget_of(settings, arm), settings.exp.arms[arm].select
    if select.match or budget.scope != "domain" or budget.frozen:
        return {}, False
    share = 1.0 if select.selector == "all" else budget.share
    return {domain: round(share * number) for domain, number in documents.items()}, False


def _listed(found: dict[str, int], what: str) -> str:
    """``190 documents in law, 198 in web``, fewest first."""
    parts = [f"{number} in {domain}" for domain, number in sorted(found.items(), key=lambda item: item[1])]
    return ", ".join(parts).replace(" in ", f" {what} in ", 1)
