"""Packs carry finished stages, without text and weights, to another store; what is bad in a file is refused in one line."""

import hashlib
import io
import json
import os
import re
import tarfile
from pathlib import Path

import polars
import pytest
import zstandard

import repro.store as store_module
import repro.store.__main__ as door
import repro.store.pack as packs
from repro.errors import SettingError
from repro.store import Stage, Store, read_json
from repro.store.pack import CONTENT, pack
from repro.store.soundness import damage as damaged
from repro.store.unpack import unpack

SECRET = "the text of a document"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(store_module, "provenance", lambda: {"commit": "c", "dirty": False, "tag": "v1"})
    monkeypatch.setattr(packs, "provenance", lambda: {"commit": "c", "dirty": False, "tag": "v1"})


class Chain:
    """Fabricated stages under their real names; ``ran`` lists what was run."""

    def __init__(self, weights=b"weights", tasks=1, share=0.3):
        self.ran = []

        def run(name, write):
            return lambda ctx: (self.ran.append(name), write(ctx))

        def corpus(ctx):
            for split in ("documents", "heldout"):
                (ctx.out / split).mkdir(exist_ok=True)
                rows = {
                    "doc_id": ["a", "b"],
                    "domain": ["d", "d"],
                    "text": [SECRET, SECRET],
                    "extra": ["{}", "{}"],
                }
                polars.DataFrame(rows).write_parquet(ctx.out / split / "d-00000.parquet")
            (ctx.out / "counts.json").write_text("{}")

        def score(ctx):
            (ctx.out / "scores").mkdir(exist_ok=True)
            frame = polars.DataFrame(
                {"doc_id": ["a", "b"], "score": [1 / 3, None]}, schema_overrides={"score": polars.Float64}
            )
            frame.write_parquet(ctx.out / "scores" / "d-00000.parquet")
            (ctx.out / "tokens.json").write_text(SECRET)

        def pretrain(ctx):
            (ctx.out / "model").mkdir(exist_ok=True)
            (ctx.out / "model" / "model.safetensors").write_bytes(weights)
            (ctx.out / "loss.jsonl").write_text('{"step": 1, "loss": 2.512345}\n')
            (ctx.out / "metrics.jsonl").write_text('{"step": 10, "tokens_per_second": 4711.5}\n')

        def evaluate(ctx):
            assert (ctx.inputs["model"] / "model" / "model.safetensors").is_file()
            columns = {
                "acc": [1.0, 0.5],
                "gold_loglikelihood": [-1 / 3, -107.1],
                "other_loglikelihood": [None, -107.1017],
            }
            polars.DataFrame(columns).write_parquet(ctx.out / "items.parquet")
            (ctx.out / "checkpoints" / "8").mkdir(parents=True)
            more = {"gold_bits_per_byte": [1.5, None], "gold_probability": [0.1, 0.5]}
            kept = polars.DataFrame(columns | more)
            kept.write_parquet(ctx.out / "checkpoints" / "8" / "items.parquet")

        def selection(ctx):
            found = polars.read_parquet(ctx.inputs["corpus"] / "documents" / "*.parquet", columns=["doc_id"])
            found.write_parquet(ctx.out / "selection.parquet")

        self.corpus = Stage("corpus", "files", {}, run("corpus", corpus))
        self.score = Stage("score", "retrieval", {}, run("score", score), {"corpus": self.corpus})
        read = {"corpus": self.corpus, "scores": self.score}
        self.selection = Stage(
            "selection", "s", {"share": share}, run("selection", selection), read, light=("corpus",)
        )
        self.pretrain = Stage(
            "pretrain", "2x64", {}, run("pretrain", pretrain), {"selection": self.selection}
        )
        self.evaluate = Stage(
            "evaluate", "e", {"tasks": tasks}, run("evaluate", evaluate), {"model": self.pretrain}
        )

    def order(self):
        return self.evaluate.ancestors()

    def go(self, store):
        """As ``repro.run`` does it; returns the names of what ran."""
        self.ran.clear()
        for stage in store.demanded(self.order()):
            store.ensure(stage, whole=True)
        return list(self.ran)


@pytest.fixture
def there(tmp_path):
    store, chain = Store(tmp_path / "here"), Chain()
    chain.go(store)
    target = tmp_path / "results" / "run" / "store.tar.zst"
    pack(store, chain.order(), target)
    return chain, target, tmp_path / "there"


