"""Worked examples (shots) that are never the item that is asked, nor a copy of it.

lm-eval leaves the item out of its shots only where ``fewshot_split`` is named as the test split, and only if
the whole rows are equal. Here what is compared is what the model would read: question and choices. Where the
draw holds no such row it is lm-eval's own, with its own random numbers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from repro.evaluate import targets
from repro.evaluate.targets import Refused
from repro.plain import Row


def keep_apart(task: Any) -> None:
    """Make ``task`` draw its shots apart from the item that is asked; what had to be redrawn is counted in
    ``task.redrawn``.

    While prompts are built, raises :class:`Refused` where the split has too few other items, and for a shot
    whose answer lm-eval cannot show.
    """
    task.redrawn = 0
    if (
        not task.config.num_fewshot
        or not hasattr(task, "sampler")
        or task.OUTPUT_TYPE == "loglikelihood_rolling"
    ):
        return
    context, sample, asked = task.fewshot_context, task.sampler.sample, {}

    def fewshot_context(doc: Row, *given: Any, **named: Any) -> Any:
        asked["key"] = _key(task, doc)
        return context(doc, *given, **named)

    def apart(n: int, eval_doc: Any = None, *given: Any, **named: Any) -> Sequence[Row]:
        try:
            drawn = list(sample(n, eval_doc, *given, **named))
        except (ValueError, AssertionError):  # the split is too small for lm-eval's own way
            drawn = []
        shots = [shot for shot in drawn if _key(task, shot) != asked["key"]]
        if len(shots) < n:
            task.redrawn += n - len(shots) if drawn else 0
            shots += _others(task, n - len(shots), shots, asked["key"])
        for shot in shots:
            targets.check_shot(task, shot)
        return shots

    task.fewshot_context, task.sampler.sample = fewshot_context, apart


def redrawn(task: Any) -> int:
    """How many worked examples :func:`keep_apart` has replaced."""
    return task.redrawn


def _others(task: Any, n: int, taken: list[Row], asked: str) -> list[Row]:
    """``n`` further rows of the pool that are neither the item nor among those ``taken``."""
    pool = list(task.sampler.fewshot_docs())
    ordered = type(task.sampler).__name__ == "FirstNSampler"
    order = range(len(pool)) if ordered else task.sampler.rnd.sample(range(len(pool)), len(pool))
    found: list[Row] = []
    for index in order:
        if len(found) == n:
            break
        if pool[index] not in taken and pool[index] not in found and _key(task, pool[index]) != asked:
            found.append(pool[index])
    if len(found) < n:
        raise Refused(
            f"{len(taken) + n} shots are asked for, and the examples have {len(taken) + len(found)} besides"
            " the item that is asked and its copies; lower eval.shots, or give items of another split"
        )
    return found


def _key(task: Any, doc: Row) -> str:
    """What the model reads of an item: question and choices, whatever the case, the spacing and the order of
    choices.
    """
    try:
        choices = task.doc_to_choice(doc) if task.config.doc_to_choice is not None else []
        # there prompts are the choices
        text = task.doc_to_target(doc) if task.multiple_input else task.doc_to_text(doc)
        parts = [str(text), *sorted(choices)]
    except Exception:  # written examples of a definition may lack what an item has
        parts = [json.dumps(doc, sort_keys=True, default=str)]
    return "\0".join("".join(part.split()).casefold() for part in parts)
