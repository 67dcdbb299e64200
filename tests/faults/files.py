"""Files of images and arrays, sound and damaged, that images and masks share."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

FOREIGN: dict[str, bytes] = {
    "empty": b"", "one byte": b"\x00", "HTML": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "NUL bytes": b"\x00" * 4000,
    "a text": b"this is no image\n" * 20, "JSON": b'{"error": "rate limit"}', "gzip": b"\x1f\x8b\x08" + b"\x00" * 50,
    "a PDF": b"%PDF-1.4\n%\xe2\xe3\n1 0 obj\n",
    "a pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
    "an SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "a zip": b"PK\x03\x04" + b"\x00" * 40,
}  # fmt: skip


def encode(pixels: np.ndarray[Any, Any], format_: str, mode: str | None = None) -> bytes:
    """Return pixels as a file of Pillow's format."""
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(buffer, format_)
    return buffer.getvalue()


def claim_png_size(width: int, height: int) -> bytes:
    """Return a PNG of some bytes whose header states a size, check sums in order."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\x00" * 100)), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def claim_bmp_size(width: int, height: int) -> bytes:
    """Return a BMP of some bytes whose header states a size."""
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 64, 0, 0, 54) + head + bytes(64)


def claim_tiff_size(width: int, height: int, samples: int = 1) -> bytes:
    """Return a TIFF of some bytes whose tags state a size."""
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
            (277, 3, 1, samples), (278, 4, 1, height), (279, 4, 1, 64)]  # fmt: skip
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\x00" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + body + bytes(4 + 64)


def claim_npy_shape(shape: tuple[Any, ...] | str, descr: str = "|u1") -> bytes:
    """Return a .npy file of some bytes whose header states a shape."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode("latin-1") + bytes(64)


def save_npy(array: np.ndarray[Any, Any]) -> bytes:
    """Return an array as a .npy file, pickled where its type asks for it."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def zip_members(members: dict[str, bytes], compressed: bool = True) -> bytes:
    """Return a zip file (.npz) with these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def damage(content: bytes, rng: Random) -> tuple[str, bytes]:
    """Return what was done, and the content cut, zeroed, or with some bytes changed."""
    how, size = rng.choice(("cut", "zeroed", "flipped", "doubled")), len(content)
    place = rng.randrange(1, size)
    if how == "cut":
        return f"cut after {place} of {size} bytes", content[:place]
    if how == "zeroed":
        length = min(size - place, rng.randrange(1, 200))
        return f"{length} bytes zeroed from {place} of {size}", content[:place] + bytes(length) + content[
            place + length :
        ]
    if how == "doubled":
        return f"the first {place} bytes twice", content[:place] + content
    changed = bytearray(content)
    places = [rng.randrange(size) for _ in range(rng.randrange(1, 12))]
    for at in places:
        changed[at] ^= 1 << rng.randrange(8)
    return f"bits flipped at {places[:5]} of {size}", bytes(changed)


def make_special(path: Path, what: str) -> None:
    """Put something that is no regular file in the place of a file."""
    path.unlink(missing_ok=True)
    if what == "a FIFO":
        os.mkfifo(path)
    elif what == "a folder":
        path.mkdir()
    elif what == "a link to itself":
        path.symlink_to(path.name)
    else:
        path.symlink_to({"a link to nothing": "nowhere", "a link to /dev/zero": "/dev/zero"}[what])


SPECIAL = ("a FIFO", "a folder", "a link to itself", "a link to nothing", "a link to /dev/zero")


def dump(value: object) -> str:
    """Return JSON."""
    return json.dumps(value)
