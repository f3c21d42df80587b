"""FDMER: numbers by hand, losses against loops, every ablation of Table 4, the contract."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from mertool_plugins.fdmer.cmaf import CMAF, SourceNorm, attend_features
from mertool_plugins.fdmer.layers import (
    Discriminator,
    StreamEncoder,
    consistency,
    disparity,
    similarity,
)
from mertool_plugins.fdmer.model import FDMER, FDMERConfig
from synthetic import ONE_TASK
from torch import Tensor, nn
from torch.nn import functional as F

import mertool
from mertool.nn import angular_margin, hsic
from mertool.registry import registry
from mertool.testing import check_fusion, failed, interaction, toy
from mertool.types import Batch, DataSpec, FusionOutput

TINY = FDMERConfig(
    d_k=8, d_discriminator=6, layers_text=1, layers_audio=1, layers_vision=1, layers_other=1,
    dropout=0.0,
)  # fmt: skip
ALL = ("audio", "text", "vision")  # in the order of the model
K = {"regression": 1, "classification": 4, "multilabel": 3}
SUBSETS = [names for n in (1, 2, 3) for names in combinations(ALL, n)]
PAPER = DataSpec({"text": (300, 50), "audio": (74, 50), "vision": (35, 50)})
# Which of six clips have which of three streams: every pair has at least three, none has all.
SOME = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 0]]).bool()
LOSSES = {"L_ami", "L_ams", "L_con", "L_dis"}


def build(spec: DataSpec, seed: int = 0, **settings: object) -> FDMER:
    torch.manual_seed(seed)
    return FDMER(replace(TINY, **settings), spec).eval()


def batch_of(spec: DataSpec, B: int = 4, seed: int = 0, record: bool = False) -> Batch:
    batch = toy.batch(spec, B, seed)
    batch.record = record
    return batch


def count(module: nn.Module | None) -> int:
    return sum(p.numel() for p in module.parameters())


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- settings ---------------------------------------------------------------------------------
def test_registers_and_defaults_are_section_4_2() -> None:
    facts = registry().get("fusion", "fdmer").facts
    assert (facts["task_loss"], facts["fixed_length"]) == ("mse", False)
    c = FDMERConfig()
    assert [c.layers(m) for m in ("text", "audio", "vision")] == [5, 4, 4]
    assert (c.d_k, c.d_discriminator, c.margin, c.scale) == (256, 128, 0.5, 72)
    assert (c.beta, c.gamma) == (0.02, 0.02)
    assert FDMERConfig(**json.loads(json.dumps(asdict(c)))) == c


@pytest.mark.parametrize(
    "settings",
    [
        {"d_k": 0},
        {"heads": 0},
        {"d_model": -1},
        {"beta": -1.0},
        {"scale": 0.0},
        {"dropout": 1.0},
        {"adversarial": "mse"},
        {"adversarial_reach": "common"},
        {"consistency": "max"},
        {"fusion": "product"},
        {"attention": "step"},
        {"common": False, "private": False},
        {"phase_1": False, "phase_2": False},
    ],
    ids=str,
)
def test_config_refuses(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        FDMERConfig(**settings)


# --- sizes ------------------------------------------------------------------------------------
def test_parameters_at_the_papers_sizes() -> None:
    model = FDMER(FDMERConfig(), PAPER)
    assert model.streams == list(ALL)
    fc = [count(encoder.out) for encoder in model.encoder]
    assert fc == [74 * 256 + 256, 300 * 256 + 256, 35 * 256 + 256] and sum(fc) == 105_472
    assert count(model.common) == 131_584
    assert count(model.private) == 394_752
    assert count(model.discriminator) == 33_280
    assert count(model.fusion.W_G) == 262_144
    assert count(model.fusion.W_Q) + count(model.fusion.W_U) == 2_097_152
    assert count(model.fusion.W_ta) == 263_168
    assert count(model.fusion.q) == 256
    # 12 d^2 + 13 d of a Transformer layer.
    layer = {d: 12 * d * d + 13 * d for d in (74, 300, 35)}
    depth = [4, 5, 4]
    for encoder, d, n in zip(model.encoder, (74, 300, 35), depth, strict=True):
        assert count(encoder.transformer) == n * layer[d]
    assert count(model) == 9_630_849


@pytest.mark.parametrize(
    "D, heads", [(300, 6), (768, 8), (74, 2), (35, 7), (81, 3), (75, 5), (5, 5), (47, 1)]
)
def test_heads_are_the_largest_divisor_up_to_eight(D: int, heads: int) -> None:
    encoder = StreamEncoder(D, 1, FDMERConfig(d_k=4))
    assert encoder.transformer[0].attention.heads == heads
    assert isinstance(encoder.project, nn.Identity)


def test_width_of_the_transformers() -> None:
    wide = StreamEncoder(768, 5, FDMERConfig())
    assert count(wide.transformer) == 5 * (12 * 768**2 + 13 * 768) == 35_439_360
    narrow = StreamEncoder(768, 5, FDMERConfig(d_model=128))
    assert count(narrow.project) == 768 * 128 + 128
    assert count(narrow.transformer) == 5 * (12 * 128**2 + 13 * 128)
    # A layer normalisation over one column would give its bias whatever the input.
    one = StreamEncoder(1, 1, replace(TINY, d_k=3)).eval()
    x = torch.tensor([[[1.0]], [[5.0]]])
    assert one.width == 4 and not torch.allclose(*one(x, torch.ones(2, 1, dtype=torch.bool)))


def test_stream_encoder_against_torch() -> None:
    encoder = StreamEncoder(6, 2, replace(TINY, heads=3)).eval()
    reference = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(6, 3, 24, 0.0, batch_first=True, norm_first=False),
        2,
        enable_nested_tensor=False,
    ).eval()
    with torch.no_grad():
        for mine, theirs in zip(encoder.transformer, reference.layers, strict=True):
            a = mine.attention
            theirs.self_attn.in_proj_weight.copy_(
                torch.cat([a.query.weight, a.key.weight, a.value.weight])
            )
            theirs.self_attn.in_proj_bias.copy_(torch.cat([a.query.bias, a.key.bias, a.value.bias]))
            theirs.self_attn.out_proj.load_state_dict(a.out.state_dict())
            theirs.linear1.load_state_dict(mine.expand.state_dict())
            theirs.linear2.load_state_dict(mine.contract.state_dict())
    x, T = rand(1, 4, 6), np.arange(4)
    angle = T[:, None] / 10000 ** (np.arange(0, 6, 2) / 6)
    positions = np.stack([np.sin(angle), np.cos(angle)], -1).reshape(4, 6)
    with torch.no_grad():
        Z = reference(x + torch.tensor(positions, dtype=torch.float32)).mean(1)
        expected = encoder.out(Z)
        padded = F.pad(x, (0, 0, 0, 3), value=float("nan"))
        found = encoder(padded, torch.arange(7)[None] < 4)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


# --- angular margin loss, discriminator ---------------------------------------------------------
def margin_loss(h: np.ndarray, W: np.ndarray, y: int, scale: float, margin: float) -> float:
    """Eq. 9 of one vector, by acos."""
    cos = W @ h / np.linalg.norm(W, axis=1) / np.linalg.norm(h)
    true = scale * math.cos(math.acos(np.clip(cos[y], -1, 1)) + margin)
    return math.log1p(sum(math.exp(scale * cos[k] - true) for k in range(len(W)) if k != y))


@pytest.mark.parametrize(
    "h, W, margin, expected",
    [
        ([1, 0, 0, 0], np.eye(3, 4), 0.5, 7.178e-28),
        ([1, 1, 1, 0], np.eye(3, 4), 0.5, 33.966),
        ([0, 0, 0, 1], np.eye(3, 4), 0.5, 35.212),
        ([1, 0, 0, 0], np.tile([1, 0, 0, 0], (3, 1)), 0.5, 9.507),
        ([1, 1, 1, 0], np.eye(3, 4), 0.0, 1.0986),
    ],
)
def test_margin_loss(h: list[int], W: np.ndarray, margin: float, expected: float) -> None:
    by_hand = margin_loss(np.array(h, float), W.astype(float), 0, 72, margin)
    assert by_hand == pytest.approx(expected, rel=1e-3)
    y = torch.zeros(1, dtype=torch.long)
    found = angular_margin(torch.tensor([h]).double(), torch.tensor(W).double(), y, 72, margin)
    assert float(found) == pytest.approx(by_hand, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind", ["angular", "cross_entropy"])
def test_discriminator_loss_is_a_sum_over_modalities(kind: str) -> None:
    config = replace(TINY, adversarial=kind, margin=0.3)
    D = Discriminator(3, config).double()
    h = rand(5, 3, 8).double()
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]]).bool()
    h_hat = D.F(h).detach().numpy()
    W = D.W.detach().numpy()
    total = 0.0
    for m in range(3):
        rows = []
        for i in range(5):
            if present[i, m] and kind == "angular":
                rows.append(margin_loss(h_hat[i, m], W, m, 72, 0.3))
            elif present[i, m]:
                logits = W @ h_hat[i, m]
                rows.append(math.log(np.exp(logits).sum()) - logits[m])
        total += sum(rows) / len(rows)
    assert float(D.loss(h, present).detach()) == pytest.approx(total, rel=1e-9)
    # What an absent modality holds does not matter, and has no gradient.
    h.requires_grad_()
    (gradient,) = torch.autograd.grad(D.loss(h, present), h)
    assert not gradient[~present].any() and gradient[present].any(dim=1).all()
    nobody = torch.zeros_like(present)
    assert float(D.loss(h, nobody).detach()) == 0.0


def test_discriminator_probabilities_without_margin() -> None:
    D = Discriminator(3, TINY).double()
    h = rand(2, 8).double()
    h_hat, W = D.F(h).detach().numpy(), D.W.detach().numpy()
    cos = h_hat @ W.T / np.linalg.norm(h_hat, axis=1)[:, None] / np.linalg.norm(W, axis=1)
    odds = np.exp(72 * cos)
    expected = odds / odds.sum(1, keepdims=True)
    np.testing.assert_allclose(torch.softmax(D(h), -1).detach(), expected, rtol=1e-9)


# --- consistency, disparity -------------------------------------------------------------------
def test_consistency_by_hand() -> None:
    # Two modalities of four clips: all alike; two antipodal pairs.
    alike = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    pairs = torch.tensor([[0.0, 2.0], [0.0, 3.0], [0.0, -1.0], [0.0, -5.0]])
    C, both = torch.stack([alike, pairs], dim=1), torch.ones(4, 2, dtype=torch.bool)
    assert float(consistency(C, both, "sum")) == pytest.approx(32)
    assert float(consistency(C, both)) == pytest.approx(2)


def test_consistency_against_loops() -> None:
    C = rand(6, 3, 4).double()
    present = SOME
    for centre in (False, True):
        total = {"mean": [], "sum": []}
        for a, b in combinations(range(3), 2):
            rows = [i for i in range(6) if present[i, a] and present[i, b]]
            assert 1 < len(rows) < 6
            S = []
            for m in (a, b):
                c = C[rows, m].numpy()
                c = c - c.mean(0) if centre else c
                c = c / np.linalg.norm(c, axis=1, keepdims=True)
                S.append([[float(u @ v) for v in c] for u in c])
            squared = [
                (S[0][i][j] - S[1][i][j]) ** 2 for i in range(len(rows)) for j in range(len(rows))
            ]
            total["sum"].append(sum(squared))
            total["mean"].append(sum(squared) / len(rows) ** 2)
        for kind, values in total.items():
            found = float(consistency(C, present, kind, centre))
            assert found == pytest.approx(np.mean(values), rel=1e-9)


def test_consistency_is_zero_of_equals_and_blind_to_rotation() -> None:
    C = rand(5, 1, 4).double().expand(5, 3, 4)
    present = torch.ones(5, 3, dtype=torch.bool)
    assert float(consistency(C, present)) == 0.0
    other = rand(5, 3, 4, seed=2).double()
    turn, _ = torch.linalg.qr(rand(4, 4, seed=3).double())
    turned = torch.stack([other[:, 0] @ turn, other[:, 1], other[:, 2]], dim=1)
    assert not torch.allclose(turned, other)
    torch.testing.assert_close(consistency(turned, present), consistency(other, present))
    # Both factors of eq. 4 are normalised: the length of a vector does not matter.
    torch.testing.assert_close(
        similarity(3 * C[:, 0], present[:, 0]), similarity(C[:, 0], present[:, 0])
    )


@pytest.mark.parametrize(
    "a, b, expected",
    [([1, -1], [1, -1], 4), ([0, 1, 2], [0, 1, 2], 1), ([0, 1, 2], [1, -2, 1], 0)],
)
def test_disparity_by_hand(a: list[int], b: list[int], expected: float) -> None:
    a, b = (torch.tensor(z, dtype=torch.float64)[:, None] for z in (a, b))
    both = torch.ones(len(a), 2, dtype=torch.bool)
    P = torch.stack([a, b], dim=1)
    assert float(disparity(P, both)) == pytest.approx(expected, abs=1e-12)
    assert float(disparity(P + 7, both)) == pytest.approx(expected, abs=1e-12)
    assert float(hsic(2 * a, b)) == pytest.approx(4 * expected, abs=1e-12)


def test_disparity_against_traces() -> None:
    P = rand(6, 3, 4).double()
    present = SOME
    values = []
    for a, b in combinations(range(3), 2):
        rows = [i for i in range(6) if present[i, a] and present[i, b]]
        n = len(rows)
        U = np.eye(n) - np.ones((n, n)) / n
        K1, K2 = (P[rows, m].numpy() @ P[rows, m].numpy().T for m in (a, b))
        values.append(np.trace(U @ K1 @ U @ K2) / (n - 1) ** 2)  # eq. 6
        one, two = (P[rows, m].numpy() - P[rows, m].numpy().mean(0) for m in (a, b))
        assert values[-1] == pytest.approx(np.sum((one.T @ two) ** 2) / (n - 1) ** 2)
    assert float(disparity(P, present)) == pytest.approx(np.mean(values), rel=1e-9)


@pytest.mark.parametrize("loss", [consistency, disparity])
def test_pairs_with_fewer_than_two_clips_do_not_count(loss: object) -> None:
    h = rand(4, 3, 5)
    present = torch.ones(4, 3, dtype=torch.bool)
    present[1:, 2] = False  # one clip alone has the third
    pair = loss(h[:, :2], present[:, :2])
    assert float(pair) > 0
    torch.testing.assert_close(loss(h, present), pair)
    h = h.clone().requires_grad_()
    nothing = loss(h, torch.eye(4, 3).bool())
    (gradient,) = torch.autograd.grad(nothing, h)
    assert float(nothing.detach()) == 0.0 and not gradient.any()


# --- fusion -----------------------------------------------------------------------------------
def layer_norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def numpy_of(linear: nn.Linear, x: np.ndarray) -> np.ndarray:
    bias = 0 if linear.bias is None else linear.bias.detach().numpy()
    return linear.weight.detach().numpy() @ x + bias


def gelu(x: np.ndarray) -> np.ndarray:
    return np.array([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x])


@pytest.mark.parametrize("present", [[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 1, 0]], ids=str)
def test_cmaf_against_loops(present: list[int]) -> None:
    """Eq. 12 to 17 in loops; an absent representation shortens F_so."""
    d, N = 4, 4
    torch.manual_seed(1)
    cmaf = CMAF(N, replace(TINY, d_k=d)).double().eval()
    with torch.no_grad():
        cmaf.norm_so.weight.copy_(rand(N, d, seed=5) + 1)
        cmaf.norm_so.bias.copy_(rand(N, d, seed=6))
    F_ta = rand(1, N, d, seed=2).double()
    mask = torch.tensor([present]).bool()
    Y_fin, psi, _ = cmaf(F_ta, mask)

    has = [k for k in range(N) if present[k]]
    places = np.concatenate([np.arange(k * d, (k + 1) * d) for k in has])
    weight, bias = (z.detach().numpy().ravel()[places] for z in cmaf.norm_so.parameters())
    F_so = layer_norm(F_ta[0].numpy().ravel()[places]) * weight + bias
    Q = cmaf.W_Q.weight.detach().numpy()[np.ix_(places, places)] @ F_so
    U = cmaf.W_U.weight.detach().numpy()[np.ix_(places, places)] @ F_so
    Y, mu = {}, []
    for k in has:
        target = layer_norm(F_ta[0, k].numpy())
        G = numpy_of(cmaf.W_G[k], target)
        y = target + np.array([softmax(g * Q) @ U for g in G])
        y = numpy_of(cmaf.f[3], gelu(numpy_of(cmaf.f[0], layer_norm(y)))) + y
        Y[k] = y
        mu.append(float(numpy_of(cmaf.q, np.tanh(numpy_of(cmaf.W_ta[k], y)))[0]))
    expected = softmax(np.array(mu))
    np.testing.assert_allclose(psi.detach()[0, has], expected, rtol=1e-6)
    assert float(psi.detach().sum()) == pytest.approx(1)
    fused = sum(w * Y[k] for w, k in zip(expected, has, strict=True))
    np.testing.assert_allclose(Y_fin.detach()[0], fused, rtol=1e-6)


def test_cmaf_values_of_the_paper() -> None:
    cmaf = CMAF(4, TINY).eval()
    F_ta, present = rand(3, 4, 8), torch.ones(3, 4, dtype=torch.bool)
    present[1, 2] = False
    with torch.no_grad():
        cmaf.q.weight.zero_()
        _, psi, _ = cmaf(F_ta, present)
        torch.testing.assert_close(psi[0], torch.full((4,), 0.25))
        torch.testing.assert_close(psi[1], torch.tensor([1, 1, 0, 1]) / 3)
        # W_G = 0: every feature of every target attends evenly.
        U = rand(3, 4, 8, seed=1)
        out, _ = attend_features(torch.zeros(3, 4, 8), rand(3, 4, 8, seed=2), U, present)
        torch.testing.assert_close(out[0], U[0].mean().expand(4, 8))
        torch.testing.assert_close(out[1], U[1, [0, 1, 3]].mean().expand(4, 8))


def test_source_norm_is_layer_norm_of_what_is_there() -> None:
    norm, F_so = SourceNorm(3, 4), rand(2, 3, 4)
    present = torch.tensor([[1, 1, 1], [1, 0, 1]]).bool()
    out = norm(F_so, present)
    torch.testing.assert_close(out[0].flatten(), F.layer_norm(F_so[0].flatten(), (12,)))
    torch.testing.assert_close(
        out[1, [0, 2]].flatten(), F.layer_norm(F_so[1, [0, 2]].flatten(), (8,))
    )
    assert not out[1, 1].any()


def test_token_attention() -> None:
    spec = toy.spec()
    model = build(spec, attention="token")
    batch = toy.without(batch_of(spec, record=True), [(1, "text"), *((2, m) for m in ALL)])
    out = model(batch)
    A = out.attention["phase_1"]
    assert A.shape == (4, 1, 4, 4) and not A.requires_grad
    torch.testing.assert_close(A[[0, 1, 3]].sum(-1), torch.ones(3, 1, 4))
    assert not A[1, 0, :, 2].any() and not A[2].any()  # C, audio, text, vision
    feature = build(spec)
    assert count(feature) == count(model)
    assert feature(batch).attention == {}
    feature.load_state_dict(model.state_dict())
    assert not torch.allclose(feature(batch).pred, out.pred)


# --- gradients --------------------------------------------------------------------------------
def gradients(model: FDMER, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return {n: g for n, g in zip(names, found, strict=True) if g is not None and g.any()}


@pytest.mark.parametrize("reach", ["encoders", "all"])
def test_gradient_reversal_turns_the_encoders_gradient_only(reach: str) -> None:
    spec = toy.spec()
    model = build(spec, adversarial_reach=reach)
    batch = batch_of(spec)
    there = torch.ones(4, 3, dtype=torch.bool)
    Z = torch.stack(
        [e(batch.x[m], batch.mask[m]) for e, m in zip(model.encoder, model.streams, strict=True)], 1
    )
    Z = Z.detach() if reach == "encoders" else Z
    plain = gradients(model, 0.02 * model.discriminator.loss(model.common(Z), there))
    ami = gradients(model, model(batch).losses["L_ami"])
    assert set(ami) == set(plain)
    taught = {"common", "discriminator"} | ({"encoder"} if reach == "all" else set())
    assert {n.split(".")[0] for n in ami} == taught
    for name, gradient in ami.items():
        sign = 1 if name.startswith("discriminator") else -1
        torch.testing.assert_close(gradient, sign * plain[name])


@pytest.mark.parametrize("reach", ["encoders", "all"])
def test_what_each_loss_teaches(reach: str) -> None:
    spec = toy.spec()
    model, batch = build(spec, adversarial_reach=reach), batch_of(spec)
    out = model(batch)
    parts = {
        name: {n.split(".")[0] for n in gradients(model, loss)} for name, loss in out.losses.items()
    }
    far = {"encoder"} if reach == "all" else set()
    assert parts == {
        "L_ami": {"common", "discriminator"} | far,
        "L_ams": {"private", "discriminator"} | far,
        "L_con": {"encoder", "common"},
        "L_dis": {"encoder", "private"},
    }
    other = build(spec)(batch)  # the values are the same
    assert torch.equal(out.pred, other.pred)
    assert all(torch.equal(out.losses[name], other.losses[name]) for name in LOSSES)


def test_losses_are_weighted() -> None:
    spec = toy.spec()
    batch = batch_of(spec)
    one = build(spec, beta=1.0, gamma=1.0)(batch).losses
    weighed = build(spec, beta=0.3, gamma=0.5)(batch).losses
    for name, factor in {"L_ami": 0.3, "L_ams": 0.3, "L_con": 0.5, "L_dis": 0.5}.items():
        torch.testing.assert_close(weighed[name], factor * one[name])
    off = build(spec, beta=0.0, gamma=0.0)  # Fig. 2
    assert not any(loss.detach().any() for loss in off(batch).losses.values())


# --- ablations --------------------------------------------------------------------------------
D_K = TINY.d_k
# {row: (settings, parts that are gone, parts that are others, losses left)}
ABLATIONS = {
    "w/o L_ami + L_ams": (
        {"adversarial": "none"}, {"discriminator"}, set(), {"L_con", "L_dis"},
    ),
    "w/o L_con": ({"consistency": "none"}, set(), set(), LOSSES - {"L_con"}),
    "w/o L_dis": ({"disparity": False}, set(), set(), LOSSES - {"L_dis"}),
    "cross-entropy loss": ({"adversarial": "cross_entropy"}, set(), set(), LOSSES),
    "w/o common": ({"common": False}, set(), {"fusion"}, LOSSES),
    "w/o private": ({"private": False}, set(), {"fusion"}, LOSSES),
    "non-disentangled": (
        {"disentangled": False}, {"common", "private", "discriminator"}, {"fusion"}, set(),
    ),
    "w/o CMAF": ({"fusion": "concatenation"}, {"fusion"}, {"head"}, LOSSES),
    "w/o phase 1": ({"phase_1": False}, set(), {"fusion"}, LOSSES),
    "w/o phase 2": ({"phase_2": False}, set(), {"fusion"}, LOSSES),
    "addition": ({"fusion": "addition"}, {"fusion"}, set(), LOSSES),
    "multiplication": ({"fusion": "multiplication"}, set(), {"fusion"}, LOSSES),
}  # fmt: skip


def by_part(model: FDMER) -> dict[str, dict[str, torch.Size]]:
    parts: dict[str, dict[str, torch.Size]] = {}
    for name, p in model.named_parameters():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = p.shape
    return parts


@pytest.mark.parametrize("row", ABLATIONS)
def test_ablation_changes_that_and_nothing_else(row: str) -> None:
    settings, gone, others, left = ABLATIONS[row]
    spec = toy.spec()
    batch = toy.without(batch_of(spec, B=5, record=True), [(1, "text")])
    full = build(spec)
    model = build(spec, seed=1, **settings)
    # Parts: those gone, those of other parameters, and all the rest of the same.
    before, after = by_part(full), by_part(model)
    assert set(before) - set(after) == gone and not set(after) - set(before)
    assert {part for part in after if after[part] != before[part]} == others
    same = {n: p for n, p in full.state_dict().items() if n.split(".")[0] not in gone | others} | {
        n: p  # of fusions that lose a phase, what remains
        for n, p in full.state_dict().items()
        if row.startswith("w/o phase") and n in model.state_dict()
    }
    missing = model.load_state_dict(same, strict=False)
    assert missing.unexpected_keys == []
    one, two = full(batch), model(batch)
    # Losses: those left, all with the same value but for another discriminator loss.
    assert set(one.losses) == LOSSES and set(two.losses) == left
    for name in left:
        changed = row == "cross-entropy loss" and name in ("L_ami", "L_ams")
        assert torch.equal(one.losses[name], two.losses[name]) != changed
    # Vectors before the fusion: the same, where they are there.
    for name, vector in two.features.items():
        if name != "Y_fin":
            assert torch.equal(vector, one.features[name])
    # The prediction: changed by what is fused and how, not by a loss.
    by_loss = {"w/o L_ami + L_ams", "w/o L_con", "w/o L_dis", "cross-entropy loss"}
    assert torch.equal(one.pred, two.pred) == (row in by_loss)
    # Training reaches every parameter that the prediction or a loss has.
    total = F.mse_loss(two.pred, batch.y) + sum(two.losses.values())
    assert set(gradients(model, total)) == {n for n, _ in model.named_parameters()}


def fused(row: str) -> tuple[FDMER, FusionOutput, Tensor]:
    """The model of a row, its output of full clips, and C, P_audio, P_text, P_vision (B, 4, d)."""
    spec = toy.spec()
    model, batch = build(spec, **ABLATIONS[row][0]), batch_of(spec, record=True)
    out = model(batch)
    f = out.features
    parts = []
    if model.config.disentangled:
        parts = [f["C_audio"] + f["C_text"] + f["C_vision"], *(f[f"P_{m}"] for m in ALL)]
    return (
        model,
        out,
        torch.stack(parts, 1) if parts else torch.stack([f[f"Z_{m}"] for m in ALL], 1),
    )


def test_ablated_fusions_by_hand() -> None:
    _, out, parts = fused("addition")
    torch.testing.assert_close(out.features["Y_fin"], parts.sum(1))
    _, out, parts = fused("w/o CMAF")
    torch.testing.assert_close(out.features["Y_fin"], parts.flatten(1))
    _, out, parts = fused("multiplication")
    expected = torch.ones(4, D_K)
    for k in range(4):
        expected = expected * F.layer_norm(parts[:, k], (D_K,))
    torch.testing.assert_close(out.features["Y_fin"], expected)
    assert "psi" not in out.weights
    there = torch.ones(4, 4, dtype=torch.bool)
    model, out, parts = fused("w/o phase 2")
    torch.testing.assert_close(out.features["Y_fin"], model.fusion.interact(parts, there)[0].sum(1))
    assert "psi" not in out.weights
    model, out, parts = fused("w/o phase 1")
    mu = [model.fusion.q(torch.tanh(model.fusion.W_ta[k](parts[:, k]))) for k in range(4)]
    psi = torch.softmax(torch.cat(mu, 1), 1)
    torch.testing.assert_close(out.weights["psi"], psi.detach())
    torch.testing.assert_close(out.features["Y_fin"], (psi.unsqueeze(2) * parts).sum(1).detach())


@pytest.mark.parametrize(
    "row, N, names",
    [
        ("w/o common", 3, {"Z", "C", "P"}),
        ("w/o private", 1, {"Z", "C", "P"}),
        ("non-disentangled", 3, {"Z"}),
    ],
)
def test_what_is_left_to_fuse(row: str, N: int, names: set[str]) -> None:
    model, out, parts = fused(row)
    assert model.fusion.W_Q.weight.shape == (N * D_K, N * D_K)
    assert {name.split("_")[0] for name in out.features} == names | {"Y"}
    if N > 1:
        assert out.weights["psi"].shape == (4, N)
    source = {"w/o common": parts[:, 1:], "w/o private": parts[:, :1], "non-disentangled": parts}
    Y_fin, _, _ = model.fusion(source[row], torch.ones(4, N, dtype=torch.bool))
    torch.testing.assert_close(out.features["Y_fin"], Y_fin.detach())


def test_options_beyond_the_table() -> None:
    spec = toy.spec()
    batch = batch_of(spec)
    mean, total = (build(spec, consistency=kind)(batch).losses for kind in ("mean", "sum"))
    torch.testing.assert_close(total["L_con"], 16 * mean["L_con"])  # 4 clips
    centred = build(spec, centre=True)(batch).losses
    assert not torch.isclose(centred["L_con"], mean["L_con"])
    for losses in (total, centred):
        assert all(torch.equal(losses[name], mean[name]) for name in LOSSES - {"L_con"})


# --- contract ---------------------------------------------------------------------------------
def test_conformance() -> None:
    small = ["d_k=16", "d_discriminator=8", *(f"layers_{m}=1" for m in (*ALL, "other"))]
    results = check_fusion("fdmer", [f"fusion.{setting}" for setting in small])
    assert not failed(results)
    assert not any(result.status == "waived" for result in results)


@pytest.mark.parametrize("task", K)
@pytest.mark.parametrize("names", [*SUBSETS, ("a b", "é", "x.y", "z")], ids="+".join)
def test_every_subset_and_task(names: tuple[str, ...], task: str) -> None:
    spec = toy.spec(task, streams=names)
    model = build(spec)
    batch = toy.without(batch_of(spec, record=True), [(1, names[0]), *((2, m) for m in names)])
    out = model(batch)
    assert out.pred.shape == (4, K[task]) and torch.isfinite(out.pred).all()
    assert set(out.losses) == (LOSSES if len(names) > 1 else set())
    (out.pred.square().sum() + sum(out.losses.values())).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all() and p.grad.any(), name
    assert torch.equal(model(Batch(batch.x, batch.mask)).pred, out.pred)  # y and record
    assert model(Batch(batch.x, batch.mask)).losses == {}


@pytest.mark.parametrize("row", ABLATIONS)
def test_absent_streams_and_padding_in_every_ablation(row: str) -> None:
    spec = toy.spec()
    model = build(spec, **ABLATIONS[row][0]).train()
    batch = toy.without(batch_of(spec), [(1, "text"), *((2, m) for m in ALL)])
    dirty = Batch({m: x.clone() for m, x in batch.x.items()}, batch.mask, batch.y)
    for m, x in dirty.x.items():
        x[~batch.mask[m]] = float("nan")
    clean, soiled = model(batch), model(dirty)
    assert torch.equal(clean.pred, soiled.pred)
    assert all(torch.equal(v, soiled.losses[n]) for n, v in clean.losses.items())
    (soiled.pred.square().sum() + sum(soiled.losses.values())).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    # A clip without a stream is predicted as by a batch of its own.
    alone = toy.pick(batch, [1])
    torch.testing.assert_close(model(alone).pred, clean.pred[1:2])
    one = toy.without(batch, [(b, m) for b in range(4) for m in ALL])
    assert torch.isfinite(model(one).pred).all()


def test_an_absent_stream_is_no_part_of_a_loss() -> None:
    spec = toy.spec()
    model = build(spec)
    batch = batch_of(spec, B=6)
    lacking = toy.without(batch, [(b, "vision") for b in range(6)])
    pair = build(toy.spec(streams=("text", "audio")))
    two = {n: p for n, p in model.state_dict().items() if n in pair.state_dict()}
    two = {n: p for n, p in two.items() if p.shape == pair.state_dict()[n].shape}
    pair.load_state_dict(two, strict=False)
    there = Batch({m: batch.x[m] for m in ("text", "audio")}, batch.mask, batch.y)
    one, other = model(lacking).losses, pair(there).losses
    for name in ("L_con", "L_dis"):
        torch.testing.assert_close(one[name], other[name])


@pytest.mark.parametrize("names", [("text",), ALL], ids="+".join)
def test_one_clip_of_one_step_trains(names: tuple[str, ...]) -> None:
    spec = toy.spec(streams=names, length=1)
    model = build(spec).train()
    out = model(batch_of(spec, B=1))
    assert out.pred.shape == (1, 1)
    if len(names) > 1:  # of one clip there is no similarity and no dependence
        assert float(out.losses["L_con"]) == float(out.losses["L_dis"]) == 0.0
    (out.pred.sum() + sum(out.losses.values())).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_what_is_recorded() -> None:
    spec = toy.spec()
    model = build(spec)
    batch = toy.without(batch_of(spec, record=True), [(1, "text")])
    out = model(batch)
    expected = {f"{kind}_{m}": (4, D_K) for kind in "ZCP" for m in ALL} | {"Y_fin": (4, D_K)}
    assert {n: tuple(f.shape) for n, f in out.features.items()} == expected
    expected = {f"D.{kind}_{m}": (4, 3) for kind in "CP" for m in ALL} | {"psi": (4, 4)}
    assert {n: tuple(w.shape) for n, w in out.weights.items()} == expected
    for values in (*out.features.values(), *out.weights.values()):
        assert not values.requires_grad
    for name, values in out.weights.items():
        rows = [0, 2, 3] if name.endswith("_text") else [0, 1, 2, 3]
        torch.testing.assert_close(values[rows].sum(1), torch.ones(len(rows)))
    for kind in "ZCP":
        assert not out.features[f"{kind}_text"][1].any()
        assert out.features[f"{kind}_audio"][1].any()
    assert not out.weights["D.C_text"][1].any() and out.weights["psi"][1, 2] == 0
    C = out.features["C_vision"]
    torch.testing.assert_close(
        out.weights["D.C_vision"], torch.softmax(model.discriminator(C), -1).detach()
    )


def test_order_of_streams_does_not_matter() -> None:
    one, two = toy.spec(), toy.spec(streams=reversed(list(toy.STREAMS)))
    batch = batch_of(one)
    assert torch.equal(build(one)(batch).pred, build(two)(batch).pred)


@pytest.mark.parametrize("task", ONE_TASK)
def test_overfits_64_clips(task: str) -> None:
    spec = toy.spec(task)
    batch = batch_of(spec, B=64)
    model = build(spec, d_k=16).train()
    loss_of = {
        "regression": F.mse_loss,
        "classification": F.cross_entropy,
        "multilabel": F.binary_cross_entropy_with_logits,
    }[task]
    optimizer, found = torch.optim.Adam(model.parameters(), lr=1e-2), []
    while len(found) < 100 and (not found or found[-1] >= 0.2 * found[0]):
        out = model(batch)
        loss = loss_of(out.pred, batch.y)
        optimizer.zero_grad()
        (loss + sum(out.losses.values())).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.2 * found[0]


@pytest.mark.slow
def test_beats_every_single_stream_on_interaction(tmp_path: Path) -> None:
    features = interaction.write(tmp_path / "x.h5")
    settings = ["fusion.d_k=32", *(f"fusion.layers_{m}=1" for m in ALL), "train.epochs=30"]
    mertool.train(
        features, tmp_path / "run", plugin="fdmer", seeds=1, device="cpu", settings=settings
    )
    report = mertool.evaluate(tmp_path / "run")
    alone = [report.singles[m]["mean"]["mae"] for m in ALL]
    assert report.mean["mae"] < 0.5 * min(*alone, report.baseline["mae"])
