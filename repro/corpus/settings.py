"""Where documents come from and how they are cleaned."""

from __future__ import annotations

import re
from dataclasses import dataclass

from repro.errors import SettingError, require
from repro.schema import ANY, COUNT, IF_SET, check, how, setting


@dataclass
class HubData:
    """One data set of the hub as a domain of the corpus. Fields may be dotted (``metadata.url``)."""

    repo: str = setting("", "owner/name, or a local folder of the hub's layout", identity="content")
    name: str | None = setting(None, "configuration")
    split: str = setting("train")
    revision: str = setting("main", "resolved to a commit at first use and recorded", identity="content")
    domain: str = setting("")
    text_field: str = setting("text")
    id_field: str | None = setting(None, "without one, ids are made from the text")
    group_field: str | None = setting(None, "of a URL, the host is the group")
    license: str = setting("not stated")
    blobs: bool = setting(False, "text_field holds Software Heritage blob ids, read from blob_url")

    def __post_init__(self) -> None:
        require(not self.repo or bool(self.domain), f"corpus.hub: {self.repo} needs a domain=NAME")


@dataclass
class GitTexts:
    """Repositories whose files are read alike (``repro/corpus/repositories.py``, docs/corpus_git.md)."""

    repositories: dict[str, str] = setting({}, "owner/name: commit, all its hexadecimal digits")
    domain: str = setting("")
    format: str = setting("markdown", "a name of repro/corpus/extract")
    paths: list[str] = setting([], "globs, ** crosses folders; empty = the format's own, such as **/*.md")
    skip: list[str] = setting([], "globs of paths that are left out")
    license: str = setting("not stated")
    license_pattern: str | None = setting(None, "of files that state theirs: its group is the name")
    licenses: list[str] = setting([], "with license_pattern: the only ones that are read")
    group_pattern: str | None = setting(None, "on the path: its group is a document's group")
    shortest: int = setting(1000, "of a passage", unit="characters", within=COUNT)
    longest: int | None = setting(6000, "of a passage; null = a file is one document", unit="characters")
    max_characters: int | None = setting(None, "of a repository at most", unit="characters", within=COUNT)
    max_group_bytes: int | None = setting(None, "of a group: a random sample", unit="bytes", within=COUNT)

    def __post_init__(self) -> None:
        check("corpus.git", self)
        for name, commit in self.repositories.items():
            named = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII) is not None
            require(named, f"corpus.git: {name!r} must be owner/name")
            require(
                bool(re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", str(commit))),
                f"corpus.git: {name} needs a commit, all 40 digits and not {commit!r}: git rev-parse HEAD in"
                " a clone prints it",
            )
        named = not self.repositories or bool(self.domain)
        require(named, f"corpus.git: {', '.join(self.repositories)}: needs domain: NAME")
        _one_group("corpus.git license_pattern", self.license_pattern)
        _one_group("corpus.git group_pattern", self.group_pattern)
        require(
            self.longest is None or self.longest >= 2 * self.shortest,
            f"corpus.git: longest={self.longest} must be at least twice shortest={self.shortest}, or null",
        )


def _one_group(name: str, pattern: str | None) -> None:
    try:
        usable = pattern is None or re.compile(pattern).groups >= 1
    except re.error as error:
        raise SettingError(f"{name}={pattern!r} is no regular expression: {error}") from None
    require(usable, f"{name}={pattern!r} needs a group in brackets: what is taken from the match")


@dataclass
class Corpus:
    """Where documents come from and how they are cleaned (``repro/corpus``)."""

    kind: str = setting("installed", choices="installed | files | hub | git")
    paths: list[str] = setting([], "files: files, folders or globs", identity="content")
    folder: str | None = setting(None, "files: one folder, instead of paths", identity="content")
    checksums: dict[str, str] = setting({}, "sha256 by name of all in folder", identity="content")
    text_field: str = setting("text", "files: the field with the text; may be dotted", identity="files")
    id_field: str = setting("id", "files: without it, ids are made from the text", identity="files")
    group_field: str = setting("group", "files: what is never split, as a site", identity="files")
    source_field: str = setting("source", "files: where a document is from; passes through", identity="files")
    license_field: str = setting("license", "files: its licence; passes through", identity="files")
    domain_from: str = setting("field", identity="files", choices="field | folder | constant")
    domain_field: str = setting("domain", "files: the domain, with domain_from=field", identity="files")
    domain: str = setting("text", "the name of the only domain with domain_from=constant", identity="files")
    domains: list[str] = setting([], "keep these only; empty = all")
    hub: list[HubData] = setting([], "hub: the data sets", identity="content")
    blob_url: str = how("https://softwareheritage.s3.amazonaws.com/content/{}", "of blob ids")
    git: list[GitTexts] = setting([], "git: the repositories", identity="content")
    mirror: str | None = how(None, "git: clones, owner+name/repo; what it lacks is fetched")
    git_url: str = how("https://github.com/{}.git", "git: where owner/name is")
    max_tokens_per_domain: int | None = setting(
        None, "(bytes / 4), by hash(seed, id)", unit="tokens", within=COUNT
    )
    max_documents_per_domain: int | None = setting(None, "null = no limit", within=COUNT)
    sample: str = setting(
        "first",
        identity=IF_SET,
        choices="first (draw, then clean) | last (clean all, then draw: limits are reached)",
    )
    min_characters: int = setting(
        200, "at least; others are dropped and counted", unit="characters", within=ANY
    )
    max_bytes: int = setting(1_000_000, "at most; others are dropped and counted", unit="bytes", within=COUNT)
    near_duplicates: str = setting(
        "cluster", choices="cluster (kept, never split) | drop (all but one) | off"
    )
    minhash: str = setting("datasketch", choices="datasketch (in memory) | datatrove (on disk, any size)")
    minhash_threshold: float = setting(0.7, "Jaccard similarity of word 5-grams", within="(0, 1]")
    minhash_permutations: int = setting(128, "more are surer, and take longer", within="[2, inf)")
    decontaminate: bool = setting(True, "drop documents sharing a 13-gram with any benchmark item")
    heldout_share: float = setting(0.05, "of each domain's bytes; whole groups and clusters", within="[0, 1)")
    shard_documents: int = setting(256, "of a file, which is what resumes", unit="documents", within=COUNT)
    seed: int = setting(0, "of the samples", within=ANY)

    def __post_init__(self) -> None:
        check("corpus", self)
        require(
            not (self.folder and self.paths), "corpus.folder and corpus.paths exclude each other: give one"
        )
        require(
            not self.checksums or bool(self.folder),
            "these files come with checksums and need corpus.folder=DIR: a folder of"
            f" {next(iter(self.checksums), '')} and {len(self.checksums) - 1} more",
        )
        require(
            self.kind != "files" or bool(self.paths or self.folder),
            "corpus=files needs corpus.paths=[file or folder, ...]: .jsonl, .jsonl.gz, .jsonl.zst, .parquet"
            " or .txt",
        )
        require(
            self.kind != "hub" or bool(self.hub),
            "corpus.kind=hub needs corpus.hub=[{repo: owner/name, domain: NAME}, ...]; see"
            " configs/corpus/hub.yaml",
        )
        require(
            self.kind != "git" or any(texts.repositories for texts in self.git),
            "corpus.kind=git needs corpus.git=[{repositories: {owner/name: COMMIT}, domain: NAME}]; see"
            " docs/corpus_git.md",
        )
        require(
            bool(re.match(r"(https|ssh|file)://[^-]", self.git_url)) and self.git_url.count("{}") == 1,
            f"corpus.git_url={self.git_url!r} must start with https://, ssh:// or file:// and have one {{}}"
            " for owner/name",
        )
