"""Pronunciations from espeak-ng, and what stands in where it is not there."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from spoken import dictionary, edits

from mertool.align import pronounce
from mertool.align.spelling import pronounce as by_rules

needs_espeak = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not installed"
)


@pytest.fixture(autouse=True)
def fresh():
    pronounce.espeak.cache_clear()
    yield
    pronounce.espeak.cache_clear()


@pytest.mark.parametrize(
    ("ipa", "phones"),
    [
        ("zˈoːɹbɪŋ", "Z AO R B IH NG"),
        ("dʒˈʌdʒ", "JH AH JH"),
        ("mˈɛʒɚ", "M EH ZH ER"),
        ("bˈʌɾɚ", "B AH T ER"),
        ("fˈaɪɚ", "F AY ER"),
        ("ˈaʊɚ", "AW ER"),
        ("fˈɜːɹi", "F ER IY"),
        ("tʃˈaɪld\n", "CH AY L D"),
        ("(fr)ʁ ʃˈɑ̃(en)", "SH AA"),
        ("", ""),
        ("123", ""),
    ],
)
def test_ipa_becomes_arpabet(ipa, phones):
    assert pronounce.arpabet(ipa) == phones


@needs_espeak
def test_espeak_against_the_dictionary():
    known = dictionary()
    sample = np.random.default_rng(0).choice(sorted(known), 60, replace=False).tolist()
    phones = {p for said in known.values() for p in said}
    wrong = {"espeak": 0, "rules": 0}
    for word in sample:
        guesses = {"espeak": pronounce.espeak(word), "rules": by_rules(word)}
        for by, guess in guesses.items():
            assert guess and set(guess.split()) <= phones
            wrong[by] += edits(guess.split(), known[word])
    total = sum(len(known[word]) for word in sample)
    assert wrong["espeak"] / total < 0.15 and wrong["espeak"] < wrong["rules"]


@needs_espeak
def test_any_letters_get_phones_or_none():
    phones = {p for known in dictionary().values() for p in known}
    guess = pronounce.guesser("espeak")
    for word in ("q", "xzqw", "d'", "'n'", "ll's", "-h", "zzz"):
        said = guess(word, lambda _: None).split()
        assert said and set(said) <= phones, word


def test_the_word_goes_in_by_standard_input_alone(monkeypatch):
    calls = []

    def run(command, **more):
        calls.append((command, more))
        return subprocess.CompletedProcess(command, 0, "blˈɑːɹɡ\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    word = "--pho $(touch x)"
    assert pronounce.espeak(word) == pronounce.espeak(word) == "B L AA R G"
    [(command, more)] = calls  # asked once
    assert word not in " ".join(command) and more["input"] == word + "\n"
    assert command[0] == "espeak-ng" and not more.get("shell") and more["timeout"]


@pytest.mark.parametrize(
    "problem",
    [
        FileNotFoundError("espeak-ng"),
        subprocess.TimeoutExpired("espeak-ng", 10),
        subprocess.CalledProcessError(1, "espeak-ng"),
    ],
    ids=["missing", "hangs", "fails"],
)
def test_rules_stand_in(monkeypatch, problem):
    def run(*_, **__):
        raise problem

    monkeypatch.setattr(subprocess, "run", run)
    guess = pronounce.guesser("espeak")
    assert guess("blarg", lambda _: None) == by_rules("blarg") == "B L AA R G"


def test_rules_ask_nobody(monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    assert pronounce.guesser("rules")("zate", lambda _: None) == "Z EY T"
