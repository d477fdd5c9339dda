"""Models in GGUF files, the format of llama.cpp: looked at, and converted once into a Hugging Face folder.

transformers de-quantises; what it would lose without a word is refused here: tensors it has no place for,
positions that are scaled, an attention that is scaled in another way than the family's.
"""

from __future__ import annotations

import functools
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from repro.errors import SettingError, first_line, require
from repro.plain import Json
from repro.pretrained import load_model, load_tokenizer

# whose conversion the tests compare with the model that the file was made of
ARCHITECTURES = ("llama", "qwen2", "gemma3")
WITHOUT_SPACE = "tokenizer.ggml.add_space_prefix"  # false is not read by transformers, for a Llama
# How a byte-level vocabulary splits text before its merges (tokenizer.ggml.pre), of those that the tests
# compare with the models' own; others want more than a split (Llama 3 a BOS and whole words first).
SPLITS = ("gpt-2", "smollm", "qwen2")
GEMMA_HEAD = 256  # of Gemma 3 up to 12B; the 27B has 128 and scales its attention by something else
TOLERANCE = 1e-5  # of the logits, relative to the largest: the same weights on the same machine
SAMPLE = "def add(a, b):\n    return a + b  # 12 + 30 = 42\n\n1.  Café \u65e5\u672c <|endoftext|> end"


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself, without its weights."""

    architecture: str
    name: str  # that the file gives its model
    quantisation: str  # tensors by type, most first
    tensors: int
    parameters: int
    config: Json  # its sizes, as config.json names them
    split: str  # of text by a byte-level vocabulary; empty for a sentencepiece one


def header(path: Path, setting: str = "proxy.path") -> Header:
    """Read and check the header of a file. Takes a fraction of a second.

    Raises :class:`SettingError` for what is no GGUF file, is cut short or damaged, or cannot be converted
    faithfully.
    """
    require(path.is_file(), f"{setting}={path} is not a file; give a .gguf file")
    try:
        status = path.stat()
        return _header(path, setting, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise SettingError(f"{setting}={path} cannot be read ({error.strerror})") from None


@functools.lru_cache(maxsize=32)
def _header(path: Path, setting: str, size: int, changed: int) -> Header:
    with open(path, "rb") as handle:
        require(
            handle.read(4) == b"GGUF",
            f"{setting}={path} is no GGUF file; for a Hugging Face folder use proxy=folder",
        )
    try:
        read = _reader(skip=True)(path)
        values = {name: field.contents() for name, field in read.fields.items() if len(field.data) == 1}
        lengths = {name: int(field.parts[-1][0]) for name, field in read.fields.items() if not field.data}
        tensors = {tensor.name: tensor for tensor in read.tensors}
    except Exception as error:  # a damaged file fails anywhere in the library's reader
        reason = str(error).strip().split("\n")[0] or "it has no end"
        raise SettingError(
            f"{setting}={path} is cut short or damaged ({size:,} bytes: {reason}); fetch it again"
        ) from None
    architecture = str(values.get("general.architecture"))
    own = {name.removeprefix(f"{architecture}."): value for name, value in values.items()}
    _check_supported(f"{setting}={path}", architecture, own, tensors)
    split = str(values.get("tokenizer.ggml.pre")) if values.get("tokenizer.ggml.model") == "gpt2" else ""
    require(
        not split or split in SPLITS,
        f"{setting}={path} splits text as {split!r} (tokenizer.ggml.pre), which is not converted;"
        f" {', '.join(SPLITS)} are; use the model's own Hugging Face folder with proxy=folder",
    )
    names = {
        "num_hidden_layers": "block_count",
        "hidden_size": "embedding_length",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "intermediate_size": "feed_forward_length",
        "max_position_embeddings": "context_length",
    }
    config = {theirs: int(own[ours]) for theirs, ours in names.items() if ours in own}
    config |= {
        "vocab_size": lengths.get("tokenizer.ggml.tokens", 0),
        "tie_word_embeddings": "output.weight" not in tensors,
    }
    types = Counter(tensor.tensor_type.name for tensor in tensors.values())
    return Header(
        architecture,
        str(values.get("general.name", path.stem)),
        ", ".join(f"{kind} {number}" for kind, number in types.most_common()),
        len(tensors),
        sum(prod(map(int, tensor.shape)) for tensor in tensors.values()),
        config,
        split,
    )


def _check_supported(what: str, architecture: str, own: Json, tensors: Json) -> None:
    require(
        architecture in ARCHITECTURES,
        f"{what} holds a model of architecture {architecture!r}, which is not converted;"
        f" {', '.join(ARCHITECTURES)} are; use the model's own Hugging Face folder with proxy=folder",
    )
    require(
        int(own.get("split.count", 1)) <= 1,
        f"{what} is one of {own.get('split.count')} parts; join them first (llama-gguf-split --merge)",
    )
    scaled = own.get("rope.scaling.type", "none") != "none" or "rope_freqs.weight" in tensors
    odd = architecture == "gemma3" and own.get("attention.key_length") != GEMMA_HEAD
    bare = (
        architecture == "llama"
        and own.get("tokenizer.ggml.model") == "llama"
        and not own.get(WITHOUT_SPACE, True)
    )
    reasons = {
        "the scaling of its positions": scaled,
        "its own scaling of attention": odd,
        "that no space is put before a text": bare,
    }
    lost = next((reason for reason, is_so in reasons.items() if is_so), None)
    require(
        lost is None,
        f"{what}: the conversion would lose {lost}; use the model's own Hugging Face folder with"
        " proxy=folder",
    )


def convert(path: Path, target: Path) -> Json:
    """Write the model and the tokenizer of a GGUF file to the folder ``target``: float32, as the file
    de-quantises.

    The folder is loaded again and must give the logits and the token ids of the file's own. Returns facts for
    the manifest. Raises :class:`SettingError`. Takes twice the memory of the model's weights in float32 for a
    moment.
    """
    import torch
    import transformers

    about = header(path)
    options: Json = {"dtype": torch.float32}
    if hasattr(transformers, "GgufConfig"):  # newer versions may leave the weights packed
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    # Alone in a folder: what lies beside the file (another model's tokenizer_config.json) must not be read
    # into it.
    with _quick(), tempfile.TemporaryDirectory(dir=target.parent) as folder:
        (Path(folder) / path.name).symlink_to(path.resolve())
        try:
            model = load_model(folder, gguf_file=path.name, **options)
            tokenizer = load_tokenizer(folder, gguf_file=path.name)
        except SettingError as error:
            raise SettingError(f"cannot convert {path}: {error}") from None
        except Exception as error:  # whatever a foreign file provokes in the library is the file's fault
            raise SettingError(f"cannot convert {path}: {first_line(error)}") from error
    _split(tokenizer, about.split)
    ours = sum(1 for _ in model.named_parameters())
    require(
        about.tensors == ours,
        f"cannot convert {path}: it holds {about.tensors} tensors and a {about.architecture} of its sizes"
        f" {ours}; the others would be lost; use the model's own Hugging Face folder with proxy=folder",
    )
    require(
        len(tokenizer) <= model.get_input_embeddings().weight.shape[0],
        f"cannot convert {path}: its tokenizer has {len(tokenizer)} entries and its model embeds "
        f"{model.get_input_embeddings().weight.shape[0]}",
    )
    ids = torch.arange(32)[None] * 31 % model.config.vocab_size
    with torch.inference_mode():
        expected = model(input_ids=ids, use_cache=False).logits
    _savable(model).save_pretrained(target)
    tokenizer.save_pretrained(target)
    del model
    converted = load_model(target, dtype=torch.float32)
    with torch.inference_mode():
        difference = float((converted(input_ids=ids, use_cache=False).logits - expected).abs().max())
    require(
        difference <= TOLERANCE * float(expected.abs().max())
        and load_tokenizer(target)(SAMPLE) == tokenizer(SAMPLE),
        f"the conversion of {path} differs from the file (logits by {difference:.3g}); it cannot be used",
    )
    return {
        "architecture": about.architecture,
        "model_name": about.name,
        "quantisation": about.quantisation,
        "parameters": about.parameters,
        "logits_difference": difference,
    }


def _split(tokenizer: Any, split: str) -> None:
    """Let a byte-level tokenizer split text as its file says; transformers takes what it does not know for
    GPT-2's.
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    if split == "smollm":  # white space before a digit ends with it: "\n\n1" is two tokens
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
            [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
        )
    plain = isinstance(tokenizer.backend_tokenizer.pre_tokenizer, ByteLevel)
    require(
        not split or plain == (split == "gpt-2"),
        f"this version of transformers does not split text as {split!r}; install a newer one",
    )


