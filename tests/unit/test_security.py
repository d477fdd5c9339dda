"""What strangers can supply, and what may not come of it: docs/security.md, whose every test is named there."""

import gzip
import html.parser
import io
import json
import re
import struct
import tarfile
from pathlib import Path

import fabricated
import polars
import pytest
import yaml
import zstandard

from repro import secrecy
from repro.corpus import blobs, files, rows
from repro.corpus.settings import Corpus
from repro.errors import SettingError, as_file_name
from repro.evaluate import code, tasks
from repro.execution.schedule import attempt
from repro.proxy import gguf
from repro.report import build
from repro.report.interactive import to_plotly
from repro.report.plots import Panel, Plot, Series, Words
from repro.settings.compose import compose
from repro.store import Stage
from repro.store.unpack import Bounded, _check

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'><a href='javascript:alert(3)'>$x^{$ &amp;"


# The report


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]


def test_a_report_of_hostile_documents_holds_text_and_nothing_else(tmp_path, monkeypatch):
    """Documents, ids, domains, sources and licenses that are scripts, links and formulas."""

    def documents(count, groups, original=fabricated._documents):
        rows = original(count, groups)
        foreign = {
            name: polars.lit(value)
            for name, value in (("source", "javascript:alert(1)//" + HOSTILE), ("license", HOSTILE))
        }
        return rows.with_columns(**foreign, text=polars.lit(HOSTILE) + polars.col("text"))

    monkeypatch.setattr(fabricated, "DOMAINS", ('"><img src=x onerror=alert(4)>$x^{$', "prose"))
    monkeypatch.setattr(fabricated, "_documents", documents)
    settings, store, stages = fabricated.run(tmp_path, documents=6, seeds=(0, 1))
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(f"exp: {HOSTILE}\n")
    build.build(folder, settings, store, stages)
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert HOSTILE not in text and "javascript:alert(1)//" in text  # it is shown, as text
    assert page.tags.count("script") == 3 and set(page.tags).isdisjoint(
        {"iframe", "object", "embed", "form", "base"}
    )
    assert not [a for a in page.attributes if a[1].startswith("on")]
    places = [
        value
        for _, name, value in page.attributes
        if name in ("href", "src", "action", "srcset", "xlink:href")
    ]
    beside = (
        r"summary\.json|config\.yaml|statistics\.md|tables/\w+\.csv|figures/\w+\.svg"  # of the same folder
    )
    inside = ("#", "data:image/svg+xml;base64,", "data:,")
    assert places and all(re.fullmatch(beside, p) or p.startswith(inside) for p in places)
    plots = re.search(r'<script id="plots" type="application/json">(.*?)</script>', text, re.S)[1]
    assert "<script" not in plots and json.loads(plots)


def test_figures_escape_every_text():
    """plotly makes tags and links of what it is given."""
    bad = "<a href='javascript:alert(1)'>x</a>"
    series = [
        Series(bad, [1.0, 2.0], [bad, "b"], mode, [0.5, 1.0], [2.0, 3.0])
        for mode in ("interval", "bars", "line", "points")
    ]
    panels = [Panel(bad, bad, bad, [one]) for one in series] + [Panel(bad, content=Words([(bad, 1.0)]))]
    drawn = json.dumps(to_plotly(Plot("p", bad, bad, panels)))
    assert "<a" not in drawn and "&lt;a" in drawn


# Paths


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc/passwd", "..", ".hidden", "a\\b", "a\nb", "a\0b", ""])
def test_a_name_that_leads_out_of_its_folder_is_refused(name, tmp_path):
    with pytest.raises(SettingError, match="would lead out of its folder"):
        as_file_name("a thing", name)
    with pytest.raises(SettingError, match="would lead out"):
        Stage("score", name, {}, lambda context: None).folder  # noqa: B018
    if name:
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({"task": name, "dataset_path": "json"}))
        with pytest.raises(SettingError, match="would lead out"):
            tasks.name_of(str(path))
        with pytest.raises(SettingError, match="would lead out"):
            compose(["exp=selection_30pct", "scale=smoke", f"exp.name={json.dumps(name)}"])


