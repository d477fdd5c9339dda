"""Models of a run as a repository: transformers loads them, their card says what they are, nothing says where they lay."""

import json

import fabricated
import pytest

from repro.publish.__main__ import main
from repro.report import build


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of three arms and two seeds whose models are there."""
    from transformers import LlamaConfig, LlamaForCausalLM

    plain = fabricated._pretrain

    def trained(context, seed):
        plain(context, seed)
        shape = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1}
        config = LlamaConfig(vocab_size=16, num_key_value_heads=1, **shape)
        LlamaForCausalLM(config).save_pretrained(context.out / "model")
        path = context.out / "model" / "config.json"
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"_name_or_path": "/home/me/secret place/model"})
        )
        (context.out / "model" / "README.md").write_text("its own, /home/me")
        context.facts |= {"parameters": 1234, "tokens": 4096}

    monkeypatch.setattr(fabricated, "_pretrain", trained)
    settings, store, stages = fabricated.run(tmp_path / "work", seeds=(0, 1))
    folder = tmp_path / "work" / "runs" / "fabricated"
    folder.mkdir(parents=True)
    build.build(folder, settings, store, stages)
    return folder


def test_all_models_or_one_of_them(run, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    assert main([str(run), "--to", str(tmp_path / "all"), "--what", "models"]) == 0
    card = (tmp_path / "all" / "README.md").read_text()
    assert "licence: not recorded" in card and "\nlicense:" not in card and "lower is better" in card
    assert len(list((tmp_path / "all").glob("*-seed*/model.safetensors"))) == 6
    words = ["--what", "models", "--arm", "random", "--seed", "1"]
    assert main([str(run), "--to", str(tmp_path / "one"), *words]) == 0
    inside = AutoModelForCausalLM.from_pretrained(tmp_path / "all", subfolder="random-seed1")
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "one")
    assert all(torch.equal(a, b) for a, b in zip(inside.parameters(), alone.parameters(), strict=True))
    assert "| `random-seed1` | random | 1 | 1,234 | 4,096 |" in card
    assert json.loads((tmp_path / "one" / "config.json").read_text())["_name_or_path"] == "PATH/model"
    for path in tmp_path.rglob("*"):
        if path.is_file() and "work" not in path.parts:
            content = path.read_bytes()
            assert (
                b"secret place" not in content
                and b"/home/me" not in content
                and str(run).encode() not in content
            )
    assert main([str(run), "--to", str(tmp_path / "x"), *words[:-1], "7"]) == 2


def test_end_tokens_and_templates_are_no_paths(tmp_path):
    """``</s>`` is the end token of Llama and T5, ``[/INST]`` stands in templates; only places lose their folders."""
    from tokenizers import Tokenizer, models
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    from repro.publish import portable

    vocabulary = {"<unk>": 0, "</s>": 1, "<s>": 2, "[/INST]": 3, "~": 4, "/": 5}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")),
        unk_token="<unk>", eos_token="</s>", bos_token="<s>", additional_special_tokens=["[/INST]", "~", "/"],
    )  # fmt: skip
    tokenizer.chat_template = "{{ '[/INST] ' + messages[0]['content'] + '</s>' }}"
    before, after = tmp_path / "before", tmp_path / "after"
    tokenizer.save_pretrained(before)
    path = before / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name_or_path": "/home/me/models/mine"}))
    after.mkdir()
    for file in before.iterdir():
        if file.name.endswith("config.json"):
            portable.copy_configuration(file, after / file.name)
        else:
            (after / file.name).write_bytes(file.read_bytes())
    portable.check(after, [tmp_path, before])
    assert "/home/me" not in (after / "tokenizer_config.json").read_text()
    one, other = (AutoTokenizer.from_pretrained(folder) for folder in (before, after))
    assert (one.eos_token_id, len(one)) == (other.eos_token_id, len(other)) == (1, 6)
    assert other.special_tokens_map == one.special_tokens_map and other.chat_template == one.chat_template
