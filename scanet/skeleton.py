"""Joints, flip pairs and PCKh groups of the two skeletons, and the package's coordinate convention.

Coordinates. Everywhere inside the package a point is (x, y) in pixels of the original photograph, 0-based,
with whole numbers at pixel centres: the photograph's top-left pixel has its centre at (0, 0) and covers
[-0.5, 0.5]. Readers convert once, at the door; writers convert back. A missing joint is NaN. Positions in a crop
or a heat map are "edge" coordinates: 0 is the left edge of the first cell and cell k has its centre at k + 0.5.
"""

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Skeleton:
    """Names of the joints in storage order and what is derived from them.

    flip: for each joint, the joint that takes its place in a mirrored image.
    limbs: pairs of joints that a picture connects.
    """

    joints: tuple[str, ...]
    limbs: tuple[tuple[str, str], ...]

    def index(self, *names: str) -> list[int]:
        return [self.joints.index(name) for name in names]

    @cached_property
    def flip(self) -> tuple[int, ...]:
        swap = {"r-": "l-", "l-": "r-"}
        mirrored = (swap.get(name[:2], name[:2]) + name[2:] for name in self.joints)
        return tuple(self.joints.index(name) for name in mirrored)

    @cached_property
    def scored(self) -> tuple[int, ...]:
        """Joints that PCKh counts: pelvis and thorax never are (official toolkit)."""
        return tuple(i for i, name in enumerate(self.joints) if name not in ("pelvis", "thorax"))


#: Columns of Tables 1 and 2 after "Head", each the mean of a left and a right rate.
GROUPS = {
    "Sho.": ("r-shoulder", "l-shoulder"),
    "Elb.": ("r-elbow", "l-elbow"),
    "Wri.": ("r-wrist", "l-wrist"),
    "Hip": ("r-hip", "l-hip"),
    "Knee": ("r-knee", "l-knee"),
    "Ank.": ("r-ankle", "l-ankle"),
}

_ARMS_AND_LEGS = (
    ("r-ankle", "r-knee"),
    ("r-knee", "r-hip"),
    ("l-hip", "l-knee"),
    ("l-knee", "l-ankle"),
    ("r-wrist", "r-elbow"),
    ("r-elbow", "r-shoulder"),
    ("l-shoulder", "l-elbow"),
    ("l-elbow", "l-wrist"),
    ("neck", "head-top"),
)

#: MPII's 16 joints, in the order of its annotation ids.
MPII = Skeleton(
    joints=(
        "r-ankle", "r-knee", "r-hip", "l-hip", "l-knee", "l-ankle", "pelvis", "thorax", "neck", "head-top",
        "r-wrist", "r-elbow", "r-shoulder", "l-shoulder", "l-elbow", "l-wrist",
    ),
    limbs=(
        *_ARMS_AND_LEGS, ("r-hip", "pelvis"), ("l-hip", "pelvis"), ("pelvis", "thorax"), ("thorax", "neck"),
        ("r-shoulder", "thorax"), ("l-shoulder", "thorax"),
    ),
)  # fmt: skip

#: The 14 joints of LSP and LSP Extended, in the order of their README.
LSP = Skeleton(
    joints=(
        "r-ankle", "r-knee", "r-hip", "l-hip", "l-knee", "l-ankle", "r-wrist", "r-elbow", "r-shoulder",
        "l-shoulder", "l-elbow", "l-wrist", "neck", "head-top",
    ),
    limbs=(
        *_ARMS_AND_LEGS, ("r-hip", "l-hip"), ("r-shoulder", "neck"), ("l-shoulder", "neck"),
        ("r-shoulder", "r-hip"), ("l-shoulder", "l-hip"),
    ),
)  # fmt: skip

#: By the number of joints, which tells the two apart in a file.
SKELETONS = {16: MPII, 14: LSP}
