"""Weights are loaded whole or refused; text becomes the same tokens wherever it is read."""

import json
import shutil
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from evaluating import WORDS, items, tiny
from safetensors.torch import load_file, save_file
from tokenizers import ByteLevelBPETokenizer, processors
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForPreTraining,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from repro.errors import SettingError
from repro.evaluate import harness, texts
from repro.evaluate.evaluate import evaluate
from repro.evaluate.settings import Eval
from repro.influence.api import AttentionInfluence
from repro.pretrain import tokens
from repro.pretrain.model import build
from repro.pretrain.settings import Model
from repro.pretrained import Encoder, load_model
from repro.proxy.load import load

QUERY, EMBEDDING = "model.layers.1.self_attn.q_proj.weight", "model.embed_tokens.weight"
END = "<|end|>"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("whole"))


def damaged(whole, folder, change):
    """A copy of the folder, its tensors changed."""
    shutil.copytree(whole, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def renamed(weights):
    for name in list(weights):
        weights[f"module.{name}"] = weights.pop(name)


DAMAGE = {
    "removed": (lambda w: w.pop(QUERY), [f"1 tensors are missing ({QUERY})"]),
    "embedding removed": (lambda w: w.pop(EMBEDDING), [f"missing ({EMBEDDING})"]),
    "output removed": (lambda w: w.pop("lm_head.weight"), ["missing (lm_head.weight)"]),
    "another prefix": (renamed, ["21 tensors are missing", "21 tensors are not the model's", "and 18 more"]),
    "one renamed": (
        lambda w: w.update({"q": w.pop(QUERY)}),
        ["1 tensors are missing", "not the model's (q)"],
    ),
    "a layer too many": (
        lambda w: w.update({QUERY.replace("1", "2"): torch.zeros(32, 32)}),
        ["not the model's"],
    ),
    "wrong shape": (
        lambda w: w.update({QUERY: torch.zeros(16, 32)}),
        ["of another shape", "[16, 32], not [32, 32]"],
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_weights_that_do_not_fit_are_refused_by_every_loader_in_one_line(whole, tmp_path, damage):
    change, says = DAMAGE[damage]
    folder = damaged(whole, tmp_path / "model", change)
    loaders = {
        "proxy": lambda: load(folder, "float32"),
        "init_from": lambda: build(Model(init_from=str(folder)), 64, 0, 0),
        "evaluation": lambda: harness.load(folder, 4, "float32"),
        "api": lambda: AttentionInfluence(str(folder), "float32"),
    }
    for name, loader in loaders.items():
        with pytest.raises(SettingError) as error:
            loader()
        message = str(error.value)
        assert "\n" not in message and str(folder) in message and all(part in message for part in says), (
            name,
            message,
        )


def test_a_shard_that_is_not_there_and_pickled_weights_are_refused(whole, tmp_path):
    model = load_model(whole)
    sharded, pickled = tmp_path / "sharded", tmp_path / "pickled"
    model.save_pretrained(sharded, max_shard_size="40KB")
    shards = sorted(sharded.glob("*.safetensors"))
    assert len(shards) > 1
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(whole / name, sharded)
    assert load_model(sharded).state_dict().keys() == model.state_dict().keys()
    shards[0].unlink()
    shutil.copytree(whole, pickled)
    (pickled / "model.safetensors").unlink()
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    for folder in (sharded, pickled):
        for loader in (lambda f: load(f, "float32"), lambda f: harness.load(f, 4, "float32")):
            with pytest.raises(SettingError) as error:
                loader(folder)
            assert "\n" not in str(error.value) and str(folder) in str(error.value)


def test_tied_weights_recomputed_buffers_and_unused_heads_may_be_absent(tmp_path):
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=2, n_head=2))
    gpt2.save_pretrained(tmp_path / "gpt2")
    weights = load_file(tmp_path / "gpt2" / "model.safetensors")
    assert "lm_head.weight" not in weights  # tied
    weights["transformer.h.0.attn.bias"] = torch.ones(
        1, 1, 16, 16
    )  # the causal mask that older checkpoints hold
    bare = {
        name.removeprefix("transformer."): tensor for name, tensor in weights.items()
    }  # as OpenAI's own file has them
    save_file(bare, tmp_path / "gpt2" / "model.safetensors", metadata={"format": "pt"})
    loaded = load_model(tmp_path / "gpt2")
    for name, parameter in gpt2.named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter)
    bert = BertForPreTraining(BertConfig(vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                         num_attention_heads=2))  # fmt: skip
    bert.save_pretrained(tmp_path / "bert")
    with pytest.raises(SettingError, match="not the model's"):
        load_model(tmp_path / "bert", "AutoModel")
    assert load_model(tmp_path / "bert", "AutoModel", ("cls.",)).training is False


