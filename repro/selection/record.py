"""What a selection leaves, typed: the fields of ``selection.json``."""

from __future__ import annotations

from typing import TypedDict

from repro.plain import Json


class Group(TypedDict):
    """A source group of a domain."""

    documents: int
    tokens: int  # of whole documents, the proxy's
    selected_documents: int
    selected_tokens: int
    threshold: float | None  # the lowest priority taken, as the selector gives it


class Edge(TypedDict):
    """The last document taken (``repro.selection.rank.Cut``)."""

    priority: float | None  # with strata: the rank within them
    tie: str


class Domain(Group):
    """What a selection takes of a domain."""

    share_of_documents: float
    share_of_tokens: float
    mean_tokens: float | None
    mean_tokens_of_all: float
    unranked: int
    near_duplicates: int  # passed over in favour of another document of their cluster
    budget: int  # of the scope
    shortfall: int  # of it that is unused
    cut: Edge
    repeats: dict[str, int]  # times read in a pass -> documents
    read_tokens: int
    sources: int
    selected_sources: int
    groups: dict[str, Group]  # the largest, and all others in one


class Whole(TypedDict):
    """What a selection takes of all domains."""

    documents: int
    selected_documents: int
    selected_tokens: int


class Notes(TypedDict, total=False):
    """Domains that a selection takes nothing of: none fits, or they are left out of every arm."""

    empty_domains: list[str]
    left_out: list[str]


class Record(Whole, Notes):
    """``selection.json``."""

    selector: str
    params: Json
    budget: Json
    mixture: Json
    seed: int
    matched_tokens: dict[str, int] | None  # by domain, of the arm that is matched
    formula: str | None  # of the priority over the scores, where its cut can be applied to other scores
    missing_scores: int
    unranked: int
    domains: dict[str, Domain]
