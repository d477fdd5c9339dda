"""Part c of the GPU card: a pilot, the curve and the next size, trained side by side on one GPU
(docs/gpu.md).

``python -m benchmarks.gpu.evidence --out DIR [--seconds N] SETTINGS...``: for every experiment heads, scores
and selections, the trainings (``repro.together``, several processes), then the evaluations, as many at once
as there are cores. At the time limit all ends, and what is finished is packed, ``<experiment>.tar.zst``, to
be unpacked into a store (``python -m repro.store unpack``) whose ``repro.run`` reports. Logs and packs are in
``<out>/evidence.tar.<nn>``, the pieces of one archive, which is whole after every pack.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from repro.store import atomic

Process = subprocess.Popen
PROCESSES = 4  # of trainings: one writes models down while another trains
SPARE = 45.0  # seconds before the limit at which packing begins
PIECE = 15_000_000  # bytes of a file: the lent machine gives back eight, of 16 MiB at most, 64 MiB in all


class Card:
    """The processes of the card and their deadline."""

    def __init__(self, settings: list[str], out: Path, seconds: float) -> None:
        self.settings, self.out = settings, out
        self.began, self.until = time.monotonic(), time.monotonic() + seconds - SPARE
        self.running: list[Process] = []
        self.names: list[str] = []
        self.failed: list[str] = []
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
                if code:
                    self.failed.append(str(process.args))
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


def bring(files: list[Path], own: Path, out: Path) -> None:
    """One archive of these files as ``<out>/evidence.tar.<nn>``, each piece whole or not there."""
    with tarfile.open(own / "all.tar", "w") as archive:
        for path in files:
            archive.add(path, path.name)
    with open(own / "all.tar", "rb") as whole:
        for number, piece in enumerate(iter(lambda: whole.read(PIECE), b"")):
            with atomic(out / f"evidence.tar.{number:02d}") as temporary:
                temporary.write_bytes(piece)


def main() -> int:
    """The order of work; each step is skipped when the time is up. 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of what is brought back")
    parser.add_argument("--own", type=Path, default=Path("work/evidence"), help="folder of logs and packs")
    parser.add_argument("--seconds", type=float, default=500.0)
    parser.add_argument("--next-model", default="4m", help="the next size, if time is left")
    parser.add_argument("settings", nargs="+")
    given = parser.parse_args()
    given.own.mkdir(parents=True, exist_ok=True)
    for folder, names in ((given.own, "*.log"), (given.out, "evidence.tar.*")):
        for earlier in folder.glob(names):
            earlier.unlink()
    card = Card(given.settings, given.own, given.seconds)
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
    if bigger:
        card.wait(second)  # a model that still trains is locked, and its evaluation would fail
        if card.left() > 20:
            card.wait([card.evaluate(curve, *bigger, parallel=max(2, cores - 2))])
    card.stop()
    finished = sorted(given.own.glob("*.log"))
    bring(finished, given.own, given.out)
    runs = {
        "pilot": ["exp=pilot"],
        "curve": [f"exp={curve}"],
        "rates": ["exp=pilot_rates"],
        "next": [f"exp={curve}", *bigger],
    }
    for name, settings in runs.items():
        if name == "next" and not bigger:
            continue
        target = given.own / f"{name}.tar.zst"
        packing = [sys.executable, "-m", "benchmarks.gpu.finish", "--pack", str(target)]
        done = subprocess.run([*packing, *settings, *given.settings], env=card.environment)
        card.say(f"packed {name}: exit {done.returncode}")
        if done.returncode:
            card.failed.append(f"pack of {name}")
            continue
        finished.append(target)
        bring(finished, given.own, given.out)  # now: ended later, the command gives back what is there
    if card.failed:
        card.say(f"failed: {', '.join(card.failed)}")
    return int(bool(card.failed))


if __name__ == "__main__":
    sys.exit(main())
