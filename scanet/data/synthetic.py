"""A small data set of drawn people, written to disk in MPII's own formats.

Each photograph holds one annotated person, posed from a 3-D skeleton and drawn from textured capsules and
ellipsoids, before a textured background. Two dials from 0 to 1 set the difficulty: `part_scale`, the strength of
the perspective, and `clutter`, how many limb-like distractors and other people stand around.

Body coordinates: x to the person's left, y down, z to the person's back, in standing heights. Camera coordinates:
x right, y down, z away from the camera; the two agree for a person who stands facing the camera.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from tqdm import tqdm

from scanet.data.matlab import save, struct_array
from scanet.data.mpii import MAT_NAME
from scanet.data.person import BOX
from scanet.files import UserError, whole_folder
from scanet.skeleton import MPII

# Fractions of the standing height.
UPPER_ARM, FOREARM, HAND, THIGH, SHIN, FOOT = 0.165, 0.15, 0.055, 0.235, 0.235, 0.1
#: Spine, neck, upper arm, forearm, thigh, shin, and half the widths of shoulders and hips.
_LENGTHS = np.array([0.29, 0.06, UPPER_ARM, FOREARM, THIGH, SHIN, 0.115, 0.058])
#: Half-lengths of the ellipsoids to the side, upward and to the front.
HEAD = np.array([0.071, 0.091, 0.08])
CHEST = np.array([0.125, 0.135, 0.085])
BELLY = np.array([0.1, 0.15, 0.075])
TEXEL = 0.0125  # one cell of a texture
#: At part_scale 1 the camera stands 1 / PERSPECTIVE standing heights away.
PERSPECTIVE = 1.4

#: MPII's joints, then what only the drawing needs.
_POINTS = (*MPII.joints, "r-hand", "l-hand", "r-toe", "l-toe")
#: Two ends, the radii there (standing heights), and the piece of clothing.
_LIMBS = (
    ("r-hip", "r-knee", 0.052, 0.038, "thigh"), ("l-hip", "l-knee", 0.052, 0.038, "thigh"),
    ("r-knee", "r-ankle", 0.037, 0.024, "shin"), ("l-knee", "l-ankle", 0.037, 0.024, "shin"),
    ("r-ankle", "r-toe", 0.026, 0.02, "shoe"), ("l-ankle", "l-toe", 0.026, 0.02, "shoe"),
    ("r-shoulder", "l-shoulder", 0.036, 0.036, "shirt"), ("thorax", "neck", 0.032, 0.03, "skin"),
    ("r-shoulder", "r-elbow", 0.036, 0.028, "sleeve"), ("l-shoulder", "l-elbow", 0.036, 0.028, "sleeve"),
    ("r-elbow", "r-wrist", 0.027, 0.021, "forearm"), ("l-elbow", "l-wrist", 0.027, 0.021, "forearm"),
    ("r-wrist", "r-hand", 0.021, 0.023, "skin"), ("l-wrist", "l-hand", 0.021, 0.023, "skin"),
)  # fmt: skip
_LIMB_ENDS = np.array([[_POINTS.index(name) for name in limb[:2]] for limb in _LIMBS])
_LIMB_RADII = np.array([limb[2:4] for limb in _LIMBS])

#: How often, then the ranges in degrees of: raised to the front, raised to the side, turned inward, bent.
_ARM_POSES = (
    (0.36, (-30, 40), (4, 35), (-40, 70), (5, 100)),  # hanging
    (0.27, (-25, 35), (70, 170), (-60, 90), (0, 125)),  # raised to the side
    (0.24, (50, 170), (-10, 40), (-30, 60), (0, 90)),  # reaching to the front or up
    (0.13, (-60, 150), (0, 120), (-60, 80), (0, 130)),  # anything
)
_LEG_POSES = (
    (0.38, (-10, 15), (0, 14), (-20, 20), (0, 15)),  # standing
    (0.31, (-35, 60), (0, 18), (-20, 20), (0, 85)),  # walking, running
    (0.18, (60, 105), (0, 32), (-20, 20), (40, 110)),  # sitting, crouching
    (0.13, (-40, 110), (0, 60), (-40, 40), (0, 120)),  # kicking, jumping
)

#: Saturation that a background keeps: clothes are brighter, so what is confusing comes from `clutter`.
MUTED = 0.3

#: What `clutter` adds, in this order: 0 none, 1 all of it. So more clutter keeps what was there.
_DISTRACTORS = (
    "limb behind", "person", "limb behind", "limb behind", "limb in front", "limb behind", "person",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class PersonRecord:
    """One person for `write_mpii_mat`, in the package's 0-based pixels and MPII's raw (unadjusted) terms.

    head_box: (x1, y1, x2, y2). scale: height / 200. objpos: (x, y). joints: (16, 2), NaN where not annotated.
    visible: (16,) bool.
    """

    head_box: tuple[float, float, float, float]
    scale: float
    objpos: tuple[float, float]
    joints: np.ndarray
    visible: np.ndarray


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image for `write_mpii_mat`: its file name, whether it is in MPII's training half, and its people."""

    name: str
    is_train: bool
    people: Sequence[PersonRecord]


