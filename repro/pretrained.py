"""Hugging Face folders: weights that are loaded whole or refused, and the one way in which text becomes
tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from repro.errors import SettingError, require
from repro.fetch import hub_access, retries
from repro.plain import Json

SHOWN = 3  # tensors named in a message


def fuse_float32() -> None:
    """On a GPU give each query head keys of its own in float32: no fused kernel of CUDA shares them in this
    precision.

    transformers asks for sharing, and torch then holds all scores of a layer at once.
    """
    from transformers.integrations import sdpa_attention

    original = sdpa_attention.use_gqa_in_sdpa
    if original.__name__ == "shared":
        return

    def shared(attention_mask: Any, key: Any, *others: Any) -> bool:
        return not (key.is_cuda and key.dtype.itemsize == 4) and original(attention_mask, key, *others)

    sdpa_attention.use_gqa_in_sdpa = shared


def load_model(
    place: Path | str, kind: str = "AutoModelForCausalLM", unused: Sequence[str] = (), **options: Any
) -> Any:
    """A model in evaluation mode from safetensors (or ``gguf_file``), every one of its weights from the file.

    transformers leaves weights random that the file does not have, or has under another name, and passes over
    those that the model does not have. Here each is an error; weights that are tied to another one, and
    buffers that are computed, need not be there. No code that comes with a model is run.

    Args:
        place: a folder, or owner/name of the hub.
        kind: the transformers class.
        unused: prefixes of tensors that the caller does not use, and that may be missing or too many.
        options: of ``from_pretrained``.

    Raises:
        SettingError: in words that follow the name of the folder. What the library raises is passed on.
    """
    import transformers

    fuse_float32()
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # its own report is a table of many lines
    transformers.logging.disable_progress_bar()
    if "gguf_file" in options:  # its bar asks nobody
        from transformers import modeling_gguf_pytorch_utils as gguf

        gguf.tqdm = partial(tqdm, disable=True)
    if "gguf_file" not in options:
        options["use_safetensors"] = True
    try:
        model, found = getattr(transformers, kind).from_pretrained(
            place, trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    finally:
        transformers.logging.set_verbosity(verbosity)
    faults = [
        _named("missing", found["missing_keys"], unused),
        _named("not the model's", found["unexpected_keys"], unused),
        _named(
            "of another shape",
            (f"{name} {list(has)}, not {list(needs)}" for name, has, needs in found["mismatched_keys"]),
        ),
        *found["error_msgs"],
    ]
    if faults := [fault for fault in faults if fault]:
        raise SettingError(
            f"its weights do not fit its config.json: {'; '.join(faults)}; fetch or export the model again"
        )
    return model.eval()


def _named(fault: str, names: Iterable[str], unused: Sequence[str] = ()) -> str:
    listed = sorted(name for name in names if not name.startswith(tuple(unused)))
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return f"{len(listed)} tensors are {fault} ({', '.join(listed[:SHOWN])}{more})" if listed else ""


def load_tokenizer(place: Path | str, **options: Any) -> Any:
    """The tokenizer of a folder, or of owner/name of the hub. No code that comes with it is run."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(place, trust_remote_code=False, **options)


class Encoder:
    """Text to token ids, the same in training, scoring and evaluation.

    A text is text: what spells a special token in it (``<|endoftext|>``) is encoded letter by letter, and
    nothing is added to it, at neither end. ``prefix`` holds the token ids that the tokenizer itself puts
    before every text (a BOS): the model was trained so, and whoever feeds it a text from its beginning puts
    them there. What a tokenizer appends (EOS, SEP) says that the text is over, and is never part of what is
    scored.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        body = self.one("a")
        whole = list(tokenizer("a", verbose=False)["input_ids"])
        starts = [at for at in range(len(whole) - len(body) + 1) if whole[at : at + len(body)] == body]
        self.prefix: list[int] = whole[: starts[0]] if body and starts else []

    def one(self, text: str) -> list[int]:
        """Token ids of one text."""
        return self([text])[0]

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        if isinstance(texts, str):
            raise TypeError("a list of texts is encoded, not one text")
        options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        options |= {"padding": False, "truncation": False, "return_attention_mask": False}
        return self.tokenizer(list(texts), **options)["input_ids"] if len(texts) else []


def on_hub(init_from: str) -> tuple[str, str] | None:
    """Repository and revision of a model of the hub; ``None`` for a folder."""
    if Path(init_from).exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?", init_from):
        return None
    repo, _, revision = init_from.partition("@")
    return repo, revision or "main"


def config(init_from: str) -> Json:
    """``config.json``; of the hub's models it is fetched alone, so that a plan needs no weights."""
    hub = on_hub(init_from)
    if hub is None:
        path = Path(init_from) / "config.json"
        require(
            path.is_file(), f"model.init_from={init_from} is not a Hugging Face model folder (no config.json)"
        )
    else:
        path = _fetched_config(*hub)
    return json.loads(path.read_text())


def _fetched_config(repo: str, revision: str) -> Path:
    from huggingface_hub import hf_hub_download

    from repro.fetch.hub_commits import hub_revision

    try:
        commit = hub_revision(repo, revision, "model")
        found = retries.patiently(
            lambda: hf_hub_download(repo, "config.json", revision=commit), retries.FEW, f"hub, {repo}"
        )
        return Path(found)
    except SettingError:
        raise
    except Exception as error:
        what = f"config.json of {repo}"
        raise SettingError(
            hub_access.refusal(what, error, "the model's name", "give a local folder")
        ) from None
