"""Forced alignment of token sequences with the frames of a CTC model, by the Viterbi algorithm.

Connectionist temporal classification: Graves et al., "Connectionist Temporal Classification:
Labelling Unsegmented Sequence Data with Recurrent Neural Networks", ICML 2006, section 3. In each
frame the model gives every token, and a blank, a probability. A path gives each frame one of them;
it reads as what is left when repetitions are joined and blanks taken out. Here the targets are
known, and of the paths that read as them the most probable one is sought.

B sequences, T frames, V tokens (the blank among them), L targets. The states of a sequence are
blank, target 0, blank, target 1, ..., blank: S = 2 L + 1.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

BLANK = -1  # in a path: no target


class Path(NamedTuple):
    """The most probable path of one sequence.

    Attributes:
        targets: (T,) int64, index of the target in each frame; -1 = blank.
        logprobs: (T,) float32, log-probability of what the path has in each frame.
    """

    targets: np.ndarray
    logprobs: np.ndarray


def forced_paths(
    emissions: Tensor,
    lengths: Sequence[int],
    targets: Tensor,
    target_lengths: Sequence[int],
    blank: int = 0,
) -> list[Path | None]:
    """The most probable path through each sequence's targets.

    Of equally probable paths the one is taken in which, seen from the end, each state begins as
    early as it can. What stands behind a sequence's length changes nothing, nor do the others
    beside it. Where torchaudio can be imported, its `forced_align` is used, which takes one at a
    time; the paths are the same but where two are equally probable.

    Args:
        emissions: (B, T, V) log-probabilities.
        lengths: Frames of each sequence.
        targets: (B, L) tokens, none of them the blank within a sequence's length.
        target_lengths: Targets of each sequence.
        blank: Token of the blank.

    Returns:
        For each its path; None where there is none: fewer frames than targets (two equal ones in
        a row need a frame between them), or none of a probability above 0.
    """
    found: list[Path | None] = [None] * len(emissions)
    fits = [
        i
        for i, (frames, count) in enumerate(zip(lengths, target_lengths, strict=True))
        if frames and frames >= frames_needed(targets[i, :count].tolist())
    ]
    if not fits:
        return found
    theirs = torchaudio_align()
    if theirs:
        for i in fits:
            found[i] = _theirs(
                theirs, emissions[i, : lengths[i]], targets[i, : target_lengths[i]], blank
            )
        return found
    paths = viterbi(
        emissions[fits],
        [int(lengths[i]) for i in fits],
        targets[fits],
        [int(target_lengths[i]) for i in fits],
        blank,
    )
    for i, path in zip(fits, paths, strict=True):
        found[i] = path
    return found


def frames_needed(targets: Sequence[int]) -> int:
    """Frames of the shortest path: one per target, and one between two equal ones in a row.

    >>> frames_needed([7, 7, 8])
    4
    """
    return len(targets) + sum(a == b for a, b in zip(targets, targets[1:], strict=False))


def viterbi(
    emissions: Tensor, lengths: list[int], targets: Tensor, target_lengths: list[int], blank: int
) -> list[Path | None]:
    """`forced_paths` of sequences that are long enough, all of them together.

    The back-pointers take T B S bytes. Sums of log-probabilities are kept in float64: over an hour
    of frames float32 would lose what tells paths apart.
    """
    import torch

    device = emissions.device
    B, T, _ = emissions.shape
    S = 2 * int(targets.shape[1]) + 1
    labels = torch.full((B, S), blank, dtype=torch.int64, device=device)
    inside = torch.arange(targets.shape[1])[None] < torch.tensor(target_lengths)[:, None]
    labels[:, 1::2] = torch.where(inside.to(device), targets.to(device), blank)
    # From a target one may go to the next without the blank between, unless they are equal.
    skip = torch.full((B, S), -torch.inf, dtype=torch.float64, device=device)
    skip[:, 3::2] = torch.where(labels[:, 3::2] != labels[:, 1:-2:2], 0.0, -torch.inf)
    ends = torch.tensor(lengths, device=device)

    # Two columns before the first state that no path comes from.
    score = torch.full((B, S + 2), -torch.inf, dtype=torch.float64, device=device)
    score[:, 2:4] = emissions[:, 0].gather(1, labels[:, :2]).double()
    back = torch.zeros((T, B, S), dtype=torch.uint8, device=device)  # states that a step goes on
    for t in range(1, T):
        best = score[:, 2:]
        step = back[t]
        for size, other in ((1, score[:, 1:-1]), (2, score[:, :-2] + skip)):
            better = other > best  # strictly: of equals, the smaller step
            best = torch.where(better, other, best)
            step.masked_fill_(better, size)
        best = best + emissions[:, t].gather(1, labels)
        # A sequence that has ended keeps its scores, and its back-pointers point at themselves.
        running = (t < ends)[:, None]
        score[:, 2:] = torch.where(running, best, score[:, 2:])
        step.mul_(running)

    counts = torch.tensor(target_lengths, device=device)[:, None]
    after = score.gather(1, 2 * counts + 2)[:, 0]  # the blank behind the last target
    last = score.gather(1, 2 * counts + 1)[:, 0]  # the last target; -inf where there is none
    state = torch.where(last > after, 2 * counts[:, 0] - 1, 2 * counts[:, 0])
    total = torch.maximum(last, after).cpu().numpy()
    path = _trace(back.cpu().numpy(), state.cpu().numpy())  # (T, B)
    tokens = labels.gather(1, torch.from_numpy(path.T.copy()).to(device))
    logprobs = emissions.gather(2, tokens[..., None])[..., 0].float().cpu().numpy()
    return [
        Path(np.where(path[:n, i] % 2, path[:n, i] // 2, BLANK), logprobs[i, :n])
        if np.isfinite(total[i])
        else None
        for i, n in enumerate(lengths)
    ]


def _trace(back: np.ndarray, state: np.ndarray) -> np.ndarray:
    """(T, B) states from the last ones and the (T, B, S) steps that led to each."""
    path = np.empty(back.shape[:2], np.int64)
    each = np.arange(len(state))
    for t in range(len(back) - 1, -1, -1):
        path[t] = state
        state = state - back[t, each, state]
    return path


@functools.lru_cache(maxsize=1)
def torchaudio_align() -> Callable[..., Any] | None:
    """The `forced_align` of torchaudio, or None where it cannot be had.

    Its wheels are linked against CUDA: beside a CPU build of torch the import fails.
    """
    import torch

    if torch.version.cuda is None or importlib.util.find_spec("torchaudio") is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torchaudio.functional import forced_align
    except Exception:  # whatever a package that does not fit has to say
        return None
    return forced_align


def _theirs(
    align: Callable[..., Any], emission: Tensor, targets: Tensor, blank: int
) -> Path | None:
    """The path of one sequence, by torchaudio; it gives the token of each frame.

    Two equal targets in a row are parted by a blank: so each run of a token is the next target.
    """
    import torch

    if not len(targets):  # which it does not take
        logprobs = emission[:, blank].float().cpu().numpy()
        return Path(np.full(len(emission), BLANK), logprobs)
    device = emission.device
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokens, logprobs = align(
            emission[None].float().contiguous(),
            targets[None].to(device, torch.int32).contiguous(),
            torch.tensor([len(emission)], device=device),
            torch.tensor([len(targets)], device=device),
            blank,
        )
    tokens = tokens[0].cpu().numpy()
    begins = (tokens != blank) & (np.diff(tokens, prepend=blank) != 0)
    index = np.where(tokens == blank, BLANK, np.cumsum(begins) - 1)
    logprobs = logprobs[0].float().cpu().numpy()
    return Path(index, logprobs) if np.isfinite(logprobs).all() else None
