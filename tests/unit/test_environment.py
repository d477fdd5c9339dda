"""Odd environments: nothing of them reaches results or identity, and no terminal's alphabet ends a run in a traceback."""

import ast
import ctypes
import importlib
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from repro import environment
from repro.tracking import Tracker, Tracking

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "odd",
    [
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"},
    ],
    ids=["C", "ascii", "latin-1", "launched"],
)
def test_a_door_reads_files_and_prints_in_any_environment(odd, tmp_path):
    program = tmp_path / "door.py"
    program.write_text(
        "import os, sys\nfrom pathlib import Path\nfrom repro import environment\n"
        "environment.prepare(restart=True)\nPath(sys.argv[1]).write_text('\u2212 日本')\n"
        "print('a \u2212 b 日本', Path(sys.argv[1]).read_text(), os.environ.get('RANK'))\n",
        encoding="utf-8",
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "PYTHON")) and k != "LANG"}
    done = subprocess.run([sys.executable, str(program), str(tmp_path / "file")], cwd=ROOT, capture_output=True, timeout=60,
                          env=clean | {"PYTHONPATH": str(ROOT)} | odd)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text(encoding="utf-8") == "\u2212 日本"
    assert done.stdout.strip().endswith(b"None")


MADE = """
import hashlib, os, sys
from pathlib import Path
from repro import environment
environment.prepare(restart=True)
if len(sys.argv) > 2:
    os.umask(int(sys.argv[2], 8))
from repro import experiments
from repro.settings.compose import compose
from repro.store import Store
work = Path(sys.argv[1])
settings = compose(["exp=score_corpus", "scale=smoke", "corpus=files", f"corpus.paths=[{work / 'docs.jsonl'}]",
                    "corpus.min_characters=5", f"work={work}"])
stages = experiments.build(settings).order()
for stage in stages:
    print(stage.fingerprint)
for stage in stages:
    if stage.name in ("items", "corpus"):
        folder = Store(work).ensure(stage)
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != "manifest.json":
                print(path.relative_to(folder), hashlib.sha256(path.read_bytes()).hexdigest())
"""


def test_identity_and_outcome_are_the_same_in_any_environment(tmp_path):
    """Time zone, locale, umask, hash seed, and what HF's libraries look for."""
    odd = {
        "TZ": "Asia/Kathmandu", "LC_ALL": "C", "LANG": "tr_TR.UTF-8", "PYTHONHASHSEED": "7", "PYTHONCOERCECLOCALE": "0",
        "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9", "COLUMNS": "20",
        "HF_DATASETS_CACHE": str(tmp_path / "data"), "TRANSFORMERS_OFFLINE": "1", "HF_TOKEN": "hf_" + "x" * 34,
        "PYTHONOPTIMIZE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    clean = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("LC_", "HF_", "PYTHON")) and k not in ("LANG", "TZ")
    }
    said = []
    for name, environment_, arguments in (("a", {}, []), ("b", odd, ["077"])):
        work = tmp_path / name
        work.mkdir()
        texts = [f"Text {i}: Übung macht İstanbul'da 日本 {i * 7}" for i in range(40)]
        rows = [f'{{"text": "{text}", "domain": "d{i % 2}", "id": "{i}"}}' for i, text in enumerate(texts)]
        (work / "docs.jsonl").write_text("\n".join(rows), encoding="utf-8")
        program = tmp_path / "made.py"
        program.write_text(MADE)
        done = subprocess.run([sys.executable, str(program), str(work), *arguments], cwd=ROOT, capture_output=True, text=True,
                              timeout=120, env=clean | {"PYTHONPATH": str(ROOT)} | environment_)  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        said.append(done.stdout)
    assert said[0] == said[1] and said[0].count("\n") > 10


def test_runs_of_wandb_keep_ids_of_their_own(tmp_path, monkeypatch):
    for name, value in {
        "WANDB_RUN_ID": "same",
        "WANDB_RESUME": "allow",
        "WANDB_MODE": "disabled",
        "WANDB_NAME": "x",
    }.items():
        monkeypatch.setenv(name, value)
    ids = []
    for arm in ("a", "b"):
        monkeypatch.setenv("WANDB_RUN_ID", "same")
        tracker = Tracker(tmp_path / arm / "metrics.jsonl", Tracking(wandb="offline"), arm, "exp")
        ids.append((tracker.run.id, tracker.run.name))
        tracker.finish()
    assert ids[0][0] != ids[1][0] and "same" not in dict(ids) and [name for _, name in ids] == ["a", "b"]


