"""What an item's right answer is, read as lm-eval reads it, or refused in words before a model is asked.

lm-eval takes forms that mean nothing to it without a word: a label outside the choices is an item that nobody
can answer, a column of text where a list is meant is a list of letters, and a number written as text is an
index even where the choices are numbers. Here every form of ``doc_to_target`` and ``doc_to_choice`` has
lm-eval's documented meaning, or none.
"""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Iterator
from functools import lru_cache, wraps
from numbers import Integral
from typing import Any
from unittest import mock

import lm_eval.utils
from lm_eval.api.task import ConfigurableTask

from repro.plain import Row

_compile = lm_eval.utils.env.from_string


class Refused(ValueError):
    """A task that would be scored wrongly. The text says which item, what it holds and how to mend it."""


def indices(target: Any, choices: list[str]) -> list[int]:
    """The right answers of a multiple-choice item, as indices into its choices.

    An index, the text of a choice (its first occurrence), or a list of indices of several right answers.
    Raises :class:`Refused` for anything else, which lm-eval would count as wrong whatever the model answers.
    """
    if isinstance(target, list):
        if target and all(_index(entry, choices) for entry in target):
            return [int(entry) for entry in target]
        raise Refused(
            f"its right answers are {_short(target)}, and lm-eval takes a list as indices into the"
            f" {len(choices)} choices: numbers from 0 to {len(choices) - 1}, at least one"
        )
    if isinstance(target, str) and target in choices:
        return [choices.index(target)]
    if _index(target, choices):
        return [int(target)]
    raise Refused(
        f"its label {_short(target)} is none of its choices {_short(choices)} and no index of them (0 to"
        f" {len(choices) - 1}); no answer could be right"
    )


def _index(target: Any, choices: list[str]) -> bool:
    return isinstance(target, Integral) and 0 <= int(target) < len(choices)


def of_item(task: Any, doc: Row) -> Any:
    """What holds the label: where the choices are put into the prompt (winogrande) that is
    ``doc_to_text``.
    """
    return task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)


def check(task: Any, limit: int | None) -> None:
    """Raise :class:`Refused` for a task of which an item that will be asked has no meaning to lm-eval.

    Tasks with a function of their own for results are theirs to judge; only their choices are looked at.
    """
    own, kind = callable(task.config.process_results), task.OUTPUT_TYPE
    first: tuple[bool, bool] | None = None
    doubtful = False
    for number, doc in task.doc_iterator(limit=limit):
        try:
            choices = task.doc_to_choice(doc) if task.config.doc_to_choice is not None else None
            text, target = task.doc_to_text(doc), task.doc_to_target(doc)
            if kind == "loglikelihood_rolling" or own:
                continue
            _forms(task, text, target, choices, kind)
            form = (isinstance(target, list), isinstance(text, Integral) and choices is not None)
            first = form if first is None else first
            if form != first:
                raise Refused(
                    "it gives a list of right answers, or a number for a text, where the first item does not"
                    " (or the other way round); lm-eval takes the form of all items from the first: write"
                    " them alike"
                )
            doubtful |= (
                not task.multiple_input and choices is not None and _written_number(task, target, choices)
            )
        except Refused as error:
            raise Refused(f"item {number}: {error}") from None
    if doubtful:
        _numbers(task)


def _forms(task: Any, text: Any, target: Any, choices: list[str] | None, kind: str) -> None:
    if kind == "multiple_choice":
        if choices is None:
            raise Refused("a multiple-choice task needs doc_to_choice")
        indices(text if task.multiple_input else target, choices)
        if task.multiple_input and not isinstance(target, str):
            raise Refused(f"what follows every prompt is {_short(target)}, and must be text (doc_to_target)")
    elif kind == "loglikelihood" and not (isinstance(target, str) and target):
        raise Refused(f"its target is {_short(target)}, and output_type: loglikelihood scores a text")
    elif kind == "generate_until":
        if choices is not None and not _index(target, choices):
            raise Refused(
                f"its label is {_short(target)}; with doc_to_choice and written answers lm-eval takes an"
                f" index into the choices (0 to {len(choices) - 1})"
            )
        if target is None or target == []:
            raise Refused(f"its target is {_short(target)}; no answer could be right")


