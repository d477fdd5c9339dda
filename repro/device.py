"""What a run computes on, and the dtype in which that is fast: what ``device=auto`` and ``dtype=auto`` stand
for.

A CPU without instructions for bfloat16 (AVX2 only: most laptops) emulates it, 30 to 100 times slower than
float32. So a dtype of ``auto`` is bfloat16 where the device multiplies in it at least as fast as in float32,
and float32 elsewhere; it is resolved when settings are composed, before any fingerprint. The product is
measured once a machine and kept in the download cache.
"""

from __future__ import annotations

import math
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from repro.errors import one_of, require
from repro.schema import COUNT, POSITIVE, check, how

# auto: what the device is fast in, resolved before any fingerprint (repro.settings.compose)
DTYPES = ("auto", "bfloat16", "float32")
SECONDS = 0.2  # that a matrix product is measured for
SIZES = {"cpu": (128, 256, 512, 1024), "cuda": (1024, 2048, 4096, 8192)}
# Environment variables that change what a product runs with.
INSTRUCTIONS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS")
VARIABLES = (*INSTRUCTIONS, "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass
class Hardware:
    """What the scale is meant for: used by ``--plan`` only."""

    name: str = how("this machine", "for plans")
    devices: int = how(1, "how many of them", within=COUNT)
    tflops: float | None = how(
        None, "peak of a device in bf16; absent = measured", unit="TFLOP/s", within=POSITIVE
    )
    memory_gb: float | None = how(
        None, "of one device: a training that cannot fit is refused", unit="GB", within=POSITIVE
    )
    utilisation: float = how(0.4, "share of the peak rate that is expected", within="(0, 1]")

    def __post_init__(self) -> None:
        check("hardware", self)


@dataclass(frozen=True)
class Choice:
    """The dtype that ``auto`` stands for, and why."""

    dtype: str
    why: str


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the memory ran out: torch's allocator of the CPU raises a plain
    ``RuntimeError``.
    """
    words = r"out of memory|not enough memory|can't allocate memory"
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and re.search(words, str(error)) is not None
    )


def device_of(wanted: str) -> str:
    """The device that ``auto`` stands for on this machine; any other as it is named."""
    if wanted != "auto":
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def named(wanted: str, name: str = "device") -> None:
    """Refuse what names no device, here or elsewhere; ``name`` is what is typed before it."""
    if not re.fullmatch(r"cuda:\d+", wanted):
        one_of(name, wanted, ("auto", "cpu", "cuda"))


def present(wanted: str, name: str = "device") -> str:
    """The device that ``wanted`` stands for, on this machine: every door asks before it begins anything.

    Raises :class:`SettingError` for what names no device and for a GPU that is not here.
    """
    named(wanted, name)
    device = device_of(wanted)
    if device.startswith("cuda"):
        import torch

        number, found = int(device.partition(":")[2] or 0), torch.cuda.device_count()
        require(number < found, f"{name}={device}: PyTorch finds {found} CUDA devices here; use {name}=auto")
    return device


def gpu_count(device: str) -> int:
    """GPUs that a device stands for: all of this machine, or the one that is named by its number; of a CPU
    none.
    """
    if device != "cuda":
        return int(device.startswith("cuda"))
    import torch

    return torch.cuda.device_count()


def gpus() -> list[str]:
    """The GPUs of this machine by the names CUDA gives them: what runs at once takes them in turn."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """CPU threads of a product, as torch will have them: ``OMP_NUM_THREADS``, else one a core."""
    said = re.match(r"\s*(\d+)", os.environ.get("OMP_NUM_THREADS", ""))
    return int(said[1]) or cores() if said else cores()


def choose(device: str, elsewhere: Hardware | None = None) -> Choice:
    """What ``auto`` is on ``device``.

    A plan gives the scale's hardware as ``elsewhere``: it is chosen for where ``device=auto`` finds no GPU
    here. A run is always on this machine.
    """
    found = device_of(device)
    if found.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():  # a plan: a run refuses the device
            return Choice("bfloat16", "for a GPU that is not here")
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Choice("bfloat16", "this GPU multiplies in it")
        return Choice("float32", "this GPU has no bfloat16 arithmetic")
    here = _of_cpu()
    if elsewhere is not None and elsewhere.tflops is not None and device == "auto":
        return Choice(
            "bfloat16",
            f"for {elsewhere.name}, which the scale names; a run on this machine takes {here.dtype}:"
            f" {here.why}",
        )
    return here


def _of_cpu() -> Choice:
    factor = bfloat16_factor()
    if factor > 1:
        return Choice("float32", f"this CPU emulates bfloat16, {_times(factor)} slower")
    return Choice("bfloat16", f"{_times(1 / factor)} as fast as float32 on this CPU")


def bfloat16_factor() -> float:
    """How many times longer a product takes on this CPU in bfloat16 than in float32.

    At least 2 without the instructions: what a lucky moment says is not believed then.
    """
    rates, flags = measured(), _flags()
    factor = rates["float32"] / rates["bfloat16"]
    # avx512_bf16, amx_bf16; bf16 and svebf16 of Arm
    without = flags is not None and not any("bf16" in flag for flag in flags)
    return max(factor, 2.0) if without else factor


def resolved(dtype: str, device: str, setting: str = "dtype") -> str:
    """``dtype`` where there are no settings: ``auto`` is what ``device`` is fast in, a slow choice is warned
    of.
    """
    if dtype == "auto":
        return choose(device).dtype
    warn_if_emulated({setting: dtype}, device)
    return dtype


def warn_if_emulated(dtypes: dict[str, str], device: str) -> None:
    """Say once, with the measured factor, which settings ask a CPU for what it only emulates. The run goes
    on.
    """
    asking = [name for name, dtype in dtypes.items() if dtype == "bfloat16"]
    if not asking or device_of(device) != "cpu":
        return
    factor = bfloat16_factor()
    if factor > 1:
        print(
            f"warning: {', '.join(asking)}: this CPU emulates bfloat16, its matrix product takes"
            f" {_times(factor)} as long as in float32; auto or float32 is faster here",
            file=sys.stderr,
            flush=True,
        )


class Rates(TypedDict):
    """FLOP/s of this CPU's products, and the day they were measured."""

    float32: float
    bfloat16: float
    measured: str


def measured() -> Rates:
    """FLOP/s of this CPU's ``float32`` and ``bfloat16`` products and the day they were ``measured``.

    Kept in the download cache for machines of this name, instructions, torch and threads; a damaged file
    counts as none.
    """
    from repro.store import read_json, write_json

    path = measurement_file()
    try:
        found = read_json(path)
        if all(math.isfinite(found[dtype]) and found[dtype] > 0 for dtype in ("float32", "bfloat16")):
            return {
                "float32": float(found["float32"]),
                "bfloat16": float(found["bfloat16"]),
                "measured": str(found["measured"]),
            }
    except (OSError, ValueError, TypeError, LookupError):
        pass
    rates: Rates = {
        "float32": matrix_rate("cpu", "float32"),
        "bfloat16": matrix_rate("cpu", "bfloat16"),
        "measured": time.strftime("%Y-%m-%d"),
    }
    try:
        write_json(path, {**rates, "machine": _machine()})
    except OSError:  # a cache that cannot be written: measured again next time
        pass
    return rates


def measurement_file() -> Path:
    """Where this machine's measurement is kept; remove it to measure anew."""
    from repro.store import digest
    from repro.store.cached import cache

    return cache() / "machines" / f"{digest(_machine())[:12]}.json"


def matrix_rate(device: str, dtype: str) -> float:
    """FLOP/s of a square matrix product on ``device``, measured now.

    Takes about :data:`SECONDS`: matrices grow only as far as the rate allows, so that an emulated product
    stays small. On a CPU one thread is measured, by its processor time, and counted as often as torch has
    threads: by the clock, whatever else the machine does would be in the number, twice where a second thread
    has to wait for it.
    """
    import torch

    if device.startswith("cuda"):
        return _rate(SIZES["cuda"], device, dtype, time.perf_counter)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return threads * _rate(SIZES["cpu"], device, dtype, time.thread_time)
    finally:
        torch.set_num_threads(threads)


def _rate(sizes: tuple[int, ...], device: str, dtype: str, clock: Callable[[], float]) -> float:
    product(sizes[0], device, dtype)  # the first of a process starts the library
    begun, larger = clock(), list(sizes)
    while True:
        size, tries = larger.pop(0), list[float]()
        while len(tries) < 2 or clock() - begun < SECONDS:
            started = clock()
            product(size, device, dtype)
            tries.append(clock() - started)
            if larger and tries[-1] < SECONDS / 16:  # the next size takes eight times as long
                break
        else:
            return 2 * size**3 / min(tries)


def product(size: int, device: str, dtype: str) -> None:
    """One [size, size] x [size, size] product, to its end."""
    import torch

    a = torch.ones(size, size, device=device, dtype=getattr(torch, dtype))
    (a @ a)[0, 0].item()  # waits for the device


def _machine() -> dict[str, object]:
    """What the speed of a product depends on; known without importing torch."""
    from importlib.metadata import version

    named = re.search(r"^model name\s*:\s*(.*)$", _cpuinfo(), re.MULTILINE)
    return {
        "cpu": named[1] if named else f"{platform.machine()} {platform.processor()}",
        "flags": sorted(_flags() or ()),
        "torch": version("torch"),
        "threads": cores(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _flags() -> frozenset[str] | None:
    """Instruction sets of this CPU; ``None`` where the system does not list them (macOS, Windows)."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", _cpuinfo(), re.MULTILINE)
    return frozenset(found[1].split()) if found else None


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return ""


def _times(factor: float) -> str:
    return f"{factor:.0f}x" if factor >= 10 else f"{factor:.1f}x"
