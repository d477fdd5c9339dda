"""The paper's tables with ours beside them: paper | ours | difference to our own baseline with its interval |
seeds.

Ours come from committed summaries (``results/*/summary.json``) alone. What no summary holds says "not run".
"""

from __future__ import annotations

from statistics import mean

from repro.experiments.analyse import view as selected
from repro.experiments.arena import view as arenas
from repro.outcomes import measure
from repro.outcomes.verdict import COVERS, left_out
from repro.paper import printed as paper
from repro.paper.committed import (
    Gap,
    Result,
    columns_of,
    difference,
    gap_columns,
    is_the_method,
    own_columns,
    percent,
    primary,
    values,
)
from repro.report.cells import CHANCE, NOT_RUN, Cell, Interval, Number
from repro.report.run_tables import CHANCE_NOTE, could_see
from repro.report.table import Table

# arms of exp=paper_mixture
BASELINE, TREATED, RANDOM = "full", "full_plus_attention_influence", "full_plus_random"
SELECTED = "attention_influence"  # arm of exp=selection_30pct
MASKED, OTHERS, MATCHED = "retrieval", "random", "random_matched_damage"  # arms of exp=mirror_effect
MASKED_CONTRASTS = [(MASKED, MATCHED), (MASKED, "random_same_layers"), (MASKED, OTHERS), (MASKED, "base")]
JUDGE_BASELINE = "random"  # arm of exp=what_was_selected


def tables(results: list[Result]) -> list[Table]:
    """All tables that this project regenerates, in the paper's order."""
    mixture = [r for r in results if r.summary["experiment"] == "paper_mixture" and is_the_method(r, TREATED)]
    analysed = [r for r in results if r.summary["experiment"] == "what_was_selected"]
    proxies = [r for r in results if r.summary["experiment"] == "proxy_selections"]
    alone = [
        r for r in results if r.summary["experiment"] == "selection_30pct" and is_the_method(r, SELECTED)
    ]
    masked = [r for r in results if r.summary["experiment"] == "mirror_effect"]
    controls, shorts = [(TREATED, RANDOM), (TREATED, BASELINE)], [(SELECTED, "random"), (SELECTED, "full")]
    return [
        table1(mixture),
        own_table("table1_controls", "Paper mixture: what the paper's tables leave out", mixture, controls),
        own_table(
            "selection_30pct", "Selection alone at equal tokens (not the paper's experiment)", alone, shorts
        ),
        table2(results),
        judged(
            "table3",
            "Table 3: judged quality of 200 documents of each selection",
            "table3_judge_quality",
            analysed,
        ),
        table4(analysed),
        judged(
            "table5", "Table 5: judged quality by size of the proxy", "table5_judge_quality_by_proxy", proxies
        ),
        table6(masked),
        own_table("table6_controls", "Table 6: what the paper leaves out", masked, MASKED_CONTRASTS),
        table8(results),
        table10(mixture),
        table11(analysed),
        arena([r for r in results if r.summary["experiment"] == "arena"]),
        decisions([r for r in results if r.summary["experiment"] == "arena"]),
    ]


def table1(results: list[Result]) -> Table:
    """Table 1: corpus alone against corpus plus selection, after the decay."""
    base, treated = paper.printed("baseline/after_lrd"), paper.printed("ai-1.3b/after_lrd")
    columns = ["run", "benchmark", "paper: all", "paper: + kept", "paper: difference"]
    columns += ["ours: all", "ours: + kept", *gap_columns()]
    rows: list[list[Cell]] = []
    for result in results or [None]:
        for column in [*paper.reference()["columns"], "Avg"]:
            low, high = base[column], treated[column]
            gap = paper.gain(base, treated, column)
            row: list[Cell] = [result.label if result else "ours", column, _printed(low), _printed(high), gap]
            metrics = columns_of(result, column) if result else []
            if result is None or not metrics:
                rows.append([*row, NOT_RUN, NOT_RUN, *Gap(NOT_RUN).cells])
                continue
            ours = [percent(result, arm, metrics) for arm in (BASELINE, TREATED)]
            rows.append([*row, *ours, *difference(result, TREATED, BASELINE, metrics, 100).cells])
    notes = [
        "all: the whole corpus; + kept: the same with the selected documents once more.",
        (
            "Percent. Paper: 7B model, 1T tokens, one run, no interval printed. Ours: mean over seeds, paired"
            " 95 % interval."
        ),
        CHANCE_NOTE,
        could_see(*(result.summary for result in results)),
    ]
    notes += [
        "Our Avg is over the benchmarks that were run and on which all arms together are above chance, not"
        " over the paper's 19 columns.",
        "The paper's own arithmetic:",
    ]
    return Table(
        "table1",
        "Table 1: benchmarks after training",
        columns,
        rows,
        [*notes, *paper.average_notes(), *paper.arc_notes()],
        by=1,
    )


