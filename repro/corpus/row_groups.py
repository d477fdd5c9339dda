"""Rows of a hub's data set, by row groups: all in their order, or a sample drawn by hash over all files.

The list of files and what their footers say decide which rows come and in what order, so neither the version
of a library nor a restart changes a corpus. Rows are read as they come, in small batches: a row group may be
of any size.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from repro.corpus.settings import HubData
from repro.errors import SettingError
from repro.fetch.retries import patiently, resumed
from repro.plain import Row
from repro.store import cached, parquet

BATCH_ROWS = 64
REQUEST_BYTES = 4 << 20  # of a column's pages, read at once
GROUPS = 64  # that a sample is drawn from at least, where there are as many
LEAST_ROWS = 4  # of a row group that is read at all
ROW_BYTES = 4000  # of a text, where no footer says
THREADS = 16


@dataclass(frozen=True)
class Group:
    """A row group, or a whole file of another format (``rows`` is None): its file's name in the data set."""

    name: str
    number: int
    rows: int | None
    n_bytes: int  # of the texts in it

    def key(self, seed: int) -> bytes:
        """Its place in a sample's order."""
        return hashlib.blake2b(f"{seed}\x00{self.name}\x00{self.number}".encode(), digest_size=16).digest()


@dataclass(frozen=True)
class Part:
    """Rows of a group that enter together: positions in the group (parquet), or a range (other formats)."""

    group: Group
    rows: range | np.ndarray


class Table:
    """A split of a data set at a commit (``None``: a local folder)."""

    def __init__(self, data: HubData, commit: str | None) -> None:
        import datasets

        self.data, self.commit = data, commit
        builder = patiently(lambda: datasets.load_dataset_builder(data.repo, data.name, revision=commit))
        splits = dict(builder.config.data_files or {})
        if data.split not in splits:
            raise SettingError(
                f"{data.repo} has no split {data.split!r}; it has"
                f" {', '.join(map(str, splits)) or 'none'}: set split in corpus.hub"
            )
        root = str(Path(data.repo).resolve()) if commit is None else f"hf://datasets/{data.repo}@{commit}"
        given = [str(path) for path in splits[data.split]]
        self.paths = {path.removeprefix(root).lstrip("/"): path for path in given}
        self.builder, self.in_order = builder, list(self.paths)
        self.parquet = all(name.endswith(".parquet") for name in self.paths)
        self.files: Any = None
        self.current: tuple[str, Any, Any] | None = None  # the file that is open
        if commit is not None and self.parquet:
            from huggingface_hub import HfFileSystem

            self.files = HfFileSystem()
            for folder in sorted({path.rpartition("/")[0] for path in given}):  # sizes, a page at a time
                patiently(partial(self.files.ls, folder.removeprefix("hf://"), detail=True))

    def open(self, name: str) -> Any:
        """A file of the data set; each read is one request."""
        if self.files is None:
            return open(self.paths[name], "rb")
        return self.files.open(self.paths[name].removeprefix("hf://"), "rb", cache_type="none")

    def groups(self) -> list[Group]:
        """All row groups, in the order of the files' names."""
        names = sorted(self.paths)
        if not self.parquet:
            return [Group(name, 0, None, 0) for name in names]
        found = self._footers(names)
        return [
            Group(name, number, rows, n_bytes)
            for name in names
            for number, (rows, n_bytes) in enumerate(found[name])
        ]

    def _footers(self, names: list[str]) -> dict[str, list[list[int]]]:
        """{file: [[rows, bytes of the text column] of each row group]}; a commit's are kept in the cache."""
        about = f"{self.data.repo}@{self.commit} {self.data.text_field} {' '.join(names)}"
        memory = f"row_groups-{hashlib.sha256(about.encode()).hexdigest()[:24]}"
        if self.commit is not None and (known := cached.recall(memory)):
            return known
        with ThreadPoolExecutor(THREADS) as pool:
            read = pool.map(lambda name: patiently(partial(self._footer, name)), names)
            found = dict(zip(names, read, strict=True))
        if self.commit is not None:
            cached.remember(memory, found)
        return found

    def _footer(self, name: str) -> list[list[int]]:
        with self.open(name) as handle:
            about = parquet.metadata(handle)
        found = []
        for number in range(about.num_row_groups):
            group = about.row_group(number)
            columns = [group.column(i) for i in range(group.num_columns)]
            size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema == self.data.text_field)
            found.append([group.num_rows, 0 if self.data.blobs else size])
        return found

    def rows(self, parts: Iterator[Part], skip: int) -> Iterator[Row]:
        """The rows of the parts one after the other, without the first ``skip``; a cut connection is taken up
        again where it broke.
        """
        for part in parts:
            known = part.group.rows is not None
            if known and skip >= len(part.rows):
                skip -= len(part.rows)
                continue
            before, skip = (skip, 0) if known else (0, skip)
            for row in resumed(partial(self._part, part), before):
                if skip:  # how many rows a file of another format has is known when it was read
                    skip -= 1
                else:
                    yield row
        self._close()

    def _part(self, part: Part, skip: int) -> Iterator[Row]:
        if part.group.rows is None:
            return self._of_other_format(part, skip)
        return self._of_row_group(part, skip)

    def _of_row_group(self, part: Part, skip: int) -> Iterator[Row]:
        wanted = np.asarray(part.rows)[skip:]
        if not len(wanted):
            return
        try:
            start = 0
            for batch in self._opened(part.group.name).iter_batches(
                BATCH_ROWS, row_groups=[part.group.number]
            ):
                stop = start + len(batch)
                inside = wanted[(wanted >= start) & (wanted < stop)] - start
                start = stop
                if len(inside):
                    yield from batch.take(inside).to_pylist()
                if stop > wanted[-1]:
                    return
        except Exception:
            self._close()
            raise

    def _opened(self, name: str) -> Any:
        """A file's row groups follow one another where all are read: it stays open until another is."""
        if self.current is None or self.current[0] != name:
            self._close()
            handle = self.open(name)
            self.current = name, handle, parquet.streamed(handle, REQUEST_BYTES)
        return self.current[2]

    def _close(self) -> None:
        if self.current is not None:
            self.current[1].close()
            self.current = None

    def _of_other_format(self, part: Part, skip: int) -> Iterator[Row]:
        """What ``datasets`` makes of a file."""
        assert isinstance(part.rows, range)  # row groups alone are drawn from
        stream: Any = self.builder.as_streaming_dataset(self.data.split)
        if stream.num_shards == len(self.in_order):
            stream = stream.shard(len(self.in_order), self.in_order.index(part.group.name), contiguous=True)
        elif part.group.name != min(self.in_order):  # not to be told apart: all come with the first
            return iter(())
        return islice(iter(stream), part.rows.start + skip, part.rows.stop)


