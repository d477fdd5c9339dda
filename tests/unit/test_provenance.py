"""Committed results come from a clean checkout of one tagged commit, and their commands run from a clone."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import fabricated
import pytest

import repro.store as store_module
from repro.errors import SettingError
from repro.outcomes.collect import checksums, collect
from repro.outcomes.command import command
from repro.outcomes.evidence import faults, unnamed
from repro.report.sweep import collate
from repro.run import _say_where_from
from repro.settings.compose import compose
from repro.store.origin import code

ROOT = Path(__file__).resolve().parents[2]
RESULTS = {  # those of a sweep's members, too
    str(path.parent.relative_to(ROOT / "results")): path
    for path in sorted((ROOT / "results").rglob("summary.json"))
}
SWEEPS = sorted({path.parent.parent for name, path in RESULTS.items() if "/" in name})

# Made before tags were required. This list only shrinks: it ends with the results of the next tag, and nothing joins it.
BEFORE_TAGS = (
    "mirror_effect_evening",
    "paper_mixture_evening",
    "score_agreement_evening",
    "selection_30pct_evening",
    "what_was_selected_evening",
)


def read(name):
    return json.loads(RESULTS[name].read_text())


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_comes_from_one_clean_tag(name):
    found = faults(read(name))
    assert bool(found) == (name in BEFORE_TAGS), found or f"{name} is clean: take it off BEFORE_TAGS"


@pytest.mark.parametrize("folder", SWEEPS, ids=lambda folder: folder.name)
def test_a_sweeps_table_is_that_of_its_members(folder, tmp_path):
    text = (folder / "sweep.md").read_text()
    made_by = re.search(r"Made by `(?:\w+=\d+\s)*python\s-m\srepro.sweep\s(.*?)`", text, re.S)
    name, *overrides = shlex.split(made_by[1])
    runs = {member.name: member for member in sorted(folder.iterdir()) if member.is_dir()}
    collate(tmp_path, name.removeprefix("sweep="), runs, overrides)
    assert (tmp_path / "tables" / "sweep.md").read_text() == text
    assert (tmp_path / "tables" / "sweep.csv").read_text() == (folder / "sweep.csv").read_text()


def test_the_list_of_older_results_only_shrinks():
    assert set(BEFORE_TAGS) <= RESULTS.keys(), "a result that is gone leaves the list"
    assert len(BEFORE_TAGS) <= 8


@pytest.mark.parametrize("name", RESULTS)
def test_the_command_of_a_result_composes_and_names_what_lies_outside_by_checksum(name):
    summary = read(name)
    words = [word for word in shlex.split(command(summary)) if "=" in word and word.split("=")[0].islower()]
    assert not [word for word in words if "=/" in word or "[/" in word or "~" in word], (
        "a path of one machine"
    )
    try:
        settings = compose(words)
    except SettingError as error:
        pytest.fail(f"{name}: {error}")
    if name not in BEFORE_TAGS:
        assert unnamed(summary, settings) == []


@pytest.fixture
def summary(tmp_path, monkeypatch):
    settings, store, stages = fabricated.run(tmp_path, seeds=(0,))
    return lambda: collect(settings, store, stages), store, stages


CLEAN = {"commit": "c" * 40, "dirty": False, "tag": "v1"}


def mark(store, stage, **given):
    path = store.path(stage) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["provenance"] |= given
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, None),
        ({"dirty": True}, "uncommitted"),
        ({"dirty": None}, "outside git"),
        ({"tag": None}, "without a tag"),
        ({"commit": "d" * 40}, "mixes 2 commits"),
    ],
)
def test_one_stage_that_is_dirty_untagged_or_of_another_commit_is_seen(summary, monkeypatch, given, says):
    make, store, stages = summary
    monkeypatch.setattr("repro.outcomes.collect.provenance", lambda: fabricated.original() | CLEAN)
    leaves = [s for by_seed in stages["arms"].values() for named in by_seed.values() for s in named.values()]
    for stage in {a.fingerprint: a for leaf in (*leaves, *(stages[k] for k in ("items", "corpus", "proxy", "heads", "score"))) for a in leaf.ancestors()}.values():  # fmt: skip
        mark(store, stage, **CLEAN)
    mark(store, leaves[0], **given)
    found = faults(make())
    assert (found == []) if says is None else (len(found) == 1 and says in found[0])


def test_a_manifest_says_commit_dirty_and_tag(tmp_path):
    store_module.provenance = fabricated.original
    stage = store_module.Stage("score", "tiny", {}, lambda ctx: None)
    made = json.loads((store_module.Store(tmp_path).ensure(stage) / "manifest.json").read_text())[
        "provenance"
    ]
    assert {"commit", "dirty", "tag"} <= made.keys()


def test_the_code_of_a_checkout_is_clean_changed_or_none(tmp_path):
    assert code(tmp_path) == {"commit": None, "dirty": None, "tag": None}
    folder = tmp_path / "clone" / "repro"
    folder.mkdir(parents=True)

    def git(*words):
        who = (
            "-c",
            "user.name=n",
            "-c",
            "user.email=n@example.org",
            "-c",
            "commit.gpgsign=false",
            "-c",
            "tag.gpgsign=false",
        )
        subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)

    (folder / "a.py").write_text("1")
    git("init", "..")
    git("add", ".")
    git("commit", "-m", "first")
    clean = code(folder)
    assert len(clean["commit"]) == 40 and (clean["dirty"], clean["tag"]) == (False, None)
    git("tag", "v1")
    (folder.parent / "results").mkdir()
    (folder.parent / "results" / "store.tar.zst").write_text("a pack, left between two sessions")
    assert code(folder) == clean | {"tag": "v1"}
    (folder.parent / "new.yaml").write_text("untracked")
    assert code(folder) == clean | {"tag": "v1", "dirty": True}


@pytest.mark.parametrize(
    ("scale", "state", "says"),
    [
        ("evening", CLEAN, ""),
        ("evening", CLEAN | {"dirty": True}, "uncommitted changes"),
        ("evening", {"commit": None, "dirty": None, "tag": None}, "not under git"),
        ("laptop", CLEAN | {"dirty": True}, ""),
    ],
)
def test_evidence_from_changed_code_is_said_before_it_starts(monkeypatch, capsys, scale, state, says):
    monkeypatch.setattr(store_module, "provenance", lambda: state)
    _say_where_from(compose(["exp=selection_30pct", f"scale={scale}"]))
    said = capsys.readouterr().err
    assert says in said if says else said == ""


def test_inputs_from_outside_must_be_named_by_checksum():
    settings = compose(
        ["exp=score_corpus", "corpus=files", "corpus.paths=[a]", "items=folder", "items.folder=b"]
    )
    bare = {"artifacts": {"corpus": {}}, "items": {"arc_easy": {"test": {"n": 1}}}}
    assert unnamed(bare, settings) == ["corpus", "items"]
    named = {
        "artifacts": {"corpus": {"outside": ["0"]}},
        "items": {"arc_easy": {"test": {"n": 1, "sha256": "0"}}},
    }
    assert unnamed(named, settings) == []
    assert checksums({"source": {"files": [("", "b"), ("", "a")]}}) == ["a", "b"]
    assert checksums({"files": {"x": "a"}}) == ["a"] and checksums({"kind": "built"}) == []


def test_nothing_committed_names_a_folder_of_the_machine_that_made_it():
    places = re.compile(r"[\"' =](/(?:work|tmp|root|home|Users|opt|mnt)/[\w.-]+)")
    results = Path(__file__).parents[2] / "results"
    files = [path for path in results.rglob("*") if path.suffix in (".json", ".md", ".yaml", ".csv")]
    assert files and places.search('"--corpus", "/work/data"')
    assert not {f"{path.name}: {found[1]}" for path in files for found in places.finditer(path.read_text())}
