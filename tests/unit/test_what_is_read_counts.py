"""One byte of anything that a stage reads, and its fingerprint is another; where the files lie does not count."""

import shutil
from pathlib import Path

import polars
import pytest
import yaml

from repro import items
from repro.evaluate import sources
from repro.evaluate import stage as evaluate
from repro.evaluate.settings import Eval
from repro.experiments.analyse import embeddings
from repro.items.settings import Items
from repro.pretrain import source
from repro.proxy.stage import TOKENIZER_FILES
from repro.selection import selectors
from repro.store import digest


def tasks(folder: Path) -> Eval:
    """A group of two tasks: an include, functions, a neighbour that they import, items by path, by glob and in a folder."""
    (folder / "more").mkdir(parents=True)
    for name in ("test", "train", "other_1"):
        (folder / f"{name}.jsonl").write_text('{"a": 1}\n')
    (folder / "more" / "x.parquet").write_bytes(b"rows")
    (folder / "utils.py").write_text("import near\n")
    (folder / "near.py").write_text("x = 1\n")
    (folder / "base.yaml").write_text("doc_to_text: '{{a}}'\ntest_split: test\n")
    data = {
        "test": str(folder / "test.jsonl"),
        "train": [str(folder / "train.jsonl")],
        "more": str(folder / "other_*.jsonl"),
    }
    (folder / "one.yaml").write_text(
        "include: base.yaml\ntask: one\ndoc_to_target: !function utils.target\ndataset_path: json\n"
        + yaml.safe_dump({"dataset_kwargs": {"data_files": data}})
    )
    (folder / "two.yaml").write_text(f"task: two\ndataset_path: {folder / 'more'}\ntest_split: test\n")
    (folder / "all.yaml").write_text("group: all\ntask:\n  - one\n  - group: inner\n    task: [two]\n")
    return Eval(tasks=[str(folder / "all.yaml")])


READ = [
    "test.jsonl",
    "train.jsonl",
    "other_1.jsonl",
    "more/x.parquet",
    "utils.py",
    "near.py",
    "base.yaml",
    "one.yaml",
    "two.yaml",
]


@pytest.mark.parametrize("name", [*READ, "all.yaml"])
def test_a_tasks_files(tmp_path, name):
    s = tasks(tmp_path / "t")
    before = digest(evaluate.identity(s))
    assert digest(evaluate.identity(s)) == before
    (tmp_path / "t" / name).write_bytes((tmp_path / "t" / name).read_bytes() + b"\n")
    assert digest(evaluate.identity(s)) != before


def test_items_of_an_override_and_the_version_of_lm_eval(tmp_path, monkeypatch):
    (tmp_path / "own.jsonl").write_text("{}\n")
    s = Eval(
        tasks=["piqa"],
        overrides={"piqa": {"dataset_kwargs": {"data_files": {"test": str(tmp_path / "own.jsonl")}}}},
    )
    before = digest(evaluate.identity(s))
    (tmp_path / "own.jsonl").write_text("{} \n")
    after = digest(evaluate.identity(s))
    assert after != before
    monkeypatch.setattr(evaluate, "_version", lambda _: "0.0")
    assert digest(evaluate.identity(s)) != after


def test_definitions_of_lm_eval_end_the_chain(tmp_path):
    from repro.evaluate.tasks import OFFICIAL

    (tmp_path / "mine.yaml").write_text(f"include: {OFFICIAL / 'arc' / 'arc_easy.yaml'}\ntask: mine\n")
    assert [name for name, _ in sources.identity(str(tmp_path / "mine.yaml"), {})["files"]] == ["mine.yaml"]


def selector_of_scores(folder: Path):
    polars.DataFrame({"doc_id": ["a"], "score": [1.0]}).write_parquet(folder / "s.parquet")
    return [folder / "s.parquet"], lambda: selectors.identity("imported", {"path": str(folder)})


def gap(folder: Path):
    (folder / "scores").mkdir()
    (folder / "manifest.json").write_text('{"fingerprint": "x"}')
    (folder / "scores" / "a.parquet").write_bytes(b"scores")
    return [folder / "scores" / "a.parquet"], lambda: selectors.identity(
        "perplexity_gap", {"other": str(folder)}
    )


def classifier(folder: Path):
    names = ["model.safetensors", "config.json", "tokenizer.json", "vocab.txt"]
    for name in names:
        (folder / name).write_text("{}")
    return [folder / n for n in names], lambda: selectors.identity("educational", {"model": str(folder)})


def embedder(folder: Path):
    (folder / "1_Pooling").mkdir()
    names = ["model.safetensors", "config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json"]
    for name in names:
        (folder / name).write_text("{}")
    return [folder / n for n in names], lambda: embeddings.identity(str(folder), "main")


def tokenizer(folder: Path):
    names = [
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
        "spiece.model",
        "added_tokens.json",
    ]
    for name in names:
        (folder / name).write_text("{}")
    return [folder / n for n in names], lambda: source.identity(str(folder), list(TOKENIZER_FILES))


def weights(folder: Path):
    (folder / "model.safetensors").write_bytes(bytes(18 * 2**20))
    (folder / "config.json").write_text("{}")
    patterns = ["config.json", "*.safetensors"]
    return [folder / "model.safetensors", folder / "config.json"], lambda: source.identity(
        str(folder), patterns
    )


def items_folder(folder: Path):
    (folder / "piqa").mkdir()
    (folder / "piqa" / "test.jsonl").write_text("{}\n")
    return [
        folder / "piqa" / "test.jsonl"
    ], lambda: items.stage(Items(kind="folder", folder=str(folder))).settings


@pytest.mark.parametrize(
    "made", [selector_of_scores, gap, classifier, embedder, tokenizer, weights, items_folder]
)
def test_every_other_file(tmp_path, made):
    folder = tmp_path / "read"
    folder.mkdir()
    files, identity = made(folder)
    for path in files:
        before = digest(identity())
        assert digest(identity()) == before
        content = bytearray(path.read_bytes())
        content[len(content) * 5 // 7] ^= 1
        path.write_bytes(content)
        assert digest(identity()) != before, path.name


def test_a_selector_of_ones_own_counts_by_its_code(tmp_path, monkeypatch):
    folder = tmp_path / "selectors"
    shutil.copytree(Path(selectors.__file__).parent, folder)
    monkeypatch.setattr(selectors, "__path__", [str(folder)])
    (folder / "mine.py").write_text("def priority(context):\n    return 'score'\n")
    before = selectors.identity("mine", {})
    (folder / "mine.py").write_text("def priority(context):\n    return '-score'\n")
    assert selectors.identity("mine", {}) != before
    assert selectors.identity("perplexity", {}) == {}
    shipped = {p.stem for p in Path(selectors.__file__).parent.glob("*.py")} - {"__init__"}
    assert (
        shipped == selectors.SHIPPED
    )  # one added to the project stands in the list, and its stage's version speaks for it
