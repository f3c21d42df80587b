"""Checks of fusions. The name of each is what the fact `waivers` and the table call it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from textwrap import shorten

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, stack_module_state, vmap

from mertool.data import Normaliser
from mertool.errors import one_line
from mertool.testing import toy
from mertool.testing.common import check_all, check_config, check_import
from mertool.testing.results import Failed, Found, NotRun, Result, need
from mertool.testing.subject import Subject, same, sound
from mertool.train import checkpoint
from mertool.train.loop import task_loss
from mertool.types import TASKS, Batch, Label

ALL = tuple(toy.STREAMS)
RECORDED = {"weights": 2, "features": 2, "attention": 4}  # number of axes
STEPS, RATES, FITTED = 120, (3e-3, 1e-2, 1e-3), 0.3


def check_fusion(name: str, settings: Sequence[str] = ()) -> list[Result]:
    """Run every check of a registered fusion, on the CPU and, where there is one, on a GPU.

    Args:
        name: Its registered name.
        settings: "fusion.key=value" settings to check it with.

    Returns:
        One result per check; `failed` picks those that break the contract.

    Raises:
        UsageError: There is no such fusion, or a setting is wrong.
        PluginError: Two plugins register the name.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small models are fastest so, above all on a busy machine
    try:
        return check_all("fusion", name, "fusion", settings, CHECKS, Subject)
    finally:
        torch.set_num_threads(threads)


def check_tasks(fusion: Subject) -> None:
    """Regression, classification and multilabel: pred is (B, K) and finite."""
    for task in TASKS:
        spec = fusion.spec(task=task)
        try:
            fusion.try_out(spec, fusion.batch(spec))
        except Failed as problem:
            raise Failed(f"{task}: {problem}") from None
        if fusion.loss in ("l1", "mse", "ce", "bce", "none"):
            task_loss(task, fusion.loss)  # refuses "ce" and "bce" for regression


def check_unaligned(fusion: Subject) -> None:
    """Streams of different lengths."""
    spec = fusion.spec(alignment="none")
    fusion.try_out(spec, fusion.batch(spec))


def check_aligned(fusion: Subject) -> None:
    """Streams aligned to words."""
    spec = fusion.spec(alignment="word")
    fusion.try_out(spec, fusion.batch(spec))


def check_streams(fusion: Subject) -> None:
    """Every non-empty subset of the streams, and streams of other names."""
    subsets = [names for n in range(1, len(ALL) + 1) for names in combinations(ALL, n)]
    for names in (*subsets, ("face", "pose")):
        spec = fusion.spec(names)
        try:
            fusion.try_out(spec, fusion.batch(spec))
        except Exception as error:  # foreign code
            raise Failed(f"streams {', '.join(names)}: {one_line(error)}") from error


def check_absent(fusion: Subject) -> None:
    """Clips without some or all of their streams: all-False rows of the mask."""
    spec = fusion.spec()
    full = fusion.batch(spec)
    clips = range(len(full.ids))
    cases = {
        "a clip without one stream": [(i, name) for i, name in enumerate(ALL)],
        "a clip without any stream": [(1, name) for name in ALL],
        "a batch without any stream": [(i, name) for i in clips for name in ALL],
        **{f"a batch without {name}": [(i, name) for i in clips] for name in ALL},
    }
    for case, absent in cases.items():
        try:
            fusion.try_out(spec, toy.without(full, absent))
        except Failed as problem:
            raise Failed(f"{case}: {problem}") from None


def check_single(fusion: Subject) -> None:
    """A batch of one clip, and clips of one step, in training too."""
    for what, length, B in (("one clip", 0, 1), ("one step", 1, 4), ("one clip of one step", 1, 1)):
        spec = fusion.spec(length=length)
        try:
            fusion.try_out(spec, fusion.batch(spec, B, steps=length))
            # One real step among padding, where the batch is padded further.
            if not length:
                fusion.try_out(spec, fusion.batch(spec, B, steps=1))
        except Exception as error:  # foreign code
            raise Failed(f"{what}: {one_line(error)}") from error