def _written_number(task: Any, target: Any, choices: list[str], given: Any = None) -> bool:
    """Whether a template wrote a number that is also the text of another choice than the one it is the index
    of.
    """
    given = task.config.doc_to_target if given is None else given
    template = isinstance(given, str) and given not in task.features
    return (
        template
        and isinstance(target, Integral)
        and str(target) in choices
        and choices.index(str(target)) != target
    )


def _numbers(task: Any) -> None:
    """Refuse a task whose every label could be an index and the text of a choice alike. One item of the split
    that has no such choice shows that indices are meant.
    """
    for doc in task.eval_docs:
        if str(task.doc_to_target(doc)) not in task.doc_to_choice(doc):
            return
    raise Refused(
        "its choices look like numbers, and so do its labels: lm-eval takes a number that a template writes"
        " as an index, and each of them is also the text of a choice. Name the column (doc_to_target:"
        ' COLUMN), or write "{{CHOICES.index(LABEL)}}" where not every item\'s choices are numbers'
    )


def check_shot(task: Any, doc: Row) -> None:
    """Raise :class:`Refused` for a worked example that lm-eval would show with a wrong answer, or with
    none.
    """
    how = task.fewshot_cfg
    # a definition may write worked solutions into the question
    own = how.doc_to_target != task.config.doc_to_target
    target = task.doc_to_target(doc, how.doc_to_target)
    if own and target == "":
        return
    choices = task.doc_to_choice(doc, how.doc_to_choice) if how.doc_to_choice else None
    if choices is not None and not task.multiple_input:
        answer = target if isinstance(target, str) and task.OUTPUT_TYPE != "multiple_choice" else None
        if answer is None and isinstance(target, list):
            raise Refused(
                f"a worked example has several right answers ({_short(target)}); lm-eval shows one; use 0"
                " shots"
            )
        if own and _written_number(task, target, choices, how.doc_to_target):
            raise Refused(
                f"a worked example's answer {target} could be an index or the text of a choice; name a column"
                " for it"
            )
        answer = answer or choices[indices(target, choices)[0]]
    else:
        answer = target[0] if isinstance(target, list) and target else target
    if not isinstance(answer, str) or not answer:
        raise Refused(
            f"a worked example has the answer {_short(target)}, and lm-eval shows text only; use 0 shots"
        )


@contextlib.contextmanager
def checked() -> Iterator[None]:
    """Inside, lm-eval's tasks refuse choices that are no list of texts, and numbers that they cannot read."""

    def choices(read: Any) -> Any:
        @wraps(read)
        def inner(self: Any, doc: Any, *given: Any, **named: Any) -> list[str]:
            found = _read(read, "doc_to_choice", self, doc, *given, **named)
            if (
                not isinstance(found, (list, tuple))
                or not found
                or not all(isinstance(c, str) and c for c in found)
            ):
                raise Refused(
                    f"doc_to_choice gives {_short(found)}, and must give a list of texts (numbers in quotes)"
                )
            return list(found)

        return inner

    def read(name: str) -> Any:
        original = getattr(ConfigurableTask, name)

        @wraps(original)
        def inner(self: Any, doc: Any, *given: Any, **named: Any) -> Any:
            return _read(original, name, self, doc, *given, **named)

        return inner

    with (
        mock.patch.object(lm_eval.utils.env, "from_string", _template),
        mock.patch.object(ConfigurableTask, "doc_to_choice", choices(ConfigurableTask.doc_to_choice)),
        mock.patch.object(ConfigurableTask, "doc_to_target", read("doc_to_target")),
        mock.patch.object(ConfigurableTask, "doc_to_text", read("doc_to_text")),
    ):
        yield


def _read(read: Any, name: str, *given: Any, **named: Any) -> Any:
    try:
        found = read(*given, **named)
        # numpy's are no `int` to lm-eval where it shows them
        return int(found) if isinstance(found, Integral) else found
    except (SyntaxError, ValueError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused(
            f"{name}: what its template writes cannot be read ({error}); a number must not begin with 0"
        ) from None


@lru_cache(maxsize=4096)
def _template(text: str) -> Any:
    """A template, compiled once; lm-eval compiles it for every item, a third of the time of a small model's
    evaluation.
    """
    return _compile(text)


def _short(value: Any) -> str:
    return reprlib.repr(value)
