"""Masks: values outside the classes, other sizes, foreign and damaged files, and encodings that do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import numpy as np

from . import files
from .fault import Case, Command, write_bytes
from .images import draw_pixels
from .specimen import SIZE, Place


def read_mask(content: bytes, suffix: str = "png", verb: str = "inspect", *options: str, megabytes: int = 2048):
    """Return a builder: the data set with this content as its mask 2, and a command that reads it."""

    def build(place: Place) -> Command:
        data = place.put_data()
        (data / "masks" / "2.png").unlink()
        write_bytes(data / "masks" / f"2.{suffix}", content)
        names = (f"2.{suffix}", "encoding", "masks", "data.")
        if verb == "inspect":
            return Command("inspect", ("data", *options), names, megabytes=megabytes)
        if verb == "train":
            place.put_recipe({"data.validation_share": 0.5, "training.max_steps": 2})
            return Command("train", ("recipe.yaml", *options), names, megabytes=megabytes)
        place.put_model()
        words = ("model", "data", "-o", "out/e", "--split", "train", "--data.validation_share", "0", *options)
        return Command("evaluate", words, names, megabytes=megabytes)

    return build


def draw_ids(rng: Random, shape: tuple[int, int] = SIZE, values: int = 2) -> np.ndarray:
    """Return random ids below a number."""
    return (draw_pixels(rng, shape) % values).astype(np.uint8)


def values_outside(rng: Random) -> Iterator[Case]:
    while True:
        ids, verb = draw_ids(rng), rng.choice(("inspect", "inspect", "evaluate"))
        value, pixels = rng.randrange(2, 255), rng.randrange(1, 40)
        ids.reshape(-1)[:pixels] = value
        yield Case(f"{verb}: value {value} in {pixels} pixels", read_mask(files.encode(ids, "PNG"), "png", verb))


def other_sizes(rng: Random) -> Iterator[Case]:
    while True:
        height, width = SIZE[0] + rng.choice((-31, -1, 1, 7, 200)), SIZE[1] + rng.choice((-47, -3, 0, 5))
        verb, ids = rng.choice(("inspect", "inspect", "evaluate")), draw_ids(rng, (height, width))
        yield Case(f"{verb}: mask of {width} x {height} px", read_mask(files.encode(ids, "PNG"), "png", verb))


def foreign_masks(rng: Random) -> Iterator[Case]:
    pairs = [(told, suffix) for told in files.FOREIGN for suffix in ("png", "tif", "npy", "npz", "bmp")]
    rng.shuffle(pairs)
    for told, suffix in pairs:
        verb = rng.choice(("inspect", "inspect", "evaluate", "train"))
        yield Case(f"{verb}: mask 2.{suffix} is {told}", read_mask(files.FOREIGN[told], suffix, verb))


def damaged_masks(rng: Random) -> Iterator[Case]:
    formats = {"png": "PNG", "tif": "TIFF", "bmp": "BMP", "gif": "GIF"}
    while True:
        suffix, verb = rng.choice(list(formats)), rng.choice(("inspect", "inspect", "evaluate"))
        told, content = files.damage(files.encode(draw_ids(rng), formats[suffix]), rng)
        yield Case(f"{verb}: mask 2.{suffix} {told}", read_mask(content, suffix, verb), "either")


def cut_masks(rng: Random) -> Iterator[Case]:
    while True:
        verb, content = rng.choice(("inspect", "inspect", "evaluate")), files.encode(draw_ids(rng), "PNG")
        place = rng.randrange(8, len(content) - 12)
        yield Case(f"{verb}: mask 2.png cut after {place} of {len(content)}", read_mask(content[:place], "png", verb))


def claims(rng: Random) -> Iterator[Case]:
    for side in (60_000, 200_000, 2**31 - 1, rng.randrange(20_000, 90_000)):
        contents = {
            "png": files.claim_png_size(side, side), "bmp": files.claim_bmp_size(side, side),
            "tif": files.claim_tiff_size(side, side),
            "npy": files.claim_npy_shape((side, side)),
            "npz": files.zip_members({"a.npy": files.claim_npy_shape((side, side))}),
        }  # fmt: skip
        for suffix, content in contents.items():
            yield Case(f"mask 2.{suffix} claims {side} x {side}", read_mask(content, suffix, megabytes=1024))


def encodings_that_do_not_fit(rng: Random) -> Iterator[Case]:
    options = {
        "colors": (), "one_hot": (), "palette": (), "instances": (), "binary": ("--data.threshold", "300"),
    }  # fmt: skip
    contents = {
        "ids": files.encode(draw_ids(rng), "PNG"), "colours": files.encode(draw_pixels(rng, (*SIZE, 3)), "PNG"),
        "16 bits": files.encode(draw_ids(rng).astype(np.uint16) * 9000, "PNG"), "RGBA": files.encode(draw_pixels(rng,
        (*SIZE, 4)), "PNG"),
        "a JPEG": files.encode(draw_ids(rng) * 255, "JPEG"), "floats": files.save_npy(draw_ids(rng) + 0.5),
        "NaN": files.save_npy(draw_ids(rng) * np.nan), "negative": files.save_npy(-1 - draw_ids(rng).astype(np.int64)),
        "huge": files.save_npy(draw_ids(rng).astype(np.int64) + 2**40), "objects": files.save_npy(np.array([{}] * 4)),
        "texts": files.save_npy(np.array([["a"]])), "complex": files.save_npy(draw_ids(rng) * 1j),
        "stack": files.save_npy(np.zeros((9, *SIZE))),
    }  # fmt: skip
    pairs = [(told, encoding) for told in contents for encoding in ("auto", *options)]
    rng.shuffle(pairs)
    for told, encoding in pairs:
        is_array = contents[told].startswith(b"\x93NUMPY")
        words = ("--data.encoding", encoding, *options.get(encoding, ()))
        surely_wrong = encoding == "auto" and told not in ("ids", "a JPEG", "RGBA", "colours")
        yield Case(
            f"encoding {encoding}, mask of {told}",
            read_mask(contents[told], "npy" if is_array else "png", "inspect", *words),
            "answered" if surely_wrong else "either",
        )


def masks_that_are_all_ignored(rng: Random) -> Iterator[Case]:
    def build(verb: str, value: int):
        def make(place: Place) -> Command:
            data = place.put_data()
            for path in (data / "masks").iterdir():
                path.write_bytes(files.encode(np.full(SIZE, value, np.uint8), "PNG"))
            if verb == "train":
                place.put_recipe()
                return Command("train", ("recipe.yaml", "--data.void", "[7]"), ("void", "masks"))
            place.put_model()
            words = ("model", "data", "-o", "out/e", "--data.void", "[7]", "--split", "train")
            return Command("evaluate", words, ("void", "masks"))

        return make

    for verb in ("train", "evaluate"):
        for value in (7, 255):
            yield Case(f"{verb}: every pixel of every mask is {value}, void", build(verb, value), "either")
    del rng


GENERATORS = (
    values_outside, other_sizes, foreign_masks, damaged_masks, cut_masks, claims, encodings_that_do_not_fit,
    masks_that_are_all_ignored,
)  # fmt: skip
