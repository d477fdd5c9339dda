"""Several sets of heads are scored in one pass of a run, and each leaves what it would leave by itself."""

import polars
import pytest
import scoring_corpus as given
import torch
from filelock import FileLock
from test_influence_stage import SCORE, contents

from repro.experiments import Experiment
from repro.heads.settings import Heads
from repro.influence import loop, scorer, shards
from repro.store import Stage, Store, read_json, sha256_file

SETS = {
    "copying": [[1, 0]],
    "low": [[0, 1], [1, 2]],
    "high": [[1, 3]],
    "two": [[0, 0], [0, 3]],
    "one": [[1, 1]],
}


def of(heads):
    return given.stages(SCORE, Heads(given=heads))


@pytest.fixture
def store(tmp_path):
    """With all that the scores of every set read."""
    store = Store(tmp_path / "work")
    for heads in SETS.values():
        for stage in of(heads)["score"].ancestors()[:-1]:
            store.ensure(stage)
    return store


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The files of every set, each scored by itself."""
    store = Store(tmp_path_factory.mktemp("alone"))
    return {name: contents(given.ensure_all(store, of(heads)["score"])) for name, heads in SETS.items()}


def resumed(folder):
    return read_json(folder / "manifest.json")["facts"]["shards_resumed"]


def test_sets_of_one_pass_leave_what_each_leaves_alone(store, alone):
    first, *others = [of(heads)["score"] for heads in SETS.values()]
    assert {first.one_pass} == {other.one_pass for other in others} and first.one_pass
    folder = store.ensure(first, others=others)
    assert resumed(folder) == 0 and read_json(folder / "manifest.json")["facts"]["sets_of_heads"] == 4
    for (name, files), stage in zip(alone.items(), [first, *others], strict=True):
        folder = store.ensure(stage)
        assert contents(folder) == files, name
        # one pass takes four sets: the fifth had its own
        assert resumed(folder) == {"copying": 0, "one": 0}.get(name, 4)


def test_a_set_that_lacks_a_shard_scores_that_one(store, alone):
    first, other = of(SETS["copying"])["score"], of(SETS["low"])["score"]
    store.ensure(first, others=[other])
    scores = store.beside(other, ".partial") / "scores"
    sorted(scores.iterdir())[1].unlink()
    folder = store.ensure(other)
    assert resumed(folder) == 3 and contents(folder) == alone["low"]


def test_a_pass_leaves_alone_what_others_are_at_and_what_is_not_ready(store):
    first, busy, done = (of(SETS[name])["score"] for name in ("copying", "low", "high"))
    unready = of([[0, 2]])["score"]
    store.ensure(done)
    with FileLock(f"{store.path(busy)}.lock"):
        folder = store.ensure(first, others=[busy, done, unready])
    assert "sets_of_heads" not in read_json(folder / "manifest.json")["facts"]
    for stage in (busy, unready):
        assert not store.beside(stage, ".partial").exists() and not store.has(stage)


def test_other_text_masks_and_models_are_no_part_of_a_pass():
    own = of([[1, 0]])["score"].one_pass
    longer = given.stages(SCORE, Heads(given=[[1, 0]]), given.corpus(per_shard=7))["score"]
    masked = given.stages(type(SCORE)(window=64, mask="zero"), Heads(given=[[1, 0]]))["score"]
    assert len({own, longer.one_pass, masked.one_pass}) == 3


def test_sets_that_do_not_fit_into_memory_wait_for_their_own_pass(store, alone, monkeypatch):
    plain = scorer.Scorer.losses

    def narrow(self, documents, advance=None):
        if self.others:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, documents, advance)

    monkeypatch.setattr(scorer.Scorer, "losses", narrow)
    first, other = of(SETS["copying"])["score"], of(SETS["low"])["score"]
    assert contents(store.ensure(first, others=[other])) == alone["copying"]
    folder = store.ensure(other)
    assert resumed(folder) == 0 and contents(folder) == alone["low"]


def test_a_result_never_makes_the_folder_of_a_stage_that_is_finished(store, monkeypatch):
    """A late worker finds the stages of its pass published: it leaves nothing where they were."""
    first, other = of(SETS["copying"])["score"], of(SETS["low"])["score"]
    publish = loop.Loop._publish

    def late(self, claim, finishing, folders):
        for folder in folders:
            for path in sorted(folder.parent.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            if folder.parent.exists():
                folder.parent.rmdir()
        publish(self, claim, finishing, folders)

    monkeypatch.setattr(loop.Loop, "_publish", late)
    with pytest.raises(Exception, match="not scored"):
        store.ensure(first, others=[other])
    assert not store.beside(other, ".partial").exists()


def test_what_a_pass_reads_comes_before_it():
    """Heads of all arms, then the first scoring; other stages keep their order."""
    text = Stage("corpus", "text", {}, print)
    heads = [Stage("heads", str(i), {"i": i}, print, {"corpus": text}) for i in range(3)]
    score = [
        Stage("score", str(i), {}, print, {"heads": found}, one_pass="a") for i, found in enumerate(heads)
    ]
    ranking = [Stage("ranking", str(i), {}, print, {"score": found}) for i, found in enumerate(score)]
    arms = {str(i): {0: {"score": score[i], "ranking": ranking[i]}} for i in range(3)}
    named = [(stage.name, stage.label) for stage in Experiment({"corpus": text}, arms).order()]
    assert named[:4] == [("corpus", "text"), ("heads", "0"), ("heads", "1"), ("heads", "2")]
    assert named[4:] == [(name, str(i)) for i in range(3) for name in ("score", "ranking")]


def test_every_score_of_a_pass_has_a_row_for_every_document(store):
    first, other = of(SETS["copying"])["score"], of(SETS["low"])["score"]
    store.ensure(first, others=[other])
    found = sorted((store.beside(other, ".partial") / "scores").iterdir())
    assert len(found) == 4
    for path in found:
        source = store.path(first.inputs["corpus"]) / "documents" / path.name
        assert polars.read_parquet(path)["doc_id"].equals(polars.read_parquet(source)["doc_id"])
        assert shards.finished(path, sha256_file(source))
