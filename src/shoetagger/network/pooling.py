"""What a head sees of a picture: its colours, and moments of the channels of the backbone's layers.

The background behind a shoe has no tags. So places can be weighted by contrast: the less a place
resembles the border of the picture, the more it counts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_VARIANCE = 1e-6
_AT_ONCE = {"cpu": 4, "cuda": 64}  # pictures; on a CPU, intermediate results of a few stay in cache
_STANDS_OUT = 2.0  # times the mean distance from the border, where a place counts half
_STEEPNESS = 4
_LEAST_WEIGHT = 1e-3
_ROUNDING = 1e-10  # of a squared length; smaller squared distances count as zero
_PIXELS_PER_SIDE = 4  # of a picture, averaged into one pixel of the histogram
_BIN_WIDTH = 8.0  # of the histogram: the standard deviation of a Gaussian in CIELAB
_LINEAR_BELOW = 0.04045  # sRGB's curve, IEC 61966-2-1
_CUBE_ROOT_ABOVE = (6 / 29) ** 3  # CIELAB's curve, CIE 15


def channel_moments(x: Tensor, *, contrast: bool) -> Tensor:
    """Return the means and standard deviations of channels (B, height, width, C): (B, 2 C).

    With `contrast`, places are weighted by how far they stand out from the border, else equally.
    """
    with _in_full(x.device):
        parts = (part.float() for part in _parts(x))
        return torch.cat([_moments(part, place_weights(part, contrast=contrast)) for part in parts])


def place_weights(x: Tensor, *, contrast: bool) -> Tensor:
    """Return the weights (B, 1, places) of the places of (B, height, width, C); they sum to one."""
    return _contrast(x) if contrast else _evenly(x)


def color_histogram(images: Tensor) -> Tensor:
    """Return the colour histogram of what stands out: roots of shares (B, BINS) float32.

    `images` (B, S, S, 3) are uint8 in sRGB. Each pixel is distributed softly over the bins near
    it in CIELAB. The roots make the Euclidean distance a Hellinger distance (Arandjelovic and
    Zisserman, 2012).
    """
    with _in_full(images.device):
        return torch.cat([_histogram(part) for part in _parts(images)])


def _in_full(device: torch.device) -> torch.autocast:
    """Compute in float32 even where the layers around run in half precision."""
    return torch.autocast(device.type, enabled=False)


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    """Split (B, height, width, C) into parts of a few pictures."""
    return torch.split(x, _AT_ONCE.get(x.device.type, len(x)))


def _moments(x: Tensor, weights: Tensor) -> Tensor:
    """Return the means and standard deviations of channels (B, height, width, C): (B, 2 C).

    `weights` (B, 1, places) are those of the places, and sum to one.
    """
    # Sums as matrix products: several times faster than torch.var_mean, and as exact.
    places = x.flatten(1, 2)
    mean = torch.bmm(weights, places)
    variance = torch.bmm(weights, (places - mean).square())
    # The root has no gradient at 0, where a channel is zero everywhere.
    return torch.cat([mean, (variance + LEAST_VARIANCE).sqrt()], dim=2).flatten(1)


def _evenly(x: Tensor) -> Tensor:
    """Return equal weights (B, 1, places) for the places of (B, height, width, C)."""
    places = x.shape[1] * x.shape[2]
    return x.new_full((1, 1, 1), 1 / places).expand(len(x), 1, places)


@torch.no_grad()
def _contrast(x: Tensor) -> Tensor:
    """Return weights (B, 1, places) by how far the places of (B, height, width, C) stand out.

    The measure is the squared distance from the nearest of the four sides' means: a picture that
    was padded to a square has padding on two sides and its own background on the others.
    """
    sides = [x[:, 0].mean(1), x[:, -1].mean(1), x[:, :, 0].mean(1), x[:, :, -1].mean(1)]
    # Not as a matrix product, whose rounding errors would stand out where nothing else does.
    exact = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(x.flatten(1, 2), torch.stack(sides, dim=1), compute_mode=exact)
    distance = distances.square().amin(2)
    # In a picture of one colour nothing stands out: all its places count alike.
    rounding = x.square().sum(3).mean((1, 2)) * _ROUNDING + torch.finfo(x.dtype).tiny
    usual = torch.maximum(distance.mean(1), rounding).unsqueeze(1)
    far = (distance / (_STANDS_OUT * usual)) ** _STEEPNESS
    weights = far / (1 + far) + _LEAST_WEIGHT
    return (weights / weights.sum(1, keepdim=True)).unsqueeze(1)


@torch.no_grad()
def color_places(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the places behind a histogram: their shares in the bins, and their weights.

    `images` (B, S, S, 3) uint8; shares are (B, places, BINS), weights (B, 1, places), and their
    product is what `color_histogram` takes the roots of. Places are squares of four pixels a side.
    """
    side = min(_PIXELS_PER_SIDE, images.shape[1])
    small = F.avg_pool2d(images.permute(0, 3, 1, 2).float(), side) / 255
    colors = _cielab(small.permute(0, 2, 3, 1).contiguous())
    places = colors.shape[1] * colors.shape[2]
    bins = _BINS.to(images.device)
    # The part of the squared distance that is equal for all bins cancels in the softmax.
    near = torch.addmm(
        -bins.square().sum(1) / 2, colors.flatten(0, 2) / _BIN_WIDTH, bins.T
    ).softmax(1)
    return near.view(len(colors), places, BINS), _contrast(colors)


def _histogram(images: Tensor) -> Tensor:
    near, weights = color_places(images)
    return torch.bmm(weights, near).flatten(1).sqrt()


def _cielab(rgb: Tensor) -> Tensor:
    """Convert sRGB (..., 3) in 0..1 to CIELAB (..., 3), white D65."""
    linear = torch.where(rgb <= _LINEAR_BELOW, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    # Rows: X, Y, Z, each as a share of the white's.
    xyz = linear @ _XYZ_OF_RGB.to(rgb.device).T
    root = xyz.clamp_min(_CUBE_ROOT_ABOVE) ** (1 / 3)
    f = torch.where(xyz > _CUBE_ROOT_ABOVE, root, xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


_XYZ_OF_RGB = torch.tensor(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
) / torch.tensor([[0.9505], [1.0], [1.089]])


def _bins() -> Tensor:
    """Return the bins' colours in bin widths: ten greys, two rings of hues at three lightnesses."""
    greys = [(5.0 + 10 * i, 0.0, 0.0) for i in range(10)]
    # The outer ring is turned by half a step, so that its hues lie between those of the inner one.
    hues = [
        (lightness, chroma * math.cos(angle), chroma * math.sin(angle))
        for lightness in (25.0, 50.0, 75.0)
        for chroma, turned in ((20.0, 0.0), (45.0, 0.5))
        for angle in (2 * math.pi * (i + turned) / 8 for i in range(8))
    ]
    return torch.tensor(greys + hues) / _BIN_WIDTH


_BINS = _bins()
BINS = len(_BINS)
