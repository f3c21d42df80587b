"""Settings of FDMER."""

from __future__ import annotations

from dataclasses import dataclass

CHOICES = {
    "adversarial": ("angular", "cross_entropy", "none"),
    "adversarial_reach": ("encoders", "all"),
    "consistency": ("mean", "sum", "none"),
    "fusion": ("cmaf", "concatenation", "addition", "multiplication"),
    "attention": ("feature", "token"),
}


@dataclass(frozen=True)
class FDMERConfig:
    """Settings of FDMER; the defaults are section 4.2's for MOSI, where the paper gives them.

    Attributes:
        d_model: Width of the Transformers; 0 = each stream keeps its own, as in the paper. Any
            other width is reached by a linear layer (ours).
        heads: Most heads of a Transformer: it has the largest number up to this that divides its
            width (ours).
        layers_text: n_t, Transformer layers of the stream "text".
        layers_audio: n_a, of "audio".
        layers_vision: n_v, of "vision".
        layers_other: Of streams of any other name (ours).
        d_k: Width of all representations.
        d_discriminator: d, width of the discriminator's hidden layer.
        beta: Weight of both adversarial losses (eq. 18).
        gamma: Weight of the consistency and the disparity loss (eq. 18).
        scale: alpha of the angular margin loss (eq. 9).
        margin: tau of the angular margin loss, radians (eq. 9).
        adversarial: Loss of the discriminator: "angular" (eq. 9), "cross_entropy", or "none" =
            without discriminator.
        adversarial_reach: Whom the adversarial losses teach beside the discriminator: the common
            and private "encoders" alone, or "all" that stands before them, too.
        consistency: Eq. 5 as the "mean" over pairs of clips (ours) or, as printed, their "sum";
            "none" = without it.
        centre: Centre the common representations over the batch before eq. 4 (not in the paper).
        disparity: False = without the disparity loss.
        disentangled: False = no common and private representations, none of the four losses.
        common: False = fusion without the common representation; losses stay.
        private: False = fusion without the private representations; losses stay.
        fusion: "cmaf", "concatenation", "addition" or "multiplication".
        phase_1: False = CMAF without the cross-modal interaction phase.
        phase_2: False = CMAF without the adaptive attention phase.
        attention: Softmax of eq. 12 over all features of the source ("feature", as printed) or
            over its representations ("token", ours).
        dropout: In Transformers, feed-forward layers and the prediction (ours).

    Raises:
        ValueError: A value is out of range.
    """

    d_model: int = 0
    heads: int = 8
    layers_text: int = 5
    layers_audio: int = 4
    layers_vision: int = 4
    layers_other: int = 4
    d_k: int = 256
    d_discriminator: int = 128
    beta: float = 0.02
    gamma: float = 0.02
    scale: float = 72.0
    margin: float = 0.5
    adversarial: str = "angular"
    adversarial_reach: str = "encoders"
    consistency: str = "mean"
    centre: bool = False
    disparity: bool = True
    disentangled: bool = True
    common: bool = True
    private: bool = True
    fusion: str = "cmaf"
    phase_1: bool = True
    phase_2: bool = True
    attention: str = "feature"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in (
            "heads", "layers_text", "layers_audio", "layers_vision", "layers_other", "d_k",
            "d_discriminator",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        for name in ("d_model", "beta", "gamma", "margin"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must not be negative")
        if not self.scale > 0:
            raise ValueError(f"scale = {self.scale}: must be above 0")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout = {self.dropout}: must be in [0, 1)")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} = {getattr(self, name)!r}: one of {', '.join(allowed)}")
        if not (self.common or self.private):
            raise ValueError("common = false and private = false: nothing is left to fuse")
        if not (self.phase_1 or self.phase_2):
            raise ValueError('phase_1 = false and phase_2 = false: that is fusion = "addition"')

    def layers(self, stream: str) -> int:
        """Transformer layers of a stream."""
        named = {
            "text": self.layers_text,
            "audio": self.layers_audio,
            "vision": self.layers_vision,
        }
        return named.get(stream, self.layers_other)
