from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    Data2VecAudioConfig,
    HubertConfig,
    UniSpeechConfig,
    UniSpeechSatConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WhisperConfig,
    WhisperModel,
)

from mertool.errors import MertoolError, MertoolWarning, UsageError
from mertool.extract.hf_audio import HFAudio
from mertool.testing import check_extractor, failed
from mertool.types import Clip, Rows

RATE = 16000
CONFIGS = {
    "wav2vec2": Wav2Vec2Config,
    "hubert": HubertConfig,
    "wavlm": WavLMConfig,
    "data2vec-audio": Data2VecAudioConfig,
    "unispeech": UniSpeechConfig,
    "unispeech-sat": UniSpeechSatConfig,
}
# With these, padding and a mask are what the model was trained on.
MASKED = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}


class SoundClip(Clip):
    """A clip whose sound is given."""

    def __init__(self, sound: np.ndarray, name: str = "clip") -> None:
        super().__init__(id=name)
        self.sound = np.asarray(sound, np.float32)
        self.asked: tuple[int, str] | None = None

    def audio(self, rate: int = RATE, channel: str = "mean") -> np.ndarray:
        self.asked = rate, channel
        return self.sound


def save(folder: Path, kind: str = "wav2vec2", prepare: dict | None = None, **config: object):
    """A random model of two layers with the common convolutions: 25 ms seen, 20 ms apart."""
    torch.manual_seed(0)
    small = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24, "conv_dim": (8,) * 7, "num_conv_pos_embedding_groups": 2,
        "num_conv_pos_embeddings": 3 if kind == "data2vec-audio" else 8,
        # Wide weights: with the usual 0.02, a frame's neighbours hardly show in its state.
        "initializer_range": 0.2,
    }  # fmt: skip
    AutoModel.from_config(CONFIGS[kind](**{**small, **config})).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(**(prepare or {})).save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As wav2vec2-base: trained without a mask, normalises over time."""
    folder = tmp_path_factory.mktemp("group")
    save(folder)
    return folder


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the large models: trained with a mask."""
    folder = tmp_path_factory.mktemp("layer")
    save(folder, **MASKED)
    return folder


def build(folder: Path, **settings: object) -> HFAudio:
    return HFAudio(HFAudio.Config(model=str(folder), **settings))


def extract(folder: Path, sound: np.ndarray, **settings: object) -> Rows:
    extractor = build(folder, **settings)
    rows = extractor.extract(SoundClip(sound))
    assert rows.values.shape == (len(rows), len(extractor.columns))
    assert rows.values.dtype == np.float32 and np.isfinite(rows.values).all()
    assert rows.times.shape == (len(rows), 2) and rows.times.dtype == np.float64
    return rows


def noise(samples: int, seed: int = 0) -> np.ndarray:
    """Noise that swells, so that every stretch is another."""
    sound = np.random.default_rng(seed).normal(0, 0.1, samples)
    return np.float32(sound * (1 + np.arange(samples) / samples) + 0.05)


def unit(sound: np.ndarray) -> np.ndarray:
    sound = sound.astype(float)
    return np.float32((sound - sound.mean()) / np.sqrt(((sound - sound.mean()) ** 2).mean() + 1e-7))


def states(folder: Path, sound: np.ndarray, layer: int | None = None) -> np.ndarray:
    """What the model says of a sound, asked directly; None = its last hidden state."""
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        out = model(torch.from_numpy(sound)[None], output_hidden_states=True)
    found = out.last_hidden_state if layer is None else out.hidden_states[layer]
    return found[0].numpy()


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_each_kind_is_as_read_directly(tmp_path: Path, kind: str) -> None:
    save(tmp_path, kind)
    sound = noise(9999)
    expected = states(tmp_path, unit(sound))
    assert len(expected) == (9999 - 400) // 320 + 1
    np.testing.assert_allclose(extract(tmp_path, sound).values, expected, atol=1e-5)


@pytest.mark.parametrize("normalise", [True, False])
def test_normalisation_is_the_models(tmp_path: Path, normalise: bool) -> None:
    save(tmp_path, prepare={"do_normalize": normalise})
    sound = noise(8000)
    expected = states(tmp_path, unit(sound) if normalise else sound)
    np.testing.assert_allclose(extract(tmp_path, sound).values, expected, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1, -2, -3])
