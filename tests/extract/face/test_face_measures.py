from __future__ import annotations

import importlib
from math import hypot
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from portraits import MIDDLE, PAIRS, astronaut, mirrored
from scipy.spatial.transform import Rotation

from mertool.extract.face.measures import (
    ACTION_UNITS,
    COLUMNS,
    COUPLING,
    EYES_AND_MOUTH,
    LANDMARKS,
    action_units,
    eyes_and_mouth,
    head_frame,
    raw_action_units,
)

UNITS = list(ACTION_UNITS)
USED = [*MIDDLE, *(i for pair in PAIRS for i in pair)]

# A made-up face that looks straight ahead, in its own frame: {points: place of their mean}; left
# points and signs follow. Distances are chosen to be plain numbers.
PLACES = {
    (33,): (-0.5, 0.0, 0.0),
    (133,): (-0.2, 0.0, 0.0),
    (129,): (-0.15, -0.5, 0.1),
    (107, 55): (-0.15, 0.2, 0.0),  # 0.25 from the bridge
    (70, 46, 63, 53): (-0.5, 0.25, 0.0),
    (168,): (0.0, 0.05, 0.0),
    (6,): (0.0, 0.0, 0.0),
    (159, 158, 160): (-0.35, 0.06, 0.0),
    (145, 144, 153): (-0.35, -0.04, 0.0),
    (468,): (-0.35, 0.0, 0.0),
    (2,): (0.0, -0.6, 0.15),  # 0.25 from the upper lip
    (61,): (-0.22, -0.96, 0.0),  # 1 from the outer eye corner
    (0, 37, 267): (0.0, -0.8, 0.0),
    (13, 82, 312): (0.0, -0.88, 0.0),
    (14, 87, 317): (0.0, -0.92, 0.0),
    (17, 84, 314): (0.0, -1.02, 0.0),
    (199, 200): (0.0, -1.17, 0.0),
    (152, 148, 377): (0.0, -1.4, 0.0),
}
AT_REST = {
    "AU01_geo": 0.15,
    "AU02_geo": 0.25,
    "AU04_geo": -0.25,
    "AU05_geo": 0.06,
    "AU07_geo": -0.04,
    "AU10_geo": -0.25,
    "AU12_geo": -1.0,
    "AU15_geo": 0.96,
    "AU16_geo": -0.15,
    "AU17_geo": 0.23,
    "AU20_geo": 0.44,
    "AU24_geo": -0.08 - 0.10,
    "AU25_geo": 0.04,
    "AU26_geo": hypot(0.8, 0.15),
    "AU27_geo": 0.22,
    "AU43_geo": -0.10,
}
# What FACS says moves: {action: (points of the right half and the middle, by how much, what
# changes by how much)}; all other measures stay.
MOVES = {
    "inner brows up": ((107, 55), (0, 0.16, 0), {"AU01": 0.16, "AU04": 0.25 - hypot(0.15, 0.36)}),
    "brows down and together": ((107, 55), (0.03, -0.04, 0), {"AU01": -0.04, "AU04": 0.05}),
    "outer brows up": ((70, 46, 63, 53), (0, 0.03, 0), {"AU02": 0.03}),
    "eyes wide": ((159, 158, 160), (0, 0.02, 0), {"AU05": 0.02, "AU43": -0.02}),
    "lower lids tight": ((145, 144, 153), (0, 0.01, 0), {"AU07": 0.01, "AU43": 0.01}),
    "eyes closed": ((159, 158, 160), (0, -0.1, 0), {"AU05": -0.1, "AU43": 0.1}),
    "upper lip up": (
        (0, 37, 267, 13, 82, 312),
        (0, 0.2, 0),
        {"AU10": 0.10, "AU25": 0.2, "AU27": 0.2},
    ),
    "lip corners up": (
        (61,),
        (-0.28, 0.46, 0),  # right below the eye corner
        {"AU12": 0.5, "AU15": -0.46, "AU20": 0.56},
    ),
    "lip corners down": (
        (61,),
        (0, -0.12, 0),
        {"AU12": 1 - hypot(0.28, 1.08), "AU15": 0.12},
    ),
    "lip corners apart": ((61,), (-0.05, 0, 0), {"AU12": 1 - hypot(0.23, 0.96), "AU20": 0.10}),
    "lower lip down": (
        (17, 84, 314, 14, 87, 317),
        (0, -0.05, 0),
        {"AU16": 0.05, "AU25": 0.05, "AU27": 0.05},
    ),
    "chin up": ((199, 200), (0, 0.03, 0), {"AU16": 0.03, "AU17": 0.03}),
    "lips pressed": (
        (0, 37, 267),
        (0, -0.03, 0),
        {"AU10": 0.25 - hypot(0.23, 0.15), "AU24": 0.03, "AU27": -0.03},
    ),
    "lips rolled in": (
        (17, 84, 314),
        (0, 0.04, 0),
        {"AU16": -0.04, "AU24": 0.04, "AU27": -0.04},
    ),
    "jaw down": (
        (14, 87, 317, 17, 84, 314, 199, 200, 152, 148, 377),
        (0, -0.3, 0),
        {"AU25": 0.3, "AU27": 0.3, "AU26": hypot(1.1, 0.15) - hypot(0.8, 0.15)},
    ),
    "chin forward": (
        (152, 148, 377),
        (0, 0, 0.15),
        {"AU26": 0.8 - hypot(0.8, 0.15), "AU17": hypot(0.23, 0.15) - 0.23},
    ),
}


