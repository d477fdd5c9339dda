"""``dtype=auto`` is what the device is fast in: resolved before any fingerprint, recorded, measured once a machine."""

import json

import pytest
import torch

from repro import device, run
from repro.errors import SettingError
from repro.experiments import build
from repro.influence.api import AttentionInfluence
from repro.outcomes import summary
from repro.plan import checks
from repro.plan.table import describe
from repro.proxy import stage as proxy_stage
from repro.proxy.settings import Proxy
from repro.settings.compose import compose
from repro.settings.files import CONFIGS, read_option
from repro.settings.root import to_yaml
from repro.store import Stage, Store, read_json
from repro.store.__main__ import settings_of

EMULATED = {"float32": 9e10, "bfloat16": 2e9, "measured": "2026-01-01"}
FAST = {"float32": 9e10, "bfloat16": 2e11, "measured": "2026-01-01"}
EVENING = ["exp=selection_30pct", "scale=evening"]
MODERN = frozenset({"avx2", "avx512f", "avx512_bf16"})


def checked(arguments):
    """What a run refuses or warns of before it begins."""
    settings = compose(arguments)
    checks.machine(settings, build(settings))


@pytest.fixture
def machine(monkeypatch):
    """A machine of the given rates, instructions and GPU; rates are as if measured."""

    def set_to(rates=FAST, flags=MODERN, gpu=None):
        monkeypatch.setattr(device, "measured", lambda: rates)
        monkeypatch.setattr(device, "_flags", lambda: flags)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: int(gpu is not None))
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True: gpu == "ampere" or including_emulation,
        )

    return set_to


@pytest.mark.parametrize(
    ("rates", "flags", "gpu", "expected"),
    [
        (FAST, MODERN, None, "bfloat16"),
        (FAST, None, None, "bfloat16"),  # a system that lists no instructions: the product decides
        (
            EMULATED,
            MODERN,
            None,
            "float32",
        ),  # the product confirms what the instructions promise, or does not
        (EMULATED, frozenset({"avx2"}), None, "float32"),
        (FAST, frozenset({"avx2"}), None, "float32"),  # one lucky moment of a CPU without the instructions
        (FAST, frozenset({"asimd", "bf16"}), None, "bfloat16"),
        (EMULATED, MODERN, "ampere", "bfloat16"),
        (FAST, MODERN, "turing", "float32"),  # PyTorch says supported where it only emulates
    ],
)
def test_auto_is_what_the_device_is_fast_in(machine, rates, flags, gpu, expected):
    machine(rates, flags, gpu)
    settings = compose(EVENING)
    assert (settings.proxy.dtype, settings.train.dtype) == (expected, expected)
    assert compose([*EVENING, "train.dtype=bfloat16"]).train.dtype == "bfloat16"  # who asks is given it
    assert compose([*EVENING, "proxy.dtype=float32"]).proxy.dtype == "float32"
    assert device.resolved("auto", "auto") == expected


def test_auto_has_the_fingerprints_of_the_value_spelled_out(machine, tmp_path):
    arms = ["exp.arms.random.train={dtype: %s}", "exp.arms.attention_influence.proxy={dtype: %s}"]
    spelled = ("proxy.dtype=%s", "train.dtype=%s", *arms)
    found = {}
    for rates, dtype in ((EMULATED, "float32"), (FAST, "bfloat16")):
        machine(rates)
        auto, said = (compose([*EVENING, *(s % value for s in spelled)]) for value in ("auto", dtype))
        assert to_yaml(auto) == to_yaml(said) and "auto" not in {
            d for d in checks.dtypes(auto, build(auto)).values()
        }
        assert auto.exp.arms["random"].train == {"dtype": dtype}
        found[dtype] = [stage.fingerprint for stage in build(auto).order()]
        assert found[dtype] == [stage.fingerprint for stage in build(said).order()]
        assert compose(EVENING).train.dtype == dtype  # what the configs say, too
    assert not set(found["float32"]) == set(found["bfloat16"])


def test_config_yaml_and_manifests_hold_what_auto_became(machine, tmp_path):
    for rates, dtype in ((EMULATED, "float32"), (FAST, "bfloat16")):
        machine(rates)
        settings = compose(["exp=score_corpus", "scale=smoke", f"work={tmp_path}", "proxy.dtype=auto"])
        assert f"dtype: {dtype}" in to_yaml(settings) and "dtype: auto" not in to_yaml(settings)
        detection = next(s for s in build(settings).order() if s.name == "detection")
        assert detection.settings["dtype"] == dtype


