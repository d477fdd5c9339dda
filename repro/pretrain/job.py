"""One training, as any launcher starts it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import NotRequired, TypedDict

from repro.pretrain.settings import Model, Train
from repro.tracking import Tracking


class Facts(TypedDict):
    """What the manifest, the model's card and ``training.json`` say of a model."""

    arm: str
    seed: int
    experiment: str
    parameters: int
    steps: int
    tokens: int
    passes: float  # over what the arm selects
    selection: str  # name of its artifact
    device: str
    ranks: int
    commit: str | None
    together: NotRequired[bool]  # trained beside others on one GPU
    logits_difference: NotRequired[float]  # of the exported model to the trained one
    reads: NotRequired[dict[str, dict[str, float]]]  # by domain, how often documents were read


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
