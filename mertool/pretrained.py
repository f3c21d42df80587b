"""Hugging Face models, from a local folder or the hub: safetensors only, no foreign code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mertool.errors import MertoolError

# What is fetched of a hub repository: weights without code (no pickles, no .py), tokenizer, card.
_FILES = ["*.json", "*.txt", "*.model", "*.safetensors", "README.md"]
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_OFFLINE = {
    "text": "extractor: --text minilm",
    "audio": "extractor: --audio covarep",
    "vision": "extractor: --vision facemesh",
    "align": "aligner: --aligner pocketsphinx",
    "asr": "recogniser: --set asr.engine=pocketsphinx",
}
# Encoders of the plain waveform: convolutions without padding, whose strides tell the times of the
# rows, and a transformer. Others (Whisper's, say) read spectrograms of a fixed length.
SPEECH = ("data2vec-audio", "hubert", "unispeech", "unispeech-sat", "wav2vec2", "wavlm")


def find_model(model: str, modality: str = "text") -> Path:
    """The folder of a model; one on the hub is fetched, or taken from the cache when offline.

    Args:
        model: Hub id, or a folder on this machine (which wins).
        modality: The section of its settings, for the error's sake.

    Raises:
        MertoolError: It cannot be had.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.resolve()
    from huggingface_hub import snapshot_download

    try:
        with quiet():
            return Path(snapshot_download(model, allow_patterns=_FILES, ignore_patterns=["*/*"]))
    except Exception as error:  # whatever the network or the hub has to say
        raise MertoolError(
            f"The {modality} model cannot be downloaded.",
            f"{model}: {_first_line(error)}",
            "Check the name and the connection, give a local folder: "
            f"--set {modality}.model=DIR, "
            f"or take the offline {_OFFLINE[modality]}",
        ) from error


