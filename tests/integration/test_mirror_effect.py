"""The proxy itself with heads masked, through lm-eval: against known heads, and against weights zeroed by hand."""

import json
import random

import polars as pl
import pytest
import scoring_corpus as given
import torch
from evaluating import items, tiny, words
from lm_eval.api.instance import Instance
from transformers import AutoModelForCausalLM, AutoTokenizer

from repro.errors import SettingError
from repro.evaluate import harness
from repro.evaluate.evaluate import evaluate
from repro.evaluate.settings import Eval
from repro.evaluate.stage import masked_stage
from repro.experiments import build
from repro.proxy import masking
from repro.proxy import stage as proxy_stage
from repro.proxy.built import INDUCTION
from repro.proxy.load import load
from repro.proxy.settings import Proxy
from repro.settings.compose import compose
from repro.store import Stage, Store, read_json, write_json

COPYING = Eval(tasks=["lambada_openai"], text_tasks=[], text_bytes=500, batch_size=8)
IDLE = [(1, 1), (1, 2), (1, 3)]
MASKED = [
    (0, 1),
    (1, 2),
    (1, 3),
]  # of the random model: two heads of one key-value group, and one of another layer
HEAD_DIM = 8


def copying_items(context):
    """Twelve random words, and the same again: the last word can only be copied."""
    draw = random.Random(0)
    rows = []
    for _ in range(12):
        sentence = " ".join(
            "".join(draw.choice("bcdfgklmnprst") + draw.choice("aeiou") for _ in range(3)) for _ in range(12)
        )
        rows.append({"text": f"{sentence}. {sentence}"})
    (context.out / "lambada_openai").mkdir()
    (context.out / "lambada_openai" / "test.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    write_json(
        context.out / "items.json", {"source": "test", "tasks": {"lambada_openai": {"test": {"n": 12}}}}
    )


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    """Summaries of the built proxy, by what is masked: nothing, the copying head, the idle heads of its layer."""
    store = Store(tmp_path_factory.mktemp("work"))
    shared = Stage("items", "test", {}, copying_items), given.corpus(), proxy_stage.stage(given.PROXY)
    found = {}
    for name, heads in (("none", None), ("copying", [INDUCTION]), ("idle", IDLE)):
        chosen = Stage(
            "heads",
            name,
            {},
            lambda c, h=heads: write_json(c.out / "heads.json", {"selected": [list(p) for p in h]}),
        )
        target = masked_stage(COPYING, given.PROXY, *shared, chosen if heads else None)
        found[name] = (
            read_json(given.ensure_all(store, target) / "summary.json"),
            read_json(store.path(target) / "manifest.json"),
        )
    return found


def test_only_the_copying_head_matters_on_a_copying_task(arms):
    accuracy = {
        name: summary["metrics"]["lambada_openai/acc"]["value"] for name, (summary, _) in arms.items()
    }
    assert accuracy["none"] == accuracy["idle"] >= 0.9 and accuracy["copying"] == 0
    bits = {name: summary["bits_per_byte"] for name, (summary, _) in arms.items()}
    assert bits["idle"] == bits["none"] < bits["copying"] - 1
    assert arms["none"][0]["heldout_bits_per_byte"] == arms["idle"][0]["heldout_bits_per_byte"]
    assert arms["none"][0]["heldout_bits_per_byte"] != arms["copying"][0]["heldout_bits_per_byte"]


def test_the_stage_says_what_it_masked_and_in_which_dtype(arms):
    assert [manifest["facts"]["heads_masked"] for _, manifest in arms.values()] == [0, 1, 3]
    assert {manifest["settings"]["dtype"] for _, manifest in arms.values()} == {"float32"}
    assert {summary["config"]["dtype"] for summary, _ in arms.values()} == {"float32"}
    other = masked_stage(COPYING, Proxy(kind="built", dtype="bfloat16"), *[given.corpus()] * 3, None)
    assert other.settings["dtype"] == "bfloat16"


