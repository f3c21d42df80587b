"""Whisper: a tiny random one that the tests make, and the logic of words by itself."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from media_samples import write_wav
from spoken import RATE, scene
from tiny_whisper import WORDS, save_whisper
from transformers.generation.utils import GenerateEncoderDecoderOutput

from mertool.errors import MertoolError, UsageError
from mertool.transcripts.asr import Config
from mertool.transcripts.recognise import recognise, recogniser
from mertool.transcripts.whisper import Whisper
from mertool.transcripts.wordtimes import characters, within, words_of
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
    assert not set("<|>") & set(found.text)  # no special token is said
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


PIECES = [(0.0, scene(0, 2, 0.2)), (3.0, scene(0.3, 1.5)), (6.0, scene(0.1, 3))]


def test_pieces_together_are_as_each_alone(whisper: Whisper, monkeypatch, caplog):
    voice = [(0.0, 10.0)]
    alone = [cue for p in PIECES for cue in whisper.recognise([p], "de", voice).cues]
    monkeypatch.setattr(whisper, "_batch", 3)  # as on a GPU
    monkeypatch.setattr(logging.getLogger("transformers"), "handlers", [caplog.handler])
    together = whisper.recognise(PIECES, "de", voice)
    # The texts differ in length: some end before the others of the batch do.
    assert len({len(cue.words) for cue in together.cues}) == 3
    assert together.language == "de"
    assert [c.text for c in together.cues] == [c.text for c in alone]
    for ours, theirs in zip(together.cues, alone, strict=True):
        for a, b in zip(ours.words, theirs.words, strict=True):
            assert (a.start, a.end) == pytest.approx((b.start, b.end), abs=1e-6)
            assert a.score == pytest.approx(b.score, abs=1e-3)
    assert not caplog.records  # transformers has nothing to say


def warped(looks: np.ndarray, width: int) -> list[int]:
    """First positions of rows, by the text of the released method, every cell by recursion.

    Args:
        looks: (heads, rows, positions) attention.
        width: Of the median filter.
    """
    looks = (looks - looks.mean(1, keepdims=True)) / looks.std(1, keepdims=True)
    padded = np.pad(looks, ((0, 0), (0, 0), (width // 2, width // 2)), mode="reflect")
    cost = np.zeros(looks.shape[1:])
    for i, j in np.ndindex(cost.shape):
        cost[i, j] = -np.median(padded[:, i, j : j + width], axis=-1).mean()
    total = np.full(cost.shape, np.inf)
    before = {}
    for i, j in np.ndindex(cost.shape):
        ways = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        ways = [way for way in ways if min(way) >= 0]
        before[i, j] = min(ways, key=lambda way: total[way], default=None)
        total[i, j] = cost[i, j] + (total[before[i, j]] if ways else 0)
    spot, first = (cost.shape[0] - 1, cost.shape[1] - 1), [0] * cost.shape[0]
    while spot:
        first[spot[0]] = spot[1]
        spot = before[spot]
    return first


def test_times_and_scores_are_those_of_a_pass_over_the_whole_text(whisper: Whisper):
    states = whisper._encode([sound for _, sound in PIECES])
    written = whisper._write(states, [len(sound) for _, sound in PIECES], "de")
    ids = whisper._tokenizer.get_vocab()
    prompt = [ids[f"<|{n}|>"] for n in ("startoftranscript", "de", "transcribe", "notimestamps")]
    asked = whisper._model.generation_config
    lengths = []
    for (_, sound), state, (tokens, edges, scores) in zip(PIECES, states, written, strict=True):
        with torch.inference_mode():
            made = whisper._model(
                decoder_input_ids=torch.tensor([prompt + tokens]),
                encoder_outputs=(state[None],),
                output_attentions=True,
            )
        # Row r looks for the token that it writes, the next one: the prompt's last for the first.
        rows = slice(len(prompt) - 1, None if len(tokens) < whisper._limit else -1)
        frames = len(sound) // 160
        looks = [made.cross_attentions[a][0, b, rows, : frames // 2] for a, b in ([0, 1], [1, 0])]
        first = warped(torch.stack(looks).double().numpy(), 7)
        assert edges[: len(first)] == pytest.approx([0.02 * i for i in first], abs=1e-6)
        assert len(edges) == len(tokens) + 1 and (np.diff(edges) >= 0).all()
        logits = made.logits[0, len(prompt) - 1 :].clone()
        logits[:, asked.suppress_tokens] = -np.inf
        logits[0, asked.begin_suppress_tokens] = -np.inf
        likely = logits.softmax(-1)
        assert likely[: len(tokens)].argmax(-1).tolist() == tokens
        assert scores == pytest.approx(likely[range(len(tokens)), tokens].tolist(), abs=1e-4)
        if len(tokens) < whisper._limit:
            assert int(likely[len(tokens)].argmax()) == asked.eos_token_id
        lengths.append(len(tokens))
    assert max(lengths) == whisper._limit > sorted(lengths)[1] > min(lengths) > 0


def prompts(whisper: Whisper, monkeypatch, language: str) -> list[str]:
    """What the model is given before it writes."""
    generate, seen = whisper._model.generate, []

    def spy(**options):
        made = generate(**options)
        seen.append(made.sequences[0, : -len(made.scores)].tolist())
        return made

    monkeypatch.setattr(whisper._model, "generate", spy)
    found = whisper.recognise(PIECES[:1], language, [(0.0, 10.0)])
    assert found.language == (language or "en")
    return whisper._tokenizer.convert_ids_to_tokens(seen[0])


def test_a_given_language_is_believed_and_changes_the_prompt(whisper: Whisper, monkeypatch):
    german = ["<|startoftranscript|>", "<|de|>", "<|transcribe|>", "<|notimestamps|>"]
    assert prompts(whisper, monkeypatch, "de-CH") == german
    assert whisper._code("jv") == "jw"
    with pytest.raises(UsageError, match='does not know the language "fi"'):
        whisper.recognise(PIECES[:1], "fi", [])


def test_the_language_is_the_likeliest_of_all_pieces(whisper: Whisper, monkeypatch):
    english, german = (whisper._tokenizer.get_vocab()[f"<|{n}|>"] for n in ("en", "de"))
    logits = torch.full((2, 1, 28), -20.0)
    logits[0, 0, english], logits[0, 0, german] = 2.0, 1.0
    logits[1, 0, english], logits[1, 0, german] = 0.0, 4.0
    monkeypatch.setattr(whisper._model, "forward", lambda **_: SimpleNamespace(logits=logits))
    code, sure = whisper._detect(torch.zeros(2, 1, 1))
    assert code == "de"
    # Mean log probabilities of en and de differ by ((2 - 1) + (0 - 4)) / 2 = -1.5.
    assert sure == pytest.approx(1 / (1 + np.exp(-1.5)), abs=1e-3)


def test_the_language_is_detected_and_written_in(whisper: Whisper, monkeypatch):
    seen = []
    detect = whisper._detect
    monkeypatch.setattr(whisper, "_detect", lambda states: seen.append(detect(states)) or seen[0])
    found = whisper.recognise(PIECES, "", [(0.0, 10.0)])
    [(code, sure)] = seen
    assert found.language == {"jw": "jv"}.get(code, code)
    note = f'the language is taken for "{found.language}", at {sure:.0%}'
    assert (note in found.notes) == (sure < 0.5)
    assert found.cues == whisper.recognise(PIECES, found.language, [(0.0, 10.0)]).cues


def test_a_model_of_english_alone(tmp_path: Path, monkeypatch):
    folder = save_whisper(tmp_path / "english", english=True)
    whisper = Whisper(Config("whisper", str(folder)), "cpu")
    assert prompts(whisper, monkeypatch, "") == ["<|startoftranscript|>", "<|notimestamps|>"]
    with pytest.raises(UsageError, match='language "de"'):
        Whisper(Config("whisper", str(folder), "de"), "cpu")


def test_without_alignment_heads_the_last_layers_do_and_it_is_said(tmp_path: Path):
    folder = save_whisper(tmp_path / "headless", heads=False)
    whisper = Whisper(Config("whisper", str(folder)), "cpu")
    assert whisper._model.generation_config.alignment_heads == [[1, 0], [1, 1]]
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
        ("generation_config.json", None, "has no no_timestamps_token_id"),
        ("generation_config.json", {"lang_to_id": None}, "has no lang_to_id"),
        ("generation_config.json", {"lang_to_id": {"<|en|>": 3}}, "<|en|> is token 3 of the model"),
        ("generation_config.json", {"alignment_heads": [[2, 0]]}, "no alignment head [2, 0]"),
        ("generation_config.json", {"lang_to_id": [1]}, "is not as it should be"),
        ("generation_config.json", {"alignment_heads": 7}, "is not as it should be"),
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


def looking(whisper: Whisper, written: list[str], edges: list[int]):
    """A `generate` that writes tokens, and looks where it is told to while it writes each."""
    ids = whisper._tokenizer.get_vocab()
    start = [ids[f"<|{n}|>"] for n in ("startoftranscript", "en", "transcribe", "notimestamps")]
    tokens = [*(ids[t] for t in written), whisper._model.generation_config.eos_token_id]
    looks = torch.rand((1, 2, len(start) + len(written), 300), generator=torch.manual_seed(0)) / 100
    for k in range(len(tokens)):
        looks[:, :, len(start) - 1 + k, edges[k] : edges[k + 1]] = 1.0
    steps = [looks[:, :, : len(start)], *looks[:, :, len(start) :].split(1, dim=2)]
    logits = torch.full((len(tokens), 28), -10.0)
    logits[range(len(tokens)), tokens] = 3.0
    made = GenerateEncoderDecoderOutput(
        sequences=torch.tensor([start + tokens]),
        scores=tuple(logits[:, None]),
        cross_attentions=tuple((step, step) for step in steps),
    )
    return lambda **_: made


def test_words_stand_where_the_heads_look(whisper: Whisper, monkeypatch):
    # Positions of 20 ms: hello 0.2 to 0.6 s (its row looks from the start on), well-ing-. to 1.2 s.
    fake = looking(whisper, ["Ġhello", "Ġwell", "ing", "."], [0, 30, 45, 55, 60, 100])
    monkeypatch.setattr(whisper._model, "generate", fake)
    found = whisper.recognise([(5.0, np.zeros(2 * RATE, np.float32))], "en", [(5.2, 7.0)])
    assert found.text == "hello welling." and not found.notes
    hello, welling = found.cues[0].words
    assert (hello.text, welling.text) == ("hello", "welling.")
    # It begins with the voice.
    assert (hello.start, hello.end) == pytest.approx((5.2, 5.6), abs=0.03)
    assert (welling.start, welling.end) == pytest.approx((5.6, 6.2), abs=0.03)
    # Logit 3 among 28, the others at -10.
    assert hello.score == pytest.approx(1 / (1 + 27 * np.exp(-13)), abs=1e-4)


@pytest.mark.parametrize(
    ("written", "noted"), [(["Ġhello"] * 16, True), ([f"Ġ{w}" for w in WORDS], False)]
)
def test_a_text_that_repeats_itself_is_noted(whisper: Whisper, monkeypatch, written, noted):
    edges = np.linspace(0, 50, len(written) + 2).astype(int).tolist()
    monkeypatch.setattr(whisper._model, "generate", looking(whisper, written, edges))
    found = whisper.recognise([(2.0, np.zeros(RATE, np.float32))], "en", [(2.0, 3.0)])
    assert len(found.cues[0].words) == len(written)
    assert found.notes == ["the recogniser repeats itself at 2.0 to 3.0 s"] * noted


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
