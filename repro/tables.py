"""``python -m repro.tables``: write ``paper_tables/`` from ``results/`` and the paper's printed figures."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from repro import environment, places
from repro.errors import SettingError, require
from repro.report import still
from repro.report.cells import NOT_RUN, Cell
from repro.report.table import Table
from repro.store import atomic
from repro.store.disk import make_folder


def main(arguments: list[str] | None = None) -> int:
    """The door. Exit 2 for a user's mistake, 130 when interrupted."""
    environment.prepare(restart=arguments is None)
    parser = argparse.ArgumentParser(
        prog=environment.program or "python -m repro.tables", description=__doc__
    )
    parser.add_argument(
        "--results", type=Path, default=places.home() / "results", help="folders with a summary.json each"
    )
    parser.add_argument("--out", type=Path, default=places.home() / "paper_tables", help="where to write")
    parsed = parser.parse_args(arguments)
    try:
        written = write_whole(parsed.results, parsed.out)
        root = places.checkout()
        if root and (parsed.results, parsed.out) == (root / "results", root / "paper_tables"):
            for stale in {p.name for p in parsed.out.iterdir()} - written:  # nothing else ever writes there
                (parsed.out / stale).unlink()
            _write_readme(root, parsed.results)
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command makes them whole", file=sys.stderr)
        return 130
    print(f"tables: {parsed.out}")
    return 0


def write_whole(results_folder: Path, out: Path) -> set[str]:
    """:func:`write`, all or nothing: into a folder beside ``out``, whose files then take the place of the old
    ones.
    """
    make_folder(out.parent, "--out ")
    require(out.is_dir() or not out.exists(), f"--out {out} is not a folder; name another")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as beside:
        written = write(results_folder, Path(beside))
        out.mkdir(exist_ok=True)
        for name in sorted(written):
            os.replace(Path(beside) / name, out / name)
    return written


def write(results_folder: Path, out: Path) -> set[str]:
    """All tables, figures and the verdict page, the same bytes for the same results; returns the names of the
    files.
    """
    from repro.paper import by_share, claims, committed, picture, readme
    from repro.paper import figures as paper_figures
    from repro.paper import tables as paper_tables

    require(
        results_folder.is_dir(),
        f"--results {results_folder} is not a folder; give one of folders with a summary.json each",
    )
    results = committed.read_results(results_folder)
    require(
        bool(results), f"--results {results_folder} holds no */summary.json; tables are made of finished runs"
    )
    tables = [*paper_tables.tables(results), by_share.table(results), claims.verdict_table(results)]
    for table in tables:
        table.write(out)
    drawn = {plot.name: plot for plot in paper_figures.paper_figures(results)}
    front = picture.figure(results)
    plotted = [*drawn.values(), *(plot for plot in (readme.figure(results), front) if plot)]
    for plot in plotted:
        still.write(plot, out)
    if front:
        still.write(front, out, dark=True)
    rows: list[list[Cell]] = [[f"[{t.name}]({t.name}.md)", t.title] for t in tables]
    for n, text in paper_figures.WANTED.items():
        absent = f"{text}: {NOT_RUN}, `exp={paper_figures.MADE_BY[n]}` makes it"
        rows.append([f"[{n}]({n}.svg)", text] if n in drawn else [n, absent])
    sources = [
        f"{r.name}: {r.summary['experiment']} at scale {r.summary['scale']}, checksum"
        f" {r.summary.get('checksum', '')[:12]}"
        for r in results
    ]
    notes = [
        "Written by `python -m repro.tables` and by nothing else.",
        "Results read: " + ("; ".join(sources) or "none"),
    ]
    with atomic(out / "README.md") as temporary:
        temporary.write_text(
            Table(
                "README", "The paper's tables and figures beside ours", ["file", "content"], rows, notes
            ).markdown()
        )
    names = {f"{table.name}.{suffix}" for table in tables for suffix in ("md", "csv", "tex")}
    names |= {f"{plot.name}.{suffix}" for plot in plotted for suffix in ("svg", "png")} | {"README.md"}
    return names | ({f"{front.name}_dark.svg"} if front else set())


def _write_readme(root: Path, results_folder: Path) -> None:
    from repro.paper import committed, readme

    results = committed.read_results(results_folder)
    for page in ("README.md", "docs/speed.md"):
        readme.rewrite(root / page, results, results_folder / "benchmarks")


if __name__ == "__main__":
    sys.exit(main())
