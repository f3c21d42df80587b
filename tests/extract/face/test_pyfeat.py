"""py-feat's own process, with a stand-in for py-feat in it (`stub_feat`)."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from face_clips import FrameClip

from mertool.errors import MertoolError, MertoolWarning
from mertool.extract.face import pyfeat_worker
from mertool.extract.face.pyfeat import EMOTIONS, NAMES, PyFeat, faces_of
from mertool.extract.plan import plan_streams
from mertool.testing import check_extractor

RAISE, DIE, EXIT, TALK, SLEEP = 1, 2, 3, 4, 5
LEVEL = dict(zip("abcdefgh", range(20, 180, 20), strict=True))
REAL_PATH = os.environ.get("PYTHONPATH", "")
Coded = tuple[int, int, int, int, int, int]  # x, y, size in 16 pixels; level, mouth, score


def picture(
    *faces: Coded, command: int = 0, shape: tuple[int, int] = (96, 128), corner: int = 0
) -> np.ndarray:
    """A picture in code: pixel (0, 0) = mark, command, number of faces; row 1 = two per face."""
    image = np.zeros((*shape, 3), np.uint8)
    image[-1, -1] = corner, 0, corner // 2
    image[0, 0] = 77, command, len(faces)
    for k, face in enumerate(faces):
        image[1, 2 * k], image[1, 2 * k + 1] = face[:3], face[3:]
    return image


def expected(face: Coded, corner: int = 0) -> np.ndarray:
    """The extractor's own columns for a coded face, as the stand-in's rules give them."""
    size, level, score = 16 * face[2], face[3] / 255, face[5] / 255
    aus = [level * (1 - k / 40) for k in range(20)]
    emotions = [(k + 1) / 28 for k in range(7)]
    gaze = [corner / 255, (corner // 2) / 255]
    return np.float32([*aus, *emotions, level, -level, size / 100, *gaze, score])


def write_stub(folder: Path, version: str = "2.1.5") -> Path:
    source = Path(__file__).with_name("stub_feat.py")
    package, info = folder / "feat", folder / f"py_feat-{version}.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    shutil.copy(source, package / "__init__.py")
    text = f"Metadata-Version: 2.1\nName: py-feat\nVersion: {version}\n"
    (info / "METADATA").write_text(text)
    for repo, commit in (("face_multitask_v2", "a" * 40), ("retinaface_r34", "b" * 40)):
        refs = package / "resources" / f"models--py-feat--{repo}" / "refs"
        refs.mkdir(parents=True)
        (refs / "main").write_text(commit)
    return folder


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Every interpreter that is started finds the stand-in."""
    folder = write_stub(tmp_path_factory.mktemp("stub"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("STUB_FEAT_ASLEEP", str(folder / "asleep"))
        patch.setenv("FEAT_MULTITASK_WEIGHTS", "/elsewhere.pt")
        yield folder


@pytest.fixture(scope="module")
def shared_extractor(stub: Path) -> Iterator[PyFeat]:
    made = PyFeat(PyFeat.Config())
    yield made
    made.close()


@pytest.fixture
def extractor(shared_extractor: PyFeat) -> Iterator[PyFeat]:
    """One with default settings; tests may set others."""
    before = shared_extractor.config
    yield shared_extractor
    shared_extractor.config = before


def extract(extractor: PyFeat, images: Sequence[np.ndarray], **settings: Any) -> np.ndarray:
    """(T, 36) rows of a clip, silently."""
    if settings:
        extractor.config = dataclasses.replace(extractor.config, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MertoolWarning)
        return extractor.extract(FrameClip(images)).values


def report(extractor: PyFeat) -> dict[str, Any]:
    """What the process says of itself; it does so in an error."""
    with pytest.raises(MertoolError) as error:
        extract(extractor, [picture(command=RAISE)])
    return json.loads(error.value.where.partition("ValueError: ")[2])


def pid_of(extractor: PyFeat) -> int:
    return extractor._process._process.pid


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def runs(pid: int) -> bool:
    """Whether it exists and is no zombie: an orphan's new parent may be slow to bury it."""
    with suppress(OSError):
        return exists(pid) and "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text()
    return exists(pid)


# What comes out


def test_columns(extractor: PyFeat) -> None:
    assert extractor.columns == [
        *("AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU09", "AU10", "AU11", "AU12"),
        *("AU14", "AU15", "AU17", "AU20", "AU23", "AU24", "AU25", "AU26", "AU28", "AU43"),
        *("emotion_neutral", "emotion_happy", "emotion_sad", "emotion_surprise", "emotion_fear"),
        *("emotion_disgust", "emotion_anger", "pitch", "roll", "yaw", "gaze_pitch", "gaze_yaw"),
        *("face_score", "faces", "track", "valid"),
    ]  # fmt: skip
    assert len(EMOTIONS) == 7


def test_what_is_recorded(extractor: PyFeat) -> None:
    assert extractor.info["model"] == "py-feat Detectorv2: retinaface, face_multitask_v2"
    assert extractor.info["revision"] == (
        f"py-feat 2.1.5; face_multitask_v2 {'a' * 12}, retinaface_r34 {'b' * 12}"
    )
    assert "non-commercial" in extractor.info["licence"]


@pytest.mark.parametrize("batch", [1, 4, 5, 8, 50])
def test_values_stand_in_the_rows_of_their_frames(extractor: PyFeat, batch: int) -> None:
    """Ten frames: whole batches, a smaller one at the end, one batch for all."""
    faces = [(1, 1, 3, 10 + 20 * i, 7, 255 - i) for i in range(10)]
    images = [picture(face, corner=i) for i, face in enumerate(faces)]
    before = len(report(extractor)["calls"])
    values = extract(extractor, images, batch=batch)
    want = [expected(face, corner=i) for i, face in enumerate(faces)]
    np.testing.assert_allclose(values[:, :33], want, rtol=1e-6)
    np.testing.assert_array_equal(values[:, 33:], [[1, 1, 1]] * 10)
    calls = report(extractor)["calls"][before:-1]
    full, rest = divmod(10, batch)
    assert [shape[0] for shape in calls] == [batch] * full + [rest] * bool(rest)


def test_two_faces_in_a_frame(extractor: PyFeat) -> None:
    small, large = (1, 0, 2, 50, 0, 255), (4, 0, 3, 90, 0, 255)
    images = [picture(small), picture(small, large), picture(large, small), picture(large)]
    values = extract(extractor, images, keep="largest", batch=3)
    np.testing.assert_array_equal(values[:, 33], [1, 2, 2, 1])
    np.testing.assert_array_equal(values[:, 34], [0, 2, 2, 2])
    np.testing.assert_allclose(values[1:, :33], [expected(large)] * 3, rtol=1e-6)
    assert not values[0, :33].any()


def test_only_the_largest_faces_are_followed(extractor: PyFeat) -> None:
    faces = [(0, 0, 1, 10, 0, 255), (2, 0, 3, 20, 0, 255), (6, 0, 2, 30, 0, 255)]
    values = extract(extractor, [picture(*faces)], max_faces=2, keep="largest")
    assert values[0, 33] == 2
    np.testing.assert_allclose(values[0, :33], expected(faces[1]), rtol=1e-6)


def test_the_box_and_the_mouth_reach_the_pipeline(extractor: PyFeat) -> None:
    """The lips' distance over the height of the face, 2 x 48 pixels here."""
    face = (2, 1, 3, 50, 12, 255)
    ((seen,), nobody, (other,)) = extractor._see(
        [picture(face), picture(), picture((2, 1, 3, 50, 0, 255))], [0.0, 0.1, 0.2]
    )
    np.testing.assert_array_equal(seen.box, [32, 16, 80, 112])
    assert seen.mouth == pytest.approx(12 / 96)
    assert other.mouth == 0
    assert nobody == []


def test_a_frame_without_a_face_and_one_not_measured(extractor: PyFeat) -> None:
    face, unmeasured = (1, 1, 3, 80, 0, 255), (1, 1, 3, 80, 0, 1)
    values = extract(extractor, [picture(face), picture(), picture(unmeasured), picture(face)])
    np.testing.assert_array_equal(values[:, -1], [1, 0, 0, 1])
    assert np.isfinite(values).all()
    assert not values[1:3].any()


@pytest.mark.parametrize("images", [[picture()] * 3, []])
def test_nobody_there(extractor: PyFeat, images: list[np.ndarray]) -> None:
    note = "no face found, no pyfeat rows" if images else "no video, no pyfeat rows"
    with pytest.warns(MertoolWarning, match=note):
        rows = extractor.extract(FrameClip(images))
    assert rows.values.shape == (0, 36)


def test_a_face_without_lips_or_without_size() -> None:
    """Lips that were not found close the mouth; a box of no size is no face."""
    row = np.float32([*np.full(len(NAMES), 0.5), 10, 20, 30, 40, np.nan, 1, 2, 3])
    (face,) = faces_of([0], row[None], 1)[0]
    assert face.mouth == 0
    row[len(NAMES) + 2] = 0
    assert faces_of([1], row[None], 2) == [[], []]


def test_large_frames(extractor: PyFeat) -> None:
    """Pixels keep their places and channels, up to the last one."""
    face = (100, 50, 60, 123, 5, 250)
    image = picture(face, shape=(2160, 3840), corner=200)
    values = extract(extractor, [image] * 3, batch=2)
    np.testing.assert_allclose(values[:, :33], [expected(face, corner=200)] * 3, rtol=1e-6)


def test_a_video_that_changes_its_size(extractor: PyFeat) -> None:
    face = (1, 1, 2, 99, 0, 255)
    shapes = [(96, 128), (96, 128), (64, 64), (96, 128)]
    values = extract(extractor, [picture(face, shape=shape) for shape in shapes], batch=4)
    np.testing.assert_allclose(values[:, :33], [expected(face)] * 4, rtol=1e-6)


def test_frames_that_are_not_contiguous(extractor: PyFeat) -> None:
    face = (1, 1, 2, 99, 0, 255)
    turned = np.rot90(np.rot90(picture(face), 1).copy(), -1)
    assert not turned.flags.c_contiguous
    np.testing.assert_allclose(extract(extractor, [turned])[0, :33], expected(face), rtol=1e-6)


# A process of its own


def test_the_parent_stays_as_it_is(extractor: PyFeat) -> None:
    threads, omp = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    extract(extractor, [picture((1, 1, 2, 99, 0, 255))])
    there = report(extractor)
    assert there["pid"] == pid_of(extractor) != os.getpid()
    assert not there["grad"] and there["omp"] == "7"  # what the stand-in does
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == threads
    assert os.environ.get("OMP_NUM_THREADS") == omp
    assert "feat" not in sys.modules


def test_how_py_feat_is_called(extractor: PyFeat) -> None:
    there = report(extractor)
    assert (there["device"], there["identity"], there["amp"]) == ("cpu", None, False)
    assert there["weights"] is there["offline"] is there["variable"] is None
    assert there["calls"][0][0] == 1  # an empty picture, before any clip
    # Modules beside the worker must not stand in the way of a library's own.
    assert str(Path(pyfeat_worker.__file__).parent) not in there["path"]


def test_chatter_is_no_answer(extractor: PyFeat) -> None:
    face = (1, 1, 2, 99, 0, 255)
    values = extract(extractor, [picture(face, command=TALK)] * 3, batch=1)
    np.testing.assert_allclose(values[:, :33], [expected(face)] * 3, rtol=1e-6)
    assert len(extractor._process._said) < 20_000


@pytest.mark.parametrize(("command", "error"), [(RAISE, "ValueError: "), (EXIT, "enough")])
def test_an_exception_is_the_clip_s_alone(extractor: PyFeat, command: int, error: str) -> None:
    face = (1, 1, 2, 99, 0, 255)
    images = [picture(face)] * 3 + [picture(face, command=command)] + [picture(face)] * 3
    before = pid_of(extractor)
    with pytest.raises(MertoolError) as caught:
        extract(extractor, images, batch=2)
    assert caught.value.what == "py-feat failed."
    assert caught.value.where.startswith("frames of 0.080 s to 0.120 s: ")
    assert error in caught.value.where
    assert "batch" in caught.value.fix
    assert "in _obey" in str(caught.value.__cause__)  # for --debug
    assert len(extract(extractor, images[:3])) == 3
    assert pid_of(extractor) == before


def test_a_crash_is_the_clip_s_alone(extractor: PyFeat) -> None:
    face = (1, 1, 2, 99, 0, 255)
    before = pid_of(extractor)
    with pytest.raises(MertoolError) as caught:
        extract(extractor, [picture(face)] * 3 + [picture(face, command=DIE)], batch=2)
    assert caught.value.what == "py-feat's process died: SIGSEGV."
    assert caught.value.where == "frames of 0.080 s to 0.120 s: free(): invalid pointer"
    assert not exists(before)
    np.testing.assert_allclose(extract(extractor, [picture(face)])[0, :33], expected(face), 1e-6)
    assert pid_of(extractor) != before


def test_killed_between_clips(extractor: PyFeat) -> None:
    face = (1, 1, 2, 99, 0, 255)
    os.kill(pid_of(extractor), signal.SIGKILL)
    extractor._process._process.wait()
    assert len(extract(extractor, [picture(face)])) == 1


def test_an_interrupt_leaves_no_answer_behind(extractor: PyFeat, stub: Path) -> None:
    """Were the process kept, its late answer would be taken for the next batch's."""
    face, asleep = (1, 1, 2, 99, 0, 255), stub / "asleep"

    def ring(*_: object) -> None:
        if asleep.exists():
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    before, handler = pid_of(extractor), signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            extract(extractor, [picture(face, command=SLEEP)])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert not exists(before)
    np.testing.assert_allclose(extract(extractor, [picture(face)])[0, :33], expected(face), 1e-6)


class Film(Sequence[np.ndarray]):
    """Frames that are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> np.ndarray:
        if i >= self.count:
            raise IndexError
        return picture((1, 1, 2, 99, 0, 255), shape=(512, 512), corner=i % 200)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_frames_are_not_kept(extractor: PyFeat) -> None:
    """300 frames hold 236 MB; a batch 6 MB, of which some are on their way."""

    def peak() -> int:
        status = Path(f"/proc/{pid_of(extractor)}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) // 1024

    extract(extractor, Film(20))
    before = peak()
    tracemalloc.start()
    try:
        values = extract(extractor, Film(300))
        here = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    assert len(values) == 300
    assert peak() - before < 40
    assert here < 40


def test_close_leaves_nothing_behind(stub: Path) -> None:
    """Nor does an extractor that is forgotten."""
    extractor = PyFeat(PyFeat.Config())
    first = pid_of(extractor)
    extractor.close()
    extractor.close()
    assert not exists(first)  # a zombie would exist
    assert len(extract(extractor, [picture((1, 1, 2, 99, 0, 255))])) == 1
    second = pid_of(extractor)
    assert exists(second)
    del extractor
    gc.collect()
    assert not exists(second)


def test_it_ends_with_its_parent(stub: Path) -> None:
    """Even with one that has no time to close anything."""
    code = """
import os
from mertool.extract.face.pyfeat import PyFeat
extractor = PyFeat(PyFeat.Config())
print(extractor._process._process.pid, flush=True)
os._exit(0)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(stub), REAL_PATH]))}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    pid = int(done.stdout)
    for _ in range(600):
        if not runs(pid):
            return
        time.sleep(0.1)
    pytest.fail("the process lives on")


