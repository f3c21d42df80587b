"""LMF: Low-rank Multimodal Fusion (ACL 2018)."""

from __future__ import annotations

from mertool.hookspecs import Register, hookimpl


@hookimpl
def register_fusions(register: Register) -> None:
    """Register `lmf`; torch is imported only when the model is used."""
    register(
        "lmf",
        "mertool_plugins.lmf.model:LMF",
        summary="tensor fusion with weights of low rank, one factor per stream",
        paper="Liu et al., Efficient low-rank multimodal fusion with modality-specific "
        "factors, ACL 2018",
        task_loss="l1",
        fixed_length=False,
    )
