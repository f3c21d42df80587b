"""What every command promises: exit codes, three-line errors, results alone on stdout."""

from __future__ import annotations

import json
import shutil

import pytest
from media_samples import ODD

from mertool.cli import COMMANDS, cli
from mertool.manifest import read

PAGES = [
    [],
    *([name] for name in COMMANDS),
    ["data", "info"],
    ["data", "import"],
    ["data", "export"],
    ["plugins", "ls"],
    ["plugins", "check"],
    ["plugins", "new"],
    *(["recipe", name] for name in ("ls", "show", "cp", "check", "run")),
]


def assert_three_lines(err, *parts):
    """Error: what, where, what to do."""
    lines = err.splitlines()
    assert len(lines) == 3, err
    assert lines[0].startswith("Error: ") and all(x.startswith("  ") for x in lines[1:]), err
    for part in parts:
        assert part in err


@pytest.mark.parametrize("page", PAGES, ids=" ".join)
def test_help(call, page):
    code, out, err = call(*page, "--help")
    assert code == 0 and err == ""
    assert out.startswith(f"Usage: {' '.join(['mertool', *page])} ")
    if "Commands:" in out:  # summaries are not cut off
        assert "..." not in out.split("Commands:")[1].split("Start here")[0]
    else:
        options = out.split("Options:")[1].split("Examples:")[0]
        assert "Examples:\n    mertool " + " ".join(page) in out
        for flag in ("-q, --quiet", "-v, --verbose", "--debug", "--json"):
            assert options.count(flag) == 1
        assert options.index("--json") < options.index("--quiet")  # a command's own come first


def test_examples_name_options_that_exist():
    checked = 0
    for page in PAGES:
        command = cli
        for name in page:
            command = command.get_command(None, name)
        known = {option for parameter in command.params for option in parameter.opts}
        for line in (command.epilog or "").split("Examples:")[1:]:
            words = [w for w in line.split() if w.startswith("-")]
            assert set(words) <= known, page
            checked += len(words)
    assert checked > 10


@pytest.mark.parametrize("group", [[], ["data"], ["plugins"], ["recipe"]], ids=" ".join)
def test_a_group_alone_shows_its_help(call, group):
    code, out, err = call(*group)
    assert "Usage: mertool" in out + err and "Error" not in err
    assert code in (0, 2)  # click before and from 8.2