# What it needs


def refused(error_of: Any, *words: str) -> None:
    """Three lines, which hold the words in this order of lines."""
    error = error_of.value
    assert error.what and error.where and error.fix
    assert all("\n" not in line for line in (error.what, error.where, error.fix))
    for word, line in zip(words, (error.what, error.where, error.fix), strict=True):
        assert word in line


@pytest.mark.skipif(bool(find_spec("feat")), reason="py-feat is installed here")
def test_py_feat_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", REAL_PATH)
    with pytest.raises(MertoolError) as error:
        PyFeat(PyFeat.Config())
    refused(error, "imported", f"{sys.executable}: ModuleNotFoundError: No module", "vision.python")


@pytest.mark.parametrize(
    ("odd", "what", "where"),
    [
        ("import", "imported", "RuntimeError: operator torchvision::nms does not exist"),
        ("models", "models cannot be loaded", "OSError: We couldn't connect to the hub"),
        ("quit", "models cannot be loaded", "SystemExit: licence not accepted"),
        ("column", "other columns", "no AU43 in the table of py-feat 2.1.5"),
        ("die", "does not start", "out of luck"),
    ],
)
def test_py_feat_does_not_work(
    stub: Path, monkeypatch: pytest.MonkeyPatch, odd: str, what: str, where: str
) -> None:
    monkeypatch.setenv("STUB_FEAT", odd)
    with pytest.raises(MertoolError) as error:
        PyFeat(PyFeat.Config())
    refused(error, what, where, "--set vision.")


