"""Cutting recordings into utterances: by sentences, cues, time and voice."""

from __future__ import annotations

import numpy as np
import pytest

from mertool.errors import DataError, UsageError
from mertool.extract.segment import SUFFIX, Rule, needs_sound, rule, segment
from mertool.transcripts import Cue, Transcript
from mertool.transcripts.sentences import sentence_ends
from mertool.transcripts.voice import Activity
from mertool.types import Clip, Word
from mertool.words import split_words

CLIP = Clip("talk", "talk.mp4", "/media", speaker="ann", split="test", language="en",
            labels={"anger": 0.5})  # fmt: skip
SENTENCES, CUES = Rule("sentences"), Rule("cues")


def timed(text: str, *starts: float, length: float = 0.3, start: float | None = None) -> Cue:
    """A cue whose words begin at `starts`."""
    texts = [text[a:b] for a, b in split_words(text)]
    words = tuple(Word(t, s, s + length, 0.9) for t, s in zip(texts, starts, strict=True))
    return Cue(text, starts[0] if start is None else start, starts[-1] + length, words)


def heard(*stretches: tuple[float, float], duration: float) -> Activity:
    levels = np.full(round(duration * 100), -60, np.float32)
    for a, b in stretches:
        levels[round(a * 100) : round(b * 100)] = -20
    return Activity(list(stretches), levels)


def spans(clips: list[Clip]) -> list[tuple[float, float, str]]:
    return [(clip.start, clip.end, clip.text) for clip in clips]


def sentences_of(text: str) -> list[str]:
    marks = [0, *sentence_ends(text, split_words(text)).values()]
    parts = [text[a:b].strip() for a, b in zip(marks, [*marks[1:], len(text)], strict=True)]
    return [part for part in parts if part]


@pytest.mark.parametrize(
    "parts",
    [
        ["I know.", "You do?", "Yes!", "So…", "Fine"],
        ["Mr. Smith met Dr. J. Doe at 3.50 today.", "He left."],
        ["So am I.", "Are you?"],
        ["Well... you know, it goes on.", "Hm..."],
        ["He waited...", "Then he left."],
        ["The U.S. Army came.", "It went, e.g. by car."],
        ["No.", "Not at all."],
        ["That is no. 5 of them."],
        ["Bread, milk, etc. are there.", "Bread, milk, etc.", "They are gone."],
        ["“Stop!”", "she said (loudly).", "“Why?”", "'Because.'"],
        ["我爱你。", "你呢？", "「好！」", "他说"],
        ["Wait -- what?", "-- Nothing."],
        ["Really?!", "Yes…!"],
        ["It costs 5.", "It is cheap."],
        ["नमस्ते।", "आप?"],
        ["one two three"],
    ],
)  # fmt: skip
def test_where_sentences_end(parts):
    joined = "" if "我" in parts[0] else " "
    assert sentences_of(joined.join(parts)) == parts


def test_a_mark_amid_a_sentence_or_before_a_comma_ends_none():
    assert sentences_of("Yahoo!, he said, e.g., here: 1.5, v2.0 and a.b.c now") == [
        "Yahoo!, he said, e.g., here: 1.5, v2.0 and a.b.c now"
    ]


def test_sentences_with_word_times():
    cues = [
        timed("Hi there. How are", 1.0, 1.4, 3.0, 3.4),
        timed("you, Mr. Smith? Fine.", 3.8, 4.2, 4.6, 5.05),
    ]
    clips, notes = segment(CLIP, Transcript(cues), SENTENCES, None, 10.0)
    assert notes == []
    assert [c.text for c in clips] == ["Hi there.", "How are you, Mr. Smith?", "Fine."]
    # A tenth of a second into the pauses around, half of one at most (4.9 to 5.05 s).
    assert [(c.start, c.end) for c in clips] == [(0.9, 1.8), (2.9, 4.975), (4.975, 5.45)]
    assert [c.id for c in clips] == ["talk_0.90-1.80", "talk_2.90-4.97", "talk_4.97-5.45"]
    assert [w.text for w in clips[1].words] == ["How", "are", "you,", "Mr.", "Smith?"]
    assert clips[1].words[0] == Word("How", pytest.approx(0.1), pytest.approx(0.4), 0.9)
    for clip in clips:
        assert (clip.path, clip.source, clip.speaker) == ("talk.mp4", "/media", "ann")
        assert (clip.split, clip.language, clip.labels) == ("test", "en", {"anger": 0.5})
        assert clip.labels is not CLIP.labels
        assert [w.text for w in clip.words] == [clip.text[a:b] for a, b in split_words(clip.text)]
        assert all(0 <= w.start <= w.end <= clip.end - clip.start for w in clip.words)