def test_version(call):
    assert call("--version").out.startswith("mertool ")


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["extrakt"], ['no command "extrakt"', 'Did you mean "extract"?', "mertool --help"]),
        (["--nonsense"], ["--nonsense", "See: mertool --help"]),
        (["data", "inf"], ["inf", "mertool data --help"]),
        (["extract", "-o", "x.h5"], ["SOURCE", "See: mertool extract --help"]),
        (["extract", "clips"], ["-o FILE or --into FILE", "See: mertool extract --help"]),
        (["extract", "clips", "-o"], ["requires an argument", "See: mertool extract --help"]),
        (["extract", "clips", "-o", "x.h5", "-j", "0"], ["--jobs", "x>=1"]),
        (["extract", "clips", "-o", "x.h5", "-j", "two"], ["--jobs", "two"]),
        (["extract", "clips", "-o", "x.h5", "--sede", "1"], ["--sede"]),
        (["extract", "clips", "-o", "x.h5", "--transcript", "x"], ["'x' is not one of"]),
        (["extract", "clips", "-o", "x.h5", "--profile", "x"], ['no profile "x"']),
        (["extract", "clips", "-o", "x.h5", "--vision", "face"], ['extractor named "face"']),
        (["extract", "clips", "-o", "x.h5", "--vision", "covarep"], ["no extractor for vision"]),
        (["extract", "clips", "-o", "x.h5", "--set", "a.b=1"], ["a.b: no such section"]),
        (["extract", "clips", "-o", "x.h5", "--resume", "--overwrite"], ["Resume or overwrite"]),
        (["train", "x.h5", "--plugin", "mrc"], ['Did you mean "mcr"?']),
        (["align", "x.h5", "-o", "y.h5", "--aligner", "sphinx"], ["pocketsphinx"]),
        (["align", "x.h5", "-o", "y.h5", "--to", "line"], ["line"]),
    ],
)
def test_wrong_usage_exits_with_2(call, clips, args, parts):
    args = [str(clips) if a == "clips" else a for a in args]
    code, out, err = call(*args)
    assert code == 2 and out == ""
    assert_three_lines(err, *parts)


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["extract", "gone", "-o", "x.h5"], ["no such file", "gone"]),
        (["extract", "empty", "-o", "x.h5"], ["No clips", "empty"]),
        (["extract", "clips", "-o", "mine.h5"], ["exists already", "mine.h5", "--overwrite"]),
        (["extract", "clips", "-o", "empty"], ["is a folder", "empty", "-o"]),
        (["extract", "clips", "-o", "x.h5", "--manifest", "no.csv"], ["cannot be read", "no.csv"]),
        (["extract", "clips", "-o", "left.h5"], ["unfinished", "left.h5.part", "--resume"]),
        (["extract", "clips", "-o", "mine.h5/x.h5"], ["cannot be written", "mine.h5/x.h5"]),
        (
            ["extract", "clips", "-o", "x.h5", "--text", "none", "--vision", "unfit"],
            ["a_package_nobody_has"],
        ),
        (
            ["extract", "clips", "-o", "x.h5", "--text", "none", "--vision", "unready"],
            ["pip install faces"],
        ),
        (
            ["extract", "bad", "-o", "x.h5", "--text", "none", "--vision", "none"],
            ["None of the 1 clips", "a.mp4 is empty", "--debug"],
        ),
        (["data", "info", "gone.h5"], ["no such feature file", "gone.h5"]),
        (["data", "info", "mine.h5"], ["cannot be opened as HDF5", "mine.h5"]),
        (["align", "gone.h5", "-o", "y.h5"], ["no such feature file"]),
        (["train", "gone.h5", "--plugin", "concat"], ["no such feature file"]),
        (["evaluate", "runs/gone"], ["runs/gone"]),
        (["predict", "runs/gone", "clips"], ["runs/gone"]),
    ],
)
def test_expected_failures_exit_with_1(call, clips, tmp_path, args, parts):
    here = tmp_path / "here"
    (here / "empty").mkdir()
    (here / "bad").mkdir()
    ODD["empty"](here / "bad" / "a.mp4")
    (here / "mine.h5").write_text("mine")
    (here / "left.h5.part").mkdir()
    args = [str(clips) if a == "clips" else a for a in args]
    before = sorted(here.rglob("*"))
    code, out, err = call(*args)
    assert code == 1 and out == ""
    assert_three_lines(err, *parts)
    assert (here / "mine.h5").read_text() == "mine" and sorted(here.rglob("*")) == before

    code, out, err = call(*args, "--debug")
    assert code == 1 and out == ""
    assert "Traceback (most recent call last)" in err
    assert_three_lines("\n".join(err.splitlines()[-3:]), *parts)


def test_all_wrong_settings_at_once(extract, call, clips):
    wrong = [
        "vision.gain=soon", "vision.gian=1", "audio.hop=1", "sound.x=1", "vision",
        "vision.repeat=x",
    ]  # fmt: skip
    code, out, err = extract(clips, "-o", "x.h5", *(f"--set={w}" for w in wrong))
    lines = err.splitlines()
    assert code == 2 and out == "" and len(lines) == len(wrong) + 2
    assert lines[0] == f"Error: {len(wrong)} settings are wrong."
    for part in ("gain", '"gain"', "audio.hop", "sound.x", '"vision"', "repeat"):
        assert any(part in line for line in lines[1:-1])
    assert extract(clips, "-o", "x.h5").code == 0
    code, out, err = call(
        "train", "x.h5", "--plugin=concat", "--set=train.lrr=1", "--set=fusion.no=2",
        "--set=model.x=1", "--set=train.epochs=many",
    )  # fmt: skip
    assert code == 2 and err.splitlines()[0] == "Error: 4 settings are wrong."


