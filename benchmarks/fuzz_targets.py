"""What is fuzzed (benchmarks/fuzz.py): for each kind of input a strategy that draws it and a check of what
comes of it.

A check returns ``"read"`` or ``"refused"`` and raises whatever else happens: a traceback, a message of more
than one line, rows that do not add up, something accepted that an independent reader does not find there.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import yaml
import zstandard
from hypothesis import strategies as st

from repro.corpus import files
from repro.corpus.documents import Document
from repro.corpus.settings import Corpus
from repro.errors import SettingError
from repro.evaluate import sources, tasks
from repro.evaluate.targets import Refused
from repro.items.stage import read_rows
from repro.proxy import gguf as headers
from repro.proxy.stage import checked_folder, tensors
from repro.selection.selectors import Context, imported
from repro.settings.compose import compose
from repro.settings.experiment import OVERRIDES, Experiment
from repro.settings.root import Settings
from repro.settings.typed import as_object

REFUSALS = (SettingError, Refused)  # what prints as one line
_number = itertools.count()  # of files: none has the name of an earlier one


class Silent(AssertionError):
    """Something was accepted that is not what was given."""


def outcome(call: Callable[[], Any]) -> tuple[str, Any]:
    """("read", value) or ("refused", message); a message must be one line."""
    try:
        return "read", call()
    except REFUSALS as error:
        message = str(error)
        if not message.strip() or "\n" in message.strip():
            raise AssertionError(f"not one line: {message!r}") from error
        return "refused", message


def same(found: Any, expected: Any, what: str) -> None:
    """Raise :class:`Silent` where two values differ; NaN is NaN."""
    alike = found == expected or all(isinstance(v, float) and math.isnan(v) for v in (found, expected))
    if not alike:
        raise Silent(f"{what}: {found!r}, and not {expected!r}")


# Values of every kind that a stranger's file may hold

words = st.text(
    st.characters(codec="utf-8") | st.sampled_from("\u2028\u00a0\x00\x1f'\"\\{}[]:,#=$%*~/\n\t"), max_size=12
)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.integers(-3, 300) | st.floats() | words
    | st.sampled_from(["off", "yes", "1e3", "30%", "???", "${x}", "0x10", "1_000", "2020-01-01", "nan", " "])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damage(draw: Any, raw: bytes) -> bytes:
    """``raw`` with bytes changed, left out, put in or cut off at the end."""
    out = bytearray(raw)
    for _ in range(draw(st.integers(1, 3))):
        at, kind = (
            draw(st.integers(0, max(len(out) - 1, 0))),
            draw(st.sampled_from("change drop insert cut".split())),
        )
        if kind == "change" and out:
            out[at] = draw(st.integers(0, 255))
        elif kind == "drop":
            del out[at : at + draw(st.integers(1, 8))]
        elif kind == "insert":
            out[at:at] = draw(st.binary(min_size=1, max_size=8))
        else:
            del out[at:]
    return bytes(out)


# Settings

SCHEMAS: dict[str, Any] = {
    f.name: f.default_factory for f in fields(Settings) if f.name not in ("exp", "scale", "work", "device")
}


def plausible(annotation: str) -> st.SearchStrategy[Any]:
    """Values of the right type, or nearly."""
    kinds = {
        "int": st.integers(-2, 5000), "float": st.floats(-1, 3, width=16), "bool": st.booleans(),
        "str": st.sampled_from(["a", "files", "retrieval", "bfloat16", "a/b"]),
        "list": st.lists(st.integers(0, 9) | words, max_size=3),
        "dict": st.dictionaries(words, scalars, max_size=2),
    }  # fmt: skip
    return kinds.get(annotation.split("[")[0].split(" ")[0], values) | values


@st.composite
def group_settings(draw: Any) -> tuple[str, dict[str, Any]]:
    """A group of settings and values for some of them, or for what it has not."""
    name = draw(st.sampled_from(sorted(SCHEMAS)))
    given = {}
    for field in draw(
        st.lists(st.sampled_from(fields(SCHEMAS[name])), max_size=4, unique_by=lambda f: f.name)
    ):
        given[field.name] = draw(plausible(str(field.type)))
    return name, given | draw(
        st.dictionaries(words, scalars, max_size=1) if draw(st.integers(0, 9)) == 0 else st.just({})
    )


def check_group(folder: Path, drawn: tuple[str, dict[str, Any]]) -> str:
    """Every value that was given stands in what came out."""
    name, given = drawn
    kind, made = outcome(lambda: as_object(SCHEMAS[name], given, name))
    for key, value in given.items() if kind == "read" else ():
        obeyed(value, getattr(made, key), f"{name}.{key}")
    return kind


TRUE, FALSE = ("true", "yes", "on", "y", "1"), ("false", "no", "off", "n", "0")


def obeyed(given: Any, held: Any, what: str) -> None:
    """What was written is what is held, as far as one may say the same in several ways: 1 and 1.0, true and
    yes.
    """
    if isinstance(given, str) and "${" in given or what.endswith("near_duplicates"):
        return
    if isinstance(held, bool) and isinstance(given, int | float):
        same(held, bool(given), what)  # any number but 0 is true
    elif isinstance(held, bool):
        same(str(given).lower() in TRUE, held, what)
        same(str(given).lower() in FALSE, not held, what)
    elif isinstance(given, dict):
        for key, value in given.items():
            inner = held if isinstance(held, dict) else vars(held)
            same({str(k) for k in inner} >= {str(key)}, True, f"{what}.{key}")
            obeyed(value, next(v for k, v in inner.items() if str(k) == str(key)), f"{what}.{key}")
    elif isinstance(given, list | tuple):
        same(len(held), len(given), f"entries of {what}")
        for one, other in zip(given, held, strict=True):
            obeyed(one, other, what)
    elif isinstance(held, int | float):
        same(float(given), float(held), what)
    elif isinstance(held, str):
        same(held, str(given), what)
    else:
        same(held, given, what)


LEAVES = [(group, f) for group in sorted(SCHEMAS) for f in fields(SCHEMAS[group])]


@st.composite
def arguments(draw: Any) -> list[str]:
    """One or two arguments of the command line, some misspelt, some below an arm."""
    found = []
    for _ in range(draw(st.integers(1, 2))):
        group, field = draw(st.sampled_from(LEAVES))
        path = f"{group}.{field.name}"
        if group in OVERRIDES and draw(st.integers(0, 4)) == 0:
            path = f"exp.arms.random.{path}"
        if draw(st.integers(0, 9)) == 0:
            path = path[: draw(st.integers(1, len(path)))] + draw(words)
        value = draw(plausible(str(field.type)))
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        found.append(f"{path}={text}")
    return found


def check_arguments(folder: Path, given: list[str]) -> str:
    """Composed, or refused in one line."""
    return outcome(lambda: compose(["exp=selection_30pct", "scale=smoke", *given]))[0]


@st.composite
def experiment_files(draw: Any) -> str:
    """An experiment in YAML of one's own: settings of the schema, or anything."""
    given: dict[str, Any] = {"exp": {"arms": {"a": {"select": "random"}}}}
    for _ in range(draw(st.integers(0, 2))):
        name, inner = draw(group_settings())
        given[name] = inner
    if draw(st.booleans()):
        given["exp"] |= draw(
            st.dictionaries(st.sampled_from([f.name for f in fields(Experiment)]), values, max_size=2)
        )
    text = yaml.safe_dump(given, allow_unicode=True)
    return text if draw(st.integers(0, 3)) else draw(damage(text.encode())).decode(errors="replace")


