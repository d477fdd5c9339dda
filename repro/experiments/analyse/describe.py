"""One selection and the ranking behind it: sizes, distributions, words and an embedded sample, per domain.

What the 10, 20 and 50 % of table 4 and the bands of table 11 are shares of is open in the paper. Here they
are shares of the ranked documents, because the printed overlaps rise towards 1 as they must then; the other
reading of table 4, shares of each selection's vocabulary, is kept beside it.
"""

from __future__ import annotations

import numpy
import polars

from repro.corpus.documents import shards
from repro.experiments.analyse import embeddings, words
from repro.experiments.analyse.sample import drawn, mean, sample, selected, spearman
from repro.plain import Json
from repro.selection import priority, rank
from repro.settings.analysis import Analysis
from repro.store import Context, finite, parquet, write_json

# table 11
BANDS = {"0-1 %": (0.0, 0.01), "1-10 %": (0.01, 0.1), "10-50 %": (0.1, 0.5), "50-100 %": (0.5, 1.0)}
WORDS_OF_A_BAND, WORDS_OF_A_DOCUMENT = 20, 12
QUANTITIES = {"length": "n_tokens_doc", "base_loss": "loss_base", "compressibility": "compressibility",
              "repetition": "repetition"}  # fmt: skip
BINS = 24


def describe(context: Context, s: Analysis, selector: str, params: Json, seed: int) -> None:
    """Run the stage "describe"."""
    ranking = _ranking(context, selector, params, seed)
    ranking.write_parquet(context.out / "ranking.parquet")
    counts, counted = _count_words(context, s, ranking)
    profile: Json = {}
    vocabulary: dict[str, polars.DataFrame] = {}
    for (domain,), part in ranking.group_by("domain", maintain_order=True):
        of_domain = words.total([counts.filter(polars.col("domain") == domain)], [])
        vocabulary[str(domain)] = of_domain
        banded = _bands(counts.filter(polars.col("domain") == domain), of_domain, counted[str(domain)])
        profile[str(domain)] = {
            **_distributions(part),
            "counted_documents": counted[str(domain)],
            "words": banded,
        }
    counts.write_parquet(context.out / "words.parquet")
    documents = sample(context, s.documents, s.seed, ranking)
    named = _named(documents, vocabulary, counted)
    if s.embedder != "none":
        encode = embeddings.load(s.embedder, s.revision, context.device)
        vectors = encode(documents["text"].to_list(), s.embed_tokens)
        named = named.with_columns(vector=polars.Series(vectors.tolist(), dtype=polars.List(polars.Float32)))
    named.write_parquet(context.out / "sample.parquet")
    write_json(context.out / "profile.json", profile)
    context.facts |= {
        "selected": int(ranking["selected"].sum()),
        "words": int(counts["tf"].sum()),
        "sampled": len(named),
    }


def _ranking(context: Context, selector: str, params: Json, seed: int) -> polars.DataFrame:
    """Every training document: doc_id, domain, priority, place (1 = first, null where unranked), selected,
    the quantities.
    """
    query = f"SELECT doc_id, {', '.join(QUANTITIES.values())}, {rank.TAIL} AS tie FROM scores"
    found, measured = priority.of_documents(context, selector, params, seed, query)
    chosen = selected(context)
    ranking = found.join(measured, on="doc_id").join(chosen, on="doc_id", how="left")
    ranking = ranking.with_columns(polars.col("selected").fill_null(False))
    ranking = ranking.sort(["domain", "priority", "tie"], descending=[False, True, False], nulls_last=True)
    place = polars.when(polars.col("priority").is_not_null()).then(
        polars.int_range(1, polars.len() + 1).over("domain")
    )
    return ranking.with_columns(place=place).drop("tie")


def _count_words(
    context: Context, s: Analysis, ranking: polars.DataFrame
) -> tuple[polars.DataFrame, dict[str, int]]:
    """Word counts by domain, band of the ranking (index of ``words.EDGES``; null = unranked) and selected;
    documents counted.

    Bands are of the drawn documents, in the order of the ranking.
    """
    taken = drawn(ranking, s.word_documents, s.seed)
    ranked = polars.col("place").is_not_null()
    n = ranked.sum().over("domain")
    order = polars.when(ranked).then(polars.col("place").rank("ordinal").over("domain"))
    band = polars.lit(None, dtype=polars.Int8)
    for index, edge in reversed(list(enumerate(words.EDGES))):
        last = polars.max_horizontal((edge * n).round(), polars.lit(1))
        band = polars.when(order <= last).then(polars.lit(index, dtype=polars.Int8)).otherwise(band)
    taken = taken.with_columns(band=band).select("doc_id", "domain", "band", "selected")
    by = ["domain", "band", "selected"]
    counts = []
    for path in shards(context.inputs["corpus"]):
        texts = parquet.read(path, columns=["doc_id", "text"]).join(taken, on="doc_id", how="inner")
        if len(texts):
            counts.append(words.count(texts, by))
    counted = dict(taken.group_by("domain").len().sort("domain").iter_rows())
    return words.total(counts, by), {str(k): int(v) for k, v in counted.items()}


def _bands(counts: polars.DataFrame, of_domain: polars.DataFrame, documents: int) -> dict[str, list[str]]:
    """Table 11: words of each band of the ranking."""
    named = {}
    for name, (low, high) in BANDS.items():
        inside = [i for i, edge in enumerate(words.EDGES) if low < edge <= high]
        part = words.total([counts.filter(polars.col("band").is_in(inside))], [])
        named[name] = words.naming(words.weigh(part, of_domain, documents), documents, WORDS_OF_A_BAND)
    return named


def _distributions(part: polars.DataFrame) -> Json:
    """One domain: sizes, quantiles and histograms of the quantities among the selected and among all, and
    Spearman's correlations of the priority with each.
    """
    chosen = part.filter("selected")
    found: Json = {
        "documents": len(part), "selected": len(chosen),
        "ranked": part["priority"].len() - part["priority"].null_count(),
        "tokens": int(part["n_tokens_doc"].sum()), "selected_tokens": int(chosen["n_tokens_doc"].sum()),
        "mean_tokens": mean(part["n_tokens_doc"]), "selected_mean_tokens": mean(chosen["n_tokens_doc"]),
        "quantities": {}, "spearman": {},
    }  # fmt: skip
    for name, column in QUANTITIES.items():
        pair = part.filter(polars.col(column).is_finite() & polars.col("priority").is_not_null())
        if len(pair) > 2 and pair[column].n_unique() > 1 and pair["priority"].n_unique() > 1:
            found["spearman"][name] = finite(spearman(pair["priority"], pair[column]))
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
                    "quantiles": {
                        str(q): float(numpy.quantile(values, q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)
                    },
                    "counts": numpy.histogram(numpy.clip(values, edges[0], edges[-1]), edges)[0].tolist(),
                }
                for kind, values in (("all", everything), ("selected", taken))
            },
        }
    return found


def _named(
    documents: polars.DataFrame, vocabulary: dict[str, polars.DataFrame], counted: dict[str, int]
) -> polars.DataFrame:
    """doc_id, domain, words: what each sampled document is named by."""
    rows = []
    for domain, text in documents.select("domain", "text").iter_rows():
        counts = words.count(polars.DataFrame({"text": [text]}), [])
        weights = words.weigh(counts, vocabulary[domain], counted[domain])
        rows.append(words.naming(weights, counted[domain], WORDS_OF_A_DOCUMENT))
    return documents.select("doc_id", "domain").with_columns(
        words=polars.Series(rows, dtype=polars.List(polars.String))
    )
