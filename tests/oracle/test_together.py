"""Trainings side by side against the same trainings one after the other, through DeepSpeed."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from pretraining import job, workspace
from safetensors.torch import load_file

from repro.errors import SettingError
from repro.pretrain import loop, together
from repro.store import read_json
from repro.tracking import read_rows


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return workspace(tmp_path_factory.mktemp("together"))


MUON = dict(optimizer="muon", micro_batch=4, keep_at_tokens=[64 * 8 * 3, 64 * 8 * 7], warmup=0.2)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "loss.jsonl").read_text().splitlines()]


def test_they_end_as_the_ordinary_loop_does(paths, tmp_path, monkeypatch):
    monkeypatch.setattr(together, "CHUNK", 5)
    several = [("a", 0, MUON), ("b", 1, MUON), ("c", 2, {"clip": 0.05}), ("d", 0, {"tokens": 64 * 8 * 5})]
    jobs = [job(paths, tmp_path / "together" / name, seed=seed, **train) for name, seed, train in several]
    together.train(jobs)
    for (name, seed, train), this in zip(several, jobs, strict=True):
        out = Path(this.out)
        apart = job(paths, tmp_path / "apart" / name, seed=seed, **train)
        facts = loop.train(apart)
        assert losses(out) == pytest.approx(losses(Path(apart.out)), rel=2e-5)
        assert loop.train(this) == read_json(out / loop.FACTS)  # the stage finds it finished
        kept = [path.name for path in sorted((Path(apart.out) / "models").glob("*"))]
        assert [path.name for path in sorted((out / "models").glob("*"))] == kept
        for model in ["model", *(f"models/{name}" for name in kept)]:
            found, wanted = (
                load_file(folder / model / "model.safetensors") for folder in (out, Path(apart.out))
            )
            assert found.keys() == wanted.keys()
            for key, weights in wanted.items():
                assert (found[key] - weights).abs().max() < 2e-3 * weights.abs().max()
        mine, theirs = read_json(out / loop.FACTS), facts
        assert mine.pop("together") and mine.pop("logits_difference") < 1e-5
        assert mine == {key: value for key, value in theirs.items() if key != "logits_difference"}
        assert pl.read_parquet(out / "reads.parquet").equals(
            pl.read_parquet(Path(apart.out) / "reads.parquet")
        )
        theirs = [
            row for row in read_rows(Path(apart.out) / "metrics.jsonl") if "checkpoint_seconds" not in row
        ]
        for one, other in zip(read_rows(out / "metrics.jsonl"), theirs, strict=True):
            assert one.keys() == other.keys() and one["step"] == other["step"]
            same = [key for key in one if key.startswith(("tokens/", "validation/", "learning_rate"))]
            assert [one[key] for key in same] == pytest.approx([other[key] for key in same], rel=1e-4)


def test_what_is_finished_is_left_alone(paths, tmp_path):
    this = job(paths, tmp_path / "out")
    together.train([this])
    before = (tmp_path / "out" / "model" / "model.safetensors").stat().st_mtime_ns
    together.train([this])
    assert (tmp_path / "out" / "model" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_one_that_diverges_does_not_stop_the_others(paths, tmp_path, monkeypatch, order):
    monkeypatch.setattr(together, "CHUNK", 3)
    good = job(paths, tmp_path / "good", validate_every_steps=4)
    bad = job(paths, tmp_path / "bad", learning_rate=1e30, clip=1e30, warmup=0.0)
    with pytest.raises(SettingError, match="training stopped at step"):
        together.train([(good, bad)[i] for i in order])
    assert loop.finished(good) and not loop.finished(bad)
    steps = [
        row["step"] for row in read_rows(tmp_path / "good" / "metrics.jsonl") if "validation/loss/code" in row
    ]
    assert steps == [4, 8, 12]


def test_what_another_process_trains_is_left_to_it(paths, tmp_path, capsys):
    one, other = job(paths, tmp_path / "one"), job(paths, tmp_path / "other")
    with loop.only_run_in(tmp_path / "one"):
        together.train([one, other])
    assert not loop.finished(one) and loop.finished(other)
    assert "left out: another process is training in" in capsys.readouterr().err


def test_what_it_cannot_do_is_refused(paths, tmp_path):
    with pytest.raises(
        SettingError, match="train.attend_across_documents=False cannot be trained beside others"
    ):
        together.train([job(paths, tmp_path / "out", attend_across_documents=False)])


def test_a_training_that_diverges_says_at_which_step(paths, tmp_path):
    with pytest.raises(SettingError, match="training stopped at step"):
        together.train([job(paths, tmp_path / "out", learning_rate=1e30, clip=1e30, warmup=0.0)])
