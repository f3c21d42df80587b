"""Settings of TMT."""

from __future__ import annotations

from dataclasses import dataclass

CHOICES = {
    "encoder": ("tokens", "misa"),
    "fused_tokens": ("both", "common", "private"),
    "fusion": ("mutual", "concat", "lstm", "gru", "tfn"),
    "integration": ("sum", "concat", "attention"),
    "similarity": ("batch", "clip"),
    "orthogonality": ("tokens", "batch"),
}


@dataclass(frozen=True)
class TMTConfig:
    """Settings of TMT; the defaults are the paper's (4.2) for MOSI, where it gives them.

    Attributes:
        d_model: d, width of streams and tokens.
        heads: Heads of every attention; must divide d_model.
        d_ff: Width of the hidden layer in each Transformer layer's MLP.
        layers: Layers of the token separation encoder.
        cross_layers: Layers of each of the two cross-modal encoders.
        common_tokens: Rows of H_c.
        private_tokens: Rows of each H_m.
        alpha: Weight of L_sim (eq. 9).
        beta: Weight of L_orth and of L_dis (eq. 9).
        sim_loss: False = without L_sim.
        orth_loss: False = without L_orth.
        dis_loss: False = without L_dis.
        similarity: What eq. 2 compares: "batch", all clips of a batch as two samples, or "clip",
            the two vectors of each clip with a fixed bandwidth.
        bandwidth: 2 sigma^2 of the middle kernel divided by d, for similarity "clip" only (ours).
        orthogonality: Eq. 4 and 5 between "tokens" of each clip, or between columns of the token
            means over a "batch", as in MISA.
        encoder: "tokens", or "misa": without the token disentanglement, MISA's perceptrons.
        fused_tokens: What the fusion gets: "both", or "common" or "private" alone.
        fusion: "mutual" = Token mutual Transformer, "concat" = without it, "lstm", "gru", "tfn".
        integration: How H_f1 and H_f2 become Y_o: "sum", "concat", "attention".
        d_head: Width of the hidden layer of the prediction (ours); 0 = one linear layer.
        steps: Resample every stream to so many steps (ours); 0 = leave each its own.
        dropout: Dropout of the encoder's input, attention, hidden units and branches (ours).

    Raises:
        ValueError: A value is out of range.
    """

    d_model: int = 256
    heads: int = 8
    d_ff: int = 256
    layers: int = 2
    cross_layers: int = 2
    common_tokens: int = 6
    private_tokens: int = 2
    alpha: float = 0.06
    beta: float = 0.01
    sim_loss: bool = True
    orth_loss: bool = True
    dis_loss: bool = True
    similarity: str = "batch"
    bandwidth: float = 1.0
    orthogonality: str = "tokens"
    encoder: str = "tokens"
    fused_tokens: str = "both"
    fusion: str = "mutual"
    integration: str = "sum"
    d_head: int = 128
    steps: int = 0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        counts = ("layers", "cross_layers", "common_tokens", "private_tokens")
        for name in ("d_model", "heads", "d_ff", *counts):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.d_model % self.heads:
            raise ValueError(
                f"heads = {self.heads}: must divide d_model = {self.d_model} without remainder"
            )
        for name in ("alpha", "beta", "d_head", "steps"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must not be negative")
        if not self.bandwidth > 0:
            raise ValueError(f"bandwidth = {self.bandwidth}: must be above 0")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} = {getattr(self, name)!r}: one of {', '.join(allowed)}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout = {self.dropout}: must be in [0, 1)")
