"""lm-eval's own task definitions, pointed at local items.

An official (or a user's) YAML is never copied: a generated one ``include``s it and only says where the items
are. The generated folder works with plain ``lm_eval --include_path FOLDER --tasks NAME`` too, which is how a
cell is checked by hand.
"""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from repro.errors import SettingError, as_file_name, nearest
from repro.evaluate.sources import definition
from repro.items.hub import TASKS
from repro.plain import Json

_LM_EVAL = find_spec("lm_eval")  # importing it takes seconds
assert _LM_EVAL is not None
OFFICIAL = Path(str(_LM_EVAL.origin)).parent / "tasks"
OWN_NAMES = {"ceval", "math_500"}  # of TASKS: items that tasks of other names read
LOCAL_BUILDERS = ("json", "csv", "parquet", "text", "arrow")  # of `datasets`: the task brings its own files

NAME = re.compile(rb"""^["']?(group|task)["']?[ \t]*:[ \t]*["']?([^\s"'#\[{]+)""", re.M)
INCLUDE = re.compile(rb"""^["']?include["']?[ \t]*:[ \t]*["']?([^\s"'#\[]+)""", re.M)


@dataclass
class Plan:
    """What one entry of ``eval.tasks`` runs."""

    name: str
    files: dict[str, Json] = field(default_factory=dict)  # generated YAML, by file name
    leaves: list[str] = field(default_factory=list)  # tasks that will run
    items: dict[str, dict[str, str]] = field(default_factory=dict)  # leaf -> {split: file}
    missing: dict[str, str] = field(default_factory=dict)  # leaf -> why it does not run
    notes: dict[str, str] = field(default_factory=dict)  # leaf -> what differs from the official definition


@dataclass(frozen=True)
class Wanted:
    """How an entry is to be run."""

    items: Path
    overrides: Json
    shots: int | None
    allow_code: bool
    allow_task_code: bool


def _scan(folder: Path) -> dict[str, Path]:
    """Names of tasks and groups in a folder of YAML files, by a text search: parsing all 14,000 takes 20 s,
    this 0.5 s.
    """
    index: dict[str, Path] = {}
    for root, folders, files in os.walk(folder):
        folders.sort()  # a name that stands twice is taken from the same file everywhere
        for path in (Path(root, file) for file in sorted(files) if file.endswith(".yaml")):
            names = {key: name.decode() for key, name in reversed(NAME.findall(path.read_bytes()))}
            if names:
                index.setdefault(names.get(b"group") or names[b"task"], path)
    return index


@functools.cache
def official() -> dict[str, Path]:
    """Every task and group that lm-eval ships: name -> YAML."""
    return _scan(OFFICIAL)


@functools.cache
def tagged(tag: str) -> list[str]:
    """Official tasks that carry ``tag``, their own or by an include (lm-eval expands a tag to its tasks)."""
    word = tag.encode()
    text = functools.cache(Path.read_bytes)

    @functools.cache
    def mentions(path: Path) -> bool:
        included = (path.parent / name.decode() for name in INCLUDE.findall(text(path)))
        return word in text(path) or any(mentions(other) for other in included if other.is_file())

    found = []
    for name, path in official().items():
        if mentions(path):
            tags = _read(path).get("tag") or []
            if tag in ([tags] if isinstance(tags, str) else tags):
                found.append(name)
    return sorted(found)


def _read(path: Path) -> Json:
    """A definition with its includes merged and ``!function`` left as text."""
    from lm_eval.tasks._yaml_loader import load_yaml

    return load_yaml(path, resolve_func=False)


def _no_code(path: Path) -> None:
    """Refuse a definition that brings Python along, itself or by an include, unless it is one that lm-eval
    ships.
    """
    with path.open("rb") as handle:
        nodes: list[Any] = [yaml.compose(handle, yaml.SafeLoader)]
    own = not path.resolve().is_relative_to(OFFICIAL.resolve())
    while nodes:
        node = nodes.pop()
        if own and node.tag == "!function":
            raise SettingError(
                f"{path} brings Python of its own (!function), which would run here; read it, then set "
                "eval.allow_task_code=true"
            )
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            nodes += [part for pair in node.value for part in pair]
            for key, value in node.value:
                for name in (
                    (value.value if isinstance(value.value, list) else [value])
                    if key.value == "include"
                    else ()
                ):
                    if (other := path.parent / name.value).is_file():
                        _no_code(other)


