"""Experiments, sweeps, selectors and detectors of one's own, outside the repository."""

import sys
from dataclasses import replace

import pytest
import selecting

from repro import plugins, sweep
from repro.errors import SettingError
from repro.experiments import build
from repro.heads import detectors
from repro.heads.settings import Heads
from repro.plan import checks
from repro.selection import selectors
from repro.settings.compose import compose
from repro.settings.files import CONFIGS, options

SHORT = """
def priority(context, power: float = 1.0):
    return f"-pow(n_tokens_doc, {float(power)})"
"""
LAST = """
def detect(proxy, probe, s):
    return None
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of one's own, included."""
    monkeypatch.setenv("REPRO_PATH", str(tmp_path / "mine"))
    for name in ("exp", "select", "sweep", "selectors", "detectors"):
        (tmp_path / "mine" / name).mkdir(parents=True)
    yield tmp_path / "mine"
    for name in [name for name in sys.modules if name.startswith("repro_path.")]:
        del sys.modules[name]


def package(tmp_path, monkeypatch, name, module, points):
    """An installed package with entry points."""
    root = tmp_path / f"site-{name}"
    (root / f"{name}-1.0.dist-info").mkdir(parents=True)
    (root / f"{name}-1.0.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    )
    (root / f"{name}-1.0.dist-info" / "entry_points.txt").write_text(points)
    (root / f"{name}_code.py").write_text(module)
    monkeypatch.syspath_prepend(str(root))


def test_a_yaml_anywhere_is_an_experiment_and_a_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (CONFIGS / "exp" / "selection_30pct.yaml").read_text()
    (tmp_path / "idea.yaml").write_text(text)
    found, shipped = (
        compose(["exp=idea.yaml", "scale=smoke"]),
        compose(["exp=selection_30pct", "scale=smoke"]),
    )
    assert found.exp.name == "idea"
    assert replace(found.exp, name="selection_30pct") == shipped.exp
    assert [s.fingerprint for s in build(found).order()] == [s.fingerprint for s in build(shipped).order()]
    (tmp_path / "two.yaml").write_text("exp: idea.yaml\ngrid: {budget.share: [0.1, 0.2]}\n")
    members = sweep.members("two.yaml", ["scale=smoke"])
    assert list(members) == ["budget.share=0.1", "budget.share=0.2"]
    assert [s.exp.name for s in sweep.composed("two.yaml", ["scale=smoke"], members).values()] == [
        "idea",
        "idea",
    ]


def test_an_included_folder_adds_options_selectors_and_detectors(folder):
    (folder / "selectors" / "short.py").write_text(SHORT)
    (folder / "select" / "shorter.yaml").write_text("selector: short\nparams: {power: 2.0}\n")
    (folder / "detectors" / "last.py").write_text(LAST)
    assert {"short", "shorter"} <= set(options("select"))
    settings = compose(
        [
            "exp=selection_30pct",
            "scale=smoke",
            "exp.arms.a.select=short",
            "exp.arms.b.select=shorter",
            "heads.detector=last",
        ]
    )
    assert settings.exp.arms["a"].select.selector == "short" and settings.exp.arms["b"].select.params == {
        "power": 2.0
    }
    experiment = build(settings)
    checks.names(settings, experiment)
    assert experiment.shared["heads"].settings["detector"] == "last"
    code = experiment.arms["a"][0]["selection"].settings["params"]["code"]
    (folder / "selectors" / "short.py").write_text(SHORT + "# another\n")
    assert selectors.identity("short", {})["code"] != code  # it counts by its content


def test_a_selector_of_a_package_selects_as_one_of_this_project(tmp_path, monkeypatch):
    package(tmp_path, monkeypatch, "theirs", SHORT, "[repro.selectors]\nbrief = theirs_code\n")
    rows = selecting.documents()
    repeats, _ = selecting.select(tmp_path, selecting.artifacts(rows), "brief", share=0.3, unit="documents")
    assert selecting.chosen(repeats) == selecting.brute_force(
        rows, {r["doc_id"]: -r["n_tokens_doc"] for r in rows}, 0.3, "documents"
    )


def test_a_detector_of_a_package_is_found(tmp_path, monkeypatch):
    package(tmp_path, monkeypatch, "theirs2", LAST, "[repro.detectors]\nlooks = theirs2_code\n")
    assert "looks" in detectors.names() and "code" in detectors.identity(Heads(detector="looks"))


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (
            "def priority(context):\n    return 1 / 0\n",
            r"selector 'odd' failed: ZeroDivisionError: division by zero \(odd.py:2\)",
        ),
        ("def priority(context):\n    return 7\n", "gave int; it must give an SQL expression or a frame"),
        (
            "def priority(context):\n    return 'nosuchcolumn + 1'\n",
            "selector 'odd' of .*odd.py: its answer cannot be computed: .*column \"nosuchcolumn\" not found",
        ),
        (
            "def priority(context):\n    return 'doc_id'\n",
            "selector 'odd' of .*odd.py: its answer cannot be computed: .* to DOUBLE",
        ),
        (
            "def priority(context):\n    return 'score +'\n",
            "selector 'odd' of .*odd.py: its answer cannot be computed: Parser Error",
        ),
        ("import nothing_like_it\n", "cannot be imported: ModuleNotFoundError"),
        ("x = 1\n", r"must be a module with a function priority\(...\)"),
        (
            "READS_TEXT = True\ndef priority(context):\n    return context.judged(lambda shard: [1.0])\n",
            "gave 1 numbers for 37 documents",
        ),
        (
            "import polars\ndef priority(context):\n"
            "    return polars.DataFrame({'doc_id': ['web-0001', 'zebra'], 'priority': [1.0, 2.0]})\n",
            "gave priorities for 1 documents that the corpus does not have, such as 'zebra'",
        ),
        (
            "import polars\ndef priority(context):\n"
            "    return polars.DataFrame({'doc_id': [1, 2], 'priority': [1.0, 2.0]})\n",
            "gave doc_ids of type Int64; they must be text",
        ),
    ],
)
def test_a_plug_in_that_fails_is_named_in_one_line(module, said, folder, tmp_path):
    (folder / "selectors" / "odd.py").write_text(module)
    with pytest.raises(SettingError, match=said) as raised:
        selecting.select(tmp_path, selecting.artifacts(selecting.documents()), "odd")
    assert "\n" not in str(raised.value)


