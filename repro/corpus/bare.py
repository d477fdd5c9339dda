"""Bare git repositories: found in a mirror or the cache, else fetched; their files read at a commit, never
checked out.

git runs with no protocol but the one of the URL, no hooks, no submodules, no filters, no replaced objects and
no prompt. What a repository configures cannot change that, so that a hostile one is only read.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock

from repro.errors import SettingError, require
from repro.store import cached

PIECE = 1 << 20
FETCH = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--no-auto-maintenance")
EVERYTHING = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
# Of the environment only what reaches a host: GIT_DIR and its like would lead elsewhere.
KEPT = ("GIT_SSH", "GIT_SSL", "GIT_PROXY", "GIT_HTTP")


def locate(repository: str, commit: str, mirror: str | None, url: str, wanted: Callable[[str], bool]) -> Path:
    """The git directory that holds ``commit`` of ``repository`` (owner/name), with every ``wanted`` path.

    A partial clone (``git clone --filter``) that lacks one is passed over: it would make a smaller corpus
    under the fingerprint of the whole one. Looked for below ``mirror`` as ``owner+name/<any name>``,
    ``owner+name``, ``owner/name`` (each with or without ``.git``), then in the cache, then fetched from
    ``url`` (``{}`` is owner/name) into the cache. Raises :class:`SettingError` naming the repository, the
    commit and what to do.
    """
    shared, partial = cached.cache() / "git", None
    for root in (Path(mirror).expanduser(), shared) if mirror else (shared,):
        for folder in _places(root, repository):
            if _git(folder, "cat-file", "-e", f"{commit}^{{commit}}").returncode == 0:
                if _whole(folder, commit, wanted):
                    return folder
                partial = partial or folder
    found = _fetched(repository, commit, url.format(repository), shared, mirror, partial)
    require(
        _whole(found, commit, wanted),
        f"corpus.git: {found} lacks files of {repository}; delete it, and it is fetched anew",
    )
    return found


def _whole(folder: Path, commit: str, wanted: Callable[[str], bool]) -> bool:
    """Whether a git directory has the content of every wanted file of a commit."""
    try:
        blobs = [blob for path, blob in files(folder, commit) if wanted(path)]
    except SettingError:  # folders of the commit are missing, too
        return False
    asked = "".join(f"{blob}\n" for blob in blobs).encode()
    told = _git(folder, "cat-file", "--batch-check", given=asked)
    return told.returncode == 0 and b" missing\n" not in told.stdout


def _places(root: Path, repository: str) -> list[Path]:
    """Git directories that may be the repository's, bare ones and those of a work tree."""
    flat = root / repository.replace("/", "+", 1)
    tries = [*(sorted(flat.iterdir()) if flat.is_dir() else []), flat, root / repository]
    tries += [path.with_name(f"{path.name}.git") for path in (flat, root / repository)]
    tries += [path / ".git" for path in tries]
    return [path for path in tries if (path / "HEAD").is_file() and (path / "objects").is_dir()]


def _fetched(
    repository: str, commit: str, url: str, shared: Path, mirror: str | None, partial: Path | None
) -> Path:
    final = shared / repository.replace("/", "+", 1) / f"{commit}.git"
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(f"{final}.lock"),
            tempfile.TemporaryDirectory(dir=final.parent, prefix=".fetching-") as temporary,
        ):
            if not final.is_dir():
                folder = Path(temporary) / "bare"
                folder.mkdir()
                _git(folder, "init", "--quiet", "--bare", "--template=")
                # Hosts that hand out no single commit are asked for all branches and tags.
                for wanted in (["--depth=1", "--", url, commit], ["--", url, *EVERYTHING]):
                    told = _git(folder, "fetch", *FETCH, *wanted, protocol=url.partition("://")[0])
                    if _git(folder, "cat-file", "-e", f"{commit}^{{commit}}").returncode == 0:
                        os.replace(folder, final)
                        return final
                said = told.stderr.decode("utf-8", "replace")
                raise _gone(repository, commit, url, mirror, partial, said)
    except PermissionError as error:
        raise SettingError(
            f"cannot write to the cache {shared} ({error.strerror}); set REPRO_CACHE=DIR"
        ) from None
    return final


