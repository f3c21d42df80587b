"""Words whose times nobody finds: evenly spaced where there is voice."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from mertool.errors import MertoolWarning
from mertool.transcripts import voice
from mertool.transcripts.times import filled
from mertool.types import Word


def evenly(texts: Sequence[str], sound: np.ndarray, duration: float, reason: str) -> list[Word]:
    """Space all words of a clip evenly, from the first voice to the last.

    Args:
        texts: The W words.
        sound: (S,) float32 at 16 kHz.
        duration: Length of the clip, seconds; where nobody speaks, the words fill it.
        reason: Why they could not be aligned.

    Returns:
        W words, score -1.

    Warns:
        MertoolWarning: Always, with the reason.
    """
    span = voice.span(sound)
    start, end = (min(edge, duration) for edge in span or (0.0, duration))
    where = "where there is voice" if span else "over the clip"
    warnings.warn(f"{reason}; all words are evenly spaced {where}", MertoolWarning, stacklevel=3)
    return filled([None] * len(texts), texts, start, end)
