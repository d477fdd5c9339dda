"""DeepSpeed, set up for one process without launcher, MPI or compiler, and for many ranks under any
launcher.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler

from repro.errors import require
from repro.plain import Json
from repro.pretrain.muon import Muon
from repro.pretrain.settings import Train

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def join(device: str, ranks: int) -> tuple[int, int]:
    """Join the process group and return (rank, ranks); a process without a launcher is a group of one.

    Raises :class:`SettingError` when the launcher started another number of ranks than the settings say.
    """
    where = torch.device(device)
    os.environ["DS_ACCELERATOR"] = where.type
    import deepspeed.comm.comm
    import deepspeed.runtime.bf16_optimizer

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # Its memory reports run the garbage collector six times, five seconds of a small model's training.
    deepspeed.runtime.bf16_optimizer.see_memory_usage = lambda *_, **__: None
    # DeepSpeed compiles a shared-memory collective for CPUs (80 s, needs a compiler) which only its inference
    # uses.
    backend_module: Any = sys.modules["deepspeed.comm.torch"]
    backend_module.build_shm_op = lambda: None
    backend = "nccl" if where.type == "cuda" else "gloo"
    # DeepSpeed insists; leave() takes it away, it means "launched" to accelerate
    os.environ.setdefault("LOCAL_RANK", str(where.index or 0))
    if where.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        if "RANK" in os.environ:
            dist.init_process_group(backend)
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    require(
        dist.get_world_size() == ranks,
        f"train.processes={ranks} but the launcher started {dist.get_world_size()} ranks; make the two agree",
    )
    deepspeed.init_distributed(dist_backend=backend, verbose=False)
    return dist.get_rank(), dist.get_world_size()


def leave() -> None:
    """Undo what marks this process as launched, for whatever runs in it next; the group itself stays for the
    next training.
    """
    if "RANK" not in os.environ:
        os.environ.pop("LOCAL_RANK", None)


@contextmanager
def repeatable(device: str) -> Iterator[None]:
    """In the block a GPU adds in one order, so that a run that goes on equals one that was never cut.

    The backward pass of fused attention adds as its blocks come, unless it is told so; a mere warning
    (``warn_only``) does not tell it. Where that cannot be had, training goes on without and says so.
    """
    if not device.startswith("cuda"):  # a CPU does so anyway
        yield
        return
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    checks: Any = torch.utils.deterministic  # of programs that read what nobody wrote
    filled, checks.fill_uninitialized_memory = checks.fill_uninitialized_memory, False
    try:
        torch.use_deterministic_algorithms(True)
        try:
            _small_step(device)
        except RuntimeError as error:
            torch.use_deterministic_algorithms(False)
            reason = (str(error).strip().splitlines() or [""])[0][:160]
            print(
                "warning: this GPU adds in any order, a resumed training may differ in its last bits:"
                f" {reason}",
                file=sys.stderr,
            )
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        checks.fill_uninitialized_memory = filled


def _small_step(device: str) -> None:
    """The operations of a training step, forwards and backwards, some tokens wide."""
    functional = torch.nn.functional
    table = torch.zeros(16, 64, device=device, requires_grad=True)
    hidden = functional.embedding(torch.arange(8, device=device)[None], table)
    heads = hidden.view(1, 8, 1, 64).transpose(1, 2)
    read = functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True).view(8, 64)
    functional.cross_entropy(read @ table.T, torch.arange(8, device=device)).backward()


def zero_stage(train: Train) -> int:
    """The stage that runs. bfloat16 needs stage 1: at stage 0 DeepSpeed would sum gradients in bfloat16.

    On one device the two are the same: nothing is there to be split.
    """
    return max(train.zero_stage, 1) if train.dtype == "bfloat16" else train.zero_stage


def deepspeed_config(train: Train) -> Json:
    """DeepSpeed's configuration: float32 master weights, moments and gradient sums in either dtype."""
    half = train.dtype == "bfloat16"
    return {
        "train_batch_size": train.batch_sequences,
        "train_micro_batch_size_per_gpu": train.micro_batch,
        "gradient_clipping": train.clip,
        "zero_optimization": {"stage": zero_stage(train)},
        "zero_allow_untested_optimizer": True,  # Muon, tested here
        # A non-finite gradient must stop the run; DeepSpeed would skip the step without a word.
        "bf16": {"enabled": half, "check_grad_overflow": False},
        "data_types": {"grad_accum_dtype": "fp32"},
        # ranks add in it, and ZeRO 1 casts to it on one rank, too: it would be bfloat16
        "communication_data_type": "fp32",
        "steps_per_print": sys.maxsize,
        "wall_clock_breakdown": False,
    }


