"""Texts by blob id from Software Heritage's public bucket: gzip files, fetched over HTTPS, held against their
ids, kept in the cache.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from repro.corpus.documents import Drop
from repro.errors import SettingError
from repro.fetch.retries import patiently, told
from repro.store import atomic, cached

THREADS = 32
MAX_BYTES = 64 << 20  # of a text; a blob that would unpack to more is dropped
DENIED = 32  # blobs in a row that the bucket does not give: it gives none
AGAIN = 2  # times that a blob is fetched when what comes is damaged


class Blobs:
    """A connection pool to the bucket; use as a context manager."""

    def __init__(self, url: str) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        if "{}" not in url:
            raise SettingError(f"corpus.blob_url={url!r} must contain {{}}, the place of the blob id")
        self.url = url
        self.session = requests.Session()
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, HTTPAdapter(pool_maxsize=THREADS))
        self.pool = ThreadPoolExecutor(THREADS)
        self.refused = 0  # in a row
        self.had = False  # whether a text ever came
        self.answer = ""  # of the last refusal

    def __enter__(self) -> Blobs:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self.pool.shutdown(cancel_futures=True)
        self.session.close()
        if kind is None and self.refused and not self.had:
            self._deny()

    def texts(self, ids: list[str]) -> Iterator[str | Drop]:
        """The text of each id in order, or why there is none: ``not_a_blob_id``, ``blob_gone``,
        ``blob_damaged``, ``too_long`` or ``invalid_utf8``.

        Raises :class:`SettingError` when the bucket cannot be reached, or gives nothing at all (no access, a
        wrong address): dropping what a network loses would not be counting.
        """
        for found in self.pool.map(self._text, ids):
            if isinstance(found, Drop) and found.reason == "blob_gone":
                self.refused += 1
            else:
                self.refused, self.had = 0, True
            if self.refused >= DENIED:
                self._deny()
            yield found

    def _deny(self) -> None:
        raise SettingError(
            f"corpus.blob_url={self.url}: the last {self.refused} blobs were refused ({self.answer}); the"
            " bucket gives no access, or is another one: without it there would be no text of these rows"
        )

    def _text(self, ident: str) -> str | Drop:
        if not ident.isalnum():
            return Drop("not_a_blob_id", ident)
        path = cached.cache() / "blobs" / ident[:2] / f"{ident}.gz"
        for _ in range(AGAIN):
            raw = path.read_bytes() if path.is_file() else self._download(ident, path)
            if raw is None:
                return Drop("blob_gone", ident)
            try:
                content = _unpacked(raw)
            except (EOFError, zlib.error):
                content = None
            if content is not None and (len(content) > MAX_BYTES or is_of(ident, content)):
                break
            path.unlink(missing_ok=True)  # fetched anew
        else:
            return Drop("blob_damaged", ident)
        if len(content) > MAX_BYTES:
            return Drop("too_long", ident)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            return Drop("invalid_utf8", ident)

    def _download(self, ident: str, path: Path) -> bytes | None:
        try:
            content = patiently(lambda: self._asked(ident))
        except Exception as error:
            raise SettingError(
                f"cannot fetch blob {ident} from {self.url.format(ident)} ({type(error).__name__}:"
                f" {told(error)}); check the network and run again: what was fetched is kept in the cache"
            ) from None
        if content is not None:
            with atomic(path) as temporary:
                temporary.write_bytes(content)
        return content

    def _asked(self, ident: str) -> bytes | None:
        with self.session.get(self.url.format(ident), timeout=30, stream=True) as answer:
            if answer.status_code in (403, 404, 410):  # the bucket answers 403 for what it does not have
                self.answer = f"{answer.status_code} {answer.reason}: {answer.text[:300]}".strip()
                return None
            answer.raise_for_status()
            content = bytearray()  # read to the end: only then is a connection known to have been cut
            for piece in answer.raw.stream(1 << 20, decode_content=False):
                content += piece
                if len(content) > MAX_BYTES:
                    break
            return bytes(content)


def _unpacked(raw: bytes) -> bytes:
    """What a gzip file holds, up to a byte more than :data:`MAX_BYTES`."""
    unpacking = zlib.decompressobj(16 + zlib.MAX_WBITS)
    content = unpacking.decompress(raw, MAX_BYTES + 1)
    if len(content) <= MAX_BYTES and not unpacking.eof:
        raise EOFError
    return content


def is_of(ident: str, content: bytes) -> bool:
    """Whether a content has this id: Software Heritage names contents by sha1 and by git's (``sha1_git``);
    an id of another length is none of either and cannot be checked.
    """
    if len(ident) != 40:
        return True
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return ident in (git, hashlib.sha1(content).hexdigest())
