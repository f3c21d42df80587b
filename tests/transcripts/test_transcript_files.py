"""Transcript files of every format, as others write them, and what is odd in them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mertool.errors import DataError
from mertool.transcripts import Cue, Transcript
from mertool.transcripts.files import beside, give, read
from mertool.transcripts.spelling import plain, timed
from mertool.transcripts.times import LONGEST, Oddities, Timed, filled, mended, seconds
from mertool.types import Clip, Word
from mertool.words import split_words


@pytest.fixture
def put(tmp_path):
    """`put(name, content)`: what `read` makes of such a file."""

    def write(name, content, encoding="utf-8"):
        if isinstance(content, dict | list):
            content = json.dumps(content)
        if isinstance(content, str):
            content = content.encode(encoding)
        (tmp_path / name).write_bytes(content)
        return read(tmp_path / name)

    return write


def rows(words):
    """(text, start, end, score), times in milliseconds."""
    return [(w.text, round(w.start * 1000), round(w.end * 1000), w.score) for w in words]


# --- JSON ---

WHISPERX = {
    "segments": [
        {
            "start": 0.5, "end": 2.0, "text": " Well -- it's 5.", "speaker": "SPEAKER_00",
            "words": [
                {"word": "Well", "start": 0.5, "end": 0.9, "score": 0.91},
                {"word": "--"},
                {"word": "it's", "start": 1.0, "end": 1.25, "score": 0.75},
                {"word": "5."},
            ],
        },
        {
            "start": 2.0, "end": 3.0, "text": " Right?",
            "words": [{"word": "Right?", "start": 2.25, "end": 2.75, "score": 0.5}],
        },
    ],
    "word_segments": [],
    "language": "en",
}  # fmt: skip


def test_whisperx(put):
    made = put("a.json", WHISPERX)
    assert made.language == "en" and made.text == "Well -- it's 5. Right?"
    first, second = made.cues
    assert (first.start, first.end, first.speaker) == (0.5, 2.0, "SPEAKER_00")
    assert rows(first.words) == [
        ("Well", 500, 900, 0.91), ("it's", 1000, 1250, 0.75), ("5.", 1250, 2000, -1)
    ]  # fmt: skip
    assert rows(second.words) == [("Right?", 2250, 2750, 0.5)]
    assert made.notes == [
        'transcript a.json: words placed between their neighbours, score -1: 1, the first "5."'
    ]


def test_whisper_of_openai(put):
    segment = {"id": 0, "seek": 0, "start": 0.0, "end": 1.0, "text": " Hello there", "tokens": [1]}
    words = [
        {"word": " Hello", "start": 0.0, "end": 0.5, "probability": 0.25},
        {"word": " there", "start": 0.5, "end": 1.0, "probability": 0.75},
    ]
    made = put("a.json", {"text": "x", "segments": [{**segment, "words": words}]})
    assert rows(made.words) == [("Hello", 0, 500, 0.25), ("there", 500, 1000, 0.75)]
    assert made.notes == [] and made.language == ""


def test_segments_without_words(put):
    made = put("a.json", {"segments": [{"start": 0, "end": 2, "text": "a b"}], "language": "en"})
    assert made.words is None and made.cues == [Cue("a b", 0.0, 2.0)]


def test_words_apart_from_the_segments(put):
    segments = [{"start": 0, "end": 2, "text": "A b."}, {"start": 2, "end": 4, "text": "C!"}]
    words = [("a", 0.5, 1), ("b", 1, 1.5), ("c", 2, 3), ("d", 9, 10)]
    words = [{"word": w, "start": a, "end": b} for w, a, b in words]
    made = put("a.json", {"segments": segments, "word_segments": words})
    assert [rows(cue.words) for cue in made.cues] == [
        [("A", 500, 1000, 1), ("b.", 1000, 1500, 1)], [("C!", 2000, 3000, 1)]
    ]  # fmt: skip
    assert "outside every segment" in made.notes[0]
    alone = put("a.json", {"word_segments": words})
    assert alone.text == "a b c d" and rows(alone.words)[3] == ("d", 9000, 10000, 1)


def test_a_segment_that_could_not_be_aligned_is_placed_in_its_time(put):
    segments = [
        {"start": 0, "end": 1, "text": "a", "words": [{"word": "a", "start": 0, "end": 1}]},
        {"start": 2, "end": 4, "text": "b c", "words": []},
        {"start": 6, "end": 7, "text": "d", "words": [{"word": "d", "start": 6, "end": 7}]},
    ]
    made = put("a.json", {"segments": segments})
    assert rows(made.words)[1:3] == [("b", 2000, 3000, -1), ("c", 3000, 4000, -1)]


def test_letters_of_chinese_words(put):
    words = [{"word": c, "start": i, "end": i + 1} for i, c in enumerate("我爱你")]
    segment = {"start": 0, "end": 3, "text": "我爱你。", "words": words}
    made = put("a.json", {"segments": [segment], "language": "zh"})
    assert [w.text for w in made.words] == ["我", "爱", "你"]
    words = [{"word": "我爱", "start": 0, "end": 2}, {"word": "你", "start": 2, "end": 3}]
    made = put("a.json", {"segments": [{**segment, "words": words}]})
    assert rows(made.words)[:2] == [("我", 0, 1000, 1), ("爱", 1000, 2000, 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no JSON document"),
        ("[" * 100_000, "no JSON document"),
        ("9" * 5000, "no JSON document"),
        ("[]", '"segments"'),
        ({"segments": {}}, '"segments"'),
        ({"segments": ["x"]}, "segment 0"),
        ({"segments": [{"text": 5}]}, "segment 0, text: 5 is no text"),
        ({"segments": [{"text": "a", "words": "a"}]}, "its words are no list"),
        ({"segments": [{"text": "a", "words": ["a"]}]}, "segment 0, word 0"),
        ({"segments": [{"text": "a", "words": [{"word": ["a"]}]}]}, "segment 0, word 0"),
        ({"segments": [{"text": "a", "speaker": {}}]}, "speaker"),
        ({"word_segments": [1]}, "word_segments, word 0"),
    ],
)
def test_json_that_is_refused(put, tmp_path, content, message):
    with pytest.raises(DataError) as caught:
        put("a.json", content)
    assert message in caught.value.where and str(tmp_path / "a.json") in caught.value.where
    assert caught.value.fix


def test_odd_values_of_json(put):
    words = [
        {"word": "a", "start": -0.02, "end": 0.5, "score": 7},
        {"word": "b", "start": True, "end": 1},
        {"word": "c", "start": "0.5", "end": 0.7},
        {"word": "d", "start": float("nan"), "end": float("inf")},
        {"word": "e", "start": 10**400, "end": 10**400},
        {"word": "f", "start": 1.0, "end": 1.5, "score": None},
    ]
    segment = {"text": "a b\nc\t\0d e f \ud800", "words": words, "start": None}
    made = put("a.json", {"segments": [segment], "language": ["en"]})
    assert rows(made.words) == [
        ("a", 0, 500, 1), *(rows([Word(t, a, a + 0.125)])[0]
                           for t, a in zip("bcde", (0.5, 0.625, 0.75, 0.875), strict=True)),
        ("f", 1000, 1500, 1),
    ]  # fmt: skip
    assert made.text == "a b c d e f ?" and made.language == ""
    assert (made.cues[0].start, made.cues[0].end) == (0, 1.5)


# --- what is out of order ---


def test_words_out_of_order_overlapping_and_backwards(put):
    found = [("a", 1, 2), ("b", 1.5, 2.5), ("c", 90, 91), ("d", 4, 3), ("e", 5, 6), ("f", 6, 7)]
    words = [{"word": w, "start": a, "end": b} for w, a, b in found]
    made = put("a.json", {"segments": [{"text": "a b c d e f", "words": words}]})
    assert rows(made.words) == [
        ("a", 1000, 1500, 1), ("b", 1500, 2500, 1), ("c", 2500, 3750, -1), ("d", 3750, 5000, -1),
        ("e", 5000, 6000, 1), ("f", 6000, 7000, 1),
    ]  # fmt: skip
    assert [note.partition(": ")[2] for note in made.notes] == [
        'words that end before they start: 1, the first "d" at 4.00 s',
        'words out of order: 1, the first "c" at 90.00 s',
        'words that overlap the next, cut to end where it starts: 1, the first "a" at 1.00 s',
        'words placed between their neighbours, score -1: 2, the first "c"',
    ]


def test_cues_out_of_order(put):
    cues = "2\n00:00:03,000 --> 00:00:04,000\nlater\n\n1\n00:00:01,000 --> 00:00:00,500\nsooner\n"
    made = put("a.srt", cues)
    assert made.cues == [Cue("sooner", 1.0, 1.0), Cue("later", 3.0, 4.0)]
    assert "cues out of order" in made.notes[0] and "end before they start" in made.notes[1]


def test_many_oddities_are_counted_once_each_kind(put):
    words = [{"word": f"w{i}", "start": 100 - i, "end": 101 - i} for i in range(50)]
    text = " ".join(word["word"] for word in words)
    made = put("a.json", {"segments": [{"text": text, "words": words}]})
    assert len(made.words) == 50 and len(made.notes) == 2
    assert "words out of order: 49" in made.notes[0]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 20), st.floats(-1, 20)) | st.none(), max_size=12))
def test_mended_words_are_in_order_and_as_many_as_can_be(times):
    words = [Timed(str(i), *(() if t is None else map(seconds, t))) for i, t in enumerate(times)]
    made = mended(words, Oddities())
    known = [w for w in made if w is not None]
    edges = [edge for w in known for edge in (w.start, w.end)]
    assert edges == sorted(edges) and len(made) == len(words)
    assert all(w is None or w.start == o.start for w, o in zip(made, words, strict=True))
    starts = [w.start for w in words if w.start is not None and w.end >= w.start]
    best = [1] * len(starts)  # longest subsequence that ends there, by brute force
    for i, start in enumerate(starts):
        best[i] = 1 + max((best[k] for k in range(i) if starts[k] <= start), default=0)
    assert len(known) == max(best, default=0)
    whole = filled(made, [w.text for w in words], 0.0, 25.0)
    edges = [edge for w in whole for edge in (w.start, w.end)]
    assert edges == sorted(edges) and [w.text for w in whole] == [w.text for w in words]
    assert sum(w.score == -1 for w in whole) == len(words) - len(known)


def test_what_a_time_is():
    assert seconds(2) == 2.0 and seconds(0.0) == 0.0 and seconds(-3) == 0.0
    assert [seconds(x) for x in (None, True, "1", float("nan"), LONGEST, 10**400)] == [None] * 6


# --- spelling ---


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ("Well, I'M fine", "well|im|fine", "0-1 1-2 2-3"),
        ("New York is", "New York|is", "0-0.43 0.43-1 1-2"),
        ("twenty-one men", "twenty|-one|men", "0-2 2-3"),
        ("can not go", "cannot|go", "0-0.5 0.5-1 1-2"),
        ("l’été là", "L'ETE|la", "0-1 1-2"),
        ("I have 5 dogs", "I|have|five|dogs", "0-1 1-2 - 3-4"),
        ("ice cream man", "icecream|woman", "0-0.38 0.38-1 -"),
        ("a bats", "house|a|bats", "1-2 2-3"),
        ("a", "bats", "-"),
        ("one two", "", "- -"),
        ("", "one", ""),
        ("the cat the dog", "the|dog", "- - 0-1 1-2"),
    ],
)
def test_words_are_matched_by_their_letters(ours, theirs, expected):
    words = [Timed(w, i, i + 1.0) for i, w in enumerate(theirs.split("|") if theirs else [])]
    texts = ours.split()
    found = timed(texts, words)
    assert [w.text for w in found] == texts
    shown = ["-" if w.start is None else f"{w.start:.2g}-{w.end:.2g}" for w in found]
    assert " ".join(shown) == expected


def test_the_score_is_the_lowest_of_the_parts():
    assert timed(["twenty-one"], [Timed("twenty", 0, 1, 0.9), Timed("one", 1, 2, 0.4)]) == [
        Timed("twenty-one", 0, 2, 0.4)
    ]


@settings(max_examples=100, deadline=None)
@given(st.text("ab c-é我,", max_size=30), st.randoms())
def test_however_a_text_is_cut_its_words_get_their_times(text, random):
    letters = [c for c in text if not c.isspace()]
    cuts = sorted(random.sample(range(1, len(letters)), random.randint(0, len(letters) - 1))) if (
        len(letters) > 1
    ) else []  # fmt: skip
    edges = [0, *cuts, len(letters)]
    pieces = [("".join(letters[a:b]), a, b) for a, b in zip(edges, edges[1:], strict=False)]
    texts = [text[a:b] for a, b in split_words(text)]
    found = timed(texts, [Timed(p, float(a), float(b)) for p, a, b in pieces if plain(p)])
    assert all(w.start is not None and w.start < w.end for w in found)
    assert [w.start for w in found] == sorted(w.start for w in found)


# --- subtitles ---


def test_srt(put):
    made = put(
        "a.srt",
        "1\r\n00:00:01,000 --> 00:00:02,500\r\n<i>Hello</i> there,\r\n{\\an8}you -- ok\r\n\r\n"
        "2\r\n00:01:03,250 --> 01:00:04,500\r\nI have\r\n42\r\n",
    )
    assert made.cues == [Cue("Hello there, you -- ok", 1, 2.5), Cue("I have 42", 63.25, 3604.5)]
    assert made.words is None and made.notes == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(put, encoding):
    made = put("a.srt", "1\n00:00:01,000 --> 00:00:02,500\nça va\n", encoding)
    assert made.text == "ça va" and made.notes == []


def test_windows_1252_is_said(put):
    made = put("a.srt", "1\n00:00:01,000 --> 00:00:02,500\nça va\n", "cp1252")
    assert made.text == "ça va"
    assert made.notes == ["transcript a.srt: not in UTF-8; read as Windows-1252"]


def test_vtt(put):
    made = put(
        "a.vtt",
        "\ufeffWEBVTT - a title\nKind: captions\n\nSTYLE\n::cue { color: red }\n\n"
        "NOTE a comment -->\nof two lines\n\nintro\n00:01.000 --> 00:02.500 align:start line:0\n"
        "<v.loud Alice B>Tom &amp; <c.x>Jerry</c></v>\n42\n\n"
        "01:00:03.000 --> 01:00:04.500\n- yes\n",
    )
    assert made.cues == [
        Cue("Tom & Jerry 42", 1, 2.5, (), "Alice B"), Cue("- yes", 3603, 3604.5)
    ]  # fmt: skip


def test_rolling_captions_are_said_once(put):
    made = put(
        "a.vtt",
        "WEBVTT\nLanguage: en\n\n00:00.000 --> 00:02.000\n \nwe<00:00.500><c> are</c>\n\n"
        "00:02.000 --> 00:02.010\nwe are\n \n\n"
        "00:02.010 --> 00:04.000\nwe are\nhere<00:02.500><c> now</c><00:03.000><c> ok</c>\n",
    )
    assert [cue.text for cue in made.cues] == ["we are", "here now ok"]
    assert "shown twice, left out once: 2" in made.notes[0]


def test_lines_that_repeat_in_ordinary_captions_stay(put):
    cue = "00:0{}.000 --> 00:0{}.500\nno\n\n"
    assert put("a.vtt", "WEBVTT\n\n" + cue.format(1, 1) + cue.format(2, 2)).text == "no no"


@pytest.mark.parametrize("name", ["a.srt", "a.vtt"])
def test_subtitles_without_cues(put, name):
    with pytest.raises(DataError, match="no cue"):
        put(name, "just a text\nof two lines")
    assert put(name, "").cues == []


# --- TextGrid ---

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = {size}
item []:
"""
TIER = """    item [{n}]:
        class = "IntervalTier"
        name = "{name}"
        xmin = 0
        xmax = 2.5
        intervals: size = {size}
"""


