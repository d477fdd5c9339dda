"""What may be concluded from the comparisons of a run, in words: nothing else makes a verdict (method.md,
section 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import stdev

from repro.outcomes import simulated, words
from repro.outcomes.collect import misses
from repro.outcomes.compare import (
    Limits,
    Variances,
    add_average,
    compare_arms,
    covers_chance,
    differences,
    has_stage,
    item_variance,
    masked,
    measured,
    primary,
    secondary,
)
from repro.outcomes.outcome import Arm, Difference, Outcome, Verdict, bounds
from repro.settings.experiment import Contrast
from repro.settings.root import as_dict
from repro.store import finite

# a verdict needs as many seeds, selected documents and source groups a domain
SEEDS, DOCUMENTS, SOURCES = 3, 200, 3


def judge(
    summary: Outcome,
    contrasts: Sequence[Contrast],
    variances: Variances | None = None,
    limits: Limits | None = None,
) -> Outcome:
    """The summary with ``comparisons``, each arm's ``at_chance`` metrics, the ``verdict``, and the ``noise``
    of a pilot.

    ``variances`` are those from the items, ``limits`` the noise that a pilot measured of two arms of the
    primary contrast's share. The primary contrast on the endpoint comes first; only where it is called better
    or worse are the secondary comparisons tested, as one family (Holm), so that of all words of a run one is
    wrong in at most 5 % of runs.
    """
    from repro.outcomes.noise import noise

    # others failed whole
    contrasts = [c for c in contrasts if c.treatment in summary["arms"] and c.control in summary["arms"]]
    drawn_alike = next((as_dict(c) for c in contrasts if c.noise), None)
    contrasts = [contrast for contrast in contrasts if not contrast.noise]
    for arm in summary["arms"].values():
        arm["at_chance"] = [m for m in measured(arm) if covers_chance(arm, m)]
    add_average(summary)
    if drawn_alike is not None:
        summary = {**summary, "noise": noise(summary, drawn_alike)}
    comparisons = []
    for contrast in contrasts:
        known = limits if limits and _of_its_size(summary, contrast, contrasts) else None
        comparisons += compare_arms(
            summary, contrast, (variances or {}).get((contrast.treatment, contrast.control)), known
        )
    first = primary({**summary, "comparisons": comparisons})
    tested = first is not None and bool(words.direction(_word(summary, first)))
    family = secondary(comparisons, summary["endpoint"])
    correct(family, tested)
    for row in comparisons:
        row["verdict"] = _word(summary, row, tested or row is first)
    return {**summary, "comparisons": comparisons, "verdict": verdict(summary, comparisons)}


def _of_its_size(summary: Outcome, contrast: Contrast, contrasts: Sequence[Contrast]) -> bool:
    """Whether the arms of a contrast are cut as those of the primary one, whose size the pilot has."""

    def cut(arm: Arm) -> tuple[float, bool]:
        return arm["share"], arm["equal_passes"]

    first = next((c for c in contrasts if c.primary), contrast)
    sizes = {cut(summary["arms"][arm]) for arm in (first.treatment, first.control)}
    return {cut(summary["arms"][arm]) for arm in (contrast.treatment, contrast.control)} <= sizes


def correct(family: list[Difference], tested: bool) -> None:
    """Holm's correction of a family of comparisons, where it is ``tested``, and what each of them could see
    at the level that the correction leaves the first of them. In place.
    """
    from repro.outcomes import statistics

    names = {f"{r['treatment']}/{r['control']}/{r['metric']}": r for r in family}
    p_values = {name: p for name, row in names.items() if (p := row["p"]) is not None}
    corrected = statistics.holm(p_values) if tested else {}
    for name, row in names.items():
        row["p_holm"] = corrected.get(name)
        if (noise := row.get("noise")) is not None:
            effect = statistics.smallest_effect(
                noise, row["seeds"], item_variance(row), 1 - words.ALPHA / len(family)
            )
            row["detectable"] = finite(effect)


def _word(summary: Outcome, row: Difference, tested: bool = True) -> str:
    """The verdict on one comparison of a run (``repro.outcomes.words.verdict``); at chance there is none."""
    if row["at_chance"]:
        return words.AT_CHANCE
    if row.get("exploratory") and row["low"] is not None:
        return words.EXPLORATORY
    first = row["primary"] and row["metric"] == summary["endpoint"]
    margin = (
        summary["settings"].get("exp", {}).get("smallest_effect") if first else None
    )  # stated of the primary comparison alone
    return words.verdict(
        row["low"],
        row["high"],
        row["lower_is_better"],
        margin=margin,
        p_corrected=row["p_holm"],
        tested=tested,
        no_interval=row.get("no_interval", ""),
        reasons=shortfalls(summary, row),
        masked=masked(summary),
    )


def verdict(summary: Outcome, comparisons: list[Difference]) -> Verdict:
    """``demonstration``, the ``reasons`` for it, the ``words`` (those of the primary comparison) and the
    ``sentence``.

    The sentence is empty where nothing was to be compared: its kind says what it describes.
    """
    row = primary({**summary, "comparisons": comparisons})
    if row is None:
        why = "; ".join(_partial(summary, list(summary["arms"]))[:1]) or "not enough data"
        lost = f"The endpoint {summary['endpoint']} was not measured in both arms: {why}."
        named = any(contrast["primary"] for contrast in summary["settings"]["exp"]["contrasts"])
        sentence = lost if named and has_stage(summary, "evaluate") else ""
        return {"demonstration": False, "reasons": [], "words": "none", "sentence": sentence}
    reasons = shortfalls(summary, row)
    limits = bounds(row)
    sentence = _measured(row) if reasons or limits is None else _concluded(row, limits, summary)
    return {"demonstration": bool(reasons), "reasons": reasons, "words": row["verdict"], "sentence": sentence}


def gate(summary: Outcome) -> list[str]:
    """Said where no primary contrast opened the way to the secondary comparisons."""
    if all(row["verdict"] != words.NOT_TESTED for row in summary.get("comparisons", [])):
        return []
    return [
        f"{words.NOT_TESTED}: secondary comparisons are tested only where the primary one shows a difference."
        " Here none does: read the intervals, which are not corrected for their number."
    ]


def shortfalls(summary: Outcome, primary: Difference) -> list[str]:
    """What a verdict would need and the run does not have; empty if nothing."""
    reasons = []
    if primary["seeds"] < SEEDS:
        reasons.append(f"{primary['seeds']} {unit(summary)}; a verdict needs {SEEDS}")
    elif primary["low"] is None:
        reasons.append(f"no interval: {primary.get('no_interval', '')}")
    if masked(summary) and summary["settings"]["proxy"]["kind"] == "built":
        reasons.append("the proxy is built by code; a verdict needs a trained one")
    reasons += _interim(summary, primary) + _unmatched(summary, primary)
    reasons += _partial(summary, [primary["treatment"], primary["control"]])
    for domain, (documents, sources) in _smallest(summary, primary).items():
        if documents < DOCUMENTS:
            reasons.append(f"{documents} selected documents in {domain}; a verdict needs {DOCUMENTS}")
        if sources < SOURCES:
            reasons.append(f"{sources} sources in {domain}; a verdict needs {SOURCES}")
    if primary["at_chance"]:
        reasons.append(f"{primary['metric']} is at chance in both arms")
    return reasons


def _interim(summary: Outcome, primary: Difference) -> list[str]:
    """Models of the two arms that were to be there: looked at early, an interval does not mean 95 %."""
    arms = (primary["treatment"], primary["control"])
    absent = sum(row["arm"] in arms for row in summary.get("absent", []))
    whole = absent + sum(len(summary["arms"][arm]["seeds"]) for arm in arms)
    return [f"a report in between: {absent} of {whole} models are not there yet"] if absent else []


def _partial(summary: Outcome, arms: Sequence[str]) -> list[str]:
    """Models that have no endpoint because they lack a part of it (``repro.outcomes.collect``)."""
    return [
        f"{arm}, seed {seed}: {summary['endpoint']} is {why}; evaluate it again"
        for arm in arms
        for seed, row in summary["arms"][arm]["seeds"].items()
        if (why := row.get("evaluation", {}).get("missing", {}).get(summary["endpoint"]))
    ]


def _unmatched(summary: Outcome, primary: Difference) -> list[str]:
    """Arms whose scores come from control heads that do not hurt ordinary text as they should.

    Where the proxy itself is masked, such draws are no seeds to begin with (``repro.outcomes.collect``).
    """
    arms = (primary["treatment"], primary["control"])
    missed = {
        arm: sum(misses(row.get("masked", {})) for row in summary["arms"][arm]["seeds"].values())
        for arm in arms
    }
    return [f"the heads of {arm} miss the damage they should match" for arm, seeds in missed.items() if seeds]


def _smallest(summary: Outcome, row: Difference) -> dict[str, tuple[int, int]]:
    """{domain: (selected documents, sources of the domain)}: the least over both arms and all their seeds.
    Domains left out of every arm do not count.
    """
    found: dict[str, tuple[int, int]] = {}
    left_out = summary["settings"]["budget"].get("leave_out", [])
    for arm in (row["treatment"], row["control"]):
        for seed in summary["arms"][arm]["seeds"].values():
            for domain, made in seed.get("make_up", {}).items():
                documents, sources = found.get(domain, (made["selected"], made["groups"]))
                found[domain] = min(documents, made["selected"]), min(sources, made["groups"])
    return {domain: least for domain, least in found.items() if domain not in left_out}


def _measured(row: Difference) -> str:
    interval = (
        f"95 % interval {row['low']:+.4f} to {row['high']:+.4f}" if row["low"] is not None else row["verdict"]
    )
    return f"{row['treatment']} − {row['control']} on {row['metric']}: {row['difference']:+.4f}, {interval}."


def _concluded(row: Difference, limits: tuple[float, float, float], summary: Outcome) -> str:
    over, (difference, low, high) = f"{row['seeds']} {unit(summary)}", limits
    interval = f"{difference:+.4f} (95 % interval {low:+.4f} to {high:+.4f}, {over})"
    better = "lower is better" if row["lower_is_better"] else "higher is better"
    where = f"on {row['metric']} ({better}): {interval}"
    drawn = masked(summary)
    treatment, control = row["treatment"] + " masked" * drawn, row["control"] + " masked" * drawn
    if words.direction(row["verdict"]):
        return f"{treatment} {row['verdict'] if drawn else 'does ' + row['verdict']} than {control} {where}."
    seen = _seen(row, summary)
    if row["verdict"].startswith("equivalent"):
        return (
            f"{treatment} and {control} are {row['verdict']}, the smallest effect of interest, {where}.{seen}"
        )
    far = words.outwards(max(-low, high))
    return (
        f"Undecided between {treatment} and {control} {where}. No difference is established, and one of up to"
        f" {far} is not excluded.{seen}"
    )


def _seen(row: Difference, summary: Outcome) -> str:
    """What the comparison could see at the pilot's noise, and whether its own pairs bear that noise out."""
    if row["detectable"] is None:
        return ""
    differs = (summary.get("registration", {}).get("power") or {}).get("differs", [])
    whose = f"noise of a pilot that differs in {' and '.join(differs)}" if differs else "pilot's noise"
    said = f" By the {whose} it saw {row['detectable']:.4f} with 80 % power"
    spread, limit = stdev(differences(summary, row)), row.get("noise")
    if limit is not None and spread > limit:
        said += (
            f"; its own pairs spread more than the pilot's upper limit (standard deviation {spread:.4f}"
            f" against {limit:.4f}), so that may promise too much"
        )
    return f"{said}."


