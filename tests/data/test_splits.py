import hashlib
import json

import h5py
import numpy as np
import pytest
import synthetic

import mertool
from mertool import splits
from mertool.errors import DataError, OutputError, UsageError
from mertool.types import SPLITS, Clip, Label


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def people(count, per=3, **more):
    return [Clip(f"c{i}", speaker=f"s{i % count}", **more) for i in range(count * per)]


def parts(path, folds, by="speaker", seed=0):
    with mertool.open(path) as file:
        return splits.by_units(file, folds, by, seed), list(file.ids), file.column("speaker")


# --- assign ---


def test_a_split_of_the_file_is_kept(tmp_path):
    with mertool.open(synthetic.write(tmp_path / "x.h5")) as file:
        assert splits.assign(file) == (file.split(), "")


def test_no_split_takes_whole_speakers(tmp_path):
    with mertool.open(synthetic.write(tmp_path / "x.h5", splits=False)) as file:
        assigned, note = splits.assign(file)
        speakers = file.column("speaker")
    ranked = sorted(set(speakers), key=lambda s: sha(f"speaker {s}"))
    for split, expected in {"test": ranked[:2], "valid": ranked[2:4], "train": ranked[4:]}.items():
        assert {p for p, s in zip(speakers, assigned, strict=True) if s == split} == set(expected)
    assert "15% of the speakers" in note


def test_unknown_speakers_are_grouped_by_shared_recording(make):
    clips = [Clip(f"c{i}", path=f"tape{i % 6}.mp4", start=i, end=i + 1) for i in range(24)]
    clips += [Clip("alone", path="alone.mp4"), Clip("none"), Clip("none2")]
    with mertool.open(make(clips)) as file:
        assigned, note = splits.assign(file)
    assert "recordings" in note
    for k in range(6):
        assert len({assigned[i] for i in range(24) if i % 6 == k}) == 1
    units = [f"recording tape{k}.mp4" for k in range(6)]
    units += [f"clip {name}" for name in ("alone", "none", "none2")]
    first = min(units, key=sha)  # 15% of nine is one
    test = {f"recording {c.path}" if c.id.startswith("c") else f"clip {c.id}"
            for c, s in zip(clips, assigned, strict=True) if s == "test"}  # fmt: skip
    assert test == {first}


def test_missing_valid_is_held_out_by_recording(make):
    clips = [Clip(f"c{i}", path=f"t{i % 5}.mp4", split="train", start=i) for i in range(20)]
    with mertool.open(make(clips)) as file:
        assigned, note = splits.assign(file)
    held = {i % 5 for i in range(20) if assigned[i] == "valid"}
    assert len(held) == 1 and assigned.count("valid") == 4
    assert "training recordings are held out" in note


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([Clip("a"), Clip("b")], "2 clips cannot be divided"),
        ([Clip("a", split="test")], "No clip is in the train"),
        ([Clip("a", speaker="x", split="train")], "One training speaker cannot"),
    ],
)
def test_what_cannot_be_assigned(make, clips, message):
    with mertool.open(make(clips)) as file, pytest.raises(DataError, match=message):
        splits.assign(file)


def test_of_split():
    assert splits.of_split(["train", "", "test"], "test", "x").tolist() == [False, False, True]
    assert splits.of_split(["train", "", "test"], "all", "x").all()
    with pytest.raises(UsageError, match="no split"):
        splits.of_split(["train"], "tset", "x")
    with pytest.raises(DataError, match="No clip"):
        splits.of_split(["train"], "test", "x")


# --- by_units ---


@pytest.mark.parametrize(("speakers", "folds"), [(10, 5), (11, 4), (3, 3), (7, 7)])
def test_folds_partition_the_speakers(make, speakers, folds):
    made, ids, who = parts(make(people(speakers)), folds)
    assert list(made) == [f"fold-{k}" for k in range(folds)]
    tested = []
    for split in made.values():
        groups = {s: {p for p, t in zip(who, split, strict=True) if t == s} for s in SPLITS}
        assert all(groups.values())
        assert sum(map(len, groups.values())) == speakers  # no speaker is in two parts
        rest = speakers - len(groups["test"])
        assert len(groups["valid"]) == max(1, round(0.15 * rest))
        tested.append(groups["test"])
    assert sorted(p for t in tested for p in t) == sorted(set(who))  # each exactly once
    assert max(map(len, tested)) - min(map(len, tested)) <= 1


def test_folds_by_hand(make):
    """The rule on the page, worked out anew."""
    made, ids, who = parts(make(people(8)), 3, seed=4)
    ranked = sorted(set(who), key=lambda p: sha(f"4 speaker {p}"))
    for k in range(3):
        test = ranked[k::3]
        rest = sorted(set(ranked) - set(test), key=lambda p: sha(f"4 valid fold-{k} speaker {p}"))
        valid = rest[:1]
        expected = ["test" if p in test else "valid" if p in valid else "train" for p in who]
        assert made[f"fold-{k}"] == expected


