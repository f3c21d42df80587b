"""What a fusion costs: parameters, multiply-accumulates by two rules, latency and peak memory.

Published figures follow two rules that do not agree, so both are given.

**Module calls** (`count_modules`), the rule of the thop package: each call of a module of torch.nn
counts by its kind, everything else counts nothing. With n the elements of the output:

    Linear                      n * columns of the input; the bias adds nothing
    Conv1d, Conv2d, Conv3d      n * input channels / groups * kernel; the bias adds nothing
    LayerNorm, BatchNorm1d-3d   4 n, or 2 n without weights of its own
    Softmax                     (3 c - 1) for every row of c
    RNN, GRU, LSTM and cells    per clip, step, direction and layer: g gates of
                                d * (columns of the input + d + 1 [+ 2 with bias]), and e d for the
                                products between gates, with g, e = 1, 0 (RNN), 3, 4 (GRU), 4, 4

Activations, dropout and embeddings count nothing, and neither does what is computed outside a
module of this list: products of attention (matmul, einsum, scaled_dot_product_attention),
nn.MultiheadAttention (all of it: it uses the weights of its output layer without calling it),
nn.Bilinear, and parameters that a model multiplies with itself.

**All operations** (`count_operations`): torch.utils.flop_counter counts 2 for a multiply-accumulate
of every matrix product and convolution that torch runs, however the model is written; we halve it.
What it has no formula for we add: fused attention on a CPU (scores and weighted sum, as if
unfused), recurrent layers (each weight matrix once per clip and step), and products of a matrix or
a vector with a vector. Element-wise work, normalisations included, is no multiply-accumulate here,
and nn.Bilinear is still missed.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from mertool.device import pick
from mertool.testing import toy
from mertool.testing.common import find
from mertool.testing.subject import Subject
from mertool.types import Batch, DataSpec

WARM_UP = 1.0  # seconds, after which a slow model counts as warm
ENOUGH = 10.0  # seconds of measurement, after which fewer repeats must do
LEAST = 3  # repeats
MB = 1e6


@dataclass(frozen=True)
class Complexity:
    """What one fusion costs on one batch.

    Attributes:
        parameters: Trained parameters.
        macs_modules: Multiply-accumulates of a prediction by module calls.
        macs_all: Multiply-accumulates of a prediction, all operations.
        macs_counter: The part of `macs_all` that torch's flop counter sees without our additions,
            which is what is published as its figure. It depends on the device: on a CPU, fused
            attention and LSTMs are missing.
        forward_ms: Prediction, median wall time in milliseconds.
        training_ms: Forward in training, loss and backward, median in milliseconds.
        forward_mb: Peak of allocated tensors during a prediction, MB (10^6 bytes): parameters,
            buffers and the batch included.
        training_mb: The same for forward, loss and backward: activations and gradients included,
            an optimiser's state not.
        repeats: Timed passes behind forward_ms and training_ms.
    """

    parameters: int
    macs_modules: int
    macs_all: int
    macs_counter: int
    forward_ms: float
    training_ms: float
    forward_mb: float
    training_mb: float
    repeats: tuple[int, int]


def complexity(
    name: str,
    streams: Mapping[str, tuple[int, int]],
    task: str = "regression",
    n_out: int = 1,
    batch: int = 16,
    settings: Sequence[str] = (),
    device: str = "cpu",
    repeats: int = 10,
) -> Complexity:
    """Measure a registered fusion on clips that all have their full length.

    Multiply-accumulates are those of the whole batch. On a CPU the times are those of as many
    threads as torch uses.

    Args:
        name: Its registered name.
        streams: {stream: (D, T)}; streams with one T count as aligned to words.
        task: "regression", "classification" or "multilabel".
        n_out: K.
        batch: B.
        settings: "fusion.key=value" settings.
        device: "cpu", "cuda", "auto".
        repeats: Timed passes; a slow model gets fewer, at least three.

    Raises:
        UsageError: There is no such fusion or device, or a setting is wrong.
        PluginError: The fusion cannot be loaded.
    """
    subject = Subject(find("fusion", name, "fusion", settings))
    where = pick(device)
    spec = spec_of(streams, task, n_out)
    model = subject.build(spec).to(where)
    labelled = full_batch(spec, batch, where)
    clips = Batch(labelled.x, labelled.mask, None, labelled.ids)

    model.eval()
    macs_modules = count_modules(model, clips)
    macs_all, macs_counter = count_operations(model, clips)

    def predict() -> None:
        with torch.no_grad():
            model(clips)

    def learn() -> None:
        subject.terms(model(labelled), labelled, spec).backward()

    def forget() -> None:
        model.zero_grad(set_to_none=True)

    tensors = [*model.parameters(), *model.buffers(), *clips.x.values(), *clips.mask.values()]
    tensors.append(labelled.y)
    held = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    forward = times(predict, where, repeats)
    forward_mb = (held + peak(predict, where)) / MB
    model.train()
    training = times(learn, where, repeats, forget)
    forget()
    training_mb = (held + peak(learn, where)) / MB
    return Complexity(
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        macs_modules=macs_modules,
        macs_all=macs_all,
        macs_counter=macs_counter,
        forward_ms=1000 * statistics.median(forward),
        training_ms=1000 * statistics.median(training),
        forward_mb=forward_mb,
        training_mb=training_mb,
        repeats=(len(forward), len(training)),
    )


def spec_of(streams: Mapping[str, tuple[int, int]], task: str, n_out: int) -> DataSpec:
    """The data spec of such clips."""
    regression = task == "regression"
    return DataSpec(
        streams=dict(streams),
        task=task,
        n_out=n_out,
        classes=() if regression else tuple(f"class{k}" for k in range(n_out)),
        range=toy.RANGE if regression else (0.0, 0.0),
        alignment="word" if len({T for _, T in streams.values()}) == 1 else "none",
    )


def full_batch(spec: DataSpec, B: int, device: torch.device) -> Batch:
    """B labelled clips without padding."""
    made = toy.batch(spec, B, fixed=True)
    draw = torch.Generator().manual_seed(0)
    return Batch(
        {m: torch.randn(x.shape, generator=draw).to(device) for m, x in made.x.items()},
        {m: torch.ones_like(mask).to(device) for m, mask in made.mask.items()},
        made.y.to(device),
        made.ids,
    )


# --- module calls -------------------------------------------------------------------------------

NORMS = (nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# (layer, cell): gates, and operations per unit between them.
RECURRENT = {
    (nn.RNN, nn.RNNCell): (1, 0),
    (nn.GRU, nn.GRUCell): (3, 4),
    (nn.LSTM, nn.LSTMCell): (4, 4),
}


def count_modules(model: nn.Module, *inputs: Any) -> int:
    """Multiply-accumulates of `model(*inputs)` by module calls; see the top of this file."""
    total = 0

    def add(module: nn.Module, _: Any, output: Any) -> None:
        nonlocal total
        total += macs_of(module, output)

    # With gradients: see count_operations.
    with torch.enable_grad(), ExitStack() as hooks:
        for module in model.modules():
            hooks.callback(module.register_forward_hook(add).remove)
        model(*inputs)
    return total


def macs_of(module: nn.Module, output: Any) -> int:
    """What one call of a module counts, from its output: 0 for kinds that are not listed."""
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return output.numel() * module.weight[0].numel()  # (channels / groups, kernel)
    if isinstance(module, NORMS):
        return output.numel() * (2 if module.weight is None else 4)
    if isinstance(module, nn.Softmax) and module.dim is not None:
        return output.numel() // output.shape[module.dim] * (3 * output.shape[module.dim] - 1)
    for kinds, (gates, extra) in RECURRENT.items():
        if isinstance(module, kinds):
            return _recurrent(module, output, gates, extra)
    return 0


def _recurrent(module: Any, output: Any, gates: int, extra: int) -> int:
    D, d = module.input_size, module.hidden_size
    states = output[0] if isinstance(output, tuple) else output  # GRUCell and RNNCell: a tensor
    # Packed sequences, a tuple themselves, begin with the rows.
    states = states if isinstance(states, Tensor) else states[0]
    rows = states.numel() // states.shape[-1]
    layers, directions = 1, 1
    if isinstance(module, nn.RNNBase):
        layers, directions = module.num_layers, 2 if module.bidirectional else 1
    bias = 2 if module.bias else 0
    per_row = sum(
        gates * d * (columns + d + 1 + bias) + extra * d
        for columns in [D, *[d * directions] * (layers - 1)]
    )
    return rows * directions * per_row


# --- all operations -----------------------------------------------------------------------------

Shape = Sequence[int]


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """(B, H, Tq, d), (B, H, Tk, d), (B, H, Tk, d_v): scores, and the sum that they weight."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _onednn(x: Shape, to_input: Shape, to_state: Shape, *_: Any, **__: Any) -> int:
    """One layer and direction of a recurrent network on a CPU; x (T, B, D)."""
    return 2 * math.prod(x[:-1]) * (math.prod(to_input) + math.prod(to_state))


