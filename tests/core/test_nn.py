"""mertool.nn: each block against plain loops over the real rows, and against stated values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, stack_module_state, vmap

from mertool.nn import (
    Attention,
    EncoderLayer,
    LearntPositions,
    MaskedLSTM,
    angular_margin,
    cmd,
    hsic,
    last_step,
    masked_mean,
    mmd,
    orthogonality,
    reverse_gradient,
    sinusoidal,
    zero_padding,
)

B, T, D = 4, 5, 6
MASK = torch.arange(T) < torch.tensor([5, 1, 0, 3])[:, None]  # one full clip, one without a step
GAPS = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0]]).bool()
EMPTY = torch.zeros(B, T, dtype=torch.bool)


def rows(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


def dirty(x: Tensor, mask: Tensor, garbage: float = math.nan) -> Tensor:
    return x.masked_fill(~mask.unsqueeze(-1), garbage)


def same(ours: Tensor, reference: np.ndarray | float) -> None:
    assert np.isfinite(reference).all()
    np.testing.assert_allclose(ours.detach().numpy(), reference, rtol=1e-9, atol=1e-11)


def made(block: type[nn.Module], *args: object, **settings: object) -> nn.Module:
    """The block in double precision, no weight of it at a special value (biases 0, norms 1)."""
    torch.manual_seed(0)
    module = block(*args, **settings).double().eval()
    for p in module.parameters():
        p.data = torch.randn_like(p) * 0.5
    return module


def all_finite(outputs: Tensor, *inputs: Tensor, module: nn.Module | None = None) -> None:
    assert outputs.isfinite().all()
    outputs.square().sum().backward()
    for x in (*inputs, *(module.parameters() if module else ())):
        assert x.grad is not None and x.grad.isfinite().all()


# --- padding and positions ----------------------------------------------------------------------
@pytest.mark.parametrize("mask", [MASK, GAPS], ids=["padded", "gaps"])
def test_pooling_reads_the_real_steps_only(mask: Tensor) -> None:
    x = rows(B, T, D)
    real = [x[b].numpy()[mask[b].numpy()] for b in range(B)]
    means = [r.mean(0) if len(r) else np.zeros(D) for r in real]
    lasts = [r[-1] if len(r) else np.zeros(D) for r in real]
    for garbage in (0.0, math.nan, math.inf):
        given = dirty(x, mask, garbage).requires_grad_()
        same(masked_mean(given, mask), np.stack(means))
        same(last_step(given, mask), np.stack(lasts))
        (masked_mean(given, mask) + last_step(given, mask)).sum().backward()
        assert not given.grad[~mask].any() and given.grad.isfinite().all()
    assert not zero_padding(dirty(x, mask), mask)[~mask].any()
    assert torch.equal(zero_padding(dirty(x, mask), mask)[mask], x[mask])


@pytest.mark.parametrize("d", [6, 7])
def test_sinusoidal_positions(d: int) -> None:
    expected = np.zeros((9, d))
    for t in range(9):
        for i in range(d):
            angle = t / 10000 ** (2 * (i // 2) / d)
            expected[t, i] = math.cos(angle) if i % 2 else math.sin(angle)
    np.testing.assert_allclose(sinusoidal(9, d).numpy(), expected, atol=1e-6)


def test_learnt_positions_are_added_and_end() -> None:
    positions, x = LearntPositions(T, D), torch.zeros(2, 3, D)
    assert torch.equal(positions(x)[1], positions.weight[:3])
    assert len(set(positions.weight.flatten().tolist())) == T * D  # no two alike at the start
    with pytest.raises(ValueError, match="6 steps, but positions for 5"):
        positions(torch.zeros(2, T + 1, D))


# --- attention ----------------------------------------------------------------------------------
def linear(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    bias = 0.0 if layer.bias is None else layer.bias.detach().numpy()
    return x @ layer.weight.detach().numpy().T + bias


def norm(layer: nn.LayerNorm, x: np.ndarray) -> np.ndarray:
    z = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.eps)
    return z * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def attend(
    layer: Attention, query: np.ndarray, source: np.ndarray, real: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One clip: (Tq, d_q), (Tk, d_kv), (Tk,) -> output and weights (H, Tq, Tk)."""
    width = layer.query.out_features // layer.heads
    joined = np.zeros((len(query), layer.query.out_features))
    weights = np.zeros((layer.heads, len(query), len(source)))
    for h in range(layer.heads):
        part = slice(h * width, (h + 1) * width)
        for q in range(len(query)):
            keys = [k for k in range(len(source)) if real[k]]
            Q = linear(layer.query, query[q])[part]
            scores = [Q @ linear(layer.key, source[k])[part] / math.sqrt(width) for k in keys]
            for k, score in zip(keys, scores, strict=True):
                weights[h, q, k] = math.exp(score) / sum(math.exp(s) for s in scores)
                joined[q, part] += weights[h, q, k] * linear(layer.value, source[k])[part]
    return linear(layer.out, joined), weights


