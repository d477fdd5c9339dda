"""What a figure was measured on."""

from __future__ import annotations

from pathlib import Path


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
