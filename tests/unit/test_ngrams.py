"""Words of any script: what decontamination finds, and what it leaves alone."""

import re
import unicodedata

import numpy as np
import pytest

from repro.corpus.clean import benchmark_index, examine
from repro.corpus.minhash import jaccard, shingles
from repro.corpus.ngrams import shingle_words, split, weight, words
from repro.corpus.settings import Corpus
from repro.corpus.stage import stage

# A benchmark item, and ordinary text of the same script that has nothing to do with it.
ITEMS = {
    "russian": (
        "Какая планета Солнечной системы находится ближе всего к Солнцу и делает полный оборот вокруг него быстрее других?",
        "Глава вторая. Мы вышли из деревни рано утром, когда над рекой ещё стоял туман, и долго шли по мокрой траве вдоль берега.",
    ),
    "chinese": (
        "下列哪一种气体在地球大气层中所占的比例最大并且不能直接被大多数植物利用",
        "第二章 我们清晨离开村庄的时候河面上还飘着薄雾,大家沿着岸边湿漉漉的草地走了很久才看见远处的山。",
    ),
    "japanese": (
        "地球の大気の中で最も多く含まれている気体は次のうちどれですか",
        "朝早く村を出たとき、川にはまだ霧がかかっていて、私たちは濡れた草の上を長いあいだ歩いた。",
    ),
    "thai": (
        "ก๊าซชนิดใดมีปริมาณมากที่สุดในชั้นบรรยากาศของโลก",
        "เราออกจากหมู่บ้านแต่เช้าตรู่เมื่อหมอกยังปกคลุมแม่น้ำและเดินไปตามทุ่งหญ้าเปียกเป็นเวลานาน",
    ),
    "arabic": (
        "ما هو الغاز الذي يشكل النسبة الأكبر من الغلاف الجوي للأرض ولا تستطيع معظم النباتات استخدامه مباشرة؟",
        "خرجنا من القرية في الصباح الباكر وكان الضباب ما يزال فوق النهر ومشينا طويلا على العشب المبلل بجانب الضفة.",
    ),
    "hindi": (
        "पृथ्वी के वायुमंडल में सबसे अधिक मात्रा में पाई जाने वाली गैस कौन सी है जिसे अधिकांश पौधे सीधे उपयोग नहीं कर सकते?",
        "हम सुबह जल्दी गाँव से निकले जब नदी के ऊपर कोहरा छाया हुआ था और गीली घास पर बहुत देर तक किनारे किनारे चलते रहे।",
    ),
    "korean": (
        "지구의 대기 중에서 가장 많은 비율을 차지하면서 대부분의 식물이 직접 이용할 수 없는 기체는 다음 중 무엇인지 고르시오",
        "우리는 안개가 아직 강 위에 남아 있던 이른 아침에 마을을 떠나 젖은 풀밭을 따라 오랫동안 걸었다 그리고 산을 보았다",
    ),
    "greek": (
        "Ποιο αέριο αποτελεί το μεγαλύτερο μέρος της ατμόσφαιρας της Γης και δεν χρησιμοποιείται άμεσα από τα περισσότερα φυτά;",
        "Φύγαμε από το χωριό νωρίς το πρωί όταν η ομίχλη ήταν ακόμη πάνω από το ποτάμι και περπατήσαμε πολλή ώρα στο χορτάρι.",
    ),
    "mixed": (
        "В каком году компания OpenAI выпустила модель GPT-2 на 1,5 миллиарда параметров и 什么是 attention в этой модели?",
        "Сервер Apache 2.4 настроен так: порт 8080, 使用 HTTP, журнал в /var/log, и так далее по списку из 20 пунктов ниже.",
    ),
}


def change(text):
    """The same words as another keyboard writes them."""
    decomposed = unicodedata.normalize("NFD", text.upper())
    return decomposed.replace(" ", " \u00a0\n").replace("?", " — ?")