def filters(entry: str) -> list[str]:
    """Names of the filters through which a task's written answers are scored, each a metric of its own
    (``exact_match,flexible-extract``); empty for others and for groups.
    """
    path = Path(entry) if entry.endswith((".yaml", ".yml")) else official().get(entry)
    found = _read(path).get("filter_list") if path is not None and path.is_file() else None
    return [str(one["name"]) for one in found or [] if one.get("name")]


def check_names(entries: list[str]) -> None:
    """Raise :class:`SettingError` for an entry of ``eval.tasks`` that lm-eval does not know, with the nearest
    name.

    Names that items are known under are not looked for in lm-eval's folder, which takes half a second.
    """
    for name in [name_of(entry) for entry in entries if name_of(entry) == entry]:
        if (
            (name not in TASKS or name in OWN_NAMES or "/" in name)
            and name not in official()
            and not tagged(name)
        ):
            raise _unknown(name, official())


def _unknown(name: str, index: dict[str, Path]) -> SettingError:
    return SettingError(f"eval.tasks: lm-eval has no task {name!r}; did you mean {nearest(name, index)}?")


def name_of(entry: str) -> str:
    """The task's name for an entry of ``eval.tasks``, which may be the path of a YAML file."""
    if not entry.endswith((".yaml", ".yml")):
        return entry
    path = Path(entry)
    if not path.is_file():
        raise SettingError(
            f"eval.tasks names {entry}, which is not a file; give a task's name or the path of its YAML"
        )
    with definition(entry):
        cfg = _read(path)
    name = cfg.get("group") or cfg.get("task")
    if not isinstance(name, str):
        raise SettingError(f"{entry} is no lm-eval task: it has neither `task: NAME` nor `group: NAME`")
    return as_file_name(f"the task of {entry}", name)


def plan(
    entry: str,
    items: Path,
    overrides: Json | None = None,
    shots: int | None = None,
    allow_code: bool = False,
    allow_task_code: bool = False,
) -> Plan:
    """The generated YAML files of one entry: a task, a group or a tag of lm-eval by name, or the path of a
    YAML file.

    ``items`` holds ``<task>[/<subtask>]/<split>.jsonl``; ``overrides`` are keys that replace those of the
    definition, in every task below the entry; ``shots=None`` leaves the definition's own. Tasks that run
    generated code are left out, with the reason, unless ``allow_code``. Raises :class:`SettingError` for an
    unknown name, and for Python that comes with a YAML file outside lm-eval (``!function``) unless
    ``allow_task_code``.
    """
    name = name_of(entry)
    index = official()
    if name != entry:
        index = index | _scan(Path(entry).resolve().parent) | {name: Path(entry).resolve()}
    result = Plan(name)
    if name not in index and not tagged(name):
        raise _unknown(name, index)
    with definition(entry):
        _add(result, name, index, Wanted(items, overrides or {}, shots, allow_code, allow_task_code))
    return result


def _add(result: Plan, name: str, index: dict[str, Path], wanted: Wanted) -> bool:
    """Add a task, group or tag and all below it; whether anything of it runs."""
    if name not in index:
        return any([_add(result, member, index, wanted) for member in tagged(name)])
    if not wanted.allow_task_code:
        _no_code(index[name])
    cfg = _read(index[name])
    if "group" in cfg:
        kept = _members(result, cfg["task"], index, wanted)
        # the list is only rewritten where something is missing: entries may carry functions
        result.files[f"{name}.yaml"] = {"include": str(index[name])} | (
            {} if kept == cfg["task"] else {"task": kept}
        )
        return bool(kept)
    try:
        own = _local(result, name, {**cfg, **wanted.overrides}, wanted)
    except LookupError as error:
        result.missing[name] = str(error)
        return False
    result.leaves.append(name)
    result.files[f"{name}.yaml"] = {"include": str(index[name]), **wanted.overrides, **own}
    return True


def _members(result: Plan, members: list[Any], index: dict[str, Path], wanted: Wanted) -> list[Any]:
    """The members of a group that run."""
    kept = []
    for member in members:
        # a group written inside the group
        if isinstance(member, dict) and isinstance(member.get("task"), list):
            inner = _members(result, member["task"], index, wanted)
            if inner:
                kept.append({**member, "task": inner})
            continue
        name = member if isinstance(member, str) else member.get("group") or member["task"]
        if name not in index and not tagged(name):
            if isinstance(member, dict):  # a whole task written inside the group
                result.leaves.append(name)
                kept.append(member)
            else:
                result.missing[name] = "lm-eval has no task of this name"
        elif _add(result, name, index, wanted):
            kept.append(member)
    return kept


