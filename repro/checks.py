"""What can be refused before it has cost anything: names that do not exist, domains too small to train on a share of."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from repro.config import Settings, one_of, require


def names(settings: Settings) -> None:
    """Look up the benchmarks that the last stages will ask for; raises :class:`SettingError` naming the nearest."""
    if settings.exp.kind in ("train", "mirror"):
        from repro.evaluate.tasks import check_names
        from repro.items import TEXT_COLUMNS

        check_names(settings.eval.tasks)
        for task in settings.eval.text_tasks:
            one_of("eval.text_tasks", task, tuple(sorted(TEXT_COLUMNS)))


def domains(settings: Settings, corpus: Path) -> None:
    """Refuse to score for models that cannot be trained: those whose share of a domain is less than one document.

    Raises :class:`SettingError`. Other kinds of experiments do without such a domain, and say so.
    """
    from repro.store import read_json

    if settings.exp.kind not in ("train", "evolve"):
        return
    counts = {domain: found["documents"] for domain, found in read_json(corpus / "counts.json")["domains"].items()}
    for name, arm in settings.exp.arms.items():
        budget = replace(settings.budget, **arm.budget | arm.select.budget)
        if arm.proxy and settings.exp.kind == "evolve" or arm.mixture.kind == "add" or "match" in arm.select.params:
            continue  # not trained, trained on all documents too, or given the size of another arm
        share = Fraction(repr(budget.share)) if budget.scope == "domain" else 1
        small = [domain for domain, documents in counts.items() if 0 < documents * share < 1]
        others = [domain for domain in counts if domain not in small]
        named = ", ".join(f"{domain!r} ({counts[domain]} documents)" for domain in small)
        require(
            not small,
            f"domain {named}: arm {name!r} selects {budget.share:.0%} of it, less than one document, and a model is not "
            "trained without a domain; "
            + (f"leave it out with corpus.domains=[{','.join(others)}], or " if others else "")
            + "bring more documents, or raise budget.share",
        )