def _savable(loaded: Any) -> Any:
    """The same tensors in a model that can be saved: transformers refuses to save one that came from GGUF."""
    import torch

    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    return model


def _reader(skip: bool) -> Any:
    """gguf's reader of a plain array: it makes an object of every entry of a vocabulary, and of a memory map
    these take ten times as long. With ``skip`` lists are passed over, and only their length is kept.
    """
    import gguf
    import numpy as np

    class Reader(gguf.GGUFReader):
        def _get(self, *arguments: Any, **options: Any) -> Any:
            self.data = np.asarray(self.data)
            return super()._get(*arguments, **options)

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if not skip or gguf.GGUFValueType(raw_type) != gguf.GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            inner, length = self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)
            at, kind_of = orig_offs + 12, gguf.GGUFValueType(int(inner[0]))
            if kind_of == gguf.GGUFValueType.STRING:
                data = self.data.data
                for _ in range(int(length[0])):
                    at += 8 + struct.unpack_from("<Q", data, at)[0]
            else:
                at += int(length[0]) * np.dtype(self.gguf_scalar_to_np[kind_of]).itemsize
            return at - orig_offs, [inner, length], [], [gguf.GGUFValueType.ARRAY, kind_of]

    return Reader


@contextmanager
def _quick() -> Iterator[None]:
    """Within the block, transformers reads a GGUF file once and quickly, where it would read it four times
    and slowly.
    """
    import gguf

    theirs = gguf.GGUFReader
    gguf.GGUFReader = functools.cache(_reader(skip=False))
    try:
        yield
    finally:
        gguf.GGUFReader = theirs
