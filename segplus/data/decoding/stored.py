"""A file as it lies on a disk or in a table: its bytes, its header, and what a decoder's errors mean.

What a file claims is compared with a limit before anything of that size is allocated; what is no file is refused.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

import tifffile
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from segplus.errors import InputError
from segplus.images import RangeError

MAX_PIXELS = 179_000_000  # decoded at once, as Pillow does; a recipe may say another number
ORIENTATION_TAG = 0x0112
LOSSY_FORMATS = frozenset({"JPEG", "MPO"})

# A file as it lies in a table: its path, what the `datasets` library keeps of it, or rows of values.
Stored = str | dict[str, Any] | list[Any]


@contextmanager
def report_damage(source: str) -> Iterator[None]:
    """Turn whatever a damaged file does to a decoder into one message that names the file.

    Raises:
        InputError: In place of the decoder's error.
    """
    try:
        yield
    except (InputError, DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        raise  # a library's word to its callers, where warnings are errors, says nothing of a file
    except FileNotFoundError as error:
        raise InputError(
            f"{source}: no such file", found=error.filename, fix="correct the path or remove the entry"
        ) from None
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{source}: implausibly large image",
            found=error,
            fix="check the file; if it is real, raise data.max_image_megapixels",
        ) from None
    except RangeError as error:
        raise InputError(f"{source}: {error.what}", found=error.found, fix=error.fix) from None
    except UnidentifiedImageError:
        raise InputError(f"{source}: not an image file", fix="replace the file or remove the pair") from None
    except Exception as error:  # OSError, SyntaxError, zlib.error, struct.error, ...: decoders share no parent type
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{source}: damaged or truncated file", found=reason, fix="replace the file or remove the pair"
        ) from None


def stand_in_for_mask(image: str) -> str:
    """Return what stands in a table for the mask of an image that has none: the first class all over."""
    return json.dumps({"unmasked": image})


def is_unmasked(stored: object) -> bool:
    """Return whether `stand_in_for_mask` made this in the place of a mask."""
    return isinstance(stored, str) and stored.startswith('{"unmasked"')


def find_suffix(stored: Stored) -> str:
    """Return the lower-case file suffix of a stored file, or an empty string."""
    path = stored.get("path") if isinstance(stored, dict) else stored if isinstance(stored, str) else None
    return os.path.splitext(path)[1].lower() if path else ""


def open_with_pillow(stored: Stored, max_pixels: int | None = None) -> Image.Image:
    """Return the opened, not yet decoded image of a path or of {"bytes", "path"}.

    Args:
        stored: The file.
        max_pixels: Where the image is decoded: the largest that is. None where its header alone is looked at.
    """
    if max_pixels is not None:
        _admit_to_pillow(max_pixels)
    content = _find_bytes(stored)
    image = _open(find_path(stored), find_suffix(stored)) if content is None else Image.open(io.BytesIO(content))
    if max_pixels is not None and image.width * image.height > max_pixels:
        image.close()
        refuse_large((image.height, image.width), max_pixels)
    if content is not None or not isinstance(image, TiffImagePlugin.TiffImageFile):
        return image
    if image.tag_v2.get(ORIENTATION_TAG, 1) == 1:
        return image
    image.close()
    # Pillow 13 maps plain files of grey into memory with rows of the upright image's width: scrambled pixels.
    return Image.open(io.BytesIO(read_content(stored)))


def _open(path: str, suffix: str) -> Image.Image:
    if suffix in (".tif", ".tiff"):  # which may be read by windows: Pillow's limit is on files
        with suppress(SyntaxError):  # another format, or a type that Pillow has not
            return TiffImagePlugin.TiffImageFile(path)
        _refuse_wide_integers(path)
    return Image.open(path)


def _refuse_wide_integers(path: str) -> None:
    """Raise InputError of a TIFF whose samples are integers of 64 bits, which Pillow calls no image."""
    with suppress(tifffile.TiffFileError, IndexError, KeyError, struct.error), tifffile.TiffFile(path) as file:
        page: Any = file.pages.first
        if page.bitspersample == 64 and page.dtype is not None and page.dtype.kind in "iu":
            raise InputError(
                f"{path}: a TIFF of 64-bit integers",
                found=page.dtype,
                allowed="8 or 16 bits without a sign",
                fix="save it as uint8 or uint16",
            )


def _admit_to_pillow(max_pixels: int) -> None:
    """Raise Pillow's own limit, which is on files and for the process, to what was asked for."""
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > MAX_PIXELS:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)


def refuse_large(size_px: tuple[int, int], max_pixels: int) -> None:
    """Raise what `report_damage` tells where an image, (height, width), is larger than what is decoded at once."""
    if size_px[0] * size_px[1] > max_pixels:
        allowed = f"{max_pixels / 1e6:g} megapixels"
        raise Image.DecompressionBombError(f"{size_px[1]} x {size_px[0]} px; at most {allowed} are decoded at once")


def _find_bytes(stored: Stored) -> bytes | None:
    """Return the content of a file that lies in a table, None of one that lies on a disk."""
    if isinstance(stored, list):
        raise ValueError("rows of values, not a file")
    return bytes(stored["bytes"]) if isinstance(stored, dict) and stored.get("bytes") is not None else None


def find_path(stored: Stored) -> str:
    """Return the path of a file that lies on a disk; of a FIFO, device or socket, which would be waited for, an error.

    Raises:
        ValueError: If it is no regular file.
    """
    path = stored["path"] if isinstance(stored, dict) else stored
    if os.path.exists(path) and not os.path.isfile(path):  # type: ignore[arg-type]
        raise ValueError("not a regular file")
    return str(path)


def is_in_table(stored: Stored) -> bool:
    """Return whether a file's bytes lie in a table."""
    return isinstance(stored, dict) and stored.get("bytes") is not None


def open_binary(stored: Stored) -> IO[bytes]:
    """Return a stored file, opened to be read."""
    content = _find_bytes(stored)
    return open(find_path(stored), "rb") if content is None else io.BytesIO(content)


def read_content(stored: Stored) -> bytes:
    """Return the bytes of a stored file."""
    content = _find_bytes(stored)
    if content is not None:
        return content
    with open_binary(stored) as file:
        return file.read()


def map_content(stored: Stored) -> bytes | mmap.mmap:
    """Return the bytes of a stored file, mapped into memory where it lies on disk: only what is looked at is read."""
    content = _find_bytes(stored)
    if content is not None:
        return content
    with open_binary(stored) as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
