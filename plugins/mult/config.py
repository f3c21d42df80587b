"""Settings of MulT."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MulTConfig:
    """Settings of MulT; the defaults are those of the paper's Table 5 for MOSI.

    Attributes:
        d_model: d, width of every stream after the input convolution.
        heads: Attention heads of every Transformer; must divide d_model.
        layers: D, layers of every crossmodal Transformer.
        self_layers: Layers of the self-attention Transformer of each target; 0 = as many as
            `layers`, but at least 3.
        kernel_text: Kernel of the input convolution of the stream "text"; it has no padding, so
            T steps become T - kernel + 1.
        kernel_vision: The same for "vision".
        kernel_audio: The same for "audio".
        kernel_other: The same for streams of any other name.
        text_dropout: Dropout of the features of the stream "text".
        dropout: Dropout of embeddings, attention, hidden units and sub-layer outputs.
        out_dropout: Dropout in the residual block before the head.

    Raises:
        ValueError: A value is out of range.
    """

    d_model: int = 40
    heads: int = 10
    layers: int = 4
    self_layers: int = 0
    kernel_text: int = 3
    kernel_vision: int = 3
    kernel_audio: int = 3
    kernel_other: int = 3
    text_dropout: float = 0.2
    dropout: float = 0.2
    out_dropout: float = 0.1

    def __post_init__(self) -> None:
        kernels = ("kernel_text", "kernel_vision", "kernel_audio", "kernel_other")
        for name in ("d_model", "heads", "layers", *kernels):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.self_layers < 0:
            raise ValueError(f"self_layers = {self.self_layers}: must be at least 0")
        if self.d_model % self.heads:
            raise ValueError(
                f"heads = {self.heads}: must divide d_model = {self.d_model} without remainder"
            )
        for name in ("text_dropout", "dropout", "out_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be in [0, 1)")

    def kernel(self, stream: str) -> int:
        """Kernel of a stream's input convolution."""
        named = {
            "text": self.kernel_text,
            "vision": self.kernel_vision,
            "audio": self.kernel_audio,
        }
        return named.get(stream, self.kernel_other)
