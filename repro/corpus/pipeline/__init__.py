"""A corpus of millions of documents: the same stage as in one process, as phases on datatrove's executors.

    read -> [choose] -> examine and sign -> pair -> cluster -> [place] -> sort -> write

Phases over the text are tasks (:mod:`.tasks`); what stands in brackets is decided over all documents in
DuckDB, on disk (:mod:`.decide`, :mod:`.heldout`). Nothing grows with the number of documents but files. The
same documents come out as of one process with ``corpus.minhash=datatrove``.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from repro.corpus.settings import Corpus
from repro.errors import SettingError
from repro.plain import Json
from repro.settings.execution import Run
from repro.store import Context, atomic, digest, discard, parquet, read_json, write_json

LOGS = "logs"  # with what datatrove takes for done


def run(context: Context, settings: Corpus, how: Run) -> None:
    """Write ``documents/``, ``heldout/`` and ``counts.json``, as :func:`repro.corpus.stage.run` does."""
    from repro.corpus import documents, select, signatures, sources
    from repro.corpus.pipeline import decide, executors, heldout, tasks
    from repro.corpus.spool import must_have

    executor = executors.of(how, settings.minhash, settings.near_duplicates)
    for leftover in documents.SPLITS:  # of an attempt with other tasks, or in one process
        if not (context.out / "working").is_dir():
            shutil.rmtree(context.out / leftover, ignore_errors=True)
    folder = _folder(context, executor.tasks)
    logs = folder / LOGS
    executor.run([tasks.Read(settings, folder)], logs / "read", "reading")
    tally = select.Tally()
    skipped: set[str] = set()
    for rank in range(executor.tasks):
        skipped |= _add(tally, read_json(folder / f"tally/{rank:05d}.json"))
    with decide.connect(folder) as db:
        decide.about(db, folder)
        usable = db.execute("SELECT count(*) FROM about").fetchall()[0][0]
        if tally.seen != usable + tally.dropped.total():
            raise AssertionError(
                f"{tally.seen} documents were read, {usable} kept, {tally.dropped.total()} dropped"
            )
        must_have(
            settings, {d for (d,) in db.execute("SELECT DISTINCT domain FROM about").fetchall()}, skipped
        )
        decide.unique(db, tally)
        if settings.sample == "first":
            decide.sample(db, settings, tally, "chosen")
        with atomic(folder / "chosen.parquet") as temporary:
            query = 'SELECT task, "row" FROM chosen ORDER BY task, "row"'
            db.execute(f"COPY ({query}) TO {parquet.quoted(temporary)} (FORMAT parquet)")
        examine = tasks.Examine(folder, context.inputs.get("items") if settings.decontaminate else None)
        clusters = None
        if settings.near_duplicates == "off":
            executor.run([examine], logs / "examine", "cleaning")
        else:
            steps = signatures.steps(
                folder / "minhash", settings.minhash_threshold, settings.minhash_permutations
            )
            executor.run([examine, steps.sign()], logs / "examine", "cleaning")
            executor.run([steps.pair()], logs / "pair", "near-duplicates", steps.buckets)
            executor.run([steps.cluster()], logs / "cluster", "clusters", 1)
            clusters = steps.clusters
        decide.examined(db, folder, tally)
        decide.clusters(db, clusters, settings.near_duplicates, tally)
        if settings.sample == "last":
            decide.sample(db, settings, tally, "kept")
        kept = db.execute("SELECT count(*) FROM kept").fetchall()[0][0]
        tally.check(kept)
        if not kept:
            raise SettingError(
                f"corpus: no document is left of {tally.seen}: {tally.summary()}{tally.mend()}"
            )
        made = heldout.hold_out(db, settings.heldout_share, settings.seed)
        heldout.places(db, folder, settings.shard_documents)
        executor.run([tasks.Sort(folder)], logs / "sort", "sorting")
        executor.run([tasks.Write(folder, context.out, settings.shard_documents)], logs / "write", "writing")
        _count(context.out, db)
        domains = _domains(db, made, tally)
    discard(context.out / "working", f"{folder.name}/{LOGS}")
    counts = tally.counts() | {"domains": domains}
    write_json(context.out / "counts.json", counts)
    context.facts.update(counts | sources.facts(settings))


def _folder(context: Context, tasks: int) -> Path:
    """Named by what goes in and the number of tasks: datatrove takes what other tasks finished for its
    own.
    """
    working = context.out / "working"
    name = digest([context.out.name, tasks])[:12]
    for other in working.glob("*"):
        if other.name != name:
            discard(other, LOGS)
    (working / name).mkdir(parents=True, exist_ok=True)
    return working / name


def _add(tally: Any, values: Json) -> set[str]:
    """Add a task's tally; returns the domains that were not asked for."""
    from repro.corpus.select import EXAMPLES

    tally.seen += values["seen"]
    for domain, reason, number in values["dropped"]:
        tally.dropped[domain, reason] += number
    for reason, examples in values["examples"].items():
        known = tally.examples.setdefault(reason, [])
        known += examples[: EXAMPLES - len(known)]
    return set(values["skipped"])


def _count(out: Path, db: Any) -> None:
    """Rows of the written shards against the decided ones."""
    from repro.corpus.documents import SPLITS, shards

    for split in SPLITS:
        wanted = db.execute("SELECT count(*) FROM ranked WHERE split = $split", {"split": split}).fetchall()
        found = sum(parquet.metadata(path).num_rows for path in shards(out, split))
        if found != wanted[0][0]:
            raise AssertionError(
                f"{split}: {wanted[0][0]} documents were to be written and {found} are there"
            )


def _domains(db: Any, how: dict[str, str], tally: Any) -> Json:
    """Counts of each domain, as :func:`repro.corpus.stage.run` gives them."""
    columns = """count(*) FILTER (NOT held), coalesce(sum(n_bytes) FILTER (NOT held), 0)::BIGINT,
        count(DISTINCT own_group) FILTER (NOT held), count(*) FILTER (held),
        coalesce(sum(n_bytes) FILTER (held), 0)::BIGINT, count(DISTINCT own_group) FILTER (held),
        count(DISTINCT cluster)"""
    names = ("documents", "bytes", "groups", "heldout_documents", "heldout_bytes", "heldout_groups")
    found = {}
    for domain, *values in db.execute(
        f"SELECT domain, {columns} FROM placed GROUP BY 1 ORDER BY 1"
    ).fetchall():
        found[domain] = dict(zip(names, values[:-1], strict=True)) | {
            "heldout_by": how[domain],
            "clusters": values[-1],
            "in_near_duplicate_clusters": tally.in_clusters.get(domain, 0),
            "dropped": tally.by_domain(domain),
        }
    return found
