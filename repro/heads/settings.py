"""Which heads are important."""

from __future__ import annotations

from dataclasses import dataclass

from repro.errors import require
from repro.schema import check, setting

COUNT = "[1, inf)"
SAMPLES = "detector"  # enters where the detector in use reads it (repro.heads.detectors)


@dataclass
class Heads:
    """Which heads are important (section 4.1, appendix A)."""

    detector: str = setting(
        "retrieval",
        "a file of repro/heads/detectors, or a control: random | random_same_layers | random_matched_damage | bottom; exp=mirror_effect also: none",
        identity="heads",
    )
    share: float = setting(0.05, "of all heads that count as important", identity="heads", within="(0, 1]")
    probes: int = setting(800, "how many key-value probes", identity="detection", within=COUNT)
    probe_tokens: int = setting(
        4096, "of the longest probe", unit="tokens", identity="detection", within="[128, inf)"
    )
    shots: int = setting(3, "examples before the question of a probe", identity=SAMPLES, within="[0, inf)")
    key_characters: int = setting(32, "of a random key", unit="characters", identity=SAMPLES, within=COUNT)
    value_tokens: int = setting(
        30, "of the longest value, a sentence of the corpus", unit="tokens", identity=SAMPLES, within=COUNT
    )
    match: str = setting(
        "needle", identity=SAMPLES, choices="needle (Wu et al.) | any (any earlier copy of the token)"
    )
    decoding: str = setting("teacher_forcing", identity=SAMPLES, choices="teacher_forcing | greedy")
    stop_when_stable: bool = setting(
        False,
        "end detection early once both halves of the probes choose the same heads",
        identity="as stop_at_share",
    )
    damage_tolerance: float = setting(
        0.1,
        "random_matched_damage: |loss rise / loss rise of the retrieval heads - 1|",
        identity="random_matched_damage",
        within="[0, inf)",
    )
    draws: int = setting(
        64, "random_matched_damage: how many draws are tried", identity="random_matched_damage", within=COUNT
    )
    seed: int = setting(0, "of the probes", identity="detection")
    control_seed: int = setting(
        0, "of the random heads of a control; the probes stay the same", identity="as seed of a control"
    )
    given: list[list[int]] = setting(
        [], "[[layer, head], ...]: these are masked, and nothing is detected", identity="given"
    )

    def __post_init__(self) -> None:
        check("heads", self)
        for pair in self.given:
            require(
                len(pair) == 2 and min(pair) >= 0,
                f"heads.given: {pair} must be [layer, head], both counted from 0",
            )
        require(
            len({tuple(pair) for pair in self.given}) == len(self.given), "heads.given names a head twice"
        )
