"""A Whisper with random weights and a vocabulary of its own, small enough to run in tests."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = ["hello", "world", "yes", "no", "well", "you", "know", "what", "it", "is", "fine"]


def save_whisper(folder: Path, *, english: bool = False, heads: bool = True, seed: int = 2) -> Path:
    """Write model, tokenizer and feature extractor to a folder.

    Args:
        folder: Made.
        english: A model of English alone.
        heads: Name alignment heads.
        seed: Of the weights.
    """
    import torch
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )

    # "Ġ" is a space in the alphabet of bytes; the last two are halves of one character, "é".
    said = [f"Ġ{word}" for word in WORDS] + ["s", "ing", ".", "Ġ", "Ã", "©"]
    special = ["endoftext", "startoftranscript", "en", "de", "jw", "translate", "transcribe",
               "nospeech", "notimestamps", "0.00", "0.02"]  # fmt: skip
    vocabulary = {token: i for i, token in enumerate([*said, *(f"<|{n}|>" for n in special)])}
    folder.mkdir(parents=True)
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{n}|>" for n in special]})
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80, chunk_length=6).save_pretrained(folder)
    end = vocabulary["<|endoftext|>"]
    config = WhisperConfig(
        vocab_size=len(vocabulary), num_mel_bins=80, d_model=16,
        encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, max_source_positions=300, max_target_positions=40,
        decoder_start_token_id=end + 1, eos_token_id=end, bos_token_id=end, pad_token_id=end,
        init_std=0.6,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():  # as the padding, the end starts with zeros: no text would ever end
        model.get_output_embeddings().weight[end] = torch.randn(config.d_model)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=end + 1, eos_token_id=end, bos_token_id=end, pad_token_id=end,
        is_multilingual=not english, begin_suppress_tokens=[vocabulary["Ġ"], end],
        suppress_tokens=[vocabulary["©"]],
        no_timestamps_token_id=vocabulary["<|notimestamps|>"], return_timestamps=False,
        **({} if english else {
            "lang_to_id": {name: vocabulary[name] for name in ("<|en|>", "<|de|>", "<|jw|>")},
            "task_to_id": {name: vocabulary[f"<|{name}|>"] for name in ("transcribe", "translate")},
        }),
        **({"alignment_heads": [[0, 1], [1, 0]]} if heads else {}),
        # As in files of the hub's: an older form of what follows the start.
        forced_decoder_ids=[[1, vocabulary["<|notimestamps|>"]] if english else [1, None]],
    )  # fmt: skip
    model.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "whisper"
    return folder
