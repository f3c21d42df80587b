"""What a face does, measured on the points of its mesh: head pose, action units, eyes and mouth.

The action units are those of FACS (Ekman, Friesen, Hager 2002) as far as their definition says how
visible points move. A measure is a distance between points, or a height of one above another, in
the head's own frame and in units of the distance of the outer eye corners; more of it is more of
the action. They are named `AU01_geo` and so on, since nobody trained them on FACS coders: they are
no intensities, and a face at rest is not at 0.
"""

from __future__ import annotations

import numpy as np

# The vertices of MediaPipe's mesh that stand where the 68 points of iBUG 300-W do, in their order
# (Sagonas et al. 2013). "Right" and "left" are the person's own: right is left in the picture.
LANDMARKS = (
    # 0-16 jaw line, right ear to left ear, 8 = chin
    *(127, 234, 93, 132, 58, 172, 150, 176, 152, 400, 379, 397, 288, 361, 323, 454, 356),
    # 17-21 right brow, outer to inner end; 22-26 left brow, inner to outer end
    *(70, 63, 105, 66, 107),
    *(336, 296, 334, 293, 300),
    # 27-30 bridge of the nose down to its tip; 31-35 under the nose, right to left
    *(168, 197, 5, 4),
    *(98, 97, 2, 326, 327),
    # 36-41 right eye: outer corner, upper lid, inner corner, lower lid back; 42-47 left eye: inner
    # corner, upper lid, outer corner, lower lid back
    *(33, 160, 158, 133, 153, 144),
    *(362, 385, 387, 263, 373, 380),
    # 48-59 outer lips: right corner, upper lip, 54 = left corner, lower lip back
    *(61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),
    # 60-67 inner lips, in the same way
    *(78, 81, 13, 311, 308, 402, 14, 178),
)

# The head's frame is built on points that speech and expression move least.
_ACROSS = ((33, 263), (133, 362), (129, 358))  # eye corners, wings of the nose: (right, left)
_FOREHEAD, _NOSE_BASE = 10, 2
# In MediaPipe's canonical face, which looks straight ahead, the line from the nose's base to the
# forehead leans back by this angle.
_LEAN = np.radians(8.66)
_EYES = (33, 133, 362, 263)
_OUTER_EYES = (33, 263)

Points = tuple[int, ...]
# Groups of points on the right half or the middle of the face, each standing for its mean; those on
# the left half follow from `_MIRROR`.
INNER_BROW: Points = (107, 55)
OUTER_BROW: Points = (70, 46, 63, 53)
NOSE_ROOT: Points = (168,)
BRIDGE: Points = (6,)
OUTER_EYE: Points = (33,)
EYE: Points = (33, 133)
UPPER_LID: Points = (159, 158, 160)
LOWER_LID: Points = (145, 144, 153)
NOSE_BASE: Points = (2,)
CORNER: Points = (61,)
CORNER_LEFT: Points = (291,)
UPPER_LIP: Points = (0, 37, 267)  # its upper edge
UPPER_INNER: Points = (13, 82, 312)
LOWER_INNER: Points = (14, 87, 317)
LOWER_LIP: Points = (17, 84, 314)  # its lower edge
BOSS: Points = (199, 200)  # of the chin
CHIN: Points = (152, 148, 377)
_MIRROR = {
    107: 336, 55: 285, 70: 300, 46: 276, 63: 293, 53: 283, 133: 362, 33: 263,
    159: 386, 158: 385, 160: 387, 145: 374, 144: 373, 153: 380,
    61: 291, 291: 61,
}  # fmt: skip

