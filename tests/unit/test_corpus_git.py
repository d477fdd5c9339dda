"""Repositories at pinned commits: where they are found, what is read of them, what is dropped, what stops the run."""

import os
import random
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from repro.corpus import bare, repositories
from repro.corpus.documents import Document, Drop, read
from repro.corpus.passages import passage_id
from repro.corpus.settings import Corpus, GitTexts
from repro.corpus.stage import stage
from repro.errors import SettingError
from repro.settings.compose import compose
from repro.store import Store, read_json

NAME = "owner/book"
ENVIRONMENT = os.environ | {
    **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    **{f"GIT_{who}_DATE": "2020-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")},
    "GIT_CONFIG_GLOBAL": "/dev/null",
}


def prose(seed, words=400):
    draw = random.Random(seed)
    sentences = [" ".join(f"w{draw.randrange(5000)}" for _ in range(10)) + "." for _ in range(words // 10)]
    return "\n\n".join(" ".join(sentences[i : i + 5]) for i in range(0, len(sentences), 5))


def git(folder, *arguments, **kwargs):
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], env=ENVIRONMENT, capture_output=True, check=True, **kwargs
    )
    return done.stdout.decode().strip()


def commit_of(folder, files):
    """A repository with one commit of these files; symbolic links are given as paths."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            path.symlink_to(content)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def mirror(tmp_path):
    """(folder of clones, commit) of a repository with two chapters."""
    work = tmp_path / "made"
    commit = commit_of(
        work,
        {"en/one.md": prose(1), "en/deep/two.md": prose(2), "de/drei.md": prose(3), "notes.txt": prose(4)},
    )
    git(tmp_path, "clone", "-q", "--bare", str(work), str(tmp_path / "mirror/owner+book/repo"))
    shutil.rmtree(work)
    return tmp_path / "mirror", commit


def settings(mirror, commit, name=NAME, **fields):
    texts = {"domain": "books", "paths": ["en/**/*.md"], **fields}
    return Corpus(
        kind="git",
        git=[GitTexts(repositories={name: commit}, **texts)],
        mirror=str(mirror) if mirror else None,
        git_url="file:///nowhere/{}.git",
    )


def found(given):
    rows = list(repositories.stream(given))
    return [r for r in rows if isinstance(r, Document)], [
        (r.reason, r.where) for r in rows if isinstance(r, Drop)
    ]


def test_files_of_a_commit_become_passages(mirror):
    folder, commit = mirror
    documents, drops = found(settings(folder, commit, license="CC0-1.0"))
    assert {d.source for d in documents} == {
        f"{NAME}@{commit[:12]}:en/{path}:0" for path in ("one.md", "deep/two.md")
    }
    assert {(d.domain, d.group, d.license) for d in documents} == {("books", NAME, "CC0-1.0")} and not drops
    assert [d.text for d in documents if "one" in d.source] == [prose(1)]
    assert all(d.id == passage_id(d.text) and len(d.id) == 16 for d in documents)
    assert passage_id("A  b\n") == passage_id("a b ")  # case and the kind of white space aside


def test_the_stage_makes_a_corpus_of_them(mirror, tmp_path):
    folder, commit = mirror
    out = Store(tmp_path / "work").ensure(stage(settings(folder, commit, paths=["**/*.md"]), None))
    assert read_json(out / "counts.json")["kept"] == 3
    assert {passage_id(text) for split in ("documents", "heldout") for text in read(out, split)["text"]} == {
        passage_id(prose(i)) for i in (1, 2, 3)
    }


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ({"en/bad.md": b"caf\xe9 " * 400}, "invalid_utf8"),
        ({"en/bad.md": prose(9, 9000)}, "file_too_large"),
        ({"en/bad.md": "short"}, "too_short"),
        ({"en/bad.xhtml": "<html><p>open"}, "broken_xml"),
        ({"en/bad.xhtml": "<html>" + "<b>" * 2000 + "</b>" * 2000 + "</html>"}, "nested_too_deeply"),
        (
            {"en/bad.xhtml": '<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;">]><x><p>&b;</p></x>'},
            "broken_xml",
        ),
        ({"en/bad.json": "{"}, "broken_json"),
    ],
)
def test_a_file_that_cannot_be_read_is_dropped_and_counted(tmp_path, monkeypatch, texts, reason):
    monkeypatch.setattr(repositories, "FILE_BYTES", 30_000)
    monkeypatch.setattr(bare, "PIECE", 1000)
    (suffix,) = {Path(name).suffix for name in texts}
    good = {
        ".md": prose(1),
        ".xhtml": f"<html><p>{prose(1)}</p></html>",
        ".json": f'{{"a": {{"text": "{"word " * 300}"}}}}',
    }
    commit = commit_of(
        tmp_path / "mirror/owner+book", texts | {f"en/{place}{suffix}": good[suffix] for place in ("a", "z")}
    )
    format = {".md": "markdown", ".xhtml": "xhtml", ".json": "factbook"}[suffix]
    documents, drops = found(settings(tmp_path / "mirror", commit, format=format, paths=["en/*"]))
    assert [d.source.split("/")[-1] for d in documents] == [
        f"a{suffix}:0",
        f"z{suffix}:0",
    ]  # those around it are read
    assert [r for r, _ in drops] == [reason] and f"@{commit[:12]}:en/bad" in drops[0][1]


def test_links_and_names_that_lead_elsewhere_are_only_names(tmp_path):
    folder = tmp_path / "mirror/owner+book"
    commit_of(folder, {"en/link.md": tmp_path / "secret.md", "en/ü ü.md": prose(1)})
    (tmp_path / "secret.md").write_text(prose(7))
    blob = git(folder, "hash-object", "-w", "--stdin", input=prose(2).encode())
    raw = b"100644 ..\0" + bytes.fromhex(blob)  # a file named .. at the top, which git itself would not add
    tree = git(folder, "hash-object", "-w", "-t", "tree", "--literally", "--stdin", input=raw)
    inner = git(folder, "rev-parse", "HEAD:en")
    both = f"040000 tree {inner}\ten\n040000 tree {tree}\tx\n160000 commit {'1' * 40}\tmodule.md\n"
    commit = git(folder, "commit-tree", "-m", "odd", git(folder, "mktree", "--missing", input=both.encode()))
    before = {p for p in tmp_path.rglob("*") if ".git/" not in str(p)}
    documents, drops = found(settings(tmp_path / "mirror", commit, paths=["**"]))
    assert [(d.text, d.source.split(":", 1)[1]) for d in documents] == [
        (prose(1), "en/ü ü.md:0"),
        (prose(2), "x/..:0"),
    ]
    assert not drops and {p for p in tmp_path.rglob("*") if ".git/" not in str(p)} == before


@pytest.mark.parametrize(
    "place",
    ["owner+book/repo", "owner+book/any.git", "owner+book", "owner+book.git", "owner/book.git", "owner/book"],
)
def test_a_mirror_may_be_laid_out_in_any_of_these_ways(mirror, tmp_path, place):
    folder, commit = mirror
    (tmp_path / "other" / place).parent.mkdir(parents=True)
    shutil.copytree(folder / "owner+book/repo", tmp_path / "other" / place)
    assert len(found(settings(tmp_path / "other", commit))[0]) == 2


def test_a_clone_with_a_work_tree_will_do_and_its_hooks_and_settings_do_not_run(tmp_path):
    folder = tmp_path / "mirror/owner/book"
    commit = commit_of(folder, {"en/one.md": prose(1), "en/two.md": prose(2)})
    blob = git(folder, "rev-parse", f"{commit}:en/two.md")
    (folder / ".git/objects" / blob[:2] / blob[2:]).unlink()
    for key, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",  # git would fetch what is missing, with a command of the repository's choice
        "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::touch {tmp_path}/taken",
        "protocol.ext.allow": "always",
    }.items():
        git(folder, "config", key, value)
    assert len(found(settings(tmp_path / "mirror", commit, paths=["en/one.md"]))[0]) == 1
    with pytest.raises(SettingError, match="only in part in .*mirror/owner/book/.git"):
        found(settings(tmp_path / "mirror", commit))
    assert not (tmp_path / "taken").exists()


@pytest.mark.parametrize("left_out", ["blob:limit=3k", "blob:none", "tree:0"])
def test_a_partial_clone_makes_no_smaller_corpus(tmp_path, left_out):
    host = tmp_path / "host/owner/book"
    commit = commit_of(host, {"en/one.md": prose(1), "en/long.md": prose(2, 900)})
    git(host, "config", "uploadpack.allowFilter", "true")
    mirror = tmp_path / "mirror/owner+book"
    git(tmp_path, "clone", "-q", "--bare", f"--filter={left_out}", f"file://{host}", str(mirror / "a"))
    given = settings(tmp_path / "mirror", commit)
    with pytest.raises(
        SettingError, match=f"{commit} of {NAME} is only in part in .*a partial clone"
    ) as told:
        found(given)
    assert "\n" not in str(told.value)
    given.git_url = f"file://{tmp_path}/host/{{}}"
    assert len(found(given)[0]) == 3 and (tmp_path / "cache/git").is_dir()  # fetched whole
    shutil.rmtree(tmp_path / "cache")
    git(tmp_path, "clone", "-q", "--bare", str(host), str(mirror / "b"))
    shutil.rmtree(host)
    assert len(found(given)[0]) == 3  # the next place


def test_a_cached_repository_that_lost_a_file_is_refused(tmp_path):
    host = tmp_path / "host/owner/book"
    given = settings(None, commit := commit_of(host, {"en/one.md": prose(1)}))
    given.git_url = f"file://{tmp_path}/host/{{}}"
    assert len(found(given)[0]) == 1
    shutil.rmtree(tmp_path / "cache/git/owner+book" / f"{commit}.git/objects")
    (tmp_path / "cache/git/owner+book" / f"{commit}.git/objects").mkdir()
    with pytest.raises(SettingError, match=f"{commit}.git lacks files of {NAME}; delete it"):
        found(given)


def test_what_the_mirror_lacks_is_fetched_once_into_the_cache(mirror, tmp_path):
    folder, commit = mirror
    given = settings(None, commit)
    shutil.copytree(folder / "owner+book/repo", tmp_path / "host/owner/book.git")
    given.git_url = f"file://{tmp_path}/host/{{}}.git"
    assert len(found(given)[0]) == 2
    assert (tmp_path / "cache/git/owner+book" / f"{commit}.git/shallow").is_file()  # that commit alone
    shutil.rmtree(tmp_path / "host")
    assert len(found(given)[0]) == 2
    cached = tmp_path / "cache/git"
    assert [p.name for p in (cached / "owner+book").iterdir() if p.is_dir()] == [f"{commit}.git"]
    assert len(found(settings(cached, commit))[0]) == 2  # the cache, carried elsewhere, is a mirror


def test_a_commit_that_no_branch_ends_at_is_found_in_the_whole_history(tmp_path, monkeypatch):
    """A host that hands out only the ends of branches: git itself, in the older form of its protocol."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitconfig").write_text("[protocol]\n version = 0\n")
    host = tmp_path / "host/owner/book"
    first = commit_of(host, {"en/one.md": prose(1)})
    (host / "en/one.md").write_text(prose(2))
    git(host, "commit", "-qam", "second")
    given = settings(None, first)
    given.git_url = f"file://{tmp_path}/host/{{}}"
    assert [d.text for d in found(given)[0]] == [prose(1)]


