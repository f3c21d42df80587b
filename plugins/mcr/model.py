"""MCR: target and source Modality Co-Reinforcement (Knowledge-Based Systems 2023).

Every stream is a target, and a copy of it is a source for the other targets. Layer by layer, a
CMU and an SCU reinforce each target from its sources, and SUM updates the source copies.
Section and equation numbers are those of the paper; README.md lists where we had to choose.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mertool.errors import UsageError, did_you_mean
from mertool.nn import masked_mean, sinusoidal, zero_padding
from mertool.types import Batch, DataSpec, FusionOutput

from .config import MCRConfig
from .layers import EncoderLayer, feed_forward
from .units import CMU, SCU, SelectiveMemory, SourceGate


@dataclass
class Trace:
    """What one target's units show in one layer; None or empty where a unit is left out.

    Attributes:
        cmu: (B, T_t, T_s), attention to each source.
        alpha: (B, sources), selective attention weights, summed over each source's steps.
        scu: (B, H, T_t, T_ds), attention to the sources together.
        own: (B, H, T_t, T_t), self-attention.
        gamma: (B, 2), weights of the cross and the self branch.
    """

    cmu: list[Tensor] = field(default_factory=list)
    alpha: Tensor | None = None
    scu: Tensor | None = None
    own: Tensor | None = None
    gamma: Tensor | None = None


class TargetLayer(nn.Module):
    """One reinforcement layer of one target: CMU and SCU, side by side or one after the other.

    Args:
        config: Settings.
        length: T_t.
        lengths: T_s of each source.
    """

    def __init__(self, config: MCRConfig, length: int, lengths: list[int]) -> None:
        super().__init__()
        c = config
        self.serial = c.structure == "serial"
        self.cmu = CMU(c.d_model, lengths, c.mutual_attention, c.dropout) if c.cmu else None
        self.scu = None
        if c.scu:
            self.scu = SCU(c.d_model, c.heads, length, c.attention_layer, c.dropout)

    def forward(
        self,
        Z_t: Tensor,
        Z_s: list[Tensor],
        Z_ds: Tensor,
        mask_t: Tensor,
        mask_s: list[Tensor],
        record: bool = False,
    ) -> tuple[Tensor, Trace]:
        """Reinforce the target.

        Args:
            Z_t: (B, T_t, d).
            Z_s: (B, T_s, d) of each source, for the CMU.
            Z_ds: (B, T_ds, d), the sources together, for the SCU.
            mask_t: (B, T_t).
            mask_s: (B, T_s) of each source.
            record: Whether the SCU's attentions are wanted in the trace.

        Returns:
            The new Z_t (B, T_t, d), zero at padded steps, and the trace.
        """
        trace, parts = Trace(), []
        if self.cmu is not None:
            Z_ta, trace.cmu, trace.alpha = self.cmu(Z_t, Z_s, mask_s)  # eq. 2
            parts.append(Z_ta)
        if self.scu is not None:
            query = zero_padding(parts.pop(), mask_t) if self.serial and parts else Z_t
            Z_tb, trace.scu, trace.own, trace.gamma = self.scu(
                query, Z_ds, mask_t, torch.cat(mask_s, dim=1), record
            )  # eq. 6
            parts.append(Z_tb)
        return zero_padding(sum(parts), mask_t), trace  # Z_t = Z_ta + Z_tb


class SUM(nn.Module):
    """Source modality update module of one layer (section 3.4, eq. 12).

    Args:
        config: Settings; `source_update` is "sum", or "ffl" for feed-forward layers only.
        lengths: {stream: T}.
        sources: {target: names of its sources}.
    """

    def __init__(
        self, config: MCRConfig, lengths: dict[str, int], sources: dict[str, tuple[str, ...]]
    ) -> None:
        super().__init__()
        d, full = config.d_model, config.source_update == "sum"
        self.sources = sources
        self.updated = [m for m in lengths if any(m in names for names in sources.values())]
        self.memory = nn.ModuleList(
            SelectiveMemory(d, lengths[m], config.smm) if full else feed_forward(d)
            for m in self.updated
        )
        self.gate = nn.ModuleList(
            SourceGate(d, sum(lengths[s] for s in names)) if full and config.scu else nn.Identity()
            for names in sources.values()
        )
        self.full = full

    def forward(
        self, target: dict[str, Tensor], source: dict[str, Tensor], mask: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Update the source copies.

        Args:
            target: {stream: (B, T, d)}, Z_t; a stream that is no target is there as its input.
            source: {stream: (B, T, d)}, Z_s.
            mask: {stream: (B, T)}.

        Returns:
            {stream: Z_s (B, T, d)} and {target: Z_ds (B, T_ds, d)}.
        """
        source = dict(source)
        for m, memory in zip(self.updated, self.memory, strict=True):
            Z_s = memory(target[m], source[m]) if self.full else memory(source[m])
            source[m] = zero_padding(Z_s, mask[m])
        joint = join(source, self.sources)
        gated = {t: gate(joint[t]) for t, gate in zip(self.sources, self.gate, strict=True)}
        return source, gated


