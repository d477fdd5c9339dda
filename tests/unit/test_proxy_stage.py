import os
import shutil

import pytest

from repro.errors import SettingError
from repro.heads.stage import _check_vocabulary
from repro.influence.stage import _check_losses
from repro.proxy import stage as proxy_stage
from repro.proxy.load import load
from repro.proxy.settings import Proxy
from repro.store import Context, Store, read_json


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("work"))
    return store.ensure(proxy_stage.stage(Proxy(kind="built"))) / "model"


@pytest.fixture
def folder(built, tmp_path):
    shutil.copytree(built, tmp_path / "mine")
    return tmp_path / "mine"


def test_a_folder_is_linked_and_named_by_its_content(folder, tmp_path):
    stage = proxy_stage.stage(Proxy(kind="folder", path=str(folder)))
    same = proxy_stage.stage(
        Proxy(kind="folder", path=str(shutil.copytree(folder, tmp_path / "elsewhere" / "mine")))
    )
    assert stage.fingerprint == same.fingerprint  # the place does not matter
    assert stage.fingerprint != proxy_stage.stage(Proxy(kind="built")).fingerprint
    published = Store(tmp_path / "work").ensure(stage)
    assert load(published / "model", "float32").num_heads == 4
    assert read_json(published / "manifest.json")["files"]["model/model.safetensors"]
    with open(folder / "tokenizer_config.json", "a") as handle:
        handle.write(" ")
    assert proxy_stage.stage(Proxy(kind="folder", path=str(folder))).fingerprint != stage.fingerprint


def test_a_folder_called_model_is_named_by_the_one_it_lies_in(folder, tmp_path):
    copies = [shutil.copytree(folder, tmp_path / name / "model") for name in ("4x128-one", "4x128-two")]
    stages = [proxy_stage.stage(Proxy(kind="folder", path=str(path))) for path in copies]
    assert [stage.label for stage in stages] == ["4x128-one", "4x128-two"]
    assert stages[0].fingerprint == stages[1].fingerprint


def test_the_compute_dtype_is_not_in_the_weights():
    one, other = (proxy_stage.stage(Proxy(kind="built", dtype=dtype)) for dtype in ("float32", "bfloat16"))
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: os.rename(f / "model.safetensors", f / "pytorch_model.bin"),
            "pickled weights only .pytorch_model.bin.",
        ),
        (lambda f: (f / "model.safetensors").unlink(), "has no .*safetensors weights"),
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: [p.unlink() for p in f.glob("tokenizer*")], "has no tokenizer"),
        (lambda f: shutil.rmtree(f), "is not a folder"),
        (
            lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 4000),
            "model.safetensors damaged or cut off",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors damaged or cut off"),
        (lambda f: os.truncate(f / "model.safetensors", 5000), "mine: model.safetensors damaged or cut off"),
        (lambda f: (f / "config.json").write_text("{"), "config.json damaged"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(folder, change, message):
    change(folder)
    with pytest.raises(SettingError, match=message) as refusal:
        proxy_stage.stage(Proxy(kind="folder", path=str(folder)))
    assert "\n" not in str(refusal.value)


def test_a_tokenizer_that_does_not_fit_is_refused(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["one more", "and another"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(SettingError, match="has 1026 entries, its model 1024: they do not belong together"):
        load(folder)


def test_damaged_weights_are_refused_in_one_line(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(SettingError) as refusal:
        load(folder)
    assert "\n" not in str(refusal.value)


def test_code_in_a_folder_is_never_run(folder):
    import json

    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    with pytest.raises(SettingError) as refusal:
        load(folder)
    assert not (folder / "ran").exists() and "\n" not in str(refusal.value)


def test_a_revision_is_resolved_once_and_only_a_plan_goes_without(tmp_path, monkeypatch):
    import huggingface_hub

    from repro.fetch import hub_commits

    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    commit = "0123456789" * 4
    assert proxy_stage.stage(Proxy(kind="hub", repo="a/b", revision=commit)).settings["revision"] == commit

    class Hub:
        def repo_info(self, repo, revision, repo_type, timeout):
            assert (repo, revision, repo_type) == ("a/b", "main", "model")
            return type("Info", (), {"sha": commit})

    class Offline:
        def repo_info(self, *arguments, **options):
            raise OSError("no network")

    def hub(kind):
        monkeypatch.setattr(huggingface_hub, "HfApi", kind)
        monkeypatch.setattr(hub_commits, "_hub_away", False)

    hub(Offline)
    unresolved = proxy_stage.stage(Proxy(kind="hub", repo="a/b"))
    assert unresolved.settings["revision"] == "main"
    with pytest.raises(SettingError, match="cannot be reached to find the commit of a/b@main"):
        Store(tmp_path / "w").ensure(unresolved)
    hub(Hub)
    first = proxy_stage.stage(Proxy(kind="hub", repo="a/b"))
    hub(Offline)
    assert proxy_stage.stage(Proxy(kind="hub", repo="a/b")).fingerprint == first.fingerprint
    assert first.settings["revision"] == commit


@pytest.mark.parametrize(
    ("rows", "entries", "warned"), [(50257, 50256, False), (49152, 48900, False), (50304, 32000, True)]
)
def test_a_tokenizer_clearly_smaller_than_the_embedding_is_warned_of(tmp_path, capsys, rows, entries, warned):
    """Padding to a multiple of 64 or 128 is common; a third of the rows is another model's tokenizer."""
    from types import SimpleNamespace

    embedding = SimpleNamespace(weight=SimpleNamespace(shape=(rows, 8)))
    proxy = SimpleNamespace(
        tokenizer=range(entries), model=SimpleNamespace(get_input_embeddings=lambda: embedding)
    )
    context = Context(tmp_path, {}, "cpu")
    _check_vocabulary(proxy, context)
    assert (
        ("32,000 entries and its model embeds 50,304" in capsys.readouterr().err)
        == warned
        == ("warnings" in context.facts)
    )


@pytest.mark.parametrize(("loss", "warned"), [(5.0, False), (11.0, True)])
def test_losses_no_better_than_a_guess_are_warned_of(folder, tmp_path, capsys, loss, warned):
    import math
    from types import SimpleNamespace

    import polars
    from transformers import AutoConfig

    (tmp_path / "scores").mkdir()
    polars.DataFrame({"loss_base": [loss, loss, None]}).write_parquet(tmp_path / "scores" / "a.parquet")
    assert 5 < math.log(AutoConfig.from_pretrained(folder).vocab_size) < 11
    context = Context(tmp_path, {}, "cpu")
    _check_losses(SimpleNamespace(model=str(folder)), context)
    assert (
        ("model and tokenizer do not fit" in capsys.readouterr().err)
        == warned
        == ("warnings" in context.facts)
    )
