"""What a training will take: parameters, FLOPs, memory per ZeRO stage, disk. Arithmetic on the settings, no
torch.

Where the same is asked of DeepSpeed (``estimate_zero2_model_states_mem_needs``, ``estimate_zero3_...``) the
answers agree.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from repro import pretrained
from repro.errors import NoRoom, require
from repro.plain import Json
from repro.pretrain import source
from repro.pretrain.settings import Model, Train
from repro.store.cost import STARTED, Cost, Made

S = TypeVar("S")  # all settings of a run, whose schema stands above
CHECKPOINT_BYTES = 2 + 12  # a parameter: bfloat16 weight; float32 master and two moments


def shape(model: Model) -> Model:
    """The settings with the sizes of the model to continue from, where there is one, in place of their own.

    Those of the proxy are filled in by :func:`sized`.
    """
    if model.init_from in (None, source.PROXY):
        return model
    return _with_sizes(model, pretrained.config(str(model.init_from)))


def sized(settings: S) -> S:
    """The settings with the proxy's sizes as those of a model that continues it, for plans and checks."""
    own: Any = settings
    if own.model.init_from != source.PROXY:
        return settings
    from repro.proxy.stage import config

    return replace(own, model=_with_sizes(own.model, config(own.proxy)))


def _with_sizes(model: Model, config: Json) -> Model:
    config = {key: value for key, value in config.get("text_config", config).items() if value is not None}
    names = {  # Llama's, then those of GPT-2 and OPT
        "layers": ("num_hidden_layers", "n_layer"),
        "hidden": ("hidden_size", "n_embd"),
        "heads": ("num_attention_heads", "n_head"),
        "kv_heads": ("num_key_value_heads", "num_attention_heads", "n_head"),
        "ffn": ("intermediate_size", "n_inner", "ffn_dim"),
        "vocabulary": ("vocab_size",),
        "tie_embeddings": ("tie_word_embeddings",),
    }
    found = {ours: next((config[n] for n in theirs if n in config), None) for ours, theirs in names.items()}
    if found["ffn"] is None and found["hidden"] is not None:
        found["ffn"] = 4 * found["hidden"]
    return replace(model, **{ours: value for ours, value in found.items() if value is not None})


def layer_parameters(model: Model) -> int:
    """Parameters of one decoder layer: attention with grouped keys and values, gated feed-forward, two
    norms.
    """
    kv = model.hidden // model.heads * model.kv_heads
    return 2 * model.hidden * (model.hidden + kv) + 3 * model.hidden * model.ffn + 2 * model.hidden


def parameters(model: Model, embeddings: bool = True) -> int:
    """Parameters of the whole model; without embeddings as papers count (input and output embeddings left
    out).
    """
    model = shape(model)
    body = model.layers * layer_parameters(model) + model.hidden
    return body + embeddings * model.vocabulary * model.hidden * (1 if model.tie_embeddings else 2)


def flops_per_token(model: Model, context: int) -> float:
    """Model FLOPs of one training token, forward and backward, nothing counted that is computed twice.

    6 for each parameter in a matrix product (the output embedding is one; the input embedding and norms are
    not) and 6 x layers x hidden x context for causal attention: two products over half of the context, times
    three for the backward.
    """
    model = shape(model)
    products = model.layers * (layer_parameters(model) - 2 * model.hidden) + model.vocabulary * model.hidden
    return 6.0 * products + 6.0 * model.layers * model.hidden * context


def training_flops(model: Model, train: Train) -> float:
    """Model FLOPs of the whole training."""
    return flops_per_token(model, train.context) * train.steps * train.batch_tokens


def of(model: Model, train: Train, begun: Path | None = None) -> Cost:
    """What a training still takes, ``begun`` being its unfinished folder, and the models that it leaves."""
    made = Made(parameters=parameters(model), models=1 + len(train.keep_at_tokens) + train.branch_at_decay)
    left = 1.0
    if begun is not None:
        kept = [int(path.name.removeprefix("step-")) for path in (begun / "checkpoints").glob("step-*")]
        left -= max(kept, default=0) / train.steps
    flops = left * training_flops(model, train)
    return Cost(left * train.tokens, flops, exported_bytes(model, train), STARTED, made=made)


