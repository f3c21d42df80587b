"""Running the benchmark scripts, and data to run them on."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import mertool

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
DEMO = Path(mertool.__file__).parent / "demo" / "clips"


def run(name: str, *args: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / f"{name}.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True)


def clips(folder: Path, number: int) -> Path:
    """A data folder of the first demo clips, with emotions, and each split in turn."""
    folder.mkdir()
    with (DEMO / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:number]
    for i, row in enumerate(rows):
        shutil.copy(DEMO / row["path"], folder)
        row["split"] = ("train", "train", "valid", "test")[i % 4]
        row["emotion"] = ("happy", "sad")[i // 4 % 2]
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def mmmo(folder: Path, text: bool = False) -> None:
    """Write folder/mmmo/mmmo.npz, random numbers; with text in valid and test, as ICT-MMMO has."""
    rng = np.random.default_rng(0)
    (folder / "mmmo").mkdir()
    arrays = {}
    for split, n in (("train", 12), ("valid", 6), ("test", 6)):
        arrays[f"audio_{split}"] = rng.normal(size=(n, 4, 3)).astype(np.float32)
        arrays[f"video_{split}"] = rng.normal(size=(n, 4, 2)).astype(np.float32)
        arrays[f"y_{split}"] = rng.uniform(1, 5, n).astype(np.float32)
        if text and split != "train":
            arrays[f"text_{split}"] = rng.normal(size=(n, 4, 5)).astype(np.float32)
    np.savez(folder / "mmmo" / "mmmo.npz", **arrays)
