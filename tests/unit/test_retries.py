"""Which errors are waited out, for how long, and that nothing else is."""

import email.utils
import time

import pytest

from repro.fetch import retries


class Answer:
    def __init__(self, status, headers=()):
        self.status_code, self.headers = status, dict(headers)


def http(status, headers=()):
    error = OSError(f"{status} said\n\n  the server")
    error.response = Answer(status, headers)
    return error


def cut():
    import urllib3

    return urllib3.exceptions.ProtocolError("Connection broken")


@pytest.fixture
def waits(monkeypatch):
    found = []
    monkeypatch.setattr(retries, "sleep", found.append)
    return found


def failing(*errors):
    left = list(errors)

    def action():
        if left:
            raise left.pop(0)
        return "answer"

    return action


def test_pauses_double_and_a_word_of_the_server_goes_before(waits):
    date = email.utils.formatdate(time.time() + 500, usegmt=True)
    errors = [http(500), cut(), http(503), http(429, {"Retry-After": "17"})]
    errors += [http(429, {"RateLimit": '"api";r=0;t=55'}), http(429, {"retry-after": date}), TimeoutError()]
    assert retries.patiently(failing(*errors)) == "answer"
    assert waits[:5] == [1, 2, 4, 17, 56] and 490 < waits[5] <= 500 and waits[6] == 60


def test_what_will_not_pass_is_raised_at_once(waits):
    for error in (http(403), http(404), ValueError("a bug"), OSError("no such file")):
        with pytest.raises(type(error)):
            retries.patiently(failing(error))
    with pytest.raises(OSError, match="500"):
        retries.patiently(failing(*[http(500)] * 99))
    assert len(waits) == retries.TRIES - 1


def test_an_error_behind_another_counts(waits):
    wrapped = RuntimeError("arrow")
    wrapped.__cause__ = http(502)
    assert retries.patiently(failing(wrapped)) == "answer"
    assert retries.told(http(429)) == "429 said the server"


def test_items_come_once_whatever_breaks(waits):
    errors = {3: [cut(), http(500)], 7: [cut()] * 5}

    def make(skip):
        for i in range(skip, 12):
            if errors.get(i):
                raise errors[i].pop()
            yield i

    assert list(retries.resumed(make)) == list(range(12))
    assert list(retries.resumed(make, 5)) == list(range(5, 12))