def load_encoder(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model (in evaluation mode, float32) of a folder with a text encoder."""
    # transformers makes up an empty vocabulary where there is none, and so must be stopped here.
    if not any(any(folder.glob(name)) for name in _VOCABULARIES):
        raise MertoolError(
            "The text model has no tokenizer.",
            f"{folder}: none of {', '.join(_VOCABULARIES)}",
            "Save it there with tokenizer.save_pretrained, or give another folder or id.",
        )
    _check_weights(folder, "text")
    with _loading(folder, "text", "config.json, tokenizer, model.safetensors"):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(folder), **_LOCAL)
        model, missing = _load_model(folder)
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    size = model.get_input_embeddings().num_embeddings
    if missing or not tokenizer.is_fast or len(tokenizer) > size:
        reason = (
            _say_missing(missing)
            if missing
            else f"{len(tokenizer)} tokens for {size} embeddings"
            if tokenizer.is_fast
            else "its tokenizer does not tell where a token stands in the text"
        )
        raise MertoolError(
            "The text model's parts do not fit together.",
            f"{folder}: {reason}",
            "Save model and tokenizer there again, or give another folder or id.",
        )
    return tokenizer, model


def load_speech_encoder(folder: Path) -> tuple[Any, Any]:
    """Feature extractor and model (in evaluation mode, float32) of a folder of a kind in `SPEECH`.

    Raises:
        MertoolError: The folder holds no such model.
    """
    return _load_speech(folder, "audio", "AutoModel")


def load_ctc(folder: Path) -> tuple[Any, Any]:
    """Feature extractor and model with its CTC layer (in evaluation mode, float32) of a folder.

    Raises:
        MertoolError: The folder holds no such model of a kind in `SPEECH`.
    """
    return _load_speech(folder, "align", "AutoModelForCTC")


def _load_speech(folder: Path, modality: str, loader: str) -> tuple[Any, Any]:
    parts = "config.json, preprocessor_config.json, model.safetensors"
    with _loading(folder, modality, parts):
        from transformers import AutoConfig, Wav2Vec2FeatureExtractor

        kind = AutoConfig.from_pretrained(str(folder), **_LOCAL).model_type
        prepare = Wav2Vec2FeatureExtractor.from_pretrained(str(folder), local_files_only=True)
    if kind not in SPEECH:
        raise MertoolError(
            f'The {modality} model is of a kind that is not read: "{kind}".',
            f"{folder}: known are {', '.join(SPEECH)}",
            f"Give another one: --set {modality}.model=ID|DIR",
        )
    _check_weights(folder, modality)
    with _loading(folder, modality, parts):
        model, missing = _load_model(folder, loader=loader)
    if missing:
        raise MertoolError(
            f"The {modality} model's parts do not fit together.",
            f"{folder}: {_say_missing(missing)}",
            "Save the model there again, or give another folder or id.",
        )
    return prepare, model


def load_image_encoder(folder: Path) -> tuple[Any, Any]:
    """Image processor and model (in evaluation mode, float32) of a folder with an image encoder.

    Of a model of images and text (CLIP, SigLIP) the part for images is taken. A pooling layer that
    the folder holds no weights for is taken off.

    Returns:
        The processor, which makes `pixel_values` with Pillow and NumPy; the model.

    Raises:
        MertoolError: The folder holds no such model.
    """
    parts = "config.json, preprocessor_config.json, model.safetensors"
    with _loading(folder, "vision", parts):
        from transformers import MODEL_MAPPING, AutoConfig, AutoImageProcessor

        config = AutoConfig.from_pretrained(str(folder), **_LOCAL)
        kind = MODEL_MAPPING.get(type(config), None)
    joint = hasattr(config, "vision_config")
    if not joint and getattr(kind, "main_input_name", "") != "pixel_values":
        raise MertoolError(
            f'The vision model is of a kind that does not read images: "{config.model_type}".',
            str(folder),
            "Give another one (ResNet, ViT, DINOv2, CLIP, ...): --set vision.model=ID|DIR",
        )
    _check_weights(folder, "vision")
    with _loading(folder, "vision", parts):
        # Pillow's, wherever torchvision is there or not: the same values everywhere.
        prepare = AutoImageProcessor.from_pretrained(str(folder), backend="pil", **_LOCAL)
        # Masks stand for what training hides, counts are of training's batches.
        model, missing = _load_model(folder, ("mask_token", "num_batches_tracked"))
        if joint:
            missing = [name for name in missing if name.startswith("vision_model.")]
            model = model.vision_model
        elif any(name.startswith("pooler.") for name in missing):
            missing = [name for name in missing if not name.startswith("pooler.")]
            model.pooler = None
    if missing:
        raise MertoolError(
            "The vision model's parts do not fit together.",
            f"{folder}: {_say_missing(missing)}",
            "Save the model there again, or give another folder or id.",
        )
    return prepare, model


def load_whisper(folder: Path) -> tuple[Any, Any, Any]:
    """Feature extractor, tokenizer and model (in evaluation mode, float32) of a Whisper's folder.

    Raises:
        MertoolError: The folder holds no such model.
    """
    parts = "config.json, preprocessor_config.json, tokenizer, model.safetensors"
    _check_weights(folder, "asr")
    with _loading(folder, "asr", parts):
        from transformers import AutoConfig, AutoTokenizer, WhisperFeatureExtractor

        kind = AutoConfig.from_pretrained(str(folder), **_LOCAL).model_type
        if kind != "whisper":
            raise ValueError(f'it is of the kind "{kind}", not "whisper"')
        if not any(any(folder.glob(name)) for name in _VOCABULARIES):
            raise ValueError("it has no tokenizer")
        prepare = WhisperFeatureExtractor.from_pretrained(str(folder), local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **_LOCAL)
        # Only this implementation gives attentions, which tell the words' times.
        loader = "WhisperForConditionalGeneration"
        model, missing = _load_model(folder, (), loader, attn_implementation="eager")
        if missing:
            raise ValueError(_say_missing(missing))
    return prepare, tokenizer, model


_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
# The pooler serves no token, the mask stands for what training hides.
_UNUSED = ("pooler", "masked_spec_embed")


def _check_weights(folder: Path, modality: str) -> None:
    if not any(folder.glob("*.safetensors")):
        raise MertoolError(
            f"The {modality} model has no safetensors weights; pickled ones (.bin, .pt) can run "
            "code when they are loaded, and are refused.",
            str(folder),
            "If you trust it, convert it: load it with transformers and call save_pretrained.",
        )


def _load_model(
    folder: Path, unused: tuple[str, ...] = _UNUSED, loader: str = "AutoModel", **options: Any
) -> tuple[Any, list[str]]:
    """The model, and the names of weights, but for `unused` ones, that would be random numbers."""
    import torch
    import transformers

    model, report = getattr(transformers, loader).from_pretrained(
        str(folder), use_safetensors=True, dtype=torch.float32, output_loading_info=True,
        **_LOCAL, **options,
    )  # fmt: skip
    missing = sorted(k for k in report["missing_keys"] if not any(u in k for u in unused))
    return model.eval(), missing


def _say_missing(missing: list[str]) -> str:
    return f"{len(missing)} weights are missing, {missing[0]} first"


@contextmanager
def _loading(folder: Path, modality: str, parts: str) -> Iterator[None]:
    """Quietly; whatever goes wrong is the folder's fault, whose content is anybody's.

    Imports of transformers belong in here: beside a torchvision that does not fit torch they fail.
    """
    try:
        with quiet():
            yield
    except Exception as error:
        raise MertoolError(
            f"The {modality} model cannot be loaded.",
            f"{folder}: {_first_line(error)}",
            f"Give another one: --set {modality}.model=DIR ({parts}).",
        ) from error


def max_length(tokenizer: Any, model: Any) -> int:
    """Tokens the model can read at once, special ones included."""
    limits = [tokenizer.model_max_length]
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions:
        # RoBERTa and its kin count positions from behind the padding index.
        table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)
        limits.append(positions - (0 if padding is None else padding + 1))
    # A tokenizer without a limit says 1e30; models of relative positions have been trained on 512.
    return min(limits) if min(limits) < 1e6 else 512


def licence_of(folder: Path) -> str:
    """What the model card in the folder says, if there is one."""
    try:
        card = (folder / "README.md").read_text("utf-8", errors="replace")
    except OSError:
        return "unknown"
    found = re.match(r"---\n(?:.*\n)*?license:\s*(\S+)\n(?:.*\n)*?---\n", card)
    return found[1] if found else "unknown"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and chatter of transformers and the hub on stderr."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    levels = logging.get_verbosity(), hub.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    hub.set_verbosity_error()
    logging.disable_progress_bar()  # the hub's as well
    try:
        yield
    finally:
        logging.set_verbosity(levels[0])
        hub.set_verbosity(levels[1])
        if bars:
            logging.enable_progress_bar()