def _local(result: Plan, name: str, cfg: Json, wanted: Wanted) -> Json:
    """Keys that point one task at local items; raises ``LookupError`` saying why it cannot run."""
    if cfg.get("unsafe_code") and not wanted.allow_code:
        raise LookupError(
            "not run: it executes code that the model writes; to allow it set eval.allow_code_execution=true"
        )
    if "class" in cfg:
        raise LookupError("is written in Python and loads its own data: it cannot be pointed at local items")
    source = str(cfg.get("dataset_path"))
    if cfg.get("custom_dataset") or source in LOCAL_BUILDERS or source.startswith(("/", ".")):
        return {}
    folder = find_items(wanted.items, name, source, cfg.get("dataset_name"))
    files = {path.stem: str(path.resolve()) for path in sorted(folder.glob("*.jsonl"))}
    evaluated = cfg.get("test_split") or cfg.get("validation_split")
    if evaluated not in files:
        raise LookupError(f"the items of {folder.name} have no split {evaluated!r}, only {', '.join(files)}")

    own: Json = {"dataset_path": "json", "dataset_name": None}
    for key in ("training_split", "validation_split", "fewshot_split"):
        if cfg.get(key) and cfg[key] not in files:
            own[key] = None
    given = {**cfg, **own}
    shots = cfg.get("num_fewshot") if wanted.shots is None or cfg.get("num_fewshot") == 0 else wanted.shots
    samples = (cfg.get("fewshot_config") or {}).get("samples")
    rolling = cfg.get("output_type") == "loglikelihood_rolling"
    if shots and not (samples or rolling) and not (given.get("fewshot_split") or given.get("training_split")):
        named = cfg.get("fewshot_split") or cfg.get("training_split")
        why = f"the items have no split {named!r}" if named else "lm-eval's definition names no other source"
        if cfg.get("test_split") and given.get("validation_split"):
            own["fewshot_split"] = cfg["validation_split"]
            result.notes[name] = f"the {shots} shots come from the validation split: {why}"
        # lm-eval leaves out the item that is asked only where the few-shot split is named as the test split
        else:
            own |= {"test_split": evaluated, "fewshot_split": evaluated}
            result.notes[name] = f"the {shots} shots are other items of the evaluated split: {why}"
        given = {**cfg, **own}
    used = {given.get(key) for key in ("training_split", "validation_split", "fewshot_split")} | {evaluated}
    result.items[name] = {split: path for split, path in files.items() if split in used}
    own["dataset_kwargs"] = {
        "data_files": {split: _literal(path) for split, path in result.items[name].items()}
    }
    return own


def _literal(path: str) -> str:
    """``path`` as ``datasets`` must be told it, which reads patterns, variables and chains of archives into a
    name.
    """
    if "::" in path or os.path.expandvars(path) != path:
        raise LookupError(
            f"datasets cannot read from a path with '::' or $VARIABLE in it: {path}; rename the folder"
        )
    return re.sub(r"([\[*?])", r"[\1]", path)


def find_items(items: Path, task: str, dataset: str, subset: str | None) -> Path:
    """The folder with a task's ``<split>.jsonl``: by the task's own name, or by the hub data set it reads,
    whose name alone is one of another language or owner for tasks that ask for these.

    Raises ``LookupError`` where there is none.
    """
    candidates = [task, f"{task}/{subset}"]
    for name, (hub, configuration) in TASKS.items():
        if hub == dataset and configuration in (subset, None, "*"):
            candidates.append(f"{name}/{subset}" if configuration == "*" else name)
    own_name = dataset.rpartition("/")[2].lower().replace("-", "_")
    candidates.append(f"{own_name}/{subset}")
    known = TASKS.get(own_name, (dataset, None))[0]
    if subset in (None, "default", "main", own_name) and ("/" not in dataset or known == dataset):
        candidates.append(own_name)
    for candidate in candidates:
        if any((items / candidate).glob("*.jsonl")):
            return items / candidate
    tried = ", ".join(dict.fromkeys(c for c in candidates if not c.endswith("/None")))
    raise LookupError(f"no items: the items folder has none of {tried}")


def write(plan_: Plan, folder: Path) -> None:
    """Write the generated YAML files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in plan_.files.items():
        as_file_name("the task", name)
        (folder / name).write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