@dataclass(frozen=True, eq=False)
class Scene:
    """A drawn photograph, (H, W, 3) uint8, and its annotated person."""

    image: np.ndarray
    person: PersonRecord


@dataclass(frozen=True, eq=False)
class _Body:
    """A posed person. points: (20, 3), body coordinates turned into the camera's, centred; head, chest, belly:
    (3, 3) rotations whose columns are that part's axes; girth: factor of all widths; clothes: textures by name.
    """

    points: np.ndarray
    head: np.ndarray
    chest: np.ndarray
    belly: np.ndarray
    girth: float
    clothes: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class _Capsule:
    """A limb in pixels: ends (2, 2), radii and depths (2,); texture (16, 16, 3) with `texel` pixels a cell."""

    ends: np.ndarray
    radii: np.ndarray
    depths: np.ndarray
    texture: np.ndarray
    texel: float


@dataclass(frozen=True, eq=False)
class _Ellipsoid:
    """A head or trunk in pixels: center (2,), axes (3, 3) as columns, half-lengths (3,), depth of the centre.

    The surface shows `front`, stretched over the whole front half, inside the window (centre y, half-width,
    half-height) given in half-lengths, and `texture` elsewhere.
    """

    center: np.ndarray
    axes: np.ndarray
    half: np.ndarray
    depth: float
    texture: np.ndarray
    texel: float
    front: np.ndarray
    window: tuple[float, float, float]

    @property
    def reach(self) -> np.ndarray:
        """Half the width and height of the outline's bounding box: (2,)."""
        return np.sqrt(np.square(self.axes[:2] * self.half).sum(1))


_Part = _Capsule | _Ellipsoid


# Pose ------------------------------------------------------------------------------------------------------------


