"""Finished stages of a run as one file for another machine (``python -m repro.store pack``).

A pack (``store.tar.zst``) holds the finished stages of a run without text and without weights, and the
finished shards of a scoring that is not done. Parquet is written anew without its own compression, so that
zstd sees what files share (ids of documents and items); values stay as they are. The manifest of each
artifact names what was left out, with the sha256 that making it again should give. Text comes from its source
again where a stage reads it; a training whose weights are asked for is trained again; an unfinished training
starts again.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from repro.errors import require
from repro.store import Stage, Store, atomic, canonical, parquet, provenance, read_json, sealed, sha256_file
from repro.store.origin import Code

if TYPE_CHECKING:
    import pyarrow as pa

NAME, FORMAT = "store.tar.zst", 1
CONTENT = "pack.json"  # the first member: what the pack holds, with the sha256 of every file
LEVEL, WINDOW_LOG = 19, 27  # zstd; 128 MB of window, so that the same columns of many files are found again
RUN_MB, ALL_MB = 4.0, 25.0

# Of each stage, what later stages read and a pack leaves out: benchmark items, documents, token ids, weights.
LEFT_OUT = {
    "items": ("*.jsonl",),
    "corpus": ("heldout/*",),
    "planted": ("heldout/*",),
    "proxy": ("model/*",),
    "tokens": ("*.bin", "index.parquet", "tokenizer/*"),
    "pretrain": ("model/*", "models/*", "branch/*", "checkpoints/*"),
}
# What no later stage reads: logs, text kept for showing, means that are measured again.
NOT_PACKED = {
    "score": ("tokens.json", "*.safetensors"),
    "pretrain": ("wandb/*",),
    "evaluate": ("parts/*", "*/parts/*"),
}
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")  # of whatever stage
ITEMS = "items.parquet"  # of evaluations: rounded with --half
PAIR = ("gold_loglikelihood", "other_loglikelihood")
ON_THE_WAY = "checkpoints/"  # of models kept in training
# Of those a report reads whether an answer was right and its bits, unless one of these is the endpoint: not
# with --half.
UNREAD = (*PAIR, "gold_probability")
LOSSES, LOSS_DIGITS = "loss.jsonl", 4  # of single steps, with --half
NOT_IN_HALF = {"pretrain": ("metrics.jsonl",)}  # packs without --half hold it
TEXT = ("text", "extra")  # columns of documents


class Entry(TypedDict):
    """An artifact in a pack."""

    folder: str
    stage: str
    fingerprint: str
    state: str  # finished | unfinished
    files: dict[str, str]  # name -> sha256


class Content(TypedDict):
    """What a pack says of itself first (:data:`CONTENT`)."""

    format: int
    code: Code
    artifacts: list[Entry]


def pack(
    store: Store,
    stages: Iterable[Stage],
    target: Path,
    rounded: str | None = None,
    run_mb: float = RUN_MB,
    all_mb: float = ALL_MB,
    level: int = LEVEL,
    endpoint: str = "",
) -> Content:
    """Write what is finished of ``stages`` to ``target``; returns the pack's content (:data:`CONTENT`).

    ``rounded``: items' log-likelihoods in ``half`` or ``single`` precision, and of models kept in training no
    :data:`UNREAD` but what is the ``endpoint``. Raises :class:`SettingError` where nothing is finished, and
    above ``run_mb`` or, with the packs beside it, ``all_mb``.
    """
    import zstandard

    unread = tuple(name for name in UNREAD if name != endpoint.partition("/")[0])
    found = [packed for stage in stages for packed in _artifacts(store, stage, rounded, unread)]
    require(
        bool(found),
        f"{store.root} holds nothing of this run that is finished; name its work folder with work=DIR",
    )
    made = provenance()
    code: Code = {"commit": made["commit"], "dirty": made["dirty"], "tag": made["tag"]}
    content: Content = {"format": FORMAT, "code": code, "artifacts": [entry for entry, _ in found]}
    files = {CONTENT: canonical(content).encode()}
    for entry, held in found:
        files |= {f"{entry['folder']}/{name}": data for name, data in held.items()}
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, window_log=WINDOW_LOG, enable_ldm=True, write_checksum=True, threads=-1 if level < LEVEL else 0
    )
    with atomic(target) as temporary:
        with (
            open(temporary, "wb") as handle,
            zstandard.ZstdCompressor(compression_params=parameters).stream_writer(handle) as out,
        ):
            with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                for name, data in _alike_together(files):
                    # time, owner and mode are always the same: so are the bytes
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
        _within(temporary, target, files, run_mb, all_mb)
    with atomic(target.with_name(target.name + ".sha256")) as temporary:
        temporary.write_text(f"{sha256_file(target)}  {target.name}\n")
    return content


def _artifacts(
    store: Store, stage: Stage, rounded: str | None, unread: tuple[str, ...]
) -> Iterator[tuple[Entry, dict[str, bytes]]]:
    """One entry and its files for a finished stage, or for an unfinished scoring that has shards; none for
    others.
    """

    def entry(folder: str, state: str, data: dict[str, bytes]) -> Entry:
        return {
            "folder": folder,
            "stage": stage.name,
            "fingerprint": stage.fingerprint,
            "state": state,
            "files": _digests(data),
        }

    folder = store.path(stage)
    if store.has(stage):
        data = _finished(folder, stage.name, rounded, unread)
        yield entry(stage.folder, "finished", data), data
        return
    partial = folder.with_name(folder.name + ".partial")
    if stage.name == "score" and (shards := sorted((partial / "scores").glob("*.parquet"))):
        # means must be those of the shards that are done
        names = [*shards, *partial.glob("means.safetensors")]
        data = {
            str(path.relative_to(partial)): path.read_bytes()
            for path in names
            if not path.name.startswith(".")
        }
        yield entry(f"{stage.folder}.partial", "unfinished", data), data


def _finished(folder: Path, stage: str, rounded: str | None, unread: tuple[str, ...]) -> dict[str, bytes]:
    """The files of an artifact in the form a pack holds them; the manifest says what became of each of the
    others.
    """
    manifest = read_json(folder / "manifest.json")
    left_out, recoded = dict(manifest.get("left_out", {})), dict(manifest.get("recoded", {}))
    not_packed, kept = list(manifest.get("not_packed", [])), {}
    for name, sha in manifest["files"].items():
        if matches(name, NOT_PACKED.get(stage, ())) or (
            rounded and matches(name, NOT_IN_HALF.get(stage, ()))
        ):
            not_packed.append(name)
        elif matches(name, (*LEFT_OUT.get(stage, ()), *WEIGHTS)):
            left_out[name] = sha
        else:
            data = (folder / name).read_bytes()
            require(
                hashlib.sha256(data).hexdigest() == sha,
                f"{folder / name} is not what was published; delete {folder}",
            )
            kept[name] = data
            if name.endswith(".parquet"):
                items = rounded if Path(name).name == ITEMS else None
                kept[name] = _recoded(data, items, unread if name.startswith(ON_THE_WAY) else ())
                text = stage in ("corpus", "planted")
                (left_out if text else recoded).setdefault(name, sha)
            elif rounded and stage == "pretrain" and name == LOSSES:
                kept[name] = _short(data)
    how = {"left_out": left_out, "recoded": recoded, "not_packed": sorted(not_packed)}
    how["rounded"] = sorted(
        {*manifest.get("rounded", []), *(n for n in kept if rounded and Path(n).name in (ITEMS, LOSSES))}
    )
    packed = manifest | {"files": _digests(kept)} | {key: value for key, value in how.items() if value}
    return kept | {"manifest.json": (canonical(sealed(packed)) + "\n").encode()}


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a file's name fits one of the patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _digests(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}


def _recoded(data: bytes, rounded: str | None, unread: tuple[str, ...] = ()) -> bytes:
    """A parquet file with the same rows, uncompressed, without columns of text; the bytes of numbers stand by
    their place, for those of one place are alike.

    ``rounded``: log-likelihoods of items are, to ``half`` or ``single`` precision, and columns of ``unread``
    are empty; whether an answer was right stays exact.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = parquet.table(io.BytesIO(data))
    table = table.drop_columns([name for name in TEXT if name in table.column_names])
    if rounded:
        table = _rounded(_emptied(table, unread), rounded)
    buffer = io.BytesIO()
    numbers = {
        column.name: "BYTE_STREAM_SPLIT" for column in table.schema if pa.types.is_floating(column.type)
    }
    pq.write_table(
        table,
        buffer,
        compression="NONE",
        use_dictionary=False,
        write_statistics=False,
        column_encoding=numbers,
    )
    return buffer.getvalue()