def grid(**tiers):
    """A TextGrid in Praat's long form; tiers as {name: [(start, end, label)]}."""
    text = LONG.format(size=len(tiers))
    for n, (name, entries) in enumerate(tiers.items(), 1):
        text += TIER.format(n=n, name=name, size=len(entries))
        for i, (start, end, label) in enumerate(entries, 1):
            text += f"        intervals [{i}]:\n            xmin = {start} \n"
            text += f'            xmax = {end} \n            text = "{label}" \n'
    return text


WORDS = [(0, 0.25, ""), (0.25, 0.5, "hello"), (0.5, 1, "sp"), (1.0, 1.5, "item [3]"),
         (1.5, 2, "<unk>"), (2, 2.5, 'a ""b""')]  # fmt: skip
HELLO = [("hello", 250, 500, 1), ("item", 1000, 1400, 1), ("[3]", 1400, 1500, 1),
         ("a", 2000, 2250, 1), ('"b"', 2250, 2500, 1)]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_textgrid_of_the_montreal_forced_aligner(put, encoding):
    tiers = grid(words=WORDS, phones=[(0, 2.5, "AH0")])
    made = put("a.TextGrid", tiers, encoding)
    assert rows(made.words) == HELLO and made.text == 'hello item [3] a "b"'
    assert made.notes == [
        "transcript a.TextGrid: words that are unknown, <unk>, left out: 1, the first at 1.50 s"
    ]


