"""What a figure was measured on."""

from __future__ import annotations

import sys
from pathlib import Path

PLACES = ("--model", "--items", "--json")  # options that may hold places of this machine


def command(name: str, places: tuple[str, ...] = PLACES) -> str:
    """How the script ``name`` was called, without what says only where something lies."""
    given = [
        word
        for before, word in zip([name, *sys.argv[1:]], sys.argv[1:], strict=False)
        if word not in places and before not in places
    ]
    return " ".join(["python -m benchmarks." + name, *given])


def cpu_name() -> str:
    """The processor as the system names it, with the instructions that decide about bfloat16."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "unknown"
    field = {
        line.split(":")[0].strip(): line.partition(":")[2].strip()
        for line in text.splitlines()
        if ":" in line
    }
    known = [
        flag
        for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
        if flag in field.get("flags", "").split()
    ]
    return (
        f"{field.get('model name', 'unknown')} family {field.get('cpu family')} model {field.get('model')},"
        f" {' '.join(known)}"
    )
