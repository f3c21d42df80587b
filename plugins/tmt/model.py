"""TMT: Token-disentangling Mutual Transformer (Yin et al. 2024).

Learnt tokens read all streams in one Transformer encoder: common ones (H_c, inter-modality
consistency) and private ones of each stream (H_m, intra-modality heterogeneity), which three losses
keep apart. Two cross-modal encoders then let either kind query the other.

Section and equation numbers are the paper's; README.md lists where we had to choose. Parameters at
text 768 / audio 5 / vision 20, 50 steps, one output, d = 256; L(i, o) = i o + o is a linear layer
with bias, LN = 2 d a layer normalisation:

    input, one linear layer per stream    L(768, d) + L(5, d) + L(20, d)              203,776
    tokens                                (6 + 3 * 2) d                                 3,072
    positions                             (3 * 50 + 12) d                              41,472
    encoder layer                         4 L(d, d) + 2 L(d, d) + 2 LN     395,776
    token separation encoder              2 layers                                    791,552
    cross layer                           the same + LN of the source      396,288
    Token mutual Transformer              2 * 2 layers                              1,585,152
    together, but for the head                                                      2,625,024
    head, `d_head=0`                      L(d, 1)                  257              2,625,281
    head, default                         L(d, 128) + L(128, 1)    33,025           2,658,049
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor, nn

from mertool.nn import common_steps, masked_mean, zero_padding
from mertool.types import Batch, DataSpec, FusionOutput

from .config import TMTConfig
from .layers import Mutual, Perceptrons, Plain, Tokens, TokenSeparation
from .losses import separation, similarity, summed

ORDER = ("audio", "vision", "text")  # of H_a, H_v, H_t in eq. 1; other streams follow


class TMT(nn.Module):
    """The whole model: section 3, Fig. 2."""

    Config = TMTConfig

    def __init__(self, config: TMTConfig, spec: DataSpec) -> None:
        super().__init__()
        self.config = config
        # Lists in the order of the names: the order in a file does not matter, and a name may hold
        # characters that a module's name may not.
        rank = {m: k for k, m in enumerate(ORDER)}
        self.streams = sorted(spec.streams, key=lambda m: (rank.get(m, len(ORDER)), m))
        self.mlp = nn.ModuleList(
            nn.Linear(spec.streams[m][0], config.d_model) for m in self.streams
        )
        if config.encoder == "tokens":
            lengths = [config.steps or spec.streams[m][1] for m in self.streams]
            self.encoder: nn.Module = TokenSeparation(config, lengths)
        else:
            self.encoder = Perceptrons(config, len(self.streams))
        self.fusion = Mutual(config) if config.fusion == "mutual" else Plain(config)
        width, hidden = self.fusion.width, config.d_head
        self.head = nn.Linear(width, spec.n_out)
        if hidden:
            self.head = nn.Sequential(
                nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, spec.n_out)
            )

    def forward(self, batch: Batch) -> FusionOutput:
        """Predict a batch.

        Args:
            batch: B clips; of `y` it matters only whether it is there.

        Returns:
            `pred` (B, K); with `y` the losses "L_sim" (times alpha), "L_orth" (two or more
            streams) and "L_dis" (times beta); and when `batch.record`:
            features "U_m" (B, D), the mean of each stream's rows, "H_c" and "H_m" (B, d), the mean
            of the common and of each stream's private tokens, and "Y_o" (B, width);
            attention "c-to-s.i" (B, H, n_s, n) and "s-to-c.i" (B, H, n, n_s) of layer i = 1, 2 ...
            of the two cross-modal encoders, queries x keys, private tokens in the order audio,
            vision, text, others.
        """
        U, masks = self.project(batch)
        H = self.encoder(U, masks)  # eq. 1
        Y_o, maps = self.fusion(self.fused(H), batch.record)
        losses = {} if batch.y is None else self.losses(U, masks, H)
        features = self.features(batch, H, Y_o) if batch.record else {}
        return FusionOutput(self.head(Y_o), losses, {}, features, maps)

    def project(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """MLP(U_m) (B, T, d) and mask (B, T) of each stream (3.1)."""
        x, masks = ([part[m] for m in self.streams] for part in (batch.x, batch.mask))
        x = [zero_padding(one, mask) for one, mask in zip(x, masks, strict=True)]
        if self.config.steps:
            x, masks = common_steps(x, masks, self.config.steps)
        return [mlp(one) for mlp, one in zip(self.mlp, x, strict=True)], masks

    def fused(self, H: Tokens) -> Tokens:
        """What the fusion gets: where a kind of token is removed (4.5.1), the other replaces it.

        So the kind that is left attends to itself, in both cross-modal encoders.
        """
        if self.config.fused_tokens == "common":
            return Tokens(H.c, H.mask_c, H.c, H.mask_c)
        if self.config.fused_tokens == "private":
            return Tokens(H.s, H.mask_s, H.s, H.mask_s)
        return H

    def losses(self, U: list[Tensor], masks: list[Tensor], H: Tokens) -> dict[str, Tensor]:
        """L_sim, L_orth and L_dis with their weights (eq. 9), over the clips that have both sides.

        Args:
            U: MLP(U_m) (B, T, d) of each stream.
            masks: (B, T) of each stream.
            H: The tokens.
        """
        config, M = self.config, len(self.streams)
        losses = {}
        # Small differences of large numbers: too fine for bfloat16.
        with torch.autocast(H.c.device.type, enabled=False):
            H = Tokens(H.c.float(), H.mask_c, H.s.float(), H.mask_s)
            private = [H.of(m, M) for m in range(M)]  # (H_m, its mask)
            if config.sim_loss:  # eq. 2
                width = config.bandwidth * config.d_model
                means = [masked_mean(u.float(), mask) for u, mask in zip(U, masks, strict=True)]
                terms = [
                    similarity(u, masked_mean(*own), mask.any(dim=1), config.similarity, width)
                    for u, own, mask in zip(means, private, masks, strict=True)
                ]
                losses["L_sim"] = config.alpha * summed(terms)
            if config.orth_loss and M > 1:  # eq. 4
                pairs = combinations(private, 2)
                terms = [separation(*a, *b, config.orthogonality) for a, b in pairs]
                losses["L_orth"] = config.beta * summed(terms)
            if config.dis_loss:  # eq. 5
                common = H.c, H.mask_c
                terms = [separation(*common, *own, config.orthogonality) for own in private]
                losses["L_dis"] = config.beta * summed(terms)
        return losses

    def features(self, batch: Batch, H: Tokens, Y_o: Tensor) -> dict[str, Tensor]:
        """What Fig. 7 and 10 show."""
        found = {f"U_{m}": masked_mean(batch.x[m], batch.mask[m]) for m in self.streams}
        found["H_c"] = masked_mean(H.c, H.mask_c)
        for k, m in enumerate(self.streams):
            found[f"H_{m}"] = masked_mean(*H.of(k, len(self.streams)))
        found["Y_o"] = Y_o
        return {name: z.detach() for name, z in found.items()}
