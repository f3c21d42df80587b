"""Make the packaged demo clips: a photograph that talks, smiles and frowns.

    python -m mertool.demo.generate OUT_DIR

writes 24 clips and their manifest.csv. Every clip has a sentiment score in [-3, 3], and each of
its three modalities shows that score through noise of its own: the words say it, pitch and
loudness of the voice carry it, the mouth and the brows show it. What the clips are good for is to
try the toolkit; results on them say nothing about real people.

Provenance, so that the clips can be shipped under this project's MIT licence:
- picture: Eileen Collins, photographed by NASA, public domain; the copy that comes with
  scikit-image (`skimage.data.astronaut`);
- voices: synthesised by espeak-ng, whose licence (GPL) covers the program, not what it says;
- sentences, scores and this script: the mertool developers, MIT.
"""

from __future__ import annotations

import csv
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from mertool.demo.face import SIZE, draw
from mertool.errors import MertoolError, OutputError

SEED = 2026
ESPEAK_VERSION = "1.51"  # the version that spoke the packaged clips; others may differ in length
FPS = 25
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
    "s1": Speaker("train", 4, "en-us+f1", 46, (1.00, 1.00, 1.00)),
    "s2": Speaker("train", 4, "en-us+f2", 43, (1.04, 0.97, 0.90)),
    "s3": Speaker("train", 3, "en-gb-x-rp+f3", 43, (0.90, 0.95, 1.02)),
    "s4": Speaker("train", 3, "en-us+f4", 48, (0.86, 0.84, 0.82)),
    "s5": Speaker("valid", 5, "en-gb-scotland+f5", 43, (1.05, 1.02, 0.96)),
    "s6": Speaker("test", 5, "en-us+steph", 46, (0.94, 1.00, 0.94)),
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
    scores = np.column_stack([label, voice, face])

    # Deal the clips out along the scale, so that every speaker and split covers all of it.
    turns = [((k + 0.5) / s.clips, name) for name, s in SPEAKERS.items() for k in range(s.clips)]
    speaker = [name for _, name in sorted(turns)]
    order = sorted(range(n), key=lambda i: (speaker[i], rng.random()))
    return [
        Plan(f"demo{number:02}", SENTENCES[sentence[i]], speaker[i], *map(float, scores[i]))
        for number, i in enumerate(order, 1)
    ]