@pytest.mark.parametrize("mask", [MASK, GAPS], ids=["padded", "gaps"])
@pytest.mark.parametrize(
    "settings", [{}, {"bias": False}, {"d_kv": 4, "d_model": 9, "heads": 3}], ids=str
)
def test_attention_equals_a_loop(settings: dict, mask: Tensor) -> None:
    layer = made(Attention, D, **{"heads": 2, **settings})
    query, source = rows(B, 3, D), rows(B, T, settings.get("d_kv", D), seed=1)
    for given in (source, dirty(source, mask)):
        out, weights = layer(query, given, mask)
        plain, nothing = layer(query, given, mask, record=False)
        for b in range(B):
            expected = attend(layer, query[b].numpy(), source[b].numpy(), mask[b].numpy())
            same(out[b], expected[0])
            same(weights[b], expected[1])
        assert nothing is None
        torch.testing.assert_close(plain, out)
    assert not weights[2].any()
    silent = layer.out.bias if settings.get("bias", True) else torch.zeros(D).double()
    assert torch.equal(out[2], silent.expand(3, D)) and torch.equal(plain[2], silent.expand(3, D))


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("mask", [MASK, EMPTY], ids=["some", "none"])
def test_attention_gradients_are_finite_and_skip_padding(mask: Tensor, record: bool) -> None:
    layer = made(Attention, D, 2)
    query = rows(B, 3, D).requires_grad_()
    source = dirty(rows(B, T, D), mask).requires_grad_()
    all_finite(layer(query, source, mask, record)[0], query, source, module=layer)
    assert not source.grad[~mask].any()
    assert mask.any() == source.grad.any() == query.grad.any()


def test_attention_drops_weights_in_training_only() -> None:
    layer = made(Attention, D, 2, dropout=0.5)
    query, still = rows(B, 3, D), layer(rows(B, 3, D), rows(B, T, D), MASK)
    layer.train()
    for record in (True, False):
        out = torch.stack(
            [layer(query, rows(B, T, D), MASK, record)[0].detach() for _ in range(2000)]
        )
        assert out.std(0)[0].min() > 0.01
        error = out.std(0) / math.sqrt(len(out))  # the mean over dropout is what evaluation gives
        assert ((out.mean(0) - still[0]).abs() <= 5 * error + 1e-9).all()
    torch.testing.assert_close(layer(query, rows(B, T, D), MASK)[1], still[1])


def test_attention_never_looks_at_padding_however_large_the_scores() -> None:
    layer = made(Attention, D, 2)
    query, source = torch.cat([rows(B, 3, D), -rows(B, 3, D)], dim=1) * 1e4, rows(B, T, D)
    for record in (True, False):
        out = layer(query, source, MASK, record)[0]
        for b in (0, 1, 3):
            cut = layer(query[b : b + 1], source[b : b + 1, MASK[b]], MASK[b : b + 1, MASK[b]])
            torch.testing.assert_close(out[b], cut[0][0])


