"""Late fusion: the average of single-modality models."""

from __future__ import annotations

from mertool.hookspecs import Register, hookimpl


@hookimpl
def register_fusions(register: Register) -> None:
    """Register `late`; torch is imported only when the model is used."""
    register(
        "late",
        "mertool_plugins.late.model:Late",
        summary="a model per stream, each with its own loss, predictions averaged",
        paper="",
        task_loss="none",
        fixed_length=False,
    )
