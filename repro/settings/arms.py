"""Arms by the dozen: a ``grid:`` of selectors and shares in an experiment's YAML, and the choice of some of
them.

A block of the grid names options of ``configs/select``, shares, and whether arms read equal tokens, equal
passes or both::

    grid:
      - {select: [attention_influence, random], share: [0.05, 0.2], budgets: [tokens, passes], against:
        [random, full]}

That is ``attention_influence_05``, ``attention_influence_05_passes`` and so on; each arm is compared with the
arms of ``against`` at its own share and budget (``full`` has none), where it is not one of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from repro.errors import SettingError, nearest, one_of, require
from repro.plain import Json
from repro.settings.experiment import Contrast, Experiment
from repro.settings.files import options

BUDGETS = {"tokens": "", "passes": "_passes"}  # end of an arm's name
FULL = "full"


@dataclass
class Block:
    """One block of a grid; the product of its lists."""

    select: list[str]
    share: list[float]
    budgets: list[str] = field(default_factory=lambda: ["tokens"])
    against: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, known in (("select", options("select")), ("budgets", list(BUDGETS))):
            for given in getattr(self, name):
                one_of(name, given, known)
        for share in self.share:
            percent = 100 * share
            require(0 < share < 1, f"share {share} must lie between 0 and 1; everything is the arm {FULL}")
            require(
                abs(percent - round(percent)) < 1e-9,
                f"share {share} must be a whole number of per cent: it is in the names",
            )


def named(select: str, share: float, budget: str = "tokens") -> str:
    """The name of an arm of the grid."""
    return f"{select}_{round(100 * share):02}{BUDGETS[budget]}"


def expand(exp: Json, where: str) -> Json:
    """``exp`` of a YAML with its ``grid`` written out: arms and contrasts of the file stay, and stand
    first.
    """
    exp = dict(exp)
    try:
        blocks = [Block(**block) for block in exp.pop("grid", [])]
    except (TypeError, SettingError) as error:
        raise SettingError(f"{where}: exp.grid: {error}") from None
    if not blocks:
        return exp
    arms, contrasts = dict(exp.get("arms", {})), list(exp.get("contrasts", []))
    cells = [(b, s, x, u) for b in blocks for u in b.budgets for s in b.select for x in b.share]
    for _, select, share, budget in cells:
        passes = {"equal_passes": True} if budget == "passes" else {}
        arms.setdefault(
            named(select, share, budget), {"select": select, "budget": {"share": share}, **passes}
        )
    pairs = [(c["treatment"], c["control"]) for c in contrasts]
    for block, select, share, budget in cells:
        arm = named(select, share, budget)
        for other in block.against:
            control = other if other == FULL else named(other, share, budget)
            if arm != control and (arm, control) not in pairs:
                pairs.append((arm, control))
                contrasts.append({"treatment": arm, "control": control})
    return {**exp, "arms": arms, "contrasts": contrasts}


def picked(names: list[str], only: list[str]) -> list[str]:
    """The names that a pattern of ``only`` fits; all of them without patterns."""
    return [name for name in names if not only or any(fnmatchcase(name, pattern) for pattern in only)]


def pick(exp: Experiment, written: list[str], overrides: list[str]) -> None:
    """Keep the arms of ``exp.only``, those that the command line adds to the ``written`` ones, and their
    contrasts. An added arm is compared with the control of the primary contrast, unless ``overrides`` say
    what is compared.

    Raises :class:`SettingError` for a pattern that fits no arm, and for ``overrides`` of an arm that is left
    out.
    """
    for pattern in exp.only:
        require(
            bool(picked(list(exp.arms), [pattern])),
            f"exp.only: no arm fits {pattern!r}; did you mean {nearest(pattern, exp.arms)}? exp.only=['*']"
            " takes all",
        )
    kept = {*picked(list(exp.arms), exp.only), *(set(exp.arms) - set(written))}
    for override in overrides:
        path = override.partition("=")[0].split(".")
        require(
            path[:2] != ["exp", "arms"] or len(path) < 3 or path[2] in kept,
            f"{override}: exp.only leaves this arm out; name it there too:"
            f" exp.only=[{','.join([*exp.only, *path[2:3]])}]",
        )
    contrasts = [c for c in exp.contrasts if c.treatment in kept and c.control in kept]
    primary = next((c for c in exp.contrasts if c.primary), None)
    require(
        primary is None or primary in contrasts,
        f"exp.only leaves out {primary and primary.treatment} or {primary and primary.control}, which the"
        " primary contrast compares; name them in exp.only, or name another contrast with exp.contrasts",
    )
    exp.arms = {name: arm for name, arm in exp.arms.items() if name in kept}
    compared = {arm for c in contrasts for arm in (c.treatment, c.control)}
    if primary is not None and not any(override.startswith("exp.contrasts") for override in overrides):
        alone = [name for name in exp.arms if name not in written and name not in compared]
        contrasts += [Contrast(name, primary.control) for name in alone]
    exp.contrasts = contrasts
