"""Blocks that several fusions share: masked layers, and losses between batches of vectors.

Shapes: B clips, T steps (Tq of queries, Tk of keys), D features of an input, d width, H heads.
Masks are (B, T) bool, True = a real step; a clip without a stream has an all-False row, for which
every block gives finite values and finite gradients. What stands in padded steps never matters,
NaN included.

The losses compare vectors of a whole batch, (B, d), one row per clip. `keep` (B,) bool names the
clips that have what is compared; the others weigh nothing. The number of kept rows is never a
shape and no branch is taken on it, so all of this runs under FakeTensorMode and, but for the LSTM,
under torch.func.vmap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# --- padding ------------------------------------------------------------------------------------


def zero_padding(x: Tensor, mask: Tensor) -> Tensor:
    """Set the padded steps of (..., T, d) to zero, whatever they hold; mask (..., T)."""
    return x.masked_fill(~mask.unsqueeze(-1), 0.0)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real steps, (B, T, D), (B, T) -> (B, D); zeros where a clip has none."""
    return zero_padding(x, mask).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def mean_where(values: Tensor, keep: Tensor) -> Tensor:
    """Mean of the kept values, scalar; 0 where none is. Both of any, equal shape."""
    return values.masked_fill(~keep, 0.0).sum() / keep.sum().clamp(min=1)


def lowered(mask: Tensor, scores: Tensor) -> Tensor:
    """What to add to scores before a softmax: 0 at real steps, a huge negative number at others.

    Half of the lowest number: the sum stays finite, so that a row without any step is uniform and
    never NaN.
    """
    return (~mask).to(scores.dtype) * (torch.finfo(scores.dtype).min / 2)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis in which masked entries get exactly 0.

    A row without one real entry gives zeros and a zero gradient, where a softmax over -inf would
    give NaN.

    Args:
        scores: (..., T).
        mask: (..., T), or of a shape that is broadcast to it.
    """
    return torch.softmax(scores + lowered(mask, scores), dim=-1).masked_fill(~mask, 0.0)


def last_step(x: Tensor, mask: Tensor) -> Tensor:
    """The last real step, (B, T, D), (B, T) -> (B, D); zeros where a clip has none."""
    steps = torch.arange(mask.shape[1], device=mask.device)
    last = (mask * steps).amax(dim=1)
    return zero_padding(x, mask).gather(1, last[:, None, None].expand(-1, 1, x.shape[2])).squeeze(1)


# --- common steps -------------------------------------------------------------------------------


def resample(x: Tensor, mask: Tensor, steps: int) -> Tensor:
    """Stretch or shrink the real rows of each clip to the same number of steps.

    A clip's n rows stand for equal parts of it, and so do the new steps: each new step is the mean
    of the rows that it overlaps, weighted by how much.

    Args:
        x: (B, T, D).
        mask: (B, T).
        steps: T of the result.

    Returns:
        (B, steps, D); zeros where a clip has no row.
    """
    n = mask.sum(dim=1, keepdim=True)
    ends = mask.cumsum(dim=1)  # a real row covers [its place, its place + 1], a padded one nothing
    edges = n * torch.arange(steps + 1, device=x.device) / steps
    end = torch.minimum(edges[:, 1:, None], ends[:, None, :])
    start = torch.maximum(edges[:, :-1, None], (ends - mask.long())[:, None, :])
    overlap = (end - start).clamp(min=0) * steps / n.clamp(min=1).unsqueeze(2)
    return overlap.to(x.dtype) @ zero_padding(x, mask)


def common_steps(
    x: Sequence[Tensor], mask: Sequence[Tensor], steps: int | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Bring all streams of a batch to the same steps.

    Args:
        x: (B, T, D) of each stream.
        mask: (B, T) of each stream.
        steps: Resample every stream to so many; None = the streams are aligned, only their padding
            may differ.

    Returns:
        (B, T, D) of each stream, zero where it has no step, and (B, T) of each, with one T.
    """
    if steps is not None:
        resampled = [resample(*pair, steps) for pair in zip(x, mask, strict=True)]
        return resampled, [m.any(dim=1, keepdim=True).expand(-1, steps) for m in mask]
    T = max(m.shape[1] for m in mask)
    padded = [
        F.pad(zero_padding(z, m), (0, 0, 0, T - m.shape[1])) for z, m in zip(x, mask, strict=True)
    ]
    return padded, [F.pad(m, (0, T - m.shape[1])) for m in mask]