def test_layer(folder: Path, layer: int) -> None:
    rows = extract(folder, noise(8000), layer=layer)
    np.testing.assert_allclose(rows.values, states(folder, unit(noise(8000)), layer), atol=1e-5)


def test_last_layer_is_the_same_from_either_end(masked: Path) -> None:
    """These models have a norm behind the last layer, which their hidden states lack."""
    first, last = (extract(masked, noise(8000), layer=layer).values for layer in (2, -1))
    np.testing.assert_array_equal(first, last)
    np.testing.assert_allclose(last, states(masked, unit(noise(8000))), atol=1e-5)


@pytest.mark.parametrize("layer", [3, -4])
def test_layer_that_is_not_there(folder: Path, layer: int) -> None:
    with pytest.raises(UsageError, match="no layer"):
        build(folder, layer=layer)


def test_cells_lie_around_what_a_frame_sees(folder: Path) -> None:
    """A click moves the frames whose 400 samples hold it; without context, no other."""
    model = AutoModel.from_pretrained(folder).eval().feature_extractor
    model.conv_layers[0].layer_norm = torch.nn.Identity()  # it looks at all times
    quiet, click = torch.zeros(2, 1, 16000).unbind()
    at = 7777
    click[0, at] = 1.0
    with torch.no_grad():
        moved = (model(click) - model(quiet)).abs().sum(dim=1)[0].numpy()
    seen = np.flatnonzero(moved > 0)
    centre = extract(folder, noise(16000)).times.mean(axis=1)
    assert len(centre) == len(moved)
    assert list(seen) == list(np.flatnonzero(np.abs(centre - (at + 0.5) / RATE) < 0.0125))


def test_times(folder: Path) -> None:
    times = extract(folder, noise(RATE)).times
    assert len(times) == 49
    np.testing.assert_allclose(times[:, 0], 0.0025 + 0.02 * np.arange(49))
    np.testing.assert_allclose(times[:, 1], 0.0225 + 0.02 * np.arange(49))
    assert build(folder).info["rate"] == 50


def test_other_strides(tmp_path: Path) -> None:
    """Hop and width come from the model; a hop wider than what is seen stays in the clip."""
    sizes = {"conv_dim": (8, 8), "conv_kernel": (4, 2), "conv_stride": (5, 2)}
    save(tmp_path, num_feat_extract_layers=2, prepare={"sampling_rate": 8000}, **sizes)
    clip = SoundClip(noise(105)[:105])
    extractor = build(tmp_path, channel="first")
    times = extractor.extract(clip).times * 8000
    assert clip.asked == (8000, "first")
    assert len(times) == 10 and times[0].tolist() == [0, 9.5]  # it sees 4 + (2 - 1) * 5 samples
    np.testing.assert_allclose(times[1], [9.5, 19.5])
    assert extractor.info["rate"] == 800


@pytest.mark.parametrize("rows", [49, 50, 73, 74, 130])
@pytest.mark.parametrize("at_once", [1, 3])
def test_long_sound_is_read_in_windows(folder: Path, rows: int, at_once: int) -> None:
    """Every row has the state it gets in the window where the nearest cut is farthest."""
    sound = noise(400 + 320 * (rows - 1) + 319, seed=rows)
    extractor = build(folder, window_s=1.0)
    extractor.batch = at_once
    got = extractor.extract(SoundClip(sound)).values
    assert len(got) == rows
    size, x = 49, unit(sound)  # 49 frames in a second
    starts = []
    while not starts or starts[-1] + size < rows:
        starts.append(max(0, min(24 * len(starts), rows - size)))
    seen = {}
    for s in starts:
        end = len(x) if s + size >= rows else s * 320 + 48 * 320 + 400
        seen[s] = states(folder, x[s * 320 : end])
    for i in range(rows):
        distances = {}
        for s in starts:
            if s <= i < s + size:
                to_left = i - s if s > 0 else 10**6
                to_right = s + size - 1 - i if s + size < rows else 10**6
                distances[s] = min(to_left, to_right)
        best = [s for s, d in distances.items() if d == max(distances.values())]
        assert any(np.allclose(got[i], seen[s][i - s], atol=1e-5) for s in best), i
    if rows >= 73:  # the first window alone would have given other numbers
        assert not np.allclose(got[:size], seen[0], atol=1e-2)


