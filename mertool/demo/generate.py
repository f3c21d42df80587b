"""Make the packaged demo clips: a photograph that talks, smiles and frowns.

    python -m mertool.demo.generate OUT_DIR

writes 24 clips and their manifest.csv. Every clip has a sentiment score in [-3, 3], and each of
its three modalities shows that score through noise of its own: the words say it, pitch and
loudness of the voice carry it, the mouth and the brows show it. What the clips are good for is to
try the toolkit; results on them say nothing about real people.

Provenance, so that the clips can be shipped under this project's MIT licence:
- picture: Eileen Collins, photographed by NASA, public domain; the copy that comes with
  scikit-image (`skimage.data.astronaut`);
- voices: synthesised by espeak-ng, whose licence (GPL) does not extend to its output;
- sentences, scores and this script: the mertool developers, MIT.
"""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mertool.errors import MertoolError

SEED = 2026
ESPEAK_VERSION = "1.51"  # the version that spoke the packaged clips; others may differ in length
FPS = 25
SIZE = 224  # pixels, width and height
RATE = 22050  # Hz, espeak-ng's own, and a multiple of FPS: every frame is 882 samples
FIDELITY = 0.92  # correlation of what a modality shows with the label, before rendering

# From most negative to most positive. One topic, so that what differs is the sentiment.
SENTENCES = (
    "This terrible movie was a horrible waste of time",
    "I hate this awful and disgusting film",
    "The worst acting that I have ever seen",
    "It was an awful and painful disaster",
    "I really hated that terrible story",
    "The plot was bad and the acting worse",
    "It was a boring and ugly film",
    "I was sad and disappointed with it",
    "The story was weak and rather dull",
    "I did not like the slow ending",
    "Some of the scenes were a bit dull",
    "The movie was okay but too long",
    "It is a movie about two brothers",
    "The film was fine and fairly short",
    "Some of the scenes were quite nice",
    "I liked the music and the ending",
    "The story was good and quite funny",
    "It was a good and pleasant film",
    "I was happy and really enjoyed it",
    "The acting was great and so was the music",
    "I really loved that wonderful story",
    "It was an amazing and beautiful movie",
    "I love this brilliant and perfect film",
    "This wonderful movie was the best of all time",
)


@dataclass(frozen=True)
class Speaker:
    """What sets one speaker apart: a voice, a base pitch, and the colour of the picture."""

    split: str
    clips: int
    voice: str
    pitch: int  # espeak-ng's scale, 0 to 99
    tint: tuple[float, float, float]  # gains of red, green, blue


SPEAKERS = {
    "s1": Speaker("train", 4, "en-us", 46, (1.00, 1.00, 1.00)),
    "s2": Speaker("train", 4, "en-us+f2", 40, (1.04, 0.97, 0.90)),
    "s3": Speaker("train", 3, "en-gb", 50, (0.90, 0.95, 1.02)),
    "s4": Speaker("train", 3, "en-us+m3", 48, (0.86, 0.84, 0.82)),
    "s5": Speaker("valid", 5, "en-us+f4", 42, (1.05, 1.02, 0.96)),
    "s6": Speaker("test", 5, "en-gb+m7", 46, (0.94, 1.00, 0.94)),
}


@dataclass(frozen=True)
class Plan:
    """Everything that decides one clip.

    Attributes:
        id: Clip name.
        text: Sentence.
        speaker: Key of `SPEAKERS`.
        sentiment: The label, in [-3, 3].
        voice: What the voice shows, in [-1, 1].
        face: What the face shows, in [-1, 1].
    """

    id: str
    text: str
    speaker: str
    sentiment: float
    voice: float
    face: float


def plans() -> list[Plan]:
    """Plan all clips; the same ones at every call."""
    rng = np.random.default_rng(SEED)
    n = len(SENTENCES)
    label = np.linspace(-3, 3, n).round(1)

    # What the three modalities show: label plus noise. The QR decomposition makes the three
    # noises orthogonal to the label and to one another, so that in these few clips, too, each
    # modality correlates with the label by FIDELITY and the errors of the three are unrelated.
    basis, _ = np.linalg.qr(np.column_stack([np.ones(n), label, rng.standard_normal((n, 3))]))
    signal = (label - label.mean()) / np.linalg.norm(label - label.mean())
    shown = FIDELITY * signal[:, None] + np.sqrt(1 - FIDELITY**2) * basis[:, 2:]
    words, voice, face = (shown / np.abs(shown).max(axis=0)).T
    sentence = words.argsort().argsort()  # the sentence of the same rank

    # Deal the clips out along the scale, so that every speaker and split covers all of it.
    turns = [((k + 0.5) / s.clips, name) for name, s in SPEAKERS.items() for k in range(s.clips)]
    speaker = [name for _, name in sorted(turns)]
    order = sorted(range(n), key=lambda i: (speaker[i], rng.random()))
    return [
        Plan(
            f"demo{number:02}",
            SENTENCES[sentence[i]],
            speaker[i],
            float(label[i]),
            float(voice[i]),
            float(face[i]),
        )
        for number, i in enumerate(order, 1)
    ]


