"""The corpus stage: read once, drop with a reason, draw the sample, clean, split, write."""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING, Any

from repro import schema
from repro.corpus.settings import Corpus
from repro.errors import SettingError
from repro.plain import Json
from repro.settings.execution import Run
from repro.store import Context, Stage, read_json
from repro.store.cost import BYTES_PER_TOKEN, CLEANED, STORED_BYTES, Cost, Known, Made
from repro.tracking import progress

if TYPE_CHECKING:
    from pathlib import Path

    from repro.corpus.select import Tally
    from repro.corpus.spool import Candidate


def stage(settings: Corpus, items: Stage | None, how: Run | None = None) -> Stage:
    """The stage of a corpus; ``items`` are the benchmarks that it is decontaminated against.

    ``how`` it is made, in this process or by ``run.executor``, is no part of what is made. The fingerprint
    covers the content of the source (digests of files, package versions, commits), not its
    path.
    """
    from repro.corpus import sources

    own = schema.identity(settings) | {"domains": sorted(settings.domains)}
    own["source"] = sources.identity(settings)
    inputs = {"items": items} if items is not None and settings.decontaminate else {}

    def cost(known: Known) -> Cost:
        domains, most = sources.expected_domains(settings), settings.max_documents_per_domain
        tokens = known.tokens
        if tokens is None and known.folder is not None:
            counted = read_json(known.folder / "counts.json")["domains"].values()
            tokens = sum(domain["bytes"] for domain in counted) / BYTES_PER_TOKEN
        elif tokens is None:
            tokens = sources.expected_tokens(settings) * (1 - settings.heldout_share)
        # The spool and the shards made from it lie side by side; on disk, MinHash adds a kilobyte a document.
        working = 2 * STORED_BYTES + (settings.minhash == "datatrove")
        made = Made(tokens, domains, math.inf if most is None else domains * most)
        return Cost(tokens, 0, tokens * working, 10 + tokens / CLEANED, made=made)

    return Stage(
        "corpus",
        settings.kind,
        own,
        lambda context: run(context, settings, how),
        inputs,
        3,  # benchmark sentences with a blank are looked for with it filled in
        summary,
        cost=cost,
    )


def summary(facts: Json) -> str:
    """In one line: documents in, kept, held out, dropped by reason, and files that were not read."""
    held = sum(domain["heldout_documents"] for domain in facts["domains"].values())
    line = f"documents: {facts['in']:,} in, {facts['kept']:,} kept ({held:,} of them held out)"
    if facts["dropped"]:
        line += f", {sum(facts['dropped'].values()):,} dropped: {_counted(facts['dropped'])}"
    files = facts.get("files", {})
    if files.get("skipped"):
        n = sum(files["skipped"].values())
        named = ", ".join(files["examples"]) + (", ..." if n > len(files["examples"]) else "")
        line += f"; files: {files['read']:,} read, {n:,} skipped: {_counted(files['skipped'])} ({named})"
    for domain, folders in files.get("together", {}).items():
        line += f"; one domain, {domain}, of {len(folders)} folders: {', '.join(folders[:4])}"
    return line


def _counted(counts: dict[str, int]) -> str:
    """The most frequent first."""
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{n:,} {reason.replace('_', ' ')}" for reason, n in by_count)


# What to do where most documents were dropped for one reason.


def run(context: Context, settings: Corpus, how: Run | None = None) -> None:
    """Write ``documents/``, ``heldout/`` and ``counts.json``; raises :class:`SettingError` when nothing is
    left.
    """
    if how is not None and how.of_corpus is not None:
        from repro.corpus import pipeline

        return pipeline.run(context, settings, how)
    import shutil

    from repro.corpus import documents, select, sources
    from repro.corpus.publish import publish
    from repro.corpus.split import Member, hold_out
    from repro.corpus.spool import spool
    from repro.store import discard, write_json

    for leftover in documents.SPLITS:  # of a killed attempt
        shutil.rmtree(context.out / leftover, ignore_errors=True)
    spooled, tally = context.out / "spool", select.Tally()
    candidates = spool(settings, spooled, tally)
    chosen = select.unique(candidates, tally)
    if settings.sample == "first":
        chosen = select.sample(settings, chosen, tally)
    kept, clusters = clean(settings, context, spooled, chosen, tally)
    if settings.sample == "last":
        of = {candidate.id: cluster for candidate, cluster in zip(kept, clusters, strict=True)}
        kept = select.sample(settings, kept, tally)
        clusters = [of[candidate.id] for candidate in kept]
    tally.check(len(kept))
    if not kept:
        raise SettingError(f"corpus: no document is left of {tally.seen}: {tally.summary()}{tally.mend()}")
    members = [
        Member(c.id, c.domain, c.group or c.id, cluster, c.n_bytes)
        for c, cluster in zip(kept, clusters, strict=True)
    ]
    heldout, held_by = hold_out(members, settings.heldout_share, settings.seed)
    placed = [
        (candidate, "heldout" if i in heldout else "documents", members[i].cluster, members[i].group)
        for i, candidate in enumerate(kept)
    ]
    publish(settings, spooled, context.out, placed)
    discard(spooled, "state.json")
    counts = tally.counts() | {"domains": _domains(members, heldout, held_by, tally)}
    write_json(context.out / "counts.json", counts)
    context.facts.update(counts | sources.facts(settings))


