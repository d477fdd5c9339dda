"""``repro score``: files in, scores and kept documents out, the same as the Python API gives."""

import argparse
import json
import re
from pathlib import Path

import polars as pl
import pytest

from repro import score
from repro.errors import SettingError
from repro.influence.api import AttentionInfluence
from repro.proxy import stage as proxy_stage
from repro.proxy.settings import Proxy
from repro.settings.compose import compose
from repro.store import Store, parquet

ROOT = Path(__file__).resolve().parents[2]
HEADS = [[1, 0]]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder of Hugging Face with a tiny model."""
    return Store(tmp_path_factory.mktemp("model")).ensure(proxy_stage.stage(Proxy(kind="built"))) / "model"


@pytest.fixture
def files(tmp_path):
    """Six documents in two files, one of them empty, one as long as three windows."""
    (tmp_path / "my docs").mkdir()
    texts = [
        f"words of document {n}, and the same words of document {n} again. " * (2 + 3 * n) for n in range(5)
    ]
    texts[4] *= 12
    rows = [{"id": f"d{n}", "text": text, "kind": "ab"[n % 2]} for n, text in enumerate(texts)]
    (tmp_path / "my docs" / "a.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + '{"id": "e", "text": ""}\n'
    )
    (tmp_path / "my docs" / "note, one.txt").write_text("a short note")
    return tmp_path / "my docs"


def arguments(*words):
    return score._parser().parse_intermixed_args([str(word) for word in words])


def test_scores_are_those_of_the_api_and_the_best_are_kept(files, model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["my docs", "--model", model, "--heads", json.dumps(HEADS), "--dtype", "float32", "--keep", "0.5"]
    code = score.main([str(word) for word in [*words, "--format", "jsonl", "--set", "score.processes=1"]])
    said = capsys.readouterr().out
    assert code == 0, said
    scores = parquet.read(Path(re.search(r"scores: (\S+)", said)[1]))
    kept = re.search(r"kept: +(.+?)   \(", said)[1]
    rows = [json.loads(line) for path in Path(kept).glob("*.jsonl") for line in path.read_text().splitlines()]
    texts = {
        row["id"]: row["text"]
        for row in map(json.loads, (files / "a.jsonl").read_text().splitlines())
        if row["text"]
    }
    texts["note, one.txt"] = "a short note"
    api = AttentionInfluence(str(model), dtype="float32")
    api.heads = HEADS
    expected = dict(zip(texts, api.score(list(texts.values())), strict=True))
    assert {r["doc_id"] for r in scores.iter_rows(named=True)} == set(texts)
    for row in scores.iter_rows(named=True):
        assert row["score"] == pytest.approx(expected[row["doc_id"]]["score"], abs=1e-5)
        assert row["n_tokens_doc"] == expected[row["doc_id"]]["n_tokens_doc"]
    assert expected["d4"]["n_tokens_doc"] > 2048 and row["n_tokens"] > 0  # scored whole, in windows
    best = sorted(texts, key=lambda name: -expected[name]["score"])[:3]
    assert {row["doc_id"] for row in rows} == set(best) and all(
        row["text"] == texts[row["doc_id"]] for row in rows
    )
    shown = [line.split()[2].rstrip(":") for line in said.split("\n") if re.match(r"  +-?\d+\.\d{3} ", line)]
    assert shown[0] == best[0] and "6 documents scored, 3 kept" in said and "dropped: " in said
    assert (tmp_path / "work" / "running").is_dir()  # where repro status looks


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing.txt"], "nothing.txt does not exist"),
        (["my docs", "--model", "nothing"], "--model nothing: no such folder, and neither one of"),
        (["my docs", "--heads", "nothing"], "--heads nothing: no such file, and no list"),
        (["my docs", "--heads", "[[1]]"], "holds no list of"),
        (["my docs", "--heads", "weights.bin"], "--heads weights.bin: holds no list of"),
        (["my docs", "--heads", "[[1, 0], [1, 0]]"], "--heads names a head twice"),
        (["my docs", "--keep", "30"], "30 % is --keep 0.3"),
        (["my docs", "--domain-field", "kind", "--domain-folder"], "exclude each other"),
        (["my docs", "budget.share=0.7"], "and a setting is given as --keep 0.7"),
        (["my docs", "score.window=64"], "a setting is given as --set score.window=64"),
        (["my docs", "--set", "score.windwo=3"], "did you mean score.window"),
        (
            ["my docs", "--keep", "0.5", "--set", "budget.share=0.1"],
            "--set budget.share=0.1: --keep says this",
        ),
        (
            ["my docs", "--set", "exp.arms.attention_influence.budget.share=0.1"],
            "share=0.1: --keep says this",
        ),
        (["my docs", "--set", "work=elsewhere"], "--set work=elsewhere: --work says this"),
        (["my docs", "--set", "proxy.path=x"], "--model says this"),
        (["my docs", "--set", "exp=pilot"], "--set exp=pilot: repro score says exp itself"),
        (
            ["my docs", "--sample", "0.5", "--set", "exp.arms.attention_influence.select=random"],
            "--sample 0.5 ranks by select=distilled",
        ),
    ],
)
def test_a_mistake_costs_one_line_and_no_work(words, said, files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(range(256)))
    assert score.main([*words, "--device", "cpu", "--dtype", "float32"]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and error.startswith("error: ") and "\n" not in error
    assert not (tmp_path / "work" / "artifacts").exists()


def test_too_few_documents_are_said_before_they_are_scored_and_in_the_words_of_this_door(
    files, model, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ["--model", str(model), "--heads", json.dumps(HEADS), "--dtype", "float32", "--device", "cpu"]
    assert score.main(["my docs", "--keep", "0.1", *words, "--set", "score.processes=1"]) == 2
    error = capsys.readouterr().err
    assert "at --keep 0.1 takes no document" in error and "raise --keep to 0.17 or more" in error
    assert "budget.share" not in error
    assert not list((tmp_path / "work" / "artifacts").glob("score/*"))
    assert score.main(["my docs", "--keep", "0.5", *words, "--set", "score.processes=1"]) == 0


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("give corpus.text_field=NAME, or", "give --text-field NAME, or"),
        ("raise budget.share; or", "raise --keep; or"),
        ("raise budget.share.", "raise --keep."),
        ("exp.arms.a.budget.share and budget.shares", "exp.arms.a.budget.share and budget.shares"),
        ("proxy.dtype.x", "proxy.dtype.x"),
    ],
)
def test_settings_with_an_option_are_called_by_it(message, said):
    assert score._in_options(message) == said


def test_a_head_that_the_model_lacks_is_refused(files, model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert score.main(["my docs", "--model", str(model), "--heads", "[[9, 0]]", "--dtype", "float32"]) == 2
    assert "the proxy has 2 layers of 4 heads, counted from 0, and so no [9, 0]" in capsys.readouterr().err
    api = AttentionInfluence(str(model), dtype="float32")
    with pytest.raises(SettingError, match=r"so no \(9, 0\)"):
        api.heads = [(9, 0)]


def test_heads_are_read_from_a_list_and_from_a_file(tmp_path):
    (tmp_path / "heads.json").write_text(json.dumps({"selected": [[1, 2], [0, 3]], "scores": None}))
    (tmp_path / "plain.json").write_text("[[1, 2], [0, 3]]")
    given = ("[[1, 2], [0, 3]]", str(tmp_path / "heads.json"), str(tmp_path / "plain.json"))
    assert [score.heads(g) for g in given] == [([[1, 2], [0, 3]], [])] * 3
    (tmp_path / "heads.json").write_text(json.dumps({"selected": [[1, 2]], "num_layers": 2, "num_heads": 4}))
    assert score.heads(str(tmp_path / "heads.json")) == ([[1, 2]], [2, 4])


def test_heads_of_a_file_are_masked_in_a_model_of_its_shape_alone(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text(
        "Some text that is long enough to be read and to be scored. " * 4
    )
    for layers, said in ((2, None), (30, "--heads were found in a model of 30 layers of 4 heads")):
        held = {"selected": [[1, 0]], "num_layers": layers, "num_heads": 4}
        (tmp_path / "heads.json").write_text(json.dumps(held))
        command = ["docs", "--model", str(model), "--heads", "heads.json", "--keep", "1"]
        assert score.main([*command, "--dtype", "float32"]) == (2 if said else 0)
        assert said is None or said in capsys.readouterr().err
    assert score.main(["docs", "--model", str(model), "--model", "built", "--heads", "heads.json"]) == 2
    assert "--model names several" in capsys.readouterr().err


def test_documents_without_a_score_are_counted_by_the_reason(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps({"corpus": {"dropped": {"empty": 1, "too_long": 0}}}))
    reasons = [None, "not in the sample", "one token or none", "not in the sample", None]
    rows = {"score": [None if reason else 0.5 for reason in reasons], "reason": reasons}
    pl.DataFrame(rows).write_parquet(tmp_path / "scores.parquet")
    assert score._counted(tmp_path) == (
        "2 documents scored, 0 kept; not scored: not in the sample 2, one token or none 1; dropped: empty 1"
    )


def test_what_is_asked_for_composes(model, tmp_path):
    """Names with blanks, commas and quotes reach the settings as they are; what is set by hand wins."""
    odd = 'a, "b" [c].jsonl'
    parsed = arguments(
        odd,
        "x=y.txt",
        "--model",
        model,
        "--domain-field",
        "a.b",
        "--set",
        "corpus.min_characters=7",
        "--keep",
        0.25,
    )
    found = compose(score.settings_of(parsed, str(model)))
    assert found.corpus.paths == [odd, "x=y.txt"] and found.corpus.domain_field == "a.b"
    assert found.corpus.min_characters == 7 and found.budget.share == 0.25 and found.proxy.path == str(model)
    assert (
        not found.corpus.decontaminate and found.score.max_tokens is None and found.corpus.heldout_share == 0
    )
    assert score.proxy("owner/name@abc") == ["proxy=hub", "proxy.repo=owner/name", "proxy.revision=abc"]
    assert score.proxy("smollm2-135m") == ["proxy=smollm2-135m"]


def test_shards_are_small_on_a_cpu_and_fill_the_batches_of_a_gpu(model):
    sizes = [
        (found.corpus.shard_documents, found.score.tokens_per_batch)
        for device in ("cpu", "cuda")
        if (found := compose(score.settings_of(arguments("x.txt", "--device", device), str(model))))
    ]
    gpu = compose(["exp=score_corpus", "scale=gpu"])
    assert sizes[0][0] == 16 and sizes[1] == (gpu.corpus.shard_documents, gpu.score.tokens_per_batch)
    by_hand = arguments("x.txt", "--set", "corpus.shard_documents=5")
    assert compose(score.settings_of(by_hand, str(model))).corpus.shard_documents == 5


def test_models_are_compared_by_rank(tmp_path):
    folders = {}
    for name, values in (("a", [1.0, 2.0, 3.0, 4.0]), ("b", [1.0, 2.0, 4.0, 3.0])):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        frame = pl.DataFrame({"doc_id": list("wxyz"), "domain": ["text"] * 4, "score": values})
        frame.write_parquet(folders[name] / "scores.parquet")
    assert "a and b, text: 0.80 over 4 documents" in score._agreement(folders)


def test_a_single_string_is_a_document_and_anything_else_is_refused(model):
    api = AttentionInfluence(str(model), dtype="float32")
    api.heads = HEADS
    text = "one document, and one document again"
    assert api.score(text) == api.score([text])
    with pytest.raises(SettingError, match="document 1 is a int; a document is a string"):
        api.score(["a", 3])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"window": 20_000}, "score.window=20000 is longer than the proxy's context of 8192"),
        ({"window": 1}, "score.window=1 must be at least 2"),
        ({"window": 0}, "score.window=0 must be at least 2"),
        ({"window": -5}, "score.window=-5 must be at least 2"),
        ({"max_tokens": -5}, "score.max_tokens=-5 is below score.window=1024"),
        ({"max_tokens": 0}, "score.max_tokens=0 is below score.window=1024"),
    ],
)
def test_what_the_stage_refuses_the_api_refuses(given, said, model):
    api = AttentionInfluence(str(model), dtype="float32")
    api.heads = HEADS
    text = "one document, and one document again"
    ways = [api.score, lambda text, **given: api.score_sets(text, {"a": HEADS}, **given)]
    for way in ways if "max_tokens" in given else [*ways, api.token_losses]:
        with pytest.raises(SettingError, match=said):
            way(text, **given)


def test_probes_longer_than_the_context_are_refused_by_the_api(model):
    with pytest.raises(SettingError, match="heads.probe_tokens=9000 .* context of 8192; set"):
        AttentionInfluence(str(model), dtype="float32").detect("A text. " * 100, probe_tokens=9000)


def test_several_sets_are_scored_at_once(model):
    api = AttentionInfluence(str(model), dtype="float32")
    texts = ["one document, and one document again", "nothing of it stands here twice"]
    sets = {"late": [(1, 0)], "early": [(0, 2), (1, 3)]}
    found = api.score_sets(texts, sets)
    for name, heads in sets.items():
        api.heads = heads
        for one, other in zip(found[name], api.score(texts), strict=True):
            assert one.pop("score") == pytest.approx(other.pop("score"), rel=1e-4)
            assert one["n_tokens"] == other["n_tokens"] and one["reason"] == other["reason"]
    for wrong, said in (({}, "no sets"), ({"a": []}, "set a has no heads"), ({"a": [(9, 0)]}, "no .9, 0.")):
        with pytest.raises(SettingError, match=said):
            api.score_sets(texts, wrong)


def test_the_page_of_the_docs_runs(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "score.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert blocks
    for block in blocks:
        exec(block.replace("path/to/SmolLM2-135M-Instruct", str(model)), {})
    assert capsys.readouterr().out.strip()
    for command in re.findall(r"^repro score (.*)$", page, re.M):
        import shlex

        assert isinstance(arguments(*shlex.split(command)), argparse.Namespace)
