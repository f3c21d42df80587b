"""The speakers' faces at rest, taken off when all clips of a run are there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import numpy as np

from mertool.store import Stream
from mertool.types import Rows

# Attribute of a stream: JSON list of the columns that it concerns.
BY_SPEAKER = "neutral_by_speaker"


class Neutral:
    """Medians of each speaker, by stream.

    A speaker's median is that of the medians of his clips, so that a long clip does not outweigh
    the others. Only rows with `valid` above 0 count. They are changed, and so are rows interpolated
    between them; rows of zeros stay zeros.

    Args:
        streams: The streams of the output; those with the attribute `BY_SPEAKER` are concerned.
        clips: (speaker, {stream: rows}) of every clip; read once, and not at all if no stream is
            concerned.
    """

    def __init__(
        self, streams: Mapping[str, Stream], clips: Iterable[tuple[str, Mapping[str, Rows]]]
    ) -> None:
        self._columns: dict[str, tuple[list[int], int]] = {}
        for name, stream in streams.items():
            wanted = json.loads(str(stream.attrs.get(BY_SPEAKER, "[]")))
            if wanted:
                places = [stream.columns.index(column) for column in wanted]
                self._columns[name] = places, stream.columns.index("valid")
        medians: dict[tuple[str, str], list[np.ndarray]] = {}
        for speaker, rows in clips if self._columns else ():
            for name, (columns, valid) in self._columns.items():
                values = rows[name].values
                seen = values[values[:, valid] > 0]
                if len(seen):
                    clip = np.median(seen[:, columns], axis=0)
                    medians.setdefault((name, speaker), []).append(clip)
        self._rest = {key: np.median(found, axis=0) for key, found in medians.items()}

    def take_off(self, speaker: str, rows: Mapping[str, Rows]) -> None:
        """Take the speaker's medians off a clip's rows, in place."""
        for name, (columns, valid) in self._columns.items():
            if (name, speaker) in self._rest:
                values = rows[name].values
                filled = (values[:, valid] > 0) | values[:, columns].any(axis=1)
                values[np.ix_(np.flatnonzero(filled), columns)] -= self._rest[name, speaker]