def test_short_textgrid_and_case_of_names(put):
    lines = [str(x) if not isinstance(x, str) else f'"{x}"' for word in WORDS for x in word]
    head = ['File type = "ooTextFile"', '"TextGrid"', "", "0", "2.5", "<exists>", "2"]
    points = ['"TextTier"', '"marks"', "0", "2.5", "1", "1e-05", '"x"']
    tier = ['"IntervalTier"', '"Words"', "0", "2.5", str(len(WORDS))]
    made = put("a.textgrid", "\n".join([*head, *points, *tier, *lines]))  # no line end at last
    assert rows(made.words) == HELLO


def test_textgrid_that_praatio_writes(tmp_path):
    from praatio import textgrid

    words = [(a, b, text.replace('""', '"')) for a, b, text in WORDS if text]
    for form in ("short_textgrid", "long_textgrid"):
        made = textgrid.Textgrid(0, 2.5)
        made.addTier(textgrid.IntervalTier("words", words, 0, 2.5))
        made.save(str(tmp_path / "a.TextGrid"), form, includeBlankSpaces=True)
        assert rows(read(tmp_path / "a.TextGrid").words) == HELLO


def test_several_speakers(put):
    made = put(
        "a.TextGrid",
        grid(
            **{
                "Alice - words": [(0, 0.5, "one"), (0.5, 1, "two"), (2.25, 2.5, "five")],
                "Alice - phones": [(0, 2.5, "AH0")],
                "Bob - words": [(1, 1.5, "three"), (1.5, 2, "four")],
            }
        ),
    )
    assert [(cue.speaker, cue.text) for cue in made.cues] == [
        ("Alice", "one two"), ("Bob", "three four"), ("Alice", "five")
    ]  # fmt: skip
    assert made.notes == []


