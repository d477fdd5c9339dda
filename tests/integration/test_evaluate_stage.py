"""The whole evaluation on a tiny model: files, resume, bad models, no network, checkpoints, generated code."""

import json
import random
import shutil
import socket
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import torch
import yaml
from evaluating import items, tiny, words
from killing import remove_one_and_die
from lm_eval.api.instance import Instance
from transformers import AutoModelForCausalLM, AutoTokenizer

from repro.errors import SettingError
from repro.evaluate import harness, per_item, summary, tasks
from repro.evaluate import stage as stage_module
from repro.evaluate.__main__ import main
from repro.evaluate.evaluate import evaluate
from repro.evaluate.settings import Eval
from repro.evaluate.summary import column
from repro.evaluate.texts import heldout
from repro.settings.files import CONFIGS
from repro.store import Stage, Store, read_json
from repro.store.soundness import damage

SETTINGS = Eval(
    tasks=["arc_easy", "piqa", "mmlu", "race", "lambada_openai"],
    shots={"piqa": 1},
    text_tasks=["wikitext", "lambada_openai", "squad"],
    text_bytes=1500,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model, items, and a corpus with held-out documents."""
    root = tmp_path_factory.mktemp("evaluate")
    tiny(root / "model")
    items(root / "items")
    (root / "corpus" / "heldout").mkdir(parents=True)
    for domain in ("code", "prose"):
        rows = [
            {"doc_id": f"{domain}{i}", "domain": domain, "text": words(random.Random(i), 60)}
            for i in range(9)
        ]
        pl.DataFrame(rows).write_parquet(root / "corpus" / "heldout" / f"{domain}-00000.parquet")
    return root


@pytest.fixture(scope="module")
def whole(folders):
    out = folders / "whole"
    return out, evaluate(folders / "model", SETTINGS, folders / "items", out, folders / "corpus")


def test_the_summary_holds_every_cell_or_the_reason(whole):
    out, summary = whole
    assert summary == read_json(out / "summary.json")
    assert {key.partition("/")[0] for key in summary["metrics"]} == {
        "arc_easy",
        "piqa",
        "mmlu",
        "lambada_openai",
    }
    assert "no items" in summary["missing"]["race"]
    assert "text/squad" in summary["missing"]
    assert any("mmlu_virology" in note for note in summary["notes"]["mmlu"])
    assert summary["metrics"]["mmlu/acc"]["n"] == 12 + 6
    assert summary["metrics"]["mmlu/acc"]["chance"] == 0.25
    assert summary["shots"]["piqa"] == 1
    assert set(summary["heldout_bits_per_byte"]) == {"code", "prose"}
    text = [cell["value"] for cell in summary["text_bits_per_byte"].values()]
    gold = [cell["value"] for cell in summary["gold_bits_per_byte"].values()]
    assert (len(text), len(gold)) == (2, 4)
    assert summary["bits_per_byte"] == pytest.approx((sum(text) / 2 + sum(gold) / 4) / 2)
    assert (summary["config"]["batch_size"], summary["config"]["dtype"]) == (16, "float32")
    assert summary["config"]["items_source"] == {"made": "by the tests"}


def test_items_carry_checksums_and_results_name_no_place(whole, folders):
    out, _ = whole
    results = read_json(out / "results.json")
    listed = read_json(folders / "items" / "items.json")["tasks"]
    assert results["items"]["arc_easy"] == {
        split: cell["sha256"] for split, cell in listed["arc_easy"].items()
    }
    for name in ("results.json", "summary.json"):
        assert str(folders) not in (out / name).read_text()


def test_columns_of_a_table(whole):
    _, summary = whole
    one, two = summary["metrics"]["arc_easy/acc_norm"], summary["metrics"]["piqa/acc_norm"]
    cell = column(summary["metrics"], summary["missing"], ["arc_easy/acc_norm", "piqa/acc_norm"])
    assert cell["value"] == pytest.approx((one["value"] + two["value"]) / 2)
    assert cell["stderr"] == pytest.approx((one["stderr"] ** 2 + two["stderr"] ** 2) ** 0.5 / 2)
    assert "no items" in column(summary["metrics"], summary["missing"], "race/acc")["why"]
    assert column(summary["metrics"], summary["missing"], "gsm8k/exact_match")["why"].startswith("not run")


def test_an_interrupted_evaluation_continues_and_ends_the_same(whole, folders, monkeypatch):
    expected, _ = whole
    out, ran, real = folders / "interrupted", [], harness.run

    def killed_at(name):
        def run(lm, plan, *rest):
            if plan.name == name:
                raise KeyboardInterrupt
            ran.append(plan.name)
            return real(lm, plan, *rest)

        return run

    for name in ("mmlu", "lambada_openai", None):
        monkeypatch.setattr(harness, "run", killed_at(name))
        try:
            evaluate(folders / "model", SETTINGS, folders / "items", out, folders / "corpus")
        except KeyboardInterrupt:
            assert not (out / "summary.json").exists()
    assert ran == ["arc_easy", "piqa", "mmlu", "lambada_openai"]  # nothing twice
    for name in ("summary.json", "results.json", "items.parquet", "texts.parquet"):
        assert (out / name).read_bytes() == (expected / name).read_bytes(), name
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in expected.iterdir())


def test_killed_while_parts_are_cleared_away(folders, monkeypatch):
    """Whichever file goes first."""
    settings = Eval(tasks=["arc_easy", "lambada_openai"], text_tasks=["wikitext"], text_bytes=500)

    def run(name):
        return evaluate(folders / "model", settings, folders / "items", folders / name)

    expected = run("not-killed")
    for number in range(6):
        files = remove_one_and_die(monkeypatch, number, partial(run, f"killed-{number}"))
        assert files >= 5, "identity, two entries of two files each, a text"
        assert run(f"killed-{number}") == expected
        assert not (folders / f"killed-{number}" / "parts").exists()


def test_parts_of_another_model_are_not_taken_over(folders, monkeypatch):
    out = folders / "other"
    settings = Eval(tasks=["arc_easy", "lambada_openai"], text_tasks=[])
    real = harness.run
    monkeypatch.setattr(
        harness, "run", lambda lm, plan, *rest: real(lm, plan, *rest) if plan.name == "arc_easy" else 1 / 0j
    )
    monkeypatch.setattr(
        shutil, "rmtree", lambda *_, **__: None
    )  # as if killed before the parts were cleared away
    evaluate(folders / "model", settings, folders / "items", out)
    monkeypatch.undo()
    assert (out / "parts" / "arc_easy.json").is_file()
    second = evaluate(tiny(folders / "second", seed=1), settings, folders / "items", out)
    fresh = evaluate(folders / "second", settings, folders / "items", folders / "fresh")
    assert second == fresh


def test_parts_of_a_definition_that_was_edited_since_are_not_taken_over(folders, monkeypatch, tmp_path):
    """The content of a YAML of one's own counts, not its path."""
    mine = tmp_path / "mine.yaml"

    def define(target):
        mine.write_text(
            yaml.safe_dump({"include": str(tasks.OFFICIAL / "arc" / "arc_easy.yaml"), "task": "mine", "doc_to_text": f"{target} {{{{question}}}}"})
        )  # fmt: skip

    define("Say:")
    settings = Eval(tasks=[str(mine), "lambada_openai"], text_tasks=[])
    real = harness.run

    def killed(lm, plan, *rest):
        if plan.name == "lambada_openai":
            raise KeyboardInterrupt
        return real(lm, plan, *rest)

    monkeypatch.setattr(harness, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(folders / "model", settings, folders / "items", tmp_path / "out")
    monkeypatch.undo()
    define("The quick brown fox asks:")
    second = evaluate(folders / "model", settings, folders / "items", tmp_path / "out")
    assert second == evaluate(folders / "model", settings, folders / "items", tmp_path / "fresh")


def test_a_loaded_model_gives_what_its_folder_gives(whole, folders):
    _, expected = whole
    model = AutoModelForCausalLM.from_pretrained(folders / "model")
    tokenizer = AutoTokenizer.from_pretrained(folders / "model")
    assert (
        evaluate((model, tokenizer), SETTINGS, folders / "items", folders / "loaded", folders / "corpus")
        == expected
    )


def test_no_network_is_asked(folders, monkeypatch):
    asked = []

    def refuse(*arguments, **_):
        asked.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    found = evaluate(
        folders / "model", Eval(tasks=["hellaswag"], text_tasks=[]), folders / "items", folders / "offline"
    )
    assert not found["missing"]
    assert asked == []


def test_items_with_non_finite_log_likelihoods_are_named_and_left_out(folders):
    settings = Eval(tasks=["piqa", "lambada_openai"], text_tasks=["wikitext"], batch_size=1)
    model = AutoModelForCausalLM.from_pretrained(folders / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folders / "model")
    broken = tokenizer(" seven", add_special_tokens=False)["input_ids"][
        -1
    ]  # a token of some items, not of all

    def poison(_, arguments, output):
        rows = (arguments[0] == broken).any(1)
        output[rows] = torch.nan
        return output

    with model.get_input_embeddings().register_forward_hook(poison):
        summary = evaluate((model, tokenizer), settings, folders / "items", folders / "poisoned")
    whole = evaluate((model, tokenizer), settings, folders / "items", folders / "healthy")
    named = summary["non_finite"]["piqa"]
    assert 0 < len(named) < 12
    rows = pl.read_parquet(folders / "healthy" / "items.parquet")
    kept = rows.filter((pl.col("task") == "piqa") & ~pl.col("doc_id").is_in(named))
    assert summary["metrics"]["piqa/acc"]["n"] == len(kept) == 12 - len(named)
    assert summary["metrics"]["piqa/acc"]["value"] == pytest.approx(kept["acc"].mean())
    assert summary["gold_bits_per_byte"]["piqa"]["value"] == pytest.approx(kept["gold_bits_per_byte"].mean())
    assert whole["non_finite"] == {}
    poisoned = pl.read_parquet(folders / "poisoned" / "items.parquet").filter(pl.col("task") == "piqa")
    left_out = poisoned.filter(~pl.col("finite"))
    assert sorted(left_out["doc_id"]) == sorted(named)
    assert (
        left_out.select("acc", "acc_norm", "gold_bits_per_byte", "gold_probability").null_count().row(0)
        == (len(named),) * 4
    )


def test_a_users_own_task_by_the_path_of_its_yaml(folders, tmp_path):
    """Its data lie where its YAML says, its shots are set by its name."""
    rows = [{"q": f"{i} and {i}", "a": str(2 * i)} for i in range(6)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    definition = {
        "task": "sums",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "data.jsonl")}},
        "test_split": "test",
        "output_type": "loglikelihood",
        "doc_to_text": "{{q}} is",
        "doc_to_target": " {{a}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "sums.yaml").write_text(yaml.safe_dump(definition))
    settings = Eval(tasks=[str(tmp_path / "sums.yaml"), "piqa"], shots={"sums": 2}, text_tasks=[])
    summary = evaluate(folders / "model", settings, folders / "items", tmp_path / "out")
    assert summary["missing"] == {}
    assert summary["shots"] == {"sums": 2, "piqa": 0}
    assert summary["gold_bits_per_byte"]["sums"]["n"] == 6
    (tmp_path / "moved").mkdir()
    moved = Eval(
        tasks=[shutil.copy(tmp_path / "sums.yaml", tmp_path / "moved"), "piqa"],
        shots={"sums": 2},
        text_tasks=[],
    )
    assert stage_module.identity(moved) == stage_module.identity(
        settings
    )  # its content counts, not its place
    (tmp_path / "moved" / "sums.yaml").write_text(yaml.safe_dump({**definition, "doc_to_text": "{{q}}:"}))
    assert stage_module.identity(moved) != stage_module.identity(settings)


def test_a_model_that_is_nan_throughout_spoils_its_cells_only_in_words(folders):
    model = AutoModelForCausalLM.from_pretrained(folders / "model")
    torch.nn.init.constant_(model.lm_head.weight, torch.nan)
    tokenizer = AutoTokenizer.from_pretrained(folders / "model")
    settings = Eval(tasks=["piqa"], text_tasks=["wikitext"])
    summary = evaluate((model, tokenizer), settings, folders / "items", folders / "nan")
    assert (
        "all 12 items of piqa are left out: log-likelihoods that are not finite" in summary["missing"]["piqa"]
    )
    assert summary["text_bits_per_byte"]["wikitext"]["value"] is None
    assert summary["bits_per_byte"] is None


def test_one_failing_task_leaves_the_others_alone(folders, tmp_path):
    """GSM8K wants to generate more tokens than the model's context has."""
    summary = evaluate(
        folders / "model", Eval(tasks=["gsm8k", "piqa"], text_tasks=[]), folders / "items", tmp_path
    )
    assert "maximum sequence length" in summary["missing"]["gsm8k"]
    assert "piqa/acc" in summary["metrics"]


@pytest.mark.parametrize("named", [None, [0, 331]], ids=["the file names one end", "it names them all"])
def test_an_answer_ends_at_every_token_that_ends_a_text(folders, named):
    """Of a chat model's ends a GGUF file names one; after another it writes the next text, with its own numbers."""
    tokenizer = AutoTokenizer.from_pretrained(folders / "model")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool|>", "<|endoftext|>"]})
    model = AutoModelForCausalLM.from_pretrained(folders / "model")
    model.resize_token_embeddings(len(tokenizer))
    model.generation_config.eos_token_id = named or model.generation_config.eos_token_id
    lm = harness.load((model, tokenizer), 2, "float32")
    script = [
        *lm.encoder.one(" red owl"),
        tokenizer.convert_tokens_to_ids("<|tool|>"),  # special, and no end
        *lm.encoder.one(" 18"),
        tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        *lm.encoder.one(" stone 7"),
        0,
    ]
    forward, step = model.forward, iter(script)

    def scripted(*arguments, **options):
        read = forward(*arguments, **options)
        read.logits[:, -1] = -1.0
        read.logits[:, -1, next(step, 0)] = 1.0
        return read

    model.forward = scripted
    request = Instance("generate_until", {}, ("cold hill", {"until": ["###"], "max_gen_toks": 30}), 0)
    assert lm.generate_until([request]) == [" red owl 18"]
    assert lm.ends() == [0, tokenizer.convert_tokens_to_ids("<|endoftext|>")]


def test_where_the_memory_runs_out_the_evaluation_ends_and_keeps_what_is_done(folders, tmp_path, monkeypatch):
    """torch's allocator says so with a plain RuntimeError; without the task the endpoint would be of others."""
    settings = Eval(tasks=["piqa", "arc_easy"], text_tasks=[])
    run = harness.run

    def short(lm, plan, *rest):
        if plan.name == "arc_easy":
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
            )
        return run(lm, plan, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(harness, "run", short)
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            evaluate(folders / "model", settings, folders / "items", tmp_path)
    assert (tmp_path / "parts/piqa.json").is_file() and not (tmp_path / "summary.json").exists()
    assert not evaluate(folders / "model", settings, folders / "items", tmp_path)["missing"]


def test_of_written_answers_guessing_is_the_commonest_one():
    sample = {"metrics": ["exact_match"], "exact_match": 0.0, "doc_hash": "", "filter": "none"}
    task = SimpleNamespace(task_name="t", OUTPUT_TYPE="generate_until")

    def level(answers):
        samples = [sample | {"doc_id": i, "target": a} for i, a in enumerate(answers)]
        samples += [{**one, "filter": "other"} for one in samples]
        rows = per_item.frame(per_item.rows("t", task, samples))
        results = {"results": {"t": {"exact_match,none": 0.3, "exact_match_stderr,none": 0.1}}}
        return summary.task_metrics(results, ["t"], rows)["t/exact_match"]

    letters = level("ABCDEFGHIJ" * 20)
    assert letters["chance"] == pytest.approx(19 / 199) and letters["covers_chance"] is False
    assert level(["True", "False", "True", "True"])["chance"] == pytest.approx(2 / 3)
    assert level([str(i) for i in range(50)])["chance"] == 0 and level(["1"])["chance"] == 0


def test_only_the_items_with_an_answer_longer_than_the_context_are_left_out(folders, tmp_path):
    shutil.copytree(folders / "items", tmp_path / "items")
    path = tmp_path / "items" / "piqa" / "validation.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[4]["sol1"] = words(random.Random(0), 200)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = Eval(tasks=["piqa", "arc_easy"], text_tasks=[], max_length=64)
    short = evaluate(folders / "model", settings, tmp_path / "items", tmp_path / "short")
    others = evaluate(folders / "model", settings, folders / "items", tmp_path / "others")
    assert not short["missing"] and not others["notes"]
    left_out, cut = short["notes"]["piqa"]
    assert left_out == "without 1 of piqa: 1 answers are longer than the context of 64 tokens"
    assert cut.startswith("1 of ") and "lost their first tokens" in cut
    assert short["non_finite"] == {"piqa": [4]}
    kept = pl.read_parquet(tmp_path / "others" / "items.parquet").filter(
        (pl.col("task") == "piqa") & (pl.col("doc_id") != 4)
    )
    for name in ("acc", "acc_norm"):
        cell = short["metrics"][f"piqa/{name}"]
        assert (cell["n"], cell["value"]) == (11, pytest.approx(kept[name].mean()))
    assert short["gold_bits_per_byte"]["piqa"]["value"] == pytest.approx(kept["gold_bits_per_byte"].mean())
    assert short["metrics"]["arc_easy/acc"] == others["metrics"]["arc_easy/acc"]


def test_a_context_too_short_for_every_answer_is_said(folders, tmp_path):
    short = Eval(tasks=["arc_easy"], text_tasks=["wikitext"], max_length=1)
    summary = evaluate(folders / "model", short, folders / "items", tmp_path)
    assert "all 12 items of arc_easy are left out" in summary["missing"]["arc_easy"]
    assert summary["missing"]["arc_easy"].endswith("longer than the context of 1 tokens")


@pytest.mark.parametrize(
    "gone, message", [("tokenizer*", "holds no tokenizer"), ("config.json", "holds no model")]
)
def test_an_unusable_model_folder_is_one_line(folders, tmp_path, gone, message):
    shutil.copytree(folders / "model", tmp_path / "model")
    for path in (tmp_path / "model").glob(gone):
        path.unlink()
    with pytest.raises(SettingError, match=message) as caught:
        evaluate(tmp_path / "model", SETTINGS, folders / "items", tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_damaged_weights_and_a_task_named_twice_are_one_line(folders, tmp_path):
    shutil.copytree(folders / "model", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(SettingError, match="cannot be loaded as a causal language model"):
        evaluate(tmp_path / "model", SETTINGS, folders / "items", tmp_path / "out")
    with pytest.raises(SettingError, match="names 'piqa' twice"):
        evaluate(
            folders / "model",
            Eval(tasks=["piqa", "piqa"], text_tasks=[]),
            folders / "items",
            tmp_path / "out",
        )


def prompts_of(model, task, items_folder, definition, overrides, shots):
    """The prompts that lm-eval puts to a model, each once, and the rows it leaves."""
    prompts: list[str] = []
    lm = harness.load(model, 4, "float32")

    def spied(real):
        def spy(requests, **kwargs):
            prompts.extend(request.args[0] for request in requests if request.idx == 0)
            return real(requests, **kwargs)

        return spy

    lm.loglikelihood, lm.generate_until = spied(lm.loglikelihood), spied(lm.generate_until)
    plan = tasks.plan(task, items_folder, overrides, shots)
    tasks.write(plan, definition)
    return prompts, harness.run(lm, plan, definition, shots)[1]


def test_shots_from_the_evaluated_split_leave_out_the_item_that_is_asked(folders, tmp_path):
    """Made-up SciQ has a test split only."""
    prompts, rows = prompts_of(folders / "model", "sciq", folders / "items", tmp_path, None, 3)
    assert len(prompts) == len(rows) == 12
    for prompt in prompts:
        questions = [line for line in prompt.split("\n") if line.startswith("Question: ")]
        assert len(questions) == len(set(questions)) == 4


def test_drop_is_asked_with_the_fix(folders, tmp_path):
    """The paper suite's override: few-shot answers are written out and decimals survive."""
    override = yaml.safe_load((CONFIGS / "eval" / "paper.yaml").read_text())["overrides"]["drop"]
    override["generation_kwargs"]["max_gen_toks"] = 4
    prompts, rows = prompts_of(
        tiny(tmp_path / "model", context=2048), "drop", folders / "items", tmp_path, override, 2
    )
    docs = [
        json.loads(line) for line in (folders / "items/drop/validation.jsonl").read_text().strip().split("\n")
    ]
    answers = {d["question"]: d["answer"]["number"] or ", ".join(d["answer"]["spans"]) for d in docs}
    assert len(prompts) == len(docs) == len(rows)
    for prompt, doc in zip(prompts, docs, strict=True):
        *shots, last = prompt.split("\n\n")
        assert last == f"Passage: {doc['passage']}\nQuestion: {doc['question']}\nAnswer:"
        assert len(shots) == 2
        for shot in shots:
            question, _, answer = shot.partition("\nQuestion: ")[2].partition("\nAnswer: ")
            assert answer == answers[question]
            assert question != doc["question"]


def test_humaneval_runs_in_the_sandbox(folders, tmp_path, monkeypatch):
    """pass@1 over five samples a problem, by a model that knows the first problem three times out of five."""
    settings = Eval(
        tasks=["humaneval"],
        overrides={
            "humaneval": {
                "repeats": 5,
                "generation_kwargs": {"do_sample": True, "max_gen_toks": 4, "until": ["\n#"]},
            }
        },
        text_tasks=[],
        allow_code_execution=True,
    )
    refused = evaluate(
        folders / "model", Eval(tasks=["humaneval"], text_tasks=[]), folders / "items", tmp_path / "refused"
    )
    assert "eval.allow_code_execution=true" in refused["missing"]["humaneval"]

    def generate(self, requests, disable_tqdm=False):
        right, wrong = "    return x + {}\n", "    return open('x', 'w')\n"
        return [(right if i % 5 < 3 and i < 5 else wrong).format(0) for i in range(len(requests))]

    monkeypatch.setattr(harness.QuietLM, "generate_until", generate)
    summary = evaluate(folders / "model", settings, folders / "items", tmp_path / "allowed")
    assert summary["metrics"]["humaneval/pass@1,create_test"]["value"] == pytest.approx((3 / 5 + 0) / 2)


def test_heldout_documents_are_cut_at_the_budget(folders):
    found = heldout(folders / "corpus", 500)
    every = {
        row["doc_id"]: row["text"]
        for row in pl.read_parquet(folders / "corpus/heldout/code-00000.parquet").to_dicts()
    }
    assert list(found) == ["code", "prose"]
    assert 490 < sum(len(text.encode()) for _, text in found["code"]) <= 500
    assert all(every[doc_id].startswith(text) for doc_id, text in found["code"])
    assert [doc_id for doc_id, _ in found["code"]] != sorted(doc_id for doc_id, _ in found["code"])


def test_the_stage_evaluates_the_model_and_its_checkpoints(folders, tmp_path):
    def put(name, *sources):
        def run(ctx):
            for source, target in sources:
                shutil.copytree(folders / source, ctx.out / target, dirs_exist_ok=True)

        return Stage(name, name, {}, run)

    (folders / "second").exists() or tiny(folders / "second", seed=1)
    store = Store(tmp_path)
    inputs = [
        put("items", ("items", ".")),
        put("corpus", ("corpus", ".")),
        put("pretrain", ("model", "model"), ("second", "models/4096")),
    ]
    settings = Eval(tasks=["piqa"], text_tasks=["wikitext"], text_bytes=500)
    for stage in inputs:
        store.ensure(stage)
    stage = stage_module.stage(settings, 0, *inputs)
    folder = store.ensure(stage)
    assert folder.name.startswith("pretrain-seed0-")
    summary = read_json(folder / "summary.json")
    alone = evaluate(folders / "second", settings, folders / "items", tmp_path / "alone", folders / "corpus")
    assert summary["checkpoints"] == {"4096": alone}
    assert summary["bits_per_byte"] != alone["bits_per_byte"]
    assert not damage(store, stage)
    other = stage_module.stage(
        Eval(tasks=["piqa"], columns={"P": "piqa/acc"}, text_tasks=["wikitext"], text_bytes=500), 0, *inputs
    )
    assert other.fingerprint == stage.fingerprint  # what a table shows changes no result


def test_the_command_evaluates_any_folder_and_refuses_in_one_line(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    arguments = [str(folders / "model"), "--items", str(folders / "items"), "--work", str(tmp_path / "work")]
    arguments += ["--out", str(tmp_path)]
    assert main([*arguments, "--suite", "smoke", "--set", "limit=4", "text_bytes=300"]) == 0
    assert "arc_easy/acc_norm" in capsys.readouterr().out
    file = str(tmp_path / "summary.json")
    assert Path(file).is_file()
    for extra, message in (
        (["--tasks", "hellaswagg"], "did you mean 'hellaswag'"),
        (["--set", "limitt=4"], "unknown setting 'limitt'; did you mean limit?"),
        (["--set", "limit=x"], "limit=x must be a whole number"),
        (["--suite", "larg"], "did you mean"),
        (["--items", str(tmp_path / "nowhere")], "is not a folder"),
        (["--set", "dtype=float8"], "did you mean"),
        (["--device", "cuda"], "--device=cuda: PyTorch finds 0 CUDA devices here; use --device=auto"),
        (["--out", file], f"--out {file}: cannot make the folder (File exists); name another"),
        (["--work", file], f"--work {file}: cannot make the folder (File exists); name another"),
        (["--work", "s3://bucket"], "this command needs a folder"),
    ):
        assert main([*arguments, *extra]) == 2
        error = capsys.readouterr().err.strip()
        assert message in error and "\n" not in error


@pytest.mark.parametrize("name", ["domain=web/a [b] 'c'", "#{d} *?%20"])
def test_an_evaluation_is_the_same_wherever_everything_lies(whole, folders, tmp_path, name):
    _, expected = whole
    odd = tmp_path / name
    for part in ("model", "items", "corpus"):
        shutil.copytree(folders / part, odd / part)
    assert evaluate(odd / "model", SETTINGS, odd / "items", odd / "out", odd / "corpus") == expected
    for file in ("results.json", "summary.json"):
        assert str(tmp_path) not in (odd / "out" / file).read_text()


@pytest.mark.parametrize("name", ["a::b", "$HOME"])
def test_a_folder_that_datasets_cannot_name_is_said(tmp_path, name):
    items(tmp_path / name)
    plan = tasks.plan("piqa", tmp_path / name)
    assert not plan.leaves and "rename the folder" in plan.missing["piqa"]
