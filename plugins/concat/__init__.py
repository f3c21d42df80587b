"""Concatenation of mean-pooled streams: the baseline, and the example for plugin writers."""

from __future__ import annotations

from mertool.hookspecs import Register, hookimpl


@hookimpl
def register_fusions(register: Register) -> None:
    """Register `concat`; torch is imported only when the model is used."""
    register(
        "concat",
        "mertool_plugins.concat.model:Concat",
        summary="mean of each stream, concatenated, two linear layers",
        paper="",
        task_loss="l1",
        fixed_length=False,
    )
