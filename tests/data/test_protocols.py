import csv
import hashlib
import json
import re
from pathlib import Path

import h5py
import pytest

import mertool
from mertool import splits
from mertool.errors import DataError, UsageError
from mertool.splits.protocols import PROTOCOLS, RULES, apply
from mertool.types import SPLITS, Clip

PAGE = Path(__file__).parents[2] / "docs" / "splits.md"
# Whoever compares scores relies on these: a change means another protocol, with another name.
PINNED = {
    "ravdess/emobox6": "c4ab5496ae54f47b704c92da4bb5288bd10e162c03868834ba6dd65ed887980c",
    "iemocap/loso5": "3ae1f4aff8e67b80c6ce9df53c3136421a027a336e4d96a55a87e335c7baaa93",
    "crema-d/speakers5": "857c8dcd59f962a29520afa6f55c4e84059e22d42948e820f1e2ab6acb833949",
    "savee/loso4": "ae05566adce13243ec7c267c182cdd4d9069fe349e3c0ca6fbc2123212b7aca0",
    "rml/speakers": "e1468a31c6e968385b501eef84451d9f6bde30823357a53d337fb95328b19959",
    "meld/official": "843ff9b835e1bda91146e3eb60eb821e9f47201217550fda27888f14d4948e44",
    "mosi/official": "768f4799fea36a377e037e7ed0c08b9c96a14f056a4e0a6308aefb098fc2fb7a",
    "mosei/official": "205871f78de84962a53d41e2aa0165e37e5eaa3ea6354d937bcf4f0d1c6193b8",
    "sims/official": "ada8281b78ffe14deab412518424a344d08c9d41d0449b6151a26d045a1c97bd",
    "ur_funny/official": "2b1fcb42a78566d6809a95907e107759bc30f2fb81b8e29d0cdfa7b2801a4dde",
}


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def applied(name, path):
    with mertool.open(path) as file:
        made, notes = apply(name, file)
        return made, notes, list(file.ids)


def of(ids, split, name):
    return {i for i, s in zip(ids, split, strict=True) if s == name}


