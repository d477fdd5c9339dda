"""``repro publish``: exactly the kept documents, a card that invents nothing, no word of this machine, and nothing
sent untold.
"""

import hashlib
import json
import os
from pathlib import Path

import hub_server
import polars as pl
import pytest
import yaml
from hub_server import Hub

from repro import score
from repro.errors import SettingError
from repro.outcomes import summary
from repro.outcomes.documents import export
from repro.proxy import stage as proxy_stage
from repro.proxy.settings import Proxy
from repro.publish import cards, portable
from repro.publish.__main__ import main
from repro.store import Store, parquet, read_json

TOKEN = "hf_" + "Q" * 34


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """The folder that ``repro score`` leaves of eight documents, two of them without a licence."""
    place = tmp_path_factory.mktemp("secret place")
    model = Store(place / "model").ensure(proxy_stage.stage(Proxy(kind="built"))) / "model"
    (place / "my docs").mkdir()
    rows = [
        {
            "id": f"d{n}",
            "text": f"words of document {n}, and the same words of document {n} again. " * (2 + 3 * n),
            "license": ("MIT", "CC-BY-4.0", "House rules", None)[n % 4],
            "source": f"book {n % 3}",
            "kind": "ab"[n % 2],
        }
        for n in range(8)
    ]
    (place / "my docs" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "score.py",
        str(place / "my docs"),
        "--model",
        str(model),
        "--heads",
        "[[1, 0]]",
        "--keep",
        "0.5",
    ]
    words += ["--dtype", "float32", "--work", str(place / "work"), "--domain-field", "kind"]
    words += ["--set", "score.processes=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", words)
        patch.setenv("HF_TOKEN", TOKEN)
        assert score.main(words[1:]) == 0
    return next((place / "work" / "runs").glob("score*[!k]"))


@pytest.fixture(scope="module")
def published(scored, tmp_path_factory):
    target = tmp_path_factory.mktemp("out") / "kept"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", TOKEN)
        assert main([str(scored), "--to", str(target)]) == 0
    return target


def front(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---")[1])


def test_datasets_loads_exactly_the_kept_documents_with_their_scores(scored, published, tmp_path):
    import datasets

    rows = {
        row["doc_id"]: row for row in datasets.load_dataset(str(published), split="train", cache_dir=tmp_path)
    }
    scores = parquet.read(scored / "scores.parquet")
    best = {
        name
        for _, part in scores.group_by("domain")
        for name in part.sort("score", descending=True).head(2)["doc_id"]
    }
    assert set(rows) == best and len(best) == 4
    for row in scores.filter(pl.col("doc_id").is_in(best)).iter_rows(named=True):
        kept = rows[row["doc_id"]]
        assert {key: kept[key] for key in ("score", "loss_base", "n_tokens_doc")} == {
            key: row[key] for key in ("score", "loss_base", "n_tokens_doc")
        }
        assert kept["text"].startswith(f"words of document {row['doc_id'][1:]}") and kept["repeats"] == 1
    every = datasets.load_dataset(str(published), "scores", split="train", cache_dir=tmp_path)
    assert sorted(every["doc_id"]) == sorted(scores["doc_id"])
    heads = datasets.load_dataset(str(published), "heads", split="train", cache_dir=tmp_path)
    assert [(r["layer"], r["head"]) for r in heads if r["masked"]] == [(1, 0)]
    assert read_json(published / "heads" / "heads.json")["selected"] == [[1, 0]]
    record = read_json(published / "published.json")
    assert record["kept"] == 4 and all(
        hashlib.sha256((published / name).read_bytes()).hexdigest() == sha
        for name, sha in record["files"].items()
    )
    assert set(record["files"]) | {"published.json"} == {
        str(p.relative_to(published)) for p in published.rglob("*") if p.is_file()
    }


def test_the_card_says_what_was_recorded_and_invents_nothing(scored, published):
    text, found = (published / "README.md").read_text(), front(published)
    kept = parquet.read(sorted((published / "kept").glob("*.parquet")))
    stated = set(kept["license"])
    assert ("not stated" in stated) == ("| licence: not recorded |" in text)
    assert found["license"] == cards.of_the_hub(stated)
    assert cards.of_the_hub(["MIT", "not stated", "House rules"]) == ["mit", "other", "unknown"]
    assert cards.of_the_hub(["not stated", ""]) == ["unknown"] and cards.of_the_hub(["MIT License"]) == [
        "other"
    ]
    assert [config["config_name"] for config in found["configs"]] == ["kept", "scores", "heads"]
    made = summary.read(scored)
    arms = made["arms"]["attention_influence"]["seeds"]["0"]["artifacts"]
    for artifact in (made["artifacts"]["corpus"], made["artifacts"]["score"], arms["selection"]):
        assert artifact["fingerprint"] in text
    assert (
        "python -m repro.score" in text
        and "'PATH/my docs'" in text
        and str(made["provenance"]["commit"]) in text
    )
    for source, n in kept["source"].value_counts().iter_rows():
        assert source in text and n


def test_documents_without_a_licence_are_said_to_have_none(scored, tmp_path):
    """A selection of such documents alone."""
    store, made = scored.parent.parent / "artifacts", summary.read(scored)
    names = {key: store / a["folder"] for key, a in made["artifacts"].items()}
    (tmp_path / "selection").mkdir()
    rows = pl.DataFrame({"doc_id": ["d3", "d7"], "domain": ["b", "b"], "repeats": [1, 1]})
    rows.write_parquet(tmp_path / "selection" / "selection.parquet")
    assert export(tmp_path / "kept", names["corpus"], names["score"], tmp_path / "selection") == 2
    from repro.publish import made as runs
    from repro.publish.dataset import source

    card = str(cards.dataset_card(tmp_path, source(runs.read(scored, None), None, None)))
    assert yaml.safe_load(card.split("---")[1])["license"] == ["unknown"]
    assert "| licence: not recorded | 2 |" in card and "mit" not in card.lower().split("## sources")[0]


def test_no_word_of_this_machine_and_no_secret_is_written(scored, published):
    place = scored.parent.parent.parent  # "secret place"
    words = [
        TOKEN.encode(),
        str(place).encode(),
        place.name.encode(),
        os.path.expanduser("~").encode() + b"/",
    ]
    for path in published.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".parquet":
                content += parquet.read(path).write_csv().encode()
            assert [word for word in words if word in content] == [], path


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("/home/me/data/x.jsonl", "PATH/x.jsonl"),
        ("corpus.paths=[/a/b.jsonl,../c.jsonl]", "corpus.paths=[PATH/b.jsonl,../c.jsonl]"),
        ("see '/my docs/b c' or ~/x/y", "see 'PATH/b c' or PATH/y"),
        ("file:///srv/data", "PATH/data"),
        ("C:\\Users\\me\\x.gguf", "PATH/x.gguf"),
        ("https://arxiv.org/abs/2505.07293 and/or s3://bucket/x, 3 / 4", None),
        (f"token={TOKEN}", "token=***"),
    ],
)
def test_places_and_secrets_are_taken_out_of_text(said, left):
    assert portable.text(said) == (said if left is None else left)
    assert portable.value({"a": [said]}) == {"a": [said if left is None else left]}


