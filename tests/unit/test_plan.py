"""--plan runs nothing, names what is cached, and its arithmetic is that of a hand calculation."""

import subprocess
import sys

import polars
import pytest

from repro import device, run, sweep
from repro.evaluate.cost import work
from repro.evaluate.settings import Eval
from repro.experiments import build
from repro.fetch import hub_commits
from repro.plan.table import describe, estimate_stage, estimates
from repro.proxy.stage import parameters as proxy_parameters
from repro.settings.compose import compose
from repro.store import Store
from repro.store.cost import Cost


@pytest.mark.parametrize("scale", ["smoke", "laptop", "gpu"])
def test_a_plan_writes_nothing(scale, tmp_path):
    text = describe(compose(["exp=selection_30pct", f"scale={scale}", f"work={tmp_path / 'w'}"]))
    assert "to run" in text and "FLOPs" in text
    assert not (tmp_path / "w").exists()


def test_the_paper_scale_costs_what_six_n_d_says():
    settings = compose(["exp=paper_mixture", "scale=paper", "corpus=installed", "items=builtin"])
    stage = next(s for s in build(settings).order() if s.name == "pretrain")
    flops = estimate_stage(stage, 241e9).flops
    assert flops == pytest.approx(6 * 7.18e9 * 1e12, rel=0.2)  # attention to a context of 8,192 is on top


def test_an_arm_with_its_own_budget_of_tokens_is_planned_with_it():
    settings = compose(["exp=accuracy_vs_data", "scale=smoke", "exp.only=['*']"])
    arms = build(settings).arms
    whole = estimate_stage(arms["random_10"][0]["pretrain"], 1e5).tokens
    passes = estimate_stage(arms["random_10_passes"][0]["pretrain"], 1e5).tokens
    assert passes == round(whole * 0.1)


def test_a_folder_proxy_is_counted_in_its_headers(tmp_path):
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7)}, tmp_path / "model.safetensors")
    settings = compose(["exp=selection_30pct", "proxy=folder", f"proxy.path={tmp_path}"])
    assert proxy_parameters(settings.proxy) == 22