def clean(
    settings: Corpus, context: Context, spool: Path, chosen: list[Candidate], tally: Tally
) -> tuple[list[Candidate], list[int]]:
    """The documents that stay, and the number of each one's near-duplicate cluster."""
    from repro.corpus.examined import examined

    items = context.inputs.get("items") if settings.decontaminate else None
    kept, sets = [], []
    in_memory = settings.near_duplicates != "off" and settings.minhash == "datasketch"
    with progress(len(chosen), "documents", "cleaning") as bar:
        for candidate, shares, own in examined(spool, chosen, items, in_memory):
            bar.update(1)
            if shares:
                tally.drop("shares_text_with_a_benchmark", candidate.domain, candidate.id)
                continue
            kept.append(candidate)
            sets.append(own)
    groups = [] if settings.near_duplicates == "off" else _clusters(settings, spool, kept, sets)
    smallest: dict[int, int] = {}
    for members in groups:
        smallest |= dict.fromkeys(members, min(members, key=lambda i: kept[i].id))
    tally.clustered(kept[i].domain for i in smallest)
    if settings.near_duplicates == "drop":
        for i, representative in sorted(smallest.items()):
            if i != representative:
                tally.drop("near_duplicate", kept[i].domain, kept[i].id)
        kept = [candidate for i, candidate in enumerate(kept) if smallest.get(i, i) == i]
        smallest = {}
    numbers: dict[int, int] = {}  # by id, not by the order of files
    for i in sorted(range(len(kept)), key=lambda i: kept[i].id):
        numbers.setdefault(smallest.get(i, i), len(numbers))
    return kept, [numbers[smallest.get(i, i)] for i in range(len(kept))]


def _clusters(settings: Corpus, spool: Path, kept: list[Candidate], sets: list[Any]) -> list[list[int]]:
    """Positions of near-duplicates in ``kept``."""
    from repro.corpus import minhash
    from repro.corpus.spool import texts

    if settings.minhash == "datasketch":
        return minhash.near_duplicates(sets, settings.minhash_threshold, settings.minhash_permutations)
    files = {file: list(inside) for file, inside in groupby(range(len(kept)), key=lambda i: kept[i].file)}
    streams = ((file, texts(spool, [kept[i] for i in inside])) for file, inside in files.items())
    found = minhash.near_duplicates_on_disk(
        streams, spool / "minhash", settings.minhash_threshold, settings.minhash_permutations
    )
    return [sorted(files[file][position] for file, position in members) for members in found]


def _domains(members: list[Any], heldout: set[int], how: dict[str, str], tally: Tally) -> Json:
    """Counts of each domain: documents, bytes, groups, clusters, and how its held-out split was made."""
    found = {}
    for domain in sorted(how):
        own = [(i, m) for i, m in enumerate(members) if m.domain == domain]
        train, held = [m for i, m in own if i not in heldout], [m for i, m in own if i in heldout]
        found[domain] = {
            "documents": len(train),
            "bytes": sum(m.n_bytes for m in train),
            "groups": len({m.group for m in train}),
            "heldout_documents": len(held),
            "heldout_bytes": sum(m.n_bytes for m in held),
            "heldout_groups": len({m.group for m in held}),
            "heldout_by": how[domain],
            "clusters": len({m.cluster for _, m in own}),
            "in_near_duplicate_clusters": tally.in_clusters.get(domain, 0),
            "dropped": tally.by_domain(domain),
        }
    return found
