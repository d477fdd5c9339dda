"""A stand-in for the hub: what ``datasets`` and ``huggingface_hub`` ask of it, over one local folder a repository."""

import base64
import http.server
import json
import re
import threading
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

COMMIT = "c" * 40


class Hub(http.server.BaseHTTPRequestHandler):
    """Class attributes are its state: ``root`` with owner/name folders, ``gated``, ``failures`` to give first."""

    protocol_version = "HTTP/1.1"
    root: Path
    gated = False
    failures: list = []  # (pattern of the path, status or "cut", headers); each given once
    asked: Counter = Counter()
    sent = 0  # bytes of files
    private: dict = {}  # of repositories that were created here
    tokens: Counter = Counter()  # that came with what was written

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        for failure in [f for f in Hub.failures if re.search(f[0], self.path)][:1]:
            Hub.failures.remove(failure)
            return self._fail(*failure[1:])
        if not self._written(unquote(self.path.split("?")[0]), body):
            self.do_GET()

    def _written(self, path, body):
        """Creating a repository and committing to it, small files only; whether it was that."""
        Hub.tokens[self.headers.get("Authorization")] += 1
        if Hub.gated and "/preupload/" in path:
            self._denied()
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            status = 409 if name in Hub.private else 200
            Hub.private.setdefault(name, asked.get("visibility") == "private" or asked.get("private", False))
            self._json({"url": f"{self._address()}/datasets/{name}", "name": name}, status)
        elif re.fullmatch(r"/api/(datasets|models)/[^/]+/[^/]+/preupload/main", path):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            self._json({"files": files})
        elif found := re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)/commit/main", path):
            for line in map(json.loads, body.splitlines()):
                target = Hub.root / found[1] / line["value"].get("path", "")
                if line["key"] == "deletedFile":
                    target.unlink()
                if line["key"] == "file":
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(base64.b64decode(line["value"]["content"]))
            self._json(
                {"commitUrl": f"{self._address()}/datasets/{found[1]}/commit/{COMMIT}", "commitOid": COMMIT}
            )
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        else:
            return False
        return True

    def do_GET(self):
        path = unquote(self.path.split("?")[0])
        Hub.asked[path] += 1
        for failure in Hub.failures:
            if re.search(failure[0], path):
                Hub.failures.remove(failure)
                return self._fail(*failure[1:])
        if found := re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)/auth-check", path):
            return self._denied() if Hub.gated else self._json({})
        if found := re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)(/revision/.*)?", path):
            files = [{"rfilename": name} for name in self._files(found[1])]
            return self._json(
                {
                    "id": found[1],
                    "sha": COMMIT,
                    "siblings": files,
                    "private": Hub.private.get(found[1], False),
                    "tags": [],
                }
            )
        if found := re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)/tree/[^/]+/?(.*)", path):
            return self._json(self._tree(found[1], found[2], "recursive=true" in self.path.lower()))
        if found := re.fullmatch(r"(?:/datasets)?/([^/]+/[^/]+)/resolve/[^/]+/(.*)", path):
            return self._denied() if Hub.gated else self._file(Hub.root / found[1] / found[2])
        self._error(404, "EntryNotFound", "Entry not found")

    def _address(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def _fail(self, status, headers=()):
        if status == "cut":
            self.send_response(206)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"PAR1")
            self.close_connection = True
            return
        self._error(status, "", "too much at once", dict(headers))

    def _denied(self):
        self._error(
            403, "GatedRepo", "Access to this data set is restricted. Visit its page to ask for access."
        )

    def _error(self, status, code, message, headers=()):
        body = json.dumps({"error": message}).encode()
        self.send_response(status)
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.send_header("X-Error-Message", message)
        if code:
            self.send_header("X-Error-Code", code)
        self._body(body)

    def _files(self, repo):
        folder = Hub.root / repo
        return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())

    def _tree(self, repo, below, recursive):
        folder, found = Hub.root / repo, []
        for path in sorted((folder / below).rglob("*") if recursive else (folder / below).glob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_dir():
                found.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": name})
            else:
                found.append({"type": "file", "oid": "1" * 40, "size": path.stat().st_size, "path": name})
        return found

    def _json(self, value, status=200):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self._body(json.dumps(value).encode())

    def _file(self, path):
        if not path.is_file():
            return self._error(404, "EntryNotFound", "Entry not found")
        content, asked = path.read_bytes(), self.headers.get("Range")
        if asked:
            start, stop = re.fullmatch(r"bytes=(\d+)-(\d+)", asked).groups()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop}/{len(content)}")
            content = content[int(start) : int(stop) + 1]
        else:
            self.send_response(200)
        Hub.sent += len(content) if self.command == "GET" else 0
        self.send_header("ETag", '"' + "1" * 40 + '"')
        self.send_header("X-Repo-Commit", COMMIT)
        self._body(content)

    def _body(self, content):
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *a):
        pass


def started():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
