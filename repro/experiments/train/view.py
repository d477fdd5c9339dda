"""What a run of trained models shows beyond what every run does: how they were trained, the curve, what the
saving costs.
"""

from __future__ import annotations

from repro.experiments.train import compute
from repro.outcomes import noise
from repro.outcomes.outcome import Outcome
from repro.report.sections import NOTHING_CONCLUDED, Section, arms


def sections(summary: Outcome) -> list[Section]:
    """The arms with how they were trained; net compute where some are trained on less."""
    return [arms(summary, _trained(summary)), Section("net", "Net compute", compute.tables(summary))]


def sentence(summary: Outcome) -> str:
    """What stands where a run without a primary contrast would have its verdict: of a pilot the noise."""
    return noise.sentence(summary) if "noise" in summary else NOTHING_CONCLUDED


def _trained(summary: Outcome) -> str:
    model, tokens = summary["settings"]["model"], f"{summary['settings']['train']['tokens']:,}"
    each = f"Every arm is trained for {tokens} tokens"
    if any(arm["equal_passes"] for arm in summary["arms"].values()):
        each = (
            f"Arms of equal passes are trained for their share of {tokens} tokens, the others for all of"
            " them,"
        )
    arms = summary["settings"]["exp"]["arms"]
    own = {
        name: [
            f"{group}.{key}={value}"
            for group in ("model", "train")
            for key, value in of.get(group, {}).items()
        ]
        for name, of in arms.items()
        if name in summary["arms"]
    }
    if differ := [f"{name} ({', '.join(values)})" for name, values in own.items() if values]:
        each = f"But for what is their own of {'; '.join(differ)}, every arm is trained for {tokens} tokens"
    return (
        f"{each} from the same initial weights for a seed ({model['layers']} layers, width"
        f" {model['hidden']}), reading the documents it shares with other arms in the same relative order."
    )
