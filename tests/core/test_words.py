from __future__ import annotations

import pytest

from mertool.words import split_words


def words(text: str) -> list[str]:
    return [text[a:b] for a, b in split_words(text)]


@pytest.mark.parametrize(
    "text",
    [
        "the movie was really good",
        "  It's  my mother-in-law's 3rd\tcar,\n isn't it?  ",
        "Ça va très bien, merci !".replace(" !", "!"),
        "Привет как дела",
        "오늘 날씨가 좋네요",
        "हिन्दी में लिखा हुआ",
        "مرحبا كيف حالك",
        "e\u0301te\u0301 nai\u0308f",
    ],
)
def test_spaced_scripts_split_at_white_space(text: str) -> None:
    assert words(text) == text.split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t ", []),
        ("... -- !?", []),
        ("Well -- I'm fine .", ["Well", "I'm", "fine"]),
        ("- 'tis", ["'tis"]),
        ("(um) 5 %", ["(um)", "5"]),
        ("我爱你。", ["我", "爱", "你"]),
        ("我爱NLP吧 hello,世界", ["我", "爱", "NLP", "吧", "hello,", "世", "界"]),
        ("ラーメン、たべる", ["ラ", "ー", "メ", "ン", "た", "べ", "る"]),
        ("か\u3099く", ["か\u3099", "く"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("\U00020000a", ["\U00020000", "a"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_spans_are_ordered_and_do_not_overlap() -> None:
    text = "Hello，世界 -- ok ที่ ok2。 ラ-a"
    spans = split_words(text)
    assert all(a < b for a, b in spans)
    assert all(b <= c for (_, b), (c, _) in zip(spans, spans[1:], strict=False))
