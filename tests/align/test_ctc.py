"""The CTC aligner: made-up emissions with known boundaries, and tiny random models."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    HubertConfig,
    HubertForCTC,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMForCTC,
)

from mertool import align
from mertool.align import ctc
from mertool.align.ctc import CTC
from mertool.align.letters import Alphabet
from mertool.errors import DataError, MertoolError, MertoolWarning
from mertool.testing import check_aligner, failed
from mertool.transcripts import voice
from mertool.types import Clip, Word
from mertool.words import split_words

RATE = 16000
ENGLISH = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
KINDS = {
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2ForCTC),
    "hubert": (HubertConfig, HubertForCTC),
    "wavlm": (WavLMConfig, WavLMForCTC),
}
MASKED = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}


class SoundClip(Clip):
    """A clip whose sound is given."""

    def __init__(self, sound: np.ndarray, text: str, language: str = "", name: str = "c") -> None:
        super().__init__(id=name, text=text, language=language)
        self.sound = np.asarray(sound, np.float32)

    def audio(self, rate: int = RATE, channel: str = "mean") -> np.ndarray:
        return self.sound


def save(
    folder: Path,
    vocabulary: list[str] = ENGLISH,
    kind: str = "wav2vec2",
    tokenizer: dict | None = None,
    **config: object,
) -> Path:
    """A random model of two layers with the common convolutions: 25 ms seen, 20 ms apart."""
    torch.manual_seed(0)
    small = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24, "conv_dim": (8,) * 7, "num_conv_pos_embedding_groups": 2,
        "num_conv_pos_embeddings": 8, "initializer_range": 0.3, "vocab_size": len(vocabulary),
        "pad_token_id": vocabulary.index("<pad>"),
    }  # fmt: skip
    made, model = KINDS[kind]
    model(made(**{**small, **config})).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    tokens = {token: i for i, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(tokens), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer or {}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("english"))


@pytest.fixture(scope="module")
def english(folder: Path) -> CTC:
    return build(folder)


def build(folder: Path, **settings: object) -> CTC:
    return CTC(CTC.Config(model=str(folder), **settings), "cpu")


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def heard(aligner: CTC, *frames: str, sure: float = 0.9) -> CTC:
    """An aligner that hears these letters, one per frame, "_" the blank, "?" nothing known."""
    letters = {**aligner._alphabet.letters, "_": aligner._blank}
    if aligner._alphabet.delimiter is not None:
        letters["|"] = aligner._alphabet.delimiter
    size = aligner._width - 1
    found = []
    for line in frames:
        probabilities = np.full((len(line), size), (1 - sure) / (size - 1))
        for t, letter in enumerate(line):
            probabilities[t] = 1 / size if letter == "?" else probabilities[t]
            if letter != "?":
                probabilities[t, letters[letter]] = sure
        logprobs = np.log(probabilities).astype(np.float32)
        wildcard = logprobs.max(axis=1, keepdims=True) - ctc._WILDCARD
        found.append(np.concatenate([logprobs, wildcard], axis=1))

    class Heard(CTC):
        def __init__(self) -> None:
            self.__dict__.update(aligner.__dict__)

        def _frames(self, sounds: list[np.ndarray]) -> list[np.ndarray]:
            assert [self._rows(len(s)) for s in sounds] == [len(e) for e in found]
            return found

    return Heard()


def frames(count: int) -> np.ndarray:
    """Sound of so many frames of 20 ms."""
    return noise(400 + 320 * (count - 1))


def times(words: list[Word]) -> list[tuple[int, int]]:
    """First frame and the one behind the last."""
    edges = [(w.start / 0.02, w.end / 0.02) for w in words]
    assert np.allclose(edges, np.round(edges), atol=1e-6)
    return [(round(a), round(b)) for a, b in edges]


def test_boundaries_are_where_they_are_heard(english: CTC) -> None:
    line = "___HH_I__|__II_T__"
    words = heard(english, line).align(SoundClip(frames(len(line)), "Hi, it!"))
    assert [w.text for w in words] == ["Hi,", "it!"]
    assert times(words) == [(3, 7), (12, 16)]
    assert [w.score for w in words] == [pytest.approx(0.9, abs=1e-6)] * 2


def test_the_score_is_the_geometric_mean_of_the_letters(english: CTC) -> None:
    """Of H, I and T one is heard as anything: 1/31 there; blanks do not count."""
    line = "__H__?_T__"
    [word] = heard(english, line, sure=0.8).align(SoundClip(frames(len(line)), "hit"))
    assert times([word]) == [(2, 8)]
    assert word.score == pytest.approx((0.8 * 0.8 / len(ENGLISH)) ** (1 / 3), rel=1e-5)


def test_a_word_that_is_not_said_scores_low(english: CTC) -> None:
    line = "__HI_|_TEA_|_IT__"
    clip = SoundClip(frames(len(line)), "hi bob it")
    words = heard(english, line).align(clip)
    assert [times(words)[i] for i in (0, 2)] == [(2, 4), (13, 15)]
    assert words[1].score < 0.01 < 0.8 < min(words[0].score, words[2].score)


def test_double_letters_need_a_blank_between(english: CTC) -> None:
    line = "_SE_E__SEE_"
    [first, second] = heard(english, line.replace("SEE_", "|SEE")).align(
        SoundClip(frames(len(line)), "see se")
    )
    assert times([first, second]) == [(1, 5), (8, 11)]


def test_letters_that_the_model_lacks_get_a_place(english: CTC) -> None:
    """A word in another script lies where nothing else accounts for the sound."""
    line = "__HI__|__BOB_WAS__|__IT__"
    words = heard(english, line).align(SoundClip(frames(len(line)), "hi дом it"))
    assert times(words) == [(2, 4), (9, 16), (21, 23)]
    assert words[1].score == 0 and min(words[0].score, words[2].score) > 0.8


def test_a_single_letter_that_is_lacking_does_not_count(english: CTC) -> None:
    line = "__HI__T_A__"
    [word] = heard(english, line).align(SoundClip(frames(len(line)), "hiдta"))
    assert times([word]) == [(2, 9)] and word.score == pytest.approx(0.9, abs=1e-6)


def test_words_stay_within_the_clip(english: CTC) -> None:
    clip = SoundClip(frames(4), "it")
    clip.end = 0.07  # its sound is a little longer than it says
    [word] = heard(english, "__IT").align(clip)
    assert (word.start, word.end) == (0.04, 0.07)


LETTERS = {c: i for i, c in enumerate("abcdefghijklmnopqrstuvwxyz'äß", start=1)}
LOWER = Alphabet(LETTERS, 0, 99)


def spelt(alphabet: Alphabet, word: str, language: str = "") -> str:
    back = {i: c for c, i in alphabet.letters.items()} | {0: "|", alphabet.wildcard: "*"}
    return "".join(back[token] for token in alphabet.spell(word, language))


@pytest.mark.parametrize(
    ("word", "language", "expected"),
    [
        ("Hello,", "en", "hello"), ("DON’T", "en", "don't"), ("naïve", "fr", "naive"),
        ("café", "", "cafe"), ("Mädchen", "de", "mädchen"), ("MA\u0308DCHEN", "de", "mädchen"),
        ("STRAẞE", "de", "straße"), ("ﬁn", "", "fin"), ("“so”", "", "so"),
        ("21st", "en", "twenty|first"), ("21", "", "twenty|one"), ("21", "de", "*"),
        ("1.5", "en-GB", "one|point|five"), ("B2B", "en", "b|two|b"), ("B2B", "de", "b*b"),
        ("дом", "ru", "*"), ("well-known--", "en", "well|known"), ("and/or", "en", "and|or"),
        ("R&B", "en", "rb"), ("٣", "ar", "*"), ("xдy", "", "x*y"),
    ],
)  # fmt: skip
def test_spelling(word: str, language: str, expected: str) -> None:
    assert spelt(LOWER, word, language) == expected


def test_spelling_follows_the_model() -> None:
    upper = Alphabet({c: i for i, c in enumerate("ABES123", start=1)}, None, 99)
    assert spelt(upper, "base") == "BASE" and spelt(upper, "Baß") == "BASS"
    assert spelt(upper, "321") == "321"  # digits that it has are not spelt out
    assert spelt(upper, "a's") == "AS" and spelt(upper, "as-as") == "ASAS"
    decomposed = Alphabet({"a": 1, "\u0301": 2, "o": 3}, None, 99)
    assert spelt(decomposed, "áo") == "a\u0301o" and spelt(decomposed, "ào") == "ao"
    both = Alphabet({"i": 1, "I": 2}, None, 99)
    assert both.spell("Ii") == [2, 1]


def test_a_language_of_its_own(tmp_path: Path) -> None:
    """Lower-case Cyrillic; the blank is elsewhere, numbers in Russian are not English."""
    cyrillic = [*"абвгдежзийклмнопрстуфхцчшщъыьэюя", "|", "<unk>", "<pad>", "<s>", "</s>"]
    aligner = build(save(tmp_path, cyrillic))
    assert aligner._blank == 34
    line = "__да__|_нет__|__а_я_"
    words = heard(aligner, line).align(SoundClip(frames(len(line)), "Да, НЕТ — 5", "ru"))
    assert [w.text for w in words] == ["Да,", "НЕТ", "5"]
    assert times(words)[:2] == [(2, 4), (8, 11)] and words[2].score == 0
    assert times(words)[2] == (16, 19)


def test_a_script_without_spaces(tmp_path: Path) -> None:
    """Every letter is a word; between them stands no delimiter, between phrases one does."""
    aligner = build(save(tmp_path, ["<pad>", "<s>", "</s>", "<unk>", "|", *"我爱你们吧"]))
    line = "_我_爱爱__你|_吧吧吧__"
    words = heard(aligner, line).align(SoundClip(frames(len(line)), "我爱你 吧。", "zh"))
    assert [w.text for w in words] == ["我", "爱", "你", "吧"]
    assert times(words) == [(1, 2), (3, 5), (7, 8), (10, 13)]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_emissions_are_the_models(tmp_path: Path, kind: str) -> None:
    """Of a whole sound, normalised; and the wildcard beside them."""
    aligner = build(save(tmp_path, kind=kind))
    sound = noise(9999)
    unit = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
    model = KINDS[kind][1].from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = model(torch.from_numpy(unit)[None]).logits[0].log_softmax(-1).numpy()
    [got] = aligner._frames([aligner._normalise(sound)])
    assert got.shape == (30, len(ENGLISH) + 1)
    np.testing.assert_allclose(got[:, :-1], expected, atol=1e-4)
    np.testing.assert_allclose(got[:, -1], expected.max(axis=1) - 0.1, atol=1e-4)


TEXTS = ["one two", "three", "дом", "a much longer sentence, said here", "two 2", "ok then"]


def clips() -> list[SoundClip]:
    lengths = [8000, 12345, 16000, 40000, 8000, 30000]
    return [
        SoundClip(noise(n, seed=i), t, name=f"c{i}")
        for i, (n, t) in enumerate(zip(lengths, TEXTS, strict=True))
        if t != "дом"
    ]


@pytest.mark.parametrize("norm", [{}, MASKED], ids=["group", "layer"])
@pytest.mark.parametrize("window", [1.0, 20.0])
def test_together_is_as_alone(tmp_path: Path, norm: dict, window: float) -> None:
    aligner = build(save(tmp_path, **norm), window_s=window)
    assert aligner.batch == 1  # on the CPU
    alone = [aligner.align(clip) for clip in clips()]
    together = build(tmp_path, batch=3, window_s=window)
    assert together.batch == 3
    for one, many in zip(alone, together.align_many(clips()), strict=True):
        assert [(w.text, w.start, w.end) for w in one] == [(w.text, w.start, w.end) for w in many]
        np.testing.assert_allclose([w.score for w in one], [w.score for w in many], rtol=1e-3)


def test_paths_of_too_many_together_are_sought_in_parts(
    english: CTC, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = english.align_many(clips())
    asked = []
    real = ctc.forced_paths

    def watched(padded, *args):
        asked.append(len(padded))
        return real(padded, *args)

    monkeypatch.setattr(ctc, "forced_paths", watched)
    assert english.align_many(clips()) == expected
    monkeypatch.setattr(ctc, "LARGEST", 124 * 4 * (english._width + 20) + 1000)
    assert english.align_many(clips()) == expected
    assert asked[0] == 5 and len(asked) > 2 and sum(asked[1:]) == 5


def evenly(aligner: CTC, clip: Clip, reason: str) -> list[tuple[float, float]]:
    with pytest.warns(MertoolWarning, match=reason) as caught:
        words = aligner.align(clip)
    assert len(caught) == 1
    assert [w.text for w in words] == [clip.text[a:b] for a, b in split_words(clip.text)]
    assert {w.score for w in words} == {-1}
    return [(w.start, w.end) for w in words]


def test_what_cannot_be_aligned_is_spaced_where_there_is_voice(
    english: CTC, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice, "span", lambda sound: (0.2, 0.8) if np.any(sound) else None)
    sound = frames(50)
    got = evenly(english, SoundClip(sound, "дом да нет"), "letters; all .* where there is voice")
    np.testing.assert_allclose(got, [(0.2, 0.4), (0.4, 0.6), (0.6, 0.8)])
    got = evenly(english, SoundClip(np.zeros(RATE), "a b"), "no sound; all .* over the clip")
    np.testing.assert_allclose(got, [(0.0, 0.5), (0.5, 1.0)])
    short = SoundClip(frames(5), "said too fast")
    short.end = 0.5
    got = evenly(english, short, "too short")
    assert got[0][0] == 0.2 and got[-1][1] == 0.5
    mute = SoundClip(np.zeros(0), "a b")
    mute.end = 3.0
    np.testing.assert_allclose(evenly(english, mute, "no sound"), [(0.0, 1.5), (1.5, 3.0)])


def test_emissions_that_are_no_numbers(english: CTC) -> None:
    aligner = heard(english, "_IT_")
    [found] = aligner._frames([frames(4)])
    found[2] = np.nan
    evenly(aligner, SoundClip(frames(4), "it"), "does not fit")


def test_no_words(english: CTC) -> None:
    assert english.align(SoundClip(frames(9), " -- ")) == []
    assert english.align_many([]) == []


def test_a_clip_that_is_too_long(english: CTC, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the model is run; another clip is not too long."""
    monkeypatch.setattr(CTC, "_frames", lambda *_: pytest.fail("the model was run"))
    clip = SoundClip(np.ones(40 * 60 * RATE, np.float32), "word " * 6000, name="long")
    with pytest.raises(DataError, match="too long.*40 minutes, 6000 words") as caught:
        english.align(clip)
    assert caught.value.where == "long" and "extract --segment" in caught.value.fix


