"""Every encoding of masks and images: specimens with exact pixel counts."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from segplus.classes import ClassMap
from segplus.data import load_segmentation_dataset
from segplus.data.decoding.image_reader import ImageReader, read_size
from segplus.data.decoding.masks import MaskDecoder
from segplus.data.decoding.polygons import decode_runs
from segplus.data.decoding.regions import open_label
from segplus.data.decoding.tiff import read_layout, read_tiff_box
from segplus.errors import InputError
from segplus.images import measure_image

SIZE = (40, 60)
LEGEND = {"ground": [128, 64, 0], "thing": [0, 200, 10], "nothing": [0, 0, 0]}


def draw_ids(**pixels: int) -> np.ndarray:
    """Return ids 0 with so many pixels of the values v1=, v2=, ..."""
    flat = np.zeros(SIZE[0] * SIZE[1], dtype=np.int32)
    start = 0
    for name, count in pixels.items():
        flat[start : start + count] = int(name[1:])
        start += count
    return flat.reshape(SIZE)


def paint(ids: np.ndarray) -> np.ndarray:
    return np.array(list(LEGEND.values()), dtype=np.uint8)[ids]


def place_pair(root: Path, mask_name: str = "a.png") -> Path:
    """Save the image of a pair and return where its mask belongs."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "masks").mkdir(exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), 100, dtype=np.uint8)).save(root / "images" / "a.png")
    return root / "masks" / mask_name


def count(root: Path, **section: Any) -> list[int]:
    """Return pixels of each class, then ignored ones."""
    section = {"classes": ["ground", "thing"], "validation_share": 0.0} | section
    data = load_segmentation_dataset({"dataset": str(root), **section})
    label, classes = data.splits["train"][0]["label"], data.classes
    return [
        *((label == index).sum().item() for index in range(classes.num_classes)),
        (label == classes.ignore_index).sum().item(),
    ]