def test_a_finished_run_is_found_again_by_the_dtypes_it_was_run_in(machine, monkeypatch):
    """Whatever ``auto`` is where its folder is read."""
    machine(EMULATED)
    ran = {
        "settings": {"proxy": {"dtype": "bfloat16"}, "train": {"dtype": "float32"}},
        "provenance": {"command": ["run.py", *EVENING, "train.dtype=auto"]},
    }
    monkeypatch.setattr(summary, "read", lambda _: ran)
    settings = settings_of(["work/runs/one"])
    assert (settings.proxy.dtype, settings.train.dtype) == ("bfloat16", "float32")


def test_a_stage_refuses_a_dtype_nobody_resolved():
    with pytest.raises(ValueError, match="resolved"):
        _ = Stage("s", "l", {"train": {"dtype": "auto"}}, lambda _: None).fingerprint


def test_smoke_and_laptop_are_float32_everywhere_and_measure_nothing(monkeypatch):
    monkeypatch.setattr(device, "choose", lambda *_: pytest.fail("asked the machine"))
    for scale in ("smoke", "laptop"):
        settings = compose(["exp=selection_30pct", f"scale={scale}"])
        assert set(checks.dtypes(settings, build(settings)).values()) == {"float32"}


def test_every_scale_says_its_dtypes():
    """One that does not would be float32 even where bfloat16 is twice as fast; an option chosen by hand leaves it as it is."""
    for path in CONFIGS.glob("scale/*.yaml"):
        scale = read_option("scale", path.stem)
        expected = "float32" if path.stem in ("smoke", "laptop", "curve") else "auto"
        assert scale["proxy"]["dtype"] == scale["train"]["dtype"] == expected, path
    by_hand = compose(["exp=selection_30pct", "scale=laptop", "proxy=smollm2-135m", "train=default"])
    assert set(checks.dtypes(by_hand, build(by_hand)).values()) == {"float32"}
    with pytest.raises(SettingError, match="valid: auto, bfloat16, float32"):
        Proxy(dtype="bf16")


def test_a_plan_for_other_hardware_is_not_resolved_by_this_cpu(machine, tmp_path):
    machine(EMULATED, frozenset({"avx2"}))
    arguments = ["exp=selection_30pct", "scale=gpu", f"work={tmp_path}"]
    assert compose(arguments).train.dtype == "float32"  # a run is on this machine
    planned = compose(arguments, planning=True)
    assert (planned.proxy.dtype, planned.train.dtype) == ("bfloat16", "bfloat16")
    line = describe(planned).split("dtype: ")[1].split("\n")[0]
    assert line.startswith(
        "proxy bfloat16, train bfloat16, eval float32 (auto is bfloat16: for H200, which the scale names"
    )
    assert "a run on this machine takes float32: this CPU emulates bfloat16, 45x slower" in line
    assert compose([*arguments, "device=cpu"], planning=True).train.dtype == "float32"  # the CPU is asked for
    assert compose([*arguments, "device=cuda"], planning=True).train.dtype == "bfloat16"
    machine(FAST, gpu="turing")
    assert compose(arguments, planning=True).train.dtype == "float32"  # the GPU that is here decides


def test_the_plan_says_what_auto_is(machine, tmp_path, capsys):
    machine(EMULATED, frozenset({"avx2"}))
    assert run.main([*EVENING, "--plan", f"work={tmp_path}"]) == 0
    assert (
        "dtype: proxy float32, train float32, eval float32 (auto is float32: this CPU emulates bfloat16, 45x slower)"
        in capsys.readouterr().out
    )


def test_asking_an_emulating_cpu_for_bfloat16_warns_once_and_goes_on(machine, tmp_path, capsys):
    machine(EMULATED, frozenset({"avx2"}))
    arguments = ["exp=score_corpus", "scale=smoke", f"work={tmp_path / 'w'}"]

    checked([*arguments, "proxy.dtype=bfloat16"])
    warned = capsys.readouterr().err
    assert warned.count("warning") == 1
    assert warned.startswith(
        "warning: proxy.dtype: this CPU emulates bfloat16, its matrix product takes 45x as long as in float32"
    )
    checked([*arguments, "proxy.dtype=auto"])
    machine(FAST)
    checked([*arguments, "proxy.dtype=bfloat16"])
    machine(EMULATED, frozenset({"avx2"}), gpu="ampere")
    checked([*arguments, "proxy.dtype=bfloat16"])
    assert not capsys.readouterr().err
    arm = "exp.arms.random.train={dtype: bfloat16}"
    machine(EMULATED)
    checked(["exp=selection_30pct", "scale=smoke", f"work={tmp_path / 'w'}", arm])
    assert capsys.readouterr().err.startswith("warning: exp.arms.random.train.dtype: ")


