"""The card of trained models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.outcomes.compare import lower_is_better
from repro.outcomes.outcome import Artifact
from repro.publish import portable
from repro.publish.cards import PAPER, found, made_how, table
from repro.publish.made import Made

if TYPE_CHECKING:
    from huggingface_hub import ModelCard


def model_card(made: Made, models: dict[str, tuple[str, str]], several: bool) -> ModelCard:
    """The card of trained models: {folder: (arm, seed)}; ``several`` lie in folders of their own."""
    from huggingface_hub import ModelCard, ModelCardData

    summary = made.summary
    about = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["data-selection", "attention-influence"],
    )
    rows: list[tuple[object, ...]] = []
    behind: dict[str, Artifact] = {}
    better = "lower" if lower_is_better(summary, summary["endpoint"]) else "higher"
    for folder, (arm, seed) in models.items():
        own = summary["arms"][arm]["seeds"][seed]
        facts = own["artifacts"]["pretrain"]["facts"]
        metric = own.get("metrics", {}).get(summary["endpoint"])
        value = f"{metric['value']:.4f}" if metric else "not measured"
        known = (facts.get(key, "not recorded") for key in ("parameters", "tokens"))
        rows.append((f"`{folder}`", arm, seed, *known, value))
        behind |= {f"{folder}, {name}": a for name, a in own["artifacts"].items() if name != "evaluate"}
    corpus = {name: a for name, a in summary["artifacts"].items() if name in ("corpus", "score", "tokens")}
    where = '"FOLDER or owner/name"' + (f', subfolder="{next(iter(models))}"' if several else "")
    parts = [
        f"# {len(models)} model{'s' if several else ''} of {summary['experiment']}, {summary['scale']}",
        f"{summary['question']} Models trained to answer that, a replication of {PAPER}: made to be"
        " compared with one"
        " another and for nothing else. Not made or endorsed by the paper's authors.",
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({where})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({where})\n```",
        table(
            ("folder", "arm", "seed", "parameters", "tokens read",
             f"{summary['endpoint']} ({better} is better)"),
            rows,
        ),
        "## Licence",
        "licence: not recorded. The text the models read keeps the licences of its sources.",
        "## Limits",
        "\n".join(
            f"- {line}"
            for line in [
                "Small models, trained on little text: they are of no use but for the comparison, may"
                " repeat what they"
                " read, and were not made safe.",
                *found(made),
            ]
        ),
        made_how(made, {**corpus, **behind}),
    ]  # fmt: skip
    return ModelCard(f"---\n{about}\n---\n\n" + portable.text("\n\n".join(parts)) + "\n")
