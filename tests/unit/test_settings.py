"""What a field says of itself holds: text arrives as it was written, and it enters the fingerprints it says it enters."""

import json
import random
from dataclasses import fields, is_dataclass, replace

import pytest
from omegaconf import OmegaConf

from repro import listing, sweep
from repro.corpus import stage as corpus
from repro.errors import SettingError
from repro.evaluate import stage as evaluate
from repro.experiments import build
from repro.experiments.analyse import stages as analyse
from repro.heads import stage as heads
from repro.influence import stage as influence
from repro.pretrain import stage as pretrain
from repro.schema import default_of
from repro.selection import stage as selection
from repro.selection.settings import Mixture, Select
from repro.settings import words
from repro.settings.compose import compose
from repro.settings.root import Settings
from repro.store import Stage
from repro.tracking import Tracking

HARD = ["off", "no", "True", "007", "12e4567", "1e3", "0x1f", "1_000", "1:30", ".inf", "-", "~", "Null", "NULL", "none",
        "#", "#1", "a #b", "*.jsonl", "**/*.md", "&a", "!x", "%x", "@x", "`x", "? x", "- x", "a: b", "a:", "2024-01-01",
        "=", "<<", "|", ">", "[ab]*.txt", "x[0].txt", "it's", "\\d+", "a=b", "日本", "null x"]  # fmt: skip


def kinds(schema=Settings, path=""):
    for name, kind in words.held(schema).items():
        if is_dataclass(kind):
            yield from kinds(kind, f"{path}{name}.")
        elif kind == dict[str, str]:
            yield f"{path}{name}.key", str
        else:
            yield f"{path}{name}", kind


IN_ARMS = [
    (f"exp.arms.new.{path}", kind)
    for path, kind in kinds(words.kind_at(Settings, "exp.arms.new"))
    if path.count(".")
]
TEXTS = [(path, kind) for path, kind in [*kinds(), *IN_ARMS] if kind in (str, str | None)]
LISTS = [path for path, kind in [*kinds(), *IN_ARMS] if kind == list[str]]


def arrived(path, text):
    """What stands at ``path`` after ``path=text``."""
    found = words.nested(Settings, f"{path}={text}")
    for key in path.split("."):
        found = found[key]
    return found


def test_there_are_texts_and_lists_of_texts_of_every_group():
    assert {"corpus", "items", "proxy", "budget", "exp", "judge"} <= {path.split(".")[0] for path, _ in TEXTS}
    assert {"corpus.paths", "eval.tasks", "exp.only", "exp.arms.new.budget.leave_out"} <= set(LISTS)
    assert ("exp.arms.new.train.branch_from", str | None) in TEXTS and ("exp.conclusions.key", str) in TEXTS


@pytest.mark.parametrize(("path", "kind"), TEXTS, ids=str)
def test_a_text_arrives_as_it_was_written(path, kind):
    for text in [*HARD, *(["null"] if kind is str else [])]:
        assert arrived(path, text) == text
    assert kind is str or arrived(path, "null") is None
    for text in ("off", "007", "null", " x ", '"', "#"):
        assert arrived(path, json.dumps(text)) == text


@pytest.mark.parametrize("path", LISTS)
def test_texts_of_a_list_arrive_as_they_were_written(path):
    assert arrived(path, f"[{', '.join(HARD)}]") == HARD
    assert arrived(path, "[null]") == ["null"] and arrived(path, "[]") == []
    quoted = ["a, b", "[", "'", " x ", *HARD]
    assert arrived(path, json.dumps(quoted, ensure_ascii=False)) == quoted
    for broken in ("[a", "[a,,b]", "[a[]", '["a]'):
        with pytest.raises(SettingError, match="left open"):
            words.nested(Settings, f"{path}={broken}")


def test_any_text_arrives_bare_or_in_quotes():
    draw = random.Random(0)
    for _ in range(300):
        text = "".join(draw.choices("aé0.:-#*&!%@`|>{}[],=~?<'\"\\ e1", k=draw.randint(1, 8)))
        assert arrived("corpus.domain", json.dumps(text)) == text
        assert arrived("corpus.domains", json.dumps([text, text])) == [text, text]
        if text == text.strip() and text[0] not in "\"'":
            assert arrived("corpus.domain", text) == text
            if not set(text) & set("[]{},"):
                assert arrived("corpus.domains", f"[x,{text}]") == ["x", text]


