"""What may be concluded from the comparisons of a run, in words: nothing else makes a verdict (method.md, section 6)."""

from __future__ import annotations

from collections.abc import Sequence

from repro.config import Contrast, as_dict
from repro.outcomes.collect import misses
from repro.outcomes.compare import (
    Variances,
    add_average,
    compare_arms,
    covers_chance,
    has_stage,
    holm,
    masked,
    metrics,
    primary,
)
from repro.outcomes.outcome import Difference, Outcome, Verdict

SEEDS, DOCUMENTS, SOURCES = 3, 200, 3  # a verdict needs as many seeds, selected documents and source groups a domain
ALPHA = 0.05  # of a verdict, after Holm's correction


def judge(summary: Outcome, contrasts: Sequence[Contrast], variances: Variances | None = None) -> Outcome:
    """The summary with ``comparisons``, each arm's ``at_chance`` metrics, the ``verdict``, and the ``noise`` of a pilot."""
    from repro.outcomes.noise import noise

    contrasts = [c for c in contrasts if c.treatment in summary["arms"] and c.control in summary["arms"]]  # others failed whole
    drawn_alike = next((as_dict(c) for c in contrasts if c.noise), None)
    contrasts = [contrast for contrast in contrasts if not contrast.noise]
    for arm in summary["arms"].values():
        arm["at_chance"] = [m for m in metrics(arm) if covers_chance(arm, m)]
    add_average(summary)
    if drawn_alike is not None:
        summary = {**summary, "noise": noise(summary, drawn_alike)}
    comparisons = []
    for contrast in contrasts:
        comparisons += compare_arms(summary, contrast, (variances or {}).get((contrast.treatment, contrast.control), {}))
    holm(comparisons, summary["endpoint"])
    for row in comparisons:
        row["verdict"] = in_words(summary, row, shortfalls(summary, row))
    return {**summary, "comparisons": comparisons, "verdict": verdict(summary, comparisons)}


def in_words(summary: Outcome, row: Difference, reasons: Sequence[str] | None = None) -> str:
    """The verdict on one comparison of a run (``repro.outcomes.statistics.verdict``); at chance there is none.

    ``reasons`` against a verdict are, of a finished summary, those that it records.
    """
    from repro.outcomes import statistics

    if row["at_chance"]:
        return "at chance"
    if row.get("exploratory"):
        return "exploratory"
    if reasons is None:
        reasons = ["a demonstration"] if summary["verdict"]["demonstration"] else []
    given = [row[key] for key in ("difference", "low", "high", "lower_is_better", "p_holm")]
    return statistics.verdict(*given, reasons=reasons, masked=masked(summary))


def verdict(summary: Outcome, comparisons: list[Difference]) -> Verdict:
    """``demonstration``, the ``reasons`` for it, the ``words`` (those of the primary comparison) and the ``sentence``.

    The sentence is empty where nothing was to be compared: its kind says what it describes.
    """
    row = primary({**summary, "comparisons": comparisons})
    if row is None:
        lost = f"The endpoint {summary['endpoint']} was not measured in both arms: not enough data."
        named = any(contrast["primary"] for contrast in summary["settings"]["exp"]["contrasts"])
        sentence = lost if named and has_stage(summary, "evaluate") else ""
        return {"demonstration": False, "reasons": [], "words": "none", "sentence": sentence}
    reasons = shortfalls(summary, row)
    sentence = _measured(row) if reasons or row["low"] is None else _concluded(row, summary)
    return {"demonstration": bool(reasons), "reasons": reasons, "words": row["verdict"], "sentence": sentence}


def out_of_reach(summary: Outcome) -> list[str]:
    """Said where the seeds are too few for any secondary comparison to pass Holm's correction, whatever it shows."""
    family = [r for r in summary.get("comparisons", []) if r["p_holm"] is not None]
    seeds = min((r["seeds"] for r in family if r["test"] == "sign flips"), default=None)
    if seeds is None or (least := 2 / 2**seeds) * len(family) <= ALPHA:
        return []
    return [
        f"The permutation test of {seeds} seeds gives no p below {least:.3f}, and Holm's correction over {len(family)} "
        f"secondary comparisons lifts that above {ALPHA:g}: none can be called better or worse here; read their intervals, "
        "which are not corrected."
    ]


