"""Crops of TIFF files: how long one takes as training reads it, beside rasterio (where it is installed) and Pillow.

Every figure is processor time, the least of several passes over the same crops.

    python benchmarks/tiff.py --output benchmarks/tiff.md
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from machine import describe_machine
from PIL import Image

from segplus.data.decoding.image_reader import ImageReader
from segplus.data.decoding.regions import open_image
from segplus.errors import InputError

SIDE_PX, CROP_PX, CROPS = 2048, 512, 12
Box = tuple[int, int, int, int]


def draw(channels: int, dtype: str) -> npt.NDArray[Any]:
    """Return waves with noise, which compress about as photographs do."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    waves = (np.sin(y / 37) + np.cos(x / 53) + 2) * 50
    values = waves[..., None] + rng.integers(0, 12, (SIDE_PX, SIDE_PX, channels))
    return np.asarray(values * (1 if dtype == "uint8" else 37)).astype(dtype)


def list_files() -> dict[str, tuple[npt.NDArray[Any], dict[str, Any]]]:
    """Return a name -> pixels and tifffile's arguments."""
    rgb, channels = draw(3, "uint8"), draw(8, "uint16")
    tiles = {"tile": (256, 256)}
    contiguous = {"photometric": "minisblack", "planarconfig": "contig", **tiles}
    return {
        "RGB, LZW, strips of 8 rows": (rgb, {"compression": "lzw", "rowsperstrip": 8}),
        "RGB, LZW with differences, tiles": (rgb, {"compression": "lzw", "predictor": True, **tiles}),
        "RGB, uncompressed, strips of 8 rows": (rgb, {"rowsperstrip": 8}),
        "8 channels of 16 bits, Deflate, tiles": (channels, {"compression": "zlib", **contiguous}),
        "8 channels of 16 bits, one after the other": (
            np.moveaxis(channels, -1, 0),
            {**contiguous, "compression": "zlib", "planarconfig": "separate"},
        ),
        "BigTIFF, 8 channels of 16 bits, ZSTD, tiles": (
            channels,
            {"compression": "zstd", "bigtiff": True, **contiguous},
        ),
    }


def read_with_segplus(path: str, channels: int, box: Box) -> npt.NDArray[Any]:
    """Return the crop as training reads it."""
    return open_image(ImageReader(channels), path, path).read(box)


def read_with_rasterio(path: str, _channels: int, box: Box) -> npt.NDArray[Any]:
    """Return the crop by GDAL's windows."""
    import rasterio
    from rasterio.windows import Window

    with rasterio.open(path) as file:
        return np.moveaxis(file.read(window=Window(box[1], box[0], box[3], box[2])), 0, -1)


def read_with_pillow(path: str, _channels: int, box: Box) -> npt.NDArray[Any]:
    """Return the crop of the decoded whole."""
    with Image.open(path) as image:
        return np.asarray(image)[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]


def measure(read: Callable[..., npt.NDArray[Any]], path: str, channels: int, count: int) -> float:
    """Return milliseconds of processor time a crop."""
    rng = np.random.default_rng(1)
    boxes = [(*rng.integers(0, SIDE_PX - CROP_PX, 2).tolist(), CROP_PX, CROP_PX) for _ in range(CROPS)]
    passes = []
    for _ in range(count):
        started = time.process_time()
        for box in boxes:
            read(path, channels, box)
        passes.append((time.process_time() - started) / CROPS * 1000)
    return min(passes)


def render(count: int) -> str:
    """Return the table as Markdown."""
    ways = {"segplus": read_with_segplus, "Pillow, whole": read_with_pillow}
    if importlib.util.find_spec("rasterio"):
        ways["rasterio"] = read_with_rasterio
    lines = ["# Crops of TIFF files", "", "Written by `python benchmarks/tiff.py`.", ""]
    lines += [f"Milliseconds of processor time a {CROP_PX}x{CROP_PX} crop of {SIDE_PX}x{SIDE_PX}.", ""]
    lines += [f"| File | {' | '.join(ways)} |", f"|---|{'---:|' * len(ways)}"]
    with tempfile.TemporaryDirectory() as folder:
        for index, (name, (pixels, options)) in enumerate(list_files().items()):
            path = str(Path(folder) / f"{index}.tif")
            tifffile.imwrite(path, pixels, **options)
            cells = []
            for read in ways.values():
                try:
                    cells.append(f"{measure(read, path, min(pixels.shape), count):.1f}")
                except (InputError, OSError):
                    cells.append("not read")
            lines.append(f"| {name} | {' | '.join(cells)} |")
    peers = [name for name in ("rasterio",) if name in ways]
    lines += ["", *describe_machine("tifffile", "imagecodecs", "pillow", *peers)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    text = render(options.passes)
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