def test_a_clip_that_is_a_part_takes_its_part_only():
    cues = [timed("One. Two. Three. Four.", 1.0, 3.0, 5.0, 7.0)]
    part = Clip("part", "talk.mp4", "/media", start=2.0, end=6.5)
    clips, _ = segment(part, Transcript(cues), SENTENCES, None, 6.5)
    assert [c.text for c in clips] == ["Two.", "Three."]
    assert clips[0].words == [Word("Two.", pytest.approx(0.1), pytest.approx(0.4), 0.9)]
    assert all(2.0 <= c.start < c.end <= 6.5 for c in clips)
    assert clips[0].id == "part_2.90-3.40"


def test_a_sentence_end_within_a_cue_is_moved_to_the_nearest_pause():
    # 20 characters over 10 s: "Well done." ends at 5.25 s, amid the space behind it.
    cue = Cue("Well done. Go on now", 10.0, 20.0)
    sound = heard((0, 14.3), (14.7, 17), (17.5, 30), duration=30)
    clips, _ = segment(CLIP, Transcript([cue]), SENTENCES, sound, 30.0)
    assert [c.text for c in clips] == ["Well done.", "Go on now"]
    assert [(c.start, c.end) for c in clips] == [(9.9, 14.4), (14.6, 20.1)]
    assert all(c.words is None for c in clips)
    # Where no pause is within a second the sentences meet where the characters say.
    clips, _ = segment(CLIP, Transcript([cue]), SENTENCES, heard((0, 30), duration=30), 30.0)
    assert clips[0].end == clips[1].start == pytest.approx(15.25)
    # Of a part of the recording the sound begins with the part.
    part = Clip("part", start=5.0, end=25.0)
    sound = heard((0, 9.3), (9.7, 20), duration=20)
    clips, _ = segment(part, Transcript([cue]), SENTENCES, sound, 25.0)
    assert [(c.start, c.end) for c in clips] == [(9.9, 14.4), (14.6, 20.1)]


def test_a_sentence_over_several_captions_is_one():
    cues = [Cue("I thought that", 1.0, 2.0), Cue("you knew. But", 2.2, 4.0), Cue("no!", 4.5, 5.0)]
    sound = heard((0.9, 2.9), (3.4, 5), duration=6)
    clips, _ = segment(CLIP, Transcript(cues), SENTENCES, sound, 6.0)
    assert [c.text for c in clips] == ["I thought that you knew.", "But no!"]
    assert (clips[0].start, clips[0].end) == (0.9, 3.0)
    assert (clips[1].start, clips[1].end) == (3.3, 5.1)


def test_words_are_kept_only_where_all_times_are_the_transcripts():
    cues = [timed("Yes. I", 1.0, 2.0), Cue("do. No.", 2.5, 3.5)]
    clips, _ = segment(CLIP, Transcript(cues), SENTENCES, heard((1, 3.5), duration=5), 5.0)
    assert [c.text for c in clips] == ["Yes.", "I do.", "No."]
    assert [c.words is None for c in clips] == [False, True, True]


def test_without_sentence_marks_cues_are_taken_and_it_is_said():
    cues = [timed("well you know", 1.0, 1.4, 1.8), timed("i see", 4.0, 4.3)]
    clips, notes = segment(CLIP, Transcript(cues), SENTENCES, None, 6.0)
    assert [c.text for c in clips] == ["well you know", "i see"]
    assert notes == ["the transcript has no sentence marks: its cues are taken for sentences"]


def test_cues_are_clips_with_their_own_times():
    cues = [
        Cue("Hello", 1.0, 2.0), Cue("♪ ♪", 2.0, 4.0), timed("you two", 4.2, 4.6, start=4.0),
        Cue("at once", 6.0, 7.0), Cue("both", 6.0, 7.0), Cue("late", 11.0, 12.0),
    ]  # fmt: skip
    clips, notes = segment(CLIP, Transcript(cues), CUES, None, 10.0)
    assert spans(clips) == [
        (1.0, 2.0, "Hello"), (4.0, pytest.approx(4.9), "you two"), (6.0, 7.0, "at once"),
        (6.0, 7.0, "both"),
    ]  # fmt: skip
    assert [c.id for c in clips][2:] == ["talk_6.00-7.00", "talk_6.00-7.00_2"]
    assert clips[1].words[0].start == pytest.approx(0.2)
    assert clips[0].words is None


