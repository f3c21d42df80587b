"""MCR as a plugin: the contract of a fusion, and what it records for the figures."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import combinations

import pytest
import torch
from mertool_plugins.mcr.model import MCR, MCRConfig
from synthetic import ONE_TASK
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, stack_module_state, vmap

from mertool.errors import UsageError
from mertool.registry import registry
from mertool.types import Batch, DataSpec

TINY = MCRConfig(d_model=8, heads=2, layers=2, encoder_layers=1, dropout=0.0)
STREAMS = {"text": (6, 4), "audio": (3, 7), "vision": (5, 5)}
ALL = tuple(sorted(STREAMS))
SUBSETS = [c for n in (1, 2, 3) for c in combinations(ALL, n)]
K = {"regression": 1, "classification": 4, "multilabel": 3}


def spec_of(*names: str, task: str = "regression", **lengths: int) -> DataSpec:
    streams = {m: (STREAMS[m][0], lengths.get(m, STREAMS[m][1])) for m in names}
    return DataSpec(streams, task=task, n_out=K[task])


def build(spec: DataSpec, config: MCRConfig = TINY, seed: int = 0) -> MCR:
    torch.manual_seed(seed)
    return MCR(config, spec).eval()


def batch_of(spec: DataSpec, B: int = 4, seed: int = 0) -> Batch:
    """Random clips of random lengths; the first one has full length."""
    generator = torch.Generator().manual_seed(seed)
    x, mask = {}, {}
    for m, (D, T) in spec.streams.items():
        lengths = torch.randint(1, T + 1, (B,), generator=generator)
        lengths[0] = T
        mask[m] = torch.arange(T) < lengths[:, None]
        x[m] = torch.randn(B, T, D, generator=generator) * mask[m][..., None]
    return Batch(x, mask)


def without(batch: Batch, *absent: tuple[int, str]) -> Batch:
    """The batch with streams taken from clips."""
    mask = {m: one.clone() for m, one in batch.mask.items()}
    for b, m in absent:
        mask[m][b] = False
    return Batch(batch.x, mask)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# --- settings --------------------------------------------------------------------------------
def test_registers_without_torch() -> None:
    entry = registry().get("fusion", "mcr")
    assert entry.facts["task_loss"] == "l1"
    assert entry.facts["fixed_length"] is True
    assert registry().load("fusion", "mcr") is MCR
    code = "import sys, mertool_plugins.mcr; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_defaults_are_table_1_for_mosi() -> None:
    c = MCRConfig()
    assert (c.d_model, c.heads, c.layers) == (40, 10, 3)
    assert (c.kernel_text, c.kernel_vision, c.kernel_audio) == (3, 3, 3)


@pytest.mark.parametrize(
    "settings",
    [
        {"heads": 7},
        {"d_model": 0},
        {"layers": 0},
        {"encoder_layers": 0},
        {"kernel_text": 2},
        {"kernel_other": 0},
        {"attention_layer": "matrix"},
        {"source_update": "high"},
        {"structure": "ring"},
        {"dropout": 1.0},
        {"targets": "text"},
        {"cmu": False, "scu": False},
    ],
    ids=str,
)
def test_config_refuses_bad_values(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        MCRConfig(**settings)


def test_config_survives_json() -> None:
    config = MCRConfig(targets=("text", "audio"), smm=False)
    assert MCRConfig(**json.loads(json.dumps(asdict(config)))) == config


def test_unknown_target_is_refused() -> None:
    with pytest.raises(UsageError, match='no such stream.\n  Did you mean "text"'):
        build(spec_of("text", "audio"), replace(TINY, targets=("txt",)))


def test_other_length_is_refused() -> None:
    model = build(spec_of("text"))
    with pytest.raises(ValueError, match='"text" has 6 steps.*built for 4'):
        model(batch_of(spec_of("text", text=6)))


# --- contract --------------------------------------------------------------------------------
@pytest.mark.parametrize("lengths", [{}, dict.fromkeys(ALL, 5)], ids=["unaligned", "aligned"])
@pytest.mark.parametrize("task", K)
@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
def test_every_subset_and_task(names: tuple[str, ...], task: str, lengths: dict[str, int]) -> None:
    spec = spec_of(*names, task=task, **lengths)
    model = build(spec)
    out = model(batch_of(spec))
    assert out.pred.shape == (4, K[task]) and out.pred.dtype == torch.float32
    assert torch.isfinite(out.pred).all()
    assert out.losses == out.weights == out.features == out.attention == {}
    out.pred.square().sum().backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("names", [("text",), ALL], ids="+".join)
def test_one_clip_of_one_step(names: tuple[str, ...]) -> None:
    spec = spec_of(*names, text=1, audio=1, vision=1)
    out = build(spec)(batch_of(spec, B=1))
    assert out.pred.shape == (1, 1) and torch.isfinite(out.pred).all()


def test_streams_of_any_name_and_number() -> None:
    spec = DataSpec({"a.b": (2, 3), "keys": (3, 2), "x y": (2, 2), "face": (4, 3), "é": (1, 1)})
    model, batch = build(spec), batch_of(spec)
    batch.record = True
    out = model(batch)
    assert torch.isfinite(out.pred).all()
    assert out.weights["alpha.1.a.b+face+x y+é-to-keys"].shape == (4, 4)


def test_absent_streams_are_finite_and_drop_out() -> None:
    spec = spec_of(*ALL)
    model = build(spec)
    batch = batch_of(spec)
    nothing = [(3, m) for m in ALL]
    gone = without(batch, (1, "text"), (2, "audio"), (2, "vision"), *nothing)
    gone.x = {m: x.requires_grad_() for m, x in gone.x.items()}
    out = model(gone)
    assert torch.isfinite(out.pred).all()
    out.pred.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    for m, x in gone.x.items():
        assert torch.isfinite(x.grad).all()
        assert not x.grad[~gone.mask[m]].any()
    torch.testing.assert_close(out.pred[0], model(batch).pred[0])
    torch.testing.assert_close(out.pred[3], model.head(torch.zeros(8)))
    # A whole batch without any stream trains, too.
    model.zero_grad()
    model(without(batch, *[(b, m) for b in range(4) for m in ALL])).pred.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("garbage", [1e4, float("nan"), float("inf")])
@pytest.mark.parametrize("settings", [{}, {"structure": "serial", "attention_layer": "literal"}])
def test_padding_content_never_matters(garbage: float, settings: dict) -> None:
    spec = spec_of(*ALL)
    model, batch = build(spec, replace(TINY, **settings)), without(batch_of(spec), (2, "audio"))
    dirty = Batch({m: x.clone() for m, x in batch.x.items()}, batch.mask)
    for m, x in dirty.x.items():
        x[~batch.mask[m]] = garbage
    assert torch.equal(model(dirty).pred, model(batch).pred)


def embedded(batch: Batch, spec: DataSpec) -> Batch:
    """The same clips, padded to the longer lengths of `spec`."""
    more = {m: T - batch.x[m].shape[1] for m, (_, T) in spec.streams.items()}
    return Batch(
        {m: nn.functional.pad(x, (0, 0, 0, more[m])) for m, x in batch.x.items()},
        {m: nn.functional.pad(mask, (0, more[m])) for m, mask in batch.mask.items()},
    )


@pytest.mark.parametrize("update", ["low_level", "ffl"])
def test_longer_lengths_change_nothing_without_weights_per_step(update: str) -> None:
    free = replace(TINY, mutual_attention=False, attention_layer="none", source_update=update)
    short, long = spec_of(*ALL), spec_of(*ALL, text=6, audio=11, vision=8)
    model, other, batch = build(short, free), build(long, free), batch_of(short)
    other.load_state_dict(model.state_dict(), strict=True)
    torch.testing.assert_close(other(embedded(batch, long)).pred, model(batch).pred)


@pytest.mark.parametrize(
    "settings, tied",
    [
        ({"mutual_attention": True}, ["exchange"]),
        ({"attention_layer": "vector"}, ["attention_layer"]),
        ({"attention_layer": "literal"}, ["attention_layer"]),
        ({"source_update": "sum"}, ["memory", "gate"]),
        ({"source_update": "sum", "smm": False}, ["gate"]),
    ],
    ids=str,
)
def test_what_ties_the_model_to_its_lengths(settings: dict, tied: list[str]) -> None:
    free = replace(TINY, mutual_attention=False, attention_layer="none", source_update="low_level")
    shapes = [
        {n: p.shape for n, p in build(spec, replace(free, **settings)).named_parameters()}
        for spec in (spec_of(*ALL), spec_of(*ALL, text=6, audio=11, vision=8))
    ]
    differ = [n for n, shape in shapes[0].items() if shapes[1][n] != shape]
    assert {part for n in differ for part in n.split(".") if part in tied} == set(tied)
    assert all(set(tied) & set(n.split(".")) for n in differ)


def test_order_of_clips_and_labels_do_not_matter() -> None:
    spec = spec_of(*ALL)
    model, batch = build(spec), without(batch_of(spec), (1, "text"))
    pred, order = model(batch).pred, torch.tensor([2, 0, 3, 1])
    turned = Batch(
        {m: x[order] for m, x in batch.x.items()},
        {m: mask[order] for m, mask in batch.mask.items()},
        y=torch.randn(4, 1),
    )
    torch.testing.assert_close(model(turned).pred, pred[order])
    alone = Batch(
        {m: x[1:2] for m, x in batch.x.items()}, {m: k[1:2] for m, k in batch.mask.items()}
    )
    torch.testing.assert_close(model(alone).pred, pred[1:2])


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("settings", [{}, {"targets": ("text",), "structure": "serial"}], ids=str)
def test_takes_no_decision_from_values(settings: dict, record: bool) -> None:
    spec = spec_of(*ALL)
    batch = batch_of(spec)
    with FakeTensorMode() as mode:
        model = build(spec, replace(TINY, **settings))
        fake = Batch(
            {m: mode.from_tensor(x) for m, x in batch.x.items()},
            {m: mode.from_tensor(mask) for m, mask in batch.mask.items()},
            record=record,
        )
        out = model(fake)
        out.pred.sum().backward()
    assert out.pred.shape == (4, 1)


def test_seeds_can_be_trained_stacked() -> None:
    spec = spec_of(*ALL)
    models, batch = [build(spec, seed=s) for s in (0, 1)], batch_of(spec)
    params, buffers = stack_module_state(models)

    def predict(p: dict, b: dict) -> torch.Tensor:
        return functional_call(models[0], (p, b), (batch,)).pred

    stacked = vmap(predict)(params, buffers)
    torch.testing.assert_close(stacked, torch.stack([m(batch).pred for m in models]))


def test_order_of_streams_does_not_matter() -> None:
    one, two = spec_of(*ALL), spec_of(*reversed(ALL))
    batch = batch_of(one)
    assert list(one.streams) != list(two.streams)
    assert torch.equal(build(one)(batch).pred, build(two)(batch).pred)


def test_same_seed_same_result() -> None:
    spec = spec_of(*ALL)
    config, batch = replace(TINY, dropout=0.3), batch_of(spec)

    def once(seed: int) -> torch.Tensor:
        return build(spec, config, seed).train()(batch).pred

    assert torch.equal(once(3), once(3))
    assert not torch.equal(once(3), once(4))
    model = build(spec, config)
    assert torch.equal(model(batch).pred, model(batch).pred)  # no dropout in evaluation


@pytest.mark.parametrize("settings", [{}, {"targets": ("audio",)}, {"source_update": "ffl"}])
def test_state_dict_round_trip(settings: dict) -> None:
    spec = spec_of(*ALL)
    config, batch = replace(TINY, **settings), batch_of(spec)
    one, two = build(spec, config), build(spec, config, seed=1)
    assert not torch.equal(one(batch).pred, two(batch).pred)
    assert set(one.state_dict()) == {name for name, _ in one.named_parameters()}
    two.load_state_dict(one.state_dict(), strict=True)
    assert torch.equal(one(batch).pred, two(batch).pred)


@pytest.mark.parametrize("task", ONE_TASK)
def test_overfits_eight_clips(task: str) -> None:
    spec = spec_of(*ALL, task=task)
    model, batch = build(spec), batch_of(spec, B=8)
    generator = torch.Generator().manual_seed(1)
    if task == "regression":
        y, loss_of = torch.randn(8, 1, generator=generator), nn.functional.l1_loss
    elif task == "classification":
        y, loss_of = torch.arange(8) % K[task], nn.functional.cross_entropy
    else:
        y = torch.randint(0, 2, (8, K[task]), generator=generator).float()
        loss_of = nn.functional.binary_cross_entropy_with_logits
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = loss_of(model(batch).pred, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


# --- figures ---------------------------------------------------------------------------------
def test_record_fills_what_the_figures_show() -> None:
    spec = spec_of(*ALL)
    model, batch = build(spec), without(batch_of(spec), (2, "audio"))
    plain = model(batch)
    batch.record = True
    out = model(batch)
    assert torch.equal(out.pred, plain.pred)
    T = {m: length for m, (_, length) in spec.streams.items()}
    shapes = {"encoder.1": (4, 2, sum(T.values()), sum(T.values()))}
    small = {}
    for i in (1, 2):
        for t in ALL:
            a, b = (s for s in ALL if s != t)
            shapes |= {f"cmu.{i}.{s}-to-{t}": (4, 1, T[t], T[s]) for s in (a, b)}
            shapes[f"scu.{i}.{a}+{b}-to-{t}"] = (4, 2, T[t], T[a] + T[b])
            shapes[f"self.{i}.{t}"] = (4, 2, T[t], T[t])
            small |= {f"alpha.{i}.{a}+{b}-to-{t}": (4, 2), f"gamma.{i}.{t}": (4, 2)}
    assert {k: tuple(v.shape) for k, v in out.attention.items()} == shapes
    assert {k: tuple(v.shape) for k, v in out.weights.items()} == small
    assert {k: tuple(v.shape) for k, v in out.features.items()} == dict.fromkeys(
        ["Z_text", "Z_audio", "Z_vision", "Z_fin"], (4, 8)
    )
    for values in (*out.attention.values(), *out.weights.values(), *out.features.values()):
        assert torch.isfinite(values).all() and not values.requires_grad
    for weights in out.weights.values():
        torch.testing.assert_close(weights.sum(1), torch.ones(4))
    # Fig. 5: an absent source gets no weight; Fig. 3: nobody attends to it or to padding.
    assert out.weights["alpha.1.audio+text-to-vision"][2, 0] == 0
    seen = out.attention["cmu.1.audio-to-text"].sum(-1)
    torch.testing.assert_close(seen[[0, 1, 3]], torch.ones(3, 1, T["text"]))
    assert not seen[2].any()
    assert not out.attention["cmu.2.vision-to-text"].transpose(1, 3)[~batch.mask["vision"]].any()


def test_recording_changes_no_prediction() -> None:
    """With and without the attention in hand, also where a clip lacks a stream or all of them."""
    spec = spec_of("text", "audio", "vision")
    model = build(spec).eval()
    batch = without(batch_of(spec), (0, "audio"), (1, "text"), (1, "audio"), (1, "vision"))
    plain = model(batch).pred
    recorded = model(replace(batch, record=True)).pred
    torch.testing.assert_close(plain, recorded)
    assert plain.isfinite().all()


def test_record_names_only_what_exists() -> None:
    spec = spec_of(*ALL)
    batch = batch_of(spec)
    batch.record = True

    def kinds(**settings: object) -> set[str]:
        out = build(spec, replace(TINY, **settings))(batch)
        return {name.split(".")[0] for name in {**out.attention, **out.weights}}

    every = {"cmu", "scu", "self", "encoder", "alpha", "gamma"}
    assert kinds() == every
    assert kinds(cmu=False) == every - {"cmu", "alpha"}
    assert kinds(scu=False) == every - {"scu", "self", "gamma"}
    assert kinds(mutual_attention=False) == every - {"alpha"}
    assert kinds(attention_layer="none") == every - {"gamma"}
    two = spec_of("text", "audio")
    pair = batch_of(two)
    pair.record = True
    assert not [n for n in build(two)(pair).weights if n.startswith("alpha")]
