"""A damaged byte in an artifact is found before anything reads it; the stage runs again, and what was there is kept."""

import json
import os

import pytest

from repro.store import Stage, Store, read_json, sealed, soundness
from repro.store.soundness import Memory, aside_of, damage, make_sound


def make(store, label="a"):
    def write(ctx):
        (ctx.out / "sub").mkdir(exist_ok=True)
        (ctx.out / "sub" / "rows.bin").write_bytes(b"0123456789")
        (ctx.out / "wandb").mkdir(exist_ok=True)
        (ctx.out / "wandb" / "run.log").write_text("theirs")
        ctx.facts |= {"n": 1.5, "pair": (1, 2)}

    stage = Stage("score", label, {"share": 0.3}, write)
    store.ensure(stage)
    return stage


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_every_byte_of_every_file_counts(tmp_path):
    store = Store(tmp_path)
    stage = make(store)
    folder = store.path(stage)
    assert damage(store, stage) == []
    for name in ("sub/rows.bin", "manifest.json"):
        whole = (folder / name).read_bytes()
        for place in range(len(whole)):
            flip(folder / name, place)
            blank = name == "manifest.json" and _same(whole, (folder / name).read_bytes())
            assert damage(store, stage) == ([] if blank else [name]), place
            (folder / name).write_bytes(whole)


def _same(whole, other):
    """A flipped blank between JSON's words changes nothing that is read, nor does one in the word "seal" itself."""
    try:
        read = json.loads(other)
        return all(
            read.get(key) == value for key, value in json.loads(whole).items() if key != "seal" or key in read
        )
    except ValueError:
        return False


@pytest.mark.parametrize("name", ["sub/rows.bin", "manifest.json"])
def test_what_is_damaged_is_made_anew_and_kept_aside(name, tmp_path, capsys):
    store = Store(tmp_path)
    stages = [make(store, "a"), make(store, "b")]
    flip(store.path(stages[0]) / name, 5)
    assert make_sound(store, stages) == stages[:1]
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {stages[0].folder} is damaged: {name}") and said.count("\n") == 1
    assert not store.has(stages[0]) and store.has(stages[1])
    assert (aside_of(store, stages[0]) / name).is_file()
    store.ensure(stages[0])
    assert make_sound(store, stages) == [] and capsys.readouterr().err == ""


def test_missing_foreign_and_older_files(tmp_path):
    store = Store(tmp_path)
    stage = make(store)
    folder = store.path(stage)
    (folder / "wandb" / "run.log").write_text("synced")  # W&B's own business
    (folder / "note.txt").write_text("somebody's")
    assert damage(store, stage) == []
    manifest = read_json(folder / "manifest.json")
    del manifest["seal"]  # of an earlier version
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert damage(store, stage) == []
    (folder / "manifest.json").write_text(json.dumps(sealed(manifest | {"fingerprint": "0" * 64})))
    assert damage(store, stage) == ["manifest.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "sub" / "rows.bin").unlink()
    assert damage(store, stage) == ["sub/rows.bin"]


def test_large_files_are_read_again_when_anything_of_them_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(soundness, "REMEMBERED", 4)
    reads = []
    monkeypatch.setattr(
        soundness,
        "sha256_file",
        lambda path, real=soundness.sha256_file: reads.append(path.name) or real(path),
    )
    store = Store(tmp_path)
    stage = make(store)
    path = store.path(stage) / "sub" / "rows.bin"
    before = path.stat()
    make_sound(store, [stage])
    make_sound(store, [stage])
    assert reads.count("rows.bin") == 1
    flip(path, 3)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy does that keeps times
    assert make_sound(store, [stage]) == [stage]
    (store.root / ".verified.json").write_text("{")
    assert Memory(store.root / ".verified.json").known == {}