def test_ids_of_documents_and_blobs_name_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own.jsonl").write_text(json.dumps({"id": "../../escaped", "text": "words " * 40}) + "\n")
    chosen = Corpus(
        kind="files",
        paths=[str(tmp_path / "own.jsonl")],
        id_field="id",
        domain_from="constant",
        domain="../d",
    )
    (document,) = files.stream(chosen)
    assert document.id == "../../escaped"
    with blobs.Blobs("http://127.0.0.1:1/{}") as bucket:
        assert next(bucket.texts(["../../escaped"])).reason == "not_a_blob_id"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["own.jsonl"]


# Packs: what a pack never holds would be loaded by later stages, some of it as pickles


@pytest.mark.parametrize(
    ("folder", "name", "state"),
    [
        ("pretrain/x-00000000.partial", "checkpoints/3/state.pt", "unfinished"),
        ("pretrain/x-00000000.partial", "metrics.jsonl", "unfinished"),
        ("score/x-00000000.partial", "state.pkl", "unfinished"),
        ("pretrain/x-00000000", "checkpoints/3/mp_rank_00_model_states.pt", "finished"),
        ("pretrain/x-00000000", "model/model.safetensors", "finished"),
        ("proxy/x-00000000", "model/config.json", "finished"),
        ("evaluate/x-00000000", "weights.bin", "finished"),
    ],
)
def test_a_pack_brings_no_weights_and_no_checkpoints(folder, name, state, tmp_path):
    entry = {
        "folder": folder,
        "state": state,
        "fingerprint": "00000000",
        "files": {name: "0", "manifest.json": "0"},
    }
    if state == "unfinished":
        del entry["files"]["manifest.json"]
    with pytest.raises(SettingError, match="which no pack does"):
        _check(Path("store.tar.zst"), tmp_path, entry)


# Bombs


def test_a_small_archive_does_not_unpack_to_any_size():
    endless = zstandard.ZstdCompressor().compress(bytes(1 << 22))
    stream = Bounded(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(endless)), 1 << 20)
    with pytest.raises(tarfile.TarError, match="more than"):
        while stream.read(1 << 16):
            pass


def test_a_blob_that_unpacks_to_any_size_is_dropped(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    monkeypatch.setattr(blobs, "MAX_BYTES", 1 << 16)
    for ident, text in (("aa1", bytes(1 << 20)), ("aa2", b"words"), ("aa3", b"x" * (1 << 15))):
        path = tmp_path / "blobs" / "aa" / f"{ident}.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text))
    with blobs.Blobs("http://127.0.0.1:1/{}") as bucket:
        bomb, words, whole = bucket.texts(["aa1", "aa2", "aa3"])
    assert (bomb.reason, words, len(whole)) == ("too_long", "words", 1 << 15)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_an_endless_line_is_skipped_and_never_held(suffix, tmp_path, monkeypatch):
    data = b'{"text": "' + b"0" * (1 << 24) + b'"}\n' + b'{"text": "words"}\n'
    packed = gzip.compress(data) if suffix == "gz" else zstandard.ZstdCompressor().compress(data)
    path = tmp_path / f"bomb.jsonl.{suffix}"
    path.write_bytes(packed)
    lengths = []
    monkeypatch.setattr(
        rows,
        "_parse",
        lambda line, where, parse=rows._parse: lengths.append(len(line)) or parse(line, where),
    )
    chosen = Corpus(kind="files", paths=[str(path)], domain_from="constant", domain="d", max_bytes=1000)
    drop, document = files.stream(chosen)
    assert (drop.reason, document.text) == ("line_too_long", "words") and max(lengths) < 100


def test_a_value_that_stands_in_every_row_is_not_held_so_often(tmp_path, monkeypatch):
    """A parquet file of a megabyte whose rows together are gigabytes."""
    path = tmp_path / "bomb.parquet"
    polars.DataFrame({"text": ["x" * (1 << 20)] * 3000}).write_parquet(path)
    assert path.stat().st_size < 1 << 20
    held = []
    monkeypatch.setattr(rows, "BATCH_BYTES", 8 << 20)
    monkeypatch.setattr(
        rows,
        "_rows",
        lambda batch, asked, rows=rows._rows: held.append(batch.num_rows) or rows(batch, asked),
    )
    found = files.stream(Corpus(kind="files", paths=[str(path)], domain_from="constant", domain="d"))
    assert len(next(found).text) == 1 << 20 and 0 < max(held) <= 8


@pytest.mark.parametrize(
    "field",
    [
        struct.pack("<IIQ", 9, 0, 1 << 40),  # a list of bytes
        struct.pack("<IIQ", 9, 8, 1 << 40),  # of texts
        struct.pack("<IIQ", 9, 9, 1 << 40) + struct.pack("<IQ", 9, 1 << 40) * 50,  # of lists of lists
        struct.pack("<IQ", 8, 1 << 60),  # a text
    ],
)
def test_a_gguf_header_that_promises_more_than_the_file_is_refused(field, tmp_path):
    path = tmp_path / "bomb.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q", 3) + b"a.b" + field)
    with pytest.raises(SettingError, match="cut short or damaged"):
        gguf.header(path)