def test_an_unexpected_error_is_three_lines_too(call, clips, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("mertool.extract.run", broken)
    code, out, err = call("extract", clips, "-o", "x.h5")
    assert code == 1 and out == ""
    assert_three_lines(err, "RuntimeError: first line second line", "--debug", "report it")
    err = call("extract", clips, "-o", "x.h5", "--debug").err
    assert "Traceback" in err and "in broken" in err


def test_done_and_done_but_for_some(extract, call, clips):
    code, out, err = extract(clips, "-o", "x.h5")
    assert code == 0 and out.startswith("x.h5: 6 clips, 0 failed (") and out.count("\n") == 1
    assert "Note: clip2: no text" in err and "Failed" not in err

    ODD["text"](clips / "003.mp4")  # clip3
    code, out, err = extract(clips, "-o", "x.h5", "--overwrite")
    assert code == 3 and out.startswith("x.h5: 5 clips, 1 failed (")
    assert "Failed: clip3 (media): 003.mp4 is not a video" in err and "Traceback" not in err
    code, out, err = call("data", "info", "x.h5")
    assert code == 0 and err == "" and "003.mp4 is not a video" in out
    assert "Traceback" in extract(clips, "-o", "x.h5", "--overwrite", "--debug").err
    shutil.copy(clips / "001.mp4", clips / "003.mp4")
    code, out, err = extract(clips, "-o", "x.h5", "--resume")
    assert code == 0 and "6 clips, 0 failed, 5 from before" in out


def test_json_is_one_document(extract, call, clips):
    ODD["empty"](clips / "003.mp4")
    code, out, err = extract(clips, "-o", "x.h5", "--json")
    found = json.loads(out)
    assert code == 3 and found["out"] == "x.h5" and found["clips"] == 5
    assert found["failures"][0][:2] == ["clip3", "media"] and found["notes"] == [
        ["clip2", "no text"]
    ]
    assert "traces" not in found and "colour looks at" in err  # an extractor's print
    found = json.loads(call("data", "info", "x.h5", "--json").out)
    assert found["clips"] == 5 and found["failures"][0]["id"] == "clip3"
    assert found["command"].startswith("mertool extract ")
    found = json.loads(call("plugins", "ls", "--json").out)
    assert {"letters", "loudness", "colour"} <= {p["name"] for p in found["plugins"]}
    assert found["broken"] == []


def test_quiet_and_verbose(extract, clips):
    for i in range(1, 6):
        shutil.copy(ODD["no_sound"](clips / "006.mp4"), clips / f"00{i}.mp4")
    ODD["empty"](clips / "006.mp4")
    err = extract(clips, "-o", "x.h5", "-q").err
    messages = [x for x in err.splitlines() if not x.startswith("colour looks at")]
    assert [m.split(":")[0] for m in messages] == ["Failed"]
    err = extract(clips, "-o", "x.h5", "--overwrite").err
    assert err.count("no sound") == 3 and "2 more such notes; -v shows all" in err
    err = extract(clips, "-o", "x.h5", "--overwrite", "-v").err
    assert err.count("no sound") == 5 and "more such notes" not in err


def test_many_failures_are_counted(extract, clips):
    rows = [f"bad{i},gone{i}.mp4" for i in range(25)]
    (clips / "manifest.csv").write_text("clip_id,path\ngood,001.mp4\n" + "\n".join(rows))
    code, out, err = extract(clips, "-o", "x.h5")
    assert code == 3 and "1 clips, 25 failed" in out
    assert err.count("Failed: bad") == 20 and "Failed: 5 more; mertool data info" in err


def test_files_the_manifest_does_not_list(extract, clips):
    (clips / "manifest.csv").write_text("clip_id,path\ngood,001.mp4\n")
    code, out, err = extract(clips, "-o", "x.h5")
    assert code == 0 and "5 media files are not in the manifest and are ignored" in err
    assert len(read([clips]).clips) == 1


def test_odd_names_on_the_command_line(call, extract, clips, tmp_path):
    folder = clips.rename(tmp_path / "клипы № 1 (ü)")
    code, out, err = extract(folder, "-o", "new dir/é x.h5")
    assert code == 0 and out.startswith("new dir/é x.h5: 6 clips")
    assert "клипы № 1 (ü)" in call("data", "info", "new dir/é x.h5").out
    ODD["empty"](folder / "001.mp4")
    code, out, err = extract(folder, "-o", "y.h5", "--json")
    assert str(folder) in json.loads(out)["failures"][0][2]