def test_8_bit_ids_reduced_void_and_merged(tmp_path: Path) -> None:
    Image.fromarray(draw_ids(v1=10, v2=20, v3=30, v255=5).astype(np.uint8)).save(place_pair(tmp_path))
    names = ["a", "b", "c", "d"]
    assert count(tmp_path, classes=names) == [2335, 10, 20, 30, 5]
    assert count(tmp_path, classes=names[:3], reduce_labels=True) == [10, 20, 30, 2340]
    assert count(tmp_path, classes=names, void=["a", 3]) == [10, 20, 2370]
    assert count(tmp_path, classes=names, merge={"bc": ["b", "c"]}) == [2335, 30, 30, 5]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_ids(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(draw_ids(v300=11, v1000=7).astype(np.uint16)).save(place_pair(tmp_path, f"a.{suffix}"))
    assert count(tmp_path, classes={"0": "a", "300": "b", "1000": "c"}) == [2382, 11, 7, 0]


def test_more_than_255_classes_are_wide(tmp_path: Path) -> None:
    Image.fromarray(draw_ids(v255=11, v299=7).astype(np.uint16)).save(place_pair(tmp_path))
    counts = count(tmp_path, classes=[f"c{index}" for index in range(300)])
    assert (counts[0], counts[255], counts[299], counts[-1], len(counts)) == (2382, 11, 7, 0, 301)


def test_1_bit(tmp_path: Path) -> None:
    Image.fromarray(draw_ids(v1=13).astype(bool)).save(place_pair(tmp_path))
    assert count(tmp_path) == [2387, 13, 0]


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palette_by_index_and_by_color(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(draw_ids(v1=9, v2=4).astype(np.uint8))
    image.putpalette([0, 200, 10, 128, 64, 0, 0, 0, 0])  # index 0 is the colour of `thing`
    image.save(place_pair(tmp_path, f"a.{suffix}"))
    assert count(tmp_path, classes=["x", "y", "z"], encoding="palette") == [2387, 9, 4, 0]
    assert count(tmp_path, classes=["x", "y", "z"]) == [2387, 9, 4, 0]
    assert count(tmp_path, classes=None, colors=LEGEND) == [9, 2387, 4, 0]
    with pytest.raises(InputError, match="a palette mask where ids were promised"):
        count(tmp_path, encoding="ids")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colors(tmp_path: Path, mode: str) -> None:
    Image.fromarray(paint(draw_ids(v1=21, v2=6))).convert(mode).save(place_pair(tmp_path))
    assert count(tmp_path, classes=None, colors=LEGEND) == [2373, 21, 6, 0]
    assert count(tmp_path, classes=None, colors=LEGEND, void=["nothing"]) == [2373, 21, 6]
    assert count(tmp_path, classes=["thing", "ground"], colors=LEGEND, void=[[0, 0, 0]]) == [21, 2373, 6]
    assert count(tmp_path, classes=None, colors=LEGEND, merge={"all": ["nothing", "thing"]}) == [2373, 27, 0]
    with pytest.raises(InputError, match="a colour mask where ids were promised"):
        count(tmp_path)


def test_legend_file(tmp_path: Path) -> None:
    Image.fromarray(paint(draw_ids(v1=21))).save(place_pair(tmp_path))
    (tmp_path / "legend.csv").write_text("name,r,g,b\nground,128,64,0\nthing,0,200,10\n")
    assert count(tmp_path, classes=None, colors="legend.csv") == [2379, 21, 0]


def test_colors_outside_the_legend(tmp_path: Path) -> None:
    rgb = paint(draw_ids(v1=21))
    rgb[-1, :7] = (1, 2, 3)
    Image.fromarray(rgb).save(place_pair(tmp_path))
    with pytest.raises(InputError, match=r"a.png: mask colours outside the legend\n  found: \(1, 2, 3\) \(7 pixels\)"):
        count(tmp_path, classes=None, colors=LEGEND)
    assert count(tmp_path, classes=None, colors=LEGEND, unknown="ignore") == [2372, 21, 0, 7]


def test_blue_255_is_a_color_and_not_the_ignore_index(tmp_path: Path) -> None:
    Image.fromarray(np.full((*SIZE, 3), (0, 0, 255), dtype=np.uint8)).save(place_pair(tmp_path))
    with pytest.raises(InputError, match=r"\(0, 0, 255\) \(2400 pixels\)"):
        count(tmp_path, classes=None, colors=LEGEND)


def test_lossy_colors_within_a_tolerance(tmp_path: Path) -> None:
    ids = np.zeros(SIZE, dtype=np.int32)
    ids[:16, :16] = 1
    Image.fromarray(paint(ids)).save(place_pair(tmp_path, "a.jpg"), quality=95, subsampling=0)
    with pytest.raises(InputError, match="JPEG masks"):
        count(tmp_path, classes=None, colors=LEGEND)
    assert count(tmp_path, classes=None, colors=LEGEND, color_tolerance=40) == [2144, 256, 0, 0]


def test_binary_255_is_a_class(tmp_path: Path) -> None:
    Image.fromarray(draw_ids(v255=17).astype(np.uint8)).save(place_pair(tmp_path))
    assert count(tmp_path, encoding="binary") == [2383, 17, 0]
    assert count(tmp_path, void=[255]) == [2383, 0, 17]


def test_jpeg_mask_with_a_threshold(tmp_path: Path) -> None:
    ids = np.zeros(SIZE, dtype=np.uint8)
    ids[8:24, 8:40] = 255
    Image.fromarray(ids).save(place_pair(tmp_path, "a.jpg"), quality=60)
    assert count(tmp_path, encoding="binary", threshold=128) == [2400 - 512, 512, 0]


def test_instances(tmp_path: Path) -> None:
    Image.fromarray(draw_ids(v1001=5, v1002=6, v500=7).astype(np.uint16)).save(place_pair(tmp_path))
    assert count(tmp_path, encoding="instances") == [2389, 11, 0]
    assert count(tmp_path, encoding="binary", threshold=1) == [2382, 18, 0]


@pytest.mark.parametrize("form", ["tif", "npy", "npy_last", "npz"])
def test_one_hot(tmp_path: Path, form: str) -> None:
    ids = draw_ids(v1=15, v2=5)
    planes = np.stack([ids == 0, ids == 1]).astype(np.uint8) * 255  # value 2 belongs to no plane
    path = place_pair(tmp_path, "a." + form[:3])
    if form == "tif":
        pages = [Image.fromarray(plane) for plane in planes]
        pages[0].save(path, save_all=True, append_images=pages[1:])
    elif form == "npz":
        np.savez(path, planes)
    else:
        np.save(path, np.moveaxis(planes, 0, -1) if form == "npy_last" else planes)
    assert count(tmp_path, encoding="one_hot") == [2380, 15, 5]
    with pytest.raises(InputError, match="not a stack of 3 planes"):
        count(tmp_path, encoding="one_hot", classes=["a", "b", "c"])


def test_one_hot_planes_are_counted_before_void_and_merge(tmp_path: Path) -> None:
    ids = draw_ids(v1=15, v2=5)
    np.save(place_pair(tmp_path, "a.npy"), np.stack([ids == 0, ids == 1, ids == 2]))
    names = ["a", "b", "c"]
    assert count(tmp_path, encoding="one_hot", classes=names, void=["b"]) == [2380, 5, 15]
    assert count(tmp_path, encoding="one_hot", classes=names, merge={"bc": ["b", "c"]}) == [2380, 20, 0]


def test_one_hot_refuses_two_classes_at_a_pixel(tmp_path: Path) -> None:
    planes = np.zeros((2, *SIZE), dtype=np.uint8)
    planes[:, 0, :4] = 1
    np.save(place_pair(tmp_path, "a.npy"), planes)
    with pytest.raises(InputError, match="two classes in a one-hot stack\n  found: 4 pixels"):
        count(tmp_path, encoding="one_hot")


@pytest.mark.parametrize("size", [SIZE, (20, 30)])
def test_several_pages_are_not_read_as_their_first(tmp_path: Path, size: tuple[int, int]) -> None:
    path = place_pair(tmp_path, "a.tif")
    pages = [Image.fromarray(draw_ids(v1=15).astype(np.uint8)), Image.fromarray(np.ones(size, dtype=np.uint8))]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    split = load_segmentation_dataset(
        {"dataset": str(tmp_path), "classes": ["ground", "thing"], "validation_share": 0.0}
    ).splits["train"]
    if size == SIZE:
        message = r"a.tif: a mask of several pages\n  found: 2 pages of one size\n  fix: set data.encoding: one_hot"
        with pytest.raises(InputError, match=message):
            split[0]
        with pytest.raises(InputError, match=message):
            split.open(0)
    else:  # a smaller copy, as aerial images have them
        assert split[0]["label"].sum() == 15
        assert split.open(0).label((0, 0, *SIZE)).sum() == 15


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "bool"])
def test_arrays_of_ids(tmp_path: Path, dtype: str) -> None:
    np.save(place_pair(tmp_path, "a.npy"), draw_ids(v1=19).astype(dtype))
    assert count(tmp_path) == [2381, 19, 0]