def test_options_may_stand_between_settings(tmp_path, capsys):
    assert run.main(["exp=selection_30pct", "--plan", "scale=smoke", f"work={tmp_path / 'w'}"]) == 0
    assert "to run" in capsys.readouterr().out
    assert sweep.main(["sweep=nothing", "--jobs", "2", "scale=smoke"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_a_sweep_without_a_job_is_refused_in_one_line(tmp_path, capsys):
    assert sweep.main(["sweep=seeds", "--jobs", "0", "scale=smoke", f"work={tmp_path}"]) == 2
    assert capsys.readouterr().err == "error: --jobs 0: at least one member runs at once\n"


@pytest.mark.parametrize(("door", "what"), [(run, "exp=selection_30pct"), (sweep, "sweep=select_share")])
def test_a_plan_refuses_a_work_folder_that_is_a_file_or_below_one(door, what, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    for place in (file, file / "below"):
        assert door.main([what, "scale=smoke", f"work={place}", "--plan"]) == 2
        said = f"error: work={place}: cannot make the folder ({file} is a file); name another\n"
        assert capsys.readouterr().err == said


def test_an_arms_own_proxy_is_planned_at_its_size(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    monkeypatch.setattr(hub_commits, "_hub_away", "no network")
    own = "exp.arms.full_plus_large.proxy={kind: hub, repo: HuggingFaceTB/SmolLM2-1.7B, parameters: 1.7e9}"
    settings = compose(["exp=proxy_size", "scale=gpu", own])
    scores = {
        s.inputs["proxy"].label: estimate_stage(s, 1e6) for s in build(settings).order() if s.name == "score"
    }
    small, large = scores["smollm2-135m"], scores["HuggingFaceTB--SmolLM2-1.7B"]
    assert (small.flops, large.flops) == (4 * 135e6 * 1e6, 4 * 1.7e9 * 1e6)


def test_every_stage_takes_something():
    """A stage of a new kind must be given a cost; those that only link or divide numbers are free."""
    free = {"evolution"}
    for exp in ("paper_mixture", "planted_truth", "what_was_selected", "score_agreement", "mirror_effect"):
        judge = ["judge.url=http://x/v1", "judge.model=m"] if exp == "what_was_selected" else []
        settings = compose([f"exp={exp}", "scale=smoke", *judge])
        for stage in build(settings).order():
            assert stage.name in free or estimate_stage(stage, 1e5) != Cost(), stage.name


def test_the_work_of_a_suite_is_that_of_its_shots_answers_and_repeats():
    def suite(task, **settings):
        return work(Eval(tasks=[task], text_bytes=4000, **settings), 3)

    text = 4 * 1000  # out-of-corpus text, and held-out text of three domains
    plain = suite("hellaswag")
    assert (plain.items, plain.read, plain.written) == (10042, 10042 * 4 * 93 + text, 0)
    assert suite("hellaswag", shots={"hellaswag": 5}).read == 6 * (plain.read - text) + text
    assert suite("mmlu", limit=10).items == 570  # of each of its subjects
    code = {"humaneval": {"repeats": 20, "generation_kwargs": {"max_gen_toks": 512}}}
    assert suite("humaneval", overrides=code).written == 164 * 20 * 512
    assert suite("my.yaml").read == 1000 * 4 * 100 + text


def test_the_papers_suite_takes_hours_and_every_kept_model_is_evaluated():
    arguments = ["exp=paper_mixture", "scale=paper", "corpus=installed", "items=builtin"]
    settings = compose([*arguments, "train.branch_at_decay=false", "train.keep_at_tokens=[]"])
    rate = 989e12 * 0.4
    stage = next(s for s in build(settings).order() if s.name == "evaluate")
    hours = estimate_stage(stage, 1e9).hours(rate)
    assert 2 < hours < 20
    settings = compose([*arguments, "train.keep_at_tokens=[100000000000]"])  # and the branch point
    stage = next(s for s in build(settings).order() if s.name == "evaluate")
    assert estimate_stage(stage, 1e9).hours(rate) == pytest.approx(3 * hours)


LOADED = """
import sys
from repro import run
try:
    run.main(sys.argv[1:])
except SystemExit:
    pass
print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def loaded_by(*arguments):
    """Packages that a process has imported when the door has answered."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=True
    )
    assert "exp=" in done.stdout or "to run" in done.stdout
    return set(done.stdout.strip().split("\n")[-1].split()[1:])


def test_the_door_answers_before_it_loads_what_it_does_not_need(tmp_path, monkeypatch):
    """What makes an answer slow is imports, and products of an emulated dtype (test_device)."""
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    slow = set(
        "torch transformers deepspeed lm_eval datasets polars duckdb wandb scipy sklearn matplotlib".split()
    )
    assert not loaded_by("--help") & {*slow, "numpy", "pyarrow", "omegaconf"}
    plan = loaded_by("exp=accuracy_vs_data", "scale=overnight", "--plan", f"work={tmp_path / 'w'}")
    assert plan & slow == {"torch"}  # that measures the machine
    assert not (tmp_path / "w").exists()


def test_experiments_are_built_without_what_carries_them_out():
    """Every run, every process of a run and every job builds its stages first."""
    script = (
        "import sys\n"
        "from repro.experiments import build\n"
        "from repro.settings.compose import compose\n"
        "from repro.settings.files import options\n"
        "for exp in options('exp'): build(compose([f'exp={exp}', 'scale=smoke']))\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    slow = {"torch", "transformers", "deepspeed", "lm_eval", "datasets", "duckdb", "matplotlib"}
    assert not set(done.stdout.split()) & slow


def test_a_plan_measures_the_machine_once(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    asked = []
    monkeypatch.setattr(device, "matrix_rate", lambda *what: asked.append(what) or 1e11)
    for _ in range(2):
        settings = compose(
            ["exp=accuracy_vs_data", "scale=overnight", f"work={tmp_path / 'w'}"], planning=True
        )
        assert "float32 100 GFLOP/s" in describe(settings)
    assert asked == [("cpu", "float32"), ("cpu", "bfloat16")]


def test_a_stage_is_planned_at_the_rate_of_its_own_dtype(tmp_path, monkeypatch):
    monkeypatch.setattr(
        device, "measured", lambda: {"float32": 1e11, "bfloat16": 1e9, "measured": "2026-01-01"}
    )
    arguments = ["exp=selection_30pct", "scale=laptop", "device=cpu", f"work={tmp_path / 'w'}"]

    def hours(*more):
        lines = [line.split() for line in describe(compose([*arguments, *more])).split("\n")]
        of = {line[0]: float(line[-4]) for line in lines if line[:1] in (["score"], ["pretrain"])}
        return of["score"], of["pretrain"]

    (scored, trained), (scored_slowly, trained_as_before) = hours(), hours("proxy.dtype=bfloat16")
    assert scored_slowly == pytest.approx(100 * scored, rel=0.1) and trained_as_before == trained


def test_scoring_is_planned_with_the_processes_that_it_has(tmp_path, monkeypatch):
    """With one thread a training has one core, and scoring has them all."""
    rates = {"float32": 1e11, "bfloat16": 1e11, "measured": "2026-01-01"}
    monkeypatch.setattr(device, "measured", lambda: rates)
    monkeypatch.setattr(device, "cores", lambda: 4)
    arguments = ["exp=selection_30pct", "scale=laptop", "device=cpu", f"work={tmp_path / 'w'}"]

    def hours(threads, *more):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        lines = [line.split() for line in describe(compose([*arguments, *more])).split("\n")]
        of = {line[0]: float(line[-4]) for line in lines if line[:1] in (["score"], ["pretrain"])}
        return of["score"], of["pretrain"]

    (scored, trained), (alone, trained_as_before) = hours("1"), hours("1", "score.processes=1")
    assert alone == pytest.approx(4 * scored, rel=0.1) and trained_as_before == trained
    assert hours("1", "score.processes=9")[0] == scored
    assert hours("4")[0] == alone and hours("")[0] == alone  # the rate counts them all already


def test_a_stage_that_was_stopped_is_planned_for_what_is_left(tmp_path):
    settings = compose(["exp=selection_30pct", "scale=smoke", "device=cpu", f"work={tmp_path / 'w'}"])
    store, experiment = Store(tmp_path / "w"), build(settings)
    stages = experiment.order()
    score, training = (
        next(s for s in stages if s.name == name and s.settings.get("sample", 1) == 1)
        for name in ("score", "pretrain")
    )
    whole = estimates(stages, store)
    shard = store.beside(score, ".partial") / "scores" / "a-00000.parquet"
    shard.parent.mkdir(parents=True)
    scored = round(0.4 * whole[score.fingerprint].tokens)
    polars.DataFrame({"doc_id": ["a", "b"], "n_tokens": [scored - 7, 7]}).write_parquet(shard)
    shard.with_name("a-00001.parquet").write_bytes(b"PAR1 cut")  # the run says so, a plan goes without it
    step = settings.train.steps // 2
    for kept in (step // 2, step):
        (store.beside(training, ".partial") / "checkpoints" / f"step-{kept}").mkdir(parents=True)
    left = estimates(stages, store)
    assert left[score.fingerprint].tokens == whole[score.fingerprint].tokens - scored
    assert left[score.fingerprint].flops == pytest.approx(0.6 * whole[score.fingerprint].flops, rel=0.01)
    assert left[training.fingerprint].flops == pytest.approx(
        (1 - step / settings.train.steps) * whole[training.fingerprint].flops
    )
    assert left[training.fingerprint].made == whole[training.fingerprint].made
    assert describe(settings).count(" begun ") == 2
