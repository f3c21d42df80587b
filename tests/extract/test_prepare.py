"""Before the features: transcripts from files and recognisers, cutting, and what is kept."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from cli.toys import CHOICE, assert_same, use
from media_samples import talking, write_wav
from spoken import RATE, scene

import mertool
from mertool.cli import main
from mertool.errors import DataError, MertoolError, UsageError
from mertool.extract import add_streams, run
from mertool.extract.prepare import Made, _each
from mertool.transcripts import Cue, Transcript, recognise
from mertool.types import Clip, Word

pytest.importorskip("pocketsphinx")
SPHINX = "asr.engine=pocketsphinx"
SRT = "1\n00:00:00,500 --> 00:00:02,000\nHello you. I\n\n2\n00:00:02,100 --> 00:00:03,000\nknow.\n"


@pytest.fixture
def seen(tmp_path, monkeypatch):
    with use(tmp_path / "installed", monkeypatch) as log:
        yield log


def extract(source, out, **options):
    return run(source, out, **{**CHOICE, "vision": "none", **options})


def clips_of(out: Path) -> dict[str, Clip]:
    with mertool.open(out) as file:
        return {clip.id: clip for clip in file}


def transcript_of(out: Path) -> dict:
    with h5py.File(out) as file:
        return json.loads(file.attrs["transcript"])


def whisperx(*words: tuple[str, float, float]) -> str:
    own = [{"word": w, "start": a, "end": b, "score": 0.5} for w, a, b in words]
    text = " ".join(w for w, _, _ in words)
    segments = [{"start": words[0][1], "end": words[-1][2], "text": text, "words": own}]
    return json.dumps({"segments": segments, "language": "en"})


class Parrot:
    """A recogniser that says one word per piece, and counts how often it is asked."""

    apart, longest = 0.5, 20.0
    info = {"engine": "whisper", "model": "grey", "revision": "r1", "weak": False}

    def __init__(self) -> None:
        self.asked = 0
        self.fails: Exception | None = None

    def recognise(self, pieces, language, stretches) -> Transcript:
        self.asked += 1
        if self.fails:
            raise self.fails
        words = [Word("Hi.", s, s + len(sound) / RATE, 0.75) for s, sound in pieces]
        return Transcript([Cue("Hi.", w.start, w.end, (w,)) for w in words], "nl", ["squawk"])


@pytest.fixture
def parrot(monkeypatch) -> Parrot:
    bird = Parrot()

    def recogniser(config):
        return bird

    recogniser.cache_clear = lambda: None
    monkeypatch.setattr(recognise, "recogniser", recogniser)
    return bird


# Transcripts from files


def test_transcript_files_give_text_words_and_language(tmp_path, seen):
    (tmp_path / "c").mkdir()
    talking(tmp_path / "c" / "timed.mp4", 1.0)
    talking(tmp_path / "c" / "plain.mp4", 0.5)
    talking(tmp_path / "c" / "bare.mp4", 0.5)
    (tmp_path / "c" / "timed.json").write_text(whisperx(("Well,", 0.1, 0.4), ("yes", 0.5, 0.9)))
    (tmp_path / "c" / "plain.txt").write_text("just text")
    report = extract(tmp_path / "c", tmp_path / "x.h5")
    assert report.exit_code == 0
    clips = clips_of(tmp_path / "x.h5")
    assert {name: clip.text for name, clip in clips.items()} == {
        "bare": "", "plain": "just text", "timed": "Well, yes"
    }  # fmt: skip
    assert clips["timed"].words == [Word("Well,", 0.1, 0.4, 0.5), Word("yes", 0.5, 0.9, 0.5)]
    assert clips["timed"].language == "en"
    assert [w.score for w in clips["plain"].words] == [-1, -1]
    assert transcript_of(tmp_path / "x.h5") == {"from": "sidecar"}
    extract(tmp_path / "c", tmp_path / "n.h5", transcript="none")
    assert {clip.text for clip in clips_of(tmp_path / "n.h5").values()} == {""}


def test_what_is_wrong_with_a_transcript_concerns_its_clip_alone(tmp_path, seen):
    folder = tmp_path / "c"
    folder.mkdir()
    for name in ("bad", "good", "late", "mixed"):
        talking(folder / f"{name}.mp4", 1.0)
    (folder / "bad.json").write_text('{"segments": [{"text"')
    (folder / "good.json").write_text(whisperx(("fine", 0.1, 0.5)))
    (folder / "late.json").write_text(whisperx(("in", 0.1, 0.5), ("out", 5.0, 6.0)))
    (folder / "mixed.json").write_text(whisperx(("b", 0.6, 0.7), ("a", 0.1, 0.2)))
    report = extract(folder, tmp_path / "x.h5")
    [(name, stage, error)] = report.failures
    assert (name, stage) == ("bad", "transcript") and "bad.json" in error
    notes = {name: [n for i, n in report.notes if i == name] for name in ("good", "late", "mixed")}
    assert notes["good"] == []
    assert any("past the end" in note for note in notes["late"])
    assert any("out of order" in note for note in notes["mixed"])
    clips = clips_of(tmp_path / "x.h5")
    assert list(clips) == ["good", "late", "mixed"]
    assert clips["late"].text == "in"
    # Mended and resumed, it is as if it had never been wrong.
    (folder / "bad.json").write_text(whisperx(("mended", 0.2, 0.5)))
    report = extract(folder, tmp_path / "x.h5", resume=True)
    assert report.failures == [] and report.resumed == 3
    extract(folder, tmp_path / "y.h5")
    assert_same(tmp_path / "x.h5", tmp_path / "y.h5")


def test_new_word_times_are_taken_over_when_a_finished_run_is_resumed(tmp_path, seen):
    (tmp_path / "c").mkdir()
    talking(tmp_path / "c" / "a.mp4", 1.0)
    (tmp_path / "c" / "a.json").write_text(whisperx(("yes", 0.1, 0.5)))
    extract(tmp_path / "c", tmp_path / "x.h5")
    assert extract(tmp_path / "c", tmp_path / "x.h5", resume=True).resumed == 1
    (tmp_path / "c" / "a.json").write_text(whisperx(("yes", 0.2, 0.5)))
    assert extract(tmp_path / "c", tmp_path / "x.h5", resume=True).resumed == 0
    assert clips_of(tmp_path / "x.h5")["a"].words == [Word("yes", 0.2, 0.5, 0.5)]


# Recognition


@pytest.fixture
def spoken(tmp_path) -> Path:
    """Three recordings with voices, one with a transcript; and one of silence."""
    folder = tmp_path / "spoken"
    folder.mkdir()
    write_wav(folder / "a.wav", scene(0.5, 1, 1, 1, 0.5))
    write_wav(folder / "b.wav", scene(0.3, 2, 0.5))
    write_wav(folder / "said.wav", scene(0.5, 1.2, 0.4, 0.8, 0.5))
    (folder / "said.srt").write_text(SRT)
    write_wav(folder / "still.wav", np.zeros(RATE, np.float32))
    return folder


def test_only_what_has_no_transcript_is_recognised(tmp_path, seen, spoken, parrot):
    report = extract(spoken, tmp_path / "x.h5", transcript="asr", settings=["asr.engine=whisper"])
    assert report.exit_code == 0 and parrot.asked == 2  # a, b; not said, and still is silent
    clips = clips_of(tmp_path / "x.h5")
    assert [clips[name].text for name in ("a", "b", "said", "still")] == [
        "Hi. Hi.", "Hi.", "Hello you. I know.", ""
    ]  # fmt: skip
    assert clips["a"].language == "nl" and clips["said"].language == ""
    assert [w.score for w in clips["a"].words] == [0.75, 0.75]
    assert clips["a"].words[1].start == pytest.approx(2.3, abs=0.1)
    assert ("a", "squawk") in report.notes and ("still", "no speech is found") in report.notes
    assert transcript_of(tmp_path / "x.h5") == {
        "from": "asr", "engine": "whisper", "model": "grey", "revision": "r1", "weak": False,
        "language": "", "recognised": 3,
    }  # fmt: skip
    assert not (tmp_path / "x.h5.part").exists()


def test_the_engine_is_the_profiles(tmp_path, seen, spoken, monkeypatch):
    asked = []

    def recogniser(config):
        asked.append(config)
        raise MertoolError("none here", "w", "f")

    monkeypatch.setattr(recognise, "recogniser", recogniser)
    for profile, engine in (("offline", "pocketsphinx"), ("paper", "whisper")):
        with pytest.raises(MertoolError, match="none here"):
            extract(spoken, tmp_path / "x.h5", transcript="asr", profile=profile)
        assert asked[-1].engine == engine
        assert asked[-1].model == "openai/whisper-small"


def test_settings_of_the_recogniser_are_told_wrong_with_the_others(tmp_path, seen, spoken):
    with pytest.raises(UsageError) as caught:
        extract(spoken, tmp_path / "x.h5", transcript="asr",
                settings=["asr.engine=ear", "asr.size=3", "audio.gain=2"])  # fmt: skip
    assert all(name in caught.value.where for name in ("asr.size", "audio.gain"))
    with pytest.raises(UsageError, match="no such section"):
        extract(spoken, tmp_path / "x.h5", settings=[SPHINX])


def test_pocketsphinx_is_said_to_be_weak_and_processes_do_not_matter(
    tmp_path, seen, spoken, capsys
):
    report = extract(spoken, tmp_path / "one.h5", transcript="asr")
    assert report.exit_code == 0
    facts = transcript_of(tmp_path / "one.h5")
    assert (facts["engine"], facts["weak"], facts["recognised"]) == ("pocketsphinx", True, 3)
    weak = "transcript recognised by pocketsphinx, a weak recogniser"
    clips = clips_of(tmp_path / "one.h5")
    assert {name for name, note in report.notes if note == weak} == {
        name for name, clip in clips.items() if clip.text and name != "said"
    }
    extract(spoken, tmp_path / "two.h5", transcript="asr", jobs=2)
    assert_same(tmp_path / "one.h5", tmp_path / "two.h5")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["data", "info", str(tmp_path / "one.h5")])
    facts = "transcript: engine pocketsphinx, from asr, model en-us, recognised 3, weak True"
    assert facts in capsys.readouterr().out


def test_a_stopped_run_recognises_nothing_twice(tmp_path, seen, spoken, parrot):
    out, options = tmp_path / "x.h5", {"transcript": "asr", "settings": ["asr.engine=whisper"]}
    extract(spoken, tmp_path / "whole.h5", **options)
    assert parrot.asked == 2
    parrot.fails = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        extract(spoken, out, **options)
    parrot.fails = None
    extract(spoken, out, resume=True, **options)
    assert parrot.asked == 5  # the one that was interrupted, and two
    out.unlink()
    # Stopped behind recognition: what was recognised is there, but for what a power cut spoilt.
    part = tmp_path / "x.h5.part"
    part.mkdir()
    parrot.asked = 0
    from mertool.extract.plan import plan_streams
    from mertool.extract.prepare import Plan, prepare
    from mertool.manifest import read

    _, asr = plan_streams("offline", {}, options["settings"], asr=True)
    prepare(read([spoken]), Plan("asr", asr), part, {})
    kept = sorted(part.glob("asr-*.json"))
    assert len(kept) == 3 and parrot.asked == 2
    big = max(kept, key=lambda path: path.stat().st_size)
    big.write_text(big.read_text()[:50])
    extract(spoken, out, resume=True, **options)
    assert parrot.asked == 3
    assert_same(out, tmp_path / "whole.h5")


def test_a_finished_run_is_resumed_without_recognising_again(tmp_path, seen, spoken, parrot):
    out, options = tmp_path / "x.h5", {"transcript": "asr", "settings": ["asr.engine=whisper"]}
    for segment in ("", "sentences"):
        extract(spoken, out, overwrite=True, segment=segment, **options)
        before, parrot.asked = out.read_bytes() and clips_of(out), 0
        assert extract(spoken, out, resume=True, segment=segment, **options).exit_code in (0, 3)
        assert parrot.asked == 0
        assert list(clips_of(out)) == list(before)
        assert transcript_of(out)["model"] == "grey"
    # A new recording is recognised, a changed one again, the others are left alone.
    write_wav(spoken / "new.wav", scene(0.4, 1, 0.4))
    write_wav(spoken / "b.wav", scene(0.3, 1, 0.5))
    extract(spoken, out, resume=True, segment="sentences", **options)
    assert parrot.asked == 2
    extract(spoken, tmp_path / "y.h5", segment="sentences", **options)
    assert_same(out, tmp_path / "y.h5")
    # Other settings: all of them.
    parrot.asked = 0
    extract(spoken, out, resume=True, segment="sentences", transcript="asr",
            settings=["asr.engine=whisper", "asr.language=nl"])  # fmt: skip
    assert parrot.asked == 3


def test_a_recording_that_cannot_be_recognised_fails_alone(tmp_path, seen, spoken, parrot):
    (spoken / "broken.wav").write_bytes(b"no sound")
    (spoken / "b.wav").rename(spoken / "c.wav")
    original = parrot.recognise

    def moody(pieces, language, stretches):
        if parrot.asked == 1:
            parrot.asked += 1
            raise RuntimeError("lost its voice")
        return original(pieces, language, stretches)

    parrot.recognise = moody
    report = extract(spoken, tmp_path / "x.h5", transcript="asr", settings=["asr.engine=whisper"])
    assert report.exit_code == 3
    assert [(name, stage) for name, stage, _ in report.failures] == [
        ("broken", "media"), ("c", "transcript")
    ]  # fmt: skip
    assert "lost its voice" in report.failures[1][2]
    assert list(clips_of(tmp_path / "x.h5")) == ["a", "said", "still"]


def work(place: int, what: str) -> Made:
    if what == "die":
        os._exit(9)
    if what == "wait":
        time.sleep(0.3)
    return Made([], [f"{place}"])


def test_a_process_that_dies_loses_its_recording_only():
    tasks = [(i, what) for i, what in enumerate(["wait", "", "die", "wait", "", "die", "", "wait"])]
    found = dict(_each(work, tasks, 2))
    assert {i for i, made in found.items() if made is None} == {2, 5}
    assert {i: made.notes for i, made in found.items() if made} == {
        i: [str(i)] for i in (0, 1, 3, 4, 6, 7)
    }


# Cutting


def test_recordings_are_cut_and_pieces_are_clips(tmp_path, seen, spoken):
    report = extract(spoken, tmp_path / "x.h5", segment="sentences")
    clips = clips_of(tmp_path / "x.h5")
    own = [clip for name, clip in clips.items() if name.startswith("said")]
    assert [clip.text for clip in own] == ["Hello you.", "I know."]
    assert own[0].end <= own[1].start
    voices = [clip for name, clip in clips.items() if name.startswith("a_")]
    assert np.allclose([(c.start, c.end) for c in voices], [(0.3, 1.7), (2.3, 3.7)], atol=0.12)
    for clip in clips.values():
        assert clip.path in ("a.wav", "b.wav", "said.wav")
        assert clip.id == f"{clip.path[:-4]}_{clip.start:.2f}-{clip.end:.2f}"
        rows = clip.streams["audio"]
        assert rows.times[-1, 1] == pytest.approx(clip.end - clip.start, abs=0.02)
    [failure] = report.failures
    assert failure[:2] == ("still", "segment") and "Nobody speaks" in failure[2]
    assert transcript_of(tmp_path / "x.h5") == {"from": "sidecar", "segment": "sentences"}
    extract(spoken, tmp_path / "two.h5", segment="sentences", jobs=2)
    assert_same(tmp_path / "x.h5", tmp_path / "two.h5")


def test_pieces_inherit_what_the_manifest_says(tmp_path, seen, spoken):
    (spoken / "manifest.csv").write_text(
        "clip_id,path,transcript,speaker,split,language,joy\n"
        "one,said.wav,said.srt,ann,test,en-GB,1.5\n"
        "two,a.wav,,bob,train,de,-1\n"
    )
    extract(spoken, tmp_path / "x.h5", segment="cues")
    for name, clip in clips_of(tmp_path / "x.h5").items():
        one = name.startswith("one_")
        assert (clip.speaker, clip.split, clip.language) == (
            ("ann", "test", "en-GB") if one else ("bob", "train", "de")
        )
        assert clip.labels == {"joy": 1.5 if one else -1.0}
    with mertool.open(tmp_path / "x.h5") as file:
        assert file.ids[:2] == ["one_0.50-2.00", "one_2.10-3.00"] and len(file) == 4


def test_pieces_of_seconds_of_a_video_without_sound(tmp_path, seen):
    from media_samples import ODD

    (tmp_path / "c").mkdir()
    ODD["no_sound"](tmp_path / "c" / "mute.mp4")
    talking(tmp_path / "c" / "long.mp4", 2.0)
    report = extract(tmp_path / "c", tmp_path / "x.h5", segment="0.5", vision="colour")
    assert report.exit_code == 0
    clips = clips_of(tmp_path / "x.h5").values()
    for path in ("mute.mp4", "long.mp4"):
        own = [clip for clip in clips if clip.path == path]
        assert own[0].start == 0 and all(c.end - c.start <= 0.501 for c in own)
        assert all(a.end == b.start for a, b in zip(own, own[1:], strict=False))


def test_a_text_without_times_cannot_be_cut_but_others_are(tmp_path, seen, spoken):
    (spoken / "b.txt").write_text("Some text. No times.")
    report = extract(spoken, tmp_path / "x.h5", segment="1")
    assert [(name, stage) for name, stage, _ in report.failures] == [("b", "segment")]
    assert "--transcript none" in report.failures[0][2]
    report = extract(spoken, tmp_path / "n.h5", segment="1", transcript="none")
    assert report.failures == []


def test_recognised_and_cut(tmp_path, seen, spoken, parrot):
    extract(spoken, tmp_path / "x.h5", transcript="asr", segment="sentences",
            settings=["asr.engine=whisper"])  # fmt: skip
    own = [c for n, c in clips_of(tmp_path / "x.h5").items() if n.startswith("a_")]
    assert [c.text for c in own] == ["Hi.", "Hi."]
    assert [[w.text for w in c.words] for c in own] == [["Hi."], ["Hi."]]
    assert all(c.language == "nl" for c in own)


def test_two_clips_of_one_name_are_refused(tmp_path, seen, spoken):
    (spoken / "said_0.50-2.00.wav").write_bytes((spoken / "b.wav").read_bytes())
    (spoken / "said_0.50-2.00.srt").write_text(SRT)
    (spoken / "manifest.csv").write_text(
        "clip_id,path,transcript\nx,said.wav,said.srt\nx_0.50-2.00,b.wav,\n"
    )
    extract(spoken, tmp_path / "x.h5", segment="cues")  # x_0.50-2.00 is cut, too
    from mertool.extract.prepare import _refuse_twins

    with pytest.raises(DataError, match='"x_0.50-2.00"'):
        _refuse_twins([Clip("x_0.50-2.00"), Clip("y"), Clip("x_0.50-2.00")])


def test_a_stream_is_added_to_pieces(tmp_path, seen, spoken):
    (spoken / "still.wav").unlink()
    out = tmp_path / "x.h5"
    extract(spoken, out, segment="sentences", text="none")
    report = add_streams(spoken, out, text="letters", segment="sentences")
    assert report.exit_code == 0 and report.clips == len(clips_of(out))
    extract(spoken, tmp_path / "y.h5", segment="sentences")
    assert transcript_of(out) == transcript_of(tmp_path / "y.h5")
    for name, clip in clips_of(tmp_path / "y.h5").items():
        assert np.array_equal(
            clips_of(out)[name].streams["text"].values, clip.streams["text"].values
        )


def test_the_command_cuts_and_recognises(tmp_path, seen, spoken, capsys):
    options = [f"--{key}={value}" for key, value in {**CHOICE, "vision": "none"}.items()]
    command = ["extract", str(spoken), "-o", str(tmp_path / "x.h5"), *options]
    with pytest.raises(SystemExit) as caught:
        main([*command, "--segment", "words"])
    assert caught.value.code == 2
    assert "sentences, cues or a number of seconds" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main([*command, "--segment", "cues", "--transcript", "asr", "--set", SPHINX])
    assert caught.value.code == 3  # nobody speaks in still.wav
    assert "still (segment): Nobody speaks" in capsys.readouterr().err
    facts = transcript_of(tmp_path / "x.h5")
    assert (facts["from"], facts["engine"], facts["segment"]) == ("asr", "pocketsphinx", "cues")
