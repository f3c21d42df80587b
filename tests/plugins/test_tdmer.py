"""TDMER: the contract, every ablation, and all equations against a reference in NumPy loops."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import K, batch_of, labels_of
from mertool_plugins.tdmer.classes import Classes, scores_of
from mertool_plugins.tdmer.layers import (
    CrossModalLearning,
    differences,
    similarity,
)
from mertool_plugins.tdmer.model import TDMER, TDMERConfig
from synthetic import ONE_TASK
from torch import nn

import mertool
from mertool.nn import cmd, masked_softmax, mean_where
from mertool.registry import registry
from mertool.testing import check_fusion, failed, interaction
from mertool.types import Batch, DataSpec, FusionOutput

TINY = TDMERConfig(d_model=6, heads=2, dropout=0.0)
STREAMS = {"text": (6, 4), "audio": (3, 7), "vision": (5, 5)}
ALL = tuple(sorted(STREAMS))
SUBSETS = [names for n in (1, 2, 3) for names in combinations(ALL, n)]
TERMS = {"con", "rec", "cp", "pp", "dc", "dp", "en", "p", "q", "nll"}


def spec_of(names: tuple[str, ...] = ALL, task: str = "regression") -> DataSpec:
    return DataSpec({m: STREAMS[m] for m in names}, task, K[task], range=(-3.0, 3.0))


def build(spec: DataSpec, config: TDMERConfig = TINY, seed: int = 0) -> TDMER:
    torch.manual_seed(seed)
    return TDMER(config, spec)


def lacking(batch: Batch) -> Batch:
    """Clip 1 without audio, 2 without text and vision, 3 without any; what is there is NaN."""
    gone = {"audio": [1, 3], "text": [2, 3], "vision": [2, 3]}
    for m in batch.x:
        batch.mask[m][gone[m]] = False
        batch.x[m][~batch.mask[m]] = float("nan")
    return batch


def count(model: nn.Module | None) -> int:
    return 0 if model is None else sum(p.numel() for p in model.parameters())


# --- settings ---------------------------------------------------------------------------------
def test_registers_and_survives_json() -> None:
    entry = registry().get("fusion", "tdmer")
    assert entry.facts["task_loss"] == "none" and entry.facts["fixed_length"] is False
    assert registry().load("fusion", "tdmer") is TDMER
    config = TDMERConfig(edges="target", bins=9, con=False)
    assert TDMERConfig(**json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize(
    "settings",
    [
        {"d_model": 0},
        {"heads": 7},
        {"kernel": 2},
        {"moments": 0},
        {"alpha": -1.0},
        {"delta": float("nan")},
        {"similarity": "cosine"},
        {"edges": "stream"},
        {"bins": 1},
        {"bins": -1},
        {"dropout": 1.0},
    ],
    ids=str,
)
def test_config_refuses_bad_values(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        TDMERConfig(**settings)


# --- labels as classes --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("low", "high", "bins", "expected"),
    [
        (-3.0, 3.0, 0, [-3, -2, -1, 0, 1, 2, 3]),
        (-2.8, 3.0, 0, [-3, -2, -1, 0, 1, 2, 3]),  # what a file happens to hold
        (1.0, 5.0, 0, [1, 2, 3, 4, 5]),
        (0.0, 10.0, 0, list(range(11))),
        (-1.0, 1.0, 0, [-1, -2 / 3, -1 / 3, 0, 1 / 3, 2 / 3, 1]),  # three whole numbers: too few
        (0.0, 60.0, 0, [0, 10, 20, 30, 40, 50, 60]),  # 61: too many
        (-1.0, 1.0, 11, [k / 5 - 1 for k in range(11)]),  # CH-SIMS' own eleven
        (-3.0, 3.0, 2, [-3, 3]),
        (0.0, 0.0, 0, [-3, -2, -1, 0, 1, 2, 3]),  # range unknown
        (2.0, 2.0, 0, [-1, 0, 1, 2, 3, 4, 5]),
    ],
)
def test_scores_of_bins(low: float, high: float, bins: int, expected: list[float]) -> None:
    assert scores_of(low, high, bins) == pytest.approx(expected)


def test_bins_round_half_even() -> None:
    y = torch.tensor([-9, -3, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49, 2.51, 9])
    classes = Classes(spec_of())
    assert (classes.index(y[:, None]) - 3).tolist() == [-3, -3, -2, -2, 0, 0, 2, 2, 0, 3, 3]
    ours = classes.scores[classes.index(y[:, None])]
    np.testing.assert_array_equal(ours, np.round(np.clip(y.numpy(), -3, 3)))  # as in Acc-7
    five = Classes(DataSpec({}, range=(1.0, 5.0)))
    assert five.index(torch.tensor([[0.2], [1.5], [2.5], [4.6], [7.0]])).tolist() == [0, 1, 1, 4, 4]


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (-0.7, 2.1), (10.0, 90.0)])
def test_bins_are_the_nearest_score(low: float, high: float) -> None:
    classes = Classes(DataSpec({}, range=(low, high)))
    y = torch.rand(200, 1, generator=torch.Generator().manual_seed(0)) * (high - low) * 1.2 + low
    nearest = [min(range(classes.K), key=lambda k: abs(classes.scores[k] - one)) for one in y]
    assert classes.index(y).tolist() == nearest


def test_uniform_probabilities_over_seven() -> None:
    classes, logits = Classes(spec_of()), torch.full((2, 7), 0.3)
    index = classes.index(torch.tensor([[-3.0], [1.2]]))
    assert classes.tcp(logits, index).tolist() == pytest.approx([0.14286] * 2, abs=1e-5)
    assert classes.nll(logits, index).tolist() == pytest.approx([1.94591] * 2, abs=1e-5)
    assert classes.pred(logits)[:, 0].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    # Certain of one bin, its score is expected.
    assert float(classes.pred(100.0 * torch.eye(7))[5]) == pytest.approx(2.0)


def test_multilabel_by_hand() -> None:
    classes = Classes(spec_of(task="multilabel"))
    z = torch.tensor([[0.9, 0.2, 0.5]])
    y = torch.tensor([[1.0, 0.0, 1.0]])
    assert float(classes.tcp(z.logit(), y)) == pytest.approx((0.9 + 0.8 + 0.5) / 3)
    nll = -(math.log(0.9) + math.log(0.8) + math.log(0.5)) / 3
    assert float(classes.nll(z.logit(), y)) == pytest.approx(nll)
    assert torch.equal(classes.pred(z), z)


# --- the reference: written from the equations, clip by clip --------------------------------------
def array(z: torch.Tensor) -> np.ndarray:
    return z.detach().double().numpy()


def linear(layer: nn.Linear, v: np.ndarray) -> np.ndarray:
    b = 0.0 if layer.bias is None else array(layer.bias)
    return array(layer.weight) @ v + b


def mlp(layers: nn.Sequential, v: np.ndarray) -> np.ndarray:
    return linear(layers[3], np.maximum(linear(layers[0], v), 0))


def softmax(scores: list[float]) -> np.ndarray:
    e = np.exp(np.array(scores) - max(scores))
    return e / e.sum()


def sigmoid(v: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-v))


def cosine(a: np.ndarray, b: np.ndarray, how: str) -> float:
    c = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    return {"hinge": max(0.0, c), "signed": c, "squared": c * c}[how]


def conv(layer: nn.Conv1d, x: np.ndarray) -> np.ndarray:
    W, half = array(layer.weight), layer.kernel_size[0] // 2
    rows = []
    for t in range(len(x)):
        row = array(layer.bias).copy()
        for k in range(2 * half + 1):
            if 0 <= t + k - half < len(x):
                row += W[:, :, k] @ x[t + k - half]
        rows.append(row)
    return np.array(rows)


def cross(unit: nn.Module, P_t: np.ndarray, P_s: np.ndarray) -> np.ndarray:
    width, out = P_t.shape[1] // unit.heads, []
    for row in P_t:
        q, heads = linear(unit.query, row), []
        for h in range(unit.heads):
            part = slice(h * width, (h + 1) * width)
            scores = [q[part] @ linear(unit.key, s)[part] / math.sqrt(width) for s in P_s]
            values = [linear(unit.value, s)[part] for s in P_s]
            heads.append(sum(w * v for w, v in zip(softmax(scores), values, strict=True)))
        out.append(linear(unit.out, np.concatenate(heads)))
    return np.array(out)


def probabilities(task: str, logits: np.ndarray) -> np.ndarray:
    return sigmoid(logits) if task == "multilabel" else softmax(list(logits))


def true_share(task: str, logits: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """TCP and -log of it (multilabel: both averaged over labels)."""
    z = probabilities(task, logits)
    if task == "multilabel":
        true = np.where(y == 1, z, 1 - z)
    elif task == "classification":
        true = z[[int(y)]]
    else:
        true = z[[int(np.round(y[0])) + 3]]
    return float(true.mean()), float(-np.log(true).mean())


def numpy_cmd(a: list[np.ndarray], b: list[np.ndarray], moments: int) -> float:
    A, B = np.array(a), np.array(b)
    total = np.linalg.norm(A.mean(0) - B.mean(0))
    for k in range(2, moments + 1):
        total += np.linalg.norm(((A - A.mean(0)) ** k).mean(0) - ((B - B.mean(0)) ** k).mean(0))
    return float(total)


def learn(unit: CrossModalLearning, h: dict[int, np.ndarray], per: str) -> float | None:
    """||omega * psi|| of one clip, of the streams it has; None without an edge."""
    edges = [(p, q) for p in h for q in h if p != q]
    if not edges:
        return None
    logits = {m: linear(unit.F_1, v) for m, v in h.items()}
    score = {
        (p, q): float(linear(unit.F_2, np.concatenate([logits[p], h[p], logits[q], h[q]])).item())
        for p, q in edges
    }
    total = 0.0
    for group in [edges] if per == "clip" else [[e for e in edges if e[1] == q] for q in h]:
        for (p, q), omega in zip(group, softmax([score[e] for e in group]), strict=True):
            total += omega * np.abs(logits[p] - logits[q]).sum()
    return total


def reference(model: TDMER, batch: Batch, task: str) -> tuple[np.ndarray, dict[str, float]]:
    """Predictions (B, K) and losses."""
    c, names, B = model.config, model.streams, len(batch.ids)
    terms: dict[str, list[float]] = {name: [] for name in TERMS}
    contribution = {k: {"p": [], "q": []} for k in range(len(names) + 1)}
    common: list[dict[int, np.ndarray]] = []
    preds = []
    for b in range(B):
        X = {
            k: conv(model.convolution[k], array(batch.x[m][b][batch.mask[m][b]]))
            for k, m in enumerate(names)
            if batch.mask[m][b].any()
        }
        C = {k: np.array([sigmoid(linear(model.common[0], x)) for x in X[k]]) for k in X}
        P = {k: np.array([linear(model.private[k], x) for x in X[k]]) for k in X}
        Pe = dict(P)
        if model.enhance is not None:
            units = dict(zip(model.enhance.edges, model.enhance.attention, strict=True))
            for t in X:
                heard = [cross(units[s, t], P[t], P[s]) for s in X if s != t]
                Pe[t] = P[t] + sum(heard) / len(heard) if heard else P[t]
        for k in X:
            D = [linear(model.decode[k], np.concatenate(z)) for z in zip(C[k], P[k], strict=True)]
            terms["rec"].append(float(((X[k] - np.array(D)) ** 2).mean()))
        C, P, Pe = ({k: z.mean(0) for k, z in part.items()} for part in (C, P, Pe))
        common.append(C)
        terms["cp"] += [cosine(C[k], P[k], c.similarity) for k in X]
        terms["en"] += [cosine(C[k], Pe[k], c.similarity) for k in X]
        terms["pp"] += [cosine(P[i], P[j], c.similarity) for i, j in combinations(X, 2)]
        for name, unit, h in (("dc", model.learn_common, C), ("dp", model.learn_private, Pe)):
            if unit is not None and (loss := learn(unit, h, c.edges)) is not None:
                terms[name].append(loss)
        features = {0: np.mean(list(C.values()), axis=0)} if C else {}
        features |= {k + 1: z for k, z in Pe.items()}
        h = np.zeros(c.d_model)
        for k, z in features.items():
            omega = 1.0
            if model.contribution is not None:
                omega = float(sigmoid(mlp(model.contribution.MLP_p[k], z)).item())
                said = linear(model.contribution.classify[k], z)
                tcp, nll = true_share(task, said, array(batch.y[b]))
                contribution[k]["p"].append(nll)
                contribution[k]["q"].append((tcp - omega) ** 2)
            h = h + omega * z
        logits = mlp(model.head, h)
        terms["nll"].append(true_share(task, logits, array(batch.y[b]))[1])
        scores = np.arange(-3, 4)
        preds.append(softmax(list(logits)) @ scores if task == "regression" else logits)
    for i, j in combinations(range(len(names)), 2):
        both = [one for one in common if i in one and j in one]
        if len(both) > 1:
            terms["con"].append(
                numpy_cmd([one[i] for one in both], [one[j] for one in both], c.moments)
            )
    found = {name: float(np.mean(values)) if values else 0.0 for name, values in terms.items()}
    for name in ("p", "q"):
        found[name] = sum(float(np.mean(v[name])) for v in contribution.values() if v[name])
    weight = {"con": c.alpha, "rec": c.alpha, "cp": c.beta, "pp": c.beta, "en": c.gamma}
    weight |= {"p": c.delta, "q": c.delta}
    found = {name: value * weight.get(name, 1.0) for name, value in found.items()}
    return np.array(preds).reshape(B, -1), found


@pytest.mark.parametrize("task", K)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"similarity": "signed", "edges": "target", "kernel": 5, "moments": 3},
        {"similarity": "squared", "private_cml": False, "delta": 2.0},
        {"tcf": False, "alpha": 0.7, "beta": 0.3, "gamma": 0.9},
    ],
    ids=str,
)
def test_forward_and_losses_against_loops(settings: dict, task: str) -> None:
    spec = spec_of(task=task)
    model = build(spec, replace(TINY, **settings)).double()
    for parameter in model.parameters():  # larger than initial ones: nothing is nearly linear
        nn.init.normal_(parameter, std=0.5)
    batch = batch_of(spec, B=7)
    batch.x = {m: x.double() for m, x in batch.x.items()}
    batch.y = batch.y if task == "classification" else batch.y.double()
    batch = lacking(batch)
    out = model.train()(batch)
    pred, losses = reference(model, batch, task)
    np.testing.assert_allclose(array(out.pred), pred, atol=1e-5)
    off = {"dp"} if "private_cml" in settings else {"p", "q"} if "tcf" in settings else set()
    assert set(out.losses) == TERMS - off
    for name, loss in out.losses.items():
        assert float(loss.detach()) == pytest.approx(losses[name], rel=1e-5, abs=1e-7), name
        assert losses[name] > 0 or settings.get("similarity") == "signed", name


# --- losses -----------------------------------------------------------------------------------
def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (column(0, 1), column(0.5, 0.5), 0.3125),
        (column(0, 0), column(1, 1), 1.0),
        (column(0, 0, 1), column(1, 1, 0), 0.56379),
    ],
)
def test_central_moment_discrepancy_by_hand(a: torch.Tensor, b: torch.Tensor, expected: float):
    assert float(cmd(a, b, 5)) == pytest.approx(expected, abs=1e-5)
    # The same two samples as the common features of two streams.
    model = build(spec_of(("text", "audio")), TDMERConfig(alpha=1.0, rec=False, cp=False))
    present = torch.ones(len(a), 2, dtype=torch.bool)
    c = torch.stack([a, b], dim=1)
    losses = model.decoupling([], [], [], c, c, [], present)
    assert float(losses["con"]) == pytest.approx(expected, abs=1e-5)


def test_central_moment_discrepancy_of_a_shift_is_its_length() -> None:
    a = torch.rand(9, 4, dtype=torch.float64)
    shift = torch.tensor([0.3, -0.1, 0.2, 0.05], dtype=torch.float64)
    assert float(cmd(a, a + shift, 5)) == pytest.approx(float(shift.norm()))


@pytest.mark.parametrize(
    ("how", "expected"),
    [("hinge", [1, 0, 0, 0.6, 0]), ("signed", [1, 0, -1, 0.6, 0]), ("squared", [1, 0, 1, 0.36, 0])],
)
def test_similarity_by_hand(how: str, expected: list[float]) -> None:
    a = torch.tensor([[2.0, 0], [3, 0], [1, 0], [5, 0], [0, 0]])
    b = torch.tensor([[7.0, 0], [0, 1], [-4, 0], [3, 4], [1, 1]]).requires_grad_()
    got = similarity(a, b, how)
    assert got.tolist() == pytest.approx(expected, abs=1e-6)
    got.sum().backward()
    assert torch.isfinite(b.grad).all()


def test_existing_is_the_mean_of_what_is_there() -> None:
    values, keep = torch.tensor([1.0, float("nan"), 5.0]), torch.tensor([True, False, True])
    assert float(mean_where(values, keep)) == 3.0
    assert float(mean_where(values, torch.zeros(3, dtype=torch.bool))) == 0.0


def test_equal_logits_cost_nothing_and_sources_get_no_gradient() -> None:
    edges = [(p, q) for p in range(3) for q in range(3) if p != q]
    logits = torch.randn(4, 1, 7).expand(-1, 3, -1)
    assert not differences(logits, edges).any()
    unit = CrossModalLearning(3, 6, 7, "clip")
    same = torch.randn(4, 1, 6).expand(-1, 3, -1)
    assert float(unit(same, torch.ones(4, 3, dtype=torch.bool))[1].detach()) < 1e-6

    logits = torch.randn(4, 3, 7, requires_grad=True)
    psi = differences(logits, edges)
    for k, (p, q) in enumerate(edges):
        expected = (logits[:, p] - logits[:, q]).abs().sum(-1)
        torch.testing.assert_close(psi[:, k], expected)
        (gradient,) = torch.autograd.grad(psi[:, k].sum(), logits, retain_graph=True)
        assert gradient[:, q].abs().sum() == 4 * 7
        assert not gradient[:, [m for m in range(3) if m != q]].any()


@pytest.mark.parametrize("per", ["clip", "target"])
def test_edge_weights_sum_to_one(per: str) -> None:
    torch.manual_seed(0)
    unit = CrossModalLearning(3, 6, 4, per)
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]]).bool()
    omega, loss, _ = unit(torch.randn(4, 3, 6), present)
    torch.testing.assert_close(
        omega.sum(1), torch.tensor([1.0, 1, 0, 0] if per == "clip" else [3.0, 2, 0, 0])
    )
    there = {(0, 2), (2, 0)}  # in the second clip
    assert {e for e, w in zip(unit.edges, omega[1], strict=True) if w > 0} == there
    assert torch.isfinite(loss)
    if per == "target":
        for q in range(3):
            into = [k for k, edge in enumerate(unit.edges) if edge[1] == q]
            assert float(omega[0, into].sum().detach()) == pytest.approx(1.0)


def test_masked_softmax() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]], requires_grad=True)
    keep = torch.tensor([[True, False, True], [False, False, False]])
    got = masked_softmax(scores, keep)
    e = math.exp(2.0)
    expected = torch.tensor([[1 / (1 + e), 0, e / (1 + e)], [0, 0, 0]])
    torch.testing.assert_close(got, expected)
    (got**2).sum().backward()
    assert torch.isfinite(scores.grad).all() and not scores.grad[1].any()


def gradients(model: TDMER, loss: torch.Tensor) -> set[str]:
    """Names of parameters that a loss moves."""
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return {n for n, g in zip(named, found, strict=True) if g is not None and g.any()}


def test_which_loss_teaches_what() -> None:
    spec = spec_of()
    model = build(spec)
    losses = model.train()(batch_of(spec)).losses
    moved = {name: gradients(model, loss) for name, loss in losses.items()}

    def parts(name: str) -> set[str]:
        return {".".join(n.split(".")[: 2 if "contribution" in n else 1]) for n in moved[name]}

    features = {"convolution", "common", "private", "enhance"}
    assert parts("q") == features | {"contribution.MLP_p"}  # TCP is fixed: no classifier
    assert parts("p") == features | {"contribution.classify"}
    assert parts("nll") == features | {"contribution.MLP_p", "head"}
    assert parts("dc") == {"convolution", "common", "learn_common"}
    assert parts("dp") == {"convolution", "private", "enhance", "learn_private"}
    assert parts("con") == {"convolution", "common"}
    assert parts("rec") == {"convolution", "common", "private", "decode"}
    assert parts("pp") == {"convolution", "private"}

    other = build(spec, replace(TINY, detach_omega=True))
    other.load_state_dict(model.state_dict())
    again = other.train()(batch_of(spec)).losses
    assert all(torch.equal(again[name], loss) for name, loss in losses.items())
    taught = gradients(other, again["nll"])
    assert not any("MLP_p" in n for n in taught) and any("head" in n for n in taught)
    assert any("MLP_p" in n for n in gradients(other, again["q"]))


def test_labels_reach_losses_only_and_valid_selects_on_the_prediction() -> None:
    spec = spec_of()
    model, batch = build(spec), batch_of(spec, B=5)
    out = model.eval()(batch)
    assert set(out.losses) == {"nll"}
    batch.y = None
    assert model(batch).losses == {} and model.train()(batch).losses == {}
    assert torch.equal(model.eval()(batch).pred, out.pred)
    # -log of the true bin's probability, from the recorded probabilities.
    batch.record = True
    z = model(batch).weights["z"]
    index = labels_of("regression", 5)[:, 0].round().long() + 3
    assert float(out.losses["nll"].detach()) == pytest.approx(
        float(-z[torch.arange(5), index].log().mean()), rel=1e-5
    )


# --- ablations --------------------------------------------------------------------------------
# Row of Tables III to V (or ours): settings, terms that go, parameters that go, terms that may
# change, whether the prediction does.
ABLATIONS = {
    "L_con": ({"con": False}, {"con"}, (), set(), False),
    "L_rec": ({"rec": False}, {"rec"}, ("decode",), set(), False),
    "L_cp": ({"cp": False}, {"cp"}, (), set(), False),
    "L_pp": ({"pp": False}, {"pp"}, (), set(), False),
    "L_en": ({"en": False}, {"en"}, (), set(), False),
    "common CML": ({"common_cml": False}, {"dc"}, ("learn_common",), set(), False),
    "private CML": (
        {"private_cml": False},
        {"dp"},
        ("learn_private", "enhance"),
        {"en", "p", "q", "nll"},
        True,
    ),
    "both CML": (
        {"common_cml": False, "private_cml": False},
        {"dc", "dp"},
        ("learn_common", "learn_private", "enhance"),
        {"en", "p", "q", "nll"},
        True,
    ),
    "TCF": ({"tcf": False}, {"p", "q"}, ("contribution",), {"nll"}, True),
    "L_q": ({"q": False}, {"q"}, (), set(), False),
    "signed": ({"similarity": "signed"}, set(), (), {"cp", "pp", "en"}, False),
    "per target": ({"edges": "target"}, set(), (), {"dc", "dp"}, False),
    "Fig. 2": ({"alpha": 0.0, "beta": 0.0}, set(), (), {"con", "rec", "cp", "pp"}, False),
    "L_f": ({"delta": 0.0}, set(), (), {"p", "q"}, False),
}  # fmt: skip


@pytest.mark.parametrize("row", ABLATIONS)
def test_every_ablation_changes_what_it_says_and_nothing_else(row: str) -> None:
    settings, gone, lost, may_change, other_pred = ABLATIONS[row]
    spec, full = spec_of(), build(spec_of())
    model = build(spec, replace(TINY, **settings), seed=1)
    before, after = dict(full.named_parameters()), dict(model.named_parameters())
    assert {n for n in before if n.split(".")[0] in lost} == before.keys() - after.keys()
    assert bool(lost) == (count(model) < count(full))
    missing, _ = model.load_state_dict(full.state_dict(), strict=False)  # equal shapes, or it fails
    assert not missing
    out, plain = (m.train()(batch_of(spec, record=True)) for m in (model, full))
    assert set(out.losses) == TERMS - gone
    changed = {n for n, loss in out.losses.items() if not torch.equal(loss, plain.losses[n])}
    assert changed == may_change
    assert torch.equal(out.pred, plain.pred) != other_pred
    assert out.features["C_text"].equal(plain.features["C_text"])
    if row in ("L_f", "Fig. 2"):
        assert not any(out.losses[n].detach().any() for n in may_change)


def test_what_ablations_put_in_place() -> None:
    spec = spec_of()
    full, batch = build(spec), batch_of(spec, record=True)
    plain = full.eval()(batch)
    summed = build(spec, replace(TINY, tcf=False)).eval()
    summed.load_state_dict(full.state_dict(), strict=False)
    out = summed(batch)
    total = out.features["C"] + sum(out.features[f"Pe_{m}"] for m in ALL)
    torch.testing.assert_close(out.features["h"], total)
    assert "omega" not in out.weights and not any(n.startswith("z_") for n in out.weights)

    alone = build(spec, replace(TINY, private_cml=False)).eval()
    alone.load_state_dict(full.state_dict(), strict=False)
    out = alone(batch)
    for m in ALL:
        assert torch.equal(out.features[f"Pe_{m}"], out.features[f"P_{m}"])
        assert torch.equal(out.features[f"P_{m}"], plain.features[f"P_{m}"])
        assert not torch.equal(plain.features[f"Pe_{m}"], plain.features[f"P_{m}"])
    assert out.attention == {} and "omega_dp" not in out.weights
    features = [plain.features["C"], *(plain.features[f"Pe_{m}"] for m in ALL)]
    h = sum(w[:, None] * f for w, f in zip(plain.weights["omega"].T, features, strict=True))
    torch.testing.assert_close(plain.features["h"], h)


def test_logits_can_be_supervised() -> None:
    spec = spec_of()
    full, model = build(spec), build(spec, replace(TINY, supervise_logits=True))
    losses, plain = (m.train()(batch_of(spec)).losses for m in (model, full))
    assert set(losses) - set(plain) == {"logits_common", "logits_private"}
    assert all(torch.equal(losses[n], plain[n]) for n in plain)
    with torch.no_grad():
        model.learn_common.F_1.weight.zero_()
        model.learn_common.F_1.bias.zero_()
    uniform = model(batch_of(spec)).losses["logits_common"]
    assert float(uniform.detach()) == pytest.approx(math.log(7))


def test_weights_scale_their_terms() -> None:
    spec = spec_of()
    one, two = build(spec), build(spec, replace(TINY, alpha=0.2, beta=0.4, gamma=0.8, delta=1.6))
    losses, scaled = (m.train()(batch_of(spec)).losses for m in (one, two))
    factor = {"con": 2, "rec": 2, "cp": 4, "pp": 4, "en": 8, "p": 16, "q": 16}
    for name in TERMS:
        torch.testing.assert_close(scaled[name], losses[name] * factor.get(name, 1))


# --- contract ---------------------------------------------------------------------------------
def test_conformance() -> None:
    results = check_fusion("tdmer", ["fusion.d_model=12", "fusion.heads=2"])
    assert not failed(results)
    assert not any(result.status == "waived" for result in results)
    assert {r.check: r.status for r in results}["vmap"] == "stacked"


@pytest.mark.parametrize("task", K)
@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
def test_every_subset_task_and_absent_stream(names: tuple[str, ...], task: str) -> None:
    spec = spec_of(names, task)
    batch, model = batch_of(spec, B=6), build(spec)
    batch.mask[names[0]][1] = False
    out = model.train()(batch)
    sum(out.losses.values()).backward()
    assert out.pred.shape == (6, K[task]) and torch.isfinite(out.pred).all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        # Of two streams both edges have one psi: no weights of theirs make eq. 8 smaller.
        assert parameter.grad.any() or (len(names) == 2 and "F_2" in name), name
    across = {"con", "pp", "dc", "dp"}
    assert set(out.losses) == (TERMS if len(names) > 1 else TERMS - across)
    assert out.features == out.weights == out.attention == {}
    clean = model.eval()(batch).pred
    for m in names:
        batch.x[m][~batch.mask[m]] = float("nan")
    assert torch.equal(model(batch).pred, clean)


def test_streams_of_any_name_number_and_order() -> None:
    streams = {"a.b": (2, 3), "keys": (3, 2), "x y": (2, 2), "face": (4, 3), "é": (1, 1)}
    spec = DataSpec(streams)
    batch = batch_of(spec, B=5, record=True)
    out = build(spec).eval()(batch)
    assert torch.isfinite(out.pred).all() and out.weights["omega_dc"].shape == (5, 20)
    turned = DataSpec(dict(reversed(streams.items())))
    assert torch.equal(build(turned).eval()(batch).pred, out.pred)


@pytest.mark.parametrize("names", [("text",), ALL], ids="+".join)
def test_one_clip_and_nothing_at_all(names: tuple[str, ...]) -> None:
    spec = spec_of(names)
    model, one = build(spec).train(), batch_of(spec, B=1)
    out = model(one)
    assert out.pred.shape == (1, 1)
    assert float(out.losses.get("con", torch.zeros(())).detach()) == 0  # of one clip: no moments
    for mask in one.mask.values():
        mask.zero_()
    out = model(one)
    sum(out.losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert not any(loss.detach().any() for name, loss in out.losses.items() if name != "nll")
    empty = model.classes.pred(model.head(torch.zeros(1, 6)))
    torch.testing.assert_close(out.pred, empty)


def test_length_of_padding_does_not_matter() -> None:
    spec = spec_of()
    model, batch = build(spec).eval(), batch_of(spec)
    n = {m: int(batch.mask[m][1].sum()) for m in ALL}
    alone = Batch(
        {m: batch.x[m][1:2, : n[m]] for m in ALL}, {m: batch.mask[m][1:2, : n[m]] for m in ALL}
    )
    torch.testing.assert_close(model(alone).pred, model(batch).pred[1:2])


def recorded(task: str = "regression") -> tuple[TDMER, Batch, FusionOutput]:
    spec = spec_of(task=task)
    model, batch = build(spec).eval(), lacking(batch_of(spec, B=5, record=True))
    batch.y = None
    return model, batch, model(batch)


@pytest.mark.parametrize("task", K)
def test_record_fills_what_the_figures_show(task: str) -> None:
    _, batch, out = recorded(task)
    n = 7 if task == "regression" else K[task]
    features = {f"{kind}_{m}": (5, 6) for kind in ("X", "C", "P", "Pe") for m in ALL}
    assert {k: tuple(v.shape) for k, v in out.features.items()} == {
        **features, "C": (5, 6), "h": (5, 6),
    }  # fmt: skip
    assert {k: tuple(v.shape) for k, v in out.weights.items()} == {
        "omega": (5, 4), "omega_dc": (5, 6), "omega_dp": (5, 6), "z": (5, n), "z_C": (5, n),
        **{f"z_P_{m}": (5, n) for m in ALL},
    }  # fmt: skip
    T = {m: length for m, (_, length) in STREAMS.items()}
    assert {k: tuple(v.shape) for k, v in out.attention.items()} == {
        f"cross.{s}-to-{t}": (5, 2, T[t], T[s]) for s in ALL for t in ALL if s != t
    }
    for values in (*out.attention.values(), *out.weights.values(), *out.features.values()):
        assert torch.isfinite(values).all() and not values.requires_grad
    # Clip 1 has no audio, the first stream by name; clip 3 has nothing.
    omega = out.weights["omega"]
    assert (omega == 0).nonzero().tolist() == [[1, 1], [2, 2], [2, 3]] + [[3, k] for k in range(4)]
    assert omega.max() < 1
    for kind in ("X", "C", "P", "Pe"):
        assert not out.features[f"{kind}_audio"][1].any() and out.features[f"{kind}_text"][1].any()
    assert not out.weights["z_P_audio"][1].any()
    if task != "multilabel":
        torch.testing.assert_close(out.weights["z_C"].sum(1), torch.tensor([1.0, 1, 1, 0, 1]))
    seen = out.attention["cross.audio-to-text"].sum(-1)
    real = batch.mask["text"] & batch.mask["audio"].any(1, keepdim=True)
    torch.testing.assert_close(seen, real[:, None].float().expand_as(seen))


def test_recording_changes_nothing() -> None:
    model, batch, out = recorded()
    batch.record = False
    torch.testing.assert_close(model(batch).pred, out.pred)


# --- size and learning --------------------------------------------------------------------------
def test_parameters_by_hand() -> None:
    spec = DataSpec({"text": (768, 50), "audio": (74, 50), "vision": (35, 50)}, range=(-3.0, 3.0))
    model, d = TDMER(TDMERConfig(), spec), 50
    sizes = {
        "convolution": sum(3 * D * d + d for D in (768, 74, 35)),
        "common": d * d + d,
        "private": 3 * (d * d + d),
        "decode": 3 * (2 * d * d + d),
        "learn_common": d * 7 + 7 + 2 * (7 + d),
        "learn_private": d * 7 + 7 + 2 * (7 + d),
        "enhance": 6 * 4 * d * d,
        "contribution": 4 * (d * 7 + 7 + d * d + d + d + 1),
        "head": d * d + d + d * 7 + 7,
    }
    assert {n: count(part) for n, part in model.named_children() if count(part)} == sizes
    assert count(model) == sum(sizes.values()) == 232_731


@pytest.mark.parametrize("task", ONE_TASK)
def test_overfits_64_clips(task: str) -> None:
    spec = spec_of(task=task)
    model = build(spec, TDMERConfig(d_model=16, heads=2, dropout=0.0))
    batch = batch_of(spec, B=64)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    first = float(model.eval()(batch).losses["nll"].detach())
    for _ in range(60):
        loss = sum(model.train()(batch).losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(model.eval()(batch).losses["nll"].detach()) < 0.2 * first


@pytest.mark.slow
@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "unaligned"])
def test_fusing_beats_every_single_stream(aligned: bool, tmp_path: Path) -> None:
    file = interaction.write(tmp_path / "x.h5", aligned=aligned)
    report = mertool.train(file, tmp_path / "run", plugin="tdmer", seeds=1, device="cpu")
    errors = {stream: scores["mean"]["mae"] for stream, scores in report.valid.items()}
    together = errors.pop("")
    assert set(errors) == {"text", "audio", "vision"}
    assert together < 0.5 * min(errors.values())
