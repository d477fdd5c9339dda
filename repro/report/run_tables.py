"""The tables of one run, from its summary alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from statistics import mean
from typing import Any

from repro.analysis.ranks import SOURCES
from repro.outcomes import measure
from repro.outcomes.compare import evaluated, metrics
from repro.outcomes.outcome import Arm, Difference, During, Json, Outcome
from repro.outcomes.spent import artifacts
from repro.outcomes.statistics import COLUMNS
from repro.outcomes.verdict import covered, gate, unit
from repro.report import endpoint
from repro.report.cells import CHANCE, NO_INTERVAL, Cell, Interval, Number
from repro.report.figures import selected_shares
from repro.report.table import Table

POWER = (
    "could see: the smallest true difference seen with 80 % power at the noise that a pilot of this setting"
    " measured (its upper 80 % limit), after the correction that applies; empty where no pilot measured it."
)


def could_see(*summaries: Outcome) -> str:
    """What the column is, and in what a pilot is another setting than that of its run."""
    powers = [summary.get("registration", {}).get("power") or {} for summary in summaries]
    differing = dict.fromkeys(name for power in powers for name in power.get("differs", []))
    return POWER + (f" A pilot here differs from its run in {', '.join(differing)}." if differing else "")


CHANCE_NOTE = (
    f"{CHANCE.strip()}: not shown to be above chance; in no verdict. Averages are over the tasks on which all"
    " arms together are."
)


def arms(summary: Outcome) -> Table:
    """What every arm selects and mixes."""
    rows: list[list[Cell]] = []
    for name, arm in summary["arms"].items():
        params = json.dumps(arm["select"]["params"]) if arm["select"].get("params") else ""
        mixture = "full corpus + selection" if arm["mixture"]["kind"] == "add" else "selection alone"
        rows.append([name, f"{arm['select']['selector']} {params}".rstrip(), mixture,
                     f"{100 * arm['share']:g} %",
                     ", ".join(arm["seeds"])])  # fmt: skip
    return Table("arms", "Arms", ["arm", "selector", "mixture", "share kept", "seeds"], rows)


def primary_rows(summary: Outcome) -> list[Difference]:
    """Comparisons of the primary contrast, without parts of benchmarks (their tables show those), copying
    last; none where none has an interval.
    """
    rows = [row for row in summary.get("comparisons", []) if row["primary"]]
    shown = [row for row in rows if not row.get("exploratory")]
    shown += [row for row in rows if row["metric"] == measure.COPYING]
    return shown if any(row["low"] is not None for row in shown) else []


def interval(row: Difference | During) -> Interval | Number | None:
    """The difference, where there is one with its interval."""
    if row["low"] is None or row["high"] is None or row["difference"] is None:
        return _number(row["difference"], 4)
    return Interval(row["difference"], row["low"], row["high"], 4)


def _statistics(row: Difference) -> list[Cell]:
    """What every comparison shows beside its interval; a summary of an earlier version may lack some."""
    return [_number(row.get(name), 4) for name in COLUMNS]


def outcome(summary: Outcome) -> Table | None:
    """Means of every arm and the primary contrast with its interval. Without intervals there is no such
    table.
    """
    rows = primary_rows(summary)
    if not rows:
        return None
    arms = list(summary["arms"])
    name = f"{rows[0]['treatment']} − {rows[0]['control']} [95 %]"
    body: list[list[Cell]] = []
    for row in rows:
        metric = row["metric"]
        cells: list[Cell] = []
        for arm in arms:
            values = arm_values(summary, arm, metric)
            mark = CHANCE if metric in summary["arms"][arm].get("at_chance", []) else ""
            cells.append(Number(mean(values), 4, mark) if values else "not run")
        secondary = "at chance" if row["at_chance"] else _number(row["p_holm"], 3)
        p = "primary" if metric == summary["endpoint"] else secondary
        better = "↓" if row["lower_is_better"] else "↑"
        body.append(
            [f"{metric} {better}", interval(row), *_statistics(row), p, row["verdict"], *cells, row["seeds"]]
        )
    numbers = {arm: len(evaluated(row)) for arm, row in summary["arms"].items()}
    own = (
        ", ".join(f"{arm} {number}" for arm, number in numbers.items())
        if len(set(numbers.values())) > 1
        else ""
    )
    notes = [
        *(
            [
                f"The mean of an arm is over all seeds of its own ({own}); differences are over those that"
                " both arms have."
            ]
            if own
            else []
        ),
        (
            f"Means and differences over {unit(summary)}, two-sided 95 % intervals. ↓ lower is better, ↑"
            " higher is better."
        ),
        *covered(summary),
        (
            f"Primary endpoint, {endpoint.sentence(summary)} All other rows are secondary: tested only where"
            " the primary one shows a difference, and then Holm-corrected together with the other contrasts"
            " on the endpoint."
        ),
        *gate(summary),
        could_see(summary),
        CHANCE_NOTE,
    ]
    return Table(
        "outcome",
        "Outcome",
        ["metric", name, *COLUMNS.values(), "p (Holm)", "verdict", *arms, "seeds"],
        body,
        notes,
    )


def arm_values(summary: Outcome, arm: str, metric: str) -> list[float]:
    """Values of a metric over the seeds of an arm, each evaluation once."""
    seeds = evaluated(summary["arms"][arm]).values()
    return [cells[metric]["value"] for seed in seeds if metric in (cells := seed.get("metrics", {}))]


def contrasts(summary: Outcome) -> Table | None:
    """Every contrast on the primary endpoint."""
    found = [r for r in summary.get("comparisons", []) if r["metric"] == summary["endpoint"]]
    if all(r["low"] is None for r in found):
        return None
    names = [f"{r['treatment']} − {r['control']}{' (primary)' if r['primary'] else ''}" for r in found]
    rows: list[list[Cell]] = []
    for name, r in zip(names, found, strict=True):
        p = "primary" if r["primary"] else _number(r["p_holm"], 3)
        rows.append([name, interval(r), *_statistics(r), p, r["verdict"], r["seeds"]])
    rows += [[name, None, *[None] * len(COLUMNS), None, why, None] for name, why in _not_compared(summary)]
    better = (
        "below zero favours the first arm"
        if found[0]["lower_is_better"]
        else "above zero favours the first arm"
    )
    over = f"Over {unit(summary)}, 95 % intervals; p of all that is secondary Holm-corrected."
    notes = [
        f"Difference in {summary['endpoint']}; {better}. {over}",
        *gate(summary),
        could_see(summary),
        *covered(summary),
    ]
    columns = ["contrast", "difference [95 %]", *COLUMNS.values(), "p (Holm)", "verdict", "seeds"]
    return Table("contrasts", "Contrasts on the primary endpoint", columns, rows, notes)


def _not_compared(summary: Outcome) -> Iterator[tuple[str, str]]:
    """Contrasts on the endpoint that have no row, and which arm lacks it."""
    endpoint, arms = summary["endpoint"], summary["arms"]
    there = {(r["treatment"], r["control"]) for r in summary["comparisons"] if r["metric"] == endpoint}
    for contrast in summary["settings"].get("exp", {}).get("contrasts", []):
        sides = contrast["treatment"], contrast["control"]
        if sides in there or contrast.get("noise"):
            continue
        lacking = [arm for arm in sides if arm not in arms or endpoint not in metrics(arms[arm])]
        why = (
            f"no interval: {' and '.join(lacking)} without {endpoint}"
            if lacking
            else "no interval: no shared seed"
        )
        yield f"{sides[0]} − {sides[1]}", why


def per_seed(summary: Outcome) -> Table | None:
    """Every value of every trained model: the raw material of the other tables."""
    rows: list[list[Cell]] = []
    for arm, row in summary["arms"].items():
        for seed, found in evaluated(row).items():
            for metric, cell in found.get("metrics", {}).items():
                error, chance = _number(cell.get("stderr"), 6), _number(cell.get("chance"), 4)
                rows.append([arm, seed, metric, Number(cell["value"], 6), error, cell.get("n"), chance])
    if not rows:
        return None
    return Table(
        "seeds",
        "Every model, every metric",
        ["arm", "seed", "metric", "value", "stderr", "items", "chance"],
        rows,
    )


def selection(summary: Outcome) -> Table | None:
    """What each arm selected, by domain; means over seeds."""
    rows: list[list[Cell]] = []
    for arm, row in summary["arms"].items():
        seeds = [made for seed in row["seeds"].values() if (made := seed.get("make_up"))]
        for domain in seeds[0] if seeds else []:
            here = [seed[domain] for seed in seeds]
            size = mean(h["selected_bytes"] for h in here)
            documents = mean(h["selected"] for h in here)
            rows.append([
                arm, domain, Number(documents, 0), Number(100 * documents / (here[0]["documents"] or 1), 1),
                Number(100 * size / (here[0]["bytes"] or 1), 1),
                Number(size / documents if documents else 0.0, 0),
                Number(mean(h["selected_groups"] for h in here), 1), here[0]["groups"], _times_read(row,
                domain),
            ])  # fmt: skip
    if not rows:
        return None
    columns = ["arm", "domain", "documents", "% of documents", "% of bytes", "bytes a document",
               "sources selected", "sources",
               "times read"]  # fmt: skip
    notes = [
        "Means over seeds; each document once, however often it is read. Times read: in training, of the"
        " documents read."
    ]
    if left_out := summary["settings"]["budget"].get("leave_out"):
        notes.append(
            "Left out of every arm, because some share is less than the first document:"
            f" {', '.join(left_out)}."
        )
    return Table("selection", "What was selected", columns, rows, notes)


def _times_read(arm: Arm, domain: str) -> Number | None:
    """How often training read the documents of a domain that it read at all, mean over them and over
    seeds.
    """
    facts = [seed["artifacts"].get("pretrain", {}).get("facts", {}) for seed in arm["seeds"].values()]
    often = [fact["reads"][domain]["mean"] for fact in facts if domain in fact.get("reads", {})]
    return Number(mean(often), 2) if often else None


def sources(summary: Outcome) -> Table | None:
    """Share of every source group in the corpus and in each arm's selection."""
    rows: list[list[Cell]] = []
    for arm, row in summary["arms"].items():
        seeds = [made for seed in row["seeds"].values() if (made := seed.get("make_up"))]
        for domain in seeds[0] if seeds else []:
            taken = selected_shares([seed[domain] for seed in seeds])
            for group in seeds[0][domain]["by_group"]:
                there = 100 * group["bytes"] / (seeds[0][domain]["bytes"] or 1)
                rows.append(
                    [arm, domain, group["group"], Number(there, 1), Number(100 * taken[group["group"]], 1)]
                )
    columns = ["arm", "domain", "source", "% of the corpus", "% of the selection"]
    return Table("sources", "Selection by source", columns, rows) if rows else None


