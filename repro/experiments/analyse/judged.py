"""Stage "judge": what a model says of a sample of one selection."""

from __future__ import annotations

import sys

import polars

from repro.experiments.analyse import judge
from repro.experiments.analyse.sample import mean, sample, selected
from repro.settings.analysis import Judge
from repro.store import Context, cached, parquet, write_json


def judged(context: Context, s: Judge, seed: int) -> None:
    """Ask about the sampled documents; unanswered questions are counted and warned of."""
    scores = parquet.read(sorted((context.inputs["scores"] / "scores").glob("*.parquet")),
                                 columns=["doc_id", "domain", "n_tokens_doc"])  # fmt: skip
    documents = sample(context, s.documents, seed, scores.join(selected(context), on="doc_id"))
    outcome = judge.judge(documents["text"].to_list(), s, cached.cache() / "judge")
    answers = documents.drop("text").hstack(
        polars.DataFrame(outcome.answers, schema=dict.fromkeys(judge.QUESTIONS, polars.Boolean))
    )
    answers.write_parquet(context.out / "answers.parquet")
    domains = {}
    for (domain,), part in answers.group_by("domain", maintain_order=True):
        domains[str(domain)] = {
            "documents": len(part), "mean_tokens": mean(part["n_tokens_doc"]),
            **{q: {"answered": len(part) - part[q].null_count(), "yes": int(part[q].sum())} for q
               in judge.QUESTIONS},
        }  # fmt: skip
    report = outcome.report(s)
    write_json(context.out / "judged.json", {"domains": domains, **report})
    context.facts |= {
        **{k: v for k, v in report.items() if k != "failures"},
        "unanswered": outcome.failures.total(),
    }
    if outcome.failures:
        _warn(outcome.failures, s)


def _warn(failures: dict[str, int], s: Judge) -> None:
    told = ", ".join(f"{n} x {reason}" for reason, n in sorted(failures.items()))
    print(
        f"warning: the judge {s.model} left questions open: {told}; judge.attempt={s.attempt + 1} asks again",
        file=sys.stderr,
    )
