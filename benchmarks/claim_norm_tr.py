"""Does NORM-TR's noise-aware learning scheme make it lose less when steps are lost?

NORM-TR (Liu et al. 2025) trains on clips with erased windows and against two discriminators; its
Table 5 reports AUILC (eq. 10), the area under a metric's curve over 0, 0.1, ... 1 of the steps
erased. Here the same model is trained with and without that scheme (`fusion.noise_aware`), seed by
seed, on real features, and scored on test clips with steps erased in all streams: each step on its
own (`steps`, as in that table) and one stretch of each clip (`window`, as the scheme trains).

mmmo    audio and vision, 20 word-aligned steps at most, the file's split; sentiment from 1 to 5
mosi    the transcripts of mosi_words.json as token states of mertool's text extractor `minilm`,
        which no clip of MOSI has shaped, and the one audio vector of each clip in
        mosi_utterance.npz, joined by id; the official split; sentiment from -3 to 3. That file's
        text and video vectors are not used: they were learnt on other clips than the official
        split's training, its audio was not learnt. Of a clip's audio all is lost or nothing. All
        streams are brought to 12 steps, not 50: half of the transcripts have 11 tokens or fewer

N, depth and weights are the paper's or the plugin's defaults; batch size, learning rate, schedule
and warm-up the paper's. The number of epochs, which it does not give, is at most --epochs, and
training stops after 3 without a better validation loss. Nothing is chosen by test clips. An erased
step is the training mean, as features are normalised before.

Target: on each set, with single steps erased, the mean over seeds of the area is better with the
scheme than without, in MAE (smaller) and in correlation (larger). Differences of seeds are paired;
their t-test is printed, and so are the scores of undamaged clips: neither is a target.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np

from mertool.cli.common import number, table
from mertool.stats import paired_t
from mertool.store import FeatureFile, Stream, Writer
from mertool.types import Clip, Label, Rows

MMMO, WORDS, UTTERANCES = "mmmo/mmmo.npz", "mosi/mosi_words.json", "mosi/mosi_utterance.npz"
SETS = {"mmmo": ("audio", "vision"), "mosi": ("text", "audio")}
MORE = {"mmmo": (), "mosi": ("fusion.steps=12",)}
SCHEME = {"with": "true", "without": "false"}
TRAINING = (
    "train.batch_size=16", "train.lr=1e-4", "train.optimizer=adamw", "train.weight_decay=1e-4",
    "train.schedule=cosine", "train.warmup=0.1", "train.patience=3",
)  # fmt: skip
UNITS = ("steps", "window")
RATES = "0:1:0.1"
METRICS = {"mae": -1, "pearson": 1}  # and which sign is better


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument(
        "--data", metavar="DIR", type=Path,
        help="folder with mmmo/ and mosi/  [default: the shared data]",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=5, help="[default: 5]")
    parser.add_argument("--epochs", type=int, default=8, help="[default: 8]")
    common.sets_option(parser, SETS)
    common.settings_option(parser)
    args = parser.parse_args()
    root = common.folder(args.data, "")
    for needed in (MMMO, WORDS, UTTERANCES):
        if needed.split("/")[0] in args.sets:
            common.source(root, needed)
    result: dict[str, Any] = {"seeds": args.seeds, "settings": args.settings, "sets": {}}
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        for name in args.sets:
            features = prepare(name, root, Path(temporary))
            settings = [*TRAINING, f"train.epochs={args.epochs}", *MORE[name], *args.settings]
            result["sets"][name] = {"settings": settings, "scheme": {}}
            for scheme, value in SCHEME.items():
                common.say(f"{name}: {scheme} the scheme")
                run = Path(temporary) / f"{name}-{scheme}"
                trained = common.mertool(
                    "train", "--plugin", "norm_tr", features, "-o", run, "--no-singles",
                    "--modalities", ",".join(SETS[name]), "--seeds", args.seeds,
                    *(p for s in (*settings, f"fusion.noise_aware={value}") for p in ("--set", s)),
                )  # fmt: skip
                made = {"parameters": trained.report["parameters"], "train_seconds": trained.cpu}
                result["sets"][name]["scheme"][scheme] = made | areas(features, run)
    return common.finish(args, result, misses(result), lines(result), key_figure(result))


def prepare(name: str, root: Path, work: Path) -> Path:
    """The feature file of a set."""
    features = work / f"{name}.h5"
    common.say(f"{name}: read")
    if name == "mmmo":
        common.mertool("data", "import", "npz", root / MMMO, "-o", features)
    else:
        clips = json.loads((root / WORDS).read_text(encoding="utf-8"))
        with np.load(root / UTTERANCES) as arrays:
            audio = dict(zip(arrays["id"].tolist(), arrays["audio"], strict=True))
        write_mosi(features, clips, audio)
    return features


def write_mosi(path: Path, clips: Sequence[dict[str, Any]], audio: dict[str, np.ndarray]) -> None:
    """Token states of each transcript and the clip's audio vector, in one feature file.

    Args:
        path: The file to write.
        clips: "id", "split", "label" and "transcript" of each.
        audio: {clip: (D,)}; a clip that is not in it has no audio row.
    """
    from mertool.registry import registry

    minilm = registry().load("extractor", "minilm")
    extractor = minilm(minilm.Config(), "cpu")
    width = len(next(iter(audio.values())))
    made = {"extractor": "import:npz", "config": "{}"}
    streams = {
        "text": Stream(tuple(extractor.columns), {"extractor": "minilm", "config": "{}"}, True),
        "audio": Stream(tuple(str(i) for i in range(width)), made),
    }
    with Writer(path, streams, [Label("label", "regression", (), (-3.0, 3.0))]) as writer:
        for each in clips:
            name, text = each["id"], each["transcript"]
            clip = Clip(
                name, split=each["split"], text=text, speaker=name.rsplit("_", 1)[0],
                labels={"label": each["label"]},
            )  # fmt: skip
            rows = [audio[name]] if name in audio else np.zeros((0, width))
            rows = Rows(np.asarray(rows, np.float32), np.zeros((len(rows), 2)))
            writer.add(clip, {"text": extractor.extract(clip), "audio": rows})


def areas(features: Path, run: Path) -> dict[str, Any]:
    """Scores of a run's test clips, for each seed.

    Returns:
        {"auilc": {unit: {metric: {seed: area}}}, "undamaged": {metric: {seed: value}}, "curves":
        {unit: {metric: means over seeds, one per rate}}, "constant": {metric: area of the training
        mean, whose correlation counts as 0}}.
    """
    import torch

    from mertool.evaluate import robust
    from mertool.evaluate.opening import pool
    from mertool.metrics import scale_of, scores
    from mertool.splits.parts import parts
    from mertool.train import folder

    streams = folder.read_config(run)["run"]["modalities"]
    result: dict[str, Any] = {"auilc": {}, "undamaged": {}, "curves": {}}
    with FeatureFile(features) as file:
        models, split = folder.models(run), parts(file, "default", 0)[0]
        for unit in UNITS:
            masking = robust.parse(RATES, "erase", unit, streams, streams)
            changes = {  # all streams together, and no stream lost as a whole
                k: v for k, v in robust.conditions(masking, streams)[""].items() if "@" in k
            }
            pooled = pool(file, models, split, "test", torch.device("cpu"), {"": changes})
            scale = scale_of(pooled.label)
            known = (pooled.label, pooled.y, pooled.baseline, "mertool", scale)
            flat = robust.without_nan(scores(*known).values, pooled.baseline)
            result["constant"] = {metric: flat[metric] for metric in METRICS}
            made = pooled.pred[""]
            curves: dict[str, list[list[float]]] = {metric: [] for metric in METRICS}
            areas: dict[str, dict[str, float]] = {metric: {} for metric in METRICS}
            for seed in made[""]:
                one = dataclasses.replace(
                    pooled, pred={"": {k: {seed: preds[seed]} for k, preds in made.items()}}
                )
                told = robust.summary(one, masking, streams, "mertool", scale)
                (curve,), (area,) = told["curves"].values(), told["auilc"].values()
                for metric in METRICS:
                    areas[metric][str(seed)] = area["mean"][metric]
                    curves[metric].append(curve[metric])
                    result["undamaged"].setdefault(metric, {})[str(seed)] = curve[metric][0]
            result["auilc"][unit] = areas
            result["curves"][unit] = {
                metric: np.mean(each, axis=0).tolist() for metric, each in curves.items()
            }
    return result


def gap(made: dict[str, Any], *where: str) -> tuple[float, float]:
    """How much better the scheme is in a metric, and p of the paired t-test over seeds."""
    each = []
    for scheme in SCHEME:
        values = made["scheme"][scheme]
        for key in where:
            values = values[key]
        each.append(np.array(list(values.values())))
    mean, p, _ = paired_t(*each)
    return METRICS[where[-1]] * mean, p


def misses(result: dict[str, Any]) -> list[str]:
    found = []
    for name, made in result["sets"].items():
        for metric in METRICS:
            better, _ = gap(made, "auilc", "steps", metric)
            how = (
                f"worse with the scheme by {-better:.4f}" if better else "no better with the scheme"
            )
            if not better > 0:
                found.append(f"{name}: AUILC of {metric}, steps erased, is {how}")
    return found


def lines(result: dict[str, Any]) -> list[str]:
    rows = []
    for name, made in result["sets"].items():
        for what, *where in (
            ("undamaged", "undamaged"),
            *((f"AUILC, {unit}", "auilc", unit) for unit in UNITS),
        ):
            for metric in METRICS:
                cells = []
                for scheme in SCHEME:
                    values = made["scheme"][scheme]
                    for key in (*where, metric):
                        values = values[key]
                    each = np.array(list(values.values()))
                    sd = f" ± {each.std(ddof=1):.4f}" if len(each) > 1 else ""
                    cells.append(f"{each.mean():.4f}{sd}")
                better, p = gap(made, *where, metric)
                flat = made["scheme"]["with"]["constant"][metric]
                rows.append(
                    [name, what, metric, *cells, f"{better:+.4f}",
                     number(p) if np.isfinite(p) else "-", number(flat)]
                )  # fmt: skip
    header = ["set", "test clips", "metric (mertool)", *(f"{s} the scheme" for s in SCHEME),
              "better by", "p", "training mean"]  # fmt: skip
    seconds = [
        f"{name}: trained in {sum(s['train_seconds'] for s in made['scheme'].values()):.0f} CPU s, "
        f"{made['scheme']['with']['parameters']:,} parameters"
        for name, made in result["sets"].items()
    ]
    return [table(header, rows, left=3), "", *seconds, ""]


def key_figure(result: dict[str, Any]) -> str:
    parts = []
    for name, made in result["sets"].items():
        means = [np.mean(list(made["scheme"][s]["auilc"]["steps"]["mae"].values())) for s in SCHEME]
        parts.append(f"{name} {means[0]:.4f} and {means[1]:.4f}")
    held = len(METRICS) * len(result["sets"]) - len(misses(result))
    return (
        f"AUILC of mae with and without the scheme: {'; '.join(parts)}; better in {held} of "
        f"{len(METRICS) * len(result['sets'])} comparisons"
    )


if __name__ == "__main__":
    common.main(main)
