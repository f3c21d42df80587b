"""COVAREP's 74 features: agreement with the original, speed, memory, usefulness.

Agreement: every file of a reference folder (NAME.wav with the original's output as NAME.npz) is
analysed; each column is compared with the stored one, pooled over all rows of all files, and single
stages with intermediates/NAME.npz where there is one. Set aside and counted: rows whose reference
is not finite; of MDQ, those near digital silence; of QOQ, those beside a pulse of no height.

Speed: CPU seconds per second of speech on one core, stage by stage, on the reference's speech
joined end to end and repeated to ten seconds, one minute and ten minutes, beside openSMILE's
eGeMAPS low-level descriptors in the same run (where installed), and on each file alone.

Memory: peak resident set of `mertool extract` on ten seconds and on ten minutes of that speech.

Usefulness: emotion from RAVDESS speech. Mean and standard deviation of each column over a clip,
standardised, and an SVM with an RBF kernel (C by the valid actors 13-15), fitted on actors 01-15,
test 16-18; the same with the mean and standard deviation of eGeMAPS low-level descriptors, and with
eGeMAPS functionals. The two sentences are the same for every emotion.

Target: columns 0-7 and 11-59 within 1e-6 on every row, voicing and GCIs identical; Rd within 0.02
and Rd_conf within 0.01 on 99% of rows; HMPDM_24 and HMPDD within 5 seed_std + 0.01 on 95%; eight
creak inputs within 1e-6, four with correlation 0.98; at most 0.15 CPU seconds per second and linear
in length (ten minutes at most 1.2 times one minute's rate); ten minutes at most 150 MB above ten
seconds.
"""

from __future__ import annotations

import os

# One core, also for the linear algebra: to be settled before numpy is imported.
os.environ.update(
    dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
)

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import agreement
import common
import numpy as np
import speech

import mertool
from mertool.cli.common import number, table
from mertool.extract.covarep import features
from mertool.extract.covarep.features import COLUMNS, RATE
from mertool.types import Clip

PARTS = ("agreement", "speed", "memory", "usefulness")
LENGTHS = (10, 60, 600)  # seconds
OCTAVE = 8.7  # CPU seconds per second, measured with the reference
MOST, MOONSHOT, LINEAR, MEMORY = 0.15, 0.05, 1.2, 150.0
STAGES = ("polarity", "pitch_srh", "mean_based_signal", "larynx_intervals", "lp_residual",
          "gci_sedreams", "mdq", "glottal_parameters", "peak_slope", "harmonics",
          "mcep")  # fmt: skip
STREAMED = ("RdSearch", "PhaseDistortion")  # classes that take the frames block by block


# Extracts one file and prints the line of its peak memory (Linux).
EXTRACT = """
import sys, mertool
mertool.extract(sys.argv[1], sys.argv[2], text="none", audio="covarep", vision="none")
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--data", metavar="DIR", type=Path, help="[default: covarep/reference]")
    parser.add_argument(
        "--speech", metavar="DIR", type=Path, help="clips of emotions  [default: ravdess_speech]"
    )
    parser.add_argument(
        "--parts", default=",".join(PARTS), metavar="NAME,...", help="[default: %(default)s]"
    )
    parser.add_argument(
        "--work", metavar="DIR", type=Path, help="keep the extraction of --speech there"
    )
    args = parser.parse_args()
    unknown = set(args.parts.split(",")) - set(PARTS)
    if unknown:
        raise common.BenchmarkError(f"--parts {args.parts}: known are {', '.join(PARTS)}.")
    folder = common.folder(args.data, "../covarep/reference")
    data = agreement.read(folder)
    sound = np.concatenate([x for x, _ in data.values()])
    result: dict[str, Any] = {"files": len(data), "seconds": len(sound) / RATE}
    for part in args.parts.split(","):
        common.say(part)
        if part == "agreement":
            result[part] = agreement.columns(data) | {"stages": agreement.stages(folder, data)}
        elif part == "speed":
            result[part] = speed(sound) | {"files": {k: rate(x) for k, (x, _) in data.items()}}
        elif part == "memory":
            result[part] = memory(sound)
        else:
            result[part] = usefulness(args)
    return common.finish(args, result, misses(result), lines(result), key_figure(result))


def repeat(sound: np.ndarray, seconds: float) -> np.ndarray:
    return np.resize(sound, round(seconds * RATE))


def speed(sound: np.ndarray) -> dict[str, Any]:
    """CPU seconds per second of speech: in all, per stage, by length, and openSMILE's."""
    features.covarep(repeat(sound, 10))  # tables that are made once
    result: dict[str, Any] = {"lengths": {}}
    for seconds in LENGTHS:
        x = repeat(sound, seconds)
        spent = dict.fromkeys((*STAGES, *STREAMED), 0.0)
        with Timed(spent):
            started = time.process_time()
            features.covarep(x)
            total = time.process_time() - started
        spent["everything else"] = total - sum(spent.values())
        result["lengths"][str(seconds)] = {
            "total": total / seconds, "stages": {k: v / seconds for k, v in spent.items()}
        }  # fmt: skip
        common.say(f"{seconds} s: {total / seconds:.4f} CPU s per second")
    result["opensmile"] = peer(repeat(sound, LENGTHS[1])) / LENGTHS[1]
    return result


