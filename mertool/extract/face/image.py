"""States of Hugging Face image encoders: of the face, or of the whole frame."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from mertool.errors import MertoolError, UsageError, readable
from mertool.extract.face.crops import Crops
from mertool.extract.face.pipeline import COLUMNS, Face, FaceSettings, face_rows, track_rows
from mertool.extract.face.tracks import MISSING, Tracks
from mertool.pretrained import find_model, licence_of, load_image_encoder
from mertool.types import Clip, Rows

CROPS = ("face", "frame")
POOLS = ("auto", "cls", "mean")


@dataclass(frozen=True)
class ImageSettings:
    """Settings of both extractors; each lists all of its own."""

    model: str
    crop: str = "face"
    pool: str = "auto"
    missing: str = "zero"
    max_faces: int = 4
    batch: int = 8

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise ValueError('model="" must be a Hugging Face id or a folder')
        for name, known in (("crop", CROPS), ("pool", POOLS), ("missing", MISSING)):
            if getattr(self, name) not in known:
                value = getattr(self, name)
                raise ValueError(f'{name}="{value}" must be one of {", ".join(known)}')
        if not 1 <= self.batch <= 1024:
            raise ValueError(f"batch={self.batch} must lie between 1 and 1024")
        self.faces()  # refuses the rest

    def faces(self) -> FaceSettings:
        """What of several faces is kept: lips are not measured, so nobody is seen to speak."""
        return FaceSettings(getattr(self, "fps", 0.0), "largest", self.missing, self.max_faces)


class ImageStates:
    """The shared part of `HFImage` and `ResNet`: a frame to the states of its faces.

    Only safetensors weights are read, and no code of a model is ever run. Images are brought to
    the model's size and scale as its preprocessor_config.json says, by Pillow and NumPy.

    Args:
        config: Settings.
        device: "auto", "cpu" or "cuda".

    Raises:
        MertoolError: The model cannot be had or loaded or is of another kind, or faces are wanted
            and MediaPipe is not installed.
        UsageError: The model has no class token, or the machine no such device.
    """

    def __init__(self, config: ImageSettings, device: str = "cpu") -> None:
        from mertool.device import pick

        self.config = config
        self._device = pick(device)
        self._crops = Crops(config.max_faces) if config.crop == "face" else None
        folder = find_model(config.model, "vision")
        self._prepare, model = load_image_encoder(folder)
        names = [name for name, _ in model.named_parameters()]
        self._has_class = any(n.endswith(("cls_token", "class_embedding")) for n in names)
        if config.pool == "cls" and not self._has_class:
            raise UsageError(
                "The vision model has no class token.",
                f"{folder}: pool=cls",
                "Take what the model itself pools, or the mean: --set vision.pool=auto|mean",
            )
        self._model = model.to(self._device)
        try:
            self._width = self._encode([np.zeros((64, 64, 3), np.uint8)]).shape[1]
        except Exception as error:  # foreign settings: of video, of image and text together, ...
            raise MertoolError(
                "The vision model cannot read a single image.",
                f"{folder}: {(str(error).strip() or type(error).__name__).splitlines()[0]}",
                "Give another one (ResNet, ViT, DINOv2, CLIP, ...): --set vision.model=ID|DIR",
            ) from error
        self.columns = [f"dim{i:03d}" for i in range(self._width)]
        if self._crops:
            self.columns += COLUMNS
        self.info: dict[str, str | float] = {
            "model": config.model,
            "revision": folder.name if folder.parent.name == "snapshots" else "",
            "licence": licence_of(folder),
            "rate": config.faces().fps,
            "version": "1",
        }

    def _see(self, images: list[np.ndarray], times: list[float]) -> list[list[Face]]:
        """The faces of each image; the image itself where whole frames are wanted."""
        if self._crops:
            boxes = [self._crops(image) for image in images]
        else:
            boxes = [[np.array([0, 0, image.shape[1], image.shape[0]])] for image in images]
        cut = [
            image[top:bottom, left:right]
            for image, found in zip(images, boxes, strict=True)
            for left, top, right, bottom in found
        ]
        values = iter(self._encode(cut) if cut else ())
        return [[Face(box, next(values)) for box in found] for found in boxes]

    def _encode(self, images: list[np.ndarray]) -> np.ndarray:
        """(n, D) float32 of n images (H, W, 3) uint8 RGB, each of its own size."""
        import torch

        states = []
        for first in range(0, len(images), self.config.batch):
            some = images[first : first + self.config.batch]
            pixels = self._prepare(some, return_tensors="np", input_data_format="channels_last")
            pixels = np.asarray(pixels["pixel_values"], np.float32)
            with torch.inference_mode():
                output = self._model(pixel_values=torch.from_numpy(pixels).to(self._device))
                states.append(self._pool(output).float().cpu().numpy())
        return np.concatenate(states)

    def _pool(self, output: Any) -> Any:
        """(n, D) of a model's output."""
        pooled = getattr(output, "pooler_output", None)
        if self.config.pool == "auto" and pooled is not None:
            return pooled.flatten(1)
        states = output.last_hidden_state
        if states.ndim == 4:  # (n, D, h, w)
            return states.mean((2, 3))
        if self.config.pool == "mean" or not self._has_class:
            return states.mean(1)
        return states[:, 0]

    def _finish(self, rows: Rows) -> Rows:
        """A whole frame is always there: no columns tell of it."""
        if not self._crops:
            rows.values = np.ascontiguousarray(rows.values[:, : self._width])
        return rows


