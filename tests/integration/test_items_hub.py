"""The hub source, on local data sets of the hub's layout (``datasets`` reads a folder as it reads a repository)."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from repro import items
from repro.errors import SettingError
from repro.fetch import hub_commits
from repro.items import hub
from repro.items.settings import Items
from repro.store import Store


@pytest.fixture
def local(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    repo = tmp_path / "repo"
    readme = ["---", "configs:"]
    for name in ("anatomy", "law", "all"):
        for split, n in (("test", 3), ("dev", 1)):
            path = repo / name / f"{split}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [{"question": f"{name} {i}", "choices": ["a", "b"], "answer": i % 2} for i in range(n)]
            pq.write_table(pa.Table.from_pylist(rows), path)
        readme += [f"- config_name: {name}", "  data_files:"]
        readme += [f"  - {{split: {split}, path: {name}/{split}.parquet}}" for split in ("test", "dev")]
    (repo / "README.md").write_text("\n".join([*readme, "---", ""]))
    monkeypatch.setitem(hub.TASKS, "mmlu", (str(repo), "*"))
    monkeypatch.setitem(hub.TASKS, "law_alone", (str(repo), "law"))
    return repo


def test_configurations_become_subtasks(tmp_path, local):
    folder = Store(tmp_path / "work").ensure(items.stage(Items("hub", tasks=["mmlu", "law_alone"])))
    found = items.splits(folder)
    assert {
        task: {split: facts["n"] for split, facts in by_split.items()} for task, by_split in found.items()
    } == {
        "law_alone": {"dev": 1, "test": 3},
        "mmlu/anatomy": {"dev": 1, "test": 3},
        "mmlu/law": {"dev": 1, "test": 3},  # "all" is no subtask
    }
    assert "anatomy 2" in set(items.texts(folder))


def test_hub_away_is_one_line(tmp_path, monkeypatch):
    import datasets

    def away(*a, **k):
        raise ConnectionError("Couldn't reach the hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", away)
    monkeypatch.setattr(hub_commits, "hub_revision", lambda repo, revision, kind="dataset": revision)
    with pytest.raises(SettingError, match="commit of allenai/sciq@main"):
        Store(tmp_path / "work").ensure(items.stage(Items("hub", tasks=["sciq"])))
    monkeypatch.setattr(hub_commits, "hub_revision", lambda repo, revision, kind="dataset": "a" * 40)
    with pytest.raises(SettingError, match="allenai/sciq.*check the network") as error:
        Store(tmp_path / "work").ensure(items.stage(Items("hub", tasks=["sciq"])))
    assert "\n" not in str(error.value)