def corpus(summary: Outcome) -> Table | None:
    """What became of every document that came in, and what each domain holds."""
    found = summary.get("corpus")
    if not found:
        return None
    kept = (
        "documents",
        "bytes",
        "groups",
        "clusters",
        "in_near_duplicate_clusters",
        "heldout_documents",
        "heldout_bytes",
    )
    rows: list[list[Cell]] = [
        [domain, *(row.get(key) for key in kept)] for domain, row in found.get("domains", {}).items()
    ]
    dropped = ", ".join(
        f"{reason.replace('_', ' ')} {count:,}" for reason, count in found.get("dropped", {}).items()
    )
    notes = [f"{found['in']:,} documents came in, {found['kept']:,} were kept; dropped: {dropped or 'none'}."]
    notes += [
        f"{d}: held out by {row['heldout_by']}."
        for d, row in found.get("domains", {}).items()
        if row.get("heldout_by")
    ]
    return Table("corpus", "Corpus", ["domain", *(key.replace("_", " ") for key in kept)], rows, notes)


def correlations(summary: Outcome) -> Table | None:
    """Rank correlation of the score with simpler quantities, by domain: what a simpler selector would pick as
    well.
    """
    found = {domain: row for domain, row in summary.get("scores", {}).items() if row["documents"]}
    names = list(dict.fromkeys(name for row in found.values() for name in row["spearman"]))
    rows: list[list[Cell]] = [
        [
            domain,
            row["documents"],
            Number(row["quantiles"]["0.5"], 3),
            *(_correlation(row["spearman"].get(n), _sources(summary, domain)) for n in names),
        ]
        for domain, row in found.items()
    ]
    columns = ["domain", "documents", "median score", *(name.replace("_", " ") for name in names)]
    note = (
        "Spearman's rank correlation of the score with each quantity within the domain; 95 % intervals,"
        f" sources resampled; none with fewer than {SOURCES} sources."
    )
    notes = [note] if names else []
    return Table("correlations", "Scores and simpler quantities", columns, rows, notes) if rows else None


