"""The order of an arm's tokens, against a plain-list implementation of its definition."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from pretraining import naive_stream, workspace

from repro.errors import SettingError
from repro.pretrain.order import TokenStream, open_stream, repeats_of
from repro.pretrain.tokens import read_index


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return workspace(tmp_path_factory.mktemp("order"))


def stream_of(repeats, seed=0, lengths=None):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, len(repeats)) if lengths is None else np.asarray(lengths)
    offset = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    key = rng.integers(0, 2**63, len(repeats)).astype(np.uint64)
    return TokenStream(np.arange(lengths.sum()), offset, lengths, key, np.asarray(repeats), seed)


def sequence_of_documents(stream, epochs=1):
    return [int(d) for epoch in range(epochs) for d in stream.epoch(epoch)[0]]


def test_the_stream_is_the_documented_order(paths):
    stream = open_stream(paths["tokens"], paths["selection"], seed=3)
    ids, _ = naive_stream(paths, 3, 3)
    assert stream.per_epoch * 3 == len(ids)
    np.testing.assert_array_equal(stream.read(0, len(ids)), ids)
    rng = np.random.default_rng(0)
    for start in rng.integers(0, len(ids) - 1, 200):  # every kind of cut, over the ends of passes too
        count = int(rng.integers(1, min(len(ids) - start, 400) + 1))
        np.testing.assert_array_equal(stream.read(int(start), count), ids[start : start + count])


def test_a_batch_is_the_same_for_any_ranks_and_accumulation(paths):
    stream = open_stream(paths["tokens"], paths["selection"], seed=0)
    context, batch, step = 32, 24, 7
    whole = stream.sequences(step * batch, batch, context)
    assert whole.shape == (batch, context + 1)
    np.testing.assert_array_equal(whole[:, :-1].ravel(), stream.read(step * batch * context, batch * context))
    np.testing.assert_array_equal(
        whole[1:, 0], whole[:-1, -1]
    )  # each next token is the next sequence's first input
    for ranks, micro in ((1, 24), (2, 3), (3, 8), (4, 1), (8, 3)):
        rounds = batch // (ranks * micro)
        pieces = [
            stream.sequences(step * batch + (m * ranks + r) * micro, micro, context)
            for m in range(rounds)
            for r in range(ranks)
        ]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("tokens", [1, 37, 500, 1234, 5000])
def test_reads_equal_an_independent_count(paths, tokens):
    stream = open_stream(paths["tokens"], paths["selection"], seed=1)
    _, owners = naive_stream(paths, 1, tokens // stream.per_epoch + 1)
    counted = Counter(owners[:tokens])
    names = read_index(paths["tokens"], "documents", ["doc_id"])["doc_id"]
    assert {n: int(c) for n, c in zip(names, stream.tokens_read(tokens), strict=True) if c} == counted


def test_paired_arms_meet_common_documents_in_the_same_order():
    rng = np.random.default_rng(5)
    full = np.ones(300, int)
    selected = (rng.random(300) < 0.3).astype(int)
    for other in (selected, full + selected, full + 3 * selected):
        a, b = stream_of(full, seed=2), stream_of(other, seed=2)
        for epoch in range(3):
            common = set(np.flatnonzero(other > 0).tolist())
            first_of_a = [d for d in a.epoch(epoch)[0].tolist() if d in common]
            order_b = b.epoch(epoch)[0].tolist()
            if other.max() == 1:
                assert order_b == first_of_a
            else:  # one of the copies stands where the document stands in the other arm
                rest = iter(order_b)
                assert all(document in rest for document in first_of_a)


def test_copies_are_spread_and_counted():
    repeats = np.array([2] * 50 + [1] * 50 + [0] * 10)
    order = sequence_of_documents(stream_of(repeats))
    assert Counter(order) == {d: int(r) for d, r in enumerate(repeats) if r}
    distances = [b - a for d in range(50) for a, b in [[i for i, x in enumerate(order) if x == d]]]
    assert np.mean(distances) > 25 and sum(d == 1 for d in distances) < 5


def test_seeds_and_passes_have_orders_of_their_own():
    repeats = np.ones(100, int)
    orders = {
        (seed, epoch): tuple(stream_of(repeats, seed).epoch(epoch)[0]) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    assert orders[0, 0] == tuple(stream_of(repeats, 0).epoch(0)[0])


def test_one_document_of_one_token_is_a_stream():
    stream = stream_of([1], lengths=[1])
    np.testing.assert_array_equal(stream.read(0, 5), [0] * 5)
    assert stream.tokens_read(7).tolist() == [7]


def test_a_selection_that_cannot_be_trained_on_is_refused(paths, tmp_path):
    rows = pl.read_parquet(paths["selection"] / "selection.parquet")

    def selection(frame):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        frame.write_parquet(folder / "selection.parquet")
        return folder

    nothing_of_code = rows.with_columns(
        pl.when(pl.col("domain") == "code").then(0).otherwise("repeats").alias("repeats")
    )
    with pytest.raises(SettingError, match="no document of domain code;"):
        repeats_of(paths["tokens"], selection(nothing_of_code))
    with pytest.raises(SettingError, match="1 of them not in the selection"):
        repeats_of(paths["tokens"], selection(rows[1:]))
    renamed = rows.with_columns(pl.concat_str(pl.col("doc_id"), pl.lit("x")))
    with pytest.raises(SettingError, match="does not match the tokens"):
        repeats_of(paths["tokens"], selection(renamed))
    extra = pl.concat([rows, rows[:1].with_columns(pl.lit("one more").alias("doc_id"))])
    with pytest.raises(SettingError, match="does not match the tokens"):
        repeats_of(paths["tokens"], selection(extra))


def test_the_rows_of_a_selection_may_stand_in_any_order(paths, tmp_path):
    rows = pl.read_parquet(paths["selection"] / "selection.parquet")
    (tmp_path / "sorted").mkdir()
    rows.sort("doc_id").write_parquet(tmp_path / "sorted" / "selection.parquet")
    np.testing.assert_array_equal(
        repeats_of(paths["tokens"], tmp_path / "sorted"), repeats_of(paths["tokens"], paths["selection"])
    )