def test_arrays_of_floats_are_refused(tmp_path: Path) -> None:
    np.save(place_pair(tmp_path, "a.npy"), draw_ids(v1=19).astype(np.float32))
    with pytest.raises(InputError, match="not integers"):
        count(tmp_path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_grey_in_several_channels_needs_no_key(tmp_path: Path, mode: str) -> None:
    Image.fromarray(draw_ids(v1=8).astype(np.uint8)).convert(mode).save(place_pair(tmp_path))
    assert count(tmp_path) == [2392, 8, 0]
    assert count(tmp_path, mask_channel=0) == [2392, 8, 0]


def test_a_grey_jpeg_mask_of_three_channels_is_binary_without_another_key(tmp_path: Path) -> None:
    mask = Image.fromarray((draw_ids(v1=960) * 255).astype(np.uint8)).convert("RGB")
    mask.save(place_pair(tmp_path, "a.jpg"), quality=90)
    assert count(tmp_path, encoding="binary") == [1440, 960, 0]


def test_a_channel_of_a_colour_mask_is_refused(tmp_path: Path) -> None:
    ids = draw_ids(v1=300, v2=200)
    Image.fromarray(paint(ids)).save(place_pair(tmp_path))
    with pytest.raises(InputError, match=r"(?s)takes one channel of a colour.*3 colours: \(128, 64, 0\).*data.colors"):
        count(tmp_path, mask_channel=0, classes={0: "thing", 128: "ground"})
    with pytest.raises(InputError, match=r"(?s)a colour mask where ids were promised.*data.colors") as error:
        count(tmp_path)
    assert "mask_channel" not in str(error.value)


def test_a_channel_of_ids_beside_a_channel_of_instances(tmp_path: Path) -> None:
    ids = draw_ids(v1=300).astype(np.uint8)
    numbers = np.arange(ids.size, dtype=np.uint8).reshape(ids.shape) // 2
    Image.fromarray(np.stack([ids, numbers, np.zeros_like(ids)], axis=-1)).save(place_pair(tmp_path))
    assert count(tmp_path, mask_channel=0) == [2100, 300, 0]


def test_values_outside_the_classes_are_counted(tmp_path: Path) -> None:
    Image.fromarray(draw_ids(v7=12, v9=1).astype(np.uint8)).save(place_pair(tmp_path))
    with pytest.raises(
        InputError, match=r"a.png: mask values outside the classes\n  found: 7 \(12 pixels\), 9 \(1 pixels\)"
    ):
        count(tmp_path)
    assert count(tmp_path, unknown="ignore") == [2387, 0, 13]


@pytest.mark.parametrize("encoding", ["ids", "palette"])
def test_any_flipped_bit_in_a_png_mask_is_noticed(tmp_path: Path, encoding: str) -> None:
    path = place_pair(tmp_path)
    image = Image.fromarray(draw_ids(v1=12).astype(np.uint8))
    if encoding == "palette":
        image.putpalette([value % 251 for value in range(768)])
    image.save(path, bits=8)
    content = path.read_bytes()
    for position in range(0, len(content), 4 if encoding == "ids" else 19):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.png"):
            count(tmp_path, encoding=encoding)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, under NumPy 2
def test_run_lengths_give_the_mask_they_were_made_of() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = rng.integers(1, 40, 2)
        drawn = np.kron(rng.random((height, width)) < rng.random(), np.ones((3, 2))).astype(np.uint8)
        text = coco_mask.encode(np.asfortranarray(drawn))["counts"].decode()
        np.testing.assert_array_equal(decode_runs(text, *drawn.shape), drawn)
        flat = drawn.T.ravel()
        edges = np.flatnonzero(np.diff(flat, prepend=0, append=1 - flat[-1]))
        counts = np.diff(edges, prepend=0).tolist()
        np.testing.assert_array_equal(decode_runs(counts, *drawn.shape), drawn)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, under NumPy 2
@pytest.mark.parametrize("counts", ["", "23", "23P", "2P", "238", [], [2, 3], [2, 3, 8], [20, -8], [13]])
def test_run_lengths_of_another_size_are_refused(counts: str | list[int]) -> None:
    with pytest.raises(ValueError, match="(?i)run lengths|invalid RLE"):
        decode_runs(counts, 3, 4)


def read_image(root: Path, name: str, **section: Any) -> Any:
    """Return the image of a pair whose mask is all ground."""
    image_size = section.pop("mask_size", SIZE)
    (root / "masks").mkdir(exist_ok=True)
    Image.fromarray(np.zeros(image_size, dtype=np.uint8)).save(root / "masks" / "a.png")
    section = {"dataset": str(root), "classes": ["ground"], "validation_share": 0.0, **section}
    return load_segmentation_dataset(section).splits["train"][0]["image"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def test_images_of_every_mode_become_rgb(images: Path) -> None:
    value = np.full(SIZE, 128, dtype=np.uint8)
    for mode in ("L", "LA", "RGBA", "P"):
        image = Image.fromarray(value)
        image = image.convert("RGB").convert("P") if mode == "P" else image.convert(mode)
        image.save(images / "a.png")
        pixel = read_image(images.parent, "a").getpixel((3, 3))
        assert np.abs(np.array(pixel) - 128).max() <= (26 if mode == "P" else 0), mode  # the web palette is coarse


def test_cmyk_jpeg(images: Path) -> None:
    Image.new("CMYK", SIZE[::-1], (0, 255, 255, 0)).save(images / "a.jpg", quality=100)
    red, green, blue = read_image(images.parent, "a").getpixel((3, 3))
    assert red > 250
    assert max(green, blue) < 5


@pytest.mark.parametrize(("suffix", "image_range"), [("png", None), ("tif", None), ("png", [0, 8224])])
def test_16_bit_images_keep_their_values(images: Path, suffix: str, image_range: list[float] | None) -> None:
    Image.fromarray(np.full(SIZE, 4112, dtype=np.uint16)).save(images / f"a.{suffix}")
    read = read_image(images.parent, "a", image_range=image_range)
    assert (read.dtype, read.shape) == (np.uint16, (*SIZE, 3))
    assert (read == 4112).all()


def test_a_range_that_would_clip_is_refused(images: Path) -> None:
    Image.fromarray(np.full(SIZE, 4112, dtype=np.uint16)).save(images / "a.png")
    with pytest.raises(InputError, match=r"would be clipped"):
        read_image(images.parent, "a", image_range=[0, 4000])


def test_exif_orientation_is_applied_to_the_image(images: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: stored 60 x 40, seen 40 x 60
    stored = np.zeros((*SIZE, 3), dtype=np.uint8)
    stored[:, :20] = 255
    Image.fromarray(stored).save(images / "a.jpg", exif=exif, quality=100)
    image = read_image(images.parent, "a", mask_size=SIZE[::-1])
    assert image.size == (40, 60)
    assert image.getpixel((20, 5))[0] > 250
    assert image.getpixel((20, 50))[0] < 5
    with pytest.raises(InputError, match="image 40 x 60, mask 60 x 40 px"):
        read_image(images.parent, "a", mask_size=SIZE)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["rgb.tif", "grey.tif", "deep.tif", "lzw.tif", "deep.png", "rgb.png"])
def test_the_size_of_turned_images(tmp_path: Path, orientation: int, name: str) -> None:
    stored = np.zeros(SIZE, dtype=np.uint16 if "deep" in name else np.uint8)
    stored[:10, :20] = 65535 if "deep" in name else 255  # a mark in the corner, and no square
    source = Image.fromarray(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"compression": "tiff_lzw"} if name.startswith("lzw") else {}
    path = str(tmp_path / name)
    (source.convert("RGB") if "rgb" in name else source).save(path, exif=exif, **options)
    marked = stored > 0
    turns = {2: marked[:, ::-1], 3: marked[::-1, ::-1], 4: marked[::-1], 5: marked.T, 6: marked.T[:, ::-1]}
    turns |= {7: marked.T[::-1, ::-1], 8: marked.T[::-1]}
    upright = turns.get(orientation, marked)
    image = ImageReader().read(path, "a")
    assert read_size(path, "a") == measure_image(image) == upright.shape
    np.testing.assert_array_equal(np.asarray(image)[..., 0] > 127, upright)
    if name in ("grey.tif", "lzw.tif"):
        decoder = MaskDecoder(ClassMap.build({0: "ground", 255: "thing"}))
        np.testing.assert_array_equal(decoder.read(path, "a"), upright)
        np.testing.assert_array_equal(open_label(decoder, path, "a").read((0, 0, *upright.shape)), upright)


def read_tiff_channels(stored: Any) -> np.ndarray:
    layout = read_layout(stored)
    return read_tiff_box(layout, (0, 0, *layout.size_px))


def write_tags(tags: dict[int, list[int]], length: int, order: str = "<") -> bytes:
    """Return the head of a TIFF with these tags, padded to `length`."""
    data_at = 8 + 2 + 12 * len(tags) + 4
    head, tail = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(tags)), b""
    for tag, values in tags.items():
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            position, tail = data_at + len(tail), tail + packed
            packed = struct.pack(f"{order}I", position)
        head += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
    return (head + struct.pack(f"{order}I", 0) + tail).ljust(length, b"\0")


def build_tiff(
    channels: np.ndarray, planes_apart: bool, deflated: bool, predictor: int, order: str, rows: int
) -> bytes:
    """Return a TIFF of many channels in strips of `rows` rows, written tag by tag."""
    height, width, count = channels.shape
    planes = np.moveaxis(channels, -1, 0)[..., None] if planes_apart else channels[None]
    strips = []
    for plane in planes:
        values = plane.copy()
        if predictor == 2:
            values[:, 1:] -= plane[:, :-1]
        blocks = [values[top : top + rows] for top in range(0, height, rows)]
        strips += [block.astype(block.dtype.newbyteorder(order)).tobytes() for block in blocks]
    strips = [zlib.compress(strip) for strip in strips] if deflated else strips
    sample_format = {"u": 1, "f": 3}[channels.dtype.kind]
    tags = {256: [width], 257: [height], 258: [8 * channels.dtype.itemsize] * count}
    tags |= {259: [8 if deflated else 1], 262: [1]}
    tags |= {273: [0] * len(strips), 277: [count], 278: [rows], 279: [len(strip) for strip in strips]}
    tags |= {284: [2 if planes_apart else 1], 317: [predictor], 339: [sample_format] * count}
    data_at = 8 + 2 + 12 * len(tags) + 4
    first = data_at + 4 * sum(len(values) for values in tags.values())
    tags[273] = [first + sum(map(len, strips[:index])) for index in range(len(strips))]
    return write_tags(tags, first, order) + b"".join(strips)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("planes_apart", [False, True])
@pytest.mark.parametrize(
    ("deflated", "predictor", "order"), [(False, 1, "<"), (False, 1, ">"), (True, 1, "<"), (True, 2, "<")]
)
@pytest.mark.parametrize("count", [2, 4, 6])
def test_tiff_of_many_channels(
    images: Path, count: int, dtype: str, planes_apart: bool, deflated: bool, predictor: int, order: str
) -> None:
    if dtype == "float32" and predictor == 2:
        dtype = "uint16"  # differences are for integers
    channels = (np.random.default_rng(0).random((*SIZE, count)) * 200).astype(dtype)
    content = build_tiff(channels, planes_apart, deflated, predictor, order, rows=16)
    (images / "a.tif").write_bytes(content)
    np.testing.assert_array_equal(read_image(images.parent, "a", channels=count), channels)
    with pytest.raises(InputError, match="data.channels"):
        read_image(images.parent, "a", channels=3)
    (images / "a.tif").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"a\.tif"):
        read_image(images.parent, "a", channels=count)


