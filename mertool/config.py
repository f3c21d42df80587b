"""Settings: frozen dataclasses, TOML files and `--set section.key=value`, every error at once."""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mertool.errors import DataError, PluginError, UsageError, did_you_mean

# Metadata of a setting that names a program: only who runs mertool may give it. Where settings are
# taken from a file, a trained model's say, it keeps its default.
PROGRAM = {"program": True}


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """The settings of a plugin class that declares none."""


def settings_of(cls: type, what: str) -> type:
    """The settings dataclass of a plugin class, its `Config`.

    Args:
        cls: Extractor, aligner or fusion.
        what: What it is, for the error.

    Raises:
        PluginError: `Config` is no dataclass, or a field lacks a default or has None, which TOML
            cannot write.
    """
    config = getattr(cls, "Config", NoSettings)
    problem = "" if dataclasses.is_dataclass(config) else "is no dataclass"
    for field in () if problem else dataclasses.fields(config):
        bare = field.default is field.default_factory is dataclasses.MISSING
        if bare or field.default is None:
            problem = f'has a field "{field.name}" {"without default" if bare else "that is None"}'
    if problem:
        raise PluginError(
            f"The Config of {what} {problem}.",
            f"{cls.__module__}:{cls.__qualname__}",
            "A Config is a frozen dataclass of plain values, all with defaults, none of them None.",
        )
    return config


def resolve(
    sections: Mapping[str, type],
    settings: Sequence[str] = (),
    base: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Build every section's config object.

    Args:
        sections: {section: frozen dataclass with defaults for all fields}.
        settings: "section.key=value" strings; they win over `base`.
        base: Values of a TOML file, {section: {key: value}}.

    Returns:
        {section: instance of its dataclass}.

    Raises:
        UsageError: With all wrong sections, keys and values listed together.
    """
    errors: list[str] = []
    values: dict[str, dict[str, Any]] = {name: {} for name in sections}
    for section, table in (base or {}).items():
        if section not in sections:
            errors.append(f"[{section}]: no such section. {did_you_mean(section, sections)}")
        elif not isinstance(table, Mapping):
            errors.append(f"{section}: must be a section of settings, not a value")
        else:
            for key, value in table.items():
                _take(sections[section], section, key, value, values, errors)
    for setting in settings:
        name, equals, raw = setting.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot and key):
            errors.append(f'"{setting}": settings are written section.key=value')
        elif section not in sections:
            errors.append(f"{name}: no such section. {did_you_mean(section, sections)}")
        else:
            _take(sections[section], section, key, raw.strip(), values, errors, text=True)
    built = {}
    for section, cls in sections.items():
        try:
            built[section] = cls(**values[section])
        except ValueError as error:
            errors.append(f"{section}: {error}")
    if errors:
        count = "A setting is" if len(errors) == 1 else f"{len(errors)} settings are"
        raise UsageError(
            f"{count} wrong.",
            "\n  ".join(errors),
            "Settings are written --set section.key=value; names and defaults: docs/settings.md",
        )
    return built


def _take(
    cls: type,
    section: str,
    key: str,
    value: Any,
    values: dict[str, dict[str, Any]],
    errors: list[str],
    text: bool = False,
) -> None:
    types = typing.get_type_hints(cls)
    if key not in types:
        errors.append(f"{section}.{key}: no such setting. {did_you_mean(key, types)}")
        return
    try:
        values[section][key] = _convert(value, types[key], text)
    except ValueError as error:
        errors.append(f"{section}.{key}: {error}")


def _convert(value: Any, kind: Any, text: bool) -> Any:
    """Turn a command-line string (`text`) or a TOML value into the field's type."""
    many = typing.get_origin(kind) is tuple
    if text and kind is not str:
        try:
            value = tomllib.loads(f"v = {value}")["v"]
            text = False
        except tomllib.TOMLDecodeError:
            # A comma list needs no brackets and no quotes: fusion.targets=text,audio
            if many:
                value = [part.strip() for part in value.split(",") if part.strip()]
    if many:
        item = typing.get_args(kind)[0]
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_convert(v, item, text) for v in items)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{value!r} is not {_ARTICLE.get(kind, kind)}")
    return value


_ARTICLE = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
}


def to_dict(config: Any) -> dict[str, Any]:
    """Plain values of a config object, ready for TOML or JSON."""
    plain = dataclasses.asdict(config)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}


def to_toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """TOML text of sections of plain values (texts, numbers, true or false, lists of them).

    Of these JSON's notation is TOML's. Written here, as GPU machines may lack a TOML writer.
    """
    tables = []
    for name, values in sections.items():
        lines = [
            f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()
        ]
        tables.append("\n".join([f"[{name}]", *lines]) + "\n")
    return "\n".join(tables)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        DataError: The file is missing or is no TOML.
    """
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise DataError(
            "The config file cannot be read.", f"{path}: {error.strerror}", "Check --config."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            "The config file is not valid TOML.", f"{path}: {error}", "Mend that line."
        ) from error
