"""NORM-TR: noise-resistant multimodal Transformer (IJCV 2025)."""

from __future__ import annotations

from mertool.hookspecs import Register, hookimpl


@hookimpl
def register_fusions(register: Register) -> None:
    """Register `norm_tr`; torch is imported only when the model is used."""
    register(
        "norm_tr",
        "mertool_plugins.norm_tr.model:NORMTR",
        summary="features trained against added noise query each stream's own in a Transformer",
        paper="Liu et al., Noise-resistant multimodal Transformer for emotion recognition, "
        "International Journal of Computer Vision 2025",
        # L_er is the mean over two noisy views of the batch, which the host cannot compute.
        task_loss="none",
        fixed_length=False,
    )