def parameter_groups(network: PreTrainedModel, train: Train) -> list[dict[str, Any]]:
    """Matrices decay, norms do not. With ``train.optimizer=muon`` its matrices come first, a group for each
    shape.
    """
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    shapes = {name: tuple(getattr(p, "ds_shape", p.shape)) for name, p in named}
    tables = {
        id(m.weight)
        for m in (network.get_input_embeddings(), network.get_output_embeddings())
        if m is not None
    }
    muon = [
        name
        for name, p in named
        if train.optimizer == "muon" and len(shapes[name]) == 2 and id(p) not in tables
    ]
    groups: list[dict[str, Any]] = []
    for shape in sorted({shapes[name] for name in muon}):
        matrices = [p for name, p in named if name in muon and shapes[name] == shape]
        own = {"shape": shape, "dtype": train.dtype, "momentum": train.muon_momentum}
        groups.append({"params": matrices, "weight_decay": train.weight_decay, **own})
    others = [(p, len(shapes[name])) for name, p in named if name not in muon]
    groups.append({"params": [p for p, d in others if d >= 2], "weight_decay": train.weight_decay})
    groups.append({"params": [p for p, d in others if d < 2], "weight_decay": 0.0})
    return groups


def optimizer_of(network: PreTrainedModel, train: Train, capturable: bool = False) -> torch.optim.AdamW:
    """AdamW, or Muon with AdamW; the caller sets the learning rates. ``capturable``: in a CUDA graph."""
    kind = Muon if train.optimizer == "muon" else torch.optim.AdamW
    betas = (train.beta1, train.beta2)
    return kind(
        parameter_groups(network, train), train.learning_rate, betas, fused=True, capturable=capturable
    )


def start(network: PreTrainedModel, train: Train, device: str) -> Any:
    """A DeepSpeed engine over ``network`` with its optimizer, clipping and accumulation; the caller sets the
    learning rates.
    """
    import deepspeed

    optimizer = optimizer_of(network, train)
    network.train()
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    if train.activation_checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
    engine, *_ = deepspeed.initialize(model=network, optimizer=optimizer, config=deepspeed_config(train))
    if zero_stage(train) == 0:
        # Stage 0 clips but forgets the norm, which is logged and checked.
        def clip() -> None:
            engine._global_grad_norm = torch.nn.utils.clip_grad_norm_(network.parameters(), train.clip)

        engine.clip_fp32_gradients = clip
    else:
        _show_what_is_not_finite(engine.optimizer)
    # Older DeepSpeed casts buffers with the weights; rotary frequencies must stay float32, as in the exported
    # model.
    for name, buffer in network.named_buffers():
        buffer.data = buffers[name].to(buffer.device)
    if train.compile and can_compile(device):
        from repro.pretrain.compiled import compile_network

        compile_network(network, device, packed=not train.attend_across_documents)
    return engine


def can_compile(device: str) -> bool:
    """Whether torch.compile finds the compiler it needs; where it does not the training stays eager, and says
    so.
    """
    try:
        if device == "cpu":
            return bool(get_cpp_compiler())
        # Triton builds with a C compiler what starts a kernel
        torch.compile(lambda x: x + 1)(torch.ones(8, device=device))
        return True
    except InvalidCxxCompiler:
        reason = "needs a C++ compiler (g++) and there is none"
    except Exception as error:  # a driver too old, a compiler that is missing: training goes on without
        reason = f"fails here ({(str(error).strip().splitlines() or [type(error).__name__])[0][:160]})"
    print(f"warning: train.compile=true {reason}: training without", file=sys.stderr)
    return False


def _show_what_is_not_finite(optimizer: Any) -> None:
    """Let a gradient norm that is not finite be infinite. DeepSpeed writes -1, and its releases before 0.19.8
    go on with the number that -1 and the norms of other parameter groups give together.
    """
    import deepspeed.runtime.utils
    import deepspeed.runtime.zero.stage_1_and_2

    modules: list[Any] = [deepspeed.runtime.utils, deepspeed.runtime.zero.stage_1_and_2]

    def infinite(norm: torch.Tensor, **_: Any) -> None:
        norm.nan_to_num_(nan=torch.inf, posinf=torch.inf)

    for module in modules:
        module.mask_nan_or_inf_with_val_inplace = infinite
    if hasattr(optimizer, "get_grad_norm_direct"):  # ZeRO 3 has the -1 in its own lines
        of_group = optimizer.get_grad_norm_direct

        def norm(*arguments: Any, **options: Any) -> torch.Tensor:
            found = of_group(*arguments, **options)
            return torch.where(found < 0, torch.inf, found)

        optimizer.get_grad_norm_direct = norm


def stop(engine: Any) -> None:
    """Free what an engine holds; DeepSpeed's hooks otherwise keep the model alive for the life of the
    process.
    """
    engine.destroy()
    # What was compiled for this model is of no use to the next, and after eight the next would silently run
    # without.
    torch.compiler.reset()
