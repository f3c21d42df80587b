"""Voice activity, on sounds made here and on GRID's reference times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from spoken import RATE, scene

from mertool.transcripts.voice import Activity, activity, cut, span, utterances, voiced, widened

pytest.importorskip("pocketsphinx")


def heard(*stretches: tuple[float, float], duration: float) -> Activity:
    levels = np.full(round(duration * 100), -60, np.float32)
    for a, b in stretches:
        levels[round(a * 100) : round(b * 100)] = -20
    return Activity(list(stretches), levels)


def test_stretches_are_where_the_voice_is():
    sound = scene(1, 1.5, 1, 0.8, 0.7)
    found = voiced(sound)
    assert len(found) == 2
    assert np.allclose(found, [(1.0, 2.5), (3.5, 4.3)], atol=0.12)
    assert span(sound) == (found[0][0], found[1][1])


def test_a_short_gap_parts_nothing_and_a_click_is_no_voice():
    assert len(voiced(scene(1, 0.7, 0.1, 0.7, 1))) == 1
    found = voiced(scene(1, 0.04, 1, 1, 1))
    assert len(found) == 1
    assert found[0][0] > 1.5


@pytest.mark.parametrize("gain", [1.0, 0.1, 0.01])
def test_the_level_of_the_recording_does_not_matter(gain):
    sound = scene(1, 1.5, 1)
    assert np.allclose(voiced(sound * np.float32(gain)), voiced(sound), atol=0.021)


@pytest.mark.parametrize("length", [0, 1, 159, 160, 500])
def test_no_sound_and_brief_sound_give_nothing(length):
    assert voiced(np.full(length, 0.1, np.float32)) == []
    assert span(np.zeros(length, np.float32)) is None


def test_silence_and_a_faint_hiss_give_nothing():
    assert voiced(np.zeros(5 * RATE, np.float32)) == []
    hiss = np.random.default_rng(1).standard_normal(5 * RATE).astype(np.float32)
    assert voiced(1e-5 * hiss) == []


def test_stretches_are_in_order_and_within_the_sound():
    sound = scene(0, 1, 0.5, 0.5, 0.3, 1.007)
    found = voiced(sound)
    edges = np.array(found).ravel()
    assert len(found) >= 2
    assert (np.diff(edges) > 0).all()
    assert 0 <= edges[0] and edges[-1] <= len(sound) / RATE


def test_twice_the_same_and_blocks_do_not_matter():
    sound = scene(0.5, 1, 0.6, 1, 0.5)
    whole = activity(lambda: [sound])
    blocks = np.split(sound, np.cumsum([7, 160, 333, 5000, 12345]))
    pieces = activity(lambda: iter(blocks))
    assert whole.stretches == pieces.stretches == voiced(sound)
    assert np.allclose(whole.levels, pieces.levels, atol=1e-4)
    assert whole.duration == len(sound) // 160 / 100


def test_levels_are_decibels_of_ten_milliseconds():
    sound = np.concatenate([np.full(1600, 0.1, np.float32), np.zeros(800, np.float32)])
    levels = activity(lambda: [sound]).levels
    assert levels.dtype == np.float32
    assert np.allclose(levels[:10], -20, atol=1e-3)
    assert (levels[10:] < -100).all()
    assert Activity([], levels).duration == 0.15


def test_grid_speech_is_found_where_the_references_have_it(shared: Path):
    from mertool import media

    starts, ends = [], []
    for file in sorted((shared / "data" / "grid").glob("*.align")):
        lines = [line.split() for line in file.read_text().splitlines()]
        words = [(int(a) / 25000, int(b) / 25000) for a, b, t in lines if t not in ("sil", "sp")]
        start, end = span(media.audio(file.with_suffix(".mpg")))
        starts.append(abs(start - words[0][0]))
        ends.append(abs(end - words[-1][1]))
    assert len(starts) == 18
    assert np.median(starts) <= 0.02 and max(starts) <= 0.06
    assert np.median(ends) <= 0.06 and max(ends) <= 0.15


def test_pauses_are_what_is_left():
    sound = heard((1, 2), (3, 4), duration=5)
    assert sound.pauses(0, 5) == [(0, 1), (2, 3), (4, 5)]
    assert sound.pauses(1.5, 3.5) == [(2, 3)]
    assert sound.pauses(0.5, 1.5) == [(0.5, 1)]
    assert sound.pauses(1.2, 1.8) == []


def test_utterances_are_parted_by_long_pauses_and_reach_into_them():
    sound = heard((1, 2), (2.3, 3), (3.6, 4), (4.7, 4.95), duration=5)
    found = utterances(sound, apart=0.5, margin=0.2)
    assert np.allclose(found, [(0.8, 3.2), (3.4, 4.2), (4.5, 5.0)])
    close = utterances(sound, apart=0.5, margin=0.5)
    assert np.allclose(close, [(0.5, 3.3), (3.3, 4.35), (4.35, 5.0)])
    assert utterances(heard(duration=5), apart=0.5) == []


def test_widened_spans_neither_overlap_nor_shrink():
    assert widened([(0.1, 1), (1, 2)], 2.0, 0.5) == [(0.0, 1), (1, 2)]
    assert widened([(0.5, 3)], 2.9, 0.2) == [(0.3, 3)]  # the sound's last frame is not whole


def test_a_cut_falls_into_the_longest_pause_of_the_second_half():
    sound = heard((0, 5.2), (5.4, 7), (7.8, 9), (9.2, 14), duration=14)
    pieces = cut(sound, 0.0, 14.0, 10.0)
    assert pieces == [(0.0, 7.4), (7.4, 14.0)]


def test_a_cut_takes_a_pause_of_the_first_half_before_it_cuts_a_word():
    sound = heard((0, 4), (4.4, 14), duration=14)
    assert cut(sound, 0.0, 14.0, 10.0)[0] == (0.0, 4.2)


def test_where_nobody_pauses_the_cut_is_at_the_quietest_place():
    sound = heard((0, 14), duration=14)
    sound.levels[630:650] = -30
    a, b = cut(sound, 0.0, 14.0, 10.0)
    assert 6.3 <= a[1] <= 6.5
    assert b == (a[1], 14.0)


@pytest.mark.parametrize("most", [0.5, 1.0, 2.37, 3.0])
def test_pieces_are_short_enough_and_without_gap(most):
    rng = np.random.default_rng(3)
    edges = np.sort(rng.uniform(0, 30, 24)).round(2).reshape(-1, 2)
    sound = heard(*map(tuple, edges.tolist()), duration=30)
    pieces = cut(sound, 0.4, 29.3, most)
    flat = np.array(pieces)
    assert flat[0, 0] == 0.4 and flat[-1, 1] == 29.3
    assert (flat[1:, 0] == flat[:-1, 1]).all()
    assert (np.diff(flat, axis=1) <= most + 1e-9).all()
    assert (np.diff(flat, axis=1)[:-1] >= most / 4 - 1e-9).all()


def test_without_sound_pieces_are_of_one_length():
    nothing = Activity([], np.zeros(0, np.float32))
    assert np.allclose(cut(nothing, 1.0, 11.0, 4.0), [(1, 13 / 3), (13 / 3, 23 / 3), (23 / 3, 11)])
