"""The paper's claims in our words, what each rests on, and what our runs say: the verdict page."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

from repro.outcomes import statistics, words
from repro.outcomes.compare import lower_is_better, masked, primary
from repro.outcomes.verdict import DOCUMENTS, SEEDS, SOURCES
from repro.paper import printed as paper
from repro.paper.committed import Result, columns_of, difference, is_the_method
from repro.paper.tables import BASELINE, MASKED, MATCHED, OTHERS, RANDOM, SELECTED, TREATED
from repro.report.cells import NOT_RUN, Cell, Interval
from repro.report.run_tables import could_see
from repro.report.table import Table
from repro.settings.arms import named

REPLICATED, NOT_REPLICATED, UNDECIDED = "replicated", "not replicated", "undecided"
NOT_TESTED = "described, not tested"
DEMONSTRATION = f"{UNDECIDED} (demonstration)"
SHARE = 0.3  # of the short form people quote


@dataclass(frozen=True)
class Claim:
    """A statement that a contrast of an experiment can bear out. No experiment: none of ours tests it.

    ``columns`` are benchmarks of table 1, averaged; with none, the run's primary endpoint decides. ``also``
    has the treatment and the control of other experiments that test the same.
    """

    text: str
    rests_on: str
    printed: str
    experiment: str | None = None
    treatment: str = ""
    control: str = ""
    columns: tuple[str, ...] = ()
    hurts: bool = False  # the claim is that the treatment does worse
    shown: str = ""  # where our runs describe what no single contrast can test
    needs: str = "its experiment"  # what a run would take, said where there is none
    also: dict[str, tuple[str, str]] = field(default_factory=dict)

    def within(self, experiment: str) -> Claim | None:
        """The claim in the terms of an experiment; ``None`` where that tests it not."""
        if experiment in self.also:
            treatment, control = self.also[experiment]
            return replace(self, experiment=experiment, treatment=treatment, control=control)
        return self if experiment == self.experiment else None


def claims() -> list[Claim]:
    """Claims of the paper first, then the two questions it leaves open."""
    base, treated = paper.printed("baseline/after_lrd"), paper.printed("ai-1.3b/after_lrd")
    large = paper.printed("ai-7b/after_lrd")
    highlights = ("MMLU", "MMLU-Pro", "AGIEval-en", "GSM8K", "HumanEval")
    gains = ", ".join(f"{c} {paper.gain(base, treated, c)}" for c in highlights)
    average = f"{paper.gain(base, treated, 'Avg')} points on the average"
    proxies = f"{paper.gain(treated, large, 'Avg')} points on the average"
    mixture = partial(Claim, experiment="paper_mixture", treatment=TREATED)
    masking = partial(Claim, experiment="mirror_effect", treatment=MASKED, hurts=True)
    return [
        mixture(
            "Adding the selected documents once more to the corpus makes a better model than the corpus"
            " alone.",
            "table 1",
            average,
            control=BASELINE,
        ),
        mixture(
            "The gains stand out on knowledge and reasoning.",
            "table 1",
            gains,
            control=BASELINE,
            columns=highlights,
        ),
        mixture(
            "The advantage is there early and stays until the end of training.",
            "figures 1, 7",
            "no figures printed",
            shown="figures 1, 7",
        ),
        Claim(
            "A larger selecting model selects better.",
            "tables 2, 10",
            proxies,
            "proxy_size",
            "full_plus_large",
            "full_plus_small",
            needs="a second, larger proxy of the same family (exp=proxy_size)",
        ),
        masking(
            "Masking retrieval heads hurts reasoning tasks far more than masking as many other heads.",
            "table 6",
            _mirror(),
            control=OTHERS,
        ),
        Claim(
            "The selections of the method and of an educational classifier differ, most on code and"
            " mathematics.",
            "table 4",
            _overlap(),
            "what_was_selected",
            shown="table 4",
        ),
        Claim(
            "Selected code and mathematics is longer and more often judged to need reasoning than a"
            " classifier's.",
            "table 3",
            _judged(),
            "what_was_selected",
            shown="table 3",
        ),
        Claim(
            "The retrieval heads appear early in pretraining and then stay.",
            "figure 2",
            "no figures printed",
            "head_evolution",
            shown="figure 2",
        ),
        mixture(
            "Not in the paper: the selection does better than a random one of the same tokens and repeats.",
            "public reviews",
            "not tested",
            control=RANDOM,
        ),
        masking(
            "Not in the paper: masking retrieval heads hurts answers more than masking heads that hurt"
            " ordinary text as much.",
            "public reviews",
            "not tested",
            control=MATCHED,
        ),
        Claim(
            "Not in the paper: the selected 30 % alone does better than a random 30 %.",
            "the short form people quote",
            "not tested",
            "selection_30pct",
            SELECTED,
            "random",
            also={"accuracy_vs_data": (named(SELECTED, SHARE), named("random", SHARE))},
        ),
    ]


def _mirror() -> str:
    table = paper.reference()["table6_mirror_effect"]
    i = table["columns"].index("GSM8K")
    base, other, heads = (
        100 * table[k][i] for k in ("base", "masked_random_non_retrieval", "masked_retrieval")
    )
    return (
        f"GSM8K {base:.2f} as it is, {other:.2f} with random heads masked, {heads:.2f} with retrieval heads"
        " masked"
    )


def _overlap() -> str:
    table = paper.reference()["table4_word_overlap"]
    found = zip(table["columns"], table["top_20_percent"]["tf"], strict=True)
    return "word overlap at 20 %: " + ", ".join(f"{domain} {value:.2f}" for domain, value in found)


def _judged() -> str:
    rivals = paper.reference()["table3_judge_quality"]
    ours, theirs = rivals["attention-influence-1.3b"], rivals["fineweb-edu-classifier"]
    return "judged reasoning: " + ", ".join(
        f"{d} {ours[d]['reasoning']:.2f} against {theirs[d]['reasoning']:.2f}"
        for d in ("python-edu", "open-web-math")
    )


def verdict_table(results: list[Result]) -> Table:
    """One row a claim and run: our difference with its interval, the smallest difference the run could see,
    the verdict.

    The claims that a difference tests are one family: beside what its own run allows, Holm's correction over
    them all must.
    """
    columns = [
        "claim",
        "rests on",
        "paper",
        "our run",
        "measured on",
        "difference [95 %]",
        "could see",
        "verdict",
    ]
    found = _found(results)
    rows: list[list[Cell]] = [
        [
            claim.text,
            claim.rests_on,
            claim.printed,
            label,
            one.measured_on,
            one.difference,
            one.could_see,
            said,
        ]
        for (claim, label, one), said in zip(found, settle([one for _, _, one in found]), strict=True)
    ]
    tested = sum(one.p is not None for _, _, one in found)
    notes = [
        (
            "replicated / not replicated: the 95 % interval lies on the paper's / on the other side of zero,"
            f" its own run calls it a difference, and so does Holm's correction over the {tested} claims and"
            f" runs tested here. undecided: anything else, or the run is a demonstration (below {SEEDS}"
            f" seeds, {DOCUMENTS} selected documents or {SOURCES} sources a domain; draws of control heads"
            " count as seeds)."
        ),
        (
            f"described: no single difference tests the claim; {NOT_TESTED} means that nothing here may be"
            " concluded from it."
        ),
        could_see(*(result.summary for result in results)),
        "A claim without a run here is not refuted: nothing was measured.",
    ]
    return Table("verdicts", "Verdicts, claim by claim", columns, rows, notes, by=3)


def _found(results: list[Result]) -> list[tuple[Claim, str, Judged]]:
    """Every claim in every run of it, by the run's name."""
    found: list[tuple[Claim, str, Judged]] = []
    for claim in claims():
        ours = [
            (own, result)
            for result in results
            if (own := claim.within(result.summary["experiment"])) and _of_the_method(own, result)
        ]
        found += [(own, result.name, judge(own, result)) for own, result in ours]
        found += [] if ours else [(claim, NOT_RUN, Judged(f"needs {claim.needs}", verdict=NOT_RUN))]
    return found