# --- positions ----------------------------------------------------------------------------------


def sinusoidal(T: int, d: int) -> Tensor:
    """Sinusoidal positions, (T, d): sine at even, cosine at odd columns.

    Vaswani et al. 2017, section 3.5. An odd d drops the last cosine.
    """
    rate = torch.exp(torch.arange(0, d, 2) * (-math.log(10000.0) / d))
    angle = torch.arange(T).unsqueeze(1) * rate
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)[:, :d]


class LearntPositions(nn.Module):
    """A learnt vector per step, added to the input.

    Args:
        T: Longest input.
        d: Width.
    """

    def __init__(self, T: int, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(T, d) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T', d) -> (B, T', d) with the first T' <= T positions added.

        Raises:
            ValueError: The input is longer than T.
        """
        if x.shape[1] > len(self.weight):
            raise ValueError(f"{x.shape[1]} steps, but positions for {len(self.weight)} only")
        return x + self.weight[: x.shape[1]]


# --- attention ----------------------------------------------------------------------------------


class Attention(nn.Module):
    """Multi-head scaled dot-product attention over the real steps of a source.

    Vaswani et al. 2017, eq. 1 and section 3.2.2; self-attention where query and source are one.

    Args:
        d_q: Width of the queries and of the output.
        heads: H.
        d_kv: Width of the source; None = d_q.
        d_model: Width of all heads together; None = d_q.
        dropout: Share of attention weights set to zero in training.
        bias: Whether the four projections have one.

    Raises:
        ValueError: d_model cannot be divided by the heads.
    """

    def __init__(
        self,
        d_q: int,
        heads: int,
        d_kv: int | None = None,
        d_model: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        d_kv, d_model = d_kv or d_q, d_model or d_q
        if d_model % heads:
            raise ValueError(f"a width of {d_model} cannot be divided into {heads} heads")
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(d_q, d_model, bias=bias)
        self.key = nn.Linear(d_kv, d_model, bias=bias)
        self.value = nn.Linear(d_kv, d_model, bias=bias)
        self.out = nn.Linear(d_model, d_q, bias=bias)

    def forward(
        self, query: Tensor, source: Tensor, mask: Tensor, record: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from every query to the real steps of the source.

        Args:
            query: (B, Tq, d_q), finite also where padded (see `zero_padding`).
            source: (B, Tk, d_kv).
            mask: (B, Tk), real steps of the source.
            record: False = the weights are not wanted: same output, but they are never stored,
                which is far faster over hundreds of steps.

        Returns:
            (B, Tq, d_q), and the weights (B, H, Tq, Tk) before dropout or None. Where a clip has
            no key, the weights are zero and the output is the bias of the output projection.
        """
        source = zero_padding(source, mask)
        Q, K, V = (
            self._split(z) for z in (self.query(query), self.key(source), self.value(source))
        )
        dropout = self.dropout if self.training else 0.0
        mask = mask[:, None, None, :]
        weights = None
        if record:
            # Scaling the queries, not the far larger scores, saves a pass over them.
            scores = Q / math.sqrt(Q.shape[-1]) @ K.transpose(-2, -1)
            weights = masked_softmax(scores, mask)
            Y = F.dropout(weights, dropout) @ V
        else:
            present = mask.any(dim=-1, keepdim=True)
            # A row without any key would be NaN: let it see all of them, then drop the result.
            seen = mask | ~present
            Y = F.scaled_dot_product_attention(Q, K, V, attn_mask=seen, dropout_p=dropout)
            Y = Y.masked_fill(~present, 0.0)
        return self.out(Y.transpose(1, 2).flatten(2)), weights

    def _split(self, z: Tensor) -> Tensor:
        """(B, T, d) -> (B, H, T, d/H)."""
        return z.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class EncoderLayer(nn.Module):
    """One Transformer encoder layer: attention and a feed-forward layer, each with a skip.

    Vaswani et al. 2017, sections 3.1 to 3.3 (post-norm: LN(x + f(x))); pre-norm is x + f(LN(x)),
    after whose last layer a stack needs a layer normalisation of its own.

    Args:
        d: Width.
        heads: H.
        d_ff: Width of the hidden feed-forward layer.
        dropout: Share set to zero in training: attention weights, hidden units, both branches.
        norm: "pre" or "post".
        cross: True = keys and values are those of a source, not of x.
        activation: Of the hidden feed-forward layer.
        shared_norm: Pre-norm cross attention only: normalise the source with the layer
            normalisation of x (MulT), not with one of its own (TMT).

    Raises:
        ValueError: Unknown norm, or heads that do not divide the width.
    """

    def __init__(
        self,
        d: int,
        heads: int,
        d_ff: int,
        dropout: float = 0.0,
        norm: str = "pre",
        cross: bool = False,
        activation: Callable[[Tensor], Tensor] = F.relu,
        shared_norm: bool = False,
    ) -> None:
        super().__init__()
        if norm not in ("pre", "post"):
            raise ValueError(f'norm = "{norm}": must be "pre" or "post"')
        self.pre = norm == "pre"
        self.cross = cross
        self.activation = activation
        self.attention = Attention(d, heads, dropout=dropout)
        self.norm_x = nn.LayerNorm(d)
        own = cross and self.pre and not shared_norm
        self.norm_source = nn.LayerNorm(d) if own else None
        self.norm_ff = nn.LayerNorm(d)
        self.expand = nn.Linear(d, d_ff)
        self.contract = nn.Linear(d_ff, d)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        source: Tensor | None = None,
        source_mask: Tensor | None = None,
        record: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """Update x from itself, or from the source.

        Args:
            x: (B, T, d).
            mask: (B, T).
            source: (B, Tk, d), with `cross` only.
            source_mask: (B, Tk), with `cross` only.
            record: See `Attention.forward`.

        Returns:
            x (B, T, d), zero at padded steps, and the weights (B, H, T, Tk) or None.

        Raises:
            ValueError: A source without `cross`, or none with it.
        """
        if not self.cross == (source is not None) == (source_mask is not None):
            raise ValueError("a layer with cross=True takes source and source_mask, others do not")
        x = zero_padding(x, mask)
        # Also before the norms: their weights' gradient would meet a NaN in the padding.
        source = x if source is None else zero_padding(source, source_mask)
        source_mask = mask if source_mask is None else source_mask
        if self.pre:
            query = self.norm_x(x)
            keys = query if source is x else (self.norm_source or self.norm_x)(source)
            y, weights = self.attention(query, keys, source_mask, record)
            x = x + self.dropout(y)
            x = x + self.dropout(self._feed_forward(self.norm_ff(x)))
        else:
            y, weights = self.attention(x, source, source_mask, record)
            x = self.norm_x(x + self.dropout(y))
            x = self.norm_ff(x + self.dropout(self._feed_forward(x)))
        return zero_padding(x, mask), weights

    def _feed_forward(self, x: Tensor) -> Tensor:
        """(B, T, d) -> (B, T, d), each step alone."""
        return self.contract(self.dropout(self.activation(self.expand(x))))


