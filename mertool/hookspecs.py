"""The five hooks a plugin can implement.

Each is handed `register(name, target, **facts)`; `target` is "module:Class" (for recipes
"package:folder") and is imported only when used. docs/plugin-reference.md documents every fact and
every check.

`mertool.testing` checks what is registered. The fact `waivers`, {check: reason}, says which checks
a plugin fails on purpose: they are shown as waived with the reason. A waiver of a check that
passes or does not exist is a failure.
"""

from __future__ import annotations

from collections.abc import Callable

import pluggy

hookspec = pluggy.HookspecMarker("mertool")
hookimpl = pluggy.HookimplMarker("mertool")

Register = Callable[..., None]


@hookspec
def register_extractors(register: Register) -> None:
    """Feature extractors.

    Facts: modality ("text", "audio", "vision"), summary, waivers.

    Checks: import, config, modality, columns, places, blank, brief, absent, repeat, labels, rates.
    """


@hookspec
def register_aligners(register: Register) -> None:
    """Forced aligners, transcript to timed words.

    Facts: summary, waivers.

    Checks: import, config, words, order, inside, scores, empty, silence, together, repeat.
    """


@hookspec
def register_readers(register: Register) -> None:
    """Readers of corpora and feature files of other projects.

    Facts: summary, waivers.

    Checks: import, config, clips, rows, twice, whole.
    """


@hookspec
def register_fusions(register: Register) -> None:
    """Fusion models.

    Facts: summary, paper, task_loss, fixed_length, waivers.

    Checks: import, config, tasks, unaligned, aligned, streams, absent, single, longer, padding,
    batch, labels, losses, gradients, seed, overfit, checkpoint, values, record, cuda, vmap.
    """


@hookspec
def register_recipes(register: Register) -> None:
    """Recipes, each a folder with a recipe.toml.

    Facts: summary, waivers.

    Checks: import, file, names, keys, expected, support, ablations, shapes, builds.
    """
