"""Checkpoints that are complete or absent, and what is done with one that was damaged afterwards."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
from argparse import Namespace
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch.distributed as dist

from repro.errors import SettingError, require
from repro.store import read_json, sha256_file, write_json

TAG = "state"
RANKS = "train.processes"
Setup = dict[str, int | float | str]  # what a run that goes on shares with the one that wrote a checkpoint


def save(engine: Any, folder: Path, step: int, setup: Setup, *beside: Path) -> Path:
    """Write ``folder/step-<step>``: all ranks into a temporary folder, then checksums, then one rename.

    ``step`` counts finished steps. ``setup`` is what a run that resumes must share (ranks, ZeRO stage,
    dtype); ``beside`` are further files to keep with it.
    """
    final = folder / f"step-{step}"
    temporary = folder / f".step-{step}.tmp"
    if dist.get_rank() == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    dist.barrier()
    try:
        engine.save_checkpoint(str(temporary), tag=TAG, save_latest=False)
    except RuntimeError as error:
        if shutil.disk_usage(folder).free > 2**20:
            raise
        shutil.rmtree(temporary, ignore_errors=True)  # room to say so
        raise OSError(errno.ENOSPC, f"the disk is full, checkpoint {final} was not written") from error
    if dist.get_rank() == 0:
        for path in beside:
            shutil.copyfile(path, temporary / path.name)
    dist.barrier()
    sums = _checksums(temporary)
    if dist.get_rank() == 0:
        write_json(temporary / "manifest.json", {"step": step, "setup": setup, "files": sums})
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
    dist.barrier()
    return final


def _checksums(folder: Path) -> dict[str, str]:
    """sha256 of every file; each rank hashes its share."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    mine = {
        str(path.relative_to(folder)): sha256_file(path)
        for path in files[dist.get_rank() :: dist.get_world_size()]
    }
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    return {name: sha for part in everyone for name, sha in sorted(part.items())}


def listed(folder: Path) -> list[Path]:
    """Published checkpoints, oldest first."""
    return sorted(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or ``None``."""
    try:
        manifest = read_json(checkpoint / "manifest.json")
    except (OSError, ValueError):
        return "its manifest cannot be read"
    for name, sha in manifest["files"].items():
        path = checkpoint / name
        if not path.is_file() or sha256_file(path) != sha:
            return f"{name} is missing or differs from its checksum"
    return None


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; damaged ones are passed over with a warning. The same answer on
    every rank.
    """
    found: list[Path | None] = [None]
    if dist.get_rank() == 0:
        for temporary in folder.glob(".step-*.tmp"):
            shutil.rmtree(temporary)
        for checkpoint in reversed(listed(folder)):
            wrong = damage(checkpoint)
            if wrong is None:
                found[0] = checkpoint
                break
            print(
                f"warning: {checkpoint} is damaged ({wrong}); going back to the one before", file=sys.stderr
            )
    dist.broadcast_object_list(found, src=0)
    return found[0]


def restore(engine: Any, checkpoint: Path, setup: Setup) -> int:
    """Load a checkpoint into the engine and return its finished steps.

    It may have been written by another number of ranks, of which some were lost: what ZeRO had split among
    them is put together and split anew. Raises :class:`SettingError` for one written under another setup.
    """
    manifest = read_json(checkpoint / "manifest.json")
    was = manifest["setup"]
    for key, value in setup.items():
        require(
            was.get(key, value) == value or key == RANKS,  # one of an earlier version says less
            f"{checkpoint} was written with {key}={was.get(key)}, this run has {key}={value}; go on with the"
            f" former, or delete {checkpoint.parent} to train from the start",
        )
    other = was.get(RANKS) != setup.get(RANKS)
    if other and dist.get_rank() == 0:
        print(
            f"note: {checkpoint.name} was written by {was[RANKS]} ranks, {setup[RANKS]} go on: the same"
            " tokens in the same order, sums in another",
            file=sys.stderr,
        )
    with redirect_stdout(io.StringIO()):
        if other and int(setup["train.zero_stage"]) > 0:
            loaded = _load_split_anew(engine, checkpoint)
        else:
            loaded, _ = engine.load_checkpoint(str(checkpoint), tag=TAG)
    if loaded is None:
        raise SettingError(
            f"{checkpoint} cannot be loaded by DeepSpeed; delete it to go back to the one before"
        )
    return manifest["step"]


def _load_split_anew(engine: Any, checkpoint: Path) -> str | None:
    """By way of a universal checkpoint: DeepSpeed's, a file for each parameter and moment, whole."""
    from deepspeed.checkpoint import ds_to_universal

    whole = checkpoint.parent / f".{checkpoint.name}.universal.tmp"
    if dist.get_rank() == 0:
        shutil.rmtree(whole, ignore_errors=True)
        (whole / TAG).mkdir(parents=True)
        given = {"input_folder": str(checkpoint / TAG), "output_folder": str(whole / TAG)}
        how = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False}
        with redirect_stderr(io.StringIO()):  # its bars
            ds_to_universal.main(Namespace(**given, **how, strict=True, inject_missing_state=True))
    dist.barrier()
    engine._config.load_universal_checkpoint = True
    try:
        loaded, _ = engine.load_checkpoint(str(whole), tag=TAG)
    finally:
        engine._config.load_universal_checkpoint = False
    dist.barrier()
    if dist.get_rank() == 0:
        shutil.rmtree(whole)
    return loaded


def prune(folder: Path, keep: int) -> None:
    """Keep the last ``keep`` checkpoints."""
    if dist.get_rank() == 0:
        for checkpoint in listed(folder)[:-keep]:
            shutil.rmtree(checkpoint)
