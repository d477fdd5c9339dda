"""Remember the digests of the files that came empty (``benchmarks.gpu.pack``): ``python -m
benchmarks.gpu.digests FOLDER``, where FOLDER holds them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from repro.store import cached

CAME_EMPTY = "came_empty"  # in the cache: path below FOLDER -> sha256 of the file that was left behind


def remember(folder: Path) -> None:
    """Let :func:`repro.store.cached.content_digests` find, for every such file, the digest that came with it:
    it looks for them by times and node of the file, which exist only now that the file is unpacked.
    """
    known = {folder / name: digest for name, digest in cached.recall(CAME_EMPTY).items()}
    cached.content_digests(list(known), known.__getitem__)


if __name__ == "__main__":
    remember(Path(sys.argv[1]))