def own_table(name: str, title: str, results: list[Result], contrasts: list[tuple[str, str]]) -> Table:
    """Every metric of ours for the given contrasts, no paper column: the paper has none of these."""
    columns = ["run", "contrast", "metric", "treatment", "control", *gap_columns()]
    rows: list[list[Cell]] = []
    for result in results:
        for treatment, control in contrasts:
            arm = result.summary["arms"].get(treatment)
            first = next(iter(arm["seeds"].values()), {}).get("metrics", {}) if arm else {}
            for metric in (m for m in first if not (measure.of(m).perplexity or measure.of(m).part)):
                gap = difference(result, treatment, control, [metric], digits=4)
                means = {a: values(result, a, [metric]) for a in (treatment, control)}
                marks = {
                    a: CHANCE if v and metric in result.summary["arms"][a]["at_chance"] else ""
                    for a, v in means.items()
                }
                shown = [Number(mean(v.values()), 4, marks[a]) if v else NOT_RUN for a, v in means.items()]
                rows.append([result.label, f"{treatment} − {control}", metric, *shown, *gap.cells])
    notes = [
        could_see(*(result.summary for result in results)),
        (
            "Bits per byte: lower is better. Paired by seed; 95 % intervals, not corrected for the number of"
            " rows."
        ),
    ]
    notes += [CHANCE_NOTE] if any(getattr(cell, "mark", "") for row in rows for cell in row) else []
    notes += _left_out(results)
    return Table(name, title, columns, rows or [[NOT_RUN, *[None] * 7]], notes, by=2 if rows else 0)


def table2(results: list[Result]) -> Table:
    """Table 2: size of the proxy. Ours: ``exp=proxy_size``, whose primary contrast is the larger against the
    smaller proxy.
    """
    reference = paper.reference()["table2_proxy_size"]
    ours = [(r, c) for r in results if r.summary["experiment"] == "proxy_size" for c in primary(r)]
    columns = ["run", "benchmark", "paper: 1.3B proxy", "paper: 7B proxy", "paper: difference"]
    columns += ["ours: smaller", "ours: larger", *gap_columns()]
    rows: list[list[Cell]] = []
    for result, (large_arm, small_arm) in ours or [(None, ("", ""))]:
        name = f"{result.label}: {large_arm} against {small_arm}" if result else "ours"
        for i, column in enumerate(reference["columns"]):
            small, large = reference["1.3B"][i], reference["7B"][i]
            row: list[Cell] = [name, column, _printed(small), _printed(large), f"{large - small:+.2f}"]
            metrics = columns_of(result, column) if result else []
            if result is None or not metrics:
                rows.append([*row, NOT_RUN, NOT_RUN, *Gap(NOT_RUN).cells])
                continue
            shown = [percent(result, arm, metrics) for arm in (small_arm, large_arm)]
            rows.append([*row, *shown, *difference(result, large_arm, small_arm, metrics, 100).cells])
    notes = ["Percent, after training."]
    if ours:
        notes.append("Proxies of two families differ in data and quantisation, too, not in size alone.")
    else:
        notes.append(
            "Ours: `exp=proxy_size`, two proxies that score one corpus and models trained on each selection."
            " The benchmarks need models above chance on them, which none of a few million parameters is"
            " expected to be."
        )
    return Table("table2", "Table 2: size of the selecting model", columns, rows, notes, by=1)


