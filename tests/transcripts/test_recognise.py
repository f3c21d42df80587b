"""Recognition: settings, how sound is cut and handed over, and pocketsphinx."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from media_samples import write_media, write_wav
from spoken import RATE, scene

from mertool.config import resolve
from mertool.errors import MediaError, UsageError
from mertool.transcripts import Cue, Transcript
from mertool.transcripts.asr import Config, ordered
from mertool.transcripts.recognise import recognise, recogniser, sounds
from mertool.transcripts.sphinx import Sphinx
from mertool.types import Clip, Word
from mertool.words import split_words

pytest.importorskip("pocketsphinx")
SPHINX = Config("pocketsphinx")
SAID = "and you always want to see it in the superlative degree"


class Echo:
    """A recogniser that says how it was called."""

    apart, longest = 0.5, 4.0
    info = {"engine": "echo", "model": "", "revision": "", "weak": False}

    def recognise(self, pieces, language, stretches) -> Transcript:
        self.pieces = [(start, len(sound) / RATE) for start, sound in pieces]
        self.language, self.stretches = language, stretches
        cues = [Cue("a", s, s + n, (Word("a", s, s + n, 1.0),)) for s, n in self.pieces]
        return Transcript(cues, language or "en")


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Echo:
    made = Echo()
    monkeypatch.setattr("mertool.transcripts.recognise.recogniser", lambda config: made)
    return made


def clip_of(tmp_path: Path, sound: np.ndarray, **facts) -> Clip:
    path = write_wav(tmp_path / "clip.wav", sound)
    return Clip("clip", path.name, str(tmp_path), **facts)


def test_pieces_are_of_voice_only_and_times_those_of_the_recording(tmp_path, echo):
    clip = clip_of(tmp_path, scene(2, 1.5, 3, 6, 1), start=1.0)
    found = recognise(clip, Config("whisper", language="de"))
    starts = [start for start, _ in echo.pieces]
    assert starts[0] == pytest.approx(0.8, abs=0.1)  # 1 s into the clip, less the margin
    assert echo.pieces[0][1] == pytest.approx(1.9, abs=0.2)
    assert 2 <= len(echo.pieces) - 1 <= 3  # 6 s of voice in pieces of at most 4 s
    assert all(seconds <= 4.0 + 1e-6 for _, seconds in echo.pieces)
    assert echo.language == found.language == "de"
    for (start, seconds), cue in zip(echo.pieces, found.cues, strict=True):
        assert (cue.start, cue.end) == (start + 1, start + seconds + 1)
        assert (cue.words[0].start, cue.words[0].end) == (cue.start, cue.end)


def test_the_clips_language_serves_where_the_settings_have_none(tmp_path, echo):
    clip = clip_of(tmp_path, scene(0.5, 1, 0.5), language="sv")
    assert recognise(clip, Config("whisper")).language == "sv"
    assert recognise(clip, Config("whisper", language="fi")).language == "fi"


def test_where_nobody_speaks_no_recogniser_is_asked(tmp_path, echo):
    echo.recognise = None
    found = recognise(clip_of(tmp_path, np.zeros(RATE, np.float32)), Config("whisper"))
    assert (found.cues, found.notes) == ([], ["no speech is found"])
    silent = write_media(tmp_path / "silent.mp4", np.arange(10) / 25)
    found = recognise(Clip("silent", silent.name, str(tmp_path)), Config("whisper"))
    assert (found.cues, found.notes) == ([], ["no speech is found"])


def test_media_that_cannot_be_read_are_an_error(tmp_path, echo):
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    with pytest.raises(MediaError):
        recognise(Clip("broken", "broken.wav", str(tmp_path)), Config("whisper"))


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_sounds_are_what_lies_between(size):
    sound = np.arange(1000, dtype=np.float32)
    spans = [(10 / RATE, 20 / RATE), (20 / RATE, 150 / RATE), (600 / RATE, 990 / RATE)]
    blocks = [sound[i : i + size] for i in range(0, 1000, size)]
    found = list(sounds(blocks, spans))
    assert [start for start, _ in found] == [start for start, _ in spans]
    for (start, end), (_, part) in zip(spans, found, strict=True):
        assert part.tolist() == list(range(round(start * RATE), round(end * RATE)))


def test_sounds_past_the_end_are_short_and_reading_is_lazy():
    read = []

    def blocks():
        for i in range(10):
            read.append(i)
            yield np.full(100, i, np.float32)

    found = sounds(blocks(), [(0.0, 150 / RATE), (950 / RATE, 1100 / RATE), (1.0, 2.0)])
    assert len(next(found)[1]) == 150
    assert read == [0, 1]
    assert next(found)[1].tolist() == [9] * 50
    assert len(next(found)[1]) == 0


def test_words_are_put_in_order_and_empty_cues_left_out():
    cues = [
        Cue("a b", words=(Word("a", 0.0, 1.0004, 0.5), Word("b", 0.9, 2.0, 0.5))),
        Cue(""),
        Cue("c", words=(Word("c", 1.5, 1.8, 0.5),)),
    ]
    first, second = ordered(cues)
    assert [(w.start, w.end) for w in first.words] == [(0.0, 1.0), (1.0, 2.0)]
    assert (first.start, first.end) == (0.0, 2.0)
    assert [(w.start, w.end) for w in second.words] == [(2.0, 2.0)]


@pytest.mark.parametrize(
    "setting", ["asr.engine=kaldi", "asr.model=", "asr.language=English please"]
)
def test_wrong_settings_are_told_at_once(setting):
    with pytest.raises(UsageError, match=setting.split("=")[0].split(".")[1]):
        resolve({"asr": Config}, [setting])


def test_pocketsphinx_knows_english_only(tmp_path):
    with pytest.raises(UsageError, match="English only"):
        Sphinx(Config("pocketsphinx", language="de"))
    clip = clip_of(tmp_path, scene(0.5, 1, 0.5), language="de")
    found = recognise(clip, SPHINX)
    assert not found.cues
    assert found.notes == ['not recognised: the language is "de", and pocketsphinx knows English']


def test_pocketsphinx_hears_a_read_sentence(shared: Path):
    file = shared / "data" / "speech" / "arctic_a0007.wav"
    clip = Clip("a", file.name, str(file.parent))
    found = recognise(clip, SPHINX)
    texts = [found.text[a:b] for a, b in split_words(found.text)]
    # Weak, but of a clear sentence it gets nearly all words.
    assert len(set(texts) & set(SAID.split())) >= 9
    assert found.language == "en"
    words = found.words
    assert [w.text for w in words] == texts
    assert (np.diff([t for w in words for t in (w.start, w.end)]) >= 0).all()
    assert 0 <= words[0].start and words[-1].end <= 3.03
    assert all(0 <= w.score <= 1 for w in words)
    assert max(w.score for w in words) > 0.9
    # What was heard before does not matter, nor does where the clip lies in its recording.
    assert recognise(clip, SPHINX) == found
    later = recognise(Clip("b", file.name, str(file.parent), start=1.0), SPHINX)
    assert 1.0 <= later.cues[0].start and later.cues[-1].end <= 3.03
    assert "superlative degree" in later.text
    assert recogniser(SPHINX).info["weak"]