# --- recurrence ---------------------------------------------------------------------------------


class MaskedLSTM(nn.Module):
    """LSTM over the real steps of each clip, as if it were cut to them.

    Gives what torch's LSTM gives on packed sequences, without the lengths' way through the CPU.
    torch has no rule for vmap over an LSTM: fusions with this one train side by side.

    Args:
        D: Width of the input.
        d: Width of the state of one direction.
        bidirectional: Whether a second LSTM reads from the end; states are then concatenated.
        layers: Number of layers; each reads the states of all directions below.
        cell: nn.LSTM or nn.GRU.
    """

    def __init__(
        self,
        D: int,
        d: int,
        bidirectional: bool = False,
        layers: int = 1,
        cell: type[nn.LSTM] | type[nn.GRU] = nn.LSTM,
    ) -> None:
        super().__init__()
        directions = 2 if bidirectional else 1
        self.layers = nn.ModuleList(
            nn.ModuleList(
                cell(D if k == 0 else d * directions, d, batch_first=True)
                for _ in range(directions)
            )
            for k in range(layers)
        )

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Run over a batch.

        Args:
            x: (B, T, D).
            mask: (B, T).

        Returns:
            The last layer's states (B, T, directions * d), zero at padded steps, and the final
            state of each of its directions (B, directions * d): forward at the last real step,
            backward at the first; zeros where a clip has no step.
        """
        T = mask.shape[1]
        steps = torch.arange(T, device=mask.device)
        # Each direction's reading order, with all padding behind the real steps, and the way back.
        forward = torch.where(mask, steps, steps + T).argsort(dim=1)
        backward = torch.where(mask, -steps, steps + T).argsort(dim=1)
        orders = [(order, order.argsort(dim=1)) for order in (forward, backward)]
        read = steps < mask.sum(dim=1, keepdim=True)
        x = zero_padding(x, mask)
        last = x
        for layer in self.layers:
            states, ends = [], []
            for lstm, (order, inverse) in zip(layer, orders, strict=False):
                h, _ = lstm(_reorder(x, order))
                ends.append(last_step(h, read))
                states.append(_reorder(h, inverse))
            x, last = zero_padding(torch.cat(states, dim=-1), mask), torch.cat(ends, dim=-1)
        return x, last


def _reorder(x: Tensor, order: Tensor) -> Tensor:
    """Steps of (B, T, D) in the order (B, T)."""
    return x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[2]))


# --- products of streams --------------------------------------------------------------------------


def tensor_fusion(zs: list[Tensor]) -> Tensor:
    """Tensor fusion (Zadeh et al. 2017, section 4.2): outer product of all [z; 1], flattened.

    Args:
        zs: (B, d_m) of each stream. Where one is zero, what remains of the tensor is the outer
            product of the others.

    Returns:
        (B, product of (d_m + 1)); the last stream's index runs fastest, the 1 stands last.
    """
    tensor = zs[0].new_ones(len(zs[0]), 1)
    for z in zs:
        one = torch.ones_like(z[:, :1])
        tensor = (tensor.unsqueeze(2) * torch.cat([z, one], dim=1).unsqueeze(1)).flatten(1)
    return tensor


class LowRankFusion(nn.Module):
    """h = W Z + b for W of rank r, never building Z or W (Liu et al. 2018, eq. 2, section 3.2).

    Z (eq. 1) is what `tensor_fusion` builds. W (eq. 4) is the sum over r of outer products of one
    factor w_m per stream, so W Z is the sum over r of the product over streams of w_m [z_m; 1]
    (eq. 8).

    Args:
        widths: d_m of each stream.
        r: Rank.
        d_h: Width of h.
    """

    def __init__(self, widths: list[int], r: int, d_h: int) -> None:
        super().__init__()
        self.w = nn.ParameterList(torch.empty(r, d + 1, d_h) for d in widths)
        self.b = nn.Parameter(torch.zeros(d_h))
        for w in self.w:
            for factor in w:  # each rank's factor is a matrix of its own
                nn.init.xavier_normal_(factor)

    def forward(self, zs: list[Tensor]) -> Tensor:
        """(B, d_m) of each stream -> h (B, d_h)."""
        product: Tensor | float = 1.0  # over streams, for each rank: (B, r, d_h)
        for z, w in zip(zs, self.w, strict=True):
            z_1 = torch.cat([z, torch.ones_like(z[:, :1])], dim=1)
            product = product * torch.einsum("bd,rdh->brh", z_1, w)
        return product.sum(dim=1) + self.b  # eq. 8


# --- losses -------------------------------------------------------------------------------------


def reverse_gradient(x: Tensor, factor: float = 1.0) -> Tensor:
    """Return x, with its gradient multiplied by -factor (Ganin & Lempitsky 2015)."""
    # Exact, x - factor * 0, and plain autograd: nothing that vmap or a compiler has no rule for.
    return x.detach() - factor * (x - x.detach())


def cmd(
    a: Tensor, b: Tensor, moments: int = 5, span: float = 1.0, keep: Tensor | None = None
) -> Tensor:
    """Central moment discrepancy of two samples (Zellinger et al. 2017, the estimate CMD_K).

    ||mean(a) - mean(b)|| / span + sum over k = 2 .. K of ||c_k(a) - c_k(b)|| / span^k, where c_k
    is the mean of (x - mean)^k in each column.

    Args:
        a: (n, d), entries within an interval of width `span`, else high moments dominate.
        b: (m, d).
        moments: K.
        span: Width of that interval.
        keep: (n,) bool, for rows that are pairs (n = m).

    Returns:
        Scalar; 0 where a sample has fewer than two rows.
    """
    (a, w_a, n), (b, w_b, m) = _weigh(a, keep), _weigh(b, keep)
    mean_a, mean_b = w_a @ a, w_b @ b
    # vector_norm has gradient 0, not NaN, where both are equal.
    total = torch.linalg.vector_norm(mean_a - mean_b) / span
    a, b = a - mean_a, b - mean_b
    for k in range(2, moments + 1):
        total = total + torch.linalg.vector_norm(w_a @ a**k - w_b @ b**k) / span**k
    return _enough(total, torch.minimum(n, m))


def mmd(
    a: Tensor,
    b: Tensor,
    kernels: int = 5,
    factor: float = 2.0,
    bandwidth: float | None = None,
    keep: Tensor | None = None,
) -> Tensor:
    """Squared maximum mean discrepancy of two samples (Gretton et al. 2012, biased estimate).

    mean k(a, a') + mean k(b, b') - 2 mean k(a, b) with the sum of Gaussian kernels
    k(x, y) = sum over i of exp(-||x - y||^2 / (bandwidth * factor^(i - kernels // 2))).

    Args:
        a: (n, d).
        b: (m, d).
        kernels: Number of kernels.
        factor: Ratio of one bandwidth to the next.
        bandwidth: Of the middle kernel, 2 sigma^2; None = mean squared distance between any two
            of the n + m rows, through which no gradient flows.
        keep: (n,) bool, for rows that are pairs (n = m).

    Returns:
        Scalar; 0 where a sample has fewer than two rows.
    """
    (a, w_a, n), (b, w_b, m) = _weigh(a, keep), _weigh(b, keep)
    both = torch.cat([a, b])
    distance = (both.unsqueeze(1) - both.unsqueeze(0)).square().sum(dim=-1)
    if bandwidth is None:
        real = torch.cat([w_a * n, w_b * m])
        pairs = ((n + m) * (n + m - 1)).clamp(min=1)
        # All rows equal: any width will do, but not zero.
        width = (real @ distance.detach() @ real / pairs).clamp(min=1e-12)
    else:
        width = bandwidth
    kernel = sum(
        torch.exp(-distance / (width * factor ** (i - kernels // 2))) for i in range(kernels)
    )
    sign = torch.cat([w_a, -w_b])
    return _enough(sign @ kernel @ sign, torch.minimum(n, m))


def hsic(a: Tensor, b: Tensor, keep: Tensor | None = None) -> Tensor:
    """Hilbert-Schmidt independence criterion with linear kernels (Gretton et al. 2005).

    tr(K H L H) / (n - 1)^2 with K = a a^T, L = b b^T and H the centring over the rows, which is
    ||a_c^T b_c||_F^2 / (n - 1)^2: cheaper, n x n never built.

    Args:
        a: (n, d).
        b: (n, any width), row i belongs to row i of a.
        keep: (n,) bool.

    Returns:
        Scalar; 0 where fewer than two rows are kept.
    """
    (a, n), (b, _) = _centre(a, keep), _centre(b, keep)
    return _enough((a.T @ b).square().sum() / (n - 1).clamp(min=1).square(), n)


def orthogonality(a: Tensor, b: Tensor, keep: Tensor | None = None) -> Tensor:
    """Difference loss of MISA (Hazarika et al. 2020): mean squared entry of a^T b.

    Columns of a and b are first centred over the batch, then rows scaled to length one. The mean,
    not the squared Frobenius norm of the paper, keeps the loss's size free of the widths.

    Args:
        a: (B, d).
        b: (B, any width).
        keep: (B,) bool.

    Returns:
        Scalar; 0 where fewer than two rows are kept.
    """
    (a, n), (b, _) = _centre(a, keep), _centre(b, keep)
    return _enough((_unit(a).T @ _unit(b)).square().mean(), n)


def angular_margin(
    h: Tensor, W: Tensor, y: Tensor, scale: float, margin: float, keep: Tensor | None = None
) -> Tensor:
    """Additive angular margin softmax (ArcFace, Deng et al. 2019, eq. 3): mean cross-entropy.

    Logits are scale * cos(angle between h and the row of W), with `margin` added to the angle of
    the true class. No easy margin: an angle beyond pi - margin is not treated apart.

    Args:
        h: (B, d), any length.
        W: (C, d), any length.
        y: (B,) int64, true classes.
        scale: Of the logits.
        margin: In radians.
        keep: (B,) bool.

    Returns:
        Scalar, the mean over kept rows; 0 where none is kept.
    """
    h, w, _ = _weigh(h, keep)
    h, W = _unit(h), _unit(W)
    # The angle of two unit vectors; unlike the acos of their product (whose gradient is infinite
    # at +-1, so that it would have to be clamped) exact and with a bounded gradient everywhere.
    norm = torch.linalg.vector_norm
    angle = 2 * torch.atan2(norm(h - W[y], dim=1), norm(h + W[y], dim=1))
    true = y.unsqueeze(1) == torch.arange(len(W), device=y.device)
    logits = scale * torch.where(true, torch.cos(angle + margin).unsqueeze(1), h @ W.T)
    return w @ F.cross_entropy(logits, y, reduction="none")


def _weigh(x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """(n, d), (n,) -> x with zeros in rows not kept; the weights of a mean (n,); kept rows."""
    if keep is None:
        keep = torch.ones(len(x), dtype=torch.bool, device=x.device)
    real = keep.to(x.dtype)
    n = real.sum()
    return zero_padding(x, keep), real / n.clamp(min=1), n


def _centre(x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """(n, d), (n,) -> x less the mean of the kept rows, zero in the others; kept rows."""
    x, w, n = _weigh(x, keep)
    return (x - w @ x) * (w.unsqueeze(1) > 0), n


def _unit(x: Tensor) -> Tensor:
    """Rows of (n, d) scaled to length one; rows of zeros stay, with a finite gradient."""
    return F.normalize(x, dim=1, eps=1e-6)


def _enough(loss: Tensor, n: Tensor) -> Tensor:
    """The loss, or 0 where it rests on fewer than two rows."""
    return torch.where(n > 1, loss, 0.0)
