"""What all tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# Small models run faster, and in steadier time, on one thread; set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parent))  # for `media_samples`


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names made of sets: their order, and so the test, differs from process to process."""
    for item in items:
        values = getattr(getattr(item, "callspec", None), "params", {}).values()
        if any(isinstance(v, (set, frozenset)) and str(v) in item.name for v in values):
            raise pytest.UsageError(f"{item.nodeid}: named by a set; give a list")


@pytest.fixture
def shared() -> Path:
    """The folder of shared data: $MERTOOL_SHARED, or `shared` beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("MERTOOL_SHARED", beside))
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"no shared data at {folder}: tests that need them may not skip here")
        pytest.skip("no shared data: set MERTOOL_SHARED to its folder")
    return folder


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals from 100 draws, not 1000: most tests that evaluate look at something else."""
    if "mertool.evaluate" in sys.modules:
        monkeypatch.setattr("mertool.evaluate.DRAWS", 100)