def _cudnn(x: Shape, weights: Sequence[Shape], *_: Any, **__: Any) -> int:
    """A whole recurrent network on a GPU; biases are vectors."""
    return 2 * math.prod(x[:-1]) * sum(math.prod(w) for w in weights if len(w) == 2)


def _vector(x: Shape, *_: Any, **__: Any) -> int:
    """(n, m) @ (m,) or (n,) @ (n,)."""
    return 2 * math.prod(x)


def _added_vector(_: Shape, x: Shape, *__: Any, **___: Any) -> int:
    """The same, added to a vector."""
    return _vector(x)


aten = torch.ops.aten
FORMULAS = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten.mkldnn_rnn_layer: _onednn,
    aten._cudnn_rnn: _cudnn,
    aten.miopen_rnn: _cudnn,
    aten.mv: _vector,
    aten.dot: _vector,
    aten.addmv: _added_vector,
}


def count_operations(model: nn.Module, *inputs: Any) -> tuple[int, int]:
    """Multiply-accumulates of `model(*inputs)` in all operations; see the top of this file.

    Returns:
        All of them, and those that torch's flop counter sees without our formulas.
    """
    # With gradients: without them torch.nn's Transformer takes a fused path of its own.
    with torch.enable_grad(), FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        model(*inputs)
    counts = counter.get_flop_counts().get("Global", {})
    ours = sum(n for op, n in counts.items() if op in FORMULAS and op not in flop_registry)
    return sum(counts.values()) // 2, (sum(counts.values()) - ours) // 2


# --- time and memory ----------------------------------------------------------------------------


def times(
    run: Callable[[], None],
    device: torch.device,
    repeats: int,
    before: Callable[[], None] = lambda: None,
) -> list[float]:
    """Wall times of warm passes, seconds; `before` each of them runs untimed."""

    def once() -> float:
        before()
        _wait(device)
        started = time.perf_counter()
        run()
        _wait(device)
        return time.perf_counter() - started

    warm: list[float] = []
    while len(warm) < LEAST and sum(warm) < WARM_UP:
        warm.append(once())
    found: list[float] = []
    while len(found) < LEAST or (len(found) < repeats and sum(found) < ENOUGH):
        found.append(once())
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(run: Callable[[], None], device: torch.device) -> int:
    """Most bytes that torch holds at once during a pass, beyond those held before it."""
    if device.type == "cuda":
        _wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        run()
        _wait(device)
        return torch.cuda.max_memory_allocated(device) - held
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory(prefix="mertool-") as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = [event for event in events if event.get("name") == "[memory]"]
    now = most = 0
    for event in sorted(changes, key=lambda event: event["ts"]):
        now += event["args"]["Bytes"]
        most = max(most, now)
    return most
