"""Settings of TDMER."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TDMERConfig:
    """Settings of TDMER; the paper gives none of these numbers, all defaults are ours.

    The width and the heads are those that DMD, on which the method builds, was published with.

    Attributes:
        d_model: d, width of every stream after the input convolution.
        heads: Heads of the cross-modal attention; must divide d_model.
        kernel: Kernel of the input convolutions, odd.
        moments: K of eq. 2.
        alpha: Weight of L_con and L_rec (eq. 14).
        beta: Weight of L_cp and L_pp.
        gamma: Weight of L_en.
        delta: Weight of L_f.
        con: False = without L_con.
        rec: False = without L_rec, and without the decoders.
        cp: False = without L_cp.
        pp: False = without L_pp.
        en: False = without L_en.
        q: False = without L_q; L_f is then L_p alone.
        common_cml: False = without cross-modal learning of common features.
        private_cml: False = the same of private features: they are fused as they are.
        tcf: False = features are summed without weights, and there is no L_f.
        similarity: What is made of a cosine in eq. 5, 6 and 9: "hinge" max(0, cos), "signed" as
            printed, "squared".
        edges: Softmax of eq. 7 over the directed edges of a "clip", or over those to a "target".
        supervise_logits: True = F_1's logits are also trained on the labels (not in the paper).
        detach_omega: True = the fusion weights learn from L_q alone, not from the prediction.
        bins: Classes of a regression label; 0 = its whole numbers where there are 5 to 11, else 7.
        dropout: On the convolutions' output, attention weights and hidden layers.

    Raises:
        ValueError: A value is out of range.
    """

    d_model: int = 50
    heads: int = 10
    kernel: int = 3
    moments: int = 5
    alpha: float = 0.1
    beta: float = 0.1
    gamma: float = 0.1
    delta: float = 0.1
    con: bool = True
    rec: bool = True
    cp: bool = True
    pp: bool = True
    en: bool = True
    q: bool = True
    common_cml: bool = True
    private_cml: bool = True
    tcf: bool = True
    similarity: str = "hinge"
    edges: str = "clip"
    supervise_logits: bool = False
    detach_omega: bool = False
    bins: int = 0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("d_model", "heads", "moments"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.d_model % self.heads:
            raise ValueError(
                f"heads = {self.heads}: must divide d_model = {self.d_model} without remainder"
            )
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel = {self.kernel}: must be 1, 3, 5, ...")
        for name in ("alpha", "beta", "gamma", "delta"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} = {getattr(self, name)}: must not be negative")
        choices = {"similarity": ("hinge", "signed", "squared"), "edges": ("clip", "target")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} = {getattr(self, name)!r}: one of {', '.join(allowed)}")
        if self.bins < 0 or self.bins == 1:
            raise ValueError(f"bins = {self.bins}: must be 0 (by the label's range), 2, 3, ...")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout = {self.dropout}: must be in [0, 1)")
