"""The whole job at ``scale=smoke`` as a user runs it: outcome, caching, resume after kills, refusals without traceback."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECRETS = {  # planted: none may be found again
    "HF_TOKEN": "hf_" + "Q" * 34,
    "WANDB_API_KEY": "c0ffee" * 6 + "abcd",
    "OPENAI_API_KEY": "sk-planted-0123456789abcdefghij",
    "JUDGE_KEY": "planted-judge-key-000",
    "SOME_PROXY_URL": "https://user:planted-password@proxy.invalid/",
    "AWS_SECRET_ACCESS_KEY": "planted/aws/secret+access",
}
ENV = {**os.environ, **SECRETS, "OMP_NUM_THREADS": "1", "WANDB_SILENT": "true"}
TIMED = (
    "manifest.json",
    "metrics.jsonl",
    "results.json",
    "wandb/",
)  # hold clock times; everything else must be equal


def command(*arguments):
    return [sys.executable, "-m", "repro.run", *arguments]


def run(*arguments):
    return subprocess.run(command(*arguments), cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    done = run("exp=selection_30pct", "scale=smoke", f"work={work}")
    assert done.returncode == 0, done.stderr[-3000:]
    return work, done


def stages_run(output):
    """Names of the stages a run's log says were computed, cached ones left out."""
    return [line.split("]")[1].split()[0] for line in output.splitlines() if "  done in " in line]


def test_the_run_folder_holds_what_is_promised(smoke):
    work, done = smoke
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("run: ")
    folder = Path(last.removeprefix("run: "))
    for name in ("config.yaml", "summary.json", "report.html"):
        assert (folder / name).stat().st_size > 0, name
    for kind, suffixes in (("tables", (".md", ".csv", ".tex")), ("figures", (".png", ".svg"))):
        assert {p.suffix for p in (folder / kind).iterdir()} >= set(suffixes)
    page = (folder / "report.html").read_text()
    assert "default-src 'none'" in page  # the browser itself refuses every request
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=.https?:", page)
    assert "demonstration" in done.stdout.lower()


def test_planted_secrets_are_nowhere(smoke):
    """In no file of store and run folder, W&B's own included, and in nothing that was printed."""
    work, done = smoke
    secrets = [*(value.encode() for name, value in SECRETS.items() if "URL" not in name), b"planted-password"]
    places = {path: path.read_bytes() for path in sorted(work.rglob("*")) if path.is_file()}
    assert any(path.suffix == ".wandb" for path in places) and any(
        path.name == "report.html" for path in places
    )
    places[Path("stdout")], places[Path("stderr")] = done.stdout.encode(), done.stderr.encode()
    assert [str(path) for path, data in places.items() if any(secret in data for secret in secrets)] == []
    assert not [path for path in places if any(secret.decode() in str(path) for secret in secrets)]


def test_documents_in_are_kept_plus_dropped(smoke):
    work, _ = smoke
    (counts,) = work.glob("artifacts/corpus/*/counts.json")
    counts = json.loads(counts.read_text())
    assert counts["in"] == counts["kept"] + sum(counts["dropped"].values())


def test_the_known_copying_heads_of_the_built_proxy_are_the_selected_ones(smoke):
    from repro.proxy.built import INDUCTION

    (heads,) = smoke[0].glob("artifacts/heads/*/heads.json")
    selected = [tuple(head) for head in json.loads(heads.read_text())["selected"]]
    assert selected == [INDUCTION]


def test_paired_arms_start_from_the_same_weights_and_arms_read_what_was_selected(smoke):
    import polars as pl

    for folder in smoke[0].glob("artifacts/pretrain/*"):
        if not folder.is_dir() or not (folder / "manifest.json").is_file():
            continue
        manifest = json.loads((folder / "manifest.json").read_text())
        selection = smoke[0] / "artifacts" / manifest["inputs"]["selection"]["folder"] / "selection.parquet"
        chosen = set(pl.read_parquet(selection).filter(pl.col("repeats") > 0)["doc_id"])
        read = set(pl.read_parquet(folder / "reads.parquet").filter(pl.col("reads") > 0)["doc_id"])
        assert read and read <= chosen


def test_the_same_command_again_computes_nothing_and_another_share_keeps_detection_and_scoring(smoke):
    work, _ = smoke
    again = run("exp=selection_30pct", "scale=smoke", f"work={work}")
    assert again.returncode == 0 and stages_run(again.stdout) == []
    plan = run("exp=selection_30pct", "scale=smoke", f"work={work}", "budget.share=0.5", "--plan")
    state = {line.split()[0]: ("cached" in line) for line in plan.stdout.splitlines() if line.split()[:1]}
    assert state["heads"] and state["score"] and state["tokens"]
    assert not state["pretrain"]


