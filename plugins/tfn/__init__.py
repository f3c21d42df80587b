"""TFN: Tensor Fusion Network (EMNLP 2017)."""

from __future__ import annotations

from mertool.hookspecs import Register, hookimpl


@hookimpl
def register_fusions(register: Register) -> None:
    """Register `tfn`; torch is imported only when the model is used."""
    register(
        "tfn",
        "mertool_plugins.tfn.model:TFN",
        summary="outer product of the streams' embeddings, each with a 1 appended",
        paper="Zadeh et al., Tensor fusion network for multimodal sentiment analysis, EMNLP 2017",
        task_loss="l1",
        fixed_length=False,
    )
