"""How the ranks of a training are started. One device needs no launcher: the training runs in this very process."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from repro.config import SettingError, require
from repro.pretrain.cost import must_fit
from repro.pretrain.job import Job
from repro.pretrain.loop import train
from repro.pretrain.worker import ANSWER
from repro.store import read_json

RANKS_PER_NODE = 8

SBATCH = """#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={ranks}
#SBATCH --exclusive
#SBATCH --output={out}/slurm-%j.log
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun {python} -m torch.distributed.run --nnodes={nodes} --nproc-per-node={ranks} \\
    --rdzv-backend=c10d --rdzv-endpoint="$head:29500" --rdzv-id="$SLURM_JOB_ID" -m repro.pretrain.worker {job}
"""


def command(job: Job, path: Path) -> list[str]:
    """The command that starts every rank of ``job``, whose JSON is at ``path``."""
    s, python = job.train, sys.executable
    if s.launcher == "torchrun":
        ranks = ["--standalone", f"--nproc-per-node={s.processes}"]
        return [python, "-m", "torch.distributed.run", *ranks, "-m", "repro.pretrain.worker", str(path)]
    if s.launcher == "deepspeed":
        nodes = ["--hostfile", s.hostfile] if s.hostfile else [f"--num_gpus={s.processes}"]
        return [python, "-m", "deepspeed.launcher.runner", *nodes, "--module", "repro.pretrain.worker", str(path)]
    ranks = min(s.processes, RANKS_PER_NODE)
    require(
        s.processes % ranks == 0,
        f"train.processes={s.processes} must be a multiple of {RANKS_PER_NODE}, the ranks of a node, with train.launcher=slurm",
    )
    script = path.with_suffix(".sbatch")
    script.write_text(
        SBATCH.format(
            name=f"{job.arm}-seed{job.seed}",
            nodes=s.processes // ranks,
            ranks=ranks,
            out=shlex.quote(job.out),
            python=shlex.quote(python),
            job=shlex.quote(str(path)),
        )
    )
    return ["sbatch", "--wait", str(script)]


def memory_of_rank(job: Job) -> float | None:
    """Bytes a rank has on this machine's devices; ``None`` where they are elsewhere (a cluster's head node)."""
    import torch

    if job.device == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    if job.device == "cpu" and job.train.launcher in ("inprocess", "torchrun"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / job.train.processes
    return None


def launch(job: Job) -> dict[str, Any]:
    """Train ``job`` with its launcher and return its facts; raises :class:`SettingError` for what cannot fit."""
    must_fit(job.model, job.train, memory_of_rank(job), shutil.disk_usage(job.out).free)
    if job.train.launcher == "inprocess":
        require(
            job.train.processes == 1,
            f"train.processes={job.train.processes} needs a launcher; set train.launcher=torchrun, deepspeed or slurm",
        )
        return train(job)
    path, answer = Path(job.out) / "job.json", Path(job.out) / ANSWER
    path.write_text(job.to_json())
    answer.unlink(missing_ok=True)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    }
    environment.setdefault("OMP_NUM_THREADS", "1")
    line = command(job, path)
    try:
        code = subprocess.run(line, env=environment).returncode
    except FileNotFoundError:
        raise SettingError(f"train.launcher={job.train.launcher} needs {line[0]!r}, which is not on this machine") from None
    said = read_json(answer) if answer.is_file() else {"error": f"no rank answered; see the output of: {shlex.join(line)}"}
    if code or "error" in said:
        raise SettingError(said.get("error", f"a rank failed with exit code {code}: {shlex.join(line)}"))
    for name in (path, answer):
        name.unlink()
    return said["facts"]