def _emptied(table: pa.Table, columns: tuple[str, ...]) -> pa.Table:
    """The table with nothing in these columns, as far as it has them."""
    import pyarrow as pa

    for name in set(columns) & set(table.column_names):
        place, column = table.schema.get_field_index(name), table.schema.field(name)
        table = table.set_column(place, column, pa.nulls(len(table), column.type))
    return table


def _short(losses: bytes) -> bytes:
    """The rows of a training's log, its losses with four digits."""
    rows = [json.loads(line) for line in losses.decode().splitlines()]
    short = (row | {"loss": float(f"{row['loss']:.{LOSS_DIGITS}g}")} for row in rows)
    return "".join(json.dumps(row) + "\n" for row in short).encode()


def _rounded(table: pa.Table, precision: str) -> pa.Table:
    """Every floating column in that precision; its type stays. Of two log-likelihoods their difference is
    what is rounded: the second is written as the first and the difference.
    """
    import pyarrow as pa
    import pyarrow.compute

    pc: Any = pyarrow.compute  # its functions are made when it is imported
    kind = {"half": pa.float16(), "single": pa.float32()}[precision]
    difference = None
    if set(PAIR) <= set(table.column_names):
        difference = pc.subtract(table[PAIR[1]], table[PAIR[0]]).cast(kind, safe=False)
    for place, column in enumerate(table.schema):
        if pa.types.is_floating(column.type):
            table = table.set_column(
                place, column, table.column(place).cast(kind, safe=False).cast(column.type)
            )
    if difference is not None:
        place = table.schema.get_field_index(PAIR[1])
        column = table.schema.field(place)
        table = table.set_column(place, column, pc.add(table[PAIR[0]], difference.cast(column.type)))
    return table