def made_up() -> np.ndarray:
    """(478, 3); points that nothing is said of lie anywhere."""
    rng = np.random.default_rng(0)
    mesh = rng.normal(size=(478, 3))
    left, right = dict(PAIRS), {b: a for a, b in PAIRS}
    for points, place in PLACES.items():
        # Around their mean, each elsewhere, so that each counts; what is in the middle, symmetric.
        spread: dict[int, np.ndarray] = {}
        for i in points:
            spread[i] = rng.normal(0, 0.02, 3) * [i not in MIDDLE, 1, 1]
            if right.get(i) in points:
                spread[i] = spread[right[i]] * [-1, 1, 1]
        around = np.array(list(spread.values()))
        mesh[list(points)] = place + around - around.mean(axis=0)
        for i in set(points) & set(left):
            mesh[left[i]] = mesh[i] * [-1, 1, 1]
    # From the nose's base to the forehead, the canonical face leans back by 8.66 degrees.
    lean = np.radians(8.66)
    mesh[10] = mesh[2] + 2 * np.array([0, np.cos(lean), -np.sin(lean)])
    mesh[[78, 81, 178]] = (-0.2, -0.9, 0), (-0.1, -0.89, 0), (-0.1, -0.92, 0)
    mesh[[308, 311, 402]] = (0.2, -0.9, 0), (0.1, -0.89, 0), (0.1, -0.92, 0)
    return mesh


def shifted(mesh: np.ndarray, points: tuple[int, ...], by: tuple[float, ...]) -> np.ndarray:
    """These points moved, and those that mirror them moved as in a mirror."""
    result, left = mesh.copy(), dict(PAIRS)
    result[list(points)] += by
    others = [left[i] for i in points if i in left and left[i] not in points]
    result[others] += np.array(by) * [-1, 1, 1]
    return result


def turn(angles: tuple[float, float, float]) -> Rotation:
    """By pitch, yaw, roll in degrees: Rz(roll) Ry(yaw) Rx(pitch)."""
    pitch, yaw, roll = angles
    return Rotation.from_euler("ZYX", [roll, yaw, pitch], degrees=True)


def all_measures(mesh: np.ndarray) -> np.ndarray:
    head, _ = head_frame(mesh)
    return np.concatenate([action_units(head), eyes_and_mouth(head)])


def changed(change: dict[str, float]) -> np.ndarray:
    """The measures at rest, and what was added to them."""
    return np.array(list(AT_REST.values())) + [
        change.get(unit.removesuffix("_geo"), 0.0) for unit in UNITS
    ]


