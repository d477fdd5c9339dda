"""An experiment is arms x seeds, and its kind says which stages each of them needs and what its page
shows. Runs nothing, imports no library.

A kind is a folder: ``experiments/<kind>/stages.py`` has ``stages(settings) -> Experiment``, and what serves
that kind only lies beside it; :mod:`repro.kinds` finds it by its name. What kinds share is in
:mod:`repro.experiments.arms`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from repro import kinds
from repro.plain import Json
from repro.settings.root import Settings
from repro.store import Stage


@dataclass
class Experiment:
    """The stages of a run. ``arms[name][seed]`` holds those of one arm and seed by name, "selection",
    "pretrain", "copying" and "evaluate" of a trained model; ``pairs`` what sets arms side by side, by its own
    name; ``exported`` the stages that are read whole, text included, once all are done; ``apart`` says that
    arms and seeds can do without one another.
    """

    # items, corpus, proxy, heads, score, tokens, baselines
    shared: dict[str, Stage] = field(default_factory=dict)
    arms: dict[str, dict[int, dict[str, Stage]]] = field(default_factory=dict)
    pairs: dict[str, Stage] = field(default_factory=dict)
    exported: list[Stage] = field(default_factory=list)
    apart: bool = False

    def order(self) -> list[Stage]:
        """Every stage once, inputs before what reads them: first what reads none, the corpus last of it, so
        that a model that cannot be had shows before hours of work on others; all selections before the first
        training, then all arms of a seed before the next seed. Stages of one pass come when the inputs of all
        of them are there.
        """
        targets = list(self._targets())
        every = {stage.fingerprint: stage for target in targets for stage in target.ancestors()}
        found = dict(sorted(every.items(), key=lambda one: 2 if one[1].inputs else one[1].name == "corpus"))
        passes: dict[str | None, list[Stage]] = {}
        for stage in found.values():
            passes.setdefault(stage.one_pass, []).append(stage)
        seen: dict[str, Stage] = {}
        for stage in found.values():
            # what one pass makes begins once all of it could
            for other in passes[stage.one_pass] if stage.one_pass else ():
                for child in other.inputs.values():
                    seen |= {one.fingerprint: one for one in child.ancestors() if one.fingerprint not in seen}
            seen.setdefault(stage.fingerprint, stage)
        return list(seen.values())

    def title(self, stage: Stage) -> str:
        """What a stage is called on the terminal: the arms and the seed it belongs to, else its label."""
        owners = [(arm, seed) for arm, by_seed in self.arms.items() for seed, stages in by_seed.items()
                  if stage.fingerprint in {s.fingerprint for s in stages.values()}]  # fmt: skip
        pair = next(
            (name for name, other in self.pairs.items() if other.fingerprint == stage.fingerprint), None
        )
        if pair is not None:
            return pair
        if not owners:
            return f"{stage.label}, {stage.inputs['proxy'].label}" if "proxy" in stage.inputs else stage.label
        arms, seeds = dict.fromkeys(arm for arm, _ in owners), dict.fromkeys(seed for _, seed in owners)
        return f"{', '.join(arms)}" + (f", seed {next(iter(seeds))}" if len(seeds) == 1 else "")

    def _targets(self) -> Iterator[Stage]:
        yield from self.shared.values()
        yield from self.selections()
        seeds = dict.fromkeys(seed for by_seed in self.arms.values() for seed in by_seed)
        for seed in seeds:
            for by_seed in self.arms.values():
                yield from by_seed.get(seed, {}).values()
        yield from self.pairs.values()

    def selections(self) -> list[Stage]:
        """The selection of every arm and seed."""
        return [
            s["selection"] for by_seed in self.arms.values() for s in by_seed.values() if "selection" in s
        ]

    def has(self, name: str) -> bool:
        """Whether some stage is called ``name``."""
        return any(stage.name == name for stage in self.order())

    def trained(self) -> dict[str, dict[int, dict[str, Stage]]]:
        """The arms that train a model."""
        return {
            name: by_seed
            for name, by_seed in self.arms.items()
            if any("pretrain" in s for s in by_seed.values())
        }

    def as_dict(self) -> Json:
        """The shape the report reads: the shared stages by name, the arms, and comparisons of selections by
        name.
        """
        return {**self.shared, "arms": self.arms, "pairs": self.pairs}


def build(settings: Settings) -> Experiment:
    """The stages of ``settings``; cheap, so that ``--plan`` answers at once."""
    return kinds.load(settings.exp.kind).stages(settings)
