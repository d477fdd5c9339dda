"""Cells against lm-eval called by hand with definitions written here, and per-item columns against the model itself."""

import math
import os

import lm_eval
import numpy as np
import polars as pl
import pytest
import torch
import yaml
from evaluating import items, tiny
from lm_eval.tasks import TaskManager
from statsmodels.stats.proportion import proportion_confint
from transformers import AutoModelForCausalLM, AutoTokenizer

from repro.evaluate.evaluate import evaluate
from repro.evaluate.settings import Eval

OFFICIAL = os.path.join(os.path.dirname(lm_eval.__file__), "tasks")
# task: official definition, and what a person would write to point it at the files
BY_HAND = {
    "arc_easy": ("arc/arc_easy.yaml", {"test": "test", "train": "train"}, {"validation_split": None}),
    "hellaswag": ("hellaswag/hellaswag.yaml", {"validation": "validation", "train": "train"}, {}),
    "piqa": ("piqa/piqa.yaml", {"validation": "validation", "train": "train"}, {}),
    "sciq": ("sciq/sciq.yaml", {"test": "test"}, {"validation_split": None, "training_split": None}),
    "winogrande": ("winogrande/default.yaml", {"validation": "validation", "train": "train"}, {}),
    "lambada_openai": ("lambada/lambada_openai.yaml", {"test": "test"}, {}),
    "gsm8k": (
        "gsm8k/gsm8k.yaml",
        {"test": "test", "train": "train"},
        {"generation_kwargs": {"max_gen_toks": 8, "until": ["."]}},
    ),
    "mmlu_anatomy": ("mmlu/default/mmlu_anatomy.yaml", {"test": "test", "dev": "dev"}, {}),
}
SHOTS = {"piqa": 2, "winogrande": 1, "gsm8k": 1, "mmlu_anatomy": 1}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    root = tmp_path_factory.mktemp("lm-eval")
    tiny(root / "model", context=256)
    items(root / "items")
    settings = Eval(
        tasks=list(BY_HAND),
        shots=SHOTS,
        text_tasks=[],
        overrides={"gsm8k": BY_HAND["gsm8k"][2]},
        batch_size=4,
    )
    summary = evaluate(
        root / "model", settings, root / "items", root / "out", definitions=root / "definitions"
    )
    return root, summary


def by_hand(root, task):
    """`lm_eval --model hf --tasks TASK --include_path ...`, through the function behind that command."""
    official, splits, extra = BY_HAND[task]
    folder = root / "items" / ("mmlu/anatomy" if task.startswith("mmlu") else task)
    definition = {
        "include": os.path.join(OFFICIAL, official),
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {split: str(folder / f"{name}.jsonl") for split, name in splits.items()}
        },
        **extra,
    }
    (root / "hand" / task).mkdir(parents=True, exist_ok=True)
    (root / "hand" / task / "task.yaml").write_text(yaml.safe_dump(definition))
    manager = TaskManager(include_path=str(root / "hand" / task), include_defaults=False)
    return lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(root / "model"), "dtype": "float32"},
        tasks=[task],
        num_fewshot=SHOTS.get(task),
        batch_size=4,
        device="cpu",
        task_manager=manager,
        bootstrap_iters=0,
    )["results"][task]


@pytest.mark.parametrize("task", BY_HAND)
def test_metrics_equal_lm_eval_by_hand(here, task):
    root, summary = here
    expected = {
        key: value for key, value in by_hand(root, task).items() if "," in key and "_stderr" not in key
    }
    found = {
        key.removeprefix(f"{task}/"): cell["value"]
        for key, cell in summary["metrics"].items()
        if key.startswith(f"{task}/")
    }
    # likelihoods are computed without padding: equal but for float32 rounding, and perplexities are exponentials of them
    assert found == pytest.approx(
        {key.removesuffix(",none"): value for key, value in expected.items()}, rel=1e-5
    )


def test_the_generated_definitions_work_with_lm_eval_alone(here):
    root, summary = here
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(root / "model"), "dtype": "float32"},
        tasks=["hellaswag"],
        batch_size=4,
        device="cpu",
        task_manager=TaskManager(
            include_path=str(root / "definitions" / "hellaswag"), include_defaults=False
        ),
        bootstrap_iters=0,
    )
    assert found["results"]["hellaswag"]["acc_norm,none"] == summary["metrics"]["hellaswag/acc_norm"]["value"]


