"""How often each arm reads its documents, by the plan: share and repetition must not be mixed up unseen.

Passes are the training tokens of an arm over the tokens of one pass over its mixture. The corpus is counted
where its token ids or its selections are in the store, else estimated from bytes and shares.
"""

from __future__ import annotations

from dataclasses import dataclass

from repro.experiments import Experiment
from repro.experiments.arms import budget_of, train_of
from repro.settings.root import Settings
from repro.store import Store, read_json

SMALL_VOCABULARY = 16_384  # entries, below which a token of our own is shorter than one of 50,000 entries
BYTES_PER_OWN_TOKEN = 3.0  # of English text and code with a vocabulary of 4,096: 2.9 to 3.3 seen
BYTES_PER_TOKEN = 4.0
TOLERANCE = 0.1  # relative, of passes that count as the same


@dataclass(frozen=True)
class Passes:
    """Of one arm: ``tokens`` trained on, tokens of one ``reading`` of its mixture, and whether these were
    counted.
    """

    tokens: float
    reading: float
    counted: bool

    @property
    def passes(self) -> float:
        """How often the mixture is read."""
        return self.tokens / self.reading if self.reading else float("inf")


def own_tokens(
    settings: Settings, experiment: Experiment, store: Store, proxy_tokens: float
) -> tuple[float, bool]:
    """Tokens of the training split as the trained models count them, and whether they were counted.

    ``proxy_tokens`` is the plan's estimate, bytes / 4.
    """
    stage = experiment.shared.get("tokens")
    if stage is not None and store.has(stage):
        of_domain = read_json(store.path(stage) / "tokens.json")["tokens"]["documents"]
        return (
            float(sum(n for domain, n in of_domain.items() if domain not in settings.budget.leave_out)),
            True,
        )
    small = settings.model.tokenizer == "bpe" and settings.model.vocabulary < SMALL_VOCABULARY
    return (
        proxy_tokens
        * (BYTES_PER_TOKEN / BYTES_PER_OWN_TOKEN if small and settings.model.init_from is None else 1),
        False,
    )


def passes(
    settings: Settings, experiment: Experiment, store: Store, proxy_tokens: float
) -> dict[str, Passes]:
    """Passes of every trained arm; of an arm redrawn by seed those of its first."""
    whole, counted = own_tokens(settings, experiment, store, proxy_tokens)
    found = {}
    for name, by_seed in experiment.arms.items():
        stages, train = next(iter(by_seed.values())), train_of(settings, name)
        arm, budget = settings.exp.arms[name], budget_of(settings, name)
        share, known = budget.share if arm.select.selector != "all" else 1.0, counted
        base = arm.mixture.full if arm.mixture.kind == "add" else 0
        reading = whole * (base + arm.mixture.weight * share)
        if store.has(stages["selection"]):  # in the proxy's tokens
            domains = read_json(store.path(stages["selection"]) / "selection.json")["domains"].values()
            total = sum(d["tokens"] for d in domains)
            reading = whole * sum(d["read_tokens"] for d in domains) / total if total else reading
        else:
            known = counted and (budget.unit == "tokens" or share == 1)
        found[name] = Passes(train.steps * train.batch_tokens, reading, known)
    return found


def lines(settings: Settings, experiment: Experiment, store: Store, proxy_tokens: float) -> list[str]:
    """Passes per arm, and warnings: where the whole corpus is read more than once, and contrasts that differ
    in passes.
    """
    found = passes(settings, experiment, store, proxy_tokens)
    width = max(map(len, found))
    said = ["", f"{'arm':{width}} {'tokens':>12} {'one pass':>12} {'passes':>7}"]
    said += [
        f"{name:{width}} {p.tokens:>12,.0f} {'' if p.counted else '~'}{p.reading:>{12 - (not p.counted)},.0f}"
        f" {p.passes:>7.2f}"
        for name, p in found.items()
    ]
    if not all(p.counted for p in found.values()):
        said.append("~ estimated; counted once the corpus and its token ids are in the store")
    for name, arm in settings.exp.arms.items():
        if (
            arm.select.selector == "all"
            and arm.mixture.kind == "alone"
            and found[name].passes > 1 + TOLERANCE
        ):
            said.append(
                f"warning: {name} reads every document {found[name].passes:.1f} times{_by(found[name])}:"
                " share kept and repetition cannot be told apart; bring more documents, or lower"
                " train.tokens"
            )
        if (
            arm.select.selector == "all"
            and arm.mixture.kind == "alone"
            and found[name].passes < 1 - TOLERANCE
        ):
            said.append(
                f"{name} reads {found[name].passes:.0%} of its text; what is kept but not read makes no"
                " difference"
            )
    return said + _confounded(settings, found)


def _by(found: Passes) -> str:
    return "" if found.counted else " by this estimate"


def _confounded(settings: Settings, found: dict[str, Passes]) -> list[str]:
    """Contrasts at equal tokens whose arms read their documents unequally often, in one line."""
    told = []
    for c in settings.exp.contrasts:
        ours, theirs = found[c.treatment], found[c.control]
        same = abs(ours.passes - theirs.passes) <= TOLERANCE * max(ours.passes, theirs.passes)
        if ours.tokens == theirs.tokens and not same:
            told.append(f"{c.treatment} ({ours.passes:.1f}) − {c.control} ({theirs.passes:.1f})")
    if not told:
        return []
    more = f"; and {len(told) - 6} more" if len(told) > 6 else ""
    return [
        f"warning: equal tokens, other passes, so repetition is compared as well: {'; '.join(told[:6])}{more}"
    ]
