"""FDMER: Feature-Disentangled Multimodal Emotion Recognition (ACM Multimedia 2022).

Each stream becomes one vector Z_m; a common encoder and one private encoder per stream make of it
what it shares with the others (C_m) and what is its own (P_m); a fusion weighs them all.
Shapes: B clips, T steps, D features, M streams, N representations, d_k width, K outputs.
Section and equation numbers are those of the paper; README.md lists where we had to choose.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mertool.nn import reverse_gradient, zero_padding
from mertool.types import Batch, DataSpec, FusionOutput

from .cmaf import each, fusion_of
from .config import FDMERConfig
from .layers import Discriminator, StreamEncoder, consistency, disparity, perceptron


class FDMER(nn.Module):
    """The whole model of section 3.

    With one stream there is nothing to be common to and nobody to be told from: no discriminator
    and no loss but the task's; its two representations are fused.
    """

    Config = FDMERConfig

    def __init__(self, config: FDMERConfig, spec: DataSpec) -> None:
        super().__init__()
        d_k = config.d_k
        self.config = config
        # Lists in the order of the names: the order in a file does not matter, and a name may hold
        # characters that a module's name may not.
        self.streams = sorted(spec.streams)
        M = len(self.streams)
        self.encoder = nn.ModuleList(
            StreamEncoder(spec.streams[m][0], config.layers(m), config) for m in self.streams
        )
        N = M
        self.discriminator = None
        if config.disentangled:
            self.common = perceptron(d_k)
            self.private = nn.ModuleList(perceptron(d_k) for _ in self.streams)
            if config.adversarial != "none" and M > 1:
                self.discriminator = Discriminator(M, config)
            N = int(config.common) + M * int(config.private)
        self.fusion = fusion_of(N, config)
        width = N * d_k if config.fusion == "concatenation" else d_k
        self.head = nn.Sequential(
            nn.Linear(width, d_k), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(d_k, spec.n_out)
        )

    def forward(self, batch: Batch) -> FusionOutput:
        """Predict.

        Args:
            batch: B clips. Of `y` it only matters whether it is there: the losses do not read it.

        Returns:
            `pred` (B, K); with `y` and two streams or more, the losses "L_ami", "L_ams", "L_con"
            and "L_dis", those that the settings leave; when `batch.record`, of each stream m:
            features "Z_m", "C_m", "P_m" (Fig. 2) and the fused "Y_fin";
            weights "psi" (B, N), of the common representation, then of each stream's in the order
            of their names (Fig. 4b), "D.C_m" and "D.P_m" (B, M), the discriminator's
            probabilities of the streams in the order of their names (Fig. 4a);
            attention "phase_1" (B, 1, N, N) under attention = "token".
        """
        present = torch.stack([batch.mask[m].any(dim=1) for m in self.streams], dim=1)  # (B, M)
        Z = torch.stack(
            [
                encoder(batch.x[m], batch.mask[m])  # eq. 1
                for m, encoder in zip(self.streams, self.encoder, strict=True)
            ],
            dim=1,
        )
        vectors, losses = {"Z": Z}, {}
        if self.config.disentangled:
            C = self.common(Z)  # eq. 2
            P = each(self.private, Z)  # eq. 3
            vectors |= {"C": C, "P": P}
            if batch.y is not None:
                losses = self.losses(Z, C, P, present)
            F_ta, has = self.targets(C, P, present)
        else:
            F_ta, has = Z, present
        Y_fin, psi, map_1 = self.fusion(F_ta, has, batch.record)
        pred = self.head(Y_fin)
        if not batch.record:
            return FusionOutput(pred, losses)

        vectors = {name: zero_padding(z, present) for name, z in vectors.items()}
        features = {
            f"{name}_{m}": z[:, k].detach()
            for name, z in vectors.items()
            for k, m in enumerate(self.streams)
        }
        weights = {} if psi is None else {"psi": psi.detach()}
        if self.discriminator is not None:
            for name in ("C", "P"):
                D = zero_padding(torch.softmax(self.discriminator(vectors[name]), -1), present)
                for k, m in enumerate(self.streams):
                    weights[f"D.{name}_{m}"] = D[:, k].detach()  # eq. 8
        attention = {} if map_1 is None else {"phase_1": map_1.detach()}
        return FusionOutput(pred, losses, weights, {**features, "Y_fin": Y_fin.detach()}, attention)

    def targets(self, C: Tensor, P: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """F_ta, what is fused (section 3.4).

        Args:
            C: (B, M, d_k).
            P: (B, M, d_k).
            present: (B, M) bool.

        Returns:
            (B, N, d_k): the sum of C_m over the streams that a clip has, then each P_m; and which
            of them it has (B, N).
        """
        parts, has = [], []
        if self.config.common:
            parts.append(zero_padding(C, present).sum(dim=1, keepdim=True))
            has.append(present.any(dim=1, keepdim=True))
        if self.config.private:
            parts.append(P)
            has.append(present)
        return torch.cat(parts, dim=1), torch.cat(has, dim=1)

    def losses(self, Z: Tensor, C: Tensor, P: Tensor, present: Tensor) -> dict[str, Tensor]:
        """The terms of eq. 18 beside the task's, each with its weight.

        Args:
            Z: (B, M, d_k), of which C and P were made.
            C: (B, M, d_k).
            P: (B, M, d_k).
            present: (B, M) bool.

        Returns:
            {name: scalar}; empty with one stream.
        """
        config, losses = self.config, {}
        if len(self.streams) == 1:
            return losses
        # In bfloat16 a cosine times 72 would be off by a third.
        with torch.autocast(C.device.type, enabled=False):
            C, P = C.float(), P.float()
            if self.discriminator is not None:
                C_D, P_D = C, P
                if config.adversarial_reach == "encoders":
                    Z = Z.detach().float()
                    C_D, P_D = self.common(Z), each(self.private, Z)
                # The encoder works against D, D itself does not: one backward pass for both.
                ami = self.discriminator.loss(reverse_gradient(C_D), present)  # eq. 10
                ams = self.discriminator.loss(P_D, present)  # eq. 11
                losses |= {"L_ami": config.beta * ami, "L_ams": config.beta * ams}
            if config.consistency != "none":
                L_con = consistency(C, present, config.consistency, config.centre)  # eq. 5
                losses["L_con"] = config.gamma * L_con
            if config.disparity:
                losses["L_dis"] = config.gamma * disparity(P, present)  # eq. 7
        return losses