def test_a_packed_run_is_done_on_another_machine_and_selects_anew_without_scoring(smoke, tmp_path):
    from repro.store.__main__ import main, settings_of

    work, done = smoke
    here = Path(done.stdout.strip().splitlines()[-1].removeprefix("run: "))
    assert settings_of([str(here)]).work == str(work)
    assert main(["pack", str(here), "--to", str(tmp_path / "results" / "smoke")]) == 0
    assert main(["unpack", str(tmp_path / "results" / "smoke" / "store.tar.zst"), f"work={tmp_path}"]) == 0
    assert not list(tmp_path.glob("artifacts/**/*.safetensors"))
    again = run("exp=selection_30pct", "scale=smoke", f"work={tmp_path}")
    assert again.returncode == 0 and stages_run(again.stdout) == [], again.stderr[-3000:]
    summaries = [
        json.loads((folder / "runs" / here.name / "summary.json").read_text()) for folder in (work, tmp_path)
    ]
    for summary in summaries:
        del summary["provenance"], summary["checksum"]
    assert summaries[0] == summaries[1]
    anew = run(
        "exp=score_corpus", "scale=smoke", f"work={tmp_path}", "budget.share=0.5", "score.max_tokens=256"
    )
    assert anew.returncode == 0 and set(stages_run(anew.stdout)) == {"items", "corpus", "selection"}, (
        anew.stderr[-3000:]
    )


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(smoke, tmp_path):
    arguments = ("exp=selection_30pct", "scale=smoke", f"work={tmp_path}", "exp.seeds=[0]")
    generator, logs = random.Random(0), []
    for _ in range(4):
        process = subprocess.Popen(command(*arguments), cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                   text=True, start_new_session=True)  # fmt: skip
        time.sleep(generator.uniform(8, 16))
        os.killpg(process.pid, signal.SIGKILL)
        logs.append(process.communicate()[0])
    last = run(*arguments)
    assert last.returncode == 0, last.stderr[-3000:]
    computed = [stage for log in [*logs, last.stdout] for stage in stages_run(log)]
    assert computed.count("score") <= 1 and computed.count("heads") <= 1  # finished stages are not redone
    assert equal_files(tmp_path, smoke[0]) > 20


@pytest.mark.slow
def test_arms_side_by_side_end_with_the_same_bytes_and_one_that_diverges_is_a_row(smoke, tmp_path):
    work, _ = smoke
    shutil.copytree(
        work / "artifacts", tmp_path / "artifacts", ignore=shutil.ignore_patterns("pretrain", "evaluate")
    )
    arms = (
        "exp.only=[attention_influence,random]",
        "exp.arms.hot.select=random",
        "exp.arms.hot.train.learning_rate=1e30",
    )
    done = run(
        "exp=selection_30pct", "scale=smoke", f"work={tmp_path}", "exp.seeds=[0]", "run.parallel=2", *arms
    )
    assert done.returncode == 1, done.stderr[-3000:]
    at_work, most = set(), 0
    for line in done.stdout.splitlines():
        place = line.partition("]")[0]
        at_work = at_work | {place} if line.endswith("  running") else at_work - {place}
        most = max(most, len(at_work))
    assert most == 2
    said = done.stdout.strip().splitlines()[-1]
    summary = json.loads((Path(said.removeprefix("run: ")) / "summary.json").read_text())
    ((arm, seed, stage),) = [(row["arm"], row["seed"], row["stage"]) for row in summary["failed"]]
    assert (arm, seed, stage) == (
        "hot",
        0,
        "pretrain",
    ) and "error: hot, seed 0: pretrain failed" in done.stderr
    assert "Traceback" not in done.stderr and list(summary["arms"]) == ["random", "attention_influence"]
    assert (
        len(list(tmp_path.glob("artifacts/evaluate/*/manifest.json"))) == 2
        and equal_files(tmp_path, work) > 20
    )


@pytest.mark.slow
def test_a_damaged_byte_in_every_kind_of_artifact_is_found_and_made_anew(smoke, tmp_path):
    work, _ = smoke
    shutil.copytree(work / "artifacts", tmp_path / "artifacts")
    generator, damaged = random.Random(0), {}
    for kind in sorted((tmp_path / "artifacts").iterdir()):
        for folder in sorted(f.parent for f in kind.glob("*/manifest.json"))[:1]:
            files = [
                p
                for p in sorted(folder.rglob("*"))
                if p.is_file() and p.stat().st_size and "wandb" not in p.parts
            ]
            path = generator.choice([p for p in files if p.name != "manifest.json"])
            data = bytearray(path.read_bytes())
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
            path.write_bytes(data)
            damaged[str(folder.relative_to(tmp_path / "artifacts"))] = str(path.relative_to(folder))
    again = run("exp=selection_30pct", "scale=smoke", f"work={tmp_path}")
    assert again.returncode == 0 and len(damaged) > 8, again.stderr[-3000:]
    for folder, name in damaged.items():
        assert f"warning: {folder} is damaged: {name}" in again.stderr
        assert (tmp_path / "artifacts" / folder / "manifest.json").is_file()
    assert sorted(stages_run(again.stdout)) == sorted(folder.split("/")[0] for folder in damaged)
    assert equal_files(tmp_path, work) > 20


def equal_files(work, undisturbed):
    """How many files of artifacts in ``work`` were compared with those of the same name in another store, all equal."""
    compared = 0
    for manifest in work.glob("artifacts/*/*/manifest.json"):
        expected = json.loads((undisturbed / manifest.relative_to(work)).read_text())["files"]
        files = json.loads(manifest.read_text())["files"]
        for name in files.keys() | expected.keys():
            if not name.endswith(TIMED) and not name.startswith(TIMED):
                assert files.get(name) == expected.get(name), f"{manifest.parent.name}/{name}"
                compared += 1
    return compared


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["exp=selection_30pc"], "selection_30pct"),
        (["exp=selection_30pct", "scale=smoke", "budget.share=2"], "(0, 1]"),
        (
            ["exp=score_corpus", "scale=smoke", "corpus=files", "corpus.paths=[/nowhere/x.jsonl]"],
            "/nowhere/x.jsonl",
        ),
        (["exp=score_corpus", "scale=smoke", "proxy=folder", "proxy.path=/nowhere"], "/nowhere"),
        (["exp=selection_30pct", "scale=smoke", "items=folder", "items.folder=/nowhere"], "/nowhere"),
    ],
)
def test_a_users_mistake_is_one_line_without_traceback(arguments, says, tmp_path):
    done = run(*arguments, f"work={tmp_path}")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = [x for x in done.stderr.strip().splitlines() if x.startswith("error: ")]
    assert says in line
