"""A word at the end of a run, where ``run.notice`` asks for one: on the desktop, or to a webhook."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from urllib.request import Request, urlopen

VARIABLE = "REPRO_WEBHOOK"  # holds the URL, which is a secret and so no setting
SECONDS = 10


def give(how: str | None, text: str) -> None:
    """Tell ``text``; what goes wrong is a warning and costs the run nothing."""
    if how is None:
        return
    try:
        _webhook(text) if how == "webhook" else _desktop(text)
    except Exception as error:  # the network, a program that is not there; never the URL
        print(f"warning: no notice was given: {type(error).__name__}", file=sys.stderr, flush=True)


def _webhook(text: str) -> None:
    body = json.dumps({"text": text}).encode()
    request = Request(os.environ[VARIABLE], body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=SECONDS):
        pass


def _desktop(text: str) -> None:
    if shutil.which("notify-send"):
        command = ["notify-send", "repro", text]
    else:
        command = [
            "osascript",
            "-e",
            f"display notification {json.dumps(text)} with title {json.dumps('repro')}",
        ]
    subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