def test_an_output_matrix_of_its_own_is_not_lost_where_the_configuration_ties_it(whole, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    own = load_file(folder / "model.safetensors")["lm_head.weight"]
    try:
        assert torch.equal(load_model(folder).get_output_embeddings().weight, own)
    except SettingError as error:
        assert "lm_head.weight" in str(error)


def tokenizer(before=(), after=(), special="<s>"):
    """A byte-level BPE that puts special tokens around a text."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator([" ".join(WORDS)], vocab_size=330, special_tokens=[END, special])
    around = " ".join([*before, "$A", *after])
    ids = [(token, bpe.token_to_id(token)) for token in {*before, *after}]
    if ids:
        bpe._tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token=special, eos_token=END, pad_token=END
    )


KINDS = {
    "plain": ((), ()),
    "begins": (("<s>",), ()),
    "ends": ((), (END,)),
    "both": (("<s>",), (END,)),
}
TEXTS = ["red owl", f"red {END} owl", f"{END}", "<s>red<s>", "日本 émigré", " red ", "a\n\nb"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_text_and_the_prefix_what_the_tokenizer_begins_with(kind, tmp_path):
    made = tokenizer(*KINDS[kind])
    made.save_pretrained(tmp_path / "saved")
    for given in (made, AutoTokenizer.from_pretrained(tmp_path / "saved")):
        encode = Encoder(given)
        special = set(given.all_special_ids)
        assert len(special) == 2
        for text, ids in zip(TEXTS, encode(TEXTS), strict=True):
            assert not special & set(ids) and given.decode(ids) == text
        assert encode.prefix == ([given.bos_token_id] if KINDS[kind][0] else [])
    assert encode([]) == []
    with pytest.raises(TypeError):
        encode("one text")
    backend = given.backend_tokenizer  # the obvious way
    backend.encode_special_tokens = True
    assert encode(TEXTS) == [found.ids for found in backend.encode_batch(TEXTS, add_special_tokens=False)]


@pytest.fixture(scope="module")
def folders(whole, tmp_path_factory):
    """The same model with each of the tokenizers, and items."""
    root = tmp_path_factory.mktemp("kinds")
    for kind, (before, after) in KINDS.items():
        shutil.copytree(whole, root / kind)
        tokenizer(before, after).save_pretrained(root / kind)
    items(root / "items")
    return root


def by_hand(model, whole_ids, length):
    """Log-likelihood of the last ``length`` tokens."""
    with torch.inference_mode():
        logits = model(torch.tensor([whole_ids])).logits[0].log_softmax(-1)
    return sum(float(logits[i - 1, whole_ids[i]]) for i in range(len(whole_ids) - length, len(whole_ids)))


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_scores_the_answer_itself(folders, kind):
    lm = harness.load(folders / kind, 4, "float32")
    prompt, answer = f"red {END} river", f" owl {END}"
    encode = Encoder(lm.tokenizer)
    ids, tail = encode([prompt + answer])[0], len(encode([prompt + answer])[0]) - len(encode([prompt])[0])
    context, continuation = lm._encode_pair(prompt, answer)
    assert (context + continuation, len(continuation)) == (encode.prefix + ids, tail)
    [(found, _)] = lm._loglikelihood_tokens([((prompt, answer), context, continuation)], disable_tqdm=True)
    assert found == pytest.approx(by_hand(lm.model, encode.prefix + ids, tail), abs=1e-4)
    rows, mask = lm.tok_batch_encode([prompt, "owl"], left_truncate_len=5)
    for row, seen, text in zip(rows, mask, (prompt, "owl"), strict=True):
        assert row[seen.bool()].tolist() == (encode.prefix + encode([text])[0])[-5:]
        assert seen.tolist() == sorted(seen.tolist())  # padding on the left

    class Request:
        args = (prompt,)

    [rolled] = lm.loglikelihood_rolling([Request()], disable_tqdm=True)
    assert rolled == pytest.approx(
        by_hand(lm.model, [lm.prefix_token_id, *encode([prompt])[0]], len(encode([prompt])[0]))
    )


def test_an_appended_end_token_changes_no_number(folders, tmp_path):
    s = Eval(
        tasks=["piqa", "lambada_openai", "gsm8k"],
        text_tasks=["wikitext"],
        text_bytes=800,
        limit=4,
        shots={"gsm8k": 0},
    )
    s.overrides = {"gsm8k": {"generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 8, "do_sample": False}}}
    found, plain = (
        evaluate(folders / kind, s, folders / "items", tmp_path / kind) for kind in ("ends", "plain")
    )
    assert found == plain and len(found["metrics"]) > 2 and not found["missing"]


def test_scoring_reads_the_same_tokens_as_training(folders):
    for kind in KINDS:
        proxy = load(folders / kind, "float32")
        encode, end = tokens.encoder(folders / kind)
        assert proxy.encode(TEXTS) == encode(TEXTS) and proxy.prefix == encode.prefix
        assert end == proxy.tokenizer.eos_token_id
        api = AttentionInfluence(str(folders / kind), "float32")
        assert api.proxy.encode([f"a {END}"])[0].count(end) == 0
        lm = harness.load(folders / kind, 4, "float32")
        [source] = [texts.Source("heldout", "web", [("0", f"red owl {END} river")])]
        assert texts._measure(lm, source, None)["n_tokens"].to_list() == [
            len(encode([f"red owl {END} river"])[0])
        ]


def test_a_model_trained_from_scratch_is_never_given_a_begin_token(folders, tmp_path):
    for kind in KINDS:
        tokens.copy_tokenizer(folders / kind, tmp_path / kind, 330)
        own, theirs = tokens.encoder(tmp_path / kind), tokens.encoder(folders / kind)
        assert own[0].prefix == [] and own[1] == theirs[1] and own[0](TEXTS) == theirs[0](TEXTS)
        assert own[0].tokenizer.bos_token_id is None
        tokens.copy_tokenizer(folders / kind, tmp_path / f"{kind} continued", 330, continued=True)
        assert tokens.encoder(tmp_path / f"{kind} continued")[0].prefix == theirs[0].prefix


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_is_continued_reads_what_its_tokenizer_begins_with(folders, tmp_path, kind):
    """As scoring and evaluation feed it, and as it was trained."""
    tokens.copy_tokenizer(folders / kind, tmp_path / "tokenizer", 330, continued=True)
    encode, end = tokens.encoder(tmp_path / "tokenizer")
    documents = pl.DataFrame({"text": TEXTS})
    pieces = list(tokens.encode_shard(encode, end, documents, np.uint16))
    wanted = [[*encode.prefix, *encode.one(text), end] for text in TEXTS]
    assert [token for flat, _ in pieces for token in flat] == [token for ids in wanted for token in ids]
    assert [n for _, lengths in pieces for n in lengths] == [len(ids) for ids in wanted]


def test_parts_of_two_domains_never_share_a_file(folders, tmp_path):
    lm = harness.load(folders / "plain", 4, "float32")
    sources = [
        texts.Source("heldout", name, [("0", text)])
        for name, text in (("a/b", "red owl"), ("a b", "stone river"))
    ]
    found = texts.measure(lm, sources, tmp_path)
    assert found["source"].to_list() == ["a/b", "a b"]


def test_the_bar_of_texts_learns_how_many_tokens_there_are(folders, tmp_path, monkeypatch):
    """Its total is exact at the end, also where a source was measured before; what is left is never negative."""
    lm, seen = harness.load(folders / "plain", 4, "float32"), []

    class Bar(SimpleNamespace):
        def update(self, n):
            self.n += n

    @contextmanager
    def progress(total, unit, label):
        seen.append(Bar(total=total, n=0))
        yield seen[-1]

    monkeypatch.setattr(texts, "progress", progress)
    sources = [
        texts.Source("heldout", name, [("0", "red owl river " * n)])
        for name, n in zip("abc", (3, 50, 20), strict=True)
    ]
    found = texts.measure(lm, sources, tmp_path)
    assert seen[0].n == seen[0].total == found["n_tokens"].sum() > 73
    (tmp_path / "text-heldout-b.parquet").unlink()
    assert texts.measure(lm, sources, tmp_path).equals(found)
    assert seen[1].n == seen[1].total == found["n_tokens"][1]
    texts.measure(lm, sources, tmp_path)
    assert seen[2].n == seen[2].total == 0
