"""The Viterbi path against all paths of small cases, each tried."""

from __future__ import annotations

import importlib.util
import itertools

import numpy as np
import pytest
import torch

from mertool.align import viterbi
from mertool.align.viterbi import forced_paths, frames_needed


@pytest.fixture(autouse=True)
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here is ours, on machines with torchaudio too."""
    monkeypatch.setattr(viterbi, "torchaudio_align", lambda: None)


def emissions(frames: int, tokens: int, seed: int) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.normal(0, 2, (frames, tokens)).astype(np.float32)).log_softmax(1)


def read(labels: tuple[int, ...], blank: int) -> list[int]:
    """What a path reads as: repetitions joined, blanks out."""
    return [k for k, _ in itertools.groupby(labels) if k != blank]


def best(logprobs: np.ndarray, targets: list[int], blank: int) -> tuple[float, set]:
    """The highest sum of all paths that read as the targets, and the paths that have it."""
    frames, tokens = logprobs.shape
    sums = {
        labels: sum(float(logprobs[t, k]) for t, k in enumerate(labels))
        for labels in itertools.product(range(tokens), repeat=frames)
        if read(labels, blank) == targets
    }
    highest = max(sums.values(), default=-np.inf)
    return highest, {labels for labels, total in sums.items() if total > highest - 1e-9}


def labels_of(path: viterbi.Path, targets: list[int], blank: int) -> tuple[int, ...]:
    return tuple(blank if i < 0 else targets[i] for i in path.targets)


def one(logprobs: torch.Tensor, targets: list[int], blank: int) -> viterbi.Path | None:
    tokens = torch.tensor([targets], dtype=torch.int64).reshape(1, -1)
    return forced_paths(logprobs[None], [len(logprobs)], tokens, [len(targets)], blank)[0]


CASES = [
    ([1], 1), ([1], 5), ([1, 2], 2), ([1, 2], 6), ([1, 1], 3), ([1, 1], 6), ([1, 1, 1], 6),
    ([2, 1, 1, 2], 6), ([1, 2, 1], 6), ([2, 2, 1, 1], 7), ([], 1), ([], 4), ([1, 2, 1, 2, 1], 5),
]  # fmt: skip


@pytest.mark.parametrize(("targets", "frames"), CASES, ids=str)
@pytest.mark.parametrize("blank", [0, 3])
def test_it_is_the_best_of_all_paths(targets: list[int], frames: int, blank: int) -> None:
    if blank == 3:  # the tokens are others then
        targets = [t - 1 for t in targets]
    for seed in range(8):
        logprobs = emissions(frames, 4 if frames < 6 else 3 + (blank == 3), seed)
        path = one(logprobs, targets, blank)
        highest, paths = best(logprobs.numpy(), targets, blank)
        assert labels_of(path, targets, blank) in paths
        assert path.targets.shape == path.logprobs.shape == (frames,)
        assert path.logprobs.sum(dtype=float) == pytest.approx(highest, abs=1e-5)
        # The targets come one after the other, none is left out.
        assert [i for i, _ in itertools.groupby(path.targets[path.targets >= 0])] == list(
            range(len(targets))
        )


def test_together_is_as_alone() -> None:
    """Clips of any lengths, padded with what would be tempting."""
    random = np.random.default_rng(1)
    clips = []
    for i in range(23):
        targets = random.integers(1, 4, random.integers(0, 9)).tolist()
        frames = max(1, frames_needed(targets) + int(random.integers(-1, 12)))
        clips.append((emissions(frames, 5, i), targets))
    longest = max(len(e) for e, _ in clips)
    padded = torch.zeros(len(clips), longest, 5)  # as probable as can be
    tokens = torch.full((len(clips), max(len(t) for _, t in clips)), 2)
    for i, (logprobs, targets) in enumerate(clips):
        padded[i, : len(logprobs)] = logprobs
        tokens[i, : len(targets)] = torch.tensor(targets, dtype=torch.int64)
    together = forced_paths(
        padded, [len(e) for e, _ in clips], tokens, [len(t) for _, t in clips], blank=0
    )
    none = 0
    for (logprobs, targets), path in zip(clips, together, strict=True):
        alone = one(logprobs, targets, 0)
        if alone is None:
            assert path is None and len(logprobs) < frames_needed(targets)
            none += 1
            continue
        np.testing.assert_array_equal(path.targets, alone.targets)
        np.testing.assert_array_equal(path.logprobs, alone.logprobs)
    assert 0 < none < len(clips)


@pytest.mark.parametrize(
    ("targets", "needed"), [([1, 2, 3], 3), ([1, 1], 3), ([1, 1, 1, 2, 2], 8), ([], 0)]
)
def test_too_few_frames(targets: list[int], needed: int) -> None:
    assert frames_needed(targets) == needed
    for frames in range(1, needed + 2):
        path = one(emissions(frames, 4, frames), targets, 0)
        assert (path is None) == (frames < needed)
    if targets:
        assert one(torch.zeros(0, 4), targets, 0) is None


def test_a_path_of_no_probability_is_none() -> None:
    logprobs = emissions(5, 3, 0)
    logprobs[:, 2] = -torch.inf
    assert one(logprobs, [1, 2], 0) is None
    assert one(logprobs, [1, 1], 0) is not None
    logprobs[2] = torch.nan
    assert one(logprobs, [1], 0) is None


def test_equal_paths_have_one_answer() -> None:
    """All paths are equal: from the end, each state begins as early as it can."""
    logprobs = torch.full((6, 3), 1 / 3).log()
    assert one(logprobs, [1, 2], 0).targets.tolist() == [0, 1, -1, -1, -1, -1]
    assert one(logprobs, [1, 1], 0).targets.tolist() == [0, -1, 1, -1, -1, -1]


def test_sums_of_an_hour_of_frames_keep_what_tells_paths_apart() -> None:
    """Many improbable frames: in float32 a difference of 1e-4 would be lost."""
    logprobs = torch.full((30_000, 3), -9.0)
    logprobs[20_000, 1] += 1e-4
    path = one(logprobs, [1], 0)
    assert np.flatnonzero(path.targets == 0)[-1] == 20_000


def test_half_precision_emissions() -> None:
    logprobs = emissions(6, 3, 3).half()
    path = one(logprobs, [1, 2], 0)
    highest, paths = best(logprobs.double().numpy(), [1, 2], 0)
    assert labels_of(path, [1, 2], 0) in paths


def test_another_implementation_is_asked_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens per frame, as torchaudio gives them, become places of targets."""
    asked = []

    def theirs(logprobs, targets, lengths, target_lengths, blank):
        assert logprobs.shape[0] == 1 and logprobs.dtype == torch.float32
        assert targets.dtype == torch.int32
        asked.append((int(lengths[0]), targets[0].tolist()))
        tokens = torch.tensor([{4: [1, 1, 0, 2], 3: [1, 0, 1]}[int(lengths[0])]])
        return tokens, torch.zeros(tokens.shape)

    monkeypatch.setattr(viterbi, "torchaudio_align", lambda: theirs)
    targets = torch.tensor([[1, 2], [1, 1], [1, 1], [0, 0]])
    paths = forced_paths(torch.zeros(4, 4, 3), [4, 3, 2, 2], targets, [2, 2, 2, 0])
    assert asked == [(4, [1, 2]), (3, [1, 1])]
    assert paths[0].targets.tolist() == [0, 0, -1, 1]
    assert paths[1].targets.tolist() == [0, -1, 1]
    assert paths[2] is None and paths[3].targets.tolist() == [-1, -1]


