"""What an experiment asks, in words that follow its settings: another share, selector or proxy is another
question.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from repro import kinds

if TYPE_CHECKING:
    from repro.settings.experiment import Arm
    from repro.settings.root import Settings

RANKED = {"attention_influence": "AttentionInfluence ranks highest"}


def filled(settings: Settings) -> str:
    """``exp.question`` with its names in braces filled in; braces around anything else stay as they are.

    ``{treatment}`` and ``{control}`` are the arms of the primary contrast, or else of the first; ``{first}``
    is the first arm, ``{arms}`` their names, ``{others}`` how many more there are, ``{selectors}`` what they
    rank by, ``{measures}`` those of ``exp.params`` and ``{proxy}`` the model.
    """
    exp = settings.exp
    contrast = next((c for c in exp.contrasts if c.primary), exp.contrasts[0] if exp.contrasts else None)
    names = {"first": next(iter(exp.arms))}
    names |= {side: getattr(contrast, side) for side in ("treatment", "control") if contrast is not None}
    values = {side: _arm(settings, exp.arms[name]) for side, name in names.items() if name in exp.arms}
    values["arms"] = _listed(list(exp.arms))
    values["others"] = str(len(exp.arms) - 1)
    values["selectors"] = _listed(list(dict.fromkeys(_selector(settings, arm) for arm in exp.arms.values())))
    values["measures"] = _listed(list(exp.params.get("measures", {})))
    values["proxy"] = _model(settings, {})
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), exp.question)


def _arm(settings: Settings, arm: Arm) -> str:
    """What an arm is made of: what its kind of experiment says (``made_of``), or else documents."""
    if (made_of := getattr(kinds.load(settings.exp.kind), "made_of", None)) is not None:
        return made_of(settings, arm)
    what = _documents(settings, arm)
    if arm.mixture.kind == "alone" or arm.select.selector == "all":
        return what
    times = "" if arm.mixture.weight == 1 else f"{arm.mixture.weight} times "
    return f"the full corpus plus {times}{what}"


def _documents(settings: Settings, arm: Arm) -> str:
    if arm.select.selector == "all":
        return "all documents"
    if arm.select.match:
        kind = "random subset" if arm.select.selector == "random" else f"subset by {_selector(settings, arm)}"
        return f"a {kind} of the same tokens and repeats"
    budget = {**vars(settings.budget), **arm.budget, **arm.select.budget}
    share = f"{100 * budget['share']:.4g} %"
    if budget["frozen"]:
        return f"the documents above an earlier run's threshold by {_selector(settings, arm)}"
    whole = (
        f"{share} of each domain's {budget['unit']}"
        if budget["scope"] == "domain"
        else f"{share} of all {budget['unit']}"
    )
    if arm.select.selector == "random":
        return f"a random {whole}"
    ranked = RANKED.get(arm.select.selector) if arm.select.params.get("keep", "high") == "high" else None
    by = f"{ranked}" if ranked else f"{_selector(settings, arm)} takes first"
    return f"the {whole} that {by}{f' with {_model(settings, arm.proxy)}' if arm.proxy else ''}"


def _selector(settings: Settings, arm: Arm) -> str:
    keep = arm.select.params.get("keep")
    name = (
        "AttentionInfluence"
        if arm.select.selector == "attention_influence"
        else arm.select.selector.replace("_", " ")
    )
    return f"{name} ({keep})" if keep and (keep != "high" or name != "AttentionInfluence") else name


def _model(settings: Settings, own: dict[str, object]) -> str:
    """The proxy's name; of the hub and of folders what they are called there."""
    proxy = {**vars(settings.proxy), **own}
    place = {"hub": proxy["repo"], "folder": proxy["path"], "gguf": proxy["path"]}.get(str(proxy["kind"]))
    named = proxy["name"] if proxy["kind"] in ("wheel", "gguf") else proxy["kind"]
    return str(place).rstrip("/").rpartition("/")[2] if place else str(named)


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)
