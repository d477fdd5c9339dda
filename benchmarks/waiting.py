"""How OpenMP's threads wait for one another: tokens/s of training a small Llama with two threads, by
``GOMP_SPINCOUNT``, on idle cores and beside as many busy processes as cores.

    python -m benchmarks.waiting [--seconds 6] [--rounds 3]

libgomp reads the variable as it is loaded, so each measurement is a process of its own; contenders alternate.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from repro.environment import SPINS

CONTENDERS = {"the library's own": None, f"GOMP_SPINCOUNT={SPINS}": SPINS}
BUSY = "while True: pass"
TRAIN = """
import sys, time, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.set_num_threads(2)
shape = dict(hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4)
model = LlamaForCausalLM(LlamaConfig(vocab_size=4096, **shape))
optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
ids = torch.randint(0, 4096, (4, 256))
def step():
    model(ids, labels=ids).loss.backward(); optimizer.step(); optimizer.zero_grad()
step()
begun, steps = time.monotonic(), 0
while time.monotonic() - begun < float(sys.argv[1]):
    step(); steps += 1
print(steps * ids.numel() / (time.monotonic() - begun))
"""


def rate(spins: str | None, seconds: float) -> float:
    """Tokens/s of one process."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    own = {"GOMP_SPINCOUNT": spins} if spins else {}
    command = [sys.executable, "-c", TRAIN, str(seconds)]
    done = subprocess.run(command, env=clean | own, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for busy in (0, os.cpu_count() or 1):
        beside = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
        try:
            rounds = [[rate(s, given.seconds) for s in CONTENDERS.values()] for _ in range(given.rounds)]
        finally:
            for process in beside:
                process.kill()
        medians = [statistics.median(values) for values in zip(*rounds, strict=True)]
        said = ", ".join(f"{name} {m:,.0f}" for name, m in zip(CONTENDERS, medians, strict=True))
        print(
            f"beside {busy} busy processes, tokens/s: {said}: {medians[1] / medians[0]:.2f} times", flush=True
        )


if __name__ == "__main__":
    main()
