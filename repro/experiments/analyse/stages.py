"""Selections described one by one, judged by a model where there is one, and set side by side in pairs."""

from __future__ import annotations

from itertools import combinations

from repro.errors import require
from repro.experiments import Experiment, arms
from repro.schema import identity
from repro.selection import selectors
from repro.selection.settings import Select
from repro.settings.analysis import Analysis, Judge
from repro.settings.root import Settings
from repro.store import Context, Stage
from repro.store.cost import BYTES_PER_TOKEN, TOKENS_OF_DOCUMENT, WORDS_COUNTED, Cost, Known, of_rows

EMBEDDER = 22e6  # parameters of MiniLM, for plans


def stages(settings: Settings) -> Experiment:
    """``arms[name][seed]``: "selection", "describe" and, with a judge, "judge"; ``pairs``: the
    comparisons.
    """
    shared = arms.with_scores(settings)
    seed = settings.exp.seeds[0]
    selections = {name: arms.selected(settings, shared, name, seed) for name in settings.exp.arms}
    described, pairs = of_selections(settings, selections)
    found = {name: {seed: {"selection": selections[name], **described[name]}} for name in selections}
    return Experiment(shared, found, pairs)


def of_selections(
    settings: Settings, selections: dict[str, Stage]
) -> tuple[dict[str, dict[str, Stage]], dict[str, Stage]]:
    """Per arm "describe" and, with a judge, "judge"; and the comparisons by name, of ``exp.contrasts`` or of
    every two arms.
    """
    found: dict[str, dict[str, Stage]] = {}
    seed = settings.exp.seeds[0]
    for name, selection in selections.items():
        select = settings.exp.arms[name].select
        found[name] = {"describe": describe_stage(settings.analysis, select, seed, selection)}
        if settings.judge.url:
            found[name]["judge"] = judge_stage(settings.judge, settings.analysis.seed, selection)
    wanted = [(c.treatment, c.control) for c in settings.exp.contrasts] or list(combinations(found, 2))
    require(bool(wanted), f"exp={settings.exp.name} compares selections: it needs two arms")
    described = {name: of["describe"] for name, of in found.items()}
    pairs = {f"{a} | {b}": compare_stage(settings.analysis, described[a], described[b]) for a, b in wanted}
    return found, pairs


def describe_stage(s: Analysis, select: Select, seed: int, selection: Stage) -> Stage:
    """``profile.json``, ``ranking.parquet``, ``words.parquet`` and ``sample.parquet`` (embedded documents) of
    one selection.
    """
    from repro.experiments.analyse import embeddings

    params = select.params
    seed = seed if getattr(selectors.load(select.selector), "SEEDED", False) else 0
    settings = (
        identity(s)
        | identity(s, "describe")
        | {
            "selector": select.selector,
            "params": selectors.identity(select.selector, params),
            "selector_seed": seed,
            "embedder": None if s.embedder == "none" else embeddings.identity(s.embedder, s.revision),
        }
    )
    inputs = {
        "selection": selection,
        **{name: stage for name, stage in selection.inputs.items() if name != "reference"},
    }

    def run(context: Context) -> None:
        from repro.experiments.analyse.describe import describe

        describe(context, s, select.selector, params, seed)

    def cost(known: Known) -> Cost:
        corpus = known.inputs["corpus"]
        embedded = corpus.domains * s.documents * s.embed_tokens if s.embedder != "none" else 0
        counted = min(corpus.tokens, corpus.domains * s.word_documents * TOKENS_OF_DOCUMENT)
        return Cost(counted + embedded, 2 * EMBEDDER * embedded, 0, counted / WORDS_COUNTED, made=corpus)

    return Stage("describe", selection.label, settings, run, inputs, cost=cost)


def judge_stage(s: Judge, seed: int, selection: Stage) -> Stage:
    """``judged.json``: shares judged educational and reasoning-intensive by domain; ``answers.parquet``."""
    from repro.experiments.analyse import judge

    settings = identity(s) | {"questions": judge.QUESTIONS, "system": judge.SYSTEM, "seed": seed}
    inputs = {"selection": selection, **{name: selection.inputs[name] for name in ("corpus", "scores")}}

    def run(context: Context) -> None:
        from repro.experiments.analyse.judged import judged

        judged(context, s, seed)

    def cost(known: Known) -> Cost:
        asked = known.inputs["corpus"].domains * s.documents * len(judge.QUESTIONS)
        pace = s.requests_per_minute / 60 or s.workers  # an answer takes about a second
        return Cost(asked * (s.characters / BYTES_PER_TOKEN + s.answer_tokens), seconds=asked / pace)

    return Stage("judge", selection.label, settings, run, inputs, cost=cost)


def compare_stage(s: Analysis, left: Stage, right: Stage) -> Stage:
    """``pair.json``: shared documents and words, clusters and a map of the two selections, per domain."""
    settings = identity(s) | identity(s, "compare")
    label = f"{left.label}-{right.label}"

    def run(context: Context) -> None:
        from repro.experiments.analyse.pairs import compare

        compare(context, s)

    inputs = {"left": left, "right": right}
    return Stage("analyse", label, settings, run, inputs, cost=lambda known: of_rows(known.inputs["left"]))