def test_other_values_keep_the_types_of_yaml():
    plain = {"budget.share": ("1e-1", 0.1), "train.compile": ("off", False), "exp.seeds": ("[1, 0x2]", [1, 2]),
             "heads.given": ("[[1, 2]]", [[1, 2]]), "score.max_tokens": ("null", None), "eval.shots.piqa": ("5", 5),
             "exp.params.share": ("0.5", 0.5), "exp.params.on": ("yes", True)}  # fmt: skip
    for path, (text, value) in plain.items():
        assert arrived(path, text) == value
    conf = OmegaConf.merge(
        OmegaConf.structured(Settings), *(words.nested(Settings, f"{p}=007") for p, _ in TEXTS)
    )
    assert OmegaConf.select(conf, "corpus.domain") == "007"  # and OmegaConf takes them so


def test_text_in_files_and_in_the_settings_of_lists_arrives_too(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        "near_duplicates: off\ndomains: [no, 007]\nhub: [{repo: a/b, revision: 12e4567, domain: 1}]\n"
    )
    for given in ([f"corpus={own}"], ["corpus.near_duplicates=off", "corpus.domains=[no,007]",
                                      "corpus.hub=[{repo: a/b, revision: 12e4567, domain: 1}]", "corpus.kind=hub"]):  # fmt: skip
        found = compose(["exp=selection_30pct", *given]).corpus
        assert (found.near_duplicates, found.domains) == ("off", ["no", "007"])
        assert (found.hub[0].revision, found.hub[0].domain) == ("12e4567", "1")


def test_texts_of_a_sweep_and_of_an_experiment_at_a_scale_arrive_too(tmp_path):
    exp, own = tmp_path / "exp.yaml", tmp_path / "own.yaml"
    exp.write_text(
        "exp: {arms: {full: {select: all}}}\nscales: {laptop: {corpus: {near_duplicates: off, domain: 007}}}\n"
    )
    found = compose([f"exp={exp}"]).corpus
    assert (found.near_duplicates, found.domain) == ("off", "007")
    own.write_text(
        "exp: selection_30pct\ngrid: {corpus.near_duplicates: [off, drop], budget.share: [0.1, 0.2]}\n"
    )
    members = sweep.composed(str(own), [], sweep.members(str(own), []))
    assert [s.corpus.near_duplicates for s in members.values()] == ["off", "off", "drop", "drop"]


FORMS = {"git_url": "https://host/{}", "key_variable": "OTHER_KEY", "micro_batch": 4, "dtype": "bfloat16"}


def other(f, value):
    """Another valid value of a field."""
    if f.name in FORMS:
        return FORMS[f.name]
    if f.metadata["choices"]:
        return next(choice for choice in f.metadata["choices"] if choice not in (value, "webhook"))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 if isinstance(value, int) and value else value / 2 or 1
    if isinstance(value, list):
        return [*value, "x"] if "str" in str(f.type) else [1024] if "int" in str(f.type) else [0.5]
    if isinstance(value, dict):
        return {"piqa": 1}
    return {"int | None": 4096, "float | None": 0.5}.get(f.type) or f"{value or ''}x"


NOTHING = Stage("nothing", "nothing", {}, lambda context: None, {})
READ = {"scores": NOTHING, "corpus": NOTHING}
JUDGE = {"url": "http://127.0.0.1/v1", "model": "m"}
MADE = {
    "corpus": lambda s: corpus.stage(s, None),
    "heads": lambda s: heads.stage(s, Settings().proxy, NOTHING, NOTHING),
    "score": lambda s: influence.stage(s, Settings().heads, Settings().proxy, NOTHING, NOTHING, NOTHING),
    "budget": lambda s: selection.stage(Select(), Mixture(), s, 0, NOTHING, NOTHING),
    "model": lambda s: pretrain.stage(s, Settings().train, 0, NOTHING, NOTHING, Tracking(), "", ""),
    "train": lambda s: pretrain.stage(Settings().model, s, 0, NOTHING, NOTHING, Tracking(), "", ""),
    "eval": lambda s: evaluate.stage(s, 0, NOTHING, None, NOTHING),
    "judge": lambda s: analyse.judge_stage(replace(s, **JUDGE) if s.url is None else s, 0, Stage("s", "s", {}, None, READ)),
}  # fmt: skip
# what is refused, or enters, only beside another setting
BESIDE = {"heads.detector", "corpus.kind", "train.branch_from", "train.processes", "judge.url", "judge.model"}
ENTERS = (True, "if set", "heads", "detection", "detector")  # with these defaults