def test_one_fold_is_one_split(make):
    made, ids, who = parts(make(people(20)), 1)
    ranked = sorted(set(who), key=lambda p: sha(f"0 speaker {p}"))
    (split,) = made.values()
    assert list(made) == ["default"]
    for part, expected in {"test": ranked[:3], "valid": ranked[3:6], "train": ranked[6:]}.items():
        assert {p for p, s in zip(who, split, strict=True) if s == part} == set(expected)


@pytest.mark.parametrize("by", ["speaker", "clip"])
def test_the_order_of_the_file_does_not_matter(make, by):
    clips = people(9)
    one, ids, _ = parts(make(clips), 4, by)
    shuffled = [clips[i] for i in np.random.default_rng(0).permutation(len(clips))]
    two, other, _ = parts(make(shuffled, "y.h5"), 4, by)
    assert ids != other
    for name, split in one.items():
        assert dict(zip(ids, split, strict=True)) == dict(zip(other, two[name], strict=True))
        assert splits.digest(ids, split) == splits.digest(other, two[name])


def test_folds_are_the_same_for_ever(make):
    """A change here changes everybody's folds."""
    made, ids, _ = parts(make(people(10)), 5)
    assert splits.digest(ids, made["fold-0"]) == PINNED[0]
    made, ids, _ = parts(make(people(10)), 1, seed=7)
    assert splits.digest(ids, made["default"]) == PINNED[1]


PINNED = (
    "8eed735e45306a14801aa31040738bc3deaa7e26a1525597d05d212a4f730d3d",
    "dc2e7b9201746d80b366a4fb7ad1d251e2117efa60ad51f72069d1a65b2040fd",
)


def test_digest_by_hand():
    assert splits.digest(["b", "a"], ["", "test"]) == sha("a\ttest\nb\t")


def test_seeds_differ(make):
    path = make(people(10))
    assert parts(path, 5, seed=0)[0] != parts(path, 5, seed=1)[0]


def test_what_cannot_be_dealt(make):
    alone = make([Clip(f"c{i}", path=f"{i}.mp4") for i in range(9)], "alone.h5")
    with pytest.raises(DataError, match="No clip's speaker") as caught:
        parts(alone, 3)
    assert "--by clip" in caught.value.fix
    made, _, _ = parts(alone, 3, by="clip")
    assert [s.count("test") for s in made.values()] == [3, 3, 3]
    path = make(people(3))
    with pytest.raises(DataError, match="3 speakers cannot be divided into 4 folds"):
        parts(path, 4)
    with pytest.raises(DataError, match="1 speaker cannot be divided into train and valid"):
        parts(path, 2)
    with pytest.raises(DataError, match="2 speakers cannot"):
        parts(make(people(2)), 1)
    with pytest.raises(UsageError):
        parts(path, 0)
    with pytest.raises(UsageError):
        parts(path, 3, by="mood")


# --- add ---


def test_adding_leaves_the_rest_alone(tmp_path):
    path = synthetic.write(tmp_path / "x.h5")
    before = everything(path)
    with mertool.open(path) as file:
        made, ids = splits.by_units(file, 3), file.ids
    splits.add(path, made, {n: {"by": "speaker", "seed": 0} for n in made}, overwrite=False)
    after = everything(path)
    assert {k: after[k] for k in before} == before
    assert set(after) - set(before) == {f"splits/fold-{k}" for k in range(3)}
    with mertool.open(path) as file:
        assert [file.split(n) for n in made] == list(made.values())
    with h5py.File(path) as raw:
        attrs = dict(raw["splits/fold-1"].attrs)
    assert attrs == {"by": "speaker", "seed": 0, "sha256": splits.digest(ids, made["fold-1"])}
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5"]


def everything(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda n, d: (
                found.update({n: repr(d[()].tolist())}) if isinstance(d, h5py.Dataset) else None
            )
        )
    return found


def test_existing_splits_are_refused(make):
    path = make(people(6))
    values = ["train", "valid", "test"] * 6
    content = path.read_bytes()
    with pytest.raises(OutputError, match="default"):
        splits.add(path, {"default": values}, {}, overwrite=False)
    with pytest.raises(OutputError, match="default"):
        splits.add(path, {"new": values, "default": values}, {}, overwrite=False)
    assert path.read_bytes() == content
    splits.add(path, {"default": values}, {}, overwrite=True)
    with mertool.open(path) as file:
        assert file.split() == file.column("split") == values


