"""The card of a data set: what a reader of the hub sees, and what its search and its loader read of it (the
YAML in front).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from repro.outcomes.outcome import Artifact
from repro.publish import portable
from repro.publish.dataset import HEADS, KEPT, SCORES, Source, licence, of_kept
from repro.publish.made import Made

if TYPE_CHECKING:
    from huggingface_hub import DatasetCard

PAPER = "[AttentionInfluence (arXiv 2505.07293)](https://arxiv.org/abs/2505.07293)"
SHOWN = 40  # sources named one by one
# Licences that the hub has an identifier for, which is the lower-case SPDX one; any other is its "other".
OF_THE_HUB = frozenset(
    """apache-2.0 mit bsd-2-clause bsd-3-clause bsd-3-clause-clear isc zlib unlicense wtfpl bsl-1.0
    0bsd cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-
    by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-
    sa-3.0 cc-by-nc-sa-4.0 gpl-2.0 gpl-3.0 lgpl-2.1 lgpl-3.0 agpl-3.0 mpl-2.0 epl-1.0 epl-2.0
    eupl-1.1 artistic-2.0 odbl odc-by pddl gfdl postgresql ncsa ecl-2.0 ms-pl osl-3.0 afl-3.0
    lppl-1.3c ofl-1.1""".split()
)
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
         (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))  # fmt: skip


def of_the_hub(stated: Iterable[str]) -> list[str]:
    """The hub's identifiers for what documents state: ``unknown`` where some state nothing, ``other`` for
    words it has no identifier for. Nothing is inferred.
    """
    names = {licence(one).lower() for one in stated}
    known = sorted(names & OF_THE_HUB)
    rest = names - OF_THE_HUB - {"not recorded"}
    return [*known, *(["other"] if rest else []), *(["unknown"] if "not recorded" in names else [])]


def size(documents: int) -> str:
    """The hub's category of a number of rows."""
    return next((name for limit, name in SIZES if documents < limit), "1B<n<10B")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    said = f"{value:,}" if isinstance(value, int) else str(value)
    return " ".join(said.split()).replace("|", "\\|")


def made_how(made: Made, behind: dict[str, Artifact]) -> str:
    """The command, the code, and the fingerprint of every stage behind what is published."""
    said, code = made.summary["provenance"], made.summary.get("code", {})
    commits = ", ".join(f"`{commit}`" for commit in code.get("commits", ())) or "not recorded"
    dirty = ", with uncommitted changes" if code.get("dirty") else ""
    packages = ", ".join(f"{name} {version}" for name, version in said["packages"].items() if version)
    once = {artifact["fingerprint"]: (name, artifact) for name, artifact in reversed(behind.items())}
    rows = [(name, f"`{a['stage']}`", a["label"], f"`{key}`") for key, (name, a) in reversed(once.items())]
    return "\n\n".join(
        [
            "## How it was made",
            f"```bash\n{made.command()}\n```",
            f"Experiment {made.summary['experiment']}, scale {made.summary['scale']}; code at commit"
            f" {commits}{dirty};"
            f" Python {said['python']}, {packages}; {said['machine']}. Folders above a file are written"
            f" `{portable.ELSEWHERE}`. `published.json` has the sha256 of every file.",
            "A fingerprint is the sha256 over a stage's settings, its inputs' fingerprints and the version"
            " of its code:",
            table(("of", "stage", "label", "fingerprint"), rows),
        ]
    )


def found(made: Made) -> list[str]:
    """What the run concluded, in its own words, with what they are worth."""
    verdict = made.summary["verdict"]
    sentence = verdict["sentence"]
    kind = "This run is a demonstration and no evidence." if verdict["demonstration"] else ""
    return [" ".join(filter(None, ["Of the run itself:", sentence, kind]))] if sentence else []


def dataset_card(target: Path, source: Source) -> DatasetCard:
    """The card of the data set whose files lie in ``target``."""
    from huggingface_hub import DatasetCard, DatasetCardData

    licences = of_kept(target, ["license"])
    by_domain = of_kept(target, ["domain"])
    documents = int(licences["documents"].sum())
    summary = source.made.summary
    about = DatasetCardData(
        license=of_the_hub(licences["license"].to_list()) or None,
        pretty_name=f"{source.arm} of {summary['experiment']}, {summary['scale']}",
        size_categories=[size(documents)],
        task_categories=["text-generation"],
        tags=["data-selection", "attention-influence", "pretraining"],
        configs=[
            _config(KEPT, default=True),
            _config(SCORES),
            _config(HEADS),
        ],
    )
    parts = [
        f"# {documents:,} documents kept by {source.arm}",
        "Text for pretraining, chosen by how much the loss of a small language model rises when its"
        " retrieval heads are"
        f" masked: a replication of {PAPER}. Not made or endorsed by the paper's authors.",
        _loading(),
        "## What was kept",
        _domains(source),
        "## Licences",
        "As the corpus recorded them, document by document (column `license`); nothing was inferred. A"
        " document"
        " keeps the licence and the terms of its source.",
        table(
            ("licence", "documents", "bytes"),
            [(f"licence: {licence(r[0])}" if licence(r[0]) == "not recorded" else r[0], r[1], r[2])
             for r in licences.rows()],
        ),
        "## Sources",
        _sources(target),
        _method(source),
        _columns(),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(source, by_domain["domain"].to_list())),
        made_how(source.made, source.behind()),
    ]  # fmt: skip
    return DatasetCard(f"---\n{about}\n---\n\n" + portable.text("\n\n".join(parts)) + "\n")


