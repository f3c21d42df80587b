"""Known movements of faces: parts of a picture are moved by known amounts; what do measures say?

Used by face.py; run alone it prints the weights of `mertool.extract.face.measures.COUPLING`. A
picture is warped so that points of the face move by a share of the distance of the outer eye
corners, while points around them stay; the mesh is then found in the warped picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import common
import numpy as np

from mertool import manifest
from mertool.cli.common import table
from mertool.extract.face.measures import (
    ACTION_UNITS,
    COUPLING,
    action_units,
    head_frame,
    raw_action_units,
)
from mertool.extract.face.mesh import Mesh
from mertool.types import Clip

STEPS = 7
RANK = 0.95
FIFTH = 0.2  # standard deviations over the clips

Say = Callable[[str], None]
Units = Callable[[np.ndarray], np.ndarray]  # (478, 3) -> (AUs,)


class Movement(NamedTuple):
    """A movement of parts of a face.

    Attributes:
        group: Which of the groups of measures it belongs to.
        own: The measures that answer it, the leading one first.
        points: (points of the right half and the middle, share in x, share in y).
        still: Points around them that stay.
        reach: Standard deviation of the Gaussian that carries the movement on, eye distances.
        least, most: Range of the movement, eye distances.
    """

    group: str
    own: tuple[str, ...]
    points: tuple[tuple[tuple[int, ...], float, float], ...]
    still: tuple[int, ...]
    reach: float
    least: float
    most: float


_LIPS = (61, 291, 78, 308, 0, 37, 267, 39, 269, 13, 82, 312, 14, 87, 317, 17, 84, 314)
_BROWS = (70, 105, 107, 336, 334, 300)
_LOWER = (14, 87, 317, 17, 84, 314, 178, 402, 181, 405)
_UPPER = (0, 37, 267, 39, 269, 13, 82, 312, 185, 409)
MOVEMENTS: dict[str, Movement] = {
    "mouth corners up and out": Movement(
        "mouth corners",
        ("AU12_geo", "AU15_geo", "AU20_geo"),
        (((61,), -0.7, 0.7), ((291,), 0.7, 0.7)),
        (2, 0, 13),
        0.15,
        -0.06,
        0.06,
    ),
    "inner brows up": Movement(
        "inner brow",
        ("AU01_geo", "AU04_geo"),
        (((107, 55, 336, 285), 0, 1),),
        (6, 133, 362, 105, 334),
        0.12,
        -0.05,
        0.05,
    ),
    "outer brows up": Movement(
        "outer brow",
        ("AU02_geo",),
        (((70, 46, 63, 53, 300, 276, 293, 283), 0, 1),),
        (33, 263, 107, 336, 55, 285),
        0.14,
        -0.05,
        0.05,
    ),
    "jaw and lower lip down": Movement(
        "jaw and lips",
        ("AU26_geo", "AU25_geo", "AU27_geo"),
        (((*_LOWER, 200, 199, 152, 148, 377), 0, -1),),
        (*_UPPER, 61, 291, 2, 78, 308),
        0.15,
        0.0,
        0.10,
    ),
    "upper lip up": Movement(
        "jaw and lips",
        ("AU10_geo",),
        ((_UPPER, 0, 1),),
        (2, 98, 327, 61, 291, *_LOWER),
        0.08,
        0.0,
        0.06,
    ),
    "lower lip down": Movement(
        "jaw and lips",
        ("AU16_geo",),
        ((_LOWER, 0, -1),),
        (*_UPPER, 61, 291, 199, 152, 148, 377),
        0.08,
        0.0,
        0.06,
    ),
    "chin up": Movement(
        "jaw and lips",
        ("AU17_geo",),
        (((199, 200, 17, 84, 314), 0, 1),),
        (61, 291, 13, 152, 148, 377, 176, 400),
        0.10,
        0.0,
        0.06,
    ),
    "lips pressed": Movement(
        "jaw and lips",
        ("AU24_geo",),
        (((0, 37, 267), 0, -1), ((17, 84, 314), 0, 1)),
        (13, 82, 312, 14, 87, 317, 61, 291, 2, 199, 200),
        0.06,
        0.0,
        0.04,
    ),
    "lids closed": Movement(
        "lids",
        ("AU43_geo", "AU05_geo", "AU07_geo"),
        (((159, 158, 160, 386, 385, 387), 0, -1), ((145, 144, 153, 374, 373, 380), 0, 0.4)),
        (*_BROWS, 33, 133, 362, 263, 117, 346),
        0.08,
        -0.03,
        0.03,
    ),
}


def warp(image: np.ndarray, mesh: np.ndarray, movement: Movement, amount: float) -> np.ndarray:
    """Move parts of a face in a picture.

    Args:
        image: (H, W, 3) uint8.
        mesh: (478, 3) of its face, as `Mesh.faces` gives it.
        movement: Which parts.
        amount: How far, in distances of the outer eye corners.

    Returns:
        (H, W, 3) uint8.
    """
    from scipy.ndimage import map_coordinates

    height, width = image.shape[:2]
    unit = np.linalg.norm(mesh[263, :2] - mesh[33, :2])
    shift = {i: (x, y) for points, x, y in movement.points for i in points}
    points = [*shift, *(i for i in movement.still if i not in shift)]
    place = mesh[points, :2] * [1, -1]  # pixels, y down
    goal = np.array([shift.get(i, (0, 0)) for i in points]) * [1, -1] * amount * unit
    reach = movement.reach * unit

    def near(at: np.ndarray) -> np.ndarray:
        square = ((at[:, None] - place) ** 2).sum(axis=2)
        return np.exp(-square / (2 * reach**2))

    # Points that lie close together cannot be told apart exactly: hence the small ridge.
    weights = np.linalg.solve(near(place) + 1e-3 * np.eye(len(place)), goal)
    rows, columns = np.mgrid[:height, :width]
    grid = np.column_stack([columns.ravel(), rows.ravel()]).astype(float)
    low, high = place.min(axis=0) - 5 * reach, place.max(axis=0) + 5 * reach
    inside = ((grid > low) & (grid < high)).all(axis=1)  # nothing moves elsewhere
    target = grid[inside]
    source = target
    for _ in range(6):  # where did what is seen here come from? a fixed point
        source = target - near(source) @ weights
    grid[inside] = source
    return np.stack(
        [
            map_coordinates(image[..., c], grid[:, ::-1].T, order=1, mode="nearest")
            .reshape(height, width)
            .round()
            for c in range(3)
        ],
        axis=2,
    ).astype(np.uint8)


def still_mesh(image: np.ndarray) -> np.ndarray | None:
    """(478, 3) of the face of a still picture, seen four times so that tracking has settled."""
    mesh = Mesh(1)
    try:
        for i in range(4):
            found = mesh.faces(image, 0.04 * i)
    finally:
        mesh.close()
    return found[0] if found else None


def moved(image: np.ndarray, movement: Movement, steps: int) -> np.ndarray | None:
    """(steps, 478, 3) of a face moved by equally spaced amounts; None where it is lost."""
    mesh = still_mesh(image)
    if mesh is None:
        return None
    amounts = np.linspace(movement.least, movement.most, steps)
    found = [still_mesh(warp(image, mesh, movement, amount)) for amount in amounts]
    return None if any(m is None for m in found) else np.array(found)


def responses(
    stills: Sequence[np.ndarray], units: Units, steps: int, say: Say
) -> dict[str, np.ndarray]:
    """{movement: (stills, steps, AUs)}: the measures of each still under each movement."""
    result: dict[str, list[np.ndarray]] = {name: [] for name in MOVEMENTS}
    for i, image in enumerate(stills):
        say(f"move the face of still {i + 1} of {len(stills)}")
        for name, movement in MOVEMENTS.items():
            meshes = moved(image, movement, steps)
            if meshes is not None:
                result[name].append(np.array([units(head_frame(m)[0]) for m in meshes]))
    return {name: np.array(found) for name, found in result.items()}


def measure(grid: Path, crema: Path | None, say: Say = print) -> dict[str, Any]:
    """How the measures answer movements that are known.

    Args:
        grid: A folder of clips: the units are their standard deviations, their faces are moved.
        crema: A folder with CREMA-D clips of one actor, happy and angry; None = leave that out.
        say: Told about progress.

    Returns:
        For each movement the rank correlation with its own measures and the largest answer of
        measures outside of its group, in standard deviations, at the amount that changes its first
        own measure by one; answers to rotations; the two emotions.
    """
    frames = [[image for _, image in clip.frames()] for clip in manifest.read([grid]).clips]
    # Frames 20 and 60 are none of those on which measures and weights were chosen.
    stills = [images[min((20, 60)[i % 2], len(images) - 1)] for i, images in enumerate(frames)]
    say("the mesh of every frame")
    meshes = [m for images in frames for m in _meshes(images)]
    heads = [head_frame(m)[0] for m in meshes]
    sd = np.array([action_units(h) for h in heads]).std(axis=0)
    answers = responses(stills, action_units, STEPS, say)
    result: dict[str, Any] = {
        "clips": len(frames),
        "frames": len(meshes),
        "sd": dict(zip(ACTION_UNITS, sd.tolist(), strict=True)),
        "movements": {name: _judge(name, answers[name], sd) for name in MOVEMENTS},
        "rotation": _rotation(meshes[:: max(1, len(meshes) // 50)], sd),
    }
    if crema:
        result["emotions"] = _emotions(crema)
    return result


def _judge(name: str, answers: np.ndarray, sd: np.ndarray) -> dict[str, Any]:
    from scipy.stats import spearmanr

    movement, units = MOVEMENTS[name], list(ACTION_UNITS)
    amounts = np.linspace(movement.least, movement.most, STEPS)
    rest = int(np.argmin(np.abs(amounts)))
    change = ((answers - answers[:, rest : rest + 1]) / sd).mean(axis=0)  # (steps, AUs)
    lead = units.index(movement.own[0])
    # Answers are close to linear; nothing is extrapolated past the movement's range.
    scale = max(1.0, float(np.abs(change[:, lead]).max()))
    group = {unit for m in MOVEMENTS.values() if m.group == movement.group for unit in m.own}
    outside = {u: np.abs(change[:, i]).max() / scale for i, u in enumerate(units) if u not in group}
    return {
        "group": movement.group,
        "stills": len(answers),
        "eye distances": [movement.least, movement.most],
        "lead sd": float(np.abs(change[:, lead]).max()),
        "own": {
            unit: {
                "rank": abs(float(spearmanr(amounts, change[:, units.index(unit)])[0])),
                "sd": float(np.ptp(change[:, units.index(unit)])),
            }
            for unit in movement.own
        },
        "outside": {unit: float(value) for unit, value in outside.items()},
    }


def _rotation(meshes: Sequence[np.ndarray], sd: np.ndarray) -> float:
    """Largest change of a measure by an exact rotation of up to 20 degrees, deviations."""
    from scipy.spatial.transform import Rotation

    worst = 0.0
    for mesh in meshes:
        plain = action_units(head_frame(mesh)[0])
        for axis in "xyz":
            for angle in (-20, -10, 10, 20):
                turned = Rotation.from_euler(axis, angle, degrees=True).apply(mesh)
                gap = np.abs(action_units(head_frame(turned)[0]) - plain) / sd
                worst = max(worst, float(gap.max()))
    return worst


def _emotions(folder: Path) -> dict[str, dict[str, float]]:
    """{HAP or ANG: {AU12, AU04: mean}} over the clips of an actor."""
    result = {}
    for emotion in ("HAP", "ANG"):
        clips = [c for c in manifest.read([folder]).clips if f"_{emotion}_" in c.path]
        rows = [action_units(head_frame(m)[0]) for c in clips for m in _meshes(_images(c))]
        mean = np.mean(rows, axis=0)
        units = list(ACTION_UNITS)
        result[emotion] = {u: float(mean[units.index(u)]) for u in ("AU12_geo", "AU04_geo")}
    return result


def misses(result: dict[str, Any]) -> list[str]:
    """What misses the targets."""
    found = []
    for name, m in result["movements"].items():
        found += [
            f"{unit} follows {name} with a rank correlation of {own['rank']:.3f}, at least {RANK}"
            for unit, own in m["own"].items()
            if own["rank"] < RANK
        ]
        found += [
            f"{unit} answers {name} with {value:.2f} sd, below {FIFTH}"
            for unit, value in m["outside"].items()
            if value >= FIFTH
        ]
    if result["rotation"] >= FIFTH:
        found.append(f"rotations change a measure by {result['rotation']:.2f} sd, below {FIFTH}")
    if "emotions" in result:
        happy, angry = result["emotions"]["HAP"], result["emotions"]["ANG"]
        if happy["AU12_geo"] <= angry["AU12_geo"]:
            found.append("AU12_geo is not higher for happiness than for anger")
        if angry["AU04_geo"] <= happy["AU04_geo"]:
            found.append("AU04_geo is not higher for anger than for happiness")
    return found


def lines(result: dict[str, Any]) -> list[str]:
    """The table of movements."""
    rows = []
    for name, m in result["movements"].items():
        worst = max(m["outside"], key=m["outside"].get)
        own = ", ".join(f"{u[:4]} {o['rank']:.3f} ({o['sd']:.1f} sd)" for u, o in m["own"].items())
        rows.append([m["group"], name, own, f"{worst[:4]} {m['outside'][worst]:.2f} sd"])
    said = [
        f"{result['clips']} clips, one still of each; sd over all {result['frames']} frames",
        table(["group", "movement", "own: rank correlation (range)", "outside, at most"], rows),
        f"exact rotations up to 20 degrees: {result['rotation']:.1e} sd",
    ]
    if "emotions" in result:
        happy, angry = result["emotions"]["HAP"], result["emotions"]["ANG"]
        said.append(
            "CREMA-D, one actor: "
            + ", ".join(f"{u} happy {happy[u]:+.3f}, anger {angry[u]:+.3f}" for u in happy)
        )
    return [*said, ""]


def key(result: dict[str, Any]) -> str:
    """The figures in a line."""
    ranks = [o["rank"] for m in result["movements"].values() for o in m["own"].values()]
    outside = [value for m in result["movements"].values() for value in m["outside"].values()]
    within = sum(value < FIFTH for value in outside)
    return (
        f"own rank correlation at least {min(ranks):.3f}; outside the group {within} of "
        f"{len(outside)} answers below {FIFTH} sd, at most {max(outside):.2f}"
    )


def fit(stills: Sequence[np.ndarray], say: Say = print) -> dict[str, dict[str, float]]:
    """Weights of `measures.COUPLING`: the least squares answer to movements of other groups."""
    units = list(ACTION_UNITS)
    answers = responses(stills, raw_action_units, 3, say)
    slope = {}
    for name, movement in MOVEMENTS.items():
        change = (answers[name][:, -1] - answers[name][:, 0]).mean(axis=0)
        slope[name] = change / np.abs(change[units.index(movement.own[0])])
    group = {unit: m.group for m in MOVEMENTS.values() for unit in m.own}
    result = {}
    for unit, others in COUPLING.items():
        outside = [name for name, m in MOVEMENTS.items() if m.group != group[unit]]
        a = np.array([[slope[name][units.index(other)] for other in others] for name in outside])
        b = -np.array([slope[name][units.index(unit)] for name in outside])
        weights = np.linalg.lstsq(a, b, rcond=None)[0]
        result[unit] = {o: round(float(w), 2) for o, w in zip(others, weights, strict=True)}
    return result


def _images(clip: Clip) -> list[np.ndarray]:
    return [image for _, image in clip.frames()]


def _meshes(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    mesh = Mesh(1)
    try:
        found = [mesh.faces(image, 0.04 * i) for i, image in enumerate(images)]
    finally:
        mesh.close()
    return [faces[0] for faces in found if faces]


def main() -> None:
    """Print the weights, from faces that face.py does not use."""
    from skimage import data

    stills = [data.astronaut()[:256, 96:352]]
    for name, step in (("crema_d", 1), ("ravdess_video", 2)):
        for clip in manifest.read([common.folder(None, name)]).clips:
            images = _images(clip)
            # Every second pixel of the large pictures, so that faces are of GRID's size.
            stills += [np.ascontiguousarray(images[i][::step, ::step]) for i in (5, 25, 45)]
    for unit, weights in fit(stills, common.say).items():
        print(f'    "{unit}": {json.dumps(weights)},')


if __name__ == "__main__":
    main()
