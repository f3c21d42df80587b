"""MFN: Memory Fusion Network (AAAI 2018)."""

from __future__ import annotations

from mertool.hookspecs import Register, hookimpl


@hookimpl
def register_fusions(register: Register) -> None:
    """Register `mfn`; torch is imported only when the model is used."""
    register(
        "mfn",
        "mertool_plugins.mfn.model:MFN",
        summary="an LSTM per stream, attention over changes of their memories, gated memory",
        paper="Zadeh et al., Memory fusion network for multi-view sequential learning, AAAI 2018",
        task_loss="l1",
        fixed_length=False,
    )
