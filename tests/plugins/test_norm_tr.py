"""NORM-TR: model and losses against NumPy loops, the noise, every ablation, the contract."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path

import mertool_plugins.norm_tr.model as module
import numpy as np
import pytest
import torch
from clips import K, labels_of
from mertool_plugins.norm_tr import noise
from mertool_plugins.norm_tr.config import FUSIONS
from mertool_plugins.norm_tr.model import NORMTR, NORMTRConfig, one_of_each_segment
from torch import Tensor, nn

import mertool
from mertool.evaluate.robust import auilc
from mertool.testing import check_fusion, failed, interaction
from mertool.types import Batch, DataSpec

TINY = NORMTRConfig(d_model=16, heads=2, layers=2, steps=6, dropout=0.0)
STREAMS = {"text": (6, 4), "audio": (3, 9), "vision": (5, 6)}
ALL = tuple(sorted(STREAMS))
SUBSETS = [c for n in (1, 2, 3) for c in combinations(ALL, n)]


def spec_of(
    names=ALL, task: str = "regression", alignment: str = "none", length: int = 0
) -> DataSpec:
    sizes = {m: STREAMS.get(m, (2, 5)) for m in names}
    return DataSpec(
        {m: (D, length or T) for m, (D, T) in sizes.items()}, task, K[task], alignment=alignment
    )


WORDS = spec_of(alignment="word", length=6)


def build(spec: DataSpec, config: NORMTRConfig = TINY, seed: int = 0) -> NORMTR:
    torch.manual_seed(seed)
    return NORMTR(config, spec)


def batch_of(spec: DataSpec, B: int = 4, seed: int = 0, longest: int = 0) -> Batch:
    """Clips of random lengths, the first of full length; aligned ones share their steps."""
    draw = torch.Generator().manual_seed(seed)
    share = torch.rand(B, generator=draw)
    x, mask = {}, {}
    for m, (D, T) in spec.streams.items():
        T = longest or T
        if spec.alignment == "none":
            share = torch.rand(B, generator=draw)
        lengths = (share * T).ceil().long()
        lengths[0] = T
        mask[m] = torch.arange(T) < lengths[:, None]
        x[m] = torch.randn(B, T, D, generator=draw) * mask[m][..., None]
    return Batch(x, mask, labels_of(spec.task, B), tuple(f"clip{i}" for i in range(B)))


def count(part: nn.Module) -> int:
    return sum(p.numel() for p in part.parameters())


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter a value that matters, biases and norms too; double precision."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=draw) * 0.4)
    return model.double()


def doubled(batch: Batch) -> Batch:
    y = batch.y.double() if batch.y.is_floating_point() else batch.y
    return Batch({m: x.double() for m, x in batch.x.items()}, batch.mask, y, batch.ids)


# --- a second implementation, clip by clip --------------------------------------------------------
def array(t: Tensor) -> np.ndarray:
    return t.detach().double().numpy()


def linear(x: np.ndarray, layer: nn.Linear) -> np.ndarray:
    return x @ array(layer.weight).T + array(layer.bias)


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.01 * x)


def two_layers(x: np.ndarray, net: nn.Sequential) -> np.ndarray:
    return leaky(linear(leaky(linear(x, net[0])), net[2]))


def norm(x: np.ndarray, layer: nn.LayerNorm) -> np.ndarray:
    z = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.eps)
    return z * array(layer.weight) + array(layer.bias)


def heads_of(q: np.ndarray, kv: np.ndarray, attention: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Multi-head attention of queries (Tq, d) on real sources (Tk, d): out, weights (H, Tq, Tk)."""
    Q, K_, V = linear(q, attention.query), linear(kv, attention.key), linear(kv, attention.value)
    width = Q.shape[1] // attention.heads
    out, maps = np.zeros_like(Q), []
    for h in range(attention.heads):
        part = slice(h * width, (h + 1) * width)
        weights = np.zeros((len(q), len(kv)))
        for i in range(len(q)):
            scores = np.array([Q[i, part] @ K_[j, part] for j in range(len(kv))])
            weights[i] = np.exp(scores / math.sqrt(width))
            weights[i] /= weights[i].sum()
        out[:, part] = weights @ V[:, part]
        maps.append(weights)
    return linear(out, attention.out), np.stack(maps)


def feed_forward(z: np.ndarray, layer: nn.Module) -> np.ndarray:
    hidden = np.maximum(linear(norm(z, layer.norm_ff), layer.expand), 0)
    return z + linear(hidden, layer.contract)