def check_longer(fusion: Subject) -> None:
    """Clips longer than the longest of training."""
    if fusion.fixed:
        raise NotRun("fixed_length: the host crops them")
    spec = fusion.spec()
    model = fusion.build(spec)
    fusion.pred(model, fusion.batch(spec, steps=3 * max(T for _, T in spec.streams.values())), spec)


def check_padding(fusion: Subject) -> None:
    """What stands in padded steps, and how many there are, changes nothing."""
    spec = fusion.spec()
    model, batch = fusion.build(spec), fusion.batch(spec, spare=2)
    clean = fusion.pred(model, batch, spec)
    same(fusion.pred(model, toy.dirty(batch), spec), clean, "what stands in padded steps")
    if not fusion.fixed:
        more = toy.longer(batch, 2)
        same(fusion.pred(model, more, spec), clean, "more padding")
        same(fusion.pred(model, toy.dirty(more), spec), clean, "what stands in more padding")
    lacking = toy.without(batch, [(1, ALL[0]), (2, ALL[1]), (3, ALL[2])])
    model.eval()
    with torch.no_grad():
        clean = model(Batch(lacking.x, lacking.mask, None, lacking.ids)).pred
    if torch.isfinite(clean).all():  # otherwise the check "absent" says it
        what = "what stands in an absent stream"
        same(fusion.pred(model, toy.dirty(lacking), spec), clean, what)


def check_batch(fusion: Subject) -> None:
    """A clip's prediction does not depend on the other clips of its batch, nor on their order."""
    spec = fusion.spec()
    model, batch = fusion.build(spec), fusion.batch(spec, 6)
    # A few steps, so that nothing is at an initial value which happens to be neutral.
    fusion.train(model, batch, spec, 2)
    clean = fusion.pred(model, batch, spec)
    for what, clips in (("another order", [3, 0, 5, 1, 4, 2]), ("fewer clips in a batch", [2, 0])):
        same(fusion.pred(model, toy.pick(batch, clips), spec), clean[clips], what)


def check_labels(fusion: Subject) -> None:
    """The prediction does not depend on y, which may be None."""
    spec = fusion.spec()
    model, batch = fusion.build(spec), fusion.batch(spec)
    clean = fusion.pred(model, batch, spec)
    same(fusion.run(model, batch, spec).pred, clean, "y")
    batch.y = batch.y.flip(0)
    same(fusion.run(model, batch, spec).pred, clean, "another y")


def check_losses(fusion: Subject) -> None:
    """Further losses are finite scalars with names of their own, and some loss there is."""
    spec = fusion.spec()
    known = ("l1", "mse", "ce", "bce", "none")
    need(fusion.loss in known, f'task_loss is "{fusion.loss}", not one of {", ".join(known)}')
    model, batch = fusion.build(spec).train(), fusion.batch(spec)
    losses = sound(model(batch), batch, spec).losses
    need(isinstance(losses, dict), f"losses are a {type(losses).__name__}, no dictionary")
    need(losses or fusion.loss != "none", 'task_loss is "none" and losses are empty')
    for name, term in losses.items():
        need(name not in ("task", "total"), f'a loss is called "{name}": that name is taken')
        need(isinstance(term, Tensor) and term.dim() == 0, f'the loss "{name}" is no scalar tensor')
        need(torch.isfinite(term), f'the loss "{name}" is {float(term)}')


def check_gradients(fusion: Subject) -> None:
    """Every parameter gets a gradient, and in some batch one that is not zero."""
    spec = fusion.spec()
    model = fusion.build(spec)
    missing = {name for name, p in model.named_parameters() if p.requires_grad}
    without = set(missing)
    for seed in range(4):
        # An odd number of clips: of an even one the signs that l1 gives can cancel in a bias.
        fusion.step(model, fusion.batch(spec, 5, seed), spec)
        got = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        without -= set(got)
        missing -= {name for name, gradient in got.items() if gradient.any()}
    need(not without, f"no gradient: {_some(without)}")
    need(not missing, f"always a zero gradient: {_some(missing)}")


