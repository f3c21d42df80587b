"""The baselines mult, misa, self_mm and transformer: numbers by hand, contract, interaction."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import K, batch_of
from mertool_plugins.misa.model import MISA, MISAConfig
from mertool_plugins.mult.model import MulT, MulTConfig, Stack
from mertool_plugins.self_mm.labels import LabelMemory
from mertool_plugins.self_mm.model import SelfMM, SelfMMConfig
from mertool_plugins.transformer.model import Transformer, TransformerConfig
from synthetic import ONE_TASK
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import mertool
from mertool import nn as blocks
from mertool.testing import check_fusion, failed, interaction
from mertool.types import Batch, DataSpec

MODELS = {
    "mult": (MulT, MulTConfig(d_model=8, heads=2, layers=1, self_layers=1)),
    "misa": (MISA, MISAConfig(d_model=8, d_lstm=4)),
    "self_mm": (SelfMM, SelfMMConfig(d_lstm=4, d_fusion=6, d_unimodal=4)),
    "transformer": (Transformer, TransformerConfig(d_model=8, heads=2)),
}
SMALL = {
    "mult": ["d_model=16", "heads=2", "layers=1", "self_layers=1", "dropout=0.1", "text_dropout=0"],
    "misa": ["d_model=32", "d_lstm=16", "lstm_layers=1"],
    "self_mm": ["d_lstm=16", "d_fusion=32", "d_unimodal=16"],
    "transformer": ["d_model=32", "heads=4"],
}
STREAMS = {"text": (6, 7), "audio": (3, 9), "vision": (5, 8)}
SUBSETS = [names for n in (1, 2, 3) for names in combinations(STREAMS, n)]


def spec_of(names=tuple(STREAMS), task: str = "regression") -> DataSpec:
    return DataSpec({m: STREAMS[m] for m in names}, task, K[task], range=(-3.0, 3.0))


def build(name: str, spec: DataSpec, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    cls, config = MODELS[name]
    return cls(config, spec)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# --- contract ---------------------------------------------------------------------------------
@pytest.mark.parametrize("name", MODELS)
def test_conformance(name: str) -> None:
    results = check_fusion(name, [f"fusion.{setting}" for setting in SMALL[name]])
    assert not failed(results)
    assert not any(result.status == "waived" for result in results)


@pytest.mark.parametrize("task", K)
@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
@pytest.mark.parametrize("name", MODELS)
def test_every_subset_task_and_absent_stream(name: str, names: tuple[str, ...], task: str) -> None:
    spec = spec_of(names, task)
    batch = batch_of(spec)
    batch.mask[names[0]][1] = False
    model = build(name, spec)
    for _ in range(2):
        out = model.train()(batch)
        (out.pred.square().sum() + sum(out.losses.values())).backward()
    assert out.pred.shape == (4, K[task]) and torch.isfinite(out.pred).all()
    for parameter in model.parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all()
    # What the batch holds where the clip has nothing is not looked at.
    clean = model.eval()(batch).pred
    batch.x[names[0]][1] = float("nan")
    assert torch.equal(model(batch).pred, clean)


@pytest.mark.parametrize("name", MODELS)
def test_padding_is_ignored(name: str) -> None:
    spec = spec_of()
    model, batch = build(name, spec).eval(), batch_of(spec, B=3)
    alone = {m: batch.mask[m][1].sum() for m in STREAMS}
    short = Batch(
        {m: batch.x[m][1:2, : alone[m]] for m in STREAMS},
        {m: batch.mask[m][1:2, : alone[m]] for m in STREAMS},
        ids=("clip1",),
    )
    dirty = Batch({m: x.clone() for m, x in batch.x.items()}, batch.mask, ids=batch.ids)
    for m, x in dirty.x.items():
        x[~batch.mask[m]] = 1e4
    torch.testing.assert_close(model(short).pred, model(batch).pred[1:2])
    assert torch.equal(model(dirty).pred, model(batch).pred)


@pytest.mark.parametrize("task", ONE_TASK)
@pytest.mark.parametrize("name", MODELS)
def test_takes_no_decision_from_values(name: str, task: str) -> None:
    spec = spec_of(task=task)
    batch = batch_of(spec)
    with FakeTensorMode() as mode:
        model = build(name, spec)
        fake = Batch(
            {m: mode.from_tensor(x) for m, x in batch.x.items()},
            {m: mode.from_tensor(mask) for m, mask in batch.mask.items()},
            mode.from_tensor(batch.y),
            batch.ids,
        )
        for _ in range(2):  # self_mm: a first and a later epoch
            out = model(fake)
            (out.pred.sum() + sum(out.losses.values())).backward()
        fake.record = True
        assert model.eval()(fake).pred.shape == (4, K[task])


@pytest.mark.parametrize("name", MODELS)
def test_order_of_streams_does_not_matter(name: str) -> None:
    batch = batch_of(spec_of())
    one = build(name, spec_of()).eval()
    two = build(name, spec_of(tuple(reversed(STREAMS)))).eval()
    assert torch.equal(one(batch).pred, two(batch).pred)


def test_what_is_recorded() -> None:
    spec = spec_of()
    batch = batch_of(spec)
    batch.record = True
    T = {m: length - 2 for m, (_, length) in STREAMS.items()}  # kernels of 3
    out = build("mult", spec).eval()(batch)
    expected = {f"self.1.{t}": (4, 2, T[t], T[t]) for t in STREAMS}
    expected |= {f"cross.1.{s}-to-{t}": (4, 2, T[t], T[s]) for s in T for t in T if s != t}
    assert {name: tuple(a.shape) for name, a in out.attention.items()} == expected
    assert out.features["Z_text"].shape == (4, 16) and out.features["fused"].shape == (4, 48)

    out = build("misa", spec).eval()(batch)
    assert out.attention["fusion"].shape == (4, 2, 6, 6)
    kinds = {f"{kind}_{m}" for kind in ("u", "shared", "private") for m in STREAMS}
    assert set(out.features) == kinds | {"fused"}

    out = build("self_mm", spec).eval()(batch)
    assert {m: f.shape[1] for m, f in out.features.items()} == {
        "F_audio": 4, "F_text": 4, "F_vision": 4, "fused": 6,
    }  # fmt: skip

    out = build("transformer", spec).eval()(batch)
    assert out.attention["encoder.2"].shape == (4, 2, 24, 24)
    assert set(out.features) == {"U_audio", "U_text", "U_vision", "fused"}


# --- mult -------------------------------------------------------------------------------------
PUBLIC = MulTConfig(d_model=50, heads=10, layers=4, kernel_text=5, kernel_audio=5, kernel_vision=5)
PUBLIC_SPEC = DataSpec({"text": (768, 20), "audio": (5, 20), "vision": (20, 20)})


def test_mult_has_as_many_parameters_as_the_public_one() -> None:
    model = MulT(PUBLIC, PUBLIC_SPEC)
    assert count(model) == 2_571_551
    # The sum of the table in model.py.
    assert count(model.convolutions) == 198_250
    assert count(model.cross) == 736_200
    assert count(model.own) == 1_456_200
    assert count(model.residual) == 180_600
    assert count(model.head) == 301


def test_mult_twenty_steps_become_sixteen() -> None:
    model = MulT(PUBLIC, PUBLIC_SPEC).eval()
    x = {m: torch.randn(2, 20, D) for m, (D, _) in PUBLIC_SPEC.streams.items()}
    mask = {m: torch.arange(20) < torch.tensor([[20], [11]]) for m in x}
    Z, masks = model.embed(Batch(x, mask))
    for m in x:
        assert Z[m].shape == (2, 16, 50)
        assert masks[m].sum(1).tolist() == [16, 7]  # windows of five real steps each
        assert not Z[m][~masks[m]].any()


def test_mult_runs_on_fewer_steps_than_the_kernel() -> None:
    model = MulT(PUBLIC, PUBLIC_SPEC).eval()
    x = {m: torch.randn(3, 3, D) for m, (D, _) in PUBLIC_SPEC.streams.items()}
    mask = {m: torch.arange(3) < torch.tensor([[3], [1], [0]]) for m in x}
    Z, masks = model.embed(Batch(x, mask))
    assert masks["text"].tolist() == [[True], [True], [False]]
    # The one window of a clip of one step: its first tap alone, at position 0 (sin 0, cos 0, ...).
    expected = model.convolutions[1].weight[:, :, 0] @ x["text"][1, 0]
    expected[1::2] += 1
    torch.testing.assert_close(Z["text"][1, 0], expected)
    assert torch.isfinite(model(Batch(x, mask, ids=("a", "b", "c"))).pred).all()


def layer_norm(x: np.ndarray, norm: nn.LayerNorm) -> np.ndarray:
    weight, bias = norm.weight.detach().double().numpy(), norm.bias.detach().double().numpy()
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + norm.eps) * weight + bias


def linear(x: np.ndarray, layer: nn.Linear) -> np.ndarray:
    return x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()


@pytest.mark.parametrize("record", [False, True])
def test_mult_crossmodal_transformer_against_loops(record: bool) -> None:
    """Eq. 1 and 4, query by query and head by head."""
    torch.manual_seed(0)
    d, H, T_t, T_s = 6, 3, 4, 5
    stack = Stack(d, H, 2, 0.0, cross=True).double().eval()
    for parameter in stack.parameters():
        nn.init.normal_(parameter, std=0.7)
    target, source = torch.randn(1, T_t, d).double(), torch.randn(1, T_s, d).double()
    seen = 3  # real steps of the source
    got, attention = stack(
        target, torch.ones(1, T_t).bool(), source, torch.arange(T_s)[None] < seen, record
    )
    z, low = target[0].numpy(), source[0, :seen].numpy()
    for i, layer in enumerate(stack.layers):
        W = layer.attention.packed.detach().numpy()
        b = layer.attention.bias.detach().numpy()
        queries, keys = layer_norm(z, layer.norm_x), layer_norm(low, layer.norm_x)
        heads = np.zeros((T_t, d))
        for h in range(H):
            part = slice(h * d // H, (h + 1) * d // H)
            W_Q, W_K, W_V = (W[k * d : (k + 1) * d][part] for k in range(3))
            b_Q, b_K, b_V = (b[k * d : (k + 1) * d][part] for k in range(3))
            for t in range(T_t):
                q = W_Q @ queries[t] + b_Q
                scores = np.array([q @ (W_K @ key + b_K) / np.sqrt(d / H) for key in keys])
                alpha = np.exp(scores) / np.exp(scores).sum()
                heads[t, part] = sum(
                    a * (W_V @ key + b_V) for a, key in zip(alpha, keys, strict=True)
                )
                if record:
                    np.testing.assert_allclose(attention[i][0, h, t, :seen], alpha, atol=1e-12)
                    assert not attention[i][0, h, t, seen:].any()
        z = z + linear(heads, layer.attention.out)
        hidden = np.maximum(linear(layer_norm(z, layer.norm_ff), layer.expand), 0)
        z = z + linear(hidden, layer.contract)
    expected = layer_norm(z, stack.norm)
    np.testing.assert_allclose(got[0].detach().numpy(), expected, atol=1e-10)


def test_mult_reads_the_last_real_step_of_every_target() -> None:
    spec = spec_of(("text", "audio"))
    model, batch = build("mult", spec).eval(), batch_of(spec)
    seen: list[torch.Tensor] = []
    for own in model.own:
        own.register_forward_hook(lambda _, __, out: seen.append(out[0]))
    inputs: list[torch.Tensor] = []
    model.residual.register_forward_hook(lambda _, args, __: inputs.append(args[0]))
    model(batch)
    for k, m in enumerate(("audio", "text")):
        for b in range(4):
            last = max(0, int(batch.mask[m][b].sum()) - 3)  # n - kernel + 1 steps, counted from 0
            torch.testing.assert_close(inputs[0][b, 8 * k : 8 * k + 8], seen[k][b, last])


# --- misa -------------------------------------------------------------------------------------
def numpy_cmd(a: np.ndarray, b: np.ndarray, moments: int) -> float:
    total = np.sqrt(((a.mean(0) - b.mean(0)) ** 2).sum())
    for k in range(2, moments + 1):
        central = ((a - a.mean(0)) ** k).mean(0) - ((b - b.mean(0)) ** k).mean(0)
        total += np.sqrt((central**2).sum())
    return float(total)


def numpy_difference(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(0), b - b.mean(0)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    return float(((a.T @ b) ** 2).mean())


def misa_inputs(B: int = 6, M: int = 3, d: int = 8) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.rand(B, M, d) for _ in range(4)]


def test_misa_losses_against_numpy_with_absent_streams() -> None:
    model = build("misa", spec_of())
    tensors = misa_inputs()
    present = torch.ones(6, 3, dtype=torch.bool)
    present[0, 0] = present[3, 2] = present[4, 2] = False
    got = model.losses(*tensors, present)
    u, common, private, rebuilt = (z.double().numpy() for z in tensors)
    have = present.numpy()
    sim, diff, error = [], [], []
    for i, j in combinations(range(3), 2):
        both = have[:, i] & have[:, j]
        sim.append(numpy_cmd(common[both, i], common[both, j], 5))
        diff.append(numpy_difference(private[both, i], private[both, j]))
    for i in range(3):
        diff.append(numpy_difference(common[have[:, i], i], private[have[:, i], i]))
        error += [((u[b, i] - rebuilt[b, i]) ** 2).mean() for b in range(6) if have[b, i]]
    assert float(got["sim"]) == pytest.approx(np.mean(sim), rel=1e-5)
    assert float(got["diff"]) == pytest.approx(0.3 * np.sum(diff), rel=1e-5)
    assert float(got["recon"]) == pytest.approx(np.mean(error), rel=1e-5)
    # And the shared functions see the same rows.
    both = present[:, 0] & present[:, 1]
    direct = blocks.cmd(tensors[1][both, 0], tensors[1][both, 1])
    assert float(direct) == pytest.approx(sim[0], rel=1e-5)


def test_misa_losses_are_zero_where_they_should_be() -> None:
    model = build("misa", spec_of())
    u, common, private, _ = misa_inputs(B=8)
    everywhere = torch.ones(8, 3, dtype=torch.bool)
    same = common[:, :1].expand(-1, 3, -1)
    assert float(model.losses(u, same, private, u, everywhere)["sim"]) == pytest.approx(0, abs=1e-6)
    # Signs of eight clips, balanced, each uncorrelated with the others: a^T b has only zeros.
    bits = torch.arange(8)[:, None] >> torch.arange(3) & 1
    signs = torch.cat([bits, bits.sum(1, keepdim=True) % 2], dim=1) * 2.0 - 1  # (8, 4)
    common, private = torch.zeros(8, 3, 8), torch.zeros(8, 3, 8)
    for i in range(3):
        common[:, i, i] = signs[:, 3]
        private[:, i, i] = signs[:, i]
    losses = model.losses(u, common, private, u, everywhere)
    assert float(losses["diff"]) == pytest.approx(0, abs=1e-7) and float(losses["recon"]) == 0
    assert float(losses["sim"]) > 0.1
    private[:, 0] = common[:, 0]
    assert float(model.losses(u, common, private, u, everywhere)["diff"]) > 0.004


def test_misa_pairs_that_too_few_clips_have_do_not_dilute_the_mean() -> None:
    model = build("misa", spec_of())
    tensors = misa_inputs()
    present = torch.ones(6, 3, dtype=torch.bool)
    present[:, 2] = False
    sim = float(model.losses(*tensors, present)["sim"])
    common = tensors[1].double().numpy()
    assert sim == pytest.approx(numpy_cmd(common[:, 0], common[:, 1], 5), rel=1e-5)
    one = model.losses(*(z[:1] for z in tensors), present[:1])
    assert float(one["sim"]) == 0 and float(one["diff"]) == 0 and float(one["recon"]) > 0


def test_misa_one_stream_has_no_similarity() -> None:
    spec = spec_of(("audio",))
    assert set(build("misa", spec)(batch_of(spec)).losses) == {"diff", "recon"}


# --- self_mm ----------------------------------------------------------------------------------
def tensors(*columns: list[list[float]]) -> list[torch.Tensor]:
    return [torch.tensor(column) for column in columns]


def both(streams: int = 1) -> torch.Tensor:
    return torch.ones(2, streams, dtype=torch.bool)


def test_self_mm_labels_by_hand() -> None:
    memory = LabelMemory(1, 0.0, (-3.0, 3.0))
    y = torch.tensor([2.0, -1.0])
    rows = memory.rows(("a", "b"), y, both())
    assert rows.tolist() == [0, 1]
    # Epoch 1: labels stay the common ones.
    memory.update(rows, tensors([[2.0, 0, 0, 0], [0.0, 0, 0, 0]], [[1.0], [-1.0]]))
    assert memory.read(rows)[:, 0].tolist() == [2, -1]

    # Epoch 2, the batch the other way round. Centres: C_m^p = (2,0,0,0), C_m^n = 0, C_s = +-1.
    rows = memory.rows(("b", "a"), y.flip(0), both())
    memory.update(rows, tensors([[-1.0, 0, 0, 0], [3.0, 0, 0, 0]], [[-3.0], [3.0]]))
    # a: D_m = 1/2 and 9/2, alpha_m = 8; D_s = 4 and 16, alpha_s = 3;
    #    y = 2 + (3 - 8)/2 * (2 + 8)/8 = -9/8, blended 1/3 * 2 + 2/3 * -9/8 = -1/12.
    # b: D_m = 9/2 and 1/2, alpha_m = -8/9; D_s = 16 and 4, alpha_s = -3/4;
    #    y = -1 + (5/36)/2 * (-17/9)/(-8/9) = -1 + 85/576, blended -1/3 + 2/3 * -491/576.
    second = {"a": -1 / 12, "b": -1 / 3 - 2 / 3 * 491 / 576}
    np.testing.assert_allclose(memory.read(rows)[:, 0], [second["b"], second["a"]], atol=1e-4)

    # Epoch 3: centres from epoch 2, C_m^p = (3,0,0,0), C_m^n = (-1,0,0,0), C_s = +-3.
    rows = memory.rows(("a",), y[:1], both()[:1])
    memory.update(rows, tensors([[2.0, 0, 0, 0]], [[1.0]]))
    # D_m = 1/2 and 9/2, alpha_m = 8; D_s = 4 and 16, alpha_s = 3: y = -9/8 as before,
    # and i = 3 weighs 2/4 and 2/4.
    third = 0.5 * second["a"] - 0.5 * 9 / 8
    np.testing.assert_allclose(memory.read(rows)[:, 0], [third], atol=1e-4)
    # b was not visited.
    other = memory.rows(("b",), y[1:], both()[1:])
    np.testing.assert_allclose(memory.read(other)[:, 0], [second["b"]], atol=1e-4)


def test_self_mm_labels_stay_in_range_and_absent_streams_keep_theirs() -> None:
    memory = LabelMemory(2, 3.0, (1.0, 5.0))  # a scale from 1 to 5: the middle is neutral
    y, present = torch.tensor([5.0, 2.0]), both(2)
    present[0, 1] = False
    rows = memory.rows(("a", "b"), y, present)
    zero = [[0.0], [0.0]]
    memory.update(rows, tensors([[1.0], [-1.0]], [[1.0], [-1.0]], zero))
    assert memory.y.tolist() == [2, -1]
    # a is at the positive centre: alpha is enormous, of m as of s.
    memory.update(rows, tensors([[0.1], [-0.1]], [[1.0], [1.0]], zero))
    labels = memory.read(rows)
    assert 1 <= float(labels.min()) and float(labels.max()) <= 5
    assert labels[1, 0] > 2  # its stream looks positive
    assert labels[0, 1] == 5  # the absent stream
    # Its representation is in no centre: the only one known to stream 1 is b's, negative.
    memory.F[2][0] = 100.0
    assert float(memory.relative(2, torch.zeros(1, 1))) == 0.0


def test_self_mm_weighs_by_the_distance_of_the_labels() -> None:
    spec = spec_of(("text", "audio"))
    model, batch = build("self_mm", spec).eval(), batch_of(spec)
    model.training = True  # losses, but no dropout
    assert all(float(loss) == 0 for loss in model(batch).losses.values())
    model.memory.labels[:, 0] += 0.5  # audio
    out = model(batch)
    with torch.no_grad():
        F_s = model.lstm[0](batch.x["audio"], batch.mask["audio"])[1]
        pred = model.unimodal[0](F_s)[1]
    expected = (np.tanh(0.5) * (pred - (batch.y + 0.5)).abs()).mean()
    torch.testing.assert_close(out.losses["unimodal_audio"], expected.float())
    assert float(out.losses["unimodal_text"]) == 0


def test_self_mm_keeps_its_memory_out_of_the_weights() -> None:
    spec = spec_of()
    model, batch = build("self_mm", spec), batch_of(spec)
    for _ in range(3):
        losses = model.train()(batch).losses
    assert all(float(loss) > 0 for loss in losses.values())
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    fresh = build("self_mm", spec, seed=1)
    fresh.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(fresh.eval()(batch).pred, model.eval()(batch).pred)
    # Evaluation, with labels or without, teaches the memory nothing.
    before = model.memory.labels.clone(), dict(model.memory.place)
    assert model(Batch(batch.x, batch.mask, batch.y, ("u", "v", "w", "x"))).losses == {}
    assert torch.equal(model.memory.labels, before[0]) and model.memory.place == before[1]


def test_self_mm_shares_labels_of_classes() -> None:
    spec = spec_of(("text", "audio"), "classification")
    model, batch = build("self_mm", spec).eval(), batch_of(spec)
    model.training = True
    batch.mask["text"][2] = False
    with torch.no_grad():
        F_s = model.lstm[1](batch.x["text"], batch.mask["text"])[1]
        chance = model.unimodal[1](F_s)[1].softmax(1)[torch.arange(4), batch.y]
    expected = 0.3 * -chance.log()[[0, 1, 3]].sum() / 4
    torch.testing.assert_close(model(batch).losses["unimodal_text"], expected)


def test_self_mm_needs_ids_to_learn_a_score() -> None:
    spec = spec_of()
    batch = batch_of(spec)
    batch.ids = ()
    with pytest.raises(ValueError, match="batch.ids"):
        build("self_mm", spec).train()(batch)


# --- transformer ------------------------------------------------------------------------------
def test_transformer_parameters_by_hand() -> None:
    spec = DataSpec({"text": (768, 50), "audio": (5, 50), "vision": (20, 50)})
    d = 256
    layer = 4 * (d * d + d) + d * 4 * d + 4 * d + 4 * d * d + d + 2 * 2 * d
    expected = (768 + 5 + 20 + 3) * d + 150 * d + 2 * layer + 2 * d + d + 1
    assert count(Transformer(TransformerConfig(), spec)) == expected == 1_822_465


# --- what they can learn ------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "unaligned"])
@pytest.mark.parametrize("name", MODELS)
def test_fusing_beats_every_single_stream(name: str, aligned: bool, tmp_path: Path) -> None:
    file = interaction.write(tmp_path / "x.h5", aligned=aligned)
    settings = [f"fusion.{setting}" for setting in SMALL[name]]
    # At a higher rate MISA's own losses win: its representations become constant.
    settings += ["train.lr=1e-3" if name == "misa" else "train.lr=3e-3", "train.epochs=30"]
    report = mertool.train(
        file, tmp_path / "run", plugin=name, seeds=1, device="cpu", settings=settings
    )
    errors = {stream: scores["mean"]["mae"] for stream, scores in report.valid.items()}
    together = errors.pop("")
    assert set(errors) == {"text", "audio", "vision"}
    assert together < 0.5 * min(errors.values())
