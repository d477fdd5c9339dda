"""The identity of every stage of every experiment, pinned: moving code must not make anybody's results again.

Where a fingerprint has to change, say so in a commit that does only that: ``python tests/unit/test_fingerprints.py`` writes
the pins anew.
"""

import json
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import pytest

from repro.experiments import build
from repro.settings.compose import compose
from repro.settings.files import options

PINS = Path(__file__).parent.parent / "fingerprints.json"
SCALES = ("smoke", "laptop")


def identities(scale: str, experiment: str) -> list[str]:
    """Folder of every stage: name, label and the start of the fingerprint. The packages whose text is read are left out."""
    with mock.patch("repro.corpus.installed.identity", lambda settings: {}):
        stages = build(compose([f"exp={experiment}", f"scale={scale}"])).order()
    return sorted(stage.folder for stage in stages)


@pytest.mark.parametrize("experiment", options("exp"))
@pytest.mark.parametrize("scale", SCALES)
def test_no_stage_has_another_identity_than_before(scale, experiment):
    pins = json.loads(PINS.read_text())
    if pins["lm-eval"] != version("lm-eval"):
        pytest.skip(
            f"pinned with lm-eval {pins['lm-eval']}, whose task definitions are part of an evaluation's identity"
        )
    assert identities(scale, experiment) == pins[scale][experiment]


if __name__ == "__main__":
    found = {scale: {name: identities(scale, name) for name in options("exp")} for scale in SCALES}
    PINS.write_text(json.dumps({"lm-eval": version("lm-eval"), **found}, indent=1) + "\n")
