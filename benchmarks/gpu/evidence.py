"""Part c of the GPU card: a pilot, the curve and the next size, trained side by side on one GPU
(docs/gpu.md).

``python -m benchmarks.gpu.evidence --out DIR [--seconds N] [--device cuda] SETTINGS...``: for every
experiment heads, scores and selections, the trainings (``repro.together``, several processes), then the
evaluations, as many at once as there are cores. At the time limit all ends, and what is finished is packed:
``<out>/<exp>.tar.zst``, to be unpacked into a store (``python -m repro.store unpack``) whose ``repro.run``
reports. Experiments go on to the next one in the order given.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

Process = subprocess.Popen
PROCESSES = 4  # of trainings: one writes models down while another trains
SPARE = 45.0  # seconds before the limit at which packing begins


class Card:
    """The processes of the card and their deadline."""

    def __init__(self, settings: list[str], out: Path, seconds: float) -> None:
        self.settings, self.out = settings, out
        self.began, self.until = time.monotonic(), time.monotonic() + seconds - SPARE
        self.running: list[Process] = []
        self.names: list[str] = []
        own = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        self.environment = os.environ | own

    def left(self) -> float:
        """Seconds."""
        return self.until - time.monotonic()

    def say(self, text: str) -> None:
        """One line with the time."""
        print(f"[{time.monotonic() - self.began:6.1f} s] {text}", flush=True)

    def start(self, name: str, *command: str) -> Process:
        """A process whose output goes to a file of this name."""
        log = open(self.out / f"{name}.log", "ab")
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=log, stderr=log, env=self.environment
        )
        process.args = name
        self.running.append(process)
        self.names.append(name)
        return process

    def together(
        self, exp: str, *settings: str, arms: str = "*", processes: int = PROCESSES
    ) -> list[Process]:
        """Trainings of an experiment."""
        common = ["repro.together", f"exp={exp}", *self.settings, *settings, "--arms", arms]
        name = f"{exp}-{sum(n.startswith(exp) for n in self.names)}"
        return [self.start(f"{name}-{r}", *common, "--part", f"{r}/{processes}") for r in range(processes)]

    def evaluate(self, exp: str, *more: str, parallel: int) -> Process:
        """Publish what is trained, and evaluate it; ``more`` may name the arms."""
        settings = [f"exp={exp}", *self.settings, *more, f"run.parallel={parallel}"]
        return self.start(f"{exp}-evaluate", "benchmarks.gpu.finish", *settings)

    def wait(self, processes: list[Process]) -> None:
        """Until these end, or the time is up."""
        for process in processes:
            try:
                code = process.wait(max(0.1, self.left()))
                self.say(f"{process.args}: ended with {code}")
            except subprocess.TimeoutExpired:
                self.say(f"{process.args}: out of time")

    def stop(self) -> None:
        """End what still runs."""
        for process in self.running:
            if process.poll() is None:
                process.terminate()
        time.sleep(1)
        for process in self.running:
            if process.poll() is None:
                process.kill()


def main() -> None:
    """The order of work; each step is skipped when the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=500.0)
    parser.add_argument("--next-model", default="4m", help="the next size, if time is left")
    parser.add_argument("settings", nargs="+")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    card = Card(given.settings, given.out, given.seconds)
    cores = len(os.sched_getaffinity(0))
    curve = "accuracy_vs_data"
    before = [card.start("before", "repro.together", f"exp={curve}", *given.settings, "--before")]
    pilot = card.together("pilot", processes=2)
    lossless = card.together(curve, arms="full,random*,repetition*")
    lossless += card.together("pilot_rates", arms="full*,random_*", processes=2)
    card.wait(pilot)
    evaluations = [card.evaluate("pilot", parallel=max(2, cores // 2))]
    card.wait([*lossless, *before])
    card.say("scores and the arms that need none are there")
    second = card.together(curve)
    card.wait(second)
    card.say("the curve is trained")
    bigger = []
    if card.left() > 150:
        arms = ["random_30", "attention_influence_30", "attention_influence_within_source_30"]
        bigger = [f"model={given.next_model}", f"exp.only=[full,{','.join(arms)}]"]
        bigger += [f"exp.arms.{arm}.seeds=[0,1,2]" for arm in arms]
        second = card.together(curve, *bigger, processes=3)
    card.wait(evaluations)
    card.wait([card.evaluate(curve, parallel=max(2, cores - 2))])
    card.wait([card.evaluate("pilot_rates", parallel=max(2, cores - 2))])
    if bigger and card.left() > 20:
        card.wait([*second, card.evaluate(curve, *bigger, parallel=max(2, cores - 2))][-1:])
    card.stop()
    runs = {
        "pilot": ["exp=pilot"],
        "curve": [f"exp={curve}"],
        "rates": ["exp=pilot_rates"],
        "next": [f"exp={curve}", *bigger],
    }
    for name, settings in runs.items():
        if name == "next" and not bigger:
            continue
        packing = [
            sys.executable,
            "-m",
            "benchmarks.gpu.finish",
            "--pack",
            str(given.out / f"{name}.tar.zst"),
        ]
        done = subprocess.run([*packing, *settings, *given.settings], env=card.environment)
        card.say(f"packed {name}: exit {done.returncode}")


if __name__ == "__main__":
    main()
