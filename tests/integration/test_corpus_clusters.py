"""The same corpus through a real Slurm and a real Ray, where they are (docs/cluster.md); skipped elsewhere."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from test_corpus_pipeline import both, documents
from test_corpus_stage import save

from repro.corpus.pipeline import executors, slurm, tasks
from repro.errors import SettingError
from repro.settings.execution import Run

pytestmark = pytest.mark.slow


def up(*command):
    """Whether a cluster answers."""
    return (
        shutil.which(command[0]) is not None and subprocess.run(command, capture_output=True).returncode == 0
    )


@pytest.fixture
def own(monkeypatch):
    """Settings of ``run.cluster`` for the Slurm that answers."""
    if not up("sinfo", "-h"):
        pytest.skip("no Slurm answers here")
    partition = subprocess.run(["sinfo", "-h", "-o", "%R"], capture_output=True, text=True).stdout.split()[0]
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{os.getcwd()}:{Path(__file__).parent}")
    name = f"repro-test-{os.getpid()}"
    return {"tasks": 2, "workers": 2, "partition": partition, "time": "0:10:00", "mem_per_cpu_gb": 1,
            "job_name": name}  # fmt: skip


def left(own):
    """What of the test is still in the queue."""
    return subprocess.run(["squeue", "-h", "-n", own["job_name"]], capture_output=True, text=True).stdout


class Cancelled(tasks.Sort):
    """A task that is cancelled at the first try, as by an operator or with its node."""

    def __call__(self, data, rank, of):
        mark = self.folder / "cancelled"
        if rank == 1 and not mark.exists():
            mark.touch()
            job, task = os.environ["SLURM_ARRAY_JOB_ID"], os.environ["SLURM_ARRAY_TASK_ID"]
            subprocess.run(["scancel", f"{job}_{task}"], check=True)
            time.sleep(60)
        super().__call__(data, rank, of)


def test_slurm_and_a_task_that_is_lost(tmp_path, monkeypatch, own):
    settings = replace(save(tmp_path / "in", documents(150), 3), minhash="datatrove")
    monkeypatch.setattr(tasks, "Sort", Cancelled)
    monkeypatch.setattr(executors, "WITHOUT_A_JOB", 5.0)
    one, many = both(tmp_path, settings, Run(executor="slurm", cluster=own))
    assert many == one and not left(own)


def test_slurm_refuses_in_one_line(tmp_path, own):
    settings = replace(save(tmp_path / "in", documents(40), 3), minhash="datatrove")
    how = Run(executor="slurm", cluster=own | {"partition": "no-such-partition"})
    with pytest.raises(SettingError, match="sbatch refused, see the line above"):
        both(tmp_path, settings, how)


def test_a_run_that_ends_takes_its_jobs_with_it(tmp_path, capsys, monkeypatch, own):
    """Its partition is down, so its job waits, and says so; then the run is interrupted."""
    settings = replace(save(tmp_path / "in", documents(40), 3), minhash="datatrove")
    queued, asked = slurm.Jobs.queued, []

    def interrupted(jobs):
        asked.append(queued(jobs))
        if capsys.readouterr().out.count("waits: ") or len(asked) > 100:
            raise KeyboardInterrupt
        return asked[-1]

    subprocess.run(["scontrol", "update", f"PartitionName={own['partition']}", "State=DOWN"], check=True)
    monkeypatch.setattr(slurm.Jobs, "queued", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            both(tmp_path, settings, Run(executor="slurm", cluster=own))
    finally:
        subprocess.run(["scontrol", "update", f"PartitionName={own['partition']}", "State=UP"], check=True)
    assert len(asked) < 100 and all(asked) and not left(own)


def test_ray(tmp_path):
    """A cluster of two nodes, each with one core: two tasks at once need both."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    settings = replace(save(tmp_path / "in", documents(150), 3), minhash="datatrove")
    cluster = Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        one, many = both(tmp_path, settings, Run(executor="ray", cluster={"tasks": 2, "mem_per_cpu_gb": 1}))
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()
    assert many == one