class Timed:
    """While entered, the chain's stages add their CPU seconds to `spent`."""

    def __init__(self, spent: dict[str, float]) -> None:
        self.spent = spent

    def __enter__(self) -> None:
        self.kept = {name: getattr(features, name) for name in STAGES}
        for name, stage in self.kept.items():
            wrap = self._blocks if name == "harmonics" else self._call
            setattr(features, name, wrap(name, stage))
        for name in STREAMED:
            self.kept[name] = made = getattr(features, name)
            methods = {k: self._call(name, getattr(made, k)) for k in ("add", "finish")}
            setattr(features, name, type("Timed", (made,), methods))

    def __exit__(self, *_: object) -> None:
        for name, stage in self.kept.items():
            setattr(features, name, stage)

    def _call(self, name: str, stage: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **settings: Any) -> Any:
            started = time.process_time()
            try:
                return stage(*args, **settings)
            finally:
                self.spent[name] += time.process_time() - started

        return call

    def _blocks(self, name: str, stage: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
        def call(*args: Any) -> Iterator[Any]:
            blocks = iter(stage(*args))
            step = self._call(name, lambda: next(blocks, None))
            while (block := step()) is not None:
                yield block

        return call


def rate(x: np.ndarray) -> float:
    """CPU seconds per second of one signal, the least of three runs."""
    spent = []
    for _ in range(3):
        started = time.process_time()
        features.covarep(x)
        spent.append(time.process_time() - started)
    return min(spent) * RATE / len(x)


def peer(x: np.ndarray) -> float:
    """CPU seconds of openSMILE's eGeMAPS low-level descriptors; NaN where it is not installed."""
    try:
        import opensmile
    except ImportError:
        return float("nan")
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.LowLevelDescriptors,
    )
    smile.process_signal(x[:RATE], RATE)
    started = time.process_time()
    smile.process_signal(x, RATE)
    return time.process_time() - started


def memory(sound: np.ndarray) -> dict[str, float]:
    """Peak resident set of `mertool extract`, MB, by length in seconds."""
    import soundfile

    peaks = {}
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        for seconds in (LENGTHS[0], LENGTHS[-1]):
            path = Path(temporary) / f"{seconds}.wav"
            soundfile.write(path, repeat(sound, seconds), RATE, "PCM_16")
            # Its own peak, not the resources that the system reports: those count this process too.
            command = [sys.executable, "-c", EXTRACT, str(path), str(path.with_suffix(".h5"))]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peaks[str(seconds)] = int(told.split()[1]) * 1024 / 1e6
    return peaks


