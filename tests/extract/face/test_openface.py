from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from media_samples import Track, steady, write_media, write_wav

from mertool.errors import DataError, MertoolError, MertoolWarning, UsageError
from mertool.extract.face.openface import OpenFace
from mertool.extract.pipeline import run
from mertool.store import FeatureFile
from mertool.testing import check_extractor, failed
from mertool.types import Clip, Rows

RATE = 16000
FPS = 25.0
INTENSITIES = (
    "AU01_r AU02_r AU04_r AU05_r AU06_r AU07_r AU09_r AU10_r AU12_r AU14_r AU15_r AU17_r AU20_r "
    "AU23_r AU25_r AU26_r AU45_r"
).split()
PRESENCES = (
    "AU01_c AU02_c AU04_c AU05_c AU06_c AU07_c AU09_c AU10_c AU12_c AU14_c AU15_c AU17_c AU20_c "
    "AU23_c AU25_c AU26_c AU28_c AU45_c"
).split()
GAZE = [f"gaze_{eye}_{axis}" for eye in (0, 1) for axis in "xyz"]
POSE = "pose_Tx pose_Ty pose_Tz pose_Rx pose_Ry pose_Rz".split()
POINTS = [f"{axis}_{i}" for axis in "xy" for i in range(68)]
# In the order in which OpenFace 2 writes them.
HEADER = [
    "frame", "face_id", "timestamp", "confidence", "success",
    *GAZE, "gaze_angle_x", "gaze_angle_y", *POSE, *POINTS, *INTENSITIES, *PRESENCES,
]  # fmt: skip
NO_POINTS = [name for name in HEADER if name not in POINTS]
KEPT = [*INTENSITIES, *PRESENCES, *POSE, "gaze_angle_x", "gaze_angle_y", "confidence"]

Line = dict[str, float]


