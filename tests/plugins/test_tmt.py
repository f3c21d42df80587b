"""TMT: sizes, equations against a reference in NumPy, ablations, the contract of a fusion."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import K, batch_of
from mertool_plugins.tmt.config import CHOICES
from mertool_plugins.tmt.layers import Tokens
from mertool_plugins.tmt.losses import cosines, separation, similarity, summed
from mertool_plugins.tmt.model import TMT, TMTConfig
from synthetic import ONE_TASK
from torch import Tensor, nn

import mertool
from mertool import nn as blocks
from mertool.registry import registry
from mertool.testing import check_fusion, failed, interaction
from mertool.testing.complexity import count_modules, count_operations, full_batch
from mertool.types import Batch, DataSpec

TINY = TMTConfig(d_model=8, heads=2, d_ff=12, d_head=6, dropout=0.0)
STREAMS = {"text": (6, 7), "audio": (3, 9), "vision": (5, 8)}
ALL = ("audio", "vision", "text")  # the order of H_a, H_v, H_t
SUBSETS = [names for n in (1, 2, 3) for names in combinations(STREAMS, n)]
LOSSES = {"L_sim", "L_orth", "L_dis"}
MOSI = {"text": (768, 50), "audio": (5, 50), "vision": (20, 50)}
SHORT = {name: (D, 20) for name, (D, _) in MOSI.items()}


def spec_of(*names: str, task: str = "regression") -> DataSpec:
    return DataSpec({m: STREAMS[m] for m in names or STREAMS}, task, K[task], range=(-3.0, 3.0))


def build(spec: DataSpec, config: TMTConfig = TINY, seed: int = 0) -> TMT:
    torch.manual_seed(seed)
    return TMT(config, spec).eval()


def without(batch: Batch, *absent: tuple[int, str]) -> Batch:
    """The batch with streams taken from clips; what stood there becomes NaN."""
    x = {m: one.clone() for m, one in batch.x.items()}
    mask = {m: one.clone() for m, one in batch.mask.items()}
    for b, m in absent:
        mask[m][b] = False
        x[m][b] = math.nan
    return Batch(x, mask, batch.y, batch.ids, batch.record)


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- settings ---------------------------------------------------------------------------------
def test_registers_without_torch() -> None:
    entry = registry().get("fusion", "tmt")
    assert entry.facts["task_loss"] == "mse" and entry.facts["fixed_length"] is False
    assert registry().load("fusion", "tmt") is TMT
    code = "import sys, mertool_plugins.tmt; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_defaults_are_those_of_section_4_2_for_mosi() -> None:
    c = TMTConfig()
    assert (c.d_model, c.heads, c.d_ff, c.layers, c.cross_layers) == (256, 8, 256, 2, 2)
    assert (c.common_tokens, c.private_tokens, c.alpha, c.beta) == (6, 2, 0.06, 0.01)
    assert all(getattr(c, name) == allowed[0] for name, allowed in CHOICES.items())


@pytest.mark.parametrize(
    "settings",
    [
        {"heads": 7},
        {"d_model": 0},
        {"layers": 0},
        {"cross_layers": 0},
        {"common_tokens": 0},
        {"private_tokens": 0},
        {"alpha": -1.0},
        {"beta": math.nan},
        {"bandwidth": 0.0},
        {"d_head": -1},
        {"steps": -1},
        {"dropout": 1.0},
        *({name: "other"} for name in CHOICES),
    ],
    ids=str,
)
def test_config_refuses_bad_values(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        TMTConfig(**settings)


def test_config_survives_json() -> None:
    config = TMTConfig(fusion="tfn", dis_loss=False)
    assert TMTConfig(**json.loads(json.dumps(asdict(config)))) == config


# --- sizes: IMPLEMENTING's figures --------------------------------------------------------------
@pytest.mark.parametrize("streams, expected", [(MOSI, 2_625_281), (SHORT, 2_602_241)])
def test_parameters_at_the_paper_s_sizes(streams: dict, expected: int) -> None:
    assert count(TMT(TMTConfig(d_head=0), DataSpec(streams))) == expected
    # The default head: Linear(256, 128) and Linear(128, 1) instead of Linear(256, 1).
    default = TMT(TMTConfig(), DataSpec(streams))
    assert count(default) == expected - 257 + (256 * 128 + 128) + (128 + 1)


def test_parameters_of_every_part() -> None:
    model = TMT(TMTConfig(d_head=0), DataSpec(MOSI))
    encoder = model.encoder
    assert count(model.mlp) == 203_776
    assert [count(one) for one in encoder.layers] == [395_776] * 2
    for cross in (model.fusion.c_to_s, model.fusion.s_to_c):
        assert [count(one) for one in cross.layers] == [396_288] * 2
    assert sum(table.numel() for table in encoder.positions) == 41_472
    assert encoder.common.numel() + encoder.private.numel() == 3_072
    assert count(model.head) == 257


def test_multiply_accumulates_of_the_paper_s_batch() -> None:
    """16 clips of 20 steps: 1.208 G, in linear layers alone 1.12."""
    torch.manual_seed(0)
    spec = DataSpec(SHORT, alignment="word")
    model = TMT(TMTConfig(d_head=0), spec).eval()
    batch = full_batch(spec, 16, torch.device("cpu"))
    batch.y = None
    d, L = 256, 3 * 20 + 12
    token = 6 * d * d  # four projections of the attention, two of the MLP
    linear = 20 * (768 + 5 + 20) * d + 2 * L * token + 4 * 6 * token + d
    products = 2 * 2 * L * L * d + 4 * 2 * 6 * 6 * d
    norms = 4 * (2 * 2 * L * d + 4 * 3 * 6 * d)
    assert count_modules(model, batch) == 16 * (linear + norms)
    assert count_operations(model, batch)[0] == 16 * (linear + products)
    assert round(16 * (linear + products) / 1e9, 3) == 1.208
    assert round(16 * linear / 1e9, 2) == 1.12


def test_sequence_and_maps_at_50_steps() -> None:
    spec = DataSpec(MOSI, alignment="word")
    small = TMTConfig(d_model=16, heads=8, d_ff=8, d_head=0)
    model, seen = build(spec, small), []
    model.encoder.layers[0].register_forward_hook(lambda _, args, __: seen.append(args[0].shape))
    batch = full_batch(spec, 2, torch.device("cpu"))
    batch.record = True
    maps = model(batch).attention
    assert seen == [(2, 162, 16)]
    assert set(maps) == {f"{way}.{i}" for way in ("c-to-s", "s-to-c") for i in (1, 2)}
    for one in maps.values():
        assert one.shape == (2, 8, 6, 6)
        torch.testing.assert_close(one.sum(-1), torch.ones(2, 8, 6))


# --- losses ------------------------------------------------------------------------------------
def numpy_mmd(X: np.ndarray, Y: np.ndarray, widths: list[float]) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return sum(math.exp(-((a - b) ** 2).sum() / w) for w in widths)

    def mean(P: np.ndarray, Q: np.ndarray) -> float:
        return float(np.mean([[k(a, b) for b in Q] for a in P]))

    return mean(X, X) + mean(Y, Y) - 2 * mean(X, Y)


def adaptive(X: np.ndarray, Y: np.ndarray) -> list[float]:
    both = np.concatenate([X, Y])
    n = len(both)
    distances = [((a - b) ** 2).sum() for a in both for b in both]
    return [sum(distances) / (n * n - n) * 2.0 ** (i - 2) for i in range(5)]


def test_similarity_of_a_batch_against_loops() -> None:
    U, H = some(6, 4), some(6, 4, seed=1) + 0.5
    keep = torch.tensor([1, 1, 0, 1, 1, 0]).bool()
    X, Y = U[keep].numpy(), H[keep].numpy()
    U[~keep] = math.nan
    got, there = similarity(U, H, keep, "batch", 1.0)
    assert there and float(got) == pytest.approx(numpy_mmd(X, Y, adaptive(X, Y)), rel=1e-9)
    everything = torch.ones(6).bool()
    same, _ = similarity(H, H, everything, "batch", 1.0)
    assert float(same) == pytest.approx(0, abs=1e-12)
    one, there = similarity(H, U, torch.arange(6) < 1, "batch", 1.0)
    assert float(one) == 0 and not there


def test_similarity_of_clips_against_loops() -> None:
    U, H = some(5, 4), some(5, 4, seed=1)
    keep = torch.tensor([1, 0, 1, 1, 0]).bool()
    widths = [0.75, 1.5, 3.0, 6.0, 12.0]
    expected = np.mean([numpy_mmd(U[i : i + 1].numpy(), H[i : i + 1].numpy(), widths)
                        for i in range(5) if keep[i]])  # fmt: skip
    U[~keep] = math.nan
    U.requires_grad_()
    got, there = similarity(U, H, keep, "clip", 3.0)
    assert there and got.item() == pytest.approx(expected, rel=1e-9)
    got.backward()
    assert torch.isfinite(U.grad).all() and U.grad[keep].all() and not U.grad[~keep].any()
    nothing, there = similarity(U.detach(), H, torch.zeros(5).bool(), "clip", 3.0)
    assert float(nothing) == 0 and not there
    same, _ = similarity(H, H, torch.ones(5).bool(), "clip", 3.0)
    assert float(same) == 0


def test_mmd_s_computed_values() -> None:
    x, y = torch.zeros(2, 2), torch.ones(2, 2)  # |x - y|^2 = 2, sigma = 1: 2 - 2 / e
    assert float(blocks.mmd(x, y, kernels=1, bandwidth=2.0)) == pytest.approx(1.26424, abs=5e-6)
    # Two single points with a bandwidth of their own, wherever they are: a constant.
    for seed in range(3):
        X, Y = some(1, 5, seed=seed).numpy(), 3 * some(1, 5, seed=seed + 9).numpy()
        assert numpy_mmd(X, Y, adaptive(X, Y)) == pytest.approx(6.1863, abs=5e-5)
    # The fixed bandwidth of "clip" tells near from far.
    every = torch.ones(2).bool()
    near, far = (float(similarity(x, s * y, every, "clip", 2.0)[0]) for s in (0.5, 2.0))
    assert 0 < near < far < 10
    # A kernel so wide that it is linear in the squared distance: ||mean difference||^2.
    A, B = some(7, 3), some(7, 3, seed=1) + 1
    wide = 1e6
    assert float(blocks.mmd(A, B, kernels=1, bandwidth=wide)) * wide / 2 == pytest.approx(
        float((A.mean(0) - B.mean(0)).square().sum()), rel=1e-4
    )


def numpy_separation(A: np.ndarray, B: np.ndarray, real_a: np.ndarray, real_b: np.ndarray) -> float:
    clips = []
    for i in range(len(A)):
        squares = []
        for a, yes_a in zip(A[i], real_a[i], strict=True):
            for b, yes_b in zip(B[i], real_b[i], strict=True):
                if yes_a and yes_b:
                    squares.append((a @ b / np.linalg.norm(a) / np.linalg.norm(b)) ** 2)
        if squares:
            clips.append(np.mean(squares))
    return float(np.mean(clips))


def test_separation_of_tokens_against_loops() -> None:
    A, B = some(4, 6, 5), some(4, 2, 5, seed=1)
    mask_a, mask_b = (
        torch.ones(4, 6).bool(),
        torch.tensor([1, 0, 1, 1]).bool()[:, None].repeat(1, 2),
    )
    mask_a[2, 3:] = False
    got, there = separation(A, mask_a, B, mask_b, "tokens")
    expected = numpy_separation(A.numpy(), B.numpy(), mask_a.numpy(), mask_b.numpy())
    assert there and float(got) == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(separation(3 * A, mask_a, 0.1 * B, mask_b, "tokens")[0], got)
    one, there = separation(A[:1], mask_a[:1], B[:1], mask_b[:1], "tokens")
    assert there and float(one) > 0  # a clip by itself is enough
    none, there = separation(A, mask_a, B, torch.zeros_like(mask_b), "tokens")
    assert float(none) == 0 and not there


def test_separation_of_a_batch_against_numpy() -> None:
    A, B = some(5, 6, 4), some(5, 2, 4, seed=1)
    there = torch.tensor([1, 1, 0, 1, 1]).bool()
    mask_a, mask_b = torch.ones(5, 6).bool(), there[:, None].expand(-1, 2)
    a, b = A.mean(1).numpy()[there], B.mean(1).numpy()[there]
    a, b = a - a.mean(0), b - b.mean(0)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    got, enough = separation(A, mask_a, B, mask_b, "batch")
    assert enough and float(got) == pytest.approx(float(((a.T @ b) ** 2).mean()), rel=1e-6)
    got, enough = separation(A[:1], mask_a[:1], B[:1], mask_b[:1], "batch")
    assert float(got) == 0 and not enough


def test_parallel_tokens_that_eq_4_as_printed_does_not_see() -> None:
    e1, zero = torch.eye(4)[:1], torch.zeros(1, 4)
    H_v, H_a = torch.cat([e1, zero])[None], torch.cat([zero, e1])[None]
    assert (H_v.transpose(1, 2) @ H_a).square().sum() == 0  # (d, 2) (2, d), as printed
    assert cosines(H_v, H_a).square().sum() == 1
    every = torch.ones(1, 2).bool()
    assert separation(H_v, every, H_a, every, "tokens")[0] == 0.25  # the mean of four products
    # Zero tokens have a finite gradient.
    H_v.requires_grad_()
    separation(H_v, every, H_a + 0.5, every, "tokens")[0].backward()
    assert torch.isfinite(H_v.grad).all()


def test_terms_that_no_clip_has_do_not_shrink_the_sum() -> None:
    yes, no = torch.tensor(True), torch.tensor(False)
    two, four, zero = torch.tensor(2.0), torch.tensor(4.0), torch.tensor(0.0)
    assert summed([(two, yes), (four, yes), (two, yes)]) == 8
    assert summed([(two, yes), (zero, no), (four, yes)]) == 9
    assert summed([(zero, no), (zero, no)]) == 0


@pytest.mark.parametrize("forms", [("batch", "tokens"), ("clip", "batch")], ids="+".join)
def test_losses_of_the_model_against_loops(forms: tuple[str, str]) -> None:
    """Eq. 2, 4, 5 and the weights of eq. 9, where clips lack streams."""
    config = replace(
        TINY, alpha=0.3, beta=0.7, similarity=forms[0], orthogonality=forms[1], bandwidth=0.5
    )
    spec = spec_of()
    model = build(spec, config).double()
    batch = without(batch_of(spec, B=6), (1, "text"), (3, "audio"), (3, "vision"))
    batch.x = {m: x.double() for m, x in batch.x.items()}
    U, masks = model.project(batch)
    H = model.encoder(U, masks)
    # float32 within: the losses never run in less.
    got = {name: v.item() for name, v in model.losses(U, masks, H).items()}
    have = [mask.any(1).numpy() for mask in masks]
    tokens = H.s.detach().numpy().reshape(6, 3, 2, 8)
    common = H.c.detach().numpy()
    sim = 0.0
    for k in range(3):
        real = masks[k].numpy()
        pairs = [(U[k][i][real[i]].mean(0).detach().numpy(), tokens[i, k].mean(0))
                 for i in range(6) if have[k][i]]  # fmt: skip
        X, Y = (np.array(side) for side in zip(*pairs, strict=True))
        widths = [0.5 * 8 * 2.0 ** (i - 2) for i in range(5)]
        if forms[0] == "batch":
            sim += numpy_mmd(X, Y, adaptive(X, Y))
        else:
            sim += np.mean([numpy_mmd(x[None], y[None], widths) for x, y in pairs])

    def apart(a: np.ndarray, b: np.ndarray, both: np.ndarray) -> float:
        if forms[1] == "batch":
            a, b = a[both].mean(1), b[both].mean(1)
            a, b = a - a.mean(0), b - b.mean(0)
            a = a / np.linalg.norm(a, axis=1, keepdims=True)
            b = b / np.linalg.norm(b, axis=1, keepdims=True)
            return float(((a.T @ b) ** 2).mean())
        every = [np.ones(x.shape[:2]) * both[:, None] for x in (a, b)]
        return numpy_separation(a, b, *every)

    orth = sum(apart(tokens[:, i], tokens[:, j], have[i] & have[j])
               for i, j in combinations(range(3), 2))  # fmt: skip
    dis = sum(apart(common, tokens[:, k], have[k]) for k in range(3))
    assert got == pytest.approx({"L_sim": 0.3 * sim, "L_orth": 0.7 * orth, "L_dis": 0.7 * dis},
                                rel=1e-4)  # fmt: skip


def test_losses_do_not_depend_on_labels_and_need_some() -> None:
    spec = spec_of()
    model, batch = build(spec), batch_of(spec)
    first = model(batch).losses
    batch.y = -batch.y
    assert set(first) == LOSSES
    assert {k: float(v) for k, v in model(batch).losses.items()} == {
        k: float(v) for k, v in first.items()
    }
    batch.y = None
    assert model(batch).losses == {}


def test_losses_reach_what_they_should() -> None:
    spec = spec_of()
    batch = batch_of(spec)
    for name in LOSSES:
        model = build(spec)
        model(batch).losses[name].backward()
        touched = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
        assert touched == {"mlp", "encoder"}  # never the fusion or the prediction
        assert model.encoder.private.grad.any() and model.mlp[0].weight.grad.any()


# --- the whole model against a reference, one clip at a time ------------------------------------
def array(z: Tensor) -> np.ndarray:
    return z.detach().numpy().astype("f8")


def linear(layer: nn.Linear, z: np.ndarray) -> np.ndarray:
    return z @ array(layer.weight).T + array(layer.bias)


def norm(layer: nn.LayerNorm, z: np.ndarray) -> np.ndarray:
    centred = z - z.mean(-1, keepdims=True)
    return centred / np.sqrt(z.var(-1, keepdims=True) + 1e-5) * array(layer.weight) + array(
        layer.bias
    )


def gelu(z: np.ndarray) -> np.ndarray:
    return z * 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))


def encoder_layer(one: Any, x: np.ndarray, source: np.ndarray | None) -> np.ndarray:
    q = norm(one.norm_x, x)
    kv = q if source is None else norm(one.norm_source, source)
    part = one.attention
    Q, K_, V = linear(part.query, q), linear(part.key, kv), linear(part.value, kv)
    width = Q.shape[1] // part.heads
    read = np.zeros_like(Q)
    for h in range(part.heads):
        cut = slice(h * width, (h + 1) * width)
        for i in range(len(Q)):
            weights = np.exp([Q[i, cut] @ key[cut] / math.sqrt(width) for key in K_])
            for w, value in zip(weights / weights.sum(), V, strict=True):
                read[i, cut] += w * value[cut]
    x = x + linear(part.out, read)
    return x + linear(one.contract, gelu(linear(one.expand, norm(one.norm_ff, x))))


def reference(model: TMT, batch: Batch, b: int) -> np.ndarray:
    """Eq. 1, 6, 7 and the prediction for a clip, of its real steps and streams alone."""
    common, each = array(model.encoder.common), 2
    private = array(model.encoder.private) + array(model.encoder.positions[0])[len(common) :]
    z = [common + array(model.encoder.positions[0])[: len(common)]]
    rows, s = [], []
    for k, m in enumerate(model.streams):
        real = batch.mask[m][b].numpy()
        if real.any():
            s.append(private[k * each : (k + 1) * each])
            u = linear(model.mlp[k], array(batch.x[m][b])[real])
            rows.append(u + array(model.encoder.positions[k + 1])[: len(u)])
    z = np.concatenate([*z, *s, *rows])
    n = len(common) + each * len(s)
    for one in model.encoder.layers:
        z = encoder_layer(one, z, None)
    H_c, H_s = z[: len(common)], z[len(common) : n]
    H_f1, H_f2 = H_s, H_c
    for one in model.fusion.c_to_s.layers:
        H_f1 = encoder_layer(one, H_f1, H_c)
    for one in model.fusion.s_to_c.layers:
        H_f2 = encoder_layer(one, H_f2, H_s)
    Y_o = H_f1.mean(0) + H_f2.mean(0)
    if len(H_f1) == len(H_f2):
        np.testing.assert_allclose(Y_o, (H_f1 + H_f2).mean(0))  # the sum as printed
    return linear(model.head[2], gelu(linear(model.head[0], Y_o)))


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_prediction_against_the_reference(task: str) -> None:
    spec = spec_of(task=task)
    model = build(spec)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape) * 0.4)
    model.double()
    batch = without(batch_of(spec, B=3), (1, "vision"), (2, "text"), (2, "audio"))
    batch.x = {m: x.double() for m, x in batch.x.items()}
    expected = np.stack([reference(model, batch, b) for b in range(3)])
    np.testing.assert_allclose(array(model(batch).pred), expected, rtol=1e-8, atol=1e-8)


def test_steps_past_the_longest_of_training_get_its_last_position() -> None:
    spec = spec_of("text")
    model, batch = build(spec), batch_of(spec, B=1)
    longer = Batch({"text": torch.randn(1, 9, 6)}, {"text": torch.ones(1, 9).bool()})
    seen: list[Tensor] = []
    model.encoder.layers[0].register_forward_hook(lambda _, args, __: seen.append(args[0]))
    assert torch.isfinite(model(longer).pred).all()
    assert torch.isfinite(model(batch).pred).all()
    U = model.mlp[0](longer.x["text"])
    table = model.encoder.positions[1]
    torch.testing.assert_close(seen[0][0, 8:15], U[0, :7] + table)
    torch.testing.assert_close(seen[0][0, 15:], U[0, 7:] + table[-1])


# --- ablations -----------------------------------------------------------------------------------
NO_LOSSES = {"sim_loss": False, "orth_loss": False, "dis_loss": False}
CROSS = {"fusion.c_to_s", "fusion.s_to_c"}
TOKENS = {"H_c", "H_audio", "H_vision", "H_text"}
MODEL = TOKENS | {"Y_o", "pred"}
OTHERS = LOSSES | TOKENS  # what another fusion of the same tokens leaves as it is
PERCEPTRONS = {"encoder.common", "encoder.private"}
SEPARATION = PERCEPTRONS | {"encoder.positions", "encoder.layers"}
# row: settings, parameters that go, come, change their shape, and the outputs that stay the same.
ROWS: dict[str, tuple[dict[str, Any], set[str], set[str], set[str], set[str]]] = {
    "5 w/o common": ({"fused_tokens": "private"}, set(), set(), set(), OTHERS),
    "5 w/o private": ({"fused_tokens": "common"}, set(), set(), set(), OTHERS),
    "6 w/o disentanglement": ({"encoder": "misa"}, SEPARATION, PERCEPTRONS, set(), set()),
    "6 nor losses": ({"encoder": "misa", **NO_LOSSES}, SEPARATION, PERCEPTRONS, set(), set()),
    "6 w/o mutual": ({"fusion": "concat"}, CROSS, set(), set(), OTHERS),
    "7 w/o L_dis": ({"dis_loss": False}, set(), set(), set(), MODEL | {"L_sim", "L_orth"}),
    "7 w/o L_orth": ({"orth_loss": False}, set(), set(), set(), MODEL | {"L_sim", "L_dis"}),
    "7 w/o L_sim": ({"sim_loss": False}, set(), set(), set(), MODEL | {"L_orth", "L_dis"}),
    "10 LSTM": ({"fusion": "lstm"}, CROSS, {"fusion.rnn"}, set(), OTHERS),
    "10 GRU": ({"fusion": "gru"}, CROSS, {"fusion.rnn"}, set(), OTHERS),
    "10 TFN": ({"fusion": "tfn"}, CROSS, {"fusion.project"}, set(), OTHERS),
    "11 concatenation": ({"integration": "concat"}, set(), set(), {"head.0.weight"}, OTHERS),
    "11 self-attention": ({"integration": "attention"}, set(), {"fusion.own"}, set(), OTHERS),
    "13 one layer": ({"layers": 1}, {"encoder.layers"}, set(), set(), set()),
    "13 four layers": ({"layers": 4}, set(), {"encoder.layers"}, set(), set()),
    "13 eight layers": ({"layers": 8}, set(), {"encoder.layers"}, set(), set()),
    "14 one layer": ({"cross_layers": 1}, CROSS, set(), set(), OTHERS),
    "14 four layers": ({"cross_layers": 4}, set(), CROSS, set(), OTHERS),
    "14 eight layers": ({"cross_layers": 8}, set(), CROSS, set(), OTHERS),
    "Fig. 6 alpha": ({"alpha": 0.1}, set(), set(), set(), MODEL | {"L_orth", "L_dis"}),
    "Fig. 6 beta": ({"beta": 0.1}, set(), set(), set(), MODEL | {"L_sim"}),
    "Fig. 7 no losses": ({"alpha": 0.0, "beta": 0.0}, set(), set(), set(), MODEL),
    "eq. 2 per clip": ({"similarity": "clip"}, set(), set(), set(), MODEL | {"L_orth", "L_dis"}),
    "eq. 4, 5 per batch": ({"orthogonality": "batch"}, set(), set(), set(), MODEL | {"L_sim"}),
    "head of one layer": (
        {"d_head": 0},
        {"head.0", "head.2"},
        {"head.weight", "head.bias"},
        set(),
        OTHERS | {"Y_o"},
    ),
}


def begins(name: str, prefixes: set[str]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in prefixes)


@pytest.mark.parametrize("row", ROWS)
def test_ablation_changes_what_it_says_and_nothing_else(row: str) -> None:
    settings, gone, new, resized, same = ROWS[row]
    spec = spec_of()
    full, ablated = build(spec), build(spec, replace(TINY, **settings), seed=1)
    before, after = shapes(full), shapes(ablated)
    assert {p for p in gone if any(begins(n, {p}) for n in set(before) - set(after))} == gone
    assert {p for p in new if any(begins(n, {p}) for n in set(after) - set(before))} == new
    assert all(begins(name, gone) for name in set(before) - set(after))
    assert all(begins(name, new) for name in set(after) - set(before))
    assert {name for name in set(before) & set(after) if before[name] != after[name]} == resized
    fitting = {k: v for k, v in full.state_dict().items() if after.get(k) == before[k]}
    ablated.load_state_dict(fitting, strict=False)
    batch = without(batch_of(spec, record=True), (2, "audio"))
    one, two = (
        {"pred": out.pred, **out.features, **out.losses} for out in (full(batch), ablated(batch))
    )
    lost = {f"L_{term.removesuffix('_loss')}" for term, on in settings.items() if on is False}
    assert set(one) - set(two) == lost and not set(two) - set(one)
    unchanged = {name for name in two if torch.equal(one[name], two[name])}
    assert unchanged == same | {"U_audio", "U_text", "U_vision"}


def test_weights_scale_their_losses_alone() -> None:
    spec = spec_of()
    batch = batch_of(spec)
    one = build(spec)(batch).losses
    two = build(spec, replace(TINY, alpha=0.12, beta=0.03))(batch).losses
    torch.testing.assert_close(two["L_sim"], 2 * one["L_sim"])
    for name in ("L_orth", "L_dis"):
        torch.testing.assert_close(two[name], 3 * one[name])
    none = build(spec, replace(TINY, alpha=0.0, beta=0.0))(batch).losses
    assert all(float(v) == 0 for v in none.values())


@pytest.mark.parametrize("kind, other", [("common", "private"), ("private", "common")])
def test_removed_tokens_do_not_reach_the_fusion(kind: str, other: str) -> None:
    spec = spec_of()
    model = build(spec, replace(TINY, fused_tokens=kind))
    batch = batch_of(spec, record=True)
    U, masks = model.project(batch)
    H = model.encoder(U, masks)
    noise = {"common": H._replace(s=torch.randn_like(H.s)),
             "private": H._replace(c=torch.randn_like(H.c))}[kind]  # fmt: skip
    Y_o, maps = model.fusion(model.fused(noise), True)
    assert torch.equal(Y_o, model.fusion(model.fused(H), True)[0])
    # The other attends to itself, in both encoders.
    rows = H.c if kind == "common" else H.s
    assert {tuple(one.shape[2:]) for one in maps.values()} == {(rows.shape[1],) * 2}
    mask = torch.ones(rows.shape[:2]).bool()
    expected = sum(
        cross(rows, mask, rows, mask, False)[0].mean(1)
        for cross in (model.fusion.c_to_s, model.fusion.s_to_c)
    )
    torch.testing.assert_close(Y_o, expected)


def tokens_of(B: int = 3) -> Tokens:
    torch.manual_seed(3)
    return Tokens(torch.randn(B, 6, 8), torch.ones(B, 6).bool(),
                  torch.randn(B, 6, 8), torch.ones(B, 6).bool())  # fmt: skip


def test_fusions_and_integrations_by_hand() -> None:
    H = tokens_of()
    H.mask_s[1, 2:4] = False

    def fused(**settings: Any) -> Tensor:
        model = build(spec_of(), replace(TINY, **settings))
        fused.model = model.fusion
        return model.fusion(H, False)[0]

    rows = [torch.cat([H.c[b], H.s[b][H.mask_s[b]]]) for b in range(3)]
    torch.testing.assert_close(
        fused(fusion="concat"), torch.stack([r.mean(0) for r in rows])
    )  # twelve tokens averaged
    for kind in ("lstm", "gru"):
        got = fused(fusion=kind)
        cell = fused.model.rnn.layers[0][0]
        ends = torch.stack([cell(r[None])[0][0, -1] for r in rows])
        torch.testing.assert_close(got, ends)
    got = fused(fusion="tfn")
    for b in range(3):
        c, s = rows[b][:6].mean(0), rows[b][6:].mean(0)
        one = torch.ones(1)
        product = torch.outer(torch.cat([c, one]), torch.cat([s, one])).flatten()
        torch.testing.assert_close(got[b], fused.model.project(product))

    total, pair = fused(), fused(integration="concat")
    assert pair.shape == (3, 16)
    torch.testing.assert_close(pair[:, :8] + pair[:, 8:], total)
    got = fused(integration="attention")
    model = fused.model
    H_f1, _ = model.c_to_s(H.s, H.mask_s, H.c, H.mask_c, False)
    H_f2, _ = model.s_to_c(H.c, H.mask_c, H.s, H.mask_s, False)
    for b in range(3):
        joint = torch.cat([H_f1[b][H.mask_s[b]], H_f2[b]])[None]
        out, _ = model.own(joint, torch.ones(joint.shape[:2]).bool())
        torch.testing.assert_close(got[b], out[0].mean(0))


def test_misa_s_perceptrons_by_hand() -> None:
    spec = spec_of()
    model = build(spec, replace(TINY, encoder="misa"))
    batch = without(batch_of(spec), (2, "vision"))
    U, masks = model.project(batch)
    H = model.encoder(U, masks)
    u = U[0][1][masks[0][1]].mean(0)  # audio of clip 1
    torch.testing.assert_close(H.c[1, 0], torch.sigmoid(model.encoder.common(u)))
    torch.testing.assert_close(H.s[1, 0], torch.sigmoid(model.encoder.private[0](u)))
    assert (
        H.mask_c.tolist()
        == H.mask_s.tolist()
        == [[True] * 3] * 2 + [[True, False, True]] + [[True] * 3]
    )
    # With the losses left on, MISA's vectors are what they keep apart.
    assert set(model(batch).losses) == LOSSES


@pytest.mark.parametrize("d", [128, 512])
def test_dimension(d: int) -> None:
    """Table 12: every weight by hand, the hidden widths as they were."""
    model = TMT(TMTConfig(d_model=d, d_head=0), DataSpec(MOSI))
    layer = 4 * (d * d + d) + (d * 256 + 256) + (256 * d + d) + 2 * 2 * d
    expected = (768 + 5 + 20 + 3) * d + (162 + 12) * d + 6 * layer + 4 * 2 * d + d + 1
    assert count(model) == expected


@pytest.mark.parametrize("gone", STREAMS)
def test_without_a_modality(gone: str) -> None:
    """Table 8: its projection, positions and private tokens go, nothing else."""
    D, T = STREAMS[gone]
    full, less = build(spec_of()), build(spec_of(*(m for m in STREAMS if m != gone)))
    d = TINY.d_model
    assert count(full) - count(less) == (D + 1) * d + T * d + 2 * d + 2 * d
    assert shapes(less)["encoder.common"] == shapes(full)["encoder.common"] == (6, d)


def test_resampling_if_asked_for() -> None:
    spec = spec_of()
    model, batch = build(spec, replace(TINY, steps=4)), without(batch_of(spec), (1, "text"))
    assert [len(table) for table in model.encoder.positions] == [12, 4, 4, 4]
    U, masks = model.project(batch)
    assert {u.shape for u in U} == {(4, 4, 8)} and masks[2].any(1).tolist() == [1, 0, 1, 1]
    expected = model.mlp[0](blocks.resample(batch.x["audio"], batch.mask["audio"], 4))
    torch.testing.assert_close(U[0], expected)
    assert torch.isfinite(model(batch).pred).all()


# --- contract ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "settings",
    [
        ("d_model=16", "heads=4", "d_ff=32", "d_head=16"),
        pytest.param(
            ("d_model=16", "heads=4", "d_head=0", "similarity=clip", "orthogonality=batch",
             "steps=5", "integration=attention"), marks=pytest.mark.slow,
        ),
        pytest.param(
            ("d_model=8", "heads=2", "encoder=misa", "fusion=tfn"), marks=pytest.mark.slow
        ),
    ],
    ids=["default", "options", "misa"],
)  # fmt: skip
def test_conformance(settings: tuple[str, ...]) -> None:
    results = check_fusion("tmt", [f"fusion.{setting}" for setting in settings])
    assert not failed(results)
    assert not any(result.status == "waived" for result in results)
    assert results[-1].check == "vmap" and results[-1].status == "stacked"


@pytest.mark.parametrize("task", K)
@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
def test_every_subset_task_and_absent_stream(names: tuple[str, ...], task: str) -> None:
    spec = spec_of(*names, task=task)
    model = build(spec).train()
    batch = without(batch_of(spec), (1, names[0]), *((3, m) for m in names))
    out = model(batch)
    (out.pred.square().sum() + sum(out.losses.values())).backward()
    assert out.pred.shape == (4, K[task]) and torch.isfinite(out.pred).all()
    assert set(out.losses) == (LOSSES if len(names) > 1 else LOSSES - {"L_orth"})
    for p in model.parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all()
    # The clip without a stream is what it would be where nobody had it.
    if len(names) > 1:
        rest = [m for m in model.streams if m != names[0]]
        masked = {m: batch.mask[m] & torch.tensor(m in rest) for m in names}
        nobody = Batch(batch.x, masked, None, batch.ids)
        torch.testing.assert_close(model(nobody).pred[1], out.pred[1])


def test_streams_of_any_name_and_number() -> None:
    spec = DataSpec({"a.b": (2, 3), "keys": (3, 2), "text": (4, 5), "x y": (2, 2), "é": (1, 1)})
    batch = batch_of(spec, record=True)
    out = build(spec)(batch)
    assert torch.isfinite(out.pred).all() and set(out.losses) == LOSSES
    assert out.attention["s-to-c.2"].shape == (4, 2, 6, 10)
    assert build(spec).streams == ["text", "a.b", "keys", "x y", "é"]


def test_order_of_streams_in_the_file_does_not_matter() -> None:
    batch = batch_of(spec_of())
    one, two = build(spec_of()), build(spec_of(*reversed(STREAMS)))
    assert one.streams == two.streams == list(ALL)
    assert torch.equal(one(batch).pred, two(batch).pred)


@pytest.mark.parametrize("classes", [3, 5])
def test_sims_classes_at_its_own_lengths(classes: int) -> None:
    """Unaligned, nothing is cropped: 39 steps of text, 400 of audio, 55 of video."""
    spec = DataSpec({"text": (768, 39), "audio": (33, 400), "vision": (709, 55)}, "classification",
                    classes)  # fmt: skip
    model, seen = build(spec), []
    model.encoder.layers[0].register_forward_hook(lambda _, args, __: seen.append(args[0].shape))
    out = model(full_batch(spec, 2, torch.device("cpu")))
    assert seen == [(2, 12 + 39 + 400 + 55, 8)] and out.pred.shape == (2, classes)


def test_what_is_recorded() -> None:
    spec = spec_of()
    model = build(spec)
    batch = without(batch_of(spec), (2, "audio"))
    plain = model(batch)
    assert plain.features == plain.attention == plain.weights == {}
    batch.record = True
    out = model(batch)
    torch.testing.assert_close(out.pred, plain.pred)
    widths = {"U_text": 6, "U_audio": 3, "U_vision": 5, "Y_o": 8, "H_c": 8}
    widths |= {f"H_{m}": 8 for m in STREAMS}
    assert {name: z.shape[1] for name, z in out.features.items()} == widths
    assert {z.shape for z in out.attention.values()} == {(4, 2, 6, 6)} and out.weights == {}
    for z in (*out.features.values(), *out.attention.values()):
        assert torch.isfinite(z).all() and not z.requires_grad
    # The absent stream: no features, no row and no column of a map.
    assert not out.features["U_audio"][2].any() and not out.features["H_audio"][2].any()
    to_s, to_c = out.attention["c-to-s.2"], out.attention["s-to-c.2"]
    assert not to_s[2, :, :2].any() and not to_c[2, :, :, :2].any()
    torch.testing.assert_close(to_c[2].sum(-1), torch.ones(2, 6))
    torch.testing.assert_close(out.features["U_text"][0], batch.x["text"][0].mean(0))
    torch.testing.assert_close(model.head(out.features["Y_o"]), out.pred)
    H = model.encoder(*model.project(batch))
    torch.testing.assert_close(out.features["H_c"], H.c.mean(1))
    torch.testing.assert_close(out.features["H_vision"], H.s[:, 2:4].mean(1))


# --- learning -------------------------------------------------------------------------------------
@pytest.mark.parametrize("task", ONE_TASK)
def test_overfits_64_clips(task: str) -> None:
    spec = spec_of(task=task)
    model = build(spec, TMTConfig(d_model=16, heads=2, d_ff=32, d_head=16, dropout=0.0)).train()
    batch = batch_of(spec, B=64)
    batch.y = batch.y[torch.randperm(64, generator=torch.Generator().manual_seed(2))]
    task_loss = {
        "regression": nn.functional.mse_loss,
        "classification": nn.functional.cross_entropy,
        "multilabel": nn.functional.binary_cross_entropy_with_logits,
    }[task]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    values: list[float] = []
    while len(values) < 150 and (not values or values[-1] >= 0.1 * values[0]):
        out = model(batch)
        loss = task_loss(out.pred, batch.y)
        optimizer.zero_grad()
        (loss + sum(out.losses.values())).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.1 * values[0]


@pytest.mark.slow
@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "unaligned"])
def test_fusing_beats_every_single_stream(aligned: bool, tmp_path: Path) -> None:
    file = interaction.write(tmp_path / "x.h5", aligned=aligned)
    settings = ["d_model=32", "heads=4", "d_ff=32", "d_head=16"]
    report = mertool.train(
        file, tmp_path / "run", plugin="tmt", seeds=1, device="cpu",
        settings=[*(f"fusion.{s}" for s in settings), "train.lr=3e-3", "train.epochs=30"],
    )  # fmt: skip
    errors = {stream: scores["mean"]["mae"] for stream, scores in report.valid.items()}
    together = errors.pop("")
    assert set(errors) == {"text", "audio", "vision"}
    assert together < 0.5 * min(errors.values())
