"""MulT (Tsai et al., ACL 2019): directional crossmodal attention between every two streams.

Shapes: B clips, T steps (T_t of a target, T_s of a source), D features, d width, H heads,
K outputs, M streams. Equation numbers are the paper's.

Parameters at text 768 / audio 5 / vision 20, d = 50, 10 heads, 4 layers, kernels of 5, K = 1;
L(i, o) = i o + o is a linear layer with bias, LN(d) = 2 d a layer normalisation:

    input convolutions without bias   (768 + 5 + 20) * 50 * 5                             198,250
    attention of width d              4 L(d, d) = 4 d^2 + 4 d                d = 50:       10,200
                                                                             d = 100:      40,400
    one layer of width d              attention + L(d, 4d) + L(4d, d) + 2 LN(d)
                                      50:   10,200 + 10,200 + 10,050 + 200                 30,650
                                      100:  40,400 + 40,400 + 40,100 + 400                121,300
    crossmodal Transformers           6 * (4 * 30,650 + LN(50))                           736,200
    self-attention Transformers       3 * (4 * 121,300 + LN(100))                       1,456,200
    residual block                    2 L(300, 300)                                       180,600
    head                              L(300, 1)                                               301
    together                                                                            2,571,551

A crossmodal layer has one normalisation for queries, keys and values, and one before its
feed-forward layer; the width of a target's self-attention is d for each of its two sources.
"""

from __future__ import annotations

import torch
from mertool_plugins.mult.config import MulTConfig
from torch import Tensor, nn
from torch.nn import functional as F

from mertool.nn import Attention, EncoderLayer, last_step, masked_mean, sinusoidal, zero_padding
from mertool.types import Batch, DataSpec, FusionOutput


class PackedAttention(Attention):
    """Attention whose projections of query, key and value are rows of one (3d, d) matrix.

    The same function and the same number of weights. Initialised as one matrix, as MulT is usually
    trained; and counters that look at modules only do not see these projections, which is the rule
    behind the multiply-accumulates printed for MulT.

    Args:
        d: Width.
        heads: H.
        dropout: Share of attention weights set to zero in training.
    """

    def __init__(self, d: int, heads: int, dropout: float) -> None:
        nn.Module.__init__(self)
        self.heads, self.dropout, self.d = heads, dropout, d
        self.packed = nn.Parameter(torch.empty(3 * d, d))
        self.bias = nn.Parameter(torch.zeros(3 * d))
        self.out = nn.Linear(d, d)
        nn.init.xavier_uniform_(self.packed)
        nn.init.zeros_(self.out.bias)

    def query(self, z: Tensor) -> Tensor:
        """Q = z W_Q, (B, T, d)."""
        return self._part(z, 0)

    def key(self, z: Tensor) -> Tensor:
        """K = z W_K, (B, T, d)."""
        return self._part(z, 1)

    def value(self, z: Tensor) -> Tensor:
        """V = z W_V, (B, T, d)."""
        return self._part(z, 2)

    def _part(self, z: Tensor, k: int) -> Tensor:
        rows = slice(k * self.d, (k + 1) * self.d)
        return F.linear(z, self.packed[rows], self.bias[rows])


