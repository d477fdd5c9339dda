"""Where documents come from and how they are cleaned."""

from __future__ import annotations

import re
from dataclasses import dataclass

from repro.errors import SettingError, require
from repro.schema import IF_SET, check, how, setting

COUNT = "[1, inf)"


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
    blobs: bool = setting(
        False, "text_field holds Software Heritage blob ids; the text is fetched from corpus.blob_url"
    )

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
    license_pattern: str | None = setting(
        None, "files state their own: a regular expression whose group is its name"
    )
    licenses: list[str] = setting([], "with license_pattern: the only ones that are read")
    group_pattern: str | None = setting(
        None, "regular expression on the path: its group makes groups within a repository"
    )
    shortest: int = setting(1000, "of a passage", unit="characters", within=COUNT)
    longest: int | None = setting(6000, "of a passage; null = a file is one document", unit="characters")
    max_characters: int | None = setting(
        None, "of a repository: what comes after is not read", unit="characters", within=COUNT
    )
    max_group_bytes: int | None = setting(
        None, "of a group: a random sample of its passages", unit="bytes", within=COUNT
    )

    def __post_init__(self) -> None:
        check("corpus.git", self)
        for name, commit in self.repositories.items():
            require(
                bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII)),
                f"corpus.git: {name!r} must be owner/name",
            )
            require(
                bool(re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", str(commit))),
                f"corpus.git: {name} needs a commit, all 40 digits and not {commit!r}: git rev-parse HEAD in"
                " a clone prints it",
            )
        require(
            not self.repositories or bool(self.domain),
            f"corpus.git: {', '.join(self.repositories)}: needs domain: NAME",
        )
        for key in ("license_pattern", "group_pattern"):
            _one_group(f"corpus.git {key}", getattr(self, key))
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
    checksums: dict[str, str] = setting(
        {}, "files: sha256 by name of all that corpus.folder may hold", identity="content"
    )
    text_field: str = setting("text", "files: the field with the text; may be dotted", identity="files")
    id_field: str = setting("id", "files: without it, ids are made from the text", identity="files")
    group_field: str = setting(
        "group", "files: what is never split, such as a site or a repository", identity="files"
    )
    source_field: str = setting("source", "files: where a document is from; passes through", identity="files")
    license_field: str = setting("license", "files: its licence; passes through", identity="files")
    domain_from: str = setting("field", identity="files", choices="field | folder | constant")
    domain_field: str = setting("domain", "files: the domain, with domain_from=field", identity="files")
    domain: str = setting("text", "the name of the only domain with domain_from=constant", identity="files")
    domains: list[str] = setting([], "keep these only; empty = all")
    hub: list[HubData] = setting([], "hub: the data sets", identity="content")
    blob_url: str = how(
        "https://softwareheritage.s3.amazonaws.com/content/{}", "hub: where texts of blob ids are"
    )
    git: list[GitTexts] = setting([], "git: the repositories", identity="content")
    mirror: str | None = how(
        None, "git: a folder of clones, owner+name/repo; what it lacks is fetched into the cache"
    )
    git_url: str = how("https://github.com/{}.git", "git: where owner/name is")
    max_tokens_per_domain: int | None = setting(
        None,
        "by the estimate of bytes / 4; a deterministic sample by hash(seed, id)",
        unit="tokens",
        within=COUNT,
    )
    max_documents_per_domain: int | None = setting(None, "null = no limit", within=COUNT)
    sample: str = setting(
        "first",
        identity=IF_SET,
        choices="first (draw, then clean what was drawn) | last (clean everything, then draw: limits are reached)",
    )
    min_characters: int = setting(
        200,
        "of the shortest document; what is shorter is dropped and counted",
        unit="characters",
        within="[0, inf)",
    )
    max_bytes: int = setting(
        1_000_000,
        "of the longest document; what is longer is dropped and counted",
        unit="bytes",
        within=COUNT,
    )
    near_duplicates: str = setting(
        "cluster", choices="cluster (kept, but never split) | drop (keep one per cluster) | off"
    )
    minhash: str = setting(
        "datasketch", choices="datasketch (in memory, pairs verified) | datatrove (on disk, for any size)"
    )
    minhash_threshold: float = setting(0.7, "Jaccard similarity of word 5-grams", within="(0, 1]")
    minhash_permutations: int = setting(
        128, "more find near-duplicates more surely, and take longer", within="[2, inf)"
    )
    decontaminate: bool = setting(True, "drop documents sharing a 13-gram with any benchmark item")
    heldout_share: float = setting(
        0.05, "of each domain's bytes; whole groups and near-duplicate clusters", within="[0, 1)"
    )
    shard_documents: int = setting(
        256, "of a file of the corpus, which is what resumes", unit="documents", within=COUNT
    )
    seed: int = setting(0, "of the samples")

    def __post_init__(self) -> None:
        check("corpus", self)
        require(
            not (self.folder and self.paths),
            "corpus.folder and corpus.paths exclude each other: give one of them",
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
