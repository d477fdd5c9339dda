"""Stage ``score``: every document shard scored into ``scores/<shard>.parquet``; killed anywhere, it goes on
where it stood.
"""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from repro.errors import SettingError, require
from repro.heads.settings import Heads
from repro.heads.stage import CALIBRATION
from repro.influence.settings import Score
from repro.plain import Json
from repro.proxy.settings import Proxy
from repro.proxy.stage import within_context
from repro.schema import identity
from repro.store import Context, Stage, digest, parquet, read_json, sha256_file, write_json
from repro.store.cost import STARTED, Cost, Known
from repro.tracking import progress

if TYPE_CHECKING:
    from repro.influence.workers import HeadSet, Job

VERSION = 2  # of what the same settings give
BYTES_PER_TOKEN = 4  # of English text and code; for the progress bar


def stage(
    s: Score, heads_settings: Heads, proxy_settings: Proxy, proxy: Stage, corpus: Stage, heads: Stage
) -> Stage:
    """Influence scores of the training split. How many processes work on it is not part of the result."""
    require(
        s.mask == "uniform" or heads_settings.detector != "random_matched_damage",
        f"heads.detector=random_matched_damage matches what the uniform mask does, and score.mask={s.mask}"
        " does something else; compare with random_same_layers",
    )
    settings = identity(s) | {"token_losses": s.token_losses, "dtype": proxy_settings.dtype}
    if s.mask == "mean":
        settings["means"] = CALIBRATION

    def cost(known: Known) -> Cost:  # at most two full passes
        corpus, model = known.inputs["corpus"], known.inputs["proxy"]
        read = min(corpus.tokens, corpus.documents * s.max_tokens) if s.max_tokens else corpus.tokens
        read = max(0, round(s.sample * read) - (_scored(known.begun) if known.begun else 0))
        return Cost(read, 4 * model.parameters * read, read / 10, STARTED)

    return Stage(
        "score",
        "given" if heads_settings.given else heads_settings.detector,
        settings,
        lambda context: _run(s, proxy_settings, context),
        {"proxy": proxy, "corpus": corpus, "heads": heads},
        version=VERSION,
        cost=cost,
        # other heads of the same model on the same text share its layers below the lowest of them
        one_pass=digest(["score", VERSION, settings, proxy.fingerprint, corpus.fingerprint]),
    )


def _scored(begun: Path) -> int:
    """Tokens in the finished shards of a stopped scoring; the run itself says which cannot be read."""
    import polars

    read = 0
    for shard in (begun / "scores").glob("*.parquet"):
        with suppress(OSError, polars.exceptions.PolarsError):
            read += int(parquet.read(shard, columns=["n_tokens"])["n_tokens"].sum())
    return read


def _run(s: Score, proxy_settings: Proxy, context: Context) -> None:
    from repro.corpus.documents import shards
    from repro.influence import claims, examples, workers
    from repro.influence import shards as one

    corpus = context.inputs["corpus"]
    sources = shards(corpus)
    require(bool(sources), "the corpus holds no training documents; there is nothing to score")
    digests = _checked_digests(corpus, sources)
    job = workers.Job.of(s, proxy_settings.dtype, context)
    within_context("score.window", job.window, Path(job.model))
    if s.mask == "mean":
        job = _with_means(job, corpus, context.out)

    def missing() -> list[Path]:
        try:
            return [p for p in sources if not one.finished(context.out / "scores" / p.name, digests[p])]
        except ValueError as error:
            raise SettingError(
                f"{error}; the corpus changed while this stage was unfinished: delete {context.out.name} and"
                " run again"
            ) from None

    _drop_damaged(context, sources)
    todo = missing()
    context.facts["shards_resumed"] = len(sources) - len(todo)
    if todo:
        job = replace(job, others=_others(job, context, sources))
        if job.others:
            context.facts["sets_of_heads"] = 1 + len(job.others)
        _score(s, job, {p.name: digests[p] for p in sources}, corpus, context.out)
    if left := missing():
        raise SettingError(
            f"{len(left)} of {len(sources)} shards are not scored: {', '.join(p.name for p in left[:5])}; run"
            " again"
        )
    # also where the run before this one was lost and others finished the shards
    if (context.out / "claims").exists():
        claims.close_job(context.out)
    context.facts |= _verified(context.out / "scores", sources)
    context.facts |= _cut(context.out / "scores", s.max_tokens)
    if proxy_settings.kind != "built":  # that one is made to copy and predicts nothing else
        _check_losses(job, context)
    if s.token_losses:
        job = replace(job, others=())
        with workers.threads(job):
            found = examples.extremes(workers.scorer(job), corpus, context.out, s.token_losses)
        write_json(context.out / "tokens.json", found)