def _rotation(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    """Rotation by degrees about z first, then x, then y: (3, 3)."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad((x, y, z))).tolist(), np.sin(np.deg2rad((x, y, z))).tolist()
    return np.array(
        [
            [cy * cz + sy * sx * sz, sy * sx * cz - cy * sz, sy * cx],
            [cx * sz, cx * cz, -sx],
            [cy * sx * sz - sy * cz, sy * sz + cy * sx * cz, cy * cx],
        ]
    )


def _limb_pose(rng: np.random.Generator, poses: tuple, side: int, bends: int) -> tuple[np.ndarray, np.ndarray]:
    """Direction (3,) of a limb's upper half and the (3, 3) frame of the lower one, which lies along its y.

    side: -1 for the right, 1 for the left. bends: -1 to the front, 1 to the back.
    """
    _, *ranges = poses[rng.choice(len(poses), p=[pose[0] for pose in poses])]
    front, out, turn, bend = rng.uniform(*np.transpose(ranges))
    upper = _rotation(x=-front) @ _rotation(z=-side * out)
    return upper[:, 1], upper @ _rotation(x=bends * bend, y=side * turn)


def _facing(rng: np.random.Generator) -> np.ndarray:
    """The person's rotation before the camera (3, 3): mostly upright and roughly facing it, now and then lying or
    upside down.
    """
    yaw = rng.normal(0, 25) if rng.random() < 0.8 else rng.uniform(-180, 180)
    roll = rng.normal(0, 12)
    if rng.random() < 0.03:
        roll += rng.choice([-90, 90, 180])
    return _rotation(z=roll) @ _rotation(x=rng.normal(4, 10)) @ _rotation(y=yaw)


def _pose(rng: np.random.Generator) -> _Body:
    """A random person in a random pose."""
    # Both sides share their lengths.
    spine, neck, upper_arm, forearm, thigh, shin, shoulder, hip = _LENGTHS * np.exp(rng.normal(0, 0.06, 8))
    bend = rng.uniform(35, 95) if rng.random() < 0.14 else rng.normal(5, 9)
    chest = _rotation(x=bend) @ _rotation(y=rng.normal(0, 14), z=rng.normal(0, 9))
    head = chest @ _rotation(x=rng.normal(-0.35 * bend, 12), y=rng.normal(0, 22), z=rng.normal(0, 10))

    at = {"pelvis": np.zeros(3), "thorax": -spine * chest[:, 1]}
    at["neck"] = at["thorax"] - neck * chest[:, 1]
    at["head-top"] = at["neck"] - 2 * HEAD[1] * head[:, 1]
    for letter, side in (("r", -1), ("l", 1)):
        upper, lower = _limb_pose(rng, _ARM_POSES, side, -1)
        at[f"{letter}-shoulder"] = at["thorax"] + chest @ [side * shoulder, 0.01, 0]
        at[f"{letter}-elbow"] = at[f"{letter}-shoulder"] + upper_arm * (chest @ upper)
        at[f"{letter}-wrist"] = at[f"{letter}-elbow"] + forearm * (chest @ lower[:, 1])
        at[f"{letter}-hand"] = at[f"{letter}-wrist"] + HAND * (chest @ lower[:, 1])
        upper, lower = _limb_pose(rng, _LEG_POSES, side, 1)
        at[f"{letter}-hip"] = np.array([side * hip, 0.02, 0])
        at[f"{letter}-knee"] = at[f"{letter}-hip"] + thigh * upper
        at[f"{letter}-ankle"] = at[f"{letter}-knee"] + shin * lower[:, 1]
        at[f"{letter}-toe"] = at[f"{letter}-ankle"] + FOOT * (lower @ [0.15 * side, 0.35, -0.93])

    turn = _facing(rng)
    points = np.stack([at[name] for name in _POINTS]) @ turn.T
    points -= (points.min(0) + points.max(0)) / 2
    return _Body(points, turn @ head, turn @ chest, turn, rng.uniform(0.95, 1.3), _clothes(rng))


# Textures --------------------------------------------------------------------------------------------------------

# Stripes across and along, (2, 16, 16).
_NARROW, _WIDE = (np.indices((16, 16)) // cells % 2 for cells in (2, 4))
#: Weights of a texture's second colour: plain, then stripes across and along and checks of two sizes.
_PATTERNS = np.stack([0 * _WIDE[0], *_NARROW, _NARROW[0] ^ _NARROW[1], *_WIDE, _WIDE[0] ^ _WIDE[1]], dtype=np.float32)


def _plain(color: np.ndarray) -> np.ndarray:
    """A (16, 16, 3) tile of one colour (3,)."""
    return np.full((16, 16, 3), color, np.float32)


def _texture(rng: np.random.Generator) -> np.ndarray:
    """A (16, 16, 3) tile of two colours: plain, striped, checked or speckled."""
    base = rng.uniform(25, 235, 3)
    other = np.minimum(np.maximum(base + rng.uniform(-90, 90, 3), 0), 255)
    kind = rng.integers(len(_PATTERNS) + 1)
    weight = _PATTERNS[kind] if kind < len(_PATTERNS) else rng.random((16, 16), dtype=np.float32)
    return (base + weight[..., None] * (other - base)).astype(np.float32)


def _skin(rng: np.random.Generator) -> np.ndarray:
    """A skin colour (3,), from dark to light."""
    return np.array([84, 54, 40]) + rng.random() * np.array([156, 138, 122])


def _clothes(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Textures of one person, by piece."""
    color = _skin(rng)
    skin, face, hair = _plain(color), _plain(color), _plain(rng.uniform(10, 1 + 0.75 * color))
    face[7:9, 4:7] = face[7:9, 9:12] = 20  # eyes
    face[12:13, 6:10] = (150, 40, 40)  # mouth
    shirt, trousers = _texture(rng), _texture(rng)
    front = _plain((shirt.mean((0, 1)) + 128) % 256)
    # Sleeves unlike the trunk, so that an arm before it can be seen.
    sleeve = _plain((shirt.mean((0, 1)) + 90) % 256) * 0.7 + 0.3 * _texture(rng)
    short_sleeves, shorts = rng.random(2) < (0.8, 0.5)
    return {
        "skin": skin, "hair": hair, "face": face, "shirt": shirt, "front": front, "sleeve": sleeve,
        "forearm": skin if short_sleeves else sleeve, "thigh": trousers, "shin": skin if shorts else trousers,
        "shoe": _plain(rng.uniform(10, 235, 3)),
    }  # fmt: skip


def background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A gradient with smooth noise of two sizes, and rectangles: (height, width, 3) float32."""
    top, bottom = rng.uniform(30, 225, (2, 3))
    smooth = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((40, 40))
    small = top + np.linspace(0, 1, 40)[:, None, None] * (bottom - top) + 0.35 * (np.asarray(smooth) - 127.5)
    small = np.clip(small + rng.uniform(-18, 18, (40, 40, 3)), 0, 255).astype(np.uint8)
    image = np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR), np.float32)
    for _ in range(int(rng.integers(2, 7))):
        x, y = rng.integers(0, (width, height))
        w, h = rng.integers(10, (width // 2, height // 2))
        image[y : y + h, x : x + w] += rng.uniform(-70, 70, 3).astype(np.float32)
    grey = image.mean(axis=2, keepdims=True)
    return grey + MUTED * (image - grey)


# Drawing ---------------------------------------------------------------------------------------------------------


def _parts(body: _Body, xy: np.ndarray, factor: np.ndarray) -> list[_Part]:
    """A body's parts in pixels, far ones first. xy: (20, 2) pixels; factor: (20,) pixels per standing height."""
    pixels = factor[_LIMB_ENDS]
    pieces = [body.clothes[limb[4]] for limb in _LIMBS]
    limbs = zip(
        xy[_LIMB_ENDS], body.girth * _LIMB_RADII * pixels, body.points[_LIMB_ENDS, 2], pieces,
        (TEXEL * pixels.mean(1)).tolist(), strict=True,
    )  # fmt: skip
    parts: list[_Part] = [_Capsule(*limb) for limb in limbs]
    for joints, weight, axes, half, piece, front, window in (
        (("neck", "head-top"), 0.5, body.head, HEAD, "hair", "face", (0.25, 0.82, 0.85)),
        (("pelvis", "thorax"), 0.66, body.chest, CHEST * body.girth, "shirt", "front", (0.0, 0.33, 1.5)),
        (("pelvis", "thorax"), 0.2, body.belly, BELLY * body.girth, "shirt", "front", (0.0, 0.4, 1.5)),
    ):
        pair, mix = MPII.index(*joints), np.array([1 - weight, weight])
        scale, depth = float(mix @ factor[pair]), float(mix @ body.points[pair, 2])
        parts.append(
            _Ellipsoid(
                mix @ xy[pair], axes, half * scale, depth, body.clothes[piece], TEXEL * scale, body.clothes[front],
                window,
            )
        )  # fmt: skip
    return sorted(parts, key=_nearness)


def _nearness(part: _Part) -> float:
    """Limbs rest on the trunk, so at the same depth they are the nearer ones."""
    return 0.04 - sum(part.depths.tolist()) / 2 if isinstance(part, _Capsule) else -part.depth


class _Canvas:
    """An image (H, W, 3) float32 and the depth (H, W) of what was painted last."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        self.depth: np.ndarray = np.full(image.shape[:2], np.inf, np.float32)

    def paint(self, part: _Part) -> None:
        if isinstance(part, _Capsule):
            self._capsule(part)
        else:
            self._ellipsoid(part)

    def _window(self, center: np.ndarray, reach: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
        """The slices of a box in pixels, clipped to the image, and its x (1, w) and y (h, 1) from the centre (2,)."""
        height, width = self.depth.shape
        (cx, cy), (rx, ry) = map(float, center), map(float, reach + 1)
        x0, x1 = (min(max(int(edge), 0), width) for edge in (cx - rx, cx + rx + 1))
        y0, y1 = (min(max(int(edge), 0), height) for edge in (cy - ry, cy + ry + 1))
        x, y = np.arange(x0, x1, dtype=np.float32), np.arange(y0, y1, dtype=np.float32)
        return (slice(y0, y1), slice(x0, x1)), (x - cx)[None, :], (y - cy)[:, None]

    def _blend(
        self, where: tuple[slice, slice], color: np.ndarray, shade: np.ndarray, alpha: np.ndarray,
        depth: np.ndarray | float,
    ) -> None:  # fmt: skip
        """Paint (h, w, 3) colours, darkened by shade (h, w), over the box with opacities alpha, cut to [0, 1]."""
        alpha = np.minimum(np.maximum(alpha, 0), 1)
        under = self.image[where]
        color *= shade[..., None]
        color -= under
        color *= alpha[..., None]
        under += color
        np.copyto(self.depth[where], depth, where=alpha > 0.5)

    def _capsule(self, part: _Capsule) -> None:
        center = (part.ends[0] + part.ends[1]) / 2
        where, x, y = self._window(center, np.abs(part.ends[0] - center) + part.radii.max())
        (ax, ay), (dx, dy) = (part.ends[0] - center).tolist(), (part.ends[1] - part.ends[0]).tolist()
        (radius_a, radius_b), (depth_a, depth_b) = part.radii.tolist(), part.depths.tolist()
        length = max(math.hypot(dx, dy), 1e-3)
        dx, dy = dx / length, dy / length
        x, y = x - ax, y - ay
        along, across = x * dx + y * dy, y * dx - x * dy
        t = np.minimum(np.maximum(along / length, 0), 1)
        radius = radius_a + t * (radius_b - radius_a)
        distance = np.sqrt(np.square(along - t * length) + np.square(across))
        color = _lookup(part.texture, along / part.texel, across / part.texel)
        shade = 1.06 - 0.4 * np.square(distance / radius)
        self._blend(where, color, shade, radius - distance + 0.5, depth_a + t * (depth_b - depth_a))

    def _ellipsoid(self, part: _Ellipsoid) -> None:
        reach = part.reach
        where, x, y = self._window(part.center, reach)
        # In units of its half-lengths the ellipsoid is a sphere, and the line of sight a line p + z * direction.
        unit = part.axes / part.half
        (ux, uy), direction = unit[:2].tolist(), (unit[2] / np.linalg.norm(unit[2])).tolist()
        p = [x * ux[k] + y * uy[k] for k in range(3)]
        closest = p[0] * direction[0] + p[1] * direction[1] + p[2] * direction[2]
        outside = np.maximum(p[0] ** 2 + p[1] ** 2 + p[2] ** 2 - closest**2, 0)
        z = -closest - np.sqrt(np.maximum(1 - outside, 0))
        qx, qy, qz = (p[k] + z * direction[k] for k in range(3))
        columns, rows, _ = (part.half / part.texel).tolist()
        color = _lookup(part.texture, qy * rows, qx * columns)
        middle, wide, high = part.window
        in_front = (qz < 0) & (np.square(qx / wide) + np.square((qy - middle) / high) < 1)
        np.copyto(color, _lookup(part.front, 8 * qy + 8, 8 * qx + 8), where=in_front[..., None])
        alpha = (1 - np.sqrt(outside)) * float(reach.min()) + 0.5
        self._blend(where, color, 1.06 - 0.4 * outside, alpha, part.depth)


def _lookup(texture: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Colours (h, w, 3) of an endlessly repeated texture at cells (h, w)."""
    return texture[row.astype(np.int32) & 15, column.astype(np.int32) & 15]


def _project(body: _Body, part_scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions (20, 2) and magnifications (20,): the camera's distance follows from the dial."""
    magnification = 1 / np.maximum(1 + PERSPECTIVE * part_scale * body.points[:, 2], 0.35)
    return body.points[:, :2] * magnification[:, None], magnification


def _distractor_limb(
    rng: np.random.Generator, around: np.ndarray, size: float, clothes: dict[str, np.ndarray]
) -> list[_Part]:
    """Two capsules joined like an arm or a leg, from `around` (2,) on, at times in the annotated person's
    clothes. size: pixels per standing height.
    """
    leg = rng.random() < 0.5
    if rng.random() < 0.35:
        upper, lower = (clothes["thigh"], clothes["shin"]) if leg else (clothes["sleeve"], clothes["forearm"])
    else:
        upper = lower = _texture(rng)
        lower = _plain(_skin(rng)) if rng.random() < 0.5 else upper
    radii = np.array([0.05, 0.038, 0.026] if leg else [0.034, 0.028, 0.021]) * size * rng.uniform(0.85, 1.25)
    lengths = (THIGH if leg else UPPER_ARM) * size * rng.uniform(0.6, 1.15, 2)
    angles = rng.uniform(0, 2 * np.pi) + np.array([0, rng.uniform(-2, 2)])
    steps = lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    joints = around + np.cumsum([[0, 0], *steps], 0)
    in_front = np.full(2, -9.0)
    return [
        _Capsule(joints[k : k + 2], radii[k : k + 2], in_front, texture, TEXEL * size)
        for k, texture in enumerate((upper, lower))
    ]


def _clutter(
    rng: np.random.Generator, clutter: float, part_scale: float, middle: np.ndarray, size: float,
    shape: tuple[int, int], clothes: dict[str, np.ndarray],
) -> tuple[list[_Part], list[_Part]]:  # fmt: skip
    """What is painted before and after the annotated person, who stands at `middle` (2,), `size` pixels tall."""
    before: list[_Part] = []
    after: list[_Part] = []
    for kind in _DISTRACTORS[: round(clutter * len(_DISTRACTORS))]:
        if kind == "person":
            other, smaller = _pose(rng), size * rng.uniform(0.6, 0.85)
            aside = np.array([rng.choice([-1, 1]) * rng.uniform(0.4, 0.8), rng.uniform(-0.2, 0.2)])
            xy, magnification = _project(other, part_scale)
            before += _parts(other, middle + size * aside + smaller * xy, smaller * magnification)
        elif kind == "limb behind":
            before += _distractor_limb(rng, rng.uniform(0, shape[::-1]), size, clothes)
        else:
            after += _distractor_limb(rng, middle + rng.uniform(-0.45, 0.45, 2) * size, size, clothes)
    return before, after


def _place(rng: np.random.Generator, xy: np.ndarray, size: float) -> tuple[np.ndarray, tuple[int, int]]:
    """Where to put the origin of a body that fills xy (20, 2), in pixels, and the image's (height, width)."""
    low, high = xy.min(0) - 0.06 * size, xy.max(0) + 0.06 * size
    width, height = np.maximum(rng.integers(168, 217, 2), np.ceil(high - low).astype(int) + 2)
    free = np.array([width, height]) - (high - low)
    origin = rng.random(2) * free - low
    # Some photographs cut the feet off.
    cut = rng.uniform(0.1, 0.3) * size
    if rng.random() < 0.06 and xy[MPII.index("head-top")[0], 1] < 0 and high[1] - low[1] > 3 * cut:
        origin[1] = height + cut - high[1]
    return origin, (int(height), int(width))


def render(rng: np.random.Generator, part_scale: float, clutter: float) -> Scene:
    """One photograph. The same `rng` state gives the same person, pose and place at every clutter, and the same
    person and pose at every part_scale.
    """
    for name, value in (("part_scale", part_scale), ("clutter", clutter)):
        if not 0 <= value <= 1:
            raise UserError(f"{name} is {value}, but must be between 0 and 1: choose a value in that range.")
    body_rng, place_rng, background_rng, clutter_rng = rng.spawn(4)
    body = _pose(body_rng)
    xy, magnification = _project(body, part_scale)
    size = place_rng.uniform(98, 124) / max(1.0, float(np.ptp(xy, axis=0).max()))
    origin, shape = _place(place_rng, size * xy, size)
    xy = origin + size * xy

    canvas = _Canvas(background(background_rng, shape[1], shape[0]))
    before, after = _clutter(clutter_rng, clutter, part_scale, origin, size, shape, body.clothes)
    for part in before:
        canvas.paint(part)
    # Only what is painted from here on can hide the person.
    canvas.depth.fill(np.inf)
    parts = _parts(body, xy, size * magnification)
    for part in (*parts, *after):
        canvas.paint(part)

    head = next(part for part in parts if isinstance(part, _Ellipsoid) and part.texture is body.clothes["hair"])
    person = _annotation(place_rng, xy[:16], body.points[:16, 2], head, canvas.depth)
    return Scene(np.clip(canvas.image, 0, 255, out=canvas.image).astype(np.uint8), person)


def _annotation(
    rng: np.random.Generator, joints: np.ndarray, depths: np.ndarray, head: _Ellipsoid, painted: np.ndarray
) -> PersonRecord:
    """What MPII's annotators would note of joints (16, 2) at depths (16,); painted: (H, W) depths in the image.

    As in MPII the scale follows from the head size; it grows where the adjusted box would not hold the person.
    """
    box = (*(head.center - head.reach).tolist(), *(head.center + head.reach).tolist())
    low, high = joints.min(0), joints.max(0)
    scale = max(0.6 * 2 * math.hypot(*head.reach) / 27, float((high - low).max()) / BOX * 1.02)
    x, y = ((low + high) / 2 + BOX * scale * np.clip(rng.normal(0, 0.05, 2), -0.1, 0.1)).tolist()

    last = np.array(painted.shape[::-1]) - 1
    pixel = np.rint(joints).astype(int)
    inside = ((pixel >= 0) & (pixel <= last)).all(1)
    column, row = np.clip(pixel, 0, last).T
    # A limb's own surface lies less than this before its joint.
    visible = inside & (painted[row, column] > depths - 0.07)
    return PersonRecord(box, scale, (x, y - 15 * scale), np.where(inside[:, None], joints, np.nan), visible)


# Files -----------------------------------------------------------------------------------------------------------


def _annorect(person: PersonRecord) -> dict[str, Any]:
    """One element of `annorect`. Matlab counts pixels from 1."""
    points = [
        {"x": x + 1, "y": y + 1, "id": k, "is_visible": int(person.visible[k])}
        for k, (x, y) in enumerate(person.joints.tolist())
        if not np.isnan(x)
    ]
    return {
        **dict(zip(("x1", "y1", "x2", "y2"), np.add(person.head_box, 1).tolist(), strict=True)),
        "annopoints": {"point": struct_array(points, ("x", "y", "id", "is_visible"))},
        "scale": person.scale,
        "objpos": {"x": person.objpos[0] + 1, "y": person.objpos[1] + 1},
    }


def write_mpii_mat(path: Path, images: Sequence[ImageRecord]) -> None:
    """Write annotations in the nesting of MPII's official .mat file; in each image the first person is "single"."""
    names = ("x1", "y1", "x2", "y2", "annopoints", "scale", "objpos")
    annolist = [
        {
            "image": {"name": image.name},
            "annorect": struct_array([_annorect(person) for person in image.people], names),
        }
        for image in images
    ]
    single = np.empty((len(images), 1), dtype=object)
    for k, image in enumerate(images):
        single[k, 0] = np.ones((1, 1)) if image.people else np.zeros((0, 0))
    act = {"cat_name": np.zeros((0, 0)), "act_name": np.zeros((0, 0)), "act_id": -1}
    release = {
        "annolist": struct_array(annolist, ("image", "annorect")),
        "img_train": np.array([[int(image.is_train) for image in images]], dtype=np.uint8),
        "single_person": single,
        "act": struct_array([act] * len(images), tuple(act)).T,
    }
    save(path, {"RELEASE": release})


def _torso_angle(part: np.ndarray) -> np.ndarray:
    """Newell's angle from pelvis to thorax, of joints (N, 16, 2): (N,) degrees, 0 if upright or not annotated."""
    spine = part[:, 7] - part[:, 6]
    angle = np.rad2deg(np.arctan2(spine[:, 1], spine[:, 0])) + 90
    return np.where(np.all(np.any(part[:, 6:8], axis=2), axis=1), angle, 0.0)


def _write_h5(path: Path, images: Sequence[ImageRecord], first_index: int) -> None:
    """Write the only person of every image in the format of Newell's valid.h5.

    The coordinates are the .mat's, so 1-based: centre and scale adjusted, joints cut to whole numbers and 0 where
    missing. first_index: number of the first image in the .mat, from 0.
    """
    people = [image.people[0] for image in images]
    scale = np.array([person.scale for person in people])
    center = np.array([person.objpos for person in people]) + 1
    center[:, 1] += 15 * scale
    part = np.trunc(np.nan_to_num(np.stack([person.joints for person in people]) + 1))
    corners = np.array([person.head_box for person in people])
    with h5py.File(path, "w") as file:
        file["center"], file["scale"], file["part"] = center, 1.25 * scale, part
        file["visible"] = np.stack([person.visible for person in people]).astype(float)
        file["normalize"] = 0.6 * np.hypot(*(corners[:, 2:] - corners[:, :2]).T)
        file["index"] = first_index + np.arange(len(people), dtype=float)
        file["person"] = np.zeros(len(people))
        file["imgname"] = np.array([image.name for image in images], dtype="S13")
        file["torsoangle"] = _torso_angle(part)
        file.attrs["name"] = "mpii"


def write(
    folder: Path, *, train: int, valid: int, part_scale: float = 0.5, clutter: float = 0.5, seed: int = 0,
    progress: bool = True,
) -> None:  # fmt: skip
    """Write `images/`, MPII's .mat and Newell's valid.h5 into `folder`, replacing it.

    train, valid: numbers of photographs. Photograph i of a split depends on the seed, the dials and i alone.
    """
    for name, value, least in (("train", train, 0), ("valid", valid, 1), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"{name} is {value}, but must be at least {least}: give a larger number.")
    records: list[ImageRecord] = []
    with whole_folder(folder) as temporary:
        (temporary / "images").mkdir()
        jobs = [(0, i) for i in range(train)] + [(1, i) for i in range(valid)]
        for split, i in tqdm(jobs, desc="drawing people", unit="image", disable=not progress):
            rng = np.random.default_rng(np.random.SeedSequence((seed, split, i)))
            scene = render(rng, part_scale, clutter)
            record = ImageRecord(f"{len(records) + 1:08d}.jpg", True, [scene.person])
            Image.fromarray(scene.image).save(temporary / "images" / record.name, quality=90)
            records.append(record)
        write_mpii_mat(temporary / MAT_NAME, records)
        _write_h5(temporary / "valid.h5", records[train:], train)