def test_utterances_tell_how_words_are_written(put):
    words = [(0, 0.5, "well"), (0.5, 1, "i'm"), (1, 1.5, "fine")]
    made = put("a.TextGrid", grid(words=words, utterances=[(0, 2, "Well -- I'm fine.")]))
    assert made.text == "Well -- I'm fine."
    assert rows(made.words) == [
        ("Well", 0, 500, 1),
        ("I'm", 500, 1000, 1),
        ("fine.", 1000, 1500, 1),
    ]


def test_the_only_tier(put):
    made = put("a.TextGrid", grid(Mary=[(0, 1, "hello"), (1, 2, "-"), (2, 2.5, "you")]))
    assert rows(made.words) == [("hello", 0, 1000, 1), ("you", 2000, 2500, 1)]
    made = put("a.TextGrid", grid(Mary=[(0, 1, "hello you"), (1, 2, ""), (2, 2.5, "yes")]))
    assert made.cues == [Cue("hello you", 0, 1), Cue("yes", 2, 2.5)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (grid(phones=[], syllables=[]), "phones, syllables"),
        (grid(words=WORDS)[:-40], "ends too early"),
        (grid(words=WORDS).replace("xmin = 0.25", "xmin = soon"), "a number is missing"),
        (grid(words=WORDS).replace('"hello"', "hello"), "a text is missing"),
        ("", "ends too early"),
        ("words and words", "ends too early"),
        ('"other" "thing"', "does not begin as one"),
        (LONG.format(size="1e999"), "no TextGrid"),
        (LONG.format(size=0), "its interval tiers: none"),
    ],
)
def test_textgrids_that_are_refused(put, content, message):
    with pytest.raises(DataError, match="transcript file cannot be read") as caught:
        put("a.TextGrid", content)
    assert message in caught.value.where