def test_torchaudio_that_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A build of torch without CUDA never tries; a package that does not fit is done without."""
    monkeypatch.undo()
    folder = tmp_path_factory.mktemp("site")
    mark = folder / "tried"
    (folder / "torchaudio.py").write_text(f"open({str(mark)!r}, 'w')\nraise OSError('no CUDA')\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(__import__("sys").modules, "torchaudio", raising=False)
    real = viterbi.torchaudio_align.__wrapped__
    monkeypatch.setattr(torch.version, "cuda", None)
    assert real() is None and not mark.exists()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert real() is None and mark.exists()


@pytest.mark.skipif(
    torch.version.cuda is None or importlib.util.find_spec("torchaudio") is None,
    reason="needs a CUDA build of torch and torchaudio",
)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_torchaudio_gives_the_same(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.undo()
    theirs = viterbi.torchaudio_align()
    if theirs is None:
        pytest.skip("torchaudio cannot be imported")
    random = np.random.default_rng(0)
    for seed in range(20):
        targets = random.integers(1, 6, random.integers(1, 30)).tolist()
        logprobs = emissions(frames_needed(targets) + int(random.integers(0, 60)), 6, seed)
        counts = [len(targets)]
        [mine] = viterbi.viterbi(
            logprobs[None], [len(logprobs)], torch.tensor([targets]), counts, 0
        )
        path = viterbi._theirs(theirs, logprobs.to(device), torch.tensor(targets), 0)
        np.testing.assert_array_equal(path.targets, mine.targets)
        np.testing.assert_allclose(path.logprobs, mine.logprobs, atol=1e-5)
