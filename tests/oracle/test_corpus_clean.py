"""Cleaning against independent obvious implementations: brute-force Jaccard, naive n-grams, plain set arithmetic."""

import json
import random
import re

import pytest

from repro.corpus.clean import benchmark_index, examine
from repro.corpus.minhash import near_duplicates, near_duplicates_on_disk, shingles
from repro.corpus.ngrams import hashed, shingle_words, split, words
from repro.corpus.split import Member, hold_out
from repro.items import stage
from repro.items.settings import Items
from repro.items.text import texts
from repro.store import Store

VOCABULARY = [f"w{i}" for i in range(400)]


def naive_words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


def naive_grams(tokens, n):
    return {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}


def naive_jaccard(a, b):
    a, b = naive_grams(naive_words(a), 5), naive_grams(naive_words(b), 5)
    return len(a & b) / len(a | b) if a | b else 0.0


def naive_clusters(texts, threshold):
    parent = list(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            if naive_jaccard(texts[i], texts[j]) >= threshold:
                old, new = parent[i], parent[j]
                parent = [new if p == old else p for p in parent]
    found = {}
    for i, p in enumerate(parent):
        found.setdefault(p, []).append(i)
    return sorted(members for members in found.values() if len(members) > 1)


def edited(draw, text, share):
    return " ".join(draw.choice(VOCABULARY) if draw.random() < share else word for word in text.split())


@pytest.mark.parametrize("seed", range(4))
def test_clusters_equal_brute_force(seed):
    """Edits in either direction of the threshold; pairs within a hair of it are what LSH may miss, so none is made."""
    draw = random.Random(seed)
    texts = []
    for _ in range(40):
        base = " ".join(draw.choices(VOCABULARY, k=draw.randint(80, 300)))
        texts += [
            base,
            *(edited(draw, base, draw.choice([0.0, 0.01, 0.02, 0.2])) for _ in range(draw.randint(0, 3))),
        ]
    texts += ["a b", "a b c d e f", "", "a b c d e f"]
    draw.shuffle(texts)
    values = [naive_jaccard(a, b) for i, a in enumerate(texts) for b in texts[:i]]
    assert sum(0.7 <= v for v in values) > 20 and sum(0.05 < v < 0.7 for v in values) > 5
    sets = [shingles(shingle_words(text, words(text))) for text in texts]
    assert near_duplicates(sets, 0.7, 128) == naive_clusters(texts, 0.7)


def test_clusters_on_disk_equal_brute_force_away_from_the_threshold(tmp_path):
    draw = random.Random(7)
    files = []
    for _ in range(3):
        texts = []
        for _ in range(15):
            base = " ".join(draw.choices(VOCABULARY, k=200))
            texts += [
                base,
                *(edited(draw, base, draw.choice([0.0, 0.005, 0.4])) for _ in range(draw.randint(0, 2))),
            ]
        files.append(texts)
    files[2].append(files[0][0] + " end")  # across files
    everything = [(f, i, text) for f, texts in enumerate(files) for i, text in enumerate(texts)]
    expected = [
        [everything[k][:2] for k in members] for members in naive_clusters([t for *_, t in everything], 0.7)
    ]
    streams = ((f, iter(texts)) for f, texts in enumerate(files))
    assert len(expected) > 10 and near_duplicates_on_disk(streams, tmp_path, 0.7, 128) == sorted(expected)


def test_signatures_of_a_file_that_was_left_half_way_are_made_again(tmp_path):
    draw = random.Random(3)
    texts = [" ".join(draw.choices(VOCABULARY, k=80)) for _ in range(300)]
    texts += [text + " end" for text in texts[200:240]]

    def killed():
        yield from texts[:250]
        raise KeyboardInterrupt

    whole = near_duplicates_on_disk([(0, iter(texts))], tmp_path / "whole", 0.7, 128)
    with pytest.raises(KeyboardInterrupt):
        near_duplicates_on_disk([(0, killed())], tmp_path / "cut", 0.7, 128)
    assert len(whole) == 40
    assert near_duplicates_on_disk([(0, iter(texts))], tmp_path / "cut", 0.7, 128) == whole


def test_clusters_of_text_without_latin_words():
    draw = random.Random(0)
    characters = [chr(0x4E00 + i) for i in range(500)]
    base = "".join(draw.choices(characters, k=300))
    near = base[:150] + "一二" + base[150:]
    other = "".join(draw.choices(characters, k=300))
    assert near_duplicates([shingles(shingle_words(t, words(t))) for t in (base, other, near)], 0.7, 128) == [
        [0, 2]
    ]


@pytest.mark.parametrize("seed", range(5))
def test_decontamination_equals_naive_ngrams(seed):
    draw = random.Random(seed)
    small = VOCABULARY[:30]
    items = [" ".join(draw.choices(small, k=draw.randint(1, 40))).title() + "!" for _ in range(200)]
    items += ["", "...", items[0]]
    grams = set().union(*(naive_grams(naive_words(item), 13) for item in items))
    short = {tuple(naive_words(item)) for item in items if 8 <= len(naive_words(item)) <= 12}
    index = benchmark_index(items)
    outcomes = set()
    for _ in range(300):
        tokens = draw.choices(small, k=draw.randint(0, 60))
        if draw.random() < 0.5:  # plant a run of an item, of any length, torn by punctuation and case
            piece = naive_words(draw.choice(items))
            start = draw.randint(0, max(0, len(piece) - 1))
            tokens[len(tokens) // 2 : len(tokens) // 2] = piece[start : start + draw.randint(1, 20)]
        expected = bool(naive_grams(tokens, 13) & grams) or any(
            naive_grams(tokens, n) & short for n in range(8, 13)
        )
        document = "".join(token.upper() + draw.choice([" ", ", ", "\n", " -- "]) for token in tokens)
        assert examine(words(document), index) == expected
        outcomes.add(expected)
    assert outcomes == {True, False}


def test_items_laid_end_to_end_make_no_ngram_across_their_border():
    first, second = (
        "a1 a2 a3 a4 a5 a6 a7",
        "b1 b2 b3 b4 b5 b6 b7",
    )  # neighbours when sorted, both too short to count
    index = benchmark_index([first, second, "c " * 20])
    assert not examine(words(f"{first} {second}"), index)
    assert examine(words("c " * 13), index) and not examine(words("c " * 12), index)


def random_members(draw):
    """Groups of very different sizes over a few domains, with clusters that sometimes reach across both."""
    members = []
    for domain in ("a", "b", "c")[: draw.randint(1, 3)]:
        for g in range(draw.choice([1, 2, 5, 40])):
            shared = draw.random() < 0.1
            for i in range(draw.choice([1, 3, 30])):
                ident = f"{domain}/{g}/{i:03d}"
                group = f"shared{g}" if shared else f"{domain}.{g}"
                cluster = draw.randrange(20) if draw.random() < 0.05 else 1000 + len(members)
                members.append(Member(ident, domain, group, cluster, draw.randint(200, 20_000)))
    draw.shuffle(members)
    return members


@pytest.mark.parametrize("seed", range(60))
def test_split_divides_no_cluster_and_no_group_unless_it_says_so(seed):
    draw = random.Random(seed)
    members, share = random_members(draw), draw.choice([0.02, 0.05, 0.2])
    held, how = hold_out(members, share, seed=1)
    divided = {
        reason.removeprefix("too few sources: a contiguous part of ")
        for reason in how.values()
        if "part of" in reason
    }
    for key in ("cluster", "group"):
        sides = {}
        for i, member in enumerate(members):
            sides.setdefault(getattr(member, key), set()).add(i in held)
        both = {value for value, found in sides.items() if len(found) == 2}
        assert both <= (divided if key == "group" else set())
    for domain, reason in how.items():
        total = sum(m.n_bytes for m in members if m.domain == domain)
        out = sum(m.n_bytes for i, m in enumerate(members) if m.domain == domain and i in held)
        assert out <= 2 * share * total + 1e-9
        assert (out == 0) == reason.startswith("none")


def test_split_does_not_depend_on_the_order_of_documents():
    draw = random.Random(3)
    members = [
        Member(f"{g}/{i}", "ab"[g % 2], f"g{g}", draw.randrange(900), 1000)
        for g in range(99)
        for i in range(g % 7 + 1)
    ]
    first = {members[i].id for i in hold_out(members, 0.05, 0)[0]}
    draw.shuffle(members)
    assert {members[i].id for i in hold_out(members, 0.05, 0)[0]} == first
    assert {members[i].id for i in hold_out(members, 0.05, 7)[0]} != first


def test_split_is_close_to_the_share_where_groups_are_many():
    members = [
        Member(f"{g}/{i}", "d", f"g{g}", g * 100 + i, 1000) for g in range(200) for i in range(g % 7 + 1)
    ]
    held, how = hold_out(members, 0.05, 0)
    assert abs(len(held) / len(members) - 0.05) < 0.01 and how == {"d": "groups and clusters"}
    assert not hold_out(members, 0.0, 0)[0]


def test_a_source_that_suits_one_domain_may_not_empty_another():
    members = [
        Member(f"{d}/{g}/{i}", d, f"{d}{g}", len(d) * 10_000 + g * 100 + i, 1000)
        for d in "ab"
        for g in range(2)
        for i in range(50)
    ]
    members = [Member(m.id, m.domain, m.group, n, m.n_bytes) for n, m in enumerate(members)]
    members += [Member(f"shared/a{i}", "a", "shared", 5000 + i, 1000) for i in range(6)]
    members += [Member(f"shared/b{i}", "b", "shared", 6000 + i, 1000) for i in range(14)]
    held, how = hold_out(members, 0.05, 0)
    assert not any(members[i].group == "shared" for i in held)
    assert all(reason.startswith("too few sources") for reason in how.values())


def test_part_of_a_group_leaves_out_what_is_tied_to_another_group():
    members = [Member(f"book/{i:03d}", "d", "book", i, 1000) for i in range(100)]
    members += [Member(f"other/{i:03d}", "d", "other", 99 if i == 0 else 200 + i, 1000) for i in range(90)]
    held, how = hold_out(members, 0.05, 0)
    assert how == {"d": "too few sources: a contiguous part of book"}
    assert sorted(members[i].id for i in held) == [f"book/{i:03d}" for i in range(89, 99)]


def test_one_large_group_gives_a_contiguous_part_and_says_so():
    members = [Member(f"book/{i:03d}", "d", "book", i if i != 98 else 0, 1000) for i in range(100)]
    held, how = hold_out(members, 0.05, 0)
    assert how == {"d": "too few sources: a contiguous part of book"}
    # 98 is tied to 0 by a cluster: they go together, inside the one group
    assert sorted(members[i].id for i in held) == [f"book/{i:03d}" for i in (0, 96, 97, 98, 99)]


def test_a_sentence_with_a_blank_is_found_with_either_option_in_its_place(tmp_path):
    sentence = "Sarah was a much better surgeon than Maria so _ always got the harder cases of all."
    row = {"sentence": sentence, "option1": "Sarah", "option2": "Maria", "answer": "1"}
    (tmp_path / "items" / "winogrande").mkdir(parents=True)
    (tmp_path / "items" / "winogrande" / "validation.jsonl").write_text(json.dumps(row) + "\n")
    folder = Store(tmp_path / "work").ensure(stage(Items("folder", folder=str(tmp_path / "items"))))
    index = benchmark_index(texts(folder))
    for name, held in (("Sarah", True), ("Maria", True), ("Peter", False)):
        found = examine(hashed(split(f"It is said: {sentence.replace('_', name)} And so on.")), index)
        assert found is held, name
