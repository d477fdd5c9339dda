"""What stands beside every artifact, typed: the fields of ``manifest.json``."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from repro.plain import Json
from repro.store.origin import Provenance


class Input(TypedDict):
    """An artifact that a stage read."""

    folder: str
    fingerprint: str


class Manifest(TypedDict):
    """What a finished stage was, what it read, and what it left."""

    stage: str
    label: str
    version: int  # of the stage's code
    fingerprint: str
    settings: Json  # those that change the result
    inputs: dict[str, Input]
    facts: Json  # documents in, kept and dropped, warnings, ...
    device: str
    seconds_last_attempt: float
    finished: str  # when, UTC
    provenance: Provenance
    files: dict[str, str]  # name -> sha256
    left_out: NotRequired[dict[str, str]]  # of a pack: files that did not come with it
    seal: NotRequired[str]  # sha256 of all else