def test_columns() -> None:
    assert (*AT_REST, "pitch", "yaw", "roll", *EYES_AND_MOUTH) == COLUMNS
    assert len(set(COLUMNS)) == len(COLUMNS) == 24
    assert set(COUPLING) <= set(UNITS) and all(
        set(other) < set(UNITS) for other in COUPLING.values()
    )


# Action units


def test_a_face_at_rest() -> None:
    np.testing.assert_allclose(raw_action_units(made_up()), list(AT_REST.values()), atol=1e-12)


@pytest.mark.parametrize("move", MOVES)
def test_action_units_by_hand(move: str) -> None:
    points, by, change = MOVES[move]
    raw = raw_action_units(shifted(made_up(), points, by))
    np.testing.assert_allclose(raw, changed(change), atol=1e-12)


def test_every_action_unit_is_moved_by_hand() -> None:
    assert {f"{unit}_geo" for _, _, change in MOVES.values() for unit in change} == set(UNITS)


@pytest.mark.parametrize("side", [0, 1], ids=["right", "left"])
@pytest.mark.parametrize(
    "move", ["inner brows up", "outer brows up", "eyes wide", "eyes closed", "lip corners down"]
)
def test_half_a_face_counts_half(move: str, side: int) -> None:
    points, by, change = MOVES[move]
    mesh, moved = made_up(), shifted(made_up(), points, by)
    other = [pair[1 - side] for pair in PAIRS]
    moved[other] = mesh[other]
    half = {unit: value / 2 for unit, value in change.items()}
    if move == "lip corners down":
        half["AU20"] = hypot(0.44, 0.12) - 0.44
    np.testing.assert_allclose(raw_action_units(moved), changed(half), atol=1e-12)


def test_each_point_of_a_group_counts_alike() -> None:
    """Its mean is what moves: a point of n moves it by one n-th."""
    mesh = made_up()
    for points, unit in (((70, 46, 63, 53), "AU02_geo"), ((107, 55), "AU01_geo")):
        for i in points:
            moved = mesh.copy()
            moved[i, 1] += 0.04
            change = (raw_action_units(moved) - raw_action_units(mesh))[UNITS.index(unit)]
            assert change == pytest.approx(0.04 / len(points) / 2, abs=1e-12)


def test_units_are_distances_of_the_outer_eye_corners() -> None:
    mesh = made_up() * 80 + [300, -200, 7]  # pixels
    head, _ = head_frame(shifted(mesh, (107, 55), (0, 6.0, 0)))
    raw = dict(zip(UNITS, raw_action_units(head), strict=True))
    assert raw["AU01_geo"] == pytest.approx(0.15 + 6 / 80, abs=1e-12)


def test_coupling_is_taken_off() -> None:
    head = made_up() + np.random.default_rng(1).normal(0, 0.05, (478, 3))
    raw = dict(zip(UNITS, raw_action_units(head), strict=True))
    expected = {
        unit: raw[unit] + sum(w * raw[other] for other, w in COUPLING.get(unit, {}).items())
        for unit in UNITS
    }
    np.testing.assert_allclose(action_units(head), list(expected.values()), atol=1e-12)


# Eyes and mouth


