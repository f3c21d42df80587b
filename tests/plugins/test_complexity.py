"""Complexity: counts worked out by hand, two independent ways of counting, memory by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from mertool_plugins.mult.model import MulT, MulTConfig
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from mertool import nn as blocks
from mertool.errors import UsageError
from mertool.registry import registry
from mertool.testing.complexity import (
    complexity,
    count_modules,
    count_operations,
    full_batch,
    peak,
    spec_of,
)
from mertool.types import Batch, FusionOutput

CPU = torch.device("cpu")
STREAMS = {"text": (7, 6), "audio": (3, 9), "vision": (5, 8)}
FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


# --- one module, by hand ------------------------------------------------------------------------
@pytest.mark.parametrize(
    "module, shape, modules, operations",
    [
        (nn.Linear(7, 3), (2, 5, 7), 2 * 5 * 7 * 3, 2 * 5 * 7 * 3),
        (nn.Linear(7, 3, bias=False), (5, 7), 5 * 7 * 3, 5 * 7 * 3),
        # 11 steps, kernel 4, no padding: 8 steps of 6 channels, each from 4 * 10 numbers.
        (nn.Conv1d(10, 6, 4), (2, 10, 11), 2 * 8 * 6 * 40, 2 * 8 * 6 * 40),
        (nn.Conv1d(10, 6, 4, groups=2), (2, 10, 11), 2 * 8 * 6 * 20, 2 * 8 * 6 * 20),
        (nn.Conv2d(3, 6, (2, 3), stride=2), (2, 3, 8, 9), 2 * 6 * 4 * 4 * 18, 2 * 6 * 4 * 4 * 18),
        (nn.LayerNorm(7), (2, 5, 7), 4 * 70, 0),
        (nn.LayerNorm(7, elementwise_affine=False), (2, 5, 7), 2 * 70, 0),
        (nn.BatchNorm1d(7), (5, 7), 4 * 35, 0),
        (nn.Softmax(dim=1), (2, 5, 7), 2 * 7 * (3 * 5 - 1), 0),
        (nn.Sequential(nn.ReLU(), nn.Dropout(0.5), nn.Tanh()), (5, 7), 0, 0),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else None,
)
def test_one_module(module: nn.Module, shape: tuple[int, ...], modules: int, operations: int):
    module.eval()
    assert count_modules(module, torch.randn(shape)) == modules
    assert count_operations(module, torch.randn(shape)) == (operations, operations)


def test_every_call_counts_and_hooks_are_taken_away():
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, layer, nn.Sequential(layer))
    for _ in range(2):
        assert count_modules(model, torch.randn(2, 4)) == 3 * 2 * 16
    assert not layer._forward_hooks


def test_what_is_no_module_call_is_counted_by_operations_alone():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(6, 4))

        def forward(self, x: Tensor) -> Tensor:
            h = torch.einsum("btd,dk->btk", x, self.w)  # 2 * 5 * 6 * 4
            h = h @ h.transpose(1, 2)  # 2 * 5 * 4 * 5
            row = h[0] @ h[0, 0]  # matrix and vector, 5 * 5
            return row @ row + torch.addmv(row, h[1], row).sum()  # 5, then 5 * 5

    x = torch.randn(2, 5, 6)
    assert count_modules(Own(), x) == 0
    assert count_operations(Own(), x) == (240 + 200 + 25 + 5 + 25, 240 + 200)


# --- recurrent layers ---------------------------------------------------------------------------
D, D_H, B, T = 6, 4, 3, 5


def lstm_by_hand(columns: int) -> tuple[int, int]:
    """One direction of one layer for one clip and step: thop's rule, and matrix products."""
    gate = D_H * columns + D_H * D_H + 2 * D_H + D_H  # two products, two biases, the activation
    return 4 * gate + 3 * D_H + D_H, 4 * D_H * (columns + D_H)  # c = f c + i g; h = o tanh(c)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("learn", [False, True])
