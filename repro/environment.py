"""What the environment may not decide: results and identity are those of the settings, wherever a command is
started.
"""

from __future__ import annotations

import atexit
import ctypes
import io
import os
import select
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from repro.secrecy import hidden

# Left by a launcher in the shell of a cluster's job. A run is one process; it starts its own ranks
# (train.launcher).
LAUNCHED = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "NODE_RANK",
    "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip
# Of another run of W&B: with them every arm would be one and the same run.
WANDB = (
    "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_SWEEP_ID", "WANDB_MODE",
    "WANDB_DISABLED",
    "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_DIR", "WANDB_TAGS", "WANDB_NOTES", "WANDB_JOB_TYPE",
)  # fmt: skip

# glibc gives what is freed back to the system and has it zeroed anew for the next tensor, page by page.
# Kept instead, scoring and training on an AMD EPYC were 6 to 10 % faster; results are the same.
# Variable: number of mallopt, bytes.
MALLOC = {
    "MALLOC_TRIM_THRESHOLD_": (-1, 512 << 20),
    "MALLOC_TOP_PAD_": (-2, 64 << 20),
    "MALLOC_MMAP_THRESHOLD_": (-3, 32 << 20),  # the largest it takes
}

# A thread of OpenMP waits for the others in a busy loop, by default for milliseconds: beside other work on
# the same cores it burns the time that they need (benchmarks/waiting.py, docs/speed.md).
SPINS = "1000"  # GOMP_SPINCOUNT, which libgomp reads as it is loaded, so before torch

program = ""  # how the command was started, where it was not ``python -m``: "repro run"


def forget(names: tuple[str, ...]) -> None:
    """Take variables out of this process's environment and out of that of all it starts."""
    for name in names:
        os.environ.pop(name, None)


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for this process and all it starts in the block; what stood there comes back
    afterwards.
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def prepare(restart: bool) -> None:
    """For the doors: no leftovers of a launcher, files in UTF-8 whatever the locale, no traceback for a
    terminal's alphabet, for a reader that has seen enough or for Ctrl-C.

    ``restart``: this is a command and not a call. In a locale of another encoding it starts again in Python's
    UTF-8 mode, in the same process.
    """
    forget(LAUNCHED)
    keep_memory()
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS
    if restart and not sys.flags.utf8_mode and sys.getfilesystemencoding().lower().replace("-", "") != "utf8":
        os.environ["PYTHONUTF8"] = "1"
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if restart:
        _interrupt_in_a_word()
    if restart and isinstance(sys.stdout, io.TextIOWrapper) and hasattr(select, "poll"):  # not on Windows
        _let_readers_leave(sys.stdout.fileno())


def _interrupt_in_a_word() -> None:
    """Ctrl-C where a door says nothing of its own, while it still imports for one: the shell sees the signal,
    as from any command. Other errors are told without secrets.
    """

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted", file=sys.stderr, flush=True)
        else:
            said = "".join(traceback.format_exception(kind, error, trace))
            print(hidden(said), end="", file=sys.stderr, flush=True)

    sys.excepthook = hook


def _let_readers_leave(output: int) -> None:
    """``| head``: a command whose reader is gone ends without a word, whichever line finds that out."""
    known = sys.excepthook

    def left() -> bool:
        asked = select.poll()
        asked.register(output, 0)
        return any(event & select.POLLERR for _, event in asked.poll(0))

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        # another pipe, of a worker for one, is a fault
        if not (issubclass(kind, BrokenPipeError) and left()):
            known(kind, error, trace)

    def rest() -> None:
        if left():  # what is still to be written has nobody to read it
            os.dup2(os.open(os.devnull, os.O_WRONLY), output)

    sys.excepthook = hook
    atexit.register(rest)


def keep_memory() -> None:
    """This process and all it starts keep what they free, up to half a gigabyte each, where the C library is
    glibc and the user has set none of this.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in MALLOC):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for name, (number, size) in MALLOC.items():
        os.environ[name] = str(size)
        if mallopt is not None:
            mallopt(number, size)


def quiet(device: str) -> None:
    """Keep the libraries' own chatter off the terminal; warnings that matter reach the user through this
    project.
    """
    os.environ.setdefault("DS_ACCELERATOR", device)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("WANDB_SILENT", "true")