def test_eyes_and_mouth_by_hand() -> None:
    head = made_up()  # its right eye is 0.3 wide, its lips 0.4
    head[362] = 0.26, 0, 0  # its left one 0.24
    head[473] = 0.38, 0, 0  # in the middle
    for upper, lower, height in (
        (160, 144, 0.09), (158, 153, 0.15), (387, 373, 0.06), (385, 380, 0.06),
        (81, 178, 0.03), (13, 14, 0.05), (311, 402, 0.04),
    ):  # fmt: skip
        head[lower] = head[upper] - [0, height, 0]
    head[468] += [0.06, 0.03, 0]
    head[473] += [0.03, 0.012, 0]
    found = dict(zip(EYES_AND_MOUTH, eyes_and_mouth(head), strict=True))
    # (|p2 - p6| + |p3 - p5|) / (2 |p1 - p4|)
    assert found["ear_right"] == pytest.approx((0.09 + 0.15) / (2 * 0.3), abs=1e-12)
    assert found["ear_left"] == pytest.approx((0.06 + 0.06) / (2 * 0.24), abs=1e-12)
    assert found["mar"] == pytest.approx((0.03 + 0.05 + 0.04) / (3 * 0.4), abs=1e-12)
    assert found["gaze_x"] == pytest.approx((0.06 / 0.3 + 0.03 / 0.24) / 2, abs=1e-12)
    assert found["gaze_y"] == pytest.approx((0.03 / 0.3 + 0.012 / 0.24) / 2, abs=1e-12)


def test_gaze_straight_ahead_is_0() -> None:
    np.testing.assert_allclose(eyes_and_mouth(made_up())[:2], 0, atol=1e-12)


# The head's frame


def test_a_straight_face_has_no_pose() -> None:
    head, pose = head_frame(made_up() * 40 + [7, 8, 9])
    np.testing.assert_allclose(pose, 0, atol=1e-9)
    np.testing.assert_allclose(head[USED], made_up()[USED], atol=1e-12)


@pytest.mark.parametrize(
    "angles", [(20, 0, 0), (0, 20, 0), (0, 0, 20), (-15, 40, 70), (50, -60, 5)]
)
def test_move_turn_and_scale_are_taken_off(angles: tuple[float, float, float]) -> None:
    mesh = made_up()
    mesh[468] += 0.03  # looks aside
    turned = turn(angles).apply(mesh) * 37.5 + [100, -80, 20]
    head, pose = head_frame(turned)
    np.testing.assert_allclose(pose, angles, atol=1e-9)
    np.testing.assert_allclose(head, mesh, atol=1e-9)
    np.testing.assert_allclose(all_measures(turned), all_measures(mesh), atol=1e-9)
    assert np.abs(all_measures(mesh)).min() > 0.001


@pytest.mark.parametrize(
    ("angles", "nose", "crown"),
    [
        ((30, 0, 0), (0, -1), (0, 1)),  # pitch > 0: the nose goes down
        ((0, 30, 0), (1, 0), (0, 1)),  # yaw > 0: the nose goes to the picture's right
        ((0, 0, 30), (0, 0), (-1, 1)),  # roll > 0: the crown goes to the picture's left
    ],
)
def test_signs_of_pose(
    angles: tuple[float, float, float], nose: tuple[int, int], crown: tuple[int, int]
) -> None:
    """The convention in words, on the head's axes as the camera sees them."""
    axes = turn(angles).as_matrix()
    np.testing.assert_array_equal(np.sign(np.round(axes[:2, 2], 9)), nose)
    np.testing.assert_array_equal(np.sign(np.round(axes[:2, 1], 9)), crown)
    _, pose = head_frame(made_up() @ axes.T)
    np.testing.assert_allclose(pose, angles, atol=1e-9)


def test_a_mirrored_face() -> None:
    """Same measures, the other eye's opening, pose and gaze to the other side."""
    rng = np.random.default_rng(3)
    # No point lies as the one that mirrors it.
    mesh = turn((5, 12, -8)).apply(made_up() + rng.normal(0, 0.03, (478, 3)))
    there, pose = head_frame(mesh)
    back, back_pose = head_frame(mirrored(mesh))
    np.testing.assert_allclose(back_pose, pose * [1, -1, -1], atol=1e-9)
    np.testing.assert_allclose(back[USED], mirrored(there)[USED], atol=1e-9)
    np.testing.assert_allclose(action_units(back), action_units(there), atol=1e-9)
    gaze_x, gaze_y, right, left, mouth = eyes_and_mouth(there)
    np.testing.assert_allclose(
        eyes_and_mouth(back), [-gaze_x, gaze_y, left, right, mouth], atol=1e-9
    )
    assert abs(right - left) > 0.01 and abs(gaze_x) > 0.001


