"""Planted truth: documents of known kinds among real text, and how well each selector finds each kind. Trains nothing.

All documents are made from real ones of the same domain and have about the same length, so that neither topic nor length
gives a kind away; they stand against real documents cut to that length. A kind's number is the AUROC of its documents over
those: 0.5 when the selector does not see the difference, 1 when it puts all of them above, 0 when below all.

Copying is what the influence score measures, and repeated text can be copied. So every document with repeated passages also
stands in the corpus without them, and the numbers are given before and after that deduplication.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from repro import parquet
from repro.config import Corpus, Select, SettingError, nearest, require
from repro.store import Context, Stage

if TYPE_CHECKING:
    from pathlib import Path

    import polars

    from repro.corpus.documents import Document

CHARACTERS_PER_TOKEN = 2.8  # of prose and code, on the low side: planted text has to fit into what is scored
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
SYLLABLES = [c + v + e for c in "bdfgklmnprstv" for v in "aeiou" for e in ("", "l", "n", "r", "s")]
THINGS = (
    "locker",
    "library card",
    "boat",
    "garden plot",
    "radio station",
    "storeroom",
    "parcel",
    "ticket",
    "workshop",
    "mailbox",
)


@dataclass
class Planted:
    """``exp.params`` of a planted-truth experiment."""

    documents: int = 40  # of each kind and domain
    real: int = 200  # real documents of each domain to compare with
    characters: int | None = None  # of each document; default: what ``score.max_tokens`` reads
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.documents >= 5 and self.real >= 5, "exp.params.documents and exp.params.real must be at least 5")


def params(given: dict[str, Any]) -> Planted:
    """``exp.params`` as :class:`Planted`; an unknown one is refused by name."""
    for key in given:
        known = list(asdict(Planted()))
        require(key in known, f"exp.params.{key} is not known; did you mean {nearest(key, known)}? valid: {', '.join(known)}")
    return Planted(**given)


# Kinds: text of one document, made from the text of a real one.


def words(draw: random.Random, number: int, capital: bool = False) -> str:
    """Made-up words that no model has seen."""
    made = ["".join(draw.choice(SYLLABLES) for _ in range(draw.randint(2, 3))) for _ in range(number)]
    return " ".join(w.capitalize() if capital else w for w in made)


def facts(text: str, draw: random.Random, kept: bool = True) -> str:
    """Made-up facts stated in the first half and asked for in the second, in other words, between sentences of ``text``.

    What is answered can only be known from the statement. With ``kept`` false the answer is another made-up value: the same
    sentences, and nothing to copy.
    """
    number = max(2, len(text) // 300)
    names = [(words(draw, 2, capital=True), draw.choice(THINGS), words(draw, 3), words(draw, 3)) for _ in range(number)]
    stated = [f"{name} wrote {value} on the {thing}." for name, thing, value, _ in names]
    asked = [f"What stands on {name}'s {thing}? {value if kept else other}." for name, thing, value, other in names]
    draw.shuffle(asked)
    sentences = [s for s in SENTENCE.split(cut(text, max(1, len(text) - sum(map(len, stated + asked))))) if s]
    half = len(sentences) // 2
    return "\n".join(_spread(sentences[:half], stated) + _spread(sentences[half:], asked))


def _spread(sentences: list[str], inserted: list[str]) -> list[str]:
    """``inserted`` at even distances among ``sentences``."""
    found = []
    for i, one in enumerate(inserted):
        found += [*sentences[i * len(sentences) // len(inserted) : (i + 1) * len(sentences) // len(inserted)], one]
    return found


def repeated(text: str, draw: random.Random) -> str:
    """The first quarter of ``text``, four times."""
    return "\n\n".join([cut(text, len(text) // 4)] * 4)


def shuffled(text: str, draw: random.Random) -> str:
    """The words of ``text`` in random order."""
    found = text.split()
    draw.shuffle(found)
    return " ".join(found)


def listed(text: str, draw: random.Random) -> str:
    """A list of pairs of the text's words with numbers; no line stands twice."""
    known = sorted({w for w in re.findall(r"\w+", text) if len(w) > 2}) or ["item"]
    lines: dict[str, None] = {}
    while sum(map(len, lines)) + len(lines) < len(text):
        lines[f"- {draw.choice(known)} {draw.choice(known)}: {draw.randint(1, 9999)}"] = None
    return "\n".join(lines)


