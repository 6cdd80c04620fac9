"""Fifteen ways to spoil an image, in five severities: after Hendrycks & Dietterich (ICLR 2019), with numpy and scipy.

Severities are those of ImageNet-C. Its glass blur, snow and frost, which need other images, give way to speckle noise
and Gaussian blur (its own spare ones) and to occlusion. Lengths scale with the image from the 224 pixels that they
were made for, down to what still changes a pixel.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Images = NDArray[np.float64]  # [n, height, width, channels], 0..1
    Corrupt = Callable[[Images, int, np.random.Generator], Images]

SIDE = 224  # pixels of the images that lengths were made for
SEVERITIES = (1, 2, 3, 4, 5)
_JPEG = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip  # luminance table of the standard (ITU-T T.81, annex K)


def corrupt(images: Images, name: str, severity: int, seed: int) -> Images:
    """Return corrupted copies, 0..1.

    Args:
        images: [n, height, width, channels], 0..1.
        name: Of ``CORRUPTIONS``.
        severity: 1 to 5.
        seed: Equal seeds give equal copies.
    """
    chance = np.random.default_rng([seed, zlib.crc32(name.encode()), severity])
    return np.clip(CORRUPTIONS[name](images, severity - 1, chance), 0.0, 1.0)


def _pixels(images: Images, length: float, least: float) -> float:
    """Return a length of the original images in pixels of these."""
    return max(length * float(min(images.shape[1:3])) / SIDE, least)


def _gaussian_noise(x: Images, level: int, chance: np.random.Generator) -> Images:
    return x + chance.normal(0, (0.08, 0.12, 0.18, 0.26, 0.38)[level], x.shape)


def _shot_noise(x: Images, level: int, chance: np.random.Generator) -> Images:
    photons = (60, 25, 12, 5, 3)[level]
    return chance.poisson(x * photons) / photons


def _impulse_noise(x: Images, level: int, chance: np.random.Generator) -> Images:
    hit = chance.random(x.shape) < (0.03, 0.06, 0.09, 0.17, 0.27)[level]
    return np.where(hit, chance.integers(0, 2, x.shape), x)


def _speckle_noise(x: Images, level: int, chance: np.random.Generator) -> Images:
    return x + x * chance.normal(0, (0.15, 0.20, 0.35, 0.45, 0.60)[level], x.shape)


def _gaussian_blur(x: Images, level: int, _chance: np.random.Generator) -> Images:
    from scipy.ndimage import gaussian_filter  # not needed where nothing is corrupted

    sigma = _pixels(x, (1, 2, 3, 4, 6)[level], (0.4, 0.6, 0.7, 0.8, 1.0)[level])
    blurred: Images = gaussian_filter(x, (0, sigma, sigma, 0))
    return blurred


def _kernel(x: Images, kernel: NDArray[np.float64]) -> Images:
    from scipy.ndimage import convolve  # as above

    found: Images = convolve(x, (kernel / kernel.sum())[None, :, :, None], mode="reflect")
    return found


def _defocus_blur(x: Images, level: int, _chance: np.random.Generator) -> Images:
    radius = _pixels(x, (3, 4, 6, 8, 10)[level], (0.6, 0.8, 1.0, 1.3, 1.6)[level])
    reach = int(np.ceil(radius + 0.5))
    away = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    return _kernel(x, np.clip(radius + 0.5 - away, 0, 1))  # a disk whose edge pixels count in part


def _motion_blur(x: Images, level: int, chance: np.random.Generator) -> Images:
    length = _pixels(x, (10, 15, 15, 15, 20)[level], (1.5, 1.8, 2.0, 2.3, 2.6)[level])
    angle = np.deg2rad(chance.uniform(-45, 45))
    reach = int(np.ceil(length / 2))
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    across = np.abs(right * np.sin(angle) - down * np.cos(angle))
    along = np.abs(right * np.cos(angle) + down * np.sin(angle))
    return _kernel(x, np.clip(1 - across, 0, 1) * np.clip(length / 2 + 0.5 - along, 0, 1) + 1e-12)


def _zoom_blur(x: Images, level: int, _chance: np.random.Generator) -> Images:
    from scipy.ndimage import affine_transform  # as above

    most = (1.11, 1.16, 1.21, 1.26, 1.31)[level]
    factors = np.linspace(1, most, 6)[1:]
    total = x.copy()
    middle = (np.array(x.shape[1:3]) - 1) / 2
    for factor in factors:
        offset = middle - middle / factor
        scale, shift = [1, 1 / factor, 1 / factor, 1], [0, *offset, 0]
        total += affine_transform(x, scale, offset=shift, order=1, mode="nearest")
    return total / (len(factors) + 1)


def _fog(x: Images, level: int, chance: np.random.Generator) -> Images:
    from scipy.ndimage import gaussian_filter  # as above

    thick = (1.5, 2.0, 2.5, 2.5, 3.0)[level]
    cloud = np.zeros(x.shape[:3])
    for share in (0.25, 0.12, 0.05):  # octaves of smooth noise stand for the plasma fractal
        sigma = share * min(x.shape[1:3])
        layer = gaussian_filter(chance.normal(size=cloud.shape), (0, sigma, sigma), mode="wrap")
        cloud += share * layer / layer.std()
    cloud -= cloud.min(axis=(1, 2), keepdims=True)
    cloud /= cloud.max(axis=(1, 2), keepdims=True)
    top = x.max(axis=(1, 2, 3), keepdims=True)
    found: Images = (x + thick * cloud[..., None]) * top / (top + thick)
    return found


def _brightness(x: Images, level: int, _chance: np.random.Generator) -> Images:
    return x + (0.1, 0.2, 0.3, 0.4, 0.5)[level]


def _contrast(x: Images, level: int, _chance: np.random.Generator) -> Images:
    mean = x.mean(axis=(1, 2), keepdims=True)
    found: Images = (x - mean) * (0.4, 0.3, 0.2, 0.1, 0.05)[level] + mean
    return found


def _elastic(x: Images, level: int, chance: np.random.Generator) -> Images:
    from scipy.ndimage import gaussian_filter, map_coordinates  # as above

    side = min(x.shape[1:3])
    reach, sigma = (0.02, 0.03, 0.04, 0.06, 0.08)[level] * side, max(0.08 * side, 1.0)
    found = np.empty_like(x)
    grid = np.mgrid[0 : x.shape[1], 0 : x.shape[2]].astype(np.float64)
    for number, image in enumerate(x):
        shift = gaussian_filter(chance.uniform(-1, 1, grid.shape), (0, sigma, sigma))
        where = grid + reach * shift / max(float(np.abs(shift).max()), 1e-9)
        for channel in range(x.shape[3]):
            found[number, :, :, channel] = map_coordinates(image[:, :, channel], where, order=1, mode="reflect")
    return found


def _pixelate(x: Images, level: int, _chance: np.random.Generator) -> Images:
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[level]
    sides = [max(1, round(side * share)) for side in x.shape[1:3]]
    found = x
    for axis, side in zip((1, 2), sides, strict=True):
        bins = np.arange(x.shape[axis]) * side // x.shape[axis]
        starts = np.searchsorted(bins, np.arange(side))
        sums = np.add.reduceat(found, starts, axis=axis) / np.bincount(bins).reshape(
            [-1 if at == axis else 1 for at in range(4)]
        )
        found = np.take(sums, bins, axis=axis)
    return found


def _jpeg(x: Images, level: int, _chance: np.random.Generator) -> Images:
    """Quantise the cosine transform of blocks of 8 x 8, each channel alone, without the subsampling of colours."""
    from scipy.fft import dctn, idctn  # as above

    quality = (25, 18, 15, 10, 7)[level]
    table = np.clip(np.floor((np.array(_JPEG) * (5000 / quality) + 50) / 100), 1, 255)
    count, height, width, channels = x.shape
    padded = np.pad(x, ((0, 0), (0, -height % 8), (0, -width % 8), (0, 0)), mode="edge") * 255 - 128
    rows, columns = padded.shape[1] // 8, padded.shape[2] // 8
    blocks = padded.reshape(count, rows, 8, columns, 8, channels)
    turned = np.round(dctn(blocks, axes=(2, 4), norm="ortho") / table[None, None, :, None, :, None])
    back = idctn(turned * table[None, None, :, None, :, None], axes=(2, 4), norm="ortho")
    whole: Images = (back.reshape(padded.shape)[:, :height, :width] + 128) / 255
    return whole


def _occlusion(x: Images, level: int, chance: np.random.Generator) -> Images:
    """Cover a square with grey, at a place of its own in each image."""
    share = (0.15, 0.25, 0.35, 0.45, 0.55)[level]
    height, width = (max(1, round(side * share)) for side in x.shape[1:3])
    top = chance.integers(0, x.shape[1] - height + 1, len(x))
    left = chance.integers(0, x.shape[2] - width + 1, len(x))
    down, right = np.mgrid[0 : x.shape[1], 0 : x.shape[2]]
    inside = (down - top[:, None, None]) // height == 0
    inside &= (right - left[:, None, None]) // width == 0
    return np.where(inside[..., None], 0.5, x)


CORRUPTIONS: Mapping[str, Corrupt] = {
    "gaussian-noise": _gaussian_noise,
    "shot-noise": _shot_noise,
    "impulse-noise": _impulse_noise,
    "speckle-noise": _speckle_noise,
    "gaussian-blur": _gaussian_blur,
    "defocus-blur": _defocus_blur,
    "motion-blur": _motion_blur,
    "zoom-blur": _zoom_blur,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic": _elastic,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
    "occlusion": _occlusion,
}


class Scale:
    """Between a network's input and images of 0..1: the axes of its channels, and their lowest and highest values."""

    def __init__(self, items: NDArray[Any]) -> None:
        """Learn the range of each channel from uncorrupted items.

        Args:
            items: [n, channels, height, width], [n, height, width, channels] or [n, height, width].
        """
        self.axis = channel_axis(items.shape)
        self.dtype = items.dtype
        images = self._last(np.asarray(items, dtype=np.float64))
        self.low = images.min(axis=(0, 1, 2))
        self.reach = np.maximum(images.max(axis=(0, 1, 2)) - self.low, 1e-12)

    def _last(self, items: NDArray[np.float64]) -> Images:
        if self.axis is None:
            return items[..., None]
        return np.moveaxis(items, self.axis, -1)

    def images(self, items: NDArray[Any]) -> Images:
        """Return items as images: [n, height, width, channels], 0..1."""
        found: Images = (self._last(np.asarray(items, dtype=np.float64)) - self.low) / self.reach
        return found

    def items(self, images: Images) -> NDArray[Any]:
        """Return images as the network takes them."""
        values = images * self.reach + self.low
        values = np.round(values) if np.issubdtype(self.dtype, np.integer) else values
        back = values[..., 0] if self.axis is None else np.moveaxis(values, -1, self.axis)
        return np.ascontiguousarray(back, dtype=self.dtype)


def channel_axis(shape: tuple[int | None, ...]) -> int | None:
    """Return the axis of the channels; ``None`` where images have none.

    Raises:
        ValueError: These are no images.
    """
    if len(shape) == 3:
        return None
    if len(shape) == 4:
        for axis in (1, 3):
            if shape[axis] in {1, 3, 4}:
                return axis
    raise ValueError(f"an input of shape {list(shape)} is no image")
