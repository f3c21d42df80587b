"""concat: the baseline does what its few lines say."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from mertool_plugins.concat.model import Concat, ConcatConfig
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mertool.registry import registry
from mertool.types import Batch, DataSpec

STREAMS = {"text": (6, 5), "audio": (3, 7), "vision": (2, 4)}
K = {"regression": 1, "classification": 4, "multilabel": 3}


def spec_of(*names: str, task: str = "regression") -> DataSpec:
    return DataSpec({m: STREAMS[m] for m in names}, task=task, n_out=K[task])


def batch_of(spec: DataSpec, B: int = 4, steps: int = 0, seed: int = 0) -> Batch:
    """Random clips of random lengths; the first one is as long as the batch."""
    rng = np.random.default_rng(seed)
    x, mask = {}, {}
    for m, (D, T) in spec.streams.items():
        T = steps or T
        lengths = rng.integers(1, T + 1, B)
        lengths[0] = T
        mask[m] = torch.from_numpy(np.arange(T) < lengths[:, None])
        x[m] = torch.from_numpy(rng.normal(size=(B, T, D)).astype("f4")) * mask[m][..., None]
    return Batch(x, mask)


def build(spec: DataSpec, seed: int = 0, **settings: float) -> Concat:
    torch.manual_seed(seed)
    return Concat(ConcatConfig(**settings), spec).eval()


def test_registers_without_torch() -> None:
    entry = registry().get("fusion", "concat")
    assert entry.facts["task_loss"] == "l1"
    assert entry.facts["fixed_length"] is False
    assert registry().load("fusion", "concat") is Concat
    code = "import sys, mertool_plugins.concat; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_model_stays_short_enough_to_read() -> None:
    with open(sys.modules[Concat.__module__].__file__, encoding="utf-8") as file:
        assert len(file.readlines()) < 80


@pytest.mark.parametrize("settings", [{"d_model": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_config_refuses_bad_values(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        ConcatConfig(**settings)


def test_config_survives_json() -> None:
    config = ConcatConfig(d_model=7)
    assert ConcatConfig(**json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("task", K)
@pytest.mark.parametrize("names", [("text",), ("audio", "vision"), ("text", "audio", "vision")])
@pytest.mark.parametrize("B, steps", [(4, 0), (1, 1), (3, 9)])
def test_matches_numpy(task: str, names: tuple[str, ...], B: int, steps: int) -> None:
    spec = spec_of(*names, task=task)
    model, batch = build(spec), batch_of(spec, B, steps)
    W = {name: p.detach().numpy().astype("f8") for name, p in model.named_parameters()}
    for b in range(B):
        means = []
        for m in sorted(names):
            rows = [batch.x[m][b, i].numpy() for i in range(len(batch.mask[m][b]))]
            real = [row for row, yes in zip(rows, batch.mask[m][b], strict=True) if yes]
            means.append(sum(real) / len(real))
        hidden = np.maximum(W["hidden.weight"] @ np.concatenate(means) + W["hidden.bias"], 0)
        expected = W["out.weight"] @ hidden + W["out.bias"]
        np.testing.assert_allclose(model(batch).pred[b].detach(), expected, atol=1e-5)


def test_padding_and_other_clips_do_not_matter() -> None:
    spec = spec_of("text", "audio")
    model, batch = build(spec), batch_of(spec)
    pred = model(batch).pred
    garbage = {m: x.clone() for m, x in batch.x.items()}
    for m, x in garbage.items():
        x[~batch.mask[m]] = float("nan")
    assert torch.equal(model(Batch(garbage, batch.mask)).pred, pred)
    order = torch.tensor([2, 0, 3, 1])
    turned = Batch(
        {m: x[order] for m, x in batch.x.items()},
        {m: mask[order] for m, mask in batch.mask.items()},
        y=torch.randn(4, 1),
    )
    torch.testing.assert_close(model(turned).pred, pred[order])
    longer = {m: nn.functional.pad(x, (0, 0, 0, 3)) for m, x in batch.x.items()}
    masks = {m: nn.functional.pad(mask, (0, 3)) for m, mask in batch.mask.items()}
    torch.testing.assert_close(model(Batch(longer, masks)).pred, pred)


def test_absent_streams_count_as_zeros() -> None:
    spec = spec_of("text", "audio")
    model, batch = build(spec), batch_of(spec)
    batch.mask["audio"][1] = False
    batch.mask["text"][2] = batch.mask["audio"][2] = False
    out = model(batch)
    out.pred.sum().backward()
    assert torch.isfinite(out.pred).all()
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in model.parameters())
    nothing = model.out(torch.relu(model.hidden.bias))
    torch.testing.assert_close(out.pred[2], nothing)


def test_features_only_on_request() -> None:
    spec = spec_of("text", "audio")
    model, batch = build(spec, d_model=8), batch_of(spec)
    plain = model(batch)
    assert plain.losses == plain.features == plain.attention == plain.weights == {}
    batch.record = True
    recorded = model(batch)
    assert {k: tuple(v.shape) for k, v in recorded.features.items()} == {
        "text": (4, 6),
        "audio": (4, 3),
        "fused": (4, 8),
    }
    assert torch.equal(recorded.pred, plain.pred)


def test_dropout_only_in_training_and_seeded() -> None:
    spec = spec_of("text")
    model, batch = build(spec, dropout=0.5), batch_of(spec)
    assert torch.equal(model(batch).pred, model(batch).pred)
    model.train()
    torch.manual_seed(1)
    first = model(batch).pred
    torch.manual_seed(1)
    assert torch.equal(model(batch).pred, first)
    assert not torch.equal(model(batch).pred, first)


def test_takes_no_decision_from_values() -> None:
    spec = spec_of("text", "audio")
    batch = batch_of(spec)
    with FakeTensorMode() as mode:
        model = build(spec)
        fake = Batch(
            {m: mode.from_tensor(x) for m, x in batch.x.items()},
            {m: mode.from_tensor(mask) for m, mask in batch.mask.items()},
        )
        assert model(fake).pred.shape == (4, 1)


def test_overfits_eight_clips_and_reloads() -> None:
    spec = spec_of("text", "audio")
    batch = batch_of(spec, B=8)
    y = torch.randn(8, 1, generator=torch.Generator().manual_seed(0))
    model = build(spec, dropout=0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(200):
        loss = nn.functional.l1_loss(model(batch).pred, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    other = build(spec, seed=1, dropout=0.0)
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(other(batch).pred, model(batch).pred)


def test_order_of_streams_does_not_matter() -> None:
    one, two = spec_of("text", "audio"), spec_of("audio", "text")
    batch = batch_of(one)
    assert torch.equal(build(one)(batch).pred, build(two)(batch).pred)