def test_py_feat_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(write_stub(tmp_path, "2.1.0")))
    with pytest.raises(MertoolError) as error:
        PyFeat(PyFeat.Config())
    refused(error, "too old", "2.1.0", "2.1.1")


@pytest.mark.parametrize("odd", ["lower", "pandas"])
def test_other_tables(stub: Path, monkeypatch: pytest.MonkeyPatch, odd: str) -> None:
    if odd == "pandas":
        pytest.importorskip("pandas")
    monkeypatch.setenv("STUB_FEAT", odd)
    extractor, face = PyFeat(PyFeat.Config()), (1, 1, 2, 99, 0, 255)
    values = extract(extractor, [picture(face), picture(), picture(face, corner=9)])
    np.testing.assert_allclose(values[0, :33], expected(face), rtol=1e-6)
    np.testing.assert_allclose(values[2, :33], expected(face, corner=9), rtol=1e-6)
    np.testing.assert_array_equal(values[:, -1], [1, 0, 1])
    extractor.close()


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("kind", ["missing", "folder", "silent", "babbling", "no program"])
def test_the_python_is_none(tmp_path: Path, kind: str) -> None:
    python = {
        "missing": lambda: str(tmp_path / "nobody"),
        "folder": lambda: str(tmp_path),
        "silent": lambda: script(tmp_path / "silent", "echo I am no Python >&2"),
        "babbling": lambda: script(tmp_path / "babbling", "while echo babble; do :; done"),
        "no program": lambda: script(tmp_path / "other", "") and str(tmp_path / "other"),
    }[kind]()
    if kind == "no program":
        Path(python).write_bytes(b"\x7fELF and nothing else")
    with pytest.raises(MertoolError) as error:
        PyFeat(PyFeat.Config(python=python))
    refused(error, "The Python for py-feat", python, "vision.python=PATH")
    if kind == "silent":
        assert "I am no Python" in error.value.where


