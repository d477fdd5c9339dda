"""A tiny set of items made by code, for ``scale=smoke``: the columns are real, the questions are not a
benchmark.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator

from repro.plain import Row

NAMES = "Ada Boris Clara Daniel Elena Felix Greta Hugo Irene Jonas Katia Leon".split()
THINGS = "lantern compass ladder kettle notebook basket hammer blanket whistle mirror candle bucket".split()
PLACES = "attic garden kitchen station harbour library workshop cellar market meadow tower stable".split()
VERBS = "clean lift carry paint hide sell find touch".split()
# paradigm: (phenomenon, grammatical, ungrammatical)
PAIRS = {
    "anaphor_gender_agreement": ("anaphor_agreement", "{she} {verb}s herself.", "{she} {verb}s himself."),
    "determiner_noun_agreement_1": (
        "determiner_noun_agreement",
        "{he} {verb}s this {thing}.",
        "{he} {verb}s these {thing}.",
    ),
    "regular_plural_subject_verb_agreement_1": (
        "subject_verb_agreement",
        "The {thing}s {verb} it.",
        "The {thing}s {verb}s it.",
    ),
    "adjunct_island": (
        "island_effects",
        "What did {he} {verb} after leaving the {place}?",
        "What did {he} {verb} the {thing} after leaving?",
    ),
}
COLOURS = "green yellow silver brown purple white copper blue orange black".split()


def read(asked: Callable[[str], bool]) -> Iterator[tuple[str, str, Iterable[Row]]]:
    """(task, split, rows): ``arc_easy``, ``lambada_openai``, ``wikitext`` and four paradigms in the form of
    BLiMP's, always the same.
    """
    made = {
        "arc_easy": {
            "train": _questions("train", 12),
            "validation": _questions("validation", 12),
            "test": _questions("test", 48),
        },
        "lambada_openai": {"test": [{"text": _story(i)} for i in range(48)]},
        "wikitext": {"test": [{"page": _page(i)} for i in range(12)]},
    } | {f"blimp/{paradigm}": {"train": [_pair(paradigm, i) for i in range(24)]} for paradigm in PAIRS}
    for task, by_split in made.items():
        if asked(task):
            for split, rows in by_split.items():
                yield task, split, rows


def _questions(split: str, n: int) -> list[Row]:
    """Sums with three wrong answers each."""
    rows = []
    for i in range(n):
        draw = random.Random(f"{split} {i}")
        a, b = draw.randint(2, 40), draw.randint(2, 40)
        options = [str(a + b + shift) for shift in (0, *draw.sample([-10, -3, -2, -1, 1, 2, 3, 10], 3))]
        right = options[0]
        draw.shuffle(options)
        choices = {"text": options, "label": list("ABCD")}
        question = f"A basket holds {a} apples and {b} more are put in. How many apples are in it?"
        rows.append(
            {
                "id": f"{split}-{i}",
                "question": question,
                "choices": choices,
                "answerKey": "ABCD"[options.index(right)],
            }
        )
    return rows


def _story(i: int) -> str:
    """A passage whose last word stands earlier in it, as in LAMBADA."""
    draw = random.Random(f"story {i}")
    who, other = draw.sample(NAMES, 2)
    thing, where, colour = draw.choice(THINGS), draw.choice(PLACES), draw.choice(COLOURS)
    return (
        f"{who} had looked for the {colour} {thing} all morning, first in the {where} and then in every room"
        f" of the house. At noon {other} came back from town, heard the story twice, and laughed. It had been"
        f" under the stairs since spring, said {other}, and everybody but {who} knew it. So {who} went to the"
        f" stairs, bent down, and picked up the {thing}"
    )


def _pair(paradigm: str, i: int) -> Row:
    """Two sentences of which one breaks a rule."""
    draw = random.Random(f"{paradigm} {i}")
    filled = {"she": draw.choice(NAMES[::2]), "he": draw.choice(NAMES[1::2]), "verb": draw.choice(VERBS)}
    filled |= {"thing": draw.choice(THINGS), "place": draw.choice(PLACES)}
    phenomenon, good, bad = PAIRS[paradigm]
    sentences = {"sentence_good": good.format(**filled), "sentence_bad": bad.format(**filled)}
    return {**sentences, "field": "syntax", "linguistics_term": phenomenon, "UID": paradigm, "pairID": str(i)}


def _page(i: int) -> str:
    draw = random.Random(f"page {i}")
    who, where, thing = draw.choice(NAMES), draw.choice(PLACES), draw.choice(THINGS)
    lines = [f" = The {where} of {who} = "]
    for year in range(1890, 1902):
        (colour, earlier), count, other = draw.sample(COLOURS, 2), draw.randint(3, 90), draw.choice(NAMES)
        lines.append(
            f" In {year} the {where} was painted {colour} and {count} visitors came to see the {thing} that"
            f" {other} had left there . {other} wrote that the {colour} walls suited the {where} better than"
            f" the {earlier} ones had . "
        )
    return " \n \n ".join(lines)
