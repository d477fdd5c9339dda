"""Two selections of one domain side by side: documents, words (table 4, figure 18), topics and a map (figures
4 to 6).
"""

from __future__ import annotations

import numpy
import polars

from repro.experiments.analyse import embeddings, words
from repro.experiments.analyse.sample import spearman
from repro.plain import Json
from repro.settings.analysis import Analysis
from repro.store import Context, finite, parquet, read_json, write_json

SHARES = (0.1, 0.2, 0.5)  # table 4
WORDS_OF_A_CLOUD = 60
POINTS = 150  # of each selection on a map


def compare(context: Context, s: Analysis) -> None:
    """Run the stage "analyse"."""
    left, right = context.inputs["left"], context.inputs["right"]
    ranks = [parquet.read(p / "ranking.parquet", columns=["doc_id", "domain", "priority", "selected",
    "n_tokens_doc"])
             for p in (left, right)]  # fmt: skip
    counts = [parquet.read(p / "words.parquet") for p in (left, right)]
    samples = [parquet.read(p / "sample.parquet") for p in (left, right)]
    profile = read_json(left / "profile.json")
    pair = {}
    for domain, row in profile.items():
        here = [
            [frame.filter(polars.col("domain") == domain) for frame in frames]
            for frames in (ranks, counts, samples)
        ]
        (left_ranks, right_ranks), (left_counts, right_counts), (left_sample, right_sample) = here
        pair[domain] = {
            "documents": shared_documents(left_ranks, right_ranks),
            **shared_words(left_counts, right_counts, s.top_words, row["counted_documents"]),
            **shared_topics(left_sample, right_sample, s),
        }
    write_json(context.out / "pair.json", pair)
    context.facts |= {"domains": len(pair)}


def shared_documents(left: polars.DataFrame, right: polars.DataFrame) -> Json:
    """Documents of each and of both, by number and tokens; Spearman's correlation of the two rankings."""
    both = left.join(right, on="doc_id", suffix="_right")
    ranked = both.filter(polars.col("priority").is_not_null() & polars.col("priority_right").is_not_null())
    found: Json = {}
    for name, kept in (
        ("left", polars.col("selected")),
        ("right", polars.col("selected_right")),
        ("both", polars.col("selected") & polars.col("selected_right")),
    ):
        part = both.filter(kept)
        found[name], found[f"{name}_tokens"] = len(part), int(part["n_tokens_doc"].sum())
    union = found["left"] + found["right"] - found["both"]
    found["jaccard"] = found["both"] / union if union else None
    varied = len(ranked) > 2 and ranked["priority"].n_unique() > 1 and ranked["priority_right"].n_unique() > 1
    found["spearman"] = finite(spearman(ranked["priority"], ranked["priority_right"])) if varied else None
    return found


def shared_words(left: polars.DataFrame, right: polars.DataFrame, frequent: int, documents: int) -> Json:
    """Table 4 in both readings, and the two clouds of figure 18."""
    of_domain = words.total([left], [])

    def weighed(frame: polars.DataFrame) -> polars.DataFrame:
        return words.weigh(words.total([frame], []), of_domain, documents)

    by_documents, by_words = {}, {}
    chosen = [weighed(frame.filter("selected")) for frame in (left, right)]
    for share in SHARES:
        inside = [i for i, edge in enumerate(words.EDGES) if edge <= share]
        ranked = [weighed(frame.filter(polars.col("band").is_in(inside))) for frame in (left, right)]
        by_documents[str(share)] = {
            w: words.overlap(*(words.top(r, w, frequent) for r in ranked)) for w in ("tf", "tfidf")
        }
        by_words[str(share)] = {w: words.overlap(*(words.top(c, w, max(1, round(share * len(c)))) for c
        in chosen))
                                for w in ("tf", "tfidf")}  # fmt: skip
    clouds = words.clouds(chosen[0], chosen[1], frequent, WORDS_OF_A_CLOUD)
    overlap = {"documents": by_documents, "words": by_words}
    return {"overlap": overlap, "clouds": {"left": clouds[0], "right": clouds[1]}}


def shared_topics(left: polars.DataFrame, right: polars.DataFrame, s: Analysis) -> Json:
    """Figures 4 to 6: clusters of both samples together, and where the documents lie on two principal
    components.
    """
    if "vector" not in left.columns or not len(left) or not len(right):
        return {}
    union = polars.concat([left, right]).unique("doc_id", keep="first").sort("doc_id")
    vectors = numpy.array(union["vector"].to_list(), numpy.float32)
    members = [union["doc_id"].is_in(side["doc_id"].implode()).to_numpy() for side in (left, right)]
    labels = embeddings.clusters(vectors, s.clusters, s.seed)
    points, explained = embeddings.plane(vectors)
    shown = {}
    for name, mask in (
        ("left", members[0] & ~members[1]),
        ("right", members[1] & ~members[0]),
        ("both", members[0] & members[1]),
    ):
        shown[name] = [
            [round(float(x), 3), round(float(y), 3)] for x, y in points[numpy.flatnonzero(mask)[:POINTS]]
        ]
    return {
        "topics": embeddings.balance(labels, members[0], members[1], union["words"].to_list()),
        "map": {"points": shown, "explained": [round(e, 4) for e in explained]},
    }
