"""Candidates run in a subprocess that cannot reach the network, other processes or the disk, and ends."""

import itertools
import math
import socket

import pytest

from repro.evaluate import code


@pytest.mark.parametrize(
    "program",
    [
        "assert 1 + 1 == 2",
        "import math, re, collections, hashlib, itertools, functools, heapq, copy, string, random, datetime, typing",
        "print('x' * 100)",
    ],
)
def test_ordinary_programs_pass(program):
    assert code.passes(program)


@pytest.mark.parametrize(
    "program",
    [
        "assert 1 == 2",
        "def broken(:",
        "raise SystemExit(0)",  # ending early is not passing
        "import os; os._exit(0)",
        "x = 'a' * 2**31",  # memory
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import os; os.fork()",
        "import os; os.remove('x')",
        "open('file', 'w')",
        "import ctypes; ctypes.CDLL(None)",
    ],
)
def test_failures_and_forbidden_acts_do_not_pass(program):
    assert not code.passes(program)


def test_the_network_is_out_of_reach():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        probe = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=2)"
        exec(probe)  # from here it is reachable
        assert not code.passes(probe)


def test_an_endless_loop_ends(monkeypatch):
    monkeypatch.setattr(code, "SECONDS", 0.5)
    assert not code.passes("while True: pass")
    assert not code.passes("import time; time.sleep(60)")


def test_pass_at_k_equals_drawing_k_samples():
    for n, correct, k in [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 5, 3), (20, 7, 1)]:
        draws = list(itertools.combinations([1] * correct + [0] * (n - correct), k))
        assert code.pass_at_k(n, correct, k) == pytest.approx(sum(map(any, draws)) / len(draws))
        assert len(draws) == math.comb(n, k)


def test_the_metric_scores_problems():
    right, wrong = "def add(a, b): return a + b", "def add(a, b): return a * b"
    scores, outcomes = code.CodeEval().compute(
        ["assert add(2, 3) == 5"] * 2, [[wrong, right], [wrong, wrong]], k=[1, 2, 100]
    )
    assert outcomes == {0: [False, True], 1: [False, False]}
    assert scores == {"pass@1": 0.25, "pass@2": 0.5}
