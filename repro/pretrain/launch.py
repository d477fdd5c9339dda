"""How the ranks of a training are started. One device needs no launcher: the training runs in this very
process.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from repro import environment
from repro.errors import SettingError, require
from repro.execution import processes
from repro.plain import Json
from repro.pretrain.cost import must_fit
from repro.pretrain.job import Facts, Job
from repro.pretrain.loop import finished, train
from repro.pretrain.settings import Train
from repro.pretrain.worker import ANSWER, LAUNCHED_BY
from repro.store import read_json

SOURCE = Path(__file__).parents[2]  # the repository
POLL_SECONDS = 5  # between two looks at what nodes started by hand have to say

SBATCH = """#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={ranks}
#SBATCH --exclusive
#SBATCH --output={out}/slurm-%j.log
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --cpus-per-task="$SLURM_CPUS_ON_NODE" {python} -m torch.distributed.run \\
    --nnodes={nodes} --nproc-per-node={ranks} \\
    --rdzv-backend=c10d --rdzv-endpoint="$head:29500" --rdzv-id="$SLURM_JOB_ID" -m repro.pretrain.worker {job}
"""


def command(job: Job, path: Path) -> list[str]:
    """The command that starts every rank of ``job``, whose JSON is at ``path``."""
    s, python = job.train, sys.executable
    if s.launcher == "torchrun":
        ranks = ["--standalone", f"--nproc-per-node={s.processes}"]
        return [python, "-m", "torch.distributed.run", *ranks, "-m", "repro.pretrain.worker", str(path)]
    if s.launcher == "deepspeed":
        where = ["--hostfile", s.hostfile] if s.hostfile else [f"--num_gpus={s.processes}"]
        return [
            python,
            "-m",
            "deepspeed.launcher.runner",
            *where,
            "--module",
            "repro.pretrain.worker",
            str(path),
        ]
    script = path.with_suffix(".sbatch")
    script.write_text(
        SBATCH.format(
            name=f"{job.arm}-seed{job.seed}",
            nodes=nodes(s),
            ranks=s.processes // nodes(s),
            out=shlex.quote(job.out),
            python=shlex.quote(python),
            job=shlex.quote(str(path)),
        )
    )
    return ["sbatch", "--parsable", "--wait", str(script)]


def by_hand(job: Job, path: Path) -> str:
    """The line for each node, started by hand, where HEAD is the name of the first and R counts from 0."""
    many = nodes(job.train)
    ranks = ["--nnodes", many, "--nproc-per-node", job.train.processes // many, "--node-rank", "R"]
    head = ["--master-addr", "HEAD", "--master-port", 29500]
    parts = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        *ranks,
        *head,
        "-m",
        "repro.pretrain.worker",
        path,
    ]
    # a job's folders may be relative
    where = f"cd {shlex.quote(os.getcwd())} && PYTHONPATH={shlex.quote(str(SOURCE))}"
    return f"{where} {shlex.join(map(str, parts))}"


def nodes(s: Train) -> int:
    """Machines that the ranks are on."""
    return max(1, s.processes // s.ranks_per_node)


def must_start(s: Train, device: str) -> None:
    """Raise :class:`SettingError` for ranks that the launcher cannot start from this machine."""
    if s.launcher == "inprocess":
        require(
            s.processes == 1,
            f"train.processes={s.processes} needs a launcher; set train.launcher=torchrun, deepspeed, slurm"
            " or manual",
        )
        return
    require(
        ":" not in device,
        f"device={device} is one device; train.launcher={s.launcher} gives each rank its own: set"
        " device=cuda",
    )
    if s.launcher in ("slurm", "manual"):
        require(
            s.processes <= s.ranks_per_node or s.processes % s.ranks_per_node == 0,
            f"train.processes={s.processes} must be a multiple of train.ranks_per_node={s.ranks_per_node}"
            f" with train.launcher={s.launcher}",
        )
    elif s.launcher == "deepspeed" and s.hostfile:
        slots = _slots(Path(s.hostfile))
        require(
            slots == s.processes,
            f"train.processes={s.processes} but {s.hostfile} has {slots} slots; make the two agree",
        )
    else:
        cuda = device.startswith("cuda")
        # ranks of a CPU can share its cores
        here = torch.cuda.device_count() if cuda else max(os.cpu_count() or 1, 8)
        require(
            s.processes <= here,
            f"train.processes={s.processes} is more than the {here} {'GPUs' if cuda else 'CPU ranks'} of this"
            " machine; name the others with train.launcher=deepspeed train.hostfile=FILE, or set"
            " train.launcher=slurm or manual",
        )


def _slots(hostfile: Path) -> int:
    """Ranks of a DeepSpeed hostfile: lines ``name slots=8``."""
    require(
        hostfile.is_file(), f"train.hostfile={hostfile} is not a file; it holds lines like: worker-1 slots=8"
    )
    lines = [line.partition("#")[0].split() for line in hostfile.read_text().splitlines()]
    try:
        return sum(int(line[1].removeprefix("slots=")) for line in lines if line)
    except (IndexError, ValueError):
        raise SettingError(f"train.hostfile={hostfile} must hold lines like: worker-1 slots=8") from None


def memory_of_rank(s: Train, device: str) -> float | None:
    """Bytes a rank has on this machine's devices; ``None`` where they are elsewhere (a cluster's head
    node).
    """
    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    if device == "cpu" and s.launcher in ("inprocess", "torchrun"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / s.processes
    return None


def launch(job: Job) -> Facts:
    """Train ``job`` with its launcher and return its facts; raises :class:`SettingError` for what cannot
    fit.
    """
    if job.train.launcher == "inprocess":
        environment.forget(environment.LAUNCHED)  # or the training would wait for ranks that nobody starts
    if finished(job):
        return train(job)
    must_start(job.train, job.device)
    free = shutil.disk_usage(job.out).free + held(Path(job.out))
    must_fit(job.model, job.train, memory_of_rank(job.train, job.device), free)
    if job.train.launcher == "inprocess":
        return train(job)
    path, answer = Path(job.out).resolve() / "job.json", Path(job.out) / ANSWER
    answer.unlink(missing_ok=True)
    path.write_text(job.to_json())
    if job.train.launcher == "manual":
        line = by_hand(job, path)
        print(
            f"start this on each of {nodes(job.train)} nodes, R = 0, 1, ...; HEAD is the name of the first:\n"
            f"  {line}",
            flush=True,
        )
        while not answer.is_file():
            time.sleep(POLL_SECONDS)
        code = 0
    else:
        code, line = _run(job, path)
    said: Json = (
        read_json(answer) if answer.is_file() else {"error": f"no rank answered; see the output of: {line}"}
    )
    if code or "error" in said:
        raise SettingError(said.get("error", f"a rank failed with exit code {code}: {line}"))
    for name in (path, path.with_suffix(".sbatch"), answer):
        name.unlink(missing_ok=True)
    return said["facts"]


def _run(job: Job, path: Path) -> tuple[int, str]:
    """Run the launcher; returns its exit code and its command line. What it started ends with this run."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
    }
    environment.setdefault("OMP_NUM_THREADS", "1")
    slurm = job.train.launcher == "slurm"
    if not slurm and job.train.hostfile is None:
        environment[LAUNCHED_BY] = str(os.getpid())
    line = command(job, path)
    try:
        launcher = subprocess.Popen(
            line, env=environment, start_new_session=True, stdout=subprocess.PIPE if slurm else None
        )
    except FileNotFoundError:
        raise SettingError(
            f"train.launcher={job.train.launcher} needs {line[0]!r}, which is not on this machine"
        ) from None
    submitted = ""
    try:
        if launcher.stdout is not None:
            submitted = launcher.stdout.readline().decode().strip().partition(";")[0]
            print(f"slurm: job {submitted}", file=sys.stderr, flush=True)
        return launcher.wait(), shlex.join(line)
    except BaseException:
        if submitted:
            subprocess.run(["scancel", submitted], check=False)
        processes.end(launcher)
        raise


def held(folder: Path) -> int:
    """Bytes of a folder, which a run that goes on writes over."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
