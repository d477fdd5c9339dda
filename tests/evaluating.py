"""A tiny random Llama with its tokenizer, and made-up items in the hub's columns, for the tests of evaluation."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from repro.store import sha256_file

WORDS = (
    "red owl river stone seven lamp runs over cold hill with a quiet émigré 日本 and sings to bread".split()
)
END = "<|end|>"


def words(draw: random.Random, n: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(n))


def tiny(folder: Path, seed: int = 0, context: int = 128, hidden: int = 32) -> Path:
    """A Hugging Face folder with a random model; larger weights than usual, so that its answers differ."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        [words(random.Random(i), 30) for i in range(50)], vocab_size=330, special_tokens=[END]
    )
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token"), END)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=330,
        hidden_size=hidden,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def items(folder: Path, n: int = 12) -> Path:
    """``<task>[/<subtask>]/<split>.jsonl`` and ``items.json`` for a dozen tasks."""
    draw = random.Random(3)

    def say(low: int = 2, high: int = 9) -> str:
        return words(draw, draw.randint(low, high))

    def arc(i: int) -> dict[str, Any]:
        answer = draw.randrange(4)
        return {
            "id": str(i),
            "question": say(),
            "choices": {"text": [say(1, 4) for _ in range(4)], "label": list("ABCD")},
            "answerKey": "ABCD"[answer],
        }

    def hellaswag(i: int) -> dict[str, Any]:
        row = {
            "ind": i,
            "activity_label": say(1, 2),
            "ctx_a": say(),
            "ctx_b": say(1, 3),
            "label": str(draw.randrange(4)),
        }
        return {
            **row,
            "ctx": f"{row['ctx_a']} {row['ctx_b']}",
            "endings": [say(3, 6) for _ in range(4)],
            "split": "val",
        }

    def piqa(_: int) -> dict[str, Any]:
        return {"goal": say(), "sol1": say(), "sol2": say(), "label": draw.randrange(2)}

    def sciq(_: int) -> dict[str, Any]:
        answers = {key: say(1, 3) for key in ("distractor1", "distractor2", "distractor3", "correct_answer")}
        return {"question": say(), **answers, "support": say(0, 12)}

    def winogrande(_: int) -> dict[str, Any]:
        return {
            "sentence": f"{say()} _ {say()}",
            "option1": say(1, 2),
            "option2": say(1, 2),
            "answer": draw.choice("12"),
        }

    def mmlu(_: int) -> dict[str, Any]:
        return {"question": say(), "choices": [say(1, 3) for _ in range(4)], "answer": draw.randrange(4)}

    def gsm8k(_: int) -> dict[str, Any]:
        return {"question": say(), "answer": f"{say()} #### {draw.randrange(20)}"}

    def drop(i: int) -> dict[str, Any]:
        none = {"number": "", "date": {"day": "", "month": "", "year": ""}, "spans": []}
        nobody = {"number": [], "date": [], "spans": []}
        answer = none | ({"number": f"{i}.5"} if i % 2 else {"spans": [say(1, 2), say(1, 2)]})
        return {
            "query_id": str(i),
            "passage": say(20, 30),
            "question": say(),
            "answer": answer,
            "validated_answers": nobody,
        }

    def humaneval(i: int) -> dict[str, Any]:
        test = f"\n\ndef check(candidate):\n    assert candidate(2) == {2 + i}\n"
        return {"task_id": f"X/{i}", "prompt": f"def add{i}(x):\n", "entry_point": f"add{i}", "test": test}

    made = {
        "arc_easy": ({"test": n, "train": 8}, arc),
        "hellaswag": ({"validation": n, "train": 8}, hellaswag),
        "piqa": ({"validation": n, "train": 8}, piqa),
        "sciq": ({"test": n}, sciq),
        "winogrande": ({"validation": n, "train": 8}, winogrande),
        "lambada_openai": ({"test": n}, lambda _: {"text": say(20, 30)}),
        "wikitext": ({"test": 4}, lambda _: {"page": say(60, 90)}),
        "mmlu/abstract_algebra": ({"test": n, "dev": 5}, mmlu),
        "mmlu/anatomy": ({"test": n // 2, "dev": 5}, mmlu),
        "gsm8k": ({"test": 4, "train": 8}, gsm8k),
        "drop": ({"validation": 6}, drop),
        "humaneval": ({"test": 2}, humaneval),
    }
    listed: dict[str, Any] = {}
    for task, (splits, make) in made.items():
        (folder / task).mkdir(parents=True)
        for split, count in splits.items():
            path = folder / task / f"{split}.jsonl"
            path.write_text("".join(json.dumps(make(i), ensure_ascii=False) + "\n" for i in range(count)))
            listed.setdefault(task, {})[split] = {"n": count, "sha256": sha256_file(path)}
    (folder / "items.json").write_text(json.dumps({"source": {"made": "by the tests"}, "tasks": listed}))
    return folder
