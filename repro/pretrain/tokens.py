"""A corpus as token ids, once for every arm: a tokenizer, two memory-mapped files and an index.

The folder of the artifact::

    tokenizer/                   Hugging Face tokenizer, shared by all arms
    documents.bin, heldout.bin   token ids, documents one after the other, each ended by the end token and, of
                                 a model that is continued, begun by what its tokenizer begins with (a BOS)
    index.parquet                doc_id, domain, split, offset, length (tokens, with the end token), n_bytes,
    key tokens.json                  dtype of the ids, vocabulary, end token, tokens per split and domain

``key`` is a 64-bit hash of doc_id from which the training order is drawn (``order.py``).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import polars as pl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from repro.errors import require
from repro.pretrained import Encoder, load_tokenizer
from repro.store import atomic, parquet, read_json, write_json
from repro.tracking import progress

END_OF_TEXT = "<|endoftext|>"
SPLITS = ("documents", "heldout")
ENCODE_AT_ONCE = 512  # documents; bounds memory, and keeps all cores of the tokenizer busy


def train_bpe(texts: Iterable[str], vocabulary: int, folder: Path) -> None:
    """Train a byte-level BPE (digits one by one, as SmolLM's) and save it as a Hugging Face tokenizer in
    ``folder``.

    Deterministic: merges are chosen by count, ties by id. A small corpus may end below ``vocabulary``
    entries.
    """
    from transformers import PreTrainedTokenizerFast

    require(
        vocabulary >= 257, f"model.vocabulary={vocabulary} must be at least 257: 256 bytes and the end token"
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    temporary = folder.with_name(f".{folder.name}.tmp")  # a file that was cut would be taken for whole
    shutil.rmtree(temporary, ignore_errors=True)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END_OF_TEXT).save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def copy_tokenizer(source: Path, folder: Path, max_vocabulary: int, continued: bool = False) -> None:
    """Copy the tokenizer of a Hugging Face folder; refuse one with more entries than the model has
    embeddings.

    A model trained from scratch sees the end token before every document and no other special token, so
    whoever loads it later must find no BOS to put there; one that is ``continued`` keeps what it was trained
    with.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = load_tokenizer(source)
    mend = (
        "they do not belong together; put the model's own tokenizer there"
        if continued
        else f"set model.vocabulary={len(tokenizer)} or choose a model made for this tokenizer"
    )
    require(
        len(tokenizer) <= max_vocabulary,
        f"the tokenizer of {source} has {len(tokenizer)} entries but the model only {max_vocabulary}"
        f" embeddings; {mend}",
    )
    require(
        tokenizer.eos_token_id is not None,
        f"the tokenizer of {source} has no end token; documents could not be told apart",
    )
    require(
        bool(getattr(tokenizer, "is_fast", False)),
        f"the tokenizer of {source} has no tokenizer.json; save a fast tokenizer there",
    )
    if not continued:
        backend = tokenizer.backend_tokenizer
        backend.post_processor = None  # what would put special tokens around a text
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=str(tokenizer.eos_token))
    tokenizer.save_pretrained(folder)


def texts(shards: list[Path]) -> Iterator[str]:
    """The texts of parquet shards, in order."""
    for shard in shards:
        yield from parquet.read(shard, columns=["text"])["text"]


def document_key(doc_id: str) -> int:
    """64 bits of BLAKE2 of a document's id: the same on every machine and in every arm."""
    return int.from_bytes(hashlib.blake2b(doc_id.encode(), digest_size=8).digest(), "little")


def encoder(folder: Path) -> tuple[Encoder, int]:
    """The tokenizer of ``folder`` and its end token id."""
    tokenizer = load_tokenizer(folder)
    return Encoder(tokenizer), tokenizer.eos_token_id