def everything(groups: list[Group]) -> Iterator[Part]:
    """All rows in their order."""
    return (Part(group, range(2**62 if group.rows is None else group.rows)) for group in groups)


def sample(groups: list[Group], seed: int, documents: float, n_bytes: float) -> Iterator[Part]:
    """All rows in an order drawn by hash, of which a beginning of ``documents`` and ``n_bytes`` (of text) is
    spread over at least :data:`GROUPS` row groups of all files.

    Row groups come in the order of a hash. Each gives first a share of its rows, drawn by hash as well, and
    once all have given it, the rest. A file of another format than parquet counts as one row group, and gives
    first the rows at its start.
    """
    drawn = sorted(groups, key=lambda group: group.key(seed))
    spread = min(GROUPS, len(drawn)) or 1
    if any(group.rows is None for group in drawn):
        first = max(LEAST_ROWS, math.ceil(min(documents, n_bytes / ROW_BYTES) / spread))
        return (Part(group, rows) for rows in (range(first), range(first, 2**62)) for group in drawn)
    in_all = sum(group.rows or 0 for group in drawn)
    text = sum(group.n_bytes for group in drawn) or ROW_BYTES * in_all
    wanted = min(documents, n_bytes / max(1.0, text / max(1, in_all)))
    mean = in_all / max(1, len(drawn))
    share = min(1.0, max(wanted / spread, LEAST_ROWS) / max(1.0, mean))
    return (Part(group, _drawn(group, seed, low, high)) for low, high in ((0.0, share), (share, 1.0))
            for group in drawn)  # fmt: skip


def _drawn(group: Group, seed: int, low: float, high: float) -> np.ndarray:
    """Positions whose hash, as a number in [0, 1), lies in [low, high)."""
    with np.errstate(over="ignore"):  # splitmix64: the same on every machine and in every version
        start = np.uint64(int.from_bytes(group.key(seed)[:8], "little"))
        z = start + np.arange(1, (group.rows or 0) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        place = ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
    return np.flatnonzero((place >= low) & (place < high))