# --- GRID's .align and text ---


def test_align(put):
    made = put("a.align", "0 23750 sil\n23750 29500 bin\n29500 34000 blue\n34000 74500 sp\n\n")
    assert rows(made.words) == [("bin", 950, 1180, 1), ("blue", 1180, 1360, 1)]
    for line in ("0 1", "0 x bin", "0 1 bin blue", "nan 5 bin"):
        with pytest.raises(DataError) as caught:
            put("a.align", f"0 23750 sil\n{line}\n")
        assert f'line 2: "{line}"' in caught.value.where


def test_grid(shared):
    paths = sorted((shared / "data" / "grid").glob("*.align"))
    assert len(paths) == 18
    for path in paths:
        made = read(path)
        lines = [line.split() for line in path.read_text().splitlines()]
        said = [(w, int(a), int(b)) for a, b, w in lines if w not in ("sil", "sp")]
        assert made.notes == [] and len(said) == 6
        assert made.text == " ".join(word for word, _, _ in said)
        assert [(w.text, round(w.start * 25000), round(w.end * 25000)) for w in made.words] == said


def test_txt(put):
    made = put("a.txt", "\ufeffhello  there,\nyou\0\n")
    assert made.cues == [Cue("hello there, you")] and made.words is None
    assert put("a.txt", " \n").cues == []


