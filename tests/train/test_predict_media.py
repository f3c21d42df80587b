"""Prediction from raw clips: features made as for training, CSV columns kept, bad clips told."""

import json
import shutil
from types import SimpleNamespace

import pytest

import mertool
from mertool.demo import CLIPS
from mertool.errors import DataError
from mertool.predict import PredictReport, _features
from mertool.predict import run as predict

NAMES = [f"demo{i:02d}" for i in range(1, 25)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run trained on the packaged clips' sound and words, aligned, and its features."""
    folder = tmp_path_factory.mktemp("predict")
    # A setting that is a text, and one that is a number, must come back at prediction.
    settings = ["audio.channel=first", "audio.hop_ms=20"]
    features, aligned = folder / "f.h5", folder / "a.h5"
    mertool.extract(CLIPS, features, text="none", audio="logmel", vision="none", settings=settings)
    mertool.align(features, aligned, pool="max")
    mertool.train(aligned, folder / "run", plugin="concat", seeds=2, settings=["train.epochs=3"])
    expected = {r["id"]: r for r in mertool.predict(folder / "run", aligned).rows}
    return folder, expected


def test_a_folder_gives_what_the_features_gave(world):
    folder, expected = world
    report = predict(folder / "run", CLIPS)
    assert report.exit_code == 0 and [r["id"] for r in report.rows] == NAMES
    for row in report.rows:
        assert row["sentiment_pred"] == pytest.approx(expected[row["id"]]["sentiment_pred"])


def test_a_csv_keeps_its_columns_and_one_bad_clip_loses_no_other(world, tmp_path):
    folder, expected = world
    shutil.copy(CLIPS / "demo02.mp4", tmp_path / "b.mp4")
    (tmp_path / "bad.mp4").write_text("no video")
    (tmp_path / "list.csv").write_text(
        "clip_id,path,text,note\n"
        "x,b.mp4,I hate this awful and disgusting film,mine\n"
        "y,bad.mp4,hello,theirs\n"
    )
    report = predict(folder / "run", tmp_path / "list.csv")
    (row,) = report.rows
    assert row["note"] == "mine" and row["clip_id"] == row["id"] == "x"
    assert row["sentiment_pred"] == pytest.approx(expected["demo02"]["sentiment_pred"])
    assert [f[0] for f in report.failures] == ["y"] and report.exit_code == 3


def test_a_clip_with_nothing_to_judge_it_by_gets_no_score(world, tmp_path):
    folder, _ = world
    shutil.copy(CLIPS / "demo01.mp4", tmp_path / "silent.mp4")  # no transcript: no words, no rows
    with pytest.raises(DataError, match="None of the clips could be scored"):
        predict(folder / "run", tmp_path)
    shutil.copy(CLIPS / "demo01.mp4", tmp_path / "said.mp4")
    (tmp_path / "said.txt").write_text("the movie was okay")
    report = predict(folder / "run", tmp_path)
    assert [r["id"] for r in report.rows] == ["said"]
    assert report.failures == [("silent", "predict", "no stream has a row to judge it by")]


def test_sources_of_both_kinds_on_the_command_line(world, tmp_path):
    from click.testing import CliRunner

    from mertool.cli.predict import predict as command

    folder, _ = world
    (tmp_path / "list.csv").write_text(f"clip_id,path,text\nz,{CLIPS / 'demo03.mp4'},I did\n")
    shutil.copy(CLIPS / "demo01.mp4", tmp_path / "a.mp4")
    (tmp_path / "a.txt").write_text("the movie was okay")
    done = CliRunner().invoke(
        command,
        [str(folder / "run"), str(tmp_path / "a.mp4"), str(tmp_path / "list.csv"), "-q"],
        standalone_mode=False,
    )
    lines = done.stdout.splitlines()
    assert done.exception is None and len(lines) == 3
    assert lines[0].split(",")[:2] == ["id", "sentiment_pred"] and "clip_id" in lines[0]


@pytest.mark.parametrize(("extractor", "key"), [("openface", "binary"), ("pyfeat", "python")])
def test_a_model_of_anybody_starts_no_program(extractor, key, tmp_path, monkeypatch):
    program = tmp_path / "theirs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    config = json.dumps({key: str(program), "fps": 5.0})
    trained = SimpleNamespace(
        streams={"vision": {"attrs": {"extractor": extractor, "config": config}}}, alignment={}
    )
    asked = []

    def run(*args, **options):
        asked.extend(options["settings"])
        assert options["transcript"] == "asr"
        return SimpleNamespace(failures=[], notes=[])

    monkeypatch.setattr("mertool.extract.run", run)
    report = PredictReport()
    words = {"transcript": "asr", "settings": ["asr.language=en"]}
    _features(trained, [str(CLIPS)], tmp_path, words, 1, False, report)
    assert asked == ["vision.fps=5.0", "asr.language=en"]
    assert not (tmp_path / "started").exists()
