from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from face_clips import FrameClip
from media_samples import number_of, picture, steady, write_media
from PIL import Image
from scipy.stats import chisquare
from transformers import (
    AutoModel,
    BeitConfig,
    BertConfig,
    CLIPConfig,
    ConvNextConfig,
    Dinov2Config,
    PreTrainedConfig,
    ResNetConfig,
    SiglipConfig,
    SwinConfig,
    VideoMAEConfig,
    ViTConfig,
)

from mertool.errors import MertoolError, MertoolWarning, UsageError
from mertool.extract.face.crops import MARGIN, square
from mertool.extract.face.image import HFImage, ResNet, drawn
from mertool.extract.pipeline import run
from mertool.store import FeatureFile
from mertool.testing import check_extractor, failed
from mertool.types import Clip, Rows

MEAN, SPREAD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SMALL = {
    "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "image_size": 32, "patch_size": 16,
    # Wide weights: with the usual 0.02, the picture hardly shows in the states.
    "initializer_range": 0.4,
}  # fmt: skip
TEXT = {
    "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
    "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
CONFIGS: dict[str, PreTrainedConfig] = {
    "resnet": ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    ),
    "vit": ViTConfig(**SMALL),
    "dinov2": Dinov2Config(**SMALL),
    "beit": BeitConfig(**SMALL),
    "convnext": ConvNextConfig(hidden_sizes=[8, 12], depths=[1, 1], num_stages=2),
    "swin": SwinConfig(embed_dim=8, depths=[1], num_heads=[1], image_size=32),
    "clip": CLIPConfig(vision_config=SMALL, text_config=TEXT, projection_dim=7),
    "siglip": SiglipConfig(vision_config=SMALL, text_config=TEXT),
}
# What `preprocessor_config.json` of the usual models of each kind says, but for the size of 32.
SQUARE = {
    "image_processor_type": "ViTImageProcessor", "do_resize": True, "resample": 2,
    "size": {"height": 32, "width": 32}, "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
}  # fmt: skip
# As on the hub since 2022, with names that have changed since.
CONVNEXT = {
    "feature_extractor_type": "ConvNextFeatureExtractor", "crop_pct": 0.875, "do_normalize": True,
    "do_resize": True, "image_mean": MEAN, "image_std": SPREAD, "resample": 3, "size": 32,
}  # fmt: skip
CLIP = {
    "image_processor_type": "CLIPImageProcessor", "do_resize": True, "resample": 3,
    "size": {"shortest_edge": 32}, "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32}, "do_rescale": True, "do_normalize": True,
    "image_mean": MEAN, "image_std": SPREAD, "do_convert_rgb": True,
}  # fmt: skip


def save(folder: Path, kind: str, prepare: dict[str, object] = SQUARE) -> Path:
    """A random model of one kind."""
    torch.manual_seed(0)
    model = AutoModel.from_config(CONFIGS[kind])
    with torch.no_grad():
        for name, buffer in model.named_buffers():  # as if trained
            if name.endswith("running_var"):
                buffer.uniform_(0.05, 0.5)
            elif name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
        for name, weight in model.named_parameters():
            if name.endswith(("cls_token", "class_embedding", "lambda1")):
                weight.normal_()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(prepare))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: save(root / kind, kind) for kind in CONFIGS}


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    """(512, 512, 3) with one frontal face of about 100 pixels, its eyes about (224, 112)."""
    return pytest.importorskip("skimage.data", reason="needs scikit-image").astronaut()


