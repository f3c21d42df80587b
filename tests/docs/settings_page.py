"""Writes docs/settings.md from the config classes and the Attributes of their docstrings.

python tests/docs/settings_page.py > docs/settings.md
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from mertool.config import settings_of, to_dict
from mertool.data import DataConfig
from mertool.registry import registry
from mertool.train import RunConfig
from mertool.train.loop import TrainConfig
from mertool.transcripts.asr import Config as AsrConfig

INTRO = """\
# Settings

<!-- Written by tests/docs/settings_page.py; do not edit. -->

Everything that `--set section.key=value` can change, with its type, default and meaning.

```sh
mertool extract videos/ -o feats.h5 --set vision.fps=10 --set audio.channel=first
mertool train --plugin mcr feats.h5 --set train.lr=2e-3 --set fusion.targets=text,audio
```

- `--set` may be given several times. All wrong sections, keys and values are reported together,
  before any work is done.
- Values are written as in TOML; texts need no quotes. A list is written with commas.
- `extract` knows the sections of the streams it makes and, with `--transcript asr`, `asr`, as does
  `predict`; `align` knows `align`, `data import` knows `reader`, and `train` knows `run`, `train`,
  `data` and `fusion`. In a section, the keys are those of the extractor, aligner, reader or fusion
  that is chosen.
- `train --config FILE` reads these sections of a TOML file, such as the
  `config.toml` of a run; `--set` wins over it.
- From Python: `mertool.extract(..., settings=["vision.fps=10"])`, and so for `align` and `train`.
- Where the settings are kept: those of an extractor and an aligner in the stream's attributes
  `config` and `aligner_config` ([feature file](feature-file.md)), those of a training in
  `config.toml` ([runs](runs.md)).

Settings of plugins that you install are not listed here; see their own pages.
"""

TYPES = {int: "whole number", float: "number", bool: "true or false", str: "text"}


def sections() -> Iterator[tuple[str, str, type]]:
    """(section, title, config class) of everything that comes with mertool."""
    for modality in ("text", "audio", "vision"):
        for name in ours("extractor", modality=modality):
            cls = registry().load("extractor", name)
            yield modality, f"`{modality}`: extractor `{name}`", cls.Config
    yield "asr", "`asr`: recognition, with `--transcript asr`", AsrConfig
    for name in ours("aligner"):
        yield "align", f"`align`: aligner `{name}`", registry().load("aligner", name).Config
    for name in ours("reader"):
        cls = settings_of(registry().load("reader", name), name)
        yield "reader", f"`reader`: reader `{name}`", cls
    yield "run", "`run`: what is trained on what (its options do the same)", RunConfig
    yield "train", "`train`: how a fusion is trained", TrainConfig
    yield "data", "`data`: how clips become batches", DataConfig
    for name in ours("fusion"):
        yield "fusion", f"`fusion`: fusion `{name}`", registry().load("fusion", name).Config


def ours(kind: str, **facts: str) -> list[str]:
    """First-party names: the page does not depend on what else is installed."""
    found = registry().entries
    return [
        n
        for n in registry().names(kind, **facts)
        if any(e.owner.startswith("mertool ") for e in found[kind, n])
    ]


def meanings(cls: type) -> dict[str, str]:
    """{field: text} of the Attributes section of a class's docstring."""
    doc = inspect.getdoc(cls) or ""
    found = re.search(r"^Attributes:\n((?:[ ]+.*\n?|\n)*)", doc, re.MULTILINE)
    if not found:
        return {}
    result: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent(found[1]).splitlines():
        if line.startswith(" "):
            result[name] += " " + line.strip()
        elif line:
            name, _, text = line.partition(":")
            result[name] = text.strip()
    return result


def type_name(kind: Any) -> str:
    """A field's type in plain words."""
    if typing.get_origin(kind) is tuple:
        return f"list of {TYPES[typing.get_args(kind)[0]]}s"
    return TYPES[kind]


def value(default: Any) -> str:
    """A default as it is written after `--set section.key=`."""
    if default in ("", []):
        return "(empty)"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, list):
        return f"`{','.join(map(str, default))}`"
    return f"`{default}`"


def table(section: str, cls: type) -> str:
    """The settings of one config class."""
    kinds, texts, defaults = typing.get_type_hints(cls), meanings(cls), to_dict(cls())
    if not defaults:
        return "No settings.\n"
    lines = ["| setting | type | default | meaning |", "| --- | --- | --- | --- |"]
    for field in dataclasses.fields(cls):
        text = texts[field.name].replace("|", r"\|")
        # Not what a default becomes on this machine, as "auto" may.
        default = field.default if isinstance(field.default, str) else defaults[field.name]
        lines.append(
            f"| `{section}.{field.name}` | {type_name(kinds[field.name])} "
            f"| {value(default)} | {text} |"
        )
    return "\n".join(lines) + "\n"


def contents(titles: Iterable[str]) -> str:
    """Links to all tables, a line for each section."""
    lines: dict[str, list[str]] = {}
    for title in titles:
        section, *name = re.findall("`(.+?)`", title)
        anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        lines.setdefault(section, []).append(f"[{name[0] if name else section}](#{anchor})")
    return "".join(f"- `{s}`: {', '.join(links)}\n" for s, links in lines.items())


def page() -> str:
    """The whole page."""
    found = list(sections())
    parts = [INTRO, contents(title for _, title, _ in found)]
    for section, title, cls in found:
        parts.append(f"## {title}\n\n{table(section, cls)}")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
