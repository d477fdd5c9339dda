"""Which selectors beat random, what they cost and share, and whether the small models foretell the large
ones.
"""

from __future__ import annotations

from statistics import mean

from repro.experiments.arena.arms import CONTROL
from repro.outcomes import decision, measure
from repro.outcomes.compare import lower_is_better, metrics, seed_values
from repro.outcomes.outcome import Arm, Outcome
from repro.outcomes.spent import scoring, scoring_flops
from repro.report.cells import Cell, Interval, Number
from repro.report.sections import NOTHING_CONCLUDED, Section, arms, folded
from repro.report.table import Table

OURS = "attention_influence"


def sections(summary: Outcome) -> list[Section]:
    """A table a size, the overlaps, and what the small sizes say about the largest."""
    found = sizes(summary)
    if not found:
        return [arms(summary)]
    *smaller, largest = found
    return [
        arms(
            summary,
            f"Every selector at {' and '.join(found)}: the same selection, other models. {_trained(summary)}",
        ),
        Section(
            "arena",
            "Against random",
            [against_random(summary, size) for size in (largest, *reversed(smaller))],
        ),
        Section("decision", "Does a small size decide as the largest does?", [decisions(summary)]),
        Section("overlap", "What selectors share", [folded(overlaps(summary))]),
    ]


def sentence(summary: Outcome) -> str:
    """What stands where a run without a primary contrast would have its verdict."""
    return NOTHING_CONCLUDED


def lines(summary: Outcome) -> list[str]:
    """For the terminal: how well each smaller size decides."""
    table = decisions(summary)
    return (
        []
        if table is None
        else [
            f"{row[0]}, {row[1]}: decides as the largest size in {row[2]} of pairs" for row in table.rows[:1]
        ]
    )


def sizes(summary: Outcome) -> list[str]:
    """Model sizes, smallest first."""
    return list(summary["settings"]["exp"]["params"].get("models", []))


def of_size(summary: Outcome, size: str) -> dict[str, Arm]:
    """The arms of a size by selector; those that failed are absent."""
    return {
        name.removesuffix(f"_{size}"): arm
        for name, arm in summary["arms"].items()
        if name.endswith(f"_{size}")
    }


def _trained(summary: Outcome) -> str:
    return f"Each model is trained for {summary['settings']['train']['tokens']:,} tokens."


def against_random(summary: Outcome, size: str) -> Table | None:
    """One row a selector, best first: its difference to random by Dunnett, cost of selecting, overlap."""
    found, lower = of_size(summary, size), lower_is_better(summary, summary["endpoint"])
    values = {name: list(seed_values(arm, summary["endpoint"]).values()) for name, arm in found.items()}
    values = {name: kept for name, kept in values.items() if kept}
    if CONTROL not in values:
        return None
    tested = decision.against_control(values, CONTROL)
    gaps = {name: mean(kept) - mean(values[CONTROL]) for name, kept in values.items() if name != CONTROL}
    shared = _overlap_with(summary, OURS)
    rows: list[list[Cell]] = []
    for name in sorted(gaps, key=lambda arm: gaps[arm] if lower else -gaps[arm]):
        gap: Cell = Number(gaps[name], 4)
        if name in tested:
            gap = Interval(*tested[name][:3], 4)
        flops, seconds = cost(summary, f"{name}_{size}")
        overlap = shared.get(name)
        p = Number(tested[name][3], 3) if name in tested else None
        spent = [f"{flops:.3g}" if flops else None, Number(seconds, 0)]
        rows.append(
            [name, len(values[name]), gap, p, *spent, None if overlap is None else Number(overlap, 2)]
        )
    difference = f"selector − random, {summary['endpoint']} [95 %, all at once]"
    costs = ["FLOPs of selecting", "seconds of selecting"]
    columns = ["selector", "seeds", difference, "p (Dunnett)", *costs, f"shared with {OURS}"]
    notes = [
        (
            "Limits hold for all selectors of this table at once (Dunnett 1955: many against one, variance"
            f" pooled over all arms, seeds not paired). {'Lower' if lower else 'Higher'}"
            " is better. The run's own contrasts, paired by seed, stand in the table of comparisons."
        ),
        (
            "Cost: detection and scoring as two passes of the proxy where the selector reads losses, once"
            " for all of them, and the seconds of the stages that made the selection, the last attempt's."
            f" Shared: of the documents the selector keeps, those that {OURS} keeps, too."
        ),
    ]
    return Table(f"arena_{size}", f"Selectors against random, {size}", columns, rows, notes) if rows else None


