"""What Slurm is asked, on a stand-in for ``squeue``."""

import pytest

from repro.execution import slurm


@pytest.mark.parametrize(
    ("script", "found"),
    [
        (
            "echo '7 RUNNING None'; echo '7 PENDING JobArrayTaskLimit'; echo '9 PENDING Resources'",
            {"7": {"RUNNING None", "PENDING JobArrayTaskLimit"}, "9": {"PENDING Resources"}},
        ),
        ("true", {}),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", None),
    ],
)
def test_jobs_and_their_states_and_nothing_where_it_cannot_be_asked(tmp_path, monkeypatch, script, found):
    (tmp_path / "squeue").write_text(f"#!/bin/bash\n{script}\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert slurm.queued() == found
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert slurm.queued() is None


def test_a_controller_that_does_not_answer_loses_no_job(monkeypatch):
    of_corpus = pytest.importorskip("repro.corpus.pipeline.slurm", exc_type=ImportError)
    answers = [{"7": {"RUNNING None"}}, None, {}]
    monkeypatch.setattr(of_corpus, "queue", lambda: answers.pop(0))
    monkeypatch.setattr(of_corpus, "QUEUE_SECONDS", 0.0)
    jobs = of_corpus.Jobs(["7"])
    assert [jobs.queued() for _ in range(3)] == [True, True, False]
    monkeypatch.setattr(of_corpus, "QUEUE_SECONDS", 60.0)
    assert jobs.queued() is False, "not asked again so soon"
