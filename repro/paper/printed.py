"""The figures printed in the paper (``paper_reference.yaml``, typed in by hand) and what adding them up again
shows.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from statistics import mean

import yaml

from repro.errors import SettingError
from repro.plain import Json


@cache
def reference() -> Json:
    """The whole of ``paper_reference.yaml``."""
    return yaml.safe_load((Path(__file__).parent / "paper_reference.yaml").read_text(encoding="utf-8"))


@cache
def metric_names() -> dict[str, list[str]]:
    """{column of table 1: the lm-eval metrics that stand for it}, as the evaluation suite ``paper`` defines
    them.
    """
    from repro.settings.files import read_option

    columns = read_option("eval", "paper")["columns"]
    return {
        column: [sought] if isinstance(sought, str) else list(sought) for column, sought in columns.items()
    }


def printed(row: str) -> dict[str, float | None]:
    """{column: printed percent} of a row of tables 1 and 10, the printed average under ``Avg``."""
    found = reference()["table1_and_10"][row]
    return {**dict(zip(reference()["columns"], found["values"], strict=True)), "Avg": found["avg"]}


def gain(control: dict[str, float | None], treatment: dict[str, float | None], column: str) -> str:
    """The printed difference of two rows in a column that both have."""
    low, high = control[column], treatment[column]
    if low is None or high is None:
        raise SettingError(f"paper_reference.yaml prints no {column} for one of two rows that are compared")
    return f"{high - low:+.2f}"


def average_notes() -> list[str]:
    """Every printed average against the mean of its row without ARC(C+E)."""
    notes = []
    for row in reference()["table1_and_10"]:
        values = printed(row)
        average = values.pop("Avg")
        values.pop("ARC(C+E)")
        if average is None or None in values.values():
            continue
        again = round(mean(v for v in values.values() if v is not None), 2)
        same = (
            "as printed"
            if abs(again - average) < 0.005
            else f"printed {average:.2f}, off by {average - again:+.2f}"
        )
        notes.append(f"{row}: mean of its {len(values)} printed columns {again:.2f}, {same}")
    return notes


def arc_notes() -> list[str]:
    """Rows where ARC(C+E) is not the mean of its two parts to the printed digits."""
    notes = []
    for row in reference()["table1_and_10"]:
        values = printed(row)
        challenge, easy, whole = (values[name] for name in ("ARC-C", "ARC-E", "ARC(C+E)"))
        if challenge is None or easy is None or whole is None:
            continue
        again = mean((challenge, easy))
        if abs(again - whole) > 0.0051:
            notes.append(f"{row}: ARC(C+E) is printed as {whole}, the mean of its parts is {again:.3f}")
    return notes


def corpus_note() -> str:
    """The parts of table 8 against the total the text names, and the selected share."""
    total = sum(reference()["table8_corpus_tokens_billion"].values())
    selected = reference()["method"]["selected_tokens_billion"]
    return (
        f"The printed parts sum to {total:.1f} billion tokens; the text says 241. The selection of {selected}"
        f" billion is {100 * selected / 241:.1f} % of 241 and {100 * selected / total:.1f} % of the sum of"
        " the parts."
    )


def parameter_note() -> str:
    """The parameter count of table 9's configuration against the printed one, and the width that fits."""
    model = reference()["table9_trained_model"]
    literal, fitting = llama_parameters(model, model["ffn"]), llama_parameters(model, 14336)
    embeddings = 2 * model["vocab"] * model["hidden"]
    return (
        f"Table 9 as printed (FFN {model['ffn']}) counts {literal / 1e9:.2f} B parameters, not"
        f" {model['total_params']}; FFN 14336 counts {(fitting - embeddings) / 1e9:.2f} B without and"
        f" {fitting / 1e9:.2f} B with embeddings."
    )


def llama_parameters(model: Json, ffn: int) -> int:
    """Parameters of a Llama with untied embeddings and ``shared_q_head`` query heads per key-value head."""
    hidden = model["hidden"]
    attention = 2 * hidden * hidden + 2 * hidden * hidden // model["shared_q_head"]
    layer = attention + 3 * hidden * ffn + 2 * hidden
    return model["layers"] * layer + hidden + 2 * model["vocab"] * hidden