@pytest.mark.parametrize("gone", ["repository", "commit", "both"])
def test_a_repository_or_commit_that_is_gone_is_one_line_before_anything_is_read(mirror, tmp_path, gone):
    folder, commit = mirror
    wanted = "1" * 40 if gone != "repository" else commit
    given = settings(folder, commit)
    given.git.append(GitTexts(repositories={"zz/top" if gone != "commit" else NAME: wanted}, domain="other"))
    with pytest.raises(
        SettingError, match=rf"{wanted} of {'zz/top' if gone != 'commit' else NAME} .*corpus.mirror=FOLDER"
    ) as told:
        next(repositories.stream(given))
    assert (
        "\n" not in str(told.value)
        and str(folder) in str(told.value)
        and "zz+top/repo" in str(told.value)
        or gone == "commit"
    )
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_dir() and "fetching" in p.name]


def test_a_mirror_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(SettingError, match="typo is no folder"):
        next(repositories.stream(settings(tmp_path / "typo", "1" * 40)))


def test_without_git_it_is_said_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingError, match="git, which is not on the PATH"):
        next(repositories.stream(settings(None, "1" * 40)))


def test_the_commit_and_how_it_is_read_make_the_fingerprint_and_the_place_does_not(mirror, tmp_path):
    folder, commit = mirror
    same = stage(settings(folder, commit), None).fingerprint
    assert stage(settings(tmp_path, commit), None).fingerprint == same
    changed = [
        settings(folder, "1" * 40),
        settings(folder, commit, longest=3000),
        settings(folder, commit, skip=["a"]),
    ]
    assert len({same, *(stage(given, None).fingerprint for given in changed)}) == 4


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"repositories": {"../../etc": "1" * 40}}, "must be owner/name"),
        ({"repositories": {"-x/y": "1" * 40}}, "must be owner/name"),
        ({"repositories": {"a/..": "1" * 40}}, "must be owner/name"),
        ({"repositories": {"a/b/c": "1" * 40}}, "must be owner/name"),
        ({"repositories": {NAME: "main"}}, "all 40 digits"),
        ({"repositories": {NAME: "1" * 12}}, "git rev-parse"),
        ({"repositories": {NAME: "1" * 40}, "domain": ""}, "domain: NAME"),
        ({"license_pattern": "License: .*"}, "group in brackets"),
        ({"group_pattern": "(["}, "no regular expression"),
        ({"longest": 1500}, "twice shortest=1000"),
        ({"max_group_bytes": 0}, "at least 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(fields, told):
    with pytest.raises(SettingError, match=told):
        GitTexts(**{"repositories": {NAME: "1" * 40}, "domain": "d"} | fields)


def test_a_repository_is_added_on_the_command_line_and_an_unknown_format_names_the_nearest():
    one = "corpus.git=[{repositories: {me/docs: %s}, domain: docs, format: %s}]"
    given = compose(["exp=score_corpus", "corpus=git", one % ("1" * 40, "tex")]).corpus
    assert given.git[0].repositories == {"me/docs": "1" * 40} and repositories.expected_tokens(given)[1] == 1
    with pytest.raises(SettingError, match="did you mean 'markdown'"):
        stage(compose(["exp=score_corpus", "corpus=git", one % ("1" * 40, "markdwn")]).corpus, None)


def test_files_that_state_their_own_licence(tmp_path):
    texts = {
        f"en/{i}.md": f"{prose(i)}\n\nLicense: [{name}]"
        for i, name in enumerate(("CC-BY", "cc-by", "CC-BY-NC"))
    }
    commit = commit_of(tmp_path / "mirror/owner+book", texts | {"en/none.md": prose(9)})
    given = settings(tmp_path / "mirror", commit, license_pattern=r"License: \[(.+?)\]", licenses=["CC-BY"])
    documents, drops = found(given)
    assert [d.license for d in documents] == ["CC-BY", "cc-by"] and [r for r, _ in drops] == [
        "other_license"
    ] * 2


def test_limits_of_repository_and_group(tmp_path):
    commit = commit_of(
        tmp_path / "mirror/owner+book", {f"{'ab'[i % 2]}/{i:02}.md": prose(i) for i in range(12)}
    )
    some, drops = found(
        settings(tmp_path / "mirror", commit, paths=["**"], max_characters=4 * len(prose(0)) + 99)
    )
    assert [d.source.split(":")[1] for d in some] == [f"a/{i:02}.md" for i in (0, 2, 4, 6)]
    assert Counter(r for r, _ in drops) == {"beyond_the_repository_limit": 8}
    limits = {"group_pattern": "^(.)/", "max_group_bytes": 3 * len(prose(0)) + 99}
    some, drops = found(settings(tmp_path / "mirror", commit, paths=["**"], **limits))
    assert Counter(d.group for d in some) == {f"{NAME}/a": 3, f"{NAME}/b": 3}
    assert [r for r, _ in drops] == ["beyond_the_group_limit"] * 6


def test_a_groups_limit_keeps_the_smallest_ids_as_sorting_them_would():
    for trial in range(60):
        draw = random.Random(trial)
        texts = ["x" * draw.randrange(1, 60) + str(i) for i in range(draw.randrange(1, 40))]
        documents = [Document(passage_id(t), "d", draw.choice("ab"), "s", "l", t) for t in texts]
        documents += draw.choices(documents, k=3)
        draw.shuffle(documents)
        most = draw.randrange(1, 700)
        expected = set()
        for group in "ab":
            used = 0
            for number, size in sorted({(d.id, len(d.text)) for d in documents if d.group == group}):
                used += size
                if used <= most:
                    expected.add((group, number))
        rows = list(repositories.smallest_ids(iter(documents), most))
        kept = [(r.group, r.id) for r in rows if isinstance(r, Document)]
        assert set(kept) == expected and len(kept) == len(expected) and len(rows) == len(documents)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("**/*.md", ["a.md", "a/b/c.md"], ["a.mdx", "a.md/b"]),
        ("*.md", ["a.md"], ["a/b.md"]),
        ("docs/**", ["docs/a", "docs/a/b"], ["doc/a", "docs"]),
        ("**/tests/**", ["tests/a", "a/tests/b/c"], ["atests/a", "a/tests"]),
        ("a?[0-9][!x].t", ["ab1y.t"], ["ab1x.t", "a/1y.t", "ab1yqt"]),
        ("a+(b)[.md", ["a+(b)[.md"], ["aab.md"]),
    ],
)
def test_path_patterns(pattern, yes, no):
    matches = bare.glob(pattern).fullmatch
    assert all(matches(path) for path in yes) and not any(matches(path) for path in no)


def test_what_the_documentation_shows_is_understood():
    from omegaconf import OmegaConf

    from repro.corpus.extract import FORMATS

    page = (Path(__file__).resolve().parents[2] / "docs/corpus_git.md").read_text()
    (shown,) = re.findall(r"'(corpus\.git=.*?)'\n", page)
    assert compose(["exp=score_corpus", "corpus=git", shown]).corpus.git[0].format == "markdown"
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    given = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Corpus), OmegaConf.create(example)))
    assert repositories.expected_tokens(given)[1] == 2
    (row,) = re.findall(r"\| `format` \|(.*)\|", page)
    assert set(re.findall(r"`(\w+)`", row)) == FORMATS.keys()
