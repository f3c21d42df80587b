"""The packaged demo clips, and the script that made them."""

from __future__ import annotations

import csv
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

import mertool
from mertool.demo import face, generate
from mertool.errors import MertoolError

CLIPS = Path(mertool.__file__).parent / "demo" / "clips"
COLUMNS = ["clip_id", "path", "text", "language", "speaker", "split", "sentiment"]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with (CLIPS / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def decode(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(T, H, W, 3) uint8 frames and (S,) samples of a clip."""
    with av.open(str(path)) as file:
        frames = np.stack([f.to_ndarray(format="rgb24") for f in file.decode(video=0)])
    with av.open(str(path)) as file:
        sound = np.concatenate([f.to_ndarray()[0] for f in file.decode(audio=0)])
    return frames, sound


def seconds(path: Path, kind: str) -> float:
    """Duration of what decodes: end of the last frame less start of the first."""
    with av.open(str(path)) as file:
        frames = list(file.decode(**{kind: 0}))
    last = frames[-1]
    length = 1 / generate.FPS if kind == "video" else last.samples / last.sample_rate
    return last.time + length - frames[0].time


def test_clips_are_few_and_small() -> None:
    assert len(list(CLIPS.glob("*.mp4"))) == 24
    assert sum(file.stat().st_size for file in CLIPS.iterdir()) < 3e6


def test_manifest(rows: list[dict[str, str]]) -> None:
    assert list(rows[0]) == COLUMNS
    assert {row["path"] for row in rows} == {file.name for file in CLIPS.glob("*.mp4")}
    for column in ("clip_id", "path", "text"):
        assert len({row[column] for row in rows}) == 24
    assert {row["language"] for row in rows} == {"en"}
    assert all(5 <= len(row["text"].split()) <= 9 for row in rows)


def test_labels_cover_the_scale_in_every_split(rows: list[dict[str, str]]) -> None:
    scores = sorted(float(row["sentiment"]) for row in rows)
    assert scores[0] == -3 and scores[-1] == 3
    assert np.diff(scores).max() < 0.4
    for split, count in {"train": 14, "valid": 5, "test": 5}.items():
        here = [float(row["sentiment"]) for row in rows if row["split"] == split]
        assert len(here) == count
        assert min(here) < -2 and max(here) > 2 and min(map(abs, here)) < 0.5


def test_speakers_keep_to_one_split(rows: list[dict[str, str]]) -> None:
    speakers = {row["speaker"] for row in rows}
    assert len(speakers) == 6
    assert len({(row["speaker"], row["split"]) for row in rows}) == len(speakers)


def test_words_are_in_the_aligners_dictionary(rows: list[dict[str, str]]) -> None:
    pocketsphinx = pytest.importorskip("pocketsphinx", reason="its dictionary is the reference")
    lines = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict")).read_text().splitlines()
    known = {line.split()[0] for line in lines if line}
    words = {word for row in rows for word in row["text"].lower().split()}
    assert words <= known


def test_every_clip_has_picture_and_sound_of_one_length(rows: list[dict[str, str]]) -> None:
    for row in rows:
        video, audio = (seconds(CLIPS / row["path"], kind) for kind in ("video", "audio"))
        assert 1.5 < video < 3, row["clip_id"]
        assert abs(video - audio) < 0.1, row["clip_id"]


def test_manifest_is_what_the_script_plans(rows: list[dict[str, str]]) -> None:
    planned = [(p.id, p.text, p.speaker, p.sentiment) for p in generate.plans()]
    found = [(r["clip_id"], r["text"], r["speaker"], float(r["sentiment"])) for r in rows]
    assert found == planned


def test_what_the_modalities_show_is_label_plus_unrelated_noise() -> None:
    plans = generate.plans()
    label = np.array([plan.sentiment for plan in plans])
    voice, shown = (np.array([getattr(p, name) for p in plans]) for name in ("voice", "face"))
    noise = []
    for values in (voice, shown):
        assert np.abs(values).max() <= 1
        assert np.corrcoef(values, label)[0, 1] == pytest.approx(generate.FIDELITY)
        noise.append(values - np.polyval(np.polyfit(label, values, 1), label))
    assert abs(np.corrcoef(noise)[0, 1]) < 1e-9
    words = [generate.SENTENCES.index(plan.text) for plan in plans]
    assert 0.85 < np.corrcoef(words, label)[0, 1] < 0.97


@pytest.mark.parametrize("smile", [-1.1, 0, 1.1])
@pytest.mark.parametrize("amount", [0, 0.5, 1])
def test_the_warp_does_not_fold(smile: float, amount: float) -> None:
    step = 0.5
    grid = np.stack(np.mgrid[70:200:step, 170:285:step][::-1], axis=-1)
    down, across = np.gradient(face.warp(grid, smile, amount), step, axis=(0, 1))
    area = across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]
    assert area.min() > 0.1


def test_the_warp_carries_the_corners_of_the_mouth() -> None:
    # By the definition of the table: the smile's drawn corner shows the photograph's corner.
    left = face.POINTS[0]
    drawn = left[:2] + left[2:4] + 0.7 * left[4:6] + 0.4 * left[6:8]
    np.testing.assert_allclose(face.warp(drawn[None], 0.7, 0.4)[0], left[:2], atol=1e-6)


def test_mouth_opens_with_the_envelope_of_the_speech() -> None:
    frame = generate.RATE // generate.FPS
    loud, quiet = np.full(10 * frame, 0.2, np.float32), np.zeros(10 * frame, np.float32)
    opening = generate.opening(np.concatenate([quiet, loud, quiet]))
    assert opening.shape == (30,)
    np.testing.assert_allclose(opening[[0, 5, 15, 24, 29]], [0, 0, 1, 0, 0], atol=1e-3)


@pytest.mark.slow
def test_script_remakes_a_packaged_clip(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="scikit-image holds the photograph")
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed")
    version = subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True).stdout
    if f" {generate.ESPEAK_VERSION} " not in version:
        pytest.skip(f"the clips were spoken by espeak-ng {generate.ESPEAK_VERSION}, not {version}")
    plan = generate.plans()[2]
    generate.render(plan, tmp_path / "clip.mp4")
    frames, sound = decode(tmp_path / "clip.mp4")
    packaged, packaged_sound = decode(CLIPS / f"{plan.id}.mp4")
    assert frames.shape == packaged.shape
    assert sound.shape == packaged_sound.shape
    # Of 255. The same encoder gives 0; a smile stronger by 0.1 gives 2.3, another clip more than 5.
    assert np.abs(frames.astype(int) - packaged).mean() < 2
    assert np.corrcoef(sound, packaged_sound)[0, 1] > 0.99
    other, _ = decode(CLIPS / f"{generate.plans()[1].id}.mp4")
    length = min(len(frames), len(other))
    assert np.abs(frames[:length].astype(int) - other[:length]).mean() > 5


def test_missing_espeak_is_three_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MertoolError, match="espeak-ng"):
        generate.check_tools()
    assert generate.main([str(tmp_path / "out")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 3
    assert not (tmp_path / "out").exists()


def test_script_overwrites_nothing_and_explains_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "check_tools", lambda: None)
    before = (CLIPS / "manifest.csv").read_bytes()
    assert generate.main([str(CLIPS)]) == 1
    assert "manifest.csv" in capsys.readouterr().err
    assert (CLIPS / "manifest.csv").read_bytes() == before
    assert generate.main([]) == 2
    assert "OUT_DIR" in capsys.readouterr().err
