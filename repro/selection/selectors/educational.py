"""The FineWeb-Edu classifier: a regression head on text embeddings, trained on judgements of educational
value (0 to 5).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars

from repro.errors import SettingError, first_line, require
from repro.fetch import hub_commits
from repro.plain import Json
from repro.pretrained import load_model, load_tokenizer
from repro.selection.selectors import Context
from repro.store import cached
from repro.tracking import progress

READS_TEXT = True
PARAMETERS = 109e6  # of the FineWeb-Edu classifier, for plans


def priority(
    context: Context,
    model: str = "HuggingFaceFW/fineweb-edu-classifier",
    revision: str = "main",
    tokens: int = 512,
    batch: int = 32,
) -> polars.DataFrame:
    """The score of the first ``tokens`` tokens. ``model``: a local folder, or owner/name on the hub at
    ``revision``.
    """
    import torch

    if not Path(model).is_dir():
        revision = hub_commits.hub_commit(model, revision, "model")
    try:
        tokenizer = load_tokenizer(model, revision=revision)
        classifier = load_model(model, "AutoModelForSequenceClassification", revision=revision).to(
            context.device
        )
    except (OSError, ValueError, SettingError) as error:
        raise SettingError(
            f"params.model={model} cannot be loaded ({first_line(error)}); copy it to this machine"
            " and give its folder"
        ) from None
    if classifier.config.num_labels != 1:
        raise SettingError(
            f"params.model={model} has {classifier.config.num_labels} labels; one score is needed"
        )
    total = context.query("SELECT count(*) FROM documents")[0][0]
    with progress(total, "documents", "classifying") as bar, torch.inference_mode():

        def judge(shard: polars.DataFrame) -> polars.Series:
            ordered = shard.with_row_index("row").sort(polars.col("text").str.len_bytes(), "doc_id")
            scores: list[float] = []
            for chunk in ordered.iter_slices(batch):  # neighbours of one length need little padding
                encoded = tokenizer(
                    chunk["text"].to_list(),
                    truncation=True,
                    max_length=tokens,
                    padding=True,
                    return_tensors="pt",
                    split_special_tokens=True,
                )
                scores += classifier(**encoded.to(context.device)).logits[:, 0].float().tolist()
                bar.update(len(chunk))
            return ordered.select("row", score=polars.Series(scores)).sort("row")["score"]

        return context.judged(judge)


def identity(
    model: str = "HuggingFaceFW/fineweb-edu-classifier",
    revision: str = "main",
    batch: int = 32,
    **params: Any,
) -> Json:
    """A local folder by its contents, a model of the hub by its commit. Padding is masked, so the batch does
    not count.
    """
    folder = Path(model)
    if not folder.is_dir():
        return {"model": model, "revision": hub_commits.hub_revision(model, revision, "model"), **params}
    require(
        any(folder.glob("*.safetensors")), f"params.model={model} holds no *.safetensors; convert its weights"
    )
    files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".json", ".txt", ".model"))
    digests = cached.content_digests(files)
    return {"model": {p.name: sha256 for p, sha256 in zip(files, digests, strict=True)}, **params}
