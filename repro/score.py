"""``repro score FILES...``: how much the important heads of a language model matter for each of your
documents.

Scores every document whole, keeps the best share of each domain, and ends with where the scores and the kept
documents are. Stopped anywhere, the same command goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from repro import environment
from repro.device import device_of
from repro.errors import SettingError, require
from repro.execution import processes
from repro.execution.lines import duration
from repro.fetch.remote import is_remote
from repro.plain import Row
from repro.settings.compose import compose
from repro.settings.files import options, read_option
from repro.store import atomic, parquet, read_json

if TYPE_CHECKING:
    import polars

# An experiment that trains nothing, with no sample drawn, nothing held out and nothing compared with
# benchmarks.
SETTINGS = (
    "exp=score_corpus",
    "scale=laptop",
    "corpus=files",
    "corpus.max_tokens_per_domain=null",
    "corpus.max_documents_per_domain=null",
    "corpus.max_bytes=100000000",
    "corpus.min_characters=1",
    "corpus.heldout_share=0",
    "corpus.decontaminate=false",
    "score.max_tokens=null",
    "score.window=1024",
    "budget.unit=documents",
)
ARM = "attention_influence"
# What this door calls settings that errors name.
OPTIONS = {
    "budget.share": "--keep",
    "corpus.domain_field": "--domain-field",
    "corpus.id_field": "--id-field",
    "corpus.text_field": "--text-field",
    "heads.given": "--heads",
    "proxy.dtype": "--dtype",
    "score.sample": "--sample",
}
# What no --set may say: an option does, in these words, or it makes this door what it is.
TAKEN = OPTIONS | {
    "corpus.domain_from": "--domain-field or --domain-folder",
    "corpus.paths": "the FILES",
    "device": "--device",
    "work": "--work",
    **dict.fromkeys(("proxy", "proxy.kind", "proxy.path", "proxy.repo", "proxy.revision"), "--model"),
}
FIXED = ("corpus", "corpus.kind", "exp", "exp.kind", "scale")
SHOWN = 5  # documents named at each end


def main(arguments: list[str] | None = None) -> int:
    """The door. Exit 2 for a user's mistake, 130 when interrupted."""
    environment.prepare(restart=arguments is None)
    parsed = _parser().parse_intermixed_args(arguments)
    try:
        require(
            0 < parsed.keep <= 1, f"--keep {parsed.keep:g} must be above 0 and at most 1; 30 % is --keep 0.3"
        )
        with processes.terminable():
            score(parsed)
    except SettingError as error:
        print(f"error: {_in_options(str(error))}", file=sys.stderr)
        return 2
    except processes.StageFailed as error:
        print(f"error: {_in_options(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 143 if isinstance(stopped, processes.Terminated) else 130
    return 0


def _in_options(message: str) -> str:
    """A message in this door's words: ``--keep 0.7`` where it says ``budget.share=0.7``, and what stands
    behind ``--set`` as it was given.
    """
    names = "|".join(re.escape(name) for name in OPTIONS)
    return re.sub(
        rf"(?<![\w.])(?<!--set )({names})(?![\w.]*\w)(=?)",
        lambda found: OPTIONS[found[1]] + (" " if found[2] else ""),
        message,
    )


def _option(setting: str) -> str:
    key, _, value = setting.partition("=")
    return f"{OPTIONS[key]} {value}" if key in OPTIONS else f"--set {setting}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=environment.program or "python -m repro.score",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: repro score my/ --keep 0.2 --format jsonl",
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILES", help=".jsonl, .jsonl.gz, .jsonl.zst, .parquet, text, or folders"
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="M",
        help=(
            "a Hugging Face folder, a .gguf file, owner/name of the hub, or one of"
            f" {', '.join(o for o in options('proxy') if o not in KINDS)} (default: smollm2-135m); given"
            " again: another model too"
        ),
    )
    parser.add_argument(
        "--keep", type=float, default=0.3, metavar="SHARE", help="of each domain's documents (default 0.3)"
    )
    parser.add_argument(
        "--sample",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="score this share of the documents only, and rank all by what is learned from them (default 1)",
    )
    parser.add_argument(
        "--format", choices=("parquet", "jsonl"), default="parquet", help="of the kept documents"
    )
    parser.add_argument(
        "--text-field", default="text", metavar="NAME", help="the field that holds the text; may be dotted"
    )
    parser.add_argument("--id-field", default="id", metavar="NAME", help="the field that holds the id")
    parser.add_argument(
        "--domain-field",
        metavar="NAME",
        help="the field that names a document's domain; without, all are one domain",
    )
    parser.add_argument(
        "--domain-folder", action="store_true", help="the domain is the folder a file lies in"
    )
    parser.add_argument(
        "--heads",
        metavar="FILE|LIST",
        help="heads.json of an earlier run, or [[layer, head], ...]; without, they are detected",
    )
    parser.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="default: auto"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--work", default="work", metavar="DIR", help="where everything is kept (default: work)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting (repro settings)"
    )
    return parser