def noise(text: str, draw: random.Random) -> str:
    """Random printable characters."""
    return "".join(chr(draw.randint(32, 126)) for _ in text).strip()


KINDS = {
    "facts": facts,
    "facts_shuffled": lambda text, draw: facts(text, draw, kept=False),
    "repeated": repeated,
    "list": listed,
    "shuffled_words": shuffled,
    "random_characters": noise,
}


def cut(text: str, characters: int) -> str:
    """The beginning of ``text``, up to the last white space within ``characters``."""
    if len(text) <= characters:
        return text
    head = text[: characters + 1]
    end = max(head.rfind(" "), head.rfind("\n"))
    return (head[:end] if end > characters // 2 else text[:characters]).rstrip()


def deduplicated(text: str, shortest: int = 20) -> str:
    """``text`` without the sentences and lines of ``shortest`` characters and more that stand earlier in it."""
    seen: set[str] = set()
    parts: list[str] = []
    for part in re.split(r"((?<=[.!?])\s+|\n+)", text):
        key = " ".join(part.lower().split())
        if len(key) >= shortest:
            if key in seen:
                continue
            seen.add(key)
        parts.append(part)
    return "".join(parts).strip()


# The corpus: real documents, planted ones, and those that change also deduplicated.


def stage(corpus_settings: Corpus, given: dict[str, Any], max_tokens: int, corpus: Stage) -> Stage:
    """A corpus artifact of planted and real documents. ``extra`` says ``kind``, ``version`` and ``host``."""
    s = params(given)
    settings = asdict(s) | {"shard_documents": corpus_settings.shard_documents}
    settings["characters"] = s.characters or int(CHARACTERS_PER_TOKEN * max_tokens)
    return Stage("planted", "planted", settings, lambda context: _run(context, settings), {"corpus": corpus})


def _run(context: Context, settings: dict[str, Any]) -> None:
    import shutil

    import pyarrow as pa

    from repro.corpus import documents as docs
    from repro.store import read_json, write_json

    source = context.inputs["corpus"]
    counts = read_json(source / "counts.json")
    domains: dict[str, Any] = {}
    cluster = 0
    for domain, real in drawn(source, settings).items():
        rows, groups = [], set()
        for made in plant(domain, real, settings):
            cluster += made.extra["version"] == "as is"  # a document and its deduplicated version are one cluster
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
    write_json(context.out / "counts.json", {"in": total, "kept": total, "dropped": {}, "examples": {}, "domains": domains})
    context.facts |= {"documents": total}


def drawn(corpus: Path, settings: dict[str, Any]) -> dict[str, list[Document]]:
    """The first documents of each domain that are long enough: a corpus lies in the order of a hash, so they are a sample."""
    import polars

    from repro.corpus import documents as docs

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


def plant(domain: str, hosts: list[Document], settings: dict[str, Any]) -> Iterator[Document]:
    """The documents of one domain. The same hosts serve every kind; real documents to compare with are others.

    Raises :class:`SettingError` where the domain has too few documents of that length.
    """
    characters = settings["characters"]
    number = min(settings["documents"], len(hosts) // 3)
    if number < 5:
        raise SettingError(
            f"exp=planted_truth: domain {domain!r} has {len(hosts)} documents of {characters} characters, 15 are needed; "
            "raise corpus.max_documents_per_domain, lower exp.params.characters, or leave it out with corpus.domains"
        )
    for host in hosts[number : number + settings["real"]]:
        yield from _versions(host.id, host, cut(host.text, characters), "real", settings)
    for kind, make in KINDS.items():
        for i, host in enumerate(hosts[:number]):
            draw = random.Random(f"{settings['seed']}/{domain}/{'facts' if 'facts' in kind else kind}/{i}")
            text = make(cut(host.text, characters), draw)
            yield from _versions(f"planted/{domain}/{kind}/{i:04d}", host, text, kind, settings)


def _versions(ident: str, host: Document, text: str, kind: str, settings: dict[str, Any]) -> Iterator[Document]:
    from dataclasses import replace

    extra = {"kind": kind, "host": host.id}
    yield replace(host, id=ident, text=text, extra=extra | {"version": "as is"})
    without = deduplicated(text)
    if without != text and without:
        yield replace(host, id=f"{ident}/deduplicated", text=without, extra=extra | {"version": "deduplicated"})


# What each selector finds.


def found_stage(select: Select, seed: int, corpus: Stage, scores: Stage) -> Stage:
    """``found.json``: the AUROC of each kind over real text for one selector, in all domains together and in each."""
    from repro.selection import priority, selectors

    given = {key: value for key, value in select.params.items() if key != "match"}
    seed = seed if getattr(selectors.load(select.selector), "SEEDED", False) else 0
    settings = {"selector": select.selector, "params": selectors.identity(select.selector, given), "seed": seed}
    inputs = {"corpus": corpus, "scores": scores} | priority.stages(select.selector, given, corpus)
    return Stage("found", select.selector, settings, lambda ctx: _found(ctx, select.selector, given, seed), inputs)


def _found(context: Context, selector: str, given: dict[str, Any], seed: int) -> None:

    import polars

    from repro.corpus import documents as docs
    from repro.selection import priority
    from repro.store import write_json

    priorities, _ = priority.of_documents(context, selector, given, seed)
    about = docs.read(context.inputs["corpus"], columns=["doc_id", "domain", "group", "extra"])
    extra = polars.DataFrame([json.loads(text) for text in about["extra"]])
    known = about.drop("extra").hstack(extra.select("kind", "version"))
    table = known.join(priorities.select("doc_id", "priority"), on="doc_id", how="left").sort("doc_id")
    result = {"selector": selector, "all": measure(table)}
    result["domains"] = {str(d): measure(part) for (d,), part in table.group_by("domain", maintain_order=True)}
    write_json(context.out / "found.json", result)
    context.facts |= {"documents": len(table), "unranked": int(table["priority"].null_count())}


def measure(table: polars.DataFrame) -> dict[str, Any]:
    """{kind: {"before", "after"}}, each an AUROC over real text with its interval, or ``None``; ``table`` has doc_id, domain,
    group, kind, version, priority.

    After: documents that have a deduplicated version are replaced by it, real ones too. ``facts_over_shuffled`` sets the two
    kinds of facts against each other: the same sentences, with and without something to copy.
    """
    import polars

    whole = table.filter(polars.col("version") == "as is")
    changed = table.filter(polars.col("version") == "deduplicated")
    replaced = whole.filter(~(whole["doc_id"] + "/deduplicated").is_in(changed["doc_id"].implode()))
    versions = {"before": whole, "after": polars.concat([replaced, changed])}
    pairs = {kind: (kind, "real") for kind in KINDS} | {"facts_over_shuffled": ("facts", "facts_shuffled")}
    return {name: {when: _over(rows, kind, other) for when, rows in versions.items()} for name, (kind, other) in pairs.items()}


def _over(rows: polars.DataFrame, kind: str, other: str) -> dict[str, Any] | None:
    import polars

    from repro.analysis.auroc import auroc

    ranked = rows.filter(polars.col("priority").is_not_null())
    x, y = ranked.filter(polars.col("kind") == kind), ranked.filter(polars.col("kind") == other)
    estimate = auroc(x, y)
    if estimate is None:
        return None
    unranked = rows.filter(polars.col("priority").is_null() & polars.col("kind").is_in([kind, other])).height
    medians = {"median": x["priority"].median(), "median_of_others": y["priority"].median()}
    return estimate.as_dict() | medians | {"unranked": unranked}
