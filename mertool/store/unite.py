"""What the clips of several feature files have in common when they are merged into one.

Each function takes the open files in their order; most add notes on what some of them lack.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mertool.errors import DataError
from mertool.store.layout import Stream, json_attr
from mertool.store.reader import FeatureFile
from mertool.types import Label

_OWN = ("format", "version", "created", "mertool", "command")  # of each file, set when written
# Rows are comparable only where these agree; model, revision, owner ... name what made them.
_MUST_AGREE = ("extractor", "config", "rate", "timed", "pool", "aligned_from")
_IMPORTED = ("file", "sha256")  # of an import's config: what it read, no setting


def check_ids(files: Sequence[FeatureFile]) -> None:
    """Refuse an id that two files share.

    Raises:
        DataError: There is one.
    """
    owners: dict[str, FeatureFile] = {}
    for file in files:
        double = [name for name in file.ids if name in owners]
        if double:
            more = f" (and {len(double) - 1} more)" if len(double) > 1 else ""
            raise DataError(
                f'The clip "{double[0]}" is in two files.',
                f"{owners[double[0]].path} and {file.path}{more}",
                "Ids are unique: leave the clip out of one file, with mertool data select.",
            )
        owners |= dict.fromkeys(file.ids, file)


def root_attrs(files: Sequence[FeatureFile]) -> dict[str, Any]:
    """Attributes of the whole: the alignment, the data sets, and what else is equal in all.

    Raises:
        DataError: The files are not aligned alike.
    """
    first = files[0]
    for file in files:
        if file.alignment != first.alignment:
            raise DataError(
                "The files are not aligned alike.",
                f'{first.path}: "{first.alignment}"; {file.path}: "{file.alignment}"',
                "Merge the files that extract wrote, and align the result.",
            )
    attrs = {k: v for k, v in _equal([f.attrs for f in files]).items() if k not in _OWN}
    return {**attrs, "dataset": _joined(f.attrs.get("dataset", "") for f in files)}


def streams(files: Sequence[FeatureFile], notes: list[str]) -> dict[str, Stream]:
    """All streams, in the order in which they are met.

    Raises:
        DataError: Streams of one name differ in more than who made them.
    """
    result = {}
    for name in dict.fromkeys(name for file in files for name in file.streams):
        having = [file for file in files if name in file.streams]
        first = having[0].streams[name]
        for file in having[1:]:
            _check_stream(name, having[0], file)
        attrs = dict(first.attrs)
        every = [file.streams[name].attrs for file in having]
        for key in dict.fromkeys(key for each in every for key in each):
            if key not in _MUST_AGREE and key not in _equal(every):
                attrs[key] = _joined(each[key] for each in every if key in each)
                notes.append(f'stream "{name}": {key} differs: {attrs[key]}')
        origins = [_settings(each)[1] for each in every]
        if origins[0]:
            read = {key: _joined(o.get(key, "") for o in origins) for key in origins[0]}
            attrs["config"] = json_attr({**json.loads(_settings(first.attrs)[0]), **read})
        result[name] = Stream(first.columns, attrs, first.text)
        notes += _lacking(files, having, f'stream "{name}"', "no rows for")
    return result


def labels(files: Sequence[FeatureFile], notes: list[str]) -> dict[str, Label]:
    """All labels, in the order in which they are met, with their classes and ranges united.

    Raises:
        DataError: Labels of one name have different tasks.
    """
    result = {}
    for name in dict.fromkeys(name for file in files for name in file.labels):
        having = [file for file in files if name in file.labels]
        first, every = having[0].labels[name], [file.labels[name] for file in having]
        for file in having:
            if file.labels[name].task != first.task:
                raise DataError(
                    f'The label "{name}" has two tasks.',
                    f"{having[0].path}: {first.task}; {file.path}: {file.labels[name].task}",
                    "Rename one of them in its manifest, and extract or import again.",
                )
        classes = tuple(dict.fromkeys(c for label in every for c in label.classes))
        low, high = min(x.range[0] for x in every), max(x.range[1] for x in every)
        result[name] = Label(name, first.task, classes, (low, high))
        notes += _lacking(files, having, f'label "{name}"', "missing for")
        for file in having:
            new = [c for c in classes if c not in file.labels[name].classes]
            if new and first.task == "multilabel":
                clips = _count(len(file), "clip")
                notes.append(
                    f'label "{name}": {", ".join(new)} not known in {file.path}: 0 for its {clips}'
                )
            elif new:
                notes.append(f'label "{name}": no {", ".join(new)} in {file.path}')
    return result


def value(known: Any, old: Label, new: Label) -> Any:
    """A label's value of one file, as the united label has it."""
    if old.task == "classification":
        return new.classes.index(old.classes[known])
    if old.task == "multilabel":
        given = dict(zip(old.classes, known, strict=True))
        return [given.get(name, 0) for name in new.classes]
    return known


