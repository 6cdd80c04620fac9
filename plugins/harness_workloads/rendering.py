"""Render characters from the fonts that ship with matplotlib, with a seeded warp, colours, noise and occlusion."""

from __future__ import annotations

import string
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import MissingDependency, SplitName, Unsupported

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

CLASSES = string.ascii_uppercase + string.digits
SIDE = 32  # pixels of an item
MASTER = 72  # pixels of the master of each font and class, from which items are warped

# text faces only: each split has a sans, a mono and a serif face of its own; calibration draws other items of train's
FONTS: Mapping[str, tuple[str, ...]] = {
    "train": (
        "DejaVuSans", "DejaVuSans-BoldOblique", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSerif",
        "DejaVuSerif-BoldItalic", "STIXGeneral", "STIXGeneralBolIta", "cmr10", "cmss10", "cmti10",
    ),
    "selection": ("DejaVuSans-Bold", "DejaVuSansMono-BoldOblique", "DejaVuSerif-Italic", "STIXGeneralBol"),
    "test": (
        "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif-Bold", "STIXGeneralItalic", "cmb10", "cmtt10",
    ),
}  # fmt: skip
SEEDS: Mapping[SplitName, int] = {"train": 1, "calibration": 2, "selection": 3, "test": 4}


def font_files(split: SplitName) -> tuple[Path, ...]:
    """Return the font files of a split.

    Raises:
        MissingDependency: matplotlib is not installed.
        Unsupported: This matplotlib ships without one of the fonts, or the font without one of the characters.
    """
    try:
        import matplotlib as mpl
        from matplotlib.ft2font import FT2Font
    except ImportError as error:
        raise MissingDependency(
            "the glyphs are rendered from fonts of matplotlib, which is not installed",
            hint="pip install 'compression-harness[workloads]'",
        ) from error
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    files = tuple(folder / f"{name}.ttf" for name in FONTS["train" if split == "calibration" else split])
    for file in files:
        if not file.is_file():
            raise Unsupported(f"matplotlib {mpl.__version__} ships no font {file.name}")
        if not {ord(c) for c in CLASSES} <= set(FT2Font(str(file)).get_charmap()):
            raise Unsupported(f"font {file.name} of matplotlib {mpl.__version__} lacks some of the characters")
    return files


@lru_cache(maxsize=64)
def _masters(file: Path) -> tuple[Any, ...]:
    """Draw each character once, centred and as large as the master allows; PIL images in mode L."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise MissingDependency(
            "the glyphs are rendered with pillow, which is not installed",
            hint="pip install 'compression-harness[workloads]'",
        ) from error
    font = ImageFont.truetype(str(file), round(MASTER * 0.75))
    images = []
    for character in CLASSES:
        image = Image.new("L", (MASTER, MASTER))
        left, top, right, bottom = font.getbbox(character)
        at = ((MASTER - left - right) / 2, (MASTER - top - bottom) / 2)
        ImageDraw.Draw(image).text(at, character, fill=255, font=font)
        images.append(image)
    return tuple(images)


def _affine(generator: np.random.Generator, count: int, strength: float) -> Array:
    """Return for each item the map from its pixels to the master's: rows (a, b, c, d, e, f) as PIL takes them."""
    angle = generator.uniform(-0.25, 0.25, count) * strength
    shear = generator.uniform(-0.25, 0.25, count) * strength
    scale = generator.uniform(0.75, 1.1, (2, count)) * MASTER / SIDE / 1.1
    shift = generator.uniform(-3, 3, (2, count)) * strength
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = cos * scale[0], (-sin + shear * cos) * scale[1]
    d, e = sin * scale[0], (cos + shear * sin) * scale[1]
    x, y = SIDE / 2 + shift[0], SIDE / 2 + shift[1]
    c, f = MASTER / 2 - a * x - b * y, MASTER / 2 - d * x - e * y
    return np.stack([a, b, c, d, e, f], axis=1)


def _masks(files: tuple[Path, ...], classes: Array, generator: np.random.Generator, strength: float) -> Array:
    from PIL import Image

    maps = _affine(generator, len(classes), strength)
    fonts = generator.integers(len(files), size=len(classes))
    masks = np.empty((len(classes), SIDE, SIDE), np.float32)
    for i, (font, label) in enumerate(zip(fonts, classes, strict=True)):
        master = _masters(files[font])[label]
        masks[i] = master.transform((SIDE, SIDE), Image.Transform.AFFINE, tuple(maps[i]), Image.Resampling.BILINEAR)
    return masks / 255


def _occlude(images: Array, generator: np.random.Generator, strength: float) -> None:
    """Cover a bar of each image in a random colour, in place."""
    count = len(images)
    sizes = np.round(generator.uniform(2, 8, (2, count)) * strength).astype(int)
    starts = np.round(generator.uniform(0, 1, (2, count)) * (SIDE - sizes)).astype(int)
    colours = generator.uniform(0, 1, (count, 3)).astype(np.float32)
    for i in range(count):
        (top, left), (height, width) = starts[:, i], sizes[:, i]
        images[i, :, top : top + height, left : left + width] = colours[i][:, None, None]


def _coloured(masks: Array, generator: np.random.Generator) -> Array:
    """Paint masks [n, s, s] in a colour on a background that shades into another: [n, 3, s, s], 0..1."""
    count = len(masks)
    back = generator.uniform(0, 1, (count, 3)).astype(np.float32)
    contrast = generator.uniform(0.4, 0.9, (count, 1)).astype(np.float32)
    direction = generator.normal(size=(count, 3)).astype(np.float32)
    direction /= np.abs(direction).max(axis=1, keepdims=True)
    flip = np.where(np.abs(back + contrast * direction - 0.5) > np.abs(back - contrast * direction - 0.5), -1, 1)
    front = np.clip(back + flip * contrast * direction, 0, 1)
    slope = generator.uniform(-0.3, 0.3, (count, 3)).astype(np.float32)[:, :, None, None]
    shade = slope * np.linspace(-0.5, 0.5, SIDE, dtype=np.float32)[:, None]
    cover = masks[:, None]
    return np.asarray(back[:, :, None, None] * (1 - cover) + front[:, :, None, None] * cover + shade, np.float32)


def render(split: SplitName, items: int, strength: float) -> tuple[Array, Array]:
    """Return images [items, 3, 32, 32], normalised, and their classes; equal for equal arguments.

    Args:
        split: Decides fonts and seed.
        items: How many; classes and fonts are drawn uniformly.
        strength: Scales warp, occlusion and noise.
    """
    generator = np.random.default_rng([SEEDS[split], items])
    classes = generator.integers(len(CLASSES), size=items)
    images = _coloured(_masks(font_files(split), classes, generator, strength), generator)
    _occlude(images, generator, strength)
    deviation = generator.uniform(0.01, 0.1, (items, 1, 1, 1)).astype(np.float32) * strength
    images += deviation * generator.standard_normal(images.shape, dtype=np.float32)
    np.clip(images, 0, 1, out=images)
    return (images - 0.5) / 0.29, classes.astype(np.int64)
