"""Emotion from real speech: RAVDESS with other actors in each split, beside eGeMAPS + SVM.

The clips are extracted, then mcr and concat are trained on the audio stream alone, with default
settings, twice: on the data's own split (actors 01-12 train, 13-15 valid, 16-18 test), and over
speaker-grouped folds. (The two sentences of RAVDESS are the same for every emotion: text says
nothing of the label, and its stream is not used.)

Beside them stands the plain method of the field, on the same clips of the same splits: the 88
eGeMAPSv02 functionals of openSMILE, standardised, and an SVM with an RBF kernel. Its C is the one
with the highest accuracy on the valid clips (the smallest of equals), fitted on train: test chooses
nothing. It is then scored as fitted on train, which is what the fusions learn from, and fitted anew
on train and valid together. openSMILE is optional (pip install mertool[opensmile]).

Target: each fusion's mean test accuracy is above that of always guessing the majority class, on the
split and over the folds. To be better than the SVM is no target: the difference is printed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import common
import numpy as np

import mertool
from mertool.cli.common import number, spread, table
from mertool.files import sha256
from mertool.metrics import printed, scores
from mertool.store import FeatureFile, is_missing

PLUGINS = ("mcr", "concat")
METRICS = ("accuracy", "unweighted_recall", "weighted_f1")
GRID = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
SVM = "eGeMAPS + SVM"
FITTED = {"train": ("train",), "train and valid": ("train", "valid")}


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument(
        "--data", metavar="DIR", type=Path,
        help="clips with splits and a column emotion  [default: ravdess_speech]",
    )  # fmt: skip
    parser.add_argument("--features", metavar="FILE", type=Path, help="an extraction of them")
    parser.add_argument("--seeds", type=int, default=5, help="[default: 5]")
    parser.add_argument("--folds", type=int, default=6, help="[default: 6]")
    common.settings_option(parser)
    parser.add_argument(
        "--align", metavar="segments:N",
        help="pool every clip to N rows first, which makes mcr far cheaper; concat, which is cheap "
        "anyway, is then measured on both  [default: unaligned]",
    )  # fmt: skip
    parser.add_argument(
        "--egemaps", metavar="FILE.npz", type=Path,
        help="read the functionals from there; where there is no such file, write them there",
    )  # fmt: skip
    parser.add_argument(
        "--work", metavar="DIR", type=Path,
        help="keep features and runs there, and go on with those that are there",
    )  # fmt: skip
    args = parser.parse_args()
    if args.features and not args.features.is_file():
        raise common.BenchmarkError(f"There is no feature file {args.features}. Check --features.")
    folder = None if args.features else common.folder(args.data, "ravdess_speech")
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        unaligned, extracted = prepare(args, folder, work)
        systems = {plugin: (plugin, unaligned) for plugin in PLUGINS}
        if args.align:
            aligned = align(unaligned, args.align, work)
            systems = {plugin: (plugin, aligned) for plugin in PLUGINS}
            systems["unaligned concat"] = ("concat", unaligned)
        with mertool.open(systems[PLUGINS[0]][1]) as file:
            values, egemaps = functionals(file, args.egemaps or work / "egemaps.npz")
            classes = len(file.labels["emotion"].classes) if "emotion" in file.labels else 0
            alignment = file.alignment
        result: dict[str, Any] = {
            "settings": args.settings, "alignment": alignment, "extract": extracted,
            "egemaps": egemaps, "scikit-learn": version("scikit-learn"),
            "chance": 1 / classes if classes else None,
            "split": measure(systems, values, work, args, 0),
            "folds": measure(systems, values, work, args, args.folds),
        }  # fmt: skip
    return common.finish(args, result, misses(result), lines(result), key_figure(result))


def prepare(
    args: argparse.Namespace, folder: Path | None, work: Path
) -> tuple[Path, dict[str, Any] | None]:
    """The features to train on, and how long their extraction took if it was done here."""
    features, extracted = args.features, None
    if folder:
        features = work / "features.h5"
        if not features.is_file():
            common.say(f"{folder.name}: extract")
            ran = common.mertool(
                "extract", folder, "-o", features, "-j", 2, "--vision", "none", "--resume"
            )
            extracted = {
                "data": folder.name, "clips": ran.report["clips"], "wall": ran.wall,
                "failures": len(ran.report["failures"]),
            }  # fmt: skip
    return features, extracted


def align(features: Path, to: str, work: Path) -> Path:
    """The features aligned; the name says which, as --work may hold those of another call."""
    aligned = work / f"{to.replace(':', '-')}-{sha256(features)[:12]}.h5"
    if not aligned.is_file():
        common.say(f"align to {to}")
        common.mertool("align", features, "-o", aligned, "--to", to, "-j", 2)
    return aligned


def functionals(
    file: FeatureFile, cache: Path
) -> tuple[dict[str, np.ndarray] | None, dict[str, Any]]:
    """{clip id: (88,) eGeMAPSv02 functionals}, and what is to be told of them.

    They are computed from the clips' sound at 16 kHz and kept in `cache`; where that is there, it
    is read. None where neither can be, and then the reason is told.

    Raises:
        BenchmarkError: The cache lacks clips.
    """
    if cache.is_file():
        with np.load(cache, allow_pickle=False) as kept:
            found = dict(zip(kept["id"].tolist(), kept["values"], strict=True))
            made = str(kept["opensmile"])
        lacking = [name for name in file.ids if name not in found]
        if lacking:
            raise common.BenchmarkError(f"{cache} has no functionals of {lacking[0]}.")
        return found, {"opensmile": made, "missing": ""}
    try:
        import opensmile

        made = version("opensmile")
    except (ImportError, PackageNotFoundError):
        return None, {"opensmile": "", "missing": "opensmile is not installed"}
    clips = list(file.clips(rows=False))
    if not all(clip.media.is_file() for clip in clips):
        return None, {"opensmile": made, "missing": "the clips' media are not here"}
    common.say(f"eGeMAPS of {len(clips)} clips")
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.Functionals,
    )
    values = np.array([smile.process_signal(c.audio(16000), 16000).to_numpy()[0] for c in clips])
    with cache.open("wb") as out:
        np.savez(out, id=np.array(file.ids), values=values, opensmile=np.array(made))
    return dict(zip(file.ids, values, strict=True)), {"opensmile": made, "missing": ""}


def measure(
    systems: dict[str, tuple[str, Path]],
    values: dict[str, np.ndarray] | None,
    work: Path,
    args: argparse.Namespace,
    folds: int,
) -> dict[str, Any]:
    """The fusions and the SVM on one split, or over folds of speakers (pooled, and each).

    Args:
        systems: {name: plugin and features}.
        values: {clip id: functionals}, or None.
        work: Where the runs are kept.
        args: The options.
        folds: How many; 0 = the data's split.
    """
    result: dict[str, Any] = {"fusions": {}, "svm": {}}
    for name, (plugin, features) in systems.items():
        run = work / (name.replace(" ", "-") + (f"-{folds}-folds" if folds else ""))
        common.say(f"{name}{f', {folds} folds' if folds else ''}: train and evaluate")
        command: list[Any] = ["train", "--plugin", plugin, features, "-o", run, "--resume"]
        command += ["--label", "emotion", "--modalities", "audio", "--seeds", args.seeds]
        command += [part for setting in args.settings for part in ("--set", setting)]
        trained = common.mertool(*command, *(["--folds", folds] if folds else [])).report
        scored = common.mertool("evaluate", run).report
        result |= {
            "clips": {**trained["clips"], "test": scored["clips"]},
            "units": f"{scored['units']} {scored['unit']}",
            "majority": scored["baseline"],
            "notes": scored["notes"],
        }
        result["fusions"][name] = {
            **{key: scored[key] for key in ("mean", "std", "interval", "seeds", "folds")},
            "parameters": trained["parameters"],
            "train_seconds": common.seconds(run),
            "gpu": json.loads((run / "env.json").read_text(encoding="utf-8"))["gpu"],
        }
    if values is not None:
        from mertool.train.folder import read_splits

        common.say(SVM)
        with mertool.open(features) as file:
            result["svm"] = svm(file, read_splits(run), values)
    return result


def svm(
    file: FeatureFile, divided: dict[str, dict[str, str]], values: dict[str, np.ndarray]
) -> dict[str, Any]:
    """The SVM on each of a run's divisions; test clips of all folds are pooled.

    Args:
        file: The feature file, for labels and speakers.
        divided: {fold: {clip id: split}}, as the run was trained.
        values: {clip id: functionals}.

    Returns:
        {"train" | "train and valid", what the final SVM is fitted on: {"mean", "std" (None: nothing
        is random), "interval" (bootstrap over speakers), "folds", "C" and "valid" of each fold,
        "any_C": {C: scores with that C everywhere}}}. The last is there to see how much C matters;
        no score of it is to be reported as the SVM's.
    """
    from mertool.splits import units_of
    from mertool.stats import bootstrap, interval

    label, y = file.labels["emotion"], file.label("emotion")
    known, x = ~np.asarray(is_missing(label, y)), np.array([values[name] for name in file.ids])
    units = np.array(units_of(file)[0])

    def score(true: np.ndarray, said: np.ndarray) -> dict[str, float]:
        return scores(label, true, np.eye(len(label.classes))[said]).values

    result: dict[str, Any] = {}
    for name, parts in FITTED.items():
        chosen, valid, tested, of = [], [], [], []
        said: dict[Any, list[np.ndarray]] = {c: [] for c in ("chosen", *GRID)}
        for fold, places in divided.items():
            split = np.array([places[i] for i in file.ids])
            train, held, test = (known & (split == p) for p in ("train", "valid", "test"))
            fitted = known & np.isin(split, parts)
            right = [
                float((predict(x[train], y[train], x[held], c) == y[held]).mean()) for c in GRID
            ]
            best = int(np.argmax(right))
            chosen.append(GRID[best])
            valid.append(right[best])
            for c in GRID:
                said[c].append(predict(x[fitted], y[fitted], x[test], c))
            said["chosen"].append(said[GRID[best]][-1])
            tested.append(np.flatnonzero(test))
            of += [fold] * int(test.sum())
        true, who = y[np.concatenate(tested)], units[np.concatenate(tested)]
        pooled = {c: np.concatenate(parts) for c, parts in said.items()}
        final = pooled["chosen"]
        draws = bootstrap(lambda i, true=true, said=final: score(true[i], said[i]), who)
        result[name] = {
            "mean": score(true, final),
            "std": dict.fromkeys(METRICS),
            "interval": {metric: interval(each) for metric, each in draws.items()},
            "folds": {
                fold: {"clips": of.count(fold), "mean": score(true[mine], final[mine])}
                for fold in divided if fold
                for mine in [np.array(of) == fold]
            },
            "C": chosen, "valid_accuracy": valid,
            "any_C": {f"{c:g}": score(true, pooled[c]) for c in GRID},
        }  # fmt: skip
    return result


def predict(x: np.ndarray, y: np.ndarray, other: np.ndarray, c: float) -> np.ndarray:
    """(N,) classes of `other` by an SVM fitted on x (M, 88) and y (M,), standardised on x."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    return make_pipeline(StandardScaler(), SVC(C=c)).fit(x, y).predict(other)