def speak(plan: Plan) -> np.ndarray:
    """Speak the sentence: high, lively and loud when positive, low, flat and soft when negative.

    Returns:
        (S,) float32 in [-1, 1] at `RATE` Hz, S a multiple of the samples of one frame.

    Raises:
        MertoolError: espeak-ng fails.
    """
    from scipy.io import wavfile
    from scipy.signal import lfilter

    speaker = SPEAKERS[plan.speaker]
    text = f'<prosody range="{55 + 45 * plan.voice:.0f}">{plan.text}</prosody>'
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        command = ["espeak-ng", "-m", "-w", str(wav), "-v", speaker.voice, "-s", "175"]
        command += ["-p", f"{speaker.pitch + 32 * plan.voice:.0f}", text]
        said = subprocess.run(command, capture_output=True, text=True)
        if said.returncode:
            raise MertoolError(
                "espeak-ng could not speak a sentence.",
                f"{' '.join(command)}: {said.stderr.strip()}",
                f"Install espeak-ng {ESPEAK_VERSION} or later with its English voices.",
            )
        speech = wavfile.read(wav)[1].astype(float)
    speech = speech[: np.flatnonzero(np.abs(speech) > 0.01 * np.abs(speech).max())[-1]]
    # Vocal effort: a brighter spectrum when positive, a duller one when negative.
    speech = lfilter([1, -0.5 * plan.voice], [1], speech)
    # RMS level -24 dB +- 7 dB: energy carries the score whatever the voice's own loudness.
    speech *= 10 ** ((-24 + 7 * plan.voice) / 20) / np.sqrt(np.mean(speech**2))
    lead, frame = RATE // 10, RATE // FPS
    total = -(-(len(speech) + 2 * lead) // frame) * frame
    speech = np.pad(speech, (lead, total - len(speech) - lead))
    speech += np.random.default_rng(SEED).normal(scale=0.001, size=total)  # a quiet room, -60 dB
    return speech.clip(-1, 1).astype(np.float32)


def opening(speech: np.ndarray) -> np.ndarray:
    """How far the mouth is open in every frame, from the speech envelope.

    Returns:
        (T,) in [0, 1].
    """
    from scipy.ndimage import gaussian_filter1d

    envelope = np.sqrt(np.mean(speech.reshape(-1, RATE // FPS) ** 2, axis=1))
    return gaussian_filter1d(np.clip(envelope / np.quantile(envelope, 0.9), 0, 1), 0.7)


def write(path: Path, frames: Iterator[np.ndarray], speech: np.ndarray) -> None:
    """Write one clip as H.264 and AAC in MP4.

    Args:
        path: The file to write.
        frames: (SIZE, SIZE, 3) uint8 RGB, at FPS.
        speech: (S,) float32 at RATE.
    """
    import av

    with av.open(str(path), "w") as file:
        # The same frames shall give the same file: one thread, and no macroblock tree, whose
        # optimised code gave another file at every run.
        coding = {"crf": "25", "preset": "slow", "threads": "1", "x264-params": "mbtree=0"}
        video = file.add_stream("libx264", FPS, options=coding)
        video.width, video.height, video.pix_fmt = SIZE, SIZE, "yuv420p"
        audio = file.add_stream("aac", RATE, layout="mono")
        audio.bit_rate = 40_000
        for image in frames:
            file.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(video.encode())
        sound = av.AudioFrame.from_ndarray(speech[None], format="fltp", layout="mono")
        sound.sample_rate, sound.time_base, sound.pts = RATE, Fraction(1, RATE), 0
        file.mux(audio.encode(sound))
        file.mux(audio.encode())


def render(plan: Plan, path: Path) -> None:
    """Make one clip."""
    speech = speak(plan)
    rng = np.random.default_rng([SEED, int(plan.id[-2:])])
    tint = SPEAKERS[plan.speaker].tint
    write(path, draw(plan.face, opening(speech), FPS, tint, rng), speech)


def check_tools() -> None:
    """See that what only this script needs is there.

    Raises:
        MertoolError: espeak-ng or scikit-image is missing.
    """
    if shutil.which("espeak-ng") is None:
        raise MertoolError(
            "Making the demo clips needs espeak-ng, which speaks their sentences.",
            "espeak-ng is not on the PATH.",
            "Install it: apt install espeak-ng, or brew install espeak-ng",
        )
    if importlib.util.find_spec("skimage") is None:
        raise MertoolError(
            "Making the demo clips needs scikit-image, which holds their photograph.",
            "The module skimage is not installed.",
            'Install it: pip install "scikit-image>=0.22"',
        )


def generate(out: Path) -> None:
    """Write the clips and manifest.csv.

    Args:
        out: Folder to write into; made if need be.

    Raises:
        MertoolError: A tool is missing.
        OutputError: The folder holds a manifest already.
    """
    check_tools()
    manifest = out / "manifest.csv"
    if manifest.exists():
        raise OutputError(
            "The demo clips are there already.", str(manifest), "Name another folder."
        )
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for plan in plans():
        name = f"{plan.id}.mp4"
        render(plan, out / name)
        split = SPEAKERS[plan.speaker].split
        rows.append([plan.id, name, plan.text, "en", plan.speaker, split, plan.sentiment])
        print(out / name, file=sys.stderr)
    with manifest.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["clip_id", "path", "text", "language", "speaker", "split", "sentiment"])
        table.writerows(rows)


def main(arguments: list[str]) -> int:
    """Run as a script; returns the exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m mertool.demo.generate OUT_DIR", file=sys.stderr)
        return 2
    try:
        generate(Path(arguments[0]))
    except MertoolError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
