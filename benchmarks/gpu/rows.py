"""Rows of a card: each is written the moment it is done, a failure is a row, and none starts when the time is
spent.
"""

from __future__ import annotations

import argparse
import faulthandler
import math
import platform
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from repro.store import write_json

GRACE = 45  # seconds after the end at which a process that hangs is ended, its finished rows being on disk


def arguments(what: str | None, seconds: float) -> argparse.Namespace:
    """The command line that all parts of the card share."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cuda", "cpu"]
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results/benchmarks"), help="folder of gpu-PART.json"
    )
    parser.add_argument(
        "--seconds", type=float, default=seconds, help="no row starts later than this; default %(default)g"
    )
    parser.add_argument("--commit", help="of the code, where there is no git")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: smallest sizes")
    parser.add_argument("--only", nargs="*", help="rows whose names begin with one of these")
    return parser


class Card:
    """The rows of one part, in ``out/gpu-<part>.json``."""

    def __init__(self, part: str, options: argparse.Namespace) -> None:
        self.started, self.options, self.device = time.monotonic(), options, options.device
        self.path = options.out / f"gpu-{part}.json"
        self.found: dict[str, Any] = {"part": part, "tiny": options.tiny, **machine(options), "rows": []}
        if options.device == "cuda":
            faulthandler.dump_traceback_later(options.seconds + GRACE, exit=True)
        # float32 means float32: no TF32.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        self.write()

    @property
    def left(self) -> float:
        """Seconds until no row starts any more."""
        return self.options.seconds - (time.monotonic() - self.started)

    def row(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """Measure, and keep what was found or the first line of what went wrong; ``None`` where there is
        nothing.
        """
        if self.options.only and not name.startswith(tuple(self.options.only)):
            return None
        if self.left <= 0:
            self.keep({"row": name, "error": "not started: the time was spent"})
            return None
        began = time.monotonic()
        try:
            with at_most(self.left + GRACE / 2):
                found, failed = measure(), None
        except Exception as error:  # a failure is a finding; the next row is another matter
            traceback.print_exc()
            found, failed = None, error
        settle(self.device)
        row = {"row": name, "seconds": round(time.monotonic() - began, 2)}
        self.keep(row | (found if failed is None else {"error": first_line(failed)}))
        return found

    def keep(self, row: dict[str, Any]) -> None:
        """Append a row and write the file."""
        self.found["rows"].append(finite(row))
        self.write()
        print(f"{time.monotonic() - self.started:6.1f} s  {row}", flush=True)

    def write(self) -> None:
        """Write the file, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.found["seconds"] = round(time.monotonic() - self.started, 1)
        write_json(self.path, self.found)

    def end(self) -> int:
        """The exit code: 1 where a row failed or found what it should not have."""
        faulthandler.cancel_dump_traceback_later()
        bad = [row["row"] for row in self.found["rows"] if "error" in row or row.get("ok") is False]
        print(
            f"{self.path}: {len(self.found['rows'])} rows"
            + (f"; not as it should be: {', '.join(bad)}" if bad else "")
        )
        return int(bool(bad))


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """What the numbers belong to."""
    import transformers

    from repro.store.origin import code

    cuda = options.device == "cuda"
    about = {
        "card": (
            torch.cuda.get_device_name()
            if cuda
            else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
        ),
        "memory_gb": round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1) if cuda else None,
        "driver": driver() if cuda else None,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "commit": options.commit or code(Path(__file__).parent)["commit"],
        "date": time.strftime("%Y-%m-%d"),
    }
    return about


def driver() -> str | None:
    """The version of the GPU's driver, as nvidia-smi says it."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return (
            subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
            .stdout.split("\n")[0]
            .strip()
        )
    except (OSError, subprocess.SubprocessError):
        return None


class OverTime(Exception):
    """A row that took longer than the card has."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise :class:`OverTime` in the block after ``seconds``, where Python is reached at all."""

    def over(*_: object) -> None:
        raise OverTime(f"stopped after {seconds:.0f} s: the card's time was spent")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(1.0, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def settle(device: str) -> None:
    """Free what a row left; an error of the device itself must not end the rows that are to come."""
    import gc

    gc.collect()
    if device == "cuda":
        try:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        except RuntimeError as error:
            print(first_line(error), file=sys.stderr)


def first_line(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"


def finite(value: Any) -> Any:
    """What JSON can hold: numbers that are not finite by their name."""
    if isinstance(value, dict):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def wait(device: str) -> None:
    """Until the device has done what it was given, so that a time is a time."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_gb(device: str) -> float | None:
    """Largest memory of the device since the last call."""
    if device != "cuda":
        return None
    found = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return round(found, 2)


def alternate(
    contenders: dict[str, Callable[[], Any]], rounds: int, device: str
) -> dict[str, dict[str, Any]]:
    """Median ``seconds`` of each contender over ``rounds`` in turn, after one that warms up, and its
    ``peak_gb``.

    One that fails, out of memory say, is its error and takes no further part.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    found: dict[str, dict[str, Any]] = {name: {} for name in contenders}
    for round_ in range(rounds + 1):
        for name in list(contenders)[:: 1 if round_ % 2 else -1]:
            if "error" in found[name]:
                continue
            try:
                wait(device)
                peak_gb(device)
                began = time.perf_counter()
                contenders[name]()
                wait(device)
                times[name].append(time.perf_counter() - began)
                found[name]["peak_gb"] = peak_gb(device)
            except OverTime:
                raise
            except Exception as error:
                traceback.print_exc()
                found[name] = {"error": first_line(error)}
                settle(device)
    for name, measured in times.items():
        if "error" not in found[name]:
            found[name] |= {
                "first_seconds": measured[0],
                "seconds": statistics.median(measured[1:] or measured),
            }
    return found
