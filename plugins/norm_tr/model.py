"""NORM-TR: noise-resistant multimodal Transformer (Liu et al., IJCV 2025).

An extractor shared by all streams learns generic features (NRGF) from which two discriminators
cannot tell which stream it was and where noise was added; they query each stream's own features
(MF) in a Transformer. Section and equation numbers are those of the paper; README.md lists where we
had to choose.

Shapes: B clips, M streams, T steps (one T for all streams), D features, N width of U', d = N/2,
K outputs, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mertool.nn import masked_mean, resample, zero_padding
from mertool.types import Batch, DataSpec, FusionOutput

from .config import NORMTRConfig
from .fusions import Maps, build
from .noise import Discriminators, mlp, type_1, type_2


class NORMTR(nn.Module):
    """The whole model: eq. 1 for predicting, eq. 6 to 9 for training.

    In training with the noise-aware scheme every batch is seen twice, once with each type of noise,
    and `pred` is the mean of both. In evaluation, and without the scheme, the input is as it is.
    """

    Config = NORMTRConfig

    def __init__(self, config: NORMTRConfig, spec: DataSpec) -> None:
        super().__init__()
        self.config, self.task = config, spec.task
        # In lists and in the order of the names: the order in a file does not matter, and a name
        # may hold characters that a module's name may not.
        self.streams = sorted(spec.streams)
        lengths = [spec.streams[m][1] for m in self.streams]
        self.steps = T = min(config.steps, max(lengths))
        # Streams that share their steps keep them: step t of one belongs to step t of another.
        shared = spec.alignment == "word" or (len(set(lengths)) == 1 and lengths[0] <= T)
        self.sampling = "first" if shared and config.sampling == "resample" else config.sampling
        N, d, M = config.d_model, config.d_model // 2, len(self.streams)

        self.g = nn.ModuleList(nn.Linear(spec.streams[m][0], N) for m in self.streams)  # eq. 2
        self.nrgf = mlp(N, d) if "nrgf" in config.features else None  # eq. 3, shared
        self.mf = nn.ModuleList(  # eq. 4, one per stream
            mlp(N, d) for _ in (self.streams if "mf" in config.features else ())
        )
        self.trans = build(config, self.streams, T)  # eq. 5
        self.head = nn.Linear(self.trans.width, spec.n_out)  # 3.4.2
        # Both discriminators judge NRGFs: without them there is nobody to train.
        adversarial = config.noise_aware and self.nrgf is not None
        self.discriminators = Discriminators(M, T, d) if adversarial else None

    def forward(self, batch: Batch) -> FusionOutput:
        """Predict and, where labels are given, compute all losses.

        Args:
            batch: B clips; streams of any lengths.

        Returns:
            `pred` (B, K); losses (none without labels) "L_er" and, in training with the
            noise-aware scheme, "L_adv1" (two or more streams) and "L_adv2", weighted. When
            `batch.record`: features "U_m" (B, N), "NRGF_m" and "MF_m" (B, d), the mean over the
            real steps of each stream, and "fused", what the last layer reads; attention "fusion.i"
            (B, H, MT, MT) of layer i = 1, 2, ... with the streams by name, one after the other (for
            other fusions see README.md). With noise, of the view with Type-1 noise.
        """
        U, mask = self.sample(batch)
        if not (self.training and self.config.noise_aware):
            pred, _, features, maps = self.recognise(U, mask, batch.record)
            losses = {} if batch.y is None else {"L_er": self.recognition_loss(pred, batch.y)}
            return FusionOutput(pred, losses, features=features, attention=maps)

        B = len(mask)
        erased = torch.cat([type_1(mask), type_2(mask)])  # (2B, M, T)
        twice = torch.cat([mask, mask])
        views = [  # V(U, sigma)
            torch.cat([x, x]).masked_fill(e.unsqueeze(-1), 0.0)
            for x, e in zip(U, erased.unbind(1), strict=True)
        ]
        preds, made, features, maps = self.recognise(views, twice, batch.record)
        first, second = preds[:B], preds[B:]
        losses = {}
        if batch.y is not None:
            er = [self.recognition_loss(p, batch.y) for p in (first, second)]
            losses = {"L_er": (er[0] + er[1]) / 2}
            losses |= self.adversarial_losses(made, erased, twice)
        features, maps = ({k: v[:B] for k, v in shown.items()} for shown in (features, maps))
        return FusionOutput((first + second) / 2, losses, features=features, attention=maps)

    def sample(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """Bring all streams to T steps.

        Returns:
            U of each stream (B, T, D), zero at padded steps, and their mask (B, M, T).
        """
        U, masks = [], []
        for m in self.streams:
            x, mask = batch.x[m], batch.mask[m]
            if self.sampling == "resample":
                x, mask = resample(x, mask, self.steps), mask.any(dim=1, keepdim=True)
                mask = mask.expand(-1, self.steps)
            elif self.sampling == "paper" and m == "vision":
                x, mask = one_of_each_segment(x, mask, self.steps, self.training)
            else:
                x, mask = first_steps(x, mask, self.steps)
            U.append(x)
            masks.append(mask)
        return U, torch.stack(masks, dim=1)

    def recognise(
        self, U: list[Tensor], mask: Tensor, record: bool
    ) -> tuple[Tensor, dict[str, Tensor], Maps, Maps]:
        """Eq. 1: from the input, noisy or not, to the prediction.

        Args:
            U: (B, T, D) of each stream.
            mask: (B, M, T).
            record: Whether features and attention are wanted.

        Returns:
            (B, K); what it is made of, "U" (B, M, T, N), "NRGF" and "MF" (B, M, T, d), zero at
            padded steps; recorded features and attention.
        """
        # An erased step is g's bias from here on; a padded one is zero.
        U_ = torch.stack([g(x) for g, x in zip(self.g, U, strict=True)], dim=1)  # eq. 2
        made = {"U": zero_padding(U_, mask)}
        if self.nrgf is not None:
            made["NRGF"] = self.generic(made["U"], mask)
        if len(self.mf):
            F_M = [f(U_[:, k]) for k, f in enumerate(self.mf)]  # eq. 4
            made["MF"] = zero_padding(torch.stack(F_M, dim=1), mask)
        q, kv = self.config.query.upper(), self.config.source.upper()
        inputs = [made["U"]] if self.config.fusion == "standard" else [made[q], made[kv]]
        fused, maps = self.trans(*inputs, mask, record)  # eq. 5
        features: Maps = {}
        if record:
            features = {
                f"{kind}_{m}": masked_mean(z[:, k], mask[:, k]).detach()
                for kind, z in made.items()
                for k, m in enumerate(self.streams)
            }
            features["fused"] = fused.detach()
            maps = {name: weights.detach() for name, weights in maps.items()}
        return self.head(fused), made, features, maps

    def generic(self, U_: Tensor, mask: Tensor) -> Tensor:
        """F_NR of eq. 3, (B, M, T, N), (B, M, T) -> (B, M, T, d), zero at padded steps."""
        return zero_padding(self.nrgf(U_), mask)

    def adversarial_losses(
        self, made: dict[str, Tensor], erased: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        """The terms of eq. 9 with alpha and beta.

        Args:
            made: What `recognise` made of 2B clips: B with Type-1 noise, the same with Type-2.
            erased: (2B, M, T) bool, the noise.
            mask: (2B, M, T).

        Returns:
            {name: scalar}; nothing without NRGF.
        """
        if self.discriminators is None:
            return {}
        B = len(mask) // 2
        # Eq. 6 and 7 are optimised over theta_NR and the discriminators alone, so not over g: the
        # NRGF once more, from a U' that passes no gradient on.
        F_NR, losses = self.generic(made["U"].detach(), mask), {}
        if self.discriminators.D1 is not None:
            F_M = made["MF"][:B] if "MF" in made else None
            adv_1 = self.discriminators.adv_1(F_NR[:B], F_M, mask[:B])
            losses["L_adv1"] = self.config.adv1_weight * adv_1
        adv_2 = self.discriminators.adv_2(F_NR[B:], erased[B:], mask[B:])
        losses["L_adv2"] = self.config.adv2_weight * adv_2
        return losses

    def recognition_loss(self, pred: Tensor, y: Tensor) -> Tensor:
        """L_er (eq. 8): squared error, cross-entropy, or (4.7.14) binary cross-entropy."""
        loss = {
            "regression": F.mse_loss,
            "classification": F.cross_entropy,
            "multilabel": F.binary_cross_entropy_with_logits,
        }[self.task]
        return loss(pred.float(), y)


def first_steps(x: Tensor, mask: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The first steps, padded where there are fewer: (B, T', D), (B, T') -> (B, T, D), (B, T)."""
    x, mask = zero_padding(x, mask)[:, :steps], mask[:, :steps]
    more = steps - mask.shape[1]
    return F.pad(x, (0, 0, 0, more)), F.pad(mask, (0, more))


def one_of_each_segment(x: Tensor, mask: Tensor, steps: int, random: bool) -> tuple[Tensor, Tensor]:
    """One step of each of T equal segments of a clip (4.2); clips of at most T steps stay.

    Args:
        x: (B, T', D).
        mask: (B, T'), real steps first.
        steps: T.
        random: Any step of each segment with equal probability, else the one in its middle.

    Returns:
        (B, T, D), zero at padded steps, and (B, T).
    """
    n = mask.sum(dim=1, keepdim=True)
    count = n.clamp(max=steps)
    i = torch.arange(steps, device=x.device)
    inside = torch.rand(len(x), steps, device=x.device) if random else 0.5
    index = ((i + inside) * (n / count.clamp(min=1))).long()
    index = torch.minimum(index, (n - 1).clamp(min=0))
    x = zero_padding(x, mask).gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[2]))
    real = i < count
    return zero_padding(x, real), real
