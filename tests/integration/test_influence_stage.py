import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars
import pytest
import scoring_corpus as given
import torch

from repro.errors import SettingError
from repro.influence import shards, workers
from repro.influence.settings import Score
from repro.store import Context, Store, read_json, sha256_file, write_json

SCORE = Score(window=64, max_tokens=160, tokens_per_batch=512, token_losses=1, processes=1)
STRANGE = ["", "x", "word " * 400, "\u2028 line \U0001f600 \x00"]


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("work"))
    found = given.stages(SCORE, documents=given.corpus(extra=STRANGE))
    given.ensure_all(store, found["score"])
    return store, found


def test_heads_of_the_constructed_proxy(scored):
    store, found = scored
    heads = read_json(store.path(found["heads"]) / "heads.json")
    assert heads["selected"] == [[1, 0]]
    assert heads["scores"][1][0] > 0.5 and sum(map(sum, heads["scores"])) == heads["scores"][1][0]
    assert (
        heads["effect_on_probes"]["accuracy_base"] > 0.5 > 0.1 >= heads["effect_on_probes"]["accuracy_masked"]
    )
    assert heads["num_layers"] == 2 and heads["num_heads"] == 4


def test_scores_against_a_plain_computation(scored):
    """Every document again, with the library's own labels loss and a model whose query weights are zeroed by hand."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    store, found = scored
    folder = store.path(found["proxy"]) / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    reference = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    reference.model.layers[1].self_attn.q_proj.weight.data[:256] = 0  # layer 1, head 0
    checked = 0
    for path in sorted((store.path(found["score"]) / "scores").glob("*.parquet")):
        texts = polars.read_parquet(store.path(found["corpus"]) / "documents" / path.name)
        scores = polars.read_parquet(path)
        assert scores["doc_id"].to_list() == texts["doc_id"].to_list()
        for row, text in zip(scores.iter_rows(named=True), texts["text"], strict=True):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert row["n_tokens_doc"] == len(ids)
            sums, predicted, fed = [0.0, 0.0], 0, 0
            capped = ids[:160]
            for start in range(0, len(capped), 64):
                window = torch.tensor([capped[start : start + 64]])
                if window.shape[1] < 2:
                    continue
                fed += window.shape[1]
                predicted += window.shape[1] - 1
                for i, model in enumerate((base, reference)):
                    with torch.no_grad():
                        sums[i] += float(model(window, labels=window).loss) * (window.shape[1] - 1)
            assert row["n_tokens"] == fed
            if not predicted:
                assert row["score"] is None and row["reason"] == "one token or none"
                continue
            np.testing.assert_allclose(
                [row["loss_base"], row["loss_ref"]], np.array(sums) / predicted, rtol=1e-5
            )
            np.testing.assert_allclose(row["score"], (sums[1] - sums[0]) / sums[0], rtol=1e-4, atol=1e-6)
            checked += 1
    assert checked >= 24


def test_a_sample_is_scored_as_it_is_in_the_whole_and_the_rest_says_why_not(scored, tmp_path):
    store, found = scored
    whole = polars.concat(
        [polars.read_parquet(p) for p in sorted((store.path(found["score"]) / "scores").glob("*.parquet"))]
    )
    drawn = {}
    for share in (0.3, 0.6):
        stages = given.stages(
            replace(SCORE, sample=share, token_losses=0),
            documents=given.corpus(extra=["", "x", "word " * 400, "\u2028 line \U0001f600 \x00"]),
        )
        assert stages["score"].fingerprint != found["score"].fingerprint
        own = Store(tmp_path / str(share))
        given.ensure_all(own, stages["score"])
        files = sorted((own.path(stages["score"]) / "scores").glob("*.parquet"))
        part = polars.concat([polars.read_parquet(p) for p in files])
        assert part["doc_id"].equals(whole["doc_id"])
        here = part["reason"].ne_missing("not in the sample")
        drawn[share] = set(part.filter(here)["doc_id"])
        facts = read_json(own.path(stages["score"]) / "manifest.json")["facts"]
        assert facts["documents_cut"] == (part.filter(here)["n_tokens_doc"] > 160).sum()
        both = part.filter(here).join(whole, on="doc_id", suffix="_whole")
        np.testing.assert_allclose(
            both["loss_ref"].to_numpy(), both["loss_ref_whole"].to_numpy(), rtol=1e-5
        )  # batches are cut elsewhere
        assert part.filter(~here)["score"].null_count() == (~here).sum() > 0
        assert part["n_tokens_doc"].equals(whole["n_tokens_doc"])
    assert drawn[0.3] < drawn[0.6] and 0.4 < len(drawn[0.6]) / len(whole) < 0.8


def test_repeated_text_scores_highest_and_is_reported(scored):
    store, found = scored
    scores = polars.read_parquet(store.path(found["score"]) / "scores" / "a-00000.parquet").sort(
        "score", descending=True
    )
    repeated = scores.filter(polars.col("repetition") > 0.9)
    assert repeated.height == 1 and repeated["compressibility"][0] < 0.1
    assert repeated["score"][0] == scores.drop_nulls("score")["score"].max()
    facts = read_json(store.path(found["score"]) / "manifest.json")["facts"]
    assert facts["documents"] == 28 and facts["unscored"] == {"one token or none": 2}


def test_token_losses_of_extremes(scored):
    store, found = scored
    rows = read_json(store.path(found["score"]) / "tokens.json")
    assert {(r["domain"], r["end"]) for r in rows} == {(d, e) for d in "ab" for e in ("highest", "lowest")}
    scores = polars.concat(
        [polars.read_parquet(p) for p in sorted((store.path(found["score"]) / "scores").glob("*.parquet"))]
    )
    for row in rows:
        known = scores.filter(polars.col("doc_id") == row["doc_id"]).row(0, named=True)
        means = [np.mean([t[key] for t in row["tokens"]]) for key in ("loss_base", "loss_ref")]
        np.testing.assert_allclose(means, [known["loss_base"], known["loss_ref"]], rtol=1e-6)


SCRIPT = """
import sys
from pathlib import Path
import scoring_corpus as given
from repro.influence.settings import Score
from repro.store import Store
if __name__ == "__main__":
    score = Score(window=64, max_tokens=160, tokens_per_batch=512, token_losses=1, processes=2)
    found = given.stages(score, documents=given.corpus(per_shard=4, shards=24))
    given.ensure_all(Store(Path(sys.argv[1])), found["score"])