def unit(summary: Outcome) -> str:
    """What differs from seed to seed."""
    return "control draws" if masked(summary) else "paired seeds"


def of_arm(summary: Outcome) -> str:
    """The same of one arm, whose mean is over all it has, also those that no other arm has."""
    return "control draws" if masked(summary) else "seeds"


COVERS = (
    "A seed is a draw of the control heads; the unmasked model and the retrieval heads are one evaluation"
    " each, shared by all draws. Intervals cover which control heads were drawn and which items were asked;"
    " where neither arm draws, the items alone. They do not cover other proxies or another detection."
)


TRAINED = (
    "Intervals cover the seeds of the trainings (initial weights, order, which documents a random arm draws)"
    " and which items were asked. They do not cover another draw of the corpus, and so not another selection,"
    " another proxy or other heads."
)


def covered(summary: Outcome) -> list[str]:
    """What the intervals cover, in how many of simulated cases, and which draws they leave out."""
    rows = [row for row in summary["comparisons"] if row["primary"]] or summary["comparisons"]
    said = simulated.sentence(max((row["seeds"] for row in rows), default=0))
    return ([COVERS, *left_out(summary)] if masked(summary) else [TRAINED]) + ([said] if said else [])


def left_out(summary: Outcome) -> list[str]:
    """Draws that do not hurt ordinary text as much as they should: listed with their heads, and in no mean or
    difference.
    """
    arms = [
        (arm, row["missed"], len(row["seeds"]) + len(row["missed"]))
        for arm, row in summary["arms"].items()
        if "missed" in row
    ]
    return [
        f"Left out: {len(missed)} of {drawn} draws of {arm} (seed {', '.join(missed)}), whose damage to"
        " ordinary text is not within the tolerance of that of the retrieval heads."
        for arm, missed, drawn in arms
    ]
