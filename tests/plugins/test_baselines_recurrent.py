"""ef_lstm, lf_lstm, tfn, lmf, mfn and late: against NumPy loops, and against what they promise."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import mertool
from mertool.nn import LowRankFusion, common_steps, resample, tensor_fusion
from mertool.registry import registry
from mertool.testing import check_fusion, failed, interaction
from mertool.types import Batch, DataSpec

STREAMS = {"text": (6, 5), "audio": (3, 7), "gaze.left": (2, 4)}
K = {"regression": 1, "classification": 4, "multilabel": 3}
SMALL = {
    "ef_lstm": {"d_h": 8, "steps": 6},
    "lf_lstm": {"d_h": 8},
    "tfn": {"d_recurrent": 7, "d_pooled": 4, "d_inference": 16},
    "lmf": {"r": 3, "d_recurrent": 7, "d_pooled": 4, "d_h": 8},
    "mfn": {"d_h": 5, "d_mem": 6, "d_hidden": 7, "steps": 6},
    "late": {"d_h": 8},
}
# Built to see two streams together; late is a sum of one function per stream.
INTERACTING = sorted(set(SMALL) - {"late"})
SUBSETS = [c for n in (1, 2, 3) for c in itertools.combinations(STREAMS, n)]


def spec_of(*names: str, task: str = "regression", alignment: str = "none") -> DataSpec:
    streams = {m: STREAMS[m] for m in names or STREAMS}
    if alignment != "none":
        streams = {m: (D, 5) for m, (D, _) in streams.items()}
    return DataSpec(streams, task=task, n_out=K[task], alignment=alignment)


def batch_of(spec: DataSpec, B: int = 4, steps: int = 0, seed: int = 0) -> Batch:
    """Random clips of random lengths, those of aligned streams equal; the first is the longest."""
    rng = np.random.default_rng(seed)
    x, mask, lengths = {}, {}, None
    for m, (D, T) in spec.streams.items():
        T = steps or T
        if lengths is None or spec.alignment == "none":
            lengths = rng.integers(1, T + 1, B)
            lengths[0] = T
        mask[m] = torch.from_numpy(np.arange(T) < lengths[:, None])
        x[m] = torch.from_numpy(rng.normal(size=(B, T, D)).astype("f4")) * mask[m][..., None]
    y = {
        "regression": rng.normal(size=(B, 1)).astype("f4"),
        "classification": rng.integers(0, spec.n_out, B),
        "multilabel": rng.integers(0, 2, (B, spec.n_out)).astype("f4"),
    }[spec.task]
    return Batch(x, mask, torch.from_numpy(y), tuple(map(str, range(B))))


def build(name: str, spec: DataSpec, seed: int = 0, **settings: object) -> nn.Module:
    torch.manual_seed(seed)
    fusion = registry().load("fusion", name)
    return fusion(fusion.Config(**{**SMALL[name], **settings}), spec).eval()


def lose(batch: Batch, stream: str, clip: int) -> None:
    """Take a stream from a clip."""
    batch.mask[stream][clip] = False
    batch.x[stream][clip] = 0.0


def weights(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().astype("f8") for name, p in model.named_parameters()}


def total_loss(out: mertool.FusionOutput) -> torch.Tensor:
    """Any loss: the prediction's size and the fusion's own terms."""
    return out.pred.square().sum() + sum(out.losses.values())


# --- the contract, for each -------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_registers_without_torch(name: str) -> None:
    entry = registry().get("fusion", name)
    assert entry.facts["task_loss"] == ("none" if name == "late" else "l1")
    assert entry.facts["fixed_length"] is False
    code = f"import sys, mertool_plugins.{name}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", SMALL)
def test_config(name: str) -> None:
    Config = registry().load("fusion", name).Config
    config = Config(**SMALL[name])
    again = {k: tuple(v) if isinstance(v, list) else v for k, v in asdict(config).items()}
    assert Config(**json.loads(json.dumps(again))) is not None and Config(**again) == config
    for field, value in asdict(Config()).items():
        if isinstance(value, int):
            with pytest.raises(ValueError, match=field):
                Config(**{field: 0})
    for wrong in (1.0, -0.1):
        with pytest.raises(ValueError, match="dropout"):
            Config(dropout=wrong)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("task", K)
@pytest.mark.parametrize("alignment", ["none", "word"])
def test_every_subset_of_streams(name: str, task: str, alignment: str) -> None:
    for names in SUBSETS:
        spec = spec_of(*names, task=task, alignment=alignment)
        model = build(name, spec)
        for B, steps in ((4, 0), (1, 1), (3, 9)):
            batch = batch_of(spec, B, steps)
            lose(batch, names[0], B - 1)  # with one stream: a clip without anything
            out = model(batch)
            assert out.pred.shape == (B, spec.n_out) and torch.isfinite(out.pred).all()
            assert out.features == out.attention == out.weights == {}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("alignment", ["none", "word"])
def test_padding_and_other_clips_do_not_matter(name: str, alignment: str) -> None:
    spec = spec_of(alignment=alignment)
    model, batch = build(name, spec), batch_of(spec)
    lose(batch, "audio", 1)
    pred = model(batch).pred
    garbage = {m: x.clone() for m, x in batch.x.items()}
    for m, x in garbage.items():
        x[~batch.mask[m]] = float("nan")
    torch.testing.assert_close(model(Batch(garbage, batch.mask)).pred, pred)
    order = torch.tensor([2, 0, 3, 1])
    turned = Batch(
        {m: x[order] for m, x in batch.x.items()},
        {m: mask[order] for m, mask in batch.mask.items()},
        y=torch.randn(4, 1),
    )
    torch.testing.assert_close(model(turned).pred, pred[order])
    # Each stream is padded by another amount, as a batch whose clips lack a stream may be.
    longer, masks = {}, {}
    for extra, m in enumerate(spec.streams):
        longer[m] = nn.functional.pad(batch.x[m], (0, 0, 0, 2 * extra))
        masks[m] = nn.functional.pad(batch.mask[m], (0, 2 * extra))
    torch.testing.assert_close(model(Batch(longer, masks)).pred, pred)


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_learns_though_streams_are_lost(name: str) -> None:
    spec = spec_of()
    wide = {"d_pooled": 32} if name == "tfn" else {}  # four ReLU units may all be dead
    model, batch = build(name, spec, dropout=0.0, **wide), batch_of(spec, B=16)
    lose(batch, "audio", 1)
    for m in spec.streams:
        lose(batch, m, 2)
    total_loss(model(batch)).backward()
    for key, p in model.named_parameters():
        assert torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", SMALL)
def test_takes_no_decision_from_values(name: str) -> None:
    spec = spec_of(task="classification")
    batch = batch_of(spec)
    with FakeTensorMode() as mode:
        model = build(name, spec)
        out = model(
            Batch(
                {m: mode.from_tensor(x) for m, x in batch.x.items()},
                {m: mode.from_tensor(mask) for m, mask in batch.mask.items()},
                mode.from_tensor(batch.y),
            )
        )
        assert out.pred.shape == (4, 4)


@pytest.mark.parametrize("name", SMALL)
def test_features_on_request(name: str) -> None:
    spec = spec_of("text", "audio")
    model, batch = build(name, spec), batch_of(spec)
    plain = model(batch).pred
    batch.record = True
    out = model(batch)
    expected = {
        "ef_lstm": {"fused": 8},
        "lf_lstm": {"text": 8, "audio": 8, "fused": 16},
        "tfn": {"text": 7, "audio": 4, "fused": 16},
        "lmf": {"text": 7, "audio": 4, "fused": 8},
        "mfn": {"text": 5, "audio": 5, "memory": 6, "fused": 16},
        "late": {"text": 8, "audio": 8},
    }[name]
    assert {k: tuple(v.shape) for k, v in out.features.items()} == {
        k: (4, d) for k, d in expected.items()
    }
    assert torch.equal(out.pred, plain)


@pytest.mark.parametrize("name", SMALL)
def test_conforms(name: str) -> None:
    assert not failed(check_fusion(name, [f"fusion.{k}={v}" for k, v in SMALL[name].items()]))


# --- common steps -----------------------------------------------------------------------------


@pytest.mark.parametrize("n, steps", [(1, 4), (5, 5), (7, 3), (3, 7), (4, 8), (9, 1), (0, 3)])
def test_resample_is_the_mean_over_time(n: int, steps: int) -> None:
    """Against a clock so fine that both divisions fall on its ticks."""
    rng = np.random.default_rng(n)
    place = np.sort(rng.permutation(n + 2)[:n])  # real rows need not stand first
    x, mask = np.full((1, n + 2, 2), np.nan, "f4"), np.zeros((1, n + 2), bool)
    x[0, place], mask[0, place] = rng.normal(size=(n, 2)), True
    expected = np.zeros((steps, 2))
    if n:
        ticks = math.lcm(n, steps)
        fine = np.repeat(x[0, place], ticks // n, axis=0)
        expected = fine.reshape(steps, ticks // steps, 2).mean(axis=1)
    result = resample(torch.from_numpy(x), torch.from_numpy(mask), steps)
    np.testing.assert_allclose(result[0].numpy(), expected, atol=1e-6)


def test_common_steps_of_aligned_streams_only_pads() -> None:
    spec = spec_of("text", "audio")
    batch = batch_of(spec)
    x, mask = common_steps(list(batch.x.values()), list(batch.mask.values()), None)
    assert [z.shape[1] for z in x] == [m.shape[1] for m in mask] == [7, 7]
    assert torch.equal(x[0][:, :5], batch.x["text"]) and not x[0][:, 5:].any()
    assert torch.equal(mask[0][:, :5], batch.mask["text"]) and not mask[0][:, 5:].any()


# --- against NumPy ----------------------------------------------------------------------------


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def run_lstm(w: dict[str, np.ndarray], prefix: str, x: np.ndarray) -> np.ndarray:
    """Last h of torch's LSTM over (T, D), gates in the order i, f, g, o."""
    W, U = w[f"{prefix}.weight_ih_l0"], w[f"{prefix}.weight_hh_l0"]
    b = w[f"{prefix}.bias_ih_l0"] + w[f"{prefix}.bias_hh_l0"]
    h = c = np.zeros(U.shape[1])
    for row in x:
        i, f, g, o = np.split(W @ row + U @ h + b, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return h


def linear(w: dict[str, np.ndarray], prefix: str, x: np.ndarray) -> np.ndarray:
    return w[f"{prefix}.weight"] @ x + w[f"{prefix}.bias"]


def perceptron(w: dict[str, np.ndarray], prefix: str, x: np.ndarray) -> np.ndarray:
    """Linear, ReLU, (dropout), Linear."""
    return linear(w, f"{prefix}.3", np.maximum(linear(w, f"{prefix}.0", x), 0))


def real_rows(batch: Batch, stream: str, clip: int) -> np.ndarray:
    return batch.x[stream][clip][batch.mask[stream][clip]].numpy().astype("f8")


def test_lf_lstm_and_late_match_numpy() -> None:
    spec = spec_of()
    batch = batch_of(spec)
    lose(batch, "audio", 1)
    names = sorted(STREAMS)
    lf, late = build("lf_lstm", spec), build("late", spec)
    w, v = weights(lf), weights(late)
    for clip in range(4):
        rows = [real_rows(batch, m, clip) for m in names]
        last = [run_lstm(w, f"lstms.{k}.layers.0.0", x) for k, x in enumerate(rows)]
        expected = perceptron(w, "head", np.concatenate(last))
        np.testing.assert_allclose(lf(batch).pred[clip].detach(), expected, atol=1e-5)
        each = [
            perceptron(v, f"heads.{k}", run_lstm(v, f"lstms.{k}.layers.0.0", x))
            for k, x in enumerate(rows)
            if len(x)
        ]
        assert len(each) == (2 if clip == 1 else 3)
        expected = sum(each) / len(each)
        np.testing.assert_allclose(late(batch).pred[clip].detach(), expected, atol=1e-5)


def test_ef_lstm_matches_numpy() -> None:
    spec = spec_of(alignment="word")
    model, batch = build("ef_lstm", spec), batch_of(spec)
    lose(batch, "audio", 1)
    w = weights(model)
    for clip in range(4):
        T = int(batch.mask["text"][clip].sum())
        x = np.concatenate([batch.x[m][clip, :T].numpy() for m in sorted(STREAMS)], axis=1)
        expected = perceptron(w, "head", run_lstm(w, "lstm.layers.0.0", x.astype("f8")))
        np.testing.assert_allclose(model(batch).pred[clip].detach(), expected, atol=1e-5)


def test_ef_lstm_resamples_unaligned_streams() -> None:
    """The same as the aligned model on rows that were resampled before."""
    spec = spec_of()
    batch = batch_of(spec)
    free, bound = build("ef_lstm", spec), build("ef_lstm", spec_of(alignment="segments:6"))
    x = {m: resample(batch.x[m], batch.mask[m], 6) for m in spec.streams}
    mask = {m: torch.ones(4, 6, dtype=torch.bool) for m in spec.streams}
    torch.testing.assert_close(free(batch).pred, bound(Batch(x, mask)).pred)
    one = spec_of("text")  # one stream needs no common steps
    batch = batch_of(one)
    np.testing.assert_allclose(
        build("ef_lstm", one)(batch).pred.detach(),
        build("ef_lstm", spec_of("text", alignment="word"))(batch).pred.detach(),
    )


def brute_outer(zs: list[np.ndarray]) -> np.ndarray:
    """The tensor of one clip, entry by entry."""
    ones = [np.append(z, 1.0) for z in zs]
    tensor = np.zeros([len(z) for z in ones])
    for index in np.ndindex(*tensor.shape):
        tensor[index] = math.prod(z[i] for z, i in zip(ones, index, strict=True))
    return tensor


@pytest.mark.parametrize("widths", [(4,), (3, 5), (4, 2, 3), (2, 1, 3, 2)])
def test_tfn_tensor(widths: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    zs = [rng.normal(size=(3, d)) for d in widths]
    tensor = tensor_fusion([torch.from_numpy(z) for z in zs]).numpy()
    for clip in range(3):
        np.testing.assert_allclose(
            tensor[clip], brute_outer([z[clip] for z in zs]).ravel(), atol=1e-12
        )


def test_tfn_without_a_stream_keeps_the_tensor_of_the_others() -> None:
    rng = np.random.default_rng(0)
    a, b, c = (torch.from_numpy(rng.normal(size=(2, d))) for d in (4, 2, 3))
    tensor = tensor_fusion([a, torch.zeros_like(b), c]).reshape(2, 5, 3, 4)
    assert not tensor[:, :, :2].any()
    assert torch.equal(tensor[:, :, 2].flatten(1), tensor_fusion([a, c]))


def test_tfn_matches_numpy() -> None:
    spec = spec_of()
    model, batch = build("tfn", spec), batch_of(spec)
    lose(batch, "audio", 1)
    w = weights(model)
    for clip in range(4):
        zs = []
        for k, m in enumerate(sorted(STREAMS)):
            rows = real_rows(batch, m, clip)
            if not len(rows):
                zs.append(np.zeros(4))
                continue
            text = m == "text"
            z = run_lstm(w, f"embeddings.{k}.lstm.layers.0.0", rows) if text else rows.mean(axis=0)
            for layer in range(2 if text else 3):
                z = np.maximum(linear(w, f"embeddings.{k}.U.{3 * layer}", z), 0)
            zs.append(z)
        h = brute_outer(zs).ravel()
        for layer in range(2):
            h = np.maximum(linear(w, f"inference.{3 * layer}", h), 0)
        expected = linear(w, "decision", h)
        np.testing.assert_allclose(model(batch).pred[clip].detach(), expected, atol=1e-5)


def test_tfn_refuses_a_tensor_that_nobody_can_hold() -> None:
    spec = DataSpec({f"s{i}": (3, 4) for i in range(5)})
    with pytest.raises(ValueError, match="39135393 entries"):
        build("tfn", spec, d_pooled=32)
    assert build("tfn", spec, d_pooled=4)(batch_of(spec)).pred.shape == (4, 1)


@pytest.mark.parametrize("widths", [(4,), (3, 5), (4, 2, 3)])
def test_lmf_is_a_linear_map_of_the_tensor(widths: tuple[int, ...]) -> None:
    """h = W Z + b with W = sum of outer products of the factors, both built in full."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    fusion = LowRankFusion(list(widths), r=3, d_h=6).double()
    nn.init.normal_(fusion.b)
    factors = [w.detach().numpy() for w in fusion.w]
    W = np.zeros([6] + [d + 1 for d in widths])
    for index in np.ndindex(*W.shape):
        W[index] = sum(
            math.prod(w[r, i, index[0]] for w, i in zip(factors, index[1:], strict=True))
            for r in range(3)
        )
    zs = [rng.normal(size=(5, d)) for d in widths]
    h = fusion([torch.from_numpy(z) for z in zs]).detach().numpy()
    for clip in range(5):
        Z = brute_outer([z[clip] for z in zs])
        expected = (W * Z).reshape(6, -1).sum(axis=1) + fusion.b.detach().numpy()
        np.testing.assert_allclose(h[clip], expected, atol=1e-10)


def test_lmf_of_full_rank_is_any_linear_map_of_the_tensor() -> None:
    """One rank per pair of entries of the first two streams; the last one's factor holds W."""
    rng = np.random.default_rng(0)
    widths, d_h = [2, 3, 4], 5
    W = rng.normal(size=(3, 4, 5, d_h))
    fusion = LowRankFusion(widths, r=3 * 4, d_h=d_h).double()
    with torch.no_grad():
        for w in fusion.w:
            w.zero_()
        for r, (i, j) in enumerate(np.ndindex(3, 4)):
            fusion.w[0][r, i] = 1.0
            fusion.w[1][r, j] = 1.0
            fusion.w[2][r] = torch.from_numpy(W[i, j])
    zs = [rng.normal(size=(2, d)) for d in widths]
    h = fusion([torch.from_numpy(z) for z in zs]).detach().numpy()
    for clip in range(2):
        expected = np.einsum("ijk,ijkh->h", brute_outer([z[clip] for z in zs]), W)
        np.testing.assert_allclose(h[clip], expected, atol=1e-10)


def test_mfn_matches_numpy() -> None:
    spec = spec_of(alignment="word")
    model, batch = build("mfn", spec), batch_of(spec)
    lose(batch, "audio", 1)
    w, names = weights(model), sorted(STREAMS)
    for clip in range(4):
        h, c = {m: np.zeros(5) for m in names}, {m: np.zeros(5) for m in names}
        u = np.zeros(6)
        for t in range(int(batch.mask["text"][clip].sum())):
            before = np.concatenate([c[m] for m in names])
            for n, m in enumerate(names):
                if not batch.mask[m][clip, t]:
                    continue
                z = linear(w, f"W.{n}", batch.x[m][clip, t].numpy()) + h[m] @ w["U"][n]
                i, f, o, new = np.split(z, 4)
                c[m] = sigmoid(f) * c[m] + sigmoid(i) * np.tanh(new)
                h[m] = sigmoid(o) * np.tanh(c[m])
            delta = np.concatenate([before, *(c[m] for m in names)])
            scores = np.exp(perceptron(w, "D_a", delta))
            c_hat = scores / scores.sum() * delta
            retain = sigmoid(perceptron(w, "D_gamma1", c_hat))
            update = sigmoid(perceptron(w, "D_gamma2", c_hat))
            u = retain * u + update * np.tanh(perceptron(w, "D_u", c_hat))
        expected = perceptron(w, "head", np.concatenate([*(h[m] for m in names), u]))
        np.testing.assert_allclose(model(batch).pred[clip].detach(), expected, atol=1e-5)


# --- late ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", K)
def test_late_models_do_not_depend_on_each_other(task: str) -> None:
    """Each has the loss, the gradient and, alone, the prediction that it has without the others."""
    spec = spec_of(task=task)
    model, batch = build("late", spec, dropout=0.0), batch_of(spec, B=8)
    lose(batch, "audio", 1)
    out = model(batch)
    sum(out.losses.values()).backward()
    alone = {}
    for k, m in enumerate(model.streams):
        single = build("late", spec_of(m, task=task), dropout=0.0)
        single.lstms[0].load_state_dict(model.lstms[k].state_dict())
        single.heads[0].load_state_dict(model.heads[k].state_dict())
        only = single(Batch({m: batch.x[m]}, {m: batch.mask[m]}, batch.y))
        assert list(only.losses) == [f"task.{m}"]
        torch.testing.assert_close(only.losses[f"task.{m}"], out.losses[f"task.{m}"])
        only.losses[f"task.{m}"].backward()
        for own, shared in zip(
            single.lstms[0].parameters(), model.lstms[k].parameters(), strict=True
        ):
            torch.testing.assert_close(own.grad, shared.grad)
        alone[m] = only.pred
    mean = sum(alone.values()) / 3
    mean[1] = (alone["text"][1] + alone["gaze.left"][1]) / 2  # what is missing leaves the mean
    torch.testing.assert_close(out.pred, mean)


def test_late_loss_is_the_tasks_own() -> None:
    for task, loss in (
        ("regression", nn.functional.l1_loss),
        ("classification", nn.functional.cross_entropy),
        ("multilabel", nn.functional.binary_cross_entropy_with_logits),
    ):
        spec = spec_of("text", task=task)
        model, batch = build("late", spec), batch_of(spec)
        lose(batch, "text", 3)
        out = model(batch)  # with one stream its prediction is the fusion's
        expected = loss(out.pred[:3], batch.y[:3])
        torch.testing.assert_close(out.losses["task.text"], expected)
        assert not out.pred[3].any()  # nothing to judge by: 0
        lost = Batch(batch.x, {"text": torch.zeros_like(batch.mask["text"])}, batch.y)
        assert model(lost).losses["task.text"] == 0
        assert model(Batch(batch.x, batch.mask)).losses == {}  # no labels, no loss


# --- a label that needs two streams -----------------------------------------------------------

FAST = {
    "ef_lstm": ("fusion.d_h=32", "fusion.steps=12"),
    "lf_lstm": ("fusion.d_h=32",),
    "tfn": ("fusion.d_recurrent=16", "fusion.d_pooled=8", "fusion.d_inference=32"),
    "lmf": ("fusion.d_h=32",),
    "mfn": ("fusion.d_h=16", "fusion.d_mem=16", "fusion.d_hidden=32", "fusion.steps=12"),
    "late": ("fusion.d_h=32",),
}


def test_interaction_hides_the_label_from_each_stream(tmp_path) -> None:
    """Within each sign of text, and of audio, the label is +1 as often as -1."""
    file = mertool.open(interaction.write(tmp_path / "x.h5", clips=80, noise=0.3))
    signs, y = {"text": [], "audio": []}, []
    for clip in (file[i] for i in file.ids):
        y.append(clip.labels["score"])
        for m, found in signs.items():
            found.append(np.sign(clip.streams[m].values[:, 0].mean()))
    product = np.array(signs["text"]) * np.array(signs["audio"])
    assert (product == y).all() and np.mean(y) == 0
    for found in signs.values():
        assert np.mean(np.array(found) * y) == 0


@pytest.mark.slow
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("name", SMALL)
def test_two_streams_together(name: str, aligned: bool, tmp_path) -> None:
    """On clips of speakers never seen, the fusion is right where no single stream can be."""
    path = interaction.write(tmp_path / "x.h5", aligned=aligned)
    settings = ("train.lr=5e-3", "train.epochs=40", *FAST[name])
    mertool.train(path, tmp_path / "run", plugin=name, seeds=1, settings=settings)
    report = mertool.evaluate(tmp_path / "run")
    alone = {m: report.singles[m]["mean"] for m in ("text", "audio", "vision")}
    for scores in alone.values():
        assert scores["mae"] > 0.85 and 0.3 < scores["acc2"] < 0.7
    if name in INTERACTING:
        assert report.mean["mae"] < 0.5 * min(scores["mae"] for scores in alone.values())
        assert report.mean["acc2"] > 0.9
    else:  # a sum of one function per stream cannot fit a product
        assert report.mean["mae"] > 0.85 and 0.3 < report.mean["acc2"] < 0.7