def not_established(results: list[Result]) -> set[str]:
    """Runs in which a claim's difference stands in its own run and falls to the correction over all
    claims.
    """
    found = _found(results)
    settled = settle([one for _, _, one in found])
    return {name for (_, name, one), said in zip(found, settled, strict=True) if said != one.verdict}


def _of_the_method(claim: Claim, result: Result) -> bool:
    """Whether a run is of what the claim speaks of: the paper's score against what the control's name says,
    at its share; a larger proxy of one family.
    """
    if claim.experiment == "proxy_size":
        return _larger_of_one_family(result, claim)
    alone = claim.experiment in ("selection_30pct", "accuracy_vs_data")
    if claim.experiment != "paper_mixture" and not alone:
        return True
    arms = result.summary["arms"]
    shares = {arms[arm]["share"] for arm in (claim.treatment, claim.control) if arm in arms}
    control = arms.get(claim.control, {}).get("select", {}).get("selector")
    meant = "all" if claim.control == BASELINE else "random"
    right = control in (None, meant) and (not alone or shares == {SHARE})
    return right and is_the_method(result, claim.treatment)


def _larger_of_one_family(result: Result, claim: Claim) -> bool:
    """Whether the treatment's proxy has more parameters than the control's and the first word of its name,
    as ``smollm2-1.7b`` beside ``smollm2-135m``.
    """
    settings = result.summary["settings"]
    own = (settings["exp"]["arms"].get(arm, {}).get("proxy") for arm in (claim.treatment, claim.control))
    larger, smaller = ({**settings["proxy"], **(proxy or {})} for proxy in own)
    families = {str(proxy.get("name")).partition("-")[0] for proxy in (larger, smaller)}
    return len(families) == 1 and (larger.get("parameters") or 0) > (smaller.get("parameters") or 0)