def join(source: dict[str, Tensor], sources: dict[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """Z_ds = [Z_s1, Z_s2] of each target, (B, T_ds, d): its sources one after the other in time."""
    return {t: torch.cat([source[s] for s in names], dim=1) for t, names in sources.items()}


class MCR(nn.Module):
    """The whole model of section 3.2.

    With one stream, its source is a copy of itself, so that crossmodal attention is
    self-attention (4.5.1). With two there is one source per target and no mutual attention; with
    more than three every target has all the others as sources.

    Raises:
        UsageError: `config.targets` names a stream that the data has not.
    """

    Config = MCRConfig

    def __init__(self, config: MCRConfig, spec: DataSpec) -> None:
        super().__init__()
        d = config.d_model
        # Modules are kept in lists, in the order of the streams' names: the order in a file does
        # not matter, and a name may hold characters that a module's name may not.
        streams = sorted(spec.streams)
        self.lengths = {m: spec.streams[m][1] for m in streams}
        for name in config.targets:
            if name not in streams:
                raise UsageError(
                    f'MCR cannot take "{name}" as a target: there is no such stream.',
                    did_you_mean(name, streams),
                    "Set fusion.targets to some of them, or leave it empty for all.",
                )
        targets = [m for m in streams if not config.targets or m in config.targets]
        self.sources = {t: tuple(s for s in streams if s != t) or (t,) for t in targets}

        self.convolution = nn.ModuleList(
            nn.Conv1d(spec.streams[m][0], d, config.kernel(m), padding=config.kernel(m) // 2)
            for m in streams
        )
        for k, length in enumerate(self.lengths.values()):
            self.register_buffer(f"positions_{k}", sinusoidal(length, d), persistent=False)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                TargetLayer(config, self.lengths[t], [self.lengths[s] for s in names])
                for t, names in self.sources.items()
            )
            for _ in range(config.layers)
        )
        # The last layer's sources would have no reader.
        updates = 0 if config.source_update == "low_level" else config.layers - 1
        self.updates = nn.ModuleList(
            SUM(config, self.lengths, self.sources) for _ in range(updates)
        )
        self.encoder = nn.ModuleList(
            EncoderLayer(d, config.heads, config.dropout) for _ in range(config.encoder_layers)
        )
        self.norm = nn.LayerNorm(d)
        self.head = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, spec.n_out))

    def forward(self, batch: Batch) -> FusionOutput:
        """Predict a batch whose streams all have the length given in the data spec.

        Args:
            batch: B clips; `y` is not read.

        Returns:
            `pred` (B, K) and, when `batch.record`, named after layer i = 1, 2, ..., target t and
            its sources s:
            attention: "cmu.i.s-to-t" (B, 1, T_t, T_s), "scu.i.s+s-to-t" (B, H, T_t, T_ds),
            "self.i.t" (B, H, T_t, T_t), "encoder.i" (B, H, sum of T_t, sum of T_t);
            weights: "alpha.i.s+s-to-t" (B, sources), alpha summed over the steps of each source
            (Fig. 5), "gamma.i.t" (B, 2), the cross and the self branch of the SCU;
            features: "Z_t", the mean of each reinforced target, and "Z_fin" after the encoder.

        Raises:
            ValueError: A stream has another length.
        """
        mask = {m: batch.mask[m] for m in self.lengths}
        target = self.embed(batch)
        source = dict(target)  # the copy of section 3.3
        joint = join(source, self.sources)
        weights: dict[str, Tensor] = {}
        attention: dict[str, Tensor] = {}
        for i, layer in enumerate(self.layers):
            for (t, names), units in zip(self.sources.items(), layer, strict=True):
                target[t], trace = units(
                    target[t],
                    [source[s] for s in names],
                    joint[t],
                    mask[t],
                    [mask[s] for s in names],
                    batch.record,
                )
                if batch.record:
                    self._record(i + 1, t, trace, mask, weights, attention)
            if i < len(self.updates):
                source, joint = self.updates[i](target, source, mask)  # eq. 12

        Z_fin = torch.cat([target[t] for t in self.sources], dim=1)  # section 3.2
        mask_fin = torch.cat([mask[t] for t in self.sources], dim=1)
        for i, encoder in enumerate(self.encoder):
            Z_fin, attended = encoder(Z_fin, mask_fin, batch.record)
            if attended is not None:
                attention[f"encoder.{i + 1}"] = drawn(attended, mask_fin)
        pooled = masked_mean(self.norm(Z_fin), mask_fin)
        features = {}
        if batch.record:
            means = {f"Z_{t}": masked_mean(target[t], mask[t]) for t in self.sources}
            features = {name: z.detach() for name, z in {**means, "Z_fin": pooled}.items()}
        return FusionOutput(self.head(pooled), {}, weights, features, attention)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Z of each stream (B, T, d): 1-D convolution, positions; zero at padded steps."""
        Z = {}
        for k, (m, length) in enumerate(self.lengths.items()):
            x, mask = batch.x[m], batch.mask[m]
            if x.shape[1] != length:
                raise ValueError(
                    f'stream "{m}" has {x.shape[1]} steps, but this model was built for {length} '
                    "(fixed_length: crop or pad every clip)"
                )
            z = self.convolution[k](zero_padding(x, mask).transpose(1, 2)).transpose(1, 2)
            Z[m] = zero_padding(self.dropout(z + getattr(self, f"positions_{k}")), mask)
        return Z

    def _record(
        self,
        i: int,
        t: str,
        trace: Trace,
        mask: dict[str, Tensor],
        weights: dict[str, Tensor],
        attention: dict[str, Tensor],
    ) -> None:
        """Name what one target's units show in layer i."""
        names = self.sources[t]
        pair = f"{'+'.join(names)}-to-{t}"
        mask_ds = torch.cat([mask[s] for s in names], dim=1)
        for s, attended in zip(names, trace.cmu, strict=False):
            attention[f"cmu.{i}.{s}-to-{t}"] = drawn(attended.unsqueeze(1), mask[s])
        if trace.scu is not None and trace.own is not None:
            attention[f"scu.{i}.{pair}"] = drawn(trace.scu, mask_ds)
            attention[f"self.{i}.{t}"] = drawn(trace.own, mask[t])
        if trace.alpha is not None:
            weights[f"alpha.{i}.{pair}"] = trace.alpha.detach()
        if trace.gamma is not None:
            weights[f"gamma.{i}.{t}"] = trace.gamma.detach()


def drawn(attention: Tensor, mask: Tensor) -> Tensor:
    """Attention (B, H, Tq, Tk) for a figure: zeros where a clip has no key at all; mask (B, Tk)."""
    return attention.detach().masked_fill(~mask[:, None, None, :], 0.0)
