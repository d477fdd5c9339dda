"""A few hundred of the inputs of benchmarks/fuzz.py, and that its checks see what is wrong."""

import math

import pytest

from benchmarks import fuzz, fuzz_targets
from repro.errors import SettingError

SMALL = {
    "settings of a group": 60,
    "JSON lines, plain, gz, zst": 60,
    "parquet": 40,
    "benchmark items": 30,
    "GGUF header": 30,
    "safetensors header": 40,
    "task YAML": 15,
    "imported scores": 25,
}


@pytest.mark.parametrize("name", SMALL)
def test_drawn_inputs_are_read_with_counts_that_add_up_or_refused_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    counts, fault = fuzz.fuzz(name, SMALL[name], 1, tmp_path)
    assert fault is None, fault
    assert sum(counts.values()) >= SMALL[name] / 2 and set(counts) <= {"read", "refused"}


def test_every_kind_is_drawn_and_shares_make_a_whole(tmp_path):
    targets = fuzz_targets.targets(tmp_path)
    assert set(SMALL) | {"command line", "experiment YAML"} == set(targets)
    assert math.isclose(sum(share for _, _, share in targets.values()), 1)


def test_the_checks_see_what_is_wrong(tmp_path, monkeypatch):
    """Rows that vanish, a text that changes, a message of two lines, a traceback, another value than the given one."""
    raw = b'{"text": "a b", "id": "1", "domain": "d"}\n{"text": "c d", "id": "2", "domain": "d"}\n'
    drawn = ("", raw, [{"text": "a b", "id": "1", "domain": "d"}])
    assert fuzz_targets.check_lines(tmp_path, drawn) == "read"
    stream = fuzz_targets.files.stream
    monkeypatch.setattr(fuzz_targets.files, "stream", lambda s: list(stream(s))[:1])
    with pytest.raises(fuzz_targets.Silent, match="rows"):
        fuzz_targets.check_lines(tmp_path, drawn)

    def two_lines(_):
        raise SettingError("one\ntwo")

    monkeypatch.setattr(fuzz_targets.files, "stream", two_lines)
    with pytest.raises(AssertionError, match="not one line"):
        fuzz_targets.check_lines(tmp_path, drawn)
    with pytest.raises(fuzz_targets.Silent):
        fuzz_targets.obeyed(3, 4, "a")
    with pytest.raises(fuzz_targets.Silent):
        fuzz_targets.obeyed([1, 2], [1], "a")
    monkeypatch.setattr(
        fuzz_targets, "targets", lambda folder: {"k": (fuzz_targets.scalars, lambda *_: 1 / 0, 1.0)}
    )
    counts, fault = fuzz.fuzz("k", 5, 0, tmp_path)
    assert "ZeroDivisionError" in fault and not counts
