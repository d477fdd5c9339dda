"""The GPU card on a CPU with the smallest sizes: whatever can fail there but the speed fails here."""

import json
import sys
import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import correctness, page, rows, speed
from repro.pretrain import engine

ROWS = [
    "heads, built",
    "losses in float32",
    "one pass",
    "likelihoods",
    "bits",
    "training against plain",
    "resumed training, b",
]
FAST = [
    "matrix",
    "scoring 135m bf",
    "scoring 135m, t",
    "scoring 135m, w",
    "scoring 135m, l",
    "training 10m bfloat16",
    "training 135m, w",
]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def run(part, out, monkeypatch, only):
    monkeypatch.setattr(
        sys, "argv", ["card", "--device", "cpu", "--tiny", "--out", str(out), "--only", *only]
    )
    code = part.main()
    return code, json.loads((out / f"gpu-{part.__name__.rsplit('.', 1)[-1]}.json").read_text())


def test_every_row_of_both_parts_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "matrix_rate", lambda *_: 1e11)  # a test times nothing
    fast = [name for name in FAST if not name.startswith("training 10m")] + ["training 10m bfloat16"]
    code, found = run(speed, tmp_path, monkeypatch, fast)
    ways = {row["row"]: row.get("ways", {}) for row in found["rows"]}
    assert set(ways["training 10m bfloat16"]) == {
        "DeepSpeed",
        "DeepSpeed, sums in any order",
        "plain PyTorch",
    }
    errors = [row for row in found["rows"] if "error" in row] + [
        w for r in ways.values() for w in r.values() if "error" in w
    ]
    assert errors == [] or all("compile" in str(error) for error in errors)
    code, found = run(correctness, tmp_path, monkeypatch, ROWS)
    assert code == 0 and len(found["rows"]) == 10, found["rows"]
    before = (page.ROOT / "docs" / "gpu.md").read_text()
    after = page.filled(before, tmp_path)
    assert "| heads, built | yes |" in after and "plain PyTorch" in after
    assert page.filled(after, tmp_path / "none").count("Not measured.") == 2


def test_a_wrong_pass_is_no(tmp_path, monkeypatch):
    """A reference pass that forgets the mask must show."""
    monkeypatch.setattr(correctness.reference.masking, "masked", lambda *_, **__: rows.at_most(9))
    code, found = run(correctness, tmp_path, monkeypatch, ["one pass against two, built"])
    assert code == 1 and found["rows"][0]["ok"] is False


def test_rows_are_kept_whatever_comes(tmp_path):
    options = rows.arguments("", 3600).parse_args(
        ["--device", "cpu", "--out", str(tmp_path), "--commit", "abc"]
    )
    card = rows.Card("speed", options)
    card.row("good", lambda: {"value": float("nan")})
    card.row("bad", lambda: 1 / 0)
    card.started -= 3600
    card.row("late", lambda: {})
    assert card.end() == 1
    found = json.loads((tmp_path / "gpu-speed.json").read_text())
    assert [row["row"] for row in found["rows"]] == ["good", "bad", "late"] and found["commit"] == "abc"
    assert (
        found["rows"][0]["value"] == "nan"
        and found["rows"][1]["error"] == "ZeroDivisionError: division by zero"
    )
    assert "not started" in found["rows"][2]["error"]
    with pytest.raises(rows.OverTime), rows.at_most(0):
        time.sleep(5)


def test_one_contender_out_of_memory_does_not_end_the_others():
    def fails():
        raise MemoryError("none left")

    found = rows.alternate({"good": lambda: None, "bad": fails}, 2, "cpu")
    assert found["bad"] == {"error": "MemoryError: none left"} and found["good"]["seconds"] >= 0


def test_flops_of_scoring_are_those_that_are_run():
    bench = speed.Scoring("cpu", True, speed.Rates("cpu", True, {"float32": 1.0}))
    documents = bench.documents("135m", 64)
    scorer = bench.scorer("135m", "float32", 128)
    with FlopCounterMode(display=False) as counter:
        scorer.losses(documents)
    counted = {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}
    products = sum(flops for op, flops in counted.items() if "mm" in op)
    hidden, n = speed.TINY.hidden, 64
    attention = 3 * 2.0 * hidden * n * n  # one layer once, one twice; causal: half
    assert bench.flops("135m", [64]) - attention == pytest.approx(products, rel=1e-9)


def test_a_gpu_adds_in_one_order_in_the_block_alone(monkeypatch, capsys):
    strict, filled = torch.are_deterministic_algorithms_enabled, torch.utils.deterministic
    small = engine._small_step
    monkeypatch.setattr(engine, "_small_step", lambda _: small("cpu"))
    with engine.repeatable("cuda"):
        # warn_only would leave fused attention as it is
        assert strict() and not torch.is_deterministic_algorithms_warn_only_enabled()
        assert not filled.fill_uninitialized_memory
    assert not strict() and filled.fill_uninitialized_memory
    with engine.repeatable("cpu"):
        assert not strict()

    def fails(_):
        raise RuntimeError("no such way\nmore")

    monkeypatch.setattr(engine, "_small_step", fails)
    with engine.repeatable("cuda"):
        assert not strict()
    assert "in any order" in capsys.readouterr().err


def test_a_compiler_that_is_missing_leaves_the_training_eager(monkeypatch, capsys):
    def fails(*_, **__):
        raise RuntimeError("Failed to find C compiler.\nmore")

    monkeypatch.setattr(torch, "compile", fails)
    assert engine.can_compile("cuda") is False
    assert "Failed to find C compiler" in capsys.readouterr().err
