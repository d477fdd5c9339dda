"""Detectors, one file each, found by the name in ``heads.detector``: a score per head from one sample at a
time.

A detector is a module with

    def detect(proxy: ProxyModel, probe: Probe, s: Heads) -> Measurement

Scores are [layers, heads] in [0, 1]; the heads of highest mean score are the important ones. Two optional
names of a module: ``READS``, the settings of ``heads`` that change what it says, beyond number, length and
seed of the probes (default: those of the key-value probes); and ``samples(s, proxy, context)``, a function
from the index of a probe to the probe (default: the key-value probes of :mod:`repro.heads.probes`).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from repro import plugins
from repro.errors import SettingError, nearest
from repro.heads.settings import Heads
from repro.plain import Json
from repro.store import sha256_file

if TYPE_CHECKING:
    import numpy as np

# Detectors of this project; the stage's version speaks for their code. One that is added counts by the
# content of its file.
SHIPPED = ("retrieval", "induction")
PROBES = ("shots", "key_characters", "value_tokens")


@dataclass
class Measurement:
    """What one sample says. ``accuracy`` and ``loss`` are over the tokens the sample asks for."""

    scores: np.ndarray  # [layers, heads]
    accuracy: float
    loss: float

    def in_numbers(self) -> Measurement:
        """The same in plain numbers, of whatever library they were."""
        import numpy as np

        return Measurement(np.asarray(self.scores, np.float64), float(self.accuracy), float(self.loss))


def names() -> list[str]:
    """All detectors there are."""
    return sorted({*here(), *plugins.found("detectors")})


def here() -> tuple[str, ...]:
    """Those of this project."""
    return plugins.modules(tuple(__path__))


def load(name: str) -> ModuleType:
    """The detector's module, or a :class:`SettingError` naming the nearest."""
    if name not in here():
        if (own := plugins.load("detectors", name, "detect")) is not None:
            return own
        raise SettingError(
            f"no detector {name!r} measures heads; did you mean {nearest(name, names())}? valid:"
            f" {', '.join(names())}"
        )
    return importlib.import_module(f"{__name__}.{name}")


def identity(s: Heads) -> Json:
    """What of the settings changes what the detector ``s.detector`` says, as it enters the fingerprint."""
    module = load(s.detector)
    found = {key: getattr(s, key) for key in getattr(module, "READS", PROBES)}
    return found if s.detector in SHIPPED else {**found, "code": sha256_file(Path(str(module.__file__)))}
