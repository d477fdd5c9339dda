"""What is selected, how much of it, and how a selection becomes a training set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from repro.errors import require
from repro.schema import IF_SET, check, setting


@dataclass
class Budget:
    """How much is selected."""

    share: float = setting(0.3, "of each domain that is selected", within="(0, 1]")
    unit: str = setting("tokens", choices="tokens (whole documents, n_tokens_doc) | documents")
    scope: str = setting("domain", choices="domain | global")
    length_bins: int = setting(1, "rank within bins of document length", within="[1, inf)")
    within_group: bool = setting(
        False, "rank within source groups; those of fewer than 1 / share documents together"
    )
    one_per_cluster: bool = setting(
        False, "of near-duplicates only the one of highest priority may be selected"
    )
    unranked: str = setting(
        "skip", choices="skip (documents without a finite priority are never selected, and counted) | refuse"
    )
    frozen: str | None = setting(
        None,
        "selection.json of an earlier run: its cuts are applied instead of the share",
        identity="content",
    )
    leave_out: list[str] = setting(
        [], "domains that no document is taken of; see exp.empty_domains", identity=IF_SET
    )

    def __post_init__(self) -> None:
        require(
            self.frozen is None
            or (
                self.scope == "domain"
                and self.length_bins <= 1
                and not self.within_group
                and not self.one_per_cluster
            ),
            "budget.frozen applies one cut per domain; leave out budget.scope, length_bins, within_group and"
            " one_per_cluster",
        )
        check("budget", self)


@dataclass
class Select:
    """A selector: an option of ``configs/select``. ``params`` go to the selector's function."""

    selector: str = setting("all")
    params: dict[str, Any] = setting({}, identity="content")
    budget: dict[str, Any] = setting({}, "overrides of the experiment's budget", schema=Budget)
    match: str | None = setting(
        None, "another arm, whose tokens of each domain are selected instead of the budget's share"
    )


@dataclass
class Mixture:
    """How a selection becomes a training set: an option of ``configs/mixture``."""

    kind: str = setting("alone", choices="alone (the selection) | add (full corpus + selection)")
    weight: int = setting(1, "how often the selection is added", within="[1, inf)")
    full: int = setting(1, "add: how often the full corpus is in it", within="[1, inf)")

    def __post_init__(self) -> None:
        check("mixture", self)
