"""--plan runs nothing, names what is cached, and its arithmetic is that of a hand calculation."""

import pytest

from repro.config import compose
from repro.experiment import build
from repro.plan import describe, estimate_stage, proxy_parameters


@pytest.mark.parametrize("scale", ["smoke", "laptop", "gpu"])
def test_a_plan_writes_nothing(scale, tmp_path):
    text = describe(compose(["exp=selection_30pct", f"scale={scale}", f"work={tmp_path / 'w'}"]))
    assert "to run" in text and "FLOPs" in text
    assert not (tmp_path / "w").exists()


def test_the_paper_scale_costs_what_six_n_d_says():
    settings = compose(["exp=paper_mixture", "scale=paper", "corpus=installed", "items=builtin"])
    stage = next(s for s in build(settings).order() if s.name == "pretrain")
    flops = estimate_stage(stage, settings, 241e9).flops
    assert flops == pytest.approx(6 * 7.18e9 * 1e12, rel=0.2)  # attention to a context of 8,192 is on top


def test_an_arm_with_its_own_budget_of_tokens_is_planned_with_it():
    settings = compose(["exp=accuracy_vs_data", "scale=smoke"])
    arms = build(settings).arms
    whole = estimate_stage(arms["random_10"][0]["pretrain"], settings, 1e5).tokens
    passes = estimate_stage(arms["random_10_passes"][0]["pretrain"], settings, 1e5).tokens
    assert passes == round(whole * 0.1)


def test_a_folder_proxy_is_counted_in_its_headers(tmp_path):
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7)}, tmp_path / "model.safetensors")
    settings = compose(["exp=selection_30pct", "proxy=folder", f"proxy.path={tmp_path}"])
    assert proxy_parameters(settings.proxy) == 22
