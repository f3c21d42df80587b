"""Word times where there is noise, or where the transcript is not what is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import align_words as words
import numpy as np
from align_words import OURS, PLAIN, Said

from mertool.cli.common import table

NOISE = (20, 10, 5)  # dB
FLAG = 0.5  # a word with a lower score is flagged
FAR = 100.0  # ms; a word that is placed worse is bad
SEED = 0


def measure(folder: Path, number: int = 0) -> dict[str, Any]:
    """Align clips with noise and with spoilt transcripts.

    A word is bad if it is not said at its place, or if its start or end is more than `FAR` off.

    Returns:
        {case: {"mertool": errors of the words that are said, bad, flagged, both, precision,
        recall; "plain": the same errors, and clips without a path}}.
    """
    said = words.clips(folder, number)
    ours, plain = words.ours(), words.plain()
    result = {}
    for name, spoilt in cases(said).items():
        found = [ours(clip) for clip in spoilt]
        result[name] = {OURS: {**score(spoilt, found), **flags(spoilt, found)}}
        others = {i: times for i, clip in enumerate(spoilt) if (times := plain(clip))}
        result[name][PLAIN] = {"failed": len(spoilt) - len(others)}
        if others:
            result[name][PLAIN] |= score([spoilt[i] for i in others], list(others.values()))
    return result


def cases(said: Sequence[Said]) -> dict[str, list[Said]]:
    """The clips as they are, and spoilt in every way."""
    rng = np.random.default_rng(SEED)
    vocabulary = sorted({word for clip in said for word in clip.text.split()})
    return {
        "as it is": list(said),
        **{f"noise {level} dB": [noisy(clip, level, rng) for clip in said] for level in NOISE},
        "a wrong word": [wrong(clip, vocabulary, rng) for clip in said],
        "a missing word": [missing(clip, rng) for clip in said],
        "a sentence more": [extra(clip, i, said, rng) for i, clip in enumerate(said)],
    }


def noisy(clip: Said, level: float, rng: np.random.Generator) -> Said:
    """White noise, `level` dB below the mean power from the first word to the last."""
    start, end = (round(t * words.RATE) for t in (clip.reference[0][0], clip.reference[-1][1]))
    power = np.mean(clip.sound[start:end].astype(np.float64) ** 2) / 10 ** (level / 10)
    noise = rng.normal(scale=np.sqrt(power), size=len(clip.sound))
    return replace(clip, sound=(clip.sound + noise).astype(np.float32))


def wrong(clip: Said, vocabulary: Sequence[str], rng: np.random.Generator) -> Said:
    """One word replaced by another that some clip has."""
    said, reference = clip.text.split(), list(clip.reference)
    place = int(rng.integers(len(said)))
    said[place] = str(rng.choice([word for word in vocabulary if word != said[place]]))
    reference[place] = None
    return replace(clip, text=" ".join(said), reference=tuple(reference))


def missing(clip: Said, rng: np.random.Generator) -> Said:
    """One word left out of the transcript."""
    said, place = clip.text.split(), int(rng.integers(len(clip.reference)))
    return replace(
        clip, text=" ".join(said[:place] + said[place + 1 :]),
        reference=clip.reference[:place] + clip.reference[place + 1 :],
    )  # fmt: skip


def extra(clip: Said, index: int, said: Sequence[Said], rng: np.random.Generator) -> Said:
    """Another clip's sentence in front, or behind in every second clip."""
    others = [other for i, other in enumerate(said) if i != index] or [clip]
    other = others[int(rng.integers(len(others)))]
    none = (None,) * len(other.reference)
    if index % 2:
        text, reference = f"{clip.text} {other.text}", clip.reference + none
    else:
        text, reference = f"{other.text} {clip.text}", none + clip.reference
    return replace(clip, text=text, reference=reference)


def score(spoilt: Sequence[Said], found: Sequence[Any]) -> dict[str, Any]:
    return words.both([words.errors(c, t) for c, t in zip(spoilt, found, strict=True)])


def flags(spoilt: Sequence[Said], found: Sequence[Any]) -> dict[str, Any]:
    """How many words are bad, are flagged, and are both."""
    bad, flagged = [], []
    for clip, times in zip(spoilt, found, strict=True):
        for (start, end, confidence), true in zip(times, clip.reference, strict=True):
            off = max(abs(start - true[0]), abs(end - true[1])) if true else float("inf")
            bad.append(1000 * off > FAR)
            flagged.append(confidence < FLAG)
    hit = int(np.sum(np.logical_and(bad, flagged)))
    return {
        "words": len(bad), "bad": sum(bad), "flagged": sum(flagged), "both": hit,
        "precision": hit / sum(flagged) if any(flagged) else None,
        "recall": hit / sum(bad) if any(bad) else None,
    }  # fmt: skip


def misses(result: dict[str, Any]) -> list[str]:
    """Nothing is demanded: what noise and wrong words do is reported."""
    return []


def lines(result: dict[str, Any]) -> list[str]:
    rows = []
    for name, made in result.items():
        mine, other = made[OURS], made[PLAIN]
        brief = [_brief(who.get(edge)) for who in (mine, other) for edge in ("start", "end")]
        rates = ["" if mine[x] is None else f"{mine[x]:.2f}" for x in ("precision", "recall")]
        rows.append(
            [name, *brief, str(other["failed"]), str(mine["words"]), str(mine["bad"]),
             str(mine["flagged"]), *rates]
        )  # fmt: skip
    head = [
        "ms: median/p90/worst", "start", "end", f"{PLAIN} start", f"{PLAIN} end", "no path",
        "words", "bad", "flagged", "precision", "recall",
    ]  # fmt: skip
    return [table(head, rows), f'"no path": clips that {PLAIN} pocketsphinx gave up; its errors '
            "are those of the others."]  # fmt: skip


def _brief(made: dict[str, float] | None) -> str:
    if made is None:
        return "-"
    return "/".join(f"{made[name]:.0f}" for name in ("median", "p90", "worst"))


def key(result: dict[str, Any]) -> str:
    """Flags over all spoilt transcripts, and the extra sentence's errors."""
    spoilt = [result[name][OURS] for name in result if name.startswith("a ")]
    bad, flagged, both = (sum(made[x] for made in spoilt) for x in ("bad", "flagged", "both"))
    more = result["a sentence more"][OURS]["start"]
    return (
        f"of {bad} bad words {both} flagged, {flagged - both} good ones too; "
        f"with a sentence more, start {more['median']:.0f}/{more['p90']:.0f} ms"
    )
