"""Formats and passages: what each keeps of a file, against real files and by hand."""

import json
import random
from pathlib import Path

import pytest

from repro.corpus.extract import FORMATS, Unreadable
from repro.corpus.passages import GAP, passage_id, passages
from repro.settings.compose import compose

SHARED = Path(__file__).resolve().parents[2].parent / "shared/data/corpus"
NAMES = {"law xml": "law_xml", "factbook json": "factbook", "tables cnxml": "cnxml"}
MATHML = 'xmlns:m="http://www.w3.org/1998/Math/MathML"'


def blocks(format, text):
    return FORMATS[format][0](text)


@pytest.mark.skipif(not (SHARED / "raw").is_dir(), reason="needs ../shared/data/corpus/raw")
def test_a_real_file_of_each_format_gives_the_passages_of_the_wide_corpus():
    index = json.loads((SHARED / "raw/index.json").read_text())
    for entry in index:
        text = (SHARED / "raw" / entry["file"]).read_bytes().decode()
        made = [
            p
            for p in passages(blocks(NAMES.get(entry["format"], entry["format"]), text), 1000, 6000)
            if len(p) >= 1000
        ]
        assert ([passage_id(p) for p in made], [len(p) for p in made]) == (
            entry["ids"],
            entry["characters"],
        ), entry["file"]
    assert len(index) == 9


@pytest.mark.skipif(not (SHARED / "wide").is_dir(), reason="needs ../shared/data/corpus/wide")
def test_open_texts_and_wide_list_what_the_manifest_lists():
    manifest = json.loads((SHARED / "wide/MANIFEST.json").read_text())
    open_texts = compose(["exp=score_corpus", "corpus=open_texts"]).corpus
    listed = {
        (name, commit[:12], texts.domain, texts.format == "story" or texts.license)
        for texts in open_texts.git
        for name, commit in texts.repositories.items()
    }
    groups = manifest["groups"]
    assert listed == {
        (g["repo"], g["commit"], g["domain"], g["repo"] == "global-asp/asp-source" or g["license"])
        for g in groups
    }
    wide = compose(["exp=score_corpus", "corpus=wide", "corpus.folder=x"]).corpus
    assert wide.checksums == {shard["file"]: shard["sha256"] for shard in manifest["shards"]}


def test_markdown_keeps_words_and_leaves_out_what_surrounds_them():
    text = (
        "---\ntitle: x\n---\n# A [link](http://a.b) &amp; ![picture](c.png)more\n\n<!-- hidden\n\nover lines -->\n"
        "Seen by [others][1] [@doi:10.1/x].\n{% include x %}<b>bold</b> 1 < 2\n\n[1]: http://a.b\n \n    code\n    more\n"
    )
    assert blocks("markdown", text) == [
        "# A link & more",
        "Seen by others .\nbold 1 < 2",
        "    code\n    more",
    ]


def test_tex_keeps_commands_without_comments_and_references():
    assert blocks("tex", "A\\label{a} \\textbf{b} 5\\% % not\n\n% only\n\n$x$ by \\cite[p. 2]{c}{d}.") == [
        "A \\textbf{b} 5\\% ",
        "$x$ by .",
    ]


def test_code_is_cut_before_what_begins_at_the_margin():
    assert blocks("code", "import a\n\n\ndef f():\n    x = 1\n\n    return x\n\n@d\nclass C: ...\n") == [
        "import a",
        "def f():\n    x = 1\n\n    return x",
        "@d\nclass C: ...\n",
    ]


@pytest.mark.parametrize(
    ("formula", "written"),
    [
        ("<m:mfrac><m:mi>a</m:mi><m:mn>2</m:mn></m:mfrac>", "a/2"),
        (
            "<m:mfrac><m:mrow><m:mi>a</m:mi><m:mo>+</m:mo><m:mi>b</m:mi></m:mrow><m:mn>2</m:mn></m:mfrac>",
            "(a+b)/(2)",
        ),
        ("<m:msup><m:mi>x</m:mi><m:mn>2</m:mn></m:msup>", "x^2"),
        ("<m:msubsup><m:mi>x</m:mi><m:mi>i</m:mi><m:mn>2</m:mn></m:msubsup>", "x_i^2"),
        ("<m:msqrt><m:mi>x</m:mi><m:mo>!</m:mo></m:msqrt>", "sqrt(x!)"),
        (
            "<m:mtable><m:mtr><m:mtd>1</m:mtd><m:mtd>0</m:mtd></m:mtr><m:mtr><m:mtd>2</m:mtd></m:mtr></m:mtable>",
            "1 0 2",
        ),
    ],
)
def test_formulas_in_linear_notation(formula, written):
    found = blocks("cnxml", f"<d {MATHML}><para>so <m:math>{formula}</m:math> holds</para></d>")
    assert found == [f"so {written} holds"]


