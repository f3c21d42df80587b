"""A photograph that talks, smiles and frowns: the picture of the demo clips.

The photograph is NASA's of Eileen Collins, public domain, which comes with scikit-image. A smooth
warp moves some eighty points of its face; another picture would need its own points.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

SIZE = 224  # pixels, width and height of the frames

# The face in the photograph (512 x 512), which smiles; `rest` takes the smile back, so that a point
# goes to (x, y) + rest + smile * smiling + amount * opening, in pixels.
POINTS = np.array([
    # x, y, rest x, y, smiling x, y, opening x, y
    # corners of the mouth, chin, cheeks
    [201.8, 139.5, 2.5, 5.0, -4.0, -6.5, 0.5, 0.5], [245.9, 142.2, -2.5, 4.0, 4.0, -6.5, -0.5, 0.5],
    [221.3, 175.5, 0, -1.5, 0, 0, 0, 6.0], [203.0, 170.0, 0, -1.0, 0, 0, 0, 3.5],
    [240.0, 171.0, 0, -1.0, 0, 0, 0, 3.5],
    [195.3, 126.0, 0, 1.5, -0.5, -1.5, 0, 0], [253.2, 129.2, 0, 1.5, 0.5, -1.5, 0, 0],
    # brows; a negative face draws the inner ends down and together
    [187.6, 91.5, 0, 0, 0, 0.5, 0, 0], [198.0, 86.7, 0, 0, 0, -0.8, 0, 0],
    [216.2, 89.4, 0, 0, -1.5, -2.2, 0, 0], [236.9, 90.5, 0, 0, 1.5, -2.2, 0, 0],
    [255.0, 89.8, 0, 0, 0, -0.8, 0, 0], [264.7, 95.7, 0, 0, 0, 0.5, 0, 0],
])  # fmt: skip
# The mouth between its corners: x, then y of the upper lip's upper and lower edge, of the arc
# between teeth and lower lip, and of the lower lip's lower edge.
MOUTH = np.array([
    [209.0, 213.3, 218.0, 223.1, 228.0, 233.5, 238.0],
    [138.5, 138.8, 139.3, 140.2, 139.9, 140.0, 140.6],
    [140.7, 141.4, 142.3, 143.0, 142.8, 142.5, 142.4],
    [144.6, 146.7, 148.1, 148.8, 148.6, 147.8, 146.0],
    [149.3, 152.2, 154.2, 154.9, 154.6, 152.8, 150.2],
])  # fmt: skip
LIP, GAP = np.polyfit(MOUTH[0], MOUTH[2], 4), np.polyfit(MOUTH[0], MOUTH[3], 4)
# What stays: eyes, nose, sides of the face, forehead, neck, and a wide ring around the head.
FIXED = np.array([
    (194.6, 100.9), (202.8, 97.8), (204.4, 104.2), (213.8, 103.6), (237.4, 104.8), (248.9, 100.2),
    (246.7, 106.2), (256.7, 104.1), (224.1, 131.2), (225.9, 101.0), (209.1, 125.1), (239.6, 126.8),
    (179.0, 111.1), (270.9, 116.3), (184, 145), (262, 150), (227.5, 72.4), (200, 78), (253, 80),
    (222, 196), (192, 190), (252, 190), (110, 0), (225, 0), (340, 0), (110, 110), (340, 110),
    (110, 225), (225, 225), (340, 225),
])  # fmt: skip
NOSE = np.array([224.1, 131.2])
CORNER, SPAN = np.array([121.0, 2.0]), 206.0  # the crop of head and shoulders: left and top, width


def mouth(smile: float, amount: float) -> tuple[np.ndarray, np.ndarray]:
    """Place lips and teeth; arguments as in `warp`.

    Returns:
        (P, 2) where the points are in the photograph, (P, 2) where they are drawn.
    """
    x, upper, lip, gap, lower = MOUTH
    side = (x - 223.5) / 22  # -1 left corner ... 1 right corner
    teeth, lower_lip = gap - 1.2, gap + 1.2
    home = np.stack([upper, lip, teeth, lower_lip, lower])
    # Closed, the edges meet in one line, as straight as the smile lets it be.
    line = 145 + 0.8 * side - (0.6 + 5.9 * side**2) * smile
    drawn = line + np.stack([upper - lip - 1, 0 * x - 1, 0 * x, 0 * x + 1, lower - gap])
    drawn += np.outer((-0.6, -0.6, 2.2, 7.5, 7.2), 1 - side**2) * amount
    wide = x + side * (-2.5 + 4 * smile - 0.5 * amount)
    pair = (np.stack(np.broadcast_arrays(a, b), -1) for a, b in ((x, home), (wide, drawn)))
    return tuple(points.reshape(-1, 2) for points in pair)


def warp(at: np.ndarray, smile: float, amount: float) -> np.ndarray:
    """Where in the photograph the points of a drawn face come from.

    Thin-plate splines (Bookstein 1989) carry the drawn control points back to the photograph's;
    they are smooth, so that nothing tears as long as control points keep their order.

    Args:
        at: (..., 2) x, y in the drawn face.
        smile: -1 frown ... 1 smile.
        amount: 0 lips closed ... 1 mouth open.

    Returns:
        (..., 2) x, y in the photograph.
    """
    from scipy.interpolate import RBFInterpolator

    home, rest, smiling, opening = np.split(POINTS, 4, axis=1)
    lips, drawn_lips = mouth(smile, amount)
    drawn = np.vstack([home + rest + smile * smiling + amount * opening, drawn_lips, FIXED])
    home = np.vstack([home, lips, FIXED])
    back = RBFInterpolator(drawn, home - drawn, kernel="thin_plate_spline")
    return at + back(at.reshape(-1, 2)).reshape(at.shape)


def shade(x: np.ndarray, y: np.ndarray, amount: float) -> np.ndarray:
    """How much to darken each point of the photograph: inside the mouth, and teeth behind lips.

    Returns:
        (..., 3), 0 = leave, 1 = black.
    """
    from scipy.special import expit

    across = np.exp(-(((x - 223.5) / 18) ** 8))
    lip, gap = np.polyval(LIP, x), np.polyval(GAP, x)
    # The thin arc below the teeth is what the open mouth stretches into its dark inside.
    inside = across * np.exp(-(((y - gap) / 1.2) ** 4))
    teeth = across * expit(3 * (y - lip)) * expit(3 * (gap - y)) * (1 - amount)
    depth = (0.6 + 0.4 * amount) * np.maximum(inside, teeth)
    return depth[..., None] * (0.65, 0.8, 0.8)


def draw(
    smile: float,
    openings: np.ndarray,
    fps: float,
    tint: tuple[float, float, float],
    rng: np.random.Generator,
) -> Iterator[np.ndarray]:
    """Draw the frames of a talking face.

    Args:
        smile: -1 frown ... 1 smile.
        openings: (T,) how far the mouth is open, in [0, 1].
        fps: Frames per second.
        tint: Gains of red, green, blue.
        rng: Decides the slow sway of head, smile and light.

    Yields:
        (SIZE, SIZE, 3) uint8 RGB, T of them.
    """
    from scipy.ndimage import map_coordinates
    from skimage.data import astronaut

    photo = astronaut().astype(np.float32)
    phase, pace = rng.uniform(0, 2 * np.pi, 6), rng.uniform(0.15, 0.45, 6)  # pace in Hz
    pixels = np.stack(np.mgrid[:SIZE, :SIZE][::-1], axis=-1) * (SPAN / SIZE) + CORNER
    for i, amount in enumerate(openings):
        sway = np.sin(2 * np.pi * pace * i / fps + phase)
        # Slight head motion: the picture turns, grows and shifts about the nose.
        angle, scale = 0.025 * sway[1], 1 + 0.015 * sway[2]
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
        at = (pixels - NOSE) @ turn + NOSE + 2 * sway[3:5]
        x, y = np.moveaxis(warp(at, smile + 0.1 * sway[0], amount), -1, 0)
        frame = [map_coordinates(photo[..., k], [y, x], order=1, mode="nearest") for k in range(3)]
        frame = np.stack(frame, axis=-1) * (1 - shade(x, y, amount))
        light = np.array(tint) * (1 + 0.06 * sway[5])
        yield (frame * light).clip(0, 255).round().astype(np.uint8)
