import os
import resource
import subprocess
import sys

import h5py
import numpy as np
import pytest

import mertool
from mertool.errors import DataError, OutputError
from mertool.store import Stream, Writer, check_output
from mertool.types import Clip, Label, Rows, Word

LABELS = [
    Label("score", "regression", (), (-1.0, 1.0)),
    Label("emotion", "classification", ("a", "b")),
    Label("traits", "multilabel", ("x", "y", "z")),
]


def rows(count, width, start=0, text=False):
    values = np.arange(start, start + count * width, dtype=np.float32).reshape(count, width)
    times = np.stack([np.arange(count), np.arange(count) + 1], 1) / 10
    word = np.arange(count, dtype=np.int32) if text else None
    span = np.stack([word, word + 1], 1) if text else None
    return Rows(values, times, word, span)


@pytest.fixture
def file(tmp_path):
    streams = {
        "text": Stream(("t0", "t1"), {"extractor": "minilm"}, text=True),
        "audio": Stream(("f0",), {"extractor": "covarep", "rate": 100.0}),
    }
    path = tmp_path / "x.h5"
    with Writer(path, streams, LABELS, {"command": "test", "dataset": "toy"}) as writer:
        writer.add(
            Clip(
                "żółw 1", "a b/ü.mp4", "/src", 0.5, 2.5, "hé llo", "en", "sp", "train",
                [Word("hé", 0, 1, 0.5), Word("llo", 1, 2, -1)],
                {"score": 0.25, "emotion": 1, "traits": [1, 0, 1]}, sha256="ab",
            ),
            {"text": rows(3, 2, text=True), "audio": rows(5, 1, 100)},
        )  # fmt: skip
        writer.add(Clip("second", split="test"), {"audio": rows(2, 1, 200)})
        writer.fail("third", "media", "cannot be read")
    return path


def test_everything_comes_back(file):
    with mertool.open(file) as f:
        assert f.ids == ["żółw 1", "second"] and len(f) == 2 and "second" in f
        clip = f["żółw 1"]
        assert (clip.path, clip.source, clip.start, clip.end) == ("a b/ü.mp4", "/src", 0.5, 2.5)
        assert (clip.text, clip.language, clip.speaker, clip.split) == (
            "hé llo", "en", "sp", "train",
        )  # fmt: skip
        assert clip.words == [Word("hé", 0, 1, 0.5), Word("llo", 1, 2, -1)]
        assert clip.labels == {"score": 0.25, "emotion": 1, "traits": [1, 0, 1]}
        assert clip.sha256 == "ab"
        np.testing.assert_array_equal(clip.streams["text"].values, rows(3, 2).values)
        np.testing.assert_array_equal(clip.streams["text"].word, [0, 1, 2])
        np.testing.assert_array_equal(clip.streams["text"].span, [[0, 1], [1, 2], [2, 3]])
        second = f["second"]
        np.testing.assert_array_equal(second.streams["audio"].values, [[200], [201]])
        assert len(second.streams["text"]) == 0 and second.labels == {} and second.end is None
        assert f.failures == [("third", "media", "cannot be read")]
        assert f.streams["audio"].columns == ("f0",)
        assert f.streams["audio"].attrs["rate"] == 100.0
        assert f.labels["traits"] == LABELS[2]
        assert f.attrs["dataset"] == "toy" and f.alignment == "none"


