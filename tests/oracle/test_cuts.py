"""What is cut is counted: prompts beyond a context, documents beyond score.max_tokens."""

import json

import numpy as np
import polars as pl
import pytest
from evaluating import tiny, words
from transformers import AutoTokenizer

from repro.evaluate import stage as evaluate_stage
from repro.evaluate.evaluate import evaluate
from repro.evaluate.settings import Eval
from repro.influence import stage as influence
from repro.influence.scorer import Scorer
from repro.influence.shards import NOT_DRAWN
from repro.plan.cuts import unread
from repro.report import cuts
from repro.settings.compose import compose
from repro.settings.root import Settings
from repro.store import Store


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    import random

    root = tmp_path_factory.mktemp("cuts")
    tiny(root / "model", context=64)
    draw = random.Random(1)
    lambada = [{"text": words(draw, n)} for n in (3, 5, 40, 60, 8, 90)]
    gsm = [{"question": words(draw, n), "answer": "x #### 3"} for n in (4, 50, 3, 70)]
    for task, rows in (("lambada_openai", lambada), ("gsm8k", gsm)):
        (root / "items" / task).mkdir(parents=True)
        (root / "items" / task / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    generate = {"gsm8k": {"generation_kwargs": {"max_gen_toks": 8, "until": ["."]}}}
    s = Eval(
        tasks=["lambada_openai", "gsm8k"], shots={"gsm8k": 0}, text_tasks=[], overrides=generate, batch_size=3
    )
    return root, lambada, gsm, evaluate(root / "model", s, root / "items", root / "out")


def test_cut_prompts_are_those_that_the_tokenizer_says(here):
    root, lambada, gsm, summary = here
    tokenizer = AutoTokenizer.from_pretrained(root / "model")
    rows = pl.read_parquet(root / "out" / "items.parquet").unique(["task", "doc_id"]).sort("doc_id")
    expected = {
        "lambada_openai": [max(0, len(tokenizer(row["text"])["input_ids"]) - 65) for row in lambada],
        "gsm8k": [
            max(0, len(tokenizer(f"Question: {row['question']}\nAnswer:")["input_ids"]) - (64 - 8))
            for row in gsm
        ],
    }
    for task, over in expected.items():
        assert 0 < sum(n > 0 for n in over) < len(over)
        assert rows.filter(pl.col("task") == task)["cut_tokens"].to_list() == over
        cell = summary["cut"][task]
        assert cell == {"items": len(over), "items_cut": sum(n > 0 for n in over), "tokens_cut": sum(over)}
        assert f"{cell['items_cut']} of {cell['items']} prompts lost their first tokens" in " ".join(
            summary["notes"][task]
        )
    facts = evaluate_stage.facts(summary)
    assert facts["items_cut"] == sum(n > 0 for over in expected.values() for n in over)
    assert facts["tokens_cut"] == sum(map(sum, expected.values()))


def test_documents_are_scored_whole_unless_told_otherwise_and_what_is_left_is_counted(tmp_path):
    class Proxy:
        prefix = ()

    ids = list(range(1000))
    whole = Scorer(Proxy(), [], window=64).windows(ids)
    assert [token for window in whole for token in window] == ids
    assert sum(map(len, Scorer(Proxy(), [], window=64, max_tokens=100).windows(ids))) == 100
    lengths = {"web": [10, 300, 256, 257], "code": [5, 6]}
    rows = [
        {"domain": domain, "n_tokens_doc": n, "reason": None} for domain, ns in lengths.items() for n in ns
    ]
    rows.append({"domain": "web", "n_tokens_doc": 900, "reason": NOT_DRAWN})  # left out by choice, so not cut
    (tmp_path / "scores").mkdir()
    pl.DataFrame(rows, schema_overrides={"reason": pl.String}).write_parquet(
        tmp_path / "scores" / "a.parquet"
    )
    found = influence._cut(tmp_path / "scores", 256)
    assert found == {
        "documents_cut": 2,
        "tokens_unscored": 45,
        "cut": {"web": {"documents": 4, "documents_cut": 2, "tokens_unscored": 45}},
    }
    assert influence._cut(tmp_path / "scores", None) == {"documents_cut": 0, "tokens_unscored": 0, "cut": {}}
    assert compose(["exp=score_corpus", "scale=laptop"]).score.max_tokens is None
    assert compose(["exp=score_corpus", "score.max_tokens=512"]).score.max_tokens == 512
    assert compose(["exp=selection_30pct", "scale=laptop"]).score.max_tokens == 256
    assert Settings().score.max_tokens is None
    assert np.isfinite(found["tokens_unscored"])


def test_the_plan_says_what_will_not_be_read(here, tmp_path):
    from repro.experiments import build

    root, lambada, *_ = here
    arguments = ["exp=selection_30pct", f"work={tmp_path}", "items=folder", f"items.folder={root / 'items'}"]
    arguments += ["eval.tasks=[lambada_openai]", "train.context=64"]
    settings = compose(arguments)
    documents, prompts = unread(settings, Store(tmp_path), build(settings).order())
    assert "first 256 tokens (score.max_tokens; null = whole)" in documents
    over = sum(len(json.dumps(row)) / 4 > 64 for row in lambada)
    assert f"lambada_openai {over} of 6" in prompts
    continued = compose(
        [*arguments, "model.init_from=proxy"]
    )  # reads with its own context, not with training's
    assert "continued model's context" in unread(continued, Store(tmp_path), build(continued).order())[1]
    settings = compose([*arguments, "score.max_tokens=null"])
    assert not any("documents" in line for line in unread(settings, Store(tmp_path), build(settings).order()))


def test_the_report_has_both_tables():
    score = {"stage": "score", "label": "retrieval", "fingerprint": "x",
             "facts": {"cut": {"web": {"documents": 4, "documents_cut": 2, "tokens_unscored": 45}}}}  # fmt: skip
    cut = {"sciq": {"items": 9, "items_cut": 2, "tokens_cut": 30}}
    summary = {
        "arms": {"a": {"seeds": {"0": {"evaluation": {"cut": cut}, "artifacts": {}}}}},
        "artifacts": {"score": score},
    }
    names = {table.name: table.rows for table in (cuts.prompts(summary), cuts.documents(summary))}
    assert names["prompts_cut"] == [["sciq", 9, 2, 30]]
    assert names["documents_cut"] == [["retrieval", "web", 4, 2, 45]]
