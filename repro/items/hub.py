"""Items from the hub: the very data sets that lm-eval 0.4.13's task definitions name, at recorded commits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from repro.errors import SettingError, nearest
from repro.fetch import hub_commits, retries
from repro.items.settings import Items
from repro.plain import Row

# task: (data set, configuration). The configuration "*" makes every one of them a subtask; "a|b" names the
# subtasks.
AGIEVAL = "aqua-rat logiqa-en lsat-ar lsat-lr lsat-rc math sat-en sat-en-without-passage sat-math".split()
_OF_LM_EVAL: dict[str, tuple[str, str | None]] = {
    "arc_challenge": ("allenai/ai2_arc", "ARC-Challenge"),
    "arc_easy": ("allenai/ai2_arc", "ARC-Easy"),
    "bbh": ("SaylorTwift/bbh", "*"),
    "blimp": ("nyu-mll/blimp", "*"),
    "boolq": ("aps/super_glue", "boolq"),
    "cb": ("aps/super_glue", "cb"),
    "ceval": ("ceval/ceval-exam", "*"),
    "commonsense_qa": ("tau/commonsense_qa", None),
    "copa": ("aps/super_glue", "copa"),
    "drop": ("EleutherAI/drop", None),
    "gsm8k": ("openai/gsm8k", "main"),
    "hellaswag": ("Rowan/hellaswag", None),
    "hendrycks_math": ("EleutherAI/hendrycks_math", "*"),
    "humaneval": ("openai/openai_humaneval", None),
    "lambada_openai": ("EleutherAI/lambada_openai", "default"),
    "math_500": ("HuggingFaceH4/MATH-500", None),
    "mbpp": ("google-research-datasets/mbpp", "full"),
    "mmlu": ("cais/mmlu", "*"),
    "mmlu_pro": ("TIGER-Lab/MMLU-Pro", None),
    "nq_open": ("google-research-datasets/nq_open", None),
    "openbookqa": ("allenai/openbookqa", "main"),
    "piqa": ("baber/piqa", None),
    "race": ("EleutherAI/race", "high"),
    "rte": ("nyu-mll/glue", "rte"),
    "sciq": ("allenai/sciq", None),
    "social_iqa": ("lighteval/siqa", None),
    "triviaqa": ("mandarjoshi/trivia_qa", "rc.nocontext"),
    "wikitext": ("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1"),
    "winogrande": ("allenai/winogrande", "winogrande_xl"),
}
_OF_AGIEVAL: dict[str, tuple[str, str | None]] = {
    f"agieval_en/{name}": (f"hails/agieval-{name}", None) for name in AGIEVAL
}
TASKS = _OF_LM_EVAL | _OF_AGIEVAL
NOT_SUBTASKS = {"all", "auxiliary_train"}  # of cais/mmlu
FEW_SHOT_ROWS = 2000  # a training split serves few-shot examples only


def wanted(settings: Items) -> list[str]:
    """The tasks asked for, or all; an unknown name raises :class:`SettingError`."""
    if not settings.tasks:
        return list(TASKS)
    found = []
    for name in settings.tasks:
        matching = [task for task in TASKS if name in (task, task.split("/")[0])]
        if not matching:
            raise SettingError(
                f"items.tasks names {name!r}, which items=hub has not; did you mean {nearest(name, TASKS)}?"
            )
        found += matching
    return found


def revisions(settings: Items) -> dict[str, str]:
    """The commit of every data set asked for (its branch where the hub was never reached)."""
    repos = sorted({TASKS[task][0] for task in wanted(settings)})
    return {
        r: r if Path(r).is_dir() else hub_commits.hub_revision(r, settings.revisions.get(r, "main"))
        for r in repos
    }


def read(settings: Items, asked: Callable[[str], bool]) -> Iterator[tuple[str, str, Iterable[Row]]]:
    """(task, split, rows) through ``datasets``; raises :class:`SettingError` when the hub is away."""
    commits = {
        r: r if Path(r).is_dir() else hub_commits.hub_commit(r, commit)
        for r, commit in revisions(settings).items()
    }
    for task in filter(asked, wanted(settings)):
        repo, configuration = TASKS[task]
        for name, subtask in _configurations(repo, configuration, commits[repo]):
            for split, rows in _load(repo, name, commits[repo]).items():
                kept = rows.select(range(min(len(rows), FEW_SHOT_ROWS))) if split == "train" else rows
                yield (f"{task}/{subtask}" if subtask else task), split, kept


def _configurations(repo: str, configuration: str | None, commit: str) -> list[tuple[str | None, str | None]]:
    if configuration != "*":
        return [(configuration, None)]
    import datasets

    names = _guard(repo, lambda: datasets.get_dataset_config_names(repo, revision=_revision(repo, commit)))
    return [(name, name) for name in sorted(names) if name not in NOT_SUBTASKS]


def _load(repo: str, name: str | None, commit: str) -> Any:
    import datasets

    return _guard(repo, lambda: datasets.load_dataset(repo, name, revision=_revision(repo, commit)))


def _revision(repo: str, commit: str) -> str | None:
    return None if Path(repo).is_dir() else commit


def _guard(repo: str, call: Any) -> Any:
    try:
        return retries.patiently(call, retries.FEW, f"hub, {repo}")
    except Exception as error:  # the hub fails in a dozen types; all mean the same to the user
        raise SettingError(
            f"cannot read {repo} from the hub ({type(error).__name__}:"
            f" {retries.said(error)[:120]}); check the network, or use items=wheel or"
            " items=folder items.folder=DIR"
        ) from None
