"""Recognition with Whisper (Radford et al. 2022), from a local folder or the Hugging Face hub.

transformers writes the text and finds the words' times: dynamic time warping puts each token where
the model's alignment heads look while it is written.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from mertool.errors import MertoolError, UsageError
from mertool.pretrained import find_model, load_whisper, quiet
from mertool.transcripts import Cue, Transcript
from mertool.transcripts.asr import Config, Pieces, ordered
from mertool.transcripts.wordtimes import characters, within, words_of
from mertool.words import split_words

# Whisper's own names where BCP 47 has another.
_TAGS = {"jw": "jv"}
_DETECT = 3  # pieces by which the language is detected
_LOOPS = 2.4  # compression ratio above which a text repeats itself (section 4.5 of the paper)
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
        many = getattr(asked, "is_multilingual", facts.vocab_size >= _MULTILINGUAL)
        if problem := _misfit(self._prepare, self._tokenizer.get_vocab(), facts, asked, many):
            raise MertoolError(
                "The asr model's parts do not fit together.",
                f"{folder}: {problem}",
                "Save model, tokenizer and feature extractor there again (with the "
                "generation_config.json of the model it was made from), or give another folder.",
            )
        # {code: its token's name}: "<|en|>" and the like.
        self._languages = {name[2:-2]: name for name in asked.lang_to_id} if many else {}
        self._rough = not getattr(asked, "alignment_heads", None)
        self._limit = facts.max_target_positions // 2  # tokens, as in the released code
        model.generation_config = _greedy(facts, asked, many, self._limit)
        facts.forced_decoder_ids = None  # an older form of language and task
        self._device = pick(device)
        self._model = model.to(self._device)
        self._batch = 1 if self._device.type == "cpu" else 8
        self.longest = self._prepare.chunk_length - 2.0
        self.info = {
            "engine": "whisper",
            "model": config.model,
            "revision": folder.name if folder.parent.name == "snapshots" else "",
            "weak": False,
        }
        if config.language:
            self._code(config.language)

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
        cues, notes, pieces = [], [], iter(pieces)
        language = language or ("" if self._languages else "en")
        code = self._code(language) if language else ""
        size = self._batch if code else _DETECT
        while group := list(islice(pieces, size)):
            size = self._batch
            states = self._encode([sound for _, sound in group])
            if not code:
                code, sure = self._detect(states)
                language = _TAGS.get(code, code)
                if sure < 0.5:
                    notes.append(f'the language is taken for "{language}", at {sure:.0%}')
            written = self._write(states, [len(sound) for _, sound in group], code)
            for piece, said in zip(group, written, strict=True):
                cue, note = self._cue(piece, *said, stretches)
                cues.append(cue)
                notes += [note] if note else []
        if self._rough and cues:
            notes.append("the Whisper model names no alignment heads: word times are rough")
        return Transcript(ordered(cues), language, notes)

    def _code(self, language: str) -> str:
        """Whisper's own code of a language."""
        code = language.split("-")[0].casefold()
        code = next((ours for ours, tag in _TAGS.items() if tag == code), code)
        known = self._languages or {"en": ""}
        if code not in known:
            raise UsageError(
                f'The Whisper model does not know the language "{language}".',
                f"known: {' '.join(sorted(known))}",
                "Give another model: --set asr.model=ID|DIR",
            )
        return code

    def _encode(self, sounds: list[np.ndarray]) -> Any:
        """(B, positions, d) states of the encoder."""
        import torch

        made = self._prepare(sounds, sampling_rate=self._prepare.sampling_rate, return_tensors="pt")
        with torch.inference_mode():
            features = made.input_features.to(self._device, torch.float32)
            return self._model.get_encoder()(features).last_hidden_state

    def _detect(self, states: Any) -> tuple[str, float]:
        """Code of the likeliest language of all pieces, and its probability.

        `detect_language` of transformers tells neither the probability nor that of pieces together.
        """
        import torch

        asked = self._model.generation_config
        tokens = [asked.lang_to_id[name] for name in self._languages.values()]
        start = torch.full((len(states), 1), asked.decoder_start_token_id, device=self._device)
        with torch.inference_mode():
            logits = self._model(decoder_input_ids=start, encoder_outputs=(states,)).logits[:, -1]
        likely = logits[:, tokens].log_softmax(-1).mean(0).softmax(-1)
        best = int(likely.argmax())
        return list(self._languages)[best], float(likely[best])

    def _write(
        self, states: Any, sizes: Sequence[int], code: str
    ) -> list[tuple[list[int], list[float], list[float]]]:
        """What is said in each of B pieces.

        Args:
            states: (B, positions, d) of the encoder.
            sizes: (B) samples of the pieces.
            code: Of the language.

        Returns:
            Of each piece: (n) tokens without the end; (n + 1) their edges, seconds from the piece's
            start; (n) their probabilities.
        """
        from transformers.modeling_outputs import BaseModelOutput

        asked = {"language": self._languages[code], "task": "transcribe"} if self._languages else {}
        with quiet():  # generate warns of how it calls itself
            made = self._model.generate(
                # Of features it would keep the encoder's attentions as well, gigabytes.
                encoder_outputs=BaseModelOutput(states), return_timestamps=False,
                force_unique_generate_call=True, return_dict_in_generate=True,
                output_scores=True, output_attentions=True, **asked,
            )  # fmt: skip
        likely = self._model.compute_transition_scores(
            made.sequences, made.scores, normalize_logits=True
        ).exp()
        end, prompt = self._model.config.eos_token_id, made.sequences.shape[1] - len(made.scores)
        found = []
        for i, size in enumerate(sizes):
            row = made.sequences[i, prompt:].tolist()
            row = row[: row.index(end)] if end in row else row
            edges = self._edges(made, i, prompt, len(row), size) if row else [0.0]
            found.append((row, edges, likely[i, : len(row)].tolist()))
        return found

    def _edges(self, made: Any, i: int, prompt: int, count: int, size: int) -> list[float]:
        """When the tokens of piece i begin, and the last one ends.

        The times that `generate` can return are others: it aligns the padding of a shorter text in
        a batch as well, but not the last token of the prompt, which looks where the first one is
        said, so that this takes no time.
        """
        from transformers.modeling_outputs import ModelOutput

        steps = made.cross_attentions[: count + 1]
        looks = [[layer[i : i + 1] for layer in step] for step in steps]
        alone = ModelOutput(sequences=made.sequences[i : i + 1], cross_attentions=looks)
        times = self._model._extract_token_timestamps(
            alone,
            self._model.generation_config.alignment_heads,
            num_frames=max(2, -(-size // self._prepare.hop_length)),
            num_input_ids=prompt - 1,
        )[0, prompt - 1 : prompt + count]
        return np.clip(times.tolist(), 0, size / self._prepare.sampling_rate).tolist()

    def _cue(
        self,
        piece: tuple[float, np.ndarray],
        written: list[int],
        edges: list[float],
        scores: list[float],
        stretches: Sequence[tuple[float, float]],
    ) -> tuple[Cue, str]:
        """What is said in a piece, with its words' times; and a note."""
        start, sound = piece
        text, places = characters(self._tokenizer, written)
        if not split_words(text):
            return Cue(""), ""
        words = words_of(text, places, [start + edge for edge in edges], scores)
        note, data = "", text.encode()
        if len(written) >= self._limit or len(data) / len(zlib.compress(data)) > _LOOPS:
            end = start + len(sound) / self._prepare.sampling_rate
            note = f"the recogniser repeats itself at {start:.1f} to {end:.1f} s"
        return Cue(" ".join(text.split()), words=tuple(within(words, stretches))), note


def _misfit(prepare: Any, vocabulary: dict[str, int], facts: Any, asked: Any, many: bool) -> str:
    """What is wrong with the files of a folder."""
    try:
        return _mismatch(prepare, vocabulary, facts, asked, many)
    except (AttributeError, TypeError, ValueError) as error:  # a list where a table should be, say
        return f"its generation_config.json or config.json is not as it should be: {error}"


def _mismatch(prepare: Any, vocabulary: dict[str, int], facts: Any, asked: Any, many: bool) -> str:
    needed = ["no_timestamps_token_id", *(["lang_to_id", "task_to_id"] if many else [])]
    if missing := [name for name in needed if not getattr(asked, name, None)]:
        return f"its generation_config.json has no {', '.join(missing)}"
    special = {"<|notimestamps|>": asked.no_timestamps_token_id}
    special |= asked.lang_to_id if many else {}
    for name, i in special.items():
        if vocabulary.get(name) != i:
            return f"{name} is token {i} of the model, {vocabulary.get(name)} of the tokenizer"
    for layer, head in getattr(asked, "alignment_heads", None) or ():
        if layer >= facts.decoder_layers or head >= facts.decoder_attention_heads:
            return f"the decoder has no alignment head {[layer, head]}"
    count, frames = max(vocabulary.values()) + 1, prepare.nb_max_frames
    if count > facts.vocab_size:
        return f"{count} tokens for {facts.vocab_size} embeddings"
    if frames != 2 * facts.max_source_positions:
        return f"{frames} frames for {facts.max_source_positions} positions"
    if prepare.feature_size != facts.num_mel_bins:
        return f"{prepare.feature_size} bands for {facts.num_mel_bins}"
    return ""


def _greedy(facts: Any, asked: Any, many: bool, limit: int) -> Any:
    """Greedy search, with nothing else of what the folder's file may ask for."""
    from transformers import GenerationConfig

    layers, end = facts.decoder_layers, facts.eos_token_id
    last = [
        [a, b] for a in range(layers // 2, layers) for b in range(facts.decoder_attention_heads)
    ]
    # Behind the end come the special tokens, last the time stamps: none of them is said.
    never = {*(getattr(asked, "suppress_tokens", None) or ()), *range(end + 1, facts.vocab_size)}
    return GenerationConfig(
        num_beams=1, do_sample=False, max_new_tokens=limit, eos_token_id=end, pad_token_id=end,
        decoder_start_token_id=facts.decoder_start_token_id,
        suppress_tokens=sorted(i for i in never - {end} if 0 <= i < facts.vocab_size),
        begin_suppress_tokens=getattr(asked, "begin_suppress_tokens", None),
        is_multilingual=many, no_timestamps_token_id=asked.no_timestamps_token_id,
        alignment_heads=getattr(asked, "alignment_heads", None) or last,
        **({"lang_to_id": asked.lang_to_id, "task_to_id": asked.task_to_id} if many else {}),
    )  # fmt: skip