def _alike_together(files: dict[str, bytes]) -> list[tuple[str, bytes]]:
    """The content first, then files of the same stage and name side by side: they share most."""
    first = [(CONTENT, files[CONTENT])]
    rest = [item for item in files.items() if item[0] != CONTENT]
    return first + sorted(rest, key=lambda item: (item[0].split("/")[0], item[0].split("/", 2)[-1], item[0]))


def _within(written: Path, target: Path, files: dict[str, bytes], run_mb: float, all_mb: float) -> None:
    """Refuse a pack that is too large for a repository, naming what is large; it is not left behind."""
    size = written.stat().st_size / 1e6
    others = [path for path in target.parent.parent.rglob(NAME) if path.resolve() != target.resolve()]
    total = size + sum(path.stat().st_size for path in others) / 1e6
    kinds: Counter[str] = Counter()
    for name, data in files.items():
        kinds[f"{name.split('/')[0]}/.../{name.split('/')[-1]}"] += len(data)
    large = ", ".join(f"{kind} {n / 1e6:.1f} MB" for kind, n in kinds.most_common(5))
    mend = (
        f"largest before compression: {large}; round items' log-likelihoods with --half, or raise the limit"
        " with"
    )
    require(size <= run_mb, f"{target} would have {size:.2f} MB, {run_mb:g} are allowed; {mend} --run-mb")
    require(
        total <= all_mb,
        f"with {target} all packs would have {total:.2f} MB, {all_mb:g} are allowed; {mend} --all-mb",
    )
