"""Writes the measured part of docs/face.md from benchmarks/results/face.json.

python tests/docs/face_page.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
PAGE = ROOT / "docs" / "face.md"
BEGIN = (
    "<!-- measured: written by tests/docs/face_page.py from benchmarks/results/face.json; "
    "do not edit. -->\n"
)
END = "<!-- measured: end -->\n"


def measured() -> str:
    """What stands between the marks."""
    sys.path.insert(0, str(BENCHMARKS))  # also for the modules that face.py loads later
    try:
        return _written()
    finally:
        sys.path.remove(str(BENCHMARKS))


def _written() -> str:
    import face

    result = json.loads((BENCHMARKS / "results" / "face.json").read_text(encoding="utf-8"))
    machine = result["environment"]
    told = "\n".join(face.lines(result)).strip()
    missed = "\n".join(f"- {miss}" for miss in result["missed"]) or "None."
    return (
        f"`python benchmarks/face.py`, {machine['date']}, {machine['cpus']} cores, "
        f"{machine['cpu']}; what is measured, and how: the head of that script.\n\n"
        f"```text\n{told}\n```\n\nTargets missed:\n\n{missed}\n\n`{result['key_figure']}`\n"
    )


def page() -> str:
    """docs/face.md with what was measured last."""
    text = PAGE.read_text(encoding="utf-8")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    return head + BEGIN + measured() + END + tail


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
