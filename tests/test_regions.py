"""Rectangles of images and masks have the pixels of the whole, whatever the format; less is read where it allows."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, PngImagePlugin
from test_masks import build_tiff, read_tiff_channels, write_tags
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from segplus.classes import ClassMap
from segplus.data import SegmentationSplit, load_segmentation_dataset
from segplus.data.cache import open_cache
from segplus.data.decoding.headers import find_plain_jpeg_size, shorten_jpeg, shorten_png
from segplus.data.decoding.image_reader import ImageReader, find_orientation, read_size
from segplus.data.decoding.masks import MaskDecoder
from segplus.data.decoding.quick_decoders import decode_bare_png, decode_jpeg, find_bare_type
from segplus.data.decoding.regions import open_image, open_label
from segplus.data.decoding.tiff import read_layout, read_tiff_box
from segplus.data.synthetic.scenes import SyntheticScenes
from segplus.errors import InputError
from segplus.images import ImageRange
from segplus.recipe.transforms_section import TransformsRecipe
from segplus.training.sets import TrainingSet
from segplus.transforms import PRESETS, TrainingTransform, WholePair
from segplus.transforms.geometry import cut_image, draw_cut, find_box

SIZE = (90, 122)
BOXES = [
    (0, 0, *SIZE),
    (0, 0, 1, 1),
    (89, 121, 1, 1),
    (13, 40, 30, 51),
    (16, 32, 16, 16),
    (63, 0, 27, 122),
    (7, 99, 55, 23),
]


def take(pixels: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    return pixels[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]


def draw_image(seed: int = 0) -> np.ndarray:
    """Return an image with edges, gradients and noise, so that a wrong pixel shows."""
    scene = SyntheticScenes(1, SIZE, seed=seed).draw(0)[0].astype(int)
    return (scene + np.random.default_rng(seed).integers(-9, 10, scene.shape)).clip(0, 255).astype(np.uint8)


def check_image(reader: ImageReader, path: Path) -> None:
    whole = np.asarray(reader.read(str(path), path.name))
    assert np.ptp(whole) > 0
    for stored in (str(path), {"bytes": path.read_bytes(), "path": path.name}):
        opened = open_image(reader, stored, path.name)
        assert opened.size_px == whole.shape[:2] == read_size(stored, path.name)
        for box in BOXES:
            pixels = opened.read(box)
            assert pixels.dtype == whole.dtype
            np.testing.assert_array_equal(pixels, take(whole, box))


JPEG_SETTINGS: dict[str, dict[str, Any]] = {
    "444": {"subsampling": 0, "quality": 95},
    "422": {"subsampling": 1},
    "420": {"subsampling": 2},
    "420 rough": {"subsampling": 2, "quality": 20, "optimize": True},
    "progressive": {"progressive": True, "subsampling": 2},
    "progressive 444": {"progressive": True, "subsampling": 0},
    "restarts": {"restart_marker_rows": 1},
    "RGB inside": {"keep_rgb": True},
    "progressive restarts": {"progressive": True, "restart_marker_blocks": 3},
}


@pytest.mark.parametrize("name", list(JPEG_SETTINGS))
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg(tmp_path: Path, name: str, mode: str) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(draw_image()).convert(mode).save(path, **JPEG_SETTINGS[name])
    check_image(ImageReader(), path)


@pytest.mark.parametrize("name", list(JPEG_SETTINGS))
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_opencv_decodes_what_pillow_does(name: str, mode: str) -> None:
    content = io.BytesIO()
    Image.fromarray(draw_image(3)).convert(mode).save(content, "JPEG", **JPEG_SETTINGS[name])
    decoded = decode_jpeg(content.getvalue())
    assert decoded is not None
    np.testing.assert_array_equal(decoded, np.asarray(Image.open(content).convert("RGB")))
    assert decode_jpeg(content.getvalue()[:-200]) is None
    assert decode_jpeg(content.getvalue() + b"\0") is None
    assert decode_jpeg(b"no image\xff\xd9") is None


def test_plain_jpegs_are_known_by_their_header() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    answers = []
    for mode, options in (("RGB", {}), ("L", {}), ("CMYK", {}), ("RGB", {"exif": exif}), ("RGB", {"xmp": b"<x/>"})):
        content = io.BytesIO()
        Image.fromarray(draw_image()).convert(mode).save(content, "JPEG", **options)
        answers.append(find_plain_jpeg_size(content.getvalue()))
    assert answers == [SIZE, SIZE, None, None, None]
    png = io.BytesIO()
    Image.fromarray(draw_image()).save(png, "PNG")
    assert find_plain_jpeg_size(png.getvalue()) is find_plain_jpeg_size(b"") is None


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGB", "RGBA", "I;16", "transparent", "text"])
def test_bare_png_alone_is_decoded_without_pillow(mode: str) -> None:
    content = io.BytesIO()
    options: dict[str, Any] = {}
    grey = np.random.default_rng(2).integers(0, 256, SIZE, dtype=np.uint8)
    if mode == "transparent":
        options["transparency"] = 3
    elif mode == "text":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("made by", "hand")
    image = Image.fromarray(grey.astype(np.uint16)) if mode == "I;16" else Image.fromarray(grey)
    image = image.convert(mode) if mode in ("P", "1", "LA", "RGB", "RGBA") else image
    image.save(content, "PNG", **options)
    kinds = {"L": "grey", "I;16": "grey", "P": "palette", "RGB": "colors", "RGBA": "colors"}
    assert find_bare_type(content.getvalue()) == kinds.get(mode, "")
    if mode in kinds:
        decoded = decode_bare_png(content.getvalue())
        wanted = np.asarray(Image.open(content))
        np.testing.assert_array_equal(decoded, wanted)
        assert decoded.dtype == wanted.dtype


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_turned_images(tmp_path: Path, orientation: int, suffix: str) -> None:
    image = Image.fromarray(draw_image()[:, :90])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    image.save(path, exif=exif)
    opened, whole = open_image(ImageReader(), str(path), "a"), np.asarray(ImageReader().read(str(path), "a"))
    np.testing.assert_array_equal(opened.read((5, 20, 60, 31)), take(whole, (5, 20, 60, 31)))


def test_a_jpeg_is_cut_one_row_of_blocks_below() -> None:
    content = io.BytesIO()
    Image.fromarray(draw_image()).save(content, "JPEG", subsampling=2)
    heights = []
    for rows in (1, 16, 17, 48, 64, 65, 90):
        with Image.open(io.BytesIO(shorten_jpeg(content.getvalue(), rows))) as image:
            heights.append(image.height)
    assert heights == [32, 32, 48, 64, 80, 90, 90]  # blocks of 16 rows; where nothing is saved, the file stays


def test_what_is_no_frame_stays() -> None:
    for content in (
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xda\0\x08" + bytes(20),
        b"GIF89a" + bytes(20),
        b"\xff\xd8" + b"\xff" * 40,
    ):
        assert shorten_jpeg(content, 1) == content
    arithmetic = b"\xff\xd8\xff\xc9\0\x11\x08\0\x40\0\x40\x03" + bytes(20)
    assert shorten_jpeg(arithmetic, 1) == arithmetic


def join_png(header: bytes, pixels: bytes, *more: tuple[bytes, bytes], idat_bytes: int = 1 << 30) -> bytes:
    packed = zlib.compress(pixels)
    chunks = [(b"IHDR", header)]
    chunks += [(b"IDAT", packed[start : start + idat_bytes]) for start in range(0, len(packed), idat_bytes)]
    content = b"\x89PNG\r\n\x1a\n"
    for name, body in (*chunks, *more, (b"IEND", b"")):
        content += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return content


@pytest.mark.parametrize(
    "mode", ["RGB", "L", "P", "RGBA", "LA", "1", "I;16", "interlaced", "small chunks", "transparent", "deep"]
)
def test_png(tmp_path: Path, mode: str) -> None:
    path, image = tmp_path / "a.png", draw_image()
    rows = np.concatenate((np.zeros((SIZE[0], 1), np.uint8), image.reshape(SIZE[0], -1)), axis=1)
    header = struct.pack(">IIBBBBB", SIZE[1], SIZE[0], 8, 2, 0, 0, 0)
    if mode == "interlaced":
        grey = image[..., 0]
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        images = [np.pad(grey[y::dy, x::dx], ((0, 0), (1, 0))).tobytes() for y, x, dy, dx in passes]
        path.write_bytes(join_png(struct.pack(">IIBBBBB", SIZE[1], SIZE[0], 8, 0, 0, 0, 1), b"".join(images)))
    elif mode == "small chunks":
        path.write_bytes(join_png(header, rows.tobytes(), idat_bytes=100))
    elif mode == "deep":
        deep = np.pad(image.astype(">u2").view(np.uint8).reshape(SIZE[0], -1), ((0, 0), (1, 0)))
        path.write_bytes(join_png(struct.pack(">IIBBBBB", SIZE[1], SIZE[0], 16, 2, 0, 0, 0), deep.tobytes()))
        image = image * 0 + 1
    elif mode == "transparent":
        Image.fromarray(image).save(path, transparency=tuple(image[0, 0].tolist()))
    elif mode == "I;16":
        Image.fromarray(image[..., 0].astype(np.uint16) * 200).save(path)
    else:
        Image.fromarray(image).convert(mode).save(path)
    if mode != "deep":
        check_image(ImageReader(), path)
    else:
        opened, whole = open_image(ImageReader(), str(path), "a"), np.asarray(ImageReader().read(str(path), "a"))
        np.testing.assert_array_equal(opened.read((3, 4, 50, 60)), take(whole, (3, 4, 50, 60)))


def test_orientation_behind_the_pixels_of_a_png() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    header = struct.pack(">IIBBBBB", 2, 3, 8, 0, 0, 0, 0)
    content = join_png(header, bytes([0, 1, 2, 0, 3, 4, 0, 5, 6]), (b"eXIf", exif.tobytes()[6:]))
    assert read_size({"bytes": content}, "a") == (2, 3)
    whole = np.asarray(ImageReader().read({"bytes": content}, "a"))[..., 0]
    np.testing.assert_array_equal(
        open_image(ImageReader(), {"bytes": content}, "a").read((0, 1, 2, 2))[..., 0], whole[:, 1:]
    )
    plain = join_png(header, bytes([0, 1, 2, 0, 3, 4, 0, 5, 6]))
    with Image.open(io.BytesIO(plain)) as image:
        assert find_orientation(image) == 1
        np.testing.assert_array_equal(np.asarray(image), [[1, 2], [3, 4], [5, 6]])
    with Image.open(io.BytesIO(shorten_png(plain, 2))) as image:
        np.testing.assert_array_equal(np.asarray(image), [[1, 2], [3, 4]])


@pytest.mark.parametrize("suffix", ["bmp", "gif", "webp", "ppm"])
def test_other_formats_are_read_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(draw_image()).save(path)
    check_image(ImageReader(), path)


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_arrays(tmp_path: Path, channels: int, deep: bool, first: bool) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (*SIZE, channels))
    pixels = (pixels * 200).astype(np.uint16) if deep else pixels.astype(np.uint8)
    np.save(tmp_path / "a.npy", np.moveaxis(pixels, -1, 0) if first else pixels)
    np.savez(tmp_path / "b.npz", pixels)
    reader = ImageReader(channels, ImageRange(0, 60_000) if deep else None)
    check_image(reader, tmp_path / "a.npy")
    check_image(reader, tmp_path / "b.npz")


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd"])
@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("L", 3), ("RGBA", 3), ("RGBA", 4), ("P", 3)])
@pytest.mark.parametrize("rows", [1, 16, 1000])
def test_tiff(tmp_path: Path, compression: str, mode: str, channels: int, rows: int) -> None:
    if compression == "jpeg" and (mode in ("P", "RGBA") or rows == 1):
        pytest.skip("JPEG holds no palette, no alpha, and no strips of one row")
    path = tmp_path / "a.tif"
    Image.fromarray(draw_image()).convert(mode).save(path, compression=compression, tiffinfo={278: rows})
    check_image(ImageReader(channels), path)


@pytest.mark.parametrize("planes_apart", [False, True])
@pytest.mark.parametrize(("deflated", "predictor", "order"), [(False, 1, ">"), (True, 1, "<"), (True, 2, "<")])
def test_tiff_of_many_channels(tmp_path: Path, planes_apart: bool, deflated: bool, predictor: int, order: str) -> None:
    channels = np.random.default_rng(4).integers(0, 60_000, (*SIZE, 6)).astype(np.uint16)
    content = build_tiff(channels, planes_apart, deflated, predictor, order, rows=8)
    (tmp_path / "a.tif").write_bytes(content)
    check_image(ImageReader(6), tmp_path / "a.tif")
    check_image(ImageReader(6, ImageRange(0, 60_000)), tmp_path / "a.tif")
    layout = read_layout({"bytes": content})
    # Strips from row 16 on are zeroed: rows 0..15 still come out whole.
    damaged = bytearray(content)
    per_plane = len(layout.page.dataoffsets) // (6 if planes_apart else 1)
    for block, (start, count) in enumerate(zip(layout.page.dataoffsets, layout.page.databytecounts, strict=True)):
        if block % per_plane >= 2:
            damaged[start : start + count] = bytes(count)
    np.testing.assert_array_equal(
        read_tiff_box(read_layout({"bytes": bytes(damaged)}), (3, 5, 13, 100)), channels[3:16, 5:105]
    )
    with pytest.raises(InputError, match=r"a\.tif: not an image of 5 channels"):
        open_image(ImageReader(5), str(tmp_path / "a.tif"), "a.tif")


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize(("compression", "big"), [(None, False), ("zstd", True), ("lzw", False)])
def test_tiles_of_many_channels(tmp_path: Path, planes: str, compression: str | None, big: bool) -> None:
    """Written by tifffile, BigTIFF too; of planes that lie apart Pillow takes the first for the image."""
    channels = np.random.default_rng(4).integers(0, 60_000, (*SIZE, 6)).astype(np.uint16)
    pixels = np.moveaxis(channels, -1, 0) if planes == "separate" else channels
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, tile=(32, 32), planarconfig=planes, photometric="minisblack", bigtiff=big,
        compression=compression,
    )  # fmt: skip
    np.testing.assert_array_equal(ImageReader(6).read(str(tmp_path / "a.tif"), "a"), channels)
    check_image(ImageReader(6), tmp_path / "a.tif")
    with pytest.raises(InputError, match="not an image of 1 channels"):
        ImageReader(1).read(str(tmp_path / "a.tif"), "a")


def test_pages_are_channels(tmp_path: Path) -> None:
    pages = [Image.fromarray(channel) for channel in np.moveaxis(draw_image(), 2, 0).copy()]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="channels"):
        open_image(ImageReader(1), str(tmp_path / "a.tif"), "a.tif")


def test_deep_colours_of_a_tiff(tmp_path: Path) -> None:
    channels = np.random.default_rng(7).integers(0, 65_536, (*SIZE, 3)).astype(np.uint16)
    (tmp_path / "a.tif").write_bytes(build_tiff(channels, False, True, 2, "<", rows=8))
    check_image(ImageReader(3), tmp_path / "a.tif")


def build_tiles(pixels: np.ndarray, predictor: int, deflated: bool, side: int = 32) -> bytes:
    """Return a TIFF of RGB or grey in tiles, written tag by tag."""
    (height, width), samples = pixels.shape[:2], pixels.shape[2]
    down, across = -(-height // side), -(-width // side)
    padded = np.zeros((down * side, across * side, samples), np.uint8)
    padded[:height, :width] = pixels
    contents = []
    for top in range(0, down * side, side):
        for left in range(0, across * side, side):
            tile = padded[top : top + side, left : left + side].copy()
            if predictor == 2:
                tile[:, 1:] -= tile[:, :-1].copy()
            contents.append(zlib.compress(tile.tobytes()) if deflated else tile.tobytes())
    tags: dict[int, list[int]] = {256: [width], 257: [height], 258: [8] * samples, 259: [8 if deflated else 1]}
    tags |= {262: [2 if samples == 3 else 1], 277: [samples], 284: [1], 317: [predictor], 322: [side], 323: [side]}
    tags |= {324: [0] * len(contents), 325: [len(content) for content in contents], 339: [1] * samples}
    first = 8 + 2 + 12 * len(tags) + 4 + 4 * sum(map(len, tags.values()))
    tags[324] = [first + sum(map(len, contents[:index])) for index in range(len(contents))]
    return write_tags(tags, first) + b"".join(contents)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(("predictor", "deflated"), [(1, False), (1, True), (2, True)])
def test_tiles(tmp_path: Path, samples: int, predictor: int, deflated: bool) -> None:
    pixels = draw_image()[..., :samples]
    (tmp_path / "a.tif").write_bytes(build_tiles(pixels, predictor, deflated))
    np.testing.assert_array_equal(read_tiff_channels(str(tmp_path / "a.tif")), pixels)
    check_image(ImageReader(samples), tmp_path / "a.tif")


CLASSES = ClassMap.build([f"c{index}" for index in range(8)], void=[99])
COLOURS = ClassMap.build({index * 65536 + index * 512 + 30: f"c{index}" for index in range(8)}, legend=True)


def save(path: Path, pixels: np.ndarray) -> None:
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)


def draw_mask() -> np.ndarray:
    return np.random.default_rng(6).choice([0, 1, 2, 3, 7, 99], SIZE).astype(np.uint8)


def colour_mask() -> np.ndarray:
    ids = np.random.default_rng(6).integers(0, 8, SIZE)
    return np.stack([ids, ids * 2, np.full(SIZE, 30)], axis=-1).astype(np.uint8)


def check_label(decoder: MaskDecoder, stored: Any) -> None:
    whole = decoder.read(stored, "mask")
    assert len(np.unique(whole)) >= 2
    opened = open_label(decoder, stored, "mask")
    assert opened.size_px == whole.shape
    for box in BOXES:
        pixels = opened.read(box)
        assert pixels.dtype == whole.dtype
        np.testing.assert_array_equal(pixels, take(whole, box))


@pytest.mark.parametrize("form", ["png", "npy", "npy wide", "tif", "tif lzw", "tif 16", "tif palette", "rows"])
def test_masks_of_ids(tmp_path: Path, form: str) -> None:
    path, ids = tmp_path / f"a.{form.split()[0]}", draw_mask()
    if form.startswith("npy"):
        np.save(path, ids.astype(np.int64)[..., None] if form == "npy wide" else ids)
    elif form == "tif palette":
        image = Image.fromarray(ids).convert("P")
        image.putdata(ids.ravel().tolist())
        image.save(path)
    elif form != "rows":
        Image.fromarray(ids.astype(np.uint16) if form == "tif 16" else ids).save(
            path, **({"compression": "tiff_lzw"} if form == "tif lzw" else {})
        )
    check_label(MaskDecoder(CLASSES), ids.tolist() if form == "rows" else str(path))


@pytest.mark.parametrize("form", ["png", "npy", "tif"])
@pytest.mark.parametrize("tolerance", [0, 1])
def test_masks_of_colours(tmp_path: Path, form: str, tolerance: int) -> None:
    path, colours = tmp_path / f"a.{form}", colour_mask()
    colours[..., 1] += tolerance
    save(path, colours)
    check_label(MaskDecoder(COLOURS, "colors", color_tolerance=tolerance), str(path))


def test_masks_of_other_meanings(tmp_path: Path) -> None:
    ids, two = draw_mask(), ClassMap.build(["ground", "thing"])
    for suffix in ("npy", "tif", "png"):
        save(tmp_path / f"binary.{suffix}", np.where(ids > 2, 255, 0).astype(np.uint8))
        check_label(MaskDecoder(two, "binary"), str(tmp_path / f"binary.{suffix}"))
    np.save(tmp_path / "instances.npy", draw_mask().astype(np.int32) % 8 * 1000 + 7)
    check_label(MaskDecoder(CLASSES, "instances"), str(tmp_path / "instances.npy"))
    np.save(tmp_path / "hot.npy", np.stack([ids <= 2, ids > 2]))
    check_label(MaskDecoder(two, "one_hot", planes=2), str(tmp_path / "hot.npy"))


@pytest.mark.parametrize("suffix", ["npy", "tif"])
def test_a_value_outside_is_told_where_it_is_read(tmp_path: Path, suffix: str) -> None:
    ids = draw_mask()
    ids[50, 60] = 33
    path = tmp_path / f"a.{suffix}"
    save(path, ids)
    opened = open_label(MaskDecoder(CLASSES), str(path), "a mask")
    assert opened.read((0, 0, 50, 122)).shape == (50, 122)
    with pytest.raises(InputError, match=r"a mask: mask values outside the classes\n  found: 33 \(1 pixels\)"):
        opened.read((40, 50, 20, 20))


def test_rows_below_are_not_decoded() -> None:
    """What lies below the rectangle may be damaged: those bytes are not looked at."""
    image = draw_image()
    noise = np.random.default_rng(9).integers(0, 256, image.shape, dtype=np.uint8)
    for file_format in ("JPEG", "PNG"):
        content = io.BytesIO()
        Image.fromarray(noise).save(content, file_format)
        half = content.getvalue()[: len(content.getvalue()) // 2] + bytes(len(content.getvalue()) // 2)
        whole = np.asarray(ImageReader().read({"bytes": content.getvalue()}, "a"))
        opened = open_image(ImageReader(), {"bytes": half}, "a")
        np.testing.assert_array_equal(opened.read((0, 0, 20, 122)), whole[:20])
    with pytest.raises(InputError, match="a: damaged"):
        opened.read((0, 0, *SIZE))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    for suffix in ("jpg", "png", "tif", "npy"):
        path = tmp_path / f"a.{suffix}"
        save(path, np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(InputError, match=rf"a\.{suffix}"):
            open_image(ImageReader(), str(path), path.name).read((40, 0, 50, 122))
        path.write_bytes(b"")
        with pytest.raises(InputError, match=rf"a\.{suffix}"):
            open_image(ImageReader(), str(path), path.name)
    with pytest.raises(InputError, match=r"b\.tif: no such file"):
        open_image(ImageReader(), str(tmp_path / "b.tif"), "b.tif")


def write_pairs(folder: Path, image_suffix: str, mask_suffix: str, size: tuple[int, int] = SIZE) -> SegmentationSplit:
    for index in range(3):
        image, ids = SyntheticScenes(3, size).draw(index)
        for name, suffix, pixels in (("images", image_suffix, image), ("masks", mask_suffix, ids)):
            path = folder / "train" / name / f"{index}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            save(path, pixels)
    section = {"dataset": str(folder), "classes": [f"c{index}" for index in range(11)], "void": [255]}
    return load_segmentation_dataset({**section, "validation_share": 0.0}).splits["train"]


class Whole:
    """A split whose pairs are decoded whole."""

    def __init__(self, split: SegmentationSplit) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def open(self, index: int) -> WholePair:
        pair = self.split[index]
        return WholePair(pair["image"], pair["label"])


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize(
    ("image_suffix", "mask_suffix"), [("jpg", "png"), ("png", "tif"), ("tif", "npy"), ("npy", "npy")]
)
def test_samples_are_those_of_whole_pairs(tmp_path: Path, preset: str, image_suffix: str, mask_suffix: str) -> None:
    split = write_pairs(tmp_path, image_suffix, mask_suffix)
    processor = SegformerImageProcessorPil(size={"height": 80, "width": 100})
    transform = TrainingTransform(processor, TransformsRecipe(preset=preset, crop_size_px=[48, 48]))
    ways = [TrainingSet(way, transform) for way in (Whole(split), split, open_cache(split, tmp_path / "cache"))]
    for epoch in range(4):
        for way in ways:
            way.set_epoch(epoch)
        for index in range(len(split)):
            wanted, *others = [way[index] for way in ways]
            for sample in others:
                assert sample.keys() == wanted.keys()
                assert all(torch.equal(sample[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("resample", [filter_ for filter_ in Image.Resampling if filter_ != Image.Resampling.NEAREST])
@pytest.mark.parametrize("scale", [0.2, 0.77, 1.0, 1.6])
@pytest.mark.parametrize("channels", [3, 5])
def test_a_filter_sees_past_the_cut(resample: Image.Resampling, scale: float, channels: int) -> None:
    """A cut that is resized from its box alone has the pixels that Pillow gives it from the whole image, to a rounding.

    Pillow filters rows or columns first as is faster for an image's size, so the last bit may differ.
    """
    image = np.random.default_rng(5).integers(90, 166, (60, 80, channels), dtype=np.uint8)
    scaled, crop = (round(60 * scale), round(80 * scale)), (12, 16)
    for seed in range(8):
        cut = draw_cut(np.random.default_rng(seed), (60, 80), scaled, crop, None)
        box = find_box(cut, (60, 80), resample)
        found = cut_image(take(image, box), box, cut, crop, (0,) * channels, resample)
        top, left, height, width = cut.source
        edges = (left, top, left + width, top + height)
        planes = [Image.fromarray(channel) for channel in np.moveaxis(image, 2, 0).copy()]
        wanted = np.stack([channel.resize((16, 12), resample, box=edges) for channel in planes], axis=2)
        # OpenCV enlarges bilinearly, and repeats the cut's border where Pillow sees past it.
        inner = slice(1, -1) if scale > 1 and resample == Image.Resampling.BILINEAR else slice(None)
        assert np.abs(found.astype(int) - wanted)[inner, inner].max() <= 1


def test_the_cache_reads_only_the_rectangle(tmp_path: Path) -> None:
    split = write_pairs(tmp_path, "png", "png", (256, 512))
    cached = open_cache(split, tmp_path / "cache")
    pixels = np.memmap(cached.path / "images.bin", np.uint8, mode="r+").reshape(3, 256, 512, 3)
    wanted = pixels[1, 100:140, 30:90].copy()
    pixels[1, :100] = pixels[1, 140:] = 0
    pixels.flush()
    found = cached.open(1).image((100, 30, 40, 60))
    np.testing.assert_array_equal(found, wanted)
    assert np.shares_memory(found, cached._images)
    assert cached.open(2).label((5, 6, 7, 8)).shape == (7, 8)


def test_drawn_scenes() -> None:
    section = {"dataset": "synthetic", "synthetic_size_px": [60, 80], "synthetic_images": {"train": 2}}
    split = load_segmentation_dataset(section).splits["train"]
    opened, pair = split.open(1), split[1]
    assert opened.size_px == (60, 80)
    np.testing.assert_array_equal(opened.image((3, 4, 50, 70)), take(np.asarray(pair["image"]), (3, 4, 50, 70)))
    np.testing.assert_array_equal(opened.label((3, 4, 50, 70)), take(pair["label"], (3, 4, 50, 70)))


def test_sizes_that_differ_are_told_before_reading(tmp_path: Path) -> None:
    split = write_pairs(tmp_path, "png", "npy")
    np.save(split.stored(1)[1], np.zeros((SIZE[0], SIZE[1] + 1), np.uint8))
    with pytest.raises(InputError, match="image and mask have different sizes"):
        split.open(1)
