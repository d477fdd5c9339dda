"""What an experiment's YAML states before it runs, and what a command line changes of it.

Stated are the endpoint and what it is measured on, the primary contrast with what its arms select and their
seeds, the heads and how they are masked, the tokens of a training, the smallest effect of interest, and what
is concluded from each outcome (``configs/exp``, at the scale in use). The power a pilot
promises and the conclusion after the run: ``repro.outcomes.registration``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from repro.plain import Json
from repro.settings.arms import picked
from repro.settings.root import Settings, as_dict

SHOWN = {
    "endpoint": "endpoint",
    "measured": "measured on",
    "contrast": "primary contrast",
    "arms": "arms",
    "seeds": "seeds",
    "selects": "selection",
    "heads": "heads",
    "mask": "mask",
    "tokens": "training tokens",
    "smallest_effect": "smallest effect of interest",
    "conclusions": "conclusions",
}


def stated(settings: Mapping[str, Any]) -> Json:
    """What ``settings`` (plain values) state: of the primary contrast, or of every arm where there is
    none.
    """
    exp = settings["exp"]
    arms = picked(list(exp["arms"]), exp["only"])
    primary = next((c for c in exp["contrasts"] if c["primary"]), None)
    sides = [primary["treatment"], primary["control"]] if primary else arms
    sides = [arm for arm in sides if arm in exp["arms"]]
    return {
        "endpoint": exp["endpoint"],
        "measured": {key: list(settings["eval"][key]) for key in ("tasks", "text_tasks")},
        "contrast": f"{primary['treatment']} − {primary['control']}" if primary else None,
        "arms": arms,
        "seeds": {arm: list(exp["arms"][arm]["seeds"] or exp["seeds"]) for arm in sides},
        "selects": {arm: _selects(settings, arm) for arm in sides},
        "heads": {key: settings["heads"][key] for key in ("detector", "share", "damage_tolerance")},
        "mask": settings["score"]["mask"],
        "tokens": settings["train"]["tokens"],
        "smallest_effect": exp["smallest_effect"],
        "conclusions": dict(exp["conclusions"]),
    }


def _selects(settings: Mapping[str, Any], name: str) -> Json:
    arm = settings["exp"]["arms"][name]
    budget = {**settings["budget"], **(arm["select"].get("budget") or {}), **arm["budget"]}
    return {
        "selector": arm["select"]["selector"],
        "params": arm["select"].get("params") or {},
        **({"match": arm["select"]["match"]} if arm["select"].get("match") else {}),
        "mixture": {"kind": "alone", "weight": 1, "full": 1, **arm["mixture"]},
        "equal_passes": arm["equal_passes"],
        **{key: budget[key] for key in ("share", "unit", "scope", "length_bins", "within_group")},
    }


def deviations(settings: Settings) -> list[str]:
    """What a command line changed of what the YAML files state, a sentence each; empty if nothing."""
    before, now = settings.exp.registered, stated(as_dict(settings))
    found = []
    for key, words in SHOWN.items():
        if not before or before[key] == now[key]:
            continue
        old, new = before[key], now[key]
        if key == "arms":
            gone, added = [a for a in old if a not in new], [a for a in new if a not in old]
            told = [
                f"{which} {_few(names)}" for which, names in (("left out", gone), ("added", added)) if names
            ]
            found += [f"{words}: {'; '.join(told)}"] if told else []
        elif isinstance(old, dict) and isinstance(new, dict):  # by arm; which came and went is told above
            found += [
                f"{words} of {k}: {_said(new[k])}, registered {_said(old[k])}"
                for k in old
                if k in new and old[k] != new[k]
            ]
        else:
            found.append(f"{words}: {_said(new)}, registered {_said(old)}")
    return found


def _few(names: list[str], shown: int = 5) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _said(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
