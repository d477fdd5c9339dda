"""Secrets: none in settings, which are written into every artifact, summary, W&B run and report; none in what
is printed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from repro.plain import Json

# Variables by the names they have everywhere: HF_TOKEN, WANDB_API_KEY, OPENAI_API_KEY, AWS_SECRET_ACCESS_KEY,
# PGPASSWORD, ...
NAMES = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_ID)?$", re.IGNORECASE)
SHORTEST = 8  # characters of a value that is taken for a secret: "1" and "true" stand everywhere
# name and password before the host; a password may hold @ and /, and host:8080/ is none
IN_URL = re.compile(r"(?<=://)(?:[^/\s'\"]+@|[^/\s'\":@\[]*:(?!\d+/)[^\s'\"]*@)")
IN_QUERY = re.compile(
    r"(?i)(?<=[?&])((?:[\w-]*(?:token|signature|secret|password|credential)|(?:[\w-]*(?:[_-]|api|access|subscription))?key|sig|code)=)[^&\s'\"]+"
)
FORMS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|AKIA[A-Z0-9]{16})\b"
)
HIDDEN = "***"


def hidden(text: str) -> str:
    """``text`` without passwords of URLs, tokens of known forms, and values of variables that are named like
    secrets.
    """
    text = FORMS.sub(HIDDEN, IN_QUERY.sub(rf"\g<1>{HIDDEN}", IN_URL.sub(f"{HIDDEN}@", text)))
    for value in _values():
        text = text.replace(value, HIDDEN)
    return text


def check(settings: Json) -> None:
    """Raise :class:`repro.errors.SettingError` for a setting that holds a secret, without telling it."""
    from repro.errors import SettingError

    for path, text in _strings(settings, ""):
        if hidden(text) != text:
            raise SettingError(
                f"{path} holds a password or token, and settings are written into every result; leave it to"
                " the library (a variable such as HF_TOKEN, ~/.netrc, git's credential helper) and run again"
                " without it"
            )


def _values() -> list[str]:
    """Longest first, so that one that holds another goes whole."""
    found = {
        value
        for name, value in os.environ.items()
        if NAMES.search(name) and len(value) >= SHORTEST and not _is_path(value)
    }
    return sorted(found, key=len, reverse=True)


def _is_path(value: str) -> bool:
    """Of a file with a secret, which is none itself; keys of AWS may begin with ``/``, too."""
    return value.startswith("/") and os.path.exists(value)


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(str(key), path)
            yield from _strings(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _strings(inner, f"{path}[{number}]")