def noise(count: int, height: int = 48, width: int = 64, seed: int = 0) -> list[np.ndarray]:
    """Pictures without a face, no two alike."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, height // 8, width // 8, 3), np.uint8)
    return list(coarse.repeat(8, axis=1).repeat(8, axis=2))


def squared(image: np.ndarray) -> np.ndarray:
    """SQUARE by hand: (3, 32, 32)."""
    pixels = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR))
    return np.float32((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1)


def cropped(image: np.ndarray, shortest: int) -> np.ndarray:
    """CONVNEXT (shortest side 32 / 0.875) and CLIP (32) by hand: (3, 32, 32)."""
    height, width = image.shape[:2]
    scale = shortest / min(height, width)
    size = int(width * scale), int(height * scale)
    pixels = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    top, left = (pixels.shape[0] - 32) // 2, (pixels.shape[1] - 32) // 2
    pixels = pixels[top : top + 32, left : left + 32]
    return np.float32((pixels / 255 - MEAN) / SPREAD).transpose(2, 0, 1)


def outputs(folder: Path, pixels: Sequence[np.ndarray]) -> object:
    """What the model says, asked directly."""
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return getattr(model, "vision_model", model)(pixel_values=torch.tensor(np.array(pixels)))


def extract(kind: type, folder: Path, clip: Clip, **settings: object) -> tuple[Rows, list[str]]:
    """Rows and what was warned of."""
    extractor = kind(kind.Config(model=str(folder), **settings))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = extractor.extract(clip)
    assert {w.category for w in caught} <= {MertoolWarning}
    assert rows.values.shape == (len(rows), len(extractor.columns))
    assert rows.values.dtype == np.float32 and np.isfinite(rows.values).all()
    assert rows.times.shape == (len(rows), 2) and rows.times.dtype == np.float64
    return rows, [str(w.message) for w in caught]


def frames(folder: Path, images: Sequence[np.ndarray], **settings: object) -> np.ndarray:
    """(T, D) of whole frames."""
    rows, _ = extract(HFImage, folder, FrameClip(images), crop="frame", **settings)
    assert len(rows) == len(images)
    return rows.values


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_each_kind_is_as_read_directly(folders: dict[str, Path], kind: str) -> None:
    images = noise(5)
    expected = outputs(folders[kind], [squared(i) for i in images]).pooler_output.flatten(1)
    found = frames(folders[kind], images, batch=2)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.median(found.std(axis=0)) > 1e-3  # the frames are told apart


@pytest.mark.parametrize(
    ("prepare", "shortest"), [(CONVNEXT, int(32 / 0.875)), (CLIP, 32)], ids=["convnext", "clip"]
)
def test_preprocessing_is_the_models(
    tmp_path: Path, prepare: dict[str, object], shortest: int
) -> None:
    save(tmp_path, "resnet", prepare)
    images = [noise(1, 48, 96)[0], noise(1, 104, 40)[0], noise(1, 24, 24)[0]]
    expected = outputs(tmp_path, [cropped(i, shortest) for i in images]).pooler_output.flatten(1)
    np.testing.assert_allclose(frames(tmp_path, images), expected, atol=1e-5)


def test_resnet_averages_its_last_map(folders: dict[str, Path]) -> None:
    images = noise(2)
    states = outputs(folders["resnet"], [squared(i) for i in images]).last_hidden_state
    expected = states.numpy().mean(axis=(2, 3))
    for pool in ("auto", "mean"):
        np.testing.assert_allclose(
            frames(folders["resnet"], images, pool=pool), expected, atol=1e-5
        )


@pytest.mark.parametrize("kind", ["vit", "dinov2", "clip", "siglip"])
def test_pooling(folders: dict[str, Path], kind: str) -> None:
    images = noise(3)
    states = outputs(folders[kind], [squared(i) for i in images]).last_hidden_state.numpy()
    found = frames(folders[kind], images, pool="mean")
    np.testing.assert_allclose(found, states.mean(axis=1), atol=1e-5)
    if kind == "siglip":
        with pytest.raises(UsageError, match="no class token"):
            frames(folders[kind], images, pool="cls")
    else:
        found = frames(folders[kind], images, pool="cls")
        np.testing.assert_allclose(found, states[:, 0], atol=1e-5)


def _change_weights(folder: Path, change) -> None:
    from safetensors.numpy import load_file, save_file

    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})


def test_pooler_without_weights_is_not_used(tmp_path: Path) -> None:
    """Classifiers such as google/vit-base-patch16-224 have none: it would be random numbers."""
    save(tmp_path, "vit")
    images = noise(2)
    states = outputs(tmp_path, [squared(i) for i in images]).last_hidden_state.numpy()

    def change(weights: dict[str, np.ndarray]) -> None:
        for name in [n for n in weights if n.startswith("pooler.")]:
            del weights[name]

    _change_weights(tmp_path, change)
    for _ in range(2):
        np.testing.assert_allclose(frames(tmp_path, images), states[:, 0], atol=1e-5)


def test_weights_that_are_missing(tmp_path: Path) -> None:
    save(tmp_path, "vit")
    _change_weights(tmp_path, lambda weights: weights.pop("embeddings.position_embeddings"))
    with pytest.raises(MertoolError, match="do not fit together") as caught:
        HFImage(HFImage.Config(model=str(tmp_path)))
    assert "embeddings.position_embeddings" in caught.value.where


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "vit")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(MertoolError, match="pickled"):
        HFImage(HFImage.Config(model=str(tmp_path)))


def test_code_of_a_model_is_not_run(tmp_path: Path) -> None:
    save(tmp_path, "vit")
    mark = tmp_path / "ran"
    (tmp_path / "code.py").write_text(f"open({str(mark)!r}, 'w')\nclass A: pass\n")
    for name, what in (("config", "AutoConfig"), ("preprocessor_config", "AutoImageProcessor")):
        file = tmp_path / f"{name}.json"
        changed = json.loads(file.read_text()) | {
            "auto_map": {what: "code.A", "AutoModel": "code.A"}
        }
        file.write_text(json.dumps(changed))
    frames(tmp_path, noise(1))  # transformers' own classes serve
    assert not mark.exists()


def test_text_model_is_refused(tmp_path: Path) -> None:
    AutoModel.from_config(BertConfig(**TEXT)).save_pretrained(tmp_path)
    with pytest.raises(MertoolError, match='does not read images: "bert"') as caught:
        ResNet(ResNet.Config(model=str(tmp_path)))
    assert "vision.model" in caught.value.fix


def test_video_model_is_refused(tmp_path: Path) -> None:
    config = VideoMAEConfig(**SMALL, num_frames=2)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    prepare = SQUARE | {"image_processor_type": "VideoMAEImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(prepare))
    with pytest.raises(MertoolError, match="cannot read a single image"):
        HFImage(HFImage.Config(model=str(tmp_path)))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("text", [None, "{", "[]", "{}"])
def test_broken_folders(tmp_path: Path, name: str, text: str | None) -> None:
    save(tmp_path, "vit")
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(text)
    if name == "preprocessor_config.json" and text == "{}":
        return  # the kind's own way of preparing images
    with pytest.raises(MertoolError) as caught:
        HFImage(HFImage.Config(model=str(tmp_path)))
    assert str(tmp_path) in caught.value.where
    assert str(caught.value).count("\n") == 2


def test_unknown_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MertoolError, match="vision model cannot be downloaded") as caught:
        HFImage(HFImage.Config(model="nobody/nothing"))
    assert "--vision facemesh" in caught.value.fix


def test_facts(folders: dict[str, Path], tmp_path: Path) -> None:
    card = "---\ntags:\n- vision\nlicense: apache-2.0\n---\n"
    save(tmp_path, "resnet")
    (tmp_path / "README.md").write_text(card)
    extractor = HFImage(HFImage.Config(model=str(tmp_path), fps=5, crop="frame"))
    assert extractor.columns == [f"dim{i:03d}" for i in range(16)]
    assert extractor.info["licence"] == "apache-2.0" and extractor.info["rate"] == 5
    extractor = ResNet(ResNet.Config(model=str(tmp_path)))
    assert extractor.columns[-4:] == ["dim015", "faces", "track", "valid"]
    assert extractor.info["model"] == str(tmp_path) and extractor.info["rate"] == 0


# Faces


def test_crop_is_about_the_face(folders: dict[str, Path], astronaut: np.ndarray) -> None:
    """The known place: eyes at y = 102, chin at 175, centre at x = 225."""
    extractor = HFImage(HFImage.Config(model=str(folders["vit"])))
    ((box,),) = [[face.box for face in faces] for faces in extractor._see([astronaut], [0.0])]
    left, top, right, bottom = box
    assert right - left == bottom - top
    assert 90 * MARGIN < right - left < 110 * MARGIN
    assert abs((left + right) / 2 - 225) < 8
    assert top < 80 and bottom > 178 and abs((top + bottom) / 2 - 128) < 15


def test_face_is_the_crop_through_the_model(
    folders: dict[str, Path], astronaut: np.ndarray
) -> None:
    """Two pictures of other sizes; the reference cuts and prepares them by hand."""
    images = [astronaut, np.ascontiguousarray(astronaut[:256, 64:448])]
    extractor = HFImage(HFImage.Config(model=str(folders["vit"])))
    boxes = [faces[0].box for faces in extractor._see(images, [0.0, 0.04])]
    cut = [i[b[1] : b[3], b[0] : b[2]] for i, b in zip(images, boxes, strict=True)]
    expected = outputs(folders["vit"], [squared(i) for i in cut]).pooler_output
    rows, notes = extract(HFImage, folders["vit"], FrameClip(images))
    np.testing.assert_allclose(rows.values[:, :12], expected, atol=1e-5)
    np.testing.assert_array_equal(rows.values[:, 12:], np.ones((2, 3)))
    assert notes == []
    # The second picture is the first one, cut: the face is at the same place.
    assert np.abs(boxes[0] - boxes[1] - [64, 0, 64, 0]).max() <= 15  # a tenth of its side


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((40, 50, 60, 66), (35, 43, 65, 73)),  # 20 wide: a side of 30 about (50, 58)
        ((-5, 50, 15, 70), (0, 45, 30, 75)),  # moved inwards, not cut
        ((190, 90, 210, 110), (170, 70, 200, 100)),
        ((0, 0, 150, 90), (25, 0, 125, 100)),  # as large as the frame allows
        ((50, 50, 50, 50), (50, 50, 51, 51)),  # no area
    ],
)
def test_squares(box: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert MARGIN == 1.5
    assert square(np.array(box, float), 100, 200).tolist() == list(expected)


def test_frames_without_a_face(folders: dict[str, Path], astronaut: np.ndarray) -> None:
    blank = np.full_like(astronaut, 90)
    images = [blank, astronaut, blank, astronaut[:, ::-1].copy(), blank]
    rows, notes = extract(HFImage, folders["vit"], FrameClip(images), batch=2)
    assert rows.values[:, -1].tolist() == [0, 1, 0, 1, 0]
    assert (rows.values[[0, 2, 4]] == 0).all()
    np.testing.assert_allclose(rows.times[:, 0], np.arange(5) / 25)
    assert notes[0].startswith("3 of 5 frames")
    filled, _ = extract(HFImage, folders["vit"], FrameClip(images), missing="interpolate")
    assert filled.values[:, -1].tolist() == [0, 1, 0, 1, 0]
    between = (rows.values[1, :12] + rows.values[3, :12]) / 2
    np.testing.assert_allclose(filled.values[2, :12], between, atol=1e-5)


@pytest.mark.parametrize("kind", [HFImage, ResNet])
def test_no_face_and_no_video(folders: dict[str, Path], kind: type) -> None:
    name = "hf_image" if kind is HFImage else "resnet"
    rows, notes = extract(kind, folders["resnet"], FrameClip(noise(3), end=1.0))
    assert not len(rows) and notes == [f"no face found, no {name} rows"]
    for crop in ("face", "frame"):
        rows, notes = extract(kind, folders["resnet"], FrameClip([], end=1.0), crop=crop)
        assert not len(rows) and notes == [f"no video, no {name} rows"]


@pytest.mark.parametrize("kind", [HFImage, ResNet])
def test_of_two_faces_the_larger_is_kept(
    folders: dict[str, Path], astronaut: np.ndarray, kind: type
) -> None:
    head = astronaut[:256, 96:352]
    both = np.full((256, 416, 3), 128, np.uint8)
    both[:160, :160], both[:, 160:] = Image.fromarray(head).resize((160, 160)), head
    clip = FrameClip([both] * 8, end=0.32)
    extractor = kind(kind.Config(model=str(folders["vit"])))
    large, small = (face.box for face in extractor._see([both], [])[0])
    assert large[0] >= 160 >= small[2] and large[2] - large[0] > small[2] - small[0]
    cut = both[large[1] : large[3], large[0] : large[2]]
    expected = outputs(folders["vit"], [squared(cut)] * 8).pooler_output
    rows, notes = extract(kind, folders["vit"], clip)
    np.testing.assert_allclose(rows.values[:, :12], expected, atol=1e-5)
    np.testing.assert_array_equal(rows.values[:, 12:], [[2, 1, 1]] * 8)
    assert "8 of 8 frames show more than one face" in notes[0] and "the largest" in notes[0]
    one, notes = extract(kind, folders["vit"], clip, max_faces=1)
    np.testing.assert_allclose(one.values[:, :12], rows.values[:, :12], atol=1e-5)
    assert (one.values[:, -3] == 1).all() and notes == []


def test_fps_is_passed_on(folders: dict[str, Path]) -> None:
    images = noise(25)
    clip = FrameClip(images)
    rows, _ = extract(HFImage, folders["vit"], clip, crop="frame", fps=5.0)
    assert clip.fps == 5.0
    np.testing.assert_allclose(rows.times[:, 0], np.arange(5) / 5)
    expected = outputs(folders["vit"], [squared(i) for i in images[::5]]).pooler_output
    np.testing.assert_allclose(rows.values, expected, atol=1e-5)


def test_mediapipe_missing(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "mediapipe"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(MertoolError) as caught:
        HFImage(HFImage.Config(model=str(folders["vit"])))
    assert 'pip install "mertool[offline]"' in caught.value.fix
    assert "vision.crop=frame" in caught.value.fix
    frames(folders["vit"], noise(1))


# Frames drawn from segments


def numbered(count: int, **more: object) -> FrameClip:
    """A clip whose frame i is `picture(i)`."""
    return FrameClip([picture(i) for i in range(count)], end=count / 25, **more)


def draw(clip: Clip, segments: int, seed: int = 0) -> list[int]:
    """Numbers of the frames drawn."""
    edges = np.linspace(0, clip.end - clip.start, segments + 1)
    return [number_of(image) for image in drawn(clip, edges, seed)]


def in_segments(times: Sequence[float], length: float, segments: int) -> list[list[int]]:
    """What may be drawn from each segment, by brute force."""
    found: list[list[int]] = []
    for k in range(segments):
        low, high = length * k / segments, length * (k + 1) / segments
        inside = [i for i, t in enumerate(times) if low - 1e-6 <= t < high - 1e-6]
        if k == segments - 1:
            inside = [i for i, t in enumerate(times) if t >= low - 1e-6]
        if not inside:
            away = [abs(t - (low + high) / 2) for t in times]
            inside = [i for i, d in enumerate(away) if d <= min(away) + 1e-9]
        found.append(inside)
    return found


@pytest.mark.parametrize("segments", [1, 2, 7, 8, 50, 120])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 50, 75])
def test_each_segment_gives_one_of_its_frames(count: int, segments: int) -> None:
    clip = numbered(count)
    allowed = in_segments(clip.at, clip.end, segments)
    for seed in range(3):
        found = draw(clip, segments, seed)
        assert len(found) == segments
        assert all(i in few for i, few in zip(found, allowed, strict=True))


def test_uneven_frames_and_a_picture_shorter_than_the_clip() -> None:
    """A picture that begins late, pauses and ends early: the nearest frame stands in."""
    times = [0.5, 0.52, 0.9, 2.1, 2.2, 2.3, 3.0]
    clip = FrameClip([picture(i) for i in range(7)], end=5.0, times=times)
    for segments in (3, 10, 20):
        allowed = in_segments(times, 5.0, segments)
        for seed in range(20):
            found = draw(clip, segments, seed)
            assert all(i in few for i, few in zip(found, allowed, strict=True)), (found, allowed)


def test_every_frame_of_a_segment_is_as_likely() -> None:
    clip = numbered(15)
    found = np.array([draw(clip, 3, seed) for seed in range(600)])
    for k in range(3):
        counts = np.bincount(found[:, k], minlength=15)[5 * k : 5 * k + 5]
        assert counts.sum() == 600
        assert chisquare(counts).pvalue > 1e-3
    # Segments are drawn independently.
    pairs = np.histogram2d(found[:, 0], found[:, 1] - 5, bins=5)[0].ravel()
    assert chisquare(pairs).pvalue > 1e-3


def test_draw_is_of_the_seed_and_the_id_alone() -> None:
    one, other = numbered(75), numbered(75)
    other.id = "other"
    first, second = draw(one, 8), draw(other, 8)
    assert first != second
    assert draw(one, 8, seed=1) != first
    assert draw(other, 8) == second and draw(one, 8) == first
    program = (
        "import numpy as np\n"
        "from mertool.extract.face.image import drawn\n"
        "class Clip:\n"
        "    id = 'clip'\n"
        "    def frames(self):\n"
        "        return ((i / 25, np.array(i)) for i in range(75))\n"
        "print([int(i) for i in drawn(Clip(), np.linspace(0, 3, 9), 0)], end='')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert done.stdout == str(first), done.stderr


def test_rows_of_segments(folders: dict[str, Path]) -> None:
    clip = numbered(50)
    rows, notes = extract(
        ResNet, folders["resnet"], clip, crop="frame", segments=7, seed=3, batch=2
    )
    images = [clip.images[i] for i in draw(clip, 7, seed=3)]
    expected = outputs(folders["resnet"], [squared(i) for i in images]).pooler_output.flatten(1)
    np.testing.assert_allclose(rows.values, expected, atol=1e-5)
    np.testing.assert_allclose(rows.times[:, 0], 2 / 7 * np.arange(7), atol=1e-12)
    np.testing.assert_allclose(rows.times[:, 1], 2 / 7 * np.arange(1, 8), atol=1e-12)
    assert notes == []


def test_one_frame(folders: dict[str, Path], astronaut: np.ndarray) -> None:
    for crop, more in (("face", 3), ("frame", 0)):
        clip = FrameClip([astronaut], end=0.04)
        rows, notes = extract(ResNet, folders["vit"], clip, crop=crop)
        assert rows.values.shape == (8, 12 + more) and notes == []
        assert (rows.values == rows.values[0]).all()
        rows, _ = extract(HFImage, folders["vit"], clip, crop=crop)
        assert rows.values.shape == (1, 12 + more)


def test_segments_without_a_face(folders: dict[str, Path], astronaut: np.ndarray) -> None:
    images = [np.full_like(astronaut, 90)] * 4 + [astronaut] * 4
    rows, notes = extract(ResNet, folders["vit"], FrameClip(images, end=0.32), segments=4)
    assert rows.values[:, -1].tolist() == [0, 0, 1, 1]
    assert (rows.values[:2] == 0).all()
    assert notes[0].startswith("2 of 4 frames")


def test_frames_held_at_once() -> None:
    """Three frames, however long the clip."""
    alive = set()

    class Held(np.ndarray):
        def __del__(self) -> None:
            alive.discard(id(self))

    class Long(FrameClip):
        def frames(self, fps: float | None = None):
            for i in range(300):
                image = np.zeros((4, 4, 3), np.uint8).view(Held)
                alive.add(id(image))
                most.append(len(alive))
                yield i / 25, image

    most: list[int] = []
    for image in drawn(Long([], end=12.0), np.linspace(0, 12, 4), 0):
        del image
    assert max(most) <= 4


def test_stretch_of_a_file(folders: dict[str, Path], tmp_path: Path) -> None:
    """Times count from the clip's start; without an end the file's is taken."""
    write_media(tmp_path / "clip.mkv", steady(4))
    clip = Clip("x", path="clip.mkv", source=str(tmp_path), start=2.0)
    rows, _ = extract(ResNet, folders["resnet"], clip, crop="frame", segments=4)
    np.testing.assert_allclose(rows.times[:, 0], [0, 0.5, 1, 1.5], atol=0.02)
    clip.end = 4.0
    numbers = draw(clip, 4)
    assert all(50 + 12.5 * k - 1 <= i <= 50 + 12.5 * (k + 1) for k, i in enumerate(numbers))


def test_neither_order_nor_processes_matter(folders: dict[str, Path], tmp_path: Path) -> None:
    """Through the pipeline: the same rows of a clip in another order, alone, by two processes."""
    media = tmp_path / "media"
    media.mkdir()
    for i, name in enumerate("abc"):
        write_media(media / f"{name}.mkv", steady(2), images=lambda n, i=i: picture(50 * i + n))

    def rows(sources: list[Path], jobs: int, seed: int = 0) -> dict[str, bytes]:
        out = tmp_path / "out.h5"
        settings = [f"vision.model={folders['resnet']}", "vision.crop=frame", f"vision.seed={seed}"]
        run(
            sources, out, text="none", audio="none", vision="resnet", settings=settings,
            jobs=jobs, overwrite=True,
        )  # fmt: skip
        with FeatureFile(out) as file:
            clips = [file.clip(i) for i in range(len(sources))]
            return {c.id: np.asarray(c.streams["vision"].values).tobytes() for c in clips}

    files = [media / f"{name}.mkv" for name in "abc"]
    first = rows(files, 1)
    assert len(set(first.values())) == 3
    assert rows(files[::-1], 2) == first
    assert rows(files[1:2], 1) == {"b": first["b"]}
    assert rows(files[1:2], 1, seed=1) != {"b": first["b"]}


@pytest.mark.parametrize("name", ["hf_image", "resnet"])
@pytest.mark.parametrize("crop", ["face", "frame"])
def test_contract(folders: dict[str, Path], name: str, crop: str) -> None:
    settings = [f"vision.model={folders['resnet']}", f"vision.crop={crop}"]
    if name == "hf_image":
        settings.append("vision.fps=5")
    assert failed(check_extractor(name, settings)) == []


@pytest.mark.parametrize("kind", [HFImage, ResNet])
@pytest.mark.parametrize(
    "settings",
    [{"model": " "}, {"crop": "head"}, {"pool": "max"}, {"missing": "drop"}, {"batch": 0},
     {"max_faces": 0}],
)  # fmt: skip
def test_impossible_settings(kind: type, settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        kind.Config(**settings)


def test_impossible_settings_of_one() -> None:
    with pytest.raises(ValueError, match="fps"):
        HFImage.Config(fps=-1.0)
    with pytest.raises(ValueError, match="segments"):
        ResNet.Config(segments=0)


def test_nothing_on_stderr(folders: dict[str, Path]) -> None:
    """In a fresh process, where transformers and MediaPipe have not yet said what they say once."""
    program = (
        "import sys, skimage.data\n"
        "from mertool.extract.face.image import HFImage\n"
        "assert not {'torch', 'transformers', 'mediapipe', 'PIL'} & set(sys.modules)\n"
        "class Clip:\n"
        "    id, start, end = 'clip', 0.0, None\n"
        "    def frames(self, fps=None):\n"
        "        image = skimage.data.astronaut()\n"
        "        return iter([(0.0, image), (0.04, image)])\n"
        f"rows = HFImage(HFImage.Config(model={str(folders['vit'])!r})).extract(Clip())\n"
        "print(rows.values[:, -1].tolist())\n"
        "assert 'torchvision' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[1.0, 1.0]\n", done.stderr
    assert done.stderr == ""


@pytest.mark.hub
def test_resnet_18(shared: Path) -> None:
    """The default, as NORM-TR reads it: 512 columns."""
    clip = Clip("clip", path="grid/bbaf2n.mpg", source=str(shared / "data"))
    extractor = ResNet(ResNet.Config())
    rows = extractor.extract(clip)
    assert len(extractor.columns) == 515 and rows.values.shape == (8, 515)
    assert (rows.values[:, -1] == 1).all()
    assert (rows.values[:, :512] >= 0).all()  # behind a ReLU
    assert extractor.info["licence"] == "apache-2.0" and extractor.info["revision"]


@pytest.mark.gpu
def test_on_a_gpu(folders: dict[str, Path]) -> None:
    images = noise(9)
    config = HFImage.Config(model=str(folders["resnet"]), crop="frame", batch=4)
    here, there = (HFImage(config, d).extract(FrameClip(images)) for d in ("cpu", "cuda"))
    np.testing.assert_allclose(there.values, here.values, rtol=0.01, atol=0.01)
