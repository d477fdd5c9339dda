"""A small corpus artifact, and the stages from the constructed proxy to the scores."""

from __future__ import annotations

import pydoc_data.topics
from pathlib import Path

import polars

from repro.heads import stage as heads_stage
from repro.heads.settings import Heads
from repro.influence import stage as influence_stage
from repro.influence.settings import Score
from repro.proxy import stage as proxy_stage
from repro.proxy.settings import Proxy
from repro.store import Context, Stage

HEADS = Heads(probes=2, probe_tokens=512, shots=1)
PROXY = Proxy(kind="built", dtype="float32")


def write_shard(path: Path, domain: str, texts: list[str], first: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    n = len(texts)
    polars.DataFrame(
        {
            "doc_id": [f"{domain}-{first + i}" for i in range(n)],
            "domain": [domain] * n,
            "group": [f"g{i % 3}" for i in range(n)],
            "cluster": list(range(first, first + n)),
            "source": ["test"] * n,
            "license": ["test"] * n,
            "n_bytes": [len(t.encode()) for t in texts],
            "text": texts,
            "extra": ["{}"] * n,
        }
    ).write_parquet(path)


def corpus(
    per_shard: int = 6, shards: int = 4, extra: list[str] | None = None, heldout: bool = True
) -> Stage:
    """Topics of the language reference in two domains, with awkward documents (``extra``) in the first shard."""
    topics = [pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics)]

    def run(context: Context) -> None:
        for shard in range(shards):
            texts = topics[shard * per_shard : (shard + 1) * per_shard]
            domain = "a" if shard < shards // 2 else "b"
            path = context.out / "documents" / f"{domain}-{shard:05d}.parquet"
            write_shard(path, domain, texts + (extra or [] if shard == 0 else []), shard * 100)
        if heldout:
            write_shard(context.out / "heldout" / "a-00000.parquet", "a", topics[-6:], 10_000)

    settings = {"per_shard": per_shard, "shards": shards, "extra": extra, "heldout": heldout}
    return Stage("corpus", "test", settings, run)


def stages(
    score: Score, heads: Heads = HEADS, documents: Stage | None = None, proxy: Proxy = PROXY
) -> dict[str, Stage]:
    found = {"corpus": documents or corpus(), "proxy": proxy_stage.stage(proxy)}
    found["heads"] = heads_stage.stage(heads, proxy, found["proxy"], found["corpus"])
    found["score"] = influence_stage.stage(
        score, heads, proxy, found["proxy"], found["corpus"], found["heads"]
    )
    return found


def ensure_all(store, target: Stage) -> Path:
    for stage in target.ancestors():
        path = store.ensure(stage)
    return path