def check_experiment_file(folder: Path, text: str) -> str:
    """Composed, or refused in one line."""
    path = folder / f"own{next(_number)}.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    return outcome(lambda: compose([f"exp={path}", "scale=smoke"]))[0]


# Documents

rows = st.fixed_dictionaries(
    {},
    optional={
        "text": words | scalars,
        "id": words | scalars,
        "domain": words | scalars,
        "group": values,
        "extra": values,
    },
)
good = words.filter(str.strip)
good_rows = st.fixed_dictionaries({"text": words, "id": good, "domain": good})
lines = (
    st.tuples(st.just(True), good_rows)
    | st.tuples(st.just(False), rows.map(lambda row: json.dumps(row).encode()))
    | st.tuples(st.just(False), st.binary(max_size=20) | st.sampled_from([
        b"", b" ", b"{", b"[1]", b"1", b'{"text": "a", "text": "b", "domain": "c"}',
        b'{"text": "\\ud800", "domain": "d"}',
        b'{"a":' * 5000, b"[" * 3000, b'{"text": "x\xff"}', b'{"text": 1' + b"0" * 5000 + b"}",
    ]))
)  # fmt: skip
PACKED: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "": (lambda raw: raw, lambda raw: raw),
    ".gz": (lambda raw: gzip.compress(raw, 1, mtime=0), gzip.decompress),
    ".zst": (
        zstandard.ZstdCompressor(write_checksum=True).compress,
        lambda raw: zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True).read(),
    ),
}