# On a real face


@pytest.fixture(scope="module")
def known_faces() -> ModuleType:
    """benchmarks/known_faces.py, which moves parts of a face in a picture."""
    pytest.importorskip("mediapipe", reason="needs the extra: offline")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parents[3] / "benchmarks"))
        return importlib.import_module("known_faces")


def test_landmarks_lie_on_the_contours_they_are_named_for() -> None:
    mediapipe = pytest.importorskip("mediapipe", reason="needs the extra: offline")
    solution = mediapipe.solutions.face_mesh

    def points(*contours: frozenset) -> set[int]:
        return {i for contour in contours for edge in contour for i in edge}

    assert len(LANDMARKS) == len(set(LANDMARKS)) == 68
    assert points(solution.FACEMESH_FACE_OVAL) >= set(LANDMARKS[:17])
    assert points(solution.FACEMESH_RIGHT_EYEBROW) >= set(LANDMARKS[17:22])
    assert points(solution.FACEMESH_LEFT_EYEBROW) >= set(LANDMARKS[22:27])
    assert points(solution.FACEMESH_NOSE) >= set(LANDMARKS[27:31])
    assert points(solution.FACEMESH_RIGHT_EYE) >= set(LANDMARKS[36:42])
    assert points(solution.FACEMESH_LEFT_EYE) >= set(LANDMARKS[42:48])
    assert points(solution.FACEMESH_LIPS) >= set(LANDMARKS[48:])


def test_pairs_are_what_a_mirror_makes_of_the_mesh(known_faces: ModuleType) -> None:
    """The point that mirrors another is where that is in the mirrored picture."""
    image = astronaut()
    there, _ = head_frame(known_faces.still_mesh(image))
    back, _ = head_frame(known_faces.still_mesh(np.ascontiguousarray(image[:, ::-1])))
    for right, left in (*PAIRS, *((i, i) for i in MIDDLE)):
        for a, b in ((right, left), (left, right)):
            gaps = np.linalg.norm(back - there[a] * [-1, 1, 1], axis=1)
            # Two points of the mesh may stand close together, on the lips.
            assert gaps[b] < gaps.min() + 0.03, (a, b, gaps.argmin())


@pytest.mark.parametrize(
    ("movement", "rises", "falls"),
    [
        ("mouth corners up and out", ["AU12_geo", "AU20_geo"], ["AU15_geo"]),
        ("inner brows up", ["AU01_geo"], ["AU04_geo"]),
        ("outer brows up", ["AU02_geo"], []),
        ("jaw and lower lip down", ["AU25_geo", "AU26_geo", "AU27_geo", "mar"], []),
        ("lids closed", ["AU43_geo", "AU07_geo"], ["AU05_geo", "ear_right", "ear_left"]),
        ("irises to the person's left", ["gaze_x"], []),
        ("irises up", ["gaze_y"], []),
    ],
)
def test_a_real_face_moved(
    known_faces: ModuleType, movement: str, rises: list[str], falls: list[str]
) -> None:
    """One of each of five groups, and the irises; more faces: benchmarks/face.py."""
    if movement in known_faces.MOVEMENTS:
        how = known_faces.MOVEMENTS[movement]
        how = how._replace(least=max(how.least, -0.03), most=min(how.most, 0.06))
    else:
        irises = tuple(range(468, 478))
        shift = (1, 0) if movement.endswith("left") else (0, 1)
        still = (33, 133, 362, 263)
        how = known_faces.Movement("gaze", (), ((irises, *shift),), still, 0.05, -0.03, 0.03)
    meshes = known_faces.moved(astronaut(), how, 4)
    assert meshes is not None
    names = [*UNITS, *EYES_AND_MOUTH]
    change = np.diff([all_measures(mesh) for mesh in meshes], axis=0)
    for name in names:
        if name in rises:
            assert (change[:, names.index(name)] > 0).all(), name
        if name in falls:
            assert (change[:, names.index(name)] < 0).all(), name
