"""A kill while finished work is being removed."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from repro import store


def remove_one_and_die(monkeypatch, number, run):
    """``run()``, killed inside :func:`repro.store.discard` when the ``number``-th file (modulo their number) of
    the folder has gone; returns how many files it had to remove.
    """
    found = []

    def rmtree(folder):
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        found.extend(files)
        files[number % len(files)].unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "shutil", SimpleNamespace(rmtree=rmtree))
        with pytest.raises(KeyboardInterrupt):
            run()
    return len(found)