def _gone(
    repository: str, commit: str, url: str, mirror: str | None, partial: Path | None, told: str
) -> SettingError:
    reason = (told.strip().splitlines() or ["it has no such commit"])[0].removeprefix("fatal: ")[:120]
    looked = f"neither below corpus.mirror={mirror} nor" if mirror else "not"
    if partial:
        looked = f"only in part in {partial} (a partial clone?) and not"
    place = f"FOLDER/{repository.replace('/', '+', 1)}/repo"
    return SettingError(
        f"corpus.git: commit {commit} of {repository} is {looked} at {url} ({reason}); check the name, the"
        f" commit and the network, or put a clone that has all of the commit at {place} and set"
        " corpus.mirror=FOLDER"
    )


def files(folder: Path, commit: str) -> Iterator[tuple[str, str]]:
    """(path, blob id) of every regular file of a commit, in git's order; links and submodules are none."""
    listed = _git(folder, "ls-tree", "-r", "-z", "--full-tree", commit)
    if listed.returncode:
        raise SettingError(
            f"corpus.git: cannot list commit {commit} in {folder}: it lacks folders or is damaged; clone it"
            " whole"
        )
    for entry in listed.stdout.split(b"\0")[:-1]:
        about, _, path = entry.partition(b"\t")
        mode, _, blob = about.split(b" ")
        if mode.startswith(b"100"):
            yield path.decode("utf-8", "backslashreplace"), blob.decode()


def contents(folder: Path, blobs: Iterator[str], most: int) -> Iterator[bytes | str]:
    """The bytes of each blob, or ``file_too_large`` above ``most`` bytes.

    One process answers all; a large file is skipped piece by piece. Raises :class:`SettingError` where one is
    missing.
    """
    command = _command(folder, "cat-file", "--batch")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
    ) as reader:
        assert reader.stdin and reader.stdout
        for blob in blobs:
            reader.stdin.write(f"{blob}\n".encode())
            reader.stdin.flush()
            about = reader.stdout.readline().split()
            if len(about) != 3:
                raise SettingError(
                    f"corpus.git: git stopped reading {folder}: it lacks files or is damaged; clone it whole"
                )
            size = int(about[2])
            if size <= most:
                yield reader.stdout.read(size)
            else:
                for start in range(0, size, PIECE):
                    reader.stdout.read(min(PIECE, size - start))
                yield "file_too_large"
            reader.stdout.read(1)


def _git(
    folder: Path, *arguments: str, protocol: str = "none", given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    command, env = _command(folder, *arguments), _environment(protocol)
    try:
        return subprocess.run(command, input=given, capture_output=True, env=env)
    except FileNotFoundError:
        raise SettingError(
            "corpus.kind=git reads repositories with git, which is not on the PATH; install it"
        ) from None


def _command(folder: Path, *arguments: str) -> list[str]:
    settings = (
        "core.hooksPath=/dev/null",
        "safe.directory=*",
        "http.lowSpeedLimit=1000",
        "http.lowSpeedTime=60",
    )
    return [
        "git",
        *(part for setting in settings for part in ("-c", setting)),
        f"--git-dir={folder}",
        *arguments,
    ]


def _environment(protocol: str = "none") -> dict[str, str]:
    """For a git process that may use one protocol, and none to read: a clone may name a place for what it
    lacks.
    """
    own = {
        key: value for key, value in os.environ.items() if not key.startswith("GIT_") or key.startswith(KEPT)
    }
    safe = {
        "GIT_ALLOW_PROTOCOL": protocol,
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }
    return own | safe | {"GIT_LFS_SKIP_SMUDGE": "1", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}


def glob(pattern: str) -> re.Pattern[str]:
    """A path pattern as a regular expression for the whole path: ``*`` stays in a folder, ``**`` crosses
    them.
    """
    return re.compile(re.sub(r"\*\*/|\*\*|\*|\?|\[!?[^]/]+\]|.", _part, pattern, flags=re.DOTALL), re.DOTALL)


def _part(match: re.Match[str]) -> str:
    found = match[0]
    if found.startswith("[") and len(found) > 1:
        return f"[^{found[2:]}" if found[1] == "!" else found
    return {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(found) or re.escape(found)
