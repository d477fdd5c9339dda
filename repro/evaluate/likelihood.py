"""Log-likelihoods of answers after their contexts: every context is read once, nothing is padded that need
not be.

lm-eval's own pass pads rows of many lengths together and reads the context of a question once for every
choice. Here rows of one length go together, logits are formed only where an answer is predicted, and choices
continue from the cached keys and values of the context that they share. The numbers are lm-eval's up to
rounding (``tests/oracle/test_likelihood.py``).
"""

from __future__ import annotations

import copy
import inspect
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from repro.proxy import rope

# elements of a batch's logits: 32 MB in float32, in reach of a core's cache
LOGITS = {"cpu": 2**23, "cuda": 2**28}
TOKENS = {"cpu": 2**12, "cuda": 2**16}  # of a batch at most
# the longest of the answers that are read side by side, over the shortest
RAGGED = {"cpu": 1.25, "cuda": 8.0}

Tokens = tuple[int, ...]
Found = tuple[float, bool]


@torch.inference_mode()
def loglikelihoods(
    model: Any, requests: Sequence[tuple[Sequence[int], Sequence[int]]], progress: Any = None
) -> list[Found]:
    """(log-likelihood in nats, whether greedy decoding writes the answer) of each (context, answer), both
    token ids.

    ``model`` is a causal language model of transformers; contexts and answers hold at least one token each.
    Logits are taken in float32. Equal requests are read once and so have the very same number.
    ``progress.update`` counts requests.
    """
    answers: dict[Tokens, dict[Tokens, Found]] = defaultdict(dict)
    for context, answer in requests:
        answers[tuple(context)][tuple(answer)] = (0.0, False)
    reader = _Reader(model, progress, answers)
    alone, shared = defaultdict(list), defaultdict(list)
    # rotations depend on the length of the row: no two answers share their context's keys
    whole = rope.alone(model)
    for context, own in answers.items():
        if len(context) == 1 or len(own) == 1 or whole:
            for answer in own:
                alone[len(context) + len(answer)].append((context, answer))
        else:
            shared[len(context)].append(context)
    # the longest first: what does not fit into memory shows at once
    for length in sorted(alone, reverse=True):
        reader.whole(sorted(alone[length], key=lambda pair: len(pair[1])))
    for length in sorted(shared, reverse=True):
        reader.branched(shared[length])
    return [answers[tuple(context)][tuple(answer)] for context, answer in requests]


