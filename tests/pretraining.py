"""A small made-up corpus, its tokens, a selection and a job, for the tests of pretraining."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import polars as pl
import torch

from repro.pretrain import checkpoint, loop, tokens
from repro.pretrain.job import Job
from repro.pretrain.settings import Model, Train
from repro.tracking import Tracking

TINY = Model(name="tiny", layers=2, hidden=32, heads=2, kv_heads=1, ffn=64, vocabulary=320)
QUICK = dict(
    tokens=64 * 8 * 12,
    context=64,
    batch_sequences=8,
    micro_batch=8,
    dtype="float32",
    checkpoint_every_steps=4,
)
DOMAINS = ("code", "prose")


def write_documents(
    folder: Path, documents: int = 40, heldout: int = 4, shards: int = 2
) -> dict[str, list[Path]]:
    """Parquet shards of random words; returns the files of each split."""
    rng = np.random.default_rng(7)
    words = ["".join(rng.choice(list("abcdefghij"), 4)) for _ in range(60)] + [
        "émigré",
        "日本",
        "<|endoftext|>",
    ]
    files: dict[str, list[Path]] = {"documents": [], "heldout": []}
    for split, count in (("documents", documents), ("heldout", heldout)):
        (folder / split).mkdir(parents=True)
        for domain in DOMAINS:
            rows = []
            for i in range(count):
                text = " ".join(rng.choice(words, int(rng.integers(1, 60))))
                rows.append(
                    {
                        "doc_id": f"{domain}/{split}/{i}",
                        "domain": domain,
                        "n_bytes": len(text.encode()),
                        "text": text,
                    }
                )
            for shard in range(shards):
                path = folder / split / f"{domain}-{shard:05d}.parquet"
                schema = {"doc_id": pl.String, "domain": pl.String, "n_bytes": pl.Int64, "text": pl.String}
                pl.DataFrame(rows[shard::shards], schema=schema).write_parquet(path)
                files[split].append(path)
    return files


def write_tokens(folder: Path, files: dict[str, list[Path]], vocabulary: int = TINY.vocabulary) -> Path:
    """The artifact of the tokens stage."""
    folder.mkdir()
    tokens.train_bpe(tokens.texts(files["documents"]), vocabulary, folder / "tokenizer")
    tokens.write_corpus(folder, files, vocabulary)
    return folder


def write_selection(folder: Path, files: dict[str, list[Path]], most: int = 2, seed: int = 1) -> Path:
    """A selection that repeats each document 0 to ``most`` times."""
    folder.mkdir()
    frame = pl.concat([pl.read_parquet(path, columns=["doc_id", "domain"]) for path in files["documents"]])
    repeats = np.random.default_rng(seed).integers(0, most + 1, frame.height)
    shuffled = frame.with_columns(pl.Series("repeats", repeats)).sample(fraction=1, shuffle=True, seed=3)
    shuffled.write_parquet(folder / "selection.parquet")  # its order must not matter
    return folder


def workspace(root: Path) -> dict[str, Path]:
    """Documents, tokens and a selection under ``root``."""
    files = write_documents(root / "corpus")
    return {
        "tokens": write_tokens(root / "tokens", files),
        "selection": write_selection(root / "selection", files),
    }


def job(paths: dict[str, Path], out: Path, model: Model = TINY, seed: int = 0, **train: object) -> Job:
    """A training of some seconds."""
    out.mkdir(parents=True, exist_ok=True)
    return Job(
        model=model,
        train=Train(**{**QUICK, **train}),
        seed=seed,
        tokens=str(paths["tokens"]),
        selection=str(paths["selection"]),
        out=str(out),
        device="cpu",
        tracking=Tracking(wandb="disabled"),
        group="test",
        arm="arm",
    )


def train_with(hook: str, text: str) -> None:
    """Run Python source, then the job: what a child process of the kill tests does. ``die`` is SIGKILL."""
    torch.set_num_threads(1)

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    exec(hook, {"die": die, "loop": loop, "checkpoint": checkpoint})  # noqa: S102
    loop.train(Job.from_json(text))


def naive_stream(paths: dict[str, Path], seed: int, passes: int) -> tuple[list[int], list[str]]:
    """Token ids of the arm's first passes and the document of each, from texts and the documented order alone.

    Independent of ``order.py``: plain integers, lists and the tokenizer.
    """
    import hashlib

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(paths["tokens"] / "tokenizer")
    repeats = dict(
        pl.read_parquet(paths["selection"] / "selection.parquet").select("doc_id", "repeats").iter_rows()
    )
    files = sorted((paths["tokens"].parent / "corpus" / "documents").glob("*.parquet"))
    texts = {i: t for path in files for i, t in pl.read_parquet(path, columns=["doc_id", "text"]).iter_rows()}

    def splitmix(x: int) -> int:
        full = 2**64
        x = (x + 0x9E3779B97F4A7C15) % full
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % full
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % full
        return x ^ (x >> 31)

    ids, owners = [], []
    for epoch in range(passes):
        keyed = []
        for name, times in repeats.items():
            key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
            for copy in range(times):
                salt = splitmix(splitmix(splitmix(0 ^ seed) ^ epoch) ^ copy)
                keyed.append((splitmix(key ^ salt), name))
        for _, name in sorted(keyed):
            encoded = tokenizer(texts[name], add_special_tokens=False, split_special_tokens=True).input_ids
            ids += [*encoded, tokenizer.eos_token_id]
            owners += [name] * (len(encoded) + 1)
    return ids, owners
