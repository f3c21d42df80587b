"""The pocketsphinx aligner, on synthetic speech with known word bounds and on real speech."""

from __future__ import annotations

import io
import itertools
import re
import shutil
import subprocess
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
from spoken import dictionary, edits

from mertool.align.skipping import grammar, matched
from mertool.align.spelling import _cardinal, dictionary_words, pronounce
from mertool.align.sphinx import Pocketsphinx, _is_noisy
from mertool.errors import MertoolError, MertoolWarning
from mertool.transcripts import voice
from mertool.types import Clip
from mertool.words import split_words

needs_espeak = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not installed"
)


@dataclass
class Sound(Clip):
    """A clip whose sound is at hand."""

    sound: np.ndarray | None = None

    def audio(self, rate: int = 16000, channel: str = "mean") -> np.ndarray:
        assert rate == 16000
        return self.sound


@pytest.fixture(scope="module")
def aligner() -> Pocketsphinx:
    return Pocketsphinx()


def speak(said: list[str], voice: str = "en-us") -> tuple[np.ndarray, np.ndarray]:
    """(S,) speech of the phrases with 0.15 s of near-silence around each, and their bounds."""
    import soundfile
    from scipy.signal import resample_poly

    rng = np.random.default_rng(0)
    pieces, bounds, position = [], [], 0
    for phrase in said:
        wav = subprocess.run(
            ["espeak-ng", "-v", voice, "-s", "150", "--stdout", phrase],
            capture_output=True,
            check=True,
        ).stdout
        samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
        samples = resample_poly(samples, 16000, rate)
        loud = np.flatnonzero(np.abs(samples) > 0.01)
        samples = samples[loud[0] : loud[-1] + 1]
        pause = np.zeros(2400)
        pieces += [pause, samples]
        bounds.append((position + 2400, position + 2400 + len(samples)))
        position += 2400 + len(samples)
    sound = np.concatenate([*pieces, np.zeros(2400)])
    sound += rng.normal(scale=1e-4, size=len(sound))
    return sound.astype(np.float32), np.array(bounds) / 16000


def spoken(text: str, said: list[str] | None = None, **more) -> tuple[Sound, np.ndarray]:
    sound, bounds = speak(said or text.split())
    return Sound("x", text=text, end=len(sound) / 16000, sound=sound, **more), bounds


def check(words, clip: Clip) -> None:
    """What holds for all alignments: every word once, in order, within the clip."""
    assert [w.text for w in words] == [clip.text[a:b] for a, b in split_words(clip.text)]
    edges = [t for w in words for t in (w.start, w.end)]
    assert edges == sorted(edges)
    if edges:
        assert edges[0] >= 0 and edges[-1] <= clip.end
    assert all(w.score == -1 or 0 <= w.score <= 1 for w in words)


def evenly(words, clip: Clip) -> bool:
    """Whether all are of one length and fill the stretch with voice, or the clip without any."""
    start, end = voice.span(clip.sound) or (0.0, clip.end)
    edges = np.linspace(start, min(end, clip.end), len(words) + 1)
    return all(w.score == -1 for w in words) and np.allclose(
        [(w.start, w.end) for w in words], np.stack([edges[:-1], edges[1:]], 1)
    )


# --- Words, numbers, letters ---


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("Movie,", "movie"),
        ("“DON’T”", "don't"),
        ("’cause", "'cause"),
        ("'tis", "'tis"),
        ("'movie'", "movie"),
        ("U.S.", "u.s."),
        ("Mr.", "mr."),
        ("no.", "no"),
        ("in.", "in"),
        ("café", "cafe"),
        ("all-time", "all-time"),  # the dictionary has it whole
        ("heart-warming", "heart warming"),
        ("good/bad", "good bad"),
        ("rock&roll", "rock and roll"),
        ("reallllly", "really"),
        ("XJK", "x j k"),
        ("6", "six"),
        ("6/10", "six ten"),
        ("3.5", "three point five"),
        ("100%", "one hundred percent"),
        ("$5", "five dollars"),
        ("1,234", "one thousand two hundred thirty four"),
        ("21st", "twenty first"),
        ("30th", "thirtieth"),
        ("90s", "nineties"),
        ("007", "zero zero seven"),
        ("12345", "one two three four five"),
        ("６", "six"),
        ("世界", ""),
        ("привет", ""),
        ("naïve", "naive"),
        ("Straße", "strasse"),
    ],
)
def test_words_of_a_transcript_become_dictionary_words(aligner, word, expected):
    assert dictionary_words(word, aligner._known) == expected.split()


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (42, "forty two"),
        (100, "one hundred"),
        (115, "one hundred fifteen"),
        (1000, "one thousand"),
        (1900, "nineteen hundred"),
        (1905, "nineteen oh five"),
        (1984, "nineteen eighty four"),
        (2005, "two thousand five"),
        (9999, "nine thousand nine hundred ninety nine"),
    ],
)
def test_numbers(number, expected):
    assert _cardinal(number) == expected.split()