def cells(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_hashes_are_pinned():
    assert {name: p.sha256 for name, p in PROTOCOLS.items()} == PINNED


def test_the_hash_is_that_of_the_rule_and_the_members():
    p = PROTOCOLS["savee/loso4"]
    text = '{"members":[["DC"],["JE"],["JK"],["KL"]],"rule":' + json.dumps(RULES["folds"]) + "}"
    assert p.sha256 == sha(text)


def test_the_page_lists_every_protocol_with_its_hash():
    row = r"^\| `([\w/-]+)` \| (.+) \| (.+) \| .+ \| `(\w{16})` \|$"
    rows = re.findall(row, PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [
        (name, p.dataset, f"{len(p.splits)} folds" if p.rule == "folds" else "official",
         p.sha256[:16])
        for name, p in PROTOCOLS.items()
    ]  # fmt: skip


def test_members_are_listed_once():
    sizes = {}
    for name, p in PROTOCOLS.items():
        if p.rule == "folds":
            members = [m for fold in p.members for m in fold]
        elif p.rule == "video":
            members = [m for videos in p.members.values() for m in videos]
        elif p.rule == "clip":
            members = [(v, n) for part in p.members.values() for v, ns in part.items() for n in ns]
        else:
            continue
        assert len(members) == len(set(members)), name
        sizes[name] = len(members)
    assert sizes == {
        "ravdess/emobox6": 24, "iemocap/loso5": 5, "crema-d/speakers5": 91, "savee/loso4": 4,
        "rml/speakers": 8, "mosi/official": 93, "sims/official": 2281,
    }  # fmt: skip
    assert {m for fold in PROTOCOLS["crema-d/speakers5"].members for m in fold} == {
        str(n) for n in range(1001, 1092)
    }


# --- folds of speakers ---


def check_folds(name, made, ids, member_of):
    """Each member is tested once, in the fold that lists it, and in no other part of that fold."""
    lists = PROTOCOLS[name].members
    assert list(made) == [f"fold-{k}" for k in range(len(lists))]
    for k, split in enumerate(made.values()):
        groups = {s: {member_of(i) for i in of(ids, split, s)} for s in SPLITS}
        assert groups["test"] <= set(lists[k]) and groups["test"]
        assert groups["valid"] and groups["train"]
        present = set(map(member_of, ids))
        assert sum(map(len, groups.values())) == len(present)
        rest = sorted(present - groups["test"], key=lambda m, k=k: sha(f"0 valid fold-{k} {m}"))
        assert groups["valid"] == set(rest[: max(1, round(0.15 * len(rest)))])


def test_ravdess(shared, make):
    """Metadata of the real corpus, of which six actors are not here."""
    rows = cells(shared / "data" / "ravdess_speech" / "manifest.csv")
    clips = [Clip(r["clip_id"], path=r["path"], speaker=r["speaker"]) for r in rows]
    made, notes, ids = applied("ravdess/emobox6", make(clips))
    check_folds("ravdess/emobox6", made, ids, lambda i: i[-2:])
    assert {i[-2:] for i in of(ids, made["fold-2"], "test")} == {"08", "09"}
    assert sum(s.count("test") for s in made.values()) == len(rows) == 1064
    (note,) = notes
    assert note.startswith("the file lacks 6 of the protocol's 24 speakers: 20, 21, 19, 23, 24")
    # By its ids alone it is the same, and the notes say so.
    clips = [Clip(r["clip_id"], path=r["path"]) for r in reversed(rows)]
    again, notes, other = applied("ravdess/emobox6", make(clips, "y.h5"))
    for name in made:
        assert splits.digest(ids, made[name]) == splits.digest(other, again[name])
    assert "the speakers of 1064 clips are taken from their ids" in notes


def test_speakers_are_matched_however_they_are_spelt(make):
    spelt = ["actor01", "Actor_01", "01", "1", "ACTOR 1", ""]
    others = [Clip(f"o{n}", speaker=str(n)) for n in range(2, 25)]
    clips = [Clip(f"Actor_01/03-01-05-01-01-0{i}-01", speaker=s) for i, s in enumerate(spelt)]
    made, notes, ids = applied("ravdess/emobox6", make(clips + others))
    assert of(ids, made["fold-0"], "test") == {c.id for c in clips} | {"o11", "o20", "o21"}
    assert notes == ["the speakers of 1 clips are taken from their ids"]


@pytest.mark.parametrize("speaker", ["25", "0", "actor99", "bob", "actor1b"])
def test_a_stranger_is_refused(make, speaker):
    clips = [Clip(f"c{n}", speaker=f"{n:02d}") for n in range(1, 25)]
    path = make([*clips, Clip("03-01-05-01-01-01-01", speaker=speaker)])
    with pytest.raises(DataError, match="does not know whose clip") as caught:
        applied("ravdess/emobox6", path)
    assert f'"{speaker}"' in caught.value.where and "01 to 24" in caught.value.where
    with pytest.raises(DataError, match="does not know") as caught:
        applied("ravdess/emobox6", make([*clips, Clip("hello")], "y.h5"))
    assert "no speaker" in caught.value.where


@pytest.mark.parametrize(
    "names",
    [
        [f"Ses0{k}{g}" for k in range(1, 6) for g in "FM"],
        ["1", "2", "3", "4", "5"],
        [f"Session{k}" for k in range(1, 6)],
        [f"session_{k}" for k in range(1, 6)],
    ],
)
def test_iemocap(make, names):
    """The unit is the session: two who talk to each other are never in two parts."""
    clips = [Clip(f"{i} {n}", speaker=n) for i in range(3) for n in names]
    made, notes, ids = applied("iemocap/loso5", make(clips))
    check_folds("iemocap/loso5", made, ids, lambda i: re.search(r"[1-5]", i[2:])[0])
    assert of(ids, made["fold-2"], "test") == {c.id for c in clips if "3" in c.id[2:]}
    assert notes == []


def test_iemocap_by_ids(make):
    clips = [Clip(f"Ses0{k}F_impro01_{g}000") for k in range(1, 6) for g in "FM"]
    made, notes, ids = applied("iemocap/loso5", make(clips))
    assert of(ids, made["fold-4"], "test") == {"Ses05F_impro01_F000", "Ses05F_impro01_M000"}
    assert notes == ["the sessions of 10 clips are taken from their ids"]


def test_crema_d(make):
    clips = [Clip(f"{n}_DFA_ANG_XX") for n in range(1001, 1092)]
    made, notes, ids = applied("crema-d/speakers5", make(clips))
    check_folds("crema-d/speakers5", made, ids, lambda i: i[:4])
    assert [s.count("test") for s in made.values()] == [18, 18, 18, 18, 19]
    assert [s.count("valid") for s in made.values()] == [11, 11, 11, 11, 11]


def test_savee(make):
    clips = [Clip(f"{s.upper()}_a{i}", speaker=s) for s in ("dc", "JE", "", "KL") for i in (1, 2)
             if s] + [Clip("JK/a1"), Clip("JK_a2")]  # fmt: skip
    made, _, ids = applied("savee/loso4", make(clips))
    check_folds("savee/loso4", made, ids, lambda i: i[:2])


def test_rml_counts_the_pooled_clips(make):
    clips = [Clip(f"s{i % 8 + 1}-{i}", speaker=f"s{i % 8 + 1}") for i in range(720)]
    made, notes, ids = applied("rml/speakers", make(clips))
    check_folds("rml/speakers", made, ids, lambda i: i[1])
    assert sum(s.count("test") for s in made.values()) == 720 and notes == []
    _, notes, _ = applied("rml/speakers", make(clips[:-1], "y.h5"))
    assert notes == ["719 clips are test, of the protocol's 720"]


def test_a_fold_without_test_clips_is_left_out(make):
    clips = [Clip(f"{s}{i}", speaker=s) for s in ("DC", "JK", "KL") for i in range(3)]
    made, notes, ids = applied("savee/loso4", make(clips))
    assert list(made) == ["fold-0", "fold-1", "fold-2"]
    tested = [{i[:2] for i in of(ids, s, "test")} for s in made.values()]
    assert tested == [{"DC"}, {"JK"}, {"KL"}]
    assert notes[0] == "the file lacks 1 of the protocol's 4 speakers: JE"
    assert notes[1].startswith("the protocol's fold 1 is left out")
    with pytest.raises(DataError, match="1 speaker cannot be divided"):
        applied("savee/loso4", make(clips[:6], "y.h5"))


# --- official splits ---

VALID = {"train": "train", "val": "valid", "test": "test"}


@pytest.mark.parametrize("spell", [lambda v, n: f"{v}_{n}", lambda v, n: f"{v}$_${n}",
                                   lambda v, n: f"{v}[{n}]"])  # fmt: skip
def test_mosi(shared, make, spell):
    rows = cells(shared / "data" / "mosi" / "labels.csv")
    names = [spell(*r["name"].rsplit("_", 1)) for r in rows]
    made, notes, ids = applied("mosi/official", make([Clip(n) for n in names]))
    assert made["official"] == [VALID[r["split"]] for r in rows] and notes == []
    assert [made["official"].count(s) for s in SPLITS] == [1284, 229, 686]


def test_mosi_words_say_the_same(shared, make):
    rows = json.loads((shared / "data" / "mosi" / "mosi_words.json").read_text())
    made, notes, _ = applied("mosi/official", make([Clip(r["id"]) for r in rows]))
    assert made["official"] == [VALID[r["split"]] for r in rows] and notes == []


@pytest.mark.parametrize("spell", [lambda v: v, lambda v: "$_$".join(v.rsplit("_", 1))])
def test_sims(shared, make, spell):
    rows = cells(shared / "data" / "sims" / "labels.csv")
    made, notes, _ = applied("sims/official", make([Clip(spell(r["name"])) for r in rows]))
    assert made["official"] == [VALID[r["split"]] for r in rows] and notes == []
    assert [made["official"].count(s) for s in SPLITS] == [1368, 456, 457]


def test_what_the_file_lacks_is_noted_and_strangers_are_refused(make):
    p = PROTOCOLS["mosi/official"]
    clips = [Clip(f"{video}_{n}") for videos in p.members.values() for video in videos
             for n in (1, 2)]  # fmt: skip
    _, notes, _ = applied("mosi/official", make(clips[2:]))
    assert notes[0].startswith("the file lacks 1 of the protocol's 93 videos: ")
    assert notes[1:] == [
        "102 clips are train, of the protocol's 1284",
        "20 clips are valid, of the protocol's 229",
        "62 clips are test, of the protocol's 686",
    ]
    for stranger in ("abcdefghijk_1", clips[0].id + "x", clips[0].id.split("_")[0]):
        with pytest.raises(DataError, match="does not list this clip"):
            applied("mosi/official", make([*clips, Clip(stranger)], "y.h5"))
    one = PROTOCOLS["sims/official"].members["train"]["video_0001"][0]
    path = make([Clip(f"video_0001_{one:04d}"), Clip("video_0001_0999")], "z.h5")
    with pytest.raises(DataError, match="does not list") as caught:
        applied("sims/official", path)
    assert "video_0001_0999" in caught.value.where


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("meld/official", (9989, 1109, 2610)),
        ("mosei/official", (16326, 1871, 4659)),
        ("ur_funny/official", (10598, 2626, 3290)),
    ],
)
def test_a_release_brings_its_own_split(make, name, counts):
    assert tuple(PROTOCOLS[name].counts[s] for s in SPLITS) == counts
    clips = [Clip(f"c{i}", split=s) for i, s in enumerate(["train", "train", "test", "valid", ""])]
    made, notes, _ = applied(name, make(clips))
    assert made == {"official": [c.split for c in clips]}
    assert notes == [
        f"{n} clips are {s}, of the protocol's {c}"
        for s, n, c in zip(SPLITS, (2, 1, 1), counts, strict=True)
    ]
    with pytest.raises(DataError, match="carries none"):
        applied(name, make([Clip("a"), Clip("b")], "y.h5"))