LENGTHS = [8000, 12345, 400, 8000, 30000, 12345, 12345, 719, 5000]


def compare(extractor: HFAudio, at_once: int) -> list[list[int]]:
    """Clips together are what each is alone; returns the lengths that went together."""
    clips = [SoundClip(noise(n, seed=i), f"c{i}") for i, n in enumerate(LENGTHS)]
    assert extractor.batch == 1  # on the CPU
    alone = [extractor.extract(clip) for clip in clips]
    extractor.batch, calls = at_once, []
    real = extractor._states

    def watched(pieces):
        calls.append([len(p) for p in pieces])
        return real(pieces)

    extractor._states = watched
    together = extractor.extract_many(clips)
    for one, many in zip(alone, together, strict=True):
        np.testing.assert_allclose(many.values, one.values, atol=1e-5, rtol=0)
        np.testing.assert_array_equal(many.times, one.times)
    return calls


def test_equal_lengths_go_together_where_padding_would_show(folder: Path) -> None:
    calls = compare(build(folder), at_once=2)
    assert sorted(calls) == sorted(
        [[400], [719], [5000], [8000, 8000], [12345, 12345], [12345], [30000]]
    )
    # The test above would notice padding: in this model it changes the numbers.
    extractor = build(folder)
    extractor._pads = True
    with pytest.raises(AssertionError, match="Not equal"):
        compare(extractor, at_once=4)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm"])
@pytest.mark.parametrize("layer", [1, -1])
def test_similar_lengths_go_together_under_a_mask(tmp_path: Path, kind: str, layer: int) -> None:
    save(tmp_path, kind, **MASKED)
    calls = compare(build(tmp_path, layer=layer), at_once=4)
    assert calls == [[400, 719, 5000, 8000], [8000, 12345, 12345, 12345], [30000]]


@pytest.mark.parametrize("at_once", [2, 8])
def test_windows_of_several_clips_go_together(masked: Path, at_once: int) -> None:
    compare(build(masked, window_s=1.0), at_once)


@pytest.mark.parametrize(
    ("kind", "config"),
    [("data2vec-audio", {}), ("hubert", {**MASKED, "conv_pos_batch_norm": True})],
)
def test_other_kinds_are_not_padded(tmp_path: Path, kind: str, config: dict) -> None:
    save(tmp_path, kind, **config)
    assert max(len(set(call)) for call in compare(build(tmp_path), at_once=4)) == 1


def test_a_clip_without_sound_among_others(masked: Path) -> None:
    extractor = build(masked)
    extractor.batch = 4
    with pytest.warns(MertoolWarning) as caught:
        rows = extractor.extract_many([SoundClip(noise(n)) for n in (8000, 0, 399, 9000)])
    assert [len(r) for r in rows] == [24, 0, 0, 27]
    assert [str(w.message)[:17] for w in caught] == ["no sound, no hf r", "the sound is shor"]


@pytest.mark.parametrize(("samples", "why"), [(0, "no sound"), (1, "25 ms"), (399, "25 ms")])
def test_too_little_sound(folder: Path, samples: int, why: str) -> None:
    with pytest.warns(MertoolWarning, match=f"{why}, no hf rows"):
        rows = extract(folder, noise(samples))
    assert rows.values.shape == (0, 16) and rows.times.shape == (0, 2)


