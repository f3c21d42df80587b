"""TMT: token-disentangling mutual Transformer (Engineering Applications of AI 2024)."""

from __future__ import annotations

from mertool.hookspecs import Register, hookimpl


@hookimpl
def register_fusions(register: Register) -> None:
    """Register `tmt`; torch is imported only when the model is used."""
    register(
        "tmt",
        "mertool_plugins.tmt.model:TMT",
        summary="learnt common and private tokens, kept orthogonal, query each other",
        paper="Yin et al., Token-disentangling mutual Transformer for multimodal emotion "
        "recognition, Engineering Applications of Artificial Intelligence 2024",
        task_loss="mse",
        fixed_length=False,
    )
