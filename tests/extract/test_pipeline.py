"""Extraction from end to end: bad input, interruption, resuming, parallel runs."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from cli.toys import CHOICE, assert_same, make_clips, use
from media_samples import BROKEN, ODD, talking

import mertool
from mertool.errors import DataError, MertoolError, OutputError, PluginError, UsageError
from mertool.extract import run
from mertool.extract.worker import part_name


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """The toys are installed; the fixture lists (and forgets) the clips that were looked at."""
    with use(tmp_path / "installed", monkeypatch) as log:

        def look() -> list[str]:
            lines = log.read_text().splitlines() if log.exists() else []
            log.unlink(missing_ok=True)
            return lines

        yield look


@pytest.fixture
def clips(tmp_path):
    return make_clips(tmp_path / "clips", ["one", "two words", "", "four", "the fifth"])


def extract(source, out, **options):
    return run(source, out, **{**CHOICE, **options})


def ids(out: Path) -> list[str]:
    with mertool.open(out) as file:
        return file.ids


def nothing_beside(out: Path) -> bool:
    """No output, no parts, no temporary file."""
    return not [p for p in out.parent.iterdir() if out.name in p.name]


# Bad media


def test_each_bad_file_is_a_failure_of_its_own(tmp_path, seen):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in BROKEN:
        ODD[name](folder / f"{name}.mp4")
    talking(folder / "good.mp4", 0.4)
    (folder / "folder.mp4").mkdir()
    talking(folder / "late.mp4", 0.4)
    rows = [f"{p.stem},{p.name}," for p in sorted(folder.iterdir())]
    rows = [r + "3" if r.startswith("late") else r for r in rows] + ["missing,gone.mp4,"]
    (folder / "manifest.csv").write_text("clip_id,path,start\n" + "\n".join(rows) + "\n")

    report = extract(folder, tmp_path / "x.h5")
    assert report.exit_code == 3 and report.clips == 1
    failures = {name: (stage, error) for name, stage, error in report.failures}
    assert set(failures) == {*BROKEN, "folder", "late", "missing"}
    assert [f[0] for f in report.failures] == [r.split(",")[0] for r in rows if "good" not in r]
    for name, text in [
        ("empty", "is empty (0 bytes)"),
        ("text", "not a video or sound file"),
        ("folder", "is a folder"),
        ("missing", "no such media file"),
        ("late", "starts at 3 s, the file ends at 0.4 s"),
    ]:
        stage, error = failures[name]
        assert stage == "media" and text in error and str(folder) in error, (name, error)
    for name in ("cut", "cut_faststart"):
        assert failures[name][1], name
    with mertool.open(tmp_path / "x.h5") as file:
        assert file.ids == ["good"] and file.failures == report.failures
        assert len(file["good"].streams["vision"]) == 10


def test_without_sound_or_without_picture_is_no_failure(tmp_path, seen):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("no_sound", "no_picture", "silent"):
        ODD[name](folder / f"{name}.mp4")
    report = extract(folder, tmp_path / "x.h5")
    assert report.exit_code == 0 and report.failures == []
    assert ("no_sound", "no sound") in report.notes
    assert ("no_picture", "no picture") in report.notes
    with mertool.open(tmp_path / "x.h5") as file:
        assert file.ids == ["no_picture", "no_sound", "silent"]
        assert [bool(n) for n in file.lengths("vision")] == [False, True, True]
        assert [bool(n) for n in file.lengths("audio")] == [True, False, True]
        assert file["silent"].streams["audio"].values.max() < 1e-3


def test_odd_names_and_ids_stay_inside_the_output_folder(tmp_path, seen):
    folder = tmp_path / "our clips (2024)" / "żółw & クリップ"
    (folder / "sub dir").mkdir(parents=True)
    paths = ["a b.mp4", "ü'\"$x;%d.mp4", "sub dir/café:1.mp4", "-o.mp4", "新しい.mp4"]
    for path in paths:
        talking(folder / path, 0.3)
    names = ["../../x", "/etc/passwd", "a/b", "..", "新しい\\n"]
    lines = [
        f'"{n}","{p.replace(chr(34), chr(34) * 2)}"' for n, p in zip(names, paths, strict=True)
    ]
    (folder / "manifest.csv").write_text("clip_id,path\n" + "\n".join(lines) + "\n", "utf-8")
    out = tmp_path / "out put" / "é" / "x.h5"
    before = sorted(tmp_path.rglob("*"))
    report = extract(folder, out)
    assert report.failures == [] and ids(out) == names
    written = [p for p in sorted(tmp_path.rglob("*")) if p not in before]
    ours = tmp_path / "out put", tmp_path / "installed"
    assert out in written and all(any(p.is_relative_to(o) for o in ours) for p in written)
    with mertool.open(out) as file:
        assert [c.path for c in file] == paths and all(c.media.exists() for c in file)
    # Without a manifest the ids come from the names.
    (folder / "manifest.csv").unlink()
    extract(folder, out, overwrite=True)
    assert ids(out) == sorted(p.removesuffix(".mp4") for p in paths)


def test_a_file_name_that_is_no_utf8_fails_alone(tmp_path, seen):
    folder = tmp_path / "clips"
    folder.mkdir()
    talking(folder / "good.mp4", 0.3)
    try:
        shutil.copy(folder / "good.mp4", os.fsencode(folder) + b"/caf\xe9.mp4")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    report = extract(folder, tmp_path / "x.h5")
    assert [(f[0], f[1]) for f in report.failures] == [("caf\\udce9", "media")]
    assert "not valid UTF-8" in report.failures[0][2] and ids(tmp_path / "x.h5") == ["good"]


def test_texts_empty_and_in_other_scripts(tmp_path, seen):
    texts = ["", "   ", "日本語 です", "привет мир", "سلام", "🙂"]
    folder = make_clips(tmp_path / "clips", texts)
    report = extract(folder, tmp_path / "x.h5")
    assert report.failures == []
    with mertool.open(tmp_path / "x.h5") as file:
        assert [c.text for c in file] == [t.strip() for t in texts]
        # A row per word; of Han and kana each letter is one, and an emoji is none.
        assert file.lengths("text").tolist() == [0, 0, 5, 2, 1, 0]
        assert [w.text for w in file["clip3"].words] == ["привет", "мир"]
    assert [c for c, note in report.notes if note == "no text"] == ["clip0", "clip1", "clip5"]


def test_no_clip_works(tmp_path, seen):
    folder = tmp_path / "clips"
    folder.mkdir()
    ODD["empty"](folder / "a.mp4")
    ODD["text"](folder / "b.mp4")
    with pytest.raises(DataError) as caught:
        extract(folder, tmp_path / "x.h5")
    assert "None of the 2 clips" in caught.value.what and "a.mp4 is empty" in caught.value.where
    assert nothing_beside(tmp_path / "x.h5")  # so that the next try is not refused
    assert "MediaError" in str(caught.value.__cause__)  # what --debug shows


# Extractors that misbehave


MOODS = {
    "raise": "ValueError: what isthis \\udce9",
    "leave": "SystemExit: I had enough",
    "no rows": "they are a NoneType",
    "wide": '"values" has shape (10, 4), expected (10, 3)',
    "timeless": '"times" has shape (9, 2), expected (10, 2)',
    "nan": "not finite",
    "huge": "not finite",
    "list": "no array of numbers",
    "refuse": "The clip is dull. all of it Film another.",
}


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_extractor_that_fails_on_a_clip(tmp_path, seen, jobs):
    folder = tmp_path / "clips"
    make_clips(folder, ["fine", *MOODS, "fine"])
    for path in folder.glob("*.mp4"):
        talking(path, 0.4)
    report = extract(folder, tmp_path / "x.h5", vision="moody", jobs=jobs)
    assert report.clips == 2 and ids(tmp_path / "x.h5") == ["clip0", f"clip{len(MOODS) + 1}"]
    assert [f[:2] for f in report.failures] == [
        (f"clip{i + 1}", "vision:moody") for i in range(len(MOODS))
    ]
    for (_, _, error), text in zip(report.failures, MOODS.values(), strict=True):
        assert text in error and "\n" not in error
    assert "toys_module.py" in report.traces["clip1"]
    with mertool.open(tmp_path / "x.h5") as file:
        assert file.failures == report.failures


def test_a_worker_that_dies_loses_its_clip_alone(tmp_path, seen, capfd):
    folder = make_clips(tmp_path / "clips", ["a", "exit", "b", "c", "segfault", "d"])
    report = extract(folder, tmp_path / "x.h5", vision="moody", jobs=2)
    assert [f[:2] for f in report.failures] == [("clip1", "process"), ("clip4", "process")]
    assert "died" in report.failures[0][2]
    assert ids(tmp_path / "x.h5") == ["clip0", "clip2", "clip3", "clip5"]
    err = capfd.readouterr().err
    assert "Traceback" not in err and "Fatal" not in err


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_extractor_that_cannot_start_stops_the_run(tmp_path, seen, clips, jobs):
    with pytest.raises(PluginError) as caught:
        extract(clips, tmp_path / "x.h5", vision="unfit", jobs=jobs)
    assert "ModuleNotFoundError: No module named 'a_package_nobody_has'" in caught.value.what
    assert caught.value.where == "toys 1.0 (toys)" and "--vision" in caught.value.fix
    with pytest.raises(MertoolError, match="The model is not there") as caught:
        extract(clips, tmp_path / "x.h5", vision="unready", jobs=jobs)
    assert caught.value.fix == "pip install faces"
    assert nothing_beside(tmp_path / "x.h5") and seen() == []


def test_a_missing_optional_package(tmp_path, seen, clips, monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    for name in [m for m in sys.modules if m.startswith("mediapipe.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MertoolError) as caught:
        extract(clips, tmp_path / "x.h5", vision="facemesh")
    assert "MediaPipe FaceMesh cannot be used" in caught.value.what
    assert 'pip install "mertool[offline]"' in caught.value.fix


def test_what_extractors_print_is_no_result(tmp_path, seen, clips, capfd):
    for jobs in (1, 2):
        extract(clips, tmp_path / "x.h5", jobs=jobs, overwrite=True)
        out, err = capfd.readouterr()
        assert out == "" and err.count("colour looks at") == 5


# Wrong usage, refused before any work


def refused(error, out, *parts, source, **options):
    with pytest.raises(error) as caught:
        extract(source, out, **options)
    assert caught.value.what and caught.value.where and caught.value.fix
    for part in parts:
        assert part in str(caught.value)


def test_wrong_names_and_settings(tmp_path, seen, clips):
    out = tmp_path / "x.h5"

    def wrong(*parts, **options):
        refused(UsageError, out, *parts, source=clips, **options)

    wrong('no extractor named "color"', "Did you mean", "colour", vision="color")
    wrong('"loudness" is no extractor for vision', "moody", vision="loudness")
    wrong('no profile "ofline"', "offline", profile="ofline")
    wrong("Every stream is switched off", text="none", audio="none", vision="none")
    wrong('no transcript "sidcar"', "sidecar", transcript="sidcar")
    wrong("At least one process", jobs=0)
    wrong("Resume or overwrite", resume=True, overwrite=True)
    settings = ["vision.gain=x", "vision.gian=1", "audio.hop=2", "speech.a=1", "nonsense"]
    wrong(
        "5 settings are wrong",
        "vision.gain: 'x' is not a number",
        'vision.gian: no such setting. Did you mean "gain"',
        "audio.hop: no such setting",
        "speech.a: no such section",
        '"nonsense": settings are written',
        settings=settings,
    )
    wrong("repeat must be at least 1", settings=["vision.repeat=0"])
    assert nothing_beside(out) and seen() == []


def test_wrong_sources(tmp_path, seen, clips):
    out = tmp_path / "x.h5"
    (clips / "manifest.csv").write_text("clip_id,path\na,001.mp4\na,002.mp4\n")
    refused(DataError, out, 'the id "a"', "line 2", "line 3", source=clips)
    (clips / "manifest.csv").write_text("clip_id,file\na,001.mp4\n")
    refused(DataError, out, "lacks the column path", "clip_id, file", source=clips)
    (clips / "manifest.csv").write_text("clip_id,path\n")
    refused(DataError, out, "No clips", "manifest.csv", source=clips)
    refused(DataError, out, "no such file or folder", source=tmp_path / "gone")
    refused(DataError, out, "cannot be read", source=clips, manifest=tmp_path / "gone.csv")
    refused(DataError, out, "cannot be read", source=clips, manifest=tmp_path)
    (tmp_path / "empty").mkdir()
    refused(DataError, out, "No clips", source=tmp_path / "empty")
    refused(DataError, out, "No clips", source=[])
    assert nothing_beside(out) and seen() == []


# The output


def test_an_existing_output_is_kept(tmp_path, seen, clips):
    out = tmp_path / "x.h5"
    out.write_text("mine")
    refused(OutputError, out, "exists already", source=clips)
    refused(DataError, out, "cannot be opened as HDF5", source=clips, resume=True)
    assert out.read_text() == "mine" and seen() == []
    extract(clips, out, overwrite=True)
    assert len(ids(out)) == 5
    refused(OutputError, tmp_path, "is a folder", source=clips, overwrite=True)


def test_an_unfinished_extraction_is_kept(tmp_path, seen, clips):
    out, folder = tmp_path / "x.h5", tmp_path / "x.h5.part"
    folder.mkdir()
    (folder / "something").write_text("")
    refused(OutputError, out, "unfinished extraction", "--resume", source=clips)
    assert (folder / "something").exists() and not out.exists()
    extract(clips, out, overwrite=True)
    assert out.exists() and not folder.exists()


def test_an_output_folder_that_cannot_be_written(tmp_path, seen, clips, monkeypatch):
    """Tests run as root, whom no folder refuses: the refusal is played."""
    out = tmp_path / "x.h5"
    with monkeypatch.context() as patch:

        def closed(*args, **kwargs):
            raise PermissionError(errno.EACCES, "Permission denied")

        patch.setattr("pathlib.Path.touch", closed)
        refused(OutputError, out, "Permission denied", str(out), source=clips)
    with monkeypatch.context() as patch:
        mkdir = Path.mkdir

        def no_parts(path, *args, **kwargs):
            if path.suffix == ".part":
                raise OSError(errno.ENOSPC, "No space left on device")
            mkdir(path, *args, **kwargs)

        patch.setattr("pathlib.Path.mkdir", no_parts)
        refused(OutputError, out, "No space left", source=clips)
    assert nothing_beside(out) and seen() == []


@pytest.mark.parametrize("write", [1, 3, 10])
def test_a_disk_that_fills_up_while_merging(tmp_path, seen, clips, monkeypatch, write):
    """Whichever write fails: no output, no temporary file, all parts kept, resume completes."""
    from mertool.store.disk import Disk

    out = tmp_path / "x.h5"
    count = 0
    real = Disk.__init__

    class Full(Disk):
        def write(self, data):
            nonlocal count
            count += self.merging
            if count >= write and self.merging:
                self.error = self.error or OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

        def __init__(self, path):
            self.merging = path.parent == out.parent
            real(self, path)

    with monkeypatch.context() as patch:
        patch.setattr("mertool.store.writer.Disk", Full)
        refused(OutputError, out, "No space left", str(out), "--resume", source=clips)
    assert [p.name for p in tmp_path.iterdir() if "x.h5" in p.name] == ["x.h5.part"]
    assert len(list((tmp_path / "x.h5.part").iterdir())) == 5 == len(seen())
    assert extract(clips, out, resume=True).resumed == 5
    assert seen() == []
    extract(clips, tmp_path / "y.h5")
    assert_same(out, tmp_path / "y.h5")


# Order, parallel runs, resuming


def test_rows_are_in_manifest_order_whatever_the_processes(tmp_path, seen, clips):
    slow = tmp_path / "clips" / "005.mp4"  # clip0, done last by two processes
    talking(slow, 6.0)
    one, two = tmp_path / "1.h5", tmp_path / "2.h5"
    extract(clips, one)
    assert seen() == [f"clip{i}" for i in range(5)]
    extract(clips, two, jobs=2)
    assert ids(one) == [f"clip{i}" for i in range(5)]
    assert_same(one, two)
    with mertool.open(one) as file:
        assert len(file["clip0"].streams["vision"]) == 150
        assert file.split() == ["train", "valid", "test", "train", "valid"]
        assert file.label("score").tolist() == [0.0, 0.1, 0.2, 0.3, 0.4]
        # Each clip has its own sound and picture: nothing was mixed up.
        for i, clip in enumerate(file):
            assert clip.path == f"{5 - i:03d}.mp4"
            times = [t for t, _ in clip.frames()]
            np.testing.assert_allclose(clip.streams["vision"].times[:, 0], times)


def test_resume_tries_failures_again_and_nothing_else(tmp_path, seen, clips):
    out, whole = tmp_path / "x.h5", tmp_path / "whole.h5"
    extract(clips, whole)
    good = (clips / "003.mp4").read_bytes()  # clip2
    (clips / "003.mp4").write_bytes(good[:500])
    seen()
    report = extract(clips, out)
    assert [f[0] for f in report.failures] == ["clip2"] and report.exit_code == 3
    seen()
    report = extract(clips, out, resume=True)  # still bad
    assert seen() == [] and report.resumed == 4 and report.exit_code == 3
    assert ids(out) == ["clip0", "clip1", "clip3", "clip4"]
    (clips / "003.mp4").write_bytes(good)
    report = extract(clips, out, resume=True, jobs=2)
    assert seen() == ["clip2"] and report.exit_code == 0 and report.clips == 5
    assert_same(out, whole)
    report = extract(clips, out, resume=True)
    assert seen() == [] and report.resumed == 5
    assert_same(out, whole)
    assert not (tmp_path / "x.h5.part").exists()


def test_resume_looks_at_what_has_changed(tmp_path, seen, clips):
    out, manifest = tmp_path / "x.h5", clips / "manifest.csv"
    extract(clips, out)
    seen()

    def resumed(lines):
        manifest.write_text("clip_id,path,text,start,end,score\n" + "\n".join(lines) + "\n")
        extract(clips, out, resume=True)
        extract(clips, tmp_path / "fresh.h5", overwrite=True)
        assert_same(out, tmp_path / "fresh.h5")
        again = seen()
        return again[: len(again) - len(lines)]

    lines = [
        f"clip{i},{5 - i:03d}.mp4,{t},,,1" for i, t in enumerate(["one", "two words", "", "four"])
    ]
    assert resumed(lines) == []  # a clip left out, other labels
    assert resumed(lines[::-1]) == []  # another order
    assert resumed([*lines, "new,001.mp4,hello,,,2"]) == ["new"]
    assert resumed([lines[0].replace("one", "uno"), *lines[1:]]) == ["clip0"]
    assert resumed(["clip0,005.mp4,uno,0.1,,1", *lines[1:]]) == ["clip0"]
    assert resumed(["clip0,005.mp4,uno,0.1,0.3,1", *lines[1:]]) == ["clip0"]
    assert resumed(["clip0,005.mp4,uno,0.1,,1", *lines[1:]]) == ["clip0"]
    talking(clips / "004.mp4", 0.5, hz=999)  # clip1
    assert resumed(["clip0,005.mp4,uno,0.1,,1", *lines[1:]]) == ["clip1"]
    (clips / "004.mp4").unlink()  # its features stay
    extract(clips, out, resume=True)
    assert seen() == [] and len(ids(out)) == 4


def test_resume_with_other_settings_is_refused(tmp_path, seen, clips):
    out = tmp_path / "x.h5"
    extract(clips, out)
    resume = {"source": clips, "resume": True}
    refused(OutputError, out, "other settings for vision", settings=["vision.repeat=2"], **resume)
    refused(OutputError, out, "other settings for vision", vision="moody", **resume)
    refused(OutputError, out, "other settings for vision", vision="none", **resume)
    assert not (tmp_path / "x.h5.part").exists()
    extract(clips, tmp_path / "y.h5", vision="none")
    refused(OutputError, tmp_path / "y.h5", "other settings for vision", **resume)


def test_a_damaged_part_is_made_again(tmp_path, seen, clips):
    out, folder = tmp_path / "x.h5", tmp_path / "x.h5.part"
    extract(clips, tmp_path / "whole.h5")
    extract(clips, out)
    seen()
    # What a power cut leaves: one part empty, one cut, one whole, a temporary file or two.
    from mertool.extract.plan import plan_streams
    from mertool.extract.prepare import Plan, prepare_clip
    from mertool.extract.worker import extract_clip
    from mertool.manifest import read

    out.unlink()
    folder.mkdir()
    plans, _ = plan_streams("offline", CHOICE, ())
    parts = []
    listing = read([clips])
    for i, clip in enumerate(listing.clips[:3]):
        [clip] = prepare_clip(clip, listing.transcripts.get(clip.id), Plan("sidecar"), folder).clips
        parts.append(folder / part_name(clip, plans))
        extract_clip(i, clip, plans, parts[-1])
    seen()
    parts[0].write_bytes(b"")
    parts[1].write_bytes(parts[1].read_bytes()[:5000])
    for left in (folder / f".{parts[0].name}.1.tmp", tmp_path / ".x.h5.1.tmp"):
        left.write_bytes(b"half")
    report = extract(clips, out, resume=True)
    assert report.resumed == 1 and seen() == ["clip0", "clip1", "clip3", "clip4"]
    assert_same(out, tmp_path / "whole.h5")
    assert not folder.exists() and not (tmp_path / ".x.h5.1.tmp").exists()
