"""MISA: modality-invariant and modality-specific representations (ACM Multimedia 2020)."""

from __future__ import annotations

from mertool.hookspecs import Register, hookimpl


@hookimpl
def register_fusions(register: Register) -> None:
    """Register `misa`; torch is imported only when the model is used."""
    register(
        "misa",
        "mertool_plugins.misa.model:MISA",
        summary="each stream in a shared and a private space, fused by a Transformer",
        paper="Hazarika et al., MISA: modality-invariant and -specific representations for "
        "multimodal sentiment analysis, ACM Multimedia 2020",
        task_loss="mse",
        fixed_length=False,
    )
