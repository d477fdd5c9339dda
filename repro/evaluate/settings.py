"""Which benchmarks and texts a model is evaluated on."""

from __future__ import annotations

from dataclasses import dataclass

from repro.errors import require
from repro.plain import Json
from repro.schema import COUNT, check, how, setting

ROWS, TOKENS, SEED = 32, 100, 0  # of copying: rows, and random tokens of a row before they come again


@dataclass
class Eval:
    """Evaluation through lm-eval and bits per byte (``repro/evaluate``)."""

    tasks: list[str] = setting(
        ["arc_easy", "hellaswag", "piqa", "sciq", "lambada_openai"],
        "lm-eval tasks by name, or YAML files of your own",
    )
    shots: dict[str, int] = setting({}, "default: the task's own definition, usually 0")
    overrides: Json = setting({}, "task: {key of its definition: another value}")
    columns: Json = how({}, "column of a table: task/metric, or a list to average")
    limit: int | None = setting(None, "a task, those of a group too; null = all", unit="items", within=COUNT)
    limits: Json = setting({}, "task or group: another limit for it (null: every item)")
    batch_size: int = setting(16, "at once; it changes last bits", unit="requests", within=COUNT)
    dtype: str = setting("float32", "of the models", choices="float32 | bfloat16 | float16")
    max_length: int | None = setting(
        None, "of the context window; default: the model's own", unit="tokens", within=COUNT
    )
    text_tasks: list[str] = setting(["drop", "lambada_openai"], "out-of-corpus text for bits per byte")
    text_bytes: int = setting(200_000, "out of the corpus, and held out a domain", unit="bytes", within=COUNT)
    allow_code_execution: bool = setting(False, "HumanEval runs generated code: explicit opt-in")
    allow_task_code: bool = how(False, "Python of a task's YAML of your own (!function): explicit opt-in")

    def __post_init__(self) -> None:
        check("eval", self)
        for name, own in self.limits.items():
            whole = own is None or (isinstance(own, int) and not isinstance(own, bool) and own >= 1)
            require(whole, f"eval.limits.{name}={own} must be at least 1, or null for every item")
        require(bool(self.tasks), "eval.tasks is empty; name at least one lm-eval task")