def cost(summary: Outcome, arm: str) -> tuple[float, float]:
    """FLOPs and seconds of selecting, mean over seeds; scores are counted whole for each selector that reads
    them.
    """
    own = [seed["artifacts"] for seed in summary["arms"][arm]["seeds"].values()]
    chosen = mean(of["selection"]["seconds_last_attempt"] for of in own if "selection" in of)
    read = [artifact for name, artifact in own[0].items() if name.startswith("priority")]
    seconds = sum(artifact["seconds_last_attempt"] for artifact in (*read, *scoring(summary, arm)))
    return scoring_flops(summary, arm), chosen + seconds


def _overlap_with(summary: Outcome, selector: str) -> dict[str, float]:
    named = {arm: rows for arm, rows in summary.get("overlap", {}).items()}
    plain = {arm: _plain(summary, arm) for arm in named}
    return {
        plain[arm]: share
        for arm, rows in named.items()
        for other, share in rows.items()
        if plain.get(other) == selector
    }


def _plain(summary: Outcome, arm: str) -> str:
    size = next((s for s in sizes(summary) if arm.endswith(f"_{s}")), "")
    return arm.removesuffix(f"_{size}")


def overlaps(summary: Outcome) -> Table | None:
    """Share of the row's documents that the column selects, too."""
    found = summary.get("overlap", {})
    if not found:
        return None
    names = list(found)
    rows: list[list[Cell]] = [
        [_plain(summary, arm), *(None if arm == other else Number(found[arm][other], 2) for other in names)]
        for arm in names
    ]
    note = (
        "Of the documents that the selector of a row keeps, the share that the one of the column keeps, too;"
        " first seed."
    )
    return Table(
        "overlap",
        "Documents shared by two selectors",
        ["kept by", *(_plain(summary, arm) for arm in names)],
        rows,
        [note],
    )


def decisions(summary: Outcome) -> Table | None:
    """Smaller sizes and their endpoints against the order of the largest size, best first; beside it how
    often halves of its seeds agree.
    """
    *smaller, largest = sizes(summary) or [""]
    seeds = _shared(summary)
    truth = _values(summary, largest, summary["endpoint"], seeds)
    goal = {name: mean(by_seed.values()) for name, by_seed in truth.items()}
    best = decision.of_halves(truth)
    found: list[tuple[str, str, float, int]] = []
    for size in smaller:
        arms_of = of_size(summary, size)
        for metric in metrics(next(iter(arms_of.values()))) if arms_of else []:
            means = {
                name: mean(v.values())
                for name, v in _values(summary, size, metric, seeds).items()
                if name in goal
            }
            same = lower_is_better(summary, metric) == lower_is_better(summary, summary["endpoint"])
            oriented = {name: value if same else -value for name, value in means.items()}
            share = decision.agreement(oriented, goal)
            if share is not None and not measure.of(metric).part and not measure.of(metric).perplexity:
                found.append((size, metric, share, len(means) * (len(means) - 1) // 2))
    if not found:
        return None
    found.sort(key=lambda row: (row[1] != summary["endpoint"], -row[2]))
    rows: list[list[Cell]] = [[size, metric, Number(share, 2), pairs] for size, metric, share, pairs in found]
    limit = "unknown, with one seed" if best is None else f"{best:.2f}"
    notes = [
        (
            "Share of all pairs of selectors (random among them) that the small size puts in the order of"
            f" {largest} on {summary['endpoint']}: decision accuracy (DataDecide). Guessing gives 0.5."
        ),
        (
            f"Two halves of the seeds of {largest} agree in {limit} of pairs: what its own order repeats of"
            " itself with half as many seeds, so a little less than it would with all of them, and no"
            " ceiling. Pairs are no independent trials: no interval."
        ),
    ]
    return Table(
        "decision",
        f"Decision accuracy for {largest}",
        ["size", "measured by", "decides alike", "pairs"],
        rows,
        notes,
    )


def _shared(summary: Outcome) -> set[int]:
    """Seeds that every arm has: means over others would compare unlike with unlike."""
    found = [set(seed_values(arm, summary["endpoint"])) for arm in summary["arms"].values()]
    return set.intersection(*(seeds for seeds in found if seeds)) if any(found) else set()


def _values(summary: Outcome, size: str, metric: str, seeds: set[int]) -> dict[str, dict[int, float]]:
    found = {name: seed_values(arm, metric) for name, arm in of_size(summary, size).items()}
    kept = {
        name: {seed: value for seed, value in values.items() if seed in seeds}
        for name, values in found.items()
    }
    return {name: values for name, values in kept.items() if values}
