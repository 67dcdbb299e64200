"""What a decoder's errors are told as: a damaged file only where it is the file's fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import UnidentifiedImageError

from segplus.data.decoding.stored import open_with_pillow, report_damage
from segplus.errors import InputError


def raise_inside(error: Exception) -> None:
    with report_damage("a.png"):
        raise error


def test_a_librarys_deprecation_says_nothing_of_a_file() -> None:
    with pytest.raises(DeprecationWarning, match="old"):
        raise_inside(DeprecationWarning("old"))
    with pytest.raises(InputError, match=r"a\.png: damaged or truncated file\n  found: OSError: short"):
        raise_inside(OSError("short"))


def test_a_tiff_of_64_bit_integers_is_called_so(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 6), dtype=np.int64))
    with pytest.raises(InputError, match=r"a\.tif: a TIFF of 64-bit integers\n  found: int64") as refused:
        open_with_pillow(str(tmp_path / "a.tif"))
    assert refused.value.fix == "save it as uint8 or uint16"
    (tmp_path / "b.tif").write_bytes(b"no image at all")
    with pytest.raises(UnidentifiedImageError):
        open_with_pillow(str(tmp_path / "b.tif"))
