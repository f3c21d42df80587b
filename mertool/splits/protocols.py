"""Named protocols: which clips of a public data set are train, valid and test.

Members are facts about the data sets (names of speakers, videos and clips); no media are contained.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from mertool.errors import DataError, UsageError, did_you_mean
from mertool.splits import hold_out
from mertool.splits.leakage import shorten
from mertool.store import FeatureFile
from mertool.types import SPLITS

# Part of each protocol's hash: whoever changes what a rule does changes its sentence.
RULES = {
    "folds": "test of fold-K = list K; of the other members in the file, in the order of "
    'sha256("0 valid fold-K MEMBER"), the first 15% (rounded, at least one) are valid; rest train',
    "video": "the split of a clip is that of its video",
    "clip": "the split of a clip is listed",
    "release": "the split is that which the release came with, as the file's default split",
}


@dataclass(frozen=True)
class Protocol:
    """A public data set's division into train, valid and test.

    Attributes:
        name: "DATASET/NAME".
        dataset: Name of the data set.
        summary: What it is, for a list.
        source: Where the division comes from.
        rule: Key of `RULES`.
        members: folds: a list of test members per fold; video: {split: videos}; clip:
            {split: {video: numbers of its clips}}; release: {split: number of clips}.
        unit: What the members are, in the plural.
        counts: {split: clips of the whole data set}, where known; folds: "test" of all folds.
        speaker: Pattern of a speaker's name, its group being the member (folds).
        clip_id: Pattern of a clip id, its group being the member (folds: where the speaker is
            unknown; None = no id says it).
    """

    name: str
    dataset: str
    summary: str
    source: str
    rule: str
    members: Any
    unit: str = "speakers"
    counts: Mapping[str, int] = field(default_factory=dict)
    speaker: str = ""
    clip_id: str | None = None

    @property
    def splits(self) -> list[str]:
        """Names of the splits it makes."""
        folds = self.rule == "folds"
        return [f"fold-{k}" for k in range(len(self.members))] if folds else ["official"]

    @property
    def size(self) -> str:
        """How many members it lists, such as "24 speakers"."""
        if self.rule == "folds":
            count = sum(map(len, self.members))
        elif self.rule == "video":
            count = sum(map(len, self.members.values()))
        else:
            count = sum(self.counts.values())
        return f"{count} {self.unit}"

    @property
    def sha256(self) -> str:
        """Of the canonical JSON of its rule and members: equal hashes are equal protocols."""
        content = {"rule": RULES[self.rule], "members": self.members}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _listed(name: str) -> Any:
    text = resources.files("mertool.splits").joinpath(f"{name}.json").read_text(encoding="utf-8")
    return json.loads(text)


def _numbers(first: int, last: int) -> list[str]:
    return [str(i) for i in range(first, last + 1)]


def _release(dataset: str, counts: tuple[int, int, int], more: str = "") -> Protocol:
    members = dict(zip(SPLITS, counts, strict=True))
    return Protocol(
        f"{dataset.lower().replace('-', '_')}/official",
        dataset,
        f"the release's own split, which the file must carry; clips are counted only{more}",
        "the release",
        "release",
        members,
        "clips",
        members,
    )


_ALL = [
    Protocol(
        "ravdess/emobox6",
        "RAVDESS",
        "six folds of four actors",
        "the folds of EmoBox (Ma et al., Interspeech 2024)",
        "folds",
        [
            ["01", "11", "20", "21"],
            ["04", "10", "12", "14"],
            ["08", "09", "19", "23"],
            ["03", "05", "07", "24"],
            ["02", "15", "16", "18"],
            ["06", "13", "17", "22"],
        ],
        speaker=r"(?:actor|speaker)?[ _-]*0*(\d{1,2})",
        clip_id=r"(?:.*[/-])?(?:\d\d-){6}(\d\d)",  # the seventh part is the actor
    ),
    Protocol(
        "iemocap/loso5",
        "IEMOCAP",
        "leave one session (two speakers) out; a whole session is valid",
        "the corpus's five sessions (Busso et al., 2008)",
        "folds",
        [[k] for k in _numbers(1, 5)],
        unit="sessions",
        speaker=r"(?:session|ses)?[ _-]*0*([1-5])[ _-]*[fm]?",
        clip_id=r"(?:.*[/-])?ses0([1-5])[fm]_.*",
    ),
    Protocol(
        "crema-d/speakers5",
        "CREMA-D",
        "five folds of 18 or 19 actors, in the order of their numbers",
        "mertool; the corpus has 91 actors (Cao et al., 2014) and no split of its own",
        "folds",
        [_numbers(a, b) for a, b in
         ((1001, 1018), (1019, 1036), (1037, 1054), (1055, 1072), (1073, 1091))],
        speaker=r"(?:actor|speaker)?[ _-]*(\d{4})",
        clip_id=r"(?:.*/)?(\d{4})_.*",
    ),
    Protocol(
        "savee/loso4",
        "SAVEE",
        "leave one speaker out",
        "the corpus's four speakers (Haq and Jackson, 2009)",
        "folds",
        [["DC"], ["JE"], ["JK"], ["KL"]],
        speaker=r"(?:speaker)?[ _-]*(dc|je|jk|kl)",
        clip_id=r"(?:.*/)?(dc|je|jk|kl)[/_].*",
    ),
    Protocol(
        "rml/speakers",
        "RML",
        "leave one speaker out; the predictions of all folds are scored together",
        "the corpus's eight speakers (Wang and Guan, 2008)",
        "folds",
        [[k] for k in _numbers(1, 8)],
        counts={"test": 720},
        speaker=r"(?:speaker|subject|s)?[ _-]*0*([1-8])",
    ),
    _release("MELD", (9989, 1109, 2610), "; its ids repeat between the released parts"),
    Protocol(
        "mosi/official",
        "MOSI",
        "93 videos: 52 train, 10 valid, 31 test",
        "the standard split of the CMU Multimodal SDK",
        "video",
        _listed("mosi"),
        unit="videos",
        counts={"train": 1284, "valid": 229, "test": 686},
        clip_id=r"(?:raw/)?(.+?)(?:\$_\$|[_/\[])\d+\]?",
    ),
    _release("MOSEI", (16326, 1871, 4659)),
    Protocol(
        "sims/official",
        "CH-SIMS",
        "2281 clips of 60 videos; by clip: nearly every video is in all three splits",
        "the release (Yu et al., 2020)",
        "clip",
        _listed("sims"),
        unit="clips",
        counts={"train": 1368, "valid": 456, "test": 457},
        clip_id=r"(?:.*/)?(video_\d{4})(?:\$_\$|[_/])(\d{4})",
    ),
    _release("UR-FUNNY", (10598, 2626, 3290)),
]  # fmt: skip
PROTOCOLS: dict[str, Protocol] = {p.name: p for p in _ALL}


def apply(protocol: str, file: FeatureFile) -> tuple[dict[str, list[str]], list[str]]:
    """Divide a file's clips by a protocol.

    Args:
        protocol: Its name.
        file: An open feature file of that data set.

    Returns:
        {split name: (N,) of train, valid, test or ""}, and notes for the user: what of the protocol
        the file lacks, where numbers of clips differ, what members were recognised by.

    Raises:
        UsageError: No such protocol.
        DataError: A clip is none of the protocol's, or the file lacks what it needs.
    """
    if protocol not in PROTOCOLS:
        raise UsageError(
            f'There is no protocol "{protocol}".', "", did_you_mean(protocol, PROTOCOLS)
        )
    chosen = PROTOCOLS[protocol]
    if chosen.rule == "folds":
        return _folds(chosen, file)
    if chosen.rule == "release":
        split = file.split("default")
        if not any(split):
            raise DataError(
                f"{protocol} takes the split the file carries, and it carries none.",
                str(file.path),
                "Extract with a split column in the manifest, or import the released file.",
            )
        notes = []
    else:
        split, notes = _official(chosen, file)
    return {"official": split}, notes + _count_notes(chosen, split)


def _folds(chosen: Protocol, file: FeatureFile) -> tuple[dict[str, list[str]], list[str]]:
    """The folds of a protocol whose members are speakers or sessions."""
    members, notes = _members(chosen, file)
    present = set(members)
    listed = [m for fold in chosen.members for m in fold]
    notes += _lack_note(chosen, [m for m in listed if m not in present], len(listed))
    splits: dict[str, list[str]] = {}
    for k, test in enumerate(chosen.members):
        if present.isdisjoint(test):
            # Folds are fold-0 to fold-(K-1) in every file, so the later ones move up.
            notes.append(
                f"the protocol's fold {k} is left out: the file has no clip of its test "
                f"{chosen.unit}; the next is called fold-{len(splits)}"
            )
            continue
        salt = f"0 valid fold-{k}"
        splits[f"fold-{len(splits)}"] = hold_out(members, test, salt, chosen.unit, file)
    return splits, notes + _count_notes(chosen, ["test"] * len(members))


def _members(chosen: Protocol, file: FeatureFile) -> tuple[list[str], list[str]]:
    """(N,) member of the protocol that each clip belongs to, however its name is spelt."""
    known = {_plain(m): m for fold in chosen.members for m in fold}
    members, by_id = [], 0
    for clip, speaker in zip(file.ids, file.column("speaker"), strict=True):
        pattern = chosen.speaker if speaker else chosen.clip_id
        found = re.fullmatch(pattern, speaker or clip, re.IGNORECASE) if pattern else None
        member = known.get(_plain(found[1])) if found else None
        if member is None:
            what = f'the speaker "{speaker}"' if speaker else "no speaker"
            raise DataError(
                f"{chosen.name} does not know whose clip this is.",
                f"{file.path}: clip {clip} has {what}; known: {_listing(known.values())}",
                "Correct the speaker column of the manifest, or use another protocol.",
            )
        members.append(member)
        by_id += not speaker
    notes = []
    if by_id:
        notes.append(f"the {chosen.unit} of {by_id} clips are taken from their ids")
    return members, notes


def _plain(member: str) -> str:
    return member.upper().lstrip("0")


def _listing(members: Iterable[str]) -> str:
    names = sorted(members)
    return ", ".join(names) if len(names) <= 10 else f"{names[0]} to {names[-1]}"


def _official(chosen: Protocol, file: FeatureFile) -> tuple[list[str], list[str]]:
    """The split of every clip of a data set whose members are listed by video or by clip."""
    # A member is (video,) or (video, number of the clip).
    place: dict[tuple, str] = {}
    for name, videos in chosen.members.items():
        if chosen.rule == "video":
            place |= {(video,): name for video in videos}
        else:
            place |= {(video, n): name for video, numbers in videos.items() for n in numbers}
    split, seen = [], set()
    for clip in file.ids:
        found = re.fullmatch(chosen.clip_id or "", clip, re.IGNORECASE)
        video, *number = found.groups() if found else ("",)
        member = (video, *map(int, number))
        if member not in place:
            raise DataError(
                f"{chosen.name} does not list this clip.",
                f"{file.path}: clip {clip}",
                f"Its clips are named like {_example(chosen)}; leave others out of the file.",
            )
        split.append(place[member])
        seen.add(member)
    lacking = [" ".join(map(str, m)) for m in place if m not in seen]
    return split, _lack_note(chosen, lacking, len(place))


def _example(chosen: Protocol) -> str:
    first = next(iter(chosen.members["train"]))
    return f"{first}_1" if chosen.rule == "video" else f"{first}_0001"


def _lack_note(chosen: Protocol, lacking: list[str], total: int) -> list[str]:
    if not lacking:
        return []
    return [
        f"the file lacks {len(lacking)} of the protocol's {total} {chosen.unit}: {shorten(lacking)}"
    ]


def _count_notes(chosen: Protocol, split: Sequence[str]) -> list[str]:
    """Where the file has not as many clips as the whole data set."""
    return [
        f"{split.count(name)} clips are {name}, of the protocol's {count}"
        for name, count in chosen.counts.items()
        if split.count(name) != count
    ]
