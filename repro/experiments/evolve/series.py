"""How important heads come to be: head scores of a model's checkpoints (figure 2 of the paper).

Checkpoints are those of a training of our own, or published ones: an arm with a ``proxy`` override is one
checkpoint, every other arm is trained and its kept checkpoints are taken. Each checkpoint becomes a proxy,
and the ordinary stages "detection" and "heads" look at it. A series is one training (or all published
checkpoints) seen by one measure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from repro.errors import require
from repro.heads import detectors
from repro.heads import stage as heads
from repro.heads.found import Chosen
from repro.heads.settings import Heads
from repro.plain import Json, Row
from repro.pretrain.settings import Train
from repro.proxy import stage as proxy
from repro.proxy.settings import Proxy
from repro.settings.typed import check_keys
from repro.store import Context, Stage, write_json

ABOVE = 0.1  # score from which Wu et al. (arXiv 2404.15574) call a head a retrieval head
DIGITS = 4
MEASURES: Json = {"retrieval": {"detector": "retrieval"}, "induction": {"detector": "induction"}}


@dataclass
class Evolution:
    """``exp.params`` of an experiment on checkpoints."""

    # name: settings of heads that differ
    measures: Json = field(default_factory=lambda: dict(MEASURES))
    # of our own training with the finished model, unless train.keep_at_tokens names them
    checkpoints: int = 6
    first: float = 1 / 32  # share of the token budget at the first one; geometric from there to the end
    context: int = 256  # our own models read at least so many tokens, or a probe has no room
    tokens: dict[str, int] = field(default_factory=dict)  # that a published checkpoint was trained on, by arm

    def __post_init__(self) -> None:
        require(
            self.checkpoints >= 2 and 0 < self.first < 1,
            "exp.params: checkpoints must be >= 2 and first in (0, 1)",
        )
        require(
            bool(self.measures),
            "exp.params.measures is empty; name one, such as {retrieval: {detector: retrieval}}",
        )
        for name, given in self.measures.items():
            check_keys("exp.params.measures", given, Heads, f"{name}.")


@dataclass(frozen=True)
class Checkpoint:
    """One model of a series: its name, the tokens it has read where they are known, the stage that holds it,
    its dtype.
    """

    name: str
    tokens: int | None
    proxy: Stage
    settings: Proxy
    context: int | None = None  # tokens a probe may have, where that is known


def kept(train: Train, s: Evolution) -> Train:
    """The training with the checkpoints of the series, and a context that has room for probes."""
    train = replace(train, context=max(train.context, s.context))
    if train.keep_at_tokens:
        return train
    ratio = s.first ** (1 / (s.checkpoints - 1))
    steps = {max(1, round(train.steps * ratio**i)) for i in range(1, s.checkpoints)} - {train.steps}
    return replace(train, keep_at_tokens=[step * train.batch_tokens for step in sorted(steps)])


def trained(train: Train, pretrain: Stage, s: Proxy) -> list[Checkpoint]:
    """The kept checkpoints of a training, the finished model last."""
    before = [step * train.batch_tokens for step in train.kept_steps if step < train.steps]
    folders = {tokens: f"models/{tokens}" for tokens in before} | {train.steps * train.batch_tokens: "model"}
    return [
        Checkpoint(f"{tokens:,} tokens", tokens, proxy.checkpoint(pretrain, folder), s, train.context)
        for tokens, folder in folders.items()
    ]


def series(
    heads_settings: Heads, s: Evolution, checkpoints: list[Checkpoint], corpus: Stage
) -> dict[str, Stage]:
    """{measure: its stage "evolution"} over checkpoints, the last one last."""
    found = {}
    for measure, given in s.measures.items():
        how = replace(heads_settings, **given)
        require(
            how.detector in detectors.names(),
            f"exp.params.measures.{measure}: detector {how.detector!r} measures no heads; "
            f"valid: {', '.join(detectors.names())}",
        )
        # all are asked the same probes
        room = min([how.probe_tokens, *(one.context for one in checkpoints if one.context)])
        how = replace(how, probe_tokens=room)
        stages = {one.name: heads.stage(how, one.settings, one.proxy, corpus) for one in checkpoints}
        order = [[one.name, one.tokens] for one in checkpoints]
        found[measure] = Stage(
            "evolution", measure, {"checkpoints": order}, lambda ctx, o=order: _collect(ctx, o), stages
        )
    return found


def _collect(context: Context, checkpoints: list[list[Any]]) -> None:
    found = {name: heads.read(context.inputs[name]) for name, _ in checkpoints}
    shapes = {name: (h["num_layers"], h["num_heads"]) for name, h in found.items()}
    require(
        len(set(shapes.values())) == 1,
        "checkpoints of one series must be of one model; layers and heads here: "
        f"{', '.join(f'{name} {l} x {h}' for name, (l, h) in shapes.items())}",
    )
    write_json(context.out / "evolution.json", evolve(found, {name: tokens for name, tokens in checkpoints}))
    context.facts |= {"checkpoints": len(found)}


def evolve(heads: Mapping[str, Chosen], tokens: Mapping[str, int | None]) -> Json:
    """What the checkpoints' ``heads.json`` say, in their order: scores [layers][heads] and what they come to.

    ``shared_with_last``: share of the last checkpoint's selected heads that are selected here too. Heads that
    score zero are selected by their place alone, so they count as selected nowhere; ``None`` where the last
    checkpoint has no others.
    """
    import numpy as np

    *_, last = heads.values()
    final = _selected(last)
    rows: list[Row] = []
    for name, found in heads.items():
        scores = np.array(found["scores"])
        earlier = zip(rows, heads.values(), strict=False)
        same = next((row["name"] for row, other in earlier if other["scores"] == found["scores"]), None)
        rows.append(
            {
                "name": name,
                "tokens": tokens[name],
                "scores": scores.round(DIGITS).tolist(),
                "selected": [list(pair) for pair in _selected(found)],
                "max": float(scores.max()),
                "above": int((scores > ABOVE).sum()),
                "zero_heads": int((scores == 0).sum()),
                "shared_with_last": len(set(_selected(found)) & set(final)) / len(final) if final else None,
                "probe_accuracy": found.get("probe", {})["accuracy"],
                "probe_loss": found.get("probe", {})["loss"],
                # equal scores to the last digit: the same weights under two names
                "same_as": same if scores.any() else None,
            }
        )
    facts = {key: last[key] for key in ("model", "num_layers", "num_heads", "detector", "share")}
    asked = last.get("probe", {})
    probes = {
        key: asked[key] for key in ("probes", "probe_tokens", "shots", "key_characters") if key in asked
    }
    return {**facts, "probe": probes, "checkpoints": rows}


def _selected(found: Chosen) -> list[tuple[int, int]]:
    scores = found["scores"]
    assert scores is not None  # checkpoints are measured, by a detector
    return [(layer, head) for layer, head in found["selected"] if scores[layer][head] > 0]