def test_folds_replace_all_folds(make):
    path = make(people(6))
    with mertool.open(path) as file:
        five, three = splits.by_units(file, 5), splits.by_units(file, 3)
    splits.add(path, five, {}, overwrite=False)
    with pytest.raises(OutputError):
        splits.add(path, {"fold-9": five["fold-0"]}, {}, overwrite=False)
    splits.add(path, {"mine": five["fold-0"]}, {}, overwrite=False)
    splits.add(path, three, {}, overwrite=True)
    with mertool.open(path) as file:
        assert set(file.splits) == {"default", "mine", "fold-0", "fold-1", "fold-2"}


def test_splits_that_do_not_fit_are_refused(make):
    path = make(people(6))
    for values in (["train"], ["dev"] * 18):
        with pytest.raises(DataError, match="does not fit"):
            splits.add(path, {"x": values}, {}, overwrite=False)
    for name in ("", "a/b", "."):
        with pytest.raises(UsageError):
            splits.add(path, {name: ["train"] * 18}, {}, overwrite=False)


def test_a_full_disk_leaves_the_file_as_it_was(make, tmp_path, monkeypatch):
    path = make(people(6))
    content = path.read_bytes()

    # Once while the file is copied, once while HDF5 writes into the copy.
    for allowed in (0, 1):
        writes = []

        def write(self, data, allowed=allowed, writes=writes, real=splits.disk.Disk.write):
            writes.append(1)
            if len(writes) > allowed and self.error is None:
                self.error = OSError(28, "No space left on device")
            return real(self, data)

        monkeypatch.setattr("mertool.splits.disk.Disk.write", write)
        with pytest.raises(OutputError, match="No space left"):
            splits.add(path, {"x": ["train"] * 18}, {}, overwrite=False)
        monkeypatch.undo()
        assert len(writes) > allowed
        assert path.read_bytes() == content and [p.name for p in tmp_path.iterdir()] == ["x.h5"]


# --- leaks ---


def test_clean_splits_have_no_leaks(tmp_path):
    with mertool.open(synthetic.write(tmp_path / "x.h5")) as file:
        assert splits.leaks(file, file.split()) == []