class _Reader:
    """One call's model, and where its findings go."""

    def __init__(self, model: Any, progress: Any, answers: dict[Tokens, dict[Tokens, Found]]) -> None:
        self.model, self.progress, self.answers = model, progress, answers
        self.device = next(model.parameters()).device
        self.logits, self.tokens = (sizes[self.device.type] for sizes in (LOGITS, TOKENS))
        self.ragged = RAGGED[self.device.type]
        self.keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.vocabulary = model.get_output_embeddings().weight.shape[0]

    def whole(self, pairs: list[tuple[Tokens, Tokens]]) -> None:
        """Contexts with their answers, all of one length together."""
        width = len(pairs[0][0]) + len(pairs[0][1]) - 1
        while pairs:
            most = max(1, min(self.tokens // width, len(pairs)))
            kept = len(pairs[most - 1][1])  # logits at the end of every row
            most = max(1, min(most, self.logits // (self.vocabulary * kept)))
            batch, pairs = pairs[:most], pairs[most:]
            kept = len(batch[-1][1])
            inputs_BT = torch.tensor(
                [[*context, *answer][:-1] for context, answer in batch], device=self.device
            )
            logits_BKV = self._logits(inputs_BT, kept).logits
            targets_BK = torch.tensor(
                [[*context, *answer][-kept:] for context, answer in batch], device=self.device
            )
            losses_BK, greedy_BK = _gathered(logits_BKV, targets_BK)
            for (context, answer), losses, greedy in zip(batch, losses_BK, greedy_BK, strict=True):
                n = len(answer)
                self._found(context, answer, sum(losses[-n:]), all(greedy[-n:]))

    def branched(self, contexts: list[Tokens]) -> None:
        """Contexts of one length, then their answers from the cached keys and values."""
        most = max(1, min(self.tokens // len(contexts[0]), self.logits // self.vocabulary))
        for start in range(0, len(contexts), most):
            batch = contexts[start : start + most]
            read = self._logits(torch.tensor(batch, device=self.device), 1, use_cache=True)
            rows = [(row, answer) for row, context in enumerate(batch) for answer in self.answers[context]]
            firsts = torch.tensor([[answer[0]] for _, answer in rows], device=self.device)
            losses, greedy = _gathered(read.logits[[row for row, _ in rows]], firsts)
            longer: list[tuple[int, Tokens, Found]] = []
            for (row, answer), (loss,), (sure,) in zip(rows, losses, greedy, strict=True):
                if len(answer) == 1:
                    self._found(batch[row], answer, loss, sure)
                else:
                    longer.append((row, answer, (loss, sure)))
            longer.sort(key=lambda branch: len(branch[1]))
            while longer:
                longer = self._continued(batch, read.past_key_values, longer)

    def _continued(
        self, batch: list[Tokens], cache: Any, longer: list[tuple[int, Tokens, Found]]
    ) -> list[Any]:
        """The answers of about the least length; returns those that are left."""
        shortest = len(longer[0][1]) - 1
        most = sum(len(answer) - 1 <= self.ragged * shortest for _, answer, _ in longer)
        width = len(longer[most - 1][1]) - 1
        most = max(1, min(most, self.tokens // width, self.logits // (self.vocabulary * width)))
        now, left = longer[:most], longer[most:]
        width = len(now[-1][1]) - 1
        own = copy.deepcopy(cache) if left else cache
        own.batch_select_indices(torch.tensor([row for row, _, _ in now], device=self.device))
        # causal: padding is unseen
        padded = [[*answer, *answer[-1:] * (width + 1 - len(answer))] for _, answer, _ in now]
        ids = torch.tensor(padded, device=self.device)
        logits_BTV = self._logits(ids[:, :-1], width, use_cache=True, past_key_values=own).logits
        losses_BT, greedy_BT = _gathered(logits_BTV, ids[:, 1:])
        for (row, answer, (first, sure)), losses, greedy in zip(now, losses_BT, greedy_BT, strict=True):
            n = len(answer) - 1
            self._found(batch[row], answer, first + sum(losses[:n]), sure and all(greedy[:n]))
        return left

    def _logits(self, inputs_BT: torch.Tensor, kept: int, use_cache: bool = False, **options: Any) -> Any:
        if self.keeps:
            return self.model(input_ids=inputs_BT, use_cache=use_cache, logits_to_keep=kept, **options)
        read = self.model(input_ids=inputs_BT, use_cache=use_cache, **options)
        read.logits = read.logits[:, -kept:]
        return read

    def _found(self, context: Tokens, answer: Tokens, nats: float, greedy: bool) -> None:
        self.answers[context][answer] = (nats, greedy)
        if self.progress is not None:
            self.progress.update(1)


def _gathered(
    logits_BTV: torch.Tensor, targets_BT: torch.Tensor
) -> tuple[list[list[float]], list[list[bool]]]:
    """Log-probability of every target, and whether it is the likeliest token. The logits are used up."""
    logits_BTV = logits_BTV.float()
    chosen_BT = logits_BTV.gather(-1, targets_BT[..., None])[..., 0]
    largest_BT = logits_BTV.amax(-1)
    greedy_BT = chosen_BT == largest_BT
    # Of equal ones the first is the likeliest. Over whole rows, argmax took as long as exp on an AMD EPYC.
    greedy_BT[greedy_BT.clone()] = logits_BTV[greedy_BT].argmax(-1) == targets_BT[greedy_BT]
    total_BT = logits_BTV.sub_(largest_BT[..., None]).exp_().sum(-1)
    return (chosen_BT - largest_BT - total_BT.log_()).double().tolist(), greedy_BT.tolist()