def shortfalls(summary: Outcome, primary: Difference) -> list[str]:
    """What a verdict would need and the run does not have; empty if nothing."""
    reasons = []
    if primary["seeds"] < SEEDS:
        reasons.append(f"{primary['seeds']} {unit(summary)}; a verdict needs {SEEDS}")
    elif primary["low"] is None:
        reasons.append("every seed gives the very same difference, which says nothing about its error")
    if masked(summary) and summary["settings"]["proxy"]["kind"] == "built":
        reasons.append("the proxy is built by code; a verdict needs a trained one")
    reasons += _unmatched(summary, primary)
    for domain, (documents, sources) in _smallest(summary, primary).items():
        if documents < DOCUMENTS:
            reasons.append(f"{documents} selected documents in {domain}; a verdict needs {DOCUMENTS}")
        if sources < SOURCES:
            reasons.append(f"{sources} sources in {domain}; a verdict needs {SOURCES}")
    if primary["at_chance"]:
        reasons.append(f"{primary['metric']} is at chance in both arms")
    return reasons


def _unmatched(summary: Outcome, primary: Difference) -> list[str]:
    """Arms whose scores come from control heads that do not hurt ordinary text as they should.

    Where the proxy itself is masked, such draws are no seeds to begin with (``repro.outcomes.collect``).
    """
    arms = (primary["treatment"], primary["control"])
    missed = {arm: sum(misses(row.get("masked", {})) for row in summary["arms"][arm]["seeds"].values()) for arm in arms}
    return [f"the heads of {arm} miss the damage they should match" for arm, seeds in missed.items() if seeds]


def _smallest(summary: Outcome, row: Difference) -> dict[str, tuple[int, int]]:
    """{domain: (selected documents, sources of the domain)}: the least over both arms and all their seeds. Domains left out of
    every arm do not count."""
    found: dict[str, tuple[int, int]] = {}
    left_out = summary["settings"]["budget"].get("leave_out", [])
    for arm in (row["treatment"], row["control"]):
        for seed in summary["arms"][arm]["seeds"].values():
            for domain, made in seed.get("make_up", {}).items():
                documents, sources = found.get(domain, (made["selected"], made["groups"]))
                found[domain] = min(documents, made["selected"]), min(sources, made["groups"])
    return {domain: least for domain, least in found.items() if domain not in left_out}


def _measured(row: Difference) -> str:
    interval = "one seed, no interval" if row["low"] is None else f"95 % interval {row['low']:+.4f} to {row['high']:+.4f}"
    return f"{row['treatment']} − {row['control']} on {row['metric']}: {row['difference']:+.4f}, {interval}."


def _concluded(row: Difference, summary: Outcome) -> str:
    from repro.outcomes.statistics import AFTER_CORRECTION, direction

    over = f"{row['seeds']} {unit(summary)}"
    interval = f"{row['difference']:+.4f} (95 % interval {row['low']:+.4f} to {row['high']:+.4f}, {over})"
    better = "lower is better" if row["lower_is_better"] else "higher is better"
    where = f"on {row['metric']} ({better}): {interval}"
    drawn = masked(summary)
    treatment, control = row["treatment"] + " masked" * drawn, row["control"] + " masked" * drawn
    if direction(row["verdict"]):
        return f"{treatment} {row['verdict'] if drawn else 'does ' + row['verdict']} than {control} {where}."
    if row["verdict"] == AFTER_CORRECTION:
        return f"The interval leaves zero out, and after Holm's correction it is undecided: {treatment}, {control} {where}."
    return (
        f"{row['verdict'].capitalize()} between {treatment} and {control} {where}. "
        f"The smallest difference this run would see with 80 % power is {row['detectable']:.4f}."
    )


def unit(summary: Outcome) -> str:
    """What differs from seed to seed."""
    return "control draws" if masked(summary) else "paired seeds"


COVERS = (
    "A seed is a draw of the control heads; the unmasked model and the retrieval heads are one evaluation each, shared by all "
    "draws. Intervals cover which control heads were drawn and which items were asked; where neither arm draws, the items "
    "alone. They do not cover other proxies or another detection."
)


def covered(summary: Outcome) -> list[str]:
    """What the intervals cover where that is not the seeds of a training, and which draws they leave out."""
    return [COVERS, *left_out(summary)] if masked(summary) else []


def left_out(summary: Outcome) -> list[str]:
    """Draws that do not hurt ordinary text as much as they should: listed with their heads, and in no mean or difference."""
    arms = [
        (arm, row["missed"], len(row["seeds"]) + len(row["missed"])) for arm, row in summary["arms"].items() if "missed" in row
    ]
    return [
        f"Left out: {len(missed)} of {drawn} draws of {arm} (seed {', '.join(missed)}), whose damage to ordinary text is not "
        "within the tolerance of that of the retrieval heads."
        for arm, missed, drawn in arms
    ]
