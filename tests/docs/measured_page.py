"""Writes the measured parts of docs/face.md and docs/words.md from benchmarks/results/.

python tests/docs/measured_page.py
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = {"face": "face", "words": "align"}  # of each page
BEGIN = (
    "<!-- measured: written by tests/docs/measured_page.py from benchmarks/results/{}.json; "
    "do not edit. -->\n"
)
END = "<!-- measured: end -->\n"


def path_of(name: str) -> Path:
    """The page's file."""
    return ROOT / "docs" / f"{name}.md"


def measured(script: str) -> str:
    """What stands between the marks."""
    sys.path.insert(0, str(BENCHMARKS))  # also for the modules that the script loads later
    try:
        return _written(script)
    finally:
        sys.path.remove(str(BENCHMARKS))


def _written(script: str) -> str:
    result = json.loads((BENCHMARKS / "results" / f"{script}.json").read_text(encoding="utf-8"))
    machine = result["environment"]
    told = "\n".join(importlib.import_module(script).lines(result)).strip()
    missed = "\n".join(f"- {miss}" for miss in result["missed"]) or "None."
    return (
        f"`python benchmarks/{script}.py`, {machine['date']}, {machine['cpus']} cores, "
        f"{machine['cpu']}; what is measured, and how: the head of that script.\n\n"
        f"```text\n{told}\n```\n\nTargets missed:\n\n{missed}\n\n`{result['key_figure']}`\n"
    )


def page(name: str) -> str:
    """The page with what was measured last."""
    begin = BEGIN.format(SCRIPTS[name])
    text = path_of(name).read_text(encoding="utf-8")
    head, tail = text.split(begin)[0], text.split(END)[1]
    return head + begin + measured(SCRIPTS[name]) + END + tail


if __name__ == "__main__":
    for name in SCRIPTS:
        path_of(name).write_text(page(name), encoding="utf-8")