def misses(result: dict[str, Any]) -> list[str]:
    found = [
        f"{title}: {plugin}: accuracy {f['mean']['accuracy']:.4f}, "
        f"majority {part['majority']['accuracy']:.4f}"
        for title, part in titled(result)
        for plugin, f in part["fusions"].items()
        if not f["mean"]["accuracy"] > part["majority"]["accuracy"]
    ]
    why = result["egemaps"]["missing"]
    return [*found, f"no {SVM} to compare with: {why}"] if why else found


def titled(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    folds = len(next(iter(result["folds"]["fusions"].values()))["folds"])
    return [("split", result["split"]), (f"{folds} folds", result["folds"])]


def lines(result: dict[str, Any]) -> list[str]:
    text = [f"audio alone, alignment {result['alignment']}, {len(seeds(result))} seeds"]
    for title, part in titled(result):
        clips = ", ".join(f"{n} {split}" for split, n in part["clips"].items())
        text += [f"\n{title}: {clips}" + (" (train and valid: first fold)" * ("folds" in title))]
        systems = part["fusions"] | {f"{SVM}, fitted on {k}": v for k, v in part["svm"].items()}
        rows = [
            [name, *(spread(made, m) for m in METRICS),
             *(" to ".join(map(number, made["interval"].get(m, ()))) for m in METRICS[:2]),
             f"{made['train_seconds']:.0f}" if "train_seconds" in made else "-"]
            for name, made in systems.items()
        ]  # fmt: skip
        if not part["svm"]:
            rows.append([f"{SVM}: {result['egemaps']['missing']}", *["-"] * 6])
        rows.append(["majority", *(number(part["majority"][m]) for m in METRICS), *["-"] * 3])
        rows.append(["chance", *[number(result["chance"])] * 2, *["-"] * 4])
        header = ["test, mean +- sd over seeds", *(printed(m, "mertool") for m in METRICS),
                  "95% of accuracy", "95% of recall", "train s"]  # fmt: skip
        text += [table(header, rows), f"95%: bootstrap over the {part['units']} of the test clips"]
        folds = list(next(iter(systems.values()))["folds"])
        if folds:
            rows = [
                [name, *(number(made["folds"][k]["mean"]["accuracy"]) for k in folds)]
                for name, made in systems.items()
            ]
            text += ["", table([printed("accuracy", "mertool"), *folds], rows)]
        for name, made in part["svm"].items():
            text.append(f"{SVM}, fitted on {name}: " + strength(made))
        text += [f"{title}: {told}" for told in against(part)]
    notes = dict.fromkeys(note for _, part in titled(result) for note in part["notes"])
    return [*text, "", *(f"Note: {note}" for note in notes), ""]


def seeds(result: dict[str, Any]) -> list[str]:
    return list(next(iter(result["split"]["fusions"].values()))["seeds"])


def strength(made: dict[str, Any]) -> str:
    """Which C the SVM took, and what any other would have given."""
    parts = []
    for metric in METRICS[:2]:
        values = [each[metric] for each in made["any_C"].values()]
        parts.append(f"{printed(metric, 'mertool')} {min(values):.4f} to {max(values):.4f}")
    chosen = ", ".join(f"{c:g}" for c in made["C"])
    return f"C {chosen}; with any C of {min(GRID):g} to {max(GRID):g}: {', '.join(parts)}"


def against(part: dict[str, Any]) -> list[str]:
    """A sentence for each fusion: how far it is from the SVM that learnt from the same clips."""
    told = []
    for plugin, made in part["fusions"].items() if part["svm"] else ():
        gaps = {m: made["mean"][m] - part["svm"]["train"]["mean"][m] for m in METRICS}
        each = [
            f"{'behind' if gap < 0 else 'ahead'} by {abs(gap):.4f} in {printed(m, 'mertool')}"
            for m, gap in gaps.items()
        ]
        told.append(f"{plugin} against {SVM}, fitted on train: {', '.join(each)}")
    return told


def key_figure(result: dict[str, Any]) -> str:
    parts = []
    for title, part in titled(result):
        each = {k: v["mean"]["accuracy"] for k, v in part["fusions"].items()}
        if part["svm"]:
            each[SVM] = part["svm"]["train"]["mean"]["accuracy"]
        each["majority"] = part["majority"]["accuracy"]
        parts.append(f"{title}: " + ", ".join(f"{k} {v:.4f}" for k, v in each.items()))
    return f"test {printed('accuracy', 'mertool')}, " + "; ".join(parts)


if __name__ == "__main__":
    common.main(main)