def usefulness(args: argparse.Namespace) -> dict[str, Any]:
    """Scores of an SVM on RAVDESS speech, by its features."""
    clips = common.folder(args.speech, "ravdess_speech")
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        path = work / "covarep.h5"
        if not path.is_file():
            common.mertool(
                "extract", clips, "-o", path, "-j", 2, "--audio", "covarep", "--resume",
                "--text", "none", "--vision", "none",
            )  # fmt: skip
        with mertool.open(path) as file:
            divided = {"": dict(zip(file.ids, file.split(), strict=True))}
            values = {
                clip.id: pooled(clip.streams["audio"].values) for clip in file if clip.streams
            }
            functionals, egemaps = speech.functionals(file, work / "egemaps.npz")
            systems = {"covarep, mean and sd": speech.svm(file, divided, values)}
            if functionals is not None:
                systems["eGeMAPS, functionals"] = speech.svm(file, divided, functionals)
                values = {clip.id: pooled(descriptors(clip)) for clip in file}
                systems["eGeMAPS, mean and sd"] = speech.svm(file, divided, values)
    return {"egemaps": egemaps, "systems": systems}


def pooled(values: np.ndarray) -> np.ndarray:
    """(2 D,) mean and standard deviation of (T, D) rows."""
    return np.concatenate([values.mean(axis=0), values.std(axis=0)])


def descriptors(clip: Clip) -> np.ndarray:
    """(T, 25) eGeMAPS low-level descriptors of a clip's sound."""
    from mertool.extract.egemaps import EGeMAPS

    return EGeMAPS(EGeMAPS.Config()).extract(clip).values


def misses(result: dict[str, Any]) -> list[str]:
    found = []
    if "agreement" in result:
        found += disagreements(result["agreement"])
    if "speed" in result:
        rates = {k: v["total"] for k, v in result["speed"]["lengths"].items()}
        if max(rates.values()) > MOST:
            found.append(f"{max(rates.values()):.3f} CPU s per second, at most {MOST}")
        if rates["600"] > LINEAR * rates["60"]:
            found.append(f"not linear: {rates['60']:.3f} at 60 s, {rates['600']:.3f} at 600 s")
    if "memory" in result and result["memory"]["600"] - result["memory"]["10"] > MEMORY:
        above = result["memory"]["600"] - result["memory"]["10"]
        found.append(f"ten minutes take {above:.0f} MB more, at most {MEMORY:.0f}")
    return found


def disagreements(result: dict[str, Any]) -> list[str]:
    found = []
    table = result["columns"]
    for i, name in enumerate(COLUMNS):
        share = 1.0 if i in agreement.EXACT else 0.99 if i in (8, 9) else agreement.SHARE
        if i != 10 and table[name]["within"] < share:
            found.append(f"{name}: {table[name]['within']:.4f} of rows within tolerance")
    for name in ("Rd (published)", "Rd_conf (published)"):
        if name in table and table[name]["within"] < 0.99:
            found.append(f"{name}: {table[name]['within']:.4f} of rows within tolerance")
    for name, file in result["files"].items():
        if not (file["polarity"] and file["f0"] and file["voicing"]) or file["gci_differ"]:
            found.append(f"{name}: polarity, F0, voicing or GCIs are not identical")
    for name, stages in result["stages"].items():
        for measure, figures in stages["creak inputs"].items():
            if measure in agreement.BAND_PASS:
                if (figures["correlation"] or 0) < 0.98:
                    found.append(f"{name}: creak input {measure}: r {figures['correlation']}")
            elif figures["max"] > agreement.TOLERANCE:
                found.append(f"{name}: creak input {measure}: {figures['max']:.1e}")
    return found


