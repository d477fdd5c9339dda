"""A corpus of real documents and planted ones; those that deduplication changes stand in it deduplicated,
too.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars
import pyarrow as pa

from repro.corpus import documents as docs
from repro.corpus.documents import Document
from repro.errors import SettingError
from repro.experiments.planted.texts import KINDS, cut, deduplicated
from repro.plain import Json
from repro.store import Context, parquet, read_json, write_json


def write(context: Context, settings: Json) -> None:
    """Run the stage "planted". ``extra`` of a document says ``kind``, ``version`` and ``host``."""
    source = context.inputs["corpus"]
    counts = read_json(source / "counts.json")
    domains: Json = {}
    cluster = 0
    for domain, real in drawn(source, settings).items():
        rows, groups = [], set()
        for made in plant(domain, real, settings):
            # a document and its deduplicated version are one cluster
            cluster += made.extra["version"] == "as is"
            rows.append(docs.row(made, cluster))
            groups.add(made.group)
        batch = pa.RecordBatch.from_pylist(rows, schema=docs.SCHEMA)
        docs.write_shards(context.out, "documents", domain, [batch], settings["shard_documents"])
        size = {"documents": len(rows), "bytes": sum(r["n_bytes"] for r in rows), "groups": len(groups)}
        domains[domain] = counts["domains"][domain] | size
    for path in docs.shards(source, "heldout"):  # mean head outputs are calibrated on it
        (context.out / "heldout").mkdir(exist_ok=True)
        shutil.copyfile(path, context.out / "heldout" / path.name)
    total = sum(d["documents"] for d in domains.values())
    write_json(
        context.out / "counts.json",
        {"in": total, "kept": total, "dropped": {}, "examples": {}, "domains": domains},
    )
    context.facts |= {"documents": total}


def drawn(corpus: Path, settings: Json) -> dict[str, list[Document]]:
    """The first documents of each domain that are long enough: a corpus lies in the order of a hash, so they
    are a sample.
    """
    wanted = settings["documents"] + settings["real"]
    found: dict[str, list[Document]] = {}
    full: set[str] = set()
    for path in docs.shards(corpus):
        if (name := path.name.rpartition("-")[0]) in full:
            continue
        shard = parquet.read(path, columns=["doc_id", "domain", "group", "source", "license", "text"])
        own = found.setdefault(shard["domain"][0], [])
        long = shard.filter(polars.col("text").str.len_chars() >= settings["characters"])
        own += [docs.Document(*row) for row in long.head(wanted - len(own)).iter_rows()]
        full |= {name} if len(own) == wanted else set()
    return dict(sorted(found.items()))


def plant(domain: str, hosts: list[Document], settings: Json) -> Iterator[Document]:
    """The documents of one domain. The same hosts serve every kind; real documents to compare with are
    others.

    Raises :class:`SettingError` where the domain has too few documents of that length.
    """
    characters = settings["characters"]
    number = min(settings["documents"], len(hosts) // 3)
    if number < 5:
        raise SettingError(
            f"exp=planted_truth: domain {domain!r} has {len(hosts)} documents of {characters} characters, 15"
            " are needed; raise corpus.max_documents_per_domain, lower exp.params.characters, or leave it"
            " out with corpus.domains"
        )
    for host in hosts[number : number + settings["real"]]:
        yield from _versions(host.id, host, cut(host.text, characters), "real", settings)
    for kind, make in KINDS.items():
        for i, host in enumerate(hosts[:number]):
            draw = random.Random(f"{settings['seed']}/{domain}/{'facts' if 'facts' in kind else kind}/{i}")
            text = make(cut(host.text, characters), draw)
            yield from _versions(f"planted/{domain}/{kind}/{i:04d}", host, text, kind, settings)


def _versions(ident: str, host: Document, text: str, kind: str, settings: Json) -> Iterator[Document]:
    extra = {"kind": kind, "host": host.id}
    yield replace(host, id=ident, text=text, extra=extra | {"version": "as is"})
    without = deduplicated(text)
    if without != text and without:
        yield replace(
            host, id=f"{ident}/deduplicated", text=without, extra=extra | {"version": "deduplicated"}
        )