# --- The model ---


def test_every_check_passes(folder: Path) -> None:
    assert failed(check_aligner("ctc", [f"align.model={folder}"])) == []


def test_a_model_without_a_ctc_layer(tmp_path: Path, folder: Path) -> None:
    save(tmp_path)
    Wav2Vec2Model.from_pretrained(folder).save_pretrained(tmp_path)
    with pytest.raises(MertoolError, match="weights are missing, lm_head"):
        build(tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"tokenizer": {"tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer"}}, "phonemes"),
        ({"vocabulary": ["<pad>", "a", "th", "en", "sto"]}, "only 1 are letters"),
        ({"add_adapter": True, "output_hidden_size": 16}, "adapter"),
    ],
    ids=["phonemes", "pieces", "adapter"],
)
def test_models_that_cannot_be_used(tmp_path: Path, change: dict, why: str) -> None:
    save(tmp_path, **change)
    with pytest.raises(MertoolError, match=why) as caught:
        build(tmp_path)
    assert caught.value.where and "--set align.model" in caught.value.fix


def test_a_vocabulary_for_each_language(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({"eng": {"<pad>": 0, "a": 1}}))
    with pytest.raises(MertoolError, match="each of several languages"):
        build(tmp_path)


@pytest.mark.parametrize(
    "file", ["vocab.json", "model.safetensors", "config.json", "preprocessor_config.json"]
)
def test_files_that_are_missing(tmp_path: Path, file: str) -> None:
    (save(tmp_path) / file).unlink()
    with pytest.raises(MertoolError, match="align model") as caught:
        build(tmp_path)
    assert caught.value.where and caught.value.fix


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"a": "b"}', '{"<pad>": 0}'])
def test_a_broken_vocabulary(tmp_path: Path, content: str) -> None:
    (save(tmp_path) / "vocab.json").write_text(content)
    with pytest.raises(MertoolError, match="none that writes letters"):
        build(tmp_path)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (save(tmp_path) / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(MertoolError, match="refused"):
        build(tmp_path)


def test_an_unreachable_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MertoolError, match="align model cannot be downloaded") as caught:
        CTC(CTC.Config(model="nobody/no-such-model-2718"))
    assert "--aligner pocketsphinx" in caught.value.fix