def test_attention_refuses_heads_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="width of 6 cannot be divided into 4 heads"):
        Attention(6, 4)


LAYERS = {
    "pre": {},
    "post": {"norm": "post"},
    "tanh": {"activation": torch.tanh},
    "pre cross": {"cross": True},
    "shared cross": {"cross": True, "shared_norm": True},
    "post cross": {"norm": "post", "cross": True},
}


@pytest.mark.parametrize("settings", LAYERS.values(), ids=LAYERS)
def test_encoder_layer_equals_its_equations(settings: dict) -> None:
    layer = made(EncoderLayer, D, 2, 7, **settings)
    x, mask = rows(B, 4, D), MASK[:, :4].roll(1, 0)
    source = rows(B, T, D, seed=1) if layer.cross else None
    given = (dirty(source, MASK), MASK) if layer.cross else ()
    out, weights = layer(dirty(x, mask), mask, *given)
    torch.testing.assert_close(layer(dirty(x, mask), mask, *given, record=False)[0], out)

    def feed_forward(z: np.ndarray) -> np.ndarray:
        hidden = linear(layer.expand, z)
        hidden = np.tanh(hidden) if "activation" in settings else np.maximum(hidden, 0)
        return linear(layer.contract, hidden)

    for b in range(B):
        z, real = x[b].numpy(), (MASK if layer.cross else mask)[b].numpy()
        keys = source[b].numpy() if layer.cross else z
        if layer.pre:
            of_keys = layer.norm_source if settings == LAYERS["pre cross"] else layer.norm_x
            y, w = attend(layer.attention, norm(layer.norm_x, z), norm(of_keys, keys), real)
            z = z + y
            z = z + feed_forward(norm(layer.norm_ff, z))
        else:
            y, w = attend(layer.attention, z, keys, real)
            z = norm(layer.norm_x, z + y)
            z = norm(layer.norm_ff, z + feed_forward(z))
        same(out[b], z * mask[b].numpy()[:, None])
        same(weights[b, :, mask[b]], w[:, mask[b].numpy()])


