"""MCR's ablations: each row of Table 5 and Fig. 7 changes what it says, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import mertool_plugins.mcr
import pytest
import torch
from mertool_plugins.mcr.model import MCR, MCRConfig
from test_mcr import ALL, TINY, batch_of, build, count, spec_of
from torch import nn

from mertool.testing.common import find
from mertool.types import Batch, DataSpec, FusionOutput


@dataclass(frozen=True)
class Row:
    """One row of the paper, beside the full model with two layers.

    Patterns (of fnmatch) name parameters and what is recorded, of the full model but for `new`.

    Attributes:
        settings: "key=value", as after `--set fusion.`.
        streams: The streams it is trained on.
        gone: Parameters that it lacks.
        new: Parameters that the full model has not.
        resized: Parameters of another shape.
        dark: What it does not record.
        shown: What it alone records.
        same: What is recorded with the same values where the weights are the same; all else
            differs.
    """

    settings: tuple[str, ...]
    streams: tuple[str, ...] = ALL
    gone: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    dark: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    same: tuple[str, ...] = ()

    @property
    def config(self) -> MCRConfig:
        """Its settings on top of the small model's, read as the command line reads them."""
        small = (f"{k}={v}" for k, v in asdict(TINY).items() if k not in ("targets",))
        settings = [f"fusion.{s}" for s in (*map(str, small), *self.settings)]
        return find("fusion", "mcr", "fusion", [s.replace("True", "true") for s in settings]).config


def only(stream: str) -> Row:
    """The model of one stream: its source is itself, and there is nothing to be mutual with."""
    k = ALL.index(stream)
    others = f"[{''.join(str(i) for i in range(3) if i != k)}]"
    return Row(
        (),
        (stream,),
        gone=(
            f"convolution.{others}.*", f"layers.?.{others}.*", f"updates.?.gate.{others}.*",
            f"updates.?.memory.{others}.*",
            "*.exchange.*", "*.cmu.norm_s.1.*", "*.cmu.key.1.*", "*.cmu.value.1.*",
        ),
        resized=(f"updates.?.gate.{k}.b",),
        dark=("alpha.*", "cmu.*", "scu.*", *(f"*.{m}" for m in ALL if m != stream),
              *(f"Z_{m}" for m in ALL if m != stream)),
        shown=(f"cmu.?.{stream}-to-{stream}", f"scu.?.{stream}-to-{stream}"),
        same=(f"self.1.{stream}",),
    )  # fmt: skip


def target(stream: str) -> Row:
    """One target; the other streams stay its sources."""
    k = ALL.index(stream)
    others = f"[{''.join(str(i) for i in range(3) if i != k)}]"
    rest = [m for m in ALL if m != stream]
    return Row(
        (f"targets={stream}",),
        gone=(
            f"layers.?.{others}.*", f"updates.?.gate.{others}.*", f"updates.?.memory.{k}.*",
        ),
        dark=(*(f"*-to-{m}" for m in rest), *(f"*.{m}" for m in rest), *(f"Z_{m}" for m in rest)),
        same=("*.1.*", f"self.2.{stream}"),
    )  # fmt: skip


ATTENTION = ("cmu.1.*", "scu.1.*", "self.1.*", "alpha.1.*")
ROWS = {
    "Language Only": only("text"),
    "Video Only": only("vision"),
    "Audio Only": only("audio"),
    "[V, A -> L] Only": target("text"),
    "[L, A -> V] Only": target("vision"),
    "[L, V -> A] Only": target("audio"),
    "Low-level Feature": Row(
        ("source_update=low_level",), gone=("updates.*",), same=("*.1.*", "self.2.*")
    ),
    "High-level Feature (FFL)": Row(
        ("source_update=ffl",),
        gone=("updates.?.gate.*", "*.memory.?.W_?.weight", "*.memory.?.b"),
        same=("*.1.*", "self.2.*"),
    ),
    "SUM w/o SMM": Row(
        ("smm=false",),
        gone=("*.memory.?.W_?.weight", "*.memory.?.b"),
        same=("*.1.*", "self.2.*"),
    ),
    "w/o CMU": Row(
        ("cmu=false",),
        gone=("*.cmu.*",),
        dark=("cmu.*", "alpha.*"),
        same=("scu.1.*", "self.1.*", "gamma.1.*"),
    ),
    "w/o Mutual Attention": Row(
        ("mutual_attention=false",),
        gone=("*.exchange.*",),
        dark=("alpha.*",),
        same=("scu.1.*", "self.1.*", "gamma.1.*"),
    ),
    "w/o SCU": Row(
        ("scu=false",),
        gone=("*.scu.*", "updates.?.gate.*"),
        dark=("scu.*", "self.*", "gamma.*"),
        same=("cmu.1.*", "alpha.1.*"),
    ),
    "w/o Attention Layer": Row(
        ("attention_layer=none",), gone=("*.attention_layer.*",), dark=("gamma.*",), same=ATTENTION
    ),
    "w/ Serial Structure": Row(("structure=serial",), same=("cmu.1.*", "alpha.1.*")),
    "Fig. 7, one layer": Row(
        ("layers=1",), gone=("layers.1.*", "updates.*"), dark=("*.2.*",), same=("*.1.*",)
    ),
    "Fig. 7, three layers": Row(
        ("layers=3",), new=("layers.2.*", "updates.1.*"), shown=("*.3.*",), same=("*.1.*", "*.2.*")
    ),
    # Ours: eq. 9 as printed.
    "literal": Row(
        ("attention_layer=literal",),
        new=("*.attention_layer.U.weight",),
        resized=("*.attention_layer.branch.*",),
        same=ATTENTION,
    ),
}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


