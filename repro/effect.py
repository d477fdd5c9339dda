"""Which settings have an effect only beside another one: what was typed and would be ignored is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from repro.errors import SettingError
from repro.settings.root import Settings

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
        (_is("kind", "hub"), ("hub", "blob_url")),
        (_not("near_duplicates", "off"), ("minhash", "minhash_threshold", "minhash_permutations")),
    ],
    "items": [(_is("kind", "folder"), ("folder",)), (_is("kind", "hub"), ("revisions",))],
    "proxy": [(_is("kind", "folder", "gguf"), ("path",)), (_is("kind", "hub"), ("repo", "revision")),
              (_is("kind", "gguf"), ("accept_terms",))],
    "heads": [
        (_is("detector", "random_matched_damage"), ("damage_tolerance", "draws")),
        (_is("detector", "random", "random_same_layers", "random_matched_damage", "bottom"),
         ("control_seed",)),
        (_not("detector", "induction"), ("shots", "key_characters", "value_tokens", "match", "decoding")),
    ],
    "model": [(_none("init_from"), ("layers", "hidden", "heads", "kv_heads", "ffn", "tie_embeddings",
                                    "tokenizer"))],
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
    "tracking": [(_is("wandb", "offline", "online"), ("project", "entity"))],
}  # fmt: skip


def check(settings: Settings, typed: Iterable[str]) -> None:
    """Raise :class:`SettingError` for an argument ``path=value`` of the command line that nothing will read.

    A setting of the experiment counts if it has an effect in one of its arms.
    """
    for argument in typed:
        path = argument.partition("=")[0].split(".")
        arms = list(settings.exp.arms.values())
        if path[:2] == ["exp", "arms"] and len(path) > 4:
            arms, path = [settings.exp.arms[path[2]]], path[3:]
        own = getattr(settings, path[0], None)
        overrides = [getattr(arm, path[0], {}) for arm in arms] or [{}]
        for (setting, holds, words), needing in NEEDS.get(path[0], []):
            values = [
                o.get(setting, getattr(own, setting)) if isinstance(o, dict) else getattr(own, setting)
                for o in overrides
            ]
            if len(path) > 1 and path[1] in needing and not any(map(holds, values)):
                raise SettingError(
                    f"{argument} has no effect: it needs {path[0]}.{words}, and here"
                    f" {path[0]}.{setting}={values[0]}; add that, or leave this out"
                )
