"""All settings of a run, each group's schema where it is used."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from repro.corpus.settings import Corpus
from repro.device import Hardware, named
from repro.errors import require
from repro.evaluate.settings import Eval
from repro.heads.settings import Heads
from repro.influence.settings import Score
from repro.items.settings import Items
from repro.plain import Json
from repro.pretrain.settings import Model, Train
from repro.proxy.settings import Proxy
from repro.schema import how, setting
from repro.selection.settings import Budget
from repro.settings.analysis import Analysis, Judge
from repro.settings.execution import Run
from repro.settings.experiment import Experiment
from repro.tracking import Tracking

# The groups that options of ``configs/<group>`` fill.
GROUPS = ("corpus", "items", "proxy", "heads", "score", "model", "train", "eval")


@dataclass
class Settings:
    """Everything a run needs, fully resolved."""

    exp: Experiment = setting(Experiment)
    corpus: Corpus = setting(Corpus)
    items: Items = setting(Items)
    proxy: Proxy = setting(Proxy)
    heads: Heads = setting(Heads)
    score: Score = setting(Score)
    budget: Budget = setting(Budget)
    model: Model = setting(Model)
    train: Train = setting(Train)
    eval: Eval = setting(Eval)
    analysis: Analysis = setting(Analysis)
    judge: Judge = setting(Judge)
    tracking: Tracking = setting(Tracking)
    hardware: Hardware = setting(Hardware)
    run: Run = setting(Run)
    scale: str = how("laptop", "how big: a file of configs/scale")
    work: str = how("work", "folder of artifacts, runs and logs")
    device: str = how("auto", "auto | cpu | cuda | cuda:N")

    def __post_init__(self) -> None:
        named(self.device)
        require(bool(self.work.strip()), "work= is empty; name a folder: work=DIR")


def to_yaml(settings: Settings) -> str:
    """The fully resolved settings; reading them back gives the same run."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(as_dict(settings)))


def as_dict(settings: Any) -> Json:
    """A dataclass as plain JSON-able values; refuses infinity and NaN."""
    values = asdict(settings)
    _check_finite(values)
    return values


def _check_finite(values: Any, path: str = "") -> None:
    """Refuse infinity and NaN by name, wherever they stand: no result of them could be told apart by its
    settings.
    """
    inner = (
        values.items() if isinstance(values, dict) else enumerate(values if isinstance(values, list) else ())
    )
    for key, value in inner:
        _check_finite(value, f"{path}.{key}" if path else str(key))
    require(not isinstance(values, float) or math.isfinite(values), f"{path}={values} is not a finite number")
