"""Mean output of every head over ordinary held-out text, for the ``mean`` mask."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from repro.errors import require
from repro.heads.controls import text_windows
from repro.heads.stage import heldout_texts
from repro.proxy import masking
from repro.proxy.load import ProxyModel
from repro.store import atomic


@torch.inference_mode()
def mean_outputs(proxy: ProxyModel, windows: list[list[int]]) -> Tensor:
    """Mean output of each head over all positions of all windows: [layers, heads, head_dim], float32.

    A head's output is what it adds before the output projection.
    """
    sums: dict[nn.Module, Tensor] = {}

    def add(module: nn.Module, output: Tensor) -> None:
        total = output[0].double().sum(0)
        sums[module] = sums[module] + total if module in sums else total

    with masking.observed(proxy.attentions, add, outputs=True):
        for ids in windows:
            proxy.hidden(torch.tensor([ids], device=proxy.device))
    count = sum(map(len, windows))
    return torch.stack([sums[module] / count for module in proxy.attentions]).float().cpu()


def write_means(proxy: ProxyModel, corpus: Path, path: Path) -> None:
    """Calibrate on the held-out split and write ``means`` [layers, heads, head_dim]."""
    from safetensors.torch import save_file

    windows = text_windows(proxy, heldout_texts(corpus))
    require(
        bool(windows),
        "score.mask=mean is calibrated on held-out text and the corpus holds none out; set"
        " corpus.heldout_share above 0",
    )
    with atomic(path) as temporary:
        save_file({"means": mean_outputs(proxy, windows)}, temporary)
