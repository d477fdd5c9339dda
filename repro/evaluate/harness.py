"""Running lm-eval: one call a task, on items that lie on this disk, without its log noise."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast
from unittest import mock

import datasets
import huggingface_hub.constants
import numpy as np
import torch
from lm_eval import evaluator
from lm_eval.evaluator_utils import _process_results
from lm_eval.models.huggingface import HFLM
from lm_eval.result_schema import EvalResults
from lm_eval.tasks import TaskManager
from lm_eval.tasks.manager import TaskDict
from lm_eval.utils import handle_non_serializable
from safetensors import SafetensorError

from repro.errors import SettingError
from repro.evaluate import likelihood, per_item, reading, targets
from repro.evaluate import shots as worked
from repro.evaluate.code import sandbox
from repro.evaluate.tasks import OFFICIAL, Plan
from repro.plain import Json, Row
from repro.pretrained import Encoder, load_model, load_tokenizer
from repro.proxy import rope
from repro.tracking import progress

# lm-eval's own defaults of `simple_evaluate`, so that a cell can be checked by hand with `lm_eval --tasks
# NAME`
SEEDS = {"random": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234}
# draws, for the few metrics without a closed form (perplexity); lm-eval's 100,000 take minutes
BOOTSTRAP = 1000
# Tokens that end a text or a turn. A model's files may name one of its several (a GGUF file has room for
# one), and what is written after another is the next text, of which the decoded answer shows no seam.
ENDS = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<end_of_turn>", "<eos>", "</s>")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "spiece.model")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the logs, prints and progress bars of lm-eval and of the libraries below it, and keep them off
    the network.

    Models and items are local; offline mode is lifted again, because other stages of the process may need the
    hub.
    """
    loggers = [logging.getLogger(name) for name in ("lm_eval", "transformers", "datasets", "accelerate")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with (
            mock.patch.object(huggingface_hub.constants, "HF_HUB_OFFLINE", True),
            mock.patch("datasets.config.HF_HUB_OFFLINE", True),
            # or lm-eval's bootstrap forks a process with threads
            mock.patch.dict(os.environ, {"DISABLE_MULTIPROC": "1"}),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        if not bars:
            datasets.enable_progress_bars()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


_HFLM: Any = HFLM  # lm-eval's decorator hides what it is


class QuietLM(_HFLM):
    """lm-eval's Hugging Face model; its forward passes move our progress bar."""

    bar: Any = None
    too_long = 0  # answers that did not fit the context since `run` began
    # (task, item) -> tokens of its prompts that did not fit the context, at most of one
    cut: dict[tuple[str, int], int]
    # whose requests are being answered, in their order; empty for texts in windows
    asked: Sequence[tuple[str, int]] = ()
    # prompt -> the items that it asks an answer for
    written: Mapping[str, list[tuple[str, int]]] = MappingProxyType({})
    encoder: Encoder
    _bare = False  # inside `loglikelihood_rolling`, which starts a text with the prefix token itself

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **_: Any,
    ) -> list[int]:
        """By the encoder of training and scoring, after its prefix; lm-eval's would append an end token where
        others do.
        """
        bare = self._bare or add_special_tokens is False
        ids = ([] if bare else self.encoder.prefix) + self.encoder.one(string)
        return ids[-left_truncate_len:] if left_truncate_len else ids

    def tok_batch_encode(
        self,
        strings: list[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`tok_encode`, padded: ids and attention mask, [B, T] each.

        lm-eval cuts prompts to what the answer leaves of the context; what is cut is counted.
        """
        rows = [self.tok_encode(string) for string in strings]
        if left_truncate_len:
            for prompt, row in zip(strings, rows, strict=True):
                over = len(row) - left_truncate_len
                for item in self.written.get(prompt, ()) if over > 0 else ():
                    self.cut[item] = max(self.cut.get(item, 0), over)
            rows = [row[-left_truncate_len:] for row in rows]
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            place = slice(width - len(row), None) if padding_side == "left" else slice(len(row))
            ids[number, place], mask[number, place] = torch.tensor(row, dtype=ids.dtype), 1
        return ids, mask

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """As in lm-eval, where each text starts with the prefix token, and with no second one."""
        self._bare = True
        try:
            return super().loglikelihood_rolling(requests, disable_tqdm)
        finally:
            self._bare = False

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As in lm-eval, with the number of requests announced."""
        self._announce(len(requests))
        self.asked = [(str(request.task_name), request.doc_id) for request in requests]
        try:
            return super().loglikelihood(requests, disable_tqdm=True)
        finally:
            self.asked = []

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """As in lm-eval, with the number of requests announced."""
        self._announce(len(requests))
        self.written = defaultdict(list)
        for request in requests:
            self.written[request.args[0]].append((str(request.task_name), request.doc_id))
        return super().generate_until(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: list[Any], *args: Any, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """As in lm-eval, but an answer longer than the context is not a number; lm-eval gives up the whole
        task for it.
        """
        for item, (_, prompt, answer) in zip(self.asked, requests, strict=False):
            over = min(len(prompt) + len(answer) - self.max_length - 1, len(prompt))
            if over > 0:
                self.cut[item] = max(self.cut.get(item, 0), over)
        fits = [len(answer) <= self.max_length for _, _, answer in requests]
        self.too_long += fits.count(False)
        fitting = [request for request, fit in zip(requests, fits, strict=True) if fit]
        found = iter(self._read(fitting))
        return [next(found) if fit else (math.nan, False) for fit in fits]

    def _read(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Log-likelihoods without padding, each shared context once; contexts cut on the left to fit, as
        lm-eval does.
        """
        fitting = [
            (context[-(self.max_length + 1 - len(answer)) :], answer) for _, context, answer in requests
        ]
        return likelihood.loglikelihoods(self.model, fitting, self.bar)

    def _announce(self, requests: int) -> None:
        if self.bar is not None:
            self.bar.total += requests
            self.bar.refresh()

    def _model_call(self, inps: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        logits = super()._model_call(inps, *args, **kwargs)
        if self.bar is not None:
            self.bar.update(len(inps))
        return logits

    def ends(self) -> list[int]:
        """Tokens at which an answer ends: those that the model names, and :data:`ENDS` of its tokenizer."""
        own = self.model.generation_config.eos_token_id
        named = own if isinstance(own, list) else [own]
        added = self.tokenizer.get_added_vocab()
        ends = {*named, self.tokenizer.eos_token_id, *(added.get(token) for token in ENDS)}
        return sorted(end for end in ends if end is not None)

    def _model_generate(self, context: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        generated = super()._model_generate(context, *args, **{"eos_token_id": self.ends() or None} | kwargs)
        if self.bar is not None:
            self.bar.update(len(context))
        return generated


def load(
    model: Path | tuple[Any, Any],
    batch_size: int,
    dtype: str,
    device: str = "cpu",
    max_length: int | None = None,
) -> QuietLM:
    """A model for lm-eval: a Hugging Face folder, or a loaded ``(model, tokenizer)`` pair, whose dtype and
    device stay.

    ``max_length`` caps the context window in tokens (``None`` = the model's own). Raises
    :class:`SettingError` for a folder without model or tokenizer.
    """
    with quiet():
        if not isinstance(model, Path):
            return _wrapped(*model, batch_size, max_length)
        if not (model / "config.json").is_file():
            raise SettingError(f"{model} holds no model (config.json); give a Hugging Face folder")
        if not any((model / name).is_file() for name in TOKENIZER_FILES):
            raise SettingError(
                f"{model} holds no tokenizer (tokenizer.json); add one: tokenizer.save_pretrained('{model}')"
            )
        try:
            loaded = load_model(model, dtype=dtype).to(device)
            return _wrapped(loaded, load_tokenizer(model), batch_size, max_length)
        except SettingError as error:
            raise SettingError(f"{model} cannot be evaluated: {error}") from None
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise SettingError(
                f"{model} cannot be loaded as a causal language model: {first_line(error)}"
            ) from error


def _wrapped(model: Any, tokenizer: Any, batch_size: int, max_length: int | None) -> QuietLM:
    """The model as lm-eval's."""
    lm = QuietLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=max_length)
    lm.encoder = Encoder(tokenizer)
    # a tokenizer without special tokens (the built proxy): texts start on a new line
    if lm.prefix_token_id is None:
        lm.custom_prefix_token_id = lm.encoder.one("\n")[0]
    return _alone(lm)


def _alone(lm: QuietLM) -> QuietLM:
    """One request at a time for a model whose positions depend on the longest row of a batch."""
    if rope.alone(lm.model):
        lm.batch_size_per_gpu = 1
    return lm


def first_line(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, targets.Refused):
        return str(error)
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def run(
    lm: QuietLM,
    plan: Plan,
    folder: Path,
    shots: int | None = None,
    limit: int | None = None,
    allow_code: bool = False,
    label: str = "evaluate",
) -> tuple[Json, list[Row]]:
    """Evaluate one planned entry whose YAML files lie in ``folder``.

    Returns lm-eval's results (its native JSON, without samples) and the rows of
    :mod:`repro.evaluate.per_item`. Items with a log-likelihood that is not finite are named under
    ``excluded``, with the reason under ``why_excluded``, and enter no metric.
    """
    lm.too_long, lm.cut, lm.asked, lm.written = 0, {}, [], {}
    random.seed(SEEDS["random"])
    np.random.seed(SEEDS["numpy"])
    torch.manual_seed(SEEDS["torch"])
    # made before lm-eval's streams are silenced, so that it still reaches the terminal
    with progress(0, "requests", label) as lm.bar, quiet(), sandbox(), reading.exact(), targets.checked():
        try:
            loaded = _loaded(plan, folder)
            for task in loaded["tasks"].values():
                own = task.get_config("num_fewshot")
                if own != 0 and shots is not None:
                    task.set_config("num_fewshot", shots)
                elif own is None:
                    task.set_config("num_fewshot", 0)
                task.set_fewshot_seed(seed=SEEDS["fewshot"])
                targets.check(task, limit)
                worked.keep_apart(task)
            results = evaluator.evaluate(
                lm,
                cast(dict[str, Any], loaded),
                limit=limit,
                bootstrap_iters=BOOTSTRAP,
                log_samples=True,
                confirm_run_unsafe_code=allow_code,
            )
        finally:
            lm.bar = None
    assert results is not None  # as on ranks that are not the first
    samples = cast(dict[str, list[Row]], results.pop("samples"))
    with targets.checked():
        items = [
            row
            for name, task in loaded["tasks"].items()
            for row in per_item.rows(plan.name, task, samples[name])
        ]
    excluded: dict[str, list[int]] = defaultdict(list)
    for row in items:
        row["cut_tokens"] = lm.cut.get((row["task"], row["doc_id"]), 0)
        if not row["finite"] and row["doc_id"] not in excluded[row["task"]]:
            excluded[row["task"]].append(row["doc_id"])
    excluded = {task: ids for task, ids in excluded.items() if ids}
    why = (
        f"{lm.too_long} answers are longer than the context of {lm.max_length} tokens"
        if lm.too_long
        else "log-likelihoods that are not finite; is the model broken?"
    )
    if excluded:
        with quiet():
            results = _without(excluded, why, loaded, samples)
    redrawn = {name: number for name, task in loaded["tasks"].items() if (number := worked.redrawn(task))}
    told = {"excluded": excluded, "why_excluded": dict.fromkeys(excluded, why), "redrawn": redrawn}
    return _plain(results, plan, folder) | told, items


def _loaded(plan: Plan, folder: Path) -> TaskDict:
    """The tasks of an entry, as lm-eval loads them; it reads the first item of each already."""
    try:
        return TaskManager(include_path=str(folder), include_defaults=False).load([plan.name])
    except (IndexError, TypeError) as error:
        raise targets.Refused(
            f"lm-eval cannot read its first item ({first_line(error)}): its label must be an index of its"
            " choices or the text of one, and its choices a list of texts"
        ) from error


def _without(
    excluded: dict[str, list[int]], why: str, loaded: TaskDict, samples: dict[str, list[Row]]
) -> EvalResults:
    """lm-eval's own aggregation over the items that are left."""
    kept = {}
    for name, task in loaded["tasks"].items():
        left = [sample for sample in samples[name] if sample["doc_id"] not in excluded.get(name, ())]
        if not left:
            raise ArithmeticError(f"all {len(samples[name])} items of {name} are left out: {why}")
        raw = defaultdict(list)
        for sample in left:
            for metric in sample["metrics"]:
                raw[metric, sample["filter"]].append(sample[metric])
        kept[name] = {"task": task, "raw_metrics": raw, "logged_samples": left}
    return _process_results(kept, loaded.get("groups", {}), BOOTSTRAP)._to_eval_results()


def _plain(results: EvalResults, plan: Plan, folder: Path) -> Json:
    """JSON values only, without what changes from place to place: folders of this machine, addresses of
    objects.

    A value that is not finite becomes ``None``.
    """
    text = json.dumps(results, default=handle_non_serializable)
    told = [
        path
        for task in plan.files.values()
        for path in task.get("dataset_kwargs", {}).get("data_files", {}).values()
    ]
    read = [path for files in plan.items.values() for path in files.values()]
    places = {str(Path(path).parent) for path in [*told, *read]} | {str(folder), str(OFFICIAL)}
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(json.dumps(place)[1:-1], Path(place).name)
    return _finite(json.loads(re.sub(r" at 0x[0-9a-f]+", "", text)))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
