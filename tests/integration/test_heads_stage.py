import json
import pydoc_data.topics
import sys
from dataclasses import replace

import numpy as np
import pytest
import scoring_corpus as given

from repro.errors import SettingError
from repro.heads import detectors
from repro.heads.detectors import retrieval
from repro.heads.settings import Heads
from repro.heads.stage import CONTROLS
from repro.influence.api import AttentionInfluence
from repro.influence.settings import Score
from repro.store import Store, read_json

HEADS = Heads(probes=6, probe_tokens=512, shots=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("work"))


def run(store, heads):
    found = given.stages(Score(), heads)
    for stage in found["heads"].ancestors()[:-1]:
        store.ensure(stage)
    return found["heads"], read_json(store.ensure(found["heads"]) / "heads.json")


def test_another_share_and_controls_detect_only_once(store):
    first, heads = run(store, HEADS)
    detection = first.inputs["detection"]
    assert heads["selected"] == [[1, 0]] and heads["stability"] == {"halves_overlap": 1.0, "probes_needed": 1}
    assert np.array(heads["scores"]).shape == (2, 4) and heads["probe"]["probes"] == 6
    second, wider = run(store, replace(HEADS, share=0.25))
    assert second.inputs["detection"].fingerprint == detection.fingerprint
    assert wider["selected"] == [[1, 0], [0, 0]] and wider["tie_among_zeros"] and wider["tied_at_lowest"] == 7
    for detector in ("random", "random_same_layers", "bottom", "random_matched_damage"):
        stage, control = run(store, replace(HEADS, detector=detector, damage_tolerance=0.5, draws=6))
        assert stage.inputs["detection"].fingerprint == detection.fingerprint
        assert len(control["selected"]) == 1 and control["selected"] != [[1, 0]]
        if detector == "random_same_layers":
            assert control["selected"][0][0] == 1
    control = control["control"]  # no head of this model but a previous-token head does damage at all
    assert control["within_tolerance"] == (
        abs(control["loss_rise"] / control["loss_rise_of_important"] - 1) <= control["tolerance"]
    )


def test_another_draw_of_a_control_is_another_stage_on_the_same_probes(store):
    share, drawn = 0.25, {}
    for control_seed in (0, 1, 2):
        stage, heads = run(store, replace(HEADS, share=share, detector="random", control_seed=control_seed))
        drawn[stage.fingerprint] = heads["selected"]
        assert (
            stage.inputs["detection"].fingerprint
            == given.stages(Score(), HEADS)["heads"].inputs["detection"].fingerprint
        )
    assert len(drawn) == 3 and len({str(selected) for selected in drawn.values()}) > 1
    fixed = {given.stages(Score(), replace(HEADS, control_seed=seed))["heads"].fingerprint for seed in (0, 1)}
    assert len(fixed) == 1  # retrieval heads are not drawn


def test_induction_finds_the_same_head(store):
    _, heads = run(store, replace(HEADS, detector="induction", probes=2))
    assert heads["selected"] == [[1, 0]] and heads["scores"][1][0] > 0.9


@pytest.mark.parametrize("tail", [0.0, 1.5])
def test_matched_damage_comes_within_the_tolerance(tail):
    """A model of many heads that all do some damage, or of which few do nearly all: the search must end close to the target."""
    import random

    import torch

    from repro.heads import controls

    generator = torch.Generator().manual_seed(0)
    damage = torch.rand(8, 12, generator=generator) * torch.exp(
        tail * torch.randn(8, 12, generator=generator)
    )
    damage = damage.tolist()
    s = Heads(detector="random_matched_damage", damage_tolerance=0.1, draws=64)
    important = [(5, 1), (6, 2), (7, 3), (7, 4)]
    others = [(layer, head) for layer in range(8) for head in range(12) if (layer, head) not in important]

    def loss(proxy, windows, heads=()):
        return 3.0 + sum(damage[layer][head] for layer, head in heads)

    original, windows = controls.mean_loss, controls.text_windows
    controls.mean_loss, controls.text_windows = loss, lambda proxy, texts: [[1]]
    wanted, sets = sum(damage[layer][head] for layer, head in important), set()
    try:
        for seed in range(20):
            drawn, facts = controls.matched_damage(s, random.Random(seed), others, important, None, [])
            assert facts["within_tolerance"] and abs(loss(None, None, drawn) - 3.0 - wanted) <= 0.1 * wanted
            assert len(set(drawn)) == 4 and not set(drawn) & set(important)
            sets.add(tuple(drawn))
    finally:
        controls.mean_loss, controls.text_windows = original, windows
    assert len(sets) > 10  # draws, not one set found again and again


