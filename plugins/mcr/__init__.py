"""MCR: target and source modality co-reinforcement (Knowledge-Based Systems 2023)."""

from __future__ import annotations

from mertool.hookspecs import Register, hookimpl


@hookimpl
def register_fusions(register: Register) -> None:
    """Register `mcr`; torch is imported only when the model is used."""
    register(
        "mcr",
        "mertool_plugins.mcr.model:MCR",
        summary="targets and sources reinforce each other: cross-mutual and self-cross attention",
        paper="Yang et al., Target and source modality co-reinforcement for emotion "
        "understanding from asynchronous multimodal sequences, Knowledge-Based Systems 2023",
        task_loss="l1",
        fixed_length=True,
    )
