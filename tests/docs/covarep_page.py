"""Writes docs/covarep.md from benchmarks/results/covarep.json: no figure is typed by hand.

python tests/docs/covarep_page.py > docs/covarep.md
"""
# ruff: noqa: E501 (rows of Markdown tables are long)

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from mertool.extract.covarep.features import COLUMNS

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
INTRO = """\
# COVAREP's 74 features

<!-- Written by tests/docs/covarep_page.py from benchmarks/results/covarep.json; do not edit. -->

Most papers that fuse text, sound and face describe the sound by COVAREP's 74 features (G. Degottex,
J. Kane, T. Drugman, T. Raitio, S. Scherer, "COVAREP - A collaborative voice analysis repository for
speech technologies", ICASSP 2014). "The original" below is that MATLAB program in its last version.
mertool computes them in Python, with numpy and scipy alone, from a description of what the original
does: it is no translation of its code, and has none of its licences.

```sh
mertool extract videos/ -o feats.h5                                   # 74 columns: the default
mertool extract videos/ -o feats.h5 --audio covarep5                  # MOSI's released five
mertool extract videos/ -o feats.h5 --set audio.mode=published        # Rd as published
```

```python
import soundfile
from mertool.extract.covarep.features import COLUMNS, covarep
from mertool.extract.covarep.pitch import pitch_srh

x, fs = soundfile.read("speech.wav")  # one channel; 8 to 48 kHz
rows = covarep(x, fs)  # (T, 74), 100 rows per second
pitch = pitch_srh(x, fs)  # every stage alone: pitch.f0, pitch.voiced, ...
```

Row k stands for sample 79 + 160 k at 16 kHz, its cell for that +- 5 ms. Other rates are resampled to
16 kHz first. Much depends on the whole input: polarity, the range of pitch, the threshold of
voicing, the speaker's mean pitch, the even spread of the cepstra over the file. The original was run
on whole videos to make the field's data sets; a clip of one utterance gives slightly other numbers.
"""
# Column: what it is, its unit, its source.
ABOUT = {
    "F0": ("pitch, also where unvoiced", "Hz", "Drugman, Alwan 2011"),
    "VUV": ("voiced", "0 or 1", "Drugman, Alwan 2011"),
    "NAQ": ("normalised amplitude quotient of the glottal flow", "ratio", "Alku et al. 2002"),
    "QOQ": ("quasi-open quotient", "ratio", "Hacki 1989"),
    "H1H2": ("first less second harmonic of the flow derivative", "dB", "Hanson 1997"),
    "PSP": ("parabolic spectral parameter", "ratio", "Alku et al. 1997"),
    "MDQ": ("maxima dispersion quotient of the residual", "ratio", "Kane, Gobl 2013"),
    "peakSlope": ("slope of wavelet peaks over octaves", "log10 per octave", "Kane, Gobl 2011"),
    "Rd": ("shape of the LF glottal pulse", "0.3 to 2.5", "Degottex et al. 2011"),
    "Rd_conf": ("confidence of Rd", "0 to 1", "Degottex et al. 2011"),
    "creak": ("probability of creaky voice", "0 to 1", "Drugman, Kane, Gobl 2014"),
    "MCEP": ("cepstrum of the true envelope, mel axis", "ln amplitude", "Röbel, Rodet 2005"),
    "HMPDM": ("mean phase distortion, band", "rad", "Degottex, Erro 2014"),
    "HMPDD": ("deviation of phase distortion, mel cepstrum", "ln rad", "Degottex, Erro 2014"),
}
NOTES = """\
## What differs, and what happens where the original fails

| case | the original | mertool |
| --- | --- | --- |
| NaN in a row | 0 | 0 |
| -inf (logarithm of digital silence) | -inf in the file | 0 |
| nothing but zeros | no output | all zeros |
| nothing voiced, fewer than two closures | no output | `NAQ`, `QOQ`, `H1H2`, `PSP`, `MDQ` are 0; the rest is computed |
| fewer than 73 frames (about 0.85 s) | no output | `HMPDM`, `HMPDD` are 0 |
| less than 0.1 s | no output | no pitch, so all but `peakSlope` is 0; one row at least |
| a frame without any energy inside | NaN | its `MCEP` are 0, and the `HMPDM` and `HMPDD` that look at it |
| signal beyond 2^40 or below 2^-40 of full scale | overflow | scaled by a power of two; `MCEP_0` is put right |
| several channels | the first one | their mean; `audio.channel=first` takes the first |
| harmonics that a frame lacks | random phases, other ones in every run | phases fixed by a hash of frame and harmonic: the same in every run |
| means of phases that all agree | the logarithm of rounding noise | deviation 0, which counts as 0.001 |

- `F0` is 1 Hz in frames without any candidate, as in the original. Use `VUV`.
- `HMPDM_0` to `HMPDM_3` are 0 almost always, as in the original: below the pitch there is no phase.
- `HMPDM_24` and `HMPDD` hold the phases that the original draws at random, so no two runs of it
  agree. The table counts rows within five standard deviations of its runs plus 0.01. The first and
  last rows of a file differ most: there the original writes the logarithm of rounding noise.
- `audio.mode=compat` (the default) has a slip that is in the original since its version 1.4.2: `Rd`
  and `Rd_conf` are found with the wrong sign of the model's phase. `audio.mode=published` has the
  sign of the paper and of older versions. The published features of MOSEI are probably those of
  `compat`.
- Set aside in the table: `MDQ` beside digital silence, where the reference is known to differ from
  the original under MATLAB; `QOQ` beside a pulse of no height, half of which is a matter of rounding.

## Creaky voice

The original's detector is a small neural network whose weights are not ours to give. Without weights
the column `creak` is 0, as it is in the original without two of its toolboxes, and the attribute
`creak` of the stream says so. With `--set audio.creak_weights=FILE.npz` it is the network's output;
the file holds `W1` (32, 36), `b1` (32), `W2` (32), `b2`, `min` (36) and `max` (36): the inputs are
brought to -1 to 1 by `min` and `max`, then tanh(W1 u + b1), then a logistic unit. The 36 inputs are
those of `mertool.extract.covarep.creak.creak_inputs`: twelve measures, their differences from row to
row, and those of these. Of the posterior only the formula has been tested: no weights were at hand.
"""
USE = """\
One SVM (RBF kernel, standardised input, C by the accuracy on the valid actors) on mean and standard
deviation over each clip of RAVDESS speech, eight emotions: train actors 01-12, valid 13-15, test
16-18, so no speaker is in two of them. "train and valid": fitted anew on actors 01-15. C is chosen
without the test actors; the last column shows how much it matters. The two sentences are the same for
every emotion, so the words say nothing of the label. Means run over unvoiced rows too.
"""


