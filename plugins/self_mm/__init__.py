"""Self-MM: unimodal labels generated while training (AAAI 2021)."""

from __future__ import annotations

from mertool.hookspecs import Register, hookimpl


@hookimpl
def register_fusions(register: Register) -> None:
    """Register `self_mm`; torch is imported only when the model is used."""
    register(
        "self_mm",
        "mertool_plugins.self_mm.model:SelfMM",
        summary="concatenation, with single-stream tasks whose labels it generates itself",
        paper="Yu et al., Learning modality-specific representations with self-supervised "
        "multi-task learning for multimodal sentiment analysis, AAAI 2021",
        task_loss="l1",
        fixed_length=False,
    )