@st.composite
def line_files(draw: Any) -> tuple[str, bytes, list[dict[str, Any]]]:
    """(suffix, bytes, rows that are whole): JSON lines, plain or packed, perhaps damaged afterwards."""
    drawn = draw(st.lists(lines, max_size=6))
    ends = [draw(st.sampled_from([b"\n", b"\r\n"])) for _ in drawn]
    written = [json.dumps(row, ensure_ascii=False).encode() if whole else row for whole, row in drawn]
    raw = b"".join(line + end for line, end in zip(written, ends, strict=True))
    suffix = draw(st.sampled_from(sorted(PACKED)))
    packed = PACKED[suffix][0](raw)
    if draw(st.booleans()):
        return suffix, draw(damage(packed)), []
    return suffix, packed, [row for whole, row in drawn if whole]


def check_lines(folder: Path, drawn: tuple[str, bytes, list[dict[str, Any]]]) -> str:
    """As many documents and drops as there are lines; whole rows arrive as they are; what another reader
    cannot unpack is refused.
    """
    suffix, raw, whole = drawn
    path = folder / f"docs{next(_number)}.jsonl{suffix}"
    path.write_bytes(raw)
    kind, found = outcome(lambda: list(files.stream(Corpus(kind="files", paths=[str(path)]))))
    try:
        plain = PACKED[suffix][1](raw) if raw else b""
    except Exception as error:
        same(kind, "refused", f"what {type(error).__name__} keeps another reader from")
        return kind
    if kind == "read":
        same(
            len(found),
            sum(bool(line.strip()) for line in plain.removeprefix(b"\xef\xbb\xbf").split(b"\n")),
            "rows",
        )
        made = [(d.id, d.domain, d.text) for d in found if isinstance(d, Document)]
        wanted = [(row["id"], row["domain"], row["text"]) for row in whole]
        left = iter(made)
        same([w for w in wanted if w not in left], [], "whole rows that did not arrive")
    return kind


COLUMNS = (
    pa.string(), pa.large_string(), pa.binary(), pa.int64(), pa.float64(), pa.bool_(), pa.date32(),
    pa.timestamp("ns", "UTC"), pa.list_(pa.string()), pa.struct([("body", pa.string())]),
    pa.dictionary(pa.int32(), pa.string()), pa.null(), pa.decimal128(30, 2), pa.duration("us"),
)  # fmt: skip


@st.composite
def parquet_files(draw: Any) -> tuple[bytes, list[tuple[str, str, str]] | None]:
    """(bytes, whole rows): a table whose columns may be of any type, perhaps damaged afterwards."""
    n = draw(st.integers(0, 5))
    texts, ids, domains = ([draw(good) for _ in range(n)] for _ in range(3))
    table = {
        "text": pa.array(texts, pa.string()),
        "id": pa.array(ids, pa.string()),
        "domain": pa.array(domains, pa.string()),
    }
    odd = draw(st.booleans())
    if odd:
        kind = draw(st.sampled_from(COLUMNS))
        table[draw(st.sampled_from(["text", "id", "domain", "group", "extra", "text.body"]))] = pa.nulls(
            n, kind
        )
    sink = io.BytesIO()
    packed = draw(st.sampled_from(["none", "snappy", "zstd"]))
    pq.write_table(pa.table(table), sink, compression=packed, write_page_checksum=True)
    raw = sink.getvalue()
    if draw(st.booleans()):
        return draw(damage(raw)), None
    return raw, None if odd else list(zip(ids, domains, texts, strict=True))


def check_parquet(folder: Path, drawn: tuple[bytes, list[tuple[str, str, str]] | None]) -> str:
    """As many documents and drops as the footer says; whole tables arrive as they are."""
    raw, whole = drawn
    path = folder / f"docs{next(_number)}.parquet"
    path.write_bytes(raw)
    kind, found = outcome(lambda: list(files.stream(Corpus(kind="files", paths=[str(path)]))))
    if kind == "read":
        same(len(found), pq.read_metadata(path).num_rows, "rows")
        if whole is not None:
            same([(d.id, d.domain, d.text) for d in found], whole, "rows of a whole table")
    return kind