def test_lstm_by_hand(layers: int, bidirectional: bool, learn: bool):
    directions = 2 if bidirectional else 1
    model = nn.LSTM(D, D_H, layers, batch_first=True, bidirectional=bidirectional).train(learn)
    expected = [0, 0]
    for k in range(layers):
        for i, n in enumerate(lstm_by_hand(D if k == 0 else directions * D_H)):
            expected[i] += B * T * directions * n
    x = torch.randn(B, T, D)
    assert count_modules(model, x) == expected[0]
    assert count_operations(model, x)[0] == expected[1]


def lstm_loop(model: nn.LSTM, x: Tensor) -> Tensor:
    """The same LSTM step by step, of operations that torch's counter knows."""
    h = c = x.new_zeros(len(x), model.hidden_size)
    for t in range(x.shape[1]):
        gates = x[:, t] @ model.weight_ih_l0.T + h @ model.weight_hh_l0.T
        i, f, g, o = (gates + model.bias_ih_l0 + model.bias_hh_l0).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    return h


def test_lstm_against_a_loop_over_steps():
    model, x = nn.LSTM(D, D_H, batch_first=True), torch.randn(B, T, D)
    with FlopCounterMode(display=False) as counter:
        last = lstm_loop(model, x)
    torch.testing.assert_close(last, model(x)[1][0][0])
    assert count_operations(model, x)[0] == counter.get_total_flops() // 2
    masked = blocks.MaskedLSTM(D, D_H)
    mask = torch.ones(B, T).bool()
    assert count_operations(masked, x, mask)[0] == counter.get_total_flops() // 2


@pytest.mark.parametrize(
    "layer, cell, gates, extra",
    [(nn.LSTM, nn.LSTMCell, 4, 4), (nn.GRU, nn.GRUCell, 3, 4), (nn.RNN, nn.RNNCell, 1, 0)],
)
def test_recurrent_kinds(layer, cell, gates: int, extra: int):
    step = gates * D_H * (D + D_H)
    biased, plain = step + gates * 3 * D_H + extra * D_H, step + gates * D_H + extra * D_H
    x = torch.randn(B, T, D)
    assert count_modules(layer(D, D_H, batch_first=True), x) == B * T * biased
    assert count_modules(layer(D, D_H, bias=False), x.transpose(0, 1)) == B * T * plain
    assert count_modules(cell(D, D_H), x[:, 0]) == B * biased
    assert count_operations(layer(D, D_H, batch_first=True), x)[0] == B * T * step
    assert count_operations(cell(D, D_H), x[:, 0])[0] == B * step
    # Of packed clips, the steps that are there.
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3, 1]), batch_first=True)
    assert count_modules(layer(D, D_H), packed) == 9 * biased
    assert count_operations(layer(D, D_H), packed)[0] == 9 * step


# --- attention ----------------------------------------------------------------------------------
@pytest.mark.parametrize("record", [False, True])
def test_attention_by_hand(record: bool):
    d, H, T_q, T_k, d_kv = 8, 2, 5, 7, 6
    model = blocks.Attention(d, H, d_kv).eval()
    query, source = torch.randn(B, T_q, d), torch.randn(B, T_k, d_kv)
    mask = torch.ones(B, T_k).bool()
    projections = B * (2 * T_q * d * d + 2 * T_k * d_kv * d)  # query and output, key and value
    products = B * 2 * T_q * T_k * d
    assert count_modules(model, query, source, mask, record) == projections
    every, counter = count_operations(model, query, source, mask, record)
    assert every == projections + products
    seen = record or FUSED in flop_registry
    assert counter == (every if seen else projections)


@pytest.mark.parametrize("learn", [False, True])
def test_encoder_layer_of_torch_by_hand(learn: bool):
    """Its attention calls no module, and no fast path hides the rest."""
    d, T = 8, 5
    model = nn.TransformerEncoderLayer(d, 2, 16, 0.0, batch_first=True).train(learn)
    x = torch.randn(B, T, d)
    rows, hidden = B * T, 2 * d * 16
    with torch.no_grad():  # as a caller may
        assert count_modules(model, x) == rows * (hidden + 2 * 4 * d)
        assert count_operations(model, x)[0] == rows * (hidden + 4 * d * d + 2 * T * d)


