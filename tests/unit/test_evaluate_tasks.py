"""Names, items and overrides become definitions for lm-eval, or a reason why not."""

from pathlib import Path

import pytest
import yaml
from evaluating import items

from repro.errors import SettingError
from repro.evaluate import tasks
from repro.evaluate.settings import Eval
from repro.settings.files import CONFIGS

SUITES = sorted((CONFIGS / "eval").glob("*.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return items(tmp_path_factory.mktemp("items"))


def test_the_text_search_finds_what_lm_eval_finds():
    """The index of lm-eval itself, over a part of its folder (all of it takes 20 s)."""
    from lm_eval.tasks._index import Kind, TaskIndex

    for part in ("mmlu", "bbh", "arc", "agieval", "hendrycks_math"):
        parsed = TaskIndex.build([tasks.OFFICIAL / part])
        named = {name: entry.yaml_path for name, entry in parsed.items() if entry.kind != Kind.TAG}
        assert named == {
            name: path for name, path in tasks._scan(tasks.OFFICIAL / part).items() if name in named
        }
        assert len(named) > 1
    for part, tag in (("mmlu/default", "mmlu_stem_tasks"), ("arc", "ai2_arc")):
        assert tasks.tagged(tag) == sorted(TaskIndex.build([tasks.OFFICIAL / part])[tag].tags)


def test_a_task_is_included_not_copied(folder):
    plan = tasks.plan("arc_easy", folder)
    content = plan.files["arc_easy.yaml"]
    assert Path(content.pop("include")).relative_to(tasks.OFFICIAL) == Path("arc/arc_easy.yaml")
    assert set(content) == {"dataset_path", "dataset_name", "dataset_kwargs", "validation_split"}
    assert content["validation_split"] is None  # the items have none
    files = content["dataset_kwargs"]["data_files"]
    assert files == {split: str(folder / "arc_easy" / f"{split}.jsonl") for split in ("test", "train")}


def test_a_group_keeps_the_subtasks_that_have_items(folder):
    plan = tasks.plan("mmlu", folder)
    assert sorted(plan.leaves) == ["mmlu_abstract_algebra", "mmlu_anatomy"]
    assert len(plan.missing) == 55
    assert "no items" in plan.missing["mmlu_virology"]
    assert plan.files["mmlu.yaml"]["task"] == ["mmlu_stem"]


def test_another_task_on_the_same_data_finds_its_items(folder):
    other = tasks.plan("mmlu_anatomy_generative", folder)
    assert list(other.items) == ["mmlu_anatomy_generative"]
    assert other.items["mmlu_anatomy_generative"]["test"].endswith("mmlu/anatomy/test.jsonl")


def test_a_tag_runs_its_tasks(folder):
    plan = tasks.plan("ai2_arc", folder)
    assert plan.leaves == ["arc_easy"]
    assert "arc_challenge" in plan.missing


def test_an_unknown_name_names_the_nearest(folder):
    with pytest.raises(SettingError, match="no task 'hellaswagg'; did you mean 'hellaswag'"):
        tasks.plan("hellaswagg", folder)


def test_a_missing_split_and_missing_items_are_reasons(folder, tmp_path):
    assert "none of race, race/high" in tasks.plan("race", folder).missing["race"]
    (tmp_path / "piqa").mkdir()
    (tmp_path / "piqa" / "train.jsonl").write_text("{}\n")
    assert "no split 'validation', only train" in tasks.plan("piqa", tmp_path).missing["piqa"]


def test_shots_never_include_the_item_that_is_asked(folder):
    plan = tasks.plan("drop", folder, shots=3)
    content = plan.files["drop.yaml"]
    assert content["test_split"] == content["fewshot_split"] == "validation"
    assert "no split 'train'" in plan.notes["drop"]
    assert not tasks.plan("drop", folder).notes  # no shots, no remark
    assert not tasks.plan(
        "piqa", folder, shots=3
    ).notes  # shots come from train, as in the official definition


def test_overrides_replace_keys_of_every_task_below(folder):
    plan = tasks.plan("mmlu", folder, {"description": "Answer."})
    assert {plan.files[f"{leaf}.yaml"]["description"] for leaf in plan.leaves} == {"Answer."}


def test_generated_code_needs_the_opt_in(folder):
    refused = tasks.plan("humaneval", folder)
    assert not refused.leaves
    assert "eval.allow_code_execution=true" in refused.missing["humaneval"]
    assert tasks.plan("humaneval", folder, allow_code=True).leaves == ["humaneval"]


def test_a_users_own_yaml_by_its_path(folder, tmp_path):
    own = {"task": "mine", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "x.jsonl"}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**own, "test_split": "test", "doc_to_text": "{{q}}"}))
    plan = tasks.plan(str(tmp_path / "mine.yaml"), folder)
    assert plan.name == "mine"
    assert plan.files == {"mine.yaml": {"include": str(tmp_path / "mine.yaml")}}
    group = {"group": "both", "task": ["mine", "arc_easy"]}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(group))
    assert tasks.plan(str(tmp_path / "both.yaml"), folder).leaves == ["mine", "arc_easy"]
    with pytest.raises(SettingError, match="nowhere.yaml, which is not a file"):
        tasks.plan("nowhere.yaml", folder)
    (tmp_path / "none.yaml").write_text("description: nothing\n")
    with pytest.raises(SettingError, match="no lm-eval task"):
        tasks.plan(str(tmp_path / "none.yaml"), folder)


@pytest.mark.parametrize("suite", SUITES, ids=lambda path: path.stem)
def test_every_suite_names_tasks_and_columns_that_exist(suite, folder):
    settings = Eval(**yaml.safe_load(suite.read_text()))
    names = {
        tasks.plan(entry, folder).name for entry in settings.tasks
    }  # raises on a name that lm-eval has not
    assert {*settings.shots, *settings.overrides} <= names
    for sought in settings.columns.values():
        for metric in [sought] if isinstance(sought, str) else sought:
            assert metric.partition("/")[0] in names


def test_the_paper_suite_has_the_papers_columns():
    reference = Path(__file__).parents[3] / "shared" / "paper" / "reference.yaml"
    if not reference.is_file():
        pytest.skip("../shared/paper is not on this machine")
    settings = yaml.safe_load((CONFIGS / "eval" / "paper.yaml").read_text())
    assert list(settings["columns"]) == yaml.safe_load(reference.read_text())["columns"]


@pytest.mark.parametrize(
    ("dataset", "subset", "found"),
    [
        ("EleutherAI/lambada_openai", "de", None),  # another language
        ("EleutherAI/lambada_openai", "default", "lambada_openai"),
        ("somebody/HellaSwag", None, None),  # another owner's
        ("Rowan/hellaswag", None, "hellaswag"),
        ("hellaswag", None, "hellaswag"),
        ("me/my-data", None, "my_data"),
        ("me/my-data", "main", "my_data"),
        ("me/my-data", "sv", None),
    ],
)
def test_items_of_one_name_are_not_those_of_another_language_or_owner(dataset, subset, found, tmp_path):
    for name in ("lambada_openai", "hellaswag", "my_data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "validation.jsonl").write_text("{}\n")
    if found is None:
        with pytest.raises(LookupError, match="no items"):
            tasks.find_items(tmp_path, "a_task", dataset, subset)
    else:
        assert tasks.find_items(tmp_path, "a_task", dataset, subset) == tmp_path / found