def test_pieces_of_at_most_so_many_seconds():
    cues = [timed("a b c d e", 1.0, 3.0, 5.0, 7.0, 9.5)]
    sound = heard((0.9, 3.4), (4.8, 7.5), (9.4, 9.9), duration=12)
    clips, _ = segment(CLIP, Transcript(cues), Rule("seconds", 5.0), sound, 12.0)
    assert [c.text for c in clips] == ["a b", "c d", "e"]
    assert clips[0].start == 0.0 and clips[-1].end == 12.0
    assert all(a.end == b.start for a, b in zip(clips, clips[1:], strict=False))
    assert all(c.end - c.start <= 5.0 for c in clips)
    assert [w.text for c in clips for w in c.words] == list("abcde")
    assert clips[1].words[0].start == pytest.approx(5.0 - clips[1].start)
    # Captions without words' times: the text is divided by characters.
    clips, _ = segment(CLIP, Transcript([Cue("aa bb cc", 0.0, 12.0)]), Rule("seconds", 5.0),
                       sound, 12.0)  # fmt: skip
    assert " ".join(c.text for c in clips).split() == ["aa", "bb", "cc"]
    assert all(c.words is None for c in clips)


def test_pieces_without_transcript_or_sound_cover_all():
    nothing = Activity([], np.zeros(0, np.float32))
    clips, notes = segment(CLIP, None, Rule("seconds", 4.0), nothing, 10.0)
    assert [(c.start, c.end) for c in clips] == [(0, 3.333), (3.333, 6.667), (6.667, 10)]
    assert notes == [] and {c.text for c in clips} == {""}


def test_a_clip_short_enough_keeps_its_text_even_untimed():
    clip = Clip("short", text="Hello you", words=[Word("Hello", 0, 1, 1), Word("you", 1, 2, 1)])
    [piece], _ = segment(clip, Transcript([Cue("Hello you")]), Rule("seconds", 5.0), None, 4.0)
    assert (piece.id, piece.text, piece.words) == ("short_0.00-4.00", "Hello you", clip.words)


def test_without_transcript_the_voice_parts():
    sound = heard((1, 2), (2.3, 3), (3.6, 4), duration=5)
    for how in (SENTENCES, CUES):
        clips, notes = segment(Clip("a", start=10.0), None, how, sound, 15.0)
        assert [(c.start, c.end) for c in clips] == [(10.8, 13.2), (13.4, 14.2)]
        assert notes == ["there is no transcript: cut by the voice"]
        assert all(c.text == "" and c.words is None for c in clips)
    with pytest.raises(DataError, match="Nobody speaks"):
        segment(CLIP, None, SENTENCES, heard(duration=5), 5.0)


@pytest.mark.parametrize("how", [SENTENCES, CUES, Rule("seconds", 2.0)])
def test_an_untimed_transcript_cannot_be_divided(how):
    with pytest.raises(DataError, match="no times, so it cannot be divided") as caught:
        segment(CLIP, Transcript([Cue("What is said. All of it.")]), how,
                heard((1, 2), duration=5), 5.0)  # fmt: skip
    assert "--transcript none" in caught.value.fix


def test_when_the_sound_is_needed():
    words, cue = Transcript([timed("a b", 1, 2)]), Transcript([Cue("a b", 1.0, 2.0)])
    far = Transcript([timed("a b", 21, 22)])
    assert not needs_sound(SENTENCES, words, 0, 10)
    assert needs_sound(SENTENCES, cue, 0, 10)
    assert not needs_sound(CUES, cue, 0, 10)
    for how in (SENTENCES, CUES):
        assert needs_sound(how, None, 0, 10)
        assert needs_sound(how, far, 0, 10)  # nothing of it lies within
    assert needs_sound(Rule("seconds", 5.0), words, 0, 10)
    assert not needs_sound(Rule("seconds", 5.0), None, 2, 7)


def test_what_segment_takes():
    assert rule("") is None
    assert (rule("sentences"), rule("cues"), rule("7.5")) == (SENTENCES, CUES, Rule("seconds", 7.5))
    assert [str(rule(how)) for how in ("cues", "10", "2.5")] == ["cues", "10", "2.5"]
    for wrong in ("words", "0", "-3", "nan", "inf", "1e", "0.2"):
        with pytest.raises(UsageError, match="sentences, cues or a number"):
            rule(wrong)


def test_ids_can_be_told_from_those_of_other_recordings():
    import re

    clips, _ = segment(CLIP, Transcript([Cue("a", 0.0, 1.0), Cue("b", 0.0, 1.0)]), CUES, None, 9.0)
    assert all(re.fullmatch("talk" + SUFFIX, clip.id) for clip in clips)
    assert not re.fullmatch("talk" + SUFFIX, "talk_2_0.00-1.00")
