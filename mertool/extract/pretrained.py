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


def find_model(model: str) -> Path:
    """The folder of a model; one on the hub is fetched, or taken from the cache when offline."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.resolve()
    from huggingface_hub import snapshot_download

    try:
        with _quiet():
            return Path(snapshot_download(model, allow_patterns=_FILES, ignore_patterns=["*/*"]))
    except Exception as error:  # whatever the network or the hub has to say
        raise MertoolError(
            "The text model cannot be downloaded.",
            f"{model}: {_first_line(error)}",
            "Check the name and the connection, give a local folder: --set text.model=DIR, "
            "or take the offline extractor: --text minilm",
        ) from error


def load_encoder(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model (in evaluation mode, float32) of a folder."""
    # transformers makes up an empty vocabulary where there is none, and so must be stopped here.
    if not any(any(folder.glob(name)) for name in _VOCABULARIES):
        raise MertoolError(
            "The text model has no tokenizer.",
            f"{folder}: none of {', '.join(_VOCABULARIES)}",
            "Save it there with tokenizer.save_pretrained, or give another folder or id.",
        )
    if not any(folder.glob("*.safetensors")):
        raise MertoolError(
            "The text model has no safetensors weights; pickled ones (.bin, .pt) can run code when "
            "they are loaded, and are refused.",
            str(folder),
            "If you trust it, convert it: load it with transformers and call save_pretrained.",
        )
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        # In here too: beside a torchvision that does not fit torch, transformers fails to import.
        import torch
        from transformers import AutoModel, AutoTokenizer

        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), **local)
            model, report = AutoModel.from_pretrained(
                str(folder),
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **local,
            )
    except Exception as error:  # the folder's content is anybody's
        raise MertoolError(
            "The text model cannot be loaded.",
            f"{folder}: {_first_line(error)}",
            "Give another one: --set text.model=DIR (config.json, tokenizer, model.safetensors).",
        ) from error
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    # The pooler serves no token; anything else that is missing would be random numbers.
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    size = model.get_input_embeddings().num_embeddings
    if missing or not tokenizer.is_fast or len(tokenizer) > size:
        reason = (
            f"{len(missing)} weights are missing, {missing[0]} first"
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
    return tokenizer, model.eval()


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
def _quiet() -> Iterator[None]:
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
