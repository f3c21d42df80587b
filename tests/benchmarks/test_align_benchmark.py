"""benchmarks/align.py, parts grid and robust: what they count, and what misses a target."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
from scripts import clips, run

from mertool import media
from mertool.manifest import read
from mertool.types import Clip


def figure(median: float, p90: float, worst: float) -> dict[str, float]:
    return {"median": median, "p90": p90, "worst": worst, "within_50": 0.9, "bias": 1.0}


def grid() -> dict[str, Any]:
    one = {"start": figure(20, 40, 200), "end": figure(20, 40, 200), "failed": 0, "cpu": 0.02}
    return {"clips": 2, "mertool": one, "plain": copy.deepcopy(one), "cost": 3.0}


def test_grid_check(script):
    words = script("align_words")
    good = grid()
    assert words.misses(good) == []
    assert words.key(good) == "word start 20/40/200 ms, end 20/40/200 ms, 3.00 of plain's cost"
    assert "mertool, end        20   40    200       90%    +1   0.0200" in words.lines(good)[0]
    for change, miss in (
        (("start", "median", 21.0), "grid: start median 21 ms, at most 20"),
        (("end", "p90", 41.0), "grid: end p90 41 ms, at most 40"),
        (("end", "worst", math.nan), "grid: end worst nan ms, at most 200"),
    ):
        bad = grid()
        bad["mertool"][change[0]][change[1]] = change[2]
        assert words.misses(bad) == [miss]
    assert words.misses({**good, "cost": 3.01}) == [
        "grid: 3.01 times plain pocketsphinx's cost, at most 3.0"
    ]
    good["mertool"]["failed"] = 1
    assert words.misses(good) == ["grid: 1 clips without a path"]


def test_errors_by_hand(script):
    words = script("align_words")
    clip = words.Said("x", text="a b c", reference=((0.0, 0.1), None, (0.5, 0.6)))
    found = [(0.01, 0.1, 1.0), (0.2, 0.3, 1.0), (0.4, 0.66, 0.0)]
    assert words.errors(clip, found) == pytest.approx(np.array([[10, 0], [-100, 60]]))
    told = words.both([words.errors(clip, found)])
    assert told["start"] == pytest.approx(
        {"median": 55, "p90": 91, "worst": 100, "within_50": 0.5, "bias": -45}
    )
    assert told["end"]["bias"] == pytest.approx(30)


def test_flags_by_hand(script, monkeypatch):
    robust = script("align_robust")
    words = robust.words
    clip = words.Said(
        "x", text="a b c d", reference=((0.0, 0.1), None, (0.5, 0.6), (0.6, 0.7))
    )  # fmt: skip
    found = [(0.0, 0.1, 0.4), (0.2, 0.3, -1.0), (0.5, 0.6, 0.9), (0.6, 0.81, 0.9)]
    told = robust.flags([clip], [found])
    assert told == {
        "words": 4, "bad": 2, "flagged": 2, "both": 1, "precision": 0.5, "recall": 0.5
    }  # fmt: skip


def test_spoilt_transcripts(script):
    robust = script("align_robust")
    sound = np.random.default_rng(0).normal(size=16000).astype(np.float32)
    marks = ((0.2, 0.4), (0.4, 0.6), (0.6, 0.8))
    said = [
        robust.Said("x", text="bin blue now", sound=sound, reference=marks),
        robust.Said("y", text="set red soon", sound=sound, reference=marks),
    ]
    made = robust.cases(said)
    assert made["as it is"] == said
    for level in robust.NOISE:
        noise = made[f"noise {level} dB"][0].sound - sound
        power = np.mean(sound[3200:12800] ** 2) / np.mean(noise**2)
        assert 10 * np.log10(power) == pytest.approx(level, abs=0.3)
    for clip, before in zip(made["a wrong word"], said, strict=True):
        pairs = zip(clip.text.split(), before.text.split(), clip.reference, marks, strict=True)
        changed = [(new != old, true is None) for new, old, true, _ in pairs]
        assert sorted(changed) == [(False, False), (False, False), (True, True)]
    for clip, before in zip(made["a missing word"], said, strict=True):
        kept = dict(zip(before.text.split(), marks, strict=True))
        assert len(clip.text.split()) == 2
        assert [kept[word] for word in clip.text.split()] == list(clip.reference)
    first, second = made["a sentence more"]
    assert first.text == "set red soon bin blue now" and first.reference == (None,) * 3 + marks
    assert second.text == "set red soon bin blue now" and second.reference == marks + (None,) * 3


def test_runs(tmp_path):
    data = clips(tmp_path / "data", 2)
    for clip in read([data]).clips:  # even spacing as a reference: the figures mean nothing
        texts = clip.text.split()
        edges = np.linspace(0, len(media.audio(clip.media)) / 16000, len(texts) + 1)
        lines = [
            f"{round(a * 25000)} {round(b * 25000)} {''.join(filter(str.isalpha, w)).lower()}"
            for a, b, w in zip(edges, edges[1:], texts, strict=False)
        ]
        clip.media.with_suffix(".align").write_text("\n".join(lines))
    done = run(
        "align", "--data", data, "--parts", "grid,robust", "--clips", 2, "--repeats", 1, "--json"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    for who in ("mertool", "plain"):
        assert result["grid"][who]["cpu"] > 0 and result["grid"]["clips"] == 2
    assert len(result["robust"]) == 7
    assert result["robust"]["a wrong word"]["mertool"]["bad"] >= 2
    assert "of plain's cost" in result["key_figure"]


def test_wrong_options(tmp_path):
    data = clips(tmp_path / "data", 1)
    for option, value, told in (
        ("--parts", "grid,beauty", "known are grid"),
        ("--repeats", 0, "at least 1"),
        ("--parts", "grid", "has a .align"),
    ):
        done = run("align", "--data", data, option, value)
        assert done.returncode == 2 and told in done.stderr and not done.stdout


def test_speech_by_hand(script, monkeypatch):
    speech = script("align_speech")
    assert speech.edits("kitten", "sitting") == 3 and speech.edits("", "ab") == 2
    said = speech.words.Said(
        "x", text="a b", sound=np.zeros(1600, np.float32), reference=((0.0, 0.03), (0.05, 0.06))
    )
    monkeypatch.setattr(speech.voice, "voiced", lambda sound: [(0.0, 0.05)])
    assert speech.detected([said])["clean"] == pytest.approx(0.7)  # 30, 40 and 50 ms are wrong

    def align(clip):  # words that are not said get a low score but for one
        return [(0.0, 0.0, 0.9 if w in "a b d" else 0.1) for w in clip.text.split()]

    monkeypatch.setattr(speech.words, "ours", lambda: align)
    found = speech.scored([Clip("1", text="a b"), Clip("2", text="a c d")])
    assert found == {"clips": 2, "said": 0.2, "another": pytest.approx(1 / 3)}


def test_speech(script, shared):
    speech = script("align_speech")
    found = speech.measure(shared / "data" / "grid", shared / "data" / "ravdess_speech", 1)
    assert found["voice"].keys() == {"clean", "20 dB", "10 dB", "5 dB"}
    assert 0 < found["pronunciations"]["rules"] < 0.5
    assert found["recognised"]["ravdess_speech"]["clips"] == 1
    assert "word errors" in speech.lines(found)[-1]