def lines(result: dict[str, Any]) -> list[str]:
    told: list[str] = []
    if "agreement" in result:
        columns = result["agreement"]["columns"]
        rows = [[name, *figures(c)] for name, c in columns.items() if name != "creak"]
        told += [table(["column", "rows", "max", "99%", "median", "r", "within"], rows), ""]
        told += [*file_lines(result["agreement"]), *stage_lines(result["agreement"])]
    if "speed" in result:
        lengths = result["speed"]["lengths"]
        names = [*lengths["10"]["stages"]]
        rows = [[k, *(f"{lengths[n]['stages'][k]:.4f}" for n in lengths)] for k in names]
        rows.append(["all", *(f"{f['total']:.4f}" for f in lengths.values())])
        told += [table(["CPU s per second", *(f"{n} s" for n in lengths)], rows)]
        told += [f"target: {MOST}; moonshot: {MOONSHOT}; the original under Octave: {OCTAVE}"]
        told += [f"openSMILE eGeMAPS descriptors: {result['speed']['opensmile']:.4f}"]
        told += [f"{name} alone: {each:.4f}" for name, each in result["speed"]["files"].items()]
        told += [""]
    if "memory" in result:
        rows = [[f"{k} s", f"{v:.0f}"] for k, v in result["memory"].items()]
        told += [table(["mertool extract, audio alone", "peak MB"], rows), ""]
    if "usefulness" in result:
        rows = [
            [name, fitted, *(number(made["mean"][m]) for m in speech.METRICS[:2]),
             " to ".join(map(number, made["interval"]["accuracy"])), f"{made['C'][0]:g}",
             f"{min(any_c):.3f} to {max(any_c):.3f}"]
            for name, kinds in result["usefulness"]["systems"].items()
            for fitted, made in kinds.items()
            for any_c in [[s["accuracy"] for s in made["any_C"].values()]]
        ]  # fmt: skip
        header = ["SVM on", "fitted on", "accuracy", "unweighted recall", "95%", "C",
                  "accuracy over C"]  # fmt: skip
        told += [table(header, rows, left=2), ""]
    return told


def file_lines(result: dict[str, Any]) -> list[str]:
    """Discrete facts of each file."""
    rows = [
        [name, str(f["rows"]), "yes" if f["polarity"] and f["f0"] and f["voicing"] else "NO",
         f"{f['gci_differ']} of {f['gci']}", f"{f['worst_exact_column']:.1e}",
         ", ".join(f"{k} {v}" for k, v in f["aside"].items()) or "-"]
        for name, f in result["files"].items()
    ]  # fmt: skip
    header = ["file", "rows", "polarity, F0, VUV equal", "GCIs that differ",
              "worst of 0-7, 11-59", "rows aside"]  # fmt: skip
    return [table(header, rows), ""]


def stage_lines(result: dict[str, Any]) -> list[str]:
    """Single stages, one column a file."""
    files = result["stages"]
    if not files:
        return []
    first = next(iter(files.values()))
    rows = [
        [name, *(f"{stages[name]:.1e}" for stages in files.values())]
        for name in first
        if name != "creak inputs"
    ]
    for name in first["creak inputs"]:
        made = [stages["creak inputs"][name] for stages in files.values()]
        told = [f"{v['max']:.1e}, r {number(v['correlation'])}" for v in made]
        rows.append([f"creak input {name}", *told])
    return [table(["stage alone, largest difference", *files], rows), ""]


def figures(c: dict[str, Any]) -> list[str]:
    r = "-" if c["correlation"] is None else f"{c['correlation']:.6f}"
    return [
        str(c["rows"]),
        *(f"{c[k]:.1e}" for k in ("max", "p99", "median")),
        r,
        f"{c['within']:.4f}",
    ]


def key_figure(result: dict[str, Any]) -> str:
    told = []
    if "agreement" in result:
        a = result["agreement"]["columns"]
        good = sum(a[COLUMNS[i]]["within"] == 1 for i in agreement.EXACT)
        told.append(f"{good} of {len(agreement.EXACT)} exact columns within 1e-6")
    if "speed" in result:
        rate = result["speed"]["lengths"]["600"]["total"]
        told.append(f"{rate:.3f} CPU s per second, {OCTAVE / rate:.0f} times Octave")
    if "memory" in result:
        told.append(f"ten minutes {result['memory']['600'] - result['memory']['10']:+.0f} MB")
    if "usefulness" in result:
        made = result["usefulness"]["systems"]["covarep, mean and sd"]["train and valid"]
        told.append(f"RAVDESS accuracy {made['mean']['accuracy']:.3f}")
    return "; ".join(told)


if __name__ == "__main__":
    common.main(main)
