"""LF-LSTM: late fusion of features, one LSTM per stream."""

from __future__ import annotations

from mertool.hookspecs import Register, hookimpl


@hookimpl
def register_fusions(register: Register) -> None:
    """Register `lf_lstm`; torch is imported only when the model is used."""
    register(
        "lf_lstm",
        "mertool_plugins.lf_lstm.model:LFLSTM",
        summary="an LSTM per stream, last states concatenated",
        paper="Baseline of Tsai et al., Multimodal transformer for unaligned multimodal "
        "language sequences, ACL 2019",
        task_loss="l1",
        fixed_length=False,
    )
