"""What is compared: arms, contrasts between them, and what follows from each outcome."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from repro import kinds
from repro.errors import SettingError, nearest, one_of, require
from repro.heads.settings import Heads
from repro.influence.settings import Score
from repro.plain import Json
from repro.pretrain.settings import Model, Train
from repro.proxy.settings import Proxy
from repro.schema import POSITIVE, check, how, setting
from repro.selection.settings import Budget, Mixture, Select

# Of the primary contrast; "described" is for experiments that compare nothing.
OUTCOMES = ("better", "worse", "equivalent", "undecided", "described")


@dataclass
class Arm:
    """One treatment: what it is trained on. ``select`` and ``mixture`` are option names in YAML.

    ``budget``, ``train``, ``model``, ``proxy``, ``heads`` and ``score`` override the experiment's for this
    arm. With ``equal_passes`` it is trained on ``budget.share`` of ``train.tokens``, so that it passes over
    its documents as often as the full arm does over all.
    """

    select: Any = setting("all", "an option of configs/select", schema=Select)
    mixture: Any = setting("alone", "an option of configs/mixture", schema=Mixture)
    budget: Json = setting({}, schema=Budget)
    train: Json = setting({}, schema=Train)
    model: Json = setting({}, schema=Model)
    proxy: Json = setting({}, schema=Proxy)
    heads: Json = setting({}, schema=Heads)
    score: Json = setting({}, schema=Score)
    equal_passes: bool = setting(False, "trained on budget.share of train.tokens")
    seeds: list[int] = setting([], "of this arm; empty = exp.seeds. Contrasts pair the seeds both arms have")

    def __post_init__(self) -> None:
        _seeds(f"an arm's seeds={self.seeds} name", self.seeds)


# What an arm may override of the experiment's settings.
OVERRIDES: dict[str, type] = {
    f.name: f.metadata["schema"] for f in fields(Arm) if f.metadata["schema"] and f.type != "Any"
}


@dataclass
class Contrast:
    """``treatment`` minus ``control``, paired by seed."""

    treatment: str = how("")
    control: str = how("")
    primary: bool = how(False)
    noise: bool = how(False, "both arms are drawn alike: its spread is the noise of power")

    def __post_init__(self) -> None:
        both = self.primary and self.noise
        require(not both, "a contrast of exp.contrasts is primary or noise, not both")


@dataclass
class Experiment:
    """What is compared. Endpoint, primary contrast, smallest effect and conclusions stand here before the
    runs.
    """

    name: str = how("", "of the experiment's file; part of the run folder's name")
    kind: str = setting("train", "a folder of repro/experiments")
    question: str = how("", "names in braces follow the settings (repro.settings.question)")
    endpoint: str = how("bits_per_byte", "mean over out-of-corpus text and gold answers")
    arms: dict[str, Arm] = setting({}, "by name: what is compared")
    contrasts: list[Contrast] = how([], "[{treatment: ARM, control: ARM, primary: true}, ...]")
    seeds: list[int] = setting([0, 1, 2], "of the trainings; arms are paired by them")
    params: Json = setting({}, "of the kind of experiment")
    only: list[str] = setting([], "names or patterns (random_*) of the arms to run; empty = all")
    empty_domains: str = setting("refuse", "of a share", choices="refuse | leave_out (of all arms alike)")
    smallest_effect: float | None = how(
        None,
        "of interest, in the endpoint's unit, of either sign; a file's goes with its endpoint",
        within=POSITIVE,
    )
    conclusions: dict[str, str] = how({}, "what follows from each outcome of the primary contrast")
    pilot: str | None = how(None, "run folder of a pilot; null = looked for (repro.settings.registration)")
    registered: Json = how({}, "what the YAML files say, filled in by compose()")

    def __post_init__(self) -> None:
        one_of("exp.kind", self.kind, kinds.NAMES)
        check("exp", self)
        for outcome in self.conclusions:
            one_of("exp.conclusions", outcome, OUTCOMES)
        require(bool(self.seeds), "exp.seeds=[] names no seed; one is enough: exp.seeds=[0]")
        _seeds(f"exp.seeds={self.seeds} names", self.seeds)
        for arm in {side for c in self.contrasts for side in (c.treatment, c.control)} - set(self.arms):
            raise SettingError(
                f"exp.contrasts names the arm {arm!r}; did you mean {nearest(arm, self.arms)}?"
            )
        pairs = [(c.treatment, c.control) for c in self.contrasts]
        for treatment, control in pairs:
            named = f"exp.contrasts compares {treatment} with {control}"
            require(treatment != control, f"{named}; name two arms")
            require(pairs.count((treatment, control)) == 1, f"{named} twice; name it once")
        primary = sum(c.primary for c in self.contrasts)
        require(primary <= 1, "exp.contrasts may hold one primary contrast only")


def _seeds(named: str, seeds: list[int]) -> None:
    require(len(set(seeds)) == len(seeds), f"{named} a seed twice")
    require(all(seed >= 0 for seed in seeds), f"{named} a seed below 0")
