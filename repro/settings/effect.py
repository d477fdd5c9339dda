"""Which settings have an effect only beside another one: what was typed and would be ignored is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from repro.errors import SettingError, nearest, require
from repro.settings.experiment import Arm
from repro.settings.root import Settings
from repro.settings.words import nested

Condition = tuple[str, Callable[[Any], bool], str]  # setting of the same group, what it must be, and in words


def _is(setting: str, *values: str) -> Condition:
    return setting, lambda value: value in values, f"{setting}={' or '.join(values)}"


def _not(setting: str, *values: str) -> Condition:
    return setting, lambda value: value not in values, f"another {setting} than {' or '.join(values)}"


def _given(setting: str) -> Condition:
    return setting, lambda value: value is not None, f"{setting}=..."


def _none(setting: str) -> Condition:
    return setting, lambda value: value is None, f"no {setting}"


# group: [(condition, the settings that need it)]
NEEDS: dict[str, list[tuple[Condition, tuple[str, ...]]]] = {
    "corpus": [
        (_is("kind", "files"), ("paths", "text_field", "id_field", "group_field", "source_field",
                                "license_field",
                                "domain_from", "domain_field", "domain")),
        (_is("domain_from", "field"), ("domain_field",)),
        (_is("kind", "files"), ("folder", "checksums")),
        (_given("folder"), ("checksums",)),
        (_is("kind", "hub"), ("hub", "blob_url")),
        (_is("kind", "git"), ("git", "mirror", "git_url")),
        (_not("near_duplicates", "off"), ("minhash", "minhash_threshold", "minhash_permutations")),
    ],
    "items": [(_is("kind", "folder"), ("folder",)), (_is("kind", "hub"), ("revisions",))],
    "proxy": [(_is("kind", "folder", "gguf"), ("path",)), (_is("kind", "hub"), ("repo", "revision")),
              (_is("kind", "gguf"), ("accept_terms",))],
    "heads": [
        (("given", lambda heads: not heads, "no given"),
         ("share", "probes", "probe_tokens", "shots", "key_characters", "value_tokens", "match", "decoding",
          "stop_when_stable", "seed")),
        (_is("detector", "random_matched_damage"), ("damage_tolerance", "draws")),
        (_is("detector", "random", "random_same_layers", "random_matched_damage", "bottom"),
         ("control_seed",)),
        (_not("detector", "induction"), ("shots", "key_characters", "value_tokens", "match", "decoding")),
    ],
    "model": [(_none("init_from"), ("layers", "hidden", "heads", "kv_heads", "ffn", "tie_embeddings",
                                    "tokenizer", "vocabulary")),
              (_is("tokenizer", "bpe"), ("vocabulary",))],
    "budget": [(_none("frozen"), ("share",))],
    "analysis": [(_not("embedder", "none"), ("documents", "embed_tokens", "clusters")),
                 (_not("embedder", "none", "minilm"), ("revision",))],
    "train": [
        (_is("launcher", "deepspeed"), ("hostfile",)),
        (_is("optimizer", "muon"), ("muon_learning_rate", "muon_momentum")),
        (_is("launcher", "slurm", "manual"), ("ranks_per_node",)),
        (("decay", lambda share: share > 0, "decay above 0"), ("decay_shape", "final_lr")),
    ],
    "judge": [(_given("url"), ("model", "key_variable", "documents", "characters", "answer_tokens",
                               "workers", "timeout",
                               "requests_per_minute", "tries", "backoff", "price_prompt", "price_answer",
                               "attempt"))],
    "mixture": [(_is("kind", "add"), ("weight", "full"))],
    "run": [(_given("executor"), ("cluster",))],
    "tracking": [(_is("wandb", "offline", "online"), ("project", "entity"))],
}  # fmt: skip


# kind of experiment: groups that no stage of it reads, whatever the other settings are
UNREAD = {
    "train": ("judge", "analysis"),
    "arena": ("judge", "analysis"),
    "evolve": ("judge", "analysis", "eval"),
    "mirror": ("train", "model", "judge", "analysis", "budget", "score"),
    "planted": ("train", "model", "judge", "analysis", "budget", "eval"),
    "agree": ("train", "model", "judge", "analysis", "budget", "eval"),
    "score": ("train", "model", "judge", "analysis", "eval"),
    "analyse": ("train", "model", "eval"),
}
OF_SCORES = ("heads", "score")  # read where an arm selects by scores
NO_PARAMS = ("train", "mirror", "score", "analyse")  # kinds whose stages read no exp.params
OF_SELECTIONS = ("budget", "score")  # of the evolution of heads: read where an arm trains on a selection
TRAINED = ("train", "arena")  # kinds whose arms score where they select by it; others score for all arms
OWN = ("budget", "train", "model")  # read of the arms alone: what all of them override is read of none


def check(settings: Settings, typed: Iterable[str]) -> None:
    """Raise :class:`SettingError` for an argument ``path=value`` of the command line that nothing will read,
    and for ``exp.params`` of a kind that has none.

    A setting of the experiment counts if it has an effect in one of its arms.
    """
    for name in settings.exp.params if settings.exp.kind in NO_PARAMS else ():
        raise SettingError(
            f"exp.params.{name} has no effect: an experiment of kind {settings.exp.kind} reads no exp.params;"
            " leave it out"
        )
    unread = UNREAD.get(settings.exp.kind, ())
    if settings.exp.kind == "evolve" and all(
        arm.proxy or arm.select.selector == "all" for arm in settings.exp.arms.values()
    ):
        unread += OF_SELECTIONS
    for argument, path in _paths(typed):
        arms = list(settings.exp.arms.values())
        group = path[3] if path[:2] == ["exp", "arms"] and len(path) > 3 else path[0]
        require(
            group not in unread,
            f"{argument} has no effect: no stage of exp={settings.exp.name} reads {group}; leave it out",
        )
        overridden = len(path) > 1 and path[0] in OWN and all(path[1] in getattr(a, path[0]) for a in arms)
        require(
            not overridden,
            f"{argument} has no effect: every arm of exp={settings.exp.name} sets {path[0]}.{path[-1]}"
            f" itself; set exp.arms.<name>.{argument}",
        )
        if path[0] == "eval" and len(path) > 1:
            _tasks(settings, argument, path)
        if path[:2] == ["exp", "arms"] and len(path) > 4:
            arms, path = [settings.exp.arms[path[2]]], path[3:]
        require(
            path[0] not in OF_SCORES or settings.exp.kind not in TRAINED or any(map(_by_scores, arms)),
            f"{argument} has no effect: what it is for selects by no scores"
            f" (select={', '.join(dict.fromkeys(arm.select.selector for arm in arms))}); leave it out",
        )
        own = getattr(settings, path[0], None)
        overrides = [getattr(arm, path[0], {}) for arm in arms] or [{}]
        for (setting, holds, words), needing in NEEDS.get(path[0], []):
            values = [
                o.get(setting, getattr(own, setting)) if isinstance(o, dict) else getattr(o, setting)
                for o in overrides
            ]
            if len(path) > 1 and path[1] in needing and not any(map(holds, values)):
                raise SettingError(
                    f"{argument} has no effect: it needs {path[0]}.{words}, and here"
                    f" {path[0]}.{setting}={values[0]}; add that, or leave this out"
                )


def _paths(typed: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Each argument with its path; with those below where it gives settings of an arm as a dictionary."""
    for argument in typed:
        path = argument.partition("=")[0].split(".")
        values: Any = nested(Settings, argument) if path[:2] == ["exp", "arms"] and len(path) == 4 else None
        for key in path if values else ():
            values = values[key]
        yield argument, path
        for key in values if isinstance(values, dict) else ():
            yield argument, [*path, key]


def _by_scores(arm: Arm) -> bool:
    from repro.selection import selectors

    return selectors.reads_losses(arm.select.selector, arm.select.params)


def _tasks(settings: Settings, argument: str, path: list[str]) -> None:
    """Refuse what is said of a task that ``eval.tasks`` does not name, unless it names files of one's own."""
    if path[1] not in ("shots", "limits", "overrides") or any(
        entry.endswith((".yaml", ".yml")) for entry in settings.eval.tasks
    ):
        return
    from omegaconf import OmegaConf

    given: Any = OmegaConf.to_container(OmegaConf.from_dotlist([argument]))
    for name in given["eval"][path[1]] or ():
        require(
            name in settings.eval.tasks,
            f"{argument} has no effect: eval.tasks does not name {name!r}; did you mean"
            f" {nearest(name, settings.eval.tasks)}?",
        )
