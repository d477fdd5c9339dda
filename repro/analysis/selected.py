"""What was selected (the paper's section 6): each selection described, and any two compared, per domain.

``describe`` looks at one selection and the ranking behind it, ``judge`` asks a model about a sample of it, ``compare`` sets
two descriptions side by side. What the 10, 20 and 50 % of table 4 and the bands of table 11 are shares of is open in the
paper. Here they are shares of the ranked documents, because the printed overlaps rise towards 1 as they must then; the
other reading of table 4, shares of each selection's vocabulary, is kept beside it.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import combinations
from typing import TYPE_CHECKING, Any

from repro import parquet
from repro.config import Analysis, Judge, Select, Settings, require
from repro.store import Context, Stage

if TYPE_CHECKING:
    import polars

BANDS = {"0-1 %": (0.0, 0.01), "1-10 %": (0.01, 0.1), "10-50 %": (0.1, 0.5), "50-100 %": (0.5, 1.0)}  # table 11
WORDS_OF_A_BAND, WORDS_OF_A_DOCUMENT = 20, 12
QUANTITIES = {"length": "n_tokens_doc", "base_loss": "loss_base", "compressibility": "compressibility",
              "repetition": "repetition"}  # fmt: skip
BINS = 24


def stages(settings: Settings, selections: dict[str, Stage]) -> tuple[dict[str, dict[str, Stage]], dict[str, Stage]]:
    """Per arm "describe" and, with a judge, "judge"; and the comparisons by name, of ``exp.contrasts`` or of every two arms."""
    arms: dict[str, dict[str, Stage]] = {}
    seed = settings.exp.seeds[0]
    for name, selection in selections.items():
        select = settings.exp.arms[name].select
        arms[name] = {"describe": describe_stage(settings.analysis, select, seed, selection)}
        if settings.judge.url:
            arms[name]["judge"] = judge_stage(settings.judge, settings.analysis.seed, selection)
    wanted = [(c.treatment, c.control) for c in settings.exp.contrasts] or list(combinations(arms, 2))
    require(bool(wanted), f"exp={settings.exp.name} compares selections: it needs two arms")
    described = {name: of["describe"] for name, of in arms.items()}
    pairs = {f"{a} | {b}": compare_stage(settings.analysis, described[a], described[b]) for a, b in wanted}
    return arms, pairs


def describe_stage(s: Analysis, select: Select, seed: int, selection: Stage) -> Stage:
    """``profile.json``, ``ranking.parquet``, ``words.parquet`` and ``sample.parquet`` (embedded documents) of one selection."""
    from repro.analysis import embeddings
    from repro.selection import selectors

    params = {key: value for key, value in select.params.items() if key != "match"}
    seed = seed if getattr(selectors.load(select.selector), "SEEDED", False) else 0
    settings = {key: value for key, value in asdict(s).items() if key not in ("clusters", "embedder", "revision")}
    settings |= {
        "selector": select.selector,
        "params": selectors.identity(select.selector, params),
        "selector_seed": seed,
        "embedder": None if s.embedder == "none" else embeddings.identity(s.embedder, s.revision),
    }
    inputs = {"selection": selection, **{name: stage for name, stage in selection.inputs.items() if name != "reference"}}
    return Stage("describe", selection.label, settings, lambda ctx: _describe(ctx, s, select.selector, params, seed), inputs)


def judge_stage(s: Judge, seed: int, selection: Stage) -> Stage:
    """``judged.json``: shares judged educational and reasoning-intensive by domain; ``answers.parquet``."""
    from repro.analysis import judge

    settings = {key: getattr(s, key) for key in ("url", "model", "documents", "characters", "answer_tokens", "attempt")}
    settings |= {"questions": judge.QUESTIONS, "system": judge.SYSTEM, "seed": seed}
    inputs = {"selection": selection, **{name: selection.inputs[name] for name in ("corpus", "scores")}}
    return Stage("judge", selection.label, settings, lambda ctx: _judge(ctx, s, seed), inputs)


def compare_stage(s: Analysis, left: Stage, right: Stage) -> Stage:
    """``pair.json``: shared documents and words, clusters and a map of the two selections, per domain."""
    settings = {"clusters": s.clusters, "top_words": s.top_words, "seed": s.seed}
    label = f"{left.label}-{right.label}"
    return Stage("analyse", label, settings, lambda ctx: _compare(ctx, s), {"left": left, "right": right})


def _describe(context: Context, s: Analysis, selector: str, params: dict[str, Any], seed: int) -> None:
    import polars

    from repro.analysis import words
    from repro.store import write_json

    ranking = _ranking(context, selector, params, seed)
    ranking.write_parquet(context.out / "ranking.parquet")
    counts, counted = _count_words(context, s, ranking)
    profile: dict[str, Any] = {}
    vocabulary: dict[str, polars.DataFrame] = {}
    for (domain,), part in ranking.group_by("domain", maintain_order=True):
        of_domain = words.total([counts.filter(polars.col("domain") == domain)], [])
        vocabulary[str(domain)] = of_domain
        banded = _bands(counts.filter(polars.col("domain") == domain), of_domain, counted[str(domain)])
        profile[str(domain)] = {**_distributions(part), "counted_documents": counted[str(domain)], "words": banded}
    counts.write_parquet(context.out / "words.parquet")
    sample = _sample(context, s.documents, s.seed, ranking)
    named = _named(sample, vocabulary, counted)
    if s.embedder != "none":
        from repro.analysis import embeddings

        encode = embeddings.load(s.embedder, s.revision, context.device)
        vectors = encode(sample["text"].to_list(), s.embed_tokens)
        named = named.with_columns(vector=polars.Series(vectors.tolist(), dtype=polars.List(polars.Float32)))
    named.write_parquet(context.out / "sample.parquet")
    write_json(context.out / "profile.json", profile)
    context.facts |= {"selected": int(ranking["selected"].sum()), "words": int(counts["tf"].sum()), "sampled": len(named)}


def _ranking(context: Context, selector: str, params: dict[str, Any], seed: int) -> polars.DataFrame:
    """Every training document: doc_id, domain, priority, place (1 = first, null where unranked), selected, the quantities."""

    import polars

    from repro.selection import priority, rank

    query = f"SELECT doc_id, {', '.join(QUANTITIES.values())}, {rank.TAIL} AS tie FROM scores"
    found, measured = priority.of_documents(context, selector, params, seed, query)
    chosen = _selected(context)
    ranking = found.join(measured, on="doc_id").join(chosen, on="doc_id", how="left")
    ranking = ranking.with_columns(polars.col("selected").fill_null(False))
    ranking = ranking.sort(["domain", "priority", "tie"], descending=[False, True, False], nulls_last=True)
    place = polars.when(polars.col("priority").is_not_null()).then(polars.int_range(1, polars.len() + 1).over("domain"))
    return ranking.with_columns(place=place).drop("tie")


def _drawn(documents: polars.DataFrame, number: int, seed: int) -> polars.DataFrame:
    """At most ``number`` documents a domain, those of smallest hash(seed, id): samples overlap as the selections do."""
    import hashlib

    import polars

    keys = [
        hashlib.blake2b(f"{seed}\0{ident}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for ident in documents["doc_id"]
    ]
    keyed = documents.with_columns(draw=polars.Series(keys, dtype=polars.Binary)).sort("domain", "draw")
    return keyed.group_by("domain", maintain_order=True).head(number).drop("draw")


def _selected(context: Context) -> polars.DataFrame:
    """doc_id, selected. Of the full corpus plus a selection, what is read more often than the rest."""
    import polars

    found = parquet.read(context.inputs["selection"] / "selection.parquet", columns=["doc_id", "repeats"])
    least = found["repeats"].min() if len(found) and found["repeats"].n_unique() > 1 else 0
    return found.select("doc_id", selected=polars.col("repeats") > (least or 0))


def _count_words(context: Context, s: Analysis, ranking: polars.DataFrame) -> tuple[polars.DataFrame, dict[str, int]]:
    """Word counts by domain, band of the ranking (index of ``words.EDGES``; null = unranked) and selected; documents counted.

    Bands are of the drawn documents, in the order of the ranking.
    """
    import polars

    from repro.analysis import words
    from repro.corpus.documents import shards

    drawn = _drawn(ranking, s.word_documents, s.seed)
    ranked = polars.col("place").is_not_null()
    n = ranked.sum().over("domain")
    order = polars.when(ranked).then(polars.col("place").rank("ordinal").over("domain"))
    band = polars.lit(None, dtype=polars.Int8)
    for index, edge in reversed(list(enumerate(words.EDGES))):
        last = polars.max_horizontal((edge * n).round(), polars.lit(1))
        band = polars.when(order <= last).then(polars.lit(index, dtype=polars.Int8)).otherwise(band)
    drawn = drawn.with_columns(band=band).select("doc_id", "domain", "band", "selected")
    by = ["domain", "band", "selected"]
    counts = []
    for path in shards(context.inputs["corpus"]):
        texts = parquet.read(path, columns=["doc_id", "text"]).join(drawn, on="doc_id", how="inner")
        if len(texts):
            counts.append(words.count(texts, by))
    counted = dict(drawn.group_by("domain").len().sort("domain").iter_rows())
    return words.total(counts, by), {str(k): int(v) for k, v in counted.items()}


def _bands(counts: polars.DataFrame, of_domain: polars.DataFrame, documents: int) -> dict[str, list[str]]:
    """Table 11: words of each band of the ranking."""
    import polars

    from repro.analysis import words

    named = {}
    for name, (low, high) in BANDS.items():
        inside = [i for i, edge in enumerate(words.EDGES) if low < edge <= high]
        part = words.total([counts.filter(polars.col("band").is_in(inside))], [])
        named[name] = words.naming(words.weigh(part, of_domain, documents), documents, WORDS_OF_A_BAND)
    return named


def _distributions(part: polars.DataFrame) -> dict[str, Any]:
    """One domain: sizes, quantiles and histograms of the quantities among the selected and among all, and Spearman's
    correlations of the priority with each."""
    import numpy
    import polars
    from scipy.stats import spearmanr

    from repro.store import finite

    chosen = part.filter("selected")
    found: dict[str, Any] = {
        "documents": len(part), "selected": len(chosen), "ranked": part["priority"].len() - part["priority"].null_count(),
        "tokens": int(part["n_tokens_doc"].sum()), "selected_tokens": int(chosen["n_tokens_doc"].sum()),
        "mean_tokens": _mean(part["n_tokens_doc"]), "selected_mean_tokens": _mean(chosen["n_tokens_doc"]),
        "quantities": {}, "spearman": {},
    }  # fmt: skip
    for name, column in QUANTITIES.items():
        pair = part.filter(polars.col(column).is_finite() & polars.col("priority").is_not_null())
        if len(pair) > 2 and pair[column].n_unique() > 1 and pair["priority"].n_unique() > 1:
            found["spearman"][name] = finite(float(spearmanr(pair["priority"], pair[column]).statistic))
        everything = part.filter(polars.col(column).is_finite())[column].cast(polars.Float64).to_numpy()
        taken = chosen.filter(polars.col(column).is_finite())[column].cast(polars.Float64).to_numpy()
        if not len(everything) or not len(taken):
            continue
        low, high = numpy.quantile(everything, [0.005, 0.995])
        edges = numpy.linspace(low, high if high > low else low + 1e-6, BINS + 1)
        if name == "length" and low > 0:
            edges = numpy.geomspace(low, max(high, low * 1.01), BINS + 1)
        found["quantities"][name] = {
            "edges": [float(f"{e:.6g}") for e in edges],
            **{
                kind: {
                    "quantiles": {str(q): float(numpy.quantile(values, q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)},
                    "counts": numpy.histogram(numpy.clip(values, edges[0], edges[-1]), edges)[0].tolist(),
                }
                for kind, values in (("all", everything), ("selected", taken))
            },
        }
    return found


def _mean(column: polars.Series) -> float | None:
    return float(column.mean()) if len(column) - column.null_count() else None  # type: ignore[arg-type]


def _sample(context: Context, number: int, seed: int, documents: polars.DataFrame) -> polars.DataFrame:
    """doc_id, domain, n_tokens_doc, text of at most ``number`` selected documents a domain."""
    import polars

    from repro.corpus.documents import shards

    wanted = _drawn(documents.filter("selected").select("doc_id", "domain", "n_tokens_doc"), number, seed)
    texts = [parquet.read(p, columns=["doc_id", "text"]).join(wanted, on="doc_id", how="inner")
             for p in shards(context.inputs["corpus"])]  # fmt: skip
    return polars.concat(texts).sort("domain", "doc_id")


def _named(sample: polars.DataFrame, vocabulary: dict[str, polars.DataFrame], counted: dict[str, int]) -> polars.DataFrame:
    """doc_id, domain, words: what each sampled document is named by."""
    import polars

    from repro.analysis import words

    rows = []
    for domain, text in sample.select("domain", "text").iter_rows():
        counts = words.count(polars.DataFrame({"text": [text]}), [])
        weights = words.weigh(counts, vocabulary[domain], counted[domain])
        rows.append(words.naming(weights, counted[domain], WORDS_OF_A_DOCUMENT))
    return sample.select("doc_id", "domain").with_columns(words=polars.Series(rows, dtype=polars.List(polars.String)))


def _judge(context: Context, s: Judge, seed: int) -> None:
    import polars

    from repro import assets
    from repro.analysis import judge
    from repro.store import write_json

    scores = parquet.read(sorted((context.inputs["scores"] / "scores").glob("*.parquet")),
                                 columns=["doc_id", "domain", "n_tokens_doc"])  # fmt: skip
    sample = _sample(context, s.documents, seed, scores.join(_selected(context), on="doc_id"))
    outcome = judge.judge(sample["text"].to_list(), s, assets.cache() / "judge")
    answers = sample.drop("text").hstack(
        polars.DataFrame(outcome.answers, schema=dict.fromkeys(judge.QUESTIONS, polars.Boolean))
    )
    answers.write_parquet(context.out / "answers.parquet")
    domains = {}
    for (domain,), part in answers.group_by("domain", maintain_order=True):
        domains[str(domain)] = {
            "documents": len(part), "mean_tokens": _mean(part["n_tokens_doc"]),
            **{q: {"answered": len(part) - part[q].null_count(), "yes": int(part[q].sum())} for q in judge.QUESTIONS},
        }  # fmt: skip
    report = outcome.report(s)
    write_json(context.out / "judged.json", {"domains": domains, **report})
    context.facts |= {**{k: v for k, v in report.items() if k != "failures"}, "unanswered": outcome.failures.total()}
    if outcome.failures:
        _warn(outcome.failures, s)


def _warn(failures: dict[str, int], s: Judge) -> None:
    import sys

    told = ", ".join(f"{n} x {reason}" for reason, n in sorted(failures.items()))
    print(
        f"warning: the judge {s.model} left questions open: {told}; judge.attempt={s.attempt + 1} asks again", file=sys.stderr
    )


def _compare(context: Context, s: Analysis) -> None:
    import polars

    from repro.analysis import pairs
    from repro.store import read_json, write_json

    left, right = context.inputs["left"], context.inputs["right"]
    ranks = [parquet.read(p / "ranking.parquet", columns=["doc_id", "domain", "priority", "selected", "n_tokens_doc"])
             for p in (left, right)]  # fmt: skip
    counts = [parquet.read(p / "words.parquet") for p in (left, right)]
    samples = [parquet.read(p / "sample.parquet") for p in (left, right)]
    profile = read_json(left / "profile.json")
    pair = {}
    for domain, row in profile.items():
        here = [[frame.filter(polars.col("domain") == domain) for frame in frames] for frames in (ranks, counts, samples)]
        pair[domain] = {
            "documents": pairs.shared_documents(*here[0]),
            **pairs.shared_words(*here[1], s.top_words, row["counted_documents"]),
            **pairs.shared_topics(*here[2], s),
        }
    write_json(context.out / "pair.json", pair)
    context.facts |= {"domains": len(pair)}
