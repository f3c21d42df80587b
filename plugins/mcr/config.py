"""Settings of MCR."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MCRConfig:
    """Settings of MCR; the defaults are Table 1's for MOSI, where the paper gives them.

    Attributes:
        d_model: d, width of every stream after the input convolution.
        heads: h, heads of the SCU and of the final encoder; must divide d_model.
        layers: Modality reinforcement layers.
        kernel_text: Kernel of the input convolution of the stream "text", odd.
        kernel_vision: The same for "vision".
        kernel_audio: The same for "audio".
        kernel_other: The same for streams of any other name.
        targets: Target modalities; empty = every stream.
        cmu: False = without the CMU.
        scu: False = without the SCU.
        mutual_attention: False = the CMU without mutual attention.
        attention_layer: "vector" or "literal" (eq. 9 factorised or as printed), "none" = without.
        source_update: "sum" = SUM, "low_level" = sources stay the inputs, "ffl" = sources pass
            through feed-forward layers only.
        smm: False = SUM without the selective memory mechanism.
        structure: "parallel" or "serial" (the SCU takes the CMU's output).
        encoder_layers: Layers of the final Transformer encoder (ours).
        dropout: Dropout of embeddings and sub-layer outputs (ours).

    Raises:
        ValueError: A value is out of range.
    """

    d_model: int = 40
    heads: int = 10
    layers: int = 3
    kernel_text: int = 3
    kernel_vision: int = 3
    kernel_audio: int = 3
    kernel_other: int = 3
    targets: tuple[str, ...] = ()
    cmu: bool = True
    scu: bool = True
    mutual_attention: bool = True
    attention_layer: str = "vector"
    source_update: str = "sum"
    smm: bool = True
    structure: str = "parallel"
    encoder_layers: int = 3
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("d_model", "heads", "layers", "encoder_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.d_model % self.heads:
            raise ValueError(
                f"heads = {self.heads}: must divide d_model = {self.d_model} without remainder"
            )
        for name in ("kernel_text", "kernel_vision", "kernel_audio", "kernel_other"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be 1, 3, 5, ...")
        choices = {
            "attention_layer": ("vector", "literal", "none"),
            "source_update": ("sum", "low_level", "ffl"),
            "structure": ("parallel", "serial"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} = {getattr(self, name)!r}: one of {', '.join(allowed)}")
        if not (self.cmu or self.scu):
            raise ValueError("cmu = false and scu = false: nothing is left to reinforce a target")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout = {self.dropout}: must be in [0, 1)")
        if isinstance(self.targets, str):
            raise ValueError(f"targets = {self.targets!r}: must be a list of stream names")
        # A config read from JSON or TOML has a list here.
        object.__setattr__(self, "targets", tuple(self.targets))

    def kernel(self, stream: str) -> int:
        """Kernel of a stream's input convolution."""
        named = {
            "text": self.kernel_text,
            "vision": self.kernel_vision,
            "audio": self.kernel_audio,
        }
        return named.get(stream, self.kernel_other)
