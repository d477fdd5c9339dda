"""Files in buckets and other places that fsspec reads: ``s3://``, ``gs://``, ``hf://``, ``memory://``.

A :class:`Remote` stands where a :class:`~pathlib.Path` of an input stands. What is refused once is asked for
again; what is refused for good is one line.
"""

from __future__ import annotations

import functools
import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from repro.errors import SettingError
from repro.fetch.retries import patiently, told

URL = re.compile(r"[a-z][a-z0-9+.-]*://")
REQUEST_BYTES = 4 << 20
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


def is_remote(place: Any) -> bool:
    """Whether a text names a place by its protocol."""
    return isinstance(place, str) and URL.match(place) is not None


@dataclass(frozen=True)
class Status:
    """What :meth:`Remote.stat` says."""

    st_size: int


@dataclass(frozen=True, order=True)
class Remote:
    """A file by its URL, with what of :class:`~pathlib.Path` an input needs."""

    url: str
    size: int
    mark: str = ""  # its ETag: another content has another one

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.url).name

    @property
    def suffix(self) -> str:
        """The end of the name, from its last dot."""
        return PurePosixPath(self.url).suffix

    def is_symlink(self) -> bool:
        """A bucket has none."""
        return False

    def stat(self) -> Status:
        """Its size."""
        return Status(self.size)

    def open(self) -> BinaryIO:
        """For reading, in requests of 4 MB; a connection that is cut is taken up again."""
        with said(self.url):
            files, path = filesystem(self.url)
            raw = patiently(lambda: files.open(path, "rb", cache_type="none"))
        return io.BufferedReader(_Patient(raw, self.size, self.url), REQUEST_BYTES)

    def read_bytes(self) -> bytes:
        """All of it."""
        with self.open() as handle:
            return handle.read()

    def digest(self) -> str:
        """What its content is known by: the ETag where the place gives one, else the sha256."""
        if self.mark:
            return f"{self.mark}:{self.size}"
        readable: Any = self.open()  # a buffered reader, which is all that is asked
        with readable as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()


class _Patient(io.RawIOBase):
    """A file of fsspec whose every read is tried again."""

    def __init__(self, file: Any, size: int, url: str) -> None:
        self.file, self.size, self.url, self.at = file, size, url, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self.size - self.at))
        with said(self.url):
            found = patiently(functools.partial(self._piece, length)) if length else b""
        if len(found) < length:
            raise SettingError(f"{self.url} ends before the {self.size:,} bytes that it was said to have")
        buffer[: len(found)] = found
        self.at += len(found)
        return len(found)

    def _piece(self, length: int) -> bytes:
        self.file.seek(self.at)
        return self.file.read(length)

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


def opened(path: Path | Remote) -> BinaryIO:
    """A file for reading, wherever it is."""
    return path.open() if isinstance(path, Remote) else open(path, "rb")


def root(url: str) -> str:
    """The place itself, or the folder that stands before the first sign of a pattern."""
    place = url.rstrip("/")
    before = re.split(r"[*?[]", place)[0]
    return place if before == place else before.rpartition("/")[0]


def found(url: str) -> list[tuple[Remote, str]]:
    """(file, name below :func:`root`) of a file, of all below a folder, or of what a pattern matches."""
    with said(url):
        files, path = filesystem(url)
        protocol = url.partition("://")[0]
        top = root(path)
        places = [path] if root(url) == url.rstrip("/") else patiently(lambda: files.glob(path))
        result = []
        for place in sorted(places):
            below = patiently(functools.partial(files.find, place, detail=True))
            for name, about in sorted(below.items()):
                inside = name[len(top) :].strip("/") or PurePosixPath(name).name
                mark = str(about.get("ETag") or about.get("etag") or about.get("md5Hash") or "").strip('"')
                result.append(
                    (Remote(f"{protocol}://{name.lstrip('/')}", int(about["size"] or 0), mark), inside)
                )
    return result


def filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it; listings are not remembered."""
    import fsspec

    protocol = url.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError:
        package = PACKAGES.get(protocol, f"fsspec's package for {protocol}")
        raise SettingError(f"{url}: {protocol}:// needs {package}: pip install {package}") from None
    except ValueError:
        raise SettingError(f"{url}: fsspec knows no {protocol}://") from None


@contextmanager
def said(url: str) -> Iterator[None]:
    """What a place refuses, in one line with its own words."""
    try:
        yield
    except (SettingError, MemoryError):
        raise
    except Exception as error:
        kind = type(error).__name__
        mend = "check the address"
        if "Credential" in kind or isinstance(error, PermissionError):
            mend = "check the credentials of this machine, as its own tools find them"
        raise SettingError(f"cannot read {url} ({kind}: {told(error)}); {mend}") from None


def refuse(settings: Any, allowed: tuple[str, ...], where: str = "") -> None:
    """Raise :class:`SettingError` where a setting that is none of ``allowed`` names a bucket."""
    for name, value in _values(settings, where):
        if is_remote(value) and value.partition("://")[0] in {*PACKAGES, "hf", "memory"}:
            if name not in allowed:
                raise SettingError(
                    f"{name}={value}: only {' and '.join(allowed)} may be in a bucket; give a folder here"
                )


def _values(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _values(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _values(inner, where)
    else:
        yield where, value
