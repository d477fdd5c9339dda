"""GGUF files as proxies: what comes out equals the model that went in, and what would be lost is refused."""

import os
import shutil

import pytest
import regex
import torch
from gguf_files import ARCHITECTURES, model_of, vocabulary_of, write
from transformers.convert_slow_tokenizer import bytes_to_unicode

from repro.errors import SettingError
from repro.proxy import gguf
from repro.proxy import stage as proxy_stage
from repro.proxy.load import load
from repro.proxy.settings import Proxy
from repro.proxy.stage import parameters as proxy_parameters
from repro.settings.compose import compose
from repro.store import Store, read_json


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))


def proxy(path):
    return Proxy(kind="gguf", name="gguf", path=str(path))


def logits(model, ids):
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_converted_proxy_gives_the_logits_of_the_model_the_file_was_made_of(architecture, tmp_path):
    """Tied and untied embeddings, biases, paired rotations, norms stored plus one, a sliding window of four tokens."""
    original = write(tmp_path / "tiny.gguf", architecture)
    folder = Store(tmp_path / "work").ensure(proxy_stage.stage(proxy(tmp_path / "tiny.gguf")))
    found = load(folder / "model", "float32")
    ids = torch.arange(40).reshape(2, 20) * 7 % original.config.vocab_size
    expected = logits(original, ids)
    assert float(expected.abs().max()) > 0.1
    torch.testing.assert_close(
        logits(found.model, ids), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
    )
    assert len(found.prefix) == (architecture == "gemma3")
    text = "the cab: a b <|endoftext|>"
    assert found.tokenizer.decode(found.encode([text])[0]) == text
    facts = read_json(folder / "manifest.json")["facts"]
    assert (facts["architecture"], facts["model_name"], facts["logits_difference"]) == (
        architecture,
        "A tiny model",
        0.0,
    )
    assert facts["quantisation"].startswith("F32 ") and len(facts["file_sha256"]) == 64


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PIECES = {  # as llama.cpp does it: one expression after the other on what the former left
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "qwen2": [QWEN2],
}


@pytest.mark.parametrize("split", PIECES)
def test_text_is_split_as_the_file_says(split, tmp_path):
    """Against merges within the pieces that the expressions cut, by hand."""
    write(tmp_path / "tiny.gguf", "qwen2" if split == "qwen2" else "llama", split=split)
    folder = Store(tmp_path / "work").ensure(proxy_stage.stage(proxy(tmp_path / "tiny.gguf")))
    tokenizer = load(folder / "model", "float32").tokenizer
    _, _, merges = vocabulary_of("llama")
    spelled = bytes_to_unicode()

    def by_hand(text):
        pieces = [text]
        for expression in PIECES[split]:
            pieces = [
                found
                for piece in pieces
                for found in regex.findall(f"{expression}|.+?(?=(?:{expression})|\\Z)", piece, regex.S)
            ]
        assert "".join(pieces) == text
        result = []
        for piece in pieces:
            word = [spelled[byte] for byte in piece.encode()]
            for left, right in map(str.split, merges):
                at = 0
                while at < len(word) - 1:
                    if word[at : at + 2] == [left, right]:
                        word[at : at + 2] = [left + right]
                    at += 1
            result += word
        return result

    for text in ("Steps:\n\n1. the\n\n\n  22", "x =  5;   y\t7\n", "the he  the\n\nhe", "a1b22  c\n\n"):
        assert tokenizer.tokenize(text) == by_hand(text), text


def test_one_file_under_each_split_is_another_proxy_only_where_its_ids_changed(tmp_path):
    found = {}
    for split in PIECES:
        write(tmp_path / f"{split}.gguf", "llama", split=split)
        found[split] = proxy_stage.stage(proxy(tmp_path / f"{split}.gguf")).settings
    assert [name for name, settings in found.items() if "split" in settings] == ["smollm"]


def test_quantised_weights_are_unpacked_and_named(tmp_path):
    original = write(tmp_path / "tiny.gguf", "llama", kind="Q8_0")
    folder = Store(tmp_path / "work").ensure(proxy_stage.stage(proxy(tmp_path / "tiny.gguf")))
    assert read_json(folder / "manifest.json")["facts"]["quantisation"] == "Q8_0 16, F32 5"
    ids = torch.arange(20)[None] * 7 % original.config.vocab_size
    found, expected = logits(load(folder / "model", "float32").model, ids), logits(original, ids)
    gap = float((found - expected).abs().max() / expected.abs().max())
    assert 0 < gap < 0.2