def test_fused_attention_counts_as_much_as_unfused():
    spec = spec_of(STREAMS, "regression", 1)
    model = MulT(MulTConfig(d_model=8, heads=2, layers=1, self_layers=1), spec).eval()
    batch = full_batch(spec, 3, CPU)
    every, _ = count_operations(model, batch)
    with sdpa_kernel(SDPBackend.MATH):
        assert count_operations(model, batch) == (every, every)
    batch.record = True
    assert count_operations(model, batch) == (every, every)


# --- mult as it is published --------------------------------------------------------------------
PUBLIC = [
    "fusion.d_model=50", "fusion.heads=10", "fusion.layers=4", "fusion.kernel_text=5",
    "fusion.kernel_audio=5", "fusion.kernel_vision=5",
]  # fmt: skip


def test_mult_as_published():
    """Per clip and by hand; times 64 this is 1.900 G by module calls, 2.426 G by the counter."""
    streams = {"text": (768, 20), "audio": (5, 20), "vision": (20, 20)}
    made = complexity("mult", streams, batch=2, settings=PUBLIC, repeats=1)
    assert made.parameters == 2_571_551
    T = 16
    convolutions = T * 50 * 5 * 793
    head = 2 * 300 * 300 + 300
    cross = 24 * T * (50 * 50 + 50 * 200 + 200 * 50)  # output projection, feed-forward
    own = 12 * T * (100 * 100 + 100 * 400 + 400 * 100)
    norms = 4 * T * ((24 * 3 + 6) * 50 + (12 * 2 + 3) * 100)
    packed = T * (24 * 3 * 50 * 50 + 12 * 3 * 100 * 100)
    products = T * 2 * T * (24 * 50 + 12 * 100)
    calls = convolutions + head + cross + own
    assert made.macs_modules == 2 * (calls + norms)
    assert made.macs_all == 2 * (calls + packed + products)
    if FUSED not in flop_registry:
        assert made.macs_counter == 2 * (calls + packed)
    # What is published: 64 clips, rounded. Public code normalises keys and values apart.
    assert round(64 * (calls + norms + 24 * T * 4 * 50) / 1e9, 2) == 1.91
    assert round(64 * (calls + packed) / 1e9, 1) == 2.4


# --- every fusion -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("concat", "lf_lstm", "tdmer")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in registry().names("fusion")
    ],
)
def test_every_fusion(name: str):
    made = complexity(name, STREAMS, batch=2, repeats=1)
    spec, cls = spec_of(STREAMS, "regression", 1), registry().load("fusion", name)
    model = cls(cls.Config(), spec).eval()
    assert made.parameters == sum(p.numel() for p in model.parameters())
    # Clips do not share work in predicting; losses between all pairs of them are no part of it.
    more = replace(full_batch(spec, 6, CPU), y=None)
    assert count_modules(model, more) == 3 * made.macs_modules > 0
    assert count_operations(model, more) == (3 * made.macs_all, 3 * made.macs_counter)
    assert 0 < made.macs_counter <= made.macs_all
    assert 0 < made.forward_ms and 0 < made.training_ms
    assert made.repeats == (3, 3)  # at least three
    # What stays between passes is part of both; gradients of all parameters of training's.
    assert made.forward_mb > 4 * made.parameters / 1e6
    assert made.training_mb > 2 * 4 * made.parameters / 1e6


