"""Which heads are important."""

from __future__ import annotations

from dataclasses import dataclass

from repro.errors import require
from repro.schema import ANY, COUNT, check, setting

# whom of the stages' fingerprints a setting enters: that of detection where the detector in use reads it
SAMPLES, DAMAGE = "detector", "random_matched_damage"

CALIBRATION_TOKENS = 4096  # of the ordinary text that damage and mean outputs are measured on


@dataclass
class Heads:
    """Which heads are important (section 4.1, appendix A)."""

    detector: str = setting(
        "retrieval",
        "a file of repro/heads/detectors, or a control: random | random_same_layers | random_matched_damage |"
        " bottom; exp=mirror_effect also: none",
        identity="heads",
    )
    share: float = setting(0.05, "of all heads that count as important", identity="heads", within="(0, 1]")
    probes: int = setting(800, "how many key-value probes", identity="detection", within=COUNT)
    probe_tokens: int = setting(
        4096, "of a probe at most", unit="tokens", identity="detection", within="[128, inf)"
    )
    shots: int = setting(3, "examples before the question of a probe", identity=SAMPLES, within=ANY)
    key_characters: int = setting(32, "of a random key", unit="characters", identity=SAMPLES, within=COUNT)
    value_tokens: int = setting(
        30, "of a value, a sentence, at most", unit="tokens", identity=SAMPLES, within=COUNT
    )
    match: str = setting("needle", identity=SAMPLES, choices="needle (Wu et al.) | any (earlier copy)")
    decoding: str = setting("teacher_forcing", identity=SAMPLES, choices="teacher_forcing | greedy")
    stop_when_stable: bool = setting(
        False, "end once both halves of the probes choose alike", identity="as share"
    )
    damage_tolerance: float = setting(
        0.1, "|loss rise / that of the retrieval heads - 1|", identity=DAMAGE, within=ANY
    )
    draws: int = setting(64, "random_matched_damage: tries", identity=DAMAGE, within=COUNT)
    seed: int = setting(0, "of the probes", identity="detection", within=ANY)
    control_seed: int = setting(0, "of a control's random heads", identity="as seed", within=ANY)
    given: list[list[int]] = setting(
        [], "[[layer, head], ...] to mask; nothing is detected", identity="given"
    )
    given_of: list[int] = setting(
        [], "[layers, heads] of the model that heads.given were found in", identity="as given"
    )

    def __post_init__(self) -> None:
        check("heads", self)
        for pair in self.given:
            require(
                len(pair) == 2 and min(pair) >= 0, f"heads.given: {pair} must be [layer, head], from 0 on"
            )
        heads = {tuple(pair) for pair in self.given}
        require(len(heads) == len(self.given), "heads.given names a head twice")
