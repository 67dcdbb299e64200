"""COCO and labelme files: members missing, null, of another type, without end, or larger than the image."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from .fault import Case, Command, write_bytes
from .specimen import SIZE, Place

HEIGHT, WIDTH = SIZE
SQUARE = [2, 2, 20, 2, 20, 20, 2, 20]
ODD: tuple[Any, ...] = (None, "x", -1, 10**30, 1.5, [], {}, True, [[]], float("nan"), float("inf"), "", [None], 0)


def write_coco() -> dict[str, Any]:
    """Return a COCO file of the data set."""
    return {
        "images": [{"id": n, "file_name": f"images/{n}.jpg", "height": HEIGHT, "width": WIDTH} for n in range(4)],
        "categories": [{"id": 1, "name": "thing"}, {"id": 2, "name": "other"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1 + n % 2, "segmentation": [SQUARE], "area": 324, "iscrowd": 0,
             "bbox": [2, 2, 18, 18]} for n in range(4)
        ],
    }  # fmt: skip


def write_labelme(number: int) -> dict[str, Any]:
    """Return a labelme file of one image."""
    points = [[2.0, 2.0], [20.0, 2.0], [20.0, 20.0]]
    return {
        "imagePath": f"{number}.jpg", "imageHeight": HEIGHT, "imageWidth": WIDTH, "imageData": None,
        "shapes": [{"label": "thing", "points": points, "shape_type": "polygon", "flags": {}, "group_id": None}],
    }  # fmt: skip


def read_coco(content: Any, *names: str, megabytes: int = 2048):
    """Return a builder: the data set with this annotation file, and the command that inspects it."""

    def build(place: Place) -> Command:
        data = place.put_data()
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        write_bytes(data / "annotations" / "all.json", text)
        wanted = ("all.json", *names)
        return Command("inspect", ("data", "--data.layout", "coco"), wanted, megabytes=megabytes)

    return build


def read_labelme(content: Any):
    """Return a builder: three sound labelme files and this one."""

    def build(place: Place) -> Command:
        data = place.put_data()
        for number in range(4):
            sound = write_labelme(number)
            text = content if isinstance(content, str | bytes) else json.dumps(content if number == 2 else sound)
            write_bytes(data / "images" / f"{number}.json", text if number == 2 else json.dumps(sound))
        return Command("inspect", ("data/images", "--data.layout", "labelme"), ("2.json", "2.jpg"))

    return build


def put(content: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """Return a copy with a value at a path; `...` removes what is there."""
    changed = copy.deepcopy(content)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return changed


def coco_members(rng: Random) -> Iterator[Case]:
    """Yield files in which members that the reader needs are missing or of another type."""
    paths: list[tuple[str | int, ...]] = [
        ("images",), ("annotations",), ("categories",), ("images", 1), ("annotations", 1), ("categories", 0),
        ("images", 1, "file_name"), ("annotations", 1, "category_id"), ("annotations", 1, "segmentation"),
        ("categories", 0, "id"),
    ]  # fmt: skip
    wrong: dict[str, tuple[Any, ...]] = {
        "id": (..., None, "x", [], {}, 1.5, 2), "file_name": (..., None, 7, [], "", "missing.jpg", "../../etc/passwd"),
        "category_id": (..., None, "x", 9, [], {}, True), "segmentation": (..., None, "x", 7, [], {}, [[]], [None],
        [[1, 2]]),
        "images": (..., None, "x", {}, 7, []), "annotations": (..., None, "x", {"a": 1}, 7), "categories": (..., None,
        "x", {}, []),
    }  # fmt: skip
    pairs = [(p, v) for p in paths for v in wrong.get(str(p[-1]), (None, "x", 7, [], {}))]
    rng.shuffle(pairs)
    for path, value in pairs:
        if path == ("annotations",) and value == 7:
            value = 7.5
        told = "removed" if value is ... else repr(value)
        yield Case(f"COCO {'.'.join(map(str, path))}: {told}", read_coco(put(write_coco(), path, value)))


def coco_numbers(rng: Random) -> Iterator[Case]:
    """Sizes and ids of images; those that say what the file says already may be missing."""
    for key in ("height", "width", "id"):
        for value in (..., *ODD, 7, 10**6):
            told = "removed" if value is ... else repr(value)
            yield Case(
                f"COCO images.1.{key}: {told}",
                read_coco(put(write_coco(), ("images", 1, key), value), "images/1", "1.jpg"),
                "either" if key == "id" or value is ... else "answered",
            )
    for value in ODD:
        if value == 0 or value is True:
            continue
        yield Case(
            f"COCO annotations.1.image_id: {value!r}",
            read_coco(put(write_coco(), ("annotations", 1, "image_id"), value)),
        )
        yield Case(
            f"COCO annotations.1.area: {value!r}",
            read_coco(put(write_coco(), ("annotations", 1, "area"), value)),
            "either",
        )
    del rng


def coco_outlines(rng: Random) -> Iterator[Case]:
    nan, inf = float("nan"), float("inf")
    outlines: list[Any] = [
        [[nan, 2, 20, 2, 20, 20]], [[inf, 2, 20, 2, 20, 20]], [[2, 2, 20, 2]], [[2, 2]], [[2, 2, 20, 2, 20]],
        [["a"] * 6],
        [[None] * 6], [[1e300, 1, 1, 1e300, 2, 2]], [SQUARE, []], [SQUARE, [1]], [SQUARE, None], [{"a": 1}], [[[2, 2],
        [3, 3], [4, 4]]],
        {"size": [HEIGHT, WIDTH]}, {"counts": [1, 2]}, {"size": [HEIGHT, WIDTH], "counts": [10]}, {"size": None,
        "counts": [1536]},
        {"size": [HEIGHT, WIDTH], "counts": [-5, 1541]}, {"size": [HEIGHT, WIDTH], "counts": ["a"]}, {"size": [16,
        16], "counts": [256]},
        {"size": [HEIGHT, WIDTH], "counts": "not a run length"}, {"size": [HEIGHT, WIDTH], "counts": ""},
        {"size": [HEIGHT, WIDTH], "counts": None}, {"size": [HEIGHT, WIDTH], "counts": 7}, {"size": [0, 0],
        "counts": []},
        {"size": [HEIGHT, WIDTH], "counts": [10**12, 1]}, {"size": [HEIGHT, WIDTH], "counts": "\x00\xff"},
        {"size": [HEIGHT], "counts": [1536]}, {"size": [1.5, 2], "counts": [3]}, {"size": [-HEIGHT, -WIDTH],
        "counts": [1536]},
        {"size": [HEIGHT, WIDTH], "counts": "".join(chr(rng.randrange(48, 111)) for _ in range(60))},
    ]  # fmt: skip
    rng.shuffle(outlines)
    for outline in outlines:
        content = put(write_coco(), ("annotations", 1, "segmentation"), outline)
        yield Case(f"COCO outline {str(outline)[:60]}", read_coco(content, "images/1", "1.jpg", "annotation 1"))


def coco_claims_of_size(rng: Random) -> Iterator[Case]:
    """Yield files of some hundred bytes that claim gigabytes: refused before anything is allocated."""
    for side in (16_000, 65_000, 10**6, 10**9, rng.randrange(20_000, 200_000)):
        outlines: tuple[Any, ...] = (
            {"size": [side, side], "counts": [side * side]}, {"size": [side, side], "counts": "0" * 20}, [SQUARE],
        )  # fmt: skip
        for number, outline in enumerate(outlines):
            content = put(write_coco(), ("annotations", 1, "segmentation"), outline)
            for key in ("height", "width"):
                content = put(content, ("images", 1, key), side)
            yield Case(
                f"COCO image of {side} x {side}, outline {number}", read_coco(content, "images/1", megabytes=1024)
            )


def coco_categories(rng: Random) -> Iterator[Case]:
    variants = {
        "two categories of one id": [{"id": 1, "name": "thing"}, {"id": 1, "name": "other"}, {"id": 2, "name": "x"}],
        "two categories of one name": [{"id": 1, "name": "thing"}, {"id": 2, "name": "thing"}],
        "a huge id": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 2**40, "name": "c"}],
        "an id of 30 digits": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 10**30, "name": "c"}],
        "a category called background": [{"id": 1, "name": "background"}, {"id": 2, "name": "b"}],
        "a name that is null": [{"id": 1, "name": None}, {"id": 2, "name": "b"}],
        "a name that is a list": [{"id": 1, "name": ["a"]}, {"id": 2, "name": "b"}],
        "an id of NaN": [{"id": float("nan"), "name": "a"}, {"id": 1, "name": "b"}, {"id": 2, "name": "c"}],
        "an infinite id": [{"id": float("inf"), "name": "a"}, {"id": 1, "name": "b"}, {"id": 2, "name": "c"}],
        "no name": [{"id": 1}, {"id": 2, "name": "b"}],
        "an empty name": [{"id": 1, "name": ""}, {"id": 2, "name": "b"}],
    }
    for told, value in variants.items():
        key = ("data.unlabelled",) if "called background" in told else ()
        yield Case(f"COCO, {told}", read_coco({**write_coco(), "categories": value}, *key))
    doubled = write_coco()
    doubled["images"].append(doubled["images"][0])
    yield Case("COCO, an image that stands twice", read_coco(doubled), "either")
    del rng


def damaged_texts(rng: Random) -> Iterator[Case]:
    good = json.dumps(write_coco())
    texts: list[bytes | str] = [
        "", "[", "null", "7", "[]", "{}", '"x"', good[: rng.randrange(20, len(good) - 1)], good + "x", "[" * 100_000,
        "NaN",
        '{"images": ' * 30_000, good.encode("utf-16"), b"\xff" + good.encode(), b"\x00" * 64, "<html></html>",
        good.replace('"', "'"),
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", '{"a": ' + "9" * 5000 + "}",
        b"\x1f\x8b" + bytes(40),
    ]  # fmt: skip
    for text in texts:
        yield Case(f"COCO text {text[:30]!r} of {len(text)}", read_coco(text))
        yield Case(f"labelme text {text[:30]!r} of {len(text)}", read_labelme(text))


def labelme_members(rng: Random) -> Iterator[Case]:
    wrong: dict[tuple[str | int, ...], tuple[Any, ...]] = {
        ("imagePath",): (..., None, 7, [], "", "missing.jpg", "x" * 5000, "a\x00b"),
        ("shapes",): (..., None, 7, "x", {}, [None], [7], ["x"], [[]], [{}]),
        ("shapes", 0, "label"): (..., None, [], {}),
        ("shapes", 0, "points"): (..., None, 7, "x", [], [[1, 2]], [[1, 2], [3, 4]], [None] * 3, [[1]] * 3, ["a"] * 3,
                                   [[1, 2, 3]] * 3, [["a", "b"]] * 3, [[float("nan"), 1]] * 3, [[float("inf"),
                                   1]] * 3, {},
                                   [[1e300, 1], [2, 1e300], [3, 3]]),
        ("shapes", 0, "shape_type"): (7, [], "x", "line", "point", "circle", "mask", "linestrip"),
        ("imageHeight",): (0, -1, "x", [], 10**9, 10**30, 1.5, float("nan"), 7),
        ("imageWidth",): (0, -1, "x", [], 10**9, {}, True, 7),
    }  # fmt: skip
    pairs = [(path, value) for path, values in wrong.items() for value in values]
    rng.shuffle(pairs)
    for path, value in pairs:
        told = "removed" if value is ... else repr(value)[:40]
        lenient = path[-1] in ("label",) or (path[-1] == "shapes" and value is None)
        yield Case(
            f"labelme {'.'.join(map(str, path))}: {told}",
            read_labelme(put(write_labelme(2), path, value)),
            "either" if lenient else "answered",
        )


Reader = Callable[..., Any]
GENERATORS = (
    coco_members, coco_numbers, coco_outlines, coco_claims_of_size, coco_categories, damaged_texts, labelme_members,
)  # fmt: skip