@pytest.mark.parametrize(
    "task, n_out, streams",
    [
        ("classification", 4, STREAMS), ("multilabel", 3, STREAMS), ("regression", 1, STREAMS),
        ("regression", 1, {"face": (3, 4)}),
    ],
)  # fmt: skip
def test_tasks_and_streams(task: str, n_out: int, streams: dict[str, tuple[int, int]]):
    """concat is two linear layers on the means over time of all streams."""
    settings = ["fusion.d_model=10"]
    made = complexity("concat", streams, task, n_out, batch=2, settings=settings, repeats=1)
    columns = sum(D for D, _ in streams.values())
    assert made.macs_modules == made.macs_all == 2 * (columns * 10 + 10 * n_out)


def test_aligned_where_all_streams_have_one_length():
    assert spec_of(STREAMS, "regression", 1).alignment == "none"
    aligned = spec_of({"text": (3, 4), "audio": (2, 4)}, "classification", 3)
    assert aligned.alignment == "word" and len(aligned.classes) == 3
    batch = full_batch(aligned, 5, CPU)
    assert batch.x["text"].shape == (5, 4, 3) and all(m.all() for m in batch.mask.values())
    assert (batch.x["audio"] != 0).all() and batch.y.shape == (5,)


def test_settings_and_unknown_names():
    wide = complexity("concat", STREAMS, batch=2, settings=["fusion.d_model=64"], repeats=1)
    narrow = complexity("concat", STREAMS, batch=2, settings=["fusion.d_model=32"], repeats=1)
    assert wide.parameters > narrow.parameters and wide.macs_all > narrow.macs_all
    with pytest.raises(UsageError, match="no fusion named"):
        complexity("mlt", STREAMS)
    with pytest.raises(UsageError):
        complexity("concat", STREAMS, device="cuda:99")


# --- memory -------------------------------------------------------------------------------------
def test_peak_by_hand():
    x = torch.randn(64, 1000)
    row = 64 * 1000 * 4

    def both() -> None:
        a = x + x
        b = a + x
        del a
        c = b + x  # b and c are there, a is gone
        del b, c

    assert peak(both, CPU) == 2 * row
    assert peak(lambda: None, CPU) == 0
    assert peak(both, CPU) == 2 * row  # nothing is left of earlier passes


def test_peak_of_training_by_hand():
    model, x = nn.Linear(1000, 1000), torch.randn(64, 1000)

    def learn() -> None:
        model(x).square().sum().backward()

    weights, row = 4 * (1000 * 1000 + 1000), 64 * 1000 * 4
    found = peak(learn, CPU)
    # Gradients of all weights, and that of the output behind them; some versions keep a copy.
    assert weights + row <= found <= weights + 2 * row + 100
    model.zero_grad(set_to_none=True)
    assert peak(learn, CPU) == found


def test_memory_of_a_prediction_by_hand():
    """Parameters, the batch and the largest moment of concat, which keeps nothing else."""
    streams = {"text": (1000, 100)}
    made = complexity("concat", streams, batch=8, repeats=1)
    data = 8 * 100 * 1000 * 4
    # The padding is set to zero in a copy of the batch; what follows is smaller.
    least = made.parameters * 4 + 2 * data
    assert least <= made.forward_mb * 1e6 < 1.05 * least


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", registry().names("fusion"))
def test_gpu(name: str):
    """The counts are those of the CPU, whatever kernels run."""
    here, there = (complexity(name, STREAMS, batch=4, repeats=1, device=d) for d in ("cpu", "cuda"))
    assert there.parameters == here.parameters
    assert there.macs_modules == here.macs_modules and there.macs_all == here.macs_all
    assert there.training_mb > 2 * 4 * there.parameters / 1e6
    assert there.forward_mb > 4 * there.parameters / 1e6


def test_output_is_not_touched():
    """Counting leaves predictions as they are."""
    spec = spec_of(STREAMS, "regression", 1)
    cls = registry().load("fusion", "concat")
    torch.manual_seed(0)
    model = cls(cls.Config(), spec).eval()
    batch: Batch = full_batch(spec, 3, CPU)
    before: FusionOutput = model(batch)
    count_modules(model, batch)
    count_operations(model, batch)
    assert torch.equal(model(batch).pred, before.pred)