class HFImage(ImageStates):
    """States of any Hugging Face image encoder (ResNet, ViT, DINOv2, ConvNeXt, CLIP, SigLIP ...).

    A row is a frame, seen as the face in it or as a whole.

    Args:
        config: Settings.
        device: "auto", "cpu" or "cuda".

    Raises:
        MertoolError: The model cannot be had or loaded or is of another kind, or faces are wanted
            and MediaPipe is not installed.
        UsageError: The model has no class token, or the machine no such device.
    """

    @dataclass(frozen=True)
    class Config(ImageSettings):
        """Settings of `hf_image`.

        Attributes:
            model: Hugging Face id, or a folder on this machine (which wins).
            crop: What the model sees: "face" = a square around each face, or "frame".
            pool: "auto" = what the model itself pools, else its class token, else the mean; "cls"
                = its class token; "mean" = over all tokens, or over the last feature map.
            missing: Frames without a face: "zero", or "interpolate" (linear in time); valid = 0
                either way.
            max_faces: Faces looked for in a frame; the largest is kept.
            batch: Frames, and faces, that go through the model together.
            fps: Frames per second to look at; 0 = every frame.
        """

        model: str = "facebook/dinov2-small"
        fps: float = 0.0

    def extract(self, clip: Clip) -> Rows:
        """Encode the frames of one clip.

        Args:
            clip: A clip with video.

        Returns:
            A row per frame; none, with a warning, for a clip without video or, where faces are
            wanted, without any.
        """
        settings, size = self.config.faces(), self.config.batch
        return self._finish(face_rows(clip, self._see, self._width, settings, "hf_image", size))


class ResNet(ImageStates):
    """A frame from each of T equal segments of a clip, through a ResNet.

    The video features of NORM-TR, sections 4.2 and 4.3: 512 columns of ResNet-18 and -34, 2048 of
    ResNet-50, the last feature map averaged. A clip's frames are drawn by the seed and the clip's
    id: each frame that begins in a segment is as likely as any other of it. A segment in which no
    frame begins takes the one nearest to its middle.

    Args:
        config: Settings.
        device: "auto", "cpu" or "cuda".

    Raises:
        MertoolError: The model cannot be had or loaded or is of another kind, or faces are wanted
            and MediaPipe is not installed.
        UsageError: The model has no class token, or the machine no such device.
    """

    @dataclass(frozen=True)
    class Config(ImageSettings):
        """Settings of `resnet`.

        Attributes:
            model: Hugging Face id, or a folder on this machine (which wins); a ViT will do, too.
            crop: What the model sees: "face" = a square around each face, or "frame".
            pool: "auto" = what the model itself pools, else its class token, else the mean; "cls"
                = its class token; "mean" = over all tokens, or over the last feature map.
            missing: Drawn frames without a face: "zero", or "interpolate" (linear in time); valid
                = 0 either way.
            max_faces: Faces looked for in a frame; the largest is kept.
            batch: Frames, and faces, that go through the model together.
            segments: T, rows per clip.
            seed: Of the draw.
        """

        model: str = "microsoft/resnet-18"
        segments: int = 8
        seed: int = 0

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 1 <= self.segments <= 10000:
                raise ValueError(f"segments={self.segments} must lie between 1 and 10000")

    def extract(self, clip: Clip) -> Rows:
        """Encode T frames of one clip.

        Args:
            clip: A clip with video.

        Returns:
            T rows whose cells are the segments; none, with a warning, for a clip without video or,
            where faces are wanted, without one in any drawn frame.
        """
        from mertool import media

        end = media.probe(clip.media).duration if clip.end is None else clip.end
        edges = np.linspace(0, end - clip.start, self.config.segments + 1)
        cells = np.stack([edges[:-1], edges[1:]], axis=1)
        # Faces are followed on the segments' clock: two of them may share a frame.
        middles = iter(cells.mean(axis=1))
        tracks = Tracks(self._width)
        images = drawn(clip, edges, self.config.seed)
        while some := list(islice(images, self.config.batch)):
            for faces in self._see(some, []):
                tracks.add(next(middles), faces)
        rows = track_rows(clip, tracks, self.config.faces(), "resnet")
        return self._finish(Rows(rows.values, cells[: len(rows)]))


def drawn(clip: Clip, edges: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Draw a frame from each segment of a clip, in one pass that holds three frames.

    Args:
        clip: The clip.
        edges: (T + 1,) of the segments, seconds from the clip's start, increasing.
        seed: Of the draw.

    Yields:
        T images (H, W, 3) uint8 RGB: of the n frames that begin in a segment each with probability
        1 / n; where n = 0, the frame nearest to its middle. None without video.

    Raises:
        MediaError: The file cannot be decoded.
    """
    # A generator per clip, so that neither the order of clips nor the process matters.
    key = hashlib.sha256(f"{seed}\n{readable(clip.id)}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(key[:16], "big"))
    last: tuple[float, np.ndarray] | None = None
    chosen, count, segment = None, 0, 0
    for time, image in clip.frames():
        # A frame at an edge, up to rounding, begins in the later segment.
        here = int(np.searchsorted(edges[1:-1], time + 1e-6, side="right"))
        while segment < here:
            if chosen is None:
                middle = (edges[segment] + edges[segment + 1]) / 2
                is_last = last is not None and middle - last[0] <= time - middle
                chosen = last[1] if is_last else image
            yield chosen
            chosen, count, segment = None, 0, segment + 1
        count += 1
        if random.random() * count < 1:
            chosen = image
        last = time, image
    while last and segment < len(edges) - 1:
        yield last[1] if chosen is None else chosen
        chosen, segment = None, segment + 1
