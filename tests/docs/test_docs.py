"""The pages hold: links lead somewhere, commands and settings exist, code compiles."""

from __future__ import annotations

import re

import click
import covarep_page
import measured_page
import methods_page
import pages
import pytest
import settings_page

from mertool.align import DEFAULT
from mertool.cli import cli, common
from mertool.config import resolve, settings_of
from mertool.data import DataConfig
from mertool.extract import PROFILES
from mertool.extract.covarep.extractor import Covarep
from mertool.extract.face import measures, pyfeat
from mertool.extract.face.pipeline import COLUMNS
from mertool.extract.segment import rule
from mertool.registry import registry
from mertool.train.loop import TrainConfig
from mertool.transcripts.asr import Config as AsrConfig

every_page = pytest.mark.parametrize(
    "path", pages.PAGES, ids=lambda p: str(p.relative_to(pages.ROOT))
)


def test_settings_page_is_fresh():
    assert pages.read("settings") == settings_page.page(), (
        "run: python tests/docs/settings_page.py > docs/settings.md"
    )


def test_covarep_page_is_fresh():
    assert pages.read("covarep") == covarep_page.page(), (
        "run: python tests/docs/covarep_page.py > docs/covarep.md"
    )


@pytest.mark.parametrize("name", measured_page.SCRIPTS)
def test_measured_part_of_a_page_is_fresh(name):
    assert pages.read(name) == measured_page.page(name), "run: python tests/docs/measured_page.py"


def test_methods_page_is_fresh():
    assert pages.read("methods") == methods_page.page(), (
        "run: python tests/docs/methods_page.py > docs/methods.md"
    )


def test_every_setting_is_explained():
    for _, title, cls in settings_page.sections():
        assert set(settings_page.meanings(cls)) == set(cls.__dataclass_fields__), title
        assert all(settings_page.meanings(cls).values()), title


