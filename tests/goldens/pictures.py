"""Draws the small pictures that hold decoding and resizing against Pillow (python3 -m pip install pillow numpy).

Run from anywhere: python3 tests/goldens/pictures.py. Writes tests/goldens/pictures/. The drawing is the script's own.
"""

from pathlib import Path

import numpy as np
from PIL import Image

OUT = Path(__file__).parent / "pictures"
OUT.mkdir(exist_ok=True)


def draw(width, height):
    """Smooth colour, hard edges and fine texture, so that every weight of a filter shows."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    r = 128 + 90 * np.sin(x / 9) * np.cos(y / 13)
    g = np.where((x // 7 + y // 5) % 2 == 0, 220, 30)
    b = (x * 255 / (width - 1) + y * 255 / (height - 1)) / 2
    return Image.fromarray(np.stack([r, g, b], -1).round().clip(0, 255).astype(np.uint8))


source = draw(151, 109)
source.save(OUT / "resize_source.png", optimize=True)
for size in [(64, 64), (96, 40), (150, 128)]:
    resized = source.resize(size, Image.Resampling.BILINEAR)
    resized.save(OUT / f"resize_{size[0]}x{size[1]}.png", optimize=True)

small = draw(45, 31)
small.save(OUT / "rgb.png", optimize=True)
small.convert("L").save(OUT / "grey.png", optimize=True)
small.save(OUT / "rgb_lzw.tiff", compression="tiff_lzw")
small.save(OUT / "rgb.bmp")
small.quantize(16).save(OUT / "palette.png")
small.quantize(16).convert("RGB").save(OUT / "palette_as_rgb.png", optimize=True)
small.quantize(16).save(OUT / "palette.bmp")
small.convert("RGBA").save(OUT / "alpha.png", optimize=True)
grey = np.asarray(small.convert("L")).astype(np.uint16)
Image.fromarray(grey * 257).save(OUT / "grey16.png")
Image.fromarray(grey * 257).save(OUT / "grey16.tiff")
Image.fromarray(grey.astype(np.float32)).save(OUT / "float.tiff")
small.convert("CMYK").save(OUT / "cmyk.jpg", quality=80)
small.convert("CMYK").save(OUT / "cmyk.tiff", compression="tiff_lzw")
small.quantize(16).save(OUT / "palette.tiff")
for mode in ["RGB", "L"]:
    small.convert(mode).save(OUT / f"jpeg_{mode.lower()}.tiff", compression="jpeg", quality=90)
small.convert("L").save(OUT / "grey.jpg", quality=90)
variants = {
    "444": dict(subsampling=0),
    "422": dict(subsampling=1),
    "420": dict(subsampling=2),
    "restarts": dict(subsampling=2, restart_marker_blocks=2),
    "progressive": dict(subsampling=2, progressive=True),
    "optimized": dict(subsampling=1, optimize=True),
}
for name, options in variants.items():
    path = OUT / f"{name}.jpg"
    small.save(path, quality=90, **options)
    Image.open(path).convert("RGB").save(OUT / f"{name}_as_rgb.png", optimize=True)