@pytest.mark.parametrize("script", ITEMS)
def test_an_item_is_found_in_its_script_and_ordinary_text_stays(script):
    item, ordinary = ITEMS[script]
    index = benchmark_index([item for item, _ in ITEMS.values()])
    assert examine(words(f"{ordinary} {item} {ordinary}"), index)
    assert examine(words(ordinary + change(item)), index)
    most = item[: len(item) * 9 // 10]
    assert examine(words(f"{most} {ordinary}"), index)
    numbered = "\n".join(f"{n}. {ordinary}" for n in range(1, 40))
    assert not examine(words(numbered), index)
    assert not examine(words(ordinary), benchmark_index(["1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17", item]))


def test_numbering_of_a_corpus_in_another_script_is_not_a_benchmark():
    index = benchmark_index([" ".join(map(str, range(1, 60))), "1) 2) 3) 4) 5) 6) 7) 8) 9)"])
    assert not examine(words("\n".join(f"{n}. Пункт договора о поставке" for n in range(1, 60))), index)
    assert not examine(words("".join(f"第{n}条 规定" for n in range(1, 60))), index)
    assert examine(words(" ".join(map(str, range(1, 60)))), index)
    arabic = "".join(chr(0x660 + int(c)) if c.isdigit() else c for c in " ".join(map(str, range(1, 60))))
    assert examine(words(arabic), index)  # the same numbers


def test_short_phrases_in_letters_that_are_words_are_no_items():
    index = benchmark_index(["中华人民共和国国务院", "下列说法正确的是"])
    assert not examine(words("中华人民共和国国务院发布了新的规定,下列说法正确的是第一条。"), index)
    assert weight(split("水" * 13)) == pytest.approx(8) and weight(split("a b c 水")) == pytest.approx(
        3 + 8 / 13
    )


def test_ascii_text_has_the_words_it_always_had():
    text = "It's 1.5 times x_1's [CLS] re-entry; A--B\nC3PO #tag don't ÷"
    assert split(text[:-1]) == re.findall(r"[a-z0-9]+", text[:-1].lower())
    assert split(text) == split(text[:-1])  # a mark of another alphabet changes nothing
    quoted = "“It’s” a — ‘word’… of English"
    assert split(quoted) == re.findall(r"[a-z0-9]+", quoted.lower())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("नमस्ते दुनिया २०२४", ["नमस्ते", "दुनिया", "2024"]),
        ("我用Python写3行", ["我", "用", "python", "写", "3", "行"]),
        ("الـسَّلَامُ عليكم", ["السلام", "عليكم"]),
        ("Straße STRASSE ﬁne ﬀ", ["strasse", "strasse", "fine", "ff"]),
        ("cafe\u0301 café CAFÉ", ["café"] * 3),
        ("co\u00adop\u200ber \ufeffＡＢＣ１２", ["cooper", "abc12"]),
        ("ไม่มี", ["ไ", "ม่", "มี"]),
        ("ひらがなカタ", list("ひらがなカタ")),
        ("", []),
        ("— … 。", []),
    ],
)
def test_words(text, expected):
    assert split(text) == expected


def test_the_fast_way_and_the_thorough_one_agree(monkeypatch):
    from repro.corpus import ngrams

    texts = [item for pair in ITEMS.values() for item in pair] + ["naïve — “quoted” x² №5 ½ \u2060a"]
    fast = [split(text) for text in texts]
    monkeypatch.setattr(ngrams, "_is_special", lambda _: True)
    assert [split(text) for text in texts] == fast


@pytest.mark.parametrize("script", ITEMS)
def test_near_duplicates_of_every_script_are_judged_by_its_words(script):
    item, ordinary = ITEMS[script]
    base = " ".join([item, ordinary] * 3)
    sets = [shingles(shingle_words(t, words(t))) for t in (base, base + " 7", ordinary[::-1])]
    assert jaccard(sets[0], sets[1]) > 0.9 and jaccard(sets[0], sets[2]) < 0.1
    assert all(s.dtype == np.uint64 for s in sets)


def test_the_stage_says_that_its_words_are_others():
    assert stage(Corpus(kind="installed"), None).version == 3