def test_the_header_tells_a_plan_the_sizes(tmp_path):
    path = tmp_path / "tiny.gguf"
    model = write(path, "qwen2")
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert proxy_parameters(proxy(path)) == counted == gguf.header(path).parameters
    config = proxy_stage.config(proxy(path))
    assert config == {key: getattr(model.config, key) for key in config} and len(config) == 8


def test_the_place_and_the_neighbours_of_a_file_do_not_matter(tmp_path):
    write(tmp_path / "tiny.gguf", "llama")
    (tmp_path / "other").mkdir()
    copy = shutil.copyfile(tmp_path / "tiny.gguf", tmp_path / "other" / "tiny.gguf")
    (tmp_path / "other" / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "T5Tokenizer", "bos_token": "zz"}'
    )
    first, second = (proxy_stage.stage(proxy(path)) for path in (tmp_path / "tiny.gguf", copy))
    assert first.fingerprint == second.fingerprint
    store = Store(tmp_path / "work")
    alone = read_json(store.ensure(first) / "manifest.json")["files"]
    shutil.rmtree(store.path(first))
    assert read_json(store.ensure(second) / "manifest.json")["files"] == alone


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.3, 0.999])
def test_a_file_cut_short_is_refused_wherever_it_ends(share, tmp_path):
    path = tmp_path / "tiny.gguf"
    write(path, "llama")
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(SettingError, match="tiny.gguf is (cut short or damaged|no GGUF file)") as refusal:
        proxy_stage.stage(proxy(path))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"general": "mamba"}, "architecture 'mamba', which is not converted; llama, qwen2, gemma3 are"),
        ({"llama__rope__scaling__type": "yarn"}, "would lose the scaling of its positions"),
        ({"split__count": 3}, "is one of 3 parts; join them first"),
        (
            {"tokenizer": "llama", "tokenizer__ggml__add_space_prefix": 0},
            "would lose that no space is put before a text",
        ),
        (
            {"split": "llama-bpe"},
            "splits text as 'llama-bpe'.* gpt-2, smollm, qwen2 are; use the model's own",
        ),
    ],
)
def test_what_the_conversion_would_lose_is_refused_in_words(changed, message, tmp_path):
    write(tmp_path / "tiny.gguf", "llama", **changed)
    with pytest.raises(SettingError, match=message):
        proxy_stage.stage(proxy(tmp_path / "tiny.gguf"))


def test_a_gemma_whose_attention_is_scaled_otherwise_is_refused(tmp_path):
    write(tmp_path / "tiny.gguf", "gemma3", key_length=128)
    with pytest.raises(SettingError, match="would lose its own scaling of attention"):
        gguf.header(tmp_path / "tiny.gguf")


def test_a_missing_tensor_and_one_without_a_place_are_refused(tmp_path):
    write(tmp_path / "less.gguf", "llama", left_out="blk.1.attn_q.weight")
    (tmp_path / "out").mkdir()
    with pytest.raises(
        SettingError, match="cannot convert .*less.gguf: .*1 tensors are missing.*layers.1.self_attn.q_proj"
    ):
        gguf.convert(tmp_path / "less.gguf", tmp_path / "out")
    biased = model_of("qwen2", 10)  # a llama has no place for the biases of these names
    assert any(name.endswith("q_proj.bias") for name, _ in biased.named_parameters())
    more = tmp_path / "more.gguf"
    write(more, "llama", extra=True)
    with pytest.raises(
        SettingError, match="it holds 22 tensors and a llama of its sizes 21; the others would be lost"
    ):
        gguf.convert(more, tmp_path / "out")


def test_what_is_no_gguf_file_is_said(tmp_path):
    (tmp_path / "text.gguf").write_text("hello, this is no model")
    with pytest.raises(SettingError, match="is no GGUF file; for a Hugging Face folder use proxy=folder"):
        proxy_stage.stage(proxy(tmp_path / "text.gguf"))
    with pytest.raises(SettingError, match="is not a file; give a .gguf file"):
        proxy_stage.stage(proxy(tmp_path / "absent.gguf"))
    with pytest.raises(SettingError, match="proxy=gguf needs proxy.path=FILE.gguf"):
        compose(["exp=score_corpus", "proxy=gguf"])
    with pytest.raises(SettingError, match="did you mean 'gemma3-270m'"):
        proxy_stage.stage(Proxy(kind="gguf", name="gemma-270m"))
