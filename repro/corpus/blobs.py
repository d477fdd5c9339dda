"""Texts by blob id from Software Heritage's public bucket: gzip files, fetched over HTTPS with retries, kept
in the cache.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from repro import assets
from repro.corpus.documents import Drop
from repro.errors import SettingError
from repro.store import atomic

THREADS = 32
RETRIES = 5
MAX_BYTES = 64 << 20  # of a text; a blob that would unpack to more is dropped


class Blobs:
    """A connection pool to the bucket; use as a context manager."""

    def __init__(self, url: str, backoff: float = 0.5) -> None:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        if "{}" not in url:
            raise SettingError(f"corpus.blob_url={url!r} must contain {{}}, the place of the blob id")
        self.url = url
        retry = Retry(
            RETRIES, backoff_factor=backoff, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False
        )
        self.session = requests.Session()
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, HTTPAdapter(pool_maxsize=THREADS, max_retries=retry))
        self.pool = ThreadPoolExecutor(THREADS)

    def __enter__(self) -> Blobs:
        return self

    def __exit__(self, *_: Any) -> None:
        self.pool.shutdown(cancel_futures=True)
        self.session.close()

    def texts(self, ids: list[str]) -> Iterator[str | Drop]:
        """The text of each id in order, or why there is none: ``blob_gone``, ``blob_damaged`` or
        ``invalid_utf8``.

        Raises :class:`SettingError` when the bucket cannot be reached: dropping what a network loses would
        not be counting.
        """
        return self.pool.map(self._text, ids)

    def _text(self, ident: str) -> str | Drop:
        if not ident.isalnum():
            return Drop("blob_gone", ident)
        path = assets.cache() / "blobs" / ident[:2] / f"{ident}.gz"
        raw = path.read_bytes() if path.is_file() else self._download(ident, path)
        if raw is None:
            return Drop("blob_gone", ident)
        try:
            unpacked = zlib.decompressobj(16 + zlib.MAX_WBITS)
            text = unpacked.decompress(raw, MAX_BYTES)
            if unpacked.unconsumed_tail:
                return Drop("too_long", ident)
            if not unpacked.eof:
                raise EOFError
            return text.decode("utf-8")
        except UnicodeDecodeError:
            return Drop("invalid_utf8", ident)
        except (OSError, EOFError, zlib.error):
            path.unlink(missing_ok=True)  # fetched anew next time
            return Drop("blob_damaged", ident)

    def _download(self, ident: str, path: Path) -> bytes | None:
        import requests

        url = self.url.format(ident)
        try:
            answer = self.session.get(url, timeout=30, stream=True)
            content = answer.raw.read(MAX_BYTES + 1, decode_content=False)
        except requests.RequestException as error:
            raise SettingError(
                f"cannot fetch blob {ident} from {url} ({type(error).__name__}); check the network and run"
                " again: what was fetched is kept in the cache"
            ) from None
        if answer.status_code in (403, 404, 410):  # the bucket answers 403 for what it does not have
            return None
        if answer.status_code != 200:
            raise SettingError(
                f"cannot fetch blob {ident}: {url} answers {answer.status_code} after {RETRIES} retries; run"
                " again later"
            )
        with atomic(path) as temporary:
            temporary.write_bytes(content)
        return content
