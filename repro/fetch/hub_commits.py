"""The commits that revisions of the hub name: looked up once, and the same for all machines of a run."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

from repro.errors import SettingError
from repro.fetch import retries
from repro.fetch.remote import is_remote
from repro.store.bucket import Bucket
from repro.store.cached import recall, remember


def hub_revision(repo: str, revision: str, kind: str = "dataset") -> str:
    """The commit that a hub revision names, looked up once and remembered from then on.

    Commits stay as they are. ``kind`` is ``dataset`` or ``model``. Within a run the store remembers, too, and
    goes before this machine's cache: all machines read one commit. Without the hub the revision itself comes
    back, so that a plan can be made anywhere; loading it then fails with its own message. A revision that is
    gone raises :class:`SettingError`.
    """
    if _is_commit(revision):
        return revision
    key = f"{kind}:{repo}@{revision}"
    commit = _in_store(key) or recall("revisions").get(key)
    if commit is None:
        commit = _ask_hub(repo, revision, kind)
        if commit is None:
            return revision
        remember("revisions", recall("revisions") | {key: commit})
    return _to_store(key, commit)


STORE_OF_REVISIONS = "REPRO_REVISIONS"  # a folder in the store; the processes of a run inherit the variable


def _in_store(key: str) -> str | None:
    folder = os.environ.get(STORE_OF_REVISIONS)
    if is_remote(folder):
        found = Bucket(str(folder)).get(_entry(Path(), key).name)
        return json.loads(found)["commit"] if found else None
    try:
        return json.loads(_entry(Path(folder), key).read_text())["commit"] if folder else None
    except FileNotFoundError:
        return None


def _to_store(key: str, commit: str) -> str:
    """Write what a revision means into the store of a run, unless another machine was first: then that
    counts.
    """
    if not (folder := os.environ.get(STORE_OF_REVISIONS)):
        return commit
    path, told = _entry(Path(folder), key), {"revision": key, "commit": commit}
    if is_remote(folder):
        Bucket(folder).create(path.name, json.dumps(told).encode())
    elif not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as handle:
            json.dump(told, handle)
        try:
            os.link(handle.name, path)  # fails where the file is there, on network file systems as well
        except FileExistsError:
            pass
        finally:
            os.unlink(handle.name)
    return _in_store(key) or commit


def _entry(folder: Path, key: str) -> Path:
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def hub_commit(repo: str, revision: str, kind: str = "dataset") -> str:
    """As :func:`hub_revision`, for what is about to be loaded: raises :class:`SettingError` if no commit is
    known.

    A hub that was away when this process first asked is not asked again: its stages are named by the branch.
    """
    return must_be_commit(repo, hub_revision(repo, revision, kind))


def must_be_commit(repo: str, revision: str) -> str:
    """``revision``, as it stands in a stage's settings; raises :class:`SettingError` unless it is a commit.

    Otherwise an artifact could be made of a branch that nobody can name afterwards. That the hub is back by
    now does not help a stage whose fingerprint holds the branch: the run is to be started again.
    """
    global _hub_away
    if _is_commit(revision):
        return revision
    away, _hub_away = _hub_away, None  # whoever names stages anew asks anew
    raise SettingError(
        f"the hub cannot be reached to find the commit of {repo}@{revision}{f' ({away})' if away else ''};"
        " check the network and run again, or set the revision to a commit"
    )


def _is_commit(revision: str) -> bool:
    return len(revision) == 40 and set(revision) <= set("0123456789abcdef")


# Why, if it is: asked once a process, a plan over thirty data sets must not wait thirty times.
_hub_away: str | None = None


def _ask_hub(repo: str, revision: str, kind: str) -> str | None:
    global _hub_away
    if _hub_away:
        return None
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    in_run = STORE_OF_REVISIONS in os.environ  # a plan does not wait
    seconds, tries = (30, 6) if in_run else (3, 2)
    try:
        return retries.patiently(
            lambda: HfApi().repo_info(repo, revision=revision, repo_type=kind, timeout=seconds).sha,
            tries,
            f"hub, {repo}" if in_run else "",
        )
    except RevisionNotFoundError:
        raise SettingError(
            f"{kind} {repo!r} on the hub has no revision {revision!r} (any more); set another revision"
        ) from None
    except RepositoryNotFoundError:
        raise SettingError(
            f"the hub has no {kind} {repo!r}, or it is private; check the name, or log in"
        ) from None
    except Exception as error:  # offline, in one of a dozen forms
        _hub_away = retries.said(error)
        return None
