"""The demo command, with a training cut short."""

import json

import pytest

import mertool
from mertool import demo
from mertool.errors import OutputError


def test_the_whole_chain_ran(done):
    out, report, said = done
    with mertool.open(out / "aligned.h5") as file:
        assert len(file) == 24 and file.alignment == "word" and not file.failures
        assert all(file.lengths(s).min() > 0 for s in ("text", "audio", "vision"))
    assert report.scores.clips == 5 and report.scores.split == "test"
    kept = json.loads((out / "run" / "metrics.json").read_text())
    assert kept["splits"]["test"]["mertool"]["mean"]["mae"] == report.scores.mean["mae"]
    assert all((out / name).exists() for name in ("feats.h5", "aligned.h5", "run"))
    assert [line.split()[2] for line in said if line.startswith("$")] == [
        "extract", "align", "train", "evaluate",
    ]  # fmt: skip


def test_what_it_says_can_be_typed(done):
    """The commands it prints exist, with these options."""
    import shlex

    from mertool.cli import cli

    _, _, said = done
    for line in (s for s in said if s.startswith("$ mertool")):
        name, *args = shlex.split(line[len("$ mertool ") :])
        command = cli.get_command(None, name)
        command.make_context(name, args)


def test_nothing_is_overwritten_unasked(done, tmp_path):
    out, _, _ = done
    with pytest.raises(OutputError, match="exists already"):
        demo.run(out)
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="holds no demo"):
        demo.run(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()
