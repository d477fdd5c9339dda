"""Heads over checkpoints where the answer is known: the built proxy's copying head, before and after it is written."""

import numpy as np
import pytest
import scoring_corpus as given
import torch

from repro.errors import SettingError
from repro.experiments.evolve import series as evolution
from repro.experiments.evolve import view as report
from repro.experiments.evolve.series import Checkpoint, Evolution, evolve
from repro.heads.settings import Heads
from repro.pretrain.settings import Train
from repro.proxy import stage as proxy_stage
from repro.proxy.built import INDUCTION, build
from repro.proxy.settings import Proxy
from repro.store import Context, Stage, Store, read_json

HEADS = Heads(probes=4, probe_tokens=512, shots=1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model whose copying head is not there yet, and the finished one."""
    root = tmp_path_factory.mktemp("checkpoints")
    model, tokenizer = build()
    for name in ("early", "late"):
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.self_attn.q_proj.weight.zero_()
    model.save_pretrained(root / "early")
    return root


def looked_at(store, checkpoints, measures=evolution.MEASURES):
    found = evolution.series(HEADS, Evolution(measures=measures), checkpoints, given.corpus())
    return {
        name: read_json(given.ensure_all(store, stage) / "evolution.json") for name, stage in found.items()
    }


def test_the_known_head_appears(folders, tmp_path):
    checkpoints = []
    for name, tokens in (("early", 10), ("early again", 20), ("late", None)):
        settings = Proxy(kind="folder", path=str(folders / name.split()[0]), dtype="float32")
        checkpoints.append(Checkpoint(name, tokens, proxy_stage.stage(settings), settings))
    found = looked_at(Store(tmp_path), checkpoints)
    assert list(found) == ["retrieval", "induction"]
    for series in found.values():
        early, again, late = series["checkpoints"]
        assert (early["tokens"], late["tokens"]) == (10, None)
        assert (late["selected"], late["above"], late["shared_with_last"]) == ([list(INDUCTION)], 1, 1.0)
        assert late["max"] > 0.7 and early["max"] < 0.1 and early["above"] == 0
        assert again["scores"] == early["scores"] and late["same_as"] is None
    retrieval = found["retrieval"]["checkpoints"]
    assert retrieval[0]["shared_with_last"] == 0.0 and retrieval[-1]["probe_accuracy"] > 0.5
    summary = {"evolution": found}
    (table,) = report.tables(summary)
    assert len(table.rows) == 6 and report.sentence(summary).startswith(
        "retrieval: a head scores above 0.1 first at late;"
    )
    assert [p.name for p in report.figures(summary)] == ["evolution_retrieval", "evolution_induction"]
    assert [len(p.panels) for p in report.figures(summary)] == [3, 3] and "late 0.7" in report.figures(
        summary
    )[0].alt


def heads(scores, selected):
    found = {"model": "test", "num_layers": 2, "num_heads": 2, "detector": "retrieval", "share": 0.5}
    return found | {
        "scores": scores,
        "selected": selected,
        "probe": {"probes": 1, "accuracy": 0.5, "loss": 1.0},
    }


def test_what_is_said_of_each_checkpoint():
    zero = [[0.0, 0.0], [0.0, 0.0]]
    series = {
        "a": heads(zero, [(0, 0), (0, 1)]),
        "b": heads([[0.3, 0.0], [0.05, 0.0]], [(0, 0), (1, 0)]),
        "c": heads([[0.3, 0.0], [0.05, 0.0]], [(0, 0), (1, 0)]),
        "d": heads([[0.0, 0.123456], [0.6, 0.0]], [(1, 0), (0, 1)]),
    }
    rows = evolve(series, {"a": 1, "b": 2, "c": 3, "d": None})["checkpoints"]
    # Heads of score zero are selected by their place alone, so that they are in common with nothing.
    assert [row["shared_with_last"] for row in rows] == [0.0, 0.5, 0.5, 1.0]
    assert [row["zero_heads"] for row in rows] == [4, 2, 2, 2] and [row["above"] for row in rows] == [
        0,
        1,
        1,
        2,
    ]
    assert [row["same_as"] for row in rows] == [None, None, "b", None]
    assert rows[0]["selected"] == [] and rows[3]["scores"][0][1] == 0.1235 and rows[3]["max"] == 0.6
    nothing = evolve({"a": series["a"], "z": series["a"]}, {"a": None, "z": None})["checkpoints"]
    assert [row["shared_with_last"] for row in nothing] == [None, None]


def test_a_kept_checkpoint_is_a_proxy_of_linked_files(folders, tmp_path):
    import shutil

    def train(context: Context) -> None:
        shutil.copytree(folders / "early", context.out / "models" / "2048")
        shutil.copytree(folders / "late", context.out / "model")

    pretrain = Stage("pretrain", "2x64-seed0", {}, train)
    settings = Train(tokens=6144, context=128, batch_sequences=8, keep_at_tokens=[2100])
    checkpoints = evolution.trained(settings, pretrain, Proxy(dtype="float32"))
    assert [(c.name, c.tokens, c.context) for c in checkpoints] == [
        ("2,048 tokens", 2048, 128),
        ("6,144 tokens", 6144, 128),
    ]
    store = Store(tmp_path)
    for checkpoint, source in zip(checkpoints, ("models/2048", "model"), strict=True):
        folder = given.ensure_all(store, checkpoint.proxy) / "model"
        original = store.path(pretrain) / source / "model.safetensors"
        assert (folder / "model.safetensors").stat().st_ino == original.stat().st_ino
        assert (folder / "tokenizer.json").is_file() and (folder / "config.json").is_file()


def test_checkpoints_are_spaced_geometrically_and_leave_room_for_probes():
    train = evolution.kept(Train(tokens=262_144, context=256, batch_sequences=8), Evolution())
    assert train.keep_at_tokens == [8192, 16384, 32768, 65536, 131072] and train.context == 256
    assert evolution.kept(Train(tokens=40_960, context=128), Evolution()).context == 256
    assert evolution.kept(Train(tokens=2048, batch_sequences=8), Evolution()).keep_at_tokens == []
    named = Train(tokens=262_144, keep_at_tokens=[9000, 100_000])
    assert evolution.kept(named, Evolution()).kept_steps == [4, 49]
    steps = np.array(evolution.kept(Train(tokens=2**26), Evolution(checkpoints=10, first=0.001)).kept_steps)
    assert len(steps) == 9 and np.allclose(np.diff(np.log(steps)), np.log(1000) / 9, atol=0.03)


def test_measures_that_measure_nothing_are_refused():
    with pytest.raises(SettingError, match="did you mean mine.detector"):
        Evolution(measures={"mine": {"detectr": "retrieval"}})
    with pytest.raises(SettingError, match="measures no heads"):
        evolution.series(HEADS, Evolution(measures={"mine": {"detector": "random"}}), [], given.corpus())