@pytest.mark.parametrize("group", MADE)
def test_a_setting_enters_the_fingerprint_or_does_not_as_it_says(group):
    own = getattr(Settings(), group)
    before = MADE[group](own).fingerprint
    said = {f.name: f.metadata["identity"] for f in fields(own) if f"{group}.{f.name}" not in BESIDE}
    asked = [f for f in fields(own) if said.get(f.name) in (False, *ENTERS)]
    for f in asked:
        changed = replace(own, **{f.name: other(f, getattr(own, f.name))})
        assert (MADE[group](changed).fingerprint != before) == bool(said[f.name]), f.name
    assert len(asked) >= len(fields(own)) // 2


def test_whatever_enters_no_fingerprint_changes_none():
    before = compose(["exp=selection_30pct", "scale=smoke"])
    after = compose(["exp=selection_30pct", "scale=smoke"])
    for name in (f.name for f in fields(Settings) if is_dataclass(default_of(f)) and f.name != "exp"):
        own = getattr(after, name)
        values = {
            f.name: other(f, getattr(own, f.name)) for f in fields(own) if f.metadata["identity"] is False
        }
        setattr(after, name, replace(own, **values))
    assert [s.fingerprint for s in build(after).order()] == [s.fingerprint for s in build(before).order()]


def test_the_listing_says_unit_values_and_identity():
    said = {s.name: s.meaning for s in listing.settings()}
    assert said["score.window"].startswith("tokens of a window")
    assert said["score.processes"].endswith("; enters no fingerprint")
    assert said["corpus.near_duplicates"].startswith("cluster (kept, never split) | drop")


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ("train.weight_decay", "0", "0.0"),
        ("train.clip", "2", "2.0"),
        ("budget.share", "1", "1.0"),
        ("heads.share", "1", "1.0"),
    ],
)
def test_a_number_of_an_arm_is_one_however_it_is_written(key, one, other):
    from repro.experiments import build
    from repro.settings.compose import compose

    def stages(*arguments):
        experiment = build(compose(["exp=selection_30pct", "scale=smoke", *arguments]))
        named = experiment.arms["attention_influence"][0]
        return [named[name].fingerprint for name in ("selection", "pretrain")]

    arm = f"exp.arms.attention_influence.{key}"
    assert stages(f"{arm}={one}") == stages(f"{arm}={other}") == stages(f"{key}={other}")


def test_a_dictionary_given_whole_replaces_and_a_key_of_it_is_added():
    from repro.evaluate.__main__ import _settings

    def limits(*arguments):
        return compose(["exp=selection_30pct", "scale=curve", *arguments]).eval.limits

    assert limits() == {"blimp": 200} and limits("eval.limits={}") == {}
    assert limits("eval.limits={arc_easy: 20}") == {"arc_easy": 20}
    assert limits("eval.limits.arc_easy=20") == {"blimp": 200, "arc_easy": 20}
    both = ["eval.limits.blimp=3", "eval.limits={arc_easy: 20}"]  # in either order
    assert limits(*both) == limits(*both[::-1]) == {"blimp": 3, "arc_easy": 20}
    assert compose(["exp=selection_30pct", "exp.conclusions={}"]).exp.conclusions == {}
    one = compose(["exp=head_evolution", "exp.params.measures={induction: {detector: induction}}"])
    assert list(one.exp.params["measures"]) == ["induction"] and one.exp.params["checkpoints"]
    assert _settings("signal", None, ["limits={}"]).limits == {}
    # settings of a schema keep what is not said
    arm = "exp.arms.attention_influence.select"
    select = compose(["exp=selection_30pct", arm + "={budget: {share: 0.2}}"]).exp.arms["attention_influence"]
    assert select.select.selector == "attention_influence"


def test_options_of_an_evaluation_that_are_given_again_add_to_those_before(tmp_path, monkeypatch, capsys):
    from repro.evaluate import __main__ as door

    def seen(*given):
        raise SettingError(str(given))

    monkeypatch.setattr(door, "_settings", seen)
    again = ["--set", "limit=100", "--set", "batch_size=4", "--tasks", "sciq", "--tasks", "piqa"]
    assert door.main([str(tmp_path), *again]) == 2
    assert "('signal', ['sciq', 'piqa'], ['limit=100', 'batch_size=4'])" in capsys.readouterr().err


def test_whole_numbers_that_begin_with_a_zero_are_decimal(tmp_path):
    settings = compose(["exp=selection_30pct", "scale=smoke", "train.tokens=010000", "exp.seeds=[010, 0]"])
    assert settings.train.tokens == 10000 and settings.exp.seeds == [10, 0]
    (tmp_path / "mine.yaml").write_text("exp: {kind: train, arms: {full: {}}, seeds: [012]}\n")
    assert compose([f"exp={tmp_path}/mine.yaml", "scale=smoke"]).exp.seeds == [12]
