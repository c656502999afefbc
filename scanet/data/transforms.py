"""From stored squares to training batches: one warp per sample does crop, scale, rotation and flip.

A stored square is a "canvas" with the person's centre in its middle; `zoom` is its pixels per pixel of the
photograph. The warp is a 2x2 matrix A that takes the offset from the middle of the network's input, in input
pixels, to the offset from the middle of the canvas, in canvas pixels. All arguments may be on any device.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from scanet.config import Settings
from scanet.data.person import BOX

ROTATION_LIMIT = 2.0  # rotations are clipped at so many standard deviations (PN: 60 of 30 degrees)
GREY = 0.5  # subtracted from every channel: PN subtracts a mean colour and does not divide


@dataclass(frozen=True)
class Augmentation:
    """One draw for each sample: factor on the box, angle in radians, mirrored or not, factor on each channel."""

    scale: Float[Tensor, " n"]
    angle: Float[Tensor, " n"]
    flip: Bool[Tensor, " n"]
    colour: Float[Tensor, "n 3"]

    def __getitem__(self, index: Tensor) -> "Augmentation":
        return Augmentation(self.scale[index], self.angle[index], self.flip[index], self.colour[index])

    def to(self, device: torch.device) -> "Augmentation":
        return Augmentation(*(getattr(self, f).to(device) for f in ("scale", "angle", "flip", "colour")))


def draw_augmentation(n: int, settings: Settings, generator: torch.Generator) -> Augmentation:
    """PN's augmentation for `n` samples (its opts and data code); each number does not depend on the batch size."""
    jitter = settings.scale_jitter
    normal = torch.randn(n, 2, generator=generator)
    uniform = torch.rand(n, 5, generator=generator)
    degrees = settings.rotation * normal[:, 1].clamp(-ROTATION_LIMIT, ROTATION_LIMIT)
    rotated = uniform[:, 0] < settings.rotation_probability
    return Augmentation(
        scale=(1 + jitter * normal[:, 0]).clamp(1 - jitter, 1 + jitter),
        angle=torch.where(rotated, degrees, 0.0) * (math.pi / 180),
        flip=uniform[:, 1] < 0.5,
        colour=1 + settings.colour_jitter * (2 * uniform[:, 2:] - 1),
    )


def crop_matrix(
    scale: Float[Tensor, " b"],
    zoom: Float[Tensor, " b"],
    size: int,
    augmentation: Augmentation | None = None,
) -> Float[Tensor, "b 2 2"]:
    """A: input offsets (input of `size` pixels) to canvas offsets. scale: the persons'; zoom: the canvases'."""
    stretch = BOX * scale * zoom / size
    if augmentation is None:
        return stretch[:, None, None] * torch.eye(2, device=scale.device)
    stretch = stretch * augmentation.scale
    cos, sin = torch.cos(augmentation.angle), torch.sin(augmentation.angle)
    mirrored = torch.where(augmentation.flip, -1.0, 1.0)
    rows = [torch.stack([cos * mirrored, -sin], dim=-1), torch.stack([sin * mirrored, cos], dim=-1)]
    return stretch[:, None, None] * torch.stack(rows, dim=-2)


def warp(
    canvases: UInt8[Tensor, "b 3 m m"], matrix: Float[Tensor, "b 2 2"], size: int
) -> Float[Tensor, "b 3 size size"]:
    """The network's input, RGB in [0, 1], bilinear; black where the matrix leaves the canvas."""
    steps = torch.arange(size, device=matrix.device) + 0.5 - size / 2
    x, y = matrix[:, :, :1, None] * steps, matrix[:, :, 1:, None] * steps[:, None]  # (b, 2, 1, s), (b, 2, s, 1)
    offset = (x + y).permute(0, 2, 3, 1)  # from the middle of the canvas, (b, s, s, 2)
    if matrix.device.type != "cpu":
        return sample_whole(canvases, offset).div_(255)
    reach = (matrix.abs().sum(dim=2).amax(dim=1) * (size / 2)).ceil().int() + 1
    return sample_parts(canvases, offset, reach).div_(255)


def sample_whole(canvases: UInt8[Tensor, "b 3 m m"], offset: Float[Tensor, "b s s 2"]) -> Float[Tensor, "b 3 s s"]:
    """The canvases at the offsets from their middles, bilinear."""
    return F.grid_sample(canvases.float(), offset / (canvases.shape[-1] / 2), align_corners=False)


def sample_parts(
    canvases: UInt8[Tensor, "b 3 m m"], offset: Float[Tensor, "b s s 2"], reach: Int[Tensor, " b"]
) -> Float[Tensor, "b 3 s s"]:
    """As `sample_whole`, but reads no more of a canvas than the crop needs: a third of the time on a CPU.

    reach: pixels from the canvas's middle along an axis, a pixel more than the furthest offset at least.
    """
    half = canvases.shape[-1] // 2
    sides = [slice(half - r, half + r) for r in reach.clamp(max=half).tolist()]
    parts = [sample_whole(c[None, :, s, s], o[None]) for c, s, o in zip(canvases, sides, offset, strict=True)]
    return torch.cat(parts)


def colour(images: Float[Tensor, "b 3 s s"], factors: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 s s"]:
    return (images * factors[:, :, None, None]).clamp(0, 1)


def to_input(
    joints: Float[Tensor, "b j 2"],
    center: Float[Tensor, "b 2"],
    zoom: Float[Tensor, " b"],
    matrix: Float[Tensor, "b 2 2"],
    size: int,
) -> Float[Tensor, "b j 2"]:
    """Photograph's pixels to edge coordinates in the network's input."""
    offset = (joints - center[:, None]) * zoom[:, None, None]
    squared = matrix.square().sum(dim=(1, 2)) / 2  # A is that factor's root times a rotation, mirrored or not,
    return offset @ matrix / squared[:, None, None] + size / 2  # and its inverse its transpose over the factor


def to_photograph(
    positions: Float[Tensor, "b j 2"],
    center: Float[Tensor, "b 2"],
    zoom: Float[Tensor, " b"],
    matrix: Float[Tensor, "b 2 2"],
    size: int,
) -> Float[Tensor, "b j 2"]:
    """Edge coordinates in the network's input to the photograph's pixels: the inverse of `to_input`."""
    return (positions - size / 2) @ matrix.transpose(1, 2) / zoom[:, None, None] + center[:, None]


def swap_sides(
    joints: Float[Tensor, "b j 2"], flipped: Bool[Tensor, " b"], flip: Int[Tensor, " j"]
) -> Float[Tensor, "b j 2"]:
    """In a mirrored image the left wrist is a right one: relabel the joints of the flipped samples."""
    return torch.where(flipped[:, None, None], joints[:, flip], joints)