def matching(names: Iterable[str], patterns: Iterable[str]) -> set[str]:
    """Names that a pattern fits; every pattern must fit one."""
    found = {p: {n for n in names if fnmatchcase(n, p)} for p in patterns}
    assert all(found.values()), found
    return set().union(*found.values())


def full_names(part: MCR) -> dict[str, str]:
    """{parameter: its name in the full model}, where streams have other places in the lists."""
    targets, streams = list(part.sources), list(part.lengths)
    updated = part.updates[0].updated if part.updates else []

    def name_of(parameter: str) -> str:
        for pattern, order in (
            (r"(convolution)\.(\d+)", streams),
            (r"(layers\.\d+)\.(\d+)", targets),
            (r"(updates\.\d+\.gate)\.(\d+)", targets),
            (r"(updates\.\d+\.memory)\.(\d+)", updated),
        ):
            found = re.match(pattern, parameter)
            if found:
                place = ALL.index(order[int(found[2])])
                parameter = f"{found[1]}.{place}{parameter[found.end() :]}"
        # Without eq. 13 and 14 the feed-forward layer stands alone.
        return re.sub(r"(memory\.\d+)\.(\d\.)", r"\1.feed_forward.\2", parameter)

    return {n: name_of(n) for n, _ in part.named_parameters()}


def models(row: Row) -> tuple[MCR, MCR]:
    """The full model and that of a row, with the same weights wherever both have them."""
    full = build(spec_of(*ALL))
    part = build(spec_of(*row.streams), row.config, seed=1)
    theirs, names = full.state_dict(), full_names(part)
    mine = part.state_dict()
    for name, other in names.items():
        if other in theirs and theirs[other].shape == mine[name].shape:
            mine[name] = theirs[other]
    part.load_state_dict(mine)
    return full, part


def recorded(out: FusionOutput) -> dict[str, torch.Tensor]:
    return {**out.attention, **out.weights, **out.features}


@every_row
def test_row_changes_no_other_parameter(row: Row) -> None:
    full, part = models(row)
    theirs = {n: p.shape for n, p in full.named_parameters()}
    names = full_names(part)
    mine = {names[n]: p.shape for n, p in part.named_parameters()}
    assert theirs.keys() - mine.keys() == matching(theirs, row.gone)
    assert mine.keys() - theirs.keys() == matching(mine, row.new)
    resized = {n for n in theirs.keys() & mine.keys() if theirs[n] != mine[n]}
    assert resized == matching(theirs, row.resized)


@every_row
def test_row_changes_what_it_says_and_no_other_value(row: Row) -> None:
    full, part = models(row)
    batch = batch_of(spec_of(*ALL))
    batch.record = True
    alone = Batch(
        {m: batch.x[m] for m in row.streams}, {m: batch.mask[m] for m in row.streams}, record=True
    )
    theirs, mine = full(batch), part(alone)
    assert not torch.allclose(mine.pred, theirs.pred)
    theirs, mine = recorded(theirs), recorded(mine)
    assert theirs.keys() - mine.keys() == matching(theirs, row.dark)
    assert mine.keys() - theirs.keys() == matching(mine, row.shown)
    both = theirs.keys() & mine.keys()
    kept = matching(both, row.same)
    for name in both - {"encoder.1"} if row.streams != ALL or row.config.targets else both:
        assert torch.equal(theirs[name], mine[name]) == (name in kept), name


