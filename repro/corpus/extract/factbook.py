"""A country's page of the World Factbook: nested JSON whose leaves are ``{"text": HTML}``."""

from __future__ import annotations

import json
import re
from typing import Any

from repro.corpus.extract.spacing import squeeze
from repro.corpus.extract.unreadable import Unreadable, bounded


def facts(text: str) -> list[str]:
    """A line ``name: value`` for each fact."""
    try:
        return _facts(json.loads(text), "")
    except ValueError:
        raise Unreadable("broken_json") from None


def _facts(value: Any, name: str) -> list[str]:
    if not isinstance(value, dict):
        return []
    if isinstance(value.get("text"), str):
        return [f"{name.strip()}: {squeeze(re.sub('<[^>]+>', ' ', bounded(value['text'], ('<', '>'))))}"]
    return [fact for key, inner in value.items() for fact in _facts(inner, key)]