def _drop_damaged(context: Context, sources: list[Path]) -> None:
    """Scores of a stopped run that are no parquet are removed, said so and computed again; a disk that cannot
    be read (``OSError``) is no reason to remove any.
    """
    import polars

    damaged = []
    for path in (context.out / "scores" / p.name for p in sources):
        try:
            if path.is_file():
                parquet.read(path)
        except polars.exceptions.PolarsError:
            path.unlink(missing_ok=True)
            damaged.append(path.name)
    if damaged:
        context.warn(
            f"{len(damaged)} of {len(sources)} shards' scores cannot be read and are computed again:"
            f" {', '.join(damaged[:5])}"
        )


def _others(job: Job, context: Context, sources: list[Path]) -> tuple[tuple[str, HeadSet], ...]:
    """Sets of heads of unfinished stages of the same pass, as many as one pass takes, and where their scores
    go.
    """
    from repro.heads.stage import read
    from repro.influence.workers import SETS

    found: dict[str, HeadSet] = {}
    for other in context.others:
        scores = other.out / "scores"
        heads = tuple(read(other.inputs["heads"])["selected"])
        if heads and job.heads and not all((scores / p.name).is_file() for p in sources):
            scores.mkdir(exist_ok=True)
            found[str(other.out)] = heads
    return tuple(found.items())[: SETS - 1]


def _checked_digests(corpus: Path, sources: list[Path]) -> dict[Path, str]:
    """sha256 of every shard; a shard that is not what the corpus published is refused."""
    digests = {p: sha256_file(p) for p in sources}
    manifest = corpus / "manifest.json"
    published = read_json(manifest)["files"] if manifest.is_file() else {}
    for p, found in digests.items():
        expected = published.get(str(p.relative_to(corpus)), found)
        require(
            expected == found,
            f"{p.name} changed since the corpus was published; delete {corpus} and run again",
        )
    return digests


def _with_means(job: Job, corpus: Path, out: Path) -> Job:
    """Calibrate the mean head outputs on held-out text, once; workers read them from a file."""
    from repro.influence.calibration import write_means
    from repro.proxy.load import load

    path = out / "means.safetensors"
    if not path.is_file():
        write_means(load(job.model, job.dtype, job.device), corpus, path)
    return replace(job, means=str(path))


