"""The way of the GPU card to a lent machine and back: what is carried, unpacked, run in its order and brought."""

import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from benchmarks.gpu import digests, evidence, pack, page
from repro.store import cached, sha256_file

GPU = Path(pack.__file__).parent


def script(name, *arguments, **variables):
    """A script of the card, and how it ended."""
    own = {name: value for name, value in os.environ.items() if name not in ("EVIDENCE_SECONDS", "SETTINGS")}
    command = ["bash", str(GPU / name), *map(str, arguments)]
    return subprocess.run(command, env=own | variables, capture_output=True, text=True)


def program(path, text):
    """An executable of one's own in the place of another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def carried(made, tmp_path, name="text", damaged=False):
    """What becomes of a packed folder in parts, kept at the other machine's place."""
    whole = tmp_path / f"{name}.tar.xz"
    pack.archive(made, whole)
    if damaged:
        whole.write_bytes(whole.read_bytes()[:-20])
    parts = tmp_path / f"parts-{name}"
    for number in range(1, pack.in_parts([whole], parts, 100) + 1):
        assert script("unpack.sh", "keep", parts / str(number), CARD=str(tmp_path / "there")).returncode == 0
    return tmp_path / "there"


def test_the_digests_of_files_that_came_empty_are_found(tmp_path, monkeypatch):
    corpus, items = tmp_path / "wide", tmp_path / "benchmarks"
    for path in (corpus / "en" / "a.jsonl", corpus / "b.jsonl", items / "c.jsonl"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {path.name}" * 9)
    made = tmp_path / "made"
    pack.placeholders([(corpus, "corpus"), (items, "items")], made, made / "cache")
    there = carried(made, tmp_path)
    assert script("unpack.sh", "open", "text", CARD=str(there)).returncode == 0
    monkeypatch.setenv("REPRO_CACHE", str(there / "cache"))
    digests.remember(there)

    real = [corpus / "b.jsonl", corpus / "en" / "a.jsonl", items / "c.jsonl"]
    empty = [there / "corpus" / "b.jsonl", there / "corpus" / "en" / "a.jsonl", there / "items" / "c.jsonl"]
    assert [path.stat().st_size for path in empty] == [path.stat().st_size for path in real]
    assert not any(path.read_bytes().strip(b"\0") for path in empty)
    monkeypatch.setattr(cached, "sha256_file", lambda path: pytest.fail(f"{path} was read"))
    assert cached.content_digests(empty) == [sha256_file(path) for path in real]


def test_a_part_and_the_tracked_files_fit_in_one_call(tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "ROOT", tmp_path)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text(".gpu")
    (tmp_path / ".gpu").write_bytes(b"x" * 999)
    (tmp_path / "tracked").write_bytes(b"x" * 5000)
    assert pack.room() == 64 * 2**20 - 2 * 2**20 - 5004
    # refused before twelve minutes of packing, and before a part of no bytes goes on for ever
    monkeypatch.setattr(pack, "CARRIED", pack.SLACK)
    monkeypatch.setattr(pack, "finished", lambda _: pytest.fail("it packs"))
    monkeypatch.setattr(pack, "download", lambda _: pytest.fail("it packs"))
    monkeypatch.setattr(sys, "argv", ["pack", "--corpus", "c", "--items", "i", "--to", str(tmp_path / "to")])
    with pytest.raises(SystemExit, match="2"):
        pack.main()


def test_the_parts_hold_all_bytes_and_no_folder_more_than_it_may(tmp_path):
    files = [tmp_path / "one", tmp_path / "two"]
    for path, size in zip(files, (250, 70), strict=True):
        path.write_bytes(os.urandom(size))
    assert pack.in_parts(files, tmp_path / "out", 100) == 4
    for number in range(1, 5):
        assert sum(path.stat().st_size for path in (tmp_path / "out" / str(number)).iterdir()) <= 100
    for path in files:
        pieces = sorted((tmp_path / "out").glob(f"*/{path.name}.*"), key=lambda piece: piece.name)
        assert b"".join(piece.read_bytes() for piece in pieces) == path.read_bytes()


@pytest.mark.parametrize("bad", ["first", "last", None])
def test_unpacking_fails_where_one_archive_does(tmp_path, bad):
    made = tmp_path / "made"
    made.mkdir()
    for name in ("first", "last"):
        (made / "file").write_bytes(os.urandom(3000))
        there = carried(made, tmp_path, name, damaged=name == bad)
    done = script("unpack.sh", "open", "first", "last", CARD=str(there))
    assert (done.returncode == 0) is (bad is None), done.stderr
    assert script("unpack.sh", "open", "first", "absent", CARD=str(there)).returncode != 0


def test_the_card_ends_with_the_worst_code(tmp_path):
    program(
        tmp_path / "bin" / "python3", 'case "$2" in *correctness) exit 1 ;; *speed) exit ${SPEED:-0} ;; esac'
    )
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "CARD": str(tmp_path / "none")}
    done = script("card.sh", tmp_path / "out", **path)
    assert done.returncode == 1 and done.stdout.endswith("evidence: exit 0\n"), "what came first is forgotten"
    assert script("card.sh", tmp_path / "out", SPEED="7", **path).returncode == 7
    assert script("card.sh", tmp_path / "out", "speed", "evidence", **path).returncode == 0
    assert script("card.sh", tmp_path / "out", "sped", **path).returncode == 1


