"""`mertool data export words` as a command."""

from __future__ import annotations

import json

from mertool.store import Writer
from mertool.types import Clip, Word


def test_export_words(call):
    with Writer("f.h5", {}) as writer:
        for name, score in (("a", 1.0), ("b", -1.0)):
            words = [Word("Hi", 0.5, 1.0, score), Word("there", 1.0, 1.5, 1.0)]
            writer.add(Clip(name, f"{name}.mp4", "/", 0.0, 2.0, "Hi there", words=words), {})
        writer.add(Clip("c", "c.mp4", "/", 0.0, 2.0), {})
    code, out, err = call("data", "export", "words", "f.h5", "-o", "words")
    assert code == 0
    assert out == ("words: 2 files, 4 words; words placed, not aligned: 1; recordings skipped: 1\n")
    assert err == "Note: recordings without a transcript: 1, the first c.mp4\n"
    with open("words/a.json") as file:
        assert json.load(file)["segments"][0]["words"][1]["start"] == 1.0
    grids = ("--as", "textgrid", "--json")
    code, out, _ = call("data", "export", "words", "f.h5", "-o", "words", *grids)
    assert code == 0 and json.loads(out)["files"][1]["file"] == "b.TextGrid"


def test_export_refused(call):
    with Writer("f.h5", {}) as writer:
        writer.add(Clip("a", "a.mp4", "/", 0.0, 2.0, "Hi", words=[Word("Hi", 0.0, 0.0)]), {})
    for args, expected, part in (
        (("wrods", "f.h5", "-o", "x"), 2, 'Did you mean "words"?'),
        (("words", "f.h5"), 2, "--output"),
        (("words", "gone.h5", "-o", "x"), 1, "no such feature file"),
        (("words", "f.h5", "-o", "x", "--as", "textgrid"), 1, "mertool align"),
        (("words", "f.h5", "-o", "f.h5"), 1, "cannot be written"),
    ):
        code, out, err = call("data", "export", *args)
        assert (code, out) == (expected, "") and part in err and len(err.splitlines()) == 3
    assert call("data", "export", "words", "f.h5", "-o", "x").code == 0
    code, _, err = call("data", "export", "words", "f.h5", "-o", "x")
    assert code == 1 and "exist already" in err and "--overwrite" in err