MINE = """
import numpy as np
from repro.heads.detectors import Measurement

READS = ("shots",)


def detect(proxy, probe, s):
    scores = np.zeros((proxy.num_layers, proxy.num_heads))
    scores[0, 2] = 0.5
    return Measurement(scores, 1.0, 0.0)
"""


def test_a_detector_is_a_file_and_detects_itself(store, tmp_path, monkeypatch):
    """A third one must not run the first: its own scores, its own name, and its code are what the heads come from."""
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    monkeypatch.setattr(detectors, "__path__", [*detectors.__path__, str(tmp_path)])
    stage, heads = run(store, replace(HEADS, detector="mine"))
    assert heads["selected"] == [[0, 2]] and heads["detector"] == "mine" and heads["scores"][0][2] == 0.5
    detection = stage.inputs["detection"]
    assert detection.label == detection.settings["detector"] == "mine"
    again = given.stages(Score(), replace(HEADS, detector="mine", key_characters=9))["heads"]
    assert again.inputs["detection"].fingerprint == detection.fingerprint  # it reads no key
    fewer = given.stages(Score(), replace(HEADS, detector="mine", shots=0))["heads"]
    assert fewer.inputs["detection"].fingerprint != detection.fingerprint
    path.write_text(MINE.replace("0.5", "0.6"))
    assert given.stages(Score(), replace(HEADS, detector="mine"))["heads"].fingerprint != stage.fingerprint
    monkeypatch.delitem(sys.modules, "repro.heads.detectors.mine")


SAYS = """
import numpy as np
from repro.heads.detectors import Measurement
READS = ()
def detect(proxy, probe, s):
    return {answer}
"""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (SAYS.format(answer="np.zeros((2, 4))"), "gave ndarray; it must give a Measurement"),
        (
            SAYS.format(answer="Measurement(np.zeros((2, 4)), None, 0.0)"),
            "failed: TypeError: float.. argument",
        ),
        (SAYS.format(answer="Measurement(np.full((2, 4), np.nan), 1.0, 0.0)"), "not finite, of probe 0"),
        (SAYS.format(answer="Measurement(np.ones((2, 4)), 1.0, np.inf)"), "not finite, of probe 0"),
        (
            SAYS.format(answer="Measurement(np.ones(4), 1.0, 0.0)"),
            "scores of shape .4.; the proxy has 2 layers",
        ),
        (
            SAYS.format(answer="1") + "def samples(s, proxy, context):\n    return 1 / 0\n",
            r"failed: ZeroDivisionError: division by zero \(odd.py:8\)",
        ),
        (
            SAYS.format(answer="1") + "def samples(s, proxy, context):\n    return lambda index: [][index]\n",
            r"failed: IndexError: list index out of range \(odd.py:8\)",
        ),
    ],
)
def test_a_detector_of_ones_own_that_fails_is_named_in_one_line(code, said, store, tmp_path, monkeypatch):
    (tmp_path / "detectors").mkdir()
    (tmp_path / "detectors" / "odd.py").write_text(code)
    monkeypatch.setenv("REPRO_PATH", str(tmp_path))
    with pytest.raises(SettingError, match=f"^detector 'odd' .*{said}") as raised:
        run(store, replace(HEADS, detector="odd"))
    assert "\n" not in str(raised.value)


def test_a_detector_may_give_numbers_of_any_library(store, tmp_path, monkeypatch):
    (tmp_path / "detectors").mkdir()
    code = SAYS.format(answer="Measurement(torch.eye(2, 4), np.float32(1), torch.tensor(0.5))")
    (tmp_path / "detectors" / "typed.py").write_text(f"import torch\n{code}")
    monkeypatch.setenv("REPRO_PATH", str(tmp_path))
    _, heads = run(store, replace(HEADS, detector="typed"))
    assert heads["scores"] == [[1, 0, 0, 0], [0, 1, 0, 0]] and heads["probe"]["loss"] == 0.5