def test_a_speaker_in_two_splits(tmp_path):
    with mertool.open(synthetic.write(tmp_path / "x.h5")) as file:
        assigned = file.split()
        assigned[file.ids.index("clip8")] = "train"  # speaker s8 is of test
        assert splits.leaks(file, assigned) == [
            "speaker leak: 1 speaker is in more than one split: s8"
        ]
        assigned = [("train", "test")[i // 10 % 2] for i in range(len(file))]
        (sentence,) = splits.leaks(file, assigned)
        assert sentence == (
            "speaker leak: 10 speakers are in more than one split: s0, s1, s2, s3, s4 and 5 more"
        )


def test_clips_in_no_split_leak_nothing(make):
    clips = [Clip("a", speaker="x", path="t.mp4"), Clip("b", speaker="x", path="t.mp4")]
    with mertool.open(make(clips)) as file:
        assert splits.leaks(file, ["train", ""]) == []
        assert len(splits.leaks(file, ["train", "test"])) == 3


def test_a_recording_in_two_splits(make):
    clips = [
        Clip("a", path="t.mp4", start=0, end=1), Clip("b", path="t.mp4", start=1, end=2),
        Clip("c", path="u.mp4"), Clip("d", path="u.mp4", source="/elsewhere"),
    ]  # fmt: skip
    with mertool.open(make(clips)) as file:
        assert splits.leaks(file, ["train", "test", "train", "test"]) == [
            "recording leak: 1 recording is in more than one split: t.mp4"
        ]


@pytest.mark.parametrize(
    ("one", "two", "overlap"),
    [
        ((0, 2), (1, 3), True),
        ((0, 1), (1, 2), False),
        ((0, None), (5, 6), True),
        ((0, 9), (5, 6), True),
        ((7, 8), (5, None), True),
        ((0, 5), (6, None), False),
    ],
)
def test_the_same_stretch_of_one_medium(make, one, two, overlap):
    """One medium under two names, as its hash says."""
    clips = [
        Clip("a", path="a.mp4", sha256="f00", start=one[0], end=one[1]),
        Clip("b", path="b.mp4", sha256="f00", start=two[0], end=two[1]),
        Clip("c", path="c.mp4", sha256="ba5"),
    ]
    with mertool.open(make(clips)) as file:
        found = splits.leaks(file, ["train", "test", "test"])
        assert [s.partition(":")[0] for s in found] == ["clip leak"] * overlap
        assert splits.leaks(file, ["test", "test", "train"]) == []


def test_overlaps_against_brute_force(make):
    rng = np.random.default_rng(3)
    clips, assigned = [], []
    for i in range(120):
        start = float(rng.integers(0, 60))
        clips.append(Clip(f"c{i}", sha256=str(i % 4), start=start, end=start + rng.integers(1, 4)))
        assigned.append(str(rng.choice(["train", "valid", "test", ""], p=[0.7, 0.1, 0.1, 0.1])))
    order = sorted(range(120), key=lambda i: (clips[i].start, clips[i].end, clips[i].id))
    expected = set()
    for a, i in enumerate(order):
        for j in order[a + 1 :]:
            if (
                clips[i].sha256 == clips[j].sha256
                and assigned[i] and assigned[j] and assigned[i] != assigned[j]
                and clips[j].start < clips[i].end
            ):  # fmt: skip
                expected.add(clips[j].id)
    with mertool.open(make(clips)) as file:
        (leak,) = splits.leakage.find(file, assigned)
    assert {name.split()[0] for name in leak.names} == expected and len(expected) > 10


# --- same_text ---

MOOD = Label("mood", "classification", ("glad", "sad", "calm"))


@pytest.mark.parametrize(
    ("values", "texts", "start"),
    [
        ([0, 0, 1, 1], ["A b", "c", "a  B", "C"], "the same 2 sentences are said"),
        ([0, 1, 2], ["a", "a", "a"], 'the same sentence is said for every "mood"'),
        ([0, 0, 1, 1], ["a", "c", "a", "d"], ""),
        ([0, 0, 1], ["a", "c", "a"], ""),
        ([0, 0, 0], ["a", "a", "a"], ""),
        ([0, 1], ["", ""], ""),
        ([0, 1, 1], ["a", "", "a"], "the same sentence"),
        ([], [], ""),
    ],
)
def test_same_text_of_classes(values, texts, start):
    found = splits.same_text(MOOD, np.array(values, int), texts)
    assert found.startswith(start) and bool(found) == bool(start)


def test_same_text_of_numbers():
    score = Label("score", "regression")
    values = np.array([-1.0, 2.0, -3.0, 0.5])
    assert splits.same_text(score, values, ["a", "a", "b", "b"]).startswith("the same 2")
    assert splits.same_text(score, values, ["a", "a", "b", "c"]) == ""
    assert splits.same_text(score, np.ones(4), ["a"] * 4) == ""


def test_same_text_of_several_labels():
    traits = Label("traits", "multilabel", ("high", "low"))
    values = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    assert "same sentence" in splits.same_text(traits, values, ["a", "a", "a", "b"])
    assert splits.same_text(traits, values, ["a", "b", "a", "b"]) == ""
    one = Label("trait", "multilabel", ("high",))
    assert "same sentence" in splits.same_text(one, np.array([[1], [0]]), ["a", "a"])
    assert splits.same_text(one, np.array([[1], [0]]), ["a", "b"]) == ""


# --- the command ---


def test_split_command(call, tmp_path):
    path = synthetic.write(tmp_path / "x.h5", splits=False)
    done = call("data", "split", path, "--by", "speaker", "--folds", 5, "--json")
    assert done.code == 0 and done.err == ""
    told = json.loads(done.out)
    assert told["by"] == "speaker" and told["seed"] == 0
    with mertool.open(path) as file:
        for row in told["splits"]:
            split = file.split(row["name"])
            assert row["test"] == {"clips": split.count("test"), "speakers": 2}
            assert row["sha256"] == splits.digest(file.ids, split)
    again = call("data", "split", path, "--by", "speaker", "--folds", 3)
    assert again.code == 1 and "--overwrite" in again.err
    assert call("data", "split", path, "--by", "speaker", "--folds", 3, "--overwrite").code == 0
    with mertool.open(path) as file:
        assert len(file.splits) == 4


def test_split_command_default_needs_overwrite_or_a_name(call, tmp_path):
    path = synthetic.write(tmp_path / "x.h5", splits=False)
    assert call("data", "split", path, "--by", "speaker").code == 1
    done = call("data", "split", path, "--by", "speaker", "--name", "mine", "--seed", 3)
    assert done.code == 0 and done.out.splitlines()[2].startswith("mine")
    with mertool.open(path) as file:
        assert not any(file.split()) and set(file.split("mine")) == set(SPLITS)


def test_split_by_clip_says_that_speakers_leak(call, tmp_path):
    path = synthetic.write(tmp_path / "x.h5", splits=False)
    done = call("data", "split", path, "--by", "clip", "--folds", 4)
    assert done.code == 0 and done.err.count("\n") == 1 and "speakers are known" in done.err


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--by", "speaker", "--protocol", "savee/loso4"],
        ["--protocol", "savee/loso4", "--folds", "3"],
        ["--by", "speaker", "--folds", "3", "--name", "x"],
        ["--by", "speaker", "--folds", "0"],
        ["--protocol", "savee/loso5"],
    ],
)
def test_split_command_wrong_usage(call, tmp_path, options):
    path = synthetic.write(tmp_path / "x.h5")
    content = path.read_bytes()
    assert call("data", "split", path, *options).code == 2
    assert path.read_bytes() == content
