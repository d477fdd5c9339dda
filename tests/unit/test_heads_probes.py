import pydoc_data.topics

import numpy as np
import polars as pl
import pytest

from repro.errors import SettingError
from repro.heads import controls, importance, probes
from repro.heads.settings import Heads
from repro.heads.stage import heldout_texts

TOPICS = [pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics)]


def encode(texts):
    """A tokenizer of single characters."""
    return [[ord(c) for c in text] for text in texts]


def words(texts):
    """About four characters a token, so that sentences are short enough."""
    return [[hash(text[i : i + 4]) for i in range(0, len(text), 4)] for text in texts]


def decode(ids):
    return "".join(map(chr, ids))


SETTINGS = Heads(probe_tokens=2000, shots=3, value_tokens=60)


@pytest.fixture(scope="module")
def values():
    return probes.values_from(TOPICS, encode, SETTINGS)[0]


def test_a_probe_is_what_appendix_a_says(values):
    import json

    for index in range(20):
        probe = probes.build(index, values, encode, SETTINGS, [])
        assert len(probe.ids) <= 2000
        text = decode(probe.ids)
        assert text.startswith(probes.INSTRUCTION)
        start, end = text.index("{"), text.index("}") + 1
        pairs = json.loads(text[start:end])
        assert len(pairs) == probe.pairs > 4
        assert all(len(key) == 32 and key.isalnum() for key in pairs)
        questions = text[end:].split('What is the value of the key "')[1:]
        asked = [question[:32] for question in questions]
        assert len(asked) == 4 and len(set(asked)) == 4  # the shots never ask for the queried pair
        for question, key in zip(questions, asked, strict=True):
            assert question[32:].removeprefix('"?\n').split("\n")[0] == pairs[key]
        assert decode(probe.needle) == pairs[asked[-1]]
        assert probe.ids[probe.needle_start :][: len(probe.needle)] == probe.needle
        assert all(len(value) <= 60 for value in pairs.values()) and len(set(pairs.values())) == len(pairs)


def test_one_more_pair_would_not_fit(values):
    """Close to the budget: what is left is less than the longest pair takes."""
    for index in range(20):
        probe = probes.build(index, values, encode, SETTINGS, [1])
        assert probe.ids[0] == 1
        assert 2000 - 32 - 60 - 8 < len(probe.ids) <= 2000


def test_probes_are_a_function_of_seed_and_index(values):
    assert probes.build(3, values, encode, SETTINGS, []) == probes.build(3, values, encode, SETTINGS, [])
    assert probes.build(3, values, encode, SETTINGS, []) != probes.build(4, values, encode, SETTINGS, [])
    other = Heads(probe_tokens=2000, shots=3, value_tokens=60, seed=1)
    assert probes.build(3, values, encode, SETTINGS, []) != probes.build(3, values, encode, other, [])


def test_values_are_sentences_and_are_cut_only_where_needed():
    whole, cut = probes.values_from(TOPICS, words, Heads(value_tokens=30))
    assert not cut and len(whole) >= probes.ENOUGH_VALUES and max(map(len, whole)) <= 30
    short, cut = probes.values_from(TOPICS, encode, Heads(value_tokens=30))
    assert cut and max(map(len, short)) <= 30
    source = " ".join(" ".join(TOPICS).split())
    assert all(decode(ids) in source for ids in short[:50])


CHINESE = "天气很好我们去公园散步。你看见那只黑色的小猫了吗？这本书讲的是古代城市的历史！他每天早上六点起床跑步。她在图书馆里工作了二十年。"
RUSSIAN = "Погода сегодня хорошая. Мы идём гулять в старый парк! Ты видел ту чёрную кошку? Книга лежит на столе у окна. Он работает дома."
CODE = """def area(width, height):
    return width * height
for index, value in enumerate(values):
    total += weights[index] * value
class Window(Surface):
    title = "main window"
    self.handlers.append(callback)
"""


@pytest.mark.parametrize("text", [CHINESE, RUSSIAN, CODE])
def test_text_without_latin_sentences_gives_lines_and_sentences_of_any_script(text):
    values, how = probes.values_from([text], encode, SETTINGS)
    assert how == probes.PIECES and len(values) >= 5 and max(map(len, values)) <= SETTINGS.value_tokens
    assert len(set(map(tuple, values))) == len(values)
    probe = probes.build(0, values, encode, SETTINGS, [])
    assert probe.pairs == len(values) and probe.ids[probe.needle_start :][: len(probe.needle)] == probe.needle


def test_too_little_text_or_room_is_refused_in_one_line(values):
    with pytest.raises(SettingError, match="the corpus has 0 sentences or lines .*use more text"):
        probes.values_from(["x = 1\n" * 100], encode, Heads())
    with pytest.raises(SettingError, match="heads.probe_tokens=512 has no room for 3 shots"):
        probes.build(0, values, encode, Heads(probe_tokens=512, value_tokens=60), [])


def test_top_rounds_and_breaks_ties_by_layer_then_head():
    scores = np.zeros((3, 4))
    scores[2, 1] = scores[1, 3] = 0.5
    assert importance.top(scores, 0.01) == [(1, 3)]
    assert importance.top(scores, 0.3) == [(1, 3), (2, 1), (0, 0), (0, 1)]  # 3.6 heads
    assert (
        importance.head_count(270, 0.05) == 14
        and importance.head_count(8, 0.05) == 1
        and importance.head_count(50, 0.05) == 3
    )


