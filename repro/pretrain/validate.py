"""Loss and bits per byte of held-out documents, per domain, with the model as it is during training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.distributed as dist

from repro.pretrain.model import next_token_loss
from repro.pretrain.tokens import open_ids, read_index


@dataclass(frozen=True)
class Heldout:
    """Held-out documents of a domain: windows [n, T + 1] with -100 behind the last, and the bytes and tokens
    they stand for.
    """

    windows: np.ndarray
    n_bytes: int
    n_tokens: int


def heldout_windows(tokens: Path, context: int, end_token: int, max_tokens: int) -> dict[str, Heldout]:
    """Whole held-out documents of each domain, in the order of their key, up to ``max_tokens`` (at least one
    document).

    They are packed as in training and begin behind an end token, so that every token is predicted once.
    """
    ids = open_ids(tokens, "heldout")
    index = read_index(tokens, "heldout", ["domain", "offset", "length", "n_bytes", "key"]).sort(
        "domain", "key"
    )
    domains = {}
    for (domain,), rows in index.group_by("domain", maintain_order=True):
        rows = rows.filter((pl.col("length").cum_sum() <= max_tokens) | (pl.int_range(pl.len()) == 0))
        pieces = [ids[o : o + n] for o, n in rows.select("offset", "length").iter_rows()]
        flat = np.concatenate([[end_token], *pieces]).astype(np.int64)
        count = math.ceil((len(flat) - 1) / context)
        padded = np.full(count * context + 1, -100, np.int64)
        padded[: len(flat)] = flat
        windows = np.lib.stride_tricks.sliding_window_view(padded, context + 1)[::context].copy()
        domains[str(domain)] = Heldout(windows, int(rows["n_bytes"].sum()), len(flat) - 1)
    return domains


@torch.no_grad()
def validate(
    engine: Any, heldout: dict[str, Heldout], batch: int, documents_end: int | None, device: str
) -> dict[str, float]:
    """``loss/<domain>`` in nats a token (end tokens included) and ``bits_per_byte/<domain>`` of the text,
    over all ranks.
    """
    ranks, rank = dist.get_world_size(), dist.get_rank()
    results = {}
    for domain, held in heldout.items():
        # All ranks must make the same number of forward passes under ZeRO 3: fill up with windows that do not
        # count.
        rounds = math.ceil(len(held.windows) / (batch * ranks))
        filled = np.full((rounds * batch * ranks, held.windows.shape[1]), -100, np.int64)
        filled[: len(held.windows)] = held.windows
        nats = torch.zeros((), dtype=torch.float64, device=device)
        for start in range(rank * batch, len(filled), batch * ranks):
            ids = torch.from_numpy(filled[start : start + batch]).to(device)
            nats += next_token_loss(engine, ids, documents_end, reduction="sum").double()
        if ranks > 1:
            dist.all_reduce(nats)
        results[f"validation/loss/{domain}"] = nats.item() / held.n_tokens
        results[f"validation/bits_per_byte/{domain}"] = nats.item() / math.log(2) / held.n_bytes
    return results