# (sign, "gap" = distance of two points | "rise" = height of the first above the second)
ACTION_UNITS: dict[str, tuple[tuple[int, str, Points, Points], ...]] = {
    "AU01_geo": ((1, "rise", INNER_BROW, NOSE_ROOT),),  # inner brow raiser
    "AU02_geo": ((1, "rise", OUTER_BROW, OUTER_EYE),),  # outer brow raiser
    "AU04_geo": ((-1, "gap", INNER_BROW, BRIDGE),),  # brow lowerer: down and together
    "AU05_geo": ((1, "rise", UPPER_LID, EYE),),  # upper lid raiser
    "AU07_geo": ((1, "rise", LOWER_LID, EYE),),  # lid tightener
    "AU10_geo": ((-1, "gap", UPPER_LIP, NOSE_BASE),),  # upper lip raiser
    "AU12_geo": ((-1, "gap", CORNER, OUTER_EYE),),  # lip corner puller: up and out
    "AU15_geo": ((-1, "rise", CORNER, EYE),),  # lip corner depressor
    "AU16_geo": ((-1, "gap", LOWER_LIP, BOSS),),  # lower lip depressor
    "AU17_geo": ((1, "gap", BOSS, CHIN),),  # chin raiser
    "AU20_geo": ((1, "gap", CORNER, CORNER_LEFT),),  # lip stretcher
    # lip presser: little red is left of either lip
    "AU24_geo": ((-1, "gap", UPPER_INNER, UPPER_LIP), (-1, "gap", LOWER_INNER, LOWER_LIP)),
    "AU25_geo": ((1, "gap", UPPER_INNER, LOWER_INNER),),  # lips part
    "AU26_geo": ((1, "gap", CHIN, NOSE_BASE),),  # jaw drop
    "AU27_geo": ((1, "gap", UPPER_LIP, LOWER_LIP),),  # mouth stretch
    "AU43_geo": ((-1, "gap", UPPER_LID, LOWER_LID),),  # eyes closed
}
POSE = ("pitch", "yaw", "roll")
EYES_AND_MOUTH = ("gaze_x", "gaze_y", "ear_right", "ear_left", "mar")
COLUMNS = (*ACTION_UNITS, *POSE, *EYES_AND_MOUTH)

# The mesh has learnt how faces look: where one part moves, it moves its neighbours a little too.
# Where that is much, it is taken off: measure += sum of weight * other measure. The weights come
# from pictures of faces with parts moved by known amounts (`python benchmarks/known_faces.py`);
# `benchmarks/face.py` tries them on other faces.
COUPLING: dict[str, dict[str, float]] = {
    "AU04_geo": {"AU02_geo": 0.09},
    "AU07_geo": {"AU02_geo": 0.29, "AU01_geo": 0.08, "AU12_geo": -0.01},
    "AU10_geo": {"AU12_geo": -0.14, "AU01_geo": 0.09},
    "AU12_geo": {"AU02_geo": -0.34},
    "AU15_geo": {"AU02_geo": 0.44},
    "AU17_geo": {"AU12_geo": -0.04},
    "AU20_geo": {"AU10_geo": 0.58, "AU16_geo": 0.01},
    "AU24_geo": {"AU12_geo": 0.09},
    "AU43_geo": {"AU02_geo": 0.38},
}


def _sides(points: Points) -> tuple[Points, Points]:
    return points, tuple(_MIRROR.get(i, i) for i in points)


def _table() -> tuple[np.ndarray, list[tuple[int, int, float, bool]]]:
    """(P, 478) means of points, and a (first, second, weight, rise) for each term of a measure."""
    groups: dict[Points, int] = {}
    terms = []
    for k, parts in enumerate(ACTION_UNITS.values()):
        for sign, kind, a, b in parts:
            for first, second in zip(_sides(a), _sides(b), strict=True):
                places = [groups.setdefault(g, len(groups)) for g in (first, second)]
                terms.append((k, *places, 0.5 * sign, kind == "rise"))
    means = np.zeros((len(groups), 478))
    for points, row in groups.items():
        means[row, list(points)] = 1 / len(points)
    return means, terms


_MEANS, _TERMS = _table()
_AU, _FIRST, _SECOND = (np.array([t[i] for t in _TERMS]) for i in range(3))
_SIGN = np.array([t[3] for t in _TERMS])
_RISE = np.array([t[4] for t in _TERMS])
_SUM = (np.arange(len(ACTION_UNITS))[:, None] == _AU) * _SIGN  # (AUs, terms)


