"""TFN: Tensor Fusion Network (Zadeh et al., EMNLP 2017). Section numbers are those of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

from mertool.nn import MaskedLSTM, masked_mean, tensor_fusion
from mertool.types import Batch, DataSpec, FusionOutput

LARGEST = 2**20  # entries of the tensor; the layer after it has d_inference times as many weights


@dataclass(frozen=True)
class TFNConfig:
    """Settings of TFN; the defaults are the paper's.

    Attributes:
        recurrent: Streams read by an LSTM; the others are averaged over time.
        d_recurrent: Width of z of a recurrent stream.
        d_pooled: Width of z of the other streams.
        d_inference: Width of the two hidden layers after the tensor.
        dropout: On every hidden layer.

    Raises:
        ValueError: A value is out of range.
    """

    recurrent: tuple[str, ...] = ("text",)
    d_recurrent: int = 128
    d_pooled: int = 32
    d_inference: int = 128
    dropout: float = 0.15

    def __post_init__(self) -> None:
        for name in ("d_recurrent", "d_pooled", "d_inference"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout = {self.dropout}: must be in [0, 1)")


def hidden(d_in: int, d: int, layers: int, dropout: float) -> nn.Sequential:
    """Fully connected layers of d ReLU units, with dropout."""
    parts: list[nn.Module] = []
    for i in range(layers):
        parts += [nn.Linear(d if i else d_in, d), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*parts)


class Embedding(nn.Module):
    """Modality embedding subnetwork (section 4.1): a stream (B, T, D) -> z (B, d).

    Language: an LSTM, then two layers of ReLU units. Voice and face: the mean over time, then
    three.
    """

    def __init__(self, D: int, d: int, recurrent: bool, dropout: float) -> None:
        super().__init__()
        self.lstm = MaskedLSTM(D, d) if recurrent else None
        self.U = hidden(d if recurrent else D, d, 2 if recurrent else 3, dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Embed; zeros for a clip without the stream."""
        pooled = masked_mean(x, mask) if self.lstm is None else self.lstm(x, mask)[1]
        return self.U(pooled) * mask.any(dim=1, keepdim=True)


class TFN(nn.Module):
    """Embedding subnetworks, tensor fusion layer, inference subnetwork."""

    Config = TFNConfig

    def __init__(self, config: TFNConfig, spec: DataSpec) -> None:
        super().__init__()
        c = config
        self.streams = sorted(spec.streams)
        widths = [c.d_recurrent if m in c.recurrent else c.d_pooled for m in self.streams]
        entries = prod(d + 1 for d in widths)
        if entries > LARGEST:
            raise ValueError(
                f"the tensor of {len(widths)} streams has {entries} entries, more than {LARGEST}: "
                "use fewer streams, or lower d_recurrent and d_pooled"
            )
        self.embeddings = nn.ModuleList(
            Embedding(spec.streams[m][0], d, m in c.recurrent, c.dropout)
            for m, d in zip(self.streams, widths, strict=True)
        )
        self.inference = hidden(entries, c.d_inference, 2, c.dropout)  # section 4.3
        self.decision = nn.Linear(c.d_inference, spec.n_out)

    def forward(self, batch: Batch) -> FusionOutput:
        """Predict; `features` has z of each stream and the last hidden layer as `fused`."""
        z = {
            m: embed(batch.x[m], batch.mask[m])
            for m, embed in zip(self.streams, self.embeddings, strict=True)
        }
        h = self.inference(tensor_fusion(list(z.values())))
        features = {**z, "fused": h} if batch.record else {}
        return FusionOutput(self.decision(h), features=features)