def splits(
    files: Sequence[FeatureFile], notes: list[str]
) -> dict[str, tuple[list[str], dict[str, Any]]]:
    """{name: ((N,) split of each clip, attributes that are equal in all files)}."""
    result = {}
    for name in dict.fromkeys(name for file in files for name in file.splits):
        having = [file for file in files if name in file.splits]
        values = [file.split(name) if file in having else [""] * len(file) for file in files]
        attrs = {}
        if len(having) == len(files):
            attrs = _equal([file.split_attrs(name) for file in files])
            attrs.pop("sha256", None)  # of the clips of one file
        result[name] = ([s for part in values for s in part], attrs)
        notes += _lacking(files, having, f'split "{name}"', "no part for")
    return result


def failures(files: Sequence[FeatureFile], notes: list[str]) -> list[tuple[str, str, str]]:
    """The failures of all files, without those that another file has as clips."""
    every = list(dict.fromkeys(f for file in files for f in file.failures))
    mended = {name for name, _, _ in every} & {name for file in files for name in file.ids}
    if mended:
        clips = _count(len(mended), "clip")
        notes.append(f"{clips} failed in one file and are in another: counted as done")
    return [f for f in every if f[0] not in mended]


def same_speakers(files: Sequence[FeatureFile], notes: list[str]) -> None:
    """Note speakers of two data sets that have one name: nothing tells them apart any more."""
    owner: dict[str, str] = {}
    shared: set[str] = set()
    for file in files:
        dataset = str(file.attrs.get("dataset", ""))
        for who in set(file.column("speaker")) - {""}:
            if owner.setdefault(who, dataset) != dataset:
                shared.add(who)
    if shared:
        names = ", ".join(sorted(shared)[:5]) + (", ..." if len(shared) > 5 else "")
        notes.append(
            f"{_count(len(shared), 'speaker')} of one name in two data sets, from now on one "
            f"person: {names}"
        )


def _check_stream(name: str, one: FeatureFile, other: FeatureFile) -> None:
    """Refuse streams whose rows are not of one kind."""
    first, second = one.streams[name], other.streams[name]
    problem = ""
    if first.columns != second.columns:
        problem = _columns(first.columns, second.columns)
    elif first.text != second.text:
        problem = "only one of them has words and characters of its rows"
    for key in _MUST_AGREE:
        a, b = (
            _settings(s.attrs)[0] if key == "config" else _plain(s.attrs.get(key, "none"))
            for s in (first, second)
        )
        if not problem and a != b:
            a, b = _differing(a, b) if key == "config" else (a, b)
            problem = f"{key}: {a} and {b}"
    if problem:
        raise DataError(
            f'The stream "{name}" is not the same in both files.',
            f"{one.path} and {other.path}: {problem}",
            "Extract it again with the same settings, or leave it out: mertool data select.",
        )


def _columns(one: Sequence[str], other: Sequence[str]) -> str:
    if len(one) != len(other):
        return f"{len(one)} and {len(other)} columns"
    k = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    return f'column {k} is "{one[k]}" and "{other[k]}"'


def _settings(attrs: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """A stream's settings, and apart from them what an import read."""
    text = str(attrs.get("config", ""))
    if not str(attrs.get("extractor", "")).startswith("import:"):
        return text, {}
    try:
        config = json.loads(text)
        read = {key: str(config.pop(key)) for key in _IMPORTED}
    except (ValueError, KeyError, AttributeError, TypeError):  # not as our imports write it
        return text, {}
    return json_attr(config), read


def _differing(one: str, other: str) -> tuple[str, str]:
    """Of two configs, the settings that differ."""
    try:
        a, b = dict(json.loads(one)), dict(json.loads(other))
    except (ValueError, TypeError):
        return one, other
    keys = [k for k in {**a, **b} if k not in a or k not in b or a[k] != b[k]]
    return tuple(json_attr({k: x[k] for k in keys if k in x}) for x in (a, b))


def _lacking(
    files: Sequence[FeatureFile], having: Sequence[FeatureFile], what: str, then: str
) -> list[str]:
    return [
        f"{what} is not in {file.path}: {then} its {_count(len(file), 'clip')}"
        for file in files
        if file not in having
    ]


def _equal(every: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is in all of them, with one value."""
    first, *rest = every
    return {
        key: v
        for key, v in first.items()
        if all(key in other and _plain(other[key]) == _plain(v) for other in rest)
    }


def _joined(values: Any) -> str:
    return ", ".join(dict.fromkeys(str(v) for v in values if str(v)))


def _plain(attr: Any) -> Any:
    return np.asarray(attr).tolist()


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
