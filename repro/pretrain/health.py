"""Is the training in order? Non-finite numbers stop it, loss spikes are logged."""

from __future__ import annotations

import math
import statistics
from collections import deque
from pathlib import Path

from repro.errors import SettingError
from repro.pretrain.job import Job
from repro.pretrain.order import TokenStream
from repro.pretrain.tokens import read_index
from repro.store import write_json

NOT_FINITE = "not_finite.json"  # the batch that stopped a training
WINDOW = 50  # steps a loss is compared with
SIGMAS = 6.0


class Spikes:
    """A loss is a spike when it stands more than six standard deviations above the mean of the last fifty."""

    def __init__(self, losses: list[float]) -> None:
        self.recent = deque(losses, maxlen=WINDOW)

    def see(self, loss: float) -> bool:
        """Whether ``loss`` is a spike; it enters the window in any case."""
        full = len(self.recent) == WINDOW
        spike = full and loss > statistics.fmean(self.recent) + SIGMAS * max(
            statistics.pstdev(self.recent), 1e-6
        )
        self.recent.append(loss)
        return spike


def stop_if_not_finite(
    job: Job, stream: TokenStream, step: int, loss: float, norm: float, last: Path | None
) -> None:
    """Raise :class:`SettingError` naming step, batch and documents; the whole list goes to
    ``not_finite.json``.

    A norm below zero is how DeepSpeed writes one that is not finite.
    """
    if math.isfinite(loss) and math.isfinite(norm) and norm >= 0:
        return
    norm = norm if norm >= 0 else math.nan
    start, end = step * job.train.batch_tokens, (step + 1) * job.train.batch_tokens
    rows, first, count = stream.pieces(start, end - start)
    names = read_index(Path(job.tokens), "documents", ["doc_id"])["doc_id"]
    documents = [names[int(row)] for row in rows]
    pieces = [
        {"doc_id": name, "first_token": int(f), "tokens": int(c)}
        for name, f, c in zip(documents, first, count, strict=True)
    ]
    whole = Path(job.out) / NOT_FINITE
    write_json(whole, {"step": step, "loss": str(loss), "grad_norm": str(norm), "documents": pieces})
    named = ", ".join(documents[:5]) + (", ..." if len(documents) > 5 else "")
    raise SettingError(
        f"training stopped at step {step}: loss {loss}, gradient norm {norm}; its batch holds tokens {start}"
        f" to {end} of the stream, documents {named} (all in {whole}); the last good checkpoint is {last};"
        " lower train.learning_rate or take those documents out"
    )