@pytest.mark.parametrize("detector", [*detectors.names(), *CONTROLS])
def test_every_detector_detects_itself_and_controls_are_those_of_retrieval(detector):
    detection = given.stages(Score(), replace(HEADS, detector=detector))["heads"].inputs["detection"]
    assert detection.settings["detector"] == ("retrieval" if detector in CONTROLS else detector)


def test_a_detector_that_is_none_is_refused_with_the_nearest():
    with pytest.raises(
        SettingError, match="heads.detector='retreival' is not known; did you mean 'retrieval'"
    ):
        given.stages(Score(), replace(HEADS, detector="retreival"))


def test_a_killed_detection_goes_on(store, tmp_path, monkeypatch):
    """Stopped after three probes, with half a line of the fourth on disk: the others only are run, the result is the same."""
    stage, expected = run(store, HEADS)
    calm = store.path(stage.inputs["detection"]) / "probes.jsonl"
    other = Store(tmp_path)
    detection = stage.inputs["detection"]
    for before in detection.ancestors()[:-1]:
        other.ensure(before)
    calls, detect = [], retrieval.detect

    def counted(proxy, probe, s, stop_after):
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append(probe)
        return detect(proxy, probe, s)

    monkeypatch.setattr(retrieval, "detect", lambda p, probe, s: counted(p, probe, s, 3))
    with pytest.raises(KeyboardInterrupt):
        other.ensure(detection)
    partial = other.path(detection).with_name(other.path(detection).name + ".partial") / "probes.jsonl"
    with open(partial, "a") as handle:
        handle.write(calm.read_text().split("\n")[3][:20])
    monkeypatch.setattr(retrieval, "detect", lambda p, probe, s: counted(p, probe, s, 99))
    folder = other.ensure(detection)
    assert len(calls) == 6 and (folder / "probes.jsonl").read_bytes() == calm.read_bytes()
    assert read_json(folder / "manifest.json")["facts"]["probes_resumed"] == 3


def test_stop_when_stable_saves_probes(store):
    _, heads = run(store, replace(HEADS, probes=40, stop_when_stable=True))
    assert heads["probe"]["probes"] == 16 and heads["selected"] == [[1, 0]]


def test_fingerprints_hold_what_changes_the_result_only():
    def detection(**options):
        return given.stages(Score(), replace(HEADS, **options))["heads"].inputs["detection"].fingerprint

    base = detection()
    assert base == detection(share=0.1) == detection(detector="random") == detection(draws=3)
    changes = {
        "probes": 7,
        "probe_tokens": 600,
        "shots": 2,
        "match": "any",
        "decoding": "greedy",
        "seed": 1,
        "detector": "induction",
    }
    others = {detection(**{key: value}) for key, value in changes.items()}
    assert len(others) == len(changes) and base not in others
    json.dumps(given.stages(Score(), HEADS)["heads"].settings)


def test_probes_longer_than_the_context_are_refused(store):
    with pytest.raises(SettingError, match="set heads.probe_tokens=8192"):
        run(store, replace(HEADS, probe_tokens=9000))


def test_api_in_a_few_lines(store):
    stage, heads = run(store, HEADS)
    influence = AttentionInfluence(str(store.path(stage.inputs["proxy"]) / "model"), dtype="float32")
    texts = [pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics)]
    with pytest.raises(SettingError, match="call detect"):
        influence.score(["a text"])
    assert influence.detect(texts, probe_count=2, probe_tokens=1500) == [(1, 0)]
    rows = influence.score(["The same words again. " * 20, texts[0][:400], "x"], window=256)
    assert rows[0]["score"] > rows[1]["score"] and rows[2]["reason"] == "one token or none"
    tokens = influence.token_losses("The same words again. " * 20)
    assert np.isclose(np.mean([t["loss_ref"] for t in tokens]), rows[0]["loss_ref"], rtol=1e-5)
    assert "".join(t["token"] for t in tokens) in "The same words again. " * 20