@torch.no_grad()
def loglikelihood(model, tokenizer, context, continuation):
    """Sum of log p of the continuation's tokens in one unbatched pass; lm-eval moves a trailing space to the continuation."""
    stripped = context.rstrip()
    context, continuation = stripped, context[len(stripped) :] + continuation
    whole, before = tokenizer(context + continuation)["input_ids"], len(tokenizer(context)["input_ids"])
    logp = model(input_ids=torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return sum(logp[position - 1, whole[position]].item() for position in range(before, len(whole)))


def test_per_item_columns_equal_the_models_own_probabilities(here):
    """Gold answers of PIQA (two choices, zero shots would hide a mistake in the shots) and of LAMBADA, by hand."""
    root, _ = here
    rows = pl.read_parquet(root / "out" / "items.parquet")
    model = AutoModelForCausalLM.from_pretrained(root / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(root / "model")
    arc = [
        yaml.safe_load(line) for line in (root / "items/arc_easy/test.jsonl").read_text().strip().split("\n")
    ]
    found = rows.filter(pl.col("task") == "arc_easy").sort("doc_id").to_dicts()
    assert len(found) == len(arc) == 12
    for doc, row in zip(arc, found, strict=True):
        context = f"Question: {doc['question']}\nAnswer:"
        scores = [loglikelihood(model, tokenizer, context, f" {choice}") for choice in doc["choices"]["text"]]
        gold = "ABCD".index(doc["answerKey"])
        n_bytes = len(f" {doc['choices']['text'][gold]}".encode())
        weights = np.exp(np.array(scores) - max(scores))
        weights /= weights.sum()
        assert row["gold_loglikelihood"] == pytest.approx(scores[gold], rel=1e-4)
        assert row["gold_bytes"] == n_bytes
        assert row["gold_bits_per_byte"] == pytest.approx(-scores[gold] / math.log(2) / n_bytes, rel=1e-4)
        assert row["gold_probability"] == pytest.approx(weights[gold], abs=1e-4)
        assert row["other_loglikelihood"] == pytest.approx(max(np.delete(scores, gold)), rel=1e-4)
        assert row["n_choices"] == 4
        assert row["acc"] == float(np.argmax(scores) == gold)
    for row, line in zip(
        rows.filter(pl.col("task") == "lambada_openai").sort("doc_id").to_dicts(),
        (root / "items/lambada_openai/test.jsonl").read_text().strip().split("\n"),
        strict=True,
    ):
        context, _, last = yaml.safe_load(line)["text"].rpartition(" ")
        expected = loglikelihood(model, tokenizer, context, f" {last}")
        assert row["gold_loglikelihood"] == pytest.approx(expected, rel=1e-4)
        assert row["gold_bytes"] == len(f" {last}".encode())
        assert row["gold_probability"] is None


def test_summary_follows_from_the_items(here):
    root, summary = here
    rows = pl.read_parquet(root / "out" / "items.parquet")
    for task in ("arc_easy", "hellaswag", "piqa", "sciq"):
        own = rows.filter(pl.col("task") == task)
        cell = summary["metrics"][f"{task}/acc_norm"]
        assert cell["value"] == pytest.approx(own["acc_norm"].mean())
        assert cell["stderr"] == pytest.approx(own["acc_norm"].std() / math.sqrt(len(own)))
        assert cell["chance"] == (0.5 if task == "piqa" else 0.25)
        low, high = proportion_confint(own["acc_norm"].sum(), len(own), method="wilson")
        assert cell["covers_chance"] == (low <= cell["chance"] <= high)
        assert summary["gold_bits_per_byte"][task]["value"] == pytest.approx(own["gold_bits_per_byte"].mean())
    gold = [cell["value"] for cell in summary["gold_bits_per_byte"].values()]
    assert len(gold) == 7  # every task but the generated answers of GSM8K
    assert summary["bits_per_byte"] == pytest.approx(
        sum(gold) / len(gold)
    )  # no text here: the gold answers stand alone
    assert "gsm8k/exact_match,flexible-extract" in summary["metrics"]
