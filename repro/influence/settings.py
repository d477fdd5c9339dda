"""Influence scoring."""

from __future__ import annotations

from dataclasses import dataclass

from repro.errors import require
from repro.schema import IF_SET, check, how, setting

COUNT = "[1, inf)"


@dataclass
class Score:
    """Influence scoring (section 4.2, eq. 5)."""

    mask: str = setting("uniform", choices="uniform | zero | mean")
    window: int = setting(
        1024, "of a window; long documents become non-overlapping windows", unit="tokens", within="[2, inf)"
    )
    max_tokens: int | None = setting(
        None, "of a document that are scored at most; null = every document whole", unit="tokens"
    )
    sample: float = setting(
        1.0,
        "of the documents, drawn by hash; select=distilled ranks the others",
        identity=IF_SET,
        within="(0, 1]",
    )
    tokens_per_batch: int = setting(
        4096, "computed at once; lower it where memory is short", unit="tokens", within=COUNT
    )
    processes: int = how(0, "local scoring processes, 0 = one per GPU or CPU core", within="[0, inf)")
    threads: int = setting(
        1,
        "CPU threads of each, on which the last bits of a product can depend; several processes of one thread are faster than one of several",
        within=COUNT,
    )
    lease_seconds: float = how(
        60.0,
        "without a sign of life, after which a worker's shards go to others",
        unit="seconds",
        within="(0, inf)",
    )
    token_losses: int = setting(
        0,
        "keep per-token losses of this many top and bottom documents per domain (report)",
        identity="stage",
        within="[0, inf)",
    )

    def __post_init__(self) -> None:
        check("score", self)
        require(
            self.max_tokens is None or self.max_tokens >= self.window,
            f"score.max_tokens={self.max_tokens} is below score.window={self.window}; "
            "raise score.max_tokens or lower score.window",
        )
