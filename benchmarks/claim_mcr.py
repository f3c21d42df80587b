"""Does MCR's alpha turn to the source that says something when the other is noise?

MCR weighs the steps of a target's two sources with alpha, one softmax over both (Yang et al. 2023,
eq. 3); their Fig. 5 shows two clips in which most of it lies on the source that carries the
emotion. Here which one does is known. The data are generated: the label is the product of a sign
in text and of one in a second stream, so that two streams have to meet. Text tells its sign at
every step, the second stream at two of six, so that its steps differ in worth. Audio and vision
have the same columns and steps; one carries the second sign, the other is noise:

    audio     audio carries it in every clip
    vision    vision does: the same data with the two swapped
    mixed     one of them, drawn for each clip; nothing but its values tells which

Measured on test clips, for every layer and each target of which one source informs and the other
is noise: alpha summed over the informative source's steps, as in Fig. 5. Even shares are 0.5. In
`mixed` that target is text, and there is also the rank correlation (Spearman) over clips between
alpha on audio and whether audio carries the sign. The same models before training are shown beside:
what they show is not learnt. Alpha enters the model only as a factor on what the CMU's two
attentions exchange, and nothing in the loss asks it to find the better source.

Target: with the two swapped sets taken together, so that a liking for one stream cancels, alpha on
the informative source is above 0.5 by more than two standard errors over seeds, for text as target
and for the informative stream as target (layers averaged); in `mixed` the correlation is above 0 by
as much. Every model's test error is below half of the training mean's: there is something to find.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np

from mertool.cli.common import number, table
from mertool.store import FeatureFile, Stream, Writer
from mertool.types import Clip, Label, Rows

SOURCES = ("audio", "vision")
SETS = (*SOURCES, "mixed")
WIDTHS = {"text": 6, "audio": 5, "vision": 5}
STEPS = 6
SPEAKERS = 10
NOISE = 0.5
TOLD = 2  # steps that carry the second sign
STRENGTH = 3.0


def write(path: Path, which: str, clips: int = 400, seed: int = 0) -> dict[str, str]:
    """Write a feature file; its only label, "score", is +1 or -1.

    Column 0 of text, and of the source that carries the second sign, is the sign plus noise at
    every step; everything else is noise. All columns get mean 0 and variance 1 in training.

    Args:
        path: The file to write.
        which: One of `SETS`.
        clips: N; a multiple of 80 balances signs and sources within every speaker.
        seed: Of the noise and the order; files of one seed differ only in who carries the sign.

    Returns:
        {clip: the source that carries the second sign}.
    """
    rng = np.random.default_rng(seed)
    streams = {
        m: Stream(
            tuple(f"{m[0]}{i}" for i in range(D)),
            {"extractor": "synthetic", "config": "{}"},
            m == "text",
        )
        for m, D in WIDTHS.items()
    }
    edges = np.linspace(0, 1, STEPS + 1)
    cells = np.stack([edges[:-1], edges[1:]], 1)
    steps = np.arange(STEPS, dtype=np.int32)
    label = Label("score", "regression", (), (-1.0, 1.0))
    carriers = {}
    with Writer(path, streams, [label], {"alignment": "word"}) as writer:
        for i in rng.permutation(clips):
            speaker, kind = i % SPEAKERS, i // SPEAKERS % 8
            signs = 2 * (kind % 2) - 1, 2 * (kind // 2 % 2) - 1
            carrier = SOURCES[kind // 4] if which == "mixed" else which
            rows = {}
            for m, D in WIDTHS.items():
                values = rng.normal(size=(STEPS, D))
                if m == "text":
                    values[:, 0] = signs[0] + NOISE * values[:, 0]
                where = rng.permutation(STEPS)[:TOLD]  # drawn for every stream: see `seed`
                if m == carrier:
                    values[where, 0] = STRENGTH * signs[1] + NOISE * values[where, 0]
                rows[m] = Rows(values.astype(np.float32), cells)
            rows["text"].word = steps
            rows["text"].span = np.stack([steps, steps + 1], 1)
            split = "train" if speaker < 7 else "valid" if speaker == 7 else "test"
            name, score = f"clip{i}", float(signs[0] * signs[1])
            carriers[name] = carrier
            writer.add(
                Clip(name, speaker=f"s{speaker}", split=split, labels={"score": score}, end=1.0),
                rows,
            )
    return carriers


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--data", metavar="DIR", type=Path, help="not used: data are generated")
    parser.add_argument("--seeds", type=int, default=4, help="[default: 4]")
    common.settings_option(parser)
    args = parser.parse_args()
    result: dict[str, Any] = {"seeds": args.seeds, "settings": args.settings, "sets": {}}
    settings = [part for one in ("train.epochs=25", *args.settings) for part in ("--set", one)]
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        for which in SETS:
            common.say(which)
            features, run = Path(temporary) / f"{which}.h5", Path(temporary) / which
            carriers = write(features, which)
            trained = common.mertool(
                "train", "--plugin", "mcr", features, "-o", run, "--seeds", args.seeds,
                "--no-singles", *settings,
            )  # fmt: skip
            scored = common.mertool("evaluate", run).report
            result["sets"][which] = {
                "train_seconds": trained.wall,
                "mae": {seed: each["mae"] for seed, each in scored["seeds"].items()},
                "baseline": scored["baseline"]["mae"],
                **measure(features, run, which, carriers),
            }
    return common.finish(args, result, misses(result), lines(result), key_figure(result))


def measure(
    features: Path, run: Path, which: str, carriers: Mapping[str, str]
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Alpha of the trained and of the untrained models of a run on its test clips.

    Returns:
        {"trained" | "untrained": {target, or "spearman": {seed: a number per layer}}}.
    """
    import torch

    from mertool.evaluate.opening import open_data
    from mertool.splits import of_split
    from mertool.train.checkpoint import load
    from mertool.train.folder import models
    from mertool.train.loop import fixed_lengths, seed_everything

    found: dict[str, dict[str, dict[str, list[float]]]] = {"trained": {}, "untrained": {}}
    cpu = torch.device("cpu")
    with FeatureFile(features) as file:
        for each in models(run):
            trained = load(each.path, cpu)
            wanted = of_split(file.split(), "test", features)
            clips = open_data(file, trained, wanted, labelled=True, split="test")
            lengths = fixed_lengths(trained.spec, trained.facts)
            batch = clips.batch(torch.arange(len(clips)), cpu, lengths, record=True)
            batch.y = None
            seed_everything(each.seed)
            models_of = {
                "trained": trained.model,
                "untrained": type(trained.model)(trained.config, trained.spec).eval(),
            }
            for state, model in models_of.items():
                with torch.no_grad():
                    weights = {k: w.numpy() for k, w in model(batch).weights.items()}
                for name, values in shares(weights, which, [carriers[i] for i in clips.ids]):
                    found[state].setdefault(name, {})[str(each.seed)] = values
    return found


