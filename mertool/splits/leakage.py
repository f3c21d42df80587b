"""What a split lets through from train to test, and texts that say nothing of the label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mertool.store import FeatureFile
from mertool.types import Label

SHOWN = 5  # examples named in a sentence


class Leak(NamedTuple):
    """One kind of leak.

    Attributes:
        kind: "speaker leak", "recording leak" or "clip leak".
        one: What is wrong, of one.
        many: The same of several.
        names: The speakers, recordings or clips concerned, sorted.
    """

    kind: str
    one: str
    many: str
    names: list[str]

    def sentence(self) -> str:
        """For the user: at most a few names."""
        count = len(self.names)
        return f"{self.kind}: {count} {self.many if count > 1 else self.one}: {shorten(self.names)}"


def shorten(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def leaks(file: FeatureFile, assigned: Sequence[str]) -> list[str]:
    """What two splits of a file have in common and must not; no feature row is read.

    Args:
        file: An open feature file.
        assigned: (N,) split names; clips in none ("") are left out.

    Returns:
        Sentences for the user: on speakers, on recordings, and on stretches of one medium that are
        in more than one split.
    """
    return [leak.sentence() for leak in find(file, assigned)]


def find(file: FeatureFile, assigned: Sequence[str]) -> list[Leak]:
    """The leaks of a split, each kind at most once; see `leaks`."""
    paths = file.column("path")
    # A path is relative to its source: two sources may each have a 01.mp4.
    sources = file.column("source")
    media = [(s, p) if p else None for s, p in zip(sources, paths, strict=True)]
    torn, overlap = "in more than one split", "of their medium with a clip of another split"
    found = [
        Leak("speaker leak", f"speaker is {torn}", f"speakers are {torn}",
             _torn(file.column("speaker"), assigned)),
        Leak("recording leak", f"recording is {torn}", f"recordings are {torn}",
             [path for _, path in _torn(media, assigned)]),
        Leak("clip leak", f"clip shares a stretch {overlap}", f"clips share a stretch {overlap}",
             _overlaps(file, media, assigned)),
    ]  # fmt: skip
    return [leak for leak in found if leak.names]


def _torn(units: Iterable, assigned: Sequence[str]) -> list:
    """The known units that are in more than one split, sorted."""
    places: dict = defaultdict(set)
    for unit, split in zip(units, assigned, strict=True):
        if unit and split:
            places[unit].add(split)
    return sorted(unit for unit, splits in places.items() if len(splits) > 1)


def _overlaps(file: FeatureFile, media: Sequence, assigned: Sequence[str]) -> list[str]:
    """Clips that overlap an earlier one of another split, sorted, each as "ID (with EARLIER)"."""
    starts, ends = file.spans().T
    ends = np.where(np.isnan(ends), np.inf, ends)  # to the end of the medium
    groups: dict = defaultdict(list)
    for i, (hashed, medium) in enumerate(zip(file.column("sha256"), media, strict=True)):
        if assigned[i] and (hashed or medium):
            groups[hashed or medium].append(i)
    found = []
    for members in groups.values():
        # Per split the clip that reaches furthest of those before.
        furthest: dict[str, tuple[float, str]] = {}
        for i in sorted(members, key=lambda i: (starts[i], ends[i], file.ids[i])):
            split, name = assigned[i], file.ids[i]
            for other, (end, earlier) in furthest.items():
                if other != split and end > starts[i]:
                    found.append(f"{name} (with {earlier})")
                    break
            furthest[split] = max(furthest.get(split, (-np.inf, "")), (ends[i], name))
    return sorted(found)


def same_text(label: Label, values: np.ndarray, texts: Sequence[str]) -> str:
    """Whether the same sentences are said for every label, so that text can say nothing of it.

    Case and spacing do not count, nor do clips without a transcript.

    Args:
        label: The label.
        values: (N,) or (N, K) its values, of labelled clips only.
        texts: (N,) their transcripts.

    Returns:
        A sentence; "" where sentences differ between the classes (regression: between the clips
        below and above the median), or where fewer than two classes occur.
    """
    values = np.asarray(values)
    said = [" ".join(text.casefold().split()) for text in texts]
    if label.task == "regression":
        middle = np.median(values) if len(values) else 0.0
        groups = [values < middle, values > middle]
    elif label.task == "classification":
        groups = [values == k for k in range(len(label.classes))]
    elif len(label.classes) == 1:
        groups = [values[:, 0] == 0, values[:, 0] == 1]
    else:
        groups = [values[:, k] == 1 for k in range(len(label.classes))]
    spoken = [{said[i] for i in np.flatnonzero(g)} - {""} for g in groups if np.any(g)]
    if len(spoken) < 2 or not spoken[0] or any(s != spoken[0] for s in spoken):
        return ""
    count = len(spoken[0])
    sentences = "same sentence is" if count == 1 else f"same {count} sentences are"
    return f'the {sentences} said for every "{label.name}": text says nothing of the label'