@pytest.mark.parametrize("settings", [{"model": " "}, {"batch": -1}, {"window_s": 0.5}])
def test_impossible_settings(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        CTC.Config(**settings)


def test_a_tokenizer_saved_by_transformers(tmp_path: Path) -> None:
    """Its own files, with names of its own for the special tokens."""
    save(tmp_path, [" ", "a", "b", "<pad>", "[UNK]"])
    tokens = {t: i for i, t in enumerate([" ", "a", "b", "[PAD]", "[UNK]"])}
    (tmp_path / "vocab.json").write_text(json.dumps(tokens))
    tokenizer = Wav2Vec2CTCTokenizer(
        tmp_path / "vocab.json", pad_token="[PAD]", unk_token="[UNK]", word_delimiter_token=" "
    )
    tokenizer.save_pretrained(tmp_path)
    aligner = build(tmp_path)
    assert aligner._blank == 3
    assert (dict(aligner._alphabet.letters), aligner._alphabet.delimiter) == ({"a": 1, "b": 2}, 0)


def test_nothing_on_stderr(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(folder).align(SoundClip(noise(RATE), "one two"))
    assert capfd.readouterr() == ("", "")


def test_through_the_stage(folder: Path, tmp_path: Path) -> None:
    """Settings are recorded, batches and processes change nothing."""
    import mertool
    from mertool.demo import CLIPS
    from mertool.store import FeatureFile

    feats = tmp_path / "f.h5"
    mertool.extract(CLIPS, feats, text="none", audio="logmel", vision="none")
    outs = []
    for i, more in enumerate(([], ["align.batch=4"])):
        out = tmp_path / f"{i}.h5"
        settings = [f"align.model={folder}", *more]
        report = align.run(feats, out, aligner="ctc", settings=settings, jobs=1)
        assert report.exit_code == 0 and report.words and not report.unaligned_words
        with FeatureFile(out) as file:
            attrs = file.streams["audio"].attrs
            assert attrs["aligner"] == "ctc" and attrs["realigned"]
            assert json.loads(attrs["aligner_config"])["model"] == str(folder)
            outs.append([[(w.text, w.start, w.end) for w in clip.words] for clip in file])
    assert outs[0] == outs[1]


@pytest.mark.hub
def test_the_default_model() -> None:
    """A sentence of the demo: its words are where pocketsphinx finds them, but for 100 ms."""
    from mertool.align.sphinx import Pocketsphinx
    from mertool.testing.clips import ordinary

    clip = ordinary()
    words, rough = CTC(CTC.Config()).align(clip), Pocketsphinx().align(clip)
    differences = [abs(a.start - b.start) for a, b in zip(words, rough, strict=True)]
    assert np.median(differences) < 0.1 and np.median([w.score for w in words]) > 0.5


@pytest.mark.gpu
@pytest.mark.parametrize("norm", [{}, MASKED], ids=["group", "layer"])
def test_gpu_gives_the_same(tmp_path: Path, norm: dict) -> None:
    save(tmp_path, **norm)
    gpu = CTC(CTC.Config(model=str(tmp_path)), "cuda")
    assert gpu.batch == 8
    for one, many in zip(
        [build(tmp_path).align(clip) for clip in clips()], gpu.align_many(clips()), strict=True
    ):
        np.testing.assert_allclose(
            [(w.start, w.end, w.score) for w in one],
            [(w.start, w.end, w.score) for w in many],
            atol=0.021,
        )