def shares(
    weights: Mapping[str, np.ndarray], which: str, carriers: Sequence[str]
) -> list[tuple[str, list[float]]]:
    """What the recorded weights say, a number per layer.

    Args:
        weights: {"alpha.LAYER.SOURCE+SOURCE-to-TARGET": (B, 2)} and others.
        which: The set.
        carriers: (B,) who carries the second sign.

    Returns:
        (target, mean alpha on its informative source) of every target with one such source; in
        "mixed" also ("spearman", ...).
    """
    found: dict[str, list[float]] = {}
    for name in sorted(weights, key=lambda n: n.split(".")[:2]):
        if not name.startswith("alpha."):
            continue
        joined, target = name.split(".", 2)[2].split("-to-")
        sources = joined.split("+")
        informs = np.array([[s in ("text", carrier) for s in sources] for carrier in carriers])
        if not (informs.sum(axis=1) == 1).all():
            continue  # in some clips its sources are alike
        found.setdefault(target, []).append(float(weights[name][informs].mean()))
        if which == "mixed":
            on_audio = np.array([carrier == "audio" for carrier in carriers])
            value = spearman(on_audio, weights[name][:, sources.index("audio")])
            found.setdefault("spearman", []).append(value)
    return list(found.items())


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation, ties at their mean rank; 0 where one of them is constant."""
    from scipy.stats import rankdata

    ranks = rankdata(a), rankdata(b)
    return 0.0 if min(r.std() for r in ranks) == 0 else float(np.corrcoef(*ranks)[0, 1])


def claims(result: dict[str, Any], state: str = "trained") -> dict[str, list[float]]:
    """{what is claimed to be above chance: how far above, one number per seed; layers averaged}."""
    swapped = [(w, "text") for w in SOURCES], [(w, w) for w in SOURCES]
    places = {
        "alpha of text": (swapped[0], 0.5),
        "alpha of the informative stream": (swapped[1], 0.5),
        "correlation in mixed": ([("mixed", "spearman")], 0.0),
    }
    found = {}
    for name, (where, chance) in places.items():
        made = [result["sets"][which][state].get(what) for which, what in where]
        if all(made):  # a stream that is no target (fusion.targets) has no alpha
            each = [np.mean(list(seeds.values()), axis=1) for seeds in made]
            found[name] = [float(v) for v in np.mean(each, axis=0) - chance]
    return found


def error(values: Sequence[float]) -> float:
    """Standard error of a mean; infinite for one value."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("inf")


