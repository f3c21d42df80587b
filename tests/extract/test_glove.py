"""Word vectors of a user's file: its forms, the cache, and what is found for a transcript."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

from mertool.errors import DataError, MertoolWarning, OutputError, UsageError
from mertool.extract import vectors
from mertool.extract.glove import Glove
from mertool.extract.vectors import Vectors
from mertool.types import Clip, Rows

TEXT = "the 1 2 3\nfine 4 5 6\nIT 7 8 9\nit 10 11 12\nu.s. 13 14 15\n2012 16 17 18\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mertool" / "vectors"


def write(folder: Path, text: str | bytes = TEXT, name: str = "v.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def extract(file: Path, text: str) -> tuple[Rows, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = Glove(Glove.Config(vectors=str(file))).extract(Clip("x", text=text))
    assert rows.values.dtype == np.float32 and rows.values.shape == (len(rows), 3)
    assert rows.times.shape == (len(rows), 2) and not rows.times.any()
    assert rows.word.dtype == rows.span.dtype == np.int32 and rows.span.shape == (len(rows), 2)
    return rows, [str(w.message) for w in caught if w.category is MertoolWarning]


def test_a_transcript_by_hand(tmp_path: Path) -> None:
    text = "The -- (fine), movie IT it. U.S. 2012!"
    rows, notes = extract(write(tmp_path), text)
    assert rows.values[:, 0].tolist() == [1, 4, 7, 10, 13, 16]
    assert rows.word.tolist() == [0, 1, 3, 4, 5, 6]
    assert [text[a:b] for a, b in rows.span] == ["The", "(fine),", "IT", "it.", "U.S.", "2012!"]
    assert notes == ["1 of 7 words have no vector: movie"]


def test_capitals_alone_tell_no_case(tmp_path: Path) -> None:
    rows, notes = extract(write(tmp_path), "IT IS FINE, THE")
    assert rows.values[:, 0].tolist() == [10, 4, 1] and rows.word.tolist() == [0, 2, 3]
    assert notes == ["1 of 4 words have no vector: IS"]


def test_no_text_and_no_vector_at_all(tmp_path: Path) -> None:
    file = write(tmp_path)
    for text in ("", " \n", "..."):
        rows, notes = extract(file, text)
        assert len(rows) == 0 and notes == ["no text, no text rows"]
    rows, notes = extract(file, "a b c d e f g")
    assert len(rows) == 0
    assert notes == ["7 of 7 words have no vector: a, b, c, d, e and 2 more"]


def test_what_is_recorded(tmp_path: Path) -> None:
    import hashlib

    file = write(tmp_path)
    glove = Glove(Glove.Config(vectors=str(file)))
    assert glove.columns == ["dim000", "dim001", "dim002"]
    assert glove.info["model"] == "v.txt" and glove.info["licence"] == ""
    assert glove.info["revision"] == f"sha256 {hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"


def test_every_word_of_a_larger_file_is_found(tmp_path: Path) -> None:
    """Against a dictionary: words of all scripts, some inside others, more than one block."""
    rng = np.random.default_rng(0)
    letters = list("abcA.éß我🙂")
    known: dict[str, list[float]] = {}
    while len(known) < 5000:
        word = "".join(rng.choice(letters, rng.integers(1, 9)))
        known.setdefault(word, [round(float(v), 4) for v in rng.normal(size=4)])
    text = "".join(f"{word} {' '.join(map(str, v))}\n" for word, v in known.items())
    found = Vectors(write(tmp_path, text))
    assert (len(found), found.width) == (5000, 4)
    for word, values in known.items():
        np.testing.assert_array_equal(found.find(word), np.array(values, np.float32))
    for word in (
        "",
        "z",
        "a" * 99,
        "\udce9",
        "🙂🙂🙂🙂🙂🙂🙂🙂🙂",
        *(w + "b" for w in list(known)[:99]),
    ):
        if word not in known:
            assert found.find(word) is None


@pytest.mark.parametrize(
    "text",
    [
        "a 1 2\n. . 3 4\nat a@b.c 5 6\n1 7 8\n",
        "4 2\na 1 2\n. . 3 4\nat a@b.c 5 6\n1 7 8\n",  # word2vec's first line
        "a 1 2 \r\n. . 3 4 \r\nat a@b.c 5 6 \r\n1 7 8",
        "a 1e0 +2\n. . 3.0 4\n\nat a@b.c 5 6\n1 7 8\n\n\n",
        "a 1 2\n. . 3 4\nat a@b.c 5 6\n1 7 8\na 9 9\n",  # twice: the first
    ],
)
def test_forms_of_the_file(tmp_path: Path, text: str) -> None:
    found = Vectors(write(tmp_path, text))
    assert found.width == 2
    words = ("a", ". .", "at a@b.c", "1")
    assert [found.find(w).tolist() for w in words] == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert found.find("at") is None and found.find(".") is None


def test_a_first_word_with_spaces(tmp_path: Path) -> None:
    found = Vectors(write(tmp_path, "a b 1 2\nc 3 4\nd 5 6\n"))
    assert found.find("a b").tolist() == [1, 2] and found.find("d").tolist() == [5, 6]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a 1 2\nb 1\nc 1 2\n", 2),
        ("a 1 2\nb 1 x\nc 1 2\n", 2),
        ("a 1 2\nb 1 nan\nc 1 2\n", 2),
        ("a 1 2\nb 1 2\nc 1 1e99\n", 3),
        ("a 1 2\nb 1 2\n\n\nc 1,5 2\n", 5),
        ("a 1 2\nb 1\t3 2\nc 1  2\n", 2),
        ("3 2\na 1 2\nb 1\nc 1 2\n", 3),
        ("3 0\na\n", 1),
        ("", 1),
        ("one two\nthree\n", 1),
        ("".join(f"w{i} 1 2\n" for i in range(9000)) + "w 1\n", 9001),
        (b"\x1f\x8b\x08\x00\x00", 1),
        (b"2 3\na \x00\x00\x80?\x00\x00\x80?\n", 2),
    ],
    ids=range(13),
)
def test_wrong_lines_are_named(tmp_path: Path, cache: Path, text: str | bytes, line: int) -> None:
    file = write(tmp_path, text)
    with pytest.raises(DataError) as caught:
        Vectors(file)
    assert f"{file}, line {line}: " in caught.value.where
    assert len(str(caught.value).splitlines()) == 3
    assert [p.suffix for p in cache.iterdir()] == [".lock"]


def test_a_file_cut_short_is_known_by_its_first_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not whole") as caught:
        Vectors(write(tmp_path, "3 2\na 1 2\nb 1 2\n"))
    assert "2 words, its first line says 3" in caught.value.where


def test_no_such_file_and_none_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read") as caught:
        Glove(Glove.Config(vectors=str(tmp_path / "none.txt")))
    assert "none.txt" in caught.value.where
    with pytest.raises(UsageError, match="No file of word vectors"):
        Glove(Glove.Config())
    with pytest.raises(DataError, match="cannot be read"):
        Vectors(tmp_path)


def test_the_file_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path)
    converted = []
    convert = vectors._convert

    def spy(*args: Path) -> None:
        converted.append(args)
        convert(*args)

    monkeypatch.setattr(vectors, "_convert", spy)
    assert Vectors(file).find("the").tolist() == [1, 2, 3]
    assert Vectors(file).find("the").tolist() == [1, 2, 3]
    assert len(converted) == 1
    write(tmp_path, TEXT.replace("the 1 2 3", "the 1 2 99"))
    assert Vectors(file).find("the").tolist() == [1, 2, 99]
    assert len(converted) == 2


def test_a_stopped_conversion_leaves_nothing_that_is_taken_for_whole(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(OutputError, match="No space left") as caught:
            Vectors(file)
    assert "XDG_CACHE_HOME" in caught.value.fix
    [lock] = cache.iterdir()
    unfinished = cache / f"{lock.stem}.unfinished"  # as a process killed in the midst leaves it
    unfinished.mkdir()
    (unfinished / "values.f4").write_bytes(b"half")
    assert Vectors(file).find("the").tolist() == [1, 2, 3]
    assert not unfinished.exists()


def test_a_damaged_cache_is_told(tmp_path: Path, cache: Path) -> None:
    file = write(tmp_path)
    Vectors(file)
    [folder] = (p for p in cache.iterdir() if p.is_dir())
    (folder / "order.npy").write_bytes(b"")
    with pytest.raises(DataError, match="damaged") as caught:
        Vectors(file)
    assert str(folder) in caught.value.where


def test_several_processes_at_once(tmp_path: Path, cache: Path) -> None:
    lines = (f"w{i} {i} {-i}\n" for i in range(20000))
    file = write(tmp_path, "".join(lines))
    code = (
        "import sys; from pathlib import Path; from mertool.extract.vectors import Vectors; "
        "print(Vectors(Path(sys.argv[1])).find('w19999').tolist())"
    )
    command = [sys.executable, "-c", code, str(file)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [p.communicate()[0].strip() for p in started] == ["[19999.0, -19999.0]"] * 3
    assert sorted(p.suffix for p in cache.iterdir()) == ["", ".lock"]


def test_vectors_stay_on_disk(tmp_path: Path) -> None:
    """20 000 words of 50 numbers are 4 MB as float32, and their words 1 MB as Python objects."""
    row = " ".join(["0.25"] * 50)
    file = write(tmp_path, "".join(f"word{i} {row}\n" for i in range(20000)))
    Vectors(file)
    tracemalloc.start()
    found = Vectors(file)
    assert found.find("word12345").sum() == 12.5
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_the_contract(tmp_path: Path) -> None:
    from mertool.testing import check_extractor, failed

    words = "kids are talking by the door dogs sitting i think this movie was really good"
    text = "".join(f"{w} {i} 1 2\n" for i, w in enumerate(words.split()))
    found = check_extractor("glove", [f"text.vectors={write(tmp_path, text)}"])
    assert failed(found) == [] and sum(r.status == "passed" for r in found) >= 9
