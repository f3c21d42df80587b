import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {"mertool": "mertool", "mertool_plugins": "plugins", "mertool_recipes": "recipes"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def on_disk():
    """{import name: path} of every module in the tree."""
    found = {}
    for name, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            found["/".join([name, *path.relative_to(ROOT / folder).parts])] = path
    return found


def test_every_package_is_listed():
    packages = {str(Path(p).parent).replace("/", ".") for p in on_disk()}
    assert packages == set(PROJECT["tool"]["setuptools"]["packages"])


@pytest.mark.parametrize("extra", PROJECT["project"]["optional-dependencies"])
def test_extras_are_explained(extra):
    assert f"`{extra}`" in (ROOT / "docs" / "install.md").read_text(encoding="utf-8")


def test_a_wheel_outside_the_checkout_has_everything(tmp_path):
    """Built and unpacked elsewhere, it finds its plugins, recipes and demo clips."""
    copy = tmp_path / "source"
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("not a git checkout: cannot tell what belongs to the project")
    for name in done.stdout.split("\n"):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q",
         "-w", tmp_path, copy],
        check=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(site)
    assert set(on_disk()) <= names
    assert {"mertool_plugins/mcr/README.md", "mertool_recipes/mosi_mcr/recipe.toml"} <= names
    code = (
        "import mertool, mertool_recipes, mertool.demo, mertool.manifest as m;"
        "from mertool.registry import registry as r;"
        f"assert mertool.__file__.startswith({str(site)!r}), mertool.__file__;"
        "assert r().load('fusion', 'mcr').__module__ == 'mertool_plugins.mcr.model';"
        "from mertool.recipe import find, names;"
        "assert find('mosi_mcr').path.is_relative_to(mertool_recipes.__path__[0]);"
        "assert len(names()) == len({path.parent for path in "
        "__import__('pathlib').Path(mertool_recipes.__path__[0]).glob('*/README.md')}), names();"
        "print(len(m.read([mertool.demo.CLIPS]).clips))"
    )
    environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "24", done.stderr
