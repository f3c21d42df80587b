"""EF-LSTM: early fusion, one LSTM over the concatenated streams."""

from __future__ import annotations

from mertool.hookspecs import Register, hookimpl


@hookimpl
def register_fusions(register: Register) -> None:
    """Register `ef_lstm`; torch is imported only when the model is used."""
    register(
        "ef_lstm",
        "mertool_plugins.ef_lstm.model:EFLSTM",
        summary="streams concatenated at every step, one LSTM",
        paper="Baseline of Tsai et al., Multimodal transformer for unaligned multimodal "
        "language sequences, ACL 2019",
        task_loss="l1",
        fixed_length=False,
    )