@every_row
def test_every_weight_of_a_row_learns(row: Row) -> None:
    part = build(spec_of(*row.streams), row.config)
    part(batch_of(spec_of(*row.streams))).pred.square().sum().backward()
    assert [n for n, p in part.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_readme_names_every_setting() -> None:
    readme = Path(mertool_plugins.mcr.__file__).with_name("README.md").read_text(encoding="utf-8")
    for name, row in ROWS.items():
        for setting in row.settings:
            assert f"`{setting}`" in readme, name


def test_literal_is_the_same_model() -> None:
    """With w = W^T U and c = U^T b nothing that is recorded or predicted differs (eq. 9)."""
    vector, literal = models(ROWS["literal"])
    with torch.no_grad():
        for i, layer in enumerate(literal.layers):
            for k, units in enumerate(layer):
                full, short = units.scu.attention_layer, vector.layers[i][k].scu.attention_layer
                for W, w in zip(full.branch, short.branch, strict=True):
                    w.weight.copy_(full.U.weight @ W.weight)
                    w.bias.copy_(full.U.weight[0] @ W.bias)
    batch = batch_of(spec_of(*ALL))
    batch.record = True
    one, other = vector(batch), literal(batch)
    torch.testing.assert_close(one.pred, other.pred)
    for name, values in recorded(one).items():
        torch.testing.assert_close(values, recorded(other)[name], msg=name)


# --- sizes ---------------------------------------------------------------------------------------
def expected_count(c: MCRConfig, spec: DataSpec) -> int:
    """Number of parameters from the equations' shapes."""
    d, T = c.d_model, {m: length for m, (_, length) in spec.streams.items()}
    norm, pff = 2 * d, 8 * d * d + 5 * d
    targets = c.targets or tuple(T)
    sources = {t: [s for s in T if s != t] or [t] for t in targets}
    total = sum(D * c.kernel(m) * d + d for m, (D, _) in spec.streams.items())
    for t, names in sources.items():
        lengths = [T[s] for s in names]
        if c.cmu:
            unit = norm + d * d + len(names) * (norm + 2 * d * d) + norm + pff
            if c.mutual_attention:
                unit += sum(
                    (a + 1) * b
                    for i, a in enumerate(lengths)
                    for j, b in enumerate(lengths)
                    if i != j
                )
            total += c.layers * unit
        if c.scu:
            size = T[t] * d
            layer = {
                "none": 0,
                "vector": 2 * (size + 1),
                "literal": 2 * (size * size + size) + size,
            }
            total += c.layers * (2 * norm + 8 * d * d + layer[c.attention_layer] + norm + pff)
            if c.source_update == "sum":
                total += (c.layers - 1) * (d * d + sum(lengths) * d)
    if c.source_update != "low_level":
        for s in {s for names in sources.values() for s in names}:
            gated = c.smm and c.source_update == "sum"
            total += (c.layers - 1) * (pff + gated * (2 * d * d + T[s] * d))
    total += c.encoder_layers * (norm + 4 * d * d + norm + pff) + norm
    return total + d * d + d + d * spec.n_out + spec.n_out


@pytest.mark.parametrize("row", [Row(()), *ROWS.values()], ids=["full", *ROWS])
@pytest.mark.parametrize("names", [ALL, ("text", "vision"), ("text",)], ids="+".join)
def test_parameters(row: Row, names: tuple[str, ...]) -> None:
    config = row.config
    config = replace(config, targets=tuple(t for t in config.targets if t in names))
    spec = spec_of(*names, task="classification")
    assert count(build(spec, config)) == expected_count(config, spec)


@pytest.mark.parametrize(
    "settings, outputs, parameters",
    [
        ({}, 1, 760_599),
        ({"heads": 8, "layers": 4}, 1, 1_001_385),
        ({"kernel_audio": 5}, 4, 766_642),
    ],
    ids=["mosi", "mosei", "iemocap"],
)
def test_parameters_at_the_papers_sizes(settings: dict, outputs: int, parameters: int) -> None:
    """Table 1's settings, the feature widths of section 4.2, 50 aligned steps."""
    streams = {"text": (300, 50), "vision": (35, 50), "audio": (74, 50)}
    spec = DataSpec(streams, "multilabel" if outputs > 1 else "regression", outputs)
    config = MCRConfig(**settings)
    assert count(build(spec, config)) == expected_count(config, spec) == parameters


def test_printed_attention_layers_of_long_streams() -> None:
    """Eq. 9 as printed, three layers at 50, 375 and 500 steps: 3.8 thousand million weights."""
    spec = DataSpec({"text": (300, 50), "audio": (74, 375), "vision": (35, 500)})
    with torch.device("meta"):
        model = MCR(MCRConfig(attention_layer="literal"), spec)
    weights = {n: p for n, p in model.named_parameters() if ".attention_layer." in n}
    assert sum(p.numel() for n, p in weights.items() if n.endswith("branch.0.weight")) == (
        3 * (2000**2 + 15000**2 + 20000**2)
    )
    assert round(sum(p.numel() for p in weights.values()) / 1e9, 1) == 3.8


# --- units ---------------------------------------------------------------------------------------
def inputs_of_layers(model: MCR, batch: Batch) -> list[dict]:
    """What the units of each layer and target were given and returned."""
    calls: list[dict] = []

    def note(_: nn.Module, args: tuple, out: tuple) -> None:
        calls.append({"Z_t": args[0], "Z_s": args[1], "Z_ds": args[2], "out": out[0]})

    for layer in model.layers:
        for units in layer:
            units.register_forward_hook(note)
    model(batch)
    return calls


def test_parallel_adds_and_serial_chains_the_units() -> None:
    spec = spec_of(*ALL)
    batch = batch_of(spec)
    for structure in ("parallel", "serial"):
        model = build(spec, replace(TINY, structure=structure))
        call, units, mask = inputs_of_layers(model, batch)[0], model.layers[0][0], batch.mask
        masks = [mask["text"], mask["vision"]]
        real = mask["audio"].unsqueeze(-1)  # the first target by name
        Z_ta = units.cmu(call["Z_t"], call["Z_s"], masks)[0] * real
        query = Z_ta if structure == "serial" else call["Z_t"]
        Z_tb = units.scu(query, call["Z_ds"], mask["audio"], torch.cat(masks, 1))[0] * real
        expected = Z_tb if structure == "serial" else Z_ta + Z_tb
        torch.testing.assert_close(call["out"], expected)


def test_sources_are_copies_updated_as_the_setting_says() -> None:
    spec = spec_of(*ALL)
    batch = batch_of(spec)
    real = {m: mask.unsqueeze(-1) for m, mask in batch.mask.items()}
    for settings in ({}, {"smm": False}, {"source_update": "ffl"}, {"source_update": "low_level"}):
        model = build(spec, replace(TINY, **settings))
        Z, calls = model.embed(batch), inputs_of_layers(model, batch)
        first, second = calls[:3], calls[3:]  # three targets in each of two layers
        for t, call in zip(ALL, first, strict=True):
            names = [s for s in ALL if s != t]
            assert torch.equal(call["Z_t"], Z[t])
            assert all(torch.equal(a, Z[s]) for a, s in zip(call["Z_s"], names, strict=True))
            assert torch.equal(call["Z_ds"], torch.cat([Z[s] for s in names], 1))
        if "source_update" in settings and settings["source_update"] == "low_level":
            assert len(model.updates) == 0
            expected = Z
        else:
            (update,) = model.updates
            expected = {}
            for s, call, one in zip(ALL, first, update.memory, strict=True):
                if settings.get("source_update") == "ffl":
                    new = one(Z[s])
                elif "smm" in settings:
                    new = one.feed_forward(Z[s]) + call["out"]
                else:
                    new = one(call["out"], Z[s])
                expected[s] = new * real[s]
        for k, (t, call) in enumerate(zip(ALL, second, strict=True)):
            names = [s for s in ALL if s != t]
            for a, s in zip(call["Z_s"], names, strict=True):
                torch.testing.assert_close(a, expected[s])
            joint = torch.cat([expected[s] for s in names], 1)
            if settings.get("source_update", "sum") == "sum":
                joint = update.gate[k](joint)
            torch.testing.assert_close(call["Z_ds"], joint)


def test_one_target_keeps_only_its_units() -> None:
    spec = spec_of(*ALL)
    model = build(spec, replace(TINY, targets=("vision",)))
    assert [len(layer) for layer in model.layers] == [1, 1]
    assert model.updates[0].updated == ["audio", "text"]
    batch = batch_of(spec)
    batch.record = True
    out = model(batch)
    assert set(out.features) == {"Z_vision", "Z_fin"}
    assert all(name.endswith(("-to-vision", ".vision", "encoder.1")) for name in out.attention)
    # A stream that is no target reaches the next layer's sources as its own input.
    Z, (first, second) = model.embed(batch), inputs_of_layers(model, batch)
    for s, one, new in zip(("audio", "text"), model.updates[0].memory, second["Z_s"], strict=True):
        torch.testing.assert_close(new, one(Z[s], Z[s]) * batch.mask[s].unsqueeze(-1))
    assert first["out"].shape == second["Z_t"].shape


def test_single_modality_attends_to_itself() -> None:
    spec = spec_of("audio")
    model, batch = build(spec), batch_of(spec)
    assert model.sources == {"audio": ("audio",)}
    call = inputs_of_layers(model, batch)[0]
    assert torch.equal(call["Z_s"][0], call["Z_t"]) and torch.equal(call["Z_ds"], call["Z_t"])
    assert not model.layers[0][0].cmu.exchange
