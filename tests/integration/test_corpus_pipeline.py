"""Corpora made by tasks on datatrove's executors are those made in one process, to the byte."""

import os
import random
import signal
import stat
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from killing import remove_one_and_die
from test_corpus_stage import make_documents, save

from repro import items
from repro.corpus import pipeline
from repro.corpus.documents import SPLITS, shards
from repro.corpus.pipeline import executors, tasks
from repro.corpus.stage import stage
from repro.errors import SettingError
from repro.items.settings import Items
from repro.settings.execution import Run
from repro.store import Store, read_json

pytest.importorskip("datatrove")


def documents(n):
    """With copies, ids that stand twice, near copies, groups tied by them, short and foreign ones, a large group."""
    made = make_documents(n)
    made += [{**d, "id": d["id"] + "-copy"} for d in made[:60:2]]
    made += [dict(d) for d in made[:20:3]]
    made += [{**d, "domain": "a"} for d in made[1:30:4]]
    made += [{**d, "group": "another"} for d in made[2:30:5]]
    made += [{**d, "text": "changed " + d["text"] * 2} for d in made[1:40:2]]
    made += [
        {**d, "id": f"{d['id']}-of-c", "domain": "c", "group": "one"} for d in make_documents(40, seed=3)
    ]
    made += [{**d, "id": f"{d['id']}-of-e", "domain": "e", "group": ""} for d in make_documents(60, seed=4)]
    made += [{"id": f"s{i}", "domain": "b", "group": "g", "text": "short"} for i in range(9)]
    random.Random(1).shuffle(made)
    return made


def whole(folder):
    """Every file with its bytes, and the counts."""
    files = {p.relative_to(folder): p.read_bytes() for split in SPLITS for p in shards(folder, split)}
    return files, read_json(folder / "counts.json")


def both(tmp_path, settings, how, benchmark=None):
    made = [Store(tmp_path / "one"), Store(tmp_path / "many")]
    if benchmark is not None:
        for store in made:
            store.ensure(benchmark)
    plain = made[0].ensure(stage(settings, benchmark))
    spread = made[1].ensure(stage(settings, benchmark, how))
    return whole(plain), whole(spread)


LOCAL = Run(executor="local", cluster={"tasks": 3, "workers": 2})


def test_the_same_corpus_as_in_one_process(tmp_path):
    benchmark = items.stage(Items("builtin"))
    Store(tmp_path / "items").ensure(benchmark)
    passage = items.out_of_corpus_text(Store(tmp_path / "items").path(benchmark), ["lambada_openai"], 10_000)[
        "lambada_openai"
    ][0]
    made = documents(150)
    made[7]["text"] += " " + " ".join(passage.split()[5:25])
    settings = replace(save(tmp_path / "in", made, 7), minhash="datatrove", max_documents_per_domain=60)
    one, many = both(tmp_path, settings, LOCAL, benchmark)
    assert many[1] == one[1]
    reasons = {"exact_duplicate", "duplicate_id", "too_short", "beyond_the_size_asked_for"}
    assert reasons | {"shares_text_with_a_benchmark"} == set(one[1]["dropped"])
    assert one[1]["domains"]["a"]["in_near_duplicate_clusters"] > 4
    assert "part of one" in one[1]["domains"]["c"]["heldout_by"]
    assert "no group" in one[1]["domains"]["e"]["heldout_by"]
    assert many[0] == one[0] and len(one[0]) > 15


def test_near_copies_dropped_and_the_sample_drawn_last(tmp_path):
    settings = replace(
        save(tmp_path / "in", documents(60), 2), minhash="datatrove", near_duplicates="drop", sample="last",
        max_documents_per_domain=None, max_tokens_per_domain=6_000, decontaminate=False,
    )  # fmt: skip
    one, many = both(tmp_path, settings, replace(LOCAL, cluster={"tasks": 2, "workers": 1}))
    assert many == one and one[1]["dropped"]["near_duplicate"] > 4


class Killed(tasks.Sort):
    """A task whose process is killed at the first try."""

    def __call__(self, data, rank, of):
        mark = self.folder / "killed"
        if rank == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super().__call__(data, rank, of)


class Failing(tasks.Sort):
    def __call__(self, data, rank, of):
        raise ValueError("a bug in the task")