def page() -> str:
    """The whole page."""
    result = json.loads((BENCHMARKS / "results" / "covarep.json").read_text(encoding="utf-8"))
    script = _script()
    made = result["environment"]
    agreement = result["agreement"]
    return "\n".join([
        INTRO,
        "## Agreement, column by column\n",
        f"`python benchmarks/covarep.py` on {result['files']} files, {result['seconds']:.0f} s of "
        f"speech, {made['date']}. Absolute differences, of angles around the circle, pooled over "
        "rows; r is the correlation, `within` the share of rows within the tolerance: 1e-6; 0.02 "
        "for `Rd`, 0.01 for `Rd_conf`; see below for `HMPDM_24` and `HMPDD`. `creak` is 0 here.\n",
        *_columns(agreement["columns"], script),
        "",
        *_text([*script.file_lines(agreement), *script.stage_lines(agreement)]),
        *(f"- Target missed: {miss}" for miss in result["missed"]),
        NOTES,
        "## Speed and memory\n",
        f"One core ({made['cpu']}, {made['cpus']} CPUs, load {made['load_before']} before); CPU "
        f"seconds per second of speech, stage by stage. The original takes {script.OCTAVE} under "
        "Octave, on another machine, as stated with the reference.\n",
        *_text(script.lines({k: result[k] for k in ("speed", "memory")})),
        "## Does it tell emotions?\n",
        USE,
        *_text(script.lines({"usefulness": result["usefulness"]})),
        f"`{result['key_figure']}`\n",
    ])  # fmt: skip


def _script() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    threads = dict(os.environ)  # the script wants one thread for itself
    try:
        return importlib.import_module("covarep")
    finally:
        sys.path.remove(str(BENCHMARKS))
        os.environ.clear()
        os.environ.update(threads)


def _columns(columns: dict[str, Any], script: Any) -> list[str]:
    rows = [
        "| | column | what | unit | source | rows | max | 99% | median | r | within |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in columns.items():
        plain = name.removesuffix(" (published)")
        stem = plain if plain in ABOUT else plain.partition("_")[0]
        about = ABOUT[stem]
        number = COLUMNS.index(plain) if plain == name else ""
        figures = ["-"] * 6 if name == "creak" else script.figures(found)
        shown = f"`{plain}`{name.removeprefix(plain)}"
        rows.append("| " + " | ".join([str(number), shown, *about, *figures]) + " |")
    return rows


def _text(lines: list[str]) -> list[str]:
    text = "\n".join(lines).rstrip()
    return [f"```text\n{text}\n```\n"]


if __name__ == "__main__":
    sys.stdout.write(page())