def judged(name: str, title: str, key: str, results: list[Result]) -> Table:
    """Tables 3 and 5: shares judged educational and reasoning-intensive; ours with Wilson's interval."""
    columns = [
        "from",
        "selection",
        "domain",
        "education",
        "reasoning",
        "mean tokens",
        "reasoning − own baseline [95 %]",
    ]
    rows: list[list[Cell]] = [
        [
            "paper",
            selector,
            domain,
            _printed(row["edu"]),
            _printed(row["reasoning"]),
            _printed(row["token_len"], 1),
            None,
        ]
        for selector, domains in paper.reference()[key].items()
        for domain, row in domains.items()
    ]
    notes = [
        f"Own baseline: the selection {JUDGE_BASELINE} of the same run; Newcombe's interval for two shares."
    ]
    for result in results:
        table = selected.judged(result.summary)
        notes += table.notes
        for arm, domain, education, reasoning, _, tokens in table.rows:
            gap = _judged_gap(result, str(arm), str(domain))
            rows.append([result.label, arm, domain, education, reasoning, tokens, gap])
    if all(row[0] == "paper" for row in rows):
        rows.append(["ours", *[NOT_RUN] * 3, NOT_RUN, NOT_RUN, NOT_RUN])
        notes.append(
            "Ours need a judge model behind an OpenAI-compatible endpoint (judge.url); none was named in any"
            " run."
        )
    return Table(name, title, columns, rows, notes)


def _judged_gap(result: Result, arm: str, domain: str) -> Cell:
    """Share judged reasoning-intensive minus the baseline selection's, with its interval."""
    from statsmodels.stats.proportion import confint_proportions_2indep

    def counts(name: str) -> dict[str, int] | None:
        seeds = result.summary["arms"].get(name, {}).get("seeds", {})
        answers = next(iter(seeds.values()), {}).get("judged", {}).get("domains", {}).get(domain, {})
        return answers.get("reasoning")

    ours, base = counts(arm), counts(JUDGE_BASELINE)
    if arm == JUDGE_BASELINE or not ours or not base or not ours["answered"] or not base["answered"]:
        return None
    sizes = ours["yes"], ours["answered"], base["yes"], base["answered"]
    low, high = confint_proportions_2indep(*sizes, method="newcomb")
    return Interval(sizes[0] / sizes[1] - sizes[2] / sizes[3], low, high, 2)


def table4(results: list[Result]) -> Table:
    """Table 4: overlap of high-frequency words of two selections."""
    reference = paper.reference()["table4_word_overlap"]
    shares = [share for share in reference if share != "columns"]
    columns = [f"{share.split('_')[1]} % {weight}" for share in shares for weight in ("tf", "tfidf")]
    rows: list[list[Cell]] = [
        ["paper", "AttentionInfluence | FineWeb-Edu classifier", domain]
        + [_printed(reference[share][weight][i]) for share in shares for weight in ("tf", "tfidf")]
        for i, domain in enumerate(reference["columns"])
    ]
    for result in results:
        rows += [[result.label, *row] for row in selected.overlap(result.summary).rows]
    if all(row[0] == "paper" for row in rows):
        rows.append(["ours", *[NOT_RUN] * (2 + len(columns))])
    notes = ["Two given selections are compared as they are: nothing is drawn, so there is no interval."]
    title = "Table 4: overlap of high-frequency words of two selections"
    return Table("table4", title, ["from", "selections", "domain", *columns], rows, notes)


def table6(results: list[Result]) -> Table:
    """Table 6: the proxy itself with heads masked. Ours: ``exp=mirror_effect``; benchmarks that the paper
    lacks come last.
    """
    reference = paper.reference()["table6_mirror_effect"]
    kinds = ("base", "masked_random_non_retrieval", "masked_retrieval")
    columns = ["run", "task", "paper: base", "paper: random", "paper: retrieval"]
    columns += ["ours: base", "ours: random", "ours: retrieval", *gap_columns()]
    rows: list[list[Cell]] = []
    for result in results or [None]:
        label = result.label if result else "ours"
        for i, column in enumerate(reference["columns"]):
            row: list[Cell] = [label, column, *(_printed(100 * reference[kind][i]) for kind in kinds)]
            ours = _masked(result, columns_of(result, column)) if result else [NOT_RUN] * 3
            rows.append([*row, *ours] if result else [*row, *ours, *Gap(NOT_RUN).cells])
        for column, sought in own_columns(result).items() if result else ():
            if result and column not in reference["columns"]:
                rows.append([label, column, *["not in the paper"] * len(kinds), *_masked(result, sought)])
    named = (
        "random: other heads masked, mean over draws; retrieval: the retrieval heads masked; the difference"
        " is retrieval − random."
    )
    notes = ["Percent.", named]
    if results:
        notes += [COVERS, *_left_out(results), CHANCE_NOTE, could_see(*(r.summary for r in results))]
    return Table("table6", "Table 6: the proxy with its heads masked", columns, rows, notes, by=1)


def _left_out(results: list[Result]) -> list[str]:
    """Which control draws a run with masked heads leaves out."""
    return [f"{result.name}: {note}" for result in results for note in left_out(result.summary)]