def line(frame: int, face: int = 0, fps: float = FPS, size: float = 100, **values: float) -> Line:
    """A line of the face `face` in a frame (counted from 1), with values of its own."""
    random = np.random.default_rng([frame, face])
    found = {name: round(float(random.uniform(-1, 1)), 3) for name in HEADER}
    found |= {name: round(float(random.uniform(0, 5)), 2) for name in INTENSITIES}
    found |= {name: float(random.integers(2)) for name in PRESENCES}
    found |= {f"x_{i}": 10 + size * (i % 17) / 16 for i in range(68)}
    found |= {f"y_{i}": 20 + size * (i // 17) / 3 for i in range(68)}
    # The inner lips closed, inside the box.
    found |= {"y_62": 20 + size / 2, "y_66": 20 + size / 2}
    found |= {"pose_Tz": 500.0, "confidence": 0.98, "success": 1.0}
    found |= {"frame": frame, "face_id": face, "timestamp": round((frame - 1) / fps, 3)}
    return found | values


def lost(frame: int) -> Line:
    """A line without a face, as OpenFace writes it."""
    keep = {"frame": frame, "face_id": 0, "timestamp": round((frame - 1) / FPS, 3)}
    return dict.fromkeys(HEADER, 0.0) | keep


def write_csv(
    path: Path, lines: Iterable[Line], header: list[str] = HEADER, comma: str = ", "
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = ("frame", "face_id", "success")
    with path.open("w") as file:
        file.write(comma.join(header) + "\n")
        for cells in lines:
            file.write(
                comma.join(f"{cells[n]:.0f}" if n in whole else f"{cells[n]:.3f}" for n in header)
                + "\n"
            )
    return path


def expected(lines: Iterable[Line]) -> np.ndarray:
    return np.array([[round(cells[name], 3) for name in KEPT] for cells in lines], np.float32)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Two seconds at 25 frames per second, without sound."""
    return write_media(tmp_path / "clip.mp4", steady(2))


def clip_of(path: Path, start: float = 0.0, end: float | None = None) -> Clip:
    return Clip(path.stem, path=path.name, source=str(path.parent), start=start, end=end)


def extract(clip: Clip, **settings: object) -> tuple[Rows, list[str]]:
    """Rows of a clip and what was warned of."""
    extractor = OpenFace(OpenFace.Config(**settings))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = extractor.extract(clip)
    assert {w.category for w in caught} <= {MertoolWarning}
    assert rows.values.shape == (len(rows), 47) and rows.values.dtype == np.float32
    assert np.isfinite(rows.values).all()
    return rows, [str(w.message) for w in caught]


def test_columns() -> None:
    extractor = OpenFace(OpenFace.Config(fps=5))
    assert extractor.columns == [*KEPT, "faces", "track", "valid"]
    assert len(INTENSITIES) == 17 and len(PRESENCES) == 18
    assert extractor.info["rate"] == 5


@pytest.mark.parametrize("comma", [", ", ","])  # 2.0 and 2.2
def test_values_are_those_of_the_file(video: Path, comma: str) -> None:
    lines = [line(i) for i in range(1, 51)]
    write_csv(video.with_suffix(".csv"), lines, comma=comma)
    rows, notes = extract(clip_of(video))
    np.testing.assert_array_equal(rows.values[:, :44], expected(lines))
    np.testing.assert_array_equal(rows.values[:, 44:], np.ones((50, 3)))
    np.testing.assert_allclose(rows.times[:, 0], np.arange(50) / 25, atol=1e-9)
    np.testing.assert_allclose(rows.times[:, 1], np.arange(1, 51) / 25, atol=1e-9)
    assert notes == []


def test_other_columns_and_their_order_do_not_matter(video: Path) -> None:
    lines = [line(i) for i in range(1, 11)]
    header = [*reversed(NO_POINTS), "p_scale"]
    header.remove("face_id")  # OpenFace 1 and early 2
    write_csv(video.with_suffix(".csv"), [cells | {"p_scale": 3} for cells in lines], header)
    rows, _ = extract(clip_of(video))
    np.testing.assert_array_equal(rows.values[:, :44], expected(lines))


@pytest.mark.parametrize("missing", ["zero", "interpolate"])
def test_frames_without_success(video: Path, missing: str) -> None:
    lines = [lost(i) if i in (1, 4, 5) else line(i) for i in range(1, 9)]
    write_csv(video.with_suffix(".csv"), lines)
    rows, notes = extract(clip_of(video), missing=missing)
    gone = np.array([0, 3, 4])
    assert rows.values[:, -1].tolist() == [0, 1, 1, 0, 0, 1, 1, 1]
    assert rows.values[:, -3].tolist() == rows.values[:, -1].tolist()
    values = expected(lines)
    if missing == "interpolate":
        values[0] = values[1]
        values[3] = values[2] + (values[5] - values[2]) / 3
        values[4] = values[2] + (values[5] - values[2]) * 2 / 3
    else:
        values[gone] = 0
    np.testing.assert_allclose(rows.values[:, :44], values, atol=1e-4)
    assert len(notes) == 1 and notes[0].startswith("3 of 8 frames")


def test_no_face_in_any_frame(video: Path) -> None:
    write_csv(video.with_suffix(".csv"), map(lost, range(1, 51)))
    rows, notes = extract(clip_of(video))
    assert not len(rows)
    assert notes == ["no face found, no openface rows"]


def test_folder_is_laid_out_as_the_media_are(tmp_path: Path) -> None:
    media = tmp_path / "media"
    (media / "a").mkdir(parents=True)
    video = write_media(media / "a" / "b.c.mp4", steady(0.4))
    write_csv(video.with_suffix(".csv"), [line(i) for i in range(1, 11)])
    other = [line(i, face=3) for i in range(1, 11)]
    write_csv(tmp_path / "csv" / "a" / "b.c.csv", other)
    clip = Clip("x", path="a/b.c.mp4", source=str(media))
    rows, _ = extract(clip, folder=str(tmp_path / "csv"))
    np.testing.assert_array_equal(rows.values[:, :44], expected(other))
    rows, _ = extract(clip)
    assert not np.array_equal(rows.values[:, :44], expected(other))


@pytest.mark.parametrize("rate", [25.0, 30000 / 1001])
@pytest.mark.parametrize(
    ("start", "end", "fps"),
    [(0, None, 0), (0.6, 1.2, 0), (0.61, 1.19, 0), (1.9, None, 0), (0, 0.03, 0),
     (0, None, 10), (0.5, 1.7, 7), (0.13, 2, 24)],
)  # fmt: skip
def test_rows_are_at_the_times_of_the_frames(
    tmp_path: Path, rate: float, start: float, end: float | None, fps: float
) -> None:
    """The reference: the frames that are decoded, by what a picture says of its number."""
    video = write_media(tmp_path / "clip.mkv", steady(3, rate))
    lines = [line(i, fps=rate) for i in range(1, round(3 * rate) + 1)]
    write_csv(video.with_suffix(".csv"), lines)
    clip = clip_of(video, start, end)
    rows, _ = extract(clip, fps=fps)
    times = np.array([time for time, _ in clip.frames(fps or None)])
    np.testing.assert_allclose(rows.times[:, 0], times, atol=1.1e-3)
    numbers = np.rint((times + start) * rate).astype(int)
    np.testing.assert_array_equal(rows.values[:, :44], expected(lines[i] for i in numbers))
    assert rows.times.max() <= (3 if end is None else end) - start + 0.05


def test_picture_that_begins_late(tmp_path: Path) -> None:
    """OpenFace's zero is the first frame, the clip's the first sound."""
    sound = Track(np.zeros((1, 2 * RATE), np.float32))
    video = write_media(tmp_path / "clip.mkv", steady(1, start=0.6), [sound])
    write_csv(video.with_suffix(".csv"), [line(i) for i in range(1, 26)])
    first = next(clip_of(video).frames())[0]
    assert first > 0.5
    rows, _ = extract(clip_of(video))
    np.testing.assert_allclose(rows.times[:, 0], first + np.arange(25) / 25, atol=2e-3)
    rows, _ = extract(clip_of(video, start=1.0))
    np.testing.assert_array_equal(rows.values[0, :44], expected([line(11)])[0])


def test_sound_only_with_output(tmp_path: Path) -> None:
    """Where the video stayed elsewhere."""
    sound = write_wav(tmp_path / "clip.wav", np.zeros((1, RATE), np.float32))
    write_csv(tmp_path / "clip.csv", [line(i) for i in range(1, 26)])
    rows, _ = extract(clip_of(sound))
    assert len(rows) == 25


def test_output_that_ends_before_the_clip(video: Path) -> None:
    write_csv(video.with_suffix(".csv"), [line(i) for i in range(1, 6)])
    rows, notes = extract(clip_of(video, start=1.0))
    assert not len(rows)
    assert notes == ["clip.csv has no frame between 1 and 2 s, no openface rows"]


def test_frames_without_a_line(video: Path) -> None:
    """FaceLandmarkVidMulti writes lines of faces only: rows stay one per frame."""
    seen = [4, 5, 9]
    write_csv(video.with_suffix(".csv"), [line(i) for i in seen])
    rows, notes = extract(clip_of(video))
    np.testing.assert_allclose(rows.times[:, 0], np.arange(9) / 25, atol=1e-9)
    assert (1 + np.flatnonzero(rows.values[:, -1])).tolist() == seen
    np.testing.assert_array_equal(rows.values[[3, 4, 8], :44], expected(map(line, seen)))
    assert notes[0].startswith("6 of 9 frames")


@pytest.mark.parametrize("header", [HEADER, NO_POINTS])
def test_the_largest_of_two_faces(video: Path, header: list[str]) -> None:
    lines = []
    for i in range(1, 51):
        lines.append(line(i, 7, size=80, pose_Tz=700))
        if i > 10:
            lines.append(line(i, 2, size=120, pose_Tz=400))  # nearer
    write_csv(video.with_suffix(".csv"), lines, header)
    rows, notes = extract(clip_of(video), keep="largest")
    assert rows.values[:, -3].tolist() == [1] * 10 + [2] * 40
    assert rows.values[:, -2].tolist() == [0] * 10 + [2] * 40
    np.testing.assert_array_equal(rows.values[10:, :44], expected(lines[11::2]))
    assert "kept: track 2, the largest" in notes[0]


@pytest.mark.parametrize("header", [HEADER, NO_POINTS])
def test_the_speaking_of_two_faces(tmp_path: Path, header: list[str]) -> None:
    """The smaller one's lips move while there is sound, the larger one's in the silence."""
    loud = np.repeat([1, 0, 1, 0], RATE)
    sound = np.float32(np.random.default_rng(0).normal(0, 0.2, 4 * RATE) * loud)[None]
    video = write_media(tmp_path / "clip.mkv", steady(4), [Track(sound)])
    lines = []
    for i in range(1, 101):
        speaks = bool(loud[round((i - 0.5) / 25 * RATE)])
        for face, size, moves in ((0, 150, not speaks), (1, 90, speaks)):
            opening = (i % 2) * float(moves)
            more = {"AU25_r": 2 * opening, "AU26_r": opening, "pose_Tz": 6e4 / size}
            more["y_66"] = 20 + size / 2 + 0.1 * size * opening
            lines.append(line(i, face, size=size, **more))
    write_csv(video.with_suffix(".csv"), lines, header)
    rows, notes = extract(clip_of(video))
    np.testing.assert_array_equal(rows.values[:, :44], expected(lines[1::2]))
    assert "kept: track 2, whose mouth moves with the voice" in notes[0]
    rows, _ = extract(clip_of(video), keep="largest")
    np.testing.assert_array_equal(rows.values[:, :44], expected(lines[::2]))


def test_nan_counts_as_no_face(video: Path) -> None:
    file = write_csv(video.with_suffix(".csv"), [line(i) for i in range(1, 11)])
    rows = file.read_text().split("\n")
    cells = rows[3].split(", ")
    cells[HEADER.index("gaze_angle_x")] = "-nan(ind)"
    file.write_text("\n".join([*rows[:3], ", ".join(cells), *rows[4:]]))
    rows, notes = extract(clip_of(video))
    assert rows.values[:, -1].tolist() == [1, 1, 0] + [1] * 7
    assert "faces that hold nan are left out: 1 in clip.csv" in notes


def _edit(number: int, name: str, cell: str) -> Callable[[list[list[str]]], None]:
    def edit(table: list[list[str]]) -> None:
        table[number - 1][HEADER.index(name)] = cell

    return edit


def _swap(table: list[list[str]]) -> None:
    table[4], table[5] = table[5], table[4]


def _untimed(table: list[list[str]]) -> None:
    for cells in table[1:]:
        cells[2] = "0"


@pytest.mark.parametrize(
    ("edit", "where", "what"),
    [
        (lambda t: t.clear(), "line 1", "empty"),
        (lambda t: t.insert(0, []), "line 1", "empty"),
        (lambda t: t.__delitem__(slice(1, None)), "clip.csv", "no frame"),
        (lambda t: [cells.__delitem__(slice(-18, None)) for cells in t], "line 1", "AU01_c and 17"),
        (_edit(1, "AU28_c", "AU82_c"), "line 1", "lacks the column AU28_c"),
        (_edit(1, "timestamp", "time"), "line 1", "lacks the column timestamp"),
        (_edit(4, "AU12_r", "smile"), 'line 4: AU12_r is no number: "smile"', "cannot be read"),
        (_edit(4, "AU12_r", ""), 'line 4: AU12_r is no number: ""', "cannot be read"),
        (_edit(4, "x_5", "__import__"), 'line 4: x_5 is no number', "cannot be read"),
        (_edit(5, "frame", "four"), 'line 5: frame is no number: "four"', "cannot be read"),
        (_edit(5, "frame", "4.5"), "line 5: frame is no whole number", "cannot be read"),
        (_edit(5, "timestamp", "nan"), "line 5: frame 4 is at nan s", "cannot be read"),
        (_edit(5, "timestamp", "0.01"), "line 5: frame 4 at 0.01 s after frame 3", "cannot be"),
        (_edit(5, "frame", "3"), "line 5: frame 3 has the face 0 twice", "cannot be read"),
        (_edit(11, "frame", "900000000"), "line 11: 899999991 frames in 0.04 s", "cannot be"),
        (_swap, "line 6: frame 4 at 0.12 s after frame 5", "cannot be read"),
        (_untimed, "line 3: frame 2 is at 0 s", "no times"),
        (lambda t: t[6].pop(), "line 7: it has 189 cells", "cannot be read"),
        (lambda t: t[6].append("0" * 100_000), "line 7: it is longer", "cannot be read"),
        (_edit(7, "AU01_r", '"0'), 'line 7: AU01_r is no number: ""0"', "cannot be read"),
    ],
)  # fmt: skip
def test_bad_files(
    video: Path, edit: Callable[[list[list[str]]], None], where: str, what: str
) -> None:
    file = write_csv(video.with_suffix(".csv"), [line(i) for i in range(1, 11)])
    table = [row.split(", ") for row in file.read_text().splitlines()]
    edit(table)
    file.write_text("".join(", ".join(cells) + "\n" for cells in table))
    with pytest.raises(DataError) as caught:
        extract(clip_of(video))
    assert what in caught.value.what
    assert where in caught.value.where and str(file) in caught.value.where
    assert caught.value.fix and str(caught.value).count("\n") == 2


def test_bytes_that_are_no_text(video: Path) -> None:
    video.with_suffix(".csv").write_bytes(bytes(range(256)) * 2000)
    with pytest.raises(DataError, match="lacks the column|cannot be read"):
        extract(clip_of(video))


# OpenFace's program, as far as it is used here: a CSV of 25 frames per second of the file's name.
PROGRAM = """#!{python}
import json, pathlib, shutil, sys
arguments = sys.argv[1:]
here = pathlib.Path(__file__).parent
with open(here / "calls", "a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
assert arguments[0] == "-f" and arguments[2] == "-out_dir"
assert arguments[4:] == ["-aus", "-pose", "-gaze"]
name = pathlib.Path(arguments[1]).stem
print("Could not find the camera parameters, using estimates", file=sys.stderr)
if name == "crashes":
    print("terminate called after throwing\\n\\n", file=sys.stderr)
    sys.exit(1)
if name == "silent":
    print("Could not open the video file", flush=True)
    sys.exit(0)
out = pathlib.Path(arguments[3])
shutil.copy(here / "out.csv", out / (name + ".csv"))
(out / (name + "_of_details.txt")).write_text("Input:" + arguments[1])
"""


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    file = folder / "FeatureExtraction"
    file.write_text(PROGRAM.format(python=sys.executable))
    file.chmod(0o755)
    write_csv(folder / "out.csv", [line(i) for i in range(1, 251)], NO_POINTS)
    return file


def calls(binary: Path) -> list[list[str]]:
    file = binary.parent / "calls"
    return [json.loads(row) for row in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.parametrize("on_path", [True, False])
def test_program(
    video: Path, binary: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, on_path: bool
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    if on_path:
        monkeypatch.setenv("PATH", str(binary.parent), prepend=os.pathsep)
    settings = {} if on_path else {"binary": str(binary)}
    rows, _ = extract(clip_of(video), **settings)
    np.testing.assert_array_equal(rows.values[:, :44], expected(map(line, range(1, 51))))
    (call,) = calls(binary)
    assert call[:2] == ["-f", str(video)]
    assert list(temporary.iterdir()) == []


def test_program_runs_once_for_the_clips_of_a_file(video: Path, binary: Path) -> None:
    other = write_media(video.with_name("other.mp4"), steady(0.4))
    extractor = OpenFace(OpenFace.Config(binary=str(binary)))
    for start in (0.0, 1.0, 0.4):
        rows = extractor.extract(clip_of(video, start, start + 0.4))
        first = round(25 * start) + 1
        values = expected(map(line, range(first, first + 10)))
        np.testing.assert_array_equal(rows.values[:, :44], values)
    assert len(extractor.extract(clip_of(other))) == 10
    assert [Path(call[1]).name for call in calls(binary)] == ["clip.mp4", "other.mp4"]


def test_program_does_not_run_where_there_is_output(video: Path, binary: Path) -> None:
    lines = [line(i, face=1) for i in range(1, 51)]
    write_csv(video.with_suffix(".csv"), lines)
    rows, _ = extract(clip_of(video), binary=str(binary))
    np.testing.assert_array_equal(rows.values[:, :44], expected(lines))
    assert not calls(binary)


@pytest.mark.parametrize(
    ("name", "said"),
    [("crashes", "terminate called after throwing"), ("silent", "Could not open the video file")],
)
def test_program_that_fails(video: Path, binary: Path, name: str, said: str) -> None:
    video = video.rename(video.with_name(f"{name}.mp4"))
    with pytest.raises(MertoolError, match="FeatureExtraction failed") as caught:
        extract(clip_of(video), binary=str(binary))
    assert caught.value.where == f"{video}: {said}"


def test_program_that_is_none(video: Path, tmp_path: Path) -> None:
    file = tmp_path / "program"
    file.write_bytes(b"\x7fELF not really")
    file.chmod(0o755)
    with pytest.raises(MertoolError, match="program failed"):
        extract(clip_of(video), binary=str(file))


def test_name_with_a_dash_and_spaces(tmp_path: Path, binary: Path) -> None:
    video = write_media(tmp_path / "-f $(touch x); 'a b'.mp4", steady(0.4))
    rows, _ = extract(clip_of(video), binary=str(binary))
    assert len(rows) == 10
    assert calls(binary)[0][1] == str(video)


def test_no_output_and_no_program(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MertoolError) as caught:
        extract(clip_of(video))
    assert str(video.with_suffix(".csv")) in caught.value.where
    assert "vision.folder" in caught.value.fix and "vision.binary" in caught.value.fix


def test_no_video(tmp_path: Path, binary: Path) -> None:
    sound = write_wav(tmp_path / "clip.wav", np.zeros((1, RATE), np.float32))
    rows, notes = extract(clip_of(sound), binary=str(binary))
    assert not len(rows) and notes == ["no video, no openface rows"]
    assert not calls(binary)


def test_settings(tmp_path: Path) -> None:
    for settings in ({"fps": -1.0}, {"keep": "first"}, {"missing": "drop"}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            OpenFace.Config(**settings)
    with pytest.raises(UsageError, match="no such folder"):
        OpenFace(OpenFace.Config(folder=str(tmp_path / "nowhere")))
    (tmp_path / "text").write_text("")
    for name in ("nowhere", "text"):  # not there; not to be run
        with pytest.raises(UsageError, match="program"):
            OpenFace(OpenFace.Config(binary=str(tmp_path / name)))


def test_contract(binary: Path) -> None:
    results = check_extractor("openface", [f"vision.binary={binary}"])
    assert failed(results) == []


def test_one_bad_file_stops_no_other(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for name in ("a", "b", "c"):
        video = write_media(media / f"{name}.mp4", steady(0.4))
        write_csv(video.with_suffix(".csv"), [line(i) for i in range(1, 11)])
    (media / "b.csv").write_text("frame\n1\n")
    out = tmp_path / "feats.h5"
    report = run([media], out, text="none", audio="none", vision="openface")
    assert report.exit_code == 3
    ((name, _, error),) = report.failures
    assert name == "b" and "b.csv, line 1" in error
    with FeatureFile(out) as file:
        assert len(file.clip(1).streams["vision"]) == 10
