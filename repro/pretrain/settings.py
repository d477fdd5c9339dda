"""The model that is trained, and how."""

from __future__ import annotations

from dataclasses import dataclass, replace

from repro.errors import require
from repro.schema import ANY, COUNT, POSITIVE, check, how, setting

MUON = "muon"  # changes nothing with AdamW, and does not enter then


@dataclass
class Model:
    """The language model that is trained: a Llama configuration (table 9 for the paper's)."""

    name: str = how("1m", "label of the size")
    layers: int = setting(4, "decoder layers", within=COUNT)
    hidden: int = setting(128, "width of the residual stream", within=COUNT)
    heads: int = setting(4, "query heads of a layer", within=COUNT)
    kv_heads: int = setting(2, "key-value heads of a layer, which query heads share", within=COUNT)
    ffn: int = setting(384, "width of the feed-forward layers", within=COUNT)
    tie_embeddings: bool = setting(True, "input and output embeddings are one matrix")
    tokenizer: str = setting("bpe", choices="bpe (trained on the training split) | proxy (the proxy's)")
    vocabulary: int = setting(4096, "of the trained bpe", unit="tokens")
    init_from: str | None = setting(
        None, "proxy, a Hugging Face folder, or owner/name[@revision]", identity="content"
    )

    def __post_init__(self) -> None:
        check("model", self)
        require(
            self.tokenizer != "bpe" or self.vocabulary >= 257,
            f"model.vocabulary={self.vocabulary} must be at least 257: 256 bytes and the end token",
        )
        for whole, part in (("hidden", "heads"), ("heads", "kv_heads")):
            n, of = getattr(self, whole), getattr(self, part)
            require(n % of == 0, f"model.{whole}={n} must be a multiple of model.{part}={of}")


@dataclass
class Train:
    """Pretraining (section 5.1, tables 7 to 9)."""

    tokens: int = setting(262_144, "that every arm is trained on", unit="tokens")
    context: int = setting(256, "of a sequence", unit="tokens", within=COUNT)
    batch_sequences: int = setting(8, "a step over all ranks", unit="sequences", within=COUNT)
    micro_batch: int = how(8, "a rank computes at once", unit="sequences", within=COUNT)
    optimizer: str = setting("adamw", identity=MUON, choices="adamw | muon (of the weight matrices)")
    learning_rate: float = setting(3e-3, "peak, of AdamW", within=POSITIVE)
    muon_learning_rate: float = setting(0.02, "peak, of the matrices", identity=MUON, within=POSITIVE)
    muon_momentum: float = setting(0.95, "Nesterov momentum of the matrices", identity=MUON, within="[0, 1)")
    weight_decay: float = setting(0.1, "of the weight matrices, decoupled", within=ANY)
    beta1: float = setting(0.9, "of AdamW", within="[0, 1)")
    beta2: float = setting(0.95, "of AdamW", within="[0, 1)")
    clip: float = setting(1.0, "largest norm of the gradient; a large one clips nothing", within=POSITIVE)
    warmup: float = setting(0.001, "share of the steps", within=ANY)
    decay: float = setting(0.25, "share of the steps", within=ANY)
    decay_shape: str = setting("linear", choices="linear | cosine | 1-sqrt")
    final_lr: float = setting(0.1, "share of the peak learning rate", within=ANY)
    dtype: str = setting("float32", choices="auto | bfloat16 (float32 master weights) | float32")
    zero_stage: int = how(0, "of DeepSpeed, what ranks split among them", within="[0, 3]")
    activation_checkpointing: bool = how(False, "less memory, more time")
    compile: bool = how(False, "torch.compile")
    attend_across_documents: bool = setting(True, "within a sequence; false masks other documents")
    checkpoint_every_steps: int = how(100, "between checkpoints", unit="steps", within=COUNT)
    keep_checkpoints: int = how(2, "how many of the last ones stay", within=COUNT)
    keep_at_tokens: list[int] = setting([], "whose models are kept, for curves", unit="tokens")
    keep_at: list[float] = setting([], "the same as shares of the tokens", identity="resolved")
    branch_at_decay: bool = setting(False, "keep the checkpoint before the decay, and the model of that step")
    branch_from: str | None = setting(None, "a pretrain artifact with such a checkpoint, to decay otherwise")
    validate_every_steps: int = how(0, "between validations; 0 = at the end only", unit="steps", within=ANY)
    validate_tokens: int = how(8192, "held out, a domain", unit="tokens", within=COUNT)
    log_every_steps: int = how(10, "between rows of the log", unit="steps", within=COUNT)
    launcher: str = how("inprocess", choices="inprocess | torchrun | deepspeed | slurm | manual")
    processes: int = how(1, "ranks of the whole training", within=COUNT)
    ranks_per_node: int = how(8, "slurm and manual", within=COUNT)
    hostfile: str | None = how(None, "deepspeed launcher on several machines")

    def __post_init__(self) -> None:
        check("train", self)
        split = (
            self.zero_stage == 3 or self.processes > 1 and (self.zero_stage > 0 or self.dtype == "bfloat16")
        )
        require(
            self.optimizer != "muon" or not split,
            f"train.optimizer=muon needs whole matrices, and train.zero_stage={self.zero_stage} with"
            f" train.dtype={self.dtype} on {self.processes} ranks splits them; set train.zero_stage=0"
            " train.dtype=float32, or train.optimizer=adamw",
        )
        step = self.batch_sequences * self.context
        require(
            self.tokens >= step,
            f"train.tokens={self.tokens} is below one batch of {step} tokens; raise train.tokens "
            "or lower train.batch_sequences or train.context",
        )
        ranks = self.processes * self.micro_batch
        require(
            self.batch_sequences % ranks == 0,
            f"train.batch_sequences={self.batch_sequences} must be a multiple of train.processes x"
            f" train.micro_batch = {ranks}",
        )
        require(self.warmup + self.decay <= 1, "train.warmup + train.decay must be at most 1")
        require(
            not self.branch_at_decay or self.decay < 1,
            f"train.branch_at_decay=true keeps the step before the decay, and with train.decay={self.decay:g}"
            " there is none; lower train.decay",
        )
        require(
            all(0 < tokens <= self.tokens for tokens in self.keep_at_tokens),
            f"train.keep_at_tokens={self.keep_at_tokens} must lie between 1 and train.tokens={self.tokens}",
        )
        require(
            all(0 < share <= 1 for share in self.keep_at),
            f"train.keep_at={self.keep_at} are shares of train.tokens in (0, 1]; numbers of tokens are"
            " train.keep_at_tokens",
        )

    def resolved(self) -> Train:
        """The same training with ``keep_at`` in tokens, under ``keep_at_tokens``."""
        if not self.keep_at:
            return self
        at = {round(share * self.tokens) for share in self.keep_at if share < 1} - {0}
        return replace(self, keep_at_tokens=sorted({*self.keep_at_tokens, *at}), keep_at=[])

    @property
    def batch_tokens(self) -> int:
        """Tokens of one optimizer step, over all ranks."""
        return self.batch_sequences * self.context

    @property
    def steps(self) -> int:
        """Optimizer steps: the largest whole number of batches within the token budget."""
        return self.tokens // self.batch_tokens

    @property
    def kept_steps(self) -> list[int]:
        """Steps behind which a model is exported, nearest to ``keep_at_tokens``."""
        return sorted({min(round(at / self.batch_tokens) or 1, self.steps) for at in self.keep_at_tokens})