def test_names_that_two_have_are_refused(folder, tmp_path, monkeypatch):
    settings = compose(["exp=selection_30pct", "scale=smoke"])
    (folder / "selectors" / "random.py").write_text(SHORT)
    with pytest.raises(
        SettingError, match="selector 'random' of .*random.py has the name of one of this project's"
    ):
        checks.names(settings, build(settings))
    (folder / "selectors" / "random.py").rename(folder / "selectors" / "mine.py")
    package(tmp_path, monkeypatch, "theirs3", SHORT, "[repro.selectors]\nmine = theirs3_code\n")
    with pytest.raises(SettingError, match="selector 'mine' is in .*mine.py and in theirs3 1.0; rename one"):
        selectors.load("mine")
    (folder / "select" / "all.yaml").write_text("selector: all\n")
    with pytest.raises(SettingError, match="select=all is in .*configs.* and in .*mine.*; rename one"):
        compose(["exp=selection_30pct", "scale=smoke"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("&a\nexp: *a\n", "recursive aliases"),
        ("exp: {kind: [\n", "cannot be read"),
        ("- a\n- b\n", "must hold settings"),
    ],
)
def test_a_yaml_of_ones_own_that_cannot_be_read_is_named(content, said, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(SettingError, match=f"mine.yaml.*{said}"):
        compose([f"exp={path}", "scale=smoke"])
    with pytest.raises(SettingError, match="there is no such file"):
        compose([f"exp={tmp_path}/none.yaml"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("grid: [1]", "mine.yaml: the grid maps settings to lists of values"),
        ("grid: {budget.share: 0.1}", "mine.yaml: budget.share needs a list of values in the grid: [0.1]"),
        ("grid: {train.lerning_rate: [x0.5, x2]}", "did you mean train.learning_rate?"),
        ("grid: {model: [x2, 1m]}", "model=x2 is not known"),
        ("grid: {run.keep_going: [x2]}", "run.keep_going=x2 must be true or false"),
        (
            "grid: {budget.share: [0.1]}\noverrides: corpus.seed=1",
            "mine.yaml: overrides is a list of settings",
        ),
    ],
)
def test_a_mistake_in_a_sweep_of_ones_own_is_one_line(content, said, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(f"exp: selection_30pct\n{content}\n")
    assert sweep.main([f"sweep={tmp_path}/mine.yaml", "scale=smoke", f"work={tmp_path}", "--plan"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1


def test_null_words_and_whole_numbers_of_a_grid_are_what_the_members_get(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "exp: selection_30pct\ngrid:\n  tracking.entity: [null, me]\n  eval.limit: [null, 5]\n  score.max_tokens: [x2, x3]\n"
        "overrides: [scale=smoke, tracking.wandb=offline]\n"
    )
    found = [compose(words) for words in sweep.members(str(tmp_path / "mine.yaml"), []).values()]
    most = compose(["exp=selection_30pct", "scale=smoke"]).score.max_tokens
    assert {(s.tracking.entity, s.eval.limit, s.score.max_tokens) for s in found} == {
        (entity, limit, tokens)
        for entity in (None, "me")
        for limit in (None, 5)
        for tokens in (2 * most, 3 * most)
    }


def test_a_sweep_whose_work_folder_is_a_file_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert sweep.main(["sweep=select_share", "scale=smoke", f"work={tmp_path}/file"]) == 2
    said = f"error: work={tmp_path}/file: cannot make the folder (File exists); name another\n"
    assert capsys.readouterr().err == said


def test_include_is_for_this_process_and_those_it_starts(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("REPRO_PATH")
    (folder / "exp" / "mine.yaml").write_text((CONFIGS / "exp" / "score_corpus.yaml").read_text())
    assert compose([f"include={folder}", "exp=mine", "scale=smoke"]).exp.name == "mine"
    assert compose(["exp=mine", "scale=smoke"]).exp.kind == "score"
    with pytest.raises(SettingError, match="include=/nowhere: there is no such folder"):
        compose(["include=/nowhere", "exp=mine"])


def test_an_arm_is_dropped_with_its_contrasts_and_replaced_whole():
    base = compose(["exp=selection_30pct", "scale=smoke"])
    found = compose(["exp=selection_30pct", "scale=smoke", "exp.arms.full=null"])
    assert set(base.exp.arms) - set(found.exp.arms) == {"full"}
    assert [c for c in base.exp.contrasts if "full" not in (c.treatment, c.control)] == found.exp.contrasts
    own = ["exp=selection_30pct", "scale=smoke", "exp.arms.perplexity_low.budget.share=0.1"]
    assert compose(own).exp.arms["perplexity_low"].budget == {"share": 0.1}
    whole = compose([*own[:2], "exp.arms.perplexity_low={select: random}"]).exp.arms["perplexity_low"]
    assert whole.select.selector == "random" and whole.select.params == {} and whole.budget == {}
    with pytest.raises(SettingError, match="drops an arm of the primary contrast"):
        compose(["exp=selection_30pct", "scale=smoke", "exp.arms.random=null"])
    with pytest.raises(SettingError, match="there is no arm 'ful'; did you mean 'full'"):
        compose(["exp=selection_30pct", "scale=smoke", "exp.arms.ful=null"])


def test_what_foreign_code_raises_keeps_its_place():
    def bad():
        raise KeyError("x")

    with pytest.raises(SettingError, match=r"selector 'a' failed: KeyError: 'x' \(test_own.py:\d+\)"):
        plugins.called("selectors", "a", bad)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "defaults: {exp: loop.yaml}\nexp: {kind: train}\n",
            "exp names no group of options, and a file includes no other",
        ),
        ("exp: loop.yaml\n", "exp must hold settings"),
    ],
)
def test_a_file_that_includes_itself_is_one_line(text, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop.yaml").write_text(text)
    with pytest.raises(SettingError, match=said) as raised:
        compose(["exp=loop.yaml", "scale=smoke"])
    assert "\n" not in str(raised.value)