def members(path):
    data = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}


def test_everything_finished_is_done_on_the_other_machine_and_verifies(there):
    chain, target, work = there
    assert unpack(target, work) == "5 finished"
    store = Store(work)
    assert chain.go(store) == []
    assert all(damaged(store, stage) == [] for stage in chain.order())
    assert not store.whole(chain.pretrain) and list(store.left_out(chain.pretrain)) == [
        "model/model.safetensors"
    ]
    assert unpack(target, work) == "5 there already"


def test_neither_text_nor_weights_are_in_the_pack_and_scores_are_to_the_bit(there):
    chain, target, work = there
    held = members(target)
    assert not any(SECRET.encode() in data or b"weights" == data for data in held.values())
    assert b"a pack holds its own content" not in held[CONTENT]
    unpack(target, work)
    ours, theirs = (polars.read_parquet(s.path(chain.score) / "scores" / "*.parquet")
                    for s in (Store(work), Store(target.parents[2] / "here")))  # fmt: skip
    assert ours.equals(theirs) and ours.schema == theirs.schema


def test_another_share_selects_and_trains_anew_without_scoring(there):
    _, target, work = there
    unpack(target, work)
    assert Chain(share=0.5).go(Store(work)) == ["selection", "pretrain", "evaluate"]


def test_a_new_evaluation_trains_again_and_differing_weights_are_said(there, capsys):
    _, target, work = there
    unpack(target, work)
    assert Chain(tasks=2).go(Store(work)) == ["pretrain", "evaluate"]
    assert capsys.readouterr().err == ""
    other = Chain(weights=b"other", tasks=3)
    assert other.go(Store(work)) == ["evaluate"]  # whole by now
    unpack(target, work / "third")
    other.go(Store(work / "third"))
    assert "came out otherwise here" in capsys.readouterr().err
    assert Store(work / "third").whole(other.pretrain)
    assert sorted(p.name for p in (work / "third" / "artifacts" / "pretrain").iterdir() if p.is_dir()) == [
        other.pretrain.folder.split("/")[1]
    ]


def test_a_report_that_reads_text_brings_the_corpus_back(there):
    chain, target, work = there
    unpack(target, work)
    assert Store(work).demanded(chain.order(), [chain.corpus]) == [chain.corpus]


def test_what_came_from_a_pack_can_be_packed_again_to_the_same_bytes(there, tmp_path):
    chain, target, work = there
    unpack(target, work)
    again = tmp_path / "results" / "again" / "store.tar.zst"
    pack(Store(work), chain.order(), again)
    assert again.read_bytes() == target.read_bytes()


def test_half_precision_keeps_outcomes_and_says_so(there, tmp_path):
    chain, target, work = there
    rounded = tmp_path / "results" / "half" / "store.tar.zst"
    pack(Store(tmp_path / "here"), chain.order(), rounded, rounded="half")
    unpack(rounded, work)
    found = polars.read_parquet(Store(work).path(chain.evaluate) / "items.parquet")
    assert found["acc"].to_list() == [1.0, 0.5]
    assert found["gold_loglikelihood"][0] != -1 / 3 and found["gold_loglikelihood"][0] == pytest.approx(
        -1 / 3, rel=1e-3
    )
    difference = (
        found["other_loglikelihood"] - found["gold_loglikelihood"]
    )  # -0.0017 would be nothing if each were rounded
    assert difference.to_list() == [None, pytest.approx(-0.0017, rel=1e-3)]
    evaluation, training = Store(work).path(chain.evaluate), Store(work).path(chain.pretrain)
    assert read_json(evaluation / "manifest.json")["rounded"] == [
        "checkpoints/8/items.parquet",
        "items.parquet",
    ]
    kept = polars.read_parquet(evaluation / "checkpoints" / "8" / "items.parquet")
    assert kept["acc"].to_list() == [1.0, 0.5] and kept["gold_bits_per_byte"].to_list() == [1.5, None]
    assert all(kept[name].null_count() == 2 for name in ("gold_loglikelihood", "gold_probability"))
    assert json.loads((training / "loss.jsonl").read_text()) == {"step": 1, "loss": 2.512}
    assert read_json(training / "manifest.json")["rounded"] == ["loss.jsonl"]
    assert not (training / "metrics.jsonl").exists()
    assert damaged(Store(work), chain.evaluate) == []


