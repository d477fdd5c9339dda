"""Running code that a model wrote: HumanEval, MBPP and the like, one subprocess a candidate.

The limits guard against accidents (endless loops, filled memory, a stray ``rm``), and against the network.
They are no prison for code that means harm: that is why ``eval.allow_code_execution`` has to be set by hand.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import evaluate
import numpy as np

from repro.errors import SettingError

SECONDS = 5.0  # wall time and CPU time of one candidate
MEMORY = 2**30  # bytes of address space
FILE = 2**20  # bytes of any file it writes

# Runs in the child before the candidate: no network (a namespace of its own where the kernel grants one; an
# audit hook, which Python code cannot take off again, in any case), no processes, no files written, and
# limits of the kernel.
PRELUDE = f"""
import ctypes, os, resource, sys
for limit, value in ((resource.RLIMIT_AS, {MEMORY}), (resource.RLIMIT_FSIZE, {FILE}),
                     (resource.RLIMIT_CORE, 0), (resource.RLIMIT_CPU, {math.ceil(SECONDS)}),
                     (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_NPROC, 0)):
    resource.setrlimit(limit, (value, value))
try:
    ctypes.CDLL(None).unshare(0x10000000 | 0x40000000)  # CLONE_NEWUSER | CLONE_NEWNET
except (OSError, AttributeError):
    pass
token = sys.stdin.readline().strip()
program = compile(sys.stdin.read(), "<candidate>", "exec")
banned = ("socket.", "subprocess.", "ctypes.", "shutil.", "os.system", "os.exec", "os.posix_spawn",
          "os.spawn", "os.fork", "os.kill", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod",
          "os.chown", "os.link", "os.symlink", "os.truncate", "os.putenv", "signal.pthread_kill", "pty.",
          "ftplib.", "smtplib.", "urllib.", "http.")
writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
def guard(event, arguments, banned=banned, writing=writing):
    if event.startswith(banned) or (
        event == "open" and isinstance(arguments[2], int) and arguments[2] & writing):
        raise PermissionError(event)
write, out, done = os.write, os.dup(1), token.encode()
os.close(1); os.open(os.devnull, os.O_WRONLY)
sys.addaudithook(guard)
exec(program, {{"__name__": "__main__"}})
write(out, done)
"""


def passes(program: str) -> bool:
    """Whether a program runs to its end within the limits; only the standard library is there for it."""
    token = secrets.token_hex(16)  # ending early, even with exit code 0, does not count
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", PRELUDE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"PYTHONHASHSEED": "0", "HOME": folder, "TMPDIR": folder},
            start_new_session=True,
        )
        try:
            out, _ = process.communicate(
                f"{token}\n{program}".encode(errors="surrogatepass"), timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            out = b""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return out == token.encode()


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased estimate of pass@k from ``correct`` of ``n`` samples (Chen et al. 2021, eq. 1)."""
    return 1.0 if n - correct < k else 1.0 - math.comb(n - correct, k) / math.comb(n, k)


class CodeEval:
    """Stands in for ``evaluate.load("code_eval")``, which runs candidates unguarded and is fetched from the
    hub.
    """

    def compute(
        self, references: list[str], predictions: list[list[str]], k: list[int] | None = None, **_: Any
    ) -> tuple[dict[str, float], dict[int, list[bool]]]:
        """pass@k over problems, and which candidates of each problem passed its tests."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            outcomes = {
                index: list(pool.map(passes, [f"{candidate}\n{tests}" for candidate in candidates]))
                for index, (tests, candidates) in enumerate(zip(references, predictions, strict=True))
            }
        scores = {
            f"pass@{size}": float(
                np.mean([pass_at_k(len(found), sum(found), size) for found in outcomes.values()])
            )
            for size in k or [1, 10, 100]
            if all(len(found) >= size for found in outcomes.values())
        }
        return scores, outcomes


@contextlib.contextmanager
def sandbox() -> Iterator[None]:
    """Inside, lm-eval's code tasks get :class:`CodeEval` where they ask for ``code_eval``, and templates of
    tasks no Python.

    A metric that is a file or somebody's repository of the hub is a program, and so is a template without
    Jinja's sandbox.
    """
    import lm_eval.utils
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    original, open_ = evaluate.load, lm_eval.utils.env
    closed = ImmutableSandboxedEnvironment(
        loader=open_.loader, undefined=open_.undefined, keep_trailing_newline=True
    )
    closed.filters.update(open_.filters)

    def load(path: str, *args: Any, **kwargs: Any) -> Any:
        if not re.fullmatch(r"\w+", path) or os.path.exists(path):
            raise SettingError(
                f"the metric {path!r} is a program of its own, which is not run; name one of lm-eval's"
                " metrics"
            )
        return CodeEval() if path == "code_eval" else original(path, *args, **kwargs)

    with mock.patch.object(evaluate, "load", load), mock.patch.object(lm_eval.utils, "env", closed):
        yield
