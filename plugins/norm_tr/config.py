"""Settings of NORM-TR."""

from __future__ import annotations

from dataclasses import dataclass

FUSIONS = ("transformer", "concat", "lstm", "gru", "tfn", "lmf", "mult", "vit", "standard")


@dataclass(frozen=True)
class NORMTRConfig:
    """Settings of NORM-TR; the defaults are the paper's for MOSI, where it gives them.

    Attributes:
        d_model: N, width of U'; NRGF and MF have N/2. Even, and heads must divide N/2 (ours).
        heads: Attention heads.
        layers: Depth of the fusion Transformer: 2 for MOSI and RML, 4 for MOSEI and IEMOCAP.
        steps: T, the most steps that all streams are brought to: 50 for MOSI and MOSEI, 8 for RML
            and IEMOCAP.
        sampling: How streams of other lengths get there: "resample" (ours) or "paper" (4.2: the
            first T steps; of "vision", one step of each of T segments).
        noise_aware: False = without the noise-aware learning scheme.
        adv1_weight: alpha, weight of L_adv-1: 0.01 for MOSI and MOSEI, 0.005 for RML and IEMOCAP.
        adv2_weight: beta, weight of L_adv-2: the same.
        query: What queries, "nrgf" or "mf".
        source: Keys and values, "mf" or "nrgf".
        fusion: "transformer"; "concat", "lstm", "gru", "tfn", "lmf" (Table 12), "mult", "vit"
            (4.7.4), "standard" (no NRGF and no MF: a Transformer over U').
        self_attention: True = queries also attend to each other before each cross-attention (ours).
        rank: Rank of the fusion "lmf" (ours).
        dropout: Of the embeddings and inside the Transformer (ours).

    Raises:
        ValueError: A value is out of range.
    """

    d_model: int = 256
    heads: int = 8
    layers: int = 2
    steps: int = 50
    sampling: str = "resample"
    noise_aware: bool = True
    adv1_weight: float = 0.01
    adv2_weight: float = 0.01
    query: str = "nrgf"
    source: str = "mf"
    fusion: str = "transformer"
    self_attention: bool = False
    rank: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("d_model", "heads", "layers", "steps", "rank"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.d_model % 2:
            raise ValueError(f"d_model = {self.d_model}: must be even, as features have half of it")
        if self.d_model // 2 % self.heads:
            raise ValueError(
                f"heads = {self.heads}: must divide half of d_model = {self.d_model} without "
                "remainder"
            )
        choices = {
            "sampling": ("resample", "paper"),
            "query": ("nrgf", "mf"),
            "source": ("nrgf", "mf"),
            "fusion": FUSIONS,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} = {getattr(self, name)!r}: one of {', '.join(allowed)}")
        for name in ("adv1_weight", "adv2_weight"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} = {getattr(self, name)}: must not be negative")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout = {self.dropout}: must be in [0, 1)")

    @property
    def features(self) -> set[str]:
        """Which of NRGF ("nrgf") and MF ("mf") the model has."""
        return set() if self.fusion == "standard" else {self.query, self.source}