def encode_shard(
    encode: Encoder, end: int, documents: pl.DataFrame, dtype: Any
) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Token ids of a shard in pieces of some hundred documents, with the length of each document, its prefix
    and end token included.
    """
    prefix = encode.prefix
    for start in range(0, documents.height, ENCODE_AT_ONCE):
        texts = documents["text"][start : start + ENCODE_AT_ONCE].to_list()
        ids = encode(texts)
        flat = np.fromiter((token for document in ids for token in (*prefix, *document, end)), dtype)
        yield flat, [len(prefix) + len(document) + 1 for document in ids]


def write_split(
    out: Path, split: str, shards: list[Path], encode: Encoder, end: int, dtype: Any, bar: Any
) -> pl.DataFrame:
    """Append the shards of one split to ``<split>.bin`` and return their index rows.

    After each shard its rows are published under ``parts/``; a killed run cuts the ids back to what the parts
    vouch for and goes on, so no shard is tokenised twice and none is lost.
    """
    parts = [out / "parts" / f"{split}-{path.stem}.parquet" for path in shards]
    done = 0
    while done < len(parts) and parts[done].is_file():
        done += 1
    rows = [parquet.read(part) for part in parts[:done]]
    tokens = sum(int(part["length"].sum()) for part in rows)
    path = out / f"{split}.bin"
    path.touch()
    os.truncate(path, tokens * np.dtype(dtype).itemsize)
    with open(path, "ab") as handle:
        for shard, part in zip(shards[done:], parts[done:], strict=True):
            documents = parquet.read(shard, columns=["doc_id", "domain", "n_bytes", "text"])
            lengths: list[int] = []
            for ids, piece in encode_shard(encode, end, documents, dtype):
                handle.write(ids.tobytes())
                lengths += piece
            bar.update(int(documents["n_bytes"].sum()))
            handle.flush()
            os.fsync(handle.fileno())
            offsets = tokens + np.concatenate([[0], np.cumsum(lengths)])
            tokens = int(offsets[-1])
            rows.append(
                documents.select(
                    "doc_id",
                    "domain",
                    pl.lit(split).alias("split"),
                    pl.Series("offset", offsets[:-1], dtype=pl.Int64),
                    pl.Series("length", lengths, dtype=pl.Int64),
                    "n_bytes",
                    pl.Series("key", [document_key(i) for i in documents["doc_id"]], dtype=pl.UInt64),
                )
            )
            part.parent.mkdir(exist_ok=True)
            with atomic(part) as temporary:
                rows[-1].write_parquet(temporary)
    return pl.concat(rows) if rows else pl.DataFrame(schema=INDEX)


INDEX = {
    "doc_id": pl.String,
    "domain": pl.String,
    "split": pl.String,
    "offset": pl.Int64,
    "length": pl.Int64,
    "n_bytes": pl.Int64,
    "key": pl.UInt64,
}


class Tokenised(TypedDict):
    """``tokens.json``."""

    dtype: str
    vocabulary: int  # embeddings of the model
    vocabulary_of_tokenizer: int
    end_token: int
    documents: dict[str, dict[str, int]]  # split -> domain -> number
    tokens: dict[str, dict[str, int]]


def write_corpus(out: Path, shards: dict[str, list[Path]], vocabulary: int) -> Tokenised:
    """Tokenise every split with ``out/tokenizer``; returns the facts that ``tokens.json`` holds.

    ``shards[split]`` are parquet files with doc_id, domain, n_bytes and text; ``vocabulary`` the model's
    embeddings.
    """
    encode, end = encoder(out / "tokenizer")
    dtype = np.dtype(np.uint16 if vocabulary <= 2**16 else np.uint32)
    paths = [path for split in SPLITS for path in shards[split]]
    n_bytes = parquet.scan(paths).select(pl.col("n_bytes").sum()).collect().item() if paths else 0
    with progress(n_bytes, "bytes", "tokenise") as bar:
        index = pl.concat(
            [write_split(out, split, shards[split], encode, end, dtype, bar) for split in SPLITS]
        )
    training = index.filter(pl.col("split") == "documents")
    require(
        training.height > 0,
        "the corpus has no training documents; lower corpus.heldout_share or give it more text",
    )
    with atomic(out / "index.parquet") as temporary:
        index.write_parquet(temporary)
    counted = index.group_by("split", "domain").agg(pl.col("length").sum(), pl.len()).sort("split", "domain")
    facts: Tokenised = {
        "dtype": dtype.name,
        "vocabulary": vocabulary,
        "vocabulary_of_tokenizer": len(encode.tokenizer),
        "end_token": end,
        "documents": {s: {d: n for split, d, _, n in counted.iter_rows() if split == s} for s in SPLITS},
        "tokens": {s: {d: t for split, d, t, _ in counted.iter_rows() if split == s} for s in SPLITS},
    }
    write_json(out / "tokens.json", facts)
    shutil.rmtree(out / "parts")  # also what a kill left half-written there
    return facts


def open_ids(folder: Path, split: str) -> np.ndarray:
    """Token ids of a split, memory-mapped, read-only: one dimension, ``tokens.json``'s dtype."""
    dtype = np.dtype(read_json(folder / "tokens.json")["dtype"])
    path = folder / f"{split}.bin"
    return np.memmap(path, dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype)


def read_index(folder: Path, split: str, columns: list[str]) -> pl.DataFrame:
    """Rows of ``index.parquet`` for one split, in the order of the file."""
    return parquet.scan(folder / "index.parquet").filter(pl.col("split") == split).select(columns).collect()
