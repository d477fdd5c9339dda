"""``repro COMMAND``: every door under one name, from a checkout and from an installed wheel."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from repro import cli, environment, listing, places, together
from repro.settings.compose import compose
from repro.settings.files import CONFIGS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.setattr(environment, "program", "")
    monkeypatch.setattr(sys, "argv", list(sys.argv))


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_under_its_own_name(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    usage = capsys.readouterr().out.split("\n")[0]
    assert ended.value.code == 0 and usage.startswith(
        f"usage: repro {cli.COMMANDS[name][1] and 'plan' or name}"
    )


def test_a_wrong_command_is_answered_with_the_nearest(capsys):
    assert cli.main(["rnu"]) == 2
    assert "'rnu' is no command; did you mean 'run'?" in capsys.readouterr().err
    assert cli.main([]) == 2 and cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in cli.COMMANDS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--arms", "full,randm"], "no arm randm; it has full, "),
        (["--part", "1"], "--part 1 must be R/N, such as 0/4"),
        (["--part", "4/4"], "--part 4/4 must be R/N with 0 <= R < N"),
        (["work=s3://bucket/w"], "work=s3://bucket/w: only corpus.paths may be in a bucket"),
        (["exp.seeds=[0,0]"], "a seed twice"),
        (["exp.endpoint=nonsense"], "exp.endpoint=nonsense"),
    ],
)
def test_what_trainings_side_by_side_are_not_given_is_one_line(words, said, tmp_path, capsys):
    work = [] if any(word.startswith("work=") for word in words) else [f"work={tmp_path}"]
    assert together.main(["exp=selection_30pct", "scale=smoke", "device=cpu", *work, *words]) == 2
    assert said in capsys.readouterr().err


def test_trainings_side_by_side_take_every_arm_that_is_named_and_their_faults_are_their_own(monkeypatch):
    settings = compose(["exp=selection_30pct", "scale=smoke"])
    assert together._named(settings, ["full", "random", "other"], ["full", "rand*"]) == ["full", "random"]

    def fails(*given):
        assert given[1] == ["full", " random"]
        raise ValueError("of a training")

    monkeypatch.setattr(together, "train", fails)
    with pytest.raises(ValueError, match="of a training"):
        together.main(["exp=selection_30pct", "--arms", "full, random"])


def test_a_run_records_the_same_command_from_either_door(capsys):
    assert cli.main(["run", "exp=nothing"]) == 2
    assert Path(sys.argv[0]).name == "run.py" and sys.argv[1:] == ["exp=nothing"]


def test_help_imports_no_heavy_library():
    heavy = "{'torch', 'transformers', 'polars', 'pyarrow', 'duckdb', 'omegaconf', 'numpy'}"
    for module in {module for module, _, _ in cli.COMMANDS.values()} - {"repro.store.__main__"}:
        code = (
            f"import sys, {module}; found = {heavy} & set(sys.modules); sys.exit(str(found) if found else 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, (module, done.stderr)


def test_every_setting_has_a_meaning_and_is_listed_once(capsys):
    found = list(listing.settings())
    assert [s.name for s in found if not s.meaning] == []
    assert len({s.name for s in found}) == len(found) > 150
    assert cli.main(["settings", "score"]) == 0
    text = capsys.readouterr().out
    assert (
        "score.window=1024  (int)\n    tokens of a window" in text
        and "score=NAME takes default, mean, zero" in text
    )
    assert cli.main(["settings", "windwo"]) == 2
    assert "did you mean 'score.window'?" in capsys.readouterr().err


def test_the_wheel_alone_knows_its_configs_from_any_folder(tmp_path):
    """Built from the files under git, unpacked, and asked from elsewhere."""
    source, site, away = (tmp_path / name for name in ("source", "site", "away"))
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    names = [n for n in listed.stdout.split("\n") if n.startswith(("repro/", "configs/", "docs/")) or n in ("pyproject.toml", "setup.py", "README.md")]  # fmt: skip
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(site)
        entry = next(n for n in wheel.namelist() if n.endswith("entry_points.txt"))
        assert b"repro = repro.cli:main" in wheel.read(entry)
    assert {p.relative_to(CONFIGS) for p in CONFIGS.glob("*/*.yaml")} == {
        p.relative_to(site / "repro/configs") for p in (site / "repro/configs").glob("*/*.yaml")
    }
    assert {p.name for p in site.iterdir() if not p.name.endswith(".dist-info")} == {"repro"}
    data = {
        p.relative_to(ROOT)
        for p in (ROOT / "repro").rglob("*")
        if p.is_file() and p.suffix not in (".py", ".pyc")
    }
    assert data and all((site / p).is_file() for p in data)
    away.mkdir()
    here = os.environ | {"PYTHONPATH": str(site)}
    here.pop("REPRO_CONFIGS", None)
    words = ["run", "--show", "exp=selection_30pct", "scale=smoke"]
    done = subprocess.run(
        [sys.executable, "-m", "repro", *words], cwd=away, env=here, capture_output=True, text=True
    )
    assert done.returncode == 0 and "name: selection_30pct" in done.stdout, done.stderr
    asked = "from repro import places; from repro.store import origin as p; print(places.home(), places.checkout(), p.code(places.PACKAGE)['commit'])"
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=away, env=here, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(away), "None", "None"]


def test_code_in_a_folder_that_another_repository_ignores_is_not_of_its_commit(tmp_path):
    """A virtual environment inside somebody's project: the project's commit says nothing of this code."""
    from repro.store.origin import code

    (tmp_path / "venv" / "repro").mkdir(parents=True)
    (tmp_path / "venv" / "repro" / "x.py").write_text("")
    (tmp_path / ".gitignore").write_text("venv\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "theirs"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    assert code(tmp_path / "venv" / "repro") == {"commit": None, "dirty": None, "tag": None}


def test_a_checkout_finds_its_results_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert places.home() == ROOT and (places.home() / "results").is_dir()