KINDS = ("built", "folder", "gguf", "hub")


def proxy(model: str) -> list[str]:
    """Settings for a model as people name one: a folder, a GGUF file, an option of ``configs/proxy``, or a
    name of the hub.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return ["proxy=folder", f"proxy.path={_quoted(str(path))}"]
    if path.is_file() or model.endswith(".gguf"):
        return ["proxy=gguf", f"proxy.path={_quoted(str(path))}"]
    if model in options("proxy") and model not in KINDS[1:]:
        return [f"proxy={model}"]
    name, _, revision = model.partition("@")
    require(
        name.count("/") == 1 and not model.startswith((".", "/", "~")),
        f"--model {model}: no such folder, and neither one of"
        f" {', '.join(o for o in options('proxy') if o not in KINDS)} nor owner/name of the hub",
    )
    return ["proxy=hub", f"proxy.repo={name}", *([f"proxy.revision={revision}"] if revision else [])]


def heads(given: str) -> tuple[list[list[int]], list[int]]:
    """``[[layer, head], ...]`` of a text that is such a list, or of a file that holds one, ``heads.json`` or
    a plain list; and, where the file says it, ``[layers, heads]`` of the model that they are heads of.
    """
    listed, path = given.lstrip().startswith("["), Path(given).expanduser()
    require(listed or path.is_file(), f"--heads {given}: no such file, and no list like [[17, 3], [20, 6]]")
    shape: list[int] = []
    try:
        found = json.loads(given if listed else path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            shape = [int(found[name]) for name in ("num_layers", "num_heads") if name in found]
            found = found["selected"]
        pairs = [[int(layer), int(head)] for layer, head in found]
        require(bool(pairs) and pairs == [list(pair) for pair in found], "")
    except (ValueError, TypeError, KeyError, RecursionError, SettingError):
        raise SettingError(
            f"--heads {given}: holds no list of [layer, head] like [[17, 3], [20, 6]]"
        ) from None
    return pairs, shape if len(shape) == 2 else []


def settings_of(parsed: argparse.Namespace, model: str) -> list[str]:
    """What is asked for, in the words of ``repro run``."""
    require(
        not (parsed.domain_field and parsed.domain_folder),
        "--domain-field and --domain-folder exclude each other: give one",
    )
    domain = "field" if parsed.domain_field else "folder" if parsed.domain_folder else "constant"
    found = [
        *SETTINGS,
        *_sizes(parsed.device),
        f"corpus.paths=[{','.join(_quoted(_place(f)) for f in parsed.files)}]",
        f"corpus.domain_from={domain}",
        f"corpus.text_field={_quoted(parsed.text_field)}",
        f"corpus.id_field={_quoted(parsed.id_field)}",
        *proxy(model),
        f"proxy.dtype={parsed.dtype}",
        f"device={parsed.device}",
        f"work={_quoted(parsed.work)}",
        f"budget.share={parsed.keep:g}",
    ]
    if parsed.domain_field:
        found.append(f"corpus.domain_field={_quoted(parsed.domain_field)}")
    if parsed.sample != 1:
        found += [f"score.sample={parsed.sample:g}", f"exp.arms.{ARM}.select=distilled"]
    if parsed.heads:
        pairs, shape = heads(parsed.heads)
        require(
            not shape or len(parsed.model or []) < 2,
            f"--heads {parsed.heads} holds the heads of one model, and --model names several; give one",
        )
        found.append(f"heads.given={json.dumps(pairs)}")
        found += [f"heads.given_of={json.dumps(shape)}"] if shape else []
    keys = {own.partition("=")[0]: own for own in parsed.set}
    for key, own in keys.items():
        option = TAKEN.get(key.removeprefix(f"exp.arms.{ARM}.").removeprefix("select."))
        require(option is None, f"--set {own}: {option} says this here; leave it out of --set")
        require(key not in FIXED, f"--set {own}: repro score says {key} itself; set it with repro run")
        require(
            key != f"exp.arms.{ARM}.select" or parsed.sample == 1,
            f"--set {own}: --sample {parsed.sample:g} ranks by select=distilled; leave one of them out",
        )
    return [word for word in found if word.partition("=")[0] not in keys] + parsed.set


def _sizes(device: str) -> list[str]:
    """On a CPU small shards, so that no core is left alone with the last one; on a GPU what fills its
    batches, as scale=gpu has it.
    """
    if not device_of(device).startswith("cuda"):
        return ["corpus.shard_documents=16"]
    gpu = read_option("scale", "gpu")
    names = {"corpus": ("shard_documents",), "score": ("tokens_per_batch", "padding")}
    return [f"{group}.{name}={gpu[group][name]}" for group, own in names.items() for name in own]


def _place(given: str) -> str:
    return given if is_remote(given) else str(Path(given).expanduser())


def _quoted(text: str) -> str:
    """As YAML reads it back, whatever stands in it."""
    return json.dumps(text, ensure_ascii=False)


def score(parsed: argparse.Namespace) -> list[Path]:
    """Score with every model that was named; returns the folders with ``scores.parquet``, and prints what is
    in them.
    """
    from repro.run import run

    for given in parsed.files:
        require(
            "=" not in given or Path(given).expanduser().exists() or is_remote(given),
            f"a word among the files names no file, and a setting is given as {_option(given)}",
        )
    models, found = parsed.model or ["smollm2-135m"], []
    # all mistakes before any work
    composed = {model: compose(settings_of(parsed, model)) for model in models}
    for model, settings in composed.items():
        started = time.monotonic()
        if len(models) > 1:
            print(f"model {model}", flush=True)
        folder = run(settings, brief=True)
        found.append(folder)
        kept = _kept(folder, parsed.format)
        print(f"\n{_extremes(folder)}\n")
        print(f"{_counted(folder)}, in {duration(time.monotonic() - started)}")
        print(
            f"kept:   {kept}   (datasets.load_dataset({_loader(parsed.format)!r}, data_dir=...) reads them)"
        )
        print(f"scores: {folder / 'scores.parquet'}")
        print(f"report: {folder / 'report.html'}", flush=True)
    if len(found) > 1:
        print(_agreement(dict(zip(models, found, strict=True))))
    return found


def _loader(form: str) -> str:
    return {"jsonl": "json"}.get(form, form)


def _kept(folder: Path, form: str) -> Path:
    """The folder of the kept documents, written as JSON lines too where that is asked for."""
    kept = folder / "kept" / ARM
    if form == "parquet":
        return kept
    target = folder / "kept" / f"{ARM}_jsonl"
    for shard in sorted(kept.glob("*.parquet")):
        with atomic(target / f"{shard.stem}.jsonl") as temporary:
            parquet.read(shard).write_ndjson(temporary)
    return target


def _scores(folder: Path) -> polars.DataFrame:
    return parquet.read(folder / "scores.parquet")


def _extremes(folder: Path) -> str:
    """The highest and the lowest documents of each domain, one a line."""
    import polars

    scores = (
        _scores(folder)
        .filter(polars.col("score").is_finite())
        .sort("score", "doc_id", descending=[True, False])
    )
    starts = _starts(folder)
    lines = []
    for (domain,), part in sorted(
        scores.group_by("domain", maintain_order=True), key=lambda item: str(item[0])
    ):
        ends = part if len(part) <= 2 * SHOWN else polars.concat([part.head(SHOWN), part.tail(SHOWN)])
        lines.append(f"{domain}: score, tokens, document; highest first")
        for index, row in enumerate(ends.iter_rows(named=True)):
            if len(part) > 2 * SHOWN and index == SHOWN:
                lines.append("    ...")
            lines.append(
                f"  {row['score']:7.3f} {row['n_tokens_doc']:>7,}  {_one_line(row['doc_id'], starts)}"
            )
    return "\n".join(lines)


def _one_line(ident: str, starts: dict[str, str]) -> str:
    text = " ".join(starts.get(ident, "").split())
    shown = f"{ident}: {text}" if text else ident
    return "".join(c if c.isprintable() else " " for c in shown)[:90]


def _starts(folder: Path) -> dict[str, str]:
    """The first words of the documents that the report shows."""
    path = folder / "examples.json"
    rows: list[Row] = [row for rows in read_json(path).values() for row in rows] if path.is_file() else []
    return {
        row["doc_id"]: row.get("text") or "".join(token for token, _ in row.get("tokens", [])[:40])
        for row in rows
    }


def _counted(folder: Path) -> str:
    """How many documents were scored, kept, not scored and why, dropped and why."""
    scores, summary = _scores(folder), read_json(folder / "summary.json")
    shards = sorted((folder / "kept" / ARM).glob("*.parquet"))
    kept = sum(len(parquet.read(shard, columns=["doc_id"])) for shard in shards)
    unscored = Counter(scores.filter(scores["score"].is_null())["reason"].sort())
    dropped = summary.get("corpus", {}).get("dropped", {})
    said = f"{len(scores) - unscored.total():,} documents scored, {kept:,} kept"
    for what, counted in (("not scored", unscored), ("dropped", dropped)):
        if why := ", ".join(f"{reason} {number:,}" for reason, number in counted.items() if number):
            said += f"; {what}: {why}"
    return said


def _agreement(folders: dict[str, Path]) -> str:
    """Rank correlation of the scores of every pair of models, over all documents of a domain."""
    import polars

    lines = ["rank correlation (Spearman) of the models' scores:"]
    for (a, one), (b, other) in itertools.combinations(folders.items(), 2):
        both = (
            _scores(one)
            .join(_scores(other).select("doc_id", other="score"), on="doc_id")
            .drop_nulls(["score", "other"])
        )
        for (domain,), part in sorted(both.group_by("domain"), key=lambda item: str(item[0])):
            found = part.select(polars.corr("score", "other", method="spearman")).item()
            said = "not defined" if found is None or found != found else f"{found:.2f}"
            lines.append(f"  {a} and {b}, {domain}: {said} over {len(part):,} documents")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