def missing(summary: Outcome) -> Table | None:
    """What was asked for and could not be measured, with the reason, and where not all models lack it, which
    do.
    """
    found: dict[tuple[str, str], list[str]] = {}
    models = [
        (f"{name}, seed {seed}", row)
        for name, arm in summary["arms"].items()
        for seed, row in arm["seeds"].items()
    ]
    for model, row in models:
        for task, why in row.get("evaluation", {}).get("missing", {}).items():
            found.setdefault((task, why), []).append(model)
    rows: list[list[Cell]] = [
        [task, why, "all" if len(lack) == len(models) else "; ".join(lack)]
        for (task, why), lack in found.items()
    ]
    return Table("missing", "Not run", ["task", "reason", "models"], rows) if rows else None


def heads(summary: Outcome) -> Table | None:
    """The selected heads, highest score first."""
    found = summary.get("heads")
    if not found:
        return None
    if found["scores"] is None:  # named by hand
        return Table(
            "heads", "Heads that were given", ["layer", "head"], [list(pair) for pair in found["selected"]]
        )
    ranked = sorted(
        ((found["scores"][l][h], l, h) for l, h in found["selected"]), key=lambda r: (-r[0], r[1], r[2])
    )
    return Table(
        "heads", "Selected heads", ["layer", "head", "score"], [[l, h, Number(s, 4)] for s, l, h in ranked]
    )


