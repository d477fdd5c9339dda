"""The held-out split: whole source groups and whole near-duplicate clusters, never single documents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from repro.corpus.documents import sampling_key


@dataclass(frozen=True, slots=True)
class Member:
    """What the split looks at."""

    id: str
    domain: str
    group: str  # the document's own id where its source names no group
    cluster: int
    n_bytes: int


def hold_out(members: Sequence[Member], share: float, seed: int) -> tuple[set[int], dict[str, str]]:
    """Positions of the held-out documents, and for each domain how they were chosen.

    Groups tied by a near-duplicate cluster (in any domain) stay together. Such components are taken in an
    order fixed by ``seed`` while they bring each domain closer to ``share`` of its bytes and never beyond
    twice that. A domain whose components are all too large (few sources) gives a contiguous part of one group
    instead, without the documents whose near-duplicates lie outside of it; a domain too small to spare a
    document gives none. Both are said in the answer.
    """
    total: dict[str, int] = defaultdict(int)
    documents: dict[str, int] = defaultdict(int)
    for member in members:
        total[member.domain] += member.n_bytes
        documents[member.domain] += 1
    target, how = targets(total, documents, share)
    held: dict[str, int] = defaultdict(int)
    chosen: set[int] = set()  # positions
    for component in _components(members, seed):
        size: dict[str, int] = defaultdict(int)
        for i in component:
            size[members[i].domain] += members[i].n_bytes
        if brings_closer(size, held, target, total):
            chosen.update(component)
            for domain, n_bytes in size.items():
                held[domain] += n_bytes
    for domain in sorted(total):
        if held[domain] < target[domain] / 4:
            block, group = block_of(members, domain, chosen, target[domain] - held[domain])
            chosen |= block
            how[domain] = PART.format(group) if block else NO_PART
        elif not how[domain].startswith("none") and all(
            m.group == m.id for m in members if m.domain == domain
        ):
            how[domain] = NO_GROUPS
    return chosen, how


PART = "too few sources: a contiguous part of {}"
NO_PART = "none: every source is larger than the held-out share, and none can be divided"
NO_GROUPS = "clusters: the documents name no group"


def targets(
    total: dict[str, int], documents: dict[str, int], share: float
) -> tuple[dict[str, float], dict[str, str]]:
    """Bytes to hold out of each domain, of its ``total`` bytes and ``documents``, and how that is to be
    done.
    """
    how = {domain: "groups and clusters" for domain in total}
    for domain, count in documents.items():
        if count * share < 0.5:
            how[domain] = (
                "none: heldout_share is 0"
                if share == 0
                else f"none: {count} documents are too few to spare one"
            )
    target = {domain: 0.0 if how[domain].startswith("none") else share * total[domain] for domain in total}
    return target, how


def brings_closer(
    size: dict[str, int], held: dict[str, int], target: dict[str, float], total: dict[str, int]
) -> bool:
    """Whether holding out a component, of so many bytes by domain, brings its domains closer to their
    targets.
    """
    fits = all(held[d] + size[d] <= 2 * target[d] and held[d] + size[d] < total[d] for d in size)
    return fits and _distance(size, held, target) < _distance({d: 0 for d in size}, held, target)


def _distance(size: dict[str, int], held: dict[str, int], target: dict[str, float]) -> float:
    # In the order of names: a sum of floats that knows no order of documents.
    return sum(abs(target[d] - held[d] - size[d]) / target[d] for d in sorted(size))


def _components(members: Sequence[Member], seed: int) -> list[list[int]]:
    """Positions by component of the graph group - document - cluster, in the order of their hashes."""
    from scipy.cluster.hierarchy import DisjointSet

    linked = DisjointSet()
    for member in members:
        linked.add(("group", member.group))
        linked.add(("cluster", member.cluster))
        linked.merge(("group", member.group), ("cluster", member.cluster))
    found: dict[tuple[str, str | int], list[int]] = defaultdict(list)
    for i, member in enumerate(members):
        found[linked[("group", member.group)]].append(i)
    return sorted(
        found.values(), key=lambda component: sampling_key(seed, min(members[i].group for i in component))
    )


def block_of(members: Sequence[Member], domain: str, chosen: set[int], wanted: float) -> tuple[set[int], str]:
    """The end of the domain's largest group, about ``wanted`` bytes, with whole clusters only."""
    groups: dict[str, list[int]] = defaultdict(list)
    everyone: dict[int, list[int]] = defaultdict(list)
    for i, member in enumerate(members):
        everyone[member.cluster].append(i)
        if member.domain == domain and i not in chosen:
            groups[member.group].append(i)
    group = max(sorted(groups), key=lambda name: sum(members[i].n_bytes for i in groups[name]))
    block: set[int] = set()
    reached = 0
    for i in sorted(groups[group], key=lambda i: members[i].id, reverse=True):
        cluster = everyone[members[i].cluster]
        if i in block or not set(cluster) <= set(groups[group]):
            continue  # taken with its cluster, or tied to documents that stay in training
        size = sum(members[j].n_bytes for j in cluster)
        if reached + size > 2 * wanted:
            continue
        block.update(cluster)
        reached += size
        if reached >= wanted:
            break
    return block, group
