"""What a comparison of scores shows: table, plot and words."""

from __future__ import annotations

from collections.abc import Iterator

from repro.analysis.ranks import SOURCES
from repro.outcomes.outcome import Json, Outcome
from repro.report.cells import NO_INTERVAL, Cell, Interval, Number
from repro.report.plots import Panel, Plot, Series
from repro.report.sections import Section
from repro.report.table import Table


def sections(summary: Outcome) -> list[Section]:
    """How far the rankings of the arms agree."""
    return [Section("agreement", "How far scores agree", [*figures(summary), *tables(summary)])]


def _cells(summary: Outcome) -> Iterator[tuple[str, str, Json]]:
    """(pair, domain, how far its two rankings agree)."""
    for pair, domains in summary.get("agreement", {}).items():
        for domain, found in domains.items():
            yield pair, domain, found


def tables(summary: Outcome) -> list[Table]:
    """One row a pair and domain."""
    cells = list(_cells(summary))
    if not cells:
        return []
    shares = list(next((f["overlap"] for _, _, f in cells if f["overlap"]), {}))
    rows: list[list[Cell]] = []
    for pair, domain, found in cells:
        overlaps = [_interval(found["overlap"].get(share), found) for share in shares]
        drawn = f"{found['units']} {found['drawn']}" if not few(found) else None
        rows.append(
            [pair, domain, _interval(found["spearman"], found), *overlaps, heads_in_common(summary, pair),
             found["documents"],
             found["dropped"], drawn]
        )  # fmt: skip
    columns = [
        "scores",
        "domain",
        "Spearman [95 %]",
        *(f"top {100 * float(s):.0f} % shared [95 %]" for s in shares),
    ]
    columns += ["heads shared", "documents", "without a score", "interval over"]
    notes = [
        (
            "Rankings of the same documents. By chance the top 10 % share 10 %, the top 50 % half, and"
            " Spearman is 0."
        ),
        (
            "Intervals: bootstrap over sources, since documents of one source are alike; none where a domain"
            f" has fewer than {SOURCES} of them."
        ),
        "Heads shared: of those whose masking makes the two scores, where one proxy makes both.",
    ]
    if others := _of_other_proxies(summary):
        notes.append(
            f"{', '.join(others)}: by a proxy that has tokens of its own, so documents longer than"
            " score.window are cut elsewhere, too."
        )
    return [Table("agreement", "How far scores agree", columns, rows, notes)]


def _of_other_proxies(summary: Outcome) -> list[str]:
    """Arms whose proxy is not that of the first arm that masks heads."""
    made = {
        arm: seed["artifacts"]["heads"]["inputs"]["proxy"]
        for arm, row in summary["arms"].items()
        for seed in list(row["seeds"].values())[:1]
        if "heads" in seed.get("artifacts", {})
    }
    first = next(iter(made.values()), None)
    return [arm for arm, proxy in made.items() if proxy != first]


def heads_in_common(summary: Outcome, pair: str) -> str | None:
    """How many masked heads of the second arm the first masks too, as "19 of 27".

    ``None`` where they mask heads of different proxies, or rank by something else.
    """
    sides = []
    for arm in pair.split(" | "):
        row = summary["arms"].get(arm, {})
        seed = next(iter(row.get("seeds", {}).values()), {})
        if row.get("select", {}).get("selector") != "attention_influence" or "masked" not in seed:
            return None
        heads = {tuple(head) for head in seed["masked"]["selected"]}
        sides.append((seed["artifacts"]["heads"]["inputs"]["proxy"], heads))
    (one, ours), (other, theirs) = sides
    return f"{len(ours & theirs)} of {len(theirs)}" if one == other else None


def _interval(estimate: Json | None, found: Json) -> Cell:
    if estimate is None:
        return found.get("reason", "no estimate")
    if few(found):
        return Number(estimate["value"], 2, NO_INTERVAL)
    return Interval(estimate["value"], estimate["low"], estimate["high"], 2, signed=False)


def few(found: Json) -> bool:
    """Whether a domain has too few sources for an interval; earlier versions drew its documents."""
    return found.get("drawn") != "sources" or found["units"] < SOURCES