@st.composite
def item_files(draw: Any) -> bytes:
    """JSON lines of benchmark items."""
    drawn = draw(st.lists(lines, min_size=1, max_size=4))
    return b"\n".join(json.dumps(row).encode() if whole else row for whole, row in drawn)


def check_items(folder: Path, raw: bytes) -> str:
    """Every line is an item, or the file is refused."""
    path = folder / f"items{next(_number)}.jsonl"
    path.write_bytes(raw)
    kind, found = outcome(lambda: list(read_rows(path)))
    if kind == "read":
        same(found, [json.loads(line) for line in raw.split(b"\n") if line.strip()], "items")
    return kind


# Models


def whole_gguf(path: Path) -> bytes:
    """The smallest file that the header reader takes for a model."""
    import gguf
    import numpy

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_embedding_length(8)
    writer.add_head_count(2)
    writer.add_context_length(64)
    writer.add_feed_forward_length(8)
    writer.add_token_list(["a", "b", "c"])
    writer.add_tensor("token_embd.weight", numpy.ones((3, 8), numpy.float32))
    writer.add_tensor("blk.0.attn_q.weight", numpy.ones((8, 8), numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def whole_safetensors() -> bytes:
    """Two tensors and a note."""
    a = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    b = {"dtype": "I64", "shape": [1], "data_offsets": [24, 32]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "a": a, "b": b}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(32)


@st.composite
def gguf_files(draw: Any, raw: bytes) -> bytes:
    """A GGUF file whose header, mostly, is damaged."""
    return draw(damage(raw)) if draw(st.booleans()) else draw(damage(raw[:400])) + raw[400:]


def check_gguf(folder: Path, raw: bytes) -> str:
    """Sizes are numbers that a model can have, and the weights fit into the file."""
    path = folder / f"model{next(_number)}.gguf"
    path.write_bytes(raw)
    kind, found = outcome(lambda: headers.header(path))
    if kind == "read":
        same([v for v in found.config.values() if not 0 <= v < 2**32], [], "sizes")
        same(0 <= found.parameters <= 8 * len(raw), True, "parameters within the file")
    path.unlink()
    return kind


@st.composite
def safetensors_files(draw: Any) -> bytes:
    """A safetensors file, damaged in its bytes or in what its header says."""
    raw = whole_safetensors()
    if (way := draw(st.integers(0, 2))) == 0:
        return draw(damage(raw))
    if way == 1:  # shapes that hold the same number of values, another type of the same size, another name
        said = [
            b"[2, 3]",
            b"[3, 2]",
            b"[2, 4]",
            b"F32",
            b"I32",
            b"F64",
            b'"a"',
            b'"b"',
            b'"c"',
            b"I64",
            b"U64",
        ]
        return raw.replace(draw(st.sampled_from(said)), draw(st.sampled_from(said)))
    entry = st.fixed_dictionaries(
        {"dtype": st.sampled_from(["F32", "I64", "F33"]) | values, "shape": st.just([2, 3]) | values,
         "data_offsets": st.sampled_from([[0, 24], [24, 32], [32, 24], [-24, 0]]) | values})  # fmt: skip
    header = draw(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), entry | values, max_size=3))
    said = json.dumps(header).encode()
    return len(said).to_bytes(8, "little") + said + raw[-32:]


def check_safetensors(folder: Path, raw: bytes) -> str:
    """Accepted is what the library accepts, with the same shapes; what is accepted can be counted."""
    place = folder / f"model{next(_number)}"
    place.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (place / name).write_text("{}")
    path = place / "model.safetensors"
    path.write_bytes(raw)
    kind, _ = outcome(lambda: checked_folder(place))
    try:
        with safetensors.safe_open(path, "np") as opened:
            shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}
    except Exception as error:
        same(kind, "refused", f"what {type(error).__name__} keeps the library from")
        return kind
    if kind == "read":
        same(tensors(path), shapes, "shapes")
    return kind


# Tasks and scores

TASK_KEYS = (
    "task", "group", "include", "dataset_path", "dataset_name", "test_split", "validation_split",
    "training_split", "fewshot_split", "num_fewshot", "doc_to_text", "doc_to_target", "doc_to_choice",
    "output_type", "metric_list", "fewshot_config", "unsafe_code", "tag", "custom_dataset", "class",
    "dataset_kwargs",
)  # fmt: skip