"""


INTERRUPTED = """
    try:
        given.ensure_all(Store(Path(sys.argv[1])), found["score"])
    except KeyboardInterrupt:
        print("interrupted")
        sys.exit(130)
"""


def contents(folder):
    return {
        p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "manifest.json"
    }


def workers_of(pid):
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True
    ).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "spawn_main" in line]


@pytest.mark.slow
def test_killed_parent_and_killed_worker_leave_the_same_files(tmp_path):
    """Two processes; first the parent is killed, then a worker: the files are those of one undisturbed process."""
    found = given.stages(SCORE, documents=given.corpus(per_shard=4, shards=24))
    expected = contents(given.ensure_all(Store(tmp_path / "calm"), found["score"]))

    script = tmp_path / "score.py"
    script.write_text(SCRIPT)
    store = Store(tmp_path / "killed")
    for stage in found["score"].ancestors()[:-1]:
        store.ensure(stage)
    scores = store.path(found["score"]).with_name(store.path(found["score"]).name + ".partial") / "scores"

    def stamps():
        return {p.name: p.stat().st_mtime_ns for p in scores.glob("*.parquet")}

    root = Path(given.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{Path(given.__file__).parent}"}
    with open(tmp_path / "log", "w") as log:
        run = subprocess.Popen(
            [sys.executable, script, tmp_path / "killed"], stdout=log, stderr=log, env=environment
        )
    while len(stamps()) < 2:
        assert run.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.005)
    orphans = workers_of(run.pid)
    run.kill()
    run.wait()
    for pid in orphans:  # they leave with their parent
        for _ in range(1000):
            if not Path(f"/proc/{pid}").exists() or ") Z " in Path(f"/proc/{pid}/stat").read_text():
                break
            time.sleep(0.01)
        else:
            raise AssertionError("a worker outlived its parent")
    for late in sorted(scores.glob("*.parquet"))[
        2:
    ]:  # on a fast machine the orphans finish nearly all: leave work for two
        late.unlink()
    before = stamps()
    assert len(before) == 2

    killed = []

    def kill_one():
        while (
            not (pids := workers_of(os.getpid())) and scores.exists()
        ):  # seen while they start: there is one to kill
            time.sleep(0.005)
        while scores.exists() and len(stamps()) < len(before) + 1:
            time.sleep(0.005)
        killed.extend(pids[:1])
        with contextlib.suppress(ProcessLookupError):
            os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    folder = store.ensure(given.stages(replace(SCORE, processes=2), documents=found["corpus"])["score"])
    killer.join()
    assert killed and contents(folder) == expected
    after = {p.name: p.stat().st_mtime_ns for p in (folder / "scores").glob("*.parquet")}
    assert before.items() <= after.items()  # finished shards were not scored again
    assert read_json(folder / "manifest.json")["facts"]["shards_resumed"] == len(before)


def test_an_interrupt_ends_the_workers_at_once_and_without_a_word(tmp_path):
    """Ctrl-C goes to every process of the terminal: here, to the group of the run."""
    store = Store(tmp_path / "work")
    found = given.stages(SCORE, documents=given.corpus(per_shard=4, shards=24))
    for stage in found["score"].ancestors()[:-1]:
        store.ensure(stage)
    script = tmp_path / "score.py"
    script.write_text(
        SCRIPT.replace('    given.ensure_all(Store(Path(sys.argv[1])), found["score"])', INTERRUPTED)
    )
    root = Path(given.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{Path(given.__file__).parent}"}
    with open(tmp_path / "log", "w") as log:
        command = [sys.executable, script, tmp_path / "work"]
        run = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    while not (workers := workers_of(run.pid)):
        assert run.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.005)
    os.killpg(run.pid, signal.SIGINT)  # the workers are importing: the first moment counts
    assert run.wait(60) == 130
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert (tmp_path / "log").read_text() == "interrupted\n"


def test_a_shard_that_changed_is_refused(tmp_path):
    store = Store(tmp_path)
    found = given.stages(SCORE)
    for stage in found["score"].ancestors()[:-1]:
        store.ensure(stage)
    shard = store.path(found["corpus"]) / "documents" / "b-00003.parquet"
    polars.read_parquet(shard).head(3).write_parquet(shard)
    with pytest.raises(SettingError, match="b-00003.parquet changed since the corpus was published"):
        store.ensure(found["score"])


def test_other_process_counts_are_the_same_stage():
    assert (
        given.stages(Score(processes=1))["score"].fingerprint
        == given.stages(Score(processes=7))["score"].fingerprint
    )
    assert given.stages(Score(mask="zero"))["score"].fingerprint != given.stages(Score())["score"].fingerprint
    assert json.dumps(given.stages(Score())["score"].settings)


def test_masks_zero_and_mean_run_and_differ(tmp_path):
    store = Store(tmp_path)
    found = {}
    for mask in ("uniform", "zero", "mean"):
        target = given.stages(Score(mask=mask, window=64, max_tokens=64, processes=1))["score"]
        folder = given.ensure_all(store, target)
        found[mask] = polars.read_parquet(sorted((folder / "scores").glob("*.parquet")))
    assert found["uniform"]["loss_base"].equals(found["mean"]["loss_base"])
    for other in ("zero", "mean"):
        gap = (found["uniform"]["loss_ref"] - found[other]["loss_ref"]).abs()
        assert gap.max() > 1e-4


def test_mean_mask_without_held_out_text_is_refused(tmp_path):
    store = Store(tmp_path)
    target = given.stages(
        Score(mask="mean", window=64, max_tokens=64), documents=given.corpus(heldout=False)
    )["score"]
    with pytest.raises(SettingError, match="set corpus.heldout_share above 0"):
        given.ensure_all(store, target)


def test_a_window_longer_than_the_context_is_refused(tmp_path):
    with pytest.raises(SettingError, match="score.window=9000 is longer than the proxy's context of 8192"):
        given.ensure_all(Store(tmp_path), given.stages(Score(window=9000, max_tokens=9000))["score"])


def test_a_finished_file_of_another_content_is_refused(scored, tmp_path):
    import shutil

    store, found = scored
    target = tmp_path / "a-00000.parquet"
    shutil.copyfile(store.path(found["score"]) / "scores" / "a-00000.parquet", target)
    digest = sha256_file(store.path(found["corpus"]) / "documents" / "a-00000.parquet")
    assert shards.finished(target, digest) and not shards.finished(tmp_path / "absent.parquet", digest)
    with pytest.raises(ValueError, match="another content"):
        shards.finished(target, "0" * 64)
    target.write_bytes(target.read_bytes()[:-100])
    with pytest.raises(ValueError):
        shards.finished(target, digest)


def test_a_changed_shard_between_kill_and_resume_loses_nothing(tmp_path):
    """Stopped after one shard; the shard and the corpus manifest are replaced; the resume says so in one line."""
    store = Store(tmp_path)
    found = given.stages(SCORE)
    for stage in found["score"].ancestors()[:-1]:
        store.ensure(stage)
    final = store.path(found["score"])
    partial = final.with_name(final.name + ".partial") / "scores"
    context = Context(partial.parent, {k: store.path(s) for k, s in found["score"].inputs.items()}, "cpu")
    documents = store.path(found["corpus"]) / "documents"
    job = workers.Job.of(SCORE, "float32", context)
    partial.mkdir(parents=True)
    shards.write(
        shards.score_shard(workers.scorer(job), documents / "a-00000.parquet"), partial / "a-00000.parquet"
    )
    polars.read_parquet(documents / "a-00000.parquet").head(3).write_parquet(documents / "a-00000.parquet")
    manifest = read_json(store.path(found["corpus"]) / "manifest.json")
    manifest["files"]["documents/a-00000.parquet"] = sha256_file(documents / "a-00000.parquet")
    write_json(store.path(found["corpus"]) / "manifest.json", manifest)
    with pytest.raises(
        SettingError, match="a-00000.parquet was made from another content of its shard"
    ) as refusal:
        store.ensure(found["score"])
    assert "\n" not in str(refusal.value) and len(list(partial.glob("*.parquet"))) == 1


@pytest.mark.parametrize(
    "harm", [lambda w: w[:-100], lambda w: w[:50] + bytes(400) + w[450:]], ids=["end", "middle"]
)
def test_a_damaged_shard_of_a_stopped_scoring_is_scored_again(scored, tmp_path, harm):
    """Bytes are missing at its end, or are zero in the middle: the scores are those of an undisturbed run."""
    import shutil

    undisturbed = scored[0].path(scored[1]["score"]) / "scores"
    store = Store(tmp_path)
    stage = given.stages(SCORE, documents=given.corpus(extra=STRANGE))["score"]
    for before in stage.ancestors()[:-1]:
        store.ensure(before)
    partial = store.path(stage).with_name(store.path(stage).name + ".partial") / "scores"
    shutil.copytree(undisturbed, partial)
    shard = partial / "a-00000.parquet"
    shard.write_bytes(harm(shard.read_bytes()))
    folder = store.ensure(stage)
    assert sha256_file(folder / "scores" / shard.name) == sha256_file(undisturbed / shard.name)
    facts = read_json(folder / "manifest.json")["facts"]
    [said] = [w for w in facts["warnings"] if "cannot be read" in w]
    shards_all = len(list(undisturbed.iterdir()))
    assert said == f"1 of {shards_all} shards' scores cannot be read and are computed again: a-00000.parquet"
    assert facts["shards_resumed"] == shards_all - 1


def test_a_shard_that_the_disk_does_not_give_is_kept(tmp_path, monkeypatch):
    from repro.influence import stage

    shard = tmp_path / "scores" / "a-00000.parquet"
    shard.parent.mkdir()
    shard.write_bytes(b"whole, on a disk that is gone")
    monkeypatch.setattr(stage.parquet, "read", lambda *_: (_ for _ in ()).throw(OSError("stale file handle")))
    with pytest.raises(OSError, match="stale"):
        stage._drop_damaged(Context(tmp_path, {}, "cpu"), [Path("a-00000.parquet")])
    assert shard.is_file()


def test_measures_are_the_columns_of_scores_that_need_no_model(scored):
    """Selectors that read no loss choose the same documents from either."""
    from repro.influence import measures
    from repro.selection import selectors
    from repro.selection.settings import Budget, Mixture, Select
    from repro.selection.stage import stage as selection

    store, score = scored[0], scored[1]["score"]
    stage = measures.stage(score.inputs["proxy"], score.inputs["corpus"])
    folder = store.ensure(stage)
    kept = ["doc_id", "domain", "group", "n_tokens_doc", "n_bytes", "compressibility", "repetition"]
    found, whole = (
        polars.read_parquet(sorted((place / "scores").glob("*.parquet")))
        for place in (folder, store.path(score))
    )
    assert found.select(kept).equals(whole.select(kept)) and found["loss_base"].is_null().all()
    for select in (Select("random"), Select("column", {"column": "repetition"})):
        assert not selectors.reads_losses(select.selector, select.params)
        chosen = [
            store.ensure(selection(select, Mixture(), Budget(share=0.5), 3, score.inputs["corpus"], ranked))
            for ranked in (stage, score)
        ]
        one, other = (polars.read_parquet(place / "selection.parquet") for place in chosen)
        assert one.equals(other) and one["repeats"].sum() > 0


def test_which_selectors_wait_for_scores():
    from repro.selection.selectors import reads_losses

    parts = [{"selector": "random"}, {"selector": "column", "params": {"column": "n_bytes"}}]
    assert not reads_losses("rank_sum", {"of": parts})
    assert reads_losses("rank_sum", {"of": [*parts, {"selector": "perplexity"}]})
    assert reads_losses("column", {"column": "score_error"}) and reads_losses("attention_influence", {})
    assert not reads_losses("dsir", {}) and not reads_losses("imported", {"path": "x"})


@pytest.mark.slow
def test_a_machine_joins_a_run_that_scores_and_is_killed(tmp_path):
    """The run's own process is stopped while another one scores by the store's address alone; then that one is killed."""
    found = given.stages(SCORE, documents=given.corpus(per_shard=2, shards=10))
    expected = contents(given.ensure_all(Store(tmp_path / "calm"), found["score"]))
    script = tmp_path / "score.py"
    written = SCRIPT.replace("processes=2", "processes=1, lease_seconds=2").replace(
        "per_shard=4, shards=24", "per_shard=2, shards=10"
    )
    script.write_text(written)
    store = Store(tmp_path / "shared")
    for stage in found["score"].ancestors()[:-1]:
        store.ensure(stage)
    root = Path(given.__file__).parents[2]
    environment = os.environ | {
        "PYTHONPATH": f"{root}{os.pathsep}{Path(given.__file__).parent}",
        "OMP_NUM_THREADS": "1",
    }
    final = store.path(found["score"])
    claimed = final.with_name(final.name + ".partial") / "claims"
    with open(tmp_path / "log", "w") as log:
        how = {"stdout": log, "stderr": log, "env": environment}
        run = subprocess.Popen([sys.executable, script, tmp_path / "shared"], **how)
        while not (claimed / "job.json").exists():
            assert run.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.005)
        os.kill(run.pid, signal.SIGSTOP)
        door = [
            sys.executable,
            "-m",
            "repro.influence",
            "--join",
            f"work={tmp_path / 'shared'}",
            "device=cpu",
            "score.processes=1",
        ]
        assert subprocess.run([*door, "score.window=65"], **how).returncode == 2
        other = subprocess.Popen(door, **how)
        before = len(list((claimed.parent / "scores").glob("*.parquet")))
        while len(list((claimed.parent / "scores").glob("*.parquet"))) < before + 2:
            assert other.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.005)
        other.kill()
        other.wait()
        os.kill(run.pid, signal.SIGCONT)
        assert run.wait(120) == 0, (tmp_path / "log").read_text()
    assert contents(final) == expected
    assert "score.window=65 is not what is being scored" in (tmp_path / "log").read_text()
    assert [
        path.name for path in final.parent.iterdir() if "claims" in path.name or "partial" in path.name
    ] == []


def test_claims_of_a_run_that_was_lost_are_no_part_of_the_artifact(scored, tmp_path):
    """Others finished the shards; the same command finds nothing to score and publishes without them."""
    import shutil

    store, found = scored
    other = Store(tmp_path / "work")
    for stage in found["score"].ancestors()[:-1]:
        shutil.copytree(store.path(stage), other.path(stage))
    final = other.path(found["score"])
    partial = final.with_name(final.name + ".partial")
    shutil.copytree(store.path(found["score"]) / "scores", partial / "scores")
    (partial / "claims").mkdir()
    (partial / "claims" / "a-00000.parquet.1").write_text("lost")
    other.ensure(found["score"])
    assert contents(final) == contents(store.path(found["score"])) and not (final / "claims").exists()