def test_one_frame_is_enough(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(extract(folder, noise(400))) == 1


def test_silence_is_finite(folder: Path) -> None:
    assert len(extract(folder, np.zeros(RATE))) == 49


def test_info(folder: Path) -> None:
    extractor = build(folder)
    assert extractor.columns[:2] == ["dim000", "dim001"] and len(extractor.columns) == 16
    assert extractor.info["model"] == str(folder)
    assert extractor.info["licence"] == "unknown"


def test_adapter_is_left_out(tmp_path: Path) -> None:
    save(tmp_path, add_adapter=True, output_hidden_size=8)
    rows = extract(tmp_path, noise(8000))
    assert rows.values.shape == (24, 16)


def test_weights_saved_with_a_head_or_before_a_renaming(folder: Path, tmp_path: Path) -> None:
    """Published checkpoints: names begin with the model's, weight norms have their old names."""
    from safetensors.torch import load_file, save_file

    for file in ("config.json", "preprocessor_config.json"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    old = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        name = name.replace("parametrizations.weight.original0", "weight_g")
        name = name.replace("parametrizations.weight.original1", "weight_v")
        old[f"wav2vec2.{name}"] = tensor
    del old["wav2vec2.masked_spec_embed"]  # of training alone
    assert "wav2vec2.encoder.pos_conv_embed.conv.weight_g" in old
    old["lm_head.weight"] = torch.zeros(4, 16)
    save_file(old, tmp_path / "model.safetensors", {"format": "pt"})
    got, expected = (extract(f, noise(8000)).values for f in (tmp_path, folder))
    np.testing.assert_array_equal(got, expected)


def test_missing_weights_are_an_error(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.layers.1.final_layer_norm.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(MertoolError, match=r"1 weights are missing.*layers\.1"):
        build(tmp_path)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(MertoolError, match=r"(?s)audio model.*refused"):
        build(tmp_path)


def test_another_kind_is_refused(tmp_path: Path) -> None:
    small = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 9}
    heads = {"encoder_attention_heads": 1, "decoder_attention_heads": 1, "pad_token_id": 0}
    WhisperModel(WhisperConfig(**small, **heads)).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(MertoolError, match='not read: "whisper"') as caught:
        build(tmp_path)
    assert "wavlm" in caught.value.where and "--set audio.model" in caught.value.fix


def test_code_of_a_model_is_not_run(tmp_path: Path) -> None:
    save(tmp_path)
    mark = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass C: pass\n")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "own.C", "AutoModel": "own.C"}, "model_type": "own"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MertoolError, match="cannot be loaded"):
        build(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"garbage of some length", None])
@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_broken_files(tmp_path: Path, file: str, content: bytes | None) -> None:
    save(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(MertoolError, match="audio model") as caught:
        build(tmp_path)
    assert caught.value.where and caught.value.fix


@pytest.mark.parametrize("model", ["nobody/no-such-model-2718", "/no/such/folder"])
def test_unreachable_model(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MertoolError, match="audio model cannot be downloaded") as caught:
        HFAudio(HFAudio.Config(model=model))
    assert "--set audio.model=DIR" in caught.value.fix and "--audio covarep" in caught.value.fix
    assert len(str(caught.value).splitlines()) == 3


def test_nothing_on_stderr(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    extract(folder, noise(8000))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "settings", [{"model": " "}, {"window_s": 0.5}, {"window_s": float("nan")}, {"channel": "x"}]
)
def test_impossible_settings(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        HFAudio.Config(**settings)


def test_unknown_device(folder: Path) -> None:
    with pytest.raises(UsageError):
        HFAudio(HFAudio.Config(model=str(folder)), device="abacus")


def test_every_check_passes(folder: Path) -> None:
    assert failed(check_extractor("hf", [f"audio.model={folder}"])) == []


@pytest.mark.gpu
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_gpu_gives_the_same(tmp_path: Path, norm: str) -> None:
    save(tmp_path, feat_extract_norm=norm)
    config = HFAudio.Config(model=str(tmp_path), window_s=1.0)
    clips = [SoundClip(noise(n, seed=n)) for n in (8000, 9000, 9000, 50000)]
    gpu = HFAudio(config, "cuda")
    assert gpu.batch > 1
    for clip, together in zip(clips, gpu.extract_many(clips), strict=True):
        alone = HFAudio(config, "cpu").extract(clip)
        np.testing.assert_allclose(together.values, alone.values, atol=1e-3)


@pytest.mark.hub
def test_wav2vec2_base() -> None:
    assert extract(Path(HFAudio.Config().model), noise(RATE)).values.shape == (49, 768)