def test_xml_gives_blocks_in_order_rows_as_lines_and_no_notes():
    page = (
        '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml"><head><p>no</p></head>'
        '<body><h2>I</h2><p>One<a href="#n" epub_type="noteref">1</a>\n two</p><nav><p>no</p></nav><p> </p><ul><li>three</li></ul>'
        "</body></html>"
    )
    assert blocks("xhtml", page) == ["I", "One two", "three"]
    assert blocks(
        "cnxml", "<d><row><c>a</c><c>b  c</c></row><para>7</para><figure><caption>no</caption></figure></d>"
    ) == ["a | b c"]
    assert blocks("law_xml", "<s><num>1</num><para><text>Be it</text></para></s>") == ["1 Be it"]
    assert len(blocks("law_xml", f"<s><num>1</num><text>{'x ' * 3000}</text></s>")) == 2


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("markdown", "[" * 200_000),
        ("markdown", "[<!--]-->" * 50_000),  # what one pattern takes away closed the brackets
        ("markdown", "[a](" * 60_000),
        ("markdown", "{% " * 60_000),
        ("markdown", "<!-- " * 60_000),
        ("tex", "\\cite[" * 60_000),
        ("code", "x" + "\n" * 60_000 + " y"),
        ("xhtml", "<!DOCTYPE " * 60_000),
        ("factbook", '{"a": {"text": "' + "<" * 60_000 + '"}}'),
    ],
)
def test_a_file_made_to_take_for_ever_is_refused(format, text):
    with pytest.raises(Unreadable, match="too_tangled"):
        blocks(format, text)
    usual = text[:60] + " word\n\n" * 30_000 if format == "markdown" else text[:60]
    if format in ("markdown", "tex", "code"):
        assert blocks(format, usual)  # a little of it is nothing to mind


def test_the_factbook_gives_a_line_a_fact():
    assert blocks("factbook", '{"Land": {"Area ": {"text": "<b>5</b> &lt; 6"}, "n": 3}, "list": [1]}') == [
        "Area: 5 < 6"
    ]


@pytest.mark.parametrize("seed", range(20))
def test_passages_hold_all_the_text_within_the_limits(seed):
    draw = random.Random(seed)
    largest = draw.choice((30, 3000))

    def block():
        return "".join(draw.choice("ab. \n") for _ in range(draw.randrange(largest))).strip("\n") or "a"

    given = [block() for _ in range(draw.randrange(20, 90))]
    shortest, longest = 100, draw.choice((300, 900))
    made = passages(given, shortest, longest)
    assert "".join("".join(made).split()) == "".join("".join(given).split())
    assert all(len(p) - len(GAP) * p.count(GAP) <= longest for p in made)
    if largest < shortest:  # a larger block may leave a short passage before it
        assert all(len(p) >= shortest for p in made)
        assert max(map(len, made)) - min(map(len, made[:-1] or made)) < 3 * largest  # even
    assert passages(given, shortest, None) == [GAP.join(given).strip("\n")]
    assert passages([], shortest, longest) == passages([], shortest, None) == []


def test_a_long_block_is_divided_at_a_line_or_a_sentence_and_else_anywhere():
    assert passages(["a" * 150 + "\n" + "b" * 150], 100, 200) == ["a" * 150, "b" * 150]
    assert passages(["a" * 150 + ". " + "b" * 150], 100, 200) == ["a" * 150 + ".", " " + "b" * 150]
    assert [len(p) for p in passages(["a" * 450], 100, 200)] == [200, 200, 50]
