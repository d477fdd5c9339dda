"""The stages "tokens" (a corpus as token ids, once) and "pretrain" (one arm, one seed)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from repro.plain import Json
from repro.pretrain import cost, source
from repro.pretrain.cost import shape
from repro.pretrain.job import Job
from repro.pretrain.settings import MUON, Model, Train
from repro.proxy.stage import TOKENIZER_FILES
from repro.schema import identity
from repro.store import Context, Stage
from repro.store.cost import TOKENISED, Cost, Known
from repro.tracking import Tracking


def tokens_stage(model: Model, corpus: Stage, proxy: Stage | None = None) -> Stage:
    """Token ids of the corpus, shared by every arm. ``proxy`` is read where its tokenizer is used."""
    inputs, model = {"corpus": corpus}, shape(model)
    settings: Json = {"tokenizer": model.tokenizer, "vocabulary": model.vocabulary}
    if model.init_from == source.PROXY:
        settings = {"tokenizer_of": source.PROXY, "starts_with": "its own prefix"}
    elif model.init_from is not None:
        identity_of_files = source.identity(model.init_from, list(TOKENIZER_FILES))
        settings = {"tokenizer_of": identity_of_files, "starts_with": "its own prefix"}
    elif model.tokenizer == "proxy":
        settings["starts_with"] = "the end token"
    if (model.init_from or model.tokenizer) == source.PROXY:
        assert proxy is not None, "the proxy's tokenizer needs the proxy stage"
        inputs["proxy"] = proxy

    def run(ctx: Context) -> None:
        from repro.corpus.documents import shards
        from repro.pretrain import tokens

        folder = ctx.out / "tokenizer"
        files = {split: shards(ctx.inputs["corpus"], split) for split in tokens.SPLITS}
        start = _start(model, ctx)
        if start.init_from is not None:
            tokens.copy_tokenizer(Path(start.init_from), folder, start.vocabulary, continued=True)
        elif model.tokenizer == "proxy":
            tokens.copy_tokenizer(ctx.inputs["proxy"] / "model", folder, model.vocabulary)
        elif not (folder / "tokenizer.json").is_file():
            tokens.train_bpe(tokens.texts(files["documents"]), model.vocabulary, folder)
        ctx.facts |= tokens.write_corpus(ctx.out, files, start.vocabulary)

    def takes(known: Known) -> Cost:
        read = known.inputs["corpus"].tokens
        return Cost(read, 0, read * (2 if model.vocabulary < 2**16 else 4), read / TOKENISED)

    label = "continued" if model.init_from is not None else model.tokenizer
    return Stage("tokens", label, settings, run, inputs, cost=takes)


def _start(model: Model, ctx: Context) -> Model:
    """The model with the folder it starts from, downloaded or made by now, and the sizes that stand there."""
    if model.init_from is None:
        return model
    folder = (
        ctx.inputs["proxy"] / "model" if model.init_from == source.PROXY else source.folder(model.init_from)
    )
    return shape(replace(model, init_from=str(folder)))


@dataclass(frozen=True)
class Training:
    """What a stage "pretrain" does."""

    model: Model
    train: Train
    seed: int
    tracking: Tracking
    group: str
    arm: str

    def job(self, ctx: Context) -> Job:
        """What there is to train, where its inputs are there."""
        return Job(
            model=_start(self.model, ctx),
            train=self.train,
            seed=self.seed,
            tracking=self.tracking,
            group=self.group,
            arm=self.arm,
            tokens=str(ctx.inputs["tokens"]),
            selection=str(ctx.inputs["selection"]),
            out=str(ctx.out),
            device=ctx.device,
        )

    def __call__(self, ctx: Context) -> None:
        """Train, by whatever launcher."""
        from repro.pretrain.launch import launch

        ctx.facts |= launch(self.job(ctx))


def stage(
    model: Model,
    train: Train,
    seed: int,
    tokens: Stage,
    selection: Stage,
    tracking: Tracking,
    group: str,
    arm: str,
    proxy: Stage | None = None,
) -> Stage:
    """One model: ``arm``'s selection, trained from the weights and in the order of ``seed``.

    ``proxy`` is read where the training starts from it. ``tracking``, ``group`` (the experiment) and ``arm``
    name the run in the logs and change nothing else.
    """
    model, train = shape(model), train.resolved()
    of_muon = identity(train, MUON) if train.optimizer == "muon" else {}
    settings = {"model": identity(model), "train": identity(train) | of_muon, "seed": seed}
    if train.dtype == "bfloat16":
        settings["gradients"] = "summed in float32"
    if not train.attend_across_documents:
        settings["documents"] = "behind their end token"
    if train.branch_from is not None:
        manifests = source.branch_point(Path(train.branch_from)) / "manifest.json"
        settings["train"]["branch_from"] = hashlib.sha256(manifests.read_bytes()).hexdigest()
    inputs = {"tokens": tokens, "selection": selection}
    if model.init_from == source.PROXY:
        assert proxy is not None, "model.init_from=proxy needs the proxy stage"
        settings["model"] = {"init_from": source.PROXY}  # its sizes are the proxy's
        inputs["proxy"] = proxy
    elif model.init_from is not None:
        settings["init_from"] = source.identity(model.init_from, ["config.json", "*.safetensors"])

    run = Training(model, train, seed, tracking, group, arm)
    # The label must follow from the settings: arms that turn out equal share one artifact, whatever they are
    # called.
    size = f"{model.layers}x{model.hidden}" if proxy is None else f"continued-{proxy.label}"
    return Stage(
        "pretrain",
        f"{size}-seed{seed}",
        settings,
        run,
        inputs,
        cost=lambda known: cost.of(model, train, known.begun),
    )
