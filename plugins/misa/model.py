"""MISA (Hazarika et al., ACM Multimedia 2020).

Shapes: B clips, T steps, D features, d width (d_h in the paper), H heads, K outputs, M streams.
Symbols are the paper's: u_m utterance vector, h^c invariant (common) and h^p specific (private)
representation, L_sim, L_diff, L_recon.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from mertool.nn import EncoderLayer, MaskedLSTM, cmd, orthogonality, zero_padding
from mertool.types import Batch, DataSpec, FusionOutput


@dataclass(frozen=True)
class MISAConfig:
    """Settings of MISA.

    Attributes:
        d_model: d_h, width of all representations.
        d_lstm: Width of a direction of the LSTMs (ours).
        lstm_layers: Layers of the LSTMs.
        heads: Heads of the fusion Transformer; must divide d_model.
        sim_weight: alpha, weight of the similarity loss.
        diff_weight: beta, weight of the difference loss.
        recon_weight: gamma, weight of the reconstruction loss.
        moments: K, central moments compared by the similarity loss.
        dropout: In the Transformer and the prediction layers.

    Raises:
        ValueError: A value is out of range.
    """

    d_model: int = 128
    d_lstm: int = 128
    lstm_layers: int = 2
    heads: int = 2
    sim_weight: float = 1.0
    diff_weight: float = 0.3
    recon_weight: float = 1.0
    moments: int = 5
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("d_model", "d_lstm", "lstm_layers", "heads", "moments"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.d_model % self.heads:
            raise ValueError(
                f"heads = {self.heads}: must divide d_model = {self.d_model} without remainder"
            )
        for name in ("sim_weight", "diff_weight", "recon_weight"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} = {getattr(self, name)}: must not be negative")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout = {self.dropout}: must be in [0, 1)")


class MISA(nn.Module):
    """Encode each stream, split it into two subspaces, fuse all 2 M vectors, predict."""

    Config = MISAConfig

    def __init__(self, config: MISAConfig, spec: DataSpec) -> None:
        super().__init__()
        d = config.d_model
        self.config = config
        # Lists in the order of the names: the order in a file does not matter, and a name may hold
        # characters that a module's name may not.
        self.streams = sorted(spec.streams)
        self.lstm = nn.ModuleList(
            MaskedLSTM(spec.streams[m][0], config.d_lstm, True, config.lstm_layers)
            for m in self.streams
        )
        self.project = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * config.d_lstm, d), nn.ReLU(), nn.LayerNorm(d))
            for _ in self.streams
        )
        # The sigmoid bounds them, which the similarity loss needs: b - a = 1 in its formula.
        self.shared = nn.Sequential(nn.Linear(d, d), nn.Sigmoid())
        self.private = nn.ModuleList(
            nn.Sequential(nn.Linear(d, d), nn.Sigmoid()) for _ in self.streams
        )
        self.decode = nn.ModuleList(nn.Linear(d, d) for _ in self.streams)
        self.fusion = EncoderLayer(d, config.heads, 4 * d, config.dropout, norm="post")
        width = 2 * d * len(self.streams)
        self.head = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(width // 2, spec.n_out),
        )

    def forward(self, batch: Batch) -> FusionOutput:
        """Predict; `batch.y` is not read.

        Returns:
            `pred` (B, K); losses "sim" (two or more streams), "diff", "recon"; when `batch.record`,
            attention "fusion" (B, H, 2M, 2M) over [invariant of each stream, specific of each],
            streams by name, and features "u_m", "shared_m", "private_m", "fused".
        """
        present = torch.stack([batch.mask[m].any(dim=1) for m in self.streams], dim=1)  # (B, M)
        u = torch.stack(
            [
                project(lstm(batch.x[m], batch.mask[m])[1])
                for m, lstm, project in zip(self.streams, self.lstm, self.project, strict=True)
            ],
            dim=1,
        )  # (B, M, d)
        common = self.shared(u)
        private = each(self.private, u)
        rebuilt = each(self.decode, common + private)
        losses = self.losses(u, common, private, rebuilt, present)

        # An absent stream is left out of the attention and of what the prediction reads.
        mask = torch.cat([present, present], dim=1)
        tokens, weights = self.fusion(
            torch.cat([common, private], dim=1), mask, record=batch.record
        )
        fused = tokens.flatten(1)
        features: dict[str, Tensor] = {}
        if batch.record:
            kinds = {"u": u, "shared": common, "private": private}
            features = {
                f"{kind}_{m}": zero_padding(z, present)[:, k].detach()
                for kind, z in kinds.items()
                for k, m in enumerate(self.streams)
            }
            features["fused"] = fused.detach()
        attention = {} if weights is None else {"fusion": weights.detach()}
        return FusionOutput(self.head(fused), losses, features=features, attention=attention)

    def losses(
        self, u: Tensor, common: Tensor, private: Tensor, rebuilt: Tensor, present: Tensor
    ) -> dict[str, Tensor]:
        """L_sim, L_diff and L_recon, each with its weight.

        A term counts the clips that have every stream it compares. With fewer than two of them it
        is zero and, in L_sim, no part of the mean.

        Args:
            u: (B, M, d).
            common: (B, M, d), h^c.
            private: (B, M, d), h^p.
            rebuilt: (B, M, d), decoded from h^c + h^p.
            present: (B, M) bool.

        Returns:
            {name: scalar}.
        """
        config, M = self.config, len(self.streams)
        pairs = [(i, j, present[:, i] & present[:, j]) for i, j in combinations(range(M), 2)]
        losses = {}
        if pairs:
            sim = sum(
                cmd(common[:, i], common[:, j], config.moments, keep=both) for i, j, both in pairs
            )
            counted = sum((both.sum() > 1).to(u.dtype) for _, _, both in pairs)
            losses["sim"] = config.sim_weight * sim / counted.clamp(min=1)
        diff = sum(
            orthogonality(common[:, i], private[:, i], keep=present[:, i]) for i in range(M)
        ) + sum(orthogonality(private[:, i], private[:, j], keep=both) for i, j, both in pairs)
        losses["diff"] = config.diff_weight * diff
        # The mean over clips and streams of the squared error per dimension.
        error = (u - rebuilt).square().mean(dim=-1) * present
        losses["recon"] = config.recon_weight * error.sum() / present.sum().clamp(min=1)
        return losses


def each(modules: nn.ModuleList, z: Tensor) -> Tensor:
    """A module per stream: (B, M, d) -> (B, M, d)."""
    return torch.stack([module(z[:, k]) for k, module in enumerate(modules)], dim=1)
