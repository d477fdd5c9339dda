"""Selectors, one file each, found by the name in ``configs/select``.

A selector is a module with

    def priority(context: Context, **params) -> str | polars.DataFrame

Documents with a higher priority are taken first, within their domain; ties fall to a hash of the id. It
returns either an SQL expression (DuckDB) over the columns of the scores, which is enough for anything that is
a formula, or a frame of ``doc_id`` and ``priority`` when it has to read text or other files. A priority that
is null, NaN or infinite is never taken.

Optional names of a module: ``SEEDED = True`` where the order depends on the seed; ``READS_LOSSES = False``,
or a function of the parameters, where no loss of the proxy is read, so that nothing has to be scored for it;
``identity(**params)``, which says what of the parameters enters the fingerprint (the digest of a file instead
of its path); and ``READS_TEXT = True`` where reading the corpus takes long: what it says is then a stage of
its own that sees the corpus only, computed once for all budgets, mixtures and scores, and resumed shard by
shard (see :meth:`Context.judged`); ``PARAMETERS``, how large a model it reads the text with, for plans;
``TEXT_BESIDE_SCORES``, whether it reads text and scores in one go: unless said, what is not this project's
may, and a pack leaves text out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from repro import plugins
from repro.errors import SettingError, nearest, require
from repro.plain import Json
from repro.store import atomic, digest, parquet, sha256_file

if TYPE_CHECKING:
    import duckdb
    import polars

# Selectors of this project; the stage's version speaks for their code. One that is added counts by the
# content of its file.
SHIPPED = frozenset(
    "all attention_influence column distilled dsir educational imported ngram_classifier "
    "perplexity perplexity_gap random rank_sum union".split()
)


@dataclass(frozen=True)
class Context:
    """What a selector may look at. Folders are finished artifacts; ``seed`` is 0 unless the module is
    ``SEEDED``.

    ``connection`` has the views ``scores`` (the columns of ``scores.parquet``) and ``documents`` (all but the
    text). A module that ``READS_TEXT`` has no scores, and ``out`` is where finished shards are kept. ``made``
    holds what such modules said.
    """

    corpus: Path
    scores: Path | None
    connection: duckdb.DuckDBPyConnection
    seed: int = 0
    device: str = "cpu"
    out: Path | None = None
    made: Mapping[str, Path] = field(default_factory=dict)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query over ``scores`` and ``documents``."""
        return self.connection.execute(sql).fetchall()

    def texts(
        self, columns: tuple[str, ...] = ("doc_id", "domain", "group", "text")
    ) -> Iterator[polars.DataFrame]:
        """The training documents, one shard at a time."""
        from repro.corpus.documents import shards

        for path in shards(self.corpus):
            yield parquet.read(path, columns=list(columns))

    def judged(self, judge: Callable[[polars.DataFrame], Iterable[float]]) -> polars.DataFrame:
        """``doc_id`` and ``priority`` of every training document: ``judge`` gives one number for each row of
        a shard.

        Shards that a killed stage had finished are not judged again.
        """
        import polars

        from repro.corpus.documents import shards

        parts = []
        for path, shard in zip(shards(self.corpus), self.texts(), strict=True):
            done = self.out / "judged" / path.name if self.out else None
            if done is not None and done.is_file():
                parts.append(parquet.read(done))
                continue
            numbers = list(judge(shard))
            require(
                len(numbers) == len(shard),
                f"a selector gave {len(numbers)} numbers for {len(shard)} documents",
            )
            parts.append(shard.select("doc_id", priority=polars.Series(numbers, dtype=polars.Float64)))
            if done is not None:
                with atomic(done) as temporary:
                    parts[-1].write_parquet(temporary)
        return polars.concat(parts)

    def priorities(self, selector: str, params: Json | None = None) -> polars.DataFrame:
        """What another selector says: doc_id, domain, priority (null where it is not finite)."""
        import polars

        found = call(selector, self, params or {})
        if isinstance(found, str):
            with named(selector):
                return self.connection.sql(
                    "SELECT doc_id, domain, CASE WHEN isfinite(p) THEN p END AS priority "
                    f"FROM (SELECT doc_id, domain, ({found})::DOUBLE AS p FROM scores)"
                ).pl()
        domains = self.connection.sql("SELECT doc_id, domain FROM scores").pl()
        value = polars.when(polars.col("priority").is_finite()).then("priority")
        return domains.join(found, on="doc_id", how="left").select("doc_id", "domain", priority=value)


def names() -> list[str]:
    """All selectors there are."""
    return sorted({*here(), *plugins.found("selectors")})


def here() -> tuple[str, ...]:
    """Those of this project."""
    return plugins.modules(tuple(__path__))


def load(name: str) -> ModuleType:
    """The selector's module, or a :class:`SettingError` naming the nearest."""
    if name not in here():
        if (own := plugins.load("selectors", name, "priority")) is not None:
            return own
        raise SettingError(
            f"selector {name!r} is not known; did you mean {nearest(name, names())}? valid:"
            f" {', '.join(names())}"
        )
    return importlib.import_module(f"{__name__}.{name}")


