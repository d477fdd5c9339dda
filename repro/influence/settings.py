"""Influence scoring."""

from __future__ import annotations

from dataclasses import dataclass

from repro.errors import require
from repro.schema import ANY, COUNT, IF_SET, POSITIVE, check, how, setting


@dataclass
class Score:
    """Influence scoring (section 4.2, eq. 5)."""

    mask: str = setting("uniform", choices="uniform | zero | mean")
    window: int = setting(1024, "of a window; windows do not overlap", unit="tokens", within="[2, inf)")
    max_tokens: int | None = setting(None, "of a document at most; null = all", unit="tokens")
    sample: float = setting(
        1.0, "of the documents, by hash; select=distilled ranks the others", identity=IF_SET, within="(0, 1]"
    )
    tokens_per_batch: int = setting(4096, "computed at once", unit="tokens", within=COUNT)
    padding: float = setting(
        0.04,
        "of a batch at most; a batch of few tokens is cheap but on a GPU",
        identity=IF_SET,
        within="[0, 1)",
    )
    processes: int = how(0, "local scoring processes, 0 = one per GPU or CPU core", within=ANY)
    tokenizers: int | None = how(
        None, "processes that tokenise ahead of each; null = beside a GPU its share of the cores", within=ANY
    )
    threads: int = setting(
        1, "CPU threads of each; it changes last bits, and more processes are faster", within=COUNT
    )
    lease_seconds: float = how(
        60.0, "without a sign, until a shard goes to others", unit="seconds", within=POSITIVE
    )
    token_losses: int = setting(
        0, "keep those of so many top and bottom documents a domain", identity="stage", within=ANY
    )

    def __post_init__(self) -> None:
        check("score", self)
        require(
            self.max_tokens is None or self.max_tokens >= self.window,
            f"score.max_tokens={self.max_tokens} is below score.window={self.window}; "
            "raise score.max_tokens or lower score.window",
        )
