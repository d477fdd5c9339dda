"""What a command line changes of an experiment's arms: their options, values below them, new arms, and arms
that are dropped with their contrasts.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from repro.errors import SettingError, as_file_name, nearest, require
from repro.selection.settings import Budget, Mixture, Select
from repro.settings import typed, words
from repro.settings.experiment import OVERRIDES, Experiment
from repro.settings.files import read_option
from repro.settings.root import Settings

OPTIONS: dict[str, type] = {"select": Select, "mixture": Mixture}


def with_options(conf: Any) -> Any:
    """``conf`` with the content of the option where an arm names one, so that dotted values can change parts
    of it.
    """
    for arm in conf.exp.arms.values():
        for group in OPTIONS:
            if isinstance(arm[group], str):
                arm[group] = read_option(group, arm[group])
    return conf


def laid_over(conf: Any, arguments: list[str]) -> tuple[Any, list[str]]:
    """``conf`` with the dotted ``arguments``, those of arms by turns; and the arguments less those that drop
    an arm.
    """
    written, dropped = list(conf.exp.arms), []
    for argument in sorted(arguments, key=lambda a: (_turn(a), _depth(a))):
        require(
            not re.fullmatch(r"exp\.arms=\s*(\{\s*\}|null)?\s*", argument),
            f"{argument} leaves no arm: an experiment is its arms; change them with"
            " exp.arms.<name>.<key>=value",
        )
        _check_arm(argument, list(conf.exp.arms))
        values = words.nested(Settings, argument)
        path = argument.partition("=")[0].split(".")
        if path[:2] == ["exp", "arms"] and len(path) == 3:
            conf.exp.arms.pop(path[2], None)  # given whole: nothing of the old one stays
            if values["exp"]["arms"][path[2]] is None:
                dropped.append(argument)
                require(
                    path[2] in written,
                    f"{argument}: there is no arm {path[2]!r}; did you mean {nearest(path[2], written)}?",
                )
                continue
        conf = with_options(typed.laid_over(conf, argument, values))
    _without(conf, dropped)
    return conf, [argument for argument in arguments if argument not in dropped]


def _depth(argument: str) -> int:
    """What is given whole comes before what lies below it."""
    return argument.partition("=")[0].count(".")


def _turn(argument: str) -> int:
    """Overrides of arms by turns: an arm, what it selects, its mixture, then what lies below them."""
    path = argument.partition("=")[0].split(".")
    if path[:2] != ["exp", "arms"] or len(path) < 4:
        return 0
    return {"select": 1, "mixture": 2}.get(path[3], 3) if len(path) == 4 else 3


def _check_arm(argument: str, arms: list[str]) -> None:
    """Refuse an override of an arm that is not there. A new arm begins with what it selects."""
    if not (turn := _turn(argument)) or (name := argument.split(".")[2]) in arms:
        return
    require(
        turn == 1,
        f"{argument}: the experiment has no arm {name!r}; did you mean {nearest(name, arms)}? A new arm"
        f" needs exp.arms.{name}.select=OPTION",
    )
    for arm in difflib.get_close_matches(name, arms, n=1, cutoff=0.9):
        # top10 is not top20
        slip = abs(len(arm) - len(name)) <= 1 and re.findall(r"\d", arm) == re.findall(r"\d", name)
        require(not slip, f"{argument}: did you mean the arm {arm!r}? A new arm needs a name less like it")


def _without(conf: Any, dropped: list[str]) -> None:
    """Take out the contrasts of arms that were dropped. Raises :class:`SettingError` where the primary one is
    among them.
    """
    gone = {argument.partition("=")[0].split(".")[2] for argument in dropped}
    for contrast in conf.exp.contrasts:
        for name in {contrast.treatment, contrast.control} & gone if contrast.get("primary") else ():
            raise SettingError(
                f"exp.arms.{name}=null drops an arm of the primary contrast; name another one with"
                " exp.contrasts=[...]"
            )
    conf.exp.contrasts = [c for c in conf.exp.contrasts if not {c.treatment, c.control} & gone]


def check(exp: Experiment) -> None:
    """Give what arms hold its types, and refuse what has none."""
    as_file_name("the experiment", exp.name)
    for name, arm in exp.arms.items():
        as_file_name("an arm", name)
        for group, schema in OPTIONS.items():
            setattr(arm, group, typed.as_object(schema, getattr(arm, group), f"exp.arms.{name}.{group}"))
        arm.select.budget = typed.override(Budget, arm.select.budget, f"exp.arms.{name}.select.budget")
        for group, schema in OVERRIDES.items():
            setattr(arm, group, typed.override(schema, getattr(arm, group), f"exp.arms.{name}.{group}"))
