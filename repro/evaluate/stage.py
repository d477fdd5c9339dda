"""The evaluation stage: benchmarks through lm-eval, bits per byte of text, per-item results."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

from repro import schema
from repro.evaluate import sources
from repro.evaluate.cells import Summary
from repro.evaluate.cost import suite
from repro.evaluate.settings import ROWS, SEED, TOKENS, Eval
from repro.plain import Json
from repro.proxy.settings import Proxy
from repro.store import Context, Stage, read_json, write_json
from repro.store.cached import content_digests
from repro.store.cost import STARTED, Cost, Known


def stage(s: Eval, seed: int, items: Stage, corpus: Stage | None, model: Stage) -> Stage:
    """Evaluate a model, and the checkpoints it left. ``seed`` is only named: evaluation itself draws nothing
    from it.

    ``model`` is any stage that leaves a Hugging Face folder in ``model/``, and further ones in
    ``models/<tokens>/``; ``corpus=None`` leaves out held-out text. Files: ``results.json`` (lm-eval's native
    JSON), ``items.parquet`` (one row per item), ``texts.parquet`` (one row per text) and ``summary.json``,
    whose ``checkpoints`` holds {tokens: summary}; a checkpoint's own files are in ``checkpoints/<tokens>/``.
    """
    inputs = {"items": items, "model": model} | ({"corpus": corpus} if corpus else {})

    def run(ctx: Context) -> None:
        from repro.evaluate.evaluate import evaluate

        data = (ctx.inputs["items"], ctx.inputs.get("corpus"))
        checkpoints = {}
        for folder in sorted(ctx.inputs["model"].glob("models/*"), key=lambda p: p.name.zfill(20)):
            if folder.name.isdigit() and (folder / "config.json").is_file():
                out = ctx.out / "checkpoints" / folder.name
                done = out / "summary.json"
                found = (
                    read_json(done)
                    if done.is_file()
                    else evaluate(folder, s, data[0], out, data[1], ctx.device)
                )
                checkpoints[folder.name] = found
        summary = evaluate(ctx.inputs["model"] / "model", s, data[0], ctx.out, data[1], ctx.device)
        if checkpoints:
            write_json(ctx.out / "summary.json", summary | {"checkpoints": checkpoints})
        ctx.facts |= facts(summary) | {"checkpoints": list(checkpoints)}

    # 4: BLiMP, unpadded likelihoods, probability of the right answer
    return Stage(
        "evaluate",
        _label(model, seed),
        identity(s),
        run,
        inputs,
        version=4,
        cost=lambda known: suite(s, known),
    )


def _label(model: Stage, seed: int) -> str:
    return model.label if model.label.endswith(f"seed{seed}") else f"{model.label}-seed{seed}"


def copying_stage(seed: int, model: Stage) -> Stage:
    """The copying of a trained model and of the checkpoints it left (:mod:`repro.evaluate.copying`); ``seed``
    is that of the training and only named.
    """

    def run(ctx: Context) -> None:
        from repro.evaluate import copying

        copying.write(ctx)

    def cost(known: Known) -> Cost:
        trained = known.inputs["model"]
        read = trained.models * ROWS * 2 * TOKENS
        return Cost(read, 2 * trained.parameters * read, 0, trained.models * STARTED)

    settings = {"rows": ROWS, "tokens": TOKENS, "seed": SEED}
    return Stage("copying", _label(model, seed), settings, run, {"model": model}, cost=cost)


def masked_stage(
    s: Eval, proxy_settings: Proxy, items: Stage, corpus: Stage, proxy: Stage, heads: Stage | None
) -> Stage:
    """Evaluate the proxy itself with the heads of a ``heads`` stage masked uniformly, or as it is (table 6,
    appendix C).

    The same files as those of a trained model. The dtype is that of detection and scoring; held-out text of
    the corpus says how much masking hurts ordinary text.
    """
    inputs = {"items": items, "corpus": corpus, "model": proxy} | ({"heads": heads} if heads else {})
    settings = identity(s) | {"dtype": proxy_settings.dtype, "mask": "uniform" if heads else None}

    def run(ctx: Context) -> None:
        from repro.evaluate.evaluate import evaluate
        from repro.heads.stage import read
        from repro.proxy import masking
        from repro.proxy.load import load

        selected = read(ctx.inputs["heads"])["selected"] if heads else []
        model = load(ctx.inputs["model"] / "model", proxy_settings.dtype, ctx.device)
        with masking.masked(model.attentions, selected):
            pair = (model.model, model.tokenizer)
            data = (ctx.inputs["items"], ctx.out, ctx.inputs["corpus"])
            summary = evaluate(pair, s, *data, ctx.device, masked=selected)
        ctx.facts |= facts(summary) | {"heads_masked": len(selected)}

    label = f"masked-{heads.label if heads else 'none'}"
    # 4: answers end at every token that ends a turn
    return Stage("evaluate", label, settings, run, inputs, version=4, cost=lambda known: suite(s, known))


def facts(summary: Summary) -> Json:
    """What the manifest says about an evaluation."""
    return {
        "missing": summary["missing"],
        "items": summary["n_items"],
        "non_finite_items": sum(len(ids) for ids in summary["non_finite"].values()),
        "items_cut": sum(cell["items_cut"] for cell in summary["cut"].values()),
        "tokens_cut": sum(cell["tokens_cut"] for cell in summary["cut"].values()),
        "bits_per_byte": summary["bits_per_byte"],
    }


@cache  # read from files, and asked for by every evaluation of a plan
def _version(package: str) -> str:
    return version(package)


def identity(s: Eval) -> Json:
    """The settings that change a result; a user's YAML counts by the content of all it reads, wherever it
    lies.
    """
    tasks = [sources.identity(e, s.overrides) if e.endswith((".yaml", ".yml")) else e for e in s.tasks]
    data = sources.data_files(s.overrides)
    read = {"lm_eval": _version("lm-eval")} | ({"data": sorted(content_digests(data))} if data else {})
    return schema.identity(s) | {"tasks": tasks, **read}
