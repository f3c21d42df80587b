"""Plain Transformer over concatenated streams: the baseline of NORM-TR."""

from __future__ import annotations

from mertool.hookspecs import Register, hookimpl


@hookimpl
def register_fusions(register: Register) -> None:
    """Register `transformer`; torch is imported only when the model is used."""
    register(
        "transformer",
        "mertool_plugins.transformer.model:Transformer",
        summary="all streams one after the other in time, through a self-attention Transformer",
        paper="Liu et al., Noise-resistant multimodal Transformer for emotion recognition, "
        "International Journal of Computer Vision 2024 (its baseline, section 4.7.1)",
        task_loss="mse",
        fixed_length=True,
    )