def test_every_number_is_in_the_dictionary(aligner):
    used = {word for n in range(10000) for word in _cardinal(n)}
    used |= {w for n in range(1, 100) for w in dictionary_words(f"{n}th", aligner._known)}
    used |= {dictionary_words(f"{n}0s", aligner._known)[-1] for n in range(2, 10)}
    assert {"twentieth", "twelfth", "ninth", "nineties"} <= used
    assert [word for word in used if not aligner._known(word)] == []


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("blarg", "B L AA R G"),
        ("knight", "N AY T"),
        ("zate", "Z EY T"),
        ("phission", "F IH SH AH N"),
        ("qwerble", "K W ER B AH L"),
        ("blick's", "B L IH K S"),
        ("fuzzlex", "F AH Z L EH K S"),
    ],
)
def test_letters_to_sounds(word, expected):
    assert pronounce(word) == expected


def test_letter_rules_against_the_dictionary():
    known = dictionary()
    sample = sorted(known)[::60]
    guessed = {word: pronounce(word).split() for word in sample}
    wrong = sum(edits(guessed[word], known[word]) for word in sample)
    assert wrong / sum(len(known[word]) for word in sample) < 0.22
    assert {p for g in guessed.values() for p in g} <= {p for g in known.values() for p in g}


def test_any_letters_get_known_phones(aligner):
    rng = np.random.default_rng(1)
    phones = {p for known in dictionary().values() for p in known}
    for _ in range(2000):
        word = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz'"), rng.integers(1, 9)))
        guess = pronounce(word).split()
        assert guess and set(guess) <= phones, word


# --- Alignment ---


@needs_espeak
def test_words_are_found_where_they_are_said(aligner):
    text = "Well, the MOVIE was really-really good: I’d watch 21 more!"
    said = "well|the|movie|was|really really|good|I'd|watch|twenty one|more".split("|")
    clip, bounds = spoken(text, said)
    words = aligner.align(clip)
    check(words, clip)
    error = np.abs([(w.start, w.end) for w in words] - bounds)
    assert np.median(error) < 0.04 and error.max() < 0.15
    assert min(w.score for w in words) > 0.05 and np.median([w.score for w in words]) > 0.5


@needs_espeak
def test_out_of_vocabulary_words_are_found_too(aligner):
    text = "the blarg and Zorbing frimble were splendid"
    assert [w for w in ("blarg", "zorbing", "frimble") if aligner._known(w)] == []
    clip, bounds = spoken(text)
    for one in (aligner, Pocketsphinx(Pocketsphinx.Config("rules"))):
        words = one.align(clip)
        check(words, clip)
        assert np.abs([w.start for w in words] - bounds[:, 0]).max() < 0.12
        assert all(w.score >= 0 for w in words)


@needs_espeak
def test_espeak_pronounces_where_it_is_asked_to(aligner):
    clip, _ = spoken("the zeuxine was there")
    assert not Pocketsphinx()._known("zeuxine")
    said = {}
    for by in ("auto", "espeak", "rules"):
        one = Pocketsphinx(Pocketsphinx.Config(by))
        one.align(clip)
        said[by] = one._decoder.lookup_word("zeuxine")
    assert said["auto"] == said["espeak"] != said["rules"] == pronounce("zeuxine")


