"""Muon (Jordan et al. 2024) for the matrices between the embeddings; AdamW for embeddings, head and norms.

torch.optim.Muon (the same update; a test compares) computes in bfloat16, slow on CPUs that only emulate it,
and knows nothing of the flat partitions of ZeRO. DeepSpeed's own takes bfloat16 wherever it is supported,
fast or not, and needs a compiler.
"""

from __future__ import annotations

import math
from typing import Any

import torch

# of the quintic iteration: steepest at zero, singular values end within 0.7 to 1.2
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalise(matrices: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """U V' of each matrix U S V' of [n, rows, columns], nearly: its singular values end between about 0.7 and
    1.2.

    Five Newton-Schulz steps in ``dtype``; a matrix of zeros stays one.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).contiguous()
    x = (x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)).to(dtype)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.AdamW):
    """AdamW, but groups with a ``shape`` (rows, columns) hold matrices of that shape only and are updated by
    Muon.

    ``dtype`` is the one to orthogonalise in: the training's, which the device is fast in. The learning rate
    is times sqrt(max(1, rows / columns)), the decay not. One shape a group, so that the matrices are
    orthogonalised in one batch, and found again where ZeRO on one device laid them flat one after the other.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update, of the matrices first."""
        assert closure is None, "DeepSpeed gives none"
        for group in self.param_groups:
            if "shape" in group:
                self._update_matrices(group)
        super().step()  # passes over parameters without a gradient

    def _update_matrices(self, group: dict[str, Any]) -> None:
        rows, columns = group["shape"]
        parameters = [p for p in group["params"] if p.grad is not None]
        if not parameters:
            return
        directions = []
        for p in parameters:
            state = self.state[p]
            if not state:
                # AdamW's loading wants a step
                state |= {"step": torch.zeros(()), "momentum_buffer": torch.zeros_like(p)}
            momentum = state["momentum_buffer"]
            momentum.lerp_(p.grad, 1 - group["momentum"])
            direction = p.grad.lerp(momentum, group["momentum"])  # Nesterov
            # ZeRO pads the end
            directions.append(direction.flatten()[: p.numel() // (rows * columns) * rows * columns])
            p.grad = None
        matrices = torch.cat(directions).view(-1, rows, columns)
        updates = orthogonalise(matrices, getattr(torch, group["dtype"])).flatten()
        for p, update in zip(parameters, updates.split([len(d) for d in directions]), strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            matrix, rate = p.view(-1)[: len(update)], -group["lr"] * math.sqrt(max(1.0, rows / columns))
            # in a CUDA graph
            matrix.addcmul_(update, rate) if torch.is_tensor(rate) else matrix.add_(update, alpha=rate)