def test_what_is_no_transcript(put, tmp_path, monkeypatch):
    with pytest.raises(DataError, match='suffix ".doc"') as caught:
        put("a.doc", "x")
    assert ".TextGrid" in caught.value.fix
    with pytest.raises(DataError, match="No such file"):
        read(tmp_path / "gone.txt")
    with pytest.raises(DataError, match="cannot be read"):
        (tmp_path / "folder.txt").mkdir()
        read(tmp_path / "folder.txt")
    monkeypatch.setattr("mertool.transcripts.files._LARGEST", 10)
    with pytest.raises(DataError, match="too large"):
        put("a.txt", "x" * 11)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([".json", ".TextGrid", ".align", ".vtt", ".srt", ".txt"]),
    st.binary(max_size=60) | st.text('0 19:.,->\n"ab<{[]}', max_size=80).map(str.encode),
    st.sampled_from([b"", b'{"segments": [', b"WEBVTT\n\n00:01.000 --> 00:02.000\n", b'"ooTextFile'
                     b'" "TextGrid" 0 1 1 "IntervalTier" "words" 0 1 3 ', b"0 1 a\n",
                     b"1\n00:00:01,000 --> 00:00:02,000\n"]),
)  # fmt: skip
def test_any_bytes_are_read_or_refused(tmp_path_factory, suffix, data, head):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(head + data)
    try:
        made = read(path)
    except DataError:
        return
    give(Clip("a"), made)
    if made.words is not None:
        assert [w.text for w in made.words] == [made.text[a:b] for a, b in split_words(made.text)]


# --- beside a medium ---


def test_beside(tmp_path):
    media = tmp_path / "a.b.mp4"
    assert beside(media) is None
    for name in ("a.b.txt", "a.b.SRT", "a.b.vtt", "a.b.align", "a.b.textgrid"):
        (tmp_path / name).touch()
        assert beside(media) == tmp_path / name
    path = tmp_path / "a.b.json"
    for other in ('{"fps": 25}', "[]", "{", '{"segments": 3}', "[" * 100_000):
        path.write_text(other)
        assert beside(media) == tmp_path / "a.b.textgrid"
    for mine in ('{"segments": []}', '{"word_segments": []}', '{"segments": [{"text": "cut o'):
        path.write_text(mine)
        assert beside(media) == path
    (tmp_path / "a.b.align").unlink()
    path.unlink()
    assert beside(tmp_path / "a.b.vtt") == tmp_path / "a.b.textgrid"
    assert beside(tmp_path / ("x" * 300 + ".mp4")) is None


# --- the part of a clip ---

SPOKEN = Transcript(
    [
        Cue("One -- two.", 1.0, 3.0, (Word("One", 1.0, 2.0, 0.5), Word("two.", 2.0, 3.0, 1.0))),
        Cue("Three", 4.0, 5.0, (Word("Three", 4.0, 5.0, -1.0),)),
        Cue("four five", 5.0, 8.0, (Word("four", 5.0, 6.0, 1.0), Word("five", 6.5, 8.0, 1.0))),
    ],
    "en",
    ["a note"],
)
CUES = Transcript([Cue("One -- two.", 1.0, 3.0), Cue("Three", 4.0, 6.0)], "en")
PLAIN = Transcript([Cue("all of it")])