def effect(summary: Outcome) -> str | None:
    """What masking the selected heads does to the probes, in a sentence."""
    found = summary.get("heads", {}).get("effect_on_probes")
    if not found:
        return None
    return (
        f"With the selected heads masked the loss on {found['probes']} probe answers goes from"
        f" {found['loss_base']:.2f} to {found['loss_masked']:.2f} nats, the token accuracy from"
        f" {found['accuracy_base']:.2f} to {found['accuracy_masked']:.2f}."
    )


def cost(summary: Outcome) -> Table | None:
    """Time and facts of every stage."""
    rows: list[list[Cell]] = []
    for a in artifacts(summary):
        facts = ", ".join(
            f"{k} {_plain(v)}" for k, v in a["facts"].items() if not isinstance(v, (dict, list))
        )
        rows.append(
            [
                a["stage"],
                a["label"],
                a["fingerprint"][:8],
                a["device"],
                Number(a["seconds_last_attempt"], 1),
                facts,
            ]
        )
    notes = ["Seconds of the attempt that finished the stage; a stage that was resumed took longer in all."]
    columns = ["stage", "label", "fingerprint", "device", "seconds", "facts"]
    return Table("cost", "Cost and time", columns, rows, notes) if rows else None


def flatten(value: Json, path: str = "") -> Json:
    """Nested dictionaries as dotted keys; lists stay values."""
    flat: Json = {}
    for key, inner in value.items():
        flat |= (
            flatten(inner, f"{path}{key}.") if isinstance(inner, dict) and inner else {f"{path}{key}": inner}
        )
    return flat


def _sources(summary: Outcome, domain: str) -> int:
    """Source groups of a domain; earlier versions drew documents where they are few."""
    return summary.get("corpus", {}).get("domains", {}).get(domain, {}).get("groups", SOURCES)


def _correlation(found: Json | None, sources: int) -> Interval | Number | None:
    if found is None:
        return None
    low, high = found.get("low"), found.get("high")
    if low is None or high is None or sources < SOURCES:
        return Number(found["value"], 2, NO_INTERVAL)
    return Interval(found["value"], low, high, 2)


def _number(value: float | None, digits: int) -> Number | None:
    return None if value is None else Number(value, digits)


def _plain(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