def test_half_precision_keeps_of_models_on_the_way_what_the_endpoint_is(there, tmp_path):
    chain, _, work = there
    rounded = tmp_path / "results" / "half" / "store.tar.zst"
    pack(Store(tmp_path / "here"), chain.order(), rounded, "half", endpoint="gold_probability/sciq")
    unpack(rounded, work)
    folder = Store(work).path(chain.evaluate) / "checkpoints" / "8"
    kept = polars.read_parquet(folder / "items.parquet")
    assert kept["gold_probability"].null_count() == 0 and kept["gold_loglikelihood"].null_count() == 2


def scoring(stop_after, ran):
    def run(ctx):
        (ctx.out / "scores").mkdir(exist_ok=True)
        for i in range(4):
            shard = ctx.out / "scores" / f"d-{i:05}.parquet"
            if not shard.is_file():
                if len(ran) == stop_after:
                    raise KeyboardInterrupt
                ran.append(i)
                shard.write_bytes(b"shard %d" % i)

    return Stage("score", "retrieval", {}, run)


def test_a_scoring_that_was_stopped_goes_on_elsewhere_shard_by_shard(tmp_path):
    first, target = [], tmp_path / "results" / "run" / "store.tar.zst"
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path / "here").ensure(scoring(2, first))
    pack(Store(tmp_path / "here"), [scoring(9, [])], target)
    assert unpack(target, tmp_path / "there") == "1 scoring in parts"
    rest = []
    folder = Store(tmp_path / "there").ensure(scoring(9, rest))
    assert (first, rest) == ([0, 1], [2, 3])
    assert [p.read_bytes() for p in sorted((folder / "scores").iterdir())] == [
        b"shard %d" % i for i in range(4)
    ]


def test_parts_join_and_never_overwrite(tmp_path):
    target = tmp_path / "results" / "run" / "store.tar.zst"
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path / "here").ensure(scoring(2, []))
    pack(Store(tmp_path / "here"), [scoring(9, [])], target)
    own = (
        Store(tmp_path / "there").path(scoring(9, [])).parent
        / (scoring(9, []).folder.split("/")[1] + ".partial")
        / "scores"
    )
    own.mkdir(parents=True)
    (own / "d-00001.parquet").write_bytes(b"own")
    unpack(target, tmp_path / "there")
    assert {p.name: p.read_bytes() for p in own.iterdir()} == {
        "d-00000.parquet": b"shard 0",
        "d-00001.parquet": b"own",
    }


def test_an_artifact_that_is_there_is_never_overwritten(there):
    chain, target, work = there
    own = Chain(weights=b"own")
    own.go(Store(work))
    assert unpack(target, work) == "5 there already"
    assert (Store(work).path(own.pretrain) / "model" / "model.safetensors").read_bytes() == b"own"


def test_a_pack_too_large_is_refused_with_what_is_large_and_not_left_behind(there, tmp_path):
    chain, target, _ = there
    large = tmp_path / "results" / "large" / "store.tar.zst"
    with pytest.raises(SettingError, match=r"largest before compression: .*MB.*--run-mb"):
        pack(Store(tmp_path / "here"), chain.order(), large, run_mb=1e-5)
    with pytest.raises(SettingError, match=r"all packs would have .*--all-mb"):
        pack(Store(tmp_path / "here"), chain.order(), large, all_mb=1.5 * target.stat().st_size / 1e6)
    assert list(large.parent.iterdir()) == []


def test_nothing_finished_and_changed_files_are_refused(there, tmp_path):
    chain, target, _ = there
    with pytest.raises(SettingError, match="nothing of this run"):
        pack(Store(tmp_path / "empty"), chain.order(), target)
    (Store(tmp_path / "here").path(chain.pretrain) / "loss.jsonl").write_text("edited")
    with pytest.raises(SettingError, match="not what was published"):
        pack(Store(tmp_path / "here"), chain.order(), target)


def rewritten(target, change):
    """The pack with its members changed, consistent again but for the change."""
    held = members(target)
    (target.parent / (target.name + ".sha256")).unlink()
    entries = change(held) or []
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in held.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in entries:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    target.write_bytes(zstandard.compress(out.getvalue()))


def named(name, **given):
    member = tarfile.TarInfo(name)
    for key, value in given.items():
        setattr(member, key, value)
    return [member]


