"""What is selected, how much of it, and how a selection becomes a training set."""

from __future__ import annotations

from dataclasses import dataclass

from repro.errors import require
from repro.plain import Json
from repro.schema import COUNT, IF_SET, check, setting


@dataclass
class Budget:
    """How much is selected."""

    share: float = setting(0.3, "of each domain that is selected", within="(0, 1]")
    unit: str = setting("tokens", choices="tokens (whole documents, n_tokens_doc) | documents")
    scope: str = setting("domain", choices="domain | global")
    length_bins: int = setting(1, "rank within bins of document length", within=COUNT)
    within_group: bool = setting(False, "rank within source groups; small ones together")
    one_per_cluster: bool = setting(False, "of near-duplicates only the best may be selected")
    unranked: str = setting("skip", choices="skip (what has no priority is counted) | refuse")
    frozen: str | None = setting(None, "selection.json whose cuts are applied instead", identity="content")
    leave_out: list[str] = setting([], "domains that nothing is taken of", identity=IF_SET)

    def __post_init__(self) -> None:
        check("budget", self)
        several = self.length_bins > 1 or self.within_group or self.one_per_cluster
        require(
            self.frozen is None or (self.scope == "domain" and not several),
            "budget.frozen applies one cut per domain; leave out budget.scope, length_bins, within_group and"
            " one_per_cluster",
        )


@dataclass
class Select:
    """A selector: an option of ``configs/select``. ``params`` go to the selector's function."""

    selector: str = setting("all")
    params: Json = setting({}, identity="content")
    budget: Json = setting({}, "overrides of the experiment's budget", schema=Budget)
    match: str | None = setting(None, "another arm, whose tokens of each domain are matched")

    def __post_init__(self) -> None:
        check("select", self)


@dataclass
class Mixture:
    """How a selection becomes a training set: an option of ``configs/mixture``."""

    kind: str = setting("alone", choices="alone (the selection) | add (full corpus + selection)")
    weight: int = setting(1, "how often the selection is added", within=COUNT)
    full: int = setting(1, "add: how often the full corpus is in it", within=COUNT)

    def __post_init__(self) -> None:
        check("mixture", self)