@pytest.mark.parametrize("form", ["npy", "npy_first", "tif"])
def test_images_of_many_channels(images: Path, form: str) -> None:
    channels = np.arange(SIZE[0] * SIZE[1] * 6, dtype=np.uint16).reshape(*SIZE, 6)
    if form == "tif":
        pages = [Image.fromarray(channels[..., channel]) for channel in range(6)]
        pages[0].save(images / "a.tif", save_all=True, append_images=pages[1:])
    else:
        np.save(images / "a.npy", np.moveaxis(channels, -1, 0) if form == "npy_first" else channels)
    image = read_image(images.parent, "a", channels=6)
    np.testing.assert_array_equal(image, channels)
    with pytest.raises(InputError, match="channels"):
        read_image(images.parent, "a", channels=5)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_compressions_agree_with_pillow(compression: str) -> None:
    pixels = (np.random.default_rng(1).random((*SIZE, 3)) * 4).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF", compression=compression)
    np.testing.assert_array_equal(read_tiff_channels({"bytes": buffer.getvalue()}), pixels)


@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("predictor", [1, 2])
def test_tiles_that_overhang(deflated: bool, predictor: int) -> None:
    channels = (np.random.default_rng(2).random((40, 56, 5)) * 60_000).astype(np.uint16)
    padded = np.zeros((64, 64, 5), dtype=np.uint16)
    padded[:40, :56] = channels
    tiles = [padded[top : top + 32, left : left + 32].copy() for top in (0, 32) for left in (0, 32)]
    if predictor == 2:
        for tile in tiles:
            tile[:, 1:] -= tile[:, :-1].copy()
    contents = [zlib.compress(tile.tobytes()) if deflated else tile.tobytes() for tile in tiles]
    tags: dict[int, list[int]] = {256: [56], 257: [40], 258: [16] * 5, 259: [8 if deflated else 1], 262: [1], 277: [5]}
    tags |= {
        284: [1],
        317: [predictor],
        322: [32],
        323: [32],
        324: [0] * 4,
        325: [len(c) for c in contents],
        339: [1] * 5,
    }
    data_at = 8 + 2 + 12 * len(tags) + 4
    first = data_at + 4 * sum(map(len, tags.values()))
    tags[324] = [first + sum(map(len, contents[:index])) for index in range(4)]
    assert np.array_equal(read_tiff_channels({"bytes": write_tags(tags, first) + b"".join(contents)}), channels)


def test_ids_that_stand_for_themselves_are_copied() -> None:
    plain = ClassMap.build(["a", "b", "c"])
    merged = ClassMap.build(["a", "b", "c"], merge={"ac": ["a", "c"]})
    raw = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)
    raw.setflags(write=False)
    kept = plain.decode(raw, "mask")
    assert kept.dtype == np.uint8
    assert kept.tolist() == raw.tolist()
    kept[0, 0] = 1
    assert raw[0, 0] == 0
    assert merged.decode(raw, "mask").tolist() == [[0, 1, 0], [255, 0, 0]]
    for value in (3, 254):
        with pytest.raises(InputError, match=rf"found: {value} \(1 pixels\)"):
            plain.decode(np.where(raw == 1, np.uint8(value), raw), "mask")
    lenient = ClassMap.build(["a", "b", "c"], unknown="ignore")
    assert lenient.decode(np.array([[3, 0]], np.uint8), "mask").tolist() == [[255, 0]]
    assert plain.decode(raw.astype(np.uint16), "mask").tolist() == raw.tolist()
