"""What a run shows, in order: the sections that every run has and between them those of its kind. Page,
tables, figures and W&B all come from here, so that nothing which is drawn can be left off the page.

A kind's ``experiments/<kind>/view.py`` has ``sections(summary)`` and ``sentence(summary)``, which stands
where a comparison has its verdict; it may have ``lines(summary)`` for the terminal and ``leave(run_dir,
store, stages)`` for files beside the report.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass, field

from repro import kinds
from repro.outcomes.outcome import Outcome
from repro.report import (
    benchmarks,
    curve,
    cuts,
    during,
    failed,
    figures,
    levels,
    noise,
    registered,
    run_tables,
)
from repro.report.plots import Plot
from repro.report.table import Table

FEW_ARMS = 6  # of more, tables with a column an arm are folded, and one with a row an arm stands there
NOTHING_CONCLUDED = "No primary contrast was named, so nothing is concluded."


@dataclass(frozen=True)
class Folded:
    """A long table or plot that the page shows when it is asked to."""

    block: Table | Plot


Block = Table | Folded | Plot | str


@dataclass
class Section:
    """A part of the page; what a run has no data for is ``None`` and left out."""

    name: str
    title: str
    given: InitVar[Sequence[Block | None]] = ()
    blocks: list[Block] = field(init=False)

    @property
    def unfolded(self) -> list[Table | Plot | str]:
        """What it shows, whether at once or when it is asked to."""
        return [block.block if isinstance(block, Folded) else block for block in self.blocks]

    def __post_init__(self, given: Sequence[Block | None]) -> None:
        self.blocks = [block for block in given if block is not None]


def sections(summary: Outcome) -> list[Section]:
    """Every section of a run that is not empty; those of its kind (``experiments/<kind>/view.py``) follow the
    outcome.
    """
    own = kinds.load(summary["kind"], "view").sections(summary)
    compared, *rest = own if own and own[0].name == "arms" else [arms(summary), *own]
    made = [compared, *_opening(summary), *rest, *_closing(summary)]
    return [section for section in made if section.blocks]


def tables(summary: Outcome) -> list[Table]:
    """Every table of a run, the outcome first."""
    return [block for block in _blocks(summary) if isinstance(block, Table)]


def plots(summary: Outcome) -> list[Plot]:
    """Every plot of a run, the outcome first."""
    return [block for block in _blocks(summary) if isinstance(block, Plot)]


def _blocks(summary: Outcome) -> Iterator[Table | Plot | str]:
    for section in sections(summary):
        yield from section.unfolded


def said(summary: Outcome) -> list[str]:
    """What stands with the verdict wherever it is shown, a sentence each: the models that failed or are not
    there yet, the conclusion that was stated beforehand, and deviations from what was.
    """
    return [*failed.lines(summary), *registered.lines(summary)]


def folded(block: Table | Plot | None) -> Folded | None:
    """A table or plot that may be absent, folded."""
    return None if block is None else Folded(block)


def arms(summary: Outcome, said: str | None = None) -> Section:
    """What is compared: what every arm selects, and a sentence of the kind."""
    return Section("arms", "What is compared", [run_tables.arms(summary), said])


def _opening(summary: Outcome) -> list[Section]:
    outcome = run_tables.outcome(summary)
    # a column an arm does not fit a page of many
    many = folded if len(summary["arms"]) > FEW_ARMS else lambda block: block
    compared = [
        failed.table(summary),
        figures.contrasts(summary),
        _no_interval(summary) if outcome is None and summary["comparisons"] else None,
        noise.table(summary),
        run_tables.contrasts(summary),
        curve.by_share(summary),
        levels.table(summary) if len(summary["arms"]) > FEW_ARMS else None,
        many(outcome),
        run_tables.missing(summary),
        *map(many, benchmarks.tables(summary)),
        cuts.prompts(summary),
        figures.benchmarks(summary),
        *benchmarks.figures(summary),
        folded(run_tables.per_seed(summary)),
    ]
    return [
        Section("outcome", "Outcome", compared),
        Section("registered", "Stated before the run", [registered.table(summary)]),
    ]


def _no_interval(summary: Outcome) -> str:
    reasons = dict.fromkeys(
        row.get("no_interval") or "one seed" for row in summary["comparisons"] if row["low"] is None
    )
    return (
        f"There is no interval ({'; '.join(reasons) or 'no primary contrast'}), and a table without intervals"
        " is not shown. The values are in tables/seeds.csv."
    )


def _closing(summary: Outcome) -> list[Section]:
    return [
        Section("training", "Training", [figures.learning(summary), curve.performance(summary),
                                         during.plot(summary), folded(during.table(summary))]),
        Section("heads", "Heads", [figures.heads(summary), run_tables.effect(summary),
                                   folded(run_tables.heads(summary))]),
        Section("scores", "Scores", [figures.scores(summary), cuts.documents(summary),
                                     run_tables.correlations(summary)]),
        Section("selection", "What was selected", [run_tables.selection(summary), figures.sources(summary),
                                                   folded(run_tables.sources(summary))]),
        Section("corpus", "Corpus", [run_tables.corpus(summary)]),
        Section("cost", "Cost and time", [figures.cost(summary), folded(run_tables.cost(summary))]),
    ]  # fmt: skip
