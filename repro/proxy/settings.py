"""The pretrained model that selects."""

from __future__ import annotations

from dataclasses import dataclass

from repro.device import DTYPES
from repro.errors import require
from repro.schema import POSITIVE, check, how, setting


@dataclass
class Proxy:
    """The pretrained model that selects (``repro/proxy``)."""

    kind: str = setting(
        "wheel",
        choices="wheel (SmolLM2-135M-Instruct from the package registry) | folder | hub"
        " | gguf (a file, or by name a pinned one) | built",
    )
    name: str = setting("smollm2-135m", "of a pinned model, and the label of its stages", identity="content")
    path: str | None = setting(None, "folder: a local Hugging Face folder; gguf: a file", identity="content")
    repo: str | None = setting(None, "hub: owner/name", identity="content")
    revision: str = setting("main", "hub: resolved to a commit at first use and recorded", identity="content")
    dtype: str = setting(
        "float32", "of detection and scoring", identity="computing", choices=" | ".join((*DTYPES, "float16"))
    )
    parameters: float = how(135e6, "for --plan only; of a folder or file they are counted", within=POSITIVE)
    accept_terms: bool = how(False, "of a model that has terms of use, before its download")

    def __post_init__(self) -> None:
        check("proxy", self)
        folder = self.kind != "folder" or bool(self.path)
        require(folder, "proxy=folder needs proxy.path=DIR of a Hugging Face model")
        require(self.kind != "hub" or bool(self.repo), "proxy=hub needs proxy.repo=owner/name")
        require(
            self.kind != "gguf" or bool(self.path) or self.name != "gguf",
            "proxy=gguf needs proxy.path=FILE.gguf; or choose a pinned one, as"
            " proxy=qwen2.5-coder-0.5b-instruct",
        )
