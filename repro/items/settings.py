"""Where benchmark items come from."""

from __future__ import annotations

from dataclasses import dataclass

from repro.errors import require
from repro.schema import check, setting


@dataclass
class Items:
    """Where benchmark items come from (``repro/items``)."""

    kind: str = setting("wheel", choices="wheel (pinned) | folder (<task>/<split>.jsonl) | hub | builtin")
    folder: str | None = setting(None, "kind=folder: where the files are", identity="content")
    tasks: list[str] = setting([], "these only; empty = all that the source has")
    revisions: dict[str, str] = setting({}, "hub: by data set; default main, resolved", identity="content")

    def __post_init__(self) -> None:
        check("items", self)
        require(self.kind != "folder" or bool(self.folder), "items=folder needs items.folder=DIR")
