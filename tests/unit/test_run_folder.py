"""The folder of a run: what a killed report left in it goes, and the same run twice at once makes it in turn."""

from filelock import FileLock, Timeout

import repro.report.build
from repro import run
from repro.execution import stages
from repro.experiments import build
from repro.settings.compose import compose
from repro.store import Store


def test_a_killed_reports_leftovers_go_and_one_report_is_made_at_a_time(tmp_path, monkeypatch):
    settings = compose(["exp=selection_30pct", "scale=smoke", f"work={tmp_path}"])
    experiment = build(settings)
    carried = stages.Carried(settings, experiment, experiment.order())
    seen = []

    def report(folder, *_):
        try:
            FileLock(f"{folder}.lock", timeout=0).acquire()
        except Timeout:
            seen.append(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))
            (folder / "figures").mkdir(exist_ok=True)
            (folder / "figures" / ".cost.svg.4711.tmp").write_text("half")
            (folder / "figures" / "cost.svg").write_text("whole")
        return {}

    monkeypatch.setattr(repro.report.build, "build", report)
    for _ in range(2):
        run._report(carried, brief=True)
    assert seen == [["config.yaml"], ["config.yaml", "figures/cost.svg"]]


def test_what_is_compared_is_part_of_the_folders_name(tmp_path):
    def folder(*arguments):
        settings = compose(["exp=selection_30pct", "scale=smoke", *arguments])
        return run.run_folder(settings, Store(tmp_path), build(settings).order())

    usual = folder()
    assert folder() == usual == folder("train.log_every_steps=3")
    others = [
        folder("exp.endpoint=accuracy_average"),
        folder("exp.contrasts=[{treatment: random, control: full, primary: true}]"),
        folder(
            "exp.contrasts=[{treatment: attention_influence, control: random, primary: true}]"
        ),  # the first alone
        folder("budget.share=0.2"),
    ]
    assert len({usual, *others}) == 5
