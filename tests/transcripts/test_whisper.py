"""Whisper: a tiny random one that the tests make, and the logic of word times by itself."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from media_samples import write_wav
from spoken import RATE, scene
from tiny_whisper import WORDS, save_whisper

from mertool.errors import MertoolError, UsageError
from mertool.transcripts.recognise import Config, recognise, recogniser
from mertool.transcripts.whisper import Whisper
from mertool.transcripts.wordtimes import characters, focus, warp, within, words_of
from mertool.types import Clip, Word
from mertool.words import split_words


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("whisper") / "tiny")


@pytest.fixture(scope="module")
def whisper(folder: Path) -> Whisper:
    return Whisper(Config("whisper", str(folder)), "cpu")


def check(transcript, duration: float) -> None:
    """Words are those of the text, in order, without overlap, within the sound."""
    assert transcript.cues
    times = []
    for cue in transcript.cues:
        assert [w.text for w in cue.words] == [cue.text[a:b] for a, b in split_words(cue.text)]
        assert (cue.start, cue.end) == (cue.words[0].start, cue.words[-1].end)
        times += [t for w in cue.words for t in (w.start, w.end)]
        assert all(0 <= w.score <= 1 for w in cue.words)
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0 and times[-1] <= duration


def test_a_recording_longer_than_the_model_hears_at_once(folder: Path, tmp_path: Path):
    sound = scene(0.5, 3, 0.6, 3, 0.5, 7, 2.5, 1, 0.5)  # windows of at most 4 s
    path = write_wav(tmp_path / "long.wav", sound)
    clip = Clip("long", path.name, str(tmp_path))
    config = Config("whisper", str(folder))
    found = recognise(clip, config)
    check(found, len(sound) / RATE)
    assert len(found.cues) >= 4
    assert found.language in ("en", "de", "jv")
    assert all(word.text.rstrip("sing.é") for cue in found.cues for word in cue.words)
    recogniser.cache_clear()
    assert recognise(clip, config) == found
    # A part of it: times stay those of the recording.
    part = recognise(Clip("part", path.name, str(tmp_path), start=4.0, end=8.0), config)
    assert part.cues[0].start >= 4.0
    assert part.cues[-1].end <= 8.0
    recogniser.cache_clear()


def test_words_keep_to_the_voice(whisper: Whisper):
    found = whisper.recognise([(10.0, scene(1, 1, 2))], "en", [(11.0, 12.0)])
    check(found, 14.0)
    inside = [w for cue in found.cues for w in cue.words if w.start < 12.0 and w.end > 11.0]
    assert all(11.0 <= w.start and w.end <= 12.0 for w in inside)


def test_pieces_together_are_as_each_alone(whisper: Whisper, monkeypatch):
    pieces = [(0.0, scene(0, 2, 0.2)), (3.0, scene(0.3, 1.5)), (6.0, scene(0.1, 3))]
    monkeypatch.setattr(whisper, "_batch", 2)  # as on a GPU, two and one
    together = whisper.recognise(pieces, "de", [(0.0, 10.0)])
    alone = [cue for p in pieces for cue in whisper.recognise([p], "de", [(0.0, 10.0)]).cues]
    assert [c.text for c in together.cues] == [c.text for c in alone]
    assert together.language == "de"


def test_a_given_language_is_believed_and_changes_the_prompt(whisper: Whisper):
    start = whisper._ids["startoftranscript"]
    rest = [whisper._ids["transcribe"], whisper._ids["notimestamps"]]
    german = whisper._language_token("de-CH")
    assert whisper._prompt(german) == [start, german, *rest]
    assert whisper._tokenizer.convert_ids_to_tokens(whisper._language_token("jv")) == "<|jw|>"
    with pytest.raises(UsageError, match='does not know the language "fi"'):
        whisper._language_token("fi")


def test_the_language_is_the_likeliest_of_all_pieces(whisper: Whisper, monkeypatch):
    tokens = whisper._languages
    logits = torch.full((2, 1, 28), -20.0)
    logits[0, 0, tokens["en"]], logits[0, 0, tokens["de"]] = 2.0, 1.0
    logits[1, 0, tokens["en"]], logits[1, 0, tokens["de"]] = 0.0, 4.0
    monkeypatch.setattr(whisper, "_model", lambda **_: SimpleNamespace(logits=logits))
    token, language, sure = whisper._detect(torch.zeros(2, 1, 1))
    assert (token, language) == (tokens["de"], "de")
    # Mean log probabilities of en and de differ by ((2 - 1) + (0 - 4)) / 2 = -1.5.
    assert sure == pytest.approx(1 / (1 + np.exp(-1.5)), abs=1e-3)


def test_a_model_of_english_alone(tmp_path: Path):
    folder = save_whisper(tmp_path / "english", english=True)
    whisper = Whisper(Config("whisper", str(folder)), "cpu")
    assert whisper._prompt(whisper._language_token("en-US")) == [
        whisper._ids["startoftranscript"], whisper._ids["notimestamps"]
    ]  # fmt: skip
    found = whisper.recognise([(0.0, scene(0.2, 1.5))], "", [(0.0, 2.0)])
    assert found.language == "en"
    with pytest.raises(UsageError, match='language "de"'):
        Whisper(Config("whisper", str(folder), "de"), "cpu")


def test_without_alignment_heads_the_last_layers_do_and_it_is_said(tmp_path: Path):
    folder = save_whisper(tmp_path / "headless", heads=False)
    whisper = Whisper(Config("whisper", str(folder)), "cpu")
    assert whisper._heads == [(1, 0), (1, 1)]
    found = whisper.recognise([(0.0, scene(0.2, 1.5))], "en", [(0.0, 2.0)])
    check(found, 2.0)
    assert any("alignment heads" in note for note in found.notes)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("model.safetensors", None, "no safetensors weights"),
        ("tokenizer.json", None, "no tokenizer"),
        ("config.json", {"model_type": "bert"}, "not \"whisper\""),
        ("preprocessor_config.json", {"chunk_length": 30}, "frames for 300 positions"),
        ("preprocessor_config.json", {"feature_size": 128}, "128 bands for 80"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_whisper_is_refused(folder, tmp_path, file, change, message):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    if change is None:
        (tmp_path / file).unlink()
    else:
        content = json.loads((tmp_path / file).read_text())
        (tmp_path / file).write_text(json.dumps(content | change))
    with pytest.raises(MertoolError) as caught:
        Whisper(Config("whisper", str(tmp_path)), "cpu")
    assert message in str(caught.value)
    assert str(tmp_path) in caught.value.where and caught.value.fix


def test_a_model_that_cannot_be_downloaded_is_three_lines(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MertoolError) as caught:
        Whisper(Config("whisper", "nobody/no-such-whisper"))
    assert "asr model cannot be downloaded" in caught.value.what
    assert "--set asr.model=DIR" in caught.value.fix
    assert "--set asr.engine=pocketsphinx" in caught.value.fix


class Fake:
    """Stands for the model: writes tokens, and looks where it is told to."""

    def __init__(self, whisper: Whisper, written: list[int], edges: list[int], silent: float = 0):
        self.whisper, self.written, self.edges = whisper, written, edges
        self.silence = silent

    def __call__(self, decoder_input_ids, encoder_outputs, output_attentions=False, **_):
        ids = decoder_input_ids[0].tolist()
        prompt = len(self.whisper._prompt(19))
        logits = torch.full((1, len(ids), 28), -10.0)
        for i in range(len(ids)):
            k = i - (prompt - 1)  # what the position before writes
            token = self.written[k] if 0 <= k < len(self.written) else self.whisper._end
            logits[0, i, token] = 3.0
        if self.silence:
            logits[0, 0] = -50.0
            logits[0, 0, self.whisper._silence] = 0.0
        looks = torch.full((1, 2, len(ids), 300), 1e-3)
        for k, (a, b) in enumerate(itertools.pairwise(self.edges)):
            looks[:, :, prompt - 1 + k, a:b] = 1.0
        return SimpleNamespace(logits=logits, cross_attentions=[looks, looks])


def test_words_stand_where_the_heads_look(whisper: Whisper, monkeypatch):
    vocabulary = whisper._tokenizer.get_vocab()
    written = [vocabulary[t] for t in ("Ġhello", "Ġwell", "ing", ".")]
    # Positions of 20 ms: hello 0.2 to 0.6 s (its row looks from the start on), well-ing-. to 1.2 s.
    fake = Fake(whisper, written, [0, 30, 45, 55, 60, 100])
    monkeypatch.setattr(whisper, "_model", fake)
    sound = np.zeros(2 * RATE, np.float32)
    cue, note = whisper._cue((5.0, sound), torch.zeros(1, 1), written, 19, [(5.2, 7.0)])
    assert cue.text == "hello welling."
    hello, welling = cue.words
    assert (hello.text, welling.text) == ("hello", "welling.")
    assert (hello.start, hello.end) == pytest.approx((5.2, 5.6))  # it begins with the voice
    assert (welling.start, welling.end) == pytest.approx((5.6, 6.2))
    # Logit 3 among those that may be written at -10: all but the eleven `never` ones.
    allowed = 28 - len(whisper._never)
    assert hello.score == pytest.approx(1 / (1 + (allowed - 1) * np.exp(-13)), abs=1e-6)
    assert note == ""


def test_where_silence_is_likelier_than_unlikely_words_nothing_is_said(whisper, monkeypatch):
    vocabulary = whisper._tokenizer.get_vocab()
    written, other = vocabulary["Ġhello"], vocabulary["Ġworld"]
    sound = np.zeros(RATE, np.float32)
    for said, silent, kept in [(other, 1, False), (written, 1, True), (other, 0, True)]:
        # What was written is likely, or the model would rather have written something else.
        monkeypatch.setattr(whisper, "_model", Fake(whisper, [said], [0, 20, 50], silent))
        cue, _ = whisper._cue((0.0, sound), torch.zeros(1, 1), [written], 19, [(0.0, 1.0)])
        assert bool(cue.words) == kept


def test_a_text_that_repeats_itself_is_noted(whisper: Whisper, monkeypatch):
    vocabulary = whisper._tokenizer.get_vocab()
    for tokens, noted in [(["Ġhello"] * 16, True), ([f"Ġ{w}" for w in WORDS], False)]:
        written = [vocabulary[t] for t in tokens]
        edges = np.linspace(0, 50, len(written) + 2).astype(int).tolist()
        monkeypatch.setattr(whisper, "_model", Fake(whisper, written, edges))
        sound = np.zeros(RATE, np.float32)
        cue, note = whisper._cue((2.0, sound), torch.zeros(1, 1), written, 19, [(2.0, 3.0)])
        assert len(cue.words) == len(written)
        assert (note == "the recogniser repeats itself at 2.0 to 3.0 s") == noted


def cheapest(cost: np.ndarray) -> float:
    """Cost of the best path by trying all."""
    rows, columns = cost.shape

    def walk(i: int, j: int) -> float:
        if (i, j) == (rows - 1, columns - 1):
            return cost[i, j]
        steps = [(i + 1, j), (i, j + 1), (i + 1, j + 1)]
        return cost[i, j] + min(walk(a, b) for a, b in steps if a < rows and b < columns)

    return walk(0, 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (3, 6), (5, 5), (6, 3)])
def test_the_warp_is_the_cheapest_path(shape):
    rng = np.random.default_rng(sum(shape))
    for _ in range(5):
        cost = rng.normal(size=shape)
        first = warp(cost)
        assert len(first) == shape[0] and first[0] == 0
        assert (np.diff(first) >= 0).all()
        # The best path with these first positions: row i runs on to the next row's first position,
        # or to the one before it.
        total = 0.0
        for i, start in enumerate(first):
            if i + 1 == len(first):
                total += cost[i, start:].sum()
            else:
                ends = {max(start, first[i + 1] - 1), first[i + 1]}
                total += min(cost[i, start : end + 1].sum() for end in ends)
        assert total == pytest.approx(cheapest(cost))


def test_focus_is_standardised_over_rows_and_smoothed_over_time():
    looks = np.random.default_rng(0).uniform(size=(2, 4, 9))
    found = focus(looks, 3)
    expected = np.zeros((4, 9))
    for head in looks:
        head = head / head.sum(axis=1, keepdims=True)
        head = (head - head.mean(axis=0)) / head.std(axis=0)
        for i, j in np.ndindex(4, 9):
            near = [head[i, min(max(k, 0), 8)] for k in (j - 1, j, j + 1)]
            expected[i, j] += sorted(near)[1] / 2
    assert np.allclose(found, expected)
    assert np.isfinite(focus(np.ones((1, 1, 5)), 3)).all()


def test_characters_of_several_tokens_and_tokens_of_several_words(whisper: Whisper):
    ids = [whisper._tokenizer.get_vocab()[t] for t in ("Ġhello", "Ã", "©", "Ġno", "Ã")]
    text, counts = characters(whisper._tokenizer, ids)
    assert text == " helloé no"
    assert counts == [0, 6, 6, 7, 10, 10]
    edges, scores = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [0.5, 0.7, 0.9, 0.4, 0.1]
    assert words_of(text, counts, edges, scores) == [
        Word("helloé", 0.0, 3.0, pytest.approx(0.7)),
        Word("no", 3.0, 4.0, 0.4),
    ]
    # Three tokens: two characters at once, then one of two tokens.
    chinese = words_of("你好吗", [0, 2, 2, 3], [0.0, 1.0, 2.0, 4.0], [0.5, 0.2, 0.4])
    assert chinese == [
        Word("你", 0.0, 0.5, 0.5),
        Word("好", 0.5, 1.0, 0.5),
        Word("吗", 1.0, 4.0, pytest.approx(0.3)),
    ]


def test_words_leave_silence_only_where_there_is_voice():
    words = [Word("a", 0.0, 1.0, 1), Word("b", 1.0, 3.0, 1), Word("c", 3.2, 3.4, 1)]
    assert list(within(words, [(0.5, 2.0), (2.5, 2.8)])) == [
        Word("a", 0.5, 1.0, 1), Word("b", 1.0, 2.8, 1), Word("c", 3.2, 3.4, 1)
    ]  # fmt: skip


@pytest.mark.hub
def test_a_real_whisper_hears_what_is_said(shared: Path):
    config = Config("whisper", "openai/whisper-tiny.en")
    sound = shared / "data" / "speech" / "arctic_a0007.wav"
    found = recognise(Clip("a", sound.name, str(sound.parent)), config)
    assert "always want to see it in the superlative degree" in found.text
    check(found, 4.0)