def swap(held, name, data):
    held[name] = data
    content = json.loads(held[CONTENT])
    for entry in content["artifacts"]:
        if name.startswith(entry["folder"] + "/"):
            entry["files"][name.removeprefix(entry["folder"] + "/")] = hashlib.sha256(data).hexdigest()
    held[CONTENT] = json.dumps(content).encode()


def moved(held):
    content = json.loads(held[CONTENT])
    content["artifacts"][0]["folder"] = "../../outside-00000000"
    held[CONTENT] = json.dumps(content).encode()


def other_settings(held):
    name = next(n for n in held if n.startswith("score/") and n.endswith("manifest.json"))
    swap(held, name, json.dumps(json.loads(held[name]) | {"settings": {"window": 1}}).encode())


def shorter_manifest(held):
    name = next(n for n in held if n.startswith("pretrain/") and n.endswith("manifest.json"))
    swap(held, name, json.dumps(json.loads(held[name]) | {"files": {}}).encode())


@pytest.mark.parametrize(
    "change",
    [
        lambda held: named("../escaped", size=1),
        lambda held: named("/tmp/pack-escaped", size=1),
        lambda held: named("score/./x", size=1),
        lambda held: named("score/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        lambda held: named("score/link", type=tarfile.LNKTYPE, linkname="pack.json"),
        lambda held: named("score/pipe", type=tarfile.FIFOTYPE),
        lambda held: named("score/extra", size=1),
        lambda held: held.pop(next(n for n in held if n.endswith("loss.jsonl"))) and None,
        lambda held: held.update({next(n for n in held if n.endswith("loss.jsonl")): b"edited"}),
        lambda held: held.pop(CONTENT) and None,
        lambda held: held.update({CONTENT: b'{"format": 99}'}),
        lambda held: held.update({CONTENT: b"[]"}),
        moved,
        other_settings,
        shorter_manifest,
    ],
)
def test_a_foreign_or_damaged_pack_is_one_line_and_leaves_the_store_as_it_was(there, change):
    _, target, work = there
    rewritten(target, change)
    with pytest.raises(SettingError) as error:
        unpack(target, work)
    assert "\n" not in str(error.value) and target.name in str(error.value)
    assert list((work / "artifacts").iterdir()) == []
    assert not os.path.exists("/tmp/pack-escaped") and not (work / "escaped").exists()


@pytest.mark.parametrize(
    "damage",
    [lambda d: d[: len(d) // 2], lambda d: d[:-30] + b"\0" * 30, lambda d: b"no pack", lambda d: b""],
)
@pytest.mark.parametrize("with_sum", [True, False])
def test_a_cut_or_broken_file_is_one_line(there, damage, with_sum):
    _, target, work = there
    target.write_bytes(damage(target.read_bytes()))
    if not with_sum:
        (target.parent / (target.name + ".sha256")).unlink()
    with pytest.raises(SettingError, match="damaged"):
        unpack(target, work)


def test_a_pack_that_unpacks_to_more_than_a_run_is_refused(there, monkeypatch):
    monkeypatch.setattr("repro.store.unpack.MAX_BYTES", 100)
    with pytest.raises(SettingError, match="more than"):
        unpack(there[1], there[2])


def test_the_door_takes_settings_or_a_run_folder_and_says_mistakes_in_one_line(tmp_path, capsys, monkeypatch):
    assert door.main(["unpack", str(tmp_path / "none.tar.zst"), f"work={tmp_path}"]) == 2
    assert "is not there" in capsys.readouterr().err
    assert (
        door.main(["pack", "exp=selection_30pct", "scale=smoke", f"work={tmp_path}", "--to", str(tmp_path)])
        == 2
    )
    assert "nothing of this run" in capsys.readouterr().err
    assert door.main(["pack", str(tmp_path)]) == 2
    assert door.settings_of(["exp=pilot", "scale=smoke"]).exp.name == "pilot"


COMMITTED = sorted((Path(__file__).parents[2] / "results").glob("*/store.tar.zst"))


@pytest.mark.parametrize("pack_of", COMMITTED, ids=lambda path: path.parent.name)
def test_a_committed_pack_can_be_unpacked_by_this_version(pack_of, tmp_path):
    said = unpack(pack_of, tmp_path)
    assert re.fullmatch(r"\d+ finished(, \d+ unfinished)?", said), said
