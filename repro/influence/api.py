"""The scorer for people who want only the scorer: a model and texts in, heads and scores out (docs/score.md).

from repro.influence.api import AttentionInfluence

influence = AttentionInfluence("path/to/model or owner/name")
influence.detect(texts)          # or influence.heads = [(17, 3), ...]
for row in influence.score(texts):
    print(row["score"], row["loss_base"], row["loss_ref"])
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from repro.device import DTYPES, present, resolved
from repro.errors import SettingError, one_of, require
from repro.heads import importance, probes
from repro.heads.detectors import retrieval
from repro.heads.settings import Heads
from repro.influence import statistics
from repro.influence.examples import Token, token_losses
from repro.influence.scorer import Scorer
from repro.influence.settings import Score
from repro.plain import Row
from repro.proxy.load import load
from repro.proxy.stage import checked_folder, download, within_context
from repro.tracking import progress


class AttentionInfluence:
    """A causal language model, its important heads, and influence scores of texts (eq. 5)."""

    def __init__(self, model: str, dtype: str = "auto", device: str = "cpu", revision: str = "main") -> None:
        """Load ``model``: a Hugging Face folder, or a name on the hub. Raises :class:`SettingError` if it
        cannot be exact, and for a device that is not here.

        ``dtype`` is bfloat16, float16, float32 or auto, what ``device`` is fast in; ``self.dtype`` is the one
        in use. ``device`` is auto, cpu, cuda or cuda:N.
        """
        device = present(device)
        one_of("dtype", dtype, (*DTYPES, "float16"))
        self.dtype = resolved(dtype, device)
        self._model = _folder(model, revision)
        self.proxy = load(self._model, self.dtype, device)
        self._heads: list[tuple[int, int]] = []
        self.head_scores: np.ndarray | None = None

    @property
    def heads(self) -> list[tuple[int, int]]:
        """The heads that are masked, (layer, head) from 0. Setting one that the model lacks raises
        :class:`SettingError`.
        """
        return self._heads

    @heads.setter
    def heads(self, given: Iterable[Sequence[int]]) -> None:
        self._heads = self._checked(given)

    def _checked(self, given: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
        found = [(int(layer), int(head)) for layer, head in given]
        for layer, head in found:
            if not (0 <= layer < self.proxy.num_layers and 0 <= head < self.proxy.num_heads):
                raise SettingError(
                    f"the model has {self.proxy.num_layers} layers of {self.proxy.num_heads} heads, counted"
                    f" from 0, and so no ({layer}, {head})"
                )
        return found

    def detect(
        self,
        texts: str | Sequence[str],
        share: float = 0.05,
        probe_count: int = 50,
        probe_tokens: int = 1024,
        seed: int = 0,
    ) -> list[tuple[int, int]]:
        """Find the retrieval heads: the ``share`` of all heads with the highest retrieval score (section
        4.1).

        Args:
            texts: natural text, a string or several; its short sentences become the values of the probes.
            share: of all heads.
            probe_count: probes; the paper uses 800 of 4,096 tokens.
            probe_tokens: longest probe.
            seed: of the probes.

        Returns:
            (layer, head) pairs, best first; also kept in ``heads``. ``head_scores`` [layers, heads] are the
            means.
        """
        s = Heads(share=share, probes=probe_count, probe_tokens=probe_tokens, seed=seed)
        within_context("heads.probe_tokens", probe_tokens, self._model)
        values, how = probes.values_from(_documents(texts), self.proxy.encode, s)
        scores = []
        with progress(probe_count, "probes", "detecting heads") as bar:
            for index in range(probe_count):
                probe = probes.build(index, values, self.proxy.encode, s, self.proxy.prefix)
                scores.append(retrieval.detect(self.proxy, probe, s).scores)
                bar.update(1)
        self.head_scores = means = np.mean(scores, axis=0)
        self.heads = importance.top(means, share)
        for said in (
            f"values of the probes: {how}" if how == probes.PIECES else "",
            importance.none_copied(means, self.heads),
        ):
            if said:
                warnings.warn(said, stacklevel=2)
        return self.heads

    def score(
        self, texts: str | Sequence[str], window: int = 1024, max_tokens: int | None = None
    ) -> list[Row]:
        """One row per text, a single string being one: ``score``, ``loss_base``, ``loss_ref`` (nats a token),
        ``score_error``, ``n_tokens``, ``reason``.

        Texts are scored whole, in windows, unless ``max_tokens`` is given; ``n_tokens_doc`` is the length of
        the whole text. Scores are comparable within a kind of text (web, code, mathematics, ...) only. Raises
        :class:`SettingError` for a window longer than the model's context, or than ``max_tokens``.
        """
        return self._scored(texts, [self._chosen()], window, max_tokens)[0]

    def score_sets(
        self,
        texts: str | Sequence[str],
        sets: Mapping[str, Iterable[Sequence[int]]],
        window: int = 1024,
        max_tokens: int | None = None,
    ) -> dict[str, list[Row]]:
        """As :meth:`score` for several sets of heads at once: ``{name: rows}``.

        The base model is run once for all of them, and below the lowest layer of a set nothing is run for
        it: k sets cost well under k scorings (docs/speed.md).
        """
        require(bool(sets), "no sets of heads are given: score_sets(texts, {'mine': [(layer, head), ...]})")
        heads = [self._checked(given) for given in sets.values()]
        for name, own in zip(sets, heads, strict=True):
            require(bool(own), f"the set {name} has no heads")
        return dict(zip(sets, self._scored(texts, heads, window, max_tokens), strict=True))

    def _scored(
        self,
        texts: str | Sequence[str],
        sets: list[list[tuple[int, int]]],
        window: int,
        max_tokens: int | None,
    ) -> list[list[Row]]:
        self._check(window, max_tokens)
        scorer = Scorer(self.proxy, sets[0], window, max_tokens, others=sets[1:])
        encoded = self.proxy.encode(_documents(texts))
        with progress(sum(len(ids[:max_tokens]) for ids in encoded), "tokens", "scoring") as bar:
            losses = scorer.losses(encoded, bar.update)
        return [
            [
                statistics.score([(base, references[index]) for base, *references in found])
                | {
                    "n_tokens": sum(len(base) + 1 for base, *_ in found),
                    "n_tokens_doc": len(ids),
                }
                for ids, found in zip(encoded, losses, strict=True)
            ]
            for index in range(len(sets))
        ]

    def token_losses(self, text: str, window: int = 1024) -> list[Token]:
        """Every predicted token of a text with its two losses: ``token``, ``loss_base``, ``loss_ref``."""
        self._check(window)
        return token_losses(self.proxy, self._chosen(), text, window)

    def _check(self, window: int, max_tokens: int | None = None) -> None:
        """What the stage refuses is refused here in its words."""
        Score(window=window, max_tokens=max_tokens)
        within_context("score.window", window, self._model)

    def _chosen(self) -> list[tuple[int, int]]:
        if not self.heads:
            raise SettingError(
                "no heads are chosen: call detect(texts) first, or set .heads = [(layer, head), ...]"
            )
        return self.heads


def _documents(texts: str | Sequence[str]) -> list[str]:
    """A list of documents: a single string is one document, not its letters."""
    found = [texts] if isinstance(texts, str) else list(texts)
    for index, text in enumerate(found):
        if not isinstance(text, str):
            raise SettingError(f"document {index} is a {type(text).__name__}; a document is a string")
    return found


def _folder(model: str, revision: str) -> Path:
    """A local folder as it is, a hub name downloaded (safetensors and tokenizer only)."""
    if Path(model).is_dir():
        return checked_folder(Path(model))
    require(
        re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) is not None and not model.startswith((".", "/", "~")),
        f"{model}: no such folder, and no name of the hub (owner/name)",
    )
    return download(model, revision)