# Code


@pytest.fixture
def ran(tmp_path):
    """A folder whose Python leaves a mark when it is run."""
    mark = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')\ndef f(doc): return 'x'\n")
    return mark


@pytest.mark.parametrize(
    "definition",
    [
        "task: mine\ndataset_path: json\ndoc_to_text: !function evil.f\n",
        "task: mine\ndataset_path: json\ndoc_to_text: !<!function> evil.f\n",
        "%TAG !f! !func\n---\ntask: mine\ndataset_path: json\ndoc_to_text: !f!tion evil.f\n",
        "task: mine\ndataset_path: json\nmetric_list: [{metric: !function evil.f}]\n",
        "task: mine\ninclude: other.yaml\n",
        "task: mine\ninclude: [other.yaml]\n",
        "group: mine\ntask: [theirs]\n",
        "group: mine\ntask:\n- task: inner\n  dataset_path: json\n  doc_to_text: !function evil.f\n",
    ],
)
def test_python_that_comes_with_a_task_is_not_run_unasked(definition, ran):
    folder = ran.parent
    (folder / "mine.yaml").write_text(definition)
    (folder / "other.yaml").write_text("dataset_path: json\ndoc_to_text: !function evil.f\n")
    (folder / "theirs.yaml").write_text("task: theirs\ndataset_path: json\ndoc_to_text: !function evil.f\n")
    with pytest.raises(SettingError, match="eval.allow_task_code=true"):
        tasks.plan(str(folder / "mine.yaml"), folder)
    assert not ran.exists()
    tasks.plan(str(folder / "mine.yaml"), folder, allow_task_code=True)


def test_lm_evals_own_tasks_need_no_permission(tmp_path):
    assert tasks.plan("hendrycks_math_algebra", tmp_path).name == "hendrycks_math_algebra"


def test_yaml_builds_values_and_no_objects(ran):
    path = ran.parent / "mine.yaml"
    path.write_text(f"task: !!python/object/apply:os.system ['touch {ran}']\n")
    with pytest.raises((SettingError, yaml.YAMLError)):
        tasks.plan(str(path), ran.parent)
    assert not ran.exists()


@pytest.mark.parametrize("metric", ["./evil.py", "somebody/metric", "{folder}/evil.py"])
def test_a_metric_that_is_a_program_is_not_run(metric, ran):
    import evaluate

    with code.sandbox(), pytest.raises(SettingError, match="program of its own"):
        evaluate.load(metric.format(folder=ran.parent))
    assert not ran.exists()


