"""TDMER: a Task-Driven Method for Multimodal Emotion Recognition (ICASSP 2025).

Each stream is split into common and private features; both learn across streams, guided by their
logits; then each is weighted by how probable it makes the true class, and the weighted sum is
classified. Symbols and equation numbers are the paper's; README.md lists where we had to choose.

Shapes: B clips, M streams, T steps, d width, K logits.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor, nn

from mertool.nn import cmd, masked_mean, mean_where, zero_padding
from mertool.types import Batch, DataSpec, FusionOutput

from .classes import Classes
from .config import TDMERConfig
from .layers import (
    CrossModalLearning,
    Enhancement,
    TaskContribution,
    mlp,
    pooled,
    similarity,
)


class TDMER(nn.Module):
    """Decoupling (II.B), cross-modal learning (II.C), task-contribution fusion (II.D).

    With one stream nothing is learnt across streams: C and P are weighted and fused.
    """

    Config = TDMERConfig

    def __init__(self, config: TDMERConfig, spec: DataSpec) -> None:
        super().__init__()
        d, dropout = config.d_model, config.dropout
        self.config = config
        # Modules are kept in lists, in the order of the streams' names: the order in a file does
        # not matter, and a name may hold characters that a module's name may not.
        self.streams = sorted(spec.streams)
        M = len(self.streams)
        self.pairs = list(combinations(range(M), 2))
        self.classes = Classes(spec, config.bins)
        K = self.classes.K

        self.convolution = nn.ModuleList(
            nn.Conv1d(spec.streams[m][0], d, config.kernel, padding=config.kernel // 2)
            for m in self.streams
        )
        self.dropout = nn.Dropout(dropout)
        # The sigmoid bounds common features, which eq. 2 needs: |b - a| = 1.
        self.common = nn.Sequential(nn.Linear(d, d), nn.Sigmoid())
        self.private = nn.ModuleList(nn.Linear(d, d) for _ in self.streams)
        self.decode = nn.ModuleList(nn.Linear(2 * d, d) for _ in self.streams if config.rec)

        across = M > 1
        self.learn_common = self.learn_private = self.enhance = self.contribution = None
        if across and config.common_cml:
            self.learn_common = CrossModalLearning(M, d, K, config.edges)
        if across and config.private_cml:
            self.enhance = Enhancement(M, d, config.heads, dropout)
            self.learn_private = CrossModalLearning(M, d, K, config.edges)
        if config.tcf:
            self.contribution = TaskContribution(M + 1, d, K, dropout)
        self.head = mlp(d, K, dropout)

    def forward(self, batch: Batch) -> FusionOutput:
        """Predict; `batch.y` is read by the losses alone.

        Returns:
            `pred` (B, K): the expected score of a regression label, else logits. Losses, weighted:
            in training "con", "rec", "cp", "pp", "dc", "dp", "en", "p", "q", "nll" (and
            "logits_common", "logits_private" with `supervise_logits`); in evaluation "nll" alone,
            which selects the model; none without y. What is recorded is in README.md.
        """
        mask = [batch.mask[m] for m in self.streams]
        present = torch.stack([m.any(dim=1) for m in mask], dim=1)  # (B, M)
        X = self.embed(batch)
        C_m = [self.common(x) for x in X]  # eq. 1
        P_m = [private(x) for private, x in zip(self.private, X, strict=True)]
        attended: dict[tuple[int, int], Tensor] = {}
        Pe_m = P_m
        if self.enhance is not None:
            Pe_m, attended = self.enhance(P_m, mask, batch.record)

        c, p, pe = (pooled(z, mask) for z in (C_m, P_m, Pe_m))  # (B, M, d)
        C = masked_mean(c, present)
        features = torch.cat([C.unsqueeze(1), pe], dim=1)  # C, P_1, ..., P_M
        keep = torch.cat([present.any(dim=1, keepdim=True), present], dim=1)
        weights: dict[str, Tensor] = {}
        losses: dict[str, Tensor] = {}
        tcf_logits = None
        if self.contribution is None:
            h = features.sum(dim=1)
        else:
            omega, tcf_logits = self.contribution(features, keep)
            weights["omega"] = omega
            trusted = omega.detach() if self.config.detach_omega else omega
            h = (trusted.unsqueeze(2) * features).sum(dim=1)
        logits = self.head(h)

        index = None if batch.y is None else self.classes.index(batch.y)
        training = self.training and index is not None
        if training:
            losses |= self.decoupling(X, C_m, P_m, c, p, mask, present)  # eq. 3-6
            if self.config.en:
                alike = similarity(c, pe, self.config.similarity)
                losses["en"] = self.config.gamma * mean_where(alike, present)  # eq. 9
        if training or batch.record:
            losses |= self.across(c, pe, present, index if training else None, weights)
        if training and tcf_logits is not None:
            losses |= self.contribution_losses(weights["omega"], tcf_logits, keep, index)
        if index is not None:
            losses["nll"] = self.classes.nll(logits, index).mean()  # last term of eq. 13
        if not batch.record:
            return FusionOutput(self.classes.pred(logits), losses)

        shown = {"X": pooled(X, mask), "C": c, "P": p, "Pe": pe}
        vectors = {
            f"{kind}_{m}": zero_padding(z, present)[:, k]
            for kind, z in shown.items()
            for k, m in enumerate(self.streams)
        } | {"C": C, "h": h}
        weights["z"] = self.classes.z(logits)
        if tcf_logits is not None:
            names = ["C", *(f"P_{m}" for m in self.streams)]
            z = zero_padding(self.classes.z(tcf_logits), keep)
            weights |= {f"z_{name}": z[:, k] for k, name in enumerate(names)}
        maps = {
            f"cross.{self.streams[s]}-to-{self.streams[t]}": zero_rows(seen, mask[t])
            for (s, t), seen in attended.items()
        }
        return FusionOutput(
            self.classes.pred(logits), losses, detached(weights), detached(vectors), detached(maps)
        )

    def embed(self, batch: Batch) -> list[Tensor]:
        """X_m of each stream, (B, T, d); zero at padded steps."""
        X = []
        for m, convolution in zip(self.streams, self.convolution, strict=True):
            x = zero_padding(batch.x[m], batch.mask[m])
            x = convolution(x.transpose(1, 2)).transpose(1, 2)
            X.append(zero_padding(self.dropout(x), batch.mask[m]))
        return X

    def decoupling(
        self,
        X: list[Tensor],
        C_m: list[Tensor],
        P_m: list[Tensor],
        c: Tensor,
        p: Tensor,
        mask: list[Tensor],
        present: Tensor,
    ) -> dict[str, Tensor]:
        """L_con, L_rec, L_cp and L_pp, those that are on, weighted by alpha and beta.

        Each is a mean over the clips and the streams, or pairs of streams, that exist.

        Args:
            X: (B, T, d) of each stream.
            C_m: (B, T, d), common features.
            P_m: (B, T, d), private features.
            c: (B, M, d), means of C_m over steps.
            p: (B, M, d), means of P_m.
            mask: (B, T) of each stream.
            present: (B, M).
        """
        config, losses = self.config, {}
        both = {(i, j): present[:, i] & present[:, j] for i, j in self.pairs}
        if config.con and self.pairs:
            distances = torch.stack(
                [cmd(c[:, i], c[:, j], config.moments, keep=both[i, j]) for i, j in self.pairs]
            )  # eq. 2
            enough = torch.stack([kept.sum() > 1 for kept in both.values()])
            losses["con"] = config.alpha * mean_where(distances, enough)  # eq. 3
        if config.rec:
            errors = [
                masked_mean((x - D(torch.cat([C, P], dim=-1))).square(), m).mean(dim=-1)
                for x, D, C, P, m in zip(X, self.decode, C_m, P_m, mask, strict=True)
            ]
            losses["rec"] = config.alpha * mean_where(torch.stack(errors, dim=1), present)  # eq. 4
        if config.cp:
            alike = similarity(c, p, config.similarity)
            losses["cp"] = config.beta * mean_where(alike, present)  # eq. 5
        if config.pp and self.pairs:
            alike = [similarity(p[:, i], p[:, j], config.similarity) for i, j in self.pairs]
            keep = torch.stack(list(both.values()), dim=1)
            losses["pp"] = config.beta * mean_where(torch.stack(alike, dim=1), keep)  # eq. 6
        return losses

    def across(
        self,
        c: Tensor,
        pe: Tensor,
        present: Tensor,
        index: Tensor | None,
        weights: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """L_dc and L_dp (eq. 7, 8).

        Args:
            c: (B, M, d), common features.
            pe: (B, M, d), enhanced private features.
            present: (B, M).
            index: I*; None = no losses are wanted, only the weights.
            weights: Gets the weights of the edges.
        """
        losses = {}
        parts = (("common", "dc", self.learn_common, c), ("private", "dp", self.learn_private, pe))
        for kind, name, learn, h in parts:
            if learn is None:
                continue
            weights[f"omega_{name}"], loss, logits = learn(h, present)
            if index is None:
                continue
            losses[name] = loss
            if self.config.supervise_logits:
                said = [self.classes.nll(one, index) for one in logits.unbind(dim=1)]
                losses[f"logits_{kind}"] = mean_where(torch.stack(said, dim=1), present)
        return losses

    def contribution_losses(
        self, omega: Tensor, logits: Tensor, keep: Tensor, index: Tensor
    ) -> dict[str, Tensor]:
        """The two sums over features of L_f (eq. 12), weighted by delta.

        Args:
            omega: (B, M + 1), of C and of each P.
            logits: (B, M + 1, K).
            keep: (B, M + 1), features that exist.
            index: I*.
        """
        config, losses = self.config, {}
        each = list(zip(omega.T, logits.unbind(dim=1), keep.T, strict=True))
        L_p = [mean_where(self.classes.nll(said, index), kept) for _, said, kept in each]
        losses["p"] = config.delta * sum(L_p)  # eq. 10
        if config.q:
            # TCP is the aim, not to be pulled towards its prediction.
            L_q = [
                mean_where((self.classes.tcp(said, index).detach() - weight).square(), kept)
                for weight, said, kept in each
            ]
            losses["q"] = config.delta * sum(L_q)  # eq. 11
        return losses


def zero_rows(attention: Tensor, mask: Tensor) -> Tensor:
    """Attention (B, H, Tq, Tk) without the rows of padded queries, mask (B, Tq)."""
    return attention.masked_fill(~mask[:, None, :, None], 0.0)


def detached(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same without gradients."""
    return {name: value.detach() for name, value in values.items()}