def test_who_pronounces_is_recorded(monkeypatch):
    for there, by in (("/bin/espeak-ng", "espeak"), (None, "rules")):
        monkeypatch.setattr("shutil.which", lambda _, there=there: there)
        assert Pocketsphinx.Config().pronounce == by
    with pytest.raises(MertoolError, match="not installed"):
        Pocketsphinx(Pocketsphinx.Config("espeak"))
    with pytest.raises(ValueError, match="auto, espeak or rules"):
        Pocketsphinx.Config("sam")


@needs_espeak
@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
def test_a_sentence_too_many_is_left_out(aligner, before):
    said, extra = "kids are talking by the door", "please bring some yellow paper tomorrow"
    clip, bounds = spoken(said)
    clip.text = f"{extra} {said}" if before else f"{said} {extra}"
    with pytest.warns(MertoolWarning, match="6 of 12 words are not heard .* please, bring"):
        words = aligner.align(clip)
    check(words, clip)
    true, others = (words[6:], words[:6]) if before else (words[:6], words[6:])
    assert np.abs([w.start for w in true] - bounds[:, 0]).max() < 0.12
    assert [w.score for w in others] == [-1] * 6 and min(w.score for w in true) > 0


@needs_espeak
def test_noise_is_told_from_silence(aligner):
    clip, bounds = spoken("this movie is wonderful")
    assert not _is_noisy(clip.sound)
    power = np.mean(clip.sound[clip.sound != 0] ** 2)
    noise = np.random.default_rng(0).normal(scale=np.sqrt(power / 10), size=len(clip.sound))
    loud = replace(clip, sound=(clip.sound + noise).astype(np.float32))
    assert _is_noisy(loud.sound) and not _is_noisy(np.zeros(10, np.float32))
    first = aligner.align(clip)
    words = aligner.align(loud)
    check(words, loud)
    assert np.median(np.abs([w.start for w in words] - bounds[:, 0])) < 0.1
    assert aligner.align(clip) == first  # the filter against noise is off again


@needs_espeak
def test_a_word_in_another_script_stands_between_its_neighbours(aligner):
    clip, bounds = spoken("good movie 世 界 today", ["good", "movie", "shi", "jie", "today"])
    with pytest.warns(MertoolWarning, match="2 of 5 words .* 世, 界"):
        words = aligner.align(clip)
    check(words, clip)
    assert [w.score >= 0 for w in words] == [True, True, False, False, True]
    middle = (words[1].end + words[4].start) / 2
    assert words[2].start == words[1].end and words[3].end == words[4].start
    assert words[2].end == words[3].start == pytest.approx(middle)
    assert abs(words[0].start - bounds[0, 0]) < 0.1 and abs(words[4].end - bounds[4, 1]) < 0.15


@needs_espeak
def test_results_do_not_depend_on_the_clips_before(aligner):
    one, _ = spoken("the blarg was loud")
    quiet = np.random.default_rng(0).normal(scale=0.05, size=40000).astype(np.float32)
    two = Sound("y", text="something else entirely", end=2.5, sound=quiet)
    first = aligner.align(one)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MertoolWarning)
        aligner.align(two)
        aligner.align(replace(two, text="", sound=None))
    assert aligner.align(one) == first
    assert Pocketsphinx().align(one) == first


