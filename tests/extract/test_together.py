"""Extractors that take several clips at once, as models on a GPU do."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli import toys
from cli.toys import CHOICE, assert_same, make_clips, use
from media_samples import ODD

import mertool
from mertool.extract import run, worker

REGISTER = '    register("letters"'
MANY = """    register("many", "toys_module:Many", modality="audio", summary="several at once")
    register("lone", "toys_module:Lone", modality="audio", summary="not on this machine")
"""
CLASSES = """


class Many(Loudness):
    batch = 3

    def extract(self, clip):
        self.log("one", clip)
        return self.rows(clip)

    def extract_many(self, clips):
        self.log("many", *clips)
        return [self.rows(clip) for clip in clips]

    def log(self, *what):
        with open(os.environ["TOYS_LOG"] + ".many", "a") as log:
            log.write(" ".join(getattr(w, "id", w) for w in what) + "\\n")

    def rows(self, clip):
        match clip.text:
            case "exit":
                os._exit(7)
            case "raise":
                raise ValueError("dull")
        return super().extract(clip)


class Lone(Many):
    def __init__(self, config, device):
        self.batch = 1
"""


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """The toys are installed; the fixture lists (and forgets) what `many` was given."""
    code = toys.CODE.replace(REGISTER, MANY + REGISTER, 1) + CLASSES
    monkeypatch.setattr(toys, "CODE", code)
    with use(tmp_path / "installed", monkeypatch) as log:
        log = log.with_name(log.name + ".many")

        def look() -> list[str]:
            lines = log.read_text().splitlines() if log.exists() else []
            log.unlink(missing_ok=True)
            return lines

        yield look


def extract(source: Path, out: Path, **options):
    return run(source, out, **{**CHOICE, "vision": "none", "audio": "many", **options})


def rows(path: Path) -> dict[str, list]:
    with mertool.open(path) as file:
        return {clip.id: clip.streams["audio"].values.tolist() for clip in file}


def test_clips_are_made_together(tmp_path, seen) -> None:
    clips = make_clips(tmp_path / "clips", "abcdefg")
    extract(clips, tmp_path / "x.h5")
    assert seen() == ["many clip0 clip1 clip2", "many clip3 clip4 clip5", "one clip6"]
    extract(clips, tmp_path / "y.h5", jobs=2)
    assert sorted(seen()) == ["many clip0 clip1 clip2", "many clip3 clip4 clip5", "one clip6"]
    assert_same(tmp_path / "x.h5", tmp_path / "y.h5")
    extract(clips, tmp_path / "one.h5", audio="loudness")
    assert rows(tmp_path / "x.h5") == rows(tmp_path / "one.h5")
    assert len(rows(tmp_path / "x.h5")) == 7


def test_no_process_is_left_idle(tmp_path, seen) -> None:
    extract(make_clips(tmp_path / "clips", "abc"), tmp_path / "x.h5", jobs=2)
    assert sorted(seen()) == ["many clip0 clip1", "one clip2"]


def test_one_at_a_time_where_the_machine_has_no_use_for_more(tmp_path, seen) -> None:
    extract(make_clips(tmp_path / "clips", "abcd"), tmp_path / "x.h5", audio="lone")
    assert seen() == [f"one clip{i}" for i in range(4)]


def test_long_clips_are_made_one_at_a_time(tmp_path, seen, monkeypatch) -> None:
    monkeypatch.setattr(worker, "TOGETHER", 1.0)  # of media, not of work
    extract(make_clips(tmp_path / "clips", "abc"), tmp_path / "x.h5")
    assert seen() == [f"one clip{i}" for i in range(3)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_clip_that_fails_fails_alone(tmp_path, seen, jobs) -> None:
    clips = make_clips(tmp_path / "clips", ["a", "raise", "b", "c", "d", "e"])
    ODD["empty"](clips / "001.mp4")  # clip5
    report = extract(clips, tmp_path / "x.h5", jobs=jobs)
    assert [f[:2] for f in report.failures] == [("clip1", "audio:many"), ("clip5", "media")]
    assert "ValueError: dull" in report.failures[0][2]
    assert list(rows(tmp_path / "x.h5")) == ["clip0", "clip2", "clip3", "clip4"]
    assert sorted(seen()) == ["many clip0 clip1 clip2", *(f"one clip{i}" for i in range(5))]


def test_a_note_finds_its_clip(tmp_path, seen) -> None:
    clips = make_clips(tmp_path / "clips", "abcdef")
    ODD["no_sound"](clips / "005.mp4")  # clip1
    report = extract(clips, tmp_path / "x.h5")
    assert report.failures == [] and report.notes == [("clip1", "no sound")]
    assert seen()[-1] == "many clip3 clip4 clip5"
    assert [len(r) > 0 for r in rows(tmp_path / "x.h5").values()] == [i != 1 for i in range(6)]


def test_a_worker_that_dies_loses_its_clip_alone(tmp_path, seen) -> None:
    clips = make_clips(tmp_path / "clips", ["a", "b", "c", "d", "exit", "e", "f"])
    report = extract(clips, tmp_path / "x.h5", jobs=2)
    assert [f[:2] for f in report.failures] == [("clip4", "process")]
    assert list(rows(tmp_path / "x.h5")) == [f"clip{i}" for i in (0, 1, 2, 3, 5, 6)]


def test_resume_makes_what_is_left(tmp_path, seen) -> None:
    clips = make_clips(tmp_path / "clips", "abcdef")
    extract(clips, tmp_path / "whole.h5")
    good = {name: (clips / name).read_bytes() for name in ("005.mp4", "002.mp4")}
    for name in good:
        (clips / name).write_bytes(b"")  # clip1 and clip4
    extract(clips, tmp_path / "x.h5")
    for name, content in good.items():
        (clips / name).write_bytes(content)
    seen()
    report = extract(clips, tmp_path / "x.h5", resume=True)
    assert seen() == ["many clip1 clip4"] and report.resumed == 4
    assert_same(tmp_path / "x.h5", tmp_path / "whole.h5")


def test_an_interrupted_run_keeps_its_parts(tmp_path, seen, monkeypatch) -> None:
    clips = make_clips(tmp_path / "clips", "abcdef")
    extract(clips, tmp_path / "whole.h5")
    real, done = worker.extract_clip, []

    def stopped(*task):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(task[0])
        return real(*task)

    monkeypatch.setattr(worker, "extract_clip", stopped)
    with pytest.raises(KeyboardInterrupt):
        extract(clips, tmp_path / "x.h5")
    monkeypatch.setattr(worker, "extract_clip", real)
    seen()
    report = extract(clips, tmp_path / "x.h5", resume=True)
    assert seen() == ["many clip4 clip5"] and report.resumed == 4
    assert_same(tmp_path / "x.h5", tmp_path / "whole.h5")
