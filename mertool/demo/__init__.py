"""The demo: the whole chain on 24 clips that come with mertool (generate.py made them)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mertool.errors import OutputError

if TYPE_CHECKING:
    from mertool.evaluate import EvaluateReport

CLIPS = Path(__file__).parent / "clips"

# Small enough for a CPU; the paper's own sizes are the plugin's defaults.
SETTINGS = ("fusion.layers=2", "train.epochs=60", "train.patience=15", "train.batch_size=8")
SEEDS = 3


@dataclass
class DemoReport:
    """What the demo gave.

    Attributes:
        scores: Scores on the test split.
        files: {what it is: path} of everything written.
        seconds: Wall time.
    """

    scores: EvaluateReport
    files: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def run(
    out: str | Path = "mertool-demo",
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
    progress: bool = False,
) -> DemoReport:
    """Extract, align, train and evaluate on the packaged clips.

    Args:
        out: Folder to write.
        overwrite: Replace an earlier demo.
        say: Told what is done, step by step.
        progress: Show progress bars on a terminal's stderr.

    Returns:
        The scores and where the files are.

    Raises:
        OutputError: The folder exists or cannot be written.
    """
    import torch

    from mertool import align, evaluate, extract, train

    started = time.monotonic()
    out = Path(out)
    features, aligned, run_folder = out / "feats.h5", out / "aligned.h5", out / "run"
    if out.exists():
        if not overwrite:
            raise OutputError(
                "The demo's folder exists already.",
                str(out),
                "Choose another with -o, or add --overwrite.",
            )
        if any(out.iterdir()) and not (run_folder.exists() or features.exists()):
            raise OutputError(
                "The folder holds no demo; it is not overwritten.", str(out), "Choose another -o."
            )
        shutil.rmtree(out)
    say("24 clips of a synthetic speaker, scored from -3 to 3. The steps, as you would type them:")
    say(f"$ mertool extract {CLIPS} -o {features}")
    extract.run(CLIPS, features, jobs=2, progress=progress, command="mertool demo")
    say(f"$ mertool align {features} -o {aligned}")
    align.run(features, aligned, progress=progress, command="mertool demo")
    options = " ".join(f"--set {s}" for s in SETTINGS)
    say(f"$ mertool train --plugin mcr {aligned} -o {run_folder} --seeds {SEEDS} {options}")
    # On data this small several threads only wait for each other.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train.run(
        aligned, run_folder, plugin="mcr", seeds=SEEDS, settings=SETTINGS, device="cpu",
        progress=progress, command="mertool demo",
    )  # fmt: skip
    torch.set_num_threads(threads)
    say(f"$ mertool evaluate {run_folder}")
    scores = evaluate.run(run_folder, device="cpu", command="mertool demo")
    files = {
        "features": str(features),
        "the same, one row per word": str(aligned),
        "models, logs, predictions and scores": str(run_folder),
    }
    return DemoReport(scores, files, time.monotonic() - started)
