"""The judge against a real local server of the protocol, kind and unkind."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from repro.errors import SettingError
from repro.experiments.analyse import judge
from repro.settings.analysis import Judge

KEY = "sk-a-key-that-nobody-may-see"


class Server:
    """``plan(text, question, nth)`` -> (status, body, headers) for the nth request about the same text and question."""

    def __init__(self, plan):
        self.plan, self.requests, self.seen, self.times, self.lock = plan, [], Counter(), [], threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                said = body["messages"][-1]["content"]
                text = said.partition("<text>\n")[2].partition("\n</text>")[0]
                question = next(name for name, asked in judge.QUESTIONS.items() if asked in said)
                with outer.lock:
                    outer.requests.append(
                        {"path": self.path, "key": self.headers.get("Authorization"), **body}
                    )
                    outer.times.append(time.monotonic())
                    outer.seen[text, question] += 1
                    nth = outer.seen[text, question]
                status, answer, headers = outer.plan(text, question, nth)
                payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(payload)))
                    self.end_headers()
                    self.wfile.write(payload)
                except OSError:  # the client gave up waiting
                    pass

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def said(content):
    return {
        "choices": [{"message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 2},
    }


@pytest.fixture
def serve():
    servers = []

    def start(plan):
        servers.append(Server(plan))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def settings(server, **kwargs):
    return Judge(url=server.url, model="small", **{"backoff": 0.01, "workers": 2, "timeout": 5.0, **kwargs})


def by_text(text, question, nth):
    return 200, said("Yes." if question in text else "**No**, it does not."), {}


TEXTS = ["about education", "about education and reasoning", "about nothing"]
TRUTH = [{"education": e, "reasoning": r} for e, r in ((True, False), (True, True), (False, False))]


def test_answers_stand_by_their_texts_and_the_cost_is_counted(serve, tmp_path):
    server = serve(by_text)
    found = judge.judge(TEXTS, settings(server, price_prompt=1.0, price_answer=10.0), tmp_path)
    assert found.answers == TRUTH and not found.failures
    assert (found.requests, found.retries, found.cached) == (6, 0, 0)
    report = found.report(settings(server, price_prompt=1.0, price_answer=10.0))
    assert report["cost"] == pytest.approx(6 * (100 * 1 + 2 * 10) / 1e6)
    assert found.report(settings(server))["cost"] is None
    assert {r["path"] for r in server.requests} == {"/v1/chat/completions"}
    assert all(r["model"] == "small" and r["temperature"] == 0 for r in server.requests)


def test_answers_are_kept_by_content(serve, tmp_path):
    server = serve(by_text)
    judge.judge(TEXTS, settings(server), tmp_path)
    again = judge.judge([*TEXTS, "new"], settings(server), tmp_path)
    assert again.answers[:3] == TRUTH and (again.requests, again.cached) == (2, 6)
    other = judge.judge(TEXTS, Judge(url=server.url, model="other"), tmp_path)
    assert other.requests == 6  # another model, another answer
    for path in tmp_path.rglob("*.json"):
        path.write_text("{broken")
    assert judge.judge(TEXTS, settings(server), tmp_path).requests == 6


def test_a_text_that_stands_twice_is_asked_once_and_answered_twice(serve, tmp_path):
    server = serve(lambda text, q, nth: (400, b"", {}) if text == "bad" else by_text(text, q, nth))
    found = judge.judge([TEXTS[0], "bad", "bad", TEXTS[0]], settings(server, workers=4), tmp_path)
    assert found.answers[0] == found.answers[3] == TRUTH[0] and found.requests == 4
    assert found.failures == {"HTTP 400": 4}


def test_the_judge_reads_the_first_characters_only(serve, tmp_path):
    server = serve(by_text)
    judge.judge(["x" * 100], settings(server, characters=10), tmp_path)
    assert all(
        "x" * 10 in r["messages"][-1]["content"] and "x" * 11 not in r["messages"][-1]["content"]
        for r in server.requests
    )


def test_rate_limits_and_outages_are_waited_out(serve, tmp_path):
    def plan(text, question, nth):
        if nth == 1:
            return 429, {"error": "slow down"}, {"Retry-After": "0.2"}
        return (503, b"", {}) if nth == 2 else by_text(text, question, nth)

    server = serve(plan)
    found = judge.judge(TEXTS[:1], settings(server, workers=1), tmp_path)
    assert found.answers == TRUTH[:1] and not found.failures
    assert (found.requests, found.retries) == (6, 4)
    assert server.times[1] - server.times[0] >= 0.2  # what Retry-After asked for


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (lambda *_: (429, b"", {}), "rate limit (HTTP 429)"),
        (lambda *_: (500, b"", {}), "HTTP 500"),
        (lambda *_: (400, b"", {}), "HTTP 400"),
        (lambda *_: (200, b"<html>", {}), "answer is not JSON"),
        (lambda *_: (200, {"choices": []}, {}), "answer is not of the protocol"),
        (lambda *_: (200, [1], {}), "answer is not of the protocol"),
        (lambda *_: (200, said("As a language model, yes and no."), {}), "answered neither yes nor no"),
        (lambda *_: (200, said(None), {}), "answered neither yes nor no"),
    ],
)
def test_a_failure_is_counted_under_its_reason_and_spoils_nothing_else(serve, tmp_path, plan, reason):
    server = serve(lambda text, q, nth: plan() if text == "bad" else by_text(text, q, nth))
    found = judge.judge([TEXTS[0], "bad", TEXTS[1]], settings(server, tries=2), tmp_path)
    assert found.answers == [TRUTH[0], {"education": None, "reasoning": None}, TRUTH[1]]
    assert found.failures == {reason: 2}


def test_a_slow_answer_is_a_timeout(serve, tmp_path):
    given_up = threading.Event()

    def plan(text, question, nth):
        given_up.wait(60)
        return by_text(text, question, nth)

    found = judge.judge(["slow"], settings(serve(plan), timeout=0.1, tries=2), tmp_path)
    given_up.set()
    assert found.failures == {"timed out": 2} and found.retries == 2


def test_an_endpoint_that_is_away_is_given_up_soon(tmp_path):
    found = judge.judge(
        [f"text {i}" for i in range(200)],
        Judge(url="http://127.0.0.1:9/v1", model="m", tries=2, backoff=0.0),
        tmp_path,
    )
    assert found.failures == {"no connection": 400}
    assert found.requests < 40


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "key refused"), (404, "unknown model or address"), (302, "redirected")]
)
def test_a_refusal_that_will_not_pass_is_asked_once(serve, tmp_path, status, reason):
    elsewhere = serve(by_text)
    server = serve(lambda *_: (status, b"", {"Location": f"{elsewhere.url}/chat/completions"}))
    found = judge.judge([f"text {i}" for i in range(50)], settings(server, workers=1), tmp_path)
    assert found.requests == 1 and not elsewhere.requests
    assert [r for r in found.failures if reason in r] and found.failures.total() == 100


def test_the_key_is_sent_and_stands_nowhere_else(serve, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MY_KEY", KEY)
    server = serve(by_text)
    s = settings(server, key_variable="MY_KEY")
    found = judge.judge(TEXTS, s, tmp_path)
    assert {r["key"] for r in server.requests} == {f"Bearer {KEY}"}
    kept = "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    shown = "".join(capfd.readouterr())
    assert kept and KEY not in kept + shown + repr(s) + repr(found) + json.dumps(found.report(s))
    monkeypatch.delenv("MY_KEY")
    judge.judge(["another"], s, tmp_path)
    assert server.requests[-1]["key"] is None


def test_the_pace_is_kept(serve, tmp_path):
    server = serve(by_text)
    judge.judge(TEXTS, settings(server, requests_per_minute=600, workers=4), tmp_path)
    gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert server.times[-1] - server.times[0] >= 0.45 and len(gaps) == 5


@pytest.mark.parametrize(
    ("content", "expected"),
    [("yes", True), ("No.", False), (' "Yes"', True), ("**no**", False), ("<think>no, or yes?</think>\n\nYes", True), ("yesterday", None),
     ("nothing", None), ("", None), ("1", None), ("I think yes", None)],
)  # fmt: skip
def test_what_counts_as_an_answer(content, expected):
    assert judge.parse(content) is expected


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"url": "localhost:8000", "model": "m"}, "http://"),
        ({"url": "http://me:secret@host/v1", "model": "m"}, "key_variable"),
        ({"url": "http://host/v1"}, "judge.model"),
        ({"tries": 0}, "judge.tries=0 must be at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(given, says):
    with pytest.raises(SettingError, match=says) as error:
        Judge(**given)
    assert "secret" not in str(error.value)