def _masked(result: Result, metrics: list[str]) -> list[Cell]:
    """Base, random heads, retrieval heads, the difference of the last two with its interval, and the number
    of draws.
    """
    gap = difference(result, MASKED, OTHERS, metrics, 100) if metrics else Gap(NOT_RUN)
    return [*(percent(result, arm, metrics) for arm in ("base", OTHERS, MASKED)), *gap.cells]


def table8(results: list[Result]) -> Table:
    """Table 8: tokens of the corpus by domain."""
    parts = paper.reference()["table8_corpus_tokens_billion"]
    rows: list[list[Cell]] = [
        ["paper (billion)", domain, Number(tokens, 1)] for domain, tokens in parts.items()
    ]
    rows.append(["paper (billion)", "sum of the parts", Number(sum(parts.values()), 1)])
    for result in results:
        found = {domain: row.get("tokens", 0) for domain, row in result.summary.get("scores", {}).items()}
        for domain, tokens in found.items():
            rows.append([result.label, domain, f"{tokens:,}"])
        if found:
            rows.append([result.label, "sum of the parts", f"{sum(found.values()):,}"])
    return Table(
        "table8",
        "Table 8: tokens of the corpus",
        ["corpus", "domain", "tokens"],
        rows,
        [paper.corpus_note(), paper.parameter_note()],
    )


def table10(results: list[Result]) -> Table:
    """Table 10: every printed row, before and after the decay, and ours after training."""
    printed = paper.reference()["table1_and_10"]
    columns = [
        "benchmark",
        *(f"paper: {name.split('/')[0]}, {row['tokens']}" for name, row in printed.items()),
    ]
    columns += [f"{r.name}: {arm}" for r in results for arm in r.summary["arms"]] or ["ours"]
    rows: list[list[Cell]] = []
    for column in [*paper.reference()["columns"], "Avg"]:
        row: list[Cell] = [column, *(_printed(paper.printed(name)[column]) for name in printed)]
        row += [percent(r, arm, columns_of(r, column)) for r in results for arm in r.summary["arms"]]
        rows.append(row + ([] if results else [NOT_RUN]))
    notes = [
        "Percent. Before the decay: 746B tokens; after: 1T. Differences with intervals: table 1,"
        " table1_controls.",
        *([f"Ours: {'; '.join(r.label for r in results)}."] if results else []),
        CHANCE_NOTE,
        *paper.average_notes(),
    ]
    return Table("table10", "Table 10: benchmarks before and after the decay", columns, rows, notes)


def table11(results: list[Result]) -> Table:
    """Table 11: high-frequency words by rank band; the paper prints words only."""
    rows: list[list[Cell]] = [
        [result.label, *row] for result in results for row in selected.words(result.summary).rows
    ]
    columns = ["run", "selection", "domain", "rank band", "words"]
    return Table(
        "table11",
        "Table 11: words of the selection by rank band",
        columns,
        rows or [[NOT_RUN, *[None] * 4]],
        by=3 if rows else 0,
    )


def _printed(value: float | None, digits: int = 2) -> Cell:
    return "not printed" if value is None else Number(value, digits)


def arena(results: list[Result]) -> Table:
    """Every selector against random at every size of the model (``exp=arena``, not in the paper)."""
    found = [
        (f"{result.label}, {size}", table)
        for result in results
        for size in arenas.sizes(result.summary)
        if (table := arenas.against_random(result.summary, size)) is not None
    ]
    return _stacked("arena", "Selectors against random (not the paper's experiment)", "run and size", found)


def decisions(results: list[Result]) -> Table:
    """Whether small models put selectors in the order of larger ones (``exp=arena``, not in the paper)."""
    found = [(r.label, table) for r in results if (table := arenas.decisions(r.summary)) is not None]
    return _stacked(
        "decisions", "Do small models decide as larger ones (not the paper's experiment)", "run", found
    )


def _stacked(name: str, title: str, first: str, found: list[tuple[str, Table]]) -> Table:
    """Tables of one form below one another, each row after what its table is of."""
    if not found:
        note = "`exp=arena` makes it: every selector of the harness against random at two sizes of the model."
        return Table(name, title, [first, "selector"], [[NOT_RUN, None]], [note])
    rows: list[list[Cell]] = [[label, *row] for label, table in found for row in table.rows]
    notes = dict.fromkeys(note for _, table in found for note in table.notes)
    return Table(name, title, [first, *found[0][1].columns], rows, list(notes), by=1)
