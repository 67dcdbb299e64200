"""Images: foreign files, damaged files, headers that lie, arrays of strange types, and things that are no file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np

from . import files
from .fault import Case, Command, Expected, write_bytes
from .specimen import SIZE, Place

SUFFIXES = ("jpg", "jpeg", "png", "bmp", "gif", "tif", "tiff", "webp", "ppm", "npy", "npz")
FORMATS = {"jpg": "JPEG", "png": "PNG", "bmp": "BMP", "gif": "GIF", "tif": "TIFF", "webp": "WEBP", "ppm": "PPM"}


def read_image(content: bytes, suffix: str, verb: str, *options: str, megabytes: int = 2048):
    """Return a builder: the data set with this content as its image 2, and a command that reads it."""

    def build(place: Place) -> Command:
        data = place.put_data()
        (data / "images" / "2.jpg").unlink()
        write_bytes(data / "images" / f"2.{suffix}", content)
        return _build_command(place, suffix, verb, options, megabytes)

    return build


def _build_command(place: Place, suffix: str, verb: str, options: tuple[str, ...], megabytes: int) -> Command:
    names = ("2.jpg", "2.png", f"2.{suffix}")
    if verb == "inspect":
        return Command("inspect", ("data", *options), names, megabytes=megabytes)
    place.put_model()
    if verb == "predict":
        return Command("predict", ("model", f"data/images/2.{suffix}", "-o", "out/p.png"), names, megabytes=megabytes)
    words = ("model", "data", "-o", "out/e", "--split", "train", "--data.validation_share", "0", *options)
    return Command("evaluate", words, names, megabytes=megabytes)


def choose_verb(rng: Random) -> str:
    """Return a verb that reads images; inspect and predict twice as often as the slower evaluate."""
    return rng.choice(("inspect", "inspect", "predict", "predict", "evaluate"))


def draw_pixels(rng: Random, shape: tuple[int, ...]) -> np.ndarray:
    """Return random bytes of a shape."""
    return np.random.default_rng(rng.randrange(2**32)).integers(0, 256, shape, dtype=np.uint8)


def foreign_files(rng: Random) -> Iterator[Case]:
    pairs = [(told, suffix) for told in files.FOREIGN for suffix in SUFFIXES]
    rng.shuffle(pairs)
    for told, suffix in pairs:
        verb = choose_verb(rng)
        yield Case(f"{verb}: 2.{suffix} is {told}", read_image(files.FOREIGN[told], suffix, verb))


def damaged_images(rng: Random) -> Iterator[Case]:
    while True:
        suffix, verb = rng.choice(list(FORMATS)), choose_verb(rng)
        told, content = files.damage(files.encode(draw_pixels(rng, (*SIZE, 3)), FORMATS[suffix]), rng)
        yield Case(f"{verb}: 2.{suffix} {told}", read_image(content, suffix, verb), "either")


def damaged_arrays(rng: Random) -> Iterator[Case]:
    while True:
        content, suffix = files.save_npy(draw_pixels(rng, (*SIZE, 3))), "npy"
        if rng.random() < 0.5:
            content, suffix = files.zip_members({"a.npy": content}), "npz"
        told, content = files.damage(content, rng)
        verb = choose_verb(rng)
        yield Case(f"{verb}: 2.{suffix} {told}", read_image(content, suffix, verb), "either")


def cut_images(rng: Random) -> Iterator[Case]:
    while True:
        suffix, verb = rng.choice(("jpg", "png", "bmp", "webp", "ppm")), choose_verb(rng)
        content = files.encode(draw_pixels(rng, (*SIZE, 3)), FORMATS[suffix])
        place = rng.randrange(len(content) // 8, len(content) * 3 // 4)
        yield Case(f"{verb}: 2.{suffix} cut after {place} of {len(content)}", read_image(content[:place], suffix, verb))


def sizes_that_are_claimed(rng: Random) -> Iterator[Case]:
    """Files of some hundred bytes whose headers state gigabytes."""
    writers = {"png": files.claim_png_size, "bmp": files.claim_bmp_size, "tif": files.claim_tiff_size}
    sides = [(0, 0), (0, 48), (60_000, 60_000), (2**31 - 1, 2**31 - 1), (100_000, 20_000), (1, 10**9),
             (rng.randrange(20_000, 90_000), rng.randrange(20_000, 90_000))]  # fmt: skip
    for width, height in sides:
        for suffix, writer in writers.items():
            verb = choose_verb(rng)
            content = writer(width, height)
            yield Case(
                f"{verb}: 2.{suffix} claims {width} x {height}", read_image(content, suffix, verb, megabytes=1024)
            )
        for samples in (4, 200):
            content = files.claim_tiff_size(width, height, samples)
            told = f"inspect: 2.tif claims {width} x {height} x {samples}"
            yield Case(told, read_image(content, "tif", "inspect", megabytes=1024))


def shapes_that_are_claimed(rng: Random) -> Iterator[Case]:
    shapes = ["(60000, 60000, 3)", "(0, 0, 3)", "(-1, 48, 3)", "()", "(48,)", "(1,)*40", "(32, 48, 3, 1)",
    "(10**9, 10**9)",
              "'x'", "None", "(1.5, 2)", "(99999999999999999999999, 1)", "(" * 500 + ")" * 500, "[32, 48]",
              "(True, True, 3)"]  # fmt: skip
    for shape in shapes:
        for suffix in ("npy", "npz"):
            verb, content = choose_verb(rng), files.claim_npy_shape(shape)
            content = files.zip_members({"a.npy": content}) if suffix == "npz" else content
            yield Case(
                f"{verb}: 2.{suffix} claims shape {shape[:30]}", read_image(content, suffix, verb, megabytes=1024)
            )
    for descr in ("|O", "<U9", "<M8[s]", "|V8", "<c16", "x", "<f16", "|S3"):
        content = files.claim_npy_shape((32, 48, 3), descr)
        yield Case(f"inspect: 2.npy of type {descr}", read_image(content, "npy", "inspect"))


def arrays(rng: Random) -> Iterator[Case]:
    ones = np.ones((*SIZE, 3))
    table: dict[str, tuple[np.ndarray, Expected]] = {
        "NaN": (ones * np.nan, "answered"), "infinite": (ones * np.inf, "answered"), "objects": (np.array([{}] * 3),
        "answered"),
        "complex": (ones * 1j, "answered"), "texts": (np.array([["a"] * 48] * 32), "answered"), "empty": (np.zeros((0,
        0, 3)), "answered"),
        "one axis": (np.zeros(48), "answered"), "five axes": (np.zeros((1, 1, 1, 32, 48)), "answered"),
        "dates": (np.zeros(SIZE, "M8[s]"), "answered"),
        "scalar": (np.float64(3), "answered"), "64-bit floats of 1e300": (ones * 1e300, "either"),
        "booleans": (ones > 0, "either"),
        "a million channels": (np.zeros((1, 1, 10**6), np.uint8), "answered"), "structured": (np.zeros(SIZE, "u1,f4"),
        "answered"),
    }  # fmt: skip
    for told, (array, expected) in table.items():
        content = files.save_npy(np.asarray(array))
        yield Case(f"inspect: 2.npy holds {told}", read_image(content, "npy", "inspect"), expected)
        zipped = files.zip_members({"a.npy": content})
        yield Case(f"predict: 2.npz holds {told}", read_image(zipped, "npz", "predict"), expected)
    sound = files.save_npy(draw_pixels(rng, (*SIZE, 3)))
    members: dict[str, dict[str, bytes]] = {
        "nothing": {}, "two arrays": {"a.npy": sound, "b.npy": sound}, "a text": {"a.txt": b"x"},
        "../a": {"../../a.npy": b"x"},
        "a bomb": {"a.npy": files.claim_npy_shape((40_000, 40_000)) + bytes(40 * 2**20)},
    }  # fmt: skip
    for told, content in members.items():
        yield Case(
            f"inspect: 2.npz with {told}", read_image(files.zip_members(content), "npz", "inspect", megabytes=1024)
        )


def modes_and_formats(rng: Random) -> Iterator[Case]:
    """Every mode of every format is read, or refused by name."""
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16", "F", "HSV", "LAB"):
        for suffix in ("png", "tif", "jpg", "gif"):
            try:
                content = files.encode(draw_pixels(rng, (*SIZE, 3)), FORMATS[suffix], mode)
            except (OSError, ValueError):
                continue
            yield Case(f"2.{suffix} of mode {mode}", read_image(content, suffix, choose_verb(rng)), "either")
    for height, width in ((1, 1), (1, 3000), (2, 2)):
        content = files.encode(draw_pixels(rng, (height, width, 3)), "PNG")
        yield Case(f"inspect: 2.png of {width} x {height}, its mask 48 x 32", read_image(content, "png", "inspect"))
        yield Case(f"predict: 2.png of {width} x {height}", read_image(content, "png", "predict"), "runs")


def images_that_are_no_file(rng: Random) -> Iterator[Case]:
    def build(what: str, verb: str, folder: str):
        def make(place: Place) -> Command:
            data = place.put_data()
            suffix = "jpg" if folder == "images" else "png"
            files.make_special(data / folder / f"2.{suffix}", what)
            return replace(_build_command(place, suffix, verb, (), 1024), names=(f"{folder}/2.{suffix}",))

        return make

    for what in files.SPECIAL:
        for verb in ("inspect", "evaluate"):
            yield Case(f"{verb}: images/2.jpg is {what}", build(what, verb, "images"))
        yield Case(f"predict: images/2.jpg is {what}", build(what, "predict", "images"))
        yield Case(f"inspect: masks/2.png is {what}", build(what, "inspect", "masks"))
    del rng


def _break_pairs(data: Path, change: str, number: int) -> None:
    """Change which files of a data set lie beside each other."""
    image, mask = data / "images" / f"{number}.jpg", data / "masks" / f"{number}.png"
    gone = {
        "an image alone": [mask],
        "a mask alone": [image],
        "no masks": list((data / "masks").iterdir()),
        "one pair": [path for path in data.glob("*s/*") if path.stem != str(number)],
        "two files of one name": [],
    }[change]
    if change == "two files of one name":
        image.with_suffix(".png").write_bytes(mask.read_bytes())
    for path in gone:
        path.unlink()


def pairs_that_do_not_fit(rng: Random) -> Iterator[Case]:
    def build(change: str, number: int):
        def make(place: Place) -> Command:
            _break_pairs(place.put_data(), change, number)
            place.put_recipe()
            return Command("train", ("recipe.yaml",), (f"{number}.", "masks", "images", "split", "data"))

        return make

    for change in ("an image alone", "a mask alone", "two files of one name", "no masks", "one pair"):
        yield Case(f"train: {change}", build(change, rng.randrange(4)))


GENERATORS = (
    foreign_files, damaged_images, damaged_arrays, cut_images, sizes_that_are_claimed, shapes_that_are_claimed, arrays,
    modes_and_formats, images_that_are_no_file, pairs_that_do_not_fit,
)  # fmt: skip