def speak(plan: Plan) -> np.ndarray:
    """Speak the sentence: high, lively and loud when positive, low, flat and soft when negative.

    Returns:
        (S,) float32 in [-1, 1] at `RATE` Hz, S a multiple of the samples of one frame.
    """
    from scipy.io import wavfile

    speaker = SPEAKERS[plan.speaker]
    text = f'<prosody range="{55 + 45 * plan.voice:.0f}">{plan.text}</prosody>'
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        command = ["espeak-ng", "-m", "-w", str(wav), "-v", speaker.voice, "-s", "175"]
        command += ["-p", f"{speaker.pitch + 28 * plan.voice:.0f}", text]
        subprocess.run(command, check=True, capture_output=True)
        rate, speech = wavfile.read(wav)
    assert rate == RATE, rate
    speech = speech.astype(np.float32)
    # RMS level -24 dB +- 6 dB: energy carries the score whatever the voice's own loudness.
    speech *= 10 ** ((-24 + 6 * plan.voice) / 20) / np.sqrt(np.mean(speech**2))
    lead, frame = RATE // 10, RATE // FPS
    total = -(-(len(speech) + 2 * lead) // frame) * frame
    return np.pad(speech, (lead, total - len(speech) - lead)).clip(-1, 1)


def opening(speech: np.ndarray) -> np.ndarray:
    """How far the mouth is open in every frame, from the speech envelope.

    Returns:
        (T,) in [0, 1].
    """
    from scipy.ndimage import gaussian_filter1d

    envelope = np.sqrt(np.mean(speech.reshape(-1, RATE // FPS) ** 2, axis=1))
    return gaussian_filter1d(np.clip(envelope / np.quantile(envelope, 0.9), 0, 1), 0.7)


# The face in the photograph (512 x 512): where its points are, and how they move in pixels.
# The photograph smiles; `rest` takes the smile back and closes the lips, so that an expression is
#     point + rest + smile * (dx, dy of smile) + open * (dx, dy of open),     smile in [-1, 1].
# Columns: x, y | rest | smile | open.
_POINTS = np.array(
    [
        # mouth corners, outer
        [201.8, 139.5, 2.5, 5.0, -4.0, -6.5, 0.5, 0.5],
        [245.9, 142.2, -2.5, 4.0, 4.0, -6.5, -0.5, 0.5],
        # upper lip: outer edge, inner edge
        [212.0, 138.8, 1.0, 3.0, -1.5, -3.0, 0, -0.3],
        [223.6, 140.0, 0, 1.2, 0, -0.8, 0, -0.5],
        [235.5, 140.5, -1.0, 2.6, 1.5, -3.0, 0, -0.3],
        [213.7, 141.5, 1.0, 2.8, -1.5, -3.0, 0, -0.3],
        [223.5, 143.2, 0, 1.0, 0, -0.8, 0, -0.5],
        [233.6, 142.6, -1.0, 2.2, 1.5, -3.0, 0, -0.3],
        # lower edge of the upper teeth
        [213.4, 145.9, 1.0, -0.4, -1.5, -2.6, 0, 1.2],
        [223.2, 147.8, 0, -2.8, 0, -0.5, 0, 2.0],
        [233.5, 147.0, -1.0, -0.8, 1.5, -2.6, 0, 1.2],
        # lower lip: inner edge, outer edge
        [213.2, 147.4, 1.0, -1.6, -1.5, -2.2, 0, 4.5],
        [223.1, 149.6, 0, -4.0, 0, -0.2, 0, 7.0],
        [233.5, 148.5, -1.0, -2.2, 1.5, -2.2, 0, 4.5],
        [214.0, 152.4, 1.0, -1.0, -1.0, -1.8, 0, 4.5],
        [222.8, 154.9, 0, -3.0, 0, -0.2, 0, 6.5],
        [232.0, 153.8, -1.0, -1.5, 1.0, -1.8, 0, 4.5],
        # chin and jaw
        [221.3, 175.5, 0, -1.5, 0, 0, 0, 5.0],
        [203.0, 170.0, 0, -1.0, 0, 0, 0, 3.0],
        [240.0, 171.0, 0, -1.0, 0, 0, 0, 3.0],
        # cheeks, raised by a smile
        [195.3, 126.0, 0, 1.5, -0.5, -1.5, 0, 0],
        [253.2, 129.2, 0, 1.5, 0.5, -1.5, 0, 0],
        # brows: outer, middle, inner; a negative face draws the inner ends down and together
        [187.6, 91.5, 0, 0, 0, 0.5, 0, 0],
        [198.0, 86.7, 0, 0, 0, -0.8, 0, 0],
        [216.2, 89.4, 0, 0, -1.5, -2.2, 0, 0],
        [236.9, 90.5, 0, 0, 1.5, -2.2, 0, 0],
        [255.0, 89.8, 0, 0, 0, -0.8, 0, 0],
        [264.7, 95.7, 0, 0, 0, 0.5, 0, 0],
    ]
    # what stays: eyes, nose, sides of the face, forehead, neck, and a wide ring around the head
    + [[x, y, 0, 0, 0, 0, 0, 0] for x, y in (
        (194.6, 100.9), (202.8, 97.8), (204.4, 104.2), (213.8, 103.6),
        (237.4, 104.8), (248.9, 100.2), (246.7, 106.2), (256.7, 104.1),
        (224.1, 131.2), (225.9, 101.0), (209.1, 125.1), (239.6, 126.8),
        (179.0, 111.1), (270.9, 116.3), (184.0, 145.0), (262.0, 150.0), (227.5, 72.4),
        (200.0, 78.0), (253.0, 80.0), (222.0, 196.0), (192.0, 190.0), (252.0, 190.0),
        (110, 0), (225, 0), (340, 0), (110, 110), (340, 110), (110, 225), (225, 225), (340, 225),
    )]
)  # fmt: skip
_GAP = ((204, 209, 213.3, 218, 223.1, 228, 233.5, 238, 243), (141.0, 144.6, 146.7, 148.1, 148.8, 148.6, 147.8, 146.0, 142.8))
_CORNER, _SPAN = (121.0, 2.0), 206.0  # the crop of head and shoulders: left and top, width


def _with_gap(photo: np.ndarray) -> np.ndarray:
    """Darken a thin arc below the teeth: the mouth's inside once it opens, the lip line closed."""
    y, x = np.mgrid[: photo.shape[0], : photo.shape[1]]
    arc = np.interp(x, *_GAP)
    dark = np.exp(-(((y - arc) / 0.8) ** 2)) * np.exp(-(((x - 223.3) / 16) ** 6))
    return photo * (1 - dark[..., None] * (0.7, 0.8, 0.8))


def draw(plan: Plan, speech: np.ndarray) -> Iterator[np.ndarray]:
    """Draw the frames of a clip.

    Yields:
        (SIZE, SIZE, 3) uint8 RGB, one for each 1 / FPS second of `speech`.
    """
    from scipy.interpolate import RBFInterpolator
    from scipy.ndimage import map_coordinates
    from skimage.data import astronaut

    rng = np.random.default_rng([SEED, int(plan.id[-2:])])
    photo = _with_gap(astronaut().astype(np.float32))
    tint = np.array(SPEAKERS[plan.speaker].tint)
    grid = np.stack(np.mgrid[:SIZE, :SIZE][::-1], axis=-1) * (_SPAN / SIZE) + _CORNER  # x, y
    step = 5.0
    coarse = np.stack(np.mgrid[-20:512:step, -20:512:step][::-1], axis=-1)[:60, :80]
    home, rest, smiling, opened = np.split(_POINTS, 4, axis=1)
    phase, pace = rng.uniform(0, 2 * np.pi, 6), rng.uniform(0.15, 0.45, 6)  # Hz

    for i, amount in enumerate(opening(speech)):
        sway = np.sin(2 * np.pi * pace * i / FPS + phase)
        smile = np.clip(plan.face + 0.12 * sway[0], -1.1, 1.1)
        points = home + rest + smile * smiling + amount * opened
        # Slight head motion: the picture turns, shifts and grows about the nose.
        angle, scale, nose = 0.025 * sway[1], 1 + 0.015 * sway[2], home[31]
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
        at = (grid - nose) @ turn + nose + 2.0 * sway[3:5]
        # Thin-plate splines through the points say where in the photograph each pixel comes from;
        # they are smooth, so a coarse grid of them will do.
        back = RBFInterpolator(points, home - points)(coarse.reshape(-1, 2))
        back = back.reshape(*coarse.shape)
        cell = (at - coarse[0, 0])[..., ::-1].transpose(2, 0, 1) / step
        shift = [map_coordinates(back[..., k], cell, order=1, mode="nearest") for k in (0, 1)]
        source = [at[..., 1] + shift[1], at[..., 0] + shift[0]]
        frame = np.stack(
            [map_coordinates(photo[..., k], source, order=1, mode="nearest") for k in range(3)],
            axis=-1,
        )
        frame *= tint * (1 + 0.06 * sway[5])
        yield frame.clip(0, 255).round().astype(np.uint8)
