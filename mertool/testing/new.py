"""The package that `mertool plugins new` writes: small, and its checks pass as written."""

from __future__ import annotations

import re
from pathlib import Path

from mertool.errors import OutputError, UsageError
from mertool.files import write_text
from mertool.registry import registry

KINDS = ("fusion", "extractor")
_TAKEN = ("plugins", "recipes")  # mertool_plugins and mertool_recipes are mertool's own

# @name@ is the plugin's name, @Class@ that of its class.
_PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "mertool-@name@"
version = "0.1.0"
dependencies = ["mertool"]

[project.entry-points.mertool]
@name@ = "mertool_@name@"

[tool.setuptools]
packages = ["mertool_@name@"]
"""

_README = """\
# @name@

@what@ for mertool.

```sh
pip install -e .
mertool plugins check @name@
pytest
```

The contract of its kind is in mertool's docs/plugin-reference.md.
"""

_TEST = '''\
"""@name@ keeps mertool's contract."""

from mertool.testing import check_@kind@, failed


def test_every_check_passes():
    assert not failed(check_@kind@("@name@"))
'''

_FUSION_INIT = '''\
"""Registers @name@. Every mertool command imports this module: import nothing heavy here."""

from mertool import hookimpl


@hookimpl
def register_fusions(register):
    """Tell mertool the name and where the class is."""
    register(
        "@name@",
        "mertool_@name@.model:@Class@",
        summary="gated mean of the streams",
        paper="",
        task_loss="l1",
        fixed_length=False,
    )
'''

_FUSION_MODEL = '''\
"""@Class@: a gate weighs the mean of every stream. Replace it with your method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from mertool import Batch, DataSpec, FusionOutput


@dataclass(frozen=True)
class Config:
    """Settings: --set fusion.d_model=64."""

    d_model: int = 32

    def __post_init__(self) -> None:
        if self.d_model < 1:
            raise ValueError(f"d_model = {self.d_model}: must be at least 1")


class @Class@(nn.Module):
    """Mean of every stream's real steps, projected, weighed by a gate, summed."""

    Config = Config

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__()
        self.streams = sorted(spec.streams)  # of any names and number
        self.project = nn.ModuleList(
            nn.Linear(spec.streams[m][0], config.d_model) for m in self.streams
        )
        self.gate = nn.Linear(config.d_model, 1)
        self.head = nn.Linear(config.d_model, spec.n_out)

    def forward(self, batch: Batch) -> FusionOutput:
        """B clips -> pred (B, K); no decision from values, nothing of padded steps."""
        states = []
        for m, project in zip(self.streams, self.project, strict=True):
            real = batch.mask[m].unsqueeze(-1)  # (B, T, 1)
            total = batch.x[m].masked_fill(~real, 0.0).sum(1)
            mean = total / real.sum(1).clamp(min=1)  # (B, D); zeros where the stream is absent
            states.append(torch.tanh(project(mean)))
        h = torch.stack(states, 1)  # (B, streams, d)
        gate = torch.sigmoid(self.gate(h))  # (B, streams, 1)
        pred = self.head((gate * h).mean(1))
        weights = {"gate": gate.squeeze(-1)} if batch.record else {}
        return FusionOutput(pred, weights=weights)
'''

_EXTRACTOR_INIT = '''\
"""Registers @name@. Every mertool command imports this module: import nothing heavy here."""

from mertool import hookimpl


@hookimpl
def register_extractors(register):
    """Tell mertool the name and where the class is."""
    register(
        "@name@",
        "mertool_@name@.model:@Class@",
        modality="audio",
        summary="level of the sound, dB",
    )
'''

_EXTRACTOR_MODEL = '''\
"""@Class@: the level of the sound. Replace it with your features."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from mertool import Clip, MertoolWarning, Rows

RATE = 16000  # Hz


@dataclass(frozen=True)
class Config:
    """Settings: --set audio.hop_ms=50."""

    hop_ms: float = 10.0

    def __post_init__(self) -> None:
        if self.hop_ms < 1:
            raise ValueError(f"hop_ms = {self.hop_ms}: must be at least 1")


class @Class@:
    """RMS level of stretches of hop_ms milliseconds."""

    Config = Config

    def __init__(self, config: Config, device: str = "auto") -> None:
        self.hop = round(RATE * config.hop_ms / 1000)  # samples
        self.columns = ["level_db"]
        self.info = {"model": "RMS level", "licence": "", "rate": RATE / self.hop}

    def extract(self, clip: Clip) -> Rows:
        """Rows of one clip: values (T, 1) in dB, times (T, 2) in seconds."""
        sound = clip.audio(RATE)  # (S,) float32, mono
        count = len(sound) // self.hop
        if not count:
            warnings.warn("no sound, no @name@ rows", MertoolWarning, stacklevel=2)
            return Rows.empty(len(self.columns))
        power = (sound[: count * self.hop].reshape(count, self.hop) ** 2).mean(axis=1)
        level = 10 * np.log10(power + 1e-10)  # silence is -100 dB
        edges = np.arange(count + 1) * self.hop / RATE
        return Rows(level[:, None].astype(np.float32), np.stack([edges[:-1], edges[1:]], axis=1))
'''

_PARTS = {
    "fusion": ("A fusion", _FUSION_INIT, _FUSION_MODEL),
    "extractor": ("A feature extractor", _EXTRACTOR_INIT, _EXTRACTOR_MODEL),
}


def write(name: str, kind: str = "fusion", folder: Path | None = None) -> list[Path]:
    """Write a package that registers a small plugin, ready to be changed.

    Args:
        name: Name of the plugin: small letters, digits and _.
        kind: "fusion" or "extractor".
        folder: Where the folder `name` is made; None = here.

    Returns:
        The files.

    Raises:
        UsageError: The name cannot be used, or is taken.
        OutputError: The folder exists, or cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in _TAKEN:
        raise UsageError(
            f'A plugin cannot be called "{name}".',
            f"Its package would be mertool_{name}.",
            "Take small letters, digits and _, a letter first: mertool plugins new my_fusion",
        )
    if kind not in KINDS:
        raise UsageError(f'There is no template of a "{kind}".', "", f"Take {' or '.join(KINDS)}.")
    if name in registry().names(kind):
        raise UsageError(
            f'There is already a {kind} called "{name}".',
            registry().entries[kind, name][0].owner,
            "Take another name.",
        )
    what, init, model = _PARTS[kind]
    texts = {
        "pyproject.toml": _PROJECT,
        "README.md": _README,
        f"mertool_{name}/__init__.py": init,
        f"mertool_{name}/model.py": model,
        f"tests/test_{name}.py": _TEST,
    }
    root = (folder or Path()) / name
    if root.exists() or root.is_symlink():
        raise OutputError("The folder exists.", str(root), "Take another name, or remove it.")
    files = []
    class_name = "".join(part.capitalize() for part in name.split("_")) or name
    for path, text in texts.items():
        for mark, value in (
            ("@name@", name), ("@Class@", class_name), ("@kind@", kind), ("@what@", what)
        ):  # fmt: skip
            text = text.replace(mark, value)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        write_text(root / path, text)
        files.append(root / path)
    return files
