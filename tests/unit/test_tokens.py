"""Token ids: the documents' own, each ended once, whatever was killed on the way."""

import shutil

import numpy as np
import polars as pl
import pytest
from pretraining import TINY, write_documents, write_tokens
from transformers import AutoTokenizer

from repro.errors import SettingError
from repro.pretrain import tokens
from repro.pretrain.stage import tokens_stage
from repro.store import Context, Stage, read_json, sha256_file


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokens")
    files = write_documents(root / "corpus")
    return files, write_tokens(root / "tokens", files)


def test_ids_are_the_documents_and_end_tokens(made):
    files, folder = made
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    for split in tokens.SPLITS:
        ids = tokens.open_ids(folder, split)
        index = tokens.read_index(folder, split, ["doc_id", "domain", "offset", "length", "n_bytes"])
        rows = pl.concat([pl.read_parquet(path) for path in files[split]])
        assert index["doc_id"].to_list() == rows["doc_id"].to_list()
        assert index["length"].sum() == len(ids)
        for text, offset, length, n_bytes in zip(
            rows["text"], index["offset"], index["length"], index["n_bytes"], strict=True
        ):
            document = ids[offset : offset + length].tolist()
            assert document[-1] == tokenizer.eos_token_id and tokenizer.eos_token_id not in document[:-1]
            assert tokenizer.decode(document[:-1]) == text
            assert n_bytes == len(text.encode())


def test_text_that_spells_the_end_token_does_not_end_a_document(made):
    files, folder = made
    texts = pl.concat([pl.read_parquet(path) for path in files["documents"]])["text"]
    assert texts.str.contains(tokens.END_OF_TEXT, literal=True).any()
    end = read_json(folder / "tokens.json")["end_token"]
    assert int((tokens.open_ids(folder, "documents") == end).sum()) == len(texts)


def test_the_tokenizer_is_the_same_every_time(made, tmp_path):
    files, folder = made
    again = write_tokens(tmp_path / "again", files)
    for name in ("tokenizer/tokenizer.json", "documents.bin", "heldout.bin", "index.parquet", "tokens.json"):
        assert sha256_file(folder / name) == sha256_file(again / name), name


def test_the_tokenizer_has_seen_no_heldout_text(made, tmp_path):
    """The stage's: held-out text in place of other held-out text changes nothing, in place of training text it does."""
    files, folder = made
    stage = tokens_stage(TINY, Stage("corpus", "made", {}, lambda _: None))
    told = pl.DataFrame(
        {"doc_id": ["x"], "domain": ["code"], "n_bytes": [12000], "text": ["zyzzyva " * 1500]}
    )
    found = {}
    for split in tokens.SPLITS:
        corpus = shutil.copytree(folder.parent / "corpus", tmp_path / split)
        told.write_parquet(corpus / split / "code-00001.parquet")
        (out := tmp_path / f"{split}-out").mkdir()
        stage.run(Context(out, {"corpus": corpus}, "cpu"))
        found[split] = (out / "tokenizer" / "tokenizer.json").read_text()
    assert found["heldout"] == (folder / "tokenizer" / "tokenizer.json").read_text()
    assert "zyzzyva" in found["documents"] and "zyzzyva" not in found["heldout"]


@pytest.mark.parametrize("finished", [0, 1, 3])
def test_a_killed_run_goes_on_behind_its_last_whole_shard(made, tmp_path, finished, monkeypatch):
    files, folder = made
    out = tmp_path / "out"
    out.mkdir()
    shutil.copytree(folder / "tokenizer", out / "tokenizer")
    encoded = []
    original = tokens.encode_shard

    def killed_later(tokenizer, end, documents, dtype):
        if len(encoded) == finished:
            yield next(original(tokenizer, end, documents, dtype))  # ids are written, their rows never are
            raise KeyboardInterrupt
        encoded.append(documents["doc_id"][0])
        yield from original(tokenizer, end, documents, dtype)

    monkeypatch.setattr(tokens, "encode_shard", killed_later)
    with pytest.raises(KeyboardInterrupt):
        tokens.write_corpus(out, files, 320)

    def counting(tokenizer, end, documents, dtype):
        encoded.append(documents["doc_id"][0])
        yield from original(tokenizer, end, documents, dtype)

    monkeypatch.setattr(tokens, "encode_shard", counting)
    (out / "parts").mkdir(exist_ok=True)
    (out / "parts" / ".documents-web.parquet.1.tmp").touch()  # of a kill while a part was written
    tokens.write_corpus(out, files, 320)
    assert (
        len(encoded) == len(set(encoded)) == sum(len(paths) for paths in files.values())
    )  # nothing was done twice
    for name in ("documents.bin", "heldout.bin", "index.parquet", "tokens.json"):
        assert sha256_file(folder / name) == sha256_file(out / name), name
    assert not (out / "parts").exists()


def test_a_large_vocabulary_takes_four_bytes(made, tmp_path):
    files, folder = made
    wide = write_tokens(tmp_path / "wide", files, vocabulary=2**16 + 1)
    assert tokens.open_ids(wide, "documents").dtype == np.uint32
    assert tokens.open_ids(folder, "documents").dtype == np.uint16


def test_a_tokenizer_that_does_not_fit_the_model_is_refused(made, tmp_path):
    _, folder = made
    with pytest.raises(SettingError, match=r"320 entries but the model only 300.*model\.vocabulary=320"):
        tokens.copy_tokenizer(folder / "tokenizer", tmp_path / "copy", 300)
    tokens.copy_tokenizer(folder / "tokenizer", tmp_path / "copy", 320)
    assert sha256_file(tmp_path / "copy" / "tokenizer.json") == sha256_file(
        folder / "tokenizer" / "tokenizer.json"
    )


def test_a_corpus_without_training_documents_is_refused(made, tmp_path):
    _, folder = made
    shutil.copytree(folder / "tokenizer", tmp_path / "tokenizer")
    with pytest.raises(SettingError, match="no training documents"):
        tokens.write_corpus(tmp_path, {"documents": [], "heldout": []}, 320)
