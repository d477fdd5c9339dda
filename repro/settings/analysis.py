"""How selections are described, and the model that judges them (``repro/experiments/analyse``)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from repro.errors import require
from repro.schema import ANY, COUNT, POSITIVE, check, how, setting


@dataclass
class Analysis:
    """What was selected (section 6): selections against each other (``repro/experiments/analyse``)."""

    word_documents: int = setting(
        20_000, "of a domain whose words are counted", unit="documents", identity="describe", within=COUNT
    )
    top_words: int = setting(1000, "that count as frequent (table 4)", unit="words", within=COUNT)
    embedder: str = setting(
        "minilm", "minilm (pinned) | a Sentence-BERT folder | owner/name | none", identity="content"
    )
    revision: str = setting("main", "hub: resolved to a commit at first use and recorded", identity="content")
    documents: int = setting(
        500, "embedded of each domain", unit="documents", identity="describe", within=COUNT
    )
    embed_tokens: int = setting(
        256, "embedded of each document", unit="tokens", identity="describe", within="[8, inf)"
    )
    clusters: int = setting(100, "k-means, in each domain (figure 4)", identity="compare", within=COUNT)
    seed: int = setting(0, "of the sample and of k-means", within=ANY)

    def __post_init__(self) -> None:
        check("analysis", self)


@dataclass
class Judge:
    """A model that judges documents (tables 3 and 5) behind an OpenAI-compatible endpoint. Without a URL
    there is none.
    """

    url: str | None = setting(None, "the part before /chat/completions, such as http://127.0.0.1:8000/v1")
    model: str = setting("", "its name at the endpoint")
    key_variable: str = how("OPENAI_API_KEY", "variable that holds the key, which is stored nowhere")
    documents: int = setting(200, "judged of each selection and domain", unit="documents", within=COUNT)
    characters: int = setting(8000, "of a document that are shown", unit="characters", within=COUNT)
    answer_tokens: int = setting(16, "of the longest answer", unit="tokens", within=COUNT)
    workers: int = how(4, "at once", unit="requests", within=COUNT)
    requests_per_minute: int = how(0, "0 = no limit of ours", within=ANY)
    timeout: float = how(60.0, "until an answer is there", unit="seconds", within=POSITIVE)
    tries: int = how(6, "of a request before it counts as unanswered", within=COUNT)
    backoff: float = how(1.0, "before the second try, then doubled", unit="seconds", within=ANY)
    price_prompt: float = how(0.0, "per million tokens", within=ANY)
    price_answer: float = how(0.0, "per million tokens", within=ANY)
    attempt: int = setting(0, "another number asks again what got no answer")

    def __post_init__(self) -> None:
        check("judge", self)
        require(
            self.url is None or self.url.startswith(("http://", "https://")),
            "judge.url must start with http:// or https://",
        )
        require(
            "@" not in (self.url or "").split("//")[-1].split("/")[0],
            "judge.url holds a password; put the key into the variable that judge.key_variable names",
        )
        require(
            bool(re.fullmatch("[A-Z_][A-Z0-9_]*", self.key_variable)),
            "judge.key_variable is the name of an environment variable, such as OPENAI_API_KEY, never the key"
            " itself",
        )
        require(self.url is None or bool(self.model), "judge.url needs judge.model=NAME")