def _score(s: Score, job: Job, digests: dict[str, str], corpus: Path, out: Path) -> None:
    """Score the shards, with whoever joins; a bar in tokens over all of them, whose total is estimated from
    the documents' sizes. Raises :class:`SettingError` for shards that were given up.
    """
    import polars

    from repro.influence import claims, workers

    tokens = {}
    for name in digests:
        sizes = parquet.scan(corpus / "documents" / name).select(polars.col("n_bytes")).collect()["n_bytes"]
        read = sum(min(size // BYTES_PER_TOKEN, s.max_tokens or size) for size in sizes)
        tokens[name] = round(s.sample * read)
    board = claims.open_job(
        out,
        {
            "tokens": tokens,
            "digests": digests,
            "corpus": os.path.relpath(corpus, out),
            "model": os.path.relpath(job.model, out),
            "means": os.path.relpath(job.means, out) if job.means else None,
            "settings": identity(s) | {"sample": s.sample, "padding": s.padding, "dtype": job.dtype},
            "heads": job.heads,
            "others": [(os.path.relpath(folder, out), heads) for folder, heads in job.others],
            "version": VERSION,
            "lease_seconds": s.lease_seconds,
        },
    )
    before = claims.progress(out)
    done = before.tokens_done if before else 0
    title = f"scoring with {1 + len(job.others)} sets of heads" if job.others else "scoring"
    with progress(sum(tokens.values()) - done, "tokens", title) as bar:
        last = 0.0

        def advance() -> None:
            nonlocal last
            if time.monotonic() - last >= 1 and (now := claims.progress(out)):
                bar.update(max(0, now.tokens_done - done - bar.n))
                last = time.monotonic()

        workers.score_all(out, job, s.processes, advance)
    failed = board.look().failed
    require(
        not failed,
        f"{len(failed)} of {len(digests)} shards cannot be scored, the others are: "
        + "; ".join(f"{name} ({why})" for name, why in sorted(failed.items())[:3])
        + "; the same command tries them again",
    )


def _check_losses(job: Job, context: Context) -> None:
    """Warn where the proxy predicts no better than a guess among all its tokens: it is not the tokenizer's
    model.
    """
    import polars
    from transformers import AutoConfig

    guess = math.log(
        AutoConfig.from_pretrained(job.model, trust_remote_code=False).get_text_config().vocab_size
    )
    losses = parquet.scan(sorted((context.out / "scores").glob("*.parquet"))).select(
        polars.col("loss_base").mean()
    )
    mean = losses.collect().item()
    if mean is not None and mean >= guess:
        context.warn(
            f"the proxy's mean loss is {mean:.2f} nats a token, and a guess among its {math.exp(guess):,.0f}"
            f" tokens has {guess:.2f}: model and tokenizer do not fit, and the scores mean nothing"
        )


def _cut(folder: Path, max_tokens: int | None) -> Json:
    """Documents that were scored by their first ``max_tokens`` tokens only, and the tokens beyond, in all and
    by domain.
    """
    import polars

    from repro.influence.shards import NOT_DRAWN

    if max_tokens is None:
        return {"documents_cut": 0, "tokens_unscored": 0, "cut": {}}
    beyond = (polars.col("n_tokens_doc") - max_tokens).clip(lower_bound=0)
    counted = (
        parquet.scan(sorted(folder.glob("*.parquet")))
        .filter(polars.col("reason").ne_missing(NOT_DRAWN))
        .group_by("domain")
        .agg(documents=polars.len(), documents_cut=(beyond > 0).sum(), tokens_unscored=beyond.sum())
        .filter(polars.col("documents_cut") > 0)
        .sort("domain")
        .collect()
    )
    by_domain = {row.pop("domain"): row for row in counted.to_dicts()}
    totals = {
        name: sum(row[name] for row in by_domain.values()) for name in ("documents_cut", "tokens_unscored")
    }
    return totals | {"cut": by_domain}


def _verified(folder: Path, sources: list[Path]) -> Json:
    """Every document of every shard once; counts for the manifest, documents without a score by name and
    reason.
    """
    import polars

    scores = polars.concat([parquet.read(folder / p.name) for p in sources])
    documents = parquet.scan(sources).select("doc_id").collect()["doc_id"]
    require(
        scores["doc_id"].equals(documents),
        f"the scores in {folder} are not one per document, in order; delete it and run again",
    )
    unscored = scores.filter(polars.col("score").is_null())
    return {
        "documents": scores.height,
        "scored": scores.height - unscored.height,
        "unscored": {r: int(n) for r, n in unscored.group_by("reason").len().sort("reason").iter_rows()},
        "unscored_documents": unscored["doc_id"].sort().to_list()[:1000],
        "tokens": int(scores["n_tokens"].sum()),
    }