def test_many_clips_are_read_in_blocks_and_one_at_a_time_alike(tmp_path):
    rng = np.random.default_rng(0)
    streams = {"text": Stream(("t0",), {}, text=True), "audio": Stream(("a", "b"))}
    written = []
    with Writer(tmp_path / "x.h5", streams, LABELS) as writer:
        for i in range(150):
            spoken = [Word(f"wörd{k}", k, k + 0.5, k / 4) for k in range(rng.integers(0, 4))]
            emotion = {"emotion": i % 2} if i % 3 else {}
            clip = Clip(f"c{i}", "p", "s", i, None if i % 5 else i + 1.0, f"text {i}", words=spoken)
            clip.labels = {"score": i / 150, "traits": [i % 2, 1, 0], **emotion}
            clip.streams = {
                "text": rows(int(rng.integers(0, 3)), 1, i, text=True),
                "audio": rows(int(rng.integers(0, 5)), 2, 10 * i),
            }
            writer.add(clip, clip.streams)
            written.append(clip)
    with mertool.open(tmp_path / "x.h5") as f:
        for found in (list(f), [f.clip(i) for i in range(150)], list(f.clips(rows=False))):
            assert len(found) == 150
            for before, after in zip(written, found, strict=True):
                for key in ("id", "path", "source", "start", "end", "text", "words", "labels"):
                    assert getattr(after, key) == getattr(before, key), (before.id, key)
                for name, made in (after.streams or {}).items():
                    for key in ("values", "times", "word", "span"):
                        due = getattr(before.streams[name], key)
                        np.testing.assert_array_equal(getattr(made, key), due)
        assert [clip.streams for clip in f.clips(rows=False)] == [None] * 150
        assert [f.words(i) for i in range(150)] == [clip.words for clip in written]
        np.testing.assert_array_equal(f.spans()[:, 0], range(150))


def test_layout_is_the_contract(file):
    with h5py.File(file) as f:
        assert f.attrs["format"] == "mertool" and f.attrs["version"] == 1
        for name, dtype, shape in [
            ("streams/text/values", "f4", (3, 2)),
            ("streams/text/times", "f8", (3, 2)),
            ("streams/text/word", "i4", (3,)),
            ("streams/text/span", "i4", (3, 2)),
            ("streams/audio/offsets", "i8", (3,)),
            ("clips/start", "f8", (2,)),
            ("clips/labels/emotion", "i8", (2,)),
            ("words/score", "f4", (2,)),
            ("words/times", "f8", (2, 2)),
            ("words/offsets", "i8", (3,)),
        ]:
            assert f[name].dtype == dtype and f[name].shape == shape, name
        assert list(f["streams/audio/offsets"]) == [0, 5, 7]
        for name in ("id", "path", "source", "split", "speaker", "text", "language", "sha256"):
            assert h5py.check_string_dtype(f[f"clips/{name}"].dtype).encoding == "utf-8"
        assert f["clips/labels/emotion"].attrs["task"] == "classification"
        assert list(f["splits/default"].asstr()) == ["train", "test"]
        assert f["clips/labels/emotion"][1] == -1 and np.isnan(f["clips/labels/score"][1])


def test_to_numpy(file):
    with mertool.open(file) as f:
        arrays = f.to_numpy()
    assert arrays["streams"]["audio"].shape == (2, 5, 1)
    assert arrays["mask"]["audio"].tolist() == [[True] * 5, [True, True, False, False, False]]
    assert arrays["streams"]["audio"][1, 2:].sum() == 0
    assert arrays["split"].tolist() == ["train", "test"]
    np.testing.assert_array_equal(arrays["labels"]["traits"], [[1, 0, 1], [-1, -1, -1]])


def test_named_splits_and_the_order_of_streams(tmp_path):
    streams = {name: Stream(("p",)) for name in ("text", "audio", "vision")}
    labels = [Label(name, "regression") for name in ("z", "a")]
    with Writer(tmp_path / "x.h5", streams, labels) as writer:
        for i in range(3):
            writer.add(Clip(str(i), split="train"), {})
        writer.split("fold-0", ["train", "valid", "test"])
    with mertool.open(tmp_path / "x.h5") as f:
        assert list(f.streams) == ["text", "audio", "vision"] and list(f.labels) == ["z", "a"]
        assert f.splits == ["default", "fold-0"]
        assert f.split("fold-0") == ["train", "valid", "test"] and f.split() == ["train"] * 3
        with pytest.raises(DataError, match='Did you mean "fold-0"'):
            f.split("fold-1")


