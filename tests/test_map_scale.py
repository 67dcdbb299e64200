"""The size of a pixel on the ground, from the tags that GeoTIFFs have, and areas in square metres from it."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from test_inference_commands import write_model

from segplus.__main__ import main
from segplus.data.decoding.map_scale import read_map_scale
from segplus.errors import InputError
from segplus.inference.object_measurements import measure_classes, state_areas, tabulate_images

UTM = {1024: 1, 3072: 25832, 3076: 9001}  # projected, ETRS89 / UTM zone 32N, metres


def write_geotiff(
    path: Path, pixels: npt.NDArray[np.uint8], keys: Mapping[int, int], scale: tuple[float, float] = (0.1, 0.1)
) -> None:
    """Write a tiled GeoTIFF; `keys` are its GeoKeys, `scale` is the width and height of a pixel."""
    words = [1, 1, 0, len(keys), *(word for key, value in keys.items() for word in (key, 0, 1, value))]
    tags = [(33550, "d", 3, (*scale, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 5e6, 0.0), True)]
    tags.append((34735, "H", len(words), tuple(words), True))
    kind = "rgb" if pixels.ndim == 3 else "minisblack"
    tifffile.imwrite(path, pixels, photometric=kind, tile=(64, 64), compression="deflate", extratags=tags)


@pytest.mark.parametrize(
    ("unit", "expected"), [(9001, (250.0, 500.0)), (9002, (76.2, 152.4)), (9003, (76.2001524, 152.4003048))]
)
def test_metres_and_feet(tmp_path: Path, unit: int, expected: tuple[float, float]) -> None:
    write_geotiff(tmp_path / "a.tif", np.zeros((8, 6, 3), np.uint8), {**UTM, 3076: unit}, scale=(0.5, 0.25))
    assert read_map_scale(str(tmp_path / "a.tif"), "a") == pytest.approx(expected)


def test_a_file_in_a_table(tmp_path: Path) -> None:
    write_geotiff(tmp_path / "a.tif", np.zeros((8, 6, 3), np.uint8), UTM)
    stored = {"bytes": (tmp_path / "a.tif").read_bytes(), "path": "a.tif"}
    assert read_map_scale(stored, "a") == pytest.approx((100.0, 100.0))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({1024: 2, 2048: 4326}, "a: the map's coordinates are not lengths"),
        ({**UTM, 3072: 3857}, "a: the map's metres are not metres on the ground"),
        ({1024: 1, 3072: 25832}, "a: the map's unit is not known"),
        ({**UTM, 3076: 9036}, "a: the map's unit is not known\n  found: 9036"),
    ],
)
def test_what_is_no_length_on_the_ground(tmp_path: Path, keys: dict[int, int], message: str) -> None:
    write_geotiff(tmp_path / "a.tif", np.zeros((8, 6, 3), np.uint8), keys)
    with pytest.raises(InputError, match=message) as caught:
        read_map_scale(str(tmp_path / "a.tif"), "a")
    assert "--pixel-size 0.5m" in str(caught.value)


def test_files_without_a_map(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 6, 3), np.uint8), photometric="rgb")
    (tmp_path / "b.tif").write_bytes(b"II*\0 no TIFF")
    for name in ("a.tif", "b.tif", "c.png"):
        assert read_map_scale(str(tmp_path / name), name) is None


@pytest.mark.parametrize(("side_mm", "unit", "area"), [(10.0, "m2", 0.0006), (9.0, "mm2", 486.0)])
def test_areas_are_square_metres_from_a_centimetre_on(side_mm: float, unit: str, area: float) -> None:
    labels = np.array([[1, 1, 1, 0], [1, 1, 1, 0]], np.uint8)
    classes = measure_classes(labels, ["ground", "house", "water"], (side_mm, side_mm))
    one = {"class": "house", "area_px": 6, "area_mm2": classes["house"]["area_mm2"]}
    record = {"image": "a", "height_px": 2, "width_px": 4, "classes": classes, "objects": [one]}
    (stated,) = state_areas([record])
    assert stated["objects"] == [{"class": "house", "area_px": 6, f"area_{unit}": pytest.approx(area)}]
    (row,) = tabulate_images([stated], ["ground", "house", "water"], ["house"])
    assert row[f"area_{unit}/house"] == pytest.approx(area)
    assert row[f"area_{unit}/water"] == 0
    assert [key for key in row if key.startswith("area_") and not key.startswith((f"area_{unit}/", "area_px/"))] == []


def test_areas_of_a_geotiff_in_table_and_gallery(tmp_path: Path) -> None:
    (tmp_path / "flight").mkdir()
    rng = np.random.default_rng(0)
    write_geotiff(tmp_path / "flight" / "a.tif", rng.integers(0, 256, (40, 48, 3), dtype=np.uint8), UTM, (0.5, 0.25))
    command = ["predict", write_model(tmp_path / "model"), str(tmp_path / "flight"), "-o", str(tmp_path / "out")]
    assert main([*command, "--measure", "areas.csv", "--gallery", "--pixel-size", "file"]) == 0
    with (tmp_path / "out" / "areas.csv").open() as file:
        (row,) = csv.DictReader(file)
    areas = [float(value) for key, value in row.items() if key.startswith("area_m2/")]
    assert len(areas) == 4
    assert sum(areas) == pytest.approx(40 * 48 * 0.125)
    assert " m² (" in (tmp_path / "out" / "index.html").read_text()
