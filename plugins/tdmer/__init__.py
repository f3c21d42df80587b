"""TDMER: task-driven multimodal emotion recognition (ICASSP 2025)."""

from __future__ import annotations

from mertool.hookspecs import Register, hookimpl


@hookimpl
def register_fusions(register: Register) -> None:
    """Register `tdmer`; torch is imported only when the model is used."""
    register(
        "tdmer",
        "mertool_plugins.tdmer.model:TDMER",
        summary="common and private features, each weighted by how well it predicts the label",
        paper="Xu et al., TDMER: a task-driven method for multimodal emotion recognition, "
        "ICASSP 2025",
        task_loss="none",
        fixed_length=False,
    )
