"""What stands around the aligner: voice detection, scores, pronunciations, offline recognition."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import align_robust as robust
import align_words as words
import common
import numpy as np

from mertool import manifest
from mertool.align.pronounce import espeak, has_espeak
from mertool.align.spelling import pronounce
from mertool.cli.common import table
from mertool.transcripts import voice
from mertool.transcripts.asr import Config
from mertool.transcripts.recognise import recognise
from mertool.types import Clip

STEP = 0.01  # seconds by which voice is judged
SCORED, HEARD = 10, 20  # of the spoken sentences every so manieth is scored, recognised
WORDS = 2000  # of the dictionary


def measure(grid: Path, sentences: Path, number: int = 0) -> dict[str, Any]:
    """Measure all four.

    Args:
        grid: Clips with .align files beside them.
        sentences: Spoken sentences with a manifest, some of them alike.
        number: The first so many of each; 0 = all that are wanted.
    """
    said = words.clips(grid, number)
    every = [c for c in manifest.read([sentences]).clips if c.text]
    if not every:
        raise common.BenchmarkError(f"No clip of {sentences} has a text.")
    return {
        "voice": detected(said),
        "scores": scored(every[::SCORED][: number or None]),
        "pronunciations": pronounced(20 * number or WORDS),
        "recognised": {
            sentences.name: heard(every[::HEARD][: number or None]),
            grid.name: heard([c for c in manifest.read([grid]).clips if c.text][: number or None]),
        },
    }


def detected(said: Sequence[words.Said]) -> dict[str, float]:
    """Share of steps of 10 ms judged as the references have them, clean and with white noise."""
    rng = np.random.default_rng(robust.SEED)
    cases = {"clean": list(said)}
    for level in robust.NOISE:
        cases[f"{level} dB"] = [robust.noisy(clip, level, rng) for clip in said]
    return {
        name: float(np.mean(np.concatenate([_judged(clip) for clip in clips])))
        for name, clips in cases.items()
    }


def _judged(clip: words.Said) -> np.ndarray:
    steps = (np.arange(int(len(clip.sound) / words.RATE / STEP)) + 0.5) * STEP
    true, found = (
        np.any([(a <= steps) & (steps < b) for a, b in spans] or [steps < 0], axis=0)
        for spans in (clip.reference, voice.voiced(clip.sound))
    )
    return true == found


def scored(clips: Sequence[Clip]) -> dict[str, float]:
    """Shares of words below the flag's score.

    Of the words that are said, and of those of another sentence in their place that are not.
    """
    align, texts = words.ours(), sorted({clip.text for clip in clips})
    low: dict[str, list[bool]] = {"said": [], "another": []}
    for clip in clips:
        low["said"] += [score < robust.FLAG for *_, score in align(clip)]
        for text in [text for text in texts if text != clip.text][:1]:
            found = zip(text.split(), align(replace(clip, text=text)), strict=True)
            not_said = [made for word, made in found if word not in clip.text.split()]
            low["another"] += [score < robust.FLAG for *_, score in not_said]
    return {
        "clips": len(clips),
        **{name: float(np.mean(flags)) for name, flags in low.items() if flags},
    }


def pronounced(count: int) -> dict[str, float]:
    """Share of wrong phones on words of the dictionary, by edit distance; stresses are not told."""
    import pocketsphinx

    path = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"))
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.split(maxsplit=1) for line in lines)
    known = {word: said.split() for word, said in pairs if re.fullmatch("[a-z]{3,}", word)}
    sample = np.random.default_rng(robust.SEED).choice(sorted(known), count, replace=False).tolist()
    by = {"rules": pronounce, **({"espeak": espeak} if has_espeak() else {})}
    total = sum(len(known[word]) for word in sample)
    return {
        "words": count,
        **{
            name: sum(edits(known[word], guess(word).split()) for word in sample) / total
            for name, guess in by.items()
        },
    }


def heard(clips: Sequence[Clip]) -> dict[str, float]:
    """Word error rate of the offline recogniser, and CPU seconds per second of sound."""
    config, wrong, total, length = Config(engine="pocketsphinx"), 0, 0, 0.0
    recognise(clips[0], config)  # builds it
    started = time.process_time()
    for clip in clips:
        found = [_plain(w) for w in recognise(clip, config).text.split()]
        true = [_plain(w) for w in clip.text.split()]
        wrong, total = wrong + edits(true, found), total + len(true)
    spent = time.process_time() - started
    length = sum(len(clip.audio(words.RATE)) for clip in clips) / words.RATE
    return {"clips": len(clips), "error": wrong / total, "cpu": spent / length}


def _plain(word: str) -> str:
    return re.sub(r"[^a-z']", "", word.casefold())


def edits(a: Sequence[str], b: Sequence[str]) -> int:
    """Insertions, deletions and substitutions from one to the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(row[-1] + 1, last[j] + 1, last[j - 1] + (x != y)))
    return row[-1]


def misses(result: dict[str, Any]) -> list[str]:
    """Nothing is demanded."""
    return []


def lines(result: dict[str, Any]) -> list[str]:
    scores, said = result["scores"], result["pronunciations"]
    rows = [
        [name, str(made["clips"]), f"{made['error']:.0%}", f"{made['cpu']:.2f}"]
        for name, made in result["recognised"].items()
    ]
    return [
        "steps of 10 ms in which voice is judged as the references have it: "
        + ", ".join(f"{name} {share:.1%}" for name, share in result["voice"].items()),
        f"words that score below {robust.FLAG}, of {scores['clips']} sentences: "
        f"{scores['said']:.0%} of those that are said"
        + (f", {scores['another']:.0%} of another sentence's" if "another" in scores else ""),
        f"wrong phones, of {said['words']} words of the dictionary: "
        + ", ".join(f"{name} {said[name]:.0%}" for name in ("espeak", "rules") if name in said),
        table(["pocketsphinx hears", "clips", "word errors", "CPU s/s"], rows),
    ]


def key(result: dict[str, Any]) -> str:
    return f"voice right in {result['voice']['clean']:.1%} of the steps"