def check_seed(fusion: Subject) -> None:
    """The same seed gives the same model, trained too."""
    spec = fusion.spec()
    batch = fusion.batch(spec)
    models = []
    for _ in range(2):
        models.append(fusion.build(spec, seed=7))
        fusion.train(models[-1], batch, spec, 3)
    one, two = (model.state_dict() for model in models)
    differ = {name for name in one if not torch.equal(one[name], two[name])}
    need(not differ, f"weights differ after three steps: {_some(differ)}")
    one, two = (fusion.pred(model, batch, spec) for model in models)
    need(torch.equal(one, two), "the same weights predict differently")


def check_overfit(fusion: Subject) -> None:
    """It learns eight clips by heart: to less than a third of the best constant's error."""
    spec = fusion.spec()
    batch = fusion.batch(spec, 8)
    # Of a median or of class shares: what a constant can reach.
    if spec.task == "regression":
        constant = batch.y.median().expand(8, 1)
    elif spec.task == "classification":
        share = torch.bincount(batch.y, minlength=spec.n_out) / 8
        constant = share.clamp(min=1e-6).log().expand(8, -1)
    else:
        constant = batch.y.mean(0).logit(eps=1e-6).expand(8, -1)
    error = task_loss(spec.task, "l1")
    bound, best = FITTED * float(error(constant, batch.y)), float("inf")
    for rate in RATES:
        model = fusion.build(spec)
        for _ in range(STEPS // 10):
            fusion.train(model, batch, spec, 10, rate)
            best = min(best, float(error(fusion.run(model, batch, spec).pred, batch.y)))
            if best <= bound:
                return
    raise Failed(
        f"after {STEPS} steps the error is {best:.3g}; a constant's is {bound / FITTED:.3g}"
    )


def check_checkpoint(fusion: Subject) -> None:
    """A saved model, read back, predicts the same."""
    spec = fusion.spec()
    model, batch = fusion.build(spec), fusion.batch(spec)
    fusion.train(model, batch, spec, 2)
    normaliser = Normaliser(
        {name: torch.zeros(D) for name, (D, _) in spec.streams.items()},
        {name: torch.ones(D) for name, (D, _) in spec.streams.items()},
    )
    label = Label("toy", spec.task, spec.classes, spec.range)
    trained = checkpoint.Trained(
        fusion.entry.name, fusion.config, spec, label, normaliser, 0, fusion.entry.facts,
        {}, {}, {}, [], model,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        checkpoint.save(path, trained)
        seed = torch.initial_seed()
        torch.manual_seed(seed + 1)  # what is not in the file shall not be the same by luck
        again = checkpoint.load(path, torch.device("cpu"))
    before = fusion.pred(model, batch, spec)
    same(fusion.pred(again.model, batch, spec), before, "saving and reading back", 1e-6)


def check_values(fusion: Subject) -> None:
    """Forward takes no decision from tensor values: it runs where tensors have none."""
    spec = fusion.spec()
    model, real = fusion.build(spec), fusion.batch(spec)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        state = {name: mode.from_tensor(value.detach()) for name, value in state.items()}
        for train, record in ((True, False), (False, False), (False, True)):
            batch = Batch(
                {name: mode.from_tensor(x) for name, x in real.x.items()},
                {name: mode.from_tensor(m) for name, m in real.mask.items()},
                mode.from_tensor(real.y) if train else None,
                real.ids,
                record,
            )
            model.train(train)
            try:
                functional_call(model, state, (batch,))
            except Exception as error:  # foreign code
                raise Failed(f"with values unknown: {shorten(one_line(error), 200)}") from error


def check_record(fusion: Subject) -> None:
    """features, attention and weights are filled only when batch.record, and then well."""
    spec = fusion.spec()
    model, batch = fusion.build(spec), fusion.batch(spec)
    for train in (True, False):
        with torch.no_grad():
            output = sound(model.train(train)(batch), batch, spec)
        filled = [part for part in RECORDED if getattr(output, part)]
        need(not filled, f"{', '.join(filled)}: filled though batch.record is False")
    plain = fusion.pred(model, batch, spec)
    output = fusion.run(model, Batch(batch.x, batch.mask, None, batch.ids, True), spec)
    same(output.pred, plain, "batch.record")
    for part, axes in RECORDED.items():
        for name, value in getattr(output, part).items():
            what = f'{part}["{name}"]'
            need(isinstance(value, Tensor), f"{what} is no tensor")
            shape = tuple(value.shape)
            good = value.dim() == axes and shape[0] == len(batch.ids)
            need(good, f"{what} has shape {shape}, not {axes} axes with B first")
            need(torch.isfinite(value).all(), f"{what} is not finite")


def check_cuda(fusion: Subject) -> None:
    """On a GPU it predicts the same, and trains in bfloat16 too."""
    if not torch.cuda.is_available():
        raise NotRun("no CUDA device here")
    spec = fusion.spec()
    model, batch = fusion.build(spec), fusion.batch(spec)
    before = fusion.pred(model, batch, spec)
    model.cuda()
    there = Batch(
        {name: x.cuda() for name, x in batch.x.items()},
        {name: mask.cuda() for name, mask in batch.mask.items()},
        batch.y.cuda(),
        batch.ids,
    )
    same(fusion.pred(model, there, spec).cpu(), before, "the GPU", 1e-2)
    fusion.step(model, there, spec)
    with torch.autocast("cuda", torch.bfloat16):
        output = sound(model(there), there, spec)
    total = fusion.terms(output._replace(pred=output.pred.float()), there, spec)
    need(torch.isfinite(total), "the loss is not finite in bfloat16")


def check_vmap(fusion: Subject) -> None:
    """Whether several seeds can be trained stacked, by torch.func.vmap, or only side by side."""
    spec = fusion.spec()
    models = [fusion.build(spec, seed) for seed in (0, 1)]
    batch = fusion.batch(spec)

    def loss(parameters: dict, buffers: dict) -> tuple[Tensor, Tensor]:
        output = functional_call(models[0], (parameters, buffers), (batch,))
        return fusion.terms(output, batch, spec), output.pred

    try:
        for model in models:
            model.train()
        state = stack_module_state(models)
        gradients, _ = vmap(grad(loss, has_aux=True), randomness="different")(*state)
        need(all(torch.isfinite(g).all() for g in gradients.values()), "gradients are not finite")
        expected = [fusion.run(model, batch, spec).pred for model in models]
        _, stacked = vmap(loss, randomness="different")(*state)
        same(stacked.detach(), torch.stack(expected), "vmap")
    except Exception as error:  # foreign code; nothing is wrong with that
        raise Found("side by side", shorten(one_line(error), 200)) from error
    raise Found("stacked", "runs under torch.func.vmap")


def _some(names: set[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")


CHECKS = {
    "import": check_import,
    "config": check_config,
    "tasks": check_tasks,
    "unaligned": check_unaligned,
    "aligned": check_aligned,
    "streams": check_streams,
    "absent": check_absent,
    "single": check_single,
    "longer": check_longer,
    "padding": check_padding,
    "batch": check_batch,
    "labels": check_labels,
    "losses": check_losses,
    "gradients": check_gradients,
    "seed": check_seed,
    "overfit": check_overfit,
    "checkpoint": check_checkpoint,
    "values": check_values,
    "record": check_record,
    "cuda": check_cuda,
    "vmap": check_vmap,
}