def test_an_unknown_protocol(make):
    with pytest.raises(UsageError, match='Did you mean "savee/loso4"'):
        applied("savee/loso", make([Clip("a")]))


# --- commands ---


def test_protocols_command(call):
    done = call("data", "protocols")
    for name, p in PROTOCOLS.items():
        (line,) = [x for x in done.out.splitlines() if x.startswith(name + " ")]
        assert p.sha256[:16] in line
    told = json.loads(call("data", "protocols", "--json").out)
    assert {n: v["sha256"] for n, v in told.items()} == PINNED
    assert told["ravdess/emobox6"]["members"][0] == ["01", "11", "20", "21"]
    assert told["mosi/official"]["splits"] == ["official"]


def test_split_by_protocol(call, make):
    clips = [Clip(f"{s}{i}", speaker=s) for s in ("DC", "JE", "JK", "KL") for i in range(3)]
    path = make(clips)
    done = call("data", "split", path, "--protocol", "savee/loso4")
    assert done.code == 0 and done.err == "" and done.out.count("fold-") == 4
    with h5py.File(path) as raw:
        attrs = dict(raw["splits/fold-3"].attrs)
        split, ids = list(raw["splits/fold-3"].asstr()[:]), list(raw["clips/id"].asstr()[:])
    assert attrs == {
        "protocol": "savee/loso4", "protocol_sha256": PINNED["savee/loso4"],
        "sha256": splits.digest(ids, split),
    }  # fmt: skip
    assert call("data", "split", path, "--protocol", "rml/speakers").code == 1


def test_an_official_split_can_be_named(call, make):
    path = make([Clip(f"c{i}", split=s) for i, s in enumerate(SPLITS)])
    done = call("data", "split", path, "--protocol", "meld/official", "--name", "released")
    assert done.code == 0 and done.err.count("of the protocol's") == 3
    with mertool.open(path) as file:
        assert file.split("released") == list(SPLITS)
