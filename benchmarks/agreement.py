"""What covarep.py compares: our 74 columns and stages with reference outputs of the original.

A folder of reference has NAME.wav (16 kHz, mono, 16 bit) with NAME.npz (features, names, seed_std,
gci, ...), and may have intermediates/NAME.npz with the outputs of single stages.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np

from mertool.extract.covarep import creak, envelope, gci, glottal, harmonics, pitch, rd, wavelets
from mertool.extract.covarep.features import COLUMNS, RATE, covarep
from mertool.extract.covarep.residual import lp_residual, polarity

EXACT = [*range(8), *range(11, 60)]  # deterministic columns
RANDOM = range(60, 74)  # the original fills these with random numbers in part
ANGLES = range(36, 61)  # compared around the circle
TOLERANCE, SHARE = 1e-6, 0.95
REACH = 1000  # samples on either side that the wavelets of MDQ look at
BAND_PASS = ("IFP", "IPS", "PwP_fall", "PwP_rise")


def read(folder: Path) -> dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]:
    """{name: samples and reference} of a folder.

    Raises:
        BenchmarkError: It has none, or one at another rate.
    """
    import soundfile

    found = {}
    for path in sorted(folder.glob("*.wav")):
        if not path.with_suffix(".npz").is_file():
            continue
        samples, fs = soundfile.read(path, dtype="float32")
        if fs != RATE or samples.ndim != 1:
            raise common.BenchmarkError(f"{path} is not mono at {RATE} Hz.")
        found[path.stem] = samples, load(path.with_suffix(".npz"))
    if not found:
        raise common.BenchmarkError(f"{folder} has no NAME.wav with a NAME.npz. Check --data.")
    return found


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def columns(data: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]) -> dict[str, Any]:
    """The 74 columns, pooled over files and file by file; the two of published Rd; discrete facts.

    Rows are set aside where the reference is not finite; for MDQ where they come from a closure
    near digital silence, where the reference is known to differ from the original under MATLAB; for
    QOQ where they come from a pulse of no height, half of which is a matter of rounding.
    """
    pooled: list[list[tuple[np.ndarray, ...]]] = [[] for _ in range(74)]
    published: list[list[tuple[np.ndarray, ...]]] = [[], []]
    files: dict[str, Any] = {}
    for name, (x, z) in data.items():
        reference = z["features"]
        ours = covarep(x, RATE)
        same = ours.shape == reference.shape and z["names"].tolist() == list(COLUMNS)
        if not same:
            raise common.BenchmarkError(f"{name}: {reference.shape} rows, ours {ours.shape}.", 1)
        apart = ~np.isfinite(reference)
        gci, at = z["gci"], z["sample_pos"] - 1
        apart[:, 3] |= beside(flat(x * z["polarity"], gci), gci, at)
        apart[:, 6] |= beside(near_silence(x, gci), gci, at)
        allowed = np.maximum(5 * z["seed_std"] + 0.01, 0)
        worst = 0.0
        for i in range(74):
            keep = ~apart[:, i]
            pooled[i].append((ours[keep, i], reference[keep, i], allowed[keep, i]))
            if i in EXACT:
                worst = max(worst, float(np.max(difference(i, *pooled[i][-1][:2]), initial=0)))
        files[name] = {
            "rows": len(ours),
            "aside": {COLUMNS[i]: int(n) for i, n in enumerate(apart.sum(axis=0)) if n},
            "worst_exact_column": worst,
            "voiced_rows_differ": int((ours[:, 1] != reference[:, 1]).sum()),
            **discrete(x, z),
        }  # fmt: skip
        if "Rd_v141" in z:
            other = covarep(x, RATE, mode="published")
            for i, key in enumerate(("Rd_v141", "Rd_conf_v141")):
                published[i].append((other[:, 8 + i], z[key], np.zeros(len(other))))
    table = {COLUMNS[i]: compare(i, parts) for i, parts in enumerate(pooled)}
    more = {
        f"{COLUMNS[8 + i]} (published)": compare(8 + i, parts)
        for i, parts in enumerate(published)
        if parts
    }
    return {"columns": table | more, "files": files}


def difference(column: int, ours: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Absolute difference, of angles around the circle."""
    apart = ours - reference
    if column in ANGLES:
        apart = np.angle(np.exp(1j * apart))
    return np.abs(apart)


def compare(column: int, parts: list[tuple[np.ndarray, ...]]) -> dict[str, Any]:
    """Pooled rows of one column: differences, correlation, and the share within the tolerance."""
    ours, reference, allowed = (np.concatenate(x) for x in zip(*parts, strict=True))
    apart = difference(column, ours, reference)
    if column in (8, 9):
        allowed = np.full(len(apart), 0.02 if column == 8 else 0.01)
    elif column not in RANDOM:
        allowed = np.full(len(apart), TOLERANCE)
    varies = ours.std() > 0 and reference.std() > 0
    return {
        "rows": len(apart), "max": float(apart.max(initial=0)),
        "p99": float(np.quantile(apart, 0.99)), "median": float(np.median(apart)),
        "correlation": float(np.corrcoef(ours, reference)[0, 1]) if varies else None,
        "within": float((apart <= allowed).mean()),
    }  # fmt: skip


def near_silence(x: np.ndarray, gci: np.ndarray) -> np.ndarray:
    """(G,) whether the wavelets around a closure reach into digital silence."""
    unknown = np.isnan(lp_residual(x, RATE))
    reach = REACH + np.diff(gci, prepend=2 * gci[0] - gci[1]) // 5 + 1
    until = np.concatenate([[0], np.cumsum(unknown)])
    last = np.minimum(gci + reach + 1, len(x))
    return until[last] > until[np.maximum(gci - reach, 0)]


