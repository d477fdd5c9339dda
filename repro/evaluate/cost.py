"""What an evaluation will take: tokens read and tokens written. Arithmetic on a table of tasks, no
library.
"""

from __future__ import annotations

from dataclasses import dataclass

from repro.evaluate.settings import Eval
from repro.store.cost import BYTES_PER_TOKEN, STARTED, Cost, Known

EVALUATED = 70  # items a second of one CPU core: what lm-eval does besides asking the model
WRITTEN = 256  # lm-eval's default of tokens that an answer may have


@dataclass(frozen=True)
class Size:
    """A task as lm-eval runs it, in tokens of some four bytes."""

    items: int
    tokens: int  # of an item with one answer; a worked example is as long
    # each is read behind the whole prompt; 1 where they are single letters or the answer is written
    answers: int = 4
    written: int = 0  # at most, where the answer is written
    subtasks: int = 1  # eval.limit holds for each
    shots: int = 0  # by the task's own definition


UNKNOWN = Size(1000, 100)
SIZES = {
    "agieval_en": Size(3852, 270, subtasks=10),
    "arc_challenge": Size(1172, 45),
    "arc_easy": Size(2376, 38),
    "bbh": Size(6511, 250, 1, 1024, 27, shots=3),  # its worked examples hold chains of thought
    "blimp": Size(67_000, 12, 2, subtasks=67),
    "boolq": Size(3270, 130, 2),
    "ceval-valid": Size(1346, 150, 1, subtasks=52),  # Chinese in English tokens
    "commonsense_qa": Size(1221, 39, 1),
    "drop": Size(9536, 286, 1, WRITTEN),
    "gpqa_main_n_shot": Size(448, 250),
    "gsm8k": Size(1319, 139, 1, WRITTEN, shots=5),
    "hellaswag": Size(10042, 93),
    "humaneval": Size(164, 113, 1, 1024),
    "lambada_openai": Size(5153, 80, 1),
    "minerva_math": Size(5000, 182, 1, WRITTEN, 7, shots=4),
    "mmlu": Size(14042, 116, 1, subtasks=57),
    "mmlu_pro": Size(12032, 300, 1, 2048, 14, shots=5),
    "openbookqa": Size(500, 18),
    "piqa": Size(1838, 38, 2),
    "race": Size(1045, 450),
    "sciq": Size(1000, 128),
    "triviaqa": Size(17944, 30, 1, WRITTEN),
    "winogrande": Size(1267, 25, 2),
}


@dataclass(frozen=True)
class Work:
    """Of one model."""

    items: int
    read: float  # tokens
    written: float  # tokens, at most


def work(s: Eval, domains: int) -> Work:
    """The work of a suite: shots (``eval.shots`` or the task's own) lengthen every prompt, repeats ask again.
    ``domains`` have held-out text to read.

    Tasks that are not in the table count as a thousand items of four answers.
    """
    items, read, written = 0, (1 + domains) * s.text_bytes / BYTES_PER_TOKEN, 0.0
    for task in s.tasks:
        size, own = SIZES.get(task, UNKNOWN), s.overrides.get(task, {})
        limit = s.limits.get(task, s.limit)
        number = size.items if limit is None else min(size.items, limit * size.subtasks)
        asked = number * own.get("repeats", 1)
        answer = own.get("generation_kwargs", {}).get("max_gen_toks", size.written) if size.written else 0
        items += number
        read += asked * size.answers * size.tokens * (1 + s.shots.get(task, size.shots))
        written += asked * answer
    return Work(items, read, written)


def suite(s: Eval, known: Known) -> Cost:
    """An evaluation reads the suite with every model that its training leaves."""
    model, corpus = known.inputs["model"], known.inputs.get("corpus")
    once = work(s, corpus.domains if corpus else 0)
    read, written = model.models * once.read, model.models * once.written
    seconds = model.models * (STARTED + once.items / EVALUATED)
    flops = 2 * model.parameters * (read + written)
    return Cost(
        read + written, flops, model.models * once.items * 500, seconds, 2 * model.parameters * written
    )