def reference(model: NORMTR, U: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Eq. 1 to 5 and 3.4.2 of one clip.

    Args:
        model: With the fusion "transformer".
        U: {stream: (n, D)}, its real steps only, after erasing.

    Returns:
        "pred" (K,), "NRGF", "MF" and "U" {stream: (n, .)}, "maps" [(H, n, n)].
    """
    c, T = model.config, model.steps
    made: dict[str, dict[str, np.ndarray]] = {"U": {}, "NRGF": {}, "MF": {}}
    place = []
    for k, m in enumerate(model.streams):
        made["U"][m] = linear(U[m], model.g[k])
        if model.nrgf is not None:
            made["NRGF"][m] = two_layers(made["U"][m], model.nrgf)
        if len(model.mf):
            made["MF"][m] = two_layers(made["U"][m], model.mf[k])
        place += [k * T + t for t in range(len(U[m]))]
    q, kv = (
        np.concatenate([made[kind.upper()][m] for m in model.streams])
        for kind in (c.query, c.source)
    )
    z = q + array(model.trans.positions_q.weight)[place]
    source = kv + array(model.trans.positions_k.weight)[place]
    maps = []
    for layer in model.trans.layers:
        if layer.own is not None:
            x = norm(z, layer.norm)
            z = z + heads_of(x, x, layer.own)[0]
        cross = layer.cross
        out, weights = heads_of(
            norm(z, cross.norm_x), norm(source, cross.norm_source), cross.attention
        )
        z = feed_forward(z + out, cross)
        maps.append(weights)
    fused = norm(z, model.trans.norm).mean(0)
    return {**made, "pred": linear(fused, model.head), "fused": fused, "maps": maps}


def real_rows(batch: Batch, b: int) -> dict[str, np.ndarray]:
    return {m: array(x[b][batch.mask[m][b]]) for m, x in batch.x.items()}


@pytest.mark.parametrize(
    "settings",
    [{}, {"query": "mf"}, {"source": "nrgf"}, {"query": "mf", "source": "nrgf"},
     {"self_attention": True, "layers": 1}],
    ids=str,
)  # fmt: skip
def test_model_against_loops(settings: dict) -> None:
    model = randomise(build(WORDS, replace(TINY, **settings))).eval()
    batch = doubled(batch_of(WORDS))
    batch.record = True
    got = model(batch)
    for b in range(4):
        expected = reference(model, real_rows(batch, b))
        np.testing.assert_allclose(array(got.pred[b]), expected["pred"], atol=1e-9)
        np.testing.assert_allclose(array(got.features["fused"][b]), expected["fused"], atol=1e-9)
        for kind in ("U", "NRGF", "MF"):
            for m, rows in expected[kind].items():
                mean = array(got.features[f"{kind}_{m}"][b])
                np.testing.assert_allclose(mean, rows.mean(0), atol=1e-9)
        real = np.concatenate([batch.mask[m][b].numpy() for m in ALL])
        for i, weights in enumerate(expected["maps"]):
            shown = array(got.attention[f"fusion.{i + 1}"][b])
            np.testing.assert_allclose(shown[:, real][:, :, real], weights, atol=1e-9)
            assert not shown[:, :, ~real].any()


def test_absent_stream_is_left_out() -> None:
    model = randomise(build(WORDS)).eval()
    batch = doubled(batch_of(WORDS))
    batch.mask["audio"][1] = False
    rows = real_rows(batch, 1)
    expected = reference(model, rows)
    assert len(rows["audio"]) == 0
    np.testing.assert_allclose(array(model(batch).pred[1]), expected["pred"], atol=1e-9)


# --- losses -------------------------------------------------------------------------------------
def fixed_noise(monkeypatch: pytest.MonkeyPatch, batch: Batch, seed: int = 0) -> list[Tensor]:
    """Type-1 and Type-2 noise that a test knows."""
    torch.manual_seed(seed)
    mask = torch.stack([batch.mask[m] for m in ALL], dim=1)
    erased = [noise.type_1(mask), noise.type_2(mask)]
    assert all(e.any() for e in erased)
    for name, e in zip(("type_1", "type_2"), erased, strict=True):
        monkeypatch.setattr(module, name, lambda _, e=e: e)
    return erased


def cross_entropy(logits: np.ndarray, y: int) -> float:
    return float(np.log(np.exp(logits).sum()) - logits[y])


def binary(logit: float, y: float) -> float:
    p = 1 / (1 + np.exp(-logit))
    return float(-(y * np.log(p) + (1 - y) * np.log(1 - p)))


@pytest.mark.parametrize("task", K)
def test_losses_against_loops(monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    spec = replace(WORDS, task=task, n_out=K[task])
    config = replace(TINY, adv1_weight=0.3, adv2_weight=0.7)
    model = randomise(build(spec, config)).train()
    batch = doubled(batch_of(spec))
    batch.mask["vision"][2] = False
    batch.x["vision"][2] = math.nan
    erased = fixed_noise(monkeypatch, batch)
    got = model(batch)
    terms = {name: float(term.detach()) for name, term in got.losses.items()}
    er, adv_1, adv_2, preds = [], [], [], []
    for v, noisy in enumerate(erased):
        for b in range(4):
            U = {
                m: np.where(noisy[b, k][batch.mask[m][b]].numpy()[:, None], 0.0, rows)
                for (k, m), rows in zip(enumerate(ALL), ordered(real_rows(batch, b)), strict=True)
            }
            made = reference(model, U)
            preds.append(made["pred"])
            y = array(batch.y[b]) if task != "classification" else int(batch.y[b])
            er.append(
                cross_entropy(made["pred"], y) if task == "classification"
                else np.mean([binary(p, t) for p, t in zip(made["pred"], y, strict=True)])
                if task == "multilabel"
                else float((made["pred"] - y)[0] ** 2)
            )  # fmt: skip
            flat = {}
            for kind in ("NRGF", "MF", "explained"):
                for k, m in enumerate(ALL):
                    rows = made["NRGF" if kind == "explained" else kind][m]
                    if kind == "explained":
                        rows = two_layers(rows, model.discriminators.explain[k])
                    padded = np.zeros((model.steps, 8))
                    padded[: len(rows)] = rows
                    flat[kind, m] = padded.ravel()
            there = [(k, m) for k, m in enumerate(ALL) if len(U[m])]
            D1, D2 = model.discriminators.D1, model.discriminators.D2
            if v == 0:
                adv_1 += [
                    cross_entropy(linear(flat[kind, m], D1), k)
                    for k, m in there
                    for kind in ("explained", "MF")
                ]
            else:
                logits = linear(np.concatenate([flat["NRGF", m] for m in ALL]), D2)
                adv_2 += [binary(logits[k], float(noisy[b, k].any())) for k, m in there]
    assert terms["L_er"] == pytest.approx(np.mean(er))
    assert terms["L_adv1"] == pytest.approx(0.3 * np.mean(adv_1))
    assert terms["L_adv2"] == pytest.approx(0.7 * np.mean(adv_2))
    mean = (np.stack(preds[:4]) + np.stack(preds[4:])) / 2
    np.testing.assert_allclose(array(got.pred), mean, atol=1e-9)


def ordered(rows: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [rows[m] for m in ALL]


@torch.no_grad()
def test_discriminators_at_chance() -> None:
    model, batch = build(WORDS, replace(TINY, adv1_weight=1.0, adv2_weight=1.0)), batch_of(WORDS)
    for layer in (model.discriminators.D1, model.discriminators.D2):
        nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    losses = model.train()(batch).losses
    assert float(losses["L_adv1"]) == pytest.approx(math.log(3))
    assert float(losses["L_adv2"]) == pytest.approx(math.log(2))
    # Absent streams weigh nothing, whatever is there; no stream at all: zero.
    batch.mask["audio"][:] = False
    assert float(model(batch).losses["L_adv1"]) == pytest.approx(math.log(3))
    for m in ALL:
        batch.mask[m][:] = False
    losses = model(batch).losses
    assert float(losses["L_adv1"]) == float(losses["L_adv2"]) == 0.0


def gradients(model: NORMTR, *losses: Tensor) -> dict[str, Tensor]:
    """{parameter: its gradient, zeros where it gets none} of the sum."""
    model.zero_grad(set_to_none=True)
    sum(losses).backward()
    return {
        n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for n, p in model.named_parameters()
    }


def part(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("term", ["L_adv1", "L_adv2"])
def test_adversarial_losses_reach_nrgf_and_discriminators_alone(term: str) -> None:
    model = build(WORDS).double().train()
    found = gradients(model, model(doubled(batch_of(WORDS))).losses[term])
    own = {"L_adv1": ("D1", "explain"), "L_adv2": ("D2",)}[term]
    for name, gradient in found.items():
        wanted = part(name) == "nrgf" or (
            part(name) == "discriminators" and name.split(".")[1] in own
        )
        assert bool(gradient.any()) == wanted, name  # nothing for mf: F_M is detached


def test_nrgf_gradient_flips_with_the_reversal(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = build(WORDS).double().train(), doubled(batch_of(WORDS))
    fixed_noise(monkeypatch, batch)

    def both() -> dict[str, Tensor]:
        losses = model(batch).losses
        return gradients(model, losses["L_adv1"], losses["L_adv2"])

    reversed_ = both()
    monkeypatch.setattr(noise, "reverse_gradient", lambda x: x)
    plain = both()
    for name, gradient in plain.items():
        sign = -1 if part(name) == "nrgf" else 1
        torch.testing.assert_close(reversed_[name], sign * gradient)
    assert plain["nrgf.0.weight"].abs().max() > 1e-6


def test_without_weights_the_task_gradient_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    off, batch = replace(TINY, adv1_weight=0.0, adv2_weight=0.0), doubled(batch_of(WORDS))
    fixed_noise(monkeypatch, batch)
    model = build(WORDS, off).double().train()
    losses = model(batch).losses
    together = gradients(model, *losses.values())
    for name, gradient in gradients(model, model(batch).losses["L_er"]).items():
        torch.testing.assert_close(together[name], gradient)
    assert together["nrgf.0.weight"].any() and not together["discriminators.D1.weight"].any()
    # With weights it is another gradient, for the NRGF extractor and no other shared part.
    full = build(WORDS).double().train()
    changed = gradients(full, *full(batch).losses.values())
    differ = {part(n) for n in together if not torch.allclose(changed[n], together[n], atol=1e-12)}
    assert differ == {"nrgf", "discriminators"}


def test_evaluation_does_not_see_the_discriminators() -> None:
    model, batch = build(WORDS).eval(), batch_of(WORDS)
    before = model(batch)
    assert set(before.losses) == {"L_er"}  # no noise either: no view, no adversary
    for p in model.discriminators.parameters():
        nn.init.normal_(p)
    assert torch.equal(model(batch).pred, before.pred)
    assert model(Batch(batch.x, batch.mask)).losses == {}


# --- noise --------------------------------------------------------------------------------------
def masks(B: int = 3000, T: int = 9) -> Tensor:
    """(B, 3, T) of 0 to T real steps."""
    lengths = torch.randint(0, T + 1, (B, 3), generator=torch.Generator().manual_seed(1))
    return torch.arange(T) < lengths[..., None]


def test_windows() -> None:
    torch.manual_seed(0)
    mask = masks()
    erased = noise.window(mask)
    n, length = mask.sum(-1), erased.sum(-1)
    assert not erased[~mask].any()
    assert (2 * length <= n).all()  # at most half of the clip's steps, so of T
    # One stretch: as many starts as windows.
    starts = (erased & ~torch.nn.functional.pad(erased, (1, 0))[..., :-1]).sum(-1)
    assert torch.equal(starts, (length > 0).long())
    # Every length from 0 to n/2 is equally likely, and every place.
    full = n == 9
    shares = torch.bincount(length[full]) / full.sum()
    torch.testing.assert_close(shares, torch.full((5,), 0.2), atol=0.05, rtol=0)
    ones = full & (length == 1)
    places = erased[ones].long().argmax(-1)
    shares = torch.bincount(places, minlength=9) / ones.sum()
    torch.testing.assert_close(shares, torch.full((9,), 1 / 9), atol=0.07, rtol=0)


def test_type_1_damages_every_stream_on_its_own() -> None:
    torch.manual_seed(0)
    erased = noise.type_1(masks())
    damaged = erased.any(-1)
    assert damaged.all(1).any()
    pairs = erased[:, 0][damaged[:, :2].all(1)], erased[:, 1][damaged[:, :2].all(1)]
    assert not torch.equal(*pairs)


def test_type_2_damages_one_stream_that_is_there() -> None:
    torch.manual_seed(0)
    mask = masks()
    erased = noise.type_2(mask)
    damaged = erased.any(-1)
    assert (damaged.sum(1) <= 1).all()  # none where the window has length 0
    assert not damaged[~mask.any(-1)].any()
    whole = noise.type_2(torch.ones(3000, 3, 9, dtype=torch.bool)).any(-1)
    shares = whole.float().mean(0)  # a third, less one window in five
    torch.testing.assert_close(shares, torch.full((3,), 4 / 15), atol=0.05, rtol=0)
    mask[:, [0, 2]] = False  # the only stream is the one that is hit
    mask[:, 1] = True
    share = noise.type_2(mask).any(-1)[:, 1].float().mean()
    assert float(share) == pytest.approx(4 / 5, abs=0.05)


def test_an_erased_step_is_the_bias_of_g(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = build(WORDS).train(), batch_of(WORDS)
    erased = fixed_noise(monkeypatch, batch)
    seen: list[Tensor] = []
    monkeypatch.setattr(
        model, "recognise", lambda U, mask, record, run=model.recognise: seen.extend(U)
        or run(U, mask, record)
    )  # fmt: skip
    model(batch)
    for k, m in enumerate(ALL):
        for view, noisy in zip(seen[k].split(4), erased, strict=True):
            lost = noisy[:, k]
            assert torch.equal(view[~lost], batch.x[m][~lost]) and not view[lost].any()
            torch.testing.assert_close(
                model.g[k](view[lost]), model.g[k].bias.expand(int(lost.sum()), -1)
            )


# --- one T for all streams ------------------------------------------------------------------------
def test_shared_steps_stay_where_they_are() -> None:
    for spec in (WORDS, spec_of(length=6)):
        model, batch = build(spec), batch_of(spec)
        U, mask = model.sample(batch)
        assert model.steps == 6
        for k, m in enumerate(ALL):
            assert torch.equal(U[k], batch.x[m]) and torch.equal(mask[:, k], batch.mask[m])
    # T is no more than there is, clips longer than T lose their end, shorter batches are padded.
    assert build(spec_of(length=1)).steps == 1
    long = batch_of(spec_of(alignment="word", length=8))
    U, mask = build(replace(WORDS)).sample(long)
    assert torch.equal(U[0], long.x[ALL[0]][:, :6]) and torch.equal(
        mask[:, 0], long.mask["audio"][:, :6]
    )
    short = batch_of(WORDS, longest=4)
    U, mask = build(WORDS).sample(short)
    assert U[0].shape[1] == 6 and not mask[:, :, 4:].any() and not U[0][:, 4:].any()


def test_other_lengths_are_resampled() -> None:
    spec = spec_of()
    model, batch = build(spec), batch_of(spec)
    batch.mask["audio"][2] = False
    assert model.steps == 6 and build(spec, replace(TINY, steps=50)).steps == 9
    U, mask = model.sample(batch)
    assert mask.all(-1).sum() == 11 and not mask[2, 0].any() and not U[0][2].any()
    # Nine rows on six steps: step i covers rows 1.5 i to 1.5 i + 1.5.
    x = batch.x["audio"][0]
    torch.testing.assert_close(U[0][0, 0], (x[0] + 0.5 * x[1]) / 1.5)
    torch.testing.assert_close(U[0][0, 1], (0.5 * x[1] + x[2]) / 1.5)
    # Also a single stream, and segments, longer than T.
    assert build(spec_of(("audio",))).sampling == "resample"
    assert build(spec_of(alignment="segments:9", length=9)).sampling == "resample"
    assert build(spec_of(alignment="segments:6", length=6)).sampling == "first"


def test_sampling_of_the_paper() -> None:
    spec = spec_of(length=20)
    model = build(spec, replace(TINY, steps=5, sampling="paper"))
    batch = batch_of(spec)
    U, mask = model.eval().sample(batch)
    assert torch.equal(U[0], batch.x["audio"][:, :5])
    torch.testing.assert_close(U[2][0], batch.x["vision"][0, 2::4])  # the middle of four
    rows = torch.arange(20.0).view(1, 20, 1).expand(500, -1, -1)
    torch.manual_seed(0)
    picked, real = one_of_each_segment(rows, torch.ones(500, 20, dtype=torch.bool), 5, True)
    assert real.all()
    for i in range(5):
        assert picked[:, i, 0].unique().tolist() == [4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3]
    # Clips of at most T steps stay, none stays none.
    some = torch.arange(20) < torch.tensor([[3], [5], [0], [7]])
    picked, real = one_of_each_segment(rows[:4], some, 5, False)
    assert real.sum(1).tolist() == [3, 5, 0, 5]
    assert picked[:3, :, 0].tolist() == [[0, 1, 2, 0, 0], [0, 1, 2, 3, 4], [0] * 5]
    assert picked[3, :, 0].tolist() == [0, 2, 3, 4, 6]  # middles 0.7, 2.1, 3.5, 4.9, 6.3


# --- sizes --------------------------------------------------------------------------------------
def test_sizes_at_the_papers_settings() -> None:
    streams = {"text": (768, 50), "audio": (74, 50), "vision": (35, 50)}
    model = NORMTR(NORMTRConfig(), DataSpec(streams, alignment="word"))
    assert count(model.g) == (768 + 74 + 35) * 256 + 3 * 256
    assert count(model.nrgf) == 256 * 128 + 128 + 128 * 128 + 128
    assert count(model.mf) == 3 * count(model.nrgf)
    assert count(model.discriminators.D1) == 50 * 128 * 3 + 3
    assert count(model.discriminators.D2) == 3 * 50 * 128 * 3 + 3
    assert count(model.discriminators.explain) == 3 * 2 * (128 * 128 + 128)
    layer = 4 * (128 * 128 + 128) + 2 * 128 * 512 + 512 + 128 + 3 * 2 * 128
    assert count(model.trans) == 2 * 150 * 128 + 2 * layer + 256
    assert count(model.head) == 129
    assert count(model) == 1_034_631
    assert [layer.cross.attention.heads for layer in model.trans.layers] == [8, 8]


# --- ablations ------------------------------------------------------------------------------------
# {row: (settings, parts without a trace, parts that may differ in shape or name)}
OTHER = {"trans", "head"}
ABLATIONS = {
    "6 w/o NRGF": ({"query": "mf"}, {"nrgf", "discriminators"}, set()),
    "6 w/o MF": ({"source": "nrgf"}, {"mf"}, set()),
    "6 w/o Transformer, 12 concatenation": ({"fusion": "concat"}, {"trans"}, {"head"}),
    "6 w/o noise-aware": ({"noise_aware": False}, {"discriminators"}, set()),
    "6 baseline": (
        {"fusion": "standard", "noise_aware": False}, {"nrgf", "mf", "discriminators"}, OTHER
    ),
    "9 query and key swapped": ({"query": "mf", "source": "nrgf"}, set(), set()),
    "10 alpha": ({"adv1_weight": 0.5}, set(), set()),
    "10 beta": ({"adv2_weight": 0.5}, set(), set()),
    "12 LSTM": ({"fusion": "lstm"}, set(), {"trans"}),
    "12 GRU": ({"fusion": "gru"}, set(), {"trans"}),
    "12 TFN": ({"fusion": "tfn"}, {"trans"}, {"head"}),
    "12 LMF": ({"fusion": "lmf"}, set(), {"trans"}),
    "4.7.4 pairs": ({"fusion": "mult"}, set(), OTHER),
    "4.7.4 ViT": ({"fusion": "vit"}, set(), {"trans"}),
    "Fig. 6a": ({"layers": 3}, set(), {"trans"}),
    "Fig. 6b": ({"steps": 3}, set(), {"trans", "discriminators"}),
    "self-attention": ({"self_attention": True}, set(), {"trans"}),
}  # fmt: skip


@pytest.mark.parametrize("row", ABLATIONS)
def test_every_ablation_changes_what_it_says_and_no_more(
    row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, gone, other = ABLATIONS[row]
    full, cut = build(WORDS), build(WORDS, replace(TINY, **settings), seed=1)
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (full, cut)]
    parts = [{part(n) for n in s} for s in shapes]
    assert parts[0] - parts[1] == gone and not parts[1] - parts[0]
    differ = {
        part(n) for n in set(shapes[0]) | set(shapes[1]) if shapes[0].get(n) != shapes[1].get(n)
    }
    assert differ == gone | other
    # With the same weights everything before the change is the same.
    same = {n: p for n, p in full.state_dict().items() if shapes[1].get(n) == p.shape}
    cut.load_state_dict({**cut.state_dict(), **same})
    batch = batch_of(WORDS)
    batch.record = True
    outs = [m.eval()(batch) for m in (full, cut)]
    kept = (set(outs[0].features) & set(outs[1].features)) - {"fused"}
    assert {n.split("_")[0] for n in kept} == {"U", "NRGF", "MF"} - {g.upper() for g in gone}
    if "steps" not in settings:  # else the means are of other steps
        for name in kept:
            assert torch.equal(outs[0].features[name], outs[1].features[name])
    # What is trained only, and what is seen.
    training_only = not (other | gone) - {"discriminators"} and "query" not in settings
    assert torch.equal(outs[0].pred, outs[1].pred) == training_only
    if "steps" in settings:
        return
    fixed_noise(monkeypatch, batch)
    batch.record = False
    losses = [m.train()(batch).losses for m in (full, cut)]
    names = {"L_er", "L_adv1", "L_adv2"} if "discriminators" not in gone else {"L_er"}
    assert set(losses[1]) == names
    factor = {name: 1.0 for name in names}
    factor |= {"L_adv1": 50.0 * ("adv1_weight" in settings) or 1.0}
    factor |= {"L_adv2": 50.0 * ("adv2_weight" in settings) or 1.0}
    for name in names - {"L_er"} - ({"L_adv1"} if "mf" in gone else set()):
        torch.testing.assert_close(losses[1][name], factor[name] * losses[0][name])
    if row == "6 w/o noise-aware":
        er = module.F.mse_loss(outs[0].pred, batch.y)
        torch.testing.assert_close(losses[1]["L_er"], er)
    elif row.startswith("10"):
        assert torch.equal(losses[1]["L_er"], losses[0]["L_er"])


def test_query_and_source_say_what_is_read() -> None:
    """NRGF and MF as q and k/v: with one of them zero, the other one alone matters."""
    batch = batch_of(WORDS)
    batch.record = True
    for query, source in (("nrgf", "mf"), ("mf", "nrgf"), ("mf", "mf"), ("nrgf", "nrgf")):
        model = build(WORDS, replace(TINY, query=query, source=source)).eval()
        seen: list[tuple] = []
        model.trans.register_forward_hook(lambda _, args, __, seen=seen: seen.append(args))
        features = model(batch).features
        for kind, z in zip((query, source), seen[0][:2], strict=True):
            for k, m in enumerate(ALL):
                n = batch.mask[m].sum(1, keepdim=True)
                torch.testing.assert_close(z[:, k].sum(1) / n, features[f"{kind.upper()}_{m}"])


def test_fusions_of_table_12_by_hand() -> None:
    batch = batch_of(WORDS)
    mean = {}
    for fusion in ("concat", "tfn", "lmf", "lstm", "gru"):
        model = randomise(build(WORDS, replace(TINY, fusion=fusion))).eval()
        pred = array(model(doubled(batch)).pred)
        for b in range(4):
            rows = real_rows(batch, b)
            U = {m: linear(rows[m], model.g[k]) for k, m in enumerate(ALL)}
            F_NR = np.concatenate([two_layers(U[m], model.nrgf) for m in ALL])
            F_M = np.concatenate([two_layers(U[m], model.mf[k]) for k, m in enumerate(ALL)])
            q, kv = F_NR.mean(0), F_M.mean(0)
            if fusion == "concat":
                fused = np.concatenate([q, kv])
            elif fusion == "tfn":
                fused = np.outer(np.append(q, 1), np.append(kv, 1)).ravel()
            elif fusion == "lmf":
                w_q, w_k = (array(w) for w in model.trans.lmf.w)
                fused = sum(
                    (np.append(q, 1) @ w_q[r]) * (np.append(kv, 1) @ w_k[r]) for r in range(4)
                ) + array(model.trans.lmf.b)
            else:
                sequence = torch.tensor(np.concatenate([F_NR, F_M], axis=1))[None]
                fused = array(model.trans.lstm.layers[0][0](sequence)[0][0, -1])
            mean[fusion, b] = linear(fused, model.head)
            np.testing.assert_allclose(pred[b], mean[fusion, b], atol=1e-9)


def test_modalities_are_ablated_by_the_data() -> None:
    """Tables 7 and 8: the same parts, one of each kind per stream."""
    for names in SUBSETS:
        model = build(spec_of(names))
        assert len(model.g) == len(model.mf) == len(names)
        assert model.discriminators.D2.out_features == len(names)
        losses = model.train()(batch_of(spec_of(names))).losses
        assert ("L_adv1" in losses) == (len(names) > 1)


# --- contract -------------------------------------------------------------------------------------
def test_conformance() -> None:
    settings = ["d_model=32", "heads=4", "dropout=0", "steps=9"]
    results = check_fusion("norm_tr", [f"fusion.{setting}" for setting in settings])
    assert not failed(results)
    assert not any(result.status == "waived" for result in results)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("names", [*SUBSETS, ("a.b", "x y", "é", "text")], ids="+".join)
def test_every_task_subset_and_fusion(names: tuple[str, ...], fusion: str) -> None:
    for task in K:
        spec = spec_of(names, task)
        model, batch = build(spec, replace(TINY, fusion=fusion, layers=1)), batch_of(spec)
        batch.mask[names[0]][1] = False
        for m, x in batch.x.items():
            x[~batch.mask[m]] = math.nan
        out = model.train()(batch)
        sum(out.losses.values()).backward()
        assert out.pred.shape == (4, K[task]) and torch.isfinite(out.pred).all()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
        one = Batch({m: x[:1] for m, x in batch.x.items()},
                    {m: x[:1] for m, x in batch.mask.items()})  # fmt: skip
        torch.testing.assert_close(model.eval()(one).pred, model(batch).pred[:1])
        batch.record = True
        recorded = model(batch)
        torch.testing.assert_close(
            recorded.pred, model(one).pred.new_tensor(model(batch).pred.tolist())
        )
        for shown in (*recorded.features.values(), *recorded.attention.values()):
            assert torch.isfinite(shown).all() and not shown.requires_grad and len(shown) == 4


def test_what_is_recorded() -> None:
    """Fig. 7 and 8: features; Fig. 9: their cosines; Fig. 10: attention."""
    batch = batch_of(WORDS)
    batch.record = True
    sizes = {f"U_{m}": 16 for m in ALL} | {f"{k}_{m}": 8 for k in ("NRGF", "MF") for m in ALL}
    maps = {
        "transformer": {"fusion.1": (18, 18), "fusion.2": (18, 18)},
        "mult": {f"{s}-to-{t}.{i}": (6, 6) for s in ALL for t in ALL if s != t for i in (1, 2)},
        "vit": {"encoder.1": (36, 36), "encoder.2": (36, 36)},
        "standard": {"encoder.1": (18, 18), "encoder.2": (18, 18)},
        "concat": {},
    }
    for fusion, expected in maps.items():
        model = build(WORDS, replace(TINY, fusion=fusion))
        for training in (False, True):  # with noise, of one view alone
            out = model.train(training)(batch)
            found = {name: tuple(a.shape[1:]) for name, a in out.attention.items()}
            assert found == {name: (2, *shape) for name, shape in expected.items()}
            if fusion == "transformer":
                widths = {n: f.shape[1] for n, f in out.features.items()}
                assert widths == sizes | {"fused": 8}
            assert {len(v) for v in (*out.attention.values(), *out.features.values())} == {4}
            assert not out.weights


def test_order_of_streams_does_not_matter() -> None:
    batch = batch_of(spec_of())
    one, two = build(spec_of()).eval(), build(spec_of(tuple(reversed(ALL)))).eval()
    assert torch.equal(one(batch).pred, two(batch).pred)


def test_noise_is_drawn_from_torchs_seed() -> None:
    model, batch = build(WORDS).train(), batch_of(WORDS)

    def once(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return model(batch).pred

    assert torch.equal(once(3), once(3)) and not torch.equal(once(3), once(4))


@pytest.mark.parametrize(
    "settings",
    [{"d_model": 0}, {"d_model": 15}, {"heads": 3}, {"layers": 0}, {"steps": 0}, {"rank": 0},
     {"sampling": "crop"}, {"query": "u"}, {"source": ""}, {"fusion": "sum"},
     {"adv1_weight": -0.1}, {"adv2_weight": float("nan")}, {"dropout": 1.0}],
    ids=str,
)  # fmt: skip
def test_config_refuses_bad_values(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        replace(TINY, **settings)


def test_defaults_are_the_papers_for_mosi() -> None:
    c = NORMTRConfig()
    assert (c.layers, c.heads, c.steps, c.adv1_weight, c.adv2_weight) == (2, 8, 50, 0.01, 0.01)
    assert NORMTRConfig(**json.loads(json.dumps(asdict(c)))) == c


@pytest.mark.slow
def test_overfits_64_clips() -> None:
    spec = spec_of(alignment="word", length=4)
    batch = batch_of(spec, B=64)
    draw = torch.Generator().manual_seed(1)
    batch.y = torch.randn(64, 1, generator=draw)  # nothing but the clip itself tells it
    model = build(spec, replace(TINY, layers=1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(250):
        optimizer.zero_grad()
        sum(model.train()(batch).losses.values()).backward()
        optimizer.step()
    with torch.no_grad():
        error = (model.eval()(batch).pred - batch.y).abs().mean()
    assert error < 0.3 * (batch.y - batch.y.median()).abs().mean()


def test_area_under_the_curves_of_eq_10() -> None:
    rates = [i / 10 for i in range(11)]
    assert auilc(rates, [0.7] * 11) == pytest.approx(0.7)
    assert auilc(rates, [1 - r for r in rates]) == pytest.approx(0.5)
    assert auilc(rates, [r**2 for r in rates]) == pytest.approx(0.335)


@pytest.mark.slow
@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "unaligned"])
def test_fusing_beats_every_single_stream(aligned: bool, tmp_path: Path) -> None:
    file = interaction.write(tmp_path / "x.h5", aligned=aligned)
    settings = ["fusion.d_model=64", "fusion.heads=4", "train.lr=3e-3", "train.epochs=30"]
    report = mertool.train(
        file, tmp_path / "run", plugin="norm_tr", seeds=1, device="cpu", settings=settings
    )
    errors = {stream: scores["mean"]["mae"] for stream, scores in report.valid.items()}
    together = errors.pop("")
    assert set(errors) == {"text", "audio", "vision"}
    assert together < 0.5 * min(errors.values())
