"""Arms and seeds as jobs of Slurm, by a stand-in for it: one job each, the run needs no GPU, what fails is a row, and
what is there is collected.
"""

import json
import os
import sys
from pathlib import Path

import pytest
from test_stages import start  # noqa: F401

from repro.errors import SettingError
from repro.execution import jobs, stages
from repro.experiments import build
from repro.settings.compose import compose
from repro.settings.root import as_dict, to_yaml

SBATCH = ["run.executor=slurm", "run.sbatch.partition=gpu", "run.sbatch.time=4:00:00", "run.sbatch.gpus=1"]
SBATCH += ["run.sbatch.account=me", "run.sbatch.requeue=true", "run.sbatch.cpus_per_task=4", "device=cpu"]
TESTS = Path(__file__).parent
WORLD = f"""import sys
sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parents[1])!r}]
from trivial import in_world
from repro.execution import jobs, stages
run, stages.in_process = stages.in_process, lambda *a: (setattr(stages, "in_process", run), in_world(*a))[1]
sys.exit(jobs.main([sys.argv[1]]))
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Programs that run a job at once, in the background where ``LATER`` is set, and keep its script."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "world.py").write_text(WORLD)
    scripts = {
        "sbatch": f"""#!/bin/bash
[ "$1" = --parsable ] || exit 3
number=$(($(ls {programs}/*.job 2>/dev/null | wc -l) + 1))
[ -n "$REFUSED" ] && {{ echo "sbatch: error: invalid partition specified: gpu" >&2; exit 1; }}
cp "$2" {programs}/$number.job
log=$(sed -n 's/^#SBATCH --output=//p' "$2"); file=$(sed -n 's/.* -m repro.execution.jobs //p' "$2")
[ -n "$LOST" ] || CUDA_VISIBLE_DEVICES= {sys.executable} {programs}/world.py $file > "${{log/\\%j/$number}}" 2>&1
echo $number
""",
        "squeue": "#!/bin/bash\nexit 0\n",
    }
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for name, seconds in (("LOOK_SECONDS", 0.02), ("QUEUE_SECONDS", 0.0), ("WITHOUT_A_JOB", 0.0)):
        monkeypatch.setattr(jobs, name, seconds)
    return programs


def test_one_job_an_arm_and_seed_and_a_failure_is_a_row(start, slurm, tmp_path):  # noqa: F811
    code, seen, said = start({"random-1": "diverges", "full-0": "killed"}, *SBATCH)
    assert code == 1 and {arm: list(by_seed) for arm, by_seed in seen["arms"].items()} == {
        "full": [1],
        "random": [0],
    }
    reasons = {(row["arm"], row["seed"]): row["reason"] for row in seen["failed"]}
    assert reasons["random", 1] == "the loss is not finite at step 3"
    assert "job " in reasons["full", 0] and "ended before it was done" in reasons["full", 0]
    scripts = [path.read_text() for path in slurm.glob("*.job")]
    assert len(scripts) == 4 and said.out.count(": training, evaluate, in ") == 4
    for option in ("partition=gpu", "time=4:00:00", "gpus=1", "account=me", "requeue\n", "cpus-per-task=4"):
        assert all(f"#SBATCH --{option}" in text for text in scripts), option
    assert {line for text in scripts for line in text.split("\n") if "job-name" in line} == {
        f"#SBATCH --job-name=repro-training-{arm}--seed-{seed}"
        for arm in ("full", "random")
        for seed in (0, 1)
    }
    code, seen, said = start({}, *SBATCH)  # collects what is there, and tries the others again
    assert code == 0 and seen["failed"] == [] and len(list(slurm.glob("*.job"))) == 6
    assert len(list(tmp_path.glob("artifacts/evaluate/*/manifest.json"))) == 4
    code, _, _ = start({}, *SBATCH)
    assert code == 0 and len(list(slurm.glob("*.job"))) == 6


def test_what_slurm_refuses_is_one_line(start, slurm, monkeypatch):  # noqa: F811
    monkeypatch.setenv("REFUSED", "1")
    code, _, said = start({}, *SBATCH)
    assert (
        code == 2
        and "sbatch refused" in said.err
        and "invalid partition specified: gpu; mend run.sbatch" in said.err
    )


def test_a_job_that_is_in_the_queue_still_is_not_submitted_again(start, slurm, monkeypatch):  # noqa: F811
    """A run that was ended left its jobs behind; the next one waits for them."""
    monkeypatch.setenv("LOST", "1")
    assert start({}, *SBATCH)[0] == 1
    monkeypatch.delenv("LOST")
    assert len(list(slurm.glob("*.job"))) == 4
    (slurm / "squeue").write_text(
        f"#!/bin/bash\nfor n in 1 2 3 4; do f=$(sed -n 's/.* -m repro.execution.jobs //p' {slurm}/$n.job)\n"
        f"[ -e {slurm}/$n.ran ] || {{ touch {slurm}/$n.ran; {sys.executable} {slurm}/world.py $f >/dev/null 2>&1 & }}\n"
        "echo $n; done\n"
    )
    code, seen, said = start({}, *SBATCH)
    assert said.out.count("is in the queue still") == 4 and code == 0 and len(list(slurm.glob("*.job"))) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run.sbatch.gpus=1"], "run.executor=None; set run.executor=slurm"),
        (["run.executor=slurm", "run.sbatch.gpus=1"], "device=auto would be what this machine has"),
    ],
)
def test_a_mistake_is_one_line(words, said, start, slurm):  # noqa: F811
    code, _, printed = start({}, *words)
    assert code == 2 and said in printed.err and printed.err.count("\n") == 1


def test_without_slurm_nothing_begins(start, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, said = start({}, *SBATCH)
    assert code == 2 and "there is no sbatch on this machine's PATH" in said.err


def test_a_job_finds_the_settings_of_the_run(tmp_path):
    """Whatever they are: the same settings have the same stages, and a setup is shell."""
    for exp in ("selection_30pct", "paper_mixture"):
        settings = compose([f"exp={exp}", "scale=smoke", *SBATCH, f"work={tmp_path}"])
        (tmp_path / "settings.yaml").write_text(to_yaml(settings))
        found = jobs.read_settings(tmp_path / "settings.yaml")
        assert as_dict(found) == as_dict(settings)
        order = [stage.fingerprint for stage in build(settings).order()]
        assert [stage.fingerprint for stage in build(found).order()] == order
    text = jobs.script(
        "x", tmp_path, {"setup": ["module load cuda", "ulimit -n 4096"], "exclusive": True, "mem": None}
    )
    assert (
        "module load cuda\nulimit -n 4096\ncd " in text
        and "--mem" not in text
        and "#SBATCH --exclusive\n" in text
    )
    with pytest.raises(SettingError, match=r"run\.sbatch\.time holds a line break"):
        jobs.script("x", tmp_path, {"time": "1\n#SBATCH --x"})


def test_a_time_stays_as_it_was_written(tmp_path):
    """YAML takes 4:00:00 for a number of base sixty, and Slurm would take that for minutes: ten days."""
    found = compose(
        ["exp=selection_30pct", *SBATCH, "run.cluster.time=4:00:00", "run.cluster.own=[1:30:00,7]"]
    )
    assert found.run.cluster == {"time": "4:00:00", "own": ["1:30:00", 7]} and found.run.sbatch["gpus"] == 1
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        (TESTS.parents[1] / "configs/exp/selection_30pct.yaml").read_text()
        + "\nrun: {cluster: {time: 2:00:00}}\n"
    )
    assert compose([f"exp={mine}", "run.executor=local"]).run.cluster == {"time": "2:00:00"}


def test_the_corpus_is_made_in_place_unless_it_has_a_cluster_of_its_own():
    own = compose(["exp=selection_30pct", *SBATCH])
    assert own.run.jobs and own.run.of_corpus is None
    both = compose(["exp=selection_30pct", *SBATCH, "run.cluster.partition=cpu"])
    assert both.run.of_corpus == "slurm" and json.loads(json.dumps(both.run.sbatch))["time"] == "4:00:00"
    assert stages.share(own, "cpu").apart is False


def test_jobs_that_begin_alike_and_go_on_otherwise_have_folders_of_their_own(tmp_path, monkeypatch):
    """Two members of a sweep train one model and evaluate it in two ways; a job reads its list when it starts."""
    from repro.execution import jobs
    from repro.settings.compose import compose
    from repro.store import Stage, Store, read_json

    numbers = iter("12345")

    class Done:
        returncode, stderr = 0, ""

        def __init__(self, *_, **__):
            self.stdout = next(numbers)

    monkeypatch.setattr(jobs.subprocess, "run", Done)
    monkeypatch.setattr(jobs, "queued", lambda: {"1": set(), "2": set()})
    settings = compose(["exp=selection_30pct", "scale=smoke"])
    training = Stage("pretrain", "a-0", {}, lambda context: None)
    chains = [
        [training, Stage("evaluate", "a-0", {"limit": n}, lambda context: None, {"m": training})]
        for n in (50, 60)
    ]
    batch = jobs.Batch(lambda: (settings, None, set()), Store(tmp_path))
    places = [batch._submitted(settings, "a, seed 0", chain) for chain in chains]
    for (folder, _), chain in zip(places, chains, strict=True):
        assert read_json(folder / "job.json")["stages"] == [stage.fingerprint for stage in chain]
    assert [number for _, number in places] == ["1", "2"]
    assert batch._submitted(settings, "a, seed 0", chains[0]) == places[0]  # in the queue still