def check(name: str, params: Json) -> None:
    """Refuse parameters that the selector's function does not have, or that it needs and were not given."""
    import inspect

    known = list(inspect.signature(load(name).priority).parameters.values())[1:]
    allowed = [p.name for p in known]
    for key in sorted(params.keys() - set(allowed)):
        raise SettingError(
            f"selector {name!r} has no params.{key}; did you mean {nearest(key, allowed)}? valid:"
            f" {', '.join(allowed)}"
        )
    lacking = [p.name for p in known if p.default is p.empty and p.name not in params]
    require(
        not lacking,
        f"selector {name!r} needs params.{', params.'.join(lacking)}; set it in its YAML in configs/select",
    )


def call(name: str, context: Context, params: Json) -> str | polars.DataFrame:
    """The selector's answer, with its shape checked."""
    check(name, params)
    if (made := context.made.get(key(name, params))) is not None:
        return parquet.read(made / "priorities.parquet")
    found = plugins.called("selectors", name, load(name).priority, context, **params)
    if not isinstance(found, str) and not hasattr(found, "columns"):
        raise SettingError(
            f"selector {name!r} gave {type(found).__name__}; it must give an SQL expression or a frame of"
            " doc_id and priority"
        )
    if isinstance(found, str):
        with named(name):
            context.query(f"SELECT ({found})::DOUBLE FROM scores LIMIT 0")
    else:
        lacking = {"doc_id", "priority"} - set(found.columns)
        require(not lacking, f"selector {name!r} gave no column {', '.join(sorted(lacking))}")
        twice = found.filter(found["doc_id"].is_duplicated())["doc_id"].sort()
        require(
            not len(twice),
            f"selector {name!r} gave {twice[0] if len(twice) else ''!r} more than one priority",
        )
        _refuse_strangers(name, context, found)
    return found


@contextmanager
def named(name: str) -> Iterator[None]:
    """What DuckDB cannot read or compute of a selector's answer, in one line that names selector and file."""
    import duckdb

    try:
        yield
    except (duckdb.ProgrammingError, duckdb.DataError) as error:
        said = str(error).strip().split("\n")[0]
        raise SettingError(
            f"selector {name!r} of {load(name).__file__}: its answer cannot be computed: {said}"
        ) from error


def _refuse_strangers(name: str, context: Context, found: polars.DataFrame) -> None:
    """Refuse ids that no training document has: they would be passed over, and documents left without one."""
    import polars

    kind = found.schema["doc_id"]
    require(kind == polars.String, f"selector {name!r} gave doc_ids of type {kind}; they must be text")
    context.connection.register("given_ids", found.select("doc_id"))
    [(strangers, first)] = context.query(
        "SELECT count(*), min(doc_id) FROM given_ids ANTI JOIN documents USING (doc_id)"
    )
    context.connection.unregister("given_ids")
    require(
        not strangers,
        f"selector {name!r} gave priorities for {strangers} documents that the corpus does not have,"
        f" such as {first!r}; give one for each doc_id of documents",
    )


def identity(name: str, params: Json) -> Json:
    """The parameters as they enter the fingerprint."""
    check(name, params)
    module = load(name)
    found = module.identity(**params) if hasattr(module, "identity") else params
    return found if name in SHIPPED else {**found, "code": sha256_file(Path(str(module.__file__)))}


def key(name: str, params: Json) -> str:
    """Under which name a stage reads what a selector that ``READS_TEXT`` said."""
    return f"priority {digest([name, identity(name, params)])[:8]}"


def reads_losses(name: str, params: Json) -> bool:
    """Whether a selector, or one that it is made of (``params.of``), needs scores; the others make do with
    the measures.
    """
    module = load(name)
    if getattr(module, "READS_TEXT", False):
        return False
    if parts := params.get("of"):
        return any(reads_losses(part["selector"], part.get("params") or {}) for part in parts)
    found = getattr(module, "READS_LOSSES", True)
    return bool(found(**params)) if callable(found) else found


def light(name: str, params: Json) -> tuple[str, ...]:
    """Inputs of which a stage that asks a selector needs no text (:attr:`repro.store.Stage.light`): the
    corpus, unless the selector, or one that it is made of, reads text beside scores. One's own may.
    """
    module, parts = load(name), params.get("of") or []
    apart = getattr(module, "READS_TEXT", False)
    if getattr(module, "TEXT_BESIDE_SCORES", name not in SHIPPED and not apart) or any(
        not light(part["selector"], part.get("params") or {}) for part in parts
    ):
        return ()
    return ("corpus",)


def readers(name: str, params: Json) -> Iterator[tuple[str, Json]]:
    """The selectors that read text: this one, or those it is made of (``params.of``), with their
    parameters.
    """
    if getattr(load(name), "READS_TEXT", False):
        yield name, params
    for part in params.get("of") or []:
        yield from readers(part["selector"], part.get("params") or {})