class Stack(nn.Module):
    """A Transformer of eq. 4: crossmodal where it is given a source, else self-attention.

    The source is never updated: every layer reads the low-level features, Z^[0] of eq. 4.

    Args:
        d: Width.
        heads: H.
        layers: D.
        dropout: In the embedding and in every layer.
        cross: Whether it reads a source.
    """

    def __init__(self, d: int, heads: int, layers: int, dropout: float, cross: bool) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(d, heads, 4 * d, dropout, cross=cross, shared_norm=cross)
            for _ in range(layers)
        )
        for layer in self.layers:
            layer.attention = PackedAttention(d, heads, dropout)  # eq. 1
        self.norm = nn.LayerNorm(d)

    def forward(
        self,
        z: Tensor,
        mask: Tensor,
        source: Tensor | None = None,
        source_mask: Tensor | None = None,
        record: bool = False,
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the layers.

        Args:
            z: (B, T_t, d), the target.
            mask: (B, T_t).
            source: (B, T_s, d).
            source_mask: (B, T_s).
            record: Return the attention of each layer.

        Returns:
            (B, T_t, d), zero at padded steps, and D times (B, H, T_t, T_s) or nothing.
        """
        z = self.dropout(z)
        source = None if source is None else self.dropout(source)
        attention = []
        for layer in self.layers:
            z, weights = layer(z, mask, source, source_mask, record)
            if weights is not None:
                attention.append(weights.detach())
        return zero_padding(self.norm(z), mask), attention


class MulT(nn.Module):
    """The whole model of section 3.

    Every stream is a target, and all the others are its sources. A single stream is its own
    source.
    """

    Config = MulTConfig

    def __init__(self, config: MulTConfig, spec: DataSpec) -> None:
        super().__init__()
        d = config.d_model
        # Modules are kept in lists, in the order of the streams' names: the order in a file does
        # not matter, and a name may hold characters that a module's name may not.
        self.streams = sorted(spec.streams)
        self.sources = {t: [s for s in self.streams if s != t] or [t] for t in self.streams}
        self.kernels = [config.kernel(m) for m in self.streams]
        self.d_model, self.text_dropout = d, config.text_dropout
        self.convolutions = nn.ModuleList(
            nn.Conv1d(spec.streams[m][0], d, k, bias=False)
            for m, k in zip(self.streams, self.kernels, strict=True)
        )
        self.cross = nn.ModuleList(
            nn.ModuleList(
                Stack(d, config.heads, config.layers, config.dropout, cross=True) for _ in sources
            )
            for sources in self.sources.values()
        )
        depth = config.self_layers or max(config.layers, 3)
        self.own = nn.ModuleList(
            Stack(d * len(sources), config.heads, depth, config.dropout, cross=False)
            for sources in self.sources.values()
        )
        width = d * sum(len(sources) for sources in self.sources.values())
        self.residual = nn.Sequential(
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(config.out_dropout),
            nn.Linear(width, width),
        )
        self.head = nn.Linear(width, spec.n_out)

    def forward(self, batch: Batch) -> FusionOutput:
        """Predict; `batch.y` is not read.

        Returns:
            `pred` (B, K) and, when `batch.record`, for layers i = 1, 2, ...:
            attention "cross.i.s-to-t" (B, H, T_t, T_s) and "self.i.t" (B, H, T_t, T_t), with steps
            counted after the input convolution; features "Z_t" (B, M - 1 times d), the mean of
            each target, and "fused", the input of the head.
        """
        Z, masks = self.embed(batch)
        features: dict[str, Tensor] = {}
        attention: dict[str, Tensor] = {}
        ends = []
        for (t, sources), cross, own in zip(
            self.sources.items(), self.cross, self.own, strict=True
        ):
            parts = []
            for s, stack in zip(sources, cross, strict=True):
                z, seen = stack(Z[t], masks[t], Z[s], masks[s], batch.record)
                parts.append(z)
                attention |= {f"cross.{i + 1}.{s}-to-{t}": a for i, a in enumerate(seen)}
            z, seen = own(torch.cat(parts, dim=-1), masks[t], record=batch.record)
            attention |= {f"self.{i + 1}.{t}": a for i, a in enumerate(seen)}
            ends.append(last_step(z, masks[t]))
            if batch.record:
                features[f"Z_{t}"] = masked_mean(z, masks[t]).detach()
        h = torch.cat(ends, dim=-1)
        h = h + self.residual(h)
        if batch.record:
            features["fused"] = h.detach()
        return FusionOutput(self.head(h), features=features, attention=attention)

    def embed(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Eq. 2 and 3: {stream: Z^[0] (B, T - kernel + 1, d)} and masks of the same lengths.

        A step of the result is real where its whole window is. A clip shorter than the kernel
        keeps one step, whose window reaches into zeros.
        """
        Z, masks = {}, {}
        for m, k, convolution in zip(self.streams, self.kernels, self.convolutions, strict=True):
            x, mask = zero_padding(batch.x[m], batch.mask[m]), batch.mask[m]
            if m == "text":
                x = F.dropout(x, self.text_dropout, self.training)
            short = max(0, k - x.shape[1])
            x, mask = F.pad(x, (0, 0, 0, short)), F.pad(mask, (0, short))
            z = convolution(x.transpose(1, 2)).transpose(1, 2)
            masks[m] = torch.cat([mask.any(dim=1, keepdim=True), mask[:, k:]], dim=1)
            positions = sinusoidal(z.shape[1], self.d_model).to(z)
            Z[m] = zero_padding(z + positions, masks[m])
        return Z, masks