def test_the_card_ends_well_within_a_command_of_the_lent_machine(tmp_path):
    program(tmp_path / "bin" / "timeout", f'echo "$2 $3" >> {tmp_path / "limits"}')
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "CARD": str(tmp_path / "none")}
    assert script("card.sh", tmp_path / "out", **path).returncode == 0
    limits = [line.split() for line in (tmp_path / "limits").read_text().splitlines()]
    assert len(limits) == 3 and sum(int(kill) + int(limit) for kill, limit in limits) <= 590


def test_carried_inputs_are_remembered_before_anything_runs(tmp_path):
    for name in ("site", "code"):
        (tmp_path / name).mkdir()
    said = tmp_path / "said"
    program(tmp_path / "bin" / "python3", f'echo "$2 $3 in $REPRO_CACHE" >> {said}; exit ${{CODE:-0}}')
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "CARD": str(tmp_path)}
    assert script("card.sh", tmp_path / "out", "evidence", **path).returncode == 0
    assert said.read_text().startswith(f"benchmarks.gpu.digests {tmp_path} in {tmp_path / 'cache'}\n")
    said.unlink()
    assert script("card.sh", tmp_path / "out", "evidence", CODE="1", **path).returncode == 1
    assert len(said.read_text().splitlines()) == 1, "it goes on without the digests"


def test_make_writes_where_the_page_reads(tmp_path):
    program(tmp_path / "bin" / "python3", f'echo "$@" >> {tmp_path / "said"}')
    (tmp_path / ".installed").touch()  # nothing is to be installed
    make = ["make", "-s", "gpu-card", f"VENV={tmp_path}", "CORPUS=c", "ITEMS=i"]
    own = os.environ | {"CARD": str(tmp_path / "none")}
    subprocess.run(make, cwd=page.ROOT, env=own, check=True, capture_output=True)
    for line in (tmp_path / "said").read_text().splitlines():
        words = line.split()
        if "--out" in words:
            assert words[words.index("--out") + 1] == str(page.RESULTS), line
    assert sum("--out" in line for line in (tmp_path / "said").read_text().splitlines()) == 3


