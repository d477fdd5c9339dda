"""Rankings of every arm's scores, and how far two of them agree."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from repro.errors import require
from repro.experiments import Experiment, arms
from repro.plain import Json
from repro.selection import priority, selectors
from repro.selection.settings import Select
from repro.settings.root import Settings
from repro.settings.typed import as_object
from repro.store import Context, Stage, parquet, write_json
from repro.store.cost import of_rows


@dataclass
class Agreement:
    """``exp.params`` of an experiment that compares scores."""

    # of the ranked documents of a domain
    shares: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.3, 0.5])
    draws: int = 1000  # of the bootstrap
    seed: int = 0

    def __post_init__(self) -> None:
        require(
            all(0 < share < 1 for share in self.shares),
            f"exp.params.shares={self.shares} must lie between 0 and 1",
        )
        require(self.draws >= 100, "exp.params.draws must be at least 100")


def stages(settings: Settings) -> Experiment:
    """``arms[name][seed]``: "heads", "score" and "ranking"; ``pairs`` compare rankings as ``exp.contrasts``
    says, or each with the first arm's.
    """
    shared = arms.with_scores(settings)
    seed = settings.exp.seeds[0]
    require(len(settings.exp.arms) >= 2, f"exp={settings.exp.name} compares scores: it needs two arms")
    params = as_object(Agreement, settings.exp.params, "exp.params")
    found: dict[str, dict[int, dict[str, Stage]]] = {}
    for name, arm in settings.exp.arms.items():
        scores = arms.scores(settings, shared, name)
        ranking = ranking_stage(arm.select, seed, shared["corpus"], scores)
        found[name] = {seed: {"heads": scores.inputs["heads"], "score": scores, "ranking": ranking}}
    first, *others = found
    wanted = [(c.treatment, c.control) for c in settings.exp.contrasts] or [
        (other, first) for other in others
    ]
    ranked = {name: by_seed[seed]["ranking"] for name, by_seed in found.items()}
    return Experiment(
        shared, found, {f"{a} | {b}": agreement_stage(params, ranked[a], ranked[b]) for a, b in wanted}
    )


def ranking_stage(select: Select, seed: int, corpus: Stage, scores: Stage) -> Stage:
    """``ranking.parquet``: what a selector says of every training document (doc_id, domain, group,
    priority).
    """
    seed, settings, inputs = priority.asking(select, seed, corpus, scores)
    return Stage(
        "ranking",
        select.selector,
        settings,
        lambda ctx: _rank(ctx, select.selector, select.params, seed),
        inputs,
        light=selectors.light(select.selector, select.params),
        cost=lambda known: of_rows(known.inputs["corpus"]),
    )


def _rank(context: Context, selector: str, given: Json, seed: int) -> None:
    from repro.selection import rank

    query = f'SELECT doc_id, "group", {rank.TAIL} AS tie FROM documents'
    found, known = priority.of_documents(context, selector, given, seed, query)
    # In the order in which equal priorities are taken.
    ranking = (
        found.join(known, on="doc_id").sort("domain", "tie").select("doc_id", "domain", "group", "priority")
    )
    ranking.write_parquet(context.out / "ranking.parquet")
    context.facts |= {"documents": len(ranking), "unranked": int(ranking["priority"].null_count())}


def agreement_stage(s: Agreement, left: Stage, right: Stage) -> Stage:
    """``agreement.json``: for each domain, how far two rankings agree."""
    inputs = {"left": left, "right": right}
    return Stage(
        "agreement",
        f"{left.label}-{right.label}",
        asdict(s),
        lambda ctx: _agree(ctx, s),
        inputs,
        cost=lambda known: of_rows(known.inputs["left"]),
        version=2,  # no interval over fewer than five sources
    )


def _agree(context: Context, s: Agreement) -> None:
    from repro.experiments.agree.measure import measure

    left, right = (parquet.read(context.inputs[side] / "ranking.parquet") for side in ("left", "right"))
    both = left.join(right.select("doc_id", other="priority"), on="doc_id", maintain_order="left")
    found = {
        str(domain): measure(part, s) for (domain,), part in both.group_by("domain", maintain_order=True)
    }
    write_json(context.out / "agreement.json", found)
    context.facts |= {
        "documents": sum(d["documents"] for d in found.values()),
        "dropped": sum(d["dropped"] for d in found.values()),
    }