def misses(result: dict[str, Any]) -> list[str]:
    found = [
        f"{name}: {np.mean(values):+.3f} from chance, standard error {error(values):.3f}"
        for name, values in claims(result).items()
        if not np.mean(values) > 2 * error(values)
    ]
    for which, made in result["sets"].items():
        found += [
            f"{which}, seed {seed}: mae {mae:.3f}, training mean {made['baseline']:.3f}"
            for seed, mae in made["mae"].items()
            if not mae < 0.5 * made["baseline"]
        ]
    return found


def lines(result: dict[str, Any]) -> list[str]:
    rows = []
    for which, made in result["sets"].items():
        for name, seeds in made["trained"].items():
            before = made["untrained"][name]
            layers = np.array(list(seeds.values()))
            each = zip(layers.mean(axis=0), layers.std(axis=0), strict=True)
            rows.append(
                [
                    which, "rank correlation" if name == "spearman" else f"alpha to {name}",
                    *(f"{mean:.3f} ± {std:.3f}" for mean, std in each),
                    f"{layers.mean():.3f}", f"{np.mean(list(before.values())):.3f}",
                    number(float(np.mean(list(made["mae"].values())))), number(made["baseline"]),
                ]
            )  # fmt: skip
    header = ["data", "what", *(f"layer {i + 1}" for i in range(layers.shape[1])), "mean",
              "untrained", "mae (mertool)", "training mean"]  # fmt: skip
    told = [
        f"{name}: {np.mean(values):+.3f} from chance, standard error {error(values):.3f}, "
        f"untrained {np.mean(claims(result, 'untrained')[name]):+.3f}"
        for name, values in claims(result).items()
    ]
    return [table(header, rows), "", *told, ""]


def key_figure(result: dict[str, Any]) -> str:
    made = claims(result)
    kept = [name for name, values in made.items() if np.mean(values) > 2 * error(values)]
    return (
        f"alpha on the informative source of text {0.5 + np.mean(made['alpha of text']):.3f} "
        f"(even: 0.5), correlation over clips {np.mean(made['correlation in mixed']):+.3f}: "
        f"{len(kept)} of {len(made)} claims hold"
    )


if __name__ == "__main__":
    common.main(main)
