"""FDMER: feature-disentangled multimodal emotion recognition (ACM Multimedia 2022)."""

from __future__ import annotations

from mertool.hookspecs import Register, hookimpl


@hookimpl
def register_fusions(register: Register) -> None:
    """Register `fdmer`; torch is imported only when the model is used."""
    register(
        "fdmer",
        "mertool_plugins.fdmer.model:FDMER",
        summary="common and private vectors of each stream, adversarially disentangled, "
        "fused by cross-modal attention",
        paper="Yang et al., Disentangled representation learning for multimodal emotion "
        "recognition, ACM Multimedia 2022",
        task_loss="mse",
        fixed_length=False,
    )