def test_a_whole_recording():
    clip, notes = give(Clip("a", "a.mp4"), SPOKEN)
    assert clip.text == "One -- two. Three four five" and clip.language == "en"
    assert clip.words == SPOKEN.words and notes == ["a note"]
    assert give(Clip("a", language="fr"), SPOKEN)[0].language == "fr"


@pytest.mark.parametrize(
    ("start", "end", "text", "first"),
    [
        (0.0, 4.0, "One -- two.", 1000),
        (1.5, 2.5, "One --", 0),  # its middle is at the start: inside; cut to the clip
        (1.6, 2.6, "two.", 400),
        (2.0, 5.6, "two. Three four", 0),
        (6.0, None, "five", 500),
        (8.0, 9.0, "", None),
    ],
)
def test_a_word_belongs_to_the_clip_that_has_its_middle(start, end, text, first):
    clip, _ = give(Clip("a", start=start, end=end), SPOKEN)
    assert clip.text == text
    assert [w.text for w in clip.words or ()] == [text[a:b] for a, b in split_words(text)]
    assert all(0 <= w.start <= w.end <= (end or 99) - start for w in clip.words or ())
    assert first is None or rows(clip.words)[0][1] == first
    assert text or (clip.words is None and clip.language == "")


def test_clips_side_by_side_share_out_all_words():
    edges = [0.0, 1.2, 1.5, 2.2, 4.5, 5.5, 7.25, 9.0]
    texts = [
        give(Clip("a", start=a, end=b), SPOKEN)[0].text
        for a, b in zip(edges, edges[1:], strict=False)
    ]
    assert " ".join(filter(None, texts)) == SPOKEN.text


def test_cues_without_times_of_words():
    clip, notes = give(Clip("a", start=1.0, end=4.5), CUES)
    assert (clip.text, clip.words, notes) == ("One -- two.", None, [])
    assert give(Clip("a", start=2.5, end=9), CUES)[0].text == "Three"


def test_a_text_without_times_is_of_the_whole():
    assert give(Clip("a"), PLAIN)[0].text == "all of it"
    assert give(Clip("a", end=5.0), PLAIN, 5.0)[0].text == "all of it"
    for clip, length in ((Clip("a", start=1.0), None), (Clip("a", end=5.0), 6.0)):
        made, notes = give(clip, PLAIN, length)
        assert made.text == "" and made.words is None and "has no times" in notes[0]


def test_a_text_of_the_manifest_stays():
    clip, notes = give(Clip("a", start=1.0, end=4.0, text="ONE two - "), SPOKEN)
    assert clip.text == "ONE two - "
    assert rows(clip.words) == [("ONE", 0, 1000, 0.5), ("two", 1000, 2000, 1)]
    assert notes == ["a note"]
    for text in ("one too", "one", "one two three"):
        clip, notes = give(Clip("a", start=1.0, end=4.0, text=text), SPOKEN)
        assert (clip.text, clip.words) == (text, None) and "are unused" in notes[-1]
    assert give(Clip("a", text="mine"), CUES) == (Clip("a", text="mine", language="en"), [])


def test_words_past_the_end_of_the_recording():
    for clip in (Clip("a"), Clip("a", end=5.25)):
        made, notes = give(clip, SPOKEN, 5.25)
        assert made.text == "One -- two. Three"
        assert notes[1] == (
            'words past the end of the recording, left out: 2, the first "four" at 5.00 s'
        )
    assert give(Clip("a", end=5.25), SPOKEN, 60.0)[1] == ["a note"]  # they are another clip's
    assert "cues past the end" in give(Clip("a"), CUES, 3.5)[1][0]


def test_every_clip_of_a_recording_tells_what_is_odd(put):
    made = put("a.json", WHISPERX)
    for clip in (Clip("a", end=2.0), Clip("b", start=2.0)):
        assert give(clip, made)[1] == made.notes != []


def test_who_changes_a_transcript_changes_his_own(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("well")
    first = read(path)
    first.notes.append("mine")
    first.cues.clear()
    first.language = "de"
    again = read(path)
    assert (again.text, again.notes, again.language) == ("well", [], "")
