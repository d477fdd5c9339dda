"""A corpus with planted documents, scored with each arm's heads, and what each arm's selector finds of
them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from repro.corpus.settings import Corpus
from repro.errors import require
from repro.experiments import Experiment, arms
from repro.experiments.planted.texts import KINDS
from repro.plain import Json
from repro.selection import priority
from repro.selection.settings import Select
from repro.settings.root import Settings
from repro.settings.typed import as_object
from repro.store import Context, Stage, write_json
from repro.store.cost import BYTES_PER_TOKEN, STORED_BYTES, WORDS_COUNTED, Cost, Known, Made, of_rows

CHARACTERS_PER_TOKEN = 2.8  # of prose and code, on the low side: planted text has to fit into what is scored


@dataclass
class Planted:
    """``exp.params`` of a planted-truth experiment."""

    documents: int = 40  # of each kind and domain
    real: int = 200  # real documents of each domain to compare with
    characters: int | None = None  # of each document; default: what ``score.max_tokens`` reads
    seed: int = 0

    def __post_init__(self) -> None:
        require(
            self.documents >= 5 and self.real >= 5,
            "exp.params.documents and exp.params.real must be at least 5",
        )


def stages(settings: Settings) -> Experiment:
    """``arms[name][seed]``: "found". Heads come from the corpus as it is, so that they are those of other
    experiments; what is scored is the planted one.
    """
    shared = arms.with_heads(settings)
    seed, chosen = settings.exp.seeds[0], settings.exp.arms
    corpus = planted_stage(
        settings.corpus, settings.exp.params, settings.score.max_tokens or 4096, shared["corpus"]
    )
    scores = {name: arms.scores(settings, shared, name, corpus) for name in chosen}
    found = {name: found_stage(arm.select, seed, corpus, scores[name]) for name, arm in chosen.items()}
    same = (
        {"score": scores[next(iter(chosen))]}
        if len({stage.fingerprint for stage in scores.values()}) == 1
        else {}
    )
    return Experiment(
        shared | {"corpus": corpus} | same, {name: {seed: {"found": stage}} for name, stage in found.items()}
    )


def planted_stage(corpus_settings: Corpus, given: Json, max_tokens: int, corpus: Stage) -> Stage:
    """A corpus artifact of planted and real documents. ``extra`` says ``kind``, ``version`` and ``host``."""
    s = as_object(Planted, given, "exp.params")
    settings = asdict(s) | {"shard_documents": corpus_settings.shard_documents}
    settings["characters"] = s.characters or int(CHARACTERS_PER_TOKEN * max_tokens)

    def run(context: Context) -> None:
        from repro.experiments.planted.corpus import write

        write(context, settings)

    def cost(known: Known) -> Cost:
        domains = known.inputs["corpus"].domains
        documents = domains * (s.real + 1.5 * s.documents * len(KINDS))  # some stand there deduplicated, too
        made = Made(documents * settings["characters"] / BYTES_PER_TOKEN, domains)
        return Cost(made.tokens, 0, made.tokens * STORED_BYTES, made.tokens / WORDS_COUNTED, made=made)

    return Stage("planted", "planted", settings, run, {"corpus": corpus}, cost=cost)


def found_stage(select: Select, seed: int, corpus: Stage, scores: Stage) -> Stage:
    """``found.json``: the AUROC of each kind over real text for one selector, in all domains together and in
    each.
    """
    seed, settings, inputs = priority.asking(select, seed, corpus, scores)
    return Stage(
        "found",
        select.selector,
        settings,
        lambda ctx: _found(ctx, select.selector, select.params, seed),
        inputs,
        cost=lambda known: of_rows(known.inputs["corpus"]),
    )


def _found(context: Context, selector: str, given: Json, seed: int) -> None:
    import polars

    from repro.corpus import documents as docs
    from repro.experiments.planted.found import measure

    priorities, _ = priority.of_documents(context, selector, given, seed)
    about = docs.read(context.inputs["corpus"], columns=["doc_id", "domain", "group", "extra"])
    extra = polars.DataFrame([json.loads(text) for text in about["extra"]])
    known = about.drop("extra").hstack(extra.select("kind", "version"))
    table = known.join(priorities.select("doc_id", "priority"), on="doc_id", how="left").sort("doc_id")
    result = {"selector": selector, "all": measure(table)}
    result["domains"] = {
        str(d): measure(part) for (d,), part in table.group_by("domain", maintain_order=True)
    }
    write_json(context.out / "found.json", result)
    context.facts |= {"documents": len(table), "unranked": int(table["priority"].null_count())}
