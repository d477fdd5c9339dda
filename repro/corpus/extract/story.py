"""Stories of the African Storybook: Markdown pages divided by ``##`` lines, credits on the last."""

from __future__ import annotations

from repro.corpus.extract.spacing import squeeze


def pages(text: str) -> list[str]:
    """One block, the whole story: a page holds a sentence or two."""
    told = [squeeze(page) for page in text.split("\n##\n")[:-1]]
    return ["\n\n".join(page for page in told if page)]