def _coupling() -> np.ndarray:
    """(16, 16): what `COUPLING` makes of plain measures."""
    names = list(ACTION_UNITS)
    matrix = np.eye(len(names))
    for name, weights in COUPLING.items():
        for other, weight in weights.items():
            matrix[names.index(name), names.index(other)] += weight
    return matrix


_DECOUPLED = _coupling()


def head_frame(mesh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take position, size and pose off a mesh.

    Args:
        mesh: (468 or 478, 3) points, x to the picture's right, y up, z to the viewer, one unit for
            all.

    Returns:
        The points in the head's own frame: its origin is the mean of the four eye corners, its unit
        the distance of the two outer ones, x points to the person's left, y up, z out of the face.
        And (3,) pitch, yaw, roll in degrees: the head's frame is the camera's turned by
        R = Rz(roll) Ry(yaw) Rx(pitch), each counter-clockwise seen against its axis.
    """
    x = sum(mesh[left] - mesh[right] for right, left in _ACROSS)
    x = x / np.linalg.norm(x)
    up = mesh[_FOREHEAD] - mesh[_NOSE_BASE]
    up = up - x * (x @ up)
    up = up / np.linalg.norm(up)
    out = np.cross(x, up)
    # Turned about x, so that the canonical face comes out straight.
    y = np.cos(_LEAN) * up + np.sin(_LEAN) * out
    z = np.cos(_LEAN) * out - np.sin(_LEAN) * up
    axes = np.stack([x, y, z], axis=1)  # R: its columns are the head's axes seen by the camera
    pose = np.degrees(
        [
            np.arctan2(axes[2, 1], axes[2, 2]),
            np.arcsin(np.clip(-axes[2, 0], -1, 1)),
            np.arctan2(axes[1, 0], axes[0, 0]),
        ]
    )
    right, left = _OUTER_EYES
    unit = np.linalg.norm(mesh[left] - mesh[right])
    return (mesh - mesh[list(_EYES)].mean(axis=0)) @ axes / unit, pose


def action_units(head: np.ndarray) -> np.ndarray:
    """The measures named in `ACTION_UNITS`.

    Args:
        head: (478, 3) points in the head's frame.

    Returns:
        (16,) in distances of the outer eye corners, mean of the face's two halves.
    """
    return _DECOUPLED @ raw_action_units(head)


def raw_action_units(head: np.ndarray) -> np.ndarray:
    """The same without `COUPLING` taken off: plain distances and heights."""
    points = _MEANS @ head
    difference = points[_FIRST] - points[_SECOND]
    values = np.where(_RISE, difference[:, 1], np.sqrt((difference**2).sum(axis=1)))
    return _SUM @ values


def eyes_and_mouth(head: np.ndarray) -> np.ndarray:
    """Gaze and aspect ratios.

    Args:
        head: (478, 3) points in the head's frame.

    Returns:
        (5,): gaze_x, gaze_y = how far the irises stand from the middle between the eye's corners,
        to the person's left and up, in widths of the eye, mean of both eyes; ear_right and ear_left
        = height over width of each eye's opening (Soukupova, Cech 2016, eq. 1); mar = the same of
        the inner lips.
    """
    gaze = np.zeros(2)
    for iris, a, b in ((468, 33, 133), (473, 362, 263)):
        middle = (head[a] + head[b]) / 2
        gaze += (head[iris] - middle)[:2] / np.linalg.norm(head[b] - head[a]) / 2
    right = _opening(head, (160, 158), (144, 153), 33, 133)
    left = _opening(head, (385, 387), (380, 373), 362, 263)
    mouth = _opening(head, (81, 13, 311), (178, 14, 402), 78, 308)
    return np.array([*gaze, right, left, mouth])


def _opening(head: np.ndarray, upper: Points, lower: Points, a: int, b: int) -> float:
    heights = np.linalg.norm(head[list(upper)] - head[list(lower)], axis=1)
    return float(heights.mean() / np.linalg.norm(head[b] - head[a]))
