"""Stages ``detection`` (a score per head, from probes) and ``heads`` (which heads count as important:
``heads.json``).

They are apart so that another head share, or a control, does not detect again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from repro import plugins
from repro.errors import one_of, require
from repro.heads import detectors, probes
from repro.heads.found import Chosen
from repro.heads.settings import CALIBRATION_TOKENS, Heads
from repro.proxy.settings import Proxy
from repro.proxy.stage import within_context
from repro.schema import identity
from repro.store import Context, Stage, atomic, parquet, read_json, write_json
from repro.store.cost import STARTED, Cost, Known
from repro.tracking import progress, read_rows

if TYPE_CHECKING:
    import numpy as np

    from repro.heads.probes import Probe
    from repro.proxy.load import ProxyModel

# as many heads, chosen otherwise (controls.py)
CONTROLS = ("random", "random_same_layers", "random_matched_damage", "bottom")
# held-out text that damage and mean outputs are measured on; part of those fingerprints
CALIBRATION = "domains in turn"
EXAMPLES = 8  # probes kept whole, to show what masking does to them


def detection(s: Heads, proxy_settings: Proxy, proxy: Stage, corpus: Stage) -> Stage:
    """Scores of every head on every probe."""
    s = replace(s, detector=measured_by(s))
    settings = {
        "detector": s.detector,
        **identity(s, "detection"),
        "dtype": proxy_settings.dtype,
        "stop_at_share": s.share if s.stop_when_stable else None,
        **detectors.identity(s),
    }
    return Stage(
        "detection",
        s.detector,
        settings,
        lambda context: _detect(s, proxy_settings, context),
        {"proxy": proxy, "corpus": corpus},
        version=3 if settings.get("decoding") == "greedy" else 2,  # it obeyed the model's own penalties
        cost=lambda known: _forward(known, s.probes * s.probe_tokens),
    )


def _forward(known: Known, tokens: float) -> Cost:
    return Cost(tokens, 2 * known.inputs["proxy"].parameters * tokens, 0, STARTED)


def stage(s: Heads, proxy_settings: Proxy, proxy: Stage, corpus: Stage) -> Stage:
    """The important heads, or those of a control, which have a seed of their own: detection keeps the seed of
    its probes.
    """
    require(
        s.detector != "none", "heads.detector=none masks nothing: only arms of exp=mirror_effect may use it"
    )
    if s.given:
        return given(s, proxy_settings, proxy)
    settings = identity(s, "heads") | {"dtype": proxy_settings.dtype}
    if is_drawn(s):
        settings["seed"] = s.control_seed
    if s.detector == "random_matched_damage":
        settings |= identity(s, s.detector) | {"search": "bisection", "text": CALIBRATION}

    def cost(known: Known) -> Cost:
        read = 2 * EXAMPLES * s.probe_tokens
        if s.detector == "random_matched_damage":
            read += (s.draws + 2) * CALIBRATION_TOKENS  # at most: a draw that matches ends the search
        return _forward(known, read)

    return Stage(
        "heads",
        s.detector,
        settings,
        lambda context: _select(s, proxy_settings, context),
        {"proxy": proxy, "corpus": corpus, "detection": detection(s, proxy_settings, proxy, corpus)},
        cost=cost,
    )


def given(s: Heads, proxy_settings: Proxy, proxy: Stage) -> Stage:
    """The heads that ``heads.given`` names: nothing is detected, and ``scores`` of ``heads.json`` is null."""
    require(
        not is_drawn(s),
        f"heads.given names the heads, and heads.detector={s.detector} is a control of detected ones: leave"
        " out one of them",
    )
    settings = identity(s, "given") | {"dtype": proxy_settings.dtype}
    settings |= {"of": s.given_of} if s.given_of else {}  # or what another file's heads had left would do
    return Stage(
        "heads", "given", settings, lambda context: _given(s, proxy_settings, context), {"proxy": proxy}
    )


def _given(s: Heads, proxy_settings: Proxy, context: Context) -> None:
    from repro.proxy.load import load

    proxy = load(context.inputs["proxy"] / "model", proxy_settings.dtype, context.device)
    shape = [proxy.num_layers, proxy.num_heads]
    was, is_now = (f"{' layers of '.join(map(str, of))} heads" for of in (s.given_of, shape))
    require(
        s.given_of in ([], shape),
        f"heads.given were found in a model of {was}, and the proxy has {is_now}: name that model, or leave"
        " the heads to be detected",
    )
    for layer, head in s.given:
        require(
            layer < proxy.num_layers and head < proxy.num_heads,
            f"heads.given: the proxy has {proxy.num_layers} layers of {proxy.num_heads} heads, counted from"
            f" 0, and so no [{layer}, {head}]",
        )
    found: Chosen = {
        "model": proxy.model.config.model_type,
        "num_layers": proxy.num_layers,
        "num_heads": proxy.num_heads,
        "scores": None,
        "selected": [(layer, head) for layer, head in s.given],
        "detector": "given",
        "share": len(s.given) / (proxy.num_layers * proxy.num_heads),
        "control": None,
    }
    write_json(context.out / "heads.json", found)
    context.facts |= {"selected": len(s.given)}


def is_drawn(s: Heads) -> bool:
    """Whether the heads are those of a control, and depend on ``control_seed``."""
    return s.detector in CONTROLS


def measured_by(s: Heads) -> str:
    """The detector whose scores decide: its own, or of a control the one that it is a control of."""
    known = (*detectors.names(), *CONTROLS)
    one_of("heads.detector", s.detector, known)
    return "retrieval" if is_drawn(s) else s.detector


def _first_texts(corpus: Path, split: str) -> list[list[str]]:
    """Texts of the first documents of the first shards of every domain, shard by shard."""
    from repro.corpus.documents import shards

    paths = sorted(shards(corpus, split), key=lambda p: (p.stem.rpartition("-")[2], p.stem))[:64]
    return [parquet.read(p, columns=["text"], n_rows=100)["text"].to_list() for p in paths]


def heldout_texts(corpus: Path) -> list[str]:
    """Held-out texts to calibrate on, one of every domain in turn: whoever reads the first few has read every
    domain.
    """
    return [text for row in zip_longest(*_first_texts(corpus, "heldout")) for text in row if text is not None]


def key_value_probes(s: Heads, proxy: ProxyModel, context: Context) -> Callable[[int], Probe]:
    """A function from the index of a probe to the probe: the value of a key asked for, a sentence of the
    corpus.
    """
    texts = [text for shard in _first_texts(context.inputs["corpus"], "documents") for text in shard]
    values, how = probes.values_from(texts, proxy.encode, s)
    context.facts |= {"values": len(values), "values_cut": bool(how), "values_from": how or "sentences"}
    if how == probes.PIECES:
        context.warn(
            f"the corpus has fewer than {s.shots + 2} sentences of Latin letters; the probes' values are"
            f" {len(values)} {how}, cut to {s.value_tokens} tokens: look at stability.halves_overlap in"
            " heads.json"
        )
    return lambda index: probes.build(index, values, proxy.encode, s, proxy.prefix)


def _detect(s: Heads, proxy_settings: Proxy, context: Context) -> None:
    """Append one line per probe, so that a killed run goes on where it stood; then the means."""
    import numpy as np

    from repro.heads import importance
    from repro.proxy.load import load

    model = context.inputs["proxy"] / "model"
    within_context("heads.probe_tokens", s.probe_tokens, model)
    proxy = load(model, proxy_settings.dtype, context.device)
    _check_vocabulary(proxy, context)
    detector = detectors.load(s.detector)
    asked = partial(plugins.called, "detectors", s.detector)  # it may be foreign code
    sampled = asked(getattr(detector, "samples", key_value_probes), s, proxy, context)
    build: Callable[[int], Probe] = partial(asked, sampled)
    path = context.out / "probes.jsonl"
    rows = read_rows(path)
    rows = [row for i, row in enumerate(rows) if row["probe"] == i]
    with atomic(path) as temporary:  # without a line cut off by a kill
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    context.facts["probes_resumed"] = len(rows)
    examples: list[Probe] = [build(i) for i in range(min(EXAMPLES, s.probes))]

    def scores() -> np.ndarray:
        return np.array([dense(row["scores"], proxy.num_layers, proxy.num_heads) for row in rows])

    with open(path, "a") as handle, progress(s.probes, "probes", "detecting heads") as bar:
        bar.update(len(rows))
        while len(rows) < s.probes:
            if s.stop_when_stable and len(rows) % 8 == 0 and rows and importance.is_stable(scores(), s.share):
                break
            index = len(rows)
            probe = build(index)
            said = asked(detector.detect, proxy, probe, s)
            require(
                isinstance(said, detectors.Measurement),
                f"detector {s.detector!r} gave {type(said).__name__}; it must give a Measurement",
            )
            found = asked(said.in_numbers)
            require(
                found.scores.shape == (proxy.num_layers, proxy.num_heads),
                f"detector {s.detector!r} gave scores of shape {list(found.scores.shape)}; the proxy has "
                f"{proxy.num_layers} layers of {proxy.num_heads} heads",
            )
            require(
                bool(np.isfinite([found.accuracy, found.loss, *found.scores.flat]).all()),
                f"detector {s.detector!r} gave numbers that are not finite, of probe {index}",
            )
            nonzero = [[int(l), int(h), float(found.scores[l, h])] for l, h in np.argwhere(found.scores)]
            row = {
                "probe": index,
                "tokens": len(probe.ids),
                "pairs": probe.pairs,
                "accuracy": found.accuracy,
                "loss": found.loss,
                "scores": nonzero,
            }
            handle.write(json.dumps(row) + "\n")
            handle.flush()
            rows.append(row)
            bar.update(1)
    write_json(
        context.out / "detection.json",
        {
            "num_layers": proxy.num_layers,
            "num_heads": proxy.num_heads,
            "probes": len(rows),
            "probes_wanted": s.probes,
            "tokens": sum(row["tokens"] for row in rows),
            "accuracy": sum(row["accuracy"] for row in rows) / len(rows),
            "loss": sum(row["loss"] for row in rows) / len(rows),
            "examples": [
                {"ids": p.ids, "needle_start": p.needle_start, "answer_start": p.answer_start}
                for p in examples
            ],
        },
    )
    context.facts |= {"probes": len(rows), "tokens": sum(row["tokens"] for row in rows)}


def _check_vocabulary(proxy: ProxyModel, context: Context) -> None:
    """Warn of a tokenizer clearly smaller than the embedding: it may be another model's. Padding is a few
    rows.
    """
    entries, rows = len(proxy.tokenizer), proxy.model.get_input_embeddings().weight.shape[0]
    if entries < 0.9 * rows and rows - entries > 256:
        context.warn(
            f"the proxy's tokenizer has {entries:,} entries and its model embeds {rows:,}; if they do not"
            " belong together, put the model's own tokenizer into the folder"
        )


def dense(entries: list[list[float]], layers: int, heads: int) -> np.ndarray:
    """[layer, head, score] entries as an array [layers, heads]."""
    import numpy as np

    scores = np.zeros((layers, heads))
    for layer, head, score in entries:
        scores[int(layer), int(head)] = score
    return scores


def read_scores(folder: Path) -> np.ndarray:
    """Scores of a finished detection: [probes, layers, heads]."""
    import numpy as np

    shape = read_json(folder / "detection.json")
    return np.array(
        [
            dense(r["scores"], shape["num_layers"], shape["num_heads"])
            for r in read_rows(folder / "probes.jsonl")
        ]
    )


def _select(s: Heads, proxy_settings: Proxy, context: Context) -> None:
    import numpy as np

    from repro.heads import controls, importance
    from repro.proxy.load import load

    detected = read_json(context.inputs["detection"] / "detection.json")
    per_probe = read_scores(context.inputs["detection"])
    scores = per_probe.mean(0)
    important = importance.top(scores, s.share)
    proxy = load(context.inputs["proxy"] / "model", proxy_settings.dtype, context.device)
    selected, control = important, None
    if is_drawn(s):
        texts = heldout_texts(context.inputs["corpus"]) if s.detector == "random_matched_damage" else []
        selected, control = controls.draw(s, scores, important, proxy, texts)
    lowest = float(min(scores[layer, head] for layer, head in selected))
    tied = int((scores == lowest).sum())
    enough = len(per_probe) > 1
    found: Chosen = {
        "model": proxy.model.config.model_type,
        "num_layers": proxy.num_layers,
        "num_heads": proxy.num_heads,
        "scores": scores.tolist(),
        "selected": selected,
        "detector": s.detector,
        "share": s.share,
        "probe": {
            **identity(s, "detection"),
            **identity(s, "detector"),
            "stop_when_stable": s.stop_when_stable,
            "probes": len(per_probe),
            "accuracy": detected["accuracy"],
            "loss": detected["loss"],
            "tokens": detected["tokens"],
        },
        "zero_heads": int(np.count_nonzero(scores == 0)),
        "lowest_selected_score": lowest,
        "tied_at_lowest": tied,
        "tie_among_zeros": lowest == 0.0,
        "stability": {
            "halves_overlap": importance.halves_overlap(per_probe, s.share) if enough else None,
            "probes_needed": importance.probes_needed(per_probe, s.share) if enough else None,
        },
        "effect_on_probes": controls.effect(proxy, detected["examples"], selected),
        "control": control,
    }
    if s.detector not in CONTROLS and (said := importance.none_copied(scores, selected)):
        context.warn(said)
    write_json(context.out / "heads.json", found)
    context.facts |= {"selected": len(selected), "tie_among_zeros": lowest == 0.0}


def read(folder: Path) -> Chosen:
    """``heads.json`` of a finished stage, with ``selected`` as (layer, head) tuples."""
    heads = read_json(folder / "heads.json")
    heads["selected"] = [tuple(pair) for pair in heads["selected"]]
    return heads
