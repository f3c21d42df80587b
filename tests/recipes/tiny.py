"""A tiny recipe and data for it, so that whole runs take a moment."""

from __future__ import annotations

from pathlib import Path

TINY = """
[recipe]
title = "concat on made-up data"
paper = "Somebody et al. 2020"
dataset = "interaction"
summary = "tiny"
ablated = ["aligned"]

[run]
plugin = "concat"
label = "score"
modalities = ["text", "audio", "vision"]
seeds = 2
singles = false

[fusion]
d_model = 6

[train]
epochs = 1

[labels.score]
task = "regression"
range = [-1.0, 1.0]

[shapes.aligned]
text = [6, 7]
audio = [5, 7]
vision = [4, 7]
alignment = "word"

[shapes.unaligned]
text = [6, 7]
audio = [5, 14]
vision = [4, 10]
alignment = "none"

[expected.aligned]
source = "Table 1"
when = { alignment = "word", text = 6 }
acc2 = 80.5
mae = 0.700

[expected.unaligned]
source = "Table 1"
when = { alignment = "none", text = 6 }
acc2 = 70.0

[ablations.text_only]
row = "Text only"
source = "Table 2"
run.modalities = ["text"]
paper = { acc2 = 60.0 }

[ablations.no_vision]
row = "w/o Vision"
source = "Table 2"
run.modalities = ["text", "audio"]
paper = { acc2 = 61.0, mae = 0.9 }

[ablations.narrow]
row = "d = 4"
source = "Fig. 2"
fusion.d_model = 4

[smoke]
clips = 12
run.seeds = 1
"""


def write(folder: Path, *changes: tuple[str, str]) -> str:
    """Write it, with texts replaced by others; the path, as a user names it."""
    text = TINY
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(text)
    return str(folder / "recipe.toml")