def figures(summary: Outcome) -> list[Plot]:
    """Spearman's correlation of every pair, one panel a domain."""
    panels: dict[str, Panel] = {}
    lines: dict[str, list[tuple[str, Json]]] = {}
    names = _names(summary)
    for pair, domain, found in _cells(summary):
        if found["spearman"]:
            value = found["spearman"]["value"]
            shown = {"value": value, "low": value, "high": value} if few(found) else found["spearman"]
            lines.setdefault(domain, []).append((names[pair], shown))
    said = []
    for domain, found in lines.items():
        values = {key: [f[key] for _, f in found] for key in ("value", "low", "high")}
        arms = [name for name, _ in found]
        series = Series("", values["value"], arms, "interval", values["low"], values["high"], colour=0)
        panels[domain] = Panel(domain, "Spearman's correlation", "", [series], zero_line=True)
        said.append(
            f"{domain}: "
            + ", ".join(f"{name} {value:.2f}" for name, value in zip(arms, values["value"], strict=True))
        )
    if not panels:
        return []
    title = "How far scores agree" + (f" with {reference}" if (reference := _reference(summary)) else "")
    return [Plot("agreement", f"{title}, 95 % intervals", f"{'; '.join(said)}.", list(panels.values()))]


def _reference(summary: Outcome) -> str | None:
    """The arm that all others are compared with, where there is one."""
    second = {pair.split(" | ")[1] for pair in summary.get("agreement", {})}
    return second.pop() if len(second) == 1 else None


def _names(summary: Outcome) -> dict[str, str]:
    """What a pair is called: the first arm alone where the second is the same in all."""
    alone = _reference(summary) is not None
    return {pair: pair.split(" | ")[0] if alone else pair for pair in summary.get("agreement", {})}


def _over_domains(summary: Outcome, share: str = "0.2") -> dict[str, tuple[list[float], list[float]]]:
    """{pair: its Spearman's correlations, and the shared parts of its top 20 %, over the domains}."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for pair, _, cell in _cells(summary):
        correlations, overlaps = found.setdefault(pair, ([], []))
        if cell["spearman"]:
            correlations.append(cell["spearman"]["value"])
        if cell["overlap"].get(share):
            overlaps.append(cell["overlap"][share]["value"])
    return found


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def lines(summary: Outcome) -> list[str]:
    """For the terminal: a line a pair, ranges over the domains."""
    found = _over_domains(summary)
    if not found:
        return []
    names, reference = _names(summary), _reference(summary)
    width = min(max(len(names[pair]) for pair in found), 50)
    text = [f"agreement{f' with {reference}' if reference else ''}: lowest to highest domain"]
    for pair, (correlations, overlaps) in found.items():
        told = f"Spearman {_range(correlations):14}" if correlations else "no estimate"
        told += f"   top 20 % shared {_range(overlaps)}" if overlaps else ""
        text.append(f"  {names[pair][:width]:{width}}  {told}")
    return [*text, ""]


def sentence(summary: Outcome) -> str:
    """What stands where a training run has its verdict."""
    found = {pair: correlations for pair, (correlations, _) in _over_domains(summary).items() if correlations}
    end = "Nothing was trained, so nothing is concluded about training."
    if not found:
        return f"No domain has enough documents to compare scores. {end}"
    compared = len(found)
    selectors = {arm: row.get("select", {}).get("selector") for arm, row in summary.get("arms", {}).items()}
    ours = {
        pair: v
        for pair, v in found.items()
        if {selectors.get(arm) for arm in pair.split(" | ")} == {"attention_influence"}
    }
    which = "of these, "
    if len(ours) > 1:  # that a rival's ranking is another is no news
        found, which = ours, f"of the {len(ours)} of influence scores, "
    low, high = (pick(found, key=lambda pair: sum(found[pair]) / len(found[pair])) for pick in (min, max))
    told = [f"{pair.replace(' | ', ' and ')} agree {how} (Spearman {_range(found[pair])} over domains)"
            for pair, how in ((low, "least"), (high, "most"))]  # fmt: skip
    return f"{compared} pairs of scores were compared; {which}{'; '.join(told[: len(found)])}. {end}"
