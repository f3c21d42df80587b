"""MFN: Memory Fusion Network (Zadeh et al., AAAI 2018). Names of parts are those of the paper."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mertool.nn import common_steps
from mertool.types import Batch, DataSpec, FusionOutput


@dataclass(frozen=True)
class MFNConfig:
    """Settings of MFN; all defaults are ours, the paper searched them per data set.

    Attributes:
        d_h: Width of each stream's LSTM.
        d_mem: Width of the multi-view gated memory u.
        d_hidden: Hidden width of the networks D_a, D_u, D_gamma1, D_gamma2 and of the last one.
        steps: T to which unaligned streams are resampled; aligned ones keep their steps.
        dropout: On every hidden layer.

    Raises:
        ValueError: A value is out of range.
    """

    d_h: int = 64
    d_mem: int = 64
    d_hidden: int = 64
    steps: int = 50
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("d_h", "d_mem", "d_hidden", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout = {self.dropout}: must be in [0, 1)")


class MFN(nn.Module):
    """System of LSTMs, Delta-memory Attention Network, Multi-view Gated Memory."""

    Config = MFNConfig

    def __init__(self, config: MFNConfig, spec: DataSpec) -> None:
        super().__init__()
        c = config
        self.streams = sorted(spec.streams)
        # One stream, or aligned ones, already have common steps.
        shared = spec.alignment != "none" or len(self.streams) == 1
        self.steps = None if shared else c.steps
        d_c = len(self.streams) * c.d_h

        def network(d_in: int, d_out: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(d_in, c.d_hidden),
                nn.ReLU(),
                nn.Dropout(c.dropout),
                nn.Linear(c.d_hidden, d_out),
            )

        # W_n x + b_n and U_n h of the gates input, forget, output and the new memory m.
        self.W = nn.ModuleList(nn.Linear(spec.streams[m][0], 4 * c.d_h) for m in self.streams)
        self.U = nn.Parameter(torch.empty(len(self.streams), c.d_h, 4 * c.d_h))
        nn.init.uniform_(self.U, -(c.d_h**-0.5), c.d_h**-0.5)
        self.D_a = network(2 * d_c, 2 * d_c)
        self.D_u = network(2 * d_c, c.d_mem)
        self.D_gamma1 = network(2 * d_c, c.d_mem)
        self.D_gamma2 = network(2 * d_c, c.d_mem)
        self.head = network(d_c + c.d_mem, spec.n_out)

    def forward(self, batch: Batch) -> FusionOutput:
        """Predict; `features` has h of each stream, u as `memory` and all of them as `fused`."""
        xs, masks = common_steps(
            [batch.x[m] for m in self.streams], [batch.mask[m] for m in self.streams], self.steps
        )
        h, c = self.system_of_lstms(xs, torch.stack(masks))

        # Delta-memory attention: which memories matter at the change from step t-1 to step t.
        delta = torch.cat([c[:, :-1], c[:, 1:]], dim=2)  # c^[t-1,t], (B, T, 2 d_c)
        a = torch.softmax(self.D_a(delta), dim=2)
        c_hat = a * delta

        # Multi-view gated memory: nothing here reads u, so all steps are computed at once.
        u_hat = torch.tanh(self.D_u(c_hat))
        gamma1 = torch.sigmoid(self.D_gamma1(c_hat))  # retain
        gamma2 = torch.sigmoid(self.D_gamma2(c_hat))  # update
        real = torch.stack(masks).any(dim=0).unsqueeze(2)
        u = torch.zeros_like(u_hat[:, 0])
        for t in range(u_hat.shape[1]):
            new = gamma1[:, t] * u + gamma2[:, t] * u_hat[:, t]
            u = torch.where(real[:, t], new, u)

        fused = torch.cat([*h, u], dim=1)
        features = {}
        if batch.record:
            features = {**dict(zip(self.streams, h, strict=True)), "memory": u, "fused": fused}
        return FusionOutput(self.head(fused), features=features)

    def system_of_lstms(self, xs: list[Tensor], mask: Tensor) -> tuple[list[Tensor], Tensor]:
        """One LSTM per stream; where a stream has no step, its state stays as it was.

        The LSTMs do not see each other: they are stacked, n streams at once, for speed alone.

        Args:
            xs: (B, T, D) of each stream.
            mask: (n, B, T).

        Returns:
            Last h (B, d_h) of each stream; the memories c of all streams at steps 0 (zeros) to T,
            (B, T + 1, d_c).
        """
        Wx = torch.stack([W(x) for W, x in zip(self.W, xs, strict=True)])  # (n, B, T, 4 d_h)
        h = c = xs[0].new_zeros(*mask.shape[:2], self.U.shape[1])  # float32 also under autocast
        memories = [c]
        for t in range(Wx.shape[2]):
            gates, m = torch.baddbmm(Wx[:, :, t], h, self.U).split([3 * c.shape[2], c.shape[2]], 2)
            i, f, o = torch.sigmoid(gates).chunk(3, dim=2)
            c_new = f * c + i * torch.tanh(m)
            h_new = o * torch.tanh(c_new)
            real = mask[:, :, t, None]
            h, c = torch.where(real, h_new, h), torch.where(real, c_new, c)
            memories.append(c)
        # (T + 1, n, B, d_h) -> (B, T + 1, n d_h)
        return list(h), torch.stack(memories).permute(2, 0, 1, 3).flatten(2)