class Machine:
    """Processes that end when they are waited for, as ``codes`` says, and ``packs`` packs of ``size`` bytes."""

    TimeoutExpired = subprocess.TimeoutExpired

    def __init__(self, codes=(), size=0, packs=9):
        self.codes, self.size, self.packs = dict(codes), size, packs
        self.events = []

    def start(self, card, name, *command):
        machine = self

        class Process:
            args = name

            def wait(self, _):
                machine.events.append(("ended", name))
                return machine.codes.get(name, 0)

            def poll(self):
                return 0

        (card.out / f"{name}.log").write_text(name)
        self.events.append(("started", name))
        card.names.append(name)
        return Process()

    def run(self, command, env):
        target = Path(command[command.index("--pack") + 1])
        code = self.codes.get(target.name, 0)
        if not self.packs:
            raise KeyboardInterrupt  # the command's time is up
        self.packs -= 1
        if not code:
            target.write_bytes(os.urandom(self.size))
        return subprocess.CompletedProcess(command, code)


def card(monkeypatch, tmp_path, machine):
    monkeypatch.setattr(evidence.Card, "start", lambda self, *said: machine.start(self, *said))
    monkeypatch.setattr(evidence, "subprocess", machine)
    monkeypatch.setattr(evidence.time, "sleep", lambda _: None)
    out, own = tmp_path / "out", tmp_path / "own"
    words = ["evidence", "--out", out, "--own", own, "--seconds", 1000, "work=w"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    return evidence.main()


def brought(tmp_path):
    """Names of what came back, the archive put together as the document says."""
    whole = tmp_path / "whole.tar"
    pieces = sorted((tmp_path / "out").glob("evidence.tar.*"))
    whole.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    with tarfile.open(whole) as archive:
        return [member.name for member in archive if archive.extractfile(member).read() is not None]


def test_no_evaluation_starts_beside_its_trainings(tmp_path, monkeypatch):
    machine = Machine()
    assert card(monkeypatch, tmp_path, machine) == 0
    *before, evaluated, _ = machine.events
    assert evaluated == ("started", "accuracy_vs_data-evaluate")
    trainings = [name for what, name in before if what == "started" and name[-1].isdigit()]
    assert len(trainings) == 15  # 2 of the pilot, 2 of its rates, twice 4 of the curve, 3 of the next size
    assert all(("ended", name) in before for name in trainings)


def test_the_next_size_is_not_evaluated_when_the_time_is_up(tmp_path, monkeypatch):
    machine = Machine()
    last = ("ended", "accuracy_vs_data-8-2")
    monkeypatch.setattr(evidence.Card, "left", lambda _: 10 if last in machine.events else 200)
    assert card(monkeypatch, tmp_path, machine) == 0
    assert machine.events[-1] == last


def test_what_was_packed_is_there_when_the_command_is_ended(tmp_path, monkeypatch):
    """In pieces that the lent machine gives back, and with the logs."""
    monkeypatch.setattr(evidence, "PIECE", 20_000)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "evidence.tar.77").write_text("of an earlier run")
    with pytest.raises(KeyboardInterrupt):
        card(monkeypatch, tmp_path, Machine(size=50_000, packs=2))
    names = brought(tmp_path)
    assert [name for name in names if name.endswith(".zst")] == ["pilot.tar.zst", "curve.tar.zst"]
    assert "before.log" in names and "pilot-evaluate.log" in names
    assert max(path.stat().st_size for path in (tmp_path / "out").iterdir()) == 20_000
    assert all(path.name.startswith("evidence.tar.") for path in (tmp_path / "out").iterdir())


def test_a_full_load_comes_back():
    """64 MiB in all come back, in eight files of 16 MiB; two of them hold the rows of the other parts."""
    assert evidence.PIECE <= 16 * 2**20 and -(-64 * 2**20 // evidence.PIECE) <= 6


@pytest.mark.parametrize("name", ["pilot-evaluate", "before", "rates.tar.zst"])
def test_a_step_that_fails_is_the_exit_code(tmp_path, monkeypatch, capsys, name):
    assert card(monkeypatch, tmp_path, Machine({name: 2})) == 1
    assert name.split(".")[0] in capsys.readouterr().out.splitlines()[-1]
    assert "next.tar.zst" in brought(tmp_path)
