"""Which documents enter, and why the others do not: copies, and the sample of the size asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypedDict

from repro.corpus.documents import sampling_key
from repro.corpus.settings import Corpus
from repro.corpus.spool import Candidate
from repro.errors import SettingError

EXAMPLES = 5  # places kept for each reason
BYTES_PER_TOKEN = 4  # the estimate behind corpus.max_tokens_per_domain

MENDS = {
    "broken_json": "the lines must be JSON objects in UTF-8, one a line",
    "not_an_object": "the lines must be JSON objects in UTF-8, one a line",
    "invalid_utf8": "convert the files to UTF-8",
    "key_stands_twice": "give every key of an object another name",
    "missing_text": "name the field that holds the text with corpus.text_field=NAME",
    "text_not_a_string": "name the field that holds the text with corpus.text_field=NAME",
    "missing_domain": (
        "name the field that holds the domain with corpus.domain_field=NAME, or set"
        " corpus.domain_from=constant"
    ),
    "domain_not_a_name": (
        "name a field of plain values with corpus.domain_field=NAME, or set corpus.domain_from=constant"
    ),
    "id_not_a_name": "name a field of plain values with corpus.id_field=NAME",
    "too_short": "lower corpus.min_characters",
    "too_long": "raise corpus.max_bytes",
    "line_too_long": "raise corpus.max_bytes",
    "broken_xml": "the files are of another format: look at corpus.git's format and paths",
    "other_license": "look at corpus.git's license_pattern and licenses",
    "other_domain": "look at corpus.domains",
    "beyond_the_size_asked_for": "raise corpus.max_tokens_per_domain, or lower corpus.max_bytes",
    "shares_text_with_a_benchmark": "the source holds benchmark items; use another",
}


class Dump(TypedDict):
    """What a killed attempt had counted."""

    seen: int
    dropped: list[tuple[str, str, int]]  # domain, reason, number; lists on disk
    examples: dict[str, list[str]]  # reason -> where


# of ``counts.json``: documents in, kept and dropped, by reason
Counts = TypedDict(
    "Counts", {"in": int, "kept": int, "dropped": dict[str, int], "examples": dict[str, list[str]]}
)


@dataclass
class Tally:
    """Every document that came in, under the reason for which it left."""

    seen: int = 0
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)  # (domain, reason)
    examples: dict[str, list[str]] = field(default_factory=dict)
    in_clusters: Counter[str] = field(default_factory=Counter)
    kept: int = 0

    def drop(self, reason: str, domain: str, where: str) -> None:
        """Count one document."""
        self.dropped[domain, reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(where)

    def clustered(self, domains: Iterable[str]) -> None:
        """Count documents that have near-duplicates."""
        self.in_clusters.update(domains)

    def dump(self) -> Dump:
        """For a later attempt to :meth:`restore`."""
        dropped = [(domain, reason, n) for (domain, reason), n in self.dropped.items()]
        return {"seen": self.seen, "dropped": dropped, "examples": self.examples}

    def restore(self, values: Dump) -> None:
        """What a killed attempt had counted."""
        self.seen, self.examples = values["seen"], values["examples"]
        self.dropped = Counter({(domain, reason): n for domain, reason, n in values["dropped"]})

    def check(self, kept: int) -> None:
        """In = kept + dropped, or the stage is wrong."""
        self.kept = kept
        if self.seen != kept + self.dropped.total():
            raise AssertionError(f"documents in {self.seen} != kept {kept} + dropped {self.dropped.total()}")

    def by_domain(self, domain: str) -> dict[str, int]:
        """Drops of one domain by reason."""
        return {reason: n for (d, reason), n in sorted(self.dropped.items()) if d == domain}

    def by_reason(self) -> dict[str, int]:
        """Drops of all domains by reason."""
        total: Counter[str] = Counter()
        for (_, reason), n in self.dropped.items():
            total[reason] += n
        return dict(sorted(total.items()))

    def mend(self) -> str:
        """What to do about the most frequent reason, and where one such document stands."""
        by_count = sorted(self.by_reason().items(), key=lambda item: (-item[1], item[0]))
        reason = by_count[0][0] if by_count else ""
        where = self.examples.get(reason, [])
        return (f"; {MENDS[reason]}" if reason in MENDS else "") + (f" (such as {where[0]})" if where else "")

    def summary(self) -> str:
        """One line for an error message."""
        return ", ".join(f"{n} {reason}" for reason, n in self.by_reason().items()) or "the source is empty"

    def counts(self) -> Counts:
        """For ``counts.json``."""
        return {"in": self.seen, "kept": self.kept, "dropped": self.by_reason(), "examples": self.examples}


def unique(candidates: list[Candidate], tally: Tally) -> list[Candidate]:
    """What is no copy, in the order of the spool; no order of files matters.

    Of documents with the same text the smallest id stays, of those with one id the smallest digest; where
    both are alike (ids made from the text), the smallest domain and group.
    """
    digests: set[str] = set()
    ids: set[str] = set()
    taken = []
    twins = 0
    for found in sorted(candidates, key=lambda c: (c.id, c.digest, c.domain, c.group)):
        if found.digest in digests:
            tally.drop("exact_duplicate", found.domain, found.id)
        elif found.id in ids:
            tally.drop("duplicate_id", found.domain, found.id)
            twins += 1
        else:
            digests.add(found.digest)
            ids.add(found.id)
            taken.append(found)
    if twins > max(min(50, len(candidates) // 3), len(candidates) // 10):
        raise SettingError(
            f"corpus: {twins} of {len(candidates)} documents share their id with another text (such as"
            f" {tally.examples['duplicate_id'][0]!r}); set corpus.id_field=NAME; with a field that does not"
            " exist ids are made from the text"
        )
    return sorted(taken, key=lambda c: (c.file, c.row))


def sample(settings: Corpus, candidates: list[Candidate], tally: Tally) -> list[Candidate]:
    """What is not beyond the size asked for, in the order of the spool.

    Documents are taken in the order of hash(seed, id) while they fit ``max_tokens_per_domain`` and
    ``max_documents_per_domain``.
    """
    taken = []
    documents: Counter[str] = Counter()
    n_bytes: Counter[str] = Counter()
    most_documents = settings.max_documents_per_domain or len(candidates)
    most_bytes = (
        settings.max_tokens_per_domain * BYTES_PER_TOKEN if settings.max_tokens_per_domain else float("inf")
    )
    for found in sorted(candidates, key=lambda c: sampling_key(settings.seed, c.id)):
        domain = found.domain
        if documents[domain] >= most_documents or n_bytes[domain] + found.n_bytes > most_bytes:
            tally.drop("beyond_the_size_asked_for", domain, found.id)
            continue
        documents[domain] += 1
        n_bytes[domain] += found.n_bytes
        taken.append(found)
    return sorted(taken, key=lambda c: (c.file, c.row))