@st.composite
def task_files(draw: Any) -> bytes:
    """A task's YAML: keys of lm-eval with values of any kind, perhaps damaged."""
    usual = {"task": "mine", "dataset_path": "mine", "test_split": "test", "output_type": "multiple_choice"}
    given = (usual if draw(st.booleans()) else {}) | draw(
        st.dictionaries(st.sampled_from(TASK_KEYS), values, max_size=4)
    )
    raw = yaml.safe_dump(given, allow_unicode=True).encode()
    return raw if draw(st.booleans()) else draw(damage(raw))


def check_task(folder: Path, raw: bytes) -> str:
    """Planned and written, with its name read back, or refused."""
    place = folder / f"task{next(_number)}"
    (place / "items" / "mine").mkdir(parents=True)
    (place / "items" / "mine" / "test.jsonl").write_text('{"q": "a"}\n')
    path = place / "own.yaml"
    path.write_bytes(raw)

    def planned() -> Any:
        sources.identity(str(path), {})
        plan = tasks.plan(str(path), place / "items")
        tasks.write(plan, place / "out")
        return plan

    kind, plan = outcome(planned)
    if kind == "read":
        same(bool(plan.leaves or plan.missing or plan.files), True, "a plan of something")
        same(all(isinstance(reason, str) for reason in plan.missing.values()), True, "reasons")
    return kind


IDS = [f"web-{i:02}" for i in range(6)]
numbers = st.floats(width=32) | st.integers(-9, 9)


@st.composite
def score_files(draw: Any) -> tuple[str, bytes, list[tuple[str, Any]] | None]:
    """(suffix, bytes, rows) of imported scores, CSV or parquet, of good numbers or of anything."""
    n = draw(st.integers(1, 5))
    plain = draw(st.booleans())
    ids = [
        draw(st.sampled_from([*IDS, "elsewhere"]) if plain or draw(st.booleans()) else words)
        for _ in range(n)
    ]
    scores = [draw(numbers if plain else scalars) for _ in range(n)]
    suffix, sink = draw(st.sampled_from([".csv", ".parquet"])), io.BytesIO()
    if suffix == ".csv":
        text = io.StringIO(newline="")
        csv.writer(text).writerows([["doc_id", "score"], *zip(ids, scores, strict=True)])
        raw = text.getvalue().encode(errors="replace")
    else:
        try:
            column = pa.array(scores)
        except (pa.ArrowException, OverflowError):
            column = pa.array([str(score) for score in scores])
        pq.write_table(pa.table({"doc_id": ids, "score": column}), sink)
        raw = sink.getvalue()
    if draw(st.integers(0, 2)) == 0:
        return suffix, draw(damage(raw)), None
    return suffix, raw, list(zip(ids, map(float, scores), strict=True)) if plain else None


def check_scores(folder: Path, drawn: tuple[str, bytes, list[tuple[str, Any]] | None]) -> str:
    """One row for each row of a known document, with its number, or refused."""
    suffix, raw, whole = drawn
    path = folder / f"scores{next(_number)}{suffix}"
    path.write_bytes(raw)
    with duckdb.connect() as connection:
        connection.register("documents", polars.DataFrame({"doc_id": IDS}))
        context = Context(folder, None, connection)
        kind, found = outcome(lambda: imported.priority(context, str(path)))
    if whole is not None:
        known = [(ident, value) for ident, value in whole if ident in IDS]
        same(kind, "read" if known else "refused", "numbers of known documents")
        for (ident, value), (i, v) in zip(known, found.rows() if kind == "read" else (), strict=True):
            same((i, math.isnan(v) or v), (ident, math.isnan(value) or value), "a score")
    return kind


def targets(folder: Path) -> dict[str, tuple[Any, Callable[[Path, Any], str], float]]:
    """{kind of input: (strategy, check, share of all inputs)}."""
    gguf_raw = whole_gguf(folder / "whole.gguf")
    return {
        "JSON lines, plain, gz, zst": (line_files(), check_lines, 0.24),
        "parquet": (parquet_files(), check_parquet, 0.18),
        "benchmark items": (item_files(), check_items, 0.1),
        "GGUF header": (gguf_files(gguf_raw), check_gguf, 0.15),
        "safetensors header": (safetensors_files(), check_safetensors, 0.15),
        "task YAML": (task_files(), check_task, 0.04),
        "imported scores": (score_files(), check_scores, 0.05),
        "settings of a group": (group_settings(), check_group, 0.08),
        "command line": (arguments(), check_arguments, 0.005),
        "experiment YAML": (experiment_files(), check_experiment_file, 0.005),
    }
