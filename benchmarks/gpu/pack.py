"""What the GPU card needs on a machine without network, in parts small enough to be carried: ``python -m
benchmarks.gpu.pack``.

Libraries that the machine lacks (wheels, unpacked), this commit's code, the finished stages of text (corpus,
items, token ids) and the proxy's file. Inputs that only their checksums are asked of stand there as empty
files of the same size; their digests go with them, for ``benchmarks.gpu.digests`` to remember there.
``benchmarks/gpu/unpack.sh`` puts it all under /tmp/card.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.gpu.digests import CAME_EMPTY
from repro.fetch import assets
from repro.store import Store, cached, sha256_file, write_json
from repro.store.origin import COPY, copied

ROOT = Path(__file__).parents[2]
CARRIED = 64 * 2**20  # bytes that one call takes to the lent machine, the tracked files among them
SLACK = 2 * 2**20  # for what an archive says of every file, and for a file committed since
CODE = ("repro", "configs", "benchmarks", "tests/pretraining.py", "pyproject.toml")
TEXT = ("corpus", "items", "tokens", "measures", "baselines")  # finished here, stages of processors


def download(to: Path) -> None:
    """The wheels of wheels.txt for the lent machine's Python, and those of sdists.txt, built here."""
    pip, lists = [sys.executable, "-m", "pip"], Path(__file__).parent
    pinned = ["-q", "--no-deps", "-c", str(ROOT / "constraints.txt")]
    platforms = [f"--platform=manylinux{name}_x86_64" for name in ("2014", "_2_17", "_2_27", "_2_28")]
    foreign = ["--only-binary=:all:", "--python-version=3.12", "--implementation=cp", *platforms]
    subprocess.run(
        [*pip, "download", *pinned, *foreign, "-d", str(to), "-r", str(lists / "wheels.txt")], check=True
    )
    subprocess.run([*pip, "wheel", *pinned, "-w", str(to), "-r", str(lists / "sdists.txt")], check=True)


def finished(settings: list[str]) -> Path:
    """The work folder, once the stages of text of the curve's setting are finished in it."""
    from repro.experiments import build
    from repro.settings.compose import compose

    composed = compose(settings)
    store = Store(Path(composed.work))
    for stage in build(composed).order():
        if stage.name in TEXT and not store.has(stage):
            for needed in stage.ancestors():
                print(f"{needed.name}  {needed.label}", flush=True)
                store.ensure(needed)
    return Path(composed.work)


def libraries(wheels: Path, to: Path) -> None:
    """Unpack wheels side by side; nothing of them is run."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(to)


def code(to: Path) -> None:
    """The tracked files that run, and which commit they are."""
    listed = subprocess.run(
        ["git", "ls-files", "--", *CODE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = listed.stdout.split("\n")[:-1]
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, to / name)
    (to / COPY).write_text(json.dumps(copied(names, ROOT)))


def stages(work: Path, to: Path) -> None:
    """Finished artifacts of text."""
    for kind in TEXT:
        for folder in (work / "artifacts" / kind).glob("*/manifest.json"):
            shutil.copytree(folder.parent, to / "artifacts" / kind / folder.parent.name)


def placeholders(folders: Iterable[tuple[Path, str]], to: Path, cache: Path) -> None:
    """Empty files of the same names and sizes as those under (folder, place there), and in the cache the
    digest of each by its path there.
    """
    known = {}
    for folder, place in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            relative = f"{place}/{path.relative_to(folder)}"
            empty = to / relative
            empty.parent.mkdir(parents=True, exist_ok=True)
            with open(empty, "wb") as handle:
                handle.truncate(path.stat().st_size)
            known[relative] = sha256_file(path)
    write_json(cache / f"{CAME_EMPTY}.json", known)


def archive(folder: Path, target: Path) -> None:
    """Compressed hard, on all cores."""
    with open(target, "wb") as out:
        tar = subprocess.Popen(
            ["tar", "--sparse", "-C", str(folder), "-cf", "-", "."], stdout=subprocess.PIPE
        )
        subprocess.run(["xz", "-T0", "-6"], stdin=tar.stdout, stdout=out, check=True)
        assert tar.wait() == 0


def room() -> int:
    """Bytes that a part may have: what one call carries beside the files that travel with each."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in found.split("\0")[:-1]]
    return CARRIED - SLACK - sum(path.lstat().st_size for path in paths if os.path.lexists(path))


def in_parts(files: list[Path], out: Path, most: int) -> int:
    """The bytes of ``files``, one after the other, as ``out/<n>/<file>.<nnn>`` with at most ``most`` bytes in
    each folder n.
    """
    number, room = 1, most
    for path in files:
        data, piece = path.read_bytes(), 0
        while data:
            if not room:
                number, room = number + 1, most
            (out / str(number)).mkdir(parents=True, exist_ok=True)
            (out / str(number) / f"{path.name}.{piece:03d}").write_bytes(data[:room])
            taken = min(room, len(data))
            data, room, piece = data[taken:], room - taken, piece + 1
    return number


def main() -> None:
    """Pack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--wheels", type=Path, help="folder of what the machine lacks; downloaded unless given"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("work"), help="the stages of text are finished here first"
    )
    parser.add_argument("--corpus", type=Path, required=True, help="corpus.folder")
    parser.add_argument("--items", type=Path, required=True, help="items.folder")
    parser.add_argument("--to", type=Path, default=ROOT / ".gpu")
    parser.add_argument(
        "--most", type=float, help="MB a part; unless given, what a call carries beside the tracked files"
    )
    given = parser.parse_args()
    most = room() if given.most is None else int(given.most * 1e6)
    if most <= 0:
        parser.error("the tracked files alone fill what a call carries; pack from a smaller checkout")
    made = given.to / "made"
    shutil.rmtree(given.to, ignore_errors=True)
    if given.wheels is None:
        given.wheels = given.to / "wheels"
        download(given.wheels)
    folders = [f"corpus.folder={given.corpus}", f"items.folder={given.items}", f"work={given.work}"]
    work = finished(["exp=pilot", "scale=curve", "corpus=wide", "items=folder", *folders])
    libraries(given.wheels, made / "libraries" / "site")
    text = made / "text"
    stages(work, text / "work")
    placeholders([(given.corpus, "corpus"), (given.items, "items")], text, text / "cache")
    code(made / "code" / "code")
    proxy = next(assets.fetch("smollm2").glob("**/*.gguf"))
    place = made / "proxy" / "cache" / proxy.relative_to(cached.cache())
    place.parent.mkdir(parents=True)
    os.link(proxy, place)
    files = []
    for name in ("code", "libraries", "text", "proxy"):
        files.append(given.to / f"{name}.tar.xz")
        archive(made / name, files[-1])
        print(f"{name}: {files[-1].stat().st_size / 1e6:.1f} MB", flush=True)
    print(f"{in_parts(files, given.to, most)} parts of at most {most / 1e6:.1f} MB")
    shutil.rmtree(made)
    shutil.rmtree(given.to / "wheels", ignore_errors=True)
    for path in files:
        path.unlink()


if __name__ == "__main__":
    main()