def test_the_scorer_alone_takes_what_the_cpu_is_fast_in(machine, tmp_path, capsys):
    model = str(Store(tmp_path).ensure(proxy_stage.stage(Proxy(kind="built"))) / "model")
    machine(EMULATED)
    influence = AttentionInfluence(model)
    assert influence.dtype == "float32" and influence.proxy.model.dtype == torch.float32
    assert not capsys.readouterr().err
    assert AttentionInfluence(model, dtype="bfloat16").proxy.model.dtype == torch.bfloat16
    assert "dtype: this CPU emulates bfloat16" in capsys.readouterr().err
    with pytest.raises(SettingError, match="did you mean"):
        AttentionInfluence(model, dtype="float8")


@pytest.mark.parametrize(
    ("wanted", "found", "said"),
    [
        ("cuda", 0, "device=cuda: PyTorch finds 0 CUDA devices here; use device=auto"),
        ("cuda:2", 2, "device=cuda:2: PyTorch finds 2 CUDA devices here; use device=auto"),
        ("cuda:x", 2, "device='cuda:x' is not known; did you mean 'cuda'"),
        ("gpu", 2, "device='gpu' is not known"),
    ],
)
def test_every_door_refuses_a_device_that_is_not_here(wanted, found, said, monkeypatch, tmp_path):
    """Before a model is looked for."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    for door in (device.present, lambda wanted: AttentionInfluence(str(tmp_path), device=wanted)):
        with pytest.raises(SettingError) as refusal:
            door(wanted)
        assert str(refusal.value).startswith(said) and "\n" not in str(refusal.value)


def test_a_device_that_is_here_is_taken_as_it_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device.present(d) for d in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda:1"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.present("auto") == "cpu"


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """A cache of its own; the dtypes whose products were measured."""
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    asked = []
    monkeypatch.setattr(
        device,
        "matrix_rate",
        lambda _, dtype: asked.append(dtype) or {"float32": 9e10, "bfloat16": 2e9}[dtype],
    )
    return asked


def test_a_machine_is_measured_once(counted, monkeypatch):
    first = device.measured()
    assert (first["float32"], first["bfloat16"]) == (9e10, 2e9) and counted == ["float32", "bfloat16"]
    assert {key: device.measured()[key] for key in EMULATED} == {key: first[key] for key in EMULATED}
    assert len(counted) == 2
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")  # other instructions are another machine
    device.measured()
    assert len(counted) == 4 and len(list(device.measurement_file().parent.iterdir())) == 2


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"float32": 1}', '{"float32": 0, "bfloat16": 1, "measured": ""}', "\x00\xff",
     '{"float32": NaN, "bfloat16": 1, "measured": ""}', '{"float32": "fast", "bfloat16": 1, "measured": ""}'],
)  # fmt: skip
def test_a_damaged_measurement_is_made_anew(counted, content):
    device.measured()
    device.measurement_file().write_bytes(content.encode("latin-1"))
    assert device.measured()["float32"] == 9e10 and len(counted) == 4
    assert read_json(device.measurement_file())["float32"] == 9e10


def test_a_cache_that_cannot_be_written_costs_a_measurement_only(counted, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "file"))
    assert device.measured()["bfloat16"] == 2e9


def test_what_is_kept_says_which_machine_it_is_of(counted):
    device.measured()
    kept = json.loads(device.measurement_file().read_text())
    assert kept["machine"]["torch"] and kept["machine"]["cpu"] and kept["machine"]["threads"] >= 1


@pytest.mark.parametrize("flops", [0.05e9, 0.7e9, 5e9, 1e11, 1e13])
def test_a_slow_product_is_measured_on_small_matrices(flops, monkeypatch):
    """By a clock that runs with the products: however slow they are, no more than a second and a half of them is made."""
    clock, made = [0.0], []

    def product(size, *_):
        clock[0] += 2 * size**3 / flops
        made.append(size)

    monkeypatch.setattr(device, "product", product)
    assert device._rate(device.SIZES["cpu"], "cpu", "bfloat16", lambda: clock[0]) == pytest.approx(flops)
    assert clock[0] < (0.5 if flops > 0.1e9 else 1.5)
    assert max(made) == {0.05e9: 128, 0.7e9: 256, 5e9: 512}.get(flops, 1024)


def test_a_measurement_leaves_the_threads_as_they_were(monkeypatch):
    monkeypatch.setattr(device, "SECONDS", 0.001)
    threads = torch.get_num_threads()
    assert device.matrix_rate("cpu", "float32") > 0 and torch.get_num_threads() == threads


def test_a_system_without_a_list_of_instructions(monkeypatch):
    monkeypatch.setattr(device, "_cpuinfo", lambda: "")
    assert device._flags() is None and device._machine()["cpu"]
    monkeypatch.setattr(
        device, "_cpuinfo", lambda: "processor : 0\nmodel name\t: A CPU\nflags\t\t: fpu avx2 amx_bf16\n"
    )
    assert device._flags() == {"fpu", "avx2", "amx_bf16"} and device._machine()["cpu"] == "A CPU"