@dataclass(frozen=True)
class Judged:
    """A claim in one run: what it was measured on, the difference, what could be seen, the verdict before the
    correction over claims, and the p-value that enters it (of a demonstration none).
    """

    measured_on: str
    difference: Cell = None
    could_see: Cell = None
    verdict: str = NOT_RUN
    p: float | None = None


def settle(found: list[Judged]) -> list[str]:
    """The verdicts after Holm's correction over all claims that a difference tests."""
    corrected = statistics.holm({str(n): one.p for n, one in enumerate(found) if one.p is not None})
    said = {
        n: one.verdict in (REPLICATED, NOT_REPLICATED) and corrected[str(n)] > words.ALPHA
        for n, one in enumerate(found)
    }
    return [
        f"{UNDECIDED} ({words.AFTER_CORRECTION})" if said[n] else one.verdict for n, one in enumerate(found)
    ]


def judge(claim: Claim, result: Result) -> Judged:
    """One claim in one run."""
    if claim.shown == "table 3" and not any("judged" in seed for arm in result.summary["arms"].values()
                                            for seed in arm["seeds"].values()):  # fmt: skip
        return Judged("needs a judge model (judge.url); none was at hand")
    if claim.shown:
        return Judged(f"see {claim.shown}", verdict=NOT_TESTED)
    chance = (
        set(result.summary["arms"][claim.treatment]["at_chance"])
        if claim.treatment in result.summary["arms"]
        else set()
    )
    metrics = [m for column in claim.columns for m in columns_of(result, column) if m not in chance]
    if claim.columns and not metrics:
        return Judged(f"needs models above chance on {', '.join(claim.columns)}")
    metrics = metrics or [result.summary["endpoint"]]
    gap = difference(result, claim.treatment, claim.control, metrics, digits=4)
    if not isinstance(gap.cell, Interval):
        return Judged(", ".join(metrics), gap.cell, verdict=NOT_RUN if gap.cell == NOT_RUN else UNDECIDED)
    said = _verdict(claim, gap.cell, metrics, result)
    return Judged(", ".join(metrics), gap.cell, gap.could_see, said, None if said == DEMONSTRATION else gap.p)


def _verdict(claim: Claim, gap: Interval, metrics: list[str], result: Result) -> str:
    """The words of the comparison itself, held against what the claim says."""
    sides = (claim.treatment, claim.control)
    rows = [
        r
        for r in result.summary["comparisons"]
        if (r["treatment"], r["control"]) == sides and [r["metric"]] == metrics
    ]
    alone = not rows or rows[0].get("exploratory")  # of other tasks or contrasts its run has no word
    said = _of_a_mean(gap, metrics, result) if alone else rows[0]["verdict"]
    if result.summary["verdict"]["demonstration"] or said == words.DEMONSTRATION:
        return DEMONSTRATION
    sign = words.direction(said)
    if not sign and said in (words.AFTER_CORRECTION, words.NOT_TESTED):
        return f"{UNDECIDED} ({said} in its run)"
    return {0: UNDECIDED, 1: REPLICATED, -1: NOT_REPLICATED}[-sign if claim.hurts else sign]


def _of_a_mean(gap: Interval, metrics: list[str], result: Result) -> str:
    """The words for what is in no family of its run, such as a mean over tasks: tested as a secondary one is,
    after the primary.
    """
    first = primary(result.summary)
    opened = first is not None and bool(words.direction(first["verdict"]))
    lower = lower_is_better(result.summary, metrics[0])
    return words.verdict(gap.low, gap.high, lower, tested=opened, masked=masked(result.summary))
