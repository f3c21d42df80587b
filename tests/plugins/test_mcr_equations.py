"""MCR against its equations: a reference in NumPy, one clip and one number at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mertool_plugins.mcr.layers import attend
from mertool_plugins.mcr.model import MCR, MCRConfig
from mertool_plugins.mcr.units import CMU, SCU, AttentionLayer, SelectiveMemory, SourceGate
from torch import nn

from mertool.nn import masked_softmax, sinusoidal
from mertool.types import Batch, DataSpec

TINY = {"d_model": 4, "heads": 2, "layers": 3, "encoder_layers": 1, "dropout": 0.0}
STREAMS = {"text": (3, 3), "audio": (2, 5), "vision": (4, 2), "touch": (2, 3)}


# --- the reference: written from the equations, loops only -----------------------------------
def array(z: torch.Tensor) -> np.ndarray:
    return z.detach().numpy().astype("f8")


def linear(layer: nn.Linear, z: np.ndarray) -> np.ndarray:
    """Row by row W z + b."""
    W = array(layer.weight)
    b = np.zeros(len(W)) if layer.bias is None else array(layer.bias)
    return np.array([[W[k] @ row + b[k] for k in range(len(W))] for row in z])


def norm(layer: nn.LayerNorm, z: np.ndarray) -> np.ndarray:
    rows = [(row - row.mean()) / math.sqrt(row.var() + 1e-5) for row in z]
    return np.array([row * array(layer.weight) + array(layer.bias) for row in rows])


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def pff(layers: nn.Sequential, z: np.ndarray) -> np.ndarray:
    return linear(layers[2], np.maximum(linear(layers[0], z), 0))


def skip_pff(unit: nn.Module, z: np.ndarray) -> np.ndarray:
    return z + pff(unit.pff, norm(unit.norm, z))


def weights(scores: list[float], real: np.ndarray) -> np.ndarray:
    """Softmax over the real entries; all zeros where there is none."""
    total = sum(math.exp(s) for s, yes in zip(scores, real, strict=True) if yes)
    return np.array(
        [math.exp(s) / total if yes else 0.0 for s, yes in zip(scores, real, strict=True)]
    )


def multi_head(unit: nn.Module, X_s: np.ndarray, X_t: np.ndarray, real_s: np.ndarray) -> np.ndarray:
    """Eq. 1, head by head."""
    Q, K, V = linear(unit.query, X_t), linear(unit.key, X_s), linear(unit.value, X_s)
    width = Q.shape[1] // unit.heads
    Y = np.zeros_like(Q)
    for h in range(unit.heads):
        part = slice(h * width, (h + 1) * width)
        for i in range(len(X_t)):
            scores = [Q[i, part] @ K[j, part] / math.sqrt(width) for j in range(len(X_s))]
            for j, w in enumerate(weights(scores, real_s)):
                Y[i, part] += w * V[j, part]
    return linear(unit.out, Y)


def cmu(unit: CMU, Z_t: np.ndarray, Z_s: list[np.ndarray], real_s: list[np.ndarray]) -> np.ndarray:
    """Eq. 2-5."""
    d, n = Z_t.shape[1], len(Z_s)
    Q = linear(unit.query, norm(unit.norm_t, Z_t))
    normed = [norm(unit.norm_s[s], Z_s[s]) for s in range(n)]
    E = []
    for s in range(n):
        K = linear(unit.key[s], normed[s])
        E.append(
            np.array([[Q[i] @ K[j] / math.sqrt(d) for j in range(len(K))] for i in range(len(Q))])
        )
    # Eq. 3: one softmax over the steps of all sources, of the sums of the RAW features.
    alpha = weights([row.sum() for Z in Z_s for row in Z], np.concatenate(real_s))
    starts = np.cumsum([0] + [len(Z) for Z in Z_s])
    out = norm(unit.norm_t, Z_t)
    for j in range(n):
        V = linear(unit.value[j], normed[j])
        scores = E[j].copy()
        for i in range(n):
            if i == j or not unit.exchange:
                continue
            W, b = array(unit.exchange[f"{i}_{j}"].weight), array(unit.exchange[f"{i}_{j}"].bias)
            for t in range(len(Z_t)):
                for c in range(len(Z_s[j])):  # column c of E-hat, from the real columns of E_i
                    hat = b[c] + sum(
                        W[c, k] * E[i][t, k] for k in range(len(Z_s[i])) if real_s[i][k]
                    )
                    scores[t, c] += alpha[starts[j] + c] * hat
        for t in range(len(Z_t)):
            for c, w in enumerate(weights(list(scores[t]), real_s[j])):
                out[t] = out[t] + w * V[c]
    return skip_pff(unit.feed_forward, out)


def gamma_of(layer: AttentionLayer, branches: list[np.ndarray]) -> np.ndarray:
    """Eq. 9, 10."""
    beta = []
    for one, Z in zip(layer.branch, branches, strict=True):
        z = Z.reshape(-1)
        inner = array(one.weight) @ z + array(one.bias)
        U = array(layer.U.weight)[0] if isinstance(layer.U, nn.Linear) else np.ones(1)
        beta.append(U @ inner)
    return weights(beta, np.array([True, True]))


def scu(
    unit: SCU, Z_t: np.ndarray, Z_ds: np.ndarray, real_t: np.ndarray, real_ds: np.ndarray
) -> np.ndarray:
    """Eq. 6-11."""
    target = norm(unit.norm_t, Z_t)
    branches = [
        multi_head(unit.cross_attention, norm(unit.norm_ds, Z_ds), target, real_ds),
        multi_head(unit.self_attention, target, target, real_t),
    ]
    for Z in branches:
        Z[~real_t] = 0
    gamma = [1.0, 1.0]
    if unit.attention_layer is not None:
        gamma = gamma_of(unit.attention_layer, branches)
    return skip_pff(unit.feed_forward, gamma[0] * branches[0] + gamma[1] * branches[1])


def memory(unit: SelectiveMemory, Z_t: np.ndarray, Z_s: np.ndarray) -> np.ndarray:
    """Eq. 13, 14."""
    Z_hat = pff(unit.feed_forward, Z_s)
    if not unit.smm:
        return Z_hat + Z_t
    mu = sigmoid(linear(unit.W_s, Z_hat) + linear(unit.W_t, Z_t) + array(unit.b))
    return (1 - mu) * np.tanh(Z_t) + mu * Z_hat


def gate(unit: SourceGate, Z: np.ndarray) -> np.ndarray:
    """Eq. 15, 16."""
    return sigmoid(linear(unit.W, Z) + array(unit.b)) * np.tanh(Z)


def model(net: MCR, config: MCRConfig, batch: Batch, b: int) -> np.ndarray:
    """Section 3.2 for clip b."""
    streams = list(net.lengths)
    real = {m: array(batch.mask[m][b]).astype(bool) for m in streams}
    Z = {}
    for k, m in enumerate(streams):
        x = array(batch.x[m][b])
        x[~real[m]] = 0
        W, bias = array(net.convolution[k].weight), array(net.convolution[k].bias)
        T, half = len(x), W.shape[2] // 2
        z = np.zeros((T, config.d_model))
        for i in range(T):
            for c in range(config.d_model):
                rate = 10000 ** (-(c - c % 2) / config.d_model)
                z[i, c] = bias[c] + (math.cos if c % 2 else math.sin)(i * rate)
                for tap in range(W.shape[2]):
                    if 0 <= i + tap - half < T:
                        z[i, c] += W[c, :, tap] @ x[i + tap - half]
        z[~real[m]] = 0
        Z[m] = z
    targets = [m for m in streams if m in config.targets or not config.targets]
    sources = {t: [s for s in streams if s != t] or [t] for t in targets}
    S = dict(Z)
    ds = {t: np.concatenate([S[s] for s in sources[t]]) for t in targets}
    for i, layer in enumerate(net.layers):
        for t, units in zip(targets, layer, strict=True):
            old, new = Z[t], 0.0
            if config.cmu:
                new = cmu(units.cmu, old, [S[s] for s in sources[t]], [real[s] for s in sources[t]])
                new[~real[t]] = 0
            if config.scu:
                query = new if config.structure == "serial" and config.cmu else old
                real_ds = np.concatenate([real[s] for s in sources[t]])
                reinforced = scu(units.scu, query, ds[t], real[t], real_ds)
                new = reinforced if query is new else new + reinforced
            new[~real[t]] = 0
            Z[t] = new
        if i < config.layers - 1 and config.source_update != "low_level":
            update, S = net.updates[i], dict(S)
            for m, one in zip(update.updated, update.memory, strict=True):
                full = config.source_update == "sum"
                S[m] = memory(one, Z[m], S[m]) if full else pff(one, S[m])
                S[m][~real[m]] = 0
            for t, one in zip(targets, update.gate, strict=True):
                ds[t] = np.concatenate([S[s] for s in sources[t]])
                if config.source_update == "sum" and config.scu:
                    ds[t] = gate(one, ds[t])
    fin = np.concatenate([Z[t] for t in targets])
    real_fin = np.concatenate([real[t] for t in targets])
    for layer in net.encoder:
        x = norm(layer.norm, fin)
        fin = skip_pff(layer.feed_forward, fin + multi_head(layer.attention, x, x, real_fin))
    fin = norm(net.norm, fin)
    pooled = fin[real_fin].mean(0) if real_fin.any() else np.zeros(config.d_model)
    return linear(net.head[2], np.maximum(linear(net.head[0], pooled[None]), 0))[0]


# --- helpers ---------------------------------------------------------------------------------
def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter a value that matters, biases and norms too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
    return module.double().eval()


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def steps(*lengths: int, T: int) -> torch.Tensor:
    return torch.arange(T) < torch.tensor(lengths)[:, None]


def close(actual: torch.Tensor, expected: np.ndarray, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(array(actual), expected, atol=atol)


# --- attention -------------------------------------------------------------------------------
def test_masked_softmax_sums_to_one_or_zero() -> None:
    scores = some(3, 4).requires_grad_()
    mask = steps(4, 2, 0, T=4)
    p = masked_softmax(scores, mask)
    close(p.sum(1), np.array([1, 1, 0]))
    assert (p[~mask] == 0).all()
    (p * some(3, 4, seed=1)).sum().backward()
    assert torch.isfinite(scores.grad).all()
    assert (scores.grad[~mask] == 0).all() and (scores.grad[:2].abs().sum(1) > 0).all()


def test_attention_to_nothing_is_zero_with_zero_gradient() -> None:
    scores, V = some(2, 3, 4).requires_grad_(), some(2, 4, 5).requires_grad_()
    Y, attention = attend(scores, V, steps(2, 0, T=4))
    assert (Y[1] == 0).all() and (attention[0, :, 2:] == 0).all()
    Y.square().sum().backward()
    for z in (scores, V):
        assert torch.isfinite(z.grad).all()
        assert (z.grad[1] == 0).all() and z.grad[0].abs().sum() > 0


@pytest.mark.parametrize("d", [1, 4, 5])
def test_positions(d: int) -> None:
    expected = [
        [(math.cos if c % 2 else math.sin)(i / 10000 ** ((c - c % 2) / d)) for c in range(d)]
        for i in range(6)
    ]
    close(sinusoidal(6, d), np.array(expected), atol=1e-5)


# --- CMU -------------------------------------------------------------------------------------
@pytest.mark.parametrize("lengths", [(5,), (5, 2), (3, 3), (4, 2, 3)])
@pytest.mark.parametrize("mutual", [True, False])
def test_cmu_is_equations_2_to_5(lengths: tuple[int, ...], mutual: bool) -> None:
    unit = randomise(CMU(4, lengths, mutual, 0.0))
    Z_t, Z_s = some(3, 3, 4), [some(3, T, 4, seed=T + i) for i, T in enumerate(lengths)]
    mask_s = [steps(T, 1, 0 if i == 0 else T, T=T) for i, T in enumerate(lengths)]
    out, attention, alpha = unit(Z_t, Z_s, mask_s)
    for b in range(3):
        expected = cmu(
            unit, array(Z_t[b]), [array(Z[b]) for Z in Z_s], [m[b].numpy() for m in mask_s]
        )
        close(out[b], expected)
    assert [a.shape for a in attention] == [(3, 3, T) for T in lengths]
    if mutual and len(lengths) > 1:
        close(alpha.sum(1), np.ones(3))
        assert alpha[2, 0] == 0  # an absent source is not relied on
    else:
        assert alpha is None


def test_alpha_reads_raw_features() -> None:
    unit = randomise(CMU(4, (3, 2), True, 0.0))
    Z_s, mask_s = [some(1, 3, 4), some(1, 2, 4, seed=1)], [steps(3, T=3), steps(2, T=2)]
    alpha = torch.cat(unit.reliability(Z_s, mask_s), dim=1)
    sums = torch.cat(Z_s, dim=1).sum(-1)
    close(alpha, (sums.exp() / sums.exp().sum()).numpy())
    # After layer normalisation every sum is 0 and alpha would be uniform.
    normed = unit.reliability([nn.functional.layer_norm(Z, (4,)) for Z in Z_s], mask_s)
    close(torch.cat(normed, dim=1), np.full((1, 5), 0.2))
    assert (alpha - 0.2).abs().max() > 0.05


def test_recorded_alpha_is_summed_over_each_sources_steps() -> None:
    """Eq. 3 as Fig. 5 shows it: one number per source, padded steps weigh nothing."""
    unit = randomise(CMU(4, (3, 2), True, 0.0))
    Z_s, mask_s = [some(2, 3, 4), some(2, 2, 4, seed=1)], [steps(3, 2, T=3), steps(2, 1, T=2)]
    alpha = unit(some(2, 3, 4, seed=2), Z_s, mask_s)[2]
    for b in range(2):
        power = [
            sum(math.exp(array(Z[b, t]).sum()) for t in range(Z.shape[1]) if mask[b, t])
            for Z, mask in zip(Z_s, mask_s, strict=True)
        ]
        close(alpha[b], np.array(power) / sum(power))


def test_alpha_moves_only_its_own_column() -> None:
    unit = randomise(CMU(4, (3, 3), True, 0.0))  # equal lengths: a row broadcast would also run
    E, full = [some(2, 3, 3), some(2, 3, 3, seed=1)], [steps(3, 3, T=3)] * 2
    alpha = [torch.rand(2, 3, dtype=torch.float64), torch.rand(2, 3, dtype=torch.float64)]
    before = unit.mutual(E, alpha, full)
    alpha[0][:, 1] += 0.5
    after = unit.mutual(E, alpha, full)
    moved = (after[0] - before[0]).abs()
    assert (moved[:, :, [0, 2]] == 0).all() and (moved[:, :, 1] > 0).all()
    assert torch.equal(after[1], before[1])


def test_exchange_is_a_convolution_with_kernel_one() -> None:
    unit = randomise(CMU(4, (3, 2), True, 0.0))
    layer, E = unit.exchange["0_1"], some(2, 5, 3)
    expected = nn.functional.conv1d(E.transpose(1, 2), layer.weight[:, :, None], layer.bias)
    close(layer(E), array(expected.transpose(1, 2)))


def test_no_exchanged_attention_is_plain_crossmodal_attention() -> None:
    full, plain = CMU(4, (3, 2), True, 0.0), CMU(4, (3, 2), False, 0.0)
    randomise(full)
    kept = {k: v for k, v in full.state_dict().items() if not k.startswith("exchange")}
    plain.double().eval().load_state_dict(kept)
    inputs = some(1, 4, 4), [some(1, 3, 4), some(1, 2, 4)], [steps(2, T=3), steps(2, T=2)]
    assert not torch.allclose(full(*inputs)[0], plain(*inputs)[0])
    nn.init.zeros_(full.exchange["0_1"].weight), nn.init.zeros_(full.exchange["0_1"].bias)
    nn.init.zeros_(full.exchange["1_0"].weight), nn.init.zeros_(full.exchange["1_0"].bias)
    close(full(*inputs)[0], array(plain(*inputs)[0]))


# --- SCU -------------------------------------------------------------------------------------
@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("kind", ["vector", "literal", "none"])
def test_scu_is_equations_6_to_11(kind: str, record: bool) -> None:
    unit = randomise(SCU(4, 2, 3, kind, 0.0))
    Z_t, Z_ds = some(3, 3, 4), some(3, 5, 4, seed=1)
    mask_t, mask_ds = steps(3, 2, 0, T=3), steps(5, 0, 3, T=5)
    out, cross, own, gamma = unit(Z_t, Z_ds, mask_t, mask_ds, record)
    for b in range(3):
        expected = scu(unit, array(Z_t[b]), array(Z_ds[b]), mask_t[b].numpy(), mask_ds[b].numpy())
        close(out[b], expected)
    if record:
        assert cross.shape == (3, 2, 3, 5) and own.shape == (3, 2, 3, 3)
    else:
        assert cross is None and own is None
    assert (gamma is None) == (kind == "none")


@pytest.mark.parametrize("kind", ["vector", "literal"])
def test_gamma_without_u_is_one_half(kind: str) -> None:
    layer = randomise(AttentionLayer(12, kind))
    Z = some(2, 3, 4), some(2, 3, 4, seed=1)
    assert (layer(*Z) - 0.5).abs().min() > 1e-3
    zero = [layer.U] if kind == "literal" else layer.branch
    for one in zero:
        for p in one.parameters():
            nn.init.zeros_(p)
    close(layer(*Z), np.full((2, 2), 0.5))


def test_literal_attention_layer_is_the_vector_one() -> None:
    literal, vector = randomise(AttentionLayer(12, "literal")), AttentionLayer(12, "vector")
    vector.double()
    with torch.no_grad():
        for full, short in zip(literal.branch, vector.branch, strict=True):
            short.weight.copy_(literal.U.weight @ full.weight)  # w = W^T U
            short.bias.copy_(literal.U.weight[0] @ full.bias)  # c = U^T b
    Z = some(5, 3, 4), some(5, 3, 4, seed=1)
    torch.testing.assert_close(literal(*Z), vector(*Z), rtol=0, atol=1e-13)


def test_attention_layer_sizes() -> None:
    """At T_t = 50 and d = 40 a branch has 2,001 weights, or about 4 million as printed."""
    vector = AttentionLayer(50 * 40, "vector")
    assert [sum(p.numel() for p in b.parameters()) for b in vector.branch] == [2001, 2001]
    with torch.device("meta"):
        literal = AttentionLayer(50 * 40, "literal")
    assert sum(p.numel() for p in literal.branch[0].parameters()) == 2000**2 + 2000
    assert literal.U.weight.numel() == 2000  # shared by the branches


# --- SUM -------------------------------------------------------------------------------------
@pytest.mark.parametrize("smm", [True, False])
def test_selective_memory_is_equations_13_and_14(smm: bool) -> None:
    unit = randomise(SelectiveMemory(4, 3, smm))
    Z_t, Z_s = some(2, 3, 4), some(2, 3, 4, seed=1)
    for b in range(2):
        close(unit(Z_t, Z_s)[b], memory(unit, array(Z_t[b]), array(Z_s[b])))


def test_selective_memory_at_its_limits() -> None:
    unit = randomise(SelectiveMemory(4, 3, True))
    Z_t, Z_s = some(2, 3, 4), some(2, 3, 4, seed=1)
    Z_hat, kept = array(unit.feed_forward(Z_s)), np.tanh(array(Z_t))
    for p in (unit.W_s.weight, unit.W_t.weight, unit.b):
        nn.init.zeros_(p)
    close(unit(Z_t, Z_s), (kept + Z_hat) / 2)
    nn.init.constant_(unit.b, math.inf)
    close(unit(Z_t, Z_s), Z_hat)
    nn.init.constant_(unit.b, -math.inf)
    close(unit(Z_t, Z_s), kept)


def test_source_gate_is_equations_15_and_16() -> None:
    unit = randomise(SourceGate(4, 5))
    Z = some(2, 5, 4) * 3
    for b in range(2):
        close(unit(Z)[b], gate(unit, array(Z[b])))
    assert unit(Z).abs().max() < 1


# --- the whole model -------------------------------------------------------------------------
@pytest.mark.parametrize(
    "names, settings",
    [
        (("text", "audio", "vision"), {}),
        (("vision", "text"), {}),
        (("audio",), {}),
        (("text", "audio", "vision", "touch"), {"layers": 2}),
        (("text", "audio", "vision"), {"targets": ("text",)}),
        (("text", "audio", "vision"), {"targets": ("vision", "audio"), "layers": 2}),
        (("text", "audio", "vision"), {"source_update": "low_level"}),
        (("text", "audio", "vision"), {"source_update": "ffl"}),
        (("text", "audio", "vision"), {"smm": False}),
        (("text", "audio", "vision"), {"cmu": False}),
        (("text", "audio", "vision"), {"scu": False}),
        (("text", "audio", "vision"), {"mutual_attention": False}),
        (("text", "audio", "vision"), {"attention_layer": "none"}),
        (("text", "audio", "vision"), {"attention_layer": "literal"}),
        (("text", "audio", "vision"), {"structure": "serial"}),
        (("text", "audio", "vision"), {"structure": "serial", "cmu": False}),
        (("text", "audio", "vision"), {"layers": 1, "encoder_layers": 2}),
        (("text", "audio", "vision"), {"kernel_text": 1, "kernel_audio": 5, "heads": 4}),
        (("touch", "text"), {"kernel_other": 5, "layers": 1}),
    ],
    ids=str,
)
def test_model_is_the_reference(names: tuple[str, ...], settings: dict) -> None:
    config = MCRConfig(**{**TINY, **settings})
    spec = DataSpec({m: STREAMS[m] for m in names}, task="classification", n_out=3)
    net = randomise(MCR(config, spec), seed=1)
    net.head[0].bias.data += 2  # keep the few hidden units of the head awake
    x = {m: some(3, T, D, seed=k) for k, (m, (D, T)) in enumerate(spec.streams.items())}
    # A whole clip; a short one; one whose first stream is absent.
    mask = {
        m: steps(T, 1 + k % 2, 0 if k == 0 else T, T=T)
        for k, (m, (_, T)) in enumerate(spec.streams.items())
    }
    batch = Batch(x, mask)
    pred = net(batch).pred
    for b in range(3):
        # Positions are single precision in the model.
        close(pred[b], model(net, config, batch, b), atol=1e-5)
    assert pred.std(dim=0).min() > 1e-3  # the inputs matter