def test_killed_workers_are_replaced_and_failures_told(tmp_path, monkeypatch):
    settings = replace(save(tmp_path / "in", documents(60), 3), minhash="datatrove", near_duplicates="off")
    one = whole(Store(tmp_path / "one").ensure(stage(settings, None)))
    store, made = Store(tmp_path / "many"), stage(settings, None, LOCAL)
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "Sort", Failing)
        with pytest.raises(
            RuntimeError, match="task . : ValueError: a bug in the task|task .: ValueError: a bug"
        ):
            store.ensure(made)
    partial = store.path(made).with_name(store.path(made).name + ".partial")
    (working,) = (partial / "working").iterdir()
    read = (working / "spool/00000.parquet").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "Sort", Killed)
        patch.setattr(pipeline, "discard", lambda *a: None)
        store.ensure(made)
    final = store.path(made)
    assert whole(final) == one
    kept = final / "working" / working.name
    assert (kept / "killed").exists() and (kept / "spool/00000.parquet").stat().st_mtime_ns == read


@pytest.mark.parametrize("number", [0, 5, -1, -3])
def test_killed_while_the_working_folder_is_removed(tmp_path, monkeypatch, number):
    """Whichever file goes first."""
    settings = replace(save(tmp_path / "in", documents(40), 3), minhash="datatrove", near_duplicates="off")
    one = whole(Store(tmp_path / "one").ensure(stage(settings, None)))
    store, made = Store(tmp_path / "many"), stage(settings, None, LOCAL)
    assert remove_one_and_die(monkeypatch, number, lambda: store.ensure(made)) > 9
    assert whole(store.ensure(made)) == one


def test_sorting_goes_on_past_its_memory(tmp_path):
    config = tasks._config(tmp_path, 1) | {"memory_limit": "30MB"}
    with duckdb.connect(config=config) as connection:
        many = "SELECT md5(range::VARCHAR) AS digest FROM range(1_000_000) ORDER BY digest"
        connection.execute(f"COPY ({many}) TO '{tmp_path / 'sorted.parquet'}' (FORMAT parquet)")


def test_other_tasks_begin_anew(tmp_path):
    from repro.store import Context

    context = Context(tmp_path / "corpus-x", {}, "cpu")
    first = pipeline._folder(context, 2)
    assert pipeline._folder(context, 2) == first and first.is_dir()
    assert pipeline._folder(context, 3) != first and not first.exists()


@pytest.mark.slow
def test_slurm_by_a_stand_in_for_sbatch(tmp_path, monkeypatch):
    settings = replace(save(tmp_path / "in", documents(40), 3), minhash="datatrove", near_duplicates="off")
    programs = tmp_path / "bin"
    programs.mkdir()
    scripts = {
        "sbatch": r"""#!/usr/bin/env bash
for last; do :; done
grep -q merge_stats "$last" && { echo "Submitted batch job 9"; exit; }
most=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\).*/\1/p' "$last")
grep -q -- '--partition=cpu' "$last" && grep -q -- '--time=1:00' "$last" || exit 1
for i in $(seq 0 $most); do SLURM_NODELIST=here SLURM_ARRAY_TASK_ID=$i bash "$last" >/dev/null 2>&1; done
echo "Submitted batch job 7"
""",
        "squeue": "#!/usr/bin/env bash\n",
        "scontrol": "#!/usr/bin/env bash\necho here\n",
        "launch_pickled_pipeline": f"#!/usr/bin/env bash\nPYTHONPATH={os.getcwd()}:{Path(__file__).parent} "
        f'exec {os.sys.executable} -m datatrove.tools.launch_pickled_pipeline "$@"\n',
    }
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755 | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(executors, "WITHOUT_A_JOB", 1.0)
    own = {"tasks": 2, "partition": "cpu", "time": "1:00", "with_srun": False}
    one, many = both(tmp_path, settings, Run(executor="slurm", cluster=own))
    assert many == one


@pytest.mark.parametrize(
    ("cluster", "executor", "message"),
    [
        ({}, "lsf", "run.executor"),
        ({"tasks": 0}, "local", "tasks=0 must be"),
        ({"partition": "x"}, "local", "not partition"),
        ({}, "slurm", "partition and run.cluster.time"),
        ({"partition": "x", "time": "1:00"}, "slurm", "no sbatch"),
        ({}, "ray", "pip install ray"),
    ],
)
def test_what_is_not_there_is_one_line(cluster, executor, message, monkeypatch):
    there = executors.importlib.util.find_spec
    monkeypatch.setattr(
        executors.importlib.util, "find_spec", lambda name: None if name == "ray" else there(name)
    )
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SettingError, match=message):
        executors.of(Run(executor=executor, cluster=cluster), "datatrove", "cluster")
    with pytest.raises(SettingError, match="corpus.minhash=datatrove"):
        executors.of(LOCAL, "datasketch", "cluster")