@pytest.fixture(scope="module")
def random_model(tmp_path_factory):
    """A grouped-query model with random weights: folder, items, as a proxy, and with query weights zeroed by hand."""
    root = tmp_path_factory.mktemp("random")
    tiny(root / "model", context=256)
    items(root / "items")
    by_hand = AutoModelForCausalLM.from_pretrained(root / "model", attn_implementation="eager").eval()
    for layer, head in MASKED:
        by_hand.model.layers[layer].self_attn.q_proj.weight.data[head * HEAD_DIM : (head + 1) * HEAD_DIM] = 0
    return root, load(root / "model", "float32"), by_hand


@torch.no_grad()
def loglikelihood(model, tokenizer, context, continuation):
    """Sum of log p of the continuation's tokens in one unbatched, unpadded pass."""
    whole, before = tokenizer(context + continuation)["input_ids"], len(tokenizer(context)["input_ids"])
    logp = model(input_ids=torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return sum(logp[position - 1, whole[position]].item() for position in range(before, len(whole)))


def test_answers_under_the_mask_equal_those_of_weights_zeroed_by_hand_at_every_batch_size(random_model):
    root, proxy, by_hand = random_model
    found = {}
    for batch_size in (1, 4):
        settings = Eval(
            tasks=["hellaswag", "lambada_openai"],
            text_tasks=["wikitext"],
            text_bytes=2000,
            batch_size=batch_size,
        )
        with masking.masked(proxy.attentions, MASKED):
            out = root / f"batch{batch_size}"
            summary = evaluate((proxy.model, proxy.tokenizer), settings, root / "items", out, masked=MASKED)
        rows = pl.read_parquet(out / "items.parquet").sort("task", "doc_id")
        found[batch_size] = [*rows["gold_loglikelihood"], summary["text_bits_per_byte"]["wikitext"]["value"]]
    assert found[1] == pytest.approx(found[4], rel=1e-5)

    tokenizer = AutoTokenizer.from_pretrained(root / "model")
    lines = (root / "items/lambada_openai/test.jsonl").read_text().strip().split("\n")
    for line, value in zip(
        lines, rows.filter(pl.col("task") == "lambada_openai")["gold_loglikelihood"], strict=True
    ):
        context, _, last = json.loads(line)["text"].rpartition(" ")
        assert value == pytest.approx(loglikelihood(by_hand, tokenizer, context, f" {last}"), rel=1e-5)
        assert value != pytest.approx(
            loglikelihood(proxy.model, tokenizer, context, f" {last}"), rel=1e-3
        )  # nothing masked
    whole = evaluate((by_hand, tokenizer), settings, root / "items", root / "hand")
    assert whole["bits_per_byte"] == pytest.approx(summary["bits_per_byte"], rel=1e-5)


@torch.no_grad()
def greedy(model, tokenizer, prompt, tokens):
    """Greedy continuation without a cache, without padding."""
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    for _ in range(tokens):
        ids = torch.cat([ids, model(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    return tokenizer.decode(ids[0, start:], skip_special_tokens=True)


def test_generation_under_the_mask_with_cache_and_left_padding(random_model):
    """A masked head looks at all visible keys of the cache and at no padding, whatever the batch."""
    root, proxy, by_hand = random_model
    prompts = [words(random.Random(i), n) for i, n in enumerate((3, 25, 9, 14, 30))]
    tokenizer = AutoTokenizer.from_pretrained(root / "model")
    expected = [greedy(by_hand, tokenizer, prompt, 8) for prompt in prompts]
    assert expected != [greedy(proxy.model, tokenizer, prompt, 8) for prompt in prompts]
    options = {"until": ["\n\n\n"], "max_gen_toks": 8, "do_sample": False}
    for batch_size in (1, 5):
        lm = harness.load((proxy.model, proxy.tokenizer), batch_size, "float32")
        requests = [Instance("generate_until", {}, (prompt, options), i) for i, prompt in enumerate(prompts)]
        with masking.masked(proxy.attentions, MASKED), harness.quiet():
            assert lm.generate_until(requests) == expected


def test_parts_of_other_heads_are_not_taken_over(random_model, monkeypatch):
    root, proxy, _ = random_model
    settings = Eval(tasks=["arc_easy", "lambada_openai"], text_tasks=[])
    real = harness.run

    def run(heads, out, stop=None):
        def killed(lm, plan, *rest):
            if plan.name == stop:
                raise KeyboardInterrupt
            return real(lm, plan, *rest)

        monkeypatch.setattr(harness, "run", killed)
        with masking.masked(proxy.attentions, heads):
            return evaluate(
                (proxy.model, proxy.tokenizer), settings, root / "items", root / out, masked=heads
            )

    with pytest.raises(KeyboardInterrupt):
        run([(0, 0)], "interrupted", "lambada_openai")
    assert (root / "interrupted" / "parts" / "arc_easy.json").is_file()
    assert run(MASKED, "interrupted") == run(MASKED, "fresh")


def test_draws_share_detection_and_what_is_not_drawn():
    experiment = build(compose(["exp=mirror_effect", "scale=smoke"]))

    def evaluations(arm):
        return {stages["evaluate"].fingerprint for stages in experiment.arms[arm].values()}

    draws = len(experiment.arms["random"])
    assert draws == 10
    assert {arm: len(evaluations(arm)) for arm in experiment.arms} == {
        "base": 1, "retrieval": 1, "random": draws, "random_same_layers": draws, "random_matched_damage": draws,
    }  # fmt: skip
    names = [stage.name for stage in experiment.order()]
    assert names.count("detection") == 1 and names.count("evaluate") == 2 + 3 * draws
    assert experiment.arms["retrieval"][3]["heads"].fingerprint == experiment.shared["heads"].fingerprint
    assert "heads" not in experiment.arms["base"][0] and "score" not in names


def test_masking_nothing_is_refused_where_heads_are_needed():
    with pytest.raises(SettingError, match="only arms of exp=mirror_effect"):
        build(compose(["exp=selection_30pct", "scale=smoke", "heads.detector=none"]))


def test_the_whole_experiment_at_smoke(tmp_path, capsys):
    from repro.run import run

    tasks = [
        "eval.tasks=[lambada_openai]",
        "eval.text_tasks=[lambada_openai]",
        "eval.limit=12",
        "eval.text_bytes=1000",
    ]
    sizes = [
        "corpus.max_documents_per_domain=20",
        "heads.probes=2",
        "heads.draws=3",
        "exp.seeds=[0,1]",
        f"work={tmp_path}",
    ]
    folder = run(compose(["exp=mirror_effect", "scale=smoke", "eval=smoke", *tasks, *sizes, "device=cpu"]))
    summary = read_json(folder / "summary.json")
    matched = summary["arms"].pop(
        "random_matched_damage"
    )  # no head of this model but the copying one does such damage
    assert matched["seeds"] == {} and list(matched["missed"]) == ["0", "1"]
    values = {
        arm: row["seeds"]["0"]["metrics"]["bits_per_byte"]["value"] for arm, row in summary["arms"].items()
    }
    assert values["base"] == values["random_same_layers"] < values["retrieval"]
    rows = {
        (r["treatment"], r["control"]): r["seeds"]
        for r in summary["comparisons"]
        if r["metric"] == "bits_per_byte"
    }
    assert (
        rows["retrieval", "random"] == 2 and rows["retrieval", "base"] == 1
    )  # draws, and one fixed set against another
    assert "was not measured in both arms" in summary["verdict"]["sentence"]
    assert summary["arms"]["random"]["seeds"]["1"]["masked"]["selected"] != [list(INDUCTION)]
    html = (folder / "report.html").read_text()
    assert (
        "Masked heads and what they do to ordinary text" in html
        and "A seed is a draw of the control heads" in html
    )
    assert "selection alone" not in html and "Left out: 2 of 2 draws of random_matched_damage" in html
    assert max(map(len, capsys.readouterr().out.split("report:")[0].split("\nDoes")[1].split("\n"))) <= 100