def test_a_template_of_a_task_reaches_no_python():
    from jinja2.exceptions import SecurityError
    from lm_eval import utils

    with code.sandbox():
        assert utils.apply_template("{{q|upper}} {{'ab'|regex_replace('a', 'b')}}", {"q": "x"}) == "X bb"
        with pytest.raises(SecurityError):
            utils.apply_template("{{ q.__class__.__mro__[1].__subclasses__() }}", {"q": "x"})


# Secrets

PLANTED = {
    "HF_TOKEN": "hf_" + "Q" * 34,
    "WANDB_API_KEY": "c0ffee" * 6 + "abcd",
    "JUDGE_KEY": "planted-judge-key-000",
}


@pytest.mark.parametrize(
    "argument",
    [
        "corpus.blob_url=https://user:planted-password@host/{}",
        "corpus.blob_url=https://host/{}?X-Amz-Signature=planted-password",
        "corpus.blob_url=https://host/{}?access_token=planted-password&b=1",
        "proxy.path=/models/hf_" + "Q" * 34,
        "tracking.entity=planted-judge-key-000",
        "judge.key_variable=planted-password",
        "judge.url=https://user:planted-password@host/v1",
        "nonsense=https://user:planted-password@host/",
    ],
)
def test_a_secret_in_a_setting_is_refused_and_not_told(argument, monkeypatch):
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    kind = {"proxy": ["proxy=folder"], "corpus": ["corpus=hub"]}.get(argument.partition(".")[0], [])
    with pytest.raises(SettingError, match="holds a password|never the key itself|nonsense") as refusal:
        compose(["exp=score_corpus", "scale=smoke", *kind, argument])
    assert not any(secret in str(refusal.value) for secret in ("planted-password", *PLANTED.values()))


def test_what_a_library_says_is_told_without_secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", PLANTED["HF_TOKEN"])
    said = f"401 for url https://me:pw@host/x?token=abc&page=2 with Bearer {PLANTED['HF_TOKEN']}"
    assert str(SettingError(said)) == "401 for url https://***@host/x?token=***&page=2 with Bearer ***"
    assert secrecy.hidden("mail a@b.c, file://x/y@z, 3@4, key=5") == "mail a@b.c, file://x/y@z, 3@4, key=5"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("https://me:p@ss@host/x", "https://***@host/x"),
        ("https://me:p/ss@host/x", "https://***@host/x"),
        ("https://host:8080/x@v1 git://host/x@v2", None),
        ("https://host/x?subscription-key=abc&code=def", "https://host/x?subscription-key=***&code=***"),
        ("the key /planted+aws/secret of " + str(ROOT), "the key *** of " + str(ROOT)),
    ],
)
def test_odd_passwords_and_keys_are_found_and_nothing_else(said, told, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "/planted+aws/secret")
    monkeypatch.setenv("MY_CREDENTIALS", str(ROOT))  # the path of a file is none
    assert secrecy.hidden(said) == (said if told is None else told)


def test_why_a_stage_failed_is_told_without_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", PLANTED["HF_TOKEN"])

    def run():
        raise ConnectionError(f"https://me:pw@host/x?token=abc with Bearer {PLANTED['HF_TOKEN']}")

    failure = attempt(run, tmp_path / "log")
    assert failure.reason == "ConnectionError: https://***@host/x?token=*** with Bearer ***"
    log = (tmp_path / "log").read_text()
    assert failure.reason in log and "Traceback" in log and PLANTED["HF_TOKEN"] not in log


# The page


def test_the_page_of_threats_names_tests_that_are_there():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/security.md").read_text())
    assert len(named) > 20
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()]
    assert not missing
    here = re.findall(r"^def (test_\w+)", Path(__file__).read_text(), re.M)
    assert {name for path, name in named if path.endswith("test_security.py")} >= set(here) - {
        "test_the_page_of_threats_names_tests_that_are_there"
    }
