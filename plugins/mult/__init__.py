"""MulT: Multimodal Transformer for unaligned language sequences (ACL 2019)."""

from __future__ import annotations

from mertool.hookspecs import Register, hookimpl


@hookimpl
def register_fusions(register: Register) -> None:
    """Register `mult`; torch is imported only when the model is used."""
    register(
        "mult",
        "mertool_plugins.mult.model:MulT",
        summary="each stream attends to every other one, step by step, without alignment",
        paper="Tsai et al., Multimodal Transformer for unaligned multimodal language sequences, "
        "ACL 2019",
        task_loss="l1",
        fixed_length=False,
    )
