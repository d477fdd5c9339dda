"""A folder of finished runs as static pages: an index that filters, each run's page beside its summary."""

from __future__ import annotations

from pathlib import Path

from repro.errors import SettingError, require
from repro.outcomes import summary
from repro.report import build
from repro.store import atomic
from repro.store.disk import make_folder


def write(folder: Path, out: Path) -> Path:
    """``out/index.html`` and ``out/<run>/report.html`` of every ``folder/*/summary.json``; returns the index.

    An edited, foreign or older summary is a row that says so; the others are shown. Raises ``SettingError``
    where there is no summary at all.
    """
    from jinja2 import Environment, FileSystemLoader

    paths = sorted(folder.glob("*/summary.json"))
    require(
        bool(paths), f"{folder} holds no summary.json and no */summary.json; give a run's or such a folder"
    )
    make_folder(out, "--out ")
    rows = []
    for path in paths:
        name = path.parent.name
        try:
            found = summary.read(path)
        except SettingError as error:
            rows.append(
                {"name": name, "experiment": "", "scale": "", "verdict": "not read", "said": str(error)}
            )
            continue
        own = out / name
        for beside in ("summary.json", "config.yaml", "examples.json", "samples.json"):
            if own.resolve() != path.parent.resolve() and (path.parent / beside).is_file():
                with atomic(own / beside) as temporary:
                    temporary.write_bytes((path.parent / beside).read_bytes())
        build.draw(own, found)
        verdict = found["verdict"]
        said = "demonstration" if verdict["demonstration"] else verdict["words"] or "described"
        about = {"experiment": found["experiment"], "scale": found["scale"], "said": verdict["sentence"]}
        rows.append({"name": name, "verdict": said, "page": f"{name}/report.html", **about})
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    choices = {
        key: sorted({row[key] for row in rows if row[key]}) for key in ("experiment", "scale", "verdict")
    }
    page = environment.get_template("site.html.j2").render(rows=rows, choices=choices)
    with atomic(out / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out / "index.html"
