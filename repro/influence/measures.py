"""Stage ``measures``: what is known of a document without a forward pass: its length in the proxy's tokens,
how far it can be compressed, how much it repeats itself.

Selectors that read no loss (a random draw, length, repetition) rank by these, so that their arms wait for no
scores. The files are those of scores (:data:`repro.influence.shards.SCHEMA`) with the losses left empty.
"""

from __future__ import annotations

from pathlib import Path

from repro.pretrained import Encoder, load_tokenizer
from repro.store import Context, Stage
from repro.store.cost import STARTED, TOKENISED, Cost, Known
from repro.tracking import progress


def stage(proxy: Stage, corpus: Stage) -> Stage:
    """Measures of the training split. Of the proxy only the tokenizer is read."""
    return Stage("measures", proxy.label, {}, _run, {"proxy": proxy, "corpus": corpus}, cost=_cost)


def _cost(known: Known) -> Cost:
    tokens = known.inputs["corpus"].tokens
    return Cost(tokens, 0, tokens / 100, STARTED + tokens / TOKENISED)


def _run(context: Context) -> None:
    from repro.corpus.documents import shards
    from repro.influence.shards import measure_shard

    sources = shards(context.inputs["corpus"])
    encoder = Encoder(load_tokenizer(context.inputs["proxy"] / "model"))
    counts = {"documents": 0, "tokens": 0}
    with progress(len(sources), "shards", "measures") as bar:
        for source in sources:
            documents, tokens = measure_shard(encoder, source, context.out / "scores" / Path(source).name)
            counts = {"documents": counts["documents"] + documents, "tokens": counts["tokens"] + tokens}
            bar.update(1)
    context.facts |= counts