def test_another_python(stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with torch and py-feat, without mertool and what it needs."""
    python, face = tmp_path / "python", (1, 1, 2, 99, 0, 255)
    python.symlink_to(sys.executable)  # away from its environment, it knows none
    site = Path(torch.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(stub), str(site)]))
    monkeypatch.chdir(tmp_path)
    extractor = PyFeat(PyFeat.Config(python="./python"))
    np.testing.assert_allclose(extract(extractor, [picture(face)])[0, :33], expected(face), 1e-6)
    there = report(extractor)
    assert there["run as"] == "./python"
    assert not there["mertool"]
    extractor.close()


def test_local_weights(stub: Path, tmp_path: Path) -> None:
    """The file in the folder reaches py-feat, nothing is downloaded, and its hash is recorded."""
    blob, file = tmp_path / "9a12", tmp_path / "face_multitask_v28.safetensors"
    blob.write_bytes(b"weights")
    file.symlink_to(blob)  # as in the cache of the hub
    extractor = PyFeat(PyFeat.Config(weights=str(tmp_path)))
    there = report(extractor)
    assert (there["weights"], there["offline"]) == (str(file), "1")
    assert (
        "face_multitask_v2 face_multitask_v28.safetensors sha256 9a129038d9a0"
        in extractor.info["revision"]
    )
    extractor.close()


@pytest.mark.parametrize("files", [[], ["a.safetensors", "b.safetensors"], ["face.pt"]])
def test_weights_that_are_none(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).touch()
    paths = [tmp_path, tmp_path / "nobody", *(tmp_path / name for name in files[:1])]
    for path in paths if files != ["a.safetensors", "b.safetensors"] else paths[:2]:
        with pytest.raises(MertoolError) as error:
            PyFeat(PyFeat.Config(weights=str(path)))
        refused(error, "weights", str(path), "vision.weights=")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_such_device(stub: Path) -> None:
    with pytest.raises(MertoolError) as error:
        PyFeat(PyFeat.Config(), "cuda")
    refused(error, "device", sys.executable, "--device cpu")


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"batch": 2000}, {"fps": -1.0}])
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PyFeat.Config(**wrong)


def test_the_profile_of_papers() -> None:
    plans, asr = plan_streams("paper", {}, ["vision.python=/envs/pyfeat/bin/python"])
    assert {plan.modality: plan.name for plan in plans} == {
        "text": "bert", "audio": "covarep", "vision": "pyfeat",
    }  # fmt: skip
    assert asr is None


@pytest.mark.slow
def test_it_keeps_the_contract_on_real_videos(stub: Path) -> None:
    results = {result.check: result.status for result in check_extractor("pyfeat")}
    assert len(results) > 5
    assert set(results.values()) <= {"passed", "not run"}


@pytest.mark.hub
def test_real_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """$MERTOOL_PYFEAT_PYTHON, or this Python, has py-feat: a smile is one, and no face is none."""
    data = pytest.importorskip("skimage.data")
    monkeypatch.setenv("PYTHONPATH", REAL_PATH)
    python = os.environ.get("MERTOOL_PYFEAT_PYTHON", "")
    extractor = PyFeat(PyFeat.Config(python=python, batch=2), "auto")
    portrait = data.astronaut()
    values = extract(extractor, [portrait, portrait, np.zeros_like(portrait)])
    got = dict(zip(extractor.columns, values.T, strict=True))
    np.testing.assert_array_equal(got["valid"], [1, 1, 0])
    assert got["AU12"][0] > 0.5 and got["emotion_happy"][0] > 0.5
    emotions = sum(got[f"emotion_{name.lower()}"][0] for name in EMOTIONS)
    assert emotions == pytest.approx(1, abs=1e-3)
    assert abs(got["yaw"][0]) < 0.6 and abs(got["pitch"][0]) < 0.6  # radians
    np.testing.assert_allclose(values[0], values[1], atol=1e-4)
    extractor.close()
