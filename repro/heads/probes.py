"""Probes: find the value of a key in a JSON object (appendix A).

A probe is, in this order: the instruction, the object, solved shots, the question, the answer. It is
tokenised piece by piece, so that a value has the same token ids in the object and in the answer.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from repro.errors import SettingError, require
from repro.heads.settings import Heads

INSTRUCTION = (
    "Please extract the value corresponding to the specified key from the following JSON object. "
    "Output only the value of the corresponding key and nothing else. The JSON data is as follows:\n"
)
SENTENCE = re.compile(r"(?<![^\s.!?])[A-Z][^.!?\n\"\\{}<>|]{15,240}[.!?](?=\s|$)")
PIECE = re.compile(r"[^\n.!?。！？؟।]+[.!?。！？؟।]*")
ENOUGH_VALUES = 200
PIECES = "lines and sentences of any script"

Encode = Callable[[list[str]], list[list[int]]]


@dataclass(frozen=True)
class Probe:
    """One sample. ``ids[answer_start:]`` are the answer, whose tokens also stand at ``needle_start`` in the
    object.
    """

    ids: list[int]
    needle_start: int
    answer_start: int
    pairs: int

    @property
    def needle(self) -> list[int]:
        """Token ids of the value asked for."""
        return self.ids[self.answer_start :]


def values_from(
    texts: Iterable[str], encode: Encode, s: Heads, wanted: int = 2000
) -> tuple[list[list[int]], str]:
    """Token ids of natural sentences of at most ``value_tokens`` tokens, none twice, and what else they had
    to be taken from.

    Tokenizers of few bytes a token leave hardly any sentence that short; then sentences are cut at a word.
    Text without sentences of Latin letters (another script, bare code) gives :data:`PIECES`, cut at a token.
    """
    texts = list(texts)
    sentences: dict[str, None] = {}
    for text in texts:
        for found in SENTENCE.finditer(text[:20_000]):
            sentence = " ".join(found.group().split())
            words = sentence.split()
            if len(words) >= 4 and sum(w.isalpha() for w in words) >= 0.7 * len(words):
                sentences.setdefault(sentence)
        if len(sentences) >= 4 * wanted:
            break
    encoded = dict(zip(sentences, encode(list(sentences)), strict=True))
    whole = [ids for ids in encoded.values() if len(ids) <= s.value_tokens]
    if len(whole) >= ENOUGH_VALUES:
        return whole[:wanted], ""
    prefixes = [" ".join(text.split()[:words]) for text in sentences for words in (8, 6, 4)]
    cut = dict.fromkeys(tuple(ids) for ids in encode(prefixes) if len(ids) <= s.value_tokens)
    values, how = list(dict.fromkeys([*map(tuple, whole), *cut])), "sentences cut at a word"
    if len(values) < s.shots + 2:
        values, how = list(dict.fromkeys([*values, *_pieces(texts, encode, s.value_tokens, wanted)])), PIECES
    if len(values) < s.shots + 2:
        raise SettingError(
            f"the corpus has {len(values)} sentences or lines that can be the value of a probe, and the"
            f" probes need {s.shots + 2} or more; use more text, or lower heads.shots"
        )
    return [list(ids) for ids in values[:wanted]], how


def _pieces(texts: list[str], encode: Encode, most: int, wanted: int) -> Iterator[tuple[int, ...]]:
    """The first ``most`` token ids of lines and sentences with eight letters or more, of every script,
    without quotes.
    """
    found: dict[str, None] = {}
    for text in texts:
        for piece in PIECE.findall(text[:20_000]):
            plain = " ".join(re.sub(r'["\\]', "", piece).split())[:240]
            if sum(c.isalpha() for c in plain) >= 8:
                found.setdefault(plain)
        if len(found) >= wanted:
            break
    yield from (tuple(ids[:most]) for ids in encode(list(found)))


def _begins_alike(one: list[int], other: list[int]) -> bool:
    """Whether the shorter is a beginning of the longer; of more than three tokens the last may be another,
    where a word was cut from what follows.
    """
    shorter = min(len(one), len(other))
    shorter -= shorter > 3
    return one[:shorter] == other[:shorter]


def build(index: int, values: list[list[int]], encode: Encode, s: Heads, prefix: list[int]) -> Probe:
    """Probe number ``index``: a function of the seed, the index and the values only.

    As many pairs as bring prompt and answer close to, never over, ``probe_tokens``. The shots ask for other
    pairs of the object than the one the question asks for, and no other value begins as that one's does.
    """
    rng = random.Random(f"{s.seed}/{index}")
    instruction, opening, middle, comma, closing, ask, answer, end = encode(
        [INSTRUCTION, '{"', '": "', '",\n"', '"}\n', '\nWhat is the value of the key "', '"?\n', "\n"]
    )
    order = rng.sample(range(len(values)), k=min(len(values), s.probe_tokens // 16))
    alphabet = string.ascii_letters + string.digits
    keys = encode(["".join(rng.choices(alphabet, k=s.key_characters)) for _ in order])
    fixed = len(prefix) + len(instruction) + len(opening) + len(closing) - len(comma)
    question = [len(ask) + len(key) + len(answer) for key in keys]

    def pair_cost(i: int) -> int:
        return len(keys[i]) + len(middle) + len(values[order[i]]) + len(comma)

    # A value that is a beginning of the one asked for, or goes on from it, would be its copy elsewhere.
    asked = values[order[0]]
    twins = {i for i in range(1, len(order)) if _begins_alike(values[order[i]], asked)}
    keys = [key for i, key in enumerate(keys) if i not in twins]
    order = [value for i, value in enumerate(order) if i not in twins]
    question = [length for i, length in enumerate(question) if i not in twins]

    # The first pair is asked for, the next ones are the shots, the others fill up.
    spent = fixed + question[0] + len(values[order[0]])
    taken: list[int] = []
    for i in range(len(order)):
        cost = pair_cost(i)
        if 1 <= i <= s.shots:
            cost += question[i] + len(values[order[i]]) + len(end)
        if spent + cost <= s.probe_tokens:
            spent += cost
            taken.append(i)
        elif i <= s.shots:
            break
    require(
        len(taken) > s.shots,
        f"heads.probe_tokens={s.probe_tokens} has no room for {s.shots} shots and a question with this"
        " tokenizer; raise heads.probe_tokens or lower heads.shots",
    )
    ids = [*prefix, *instruction, *opening]
    places = rng.sample(taken, k=len(taken))
    needle_start = -1
    for rank, i in enumerate(places):
        ids += [*(comma if rank else []), *keys[i], *middle]
        if i == 0:
            needle_start = len(ids)
        ids += values[order[i]]
    ids += closing
    for i in range(1, s.shots + 1):
        ids += [*ask, *keys[i], *answer, *values[order[i]], *end]
    ids += [*ask, *keys[0], *answer]
    return Probe([*ids, *values[order[0]]], needle_start, len(ids), len(taken))
