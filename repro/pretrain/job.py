"""One training, as any launcher starts it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from repro.pretrain.settings import Model, Train
from repro.tracking import Tracking


@dataclass(frozen=True)
class Job:
    """What to train, on what, and where."""

    model: Model
    train: Train
    seed: int
    tokens: str  # folder of the token ids
    selection: str  # folder of the selection
    out: str
    device: str  # cpu | cuda
    tracking: Tracking
    group: str  # the experiment
    arm: str

    def to_json(self) -> str:
        """For a worker process."""
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> Job:
        """The job a worker was given."""
        values = json.loads(text)
        settings = {"model": Model, "train": Train, "tracking": Tracking}
        return Job(
            **{key: settings[key](**value) if key in settings else value for key, value in values.items()}
        )