def state_bytes(model: Model, ranks: int, stage: int, dtype: str = "bfloat16") -> float:
    """Memory of one rank for weights, gradients and optimizer states under a ZeRO stage.

    bfloat16: 2 a weight, 2 + 4 a gradient (float32 sum), 12 a master weight with two moments; stage 0 runs as
    stage 1.
    """
    model, stage = shape(model), max(stage, 1) if dtype == "bfloat16" else stage
    n = parameters(model)
    weight, gradient, optimizer = (2, 6, 12) if dtype == "bfloat16" else (4, 4, 8 if stage == 0 else 12)
    largest = max(layer_parameters(model), model.vocabulary * model.hidden)
    split = {0: 0, 1: optimizer, 2: optimizer + gradient, 3: optimizer + gradient + weight}[stage]
    whole = weight + gradient + optimizer - split
    if stage == 3:
        # DeepSpeed's estimator counts the split weights inside its 18 bytes and the largest layer, gathered,
        # beside them.
        return (
            4 * largest + 18 * n / ranks if dtype == "bfloat16" else 2 * weight * largest + split * n / ranks
        )
    return whole * n + split * n / ranks


def activation_bytes(model: Model, train: Train) -> float:
    """Memory of one micro-batch, roughly: 34 bytes a token and hidden unit of a layer (Korthikanti et al.
    2022, section 4, without the attention map), only its input where activations are checkpointed; logits in
    both dtypes and their gradient.
    """
    model = shape(model)
    tokens = train.micro_batch * train.context
    width = 34 if train.dtype == "bfloat16" else 68
    layer = width * tokens * model.hidden * max(1.0, model.ffn / (4 * model.hidden))
    layers = (
        model.layers * tokens * model.hidden * width / 17 + layer
        if train.activation_checkpointing
        else model.layers * layer
    )
    return layers + tokens * model.vocabulary * 10


def rank_bytes(model: Model, train: Train, stage: int | None = None) -> float:
    """Memory of one rank in training."""
    stage = train.zero_stage if stage is None else stage
    return state_bytes(model, train.processes, stage, train.dtype) + activation_bytes(model, train)


def exported_bytes(model: Model, train: Train) -> float:
    """Disk of the models that a training leaves: the last, those kept on the way, the one before the
    decay.
    """
    exported = 1 + len(train.keep_at_tokens) + train.branch_at_decay
    return parameters(model) * (2 if train.dtype == "bfloat16" else 4) * exported


def disk_bytes(model: Model, train: Train) -> float:
    """Largest disk use of a training: the kept checkpoints, the one being written, branch point, exported
    models.
    """
    held = train.keep_checkpoints + 1 + train.branch_at_decay
    return parameters(model) * CHECKPOINT_BYTES * held + exported_bytes(model, train)


def must_fit(model: Model, train: Train, memory_bytes: float | None, free_disk_bytes: float | None) -> None:
    """Raise :class:`SettingError` when one rank's memory or the disk cannot hold the training; ``None`` is
    not checked.
    """
    if memory_bytes is not None:
        needed = rank_bytes(model, train)
        fitting = [stage for stage in range(4) if rank_bytes(model, train, stage) <= memory_bytes]
        least = activation_bytes(model, train)
        mend = (
            f"set train.zero_stage={fitting[0]}"
            if fitting
            else (
                "lower train.micro_batch or set train.activation_checkpointing=true"
                if least > memory_bytes / 2
                else "use more ranks (train.processes) with train.zero_stage=3, or a smaller model"
            )
        )
        require(
            needed <= memory_bytes,
            f"{called(model)} needs {needed / 1e9:.1f} GB on each of {train.processes} ranks at"
            f" train.zero_stage={train.zero_stage}, and there are {memory_bytes / 1e9:.1f} GB; {mend}",
        )
    if free_disk_bytes is not None:
        needed = disk_bytes(model, train)
        if needed > free_disk_bytes:
            raise NoRoom(
                f"checkpoints of {called(model)} need {needed / 1e9:.4g} GB of disk and"
                f" {free_disk_bytes / 1e9:.4g} GB are free; free some, lower train.keep_checkpoints, or move"
                " the work folder with work=DIR"
            )


def called(model: Model) -> str:
    """The setting that chose the model, for messages."""
    return f"model.init_from={model.init_from}" if model.init_from is not None else f"model={model.name}"


def report(model: Model, train: Train, memory_bytes: float | None = None) -> list[str]:
    """The plan of a training, in lines; raises :class:`SettingError` for what cannot fit ``memory_bytes`` of
    a rank.
    """
    must_fit(model, train, memory_bytes, None)
    stages = ", ".join(f"{s}: {rank_bytes(model, train, s) / 1e9:.3g} GB" for s in range(4))
    return [
        (
            f"model {model.name}: {parameters(model) / 1e6:,.1f} M parameters"
            f" ({parameters(model, False) / 1e6:,.1f} M without embeddings); each arm and seed"
            f" {train.steps:,} steps of {train.batch_tokens:,} tokens, {training_flops(model, train):.3g}"
            " FLOPs"
        ),
        (
            f"memory of each of {train.processes} ranks by ZeRO stage: {stages} (set: {train.zero_stage}); "
            f"disk while training {disk_bytes(model, train) / 1e9:.3g} GB"
        ),
    ]