def test_a_card_that_names_a_place_is_refused(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"where": "/srv/me/work/a"}))
    portable.check(tmp_path, [Path("/srv/me/wor")])
    with pytest.raises(SettingError, match=r"x\.json would name /srv/me/work"):
        portable.check(tmp_path, [Path("/srv/me/work")])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--arm", "nothing"], "--arm nothing: the run has attention_influence"),
        (["--seed", "9"], "--seed 9: attention_influence has 0"),
        (["--what", "models"], "has no trained model"),
        (["--push", "name"], "--push name: a repository of the hub is named owner/name"),
        (["--work", "elsewhere"], "name the work folder of the run with --work DIR"),
        (["--to", "/proc/zz/k"], "--to /proc/zz: cannot make the folder"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(words, said, scored, tmp_path, capsys):
    assert main([str(scored), "--to", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_ones_own_is_not_replaced_and_a_published_one_is(scored, published, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("x")
    assert main([str(scored), "--to", str(tmp_path / "mine")]) == 2
    assert "was not published by this command" in capsys.readouterr().err
    assert (tmp_path / "mine" / "x").read_text() == "x"
    before = {p: p.stat().st_mtime_ns for p in published.rglob("*.md")}
    assert main([str(scored / "kept" / "attention_influence"), "--to", str(published)]) == 0
    assert all(path.stat().st_mtime_ns > at for path, at in before.items())


def test_damaged_artifacts_are_not_published(scored, tmp_path, capsys):
    made = summary.read(scored)
    path = scored.parent.parent / "artifacts" / made["artifacts"]["heads"]["folder"] / "heads.json"
    whole = path.read_text()
    path.write_text(whole + " ")
    try:
        assert main([str(scored), "--to", str(tmp_path / "out")]) == 2
    finally:
        path.write_text(whole)
    assert "is damaged (heads.json)" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    from repro.fetch import retries

    Hub.root, Hub.gated, Hub.failures, Hub.private = tmp_path / "hub", False, [], {}
    Hub.asked.clear()
    Hub.tokens.clear()
    server = hub_server.started()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(retries, "sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", constants.ENDPOINT)
    yield Hub
    server.shutdown()


def test_nothing_is_sent_without_being_told_to(scored, tmp_path, hub):
    assert main([str(scored), "--to", str(tmp_path / "out")]) == 0
    assert not hub.asked and not hub.tokens


def test_a_push_is_private_and_sends_the_folder(scored, tmp_path, hub, capsys):
    (hub.root / "me/kept/kept").mkdir(parents=True)  # of an earlier publication, would be loaded too
    (hub.root / "me/kept/kept/old-00007.parquet").write_text("old")
    hub.private["me/kept"] = True
    hub.failures.append(("/commit/", 503))
    assert main([str(scored), "--to", str(tmp_path / "out"), "--push", "me/kept"]) == 0
    assert set(hub.tokens) == {f"Bearer {TOKEN}"}
    sent = {p.relative_to(hub.root / "me/kept"): p.read_bytes() for p in hub.root.rglob("*") if p.is_file()}
    here = {
        p.relative_to(tmp_path / "out"): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()
    }
    assert sent == here and "sent: " in capsys.readouterr().out
    assert main([str(scored), "--to", str(tmp_path / "out"), "--push", "me/new"]) == 0
    assert hub.private["me/new"]


def test_a_public_repository_gets_nothing_unless_it_may(scored, tmp_path, hub, capsys):
    hub.private["me/open"] = False
    words = [str(scored), "--to", str(tmp_path / "out"), "--push", "me/open"]
    assert main(words) == 2
    assert "me/open is public, and nothing was sent" in capsys.readouterr().err
    assert not list(hub.root.rglob("*.md"))
    assert main([*words, "--no-private"]) == 0 and (hub.root / "me/open/README.md").is_file()


def test_what_the_hub_refuses_is_one_line(scored, tmp_path, hub, capsys):
    hub.gated = True
    assert main([str(scored), "--to", str(tmp_path / "out"), "--push", "me/kept"]) == 2
    error = capsys.readouterr().err
    assert "me/kept was not sent to the hub" in error and TOKEN not in error
    assert (tmp_path / "out" / "README.md").is_file()
