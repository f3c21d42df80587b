import importlib.metadata
import subprocess
import sys
import textwrap

import pytest

from mertool.errors import PluginError, UsageError
from mertool.registry import Registry, registry


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Makes installed packages of one module each, with an entry point."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name, code):
        (tmp_path / f"{name}_module.py").write_text(textwrap.dedent(code))
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[mertool]\n{name} = {name}_module\n")
        made.append(f"{name}_module")

    made: list[str] = []
    yield make
    for module in made:
        sys.modules.pop(module, None)


GOOD = """
    from mertool import hookimpl

    @hookimpl
    def register_fusions(register):
        register("{name}", "{module}:Thing", summary="a thing")

    class Thing:
        pass
"""


def test_built_in_things_are_there():
    found = registry()
    assert not found.broken
    assert {"concat", "mcr"} <= set(found.names("fusion"))
    vision = ["facemesh", "hf_image", "openface", "pyfeat", "resnet"]
    assert found.names("extractor", modality="vision") == vision
    assert found.get("fusion", "mcr").owner.startswith("mertool ")


def test_third_party_plugin_is_found_and_loaded(packages):
    packages("alpha", GOOD.format(name="alpha", module="alpha_module"))
    found = Registry()
    assert found.get("fusion", "alpha").owner == "alpha 1.0 (alpha)"
    assert found.load("fusion", "alpha").__name__ == "Thing"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import a_module_that_is_not_there", "ModuleNotFoundError"),
        ("raise SystemError('boom')", "boom"),
        ("from mertool import hookimpl\n@hookimpl\ndef register_fusion(register): pass", "unknown"),
        (
            "from mertool import hookimpl\n@hookimpl\ndef register_fusions(register, more): pass",
            "more",
        ),
        (
            "from mertool import hookimpl\n@hookimpl\ndef register_fusions(register):\n"
            "    register('half', 'm:C')\n    raise ValueError('in the hook')",
            "in the hook",
        ),
        (
            "from mertool import hookimpl\n@hookimpl\ndef register_fusions(register):\n"
            "    register('x', 'no_colon')",
            "module:Class",
        ),
    ],
)
def test_a_broken_plugin_is_reported_and_stops_nobody(packages, code, message):
    packages("broken", code)
    packages("good", GOOD.format(name="good", module="good_module"))
    found = Registry()
    assert [b.owner for b in found.broken] == ["broken 1.0 (broken)"]
    assert message in found.broken[0].error
    assert {"good", "mcr"} <= set(found.names("fusion"))
    assert "half" not in found.names("fusion")


def test_a_clash_is_refused_and_names_both_owners(packages):
    packages("one", GOOD.format(name="same", module="one_module"))
    packages("two", GOOD.format(name="same", module="two_module"))
    with pytest.raises(PluginError) as caught:
        Registry().get("fusion", "same")
    assert "one 1.0 (one)" in caught.value.where and "two 1.0 (two)" in caught.value.where


def test_a_clash_with_our_own_is_refused_until_the_other_is_left_out(packages, monkeypatch):
    packages("thief", GOOD.format(name="mcr", module="thief_module"))
    with pytest.raises(PluginError, match="Two plugins"):
        Registry().get("fusion", "mcr")
    monkeypatch.setenv("MERTOOL_PLUGINS", "")
    found = Registry()
    assert found.get("fusion", "mcr").owner.startswith("mertool")
    assert found.skipped == ["thief 1.0 (thief)"]


def test_restricting_third_parties(packages, monkeypatch):
    packages("one", GOOD.format(name="one", module="one_module"))
    packages("two", GOOD.format(name="two", module="two_module"))
    monkeypatch.setenv("MERTOOL_PLUGINS", "two")
    names = Registry().names("fusion")
    assert "two" in names and "one" not in names and "mcr" in names


def test_unknown_name_suggests():
    with pytest.raises(UsageError) as caught:
        registry().get("fusion", "mrc")
    assert 'Did you mean "mcr"?' in caught.value.where
    assert caught.value.exit_code == 2


def test_a_target_that_cannot_be_imported(packages):
    packages("gone", GOOD.format(name="gone", module="module_that_is_gone"))
    with pytest.raises(PluginError, match="cannot be imported"):
        Registry().load("fusion", "gone")


def test_registering_imports_nothing_heavy():
    code = (
        "import sys; from mertool.registry import registry; assert not registry().broken;"
        "heavy = {'torch', 'transformers', 'h5py', 'matplotlib', 'av', 'mediapipe', 'sklearn'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_entry_points_are_those_of_the_installed_package():
    points = importlib.metadata.entry_points(group="mertool")
    assert {"builtin", "concat", "mcr"} <= {p.name for p in points}
