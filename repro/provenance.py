"""Where a result comes from: the code's commit and tag, the packages, the machine, the command."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any


def provenance() -> dict[str, Any]:
    """Git commit, dirty flag and the tag on that very commit, package versions, Python and machine kind."""
    from importlib.metadata import PackageNotFoundError, version

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    packages: dict[str, str | None] = {}
    for name in ("torch", "transformers", "lm-eval", "datasets", "deepspeed", "wandb", "omegaconf", "numpy"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    status = git("status", "--porcelain")
    return {
        "commit": git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "tag": git("describe", "--tags", "--exact-match"),
        "python": platform.python_version(),
        "packages": packages,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),  # sums, and so last bits, depend on it
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
