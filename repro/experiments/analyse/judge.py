"""Education and reasoning by a judge model (tables 3 and 5) over any OpenAI-compatible endpoint.

Two yes/no questions are asked about each document, at temperature 0. Answers are kept on disk by their
content (endpoint, model, prompt), so that nothing is paid for twice. The key comes from an environment
variable and is written nowhere. An endpoint that is away, slow, rate-limited or talks nonsense costs answers,
never the run: what failed is counted under its reason.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro.fetch import retries
from repro.plain import Json
from repro.settings.analysis import Judge
from repro.store import atomic, digest
from repro.tracking import progress

QUESTIONS = {
    "education": (
        "Is this text of educational value: does it explain, teach or document something so that a reader"
        " learns from it?"
    ),
    "reasoning": (
        "Is this text reasoning-intensive: does following it take several connected steps of thought, as in a"
        " derivation, a proof, an algorithm, a worked solution or a careful argument?"
    ),
}
SYSTEM = "You judge texts for a study of training data. Answer with exactly one word: yes or no."
GIVE_UP = 5  # requests in a row that fail at every try: the endpoint is taken to be away
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)
LONGEST_WAIT = 60.0  # seconds between two tries


@dataclass
class Outcome:
    """Answers in the order of the texts ({question: True | False | None}) and what they cost."""

    answers: list[dict[str, bool | None]] = field(default_factory=list)
    requests: int = 0  # sent, retries included
    retries: int = 0
    cached: int = 0
    failures: Counter[str] = field(default_factory=Counter)  # reason -> questions without an answer
    prompt_tokens: int = 0  # of answers received now
    answer_tokens: int = 0

    def report(self, s: Judge) -> Json:
        """Plain values; the cost in the currency of the prices."""
        cost = (self.prompt_tokens * s.price_prompt + self.answer_tokens * s.price_answer) / 1e6
        return {
            "model": s.model,
            "requests": self.requests,
            "retries": self.retries,
            "cached": self.cached,
            "failures": dict(sorted(self.failures.items())),
            "prompt_tokens": self.prompt_tokens,
            "answer_tokens": self.answer_tokens,
            "cost": round(cost, 6) if s.price_prompt or s.price_answer else None,
        }


class Unanswered(Exception):
    """No answer; the text is the reason. ``final``: asking anybody again is useless (wrong key, model,
    address).
    """

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        return None


def judge(texts: Sequence[str], s: Judge, cache: Path) -> Outcome:
    """Ask both questions about every text. Never raises for what an endpoint does; see ``failures`` of the
    result.
    """
    client = _Client(s, cache)
    jobs = [(text[: s.characters], question) for text in texts for question in QUESTIONS]
    distinct = list(dict.fromkeys(jobs))  # one text twice is asked once
    found: dict[tuple[str, str], tuple[bool | None, str | None]] = {}
    with ThreadPoolExecutor(s.workers) as pool, progress(len(distinct), "answers", "judging") as bar:
        for job, answer in zip(distinct, pool.map(lambda job: client.answer(*job), distinct), strict=True):
            found[job] = answer
            bar.update(1)
    outcome = client.outcome
    outcome.failures.update(reason for job in jobs if (reason := found[job][1]))
    answers = [found[job][0] for job in jobs]
    outcome.answers = [
        dict(zip(QUESTIONS, answers[i : i + len(QUESTIONS)], strict=True))
        for i in range(0, len(jobs), len(QUESTIONS))
    ]
    return outcome


def parse(content: str) -> bool | None:
    """yes or no at the start of an answer (after thinking aloud in <think> tags, and quotes); ``None`` for
    anything else.
    """
    said = re.sub(r"(?s)<think>.*?</think>", "", content).strip().strip("\"'*`.( ").lower()
    match = re.match(r"(yes|no)\b", said)
    return match[1] == "yes" if match else None


def messages(text: str, question: str) -> list[dict[str, str]]:
    """The conversation: the text between marks, then the question."""
    asked = f"{QUESTIONS[question]}\nAnswer yes or no."
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"<text>\n{text}\n</text>\n\n{asked}"},
    ]


class _Client:
    """What the threads of one :func:`judge` share: the pace, the counts, and whether the endpoint is still
    asked.
    """

    def __init__(self, s: Judge, cache: Path) -> None:
        self.s, self.cache, self.outcome = s, cache, Outcome()
        self.url = f"{(s.url or '').rstrip('/')}/chat/completions"
        self.lock = threading.Lock()
        self.next_slot = 0.0
        self.failed_in_a_row = 0
        self.closed: str | None = None  # why nothing is asked any more
        self.key = os.environ.get(s.key_variable, "")
        self.opener = urllib.request.build_opener(_NoRedirect)

    def answer(self, text: str, question: str) -> tuple[bool | None, str | None]:
        """From the cache or the endpoint: the answer, or why there is none."""
        body = {
            "model": self.s.model,
            "messages": messages(text, question),
            "temperature": 0,
            "max_tokens": self.s.answer_tokens,
        }
        name = digest({"url": self.s.url, "body": body})
        path = self.cache / name[:2] / f"{name}.json"
        try:
            received = _read(path)
            if received is None:
                received = self._ask(body)
                with atomic(path) as temporary:
                    temporary.write_text(json.dumps(received))
                with self.lock:
                    self.outcome.prompt_tokens += received["prompt_tokens"]
                    self.outcome.answer_tokens += received["answer_tokens"]
            else:
                with self.lock:
                    self.outcome.cached += 1
        except Unanswered as error:
            return None, str(error)
        found = parse(received["content"])
        return found, "answered neither yes nor no" if found is None else None

    def _ask(self, body: Json) -> Json:
        """One answer, with retries; raises :class:`Unanswered`."""
        for attempt in range(self.s.tries):
            if self.closed:
                raise Unanswered(self.closed)
            self._pace()
            with self.lock:
                self.outcome.requests += 1
                self.outcome.retries += attempt > 0
            try:
                received = self._send(body)
            except _Again as again:
                if attempt + 1 < self.s.tries:
                    time.sleep(
                        min(
                            LONGEST_WAIT,
                            again.wait if again.wait is not None else self.s.backoff * 2**attempt,
                        )
                    )
                    continue
                self._count_failure(again.reason)
                raise Unanswered(again.reason) from None
            except Unanswered as error:
                if error.final:
                    self.closed = str(error)
                raise
            self.failed_in_a_row = 0
            return received
        raise AssertionError("judge.tries is at least 1")

    def _count_failure(self, reason: str) -> None:
        with self.lock:
            self.failed_in_a_row += 1
            if self.failed_in_a_row >= GIVE_UP:
                self.closed = reason

    def _pace(self) -> None:
        """Wait for the next slot of ``requests_per_minute``."""
        if not self.s.requests_per_minute:
            return
        with self.lock:
            slot = max(self.next_slot, time.monotonic())
            self.next_slot = slot + 60 / self.s.requests_per_minute
        time.sleep(max(0.0, slot - time.monotonic()))

    def _send(self, body: Json) -> Json:
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {self.key}"} if self.key else {}
        )
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        try:
            with self.opener.open(request, timeout=self.s.timeout) as response:
                received = json.loads(response.read())
        except urllib.error.HTTPError as error:
            reason = _http_reason(error.code)
            if error.code in RETRIED:
                raise _Again(reason, retries.seconds(error.headers.get("Retry-After"))) from None
            raise Unanswered(reason, final=error.code in (301, 302, 303, 307, 308, 401, 403, 404)) from None
        except TimeoutError:
            raise _Again("timed out") from None
        except (urllib.error.URLError, OSError) as error:
            timed_out = isinstance(getattr(error, "reason", None), TimeoutError)
            raise _Again("timed out" if timed_out else "no connection") from None
        except ValueError:
            raise _Again("answer is not JSON") from None
        try:
            content = received["choices"][0]["message"]["content"]
            usage = received.get("usage") or {}
            tokens = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
            return {"content": str(content or ""), "prompt_tokens": tokens[0], "answer_tokens": tokens[1]}
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise Unanswered("answer is not of the protocol") from None


class _Again(Exception):
    """A failure that may pass; ``wait`` seconds where the server said so."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.wait = reason, wait


def _http_reason(code: int) -> str:
    if code == 429:
        return "rate limit (HTTP 429)"
    if code in (401, 403):
        return f"key refused (HTTP {code})"
    if 300 <= code < 400:
        return f"redirected (HTTP {code}); name the final judge.url"
    return f"unknown model or address (HTTP {code})" if code == 404 else f"HTTP {code}"


def _read(path: Path) -> Json | None:
    """A kept answer; damaged ones are asked for again."""
    try:
        kept = json.loads(path.read_text())
        return kept if isinstance(kept.get("content"), str) else None
    except (OSError, ValueError, AttributeError):
        return None
