"""Recognition with Whisper (Radford et al. 2022), from a local folder or the Hugging Face hub.

Words' times come from the cross-attentions of the model's alignment heads: dynamic time warping
puts each token where these look while it is written (the paper's released code does the same).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from mertool.errors import MertoolError, UsageError
from mertool.extract.pretrained import find_model, load_whisper
from mertool.transcripts import Cue, Transcript
from mertool.transcripts.recognise import Config, Pieces, ordered
from mertool.transcripts.wordtimes import characters, focus, warp, within, words_of
from mertool.words import split_words

# Whisper's own names where BCP 47 has another.
_TAGS = {"jw": "jv"}
_DETECT = 3  # pieces by which the language is detected
# Section 4.5 of the paper: above this compression ratio a text repeats itself; where silence is
# likelier and the tokens' mean log probability lower than these, nothing is said.
_LOOPS, _SILENT, _UNSURE = 2.4, 0.6, -1.0
_SPECIAL = ("startoftranscript", "notimestamps", "transcribe")
_MULTILINGUAL = 51865  # size of the vocabulary of the models of many languages


class Whisper:
    """Recognises speech of many languages; a word's score is the mean probability of its tokens.

    Greedy search without timestamp tokens, each piece by itself. The language, where it is not
    given, is the likeliest of the first three pieces together. A model without alignment heads
    in its generation_config.json is aligned by all heads of its last half of layers, more roughly.

    Args:
        config: Settings.
        device: "auto", "cpu" or "cuda".

    Raises:
        MertoolError: The model cannot be had or loaded.
        UsageError: It does not know the language.

    Attributes:
        apart: A pause of so many seconds parts two pieces: in silence the model invents words.
        longest: Longest piece, seconds.
        info: What is recorded.
    """

    apart = 2.0

    def __init__(self, config: Config, device: str = "auto") -> None:
        from mertool.device import pick

        folder = find_model(config.model, "asr")
        self._prepare, self._tokenizer, model = load_whisper(folder)
        facts, asked = model.config, model.generation_config
        self._device = pick(device)
        self._model = model.to(self._device)
        self._batch = 1 if self._device.type == "cpu" else 8
        self.longest = self._prepare.chunk_length - 2.0
        self._positions = facts.max_source_positions
        self._step = self._prepare.chunk_length / self._positions  # seconds per position
        self._filter = getattr(facts, "median_filter_width", 7)
        self._limit = facts.max_target_positions // 2  # tokens, as in the released code
        vocabulary = self._tokenizer.get_vocab()
        many = getattr(asked, "is_multilingual", facts.vocab_size >= _MULTILINGUAL)
        self._languages = _languages(vocabulary) if many else {}
        self._end = facts.eos_token_id
        problem = self._misfit(vocabulary, facts)
        if problem:
            raise MertoolError(
                "The asr model's parts do not fit together.",
                f"{folder}: {problem}",
                "Save model, tokenizer and feature extractor there again, or give another folder.",
            )
        self._ids = {n: vocabulary.get(f"<|{n}|>", -1) for n in _SPECIAL}
        self._silence = vocabulary.get("<|nospeech|>", vocabulary.get("<|nocaptions|>", -1))
        # Behind the end come the special tokens, last the time stamps: none of them is said.
        never = {*(getattr(asked, "suppress_tokens", None) or ())}
        never |= {i for i in range(self._end + 1, facts.vocab_size)}
        self._never = sorted(i for i in never if 0 <= i < facts.vocab_size and i != self._end)
        first = getattr(asked, "begin_suppress_tokens", None) or ()
        self._not_first = [i for i in first if 0 <= i < facts.vocab_size]
        layers, heads = facts.decoder_layers, facts.decoder_attention_heads
        known = getattr(asked, "alignment_heads", None)
        self._heads = [(int(a), int(b)) for a, b in known or ()] or [
            (a, b) for a in range(layers // 2, layers) for b in range(heads)
        ]
        self._rough = not known
        self.info = {
            "engine": "whisper",
            "model": config.model,
            "revision": folder.name if folder.parent.name == "snapshots" else "",
            "weak": False,
        }
        if config.language:
            self._language_token(config.language)

    def _misfit(self, vocabulary: dict[str, int], facts: Any) -> str:
        needed = [f"<|{n}|>" for n in (_SPECIAL if self._languages else _SPECIAL[:2])]
        missing = [name for name in needed if name not in vocabulary]
        if missing:
            return f"the tokenizer has no {missing[0]}"
        if max(vocabulary.values()) >= facts.vocab_size:
            return f"{max(vocabulary.values()) + 1} tokens for {facts.vocab_size} embeddings"
        if self._prepare.nb_max_frames != 2 * self._positions:
            return f"{self._prepare.nb_max_frames} frames for {self._positions} positions"
        if self._prepare.feature_size != facts.num_mel_bins:
            return f"{self._prepare.feature_size} bands for {facts.num_mel_bins}"
        return ""

    def recognise(
        self, pieces: Pieces, language: str, stretches: Sequence[tuple[float, float]]
    ) -> Transcript:
        """Recognise the pieces of one recording.

        Args:
            pieces: In order, none longer than `longest`.
            language: Of the speech, "" = detect it.
            stretches: Where there is voice; words do not reach out of it.

        Returns:
            A cue for each piece in which something is said, times as those of the pieces.
        """
        cues, notes, pieces, token = [], [], iter(pieces), -1
        size = self._batch
        if language or not self._languages:
            token = self._language_token(language or "en")
            language = language or "en"
        else:
            size = _DETECT
        while group := list(islice(pieces, size)):
            size = self._batch
            states = self._encode([sound for _, sound in group])
            if token < 0 and self._languages:
                token, language, sure = self._detect(states)
                if sure < 0.5:
                    notes.append(f'the language is taken for "{language}", at {sure:.0%}')
            for piece, state, written in zip(
                group, states, self._write(states, token), strict=True
            ):
                cue, note = self._cue(piece, state, written, token, stretches)
                cues.append(cue)
                notes += [note] if note else []
        if self._rough and cues:
            notes.append("the Whisper model names no alignment heads: word times are rough")
        return Transcript(ordered(cues), language, notes)

    def _language_token(self, language: str) -> int:
        """The token of a language; -1 for a model of English alone."""
        code = language.split("-")[0].casefold()
        code = next((ours for ours, tag in _TAGS.items() if tag == code), code)
        known = self._languages or {"en": -1}
        if code not in known:
            raise UsageError(
                f'The Whisper model does not know the language "{language}".',
                f"known: {' '.join(sorted(known))}",
                "Give another model: --set asr.model=ID|DIR",
            )
        return known[code]

    def _encode(self, sounds: list[np.ndarray]) -> Any:
        """(B, positions, d) states of the encoder."""
        import torch

        made = self._prepare(sounds, sampling_rate=self._prepare.sampling_rate, return_tensors="pt")
        with torch.inference_mode():
            features = made.input_features.to(self._device, torch.float32)
            return self._model.get_encoder()(features).last_hidden_state

    def _detect(self, states: Any) -> tuple[int, str, float]:
        """Token and tag of the likeliest language of all pieces, and its probability."""
        import torch

        tokens = torch.tensor(list(self._languages.values()), device=self._device)
        start = torch.full((len(states), 1), self._ids["startoftranscript"], device=self._device)
        with torch.inference_mode():
            logits = self._model(decoder_input_ids=start, encoder_outputs=(states,)).logits[:, -1]
        likely = logits[:, tokens].log_softmax(-1).mean(0).softmax(-1)
        best = int(likely.argmax())
        code = list(self._languages)[best]
        return int(tokens[best]), _TAGS.get(code, code), float(likely[best])

    def _prompt(self, language: int) -> list[int]:
        names = ["transcribe", "notimestamps"] if self._languages else ["notimestamps"]
        ids = [self._ids["startoftranscript"], language, *(self._ids[name] for name in names)]
        return [i for i in ids if i >= 0]

    def _write(self, states: Any, language: int) -> list[list[int]]:
        """The tokens of each piece, without prompt and end."""
        import torch

        prompt = self._prompt(language)
        tokens = feed = torch.tensor([prompt] * len(states), device=self._device)
        done = torch.zeros(len(states), dtype=torch.bool, device=self._device)
        cache = None
        with torch.inference_mode():
            for step in range(self._limit):
                made = self._model(
                    decoder_input_ids=feed, encoder_outputs=(states,),
                    past_key_values=cache, use_cache=True,
                )  # fmt: skip
                cache = made.past_key_values
                likely = self._allowed(made.logits[:, -1], step == 0)
                feed = likely.argmax(-1, keepdim=True).masked_fill(done[:, None], self._end)
                tokens = torch.cat([tokens, feed], dim=1)
                done |= feed[:, 0] == self._end
                if done.all():
                    break
        rows = tokens[:, len(prompt) :].tolist()
        return [row[: row.index(self._end)] if self._end in row else row for row in rows]

    def _allowed(self, logits: Any, first: bool) -> Any:
        logits = logits.clone()
        logits[..., self._never] = -np.inf
        if first:
            logits[..., self._not_first] = -np.inf
        return logits

    def _cue(
        self,
        piece: tuple[float, np.ndarray],
        state: Any,
        written: list[int],
        language: int,
        stretches: Sequence[tuple[float, float]],
    ) -> tuple[Cue, str]:
        """What is said in a piece, with its words' times; and a note."""
        start, sound = piece
        text, places = characters(self._tokenizer, written)
        if not split_words(text):
            return Cue(""), ""
        seconds = len(sound) / self._prepare.sampling_rate
        edges, scores, silence = self._align(state, written, language, seconds)
        if silence > _SILENT and np.log(np.maximum(scores, 1e-12)).mean() < _UNSURE:
            return Cue(""), ""
        words = words_of(text, places, [start + edge for edge in edges], scores)
        note = ""
        data = text.encode()
        if len(written) >= self._limit or len(data) / len(zlib.compress(data)) > _LOOPS:
            note = f"the recogniser repeats itself at {start:.1f} to {start + seconds:.1f} s"
        return Cue(" ".join(text.split()), words=tuple(within(words, stretches))), note

    def _align(
        self, state: Any, written: list[int], language: int, seconds: float
    ) -> tuple[list[float], list[float], float]:
        """When and how surely the tokens are said.

        Returns:
            (n + 1) edges of the tokens, seconds from the piece's start; (n) their probabilities;
            the probability that nothing is said.
        """
        import torch

        prompt = self._prompt(language)
        tokens = torch.tensor([[*prompt, *written]], device=self._device)
        with torch.inference_mode():
            made = self._model(
                decoder_input_ids=tokens, encoder_outputs=(state[None],), output_attentions=True
            )
        # Row r is written by the position before: that of the prompt's last token writes the first.
        rows = slice(len(prompt) - 1, None)
        likely = self._allowed(made.logits[0, rows][:-1], False).softmax(-1)
        scores = likely[range(len(written)), written].tolist()
        # Which is asked where the model is asked for the language, too.
        silence = float(made.logits[0, 0].softmax(-1)[self._silence]) if self._silence >= 0 else 0.0
        count = min(self._positions, max(1, round(seconds / self._step)))
        looks = torch.stack([made.cross_attentions[a][0, b, rows, :count] for a, b in self._heads])
        first = warp(-focus(looks.double().cpu().numpy(), self._filter))
        return [min(i * self._step, seconds) for i in first], scores, silence


def _languages(vocabulary: dict[str, int]) -> dict[str, int]:
    """{code: token}: "<|en|>" and the like."""
    found = {}
    for token, i in sorted(vocabulary.items(), key=lambda pair: pair[1]):
        code = token[2:-2]
        if token == f"<|{code}|>" and code.isalpha() and code.islower() and 2 <= len(code) <= 3:
            found[code] = i
    return found