def test_stability_by_hand():
    """Four probes, two heads of interest: the last two change the winner."""
    scores = np.zeros((4, 1, 4))
    scores[:2, 0, 0] = 1.0
    scores[2:, 0, 1] = 3.0
    assert importance.probes_needed(scores, 0.25) == 3
    assert importance.halves_overlap(scores, 0.25) == 1.0
    scores[1::2] = scores[1::2, :, ::-1]
    assert importance.halves_overlap(scores, 0.25) == 0.0


def test_stop_rule():
    rng = np.random.default_rng(0)
    steady = np.zeros((32, 4, 10))
    steady[:, 1, :2] = 1 + rng.normal(0, 0.01, (32, 2))
    assert importance.is_stable(steady, 0.05) and not importance.is_stable(steady[:15], 0.05)
    assert not importance.is_stable(rng.random((32, 4, 10)), 0.05)


def test_controls_are_as_many_and_others():
    import random

    scores = np.zeros((4, 6))
    scores[2, :3] = scores[3, 0] = 1
    important = importance.top(scores, 4 / 24)
    for name in ("random", "random_same_layers", "bottom"):
        drawn, facts = controls.draw(Heads(detector=name, share=4 / 24), scores, important, None, [])
        assert len(set(drawn)) == 4 and not set(drawn) & set(important)
        again, _ = controls.draw(Heads(detector=name, share=4 / 24), scores, important, None, [])
        other, _ = controls.draw(
            Heads(detector=name, share=4 / 24, control_seed=1), scores, important, None, []
        )
        assert drawn == again and drawn != other
        if name == "random_same_layers":
            assert sorted(layer for layer, _ in drawn) == [2, 2, 2, 3]
        if name == "bottom":
            assert facts["score_at_most"] == 0 and facts["drawn_from"] == 20
    assert controls.same_layers(random.Random(0), [(2, 5)], [(2, 0)]) == [(2, 5)]
    with pytest.raises(SettingError, match="layer 2 has 3 important heads and only 1 others"):
        controls.same_layers(random.Random(0), [(2, 5)], [(2, 0), (2, 1), (2, 2)])


def test_the_bottom_heads_are_the_lowest_and_only_the_last_of_them_are_drawn():
    scores = np.array([[0.5, 0.4, 0.0, 0.3], [0.0, 0.1, 0.1, 0.1]])
    important, seen = importance.top(scores, 3 / 8), set()
    for seed in range(20):
        s = Heads(detector="bottom", share=3 / 8, control_seed=seed)
        drawn, facts = controls.draw(s, scores, important, None, [])
        assert {(0, 2), (1, 0)} < set(drawn) and (facts["drawn_from"], facts["score_at_most"]) == (5, 0.1)
        seen |= set(drawn)
    assert seen == {(0, 2), (1, 0), (1, 1), (1, 2), (1, 3)}


def test_heads_that_copied_nothing_are_named():
    scores = np.array([[0.0, 0.0], [0.85, 0.0]])
    assert importance.none_copied(scores, importance.top(scores, 0.25)) == ""
    assert "1 of the 2 important heads copied nothing" in importance.none_copied(
        scores, importance.top(scores, 0.5)
    )


def test_in_few_sentences_no_other_value_of_a_probe_begins_as_the_one_asked_for():
    text = " ".join(f"The {i} small bird number {i} sat down on the old wall and sang." for i in range(12))
    values, how = probes.values_from([text.replace("1", "one").replace("2", "two")], words, SETTINGS)
    assert how == "sentences cut at a word"
    twins = 0
    for index in range(20):
        probe = probes.build(index, values, words, SETTINGS, [])
        opening, before = probe.needle[:3], probe.ids[: probe.answer_start]  # of no other sentence here
        twins += sum(value[:3] == opening for value in values) > 1
        stands = [i for i in range(len(before)) if before[i : i + 3] == opening]
        assert stands == [probe.needle_start], (index, stands)
    assert twins > 5


def test_a_share_that_leaves_no_others_is_refused():
    with pytest.raises(SettingError, match="lower heads.share"):
        controls.draw(
            Heads(detector="random", share=0.6),
            np.ones((2, 5)),
            [(0, i) for i in range(5)] + [(1, 0)],
            None,
            [],
        )


def test_calibration_reads_the_domains_in_turn(tmp_path):
    """So that a few thousand tokens of held-out text are of all domains, not of the one whose name comes first."""
    (tmp_path / "heldout").mkdir()
    sizes = {"code-00000": 5, "code-00001": 4, "prose-00000": 3, "web-00000": 1}
    for shard, n in sizes.items():
        texts = [f"{shard} {i}" for i in range(n)]
        pl.DataFrame({"text": texts}).write_parquet(tmp_path / "heldout" / f"{shard}.parquet")
    found = heldout_texts(tmp_path)
    assert [text.partition("-")[0] for text in found[:4]] == ["code", "prose", "web", "code"]
    assert sorted(found) == sorted(f"{shard} {i}" for shard, n in sizes.items() for i in range(n))