@needs_espeak
def test_a_wrong_transcript_scores_lower(aligner):
    right, _ = spoken("this movie is wonderful and funny")
    wrong = replace(right, text="please bring some yellow paper tomorrow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MertoolWarning)
        good, bad = (np.median([w.score for w in aligner.align(c)]) for c in (right, wrong))
    assert good > 0.5 > bad


@needs_espeak
def test_loud_sound_is_clipped_and_not_wrapped(aligner):
    clip, bounds = spoken("this movie is wonderful")
    words = aligner.align(replace(clip, sound=clip.sound / np.abs(clip.sound).max() * 1.5))
    assert np.abs([w.start for w in words] - bounds[:, 0]).max() < 0.12


@needs_espeak
def test_another_language_is_told(aligner):
    clip, _ = spoken("die Katze schläft", language="de-AT")
    with pytest.warns(MertoolWarning, match='"de-AT"'):
        check(aligner.align(clip), clip)


@pytest.mark.parametrize("text", ["今天天气很好", "Это очень хороший фильм"])
def test_other_scripts_are_evenly_spaced(aligner, text):
    sound = np.random.default_rng(0).normal(scale=0.1, size=32000).astype(np.float32)
    clip = Sound("x", text=text, end=2.0, sound=sound)
    with pytest.warns(MertoolWarning, match="no word can be pronounced"):
        words = aligner.align(clip)
    check(words, clip)
    assert evenly(words, clip)


@pytest.mark.parametrize(
    ("sound", "match"),
    [
        (np.zeros(0, np.float32), "no sound"),
        (np.zeros(32000, np.float32), "no sound"),
        (np.random.default_rng(0).normal(scale=0.1, size=3200).astype(np.float32), "not fit"),
        (np.full(10, 0.1, np.float32), "not fit"),
    ],
    ids=["none", "digital silence", "0.2 s", "10 samples"],
)
def test_what_cannot_be_aligned_is_evenly_spaced(aligner, sound, match):
    text = "this is far too long a sentence for so short a sound"
    clip = Sound("x", text=text, end=max(len(sound) / 16000, 0.5), sound=sound)
    with pytest.warns(MertoolWarning, match=match):
        words = aligner.align(clip)
    check(words, clip)
    assert evenly(words, clip)


@pytest.mark.parametrize("text", ["", "  \n", "... -- !"])
def test_no_words_no_alignment(aligner, text):
    assert aligner.align(Sound("x", text=text, end=1.0)) == []


def test_real_speech_against_reference_times(aligner, shared):
    folder, errors = shared / "data" / "grid", []
    for path in sorted(folder.glob("*.align")):
        lines = [line.split() for line in path.read_text().splitlines()]
        marks = [(int(a) / 25000, int(b) / 25000, w) for a, b, w in lines if w not in ("sil", "sp")]
        clip = Clip("x", f"{path.stem}.mpg", str(folder), end=2.976)
        clip.text = " ".join(word for *_, word in marks)
        words = aligner.align(clip)
        check(words, clip)
        pairs = zip(words, marks, strict=True)
        errors += [(abs(w.start - a), abs(w.end - b)) for w, (a, b, _) in pairs]
    assert len(errors) == 108
    assert (np.median(errors, axis=0) < 0.02).all()
    assert (np.percentile(errors, 90, axis=0) < 0.04).all() and np.max(errors) < 0.2


def test_words_left_out_are_matched():
    def brute(words, found):
        """Fewest stretches left out, over all choices of places."""
        counts = []
        for places in itertools.combinations(range(len(words)), len(found)):
            if [words[i] for i in places] == found:
                kept = "".join("x" if i in places else " " for i in range(len(words)))
                counts.append(len(re.findall(" +", kept)))
        return min(counts, default=None)

    rng = np.random.default_rng(0)
    none = 0
    for _ in range(300):
        words = rng.choice(["a", "b", "c"], rng.integers(1, 8)).tolist()
        found = rng.choice(["a", "b", "c"], rng.integers(1, 5)).tolist()
        places, fewest = matched(words, found), brute(words, found)
        if places is None:
            assert fewest is None
            none += 1
            continue
        taken = [(i, j) for i, j in enumerate(places) if j is not None]
        assert [j for _, j in taken] == list(range(len(found)))
        assert all(words[i] == found[j] for i, j in taken)
        kept = "".join(" " if place is None else "x" for place in places)
        assert len(re.findall(" +", kept)) == fewest
    assert 50 < none < 250
    # Of equals, the words at an end.
    assert matched("a b a b c".split(), "a b c".split()) == [None, None, 0, 1, 2]


def test_grammar_leaves_out_every_stretch_but_the_whole():
    end, arcs = grammar(["a", "b", "a"])
    said = {(0, 1, "a"), (1, 2, "b"), (2, 3, "a")}
    assert end == 3 and {(i, j, w[0]) for i, j, _, *w in arcs if w} == said
    assert sorted((i, j) for i, j, _, *w in arcs if not w) == [
        (0, 1),
        (0, 2),
        (1, 2),
        (1, 3),
        (2, 3),
    ]


def test_packaged_clips(aligner):
    from mertool.demo import CLIPS
    from mertool.manifest import read

    clips = [clip for clip in read([CLIPS]).clips if clip.text][:2]
    assert clips
    for clip in clips:
        clip.end = clip.end or len(clip.audio()) / 16000
        words = aligner.align(clip)
        check(words, clip)
        assert all(word.score >= 0 for word in words)