def _config(name: str, default: bool = False) -> dict[str, object]:
    found: dict[str, object] = {"config_name": name}
    found["data_files"] = [{"split": "train", "path": f"{name}/*.parquet"}]
    return {**found, "default": True} if default else found


def _loading() -> str:
    return (
        "```python\nfrom datasets import load_dataset\n\n"
        'name = "FOLDER or owner/name"\n'
        'kept = load_dataset(name, split="train")  # the kept documents with scores\n'
        f'scores = load_dataset(name, "{SCORES}", split="train")  # of every document, kept or not\n'
        f'heads = load_dataset(name, "{HEADS}", split="train")  # which heads were masked\n```'
    )


def _domains(source: Source) -> str:
    chosen = source.made.summary["arms"][source.arm]["seeds"][source.seed].get("selection", {})
    if "domains" not in chosen:  # everything, without scores
        return "Everything in the training split."
    rows = [
        (domain, d["documents"], d["selected_documents"], d["tokens"], d["selected_tokens"], d["threshold"])
        for domain, d in chosen["domains"].items()
    ]
    shown = [(*row[:5], "none" if row[5] is None else f"{row[5]:.4f}") for row in rows]
    header = ("domain", "documents", "kept", "tokens", "kept tokens", "lowest kept")
    return table(header, shown) + (
        "\n\nTokens are the proxy's. Lowest kept: the lowest value, of what the selector ranks by, that was"
        " kept."
    )


def _sources(target: Path) -> str:
    rows = of_kept(target, ["source", "license"]).rows()
    shown = [
        (portable.value(name) or "not recorded", licence(stated), n, size)
        for name, stated, n, size in rows[:SHOWN]
    ]
    more = sum(row[2] for row in rows[SHOWN:])
    rest = f"\n\n{len(rows) - SHOWN:,} further sources hold {more:,} documents (column `source`)."
    return table(("source", "licence", "documents", "bytes"), shown) + (rest if more else "")


def _method(source: Source) -> str:
    summary, made = source.made.summary, source.made
    heads, proxy = made.manifest(source.heads), summary["artifacts"].get("proxy")
    masked = summary.get("heads", {})
    score = made.manifest(source.score)["settings"]
    chosen = summary["arms"][source.arm]
    budget = summary["arms"][source.arm]["seeds"][source.seed].get("selection", {}).get("budget", {})
    origin = portable.value(proxy["facts"]) if proxy else {}
    pairs = ", ".join(f"{layer}.{head}" for layer, head in masked["selected"])
    limit = f"its first {score['max_tokens']:,} tokens" if score.get("max_tokens") else "the whole document"
    unit = {"tokens": "tokens", "documents": "documents"}.get(budget.get("unit", ""), "text")
    scope = "all" if budget.get("scope") == "global" else "each domain's"
    lines = [
        f"**Proxy**: {origin.get('source', 'not recorded')}"
        + (f" at {origin['revision']}" if origin.get("revision") else "")
        + f", {masked['num_layers']} layers of {masked['num_heads']} heads.",
        f"**Heads** (layer.head, from 0; {heads['label']}): {pairs}.",
        "**Score** (eq. 5 of the paper): (loss with the heads masked - loss) / loss, the mean over a"
        " document's"
        f" tokens, of {limit} in windows of {score['window']:,}; mask {score['mask']}; computed in"
        f" {score['dtype']}.",
        f"**Selection**: `{chosen['select'].get('selector', source.arm)}`, {chosen['share']:.3g} of"
        f" {scope} {unit}",
    ]
    return "## Method\n\n" + "\n\n".join(lines)


def _columns() -> str:
    rows = [
        ("`text`", "the document"),
        ("`doc_id`, `domain`, `group`, `source`, `license`", "as they came"),
        ("`cluster`", "documents of one number are near-duplicates"),
        ("`repeats`", "how often one pass over the training mixture holds the document"),
        ("`n_tokens_doc`, `n_bytes`", "length of the whole document"),
        ("`n_tokens`", "tokens that were scored"),
        ("`loss_base`, `loss_ref`", "mean loss in nats, with all heads and with the heads masked"),
        ("`score`", "(`loss_ref` - `loss_base`) / `loss_base`; null where a document was not scored"),
    ]
    return "## Columns\n\n" + table(("column", "meaning"), rows)


def _limits(source: Source, domains: list[str]) -> list[str]:
    summary, facts = source.made.summary, source.score["facts"]
    corpus = summary["settings"]["corpus"]
    counts = summary.get("corpus", {}).get("dropped", {})
    dropped = ", ".join(f"{why.replace('_', ' ')} {n:,}" for why, n in counts.items() if n)
    against = "were dropped" if corpus["decontaminate"] else "were not looked for"
    lines = [
        "A high score says that a document is hard to predict without the masked heads. It does not say"
        " that the"
        " document is good: what repeats itself scores high, whatever it is worth.",
        "Scores compare within one domain, one proxy and one set of heads. Domains here:"
        f" {', '.join(domains)}.",
        f"Documents that share text with the run's benchmark items {against}."
        + (f" Dropped while cleaning: {dropped}." if dropped else ""),
        "Personal data, credentials and harmful text were not searched for.",
    ]
    if facts.get("documents_cut"):
        lines.append(f"Of {facts['documents_cut']:,} documents only the first part was scored.")
    return [*lines, *found(source.made)]