@pytest.mark.parametrize("settings", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("record", [True, False])
def test_encoder_layer_gradients_are_finite(settings: dict, record: bool) -> None:
    layer = made(EncoderLayer, D, 2, 7, **settings)
    for mask in (MASK, EMPTY):
        layer.zero_grad()
        x, source = (dirty(rows(B, T, D), m).requires_grad_() for m in (mask, MASK.roll(1, 0)))
        given = (source, MASK.roll(1, 0)) if layer.cross else ()
        inputs = (x, source) if layer.cross else (x,)
        all_finite(layer(x, mask, *given, record=record)[0], *inputs, module=layer)
        assert not x.grad[~mask].any()
        assert all(p.grad.any() for p in layer.attention.out.parameters()) == mask.any()


def test_encoder_layer_sizes_and_refusals() -> None:
    def size(*args: int, **settings: object) -> int:
        return sum(p.numel() for p in EncoderLayer(*args, **settings).parameters())

    # TMT at width 256; MulT's layer of width 50, heads 10.
    assert size(256, 8, 256) == 395_776
    assert size(256, 8, 256, cross=True) == 396_288
    assert size(50, 10, 200, cross=True, shared_norm=True) == 30_650
    assert size(50, 10, 200, cross=True, norm="post") == 30_650
    with pytest.raises(ValueError, match='norm = "both"'):
        EncoderLayer(D, 2, 7, norm="both")
    x = torch.zeros(B, T, D)
    for cross, given in ((True, ()), (True, (x,)), (False, (x, MASK)), (False, (x,))):
        with pytest.raises(ValueError, match="cross=True takes source and source_mask"):
            EncoderLayer(D, 2, 7, cross=cross)(x, MASK, *given)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_encoder_layer_drops_in_training_only(norm: str) -> None:
    layer, x = made(EncoderLayer, D, 2, 7, dropout=0.5, norm=norm), rows(B, T, D)
    dropped = []
    layer.dropout.register_forward_hook(lambda *call: dropped.append(call[2].shape[-1]))
    assert torch.equal(layer(x, MASK)[0], layer(x, MASK)[0])
    assert dropped == [D, 7, D] * 2  # the attention's branch, hidden units, their branch
    assert layer.attention.dropout == 0.5
    layer.train()
    assert not torch.equal(layer(x, MASK)[0], layer(x, MASK)[0])


# --- recurrence ---------------------------------------------------------------------------------
def twin(ours: MaskedLSTM, D: int, d: int) -> nn.LSTM:
    """torch's LSTM with the same weights."""
    both, layers = len(ours.layers[0]) == 2, len(ours.layers)
    theirs = nn.LSTM(D, d, num_layers=layers, bidirectional=both, batch_first=True).double()
    for k, layer in enumerate(ours.layers):
        for lstm, suffix in zip(layer, ("", "_reverse"), strict=False):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                target = getattr(theirs, f"{name}_l{k}{suffix}")
                target.data.copy_(getattr(lstm, f"{name}_l0").data)
    return theirs


@pytest.mark.parametrize("mask", [MASK, GAPS], ids=["padded", "gaps"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_lstm_equals_torch_on_each_cut_clip(bidirectional: bool, layers: int, mask: Tensor) -> None:
    d, directions = 3, 2 if bidirectional else 1
    ours = made(MaskedLSTM, D, d, bidirectional, layers)
    theirs = twin(ours, D, d)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    x = rows(B, T, D)
    states, last = ours(dirty(x, mask), mask)
    assert states.shape == (B, T, directions * d) and last.shape == (B, directions * d)
    assert not states[~mask].any()
    for b in range(B):
        if not mask[b].any():
            assert not last[b].any()
            continue
        expected, (h, _) = theirs(x[b, mask[b]][None])
        torch.testing.assert_close(states[b, mask[b]], expected[0])
        torch.testing.assert_close(last[b], h[-directions:, 0].flatten())
    longer = nn.functional.pad(x, (0, 0, 0, 4), value=7.0), nn.functional.pad(mask, (0, 4))
    torch.testing.assert_close(ours(*longer)[1], last)


def test_lstm_equals_its_equations() -> None:
    d, lstm = 3, made(MaskedLSTM, D, 3)
    cell = {name: p.detach().numpy() for name, p in lstm.layers[0][0].named_parameters()}
    x, h, c = rows(1, T, D), np.zeros(d), np.zeros(d)
    states, last = lstm(x, torch.ones(1, T, dtype=torch.bool))
    for t in range(T):
        z = cell["weight_ih_l0"] @ x[0, t].numpy() + cell["bias_ih_l0"]
        z = z + cell["weight_hh_l0"] @ h + cell["bias_hh_l0"]
        i, f, o = (1 / (1 + np.exp(-z[k * d : (k + 1) * d])) for k in (0, 1, 3))
        c = f * c + i * np.tanh(z[2 * d : 3 * d])
        h = o * np.tanh(c)
        same(states[0, t], h)
    same(last[0], h)


@pytest.mark.parametrize("mask", [MASK, EMPTY], ids=["some", "none"])
def test_lstm_gradients_are_finite_and_skip_padding(mask: Tensor) -> None:
    lstm, x = made(MaskedLSTM, D, 3, True, 2), dirty(rows(B, T, D), mask).requires_grad_()
    states, last = lstm(x, mask)
    all_finite(torch.cat([states.flatten(), last.flatten()]), x, module=lstm)
    assert not x.grad[~mask].any() and x.grad[mask].any(-1).all()


# --- losses -------------------------------------------------------------------------------------
@pytest.mark.parametrize("factor", [1.0, 0.3])
def test_gradient_is_reversed_exactly(factor: float) -> None:
    x, w = rows(B, D).float().requires_grad_(), rows(B, D, seed=1).float()
    assert torch.equal(reverse_gradient(x, factor), x)
    (reverse_gradient(x, factor) * w).sum().backward()
    assert torch.equal(x.grad, -factor * w)


def test_reversal_flips_the_encoder_and_not_the_discriminator() -> None:
    encoder, discriminator, grads = nn.Linear(D, 3), nn.Linear(3, 2), []
    for turn in (lambda z: z, reverse_gradient):
        encoder.zero_grad(), discriminator.zero_grad()
        out = discriminator(turn(encoder(rows(B, D).float())))
        nn.functional.cross_entropy(out, torch.arange(B) % 2).backward()
        grads.append((encoder.weight.grad.clone(), discriminator.weight.grad.clone()))
    assert torch.equal(grads[1][0], -grads[0][0]) and grads[0][0].any()
    assert torch.equal(grads[1][1], grads[0][1])


def cmd_of(a: np.ndarray, b: np.ndarray, moments: int = 5, span: float = 1.0) -> float:
    total = 0.0
    for k in range(1, moments + 1):
        c = [x.mean(0) if k == 1 else ((x - x.mean(0)) ** k).mean(0) for x in (a, b)]
        total += math.sqrt(((c[0] - c[1]) ** 2).sum()) / span**k
    return total


def mmd_of(
    a: np.ndarray, b: np.ndarray, kernels: int = 5, factor: float = 2.0, bandwidth: float = 0.0
) -> float:
    both = [*a, *b]
    gaps = [((x - y) ** 2).sum() for i, x in enumerate(both) for j, y in enumerate(both) if i != j]
    bandwidth = bandwidth or sum(gaps) / len(gaps)

    def mean(one: np.ndarray, other: np.ndarray) -> float:
        total = 0.0
        for x in one:
            for y in other:
                for i in range(kernels):
                    width = bandwidth * factor ** (i - kernels // 2)
                    total += math.exp(-((x - y) ** 2).sum() / width)
        return total / len(one) / len(other)

    return mean(a, a) + mean(b, b) - 2 * mean(a, b)


def hsic_of(a: np.ndarray, b: np.ndarray) -> float:
    n = len(a)
    H = np.eye(n) - 1 / n
    return np.trace(a @ a.T @ H @ b @ b.T @ H) / (n - 1) ** 2


def orthogonality_of(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    a, b = ([row / np.linalg.norm(row) for row in x - x.mean(0)] for x in (a, b))
    for i in range(len(a[0])):
        for j in range(len(b[0])):
            total += sum(a[r][i] * b[r][j] for r in range(len(a))) ** 2
    return total / len(a[0]) / len(b[0])


PAIRS = {cmd: cmd_of, mmd: mmd_of, hsic: hsic_of, orthogonality: orthogonality_of}
SETTINGS = [
    (cmd, {}),
    (cmd, {"moments": 3, "span": 2.0}),
    (cmd, {"moments": 1}),
    (mmd, {}),
    (mmd, {"kernels": 2, "factor": 3.0}),
    (mmd, {"kernels": 1, "bandwidth": 2.0}),
    (hsic, {}),
    (orthogonality, {}),
]
KEEPS = [[1, 1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0, 1], [0, 0, 1, 0, 0, 1, 0]]


@pytest.mark.parametrize("loss, settings", SETTINGS, ids=lambda v: getattr(v, "__name__", str(v)))
@pytest.mark.parametrize("keep", KEEPS, ids=lambda k: f"{sum(k)} kept")
def test_losses_equal_loops_over_the_kept_rows(loss, settings: dict, keep: list[int]) -> None:
    a, b, kept = rows(7, 3), rows(7, 3, seed=1) * 2 + 0.5, torch.tensor(keep).bool()
    expected = PAIRS[loss](a[kept].numpy(), b[kept].numpy(), **settings)
    assert abs(expected) > 1e-3
    given = [dirty(x, kept).requires_grad_() for x in (a, b)]
    ours = loss(*given, keep=kept, **settings)
    assert ours.shape == ()
    same(ours, expected)
    same(loss(a[kept], b[kept], **settings), expected)
    ours.backward()
    reference = [x[kept].clone().requires_grad_() for x in (a, b)]
    loss(*reference, **settings).backward()
    for x, r in zip(given, reference, strict=True):
        torch.testing.assert_close(x.grad[kept], r.grad)
        assert not x.grad[~kept].any()


@pytest.mark.parametrize("loss", PAIRS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("keep", [[0, 0, 0], [0, 1, 0]], ids=["none", "one"])
def test_losses_are_zero_below_two_rows(loss, keep: list[int]) -> None:
    kept = torch.tensor(keep).bool()
    a, b = (dirty(rows(3, 4, seed=s), kept).requires_grad_() for s in (0, 1))
    ours = loss(a, b, keep=kept)
    assert ours == 0
    ours.backward()
    assert not a.grad.any() and not b.grad.any()  # NaN would count as any
    assert loss(rows(1, 4), rows(1, 4, seed=1)) == 0


@pytest.mark.parametrize("loss", PAIRS, ids=lambda f: f.__name__)
def test_losses_of_equal_rows_have_finite_gradients(loss) -> None:
    a = torch.ones(3, 4).requires_grad_()
    b = torch.ones(3, 4).requires_grad_()
    ours = loss(a, b)
    assert ours == 0
    ours.backward()
    assert a.grad.isfinite().all() and b.grad.isfinite().all()


def test_samples_of_two_sizes() -> None:
    a, b = rows(7, 3), rows(4, 3, seed=1)
    same(cmd(a, b), cmd_of(a.numpy(), b.numpy()))
    same(mmd(a, b), mmd_of(a.numpy(), b.numpy()))
    same(hsic(a, rows(7, 5)), hsic_of(a.numpy(), rows(7, 5).numpy()))
    same(orthogonality(a, rows(7, 5)), orthogonality_of(a.numpy(), rows(7, 5).numpy()))


def test_cmd_stated_values() -> None:
    same(cmd(column(0, 1), column(0.5, 0.5)), 0.3125)
    same(cmd(column(0, 0), column(1, 1)), 1.0)
    assert cmd(column(0, 0, 1), column(1, 1, 0)).item() == pytest.approx(0.56379, abs=5e-6)
    a, shift = rows(9, 3), torch.tensor([1.0, -2.0, 2.0])
    same(cmd(a, a + shift), 3.0)  # a pure shift costs its length


def test_mmd_stated_values() -> None:
    a = rows(6, 3)
    assert mmd(a, a).item() == pytest.approx(0, abs=1e-14)
    assert mmd(a, a.flip(0)).item() == pytest.approx(0, abs=1e-14)
    x, y = torch.zeros(2, 2).double(), torch.ones(2, 2).double()  # squared distance 2
    # sigma = 1, exp(-2 / 2 sigma^2)
    assert mmd(x, y, kernels=1, bandwidth=2.0).item() == pytest.approx(1.26424, abs=5e-6)
    assert mmd(x, y, bandwidth=2.0).item() == pytest.approx(6.1863, abs=5e-5)
    same(mmd(x, y, kernels=1, bandwidth=2.0), 2 - 2 / math.e)


def test_no_gradient_flows_through_the_bandwidth_of_mmd() -> None:
    a, b = rows(5, 3).requires_grad_(), rows(5, 3, seed=1)
    both = torch.cat([a, b]).detach()
    width = (torch.cdist(both, both) ** 2).sum().item() / 90
    adaptive, fixed = mmd(a, b), mmd(a, b, bandwidth=width)
    torch.testing.assert_close(adaptive, fixed)
    torch.testing.assert_close(*(torch.autograd.grad(v, a)[0] for v in (adaptive, fixed)))


def test_hsic_stated_values() -> None:
    same(hsic(column(1, -1), column(1, -1)), 4.0)
    same(hsic(column(0, 1, 2), column(0, 1, 2)), 1.0)
    same(hsic(column(0, 1, 2), column(1, -2, 1)), 0.0)
    a, b = rows(6, 3), rows(6, 4, seed=1)
    torch.testing.assert_close(hsic(a + 3, b - 1), hsic(a, b))
    torch.testing.assert_close(hsic(2 * a, b), 4 * hsic(a, b))


def test_orthogonality_stated_values() -> None:
    same(orthogonality(column(1, -1), column(3, -3)), 4.0)  # rows become 1, -1: (1 + 1)^2
    alone = torch.tensor([[1.0, 0], [-1, 0], [0, 0], [0, 0]])
    other = torch.tensor([[0.0, 0], [0, 0], [0, 1], [0, -1]])
    assert orthogonality(alone, other) == 0


def margin_of(h: np.ndarray, W: np.ndarray, y: list[int], scale: float, margin: float) -> float:
    losses = []
    for row, true in zip(h, y, strict=True):
        cosine = [row @ w / np.linalg.norm(row) / np.linalg.norm(w) for w in W]
        logits = [scale * c for c in cosine]
        logits[true] = scale * math.cos(math.acos(cosine[true]) + margin)
        top = max(logits)
        losses.append(top + math.log(sum(math.exp(z - top) for z in logits)) - logits[true])
    return float(np.mean(losses))


@pytest.mark.parametrize("keep", [*KEEPS, [0, 0, 0, 0, 0, 1, 0]], ids=lambda k: f"{sum(k)} kept")
def test_margin_equals_a_loop(keep: list[int]) -> None:
    h, W, kept = rows(7, 4) * 3, rows(3, 4, seed=1) * 0.2, torch.tensor(keep).bool()
    y = torch.arange(7) % 3
    expected = margin_of(h[kept].numpy(), W.numpy(), y[kept].tolist(), 16.0, 0.3)
    assert expected > 1e-3
    given = dirty(h, kept).requires_grad_()
    ours = angular_margin(given, W, y, 16.0, 0.3, keep=kept)
    same(ours, expected)
    same(angular_margin(h[kept], W, y[kept], 16.0, 0.3), expected)
    ours.backward()
    assert given.grad.isfinite().all() and not given.grad[~kept].any()
    assert given.grad[kept].any(-1).all()
    assert angular_margin(given, W, y, 16.0, 0.3, keep=torch.zeros(7).bool()) == 0


def test_margin_without_margin_is_cosine_softmax() -> None:
    h, W, y = rows(5, 4), rows(3, 4, seed=1), torch.tensor([0, 1, 2, 0, 1])
    cosine = nn.functional.normalize(h) @ nn.functional.normalize(W).T
    expected = nn.functional.cross_entropy(8 * cosine, y)
    torch.testing.assert_close(angular_margin(h, W, y, 8.0, 0.0), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_margin_stated_values(dtype: torch.dtype) -> None:
    W, y = torch.eye(5, dtype=dtype)[:3], torch.tensor([0])

    def loss(h: Tensor, W: Tensor = W, scale: float = 72.0) -> float:
        h = h[None].requires_grad_()
        value = angular_margin(h, W, y, scale, 0.5)
        assert torch.autograd.grad(value, h)[0].isfinite().all()
        return value.item()

    assert loss(W[0]) == pytest.approx(7e-28, abs=1e-27)
    assert loss(W.sum(0)) == pytest.approx(33.966, abs=5e-4)
    assert loss(torch.eye(5, dtype=dtype)[4]) == pytest.approx(35.212, abs=5e-4)
    assert loss(W[0], W[:1].expand(3, 5)) == pytest.approx(9.507, abs=5e-4)
    assert loss(-W[0]) == pytest.approx(72 * math.cos(0.5) + math.log(2), abs=5e-4)
    assert loss(W[0], W[:1]) == 0  # one class only: a model with one stream
    assert math.isfinite(loss(torch.zeros(5, dtype=dtype)))


# --- how they run -------------------------------------------------------------------------------
MODULES = {
    "attention": lambda: Attention(D, 2, dropout=0.1),
    "encoder": lambda: EncoderLayer(D, 2, 7, dropout=0.1),
    "post": lambda: EncoderLayer(D, 2, 7, norm="post"),
    "cross": lambda: EncoderLayer(D, 2, 7, cross=True),
    "lstm": lambda: MaskedLSTM(D, 3, True, 2),
    "positions": lambda: LearntPositions(T, D),
}


def run(name: str, module: nn.Module, x: Tensor, mask: Tensor, record: bool) -> Tensor:
    if name == "attention":
        return module(x, x, mask, record)[0]
    if name == "lstm":
        return torch.cat([o.flatten(1) for o in module(x, mask)], dim=1)
    if name == "positions":
        return module(x)
    given = (x.flip(0), mask.flip(0)) if name == "cross" else ()
    return module(x, mask, *given, record=record)[0]


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_modules_take_no_decision_from_values(name: str, record: bool) -> None:
    with FakeTensorMode() as mode:
        module = MODULES[name]()
        x = mode.from_tensor(rows(B, T, D).float())
        out = run(name, module, x, mode.from_tensor(MASK), record)
        out.sum().backward()
    assert out.shape == run(name, MODULES[name](), rows(B, T, D).float(), MASK, record).shape


@pytest.mark.parametrize("keep", [None, torch.tensor([True, False, True, True])])
def test_losses_take_no_decision_from_values(keep: Tensor | None) -> None:
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        a, b = (mode.from_tensor(rows(B, D, seed=s)).requires_grad_() for s in (0, 1))
        kept = None if keep is None else mode.from_tensor(keep)
        total = angular_margin(a, b, mode.from_tensor(torch.arange(B)), 8.0, 0.5, kept)
        for loss in PAIRS:
            total = total + loss(reverse_gradient(a), b, keep=kept)
        x, mask = mode.from_tensor(rows(B, T, D)), mode.from_tensor(MASK)
        total = total + (masked_mean(x, mask) + last_step(x, mask)).sum()
        total.backward()
        assert sinusoidal(T, D).shape == (T, D)
    assert total.shape == () and a.grad.shape == (B, D)


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("name", sorted(set(MODULES) - {"lstm"}))
def test_modules_run_stacked(name: str, record: bool) -> None:
    x = dirty(rows(B, T, D).float(), MASK, 3.0)

    class Whole(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self) -> Tensor:
            return run(name, self.module, x, MASK, record)

    wholes = [Whole(MODULES[name]().eval()) for _ in range(2)]
    stacked = vmap(lambda p, b: functional_call(wholes[0], (p, b), ()))(*stack_module_state(wholes))
    torch.testing.assert_close(stacked, torch.stack([whole() for whole in wholes]))


def test_losses_run_stacked() -> None:
    a, b, y = rows(3, B, D), rows(3, B, D, seed=1), torch.arange(B).expand(3, B)
    keep = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1], [0, 1, 0, 0]]).bool()
    for loss in PAIRS:

        def one(a: Tensor, b: Tensor, keep: Tensor, loss=loss) -> Tensor:
            return loss(reverse_gradient(a), b, keep=keep)

        expected = torch.stack([one(*z) for z in zip(a, b, keep, strict=True)])
        torch.testing.assert_close(vmap(one)(a, b, keep), expected)

    def margin(a: Tensor, b: Tensor, y: Tensor, keep: Tensor) -> Tensor:
        return angular_margin(a, b, y, 8.0, 0.5, keep)

    expected = torch.stack([margin(*z) for z in zip(a, b, y, keep, strict=True)])
    torch.testing.assert_close(vmap(margin)(a, b, y, keep), expected)
    x, mask = rows(3, B, T, D), torch.stack([MASK, GAPS, EMPTY])
    for pool in (masked_mean, last_step):
        expected = torch.stack([pool(*z) for z in zip(x, mask, strict=True)])
        torch.testing.assert_close(vmap(pool)(x, mask), expected)
