"""Before a run: the power that a pilot promises. After it: what it did of what was stated, and the conclusion
that was fixed.

Power rests on a pilot (``exp=pilot``): two arms that are random draws of the same size. Its paired standard
deviation is an estimate from few seeds, so its upper 80 % limit is used. None of this enters a fingerprint:
it changes no result, only what may be said of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from repro import places
from repro.errors import SettingError
from repro.outcomes import summary as summaries
from repro.outcomes.outcome import Conclusion, Json, Outcome, Registration
from repro.outcomes.words import conclusion
from repro.settings.registration import deviations, stated
from repro.settings.root import Settings, as_dict

RESULTS = places.home() / "results"
# What the sides of the primary contrast share with those of a pilot whose noise is theirs.
SIDES = {
    "share": "budget.share",
    "unit": "budget.unit",
    "mixture": "exp.mixture",
    "equal_passes": "exp.equal_passes",
}
# Where things are and which draw of them is taken: another pilot of the same setting may differ in these, and
# in what enters no fingerprint.
WHERE: dict[str, tuple[str, ...]] = {
    "corpus": ("paths", "folder", "seed", "hub", "shard_documents"),
    "model": (),
    "train": ("keep_at", "keep_at_tokens", "branch_at_decay", "branch_from"),
    "eval": ("batch_size",),
    "items": ("folder", "revisions"),
}


def pairs(settings: Settings) -> int:
    """Seeds that both arms of the primary contrast have; 0 without one."""
    exp = settings.exp
    primary = next((c for c in exp.contrasts if c.primary), None)
    if primary is None:
        return 0
    ours, theirs = (set(exp.arms[arm].seeds or exp.seeds) for arm in (primary.treatment, primary.control))
    return len(ours & theirs)


def power(settings: Settings) -> Json | None:
    """What the primary contrast can see by the pilot of this setting: ``pilot``, ``deviation`` (upper limit),
    ``pairs``, ``power`` at the smallest effect of interest and ``detectable`` (seen with 80 %). ``{"unknown":
    why}`` without a pilot, ``None`` where nothing is compared.

    Raises :class:`SettingError` for an ``exp.pilot`` that is none.
    """
    number = pairs(settings)
    if not number:
        return None
    found, named = _pilot(settings)
    if found is None:
        return {"unknown": named}
    if found["settings"]["exp"].get("kind", "train") != settings.exp.kind:
        return {"unknown": f"the noise of {named}, another kind of experiment, says nothing of this one"}
    noise = found.get("noise", {}).get(settings.exp.endpoint)
    if noise is None or not noise["paired_limit"] > 0:
        return {"unknown": f"the pilot has no noise of {settings.exp.endpoint}"}
    from repro.outcomes import statistics

    limit, effect = noise["paired_limit"], settings.exp.smallest_effect
    return {
        "pilot": named,
        "differs": differences(found["settings"], settings),
        "deviation": limit,
        "pairs": number,
        "power": statistics.power(effect, limit, number) if effect and number >= statistics.FEWEST else None,
        "detectable": statistics.detectable(limit, number) if number >= statistics.FEWEST else None,
    }


def limits(settings: Settings) -> dict[str, float]:
    """{metric: upper limit of the standard deviation of one seed's difference}, by the pilot of this setting;
    empty without.
    """
    try:
        found, _ = _pilot(settings) if pairs(settings) else (None, "")
    except SettingError:  # gone since the run began, which must not cost the report
        return {}
    if found is None or found["settings"]["exp"].get("kind", "train") != settings.exp.kind:
        return {}
    return _limits(found)


def _limits(pilot: Outcome) -> dict[str, float]:
    noise = pilot.get("noise", {})
    return {metric: row["paired_limit"] for metric, row in noise.items() if row["paired_limit"] > 0}


def limits_on_record(summary: Outcome) -> dict[str, float]:
    """:func:`limits` by what a finished run says of its pilot: all of it where that is in ``results/``, else
    the endpoint's.
    """
    power = summary.get("registration", {}).get("power") or {}
    if "pilot" not in power:
        return {}
    folder = RESULTS / Path(power["pilot"]).name
    committed = power["pilot"].startswith("results/") and (folder / "summary.json").is_file()
    return _limits(summaries.read(folder)) if committed else {summary["endpoint"]: power["deviation"]}


def _pilot(settings: Settings) -> tuple[Outcome | None, str]:
    """The pilot's summary and the name of its folder (no place of this machine); else why there is none."""
    if settings.exp.pilot is not None:
        found = summaries.read(Path(settings.exp.pilot))
        if not found.get("noise"):
            raise SettingError(
                f"exp.pilot={settings.exp.pilot} is no pilot of two arms; make one with exp=pilot"
            )
        return found, Path(settings.exp.pilot).name
    near: list[str] = []
    for folder in _candidates(Path(settings.work)):
        try:
            found = summaries.read(folder)
        except SettingError:  # of another version: no pilot for this one
            continue
        if not (differ := differences(found["settings"], settings)):
            return found, f"results/{folder.name}" if folder.parent == RESULTS else folder.name
        near.append(
            f"{folder.name} differs in {', '.join(differ[:3])}{' and more' if len(differ) > 3 else ''}"
        )
    return None, "no pilot of this setting" + (f" ({near[0]})" if near else "")


def _candidates(work: Path) -> Iterator[Path]:
    for file in sorted([*RESULTS.glob("*/summary.json"), *(work / "runs").glob("*/summary.json")]):
        # parsed only where it is one
        if '"noise": {\n' in file.read_text(encoding="utf-8", errors="replace"):
            yield file.parent


def differences(pilot: Mapping[str, Any], settings: Settings) -> list[str]:
    """Settings that noise depends on and that a pilot does not share, by name; shares, mixtures and budgets
    are those of the primary contrast, and a corpus is another one where it is called otherwise.
    """
    ours = as_dict(settings)
    found = []
    for group, where in WHERE.items():
        left, right = pilot.get(group, {}), ours[group]
        how = {f.name for f in fields(getattr(settings, group)) if f.metadata["identity"] is False}
        found += [
            f"{group}.{key}"
            for key in right
            if key not in how.union(where) and key in left and left[key] != right[key]
        ]
    theirs, mine = (_called(values.get("corpus", {})) for values in (pilot, ours))
    found += ["corpus.paths"] if theirs != mine else []
    before, now = (stated(values)["selects"].values() for values in (pilot_values(pilot), ours))
    return found + [
        name
        for key, name in SIDES.items()
        if {repr(side[key]) for side in before} != {repr(side[key]) for side in now}
    ]


def _called(corpus: Mapping[str, Any]) -> list[str]:
    """What a corpus is called: the files' and folders' own names, which other machines keep."""
    places = [*(corpus.get("paths") or []), *([folder] if (folder := corpus.get("folder")) else [])]
    return sorted(Path(place).name for place in places)


def pilot_values(pilot: Mapping[str, Any]) -> Json:
    """Settings of a pilot as :func:`stated` reads them, whatever version wrote them."""
    exp = {"only": [], "smallest_effect": None, "conclusions": {}, **pilot["exp"]}
    exp["arms"] = {name: {"seeds": [], **arm} for name, arm in exp["arms"].items()}
    exp["contrasts"] = [{"primary": False, **contrast} for contrast in exp["contrasts"]]
    return {**pilot, "exp": exp}


def lines(settings: Settings) -> list[str]:
    """The registration for the terminal, before anything runs; nothing where nothing is compared."""
    said = stated(as_dict(settings))
    if said["contrast"] is None:
        return []
    effect = said["smallest_effect"]
    interest = (
        f"smallest effect of interest {effect:g}" if effect else "no smallest effect of interest is stated"
    )
    found = [f"registered: {said['contrast']} on {said['endpoint']}, {pairs(settings)} pairs; {interest}"]
    found += [f"  {outcome}: {text}" for outcome, text in said["conclusions"].items()]
    found.append(power_line(power(settings), effect))
    return found + [f"deviates from its registration: {text}" for text in deviations(settings)]


def power_line(found: Mapping[str, Any] | None, effect: float | None) -> str:
    """Power in a sentence."""
    if found is None or "unknown" in found:
        return f"power: not known, {found['unknown'] if found else 'nothing is compared'}"
    if found["detectable"] is None:
        return f"power: none with {found['pairs']} pairs: an interval needs three"
    at = f"{found['power']:.0%} at {effect:g}, " if found["power"] is not None else ""
    other = f"; the pilot differs in {', '.join(found['differs'])}" if found["differs"] else ""
    return (
        f"power: {at}80 % at {found['detectable']:.4f}, from {found['pairs']} pairs with a standard deviation"
        f" of {found['deviation']:.4f} (upper 80 % limit of {found['pilot']}{other}); the choice of items is"
        " not in it"
    )


def record(settings: Settings) -> Registration:
    """For the summary: what was ``registered``, what this run has (``run``), its ``deviations`` in words, and
    the ``power``.
    """
    return {
        "registered": settings.exp.registered,
        "run": stated(as_dict(settings)),
        "deviations": deviations(settings),
        "power": _power(settings),
    }


def _power(settings: Settings) -> Json | None:
    """As printed before the run; a pilot that has gone since then must not cost the report."""
    try:
        return power(settings)
    except SettingError as error:
        return {"unknown": str(error)}


def _compared(stated: Json) -> list[Json]:
    """What the sides of the primary contrast are made of, whatever the arms are called and keep."""
    return [
        {key: side[key] for key in ("selector", "match", "mixture") if key in side}
        for side in stated["selects"].values()
    ]


def concluded(summary: Outcome) -> Conclusion | None:
    """The ``outcome`` of the primary contrast and the ``text`` that was stated for it; ``None`` where nothing
    was stated.

    A demonstration draws no conclusion, whatever its interval.
    """
    from repro.outcomes.compare import primary

    row, registration = primary(summary), summary.get("registration")
    if row is None or registration is None or not registration["run"]["conclusions"]:
        return None
    run = registration["run"]
    if summary["verdict"]["demonstration"]:
        return {
            "outcome": "none",
            "text": "A demonstration: none of the conclusions stated beforehand is drawn.",
        }
    margin, low, high = run["smallest_effect"], row["low"], row["high"]
    outcome = conclusion(row["low"], row["high"], row["lower_is_better"], margin)
    text = run["conclusions"].get(outcome, "Nothing was stated for this outcome.")
    before = registration.get("registered")
    if before and before["conclusions"] == run["conclusions"] and _compared(before) != _compared(run):
        text = f"What was stated is about {before['contrast']}; for {run['contrast']} nothing was."
    ends = None if low is None or high is None else max(abs(low), abs(high))
    sure = outcome in ("better", "worse")
    if sure and ends is not None and margin is not None and ends < margin:
        text += f" The whole interval is smaller than the smallest effect of interest, {margin:g}."
    return {"outcome": outcome, "text": text}