def test_what_a_launcher_left_is_forgotten(monkeypatch):
    for name in environment.LAUNCHED:
        monkeypatch.setenv(name, "3")
    environment.prepare(restart=False)
    assert not set(environment.LAUNCHED) & set(os.environ)


def test_what_is_imported_is_declared():
    """Every package that repro/ imports stands in pyproject.toml, not only among what another one happens to need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["cluster"]
    declared = {re.match(r"[\w.-]+", line)[0].lower().replace("-", "_") for line in wanted}
    renamed = {"yaml": "pyyaml", "sklearn": "scikit_learn"}
    imported = set()
    for path in (ROOT / "repro").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module)
    packages = {name.split(".")[0] for name in imported} - sys.stdlib_module_names - {"repro"}
    assert {renamed.get(name, name) for name in packages} <= declared


FAULTS = """
import resource, sys
from repro import environment
if sys.argv[1] == "keep":
    environment.prepare(restart=False)
def work():
    blocks = [bytearray(12 << 20) for _ in range(4)]
    for block in blocks:
        block[:: 4096] = bytes(len(block[:: 4096]))
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="not the C library that is told to keep memory"
)
def test_freed_memory_is_kept_unless_the_user_says_otherwise():
    """Counted in pages that the system had to hand out anew, in a process and in one that it starts."""

    def faults(word, **variables):
        clean = {name: value for name, value in os.environ.items() if name not in environment.MALLOC}
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, word],
            capture_output=True,
            text=True,
            check=True,
            env=clean | {"PYTHONPATH": str(ROOT)} | variables,
        )
        return int(done.stdout)

    left = faults("leave")
    inherited = {name: str(size) for name, (_, size) in environment.MALLOC.items()}
    assert faults("keep") < left / 10 and faults("leave", **inherited) < left / 10
    assert faults("keep", MALLOC_TRIM_THRESHOLD_="131072") > left / 2


@pytest.mark.parametrize("door", [["repro.listing"], ["repro", "settings"], ["repro.run", "--help"]])
def test_a_reader_that_has_seen_enough_gets_no_traceback(door):
    command = subprocess.Popen(
        [sys.executable, "-m", *door], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    command.stdout.close()  # | head -0
    _, said = command.communicate(timeout=120)
    assert said == b""


def test_another_broken_pipe_is_a_fault():
    program = (
        "from repro import environment; environment.prepare(restart=True); raise BrokenPipeError('a worker')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 1 and "BrokenPipeError: a worker" in ended.stderr


@pytest.mark.parametrize(
    ("said", "expected"),
    [({}, environment.SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_threads_wait_without_burning_the_cores_of_others_unless_the_user_says_so(said, expected):
    """Set before torch loads the library that reads it."""
    program = (
        "import os, sys; from repro import environment; environment.prepare(restart=True);"
        "print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    )
    clean = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=clean | said
    )
    assert ended.stdout.split() == [expected, "False"]


def test_ctrl_c_is_a_word_and_the_shell_sees_the_signal():
    program = "from repro import environment; environment.prepare(restart=True); raise KeyboardInterrupt"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "interrupted\n")


@pytest.mark.parametrize(
    ("door", "words", "slow"),
    [
        ("repro.store.__main__", ["unpack", __file__], "repro.store.unpack.unpack"),
        ("repro.evaluate.__main__", ["model", "--items", "builtin"], "repro.evaluate.evaluate.evaluate"),
    ],
)
def test_ctrl_c_says_that_what_is_done_stays_done(door, words, slow, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(slow, interrupted)
    monkeypatch.chdir(tmp_path)
    assert importlib.import_module(door).main(words) == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on from here\n"


def test_every_door_prepares_its_environment():
    """All but the worker: a launcher told it its rank, which the doors forget."""
    doors = {
        str(path.relative_to(ROOT)): path.read_text()
        for path in (ROOT / "repro").rglob("*.py")
        if '__name__ == "__main__"' in path.read_text()
    }
    left = [name for name, text in doors.items() if "environment.prepare(restart=" not in text]
    assert left == ["repro/pretrain/worker.py"] and len(doors) > 10
