"""From a run's artifacts to its folder: ``summary.json`` first, then everything that is drawn from it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro import kinds, places
from repro.outcomes import again as recorded
from repro.outcomes import during, measure
from repro.outcomes.collect import collect
from repro.outcomes.items import item_variances
from repro.outcomes.outcome import Outcome
from repro.outcomes.registration import concluded
from repro.outcomes.samples import samples
from repro.settings.experiment import Contrast
from repro.settings.root import Settings
from repro.store import Store, atomic, read_json, write_json

if TYPE_CHECKING:
    from repro.outcomes.compare import Limits, Variances
    from repro.outcomes.during import Kept


def build(run_dir: Path, settings: Settings, store: Store, stages: Mapping[str, Any]) -> Outcome:
    """Collect, compare, judge, seal; then tables, figures, the page and, for a scoring run, the kept
    documents.

    ``stages``: "corpus", "proxy", "heads", "score", "items", "tokens" and ``arms[arm][seed]`` with
    "selection", "pretrain" and "evaluate"; any may be absent. Returns the sealed summary.
    """
    from repro.outcomes import documents, registration, summary

    found = collect(settings, store, stages)
    contrasts = settings.exp.contrasts
    evaluations = {(c.treatment, c.control): _evaluations(store, stages, found, c) for c in contrasts}
    variances = {sides: item_variances(pairs) for sides, pairs in evaluations.items()}
    found["registration"] = registration.record(settings)
    kept = _kept_variances(found, evaluations)
    collected = judged(found, contrasts, variances, registration.limits(settings), kept)
    if "corpus" in stages and store.whole(stages["corpus"]):
        _leave_samples(run_dir, settings, store, stages)
    if "score" in stages and "corpus" in stages:
        if store.whole(stages["corpus"]):  # a pack carries no text
            shown = documents.examples(store.path(stages["corpus"]), store.path(stages["score"]))
            write_json(run_dir / "examples.json", shown)
        if leave := getattr(kinds.load(settings.exp.kind, "view"), "leave", None):
            leave(run_dir, store, stages)
    sealed = summary.write(run_dir / "summary.json", collected)
    draw(run_dir, sealed)
    return sealed


def _leave_samples(run_dir: Path, settings: Settings, store: Store, stages: Mapping[str, Any]) -> None:
    """``samples.json``: what each arm keeps and drops with its first seed; arms with one selection have the
    same.
    """
    from repro.selection.outcome import added

    arms = {
        arm: (store.path(named["selection"]), added(settings.exp.arms[arm].mixture))
        for arm, by_seed in stages.get("arms", {}).items()
        for named in list(by_seed.values())[:1]
        if "selection" in named
    }
    if arms:
        score = store.path(stages["score"]) if "score" in stages else None
        write_json(run_dir / "samples.json", samples(store.path(stages["corpus"]), score, arms))


def judged(
    collected: Outcome,
    contrasts: Sequence[Contrast],
    variances: Variances | None = None,
    limits: Limits | None = None,
    kept: Kept | None = None,
) -> Outcome:
    """:func:`repro.outcomes.verdict.judge`, the differences after the tokens of ``kept``, in the words of its
    kind what a run without a comparison describes, and which of the conclusions stated beforehand is drawn.
    """
    from repro.outcomes.verdict import judge

    found = judge(collected, contrasts, variances, limits)
    if rows := during.differences(collected, contrasts, kept or {}):
        found["during"] = rows
    if not found["verdict"]["sentence"]:
        found["verdict"]["sentence"] = kinds.load(found["kind"], "view").sentence(found)
    if "registration" in found:
        found["registration"] = {**found["registration"], "conclusion": concluded(found)}
    return found


def again(summary: Outcome) -> Outcome:
    """A finished summary judged once more by the rules of today, from the values, the items' variances and
    the pilot's noise that it records. What was measured stays as it is; intervals, corrections, words and
    what follows from them are new.
    """
    return judged(recorded.measured(summary), *recorded.given(summary), during.on_record(summary))


def _evaluations(
    store: Store, stages: Mapping[str, Any], collected: Outcome, contrast: Contrast
) -> list[tuple[Path, Path]]:
    """The evaluations, treatment's and control's, of the seeds that both arms have."""
    sides = (contrast.treatment, contrast.control)
    ours, theirs = (stages.get("arms", {}).get(arm, {}) for arm in sides)
    kept = [collected["arms"].get(arm, {}).get("seeds", {}) for arm in sides]
    shared = [
        s
        for s in ours
        if all(str(s) in side for side in kept) and "evaluate" in ours[s] and "evaluate" in theirs[s]
    ]
    return [(store.path(ours[s]["evaluate"]), store.path(theirs[s]["evaluate"])) for s in shared]


def _kept_variances(
    collected: Outcome, evaluations: Mapping[tuple[str, str], Sequence[tuple[Path, Path]]]
) -> Kept:
    """What the choice of items contributes to the differences of models that were kept on the way."""
    arms, endpoint = collected["arms"], measure.of(collected["endpoint"])
    found = {}
    for (treatment, control), pairs in evaluations.items():
        if {treatment, control} <= arms.keys():
            for tokens in during.kept(arms[treatment], arms[control]):
                there = [(a / "checkpoints" / str(tokens), b / "checkpoints" / str(tokens)) for a, b in pairs]
                found[treatment, control, tokens] = during.with_held_out(
                    item_variances(there, tasks=not endpoint.bits)
                )
    return found


def _only(folder: Path, names: set[str]) -> None:
    """Remove what an earlier report of the run showed and this one does not: a failure that was mended."""
    for path in folder.glob("*.*"):
        if path.stem.removesuffix("_dark") not in names and not path.name.startswith("."):
            path.unlink()


def draw(run_dir: Path, sealed: Outcome) -> None:
    """Tables, figures and page of a run folder, from ``summary.json`` and, where they are there, its
    examples.
    """
    from repro.report import page, sections, still

    tables, figures = sections.tables(sealed), sections.plots(sealed)
    for table in tables:
        table.write(run_dir / "tables")
    for plot in figures:
        still.write(plot, run_dir / "figures")
    _only(run_dir / "tables", {table.name for table in tables})
    _only(run_dir / "figures", {plot.name for plot in figures})
    with atomic(run_dir / "statistics.md") as temporary:  # what the page's words mean, wherever it is taken
        shutil.copyfile(places.docs() / "statistics.md", temporary)
    examples, sampled = run_dir / "examples.json", run_dir / "samples.json"
    config = run_dir / "config.yaml"
    html = page.render(
        sealed,
        sections.sections(sealed),
        run_dir / "figures",
        read_json(examples) if examples.is_file() else {},
        config.read_text() if config.is_file() else "",
        read_json(sampled) if sampled.is_file() else None,
    )
    with atomic(run_dir / "report.html") as temporary:
        temporary.write_text(html, encoding="utf-8")
