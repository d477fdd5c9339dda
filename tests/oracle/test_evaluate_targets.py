"""Every form of a target and of choices, against lm-eval's own accuracy and against what the author of the item means."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from evaluating import tiny

from repro.evaluate import harness, reading, targets
from repro.evaluate.evaluate import evaluate
from repro.evaluate.settings import Eval

MODULE = """
import numpy
def index(doc): return numpy.int64(doc["i"])
def label(doc): return doc["words"][doc["i"]]
def none(doc): return None
def pair(doc): return (0, 1)
def two(doc): return [0, 2]
def choices(doc): return tuple(doc["words"])
def number(doc): return doc["i"]
def sentences(doc): return [f"the {word} owl" for word in doc["words"]]
"""
WORDS = ["red", "river", "stone"]
DOCS = [{"q": f"owl {n} {'sings' * (n % 3)}", "words": WORDS, "i": n % 3, "s": str(n % 3), "w": WORDS[n % 3],
         "many": [n % 3, (n + 1) % 3], "labels": [WORDS[n % 3]], "f": float(n % 3), "off": n % 3 + 1, "minus": n % 3 - 1,
         "numbers": ["7", "8", "9"], "n": str(7 + n % 3), "low": ["1", "2", "3"], "one": str(1 + n % 3 % 2),
         "map": {"a": "red", "b": "river", "c": "stone"}, "ints": [7, 8, 9], "mixed": [n % 3] if n else n % 3,
         "text": "red", "empty": [], "zero": "007"} for n in range(6)]  # fmt: skip
BASE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{q}}",
    "doc_to_choice": "words",
    "doc_to_target": "i",
}
ONE = [[doc["i"]] for doc in DOCS]
# name: (keys of the definition, the right answers of every item, whether shots can be shown)
GOOD = {
    "index column": ({}, ONE, True),
    "index template": ({"doc_to_target": "{{i}}"}, ONE, True),
    "index of a label": ({"doc_to_target": "{{words.index(w)}}"}, ONE, True),
    "constant": ({"doc_to_target": 2}, [[2]] * 6, True),
    "number as text, template": ({"doc_to_target": "{{s}}"}, ONE, True),
    "label column": ({"doc_to_target": "w"}, ONE, True),
    "label template": ({"doc_to_target": "{{w}}"}, ONE, True),
    "label of numbers, column": ({"doc_to_choice": "numbers", "doc_to_target": "n"}, ONE, True),
    "index of numbers, column": ({"doc_to_choice": "low", "doc_to_target": "i"}, ONE, True),
    "list column": ({"doc_to_target": "many"}, [sorted(doc["many"]) for doc in DOCS], False),
    "list template": ({"doc_to_target": "{{many}}"}, [sorted(doc["many"]) for doc in DOCS], False),
    "list constant": ({"doc_to_target": [0, 1]}, [[0, 1]] * 6, False),
    "list function": ({"doc_to_target": "!function forms.two"}, [[0, 2]] * 6, False),
    "function to an index": ({"doc_to_target": "!function forms.index"}, ONE, True),
    "function to a label": ({"doc_to_target": "!function forms.label"}, ONE, True),
    "choices by function": ({"doc_to_choice": "!function forms.choices"}, ONE, True),
    "choices as list": ({"doc_to_choice": WORDS}, ONE, True),
    "choices as mapping": ({"doc_to_choice": {"x": "red", "y": "river", "z": "stone"}}, ONE, True),
    "choices by template": ({"doc_to_choice": "{{words}}"}, ONE, True),
    "choices of a column's mapping": ({"doc_to_choice": "{{map.values()|list}}"}, ONE, True),
    "prompts": (
        {"doc_to_text": "i", "doc_to_choice": "!function forms.sentences", "doc_to_target": "q"}, ONE, True,
    ),
    "prompts by function": (
        {"doc_to_text": "!function forms.number", "doc_to_choice": "!function forms.sentences", "doc_to_target": "q"}, ONE, True,
    ),
}  # fmt: skip
# name: (keys, words of the refusal)
BAD = {
    "numbers by template": ({"doc_to_choice": "numbers", "doc_to_target": "{{n}}"}, "none of its choices|cannot read its first"),
    "low numbers by template": ({"doc_to_choice": "low", "doc_to_target": "{{one}}"}, "choices look like numbers"),
    "number as text, column": ({"doc_to_target": "s"}, "none of its choices"),
    "label outside": ({"doc_to_target": "{{q}}"}, "none of its choices"),
    "a column that is not there": ({"doc_to_target": "label"}, "none of its choices"),
    "index too high": ({"doc_to_target": "off"}, "no index of them"),
    "index below zero": ({"doc_to_target": "minus"}, "no index of them"),
    "float": ({"doc_to_target": "f"}, "no index of them"),
    "labels in a list": ({"doc_to_target": "labels"}, "list as indices"),
    "no right answer": ({"doc_to_target": "empty"}, "at least one"),
    "lists and indices": ({"doc_to_target": "mixed"}, "list of right answers"),
    "function to nothing": ({"doc_to_target": "!function forms.none"}, "None is none of its choices"),
    "function to a tuple": ({"doc_to_target": "!function forms.pair"}, "none of its choices"),
    "number with zeros": ({"doc_to_target": "{{zero}}"}, "must not begin with 0"),
    "choices of numbers": ({"doc_to_choice": "ints"}, "list of texts"),
    "choices of one text": ({"doc_to_choice": "text"}, "list of texts"),
    "choices a mapping's column": ({"doc_to_choice": "map"}, "list of texts"),
    "YAML's booleans": ({"doc_to_choice": [True, False]}, "list of texts"),
    "no choices": ({"doc_to_choice": "empty"}, "list of texts"),
    "text scored as number": ({"output_type": "loglikelihood", "doc_to_choice": None}, "scores a text"),
    "written, label": ({"output_type": "generate_until", "doc_to_target": "w"}, "index into the choices"),
    "written, no target": ({"output_type": "generate_until", "doc_to_choice": None, "doc_to_target": "empty"}, "could be right"),
}  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    root = tmp_path_factory.mktemp("targets")
    tiny(root / "model", context=256)
    (root / "items").mkdir()
    (root / "forms.py").write_text(MODULE)
    for name in ("test", "train"):
        rows = [doc | {"q": f"{name} {doc['q']}"} for doc in DOCS]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root, harness.load(root / "model", 4, "float32")


def define(root: Path, name: str, keys: dict, shots: int = 0, **files: str) -> str:
    task = name.replace(" ", "_").replace(",", "").replace("'", "")
    files = files or {"test": "test.jsonl", "train": "train.jsonl"}
    definition = {"task": task, "dataset_path": "json", "num_fewshot": shots, **BASE, **keys}
    definition["dataset_kwargs"] = {"data_files": {split: str(root / file) for split, file in files.items()}}
    definition |= {"test_split": "test", **({"training_split": "train"} if "train" in files else {})}
    definition = {key: value for key, value in definition.items() if value is not None}
    text = yaml.safe_dump(definition).replace("'!function", "!function")
    path = root / f"{task}.yaml"
    path.write_text("\n".join(line.rstrip("'") if "!function" in line else line for line in text.split("\n")))
    return str(path)


def run(here, entry):
    from repro.evaluate import tasks

    root, lm = here
    plan = tasks.plan(entry, root / "items", allow_task_code=True)
    folder = root / "generated" / plan.name
    tasks.write(plan, folder)
    return harness.run(lm, plan, folder)


@pytest.mark.parametrize("with_shots", [0, 2])
@pytest.mark.parametrize("name", GOOD)
def test_gold_is_what_the_author_means_and_what_lm_eval_counts(here, name, with_shots, monkeypatch):
    keys, meant, can_show = GOOD[name]
    seen = {}
    rows_of = harness.per_item.rows
    monkeypatch.setattr(harness.per_item, "rows", lambda e, t, s: seen.update(samples=s) or rows_of(e, t, s))
    entry = define(here[0], name, keys, with_shots)
    if with_shots and not can_show:
        with pytest.raises(targets.Refused, match="worked example"):
            run(here, entry)
        return
    _, rows = run(here, entry)
    assert len(rows) == 6
    for row, sample, gold in zip(rows, seen["samples"], meant, strict=True):
        found = np.array([response[0][0] for response in sample["resps"]])
        assert row["acc"] == sample["acc"] == float(int(found.argmax()) in gold)
        assert row["gold_loglikelihood"] == max(found[gold])
        shares = np.exp(found) / np.exp(found).sum()
        assert row["gold_probability"] == pytest.approx(sum(shares[i] for i in gold))
        if with_shots and not name.startswith("prompts"):
            assert any(
                f" {word}\n\n" in sample["arguments"][0][0] for word in [*WORDS, "7", "8", "9", "1", "2", "3"]
            )


@pytest.mark.parametrize("with_shots", [0, 2])
@pytest.mark.parametrize("name", BAD)
def test_what_no_answer_could_be_right_for_is_refused_in_words(here, name, with_shots):
    keys, words = BAD[name]
    with pytest.raises(targets.Refused, match=words):
        run(here, define(here[0], name, keys, with_shots))


def test_a_refusal_names_the_cell_and_the_others_run(here):
    root, _ = here
    keys = [BAD["index below zero"][0], GOOD["label column"][0]]
    entries = [define(root, name, own) for name, own in zip(("bad", "good"), keys, strict=True)]
    summary = evaluate(root / "model", Eval(tasks=entries, text_tasks=[]), root / "items", root / "both")
    assert summary["missing"]["bad"].startswith("item 0: its label -1 is none of its choices")
    assert pl.read_parquet(root / "both" / "items.parquet")["task"].unique().to_list() == ["good"]


# --- worked examples -------------------------------------------------------------------------------------------------

QUESTION = {
    "output_type": "generate_until",
    "doc_to_text": "{{q}}?",
    "doc_to_target": "{{w}}",
    "doc_to_choice": None,
}
QUESTION |= {"generation_kwargs": {"max_gen_toks": 2, "until": ["\n"]}}


def prompts(here, entry, monkeypatch):
    seen = {}
    rows_of = harness.per_item.rows
    monkeypatch.setattr(harness.per_item, "rows", lambda e, t, s: seen.update(samples=s) or rows_of(e, t, s))
    result, _ = run(here, entry)
    return [(sample["doc"], sample["arguments"][0][0]) for sample in seen["samples"]], result


@pytest.mark.parametrize(
    "keys", [{}, {"fewshot_split": "test"}, {"fewshot_config": {"sampler": "first_n"}}], ids=str
)
def test_an_item_never_stands_among_its_shots(here, keys, monkeypatch):
    """With the evaluated split as the only one, and with copies of items that differ in an id and in spacing."""
    root, _ = here
    rows = [{"id": n, "q": f"owl {n % 4}" + " " * (n // 4), "w": WORDS[n % 3]} for n in range(8)]
    (root / "copies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, _ = prompts(here, define(root, "copies", QUESTION | keys, 3, test="copies.jsonl"), monkeypatch)
    assert len(found) == 8
    for doc, prompt in found:
        asked = [" ".join(line.split("?")[0].split()) for line in prompt.split("\n\n")]
        assert len(asked) == 4
        assert asked.count(" ".join(doc["q"].split())) == 1


def test_a_split_that_has_too_few_other_items_is_refused(here):
    root, _ = here
    rows = [{"id": n, "q": f"owl {n % 3}", "w": "red"} for n in range(6)]
    (root / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(targets.Refused, match="have 4 besides the item"):
        run(here, define(root, "few", QUESTION, 5, test="few.jsonl"))


def test_copies_in_the_training_split_are_redrawn_and_counted(here, monkeypatch):
    root, _ = here
    rows = [{"q": f"owl {n}", "w": WORDS[n % 3]} for n in range(4)]
    for name in ("same_test", "same_train"):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, result = prompts(
        here, define(root, "same", QUESTION, 3, test="same_test.jsonl", train="same_train.jsonl"), monkeypatch
    )
    assert all(prompt.count(f"{doc['q']}?") == 1 for doc, prompt in found)
    assert result["redrawn"]["same"] > 0


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        ["2020-01-01", "2021-02-03"],
        ["2020-01-01T00:00:00", "x"],
        ["12:30:00", "13:00:00"],
        ["1", "2"],
        ["007", "1e5"],
        [2**53 + 1, 1],
        [2**70, 1],
        [-(2**63), 2**63],
        [1, 2.5],
        [1, "1"],
        [True, 1],
        [None, 3],
        [None, None],
        [[1, 2], ["a"]],
        [[], [1]],
        [{"a": 1}, {"b": "2020-01-01"}],
        [{"a": "2020-01-01"}, {"a": "2020-01-02"}],
        ["NaN", "null"],
        ["\u2028 line", "\ud83d"],
        [1e308, 1e-320],
    ],
    ids=repr,
)
def test_items_are_what_their_json_says(tmp_path, values):
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps({"v": value, "k": n}) + "\n" for n, value in enumerate(values)))
    import datasets

    with reading.exact():
        found = datasets.load_dataset(path="json", name=None, data_files={"test": str(path)})["test"]
    assert list(found.features) == ["v", "k"]
    assert [repr(row["v"]) for row in found] == [
        repr(value) for value in values
    ]  # repr: 1, 1.0 and True are not the same


def test_json_lists_and_absent_keys(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{"a": "2020-01-01"}, {"b": 2}], indent=1))
    assert list(reading.read([tmp_path / "a.json"])) == [{"a": "2020-01-01", "b": None}, {"a": None, "b": 2}]
    (tmp_path / "b.json").write_text("[1, 2]")
    with pytest.raises(targets.Refused, match="b.json is neither"):
        reading.read([tmp_path / "b.json"])


def test_mixed_items_of_a_task_with_process_docs_are_refused(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text('{"v": 1}\n{"v": "one"}\n')
    with pytest.raises(targets.Refused, match="v in test.jsonl holds int and text"):
        reading.read([path]).map(lambda row: row)