def flat(x: np.ndarray, gci: np.ndarray) -> np.ndarray:
    """(G,) whether a pulse of the glottal flow has no height."""
    f0 = RATE / np.diff(gci, prepend=2 * gci[0] - gci[1])
    measured = (f0 > 20) & (f0 < 500)
    return measured & (np.abs(glottal.glottal_parameters(x, RATE, gci)[:, 0]) < 1e-9)


def beside(flagged: np.ndarray, gci: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(T,) whether a row lies between closures of which one is flagged."""
    return np.interp(at, gci, flagged, left=0, right=0) > 0


def discrete(x: np.ndarray, z: dict[str, np.ndarray]) -> dict[str, Any]:
    """Facts that are equal or not: polarity, F0 grid, voicing, GCIs."""
    sign = polarity(x, RATE)
    track = pitch.pitch_srh(x * np.float32(sign), RATE)
    marks = gci.gci_sedreams(x * np.float32(sign), RATE, track.median, track)
    return {
        "polarity": bool(sign == z["polarity"]),
        "f0": bool(np.array_equal(track.f0, z["srh_f0"])),
        "voicing": bool(np.array_equal(track.voiced, z["srh_vuv"] > 0.5)),
        "gci_differ": len(np.setxor1d(marks, z["gci"])), "gci": len(z["gci"]),
    }  # fmt: skip


def stages(
    folder: Path, data: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]
) -> dict[str, Any]:
    """{file: {stage: largest difference}}: each stage alone, on the reference's own inputs."""
    found: dict[str, Any] = {}
    for path in sorted((folder / "intermediates").glob("*.npz")):
        if path.stem not in data:
            continue
        z = load(path)
        x = data[path.stem][0] * np.float32(z["polarity"])
        found[path.stem] = {name: stage(x, z) for name, stage in STAGES.items()}
        found[path.stem]["creak inputs"] = inputs(x, z)
    return found


def worst(ours: np.ndarray, reference: np.ndarray) -> float:
    """Largest absolute difference; not finite counts as equal where both are."""
    apart = np.abs(np.nan_to_num(ours) - np.nan_to_num(reference))
    return float(apart.max(initial=0))


def _frames(x: np.ndarray, z: dict[str, np.ndarray]) -> list[harmonics.Harmonics]:
    track = pitch.Pitch(z["srh_pos"] - 1, z["srh_f0"], z["srh_val"], z["srh_vuv"] > 0.5)
    return list(harmonics.harmonics(x, RATE, track))


def _track(x: np.ndarray, z: dict[str, np.ndarray]) -> float:
    track = pitch.pitch_srh(x, RATE)
    return max(worst(track.f0, z["srh_f0"]), worst(track.strength, z["srh_val"]))


def _glottal(x: np.ndarray, z: dict[str, np.ndarray]) -> float:
    level = flat(x, z["gci_final0"])
    ours = np.where(level[:, None], 0, glottal.glottal_parameters(x, RATE, z["gci_final0"]))
    keys = ("NAQ_raw", "QOQ_raw", "H1H2_raw", "PSP_raw")
    return max(worst(ours[:, i], np.where(level, 0, z[key][:, 1])) for i, key in enumerate(keys))


def _flow(x: np.ndarray, z: dict[str, np.ndarray]) -> float:
    flow, _ = glottal.glottal_flow(x, RATE, z["gci_final0"])
    return worst(flow, z["iaif_flow"]) / float(np.abs(z["iaif_flow"]).max())


def _mcep(x: np.ndarray, z: dict[str, np.ndarray]) -> float:
    return worst(np.concatenate([envelope.mcep(b, RATE) for b in _frames(x, z)]), z["mcep_frames"])


def _rd(mode: str, key: str) -> Callable[[np.ndarray, dict[str, np.ndarray]], float]:
    def stage(x: np.ndarray, z: dict[str, np.ndarray]) -> float:
        return worst(
            np.concatenate([rd.rd_msp(b, RATE, mode)[0] for b in _frames(x, z)]), z[key][:, 1]
        )

    return stage


STAGES: dict[str, Callable[[np.ndarray, dict[str, np.ndarray]], float]] = {
    "SRH: F0 and strength": _track,
    "mean-based signal": lambda x, z: worst(
        gci.mean_based_signal(x, RATE, float(z["F0med"])), z["mean_based_signal"]
    ),
    "LP residual": lambda x, z: worst(lp_residual(x, RATE), z["lp_residual18"]),
    "IAIF flow, relative": _flow,
    "NAQ, QOQ, H1H2, PSP": _glottal,
    "MDQ": lambda x, z: worst(
        wavelets.mdq(z["lp_residual18"], RATE, z["gci_final0"]), z["MDQ_raw"][:, 1]
    ),
    "peakSlope": lambda x, z: worst(wavelets.peak_slope(x, RATE)[1], z["peakslope_raw"][:, 1]),
    "Rd": _rd("compat", "rd_track"),
    "Rd, published": _rd("published", "rd_track_v141"),
    "MCEP": _mcep,
}


def inputs(x: np.ndarray, z: dict[str, np.ndarray]) -> dict[str, Any]:
    """The creak detector's twelve measures with their deltas: difference and correlation."""
    ours, reference = creak.creak_inputs(x, RATE, z["lp_residual18"]), z["creak_inputs"]
    return {
        name: {
            "max": worst(ours[:, i::12], reference[:, i::12]),
            "correlation": float(np.corrcoef(ours[:, i], reference[:, i])[0, 1])
            if reference[:, i].std() > 0
            else None,
        }
        for i, name in enumerate(creak.INPUTS)
    }