@every_page
def test_relative_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", pages.prose(text)):
        if re.match(r"\w+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists() and target.is_relative_to(pages.ROOT), link
        if anchor:
            assert anchor in pages.slugs(target.read_text(encoding="utf-8")), link


def test_every_page_is_reached_from_the_readme():
    readme = (pages.ROOT / "README.md").read_text(encoding="utf-8")
    for path in (pages.ROOT / "docs").glob("*.md"):
        assert f"](docs/{path.name})" in readme


@every_page
def test_python_blocks_compile(path):
    for code in pages.blocks(path.read_text(encoding="utf-8"), "python"):
        compile(code, str(path), "exec")


def parse(arguments: list[str]) -> tuple[str, dict]:
    """What click makes of a command line: the command's name and its values."""
    command, rest, trail = cli, list(arguments), []
    while isinstance(command, click.Group):
        name = rest.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"no command {name}"
        command, trail = found, [*trail, name]
    # Files are looked for when the command runs, so that this needs none.
    return " ".join(trail), command.make_context(trail[-1], rest).params


def plugins_on_the_page(kind: str) -> set[str]:
    """Names that the pages on plugins register or begin; installed by no one here."""
    text = pages.read("plugins") + pages.read("plugin-reference")
    found = set(re.findall(rf"def register_{kind}s\(register\):\s+register\(\s*\"(\w+)\"", text))
    for arguments in pages.commands(text):
        if arguments[:2] == ["plugins", "new"]:
            values = parse(arguments)[1]
            found |= {values["name"]} if values["kind"] == kind else set()
    assert found
    return found


SECTIONS = {"fusion": "fusion", "aligner": "align", "reader": "reader"}  # else its modality


def check_plugin(name: str, settings: tuple[str, ...]) -> None:
    """Refuse what `plugins check NAME --set ...` would refuse."""
    if any(name in plugins_on_the_page(k) for k in ("fusion", "extractor", "aligner", "reader")):
        return
    entries = [registry().get(*key) for key in registry().entries if key[1] == name]
    assert entries, f"no plugin named {name}"
    for entry in entries:
        section = SECTIONS.get(entry.kind) or entry.facts["modality"]
        resolve({section: settings_of(registry().load(entry.kind, name), name)}, settings)


def check(arguments: list[str]) -> None:
    """Refuse a command line that mertool would refuse, whatever files there are."""
    if arguments and arguments[0] in ("--version", "--help"):
        return
    name, values = parse(arguments)
    sections: dict[str, type] = {}
    if name == "extract":
        for stream, default in PROFILES[values["profile"]].items():
            chosen = values[stream] or default
            if chosen in plugins_on_the_page("extractor"):
                return
            if chosen != "none":
                sections[stream] = registry().load("extractor", chosen).Config
        rule(values["segment"])
    elif name == "align":
        if values["aligner"] and values["aligner"] in plugins_on_the_page("aligner"):
            return
        sections["align"] = registry().load("aligner", values["aligner"] or DEFAULT).Config
    elif name == "data import":
        if values["format"] in plugins_on_the_page("reader"):
            return
        reader = registry().load("reader", values["format"])
        sections["reader"] = settings_of(reader, "a reader")
    elif name == "train":
        assert values["plugin"] or values["config"], "train needs --plugin"
        if values["plugin"] is None or values["plugin"] in plugins_on_the_page("fusion"):
            return
        sections = {"train": TrainConfig, "data": DataConfig}
        sections["fusion"] = registry().load("fusion", values["plugin"]).Config
    elif name == "plugins check":
        assert bool(values["names"]) != values["everything"], "plugins, or --all"
        for plugin in values["names"] or registry().names("fusion"):
            check_plugin(plugin, values["settings"])
        return
    if values.get("transcript") == "asr":  # extract, predict
        sections["asr"] = AsrConfig
    resolve(sections, values.get("settings", ()))


@pytest.fixture(autouse=True)
def _flags(monkeypatch):
    """-q and its like in an example are not to reach other tests."""
    monkeypatch.setattr(common, "STATE", common.State())


@every_page
def test_commands_and_settings_exist(path):
    for arguments in pages.commands(path.read_text(encoding="utf-8")):
        try:
            check(arguments)
        except Exception as error:
            pytest.fail(f"mertool {' '.join(arguments)}: {error}")


def test_commands_are_found_at_all():
    """The check above is not passed by finding nothing."""
    text = (
        "```sh\nA=1 mertool extract x \\\n  -o y > z && mertool demo # more\n```\n    mertool a\n"
    )
    found = sorted(pages.commands(text))
    assert found == [["a"], ["demo"], ["extract", "x", "-o", "y"]]
    assert all(pages.commands(pages.read(n)) for n in ("manifest", "extractors", "runs", "plugins"))


@pytest.mark.parametrize(
    "wrong",
    [
        "extrct x -o y",
        "extract x -o y --resum",
        "extract -o y",
        "extract x -o y --set audio.hop=5",
        "align x -o y --aligner sphinx",
        "train --plugin mrc x",
        "train --plugin mcr x --set fusion.width=5",
        "data infos x",
        "plugins check mrc",
        "plugins check concat --set fusion.width=5",
        "plugins check",
        "plugins new",
        "data import npy x -o y",
        "data import npz x -o y --set reader.align=none",
    ],
)
def test_wrong_commands_are_noticed(wrong):
    with pytest.raises(
        Exception, match=r"(?i)no such|no command|no \w+ named|missing|wrong|or --all"
    ):
        check(wrong.split())


def test_examples_in_help_parse():
    """The examples below each command's --help."""
    todo, seen = [cli], 0
    while todo:
        command = todo.pop()
        if isinstance(command, click.Group):
            context = click.Context(command)
            todo += [command.get_command(context, n) for n in command.list_commands(context)]
        for line in re.findall(r"(?<!\S)mertool .*", command.epilog or ""):
            check(re.split(r"\s{2,}", line)[0].split()[1:])  # a remark may follow spaces
            seen += 1
    assert seen > 10


def test_extractors_page():
    rows = {pages.codes(row[0])[0]: row for row in pages.table(pages.read("extractors"), "name")}
    builtin = {
        n: k
        for (k, n), entries in registry().entries.items()
        if k in ("extractor", "aligner") and entries[0].owner.startswith("mertool ")
    }
    assert set(rows) == set(builtin)
    defaults = {*PROFILES["offline"].values(), DEFAULT}
    assert {n for n, row in rows.items() if "(default)" in row[0]} == defaults
    for name, kind in builtin.items():
        if kind == "extractor":
            assert rows[name][1] == registry().get(kind, name).facts["modality"]


def test_column_names_on_the_extractors_page():
    text = pages.read("extractors")
    tables = re.findall(r"^\| columns \| what \|\n(?:\|.*\n)+", pages.prose(text), re.MULTILINE)
    assert len(tables) == 1
    covarep = Covarep(Covarep.Config())
    listed = []
    for row in pages.table(tables[0], "columns"):
        names = pages.codes(row[0])
        if " to " in row[0]:  # `MCEP_0` to `MCEP_24`
            stem, last = names[1].split("_")
            names = [f"{stem}_{i}" for i in range(int(last) + 1)]
        listed += names
    assert listed == covarep.columns
    sizes = {r[0].split("`")[1]: r[2] for r in pages.table(text, "name")}
    assert sizes["covarep"] == str(len(covarep.columns))
    assert sizes["facemesh"] == str(len(measures.COLUMNS) + len(COLUMNS))
    assert sizes["pyfeat"] == str(len(pyfeat.NAMES) + len(COLUMNS))


def test_column_names_on_the_face_page():
    text = pages.read("face")
    start, end = text.index("## facemesh"), text.index("## Measured")
    rows = [row for table in pages.tables(text[start:end], "column") for row in table]
    listed = [name for row in rows for name in pages.codes(row[0])]
    assert [name for name in listed if name.endswith("_geo")] == list(measures.ACTION_UNITS)
    assert set(measures.COLUMNS) <= set(listed)
    assert f"lm{len(measures.LANDMARKS) - 1:02d}_z" in text
    for name in (*COLUMNS, *pyfeat.NAMES):
        assert f"`{name}`" in text
    points = {int(n) for n in re.findall(r"\b\d+\b", text[start : text.index("Numbers are")])}
    groups = [term[2:] for terms in measures.ACTION_UNITS.values() for term in terms]
    used = {point for pair in groups for group in pair for point in group}
    assert points - {478, 9} <= used | set(measures._MIRROR.values())  # 9 cm, 478 points
