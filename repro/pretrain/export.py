"""The trained model as a Hugging Face folder whose logits are the engine's."""

from __future__ import annotations

import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import GenerationConfig
from transformers.utils.logging import disable_progress_bar

from repro.errors import SettingError
from repro.pretrain.job import Facts
from repro.pretrained import load_model, load_tokenizer


def gathered(parameter: torch.nn.Parameter) -> Any:
    """The whole parameter where ZeRO 3 has split it over the ranks; nothing to do otherwise."""
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(parameter, modifier_rank=0)


def weights(engine: Any) -> dict[str, torch.Tensor]:
    """The weights the engine computes with, on the CPU of rank 0 (empty elsewhere), tied ones under each of
    their names; collective under ZeRO 3.
    """
    held: dict[int, torch.Tensor] = {}
    state = {}
    for name, parameter in engine.module.named_parameters(remove_duplicate=False):
        with gathered(parameter):
            if dist.get_rank() == 0:
                if id(parameter) not in held:
                    held[id(parameter)] = parameter.detach().to("cpu", copy=True)
                state[name] = held[id(parameter)]
    if dist.get_rank() == 0:
        kept = engine.module.state_dict().keys()
        state |= {name: buffer.cpu() for name, buffer in engine.module.named_buffers() if name in kept}
    return state


@torch.no_grad()
def export(engine: Any, folder: Path, tokenizer: Path, card: str, probe: torch.Tensor) -> float:
    """Write ``folder`` (safetensors, config, tokenizer, generation config, model card), whole or not at all.

    Before it is published, its logits on ``probe`` [B, T] are compared with the engine's; returns the largest
    absolute difference and raises :class:`SettingError` when it exceeds 1e-4 x the largest logit: on a GPU in
    bfloat16 2e-2, because its libraries choose their kernels by where the weights lie in memory, and these
    lie elsewhere in the copy.
    """
    tolerance = 2e-2 if probe.is_cuda and engine.module.dtype == torch.bfloat16 else 1e-4
    with torch.compiler.set_stance("force_eager"):  # a compiled model rounds bfloat16 elsewhere
        logits = engine(input_ids=probe, use_cache=False).logits.float()
    state = weights(engine)
    difference = 0.0
    if dist.get_rank() == 0:
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        disable_progress_bar()
        network = engine.module
        network.save_pretrained(temporary, state_dict=state)
        ends = network.config.eos_token_id
        end = ends[0] if isinstance(ends, list) else ends
        GenerationConfig(bos_token_id=end, eos_token_id=end, pad_token_id=end).save_pretrained(temporary)
        load_tokenizer(tokenizer).save_pretrained(temporary)
        (temporary / "README.md").write_text(card)
        copy = load_model(temporary, dtype=network.dtype).to(probe.device)
        difference = (copy(input_ids=probe, use_cache=False).logits.float() - logits).abs().max().item()
        if not difference <= tolerance * logits.abs().max().item():
            raise SettingError(
                f"the exported model in {temporary} differs from the trained one by {difference:.3g} in its"
                " logits; it was not published: please report this"
            )
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    dist.barrier()
    return difference


def model_card(facts: Facts) -> str:
    """A short README in the format of Hugging Face model cards."""
    lines = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    return f"""---
library_name: transformers
pipeline_tag: text-generation
---
# {facts["arm"]}, seed {facts["seed"]}

A model of an experiment on training data, made to be compared with its siblings and for nothing else.

| | |
|---|---|
{lines}
"""
