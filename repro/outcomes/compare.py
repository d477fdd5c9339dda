"""Comparisons of arms and what may be concluded from them (method.md, section 6)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from repro.config import Contrast, as_dict, require
from repro.outcomes import measure
from repro.outcomes.collect import misses
from repro.outcomes.outcome import Arm, Difference, Gap, Outcome, Seed, Verdict
from repro.store import finite

SEEDS, DOCUMENTS, SOURCES = 3, 200, 3  # a verdict needs as many seeds, selected documents and source groups a domain
ALPHA = 0.05  # of a verdict, after Holm's correction


Variances = Mapping[tuple[str, str], Mapping[str, float]]  # (treatment, control) -> metric -> variance from the items


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


def primary(summary: Outcome) -> Difference | None:
    """The primary contrast on the endpoint; ``None`` where none was named or it was not measured in both arms."""
    rows = summary.get("comparisons", [])
    return next((row for row in rows if row["primary"] and row["metric"] == summary["endpoint"]), None)


def metrics(arm: Arm) -> list[str]:
    """Metrics that every seed of an arm has, in their order."""
    seeds = [seed.get("metrics", {}) for seed in arm["seeds"].values()]
    return [m for m in seeds[0] if all(m in s for s in seeds)] if seeds else []


def evaluated(arm: Arm) -> dict[str, Seed]:
    """{seed: row}, each evaluation once: where an arm draws nothing from its seeds they share one (``exp.kind: mirror``)."""
    first: dict[str, str] = {}
    for seed, row in arm["seeds"].items():
        first.setdefault(_evaluation(row, seed), seed)
    return {seed: arm["seeds"][seed] for seed in first.values()}


def _evaluation(row: Seed, otherwise: str) -> str:
    return row.get("artifacts", {}).get("evaluate", {}).get("fingerprint", otherwise)


def _compared(treatment: Arm, control: Arm, seeds: set[int]) -> int:
    """How many of the shared seeds compare other evaluations: one, where neither arm draws anything."""
    pairs = [[_evaluation(arm["seeds"][str(seed)], str(seed)) for arm in (treatment, control)] for seed in seeds]
    return len({tuple(pair) for pair in pairs})


def seed_values(arm: Arm, metric: str) -> dict[int, float]:
    """{seed: value} of a metric."""
    found = {int(s): row["metrics"][metric]["value"] for s, row in arm["seeds"].items() if metric in row.get("metrics", {})}
    return dict(sorted(found.items()))


def covers_chance(arm: Arm, metric: str) -> bool:
    """Whether an arm's accuracy is not shown to be above chance: the 95 % interval of its mean (:func:`interval`) reaches down
    to that level. Accuracies without a chance level (generated answers) have one of zero.
    """
    cells = [row["metrics"][metric] for row in evaluated(arm).values()]
    chance = cells[0].get("chance", 0.0 if measure.of(metric).accuracy else None)
    if chance is None:
        return False
    found = interval(arm, metric)
    return found is None or found[1] <= chance


def interval(arm: Arm, metric: str) -> tuple[float, float, float] | None:
    """Mean of a metric over an arm's models and its 95 % limits; ``None`` where nothing says how far it may be off.

    It takes in the items (mean of the models' own standard errors, which share the items; of BLiMP the paradigms) and the
    spread over seeds, as those of differences do.
    """
    from repro.outcomes.statistics import few, half_width

    cells = [row["metrics"][metric] for row in evaluated(arm).values()]
    values = [cell["value"] for cell in cells]
    centre, clusters = mean(values), min(cell.get("clusters", 0) for cell in cells)
    share = 0 <= centre <= 1 and not measure.of(metric).bits
    errors = [cell.get("stderr") or (_of_share(centre, cell.get("n")) if share else None) for cell in cells]
    if clusters == 1 or None in errors:
        return None
    variance = mean(errors) ** 2 * (few(clusters) if clusters else 1.0)
    half = half_width(stdev(values) if len(values) > 1 else 0.0, max(len(values), 2), variance)
    return centre, centre - half, centre + half


def _of_share(value: float, n: int | None) -> float:
    """Standard error of a share of ``n`` items; where every item is right, or wrong, it has none of its own."""
    return math.sqrt(value * (1 - value) / max(n or 1, 1))


def add_average(summary: Outcome) -> None:
    """``accuracy_average``: mean over the tasks whose headline accuracy is above chance in every arm.

    The same tasks for every arm; added to each seed's metrics where at least two tasks qualify.
    """
    arms = list(summary["arms"].values())
    shared = [m for m in metrics(arms[0]) if all(m in metrics(arm) for arm in arms)] if arms else []
    headline: dict[str, str] = {}
    for wanted in measure.ACCURACIES:
        for metric in shared:
            if (one := measure.of(metric)).name.split(",")[0] == wanted:
                headline.setdefault(one.task, metric)
    counted = [m for m in headline.values() if not any(m in arm["at_chance"] for arm in arms)]
    summary["averaged"] = counted
    if len(counted) < 2:
        return
    for arm in arms:
        for seed in arm["seeds"].values():
            for cells in (seed["metrics"], *seed.get("checkpoints", {}).values()):
                if all(m in cells for m in counted):
                    cells["accuracy_average"] = {"value": mean(cells[m]["value"] for m in counted)}


def compare_arms(summary: Outcome, contrast: Contrast, variances: Mapping[str, float]) -> list[Difference]:
    """One row a metric: treatment minus control, paired by seed, the items' share of the error taken in.

    ``low``, ``high``, ``p`` and ``detectable`` are ``None`` with one seed. Perplexities are left out: bits per byte say the
    same, and a mean of exponentials over small models is noise.
    """
    from repro.outcomes.statistics import RECORDED, compare

    tasks = summary.get("averaged", [])
    if tasks and all(metric in variances for metric in tasks):
        variances = {**variances, "accuracy_average": sum(variances[m] for m in tasks) / len(tasks) ** 2}
    treatment, control = summary["arms"][contrast.treatment], summary["arms"][contrast.control]
    one_kind_of_device(contrast, treatment, control)
    rows = []
    for metric in metrics(treatment):
        ours, theirs = seed_values(treatment, metric), seed_values(control, metric)
        if not set(ours) & set(theirs) or measure.of(metric).perplexity:
            continue
        found = compare(ours, theirs, variances.get(metric, 0.0))
        row = {
            "treatment": contrast.treatment,
            "control": contrast.control,
            "primary": contrast.primary,
            "metric": metric,
            "lower_is_better": measure.of(metric).lower_is_better,
            "exploratory": measure.of(metric).part,
            "at_chance": metric in treatment["at_chance"] and metric in control["at_chance"],
            "seeds": _compared(treatment, control, set(ours) & set(theirs)),
            "item_variance": finite(variances.get(metric, 0.0)) if metric in variances else None,
            **{key: value if isinstance(value := getattr(found, key), str) else finite(value) for key in RECORDED},
            "p_holm": None,
        }
        rows.append(row)
    return rows


def between(summary: Outcome, treatment: str, control: str, metrics: Sequence[str]) -> Gap | None:
    """Difference of two arms of a finished run on ``metrics`` (their mean): the one interval that every table and figure shows.

    ``difference``, ``low``, ``high``, ``detectable``, ``seeds`` and whether the run has ``compared`` them. Of one metric those
    of the run's own comparison, turned where it has the arms the other way round; of several computed from their values and the
    items' variances on record. Of two arms that the run does not compare those are not on record, and over seeds alone an
    interval would be too narrow: ``low`` is ``None``. ``None`` where no seed has both.
    """
    from repro.outcomes.statistics import compare

    sign, rows = _rows_between(summary, treatment, control)
    if len(metrics) == 1 and (row := rows.get(metrics[0])) is not None:
        ends = (row["low"], row["high"]) if sign > 0 or row["low"] is None else (-row["high"], -row["low"])
        kept = {"detectable": row["detectable"], "seeds": row["seeds"], "compared": True}
        return {"difference": sign * row["difference"], "low": ends[0], "high": ends[1], **kept}
    sides = [[seed_values(summary["arms"][arm], metric) for metric in metrics] for arm in (treatment, control)]
    shared = set.intersection(*(set(values) for side in sides for values in side))
    if not shared:
        return None
    ours, theirs = ({seed: mean(values[seed] for values in side) for seed in sorted(shared)} for side in sides)
    known = all(metric in rows for metric in metrics)
    variance = sum(rows[m]["item_variance"] or 0.0 for m in metrics) / len(metrics) ** 2 if known else 0.0
    found = compare(ours, theirs, variance)
    ends = {key: finite(getattr(found, key)) if known else None for key in ("low", "high", "detectable")}
    return {"difference": found.difference, **ends, "seeds": found.seeds, "compared": known}


def _rows_between(summary: Outcome, treatment: str, control: str) -> tuple[int, dict[str, Difference]]:
    """{metric: comparison} of two arms, and -1 where the run compares them the other way round."""
    for sign, sides in ((1, (treatment, control)), (-1, (control, treatment))):
        rows = {r["metric"]: r for r in summary["comparisons"] if (r["treatment"], r["control"]) == sides}
        if rows:
            return sign, rows
    return 1, {}


def no_interval(found: Gap) -> str:
    """Why a difference (:func:`between`) has none."""
    if not found["compared"]:
        return "no interval (the run does not compare these arms)"
    return f"no interval ({found['seeds']} seed{'s' * (found['seeds'] > 1)}, no spread)"


def one_kind_of_device(contrast: Contrast, treatment: Arm, control: Arm) -> None:
    """Refuse to pair models that were trained or evaluated on different kinds of device: the difference would be in it."""
    for seed, row in treatment["seeds"].items():
        other = control["seeds"].get(seed, {}).get("artifacts", {})
        for stage in ("pretrain", "evaluate"):
            sides = [side[stage] for side in (row.get("artifacts", {}), other) if stage in side]
            kinds = [side["device"].partition(":")[0] for side in sides]
            require(
                len(set(kinds)) < 2,
                f"{contrast.treatment} and {contrast.control}, seed {seed}: {stage} ran on {' and '.join(kinds)}; paired arms "
                "need one kind of device: delete one of the two artifacts and run again with device=NAME",
            )


def holm(rows: list[Difference], endpoint: str) -> None:
    """Holm's correction over everything secondary that is shown: the primary contrast's other metrics, and the other contrasts
    on the endpoint. Metrics at chance and parts of a benchmark take no part. In place.
    """
    from repro.outcomes import statistics

    shown = [r for r in rows if r["primary"] != (r["metric"] == endpoint) and not r["at_chance"] and not r.get("exploratory")]
    family = {f"{r['treatment']}/{r['control']}/{r['metric']}": r for r in shown}
    corrected = statistics.holm({name: row["p"] for name, row in family.items() if row["p"] is not None})
    for name, p in corrected.items():
        family[name]["p_holm"] = p


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
        sentence = lost if named and _artifacts(summary, "evaluate") else ""
        return {"demonstration": False, "reasons": [], "words": "none", "sentence": sentence}
    reasons = shortfalls(summary, row)
    sentence = _measured(row) if reasons or row["low"] is None else _concluded(row, summary)
    return {"demonstration": bool(reasons), "reasons": reasons, "words": row["verdict"], "sentence": sentence}


def unit(summary: Outcome) -> str:
    """What differs from seed to seed."""
    return "control draws" if masked(summary) else "paired seeds"


def masked(summary: Outcome) -> bool:
    """Whether the model itself was evaluated, heads masked, and nothing trained: its seeds are draws of the control heads."""
    return _artifacts(summary, "evaluate") and not _artifacts(summary, "pretrain")


def _artifacts(summary: Outcome, stage: str) -> bool:
    arms = summary["arms"].values()
    return any(stage in seed.get("artifacts", {}) for arm in arms for seed in arm["seeds"].values())


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
