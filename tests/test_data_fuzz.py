"""Five hundred damaged files: each ends in an error that names it, or is read exactly as any decoder reads it."""

from __future__ import annotations

import io
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segplus.data import SegmentationSplit, inspect_dataset, load_segmentation_dataset
from segplus.data.dataset import Pair
from segplus.errors import InputError

SIZE = (40, 56)
KINDS = ("truncated", "wrong type", "empty", "huge header", "bit flips in a mask", "bit flips in an image", "cut array")
FORMATS = ("PNG", "TIFF", "GIF", "BMP", "NPY")


def encode(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "NPY":
        np.save(buffer, pixels)
    else:
        Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def flip_bits(content: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        place = int(rng.integers(0, len(damaged)))
        damaged[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(damaged)


def claim_huge_size(content: bytes, kind: str) -> bytes:
    if kind == "PNG":
        header = struct.pack(">II", 60_000, 60_000) + content[24:29]
        return content[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + content[33:]
    if kind == "NPY":
        return resize_array_header(content)
    if kind == "BMP":
        return content[:18] + struct.pack("<ii", 60_000, 60_000) + content[26:]
    if kind == "GIF":
        return content[:6] + struct.pack("<HH", 65_000, 65_000) + content[10:]
    return content[: len(content) // 3]


def resize_array_header(content: bytes) -> bytes:
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (900000, 900000), }".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + content[128:]


def damage(content: bytes, kind: str, file_format: str, rng: np.random.Generator) -> bytes:
    if kind in ("truncated", "cut array"):
        return content[: int(rng.integers(1, max(2, len(content) - 8)))]
    if kind == "wrong type":
        return bytes(rng.integers(0, 256, 300, dtype=np.uint8)) if rng.random() < 0.5 else b"<html>not found</html>" * 9
    if kind == "empty":
        return b""
    if kind == "huge header":
        return claim_huge_size(content, file_format)
    return flip_bits(content, rng)


def save_specimen(root: Path, number: int, rng: np.random.Generator) -> tuple[str, str, Path]:
    """Save one pair of which one file is damaged, and return its kind, format and damaged file."""
    kind = KINDS[number % len(KINDS)]
    file_format = "NPY" if kind == "cut array" else FORMATS[number // len(KINDS) % len(FORMATS)]
    image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    ids = (rng.random(SIZE) < 0.3).astype(np.uint8)
    suffix = {"PNG": ".png", "TIFF": ".tif", "GIF": ".gif", "BMP": ".bmp", "NPY": ".npy"}[file_format]
    in_image = kind == "bit flips in an image" or (kind in ("truncated", "empty", "wrong type") and number % 2 == 0)
    names = {"images": suffix if in_image else ".png", "masks": ".png" if in_image else suffix}
    contents = {
        "images": encode(image, file_format if in_image else "PNG"),
        "masks": encode(ids, "PNG" if in_image else file_format),
    }
    target = "images" if in_image else "masks"
    contents[target] = damage(contents[target], kind, file_format, rng)
    for folder, content in contents.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / f"p{number:03d}{names[folder]}").write_bytes(content)
    return kind, file_format, root / target / f"p{number:03d}{names[target]}"


def read_pair(split: SegmentationSplit, index: int) -> Pair | InputError:
    try:
        return split[index]
    except InputError as error:
        return error


@pytest.mark.timeout(240)
def test_damaged_files_end_in_named_errors(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    specimens = [save_specimen(tmp_path, number, rng) for number in range(500)]
    section = {"dataset": str(tmp_path), "classes": ["ground", "thing"], "validation_share": 0.0, "encoding": "palette"}
    split = load_segmentation_dataset(section).splits["train"]
    assert len(split) == 500
    outcomes: Counter[tuple[str, str]] = Counter()
    for index, (kind, _, path) in enumerate(specimens):
        pair = read_pair(split, index)
        if isinstance(pair, InputError):
            assert path.name in str(pair)
            outcomes[kind, "refused"] += 1
            continue
        # Damage that a decoder cannot see leaves a picture of the right size and only labels that exist.
        assert pair["label"].shape == SIZE
        assert set(np.unique(pair["label"])) <= {0, 1, 255}
        assert "bit flips" in kind or kind in ("truncated", "huge header"), path
        outcomes[kind, "read"] += 1
    for kind in ("wrong type", "empty", "cut array"):
        assert outcomes[kind, "read"] == 0
    assert outcomes["bit flips in a mask", "refused"] > 30
    assert inspect_dataset(section, progress=False).exit_code == 1