def test_many_clips_pass_the_buffer(tmp_path, monkeypatch):
    monkeypatch.setattr("mertool.store.writer._BUFFER", 50)
    with Writer(tmp_path / "x.h5", {"a": Stream(("p", "q", "r"))}) as writer:
        for i in range(40):
            writer.add(Clip(str(i)), {"a": rows(i % 7, 3, i * 1000)})
    with mertool.open(tmp_path / "x.h5") as f:
        for i in range(40):
            np.testing.assert_array_equal(f.rows(i, "a").values, rows(i % 7, 3, i * 1000).values)


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), Writer(tmp_path / "x.h5", {"a": Stream(("p",))}) as writer:
        writer.add(Clip("1"), {"a": rows(3, 1)})
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "bad",
    [
        Rows(np.zeros((2, 3), np.float32), np.zeros((2, 2))),
        Rows(np.zeros((2, 1), np.float32), np.zeros((3, 2))),
        Rows(np.full((2, 1), np.nan, np.float32), np.zeros((2, 2))),
        Rows(np.zeros((2, 1), np.float32), np.full((2, 2), np.inf)),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path, bad):
    with pytest.raises(DataError), Writer(tmp_path / "x.h5", {"a": Stream(("p",))}) as writer:
        writer.add(Clip("1"), {"a": bad})
    assert not (tmp_path / "x.h5").exists()


def test_files_that_are_not_ours(tmp_path, file):
    with pytest.raises(DataError, match="no such feature file"):
        mertool.open(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(DataError, match="cannot be opened as HDF5"):
        mertool.open(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as f:
        f["x"] = 1
    with pytest.raises(DataError, match="no mertool feature file"):
        mertool.open(tmp_path / "other.h5")
    with h5py.File(file, "r+") as f:
        f.attrs["version"] = 99
    with pytest.raises(DataError, match="version 99"):
        mertool.open(file)


@pytest.mark.parametrize(
    "part", ["streams", "streams/audio/offsets", "streams/text/columns", "clips/labels", "@version"]
)
def test_a_file_that_lacks_a_part(file, part):
    with h5py.File(file, "r+") as f:
        if part.startswith("@"):
            del f.attrs[part[1:]]
        else:
            del f[part]
    with pytest.raises(DataError, match="incomplete"):
        mertool.open(file)


def test_unknown_clip_suggests(file):
    with mertool.open(file) as f, pytest.raises(DataError, match="Did you mean"):
        f["secnd"]


def test_output_checks(tmp_path, file, monkeypatch):
    with pytest.raises(OutputError, match="exists already"):
        check_output(file, overwrite=False)
    check_output(file, overwrite=True)
    check_output(tmp_path / "new" / "folder" / "x.h5", overwrite=False)
    (tmp_path / "plain").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        check_output(tmp_path / "plain" / "x.h5", overwrite=False)

    def closed(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    # Tests run as root, to whom no folder is closed: the refusal itself is played.
    monkeypatch.setattr("pathlib.Path.touch", closed)
    with pytest.raises(OutputError, match="Permission denied"):
        check_output(tmp_path / "y.h5", overwrite=False)


def test_full_disk(tmp_path):
    """A limit on file size plays the full disk: three lines, no traceback, nothing left."""
    code = f"""
import sys
import numpy as np
from mertool.errors import OutputError
from mertool.store import Stream, Writer
from mertool.types import Clip, Rows
try:
    with Writer({str(tmp_path / "x.h5")!r}, {{"a": Stream(tuple("abcd"))}}) as writer:
        for i in range(200):
            writer.add(Clip(str(i)), {{"a": Rows(np.ones((1000, 4), "f4"), np.zeros((1000, 2)))}})
except OutputError as error:
    print(error.what)
    sys.exit(1)
"""
    limit = 1 << 20

    def lower():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [sys.executable, "-c", code], preexec_fn=lower, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert "cannot be written: File too large" in done.stdout
    assert os.listdir(tmp_path) == []
