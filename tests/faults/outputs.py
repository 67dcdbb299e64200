"""Outputs that cannot be written, or that would be written over what a person owns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from . import files
from .fault import Case, Command, Expected, write_bytes
from .specimen import Place

VERBS = ("train", "evaluate", "predict", "compare", "inspect", "folds", "predict one", "per image")
BLOCKED = (
    "a file",
    "below a file",
    "a dangling link",
    "below a dangling link",
    "in /proc",
    "too long",
    "in /dev/null",
    "a FIFO",
)


def write_into(target: str, verb: str, prepare: Callable[[Path], object], *options: str, megabytes: float | None = None,
               names: tuple[str, ...] = (), writable: tuple[str, ...] = ("cache",)):  # fmt: skip
    """Return a builder: data, model, a prepared output place, and the verb that writes to it."""

    def build(place: Place) -> Command:
        place.put_data()
        place.put_model()
        place.put_recipe({"training.output_dir": target})
        prepare(place.folder)
        name = (*names, target.rsplit("/", 1)[-1][:40], target[:60])
        scored = ("--evaluation.bootstrap_resamples", "0")
        words: dict[str, tuple[str, ...]] = {
            "train": ("train", "recipe.yaml"), "evaluate": ("evaluate", "model", "data", "-o", target, *scored),
            "predict": ("predict", "model", "data/images", "-o", target),
            "predict one": ("predict", "model", "data/images/0.jpg", "-o",
            f"{target}.png" if "nul" not in target else target),
            "compare": ("compare", "model", "copy", "--data", "data", "-o", target,
            "--evaluation.bootstrap_resamples", "9"),
            "inspect": ("inspect", "data", "--page", target), "folds": ("folds", "folds", "-o", target),
            "per image": ("evaluate", "model", "data", "-o", "out/e", "--per-image", f"{target}.csv", *scored),
        }  # fmt: skip
        if verb == "compare":
            place.put_model("copy")
        if verb == "folds":
            _put_folds(place)
        chosen = words[verb]
        return Command(chosen[0], (*chosen[1:], *options), name, writable=writable, file_megabytes=megabytes)

    return build


def _put_folds(place: Place) -> None:
    """Two folds' folders, as far as `segplus folds` reads them."""
    for fold in (0, 1):
        folder = place.put_model(f"folds/fold-{fold}")
        recipe = (
            (folder / "recipe.yaml").read_text().replace("folds: 0", "folds: 2").replace("fold: 0", f"fold: {fold}")
        )
        (folder / "recipe.yaml").write_text(recipe)


def _block(what: str, target: str) -> tuple[Callable[[Path], object], str]:
    """Return what puts something in the way of a target, and the target's name."""

    def touch(folder: Path) -> None:
        for name in (target, f"{target}.png", f"{target}.csv"):
            write_bytes(folder / name, "a person's file")

    def link(folder: Path) -> None:
        (folder / "out").mkdir(exist_ok=True)
        for name in (target, f"{target}.png", f"{target}.csv"):
            (folder / name).symlink_to("nowhere/at/all")

    def pipe(folder: Path) -> None:
        import os

        (folder / "out").mkdir(exist_ok=True)
        for name in (target, f"{target}.png", f"{target}.csv"):
            os.mkfifo(folder / name)

    nothing = lambda _: None  # noqa: E731
    return {
        "a file": (touch, target), "below a file": (touch, f"{target}/deeper"), "a dangling link": (link, target),
        "below a dangling link": (link, f"{target}/deeper"), "in /proc": (nothing, "/proc/nowhere/x"),
        "a FIFO": (pipe, target),
        "too long": (nothing, "out/" + "x" * 300), "in /dev/null": (nothing, "/dev/null/nul"),
    }[what]  # fmt: skip


def places_that_are_taken(rng: Random) -> Iterator[Case]:
    pairs = [(what, verb) for what in BLOCKED for verb in VERBS]
    rng.shuffle(pairs)
    for what, verb in pairs:
        prepare, target = _block(what, f"out/{rng.choice(('results', 'r1', 'mine'))}")
        # A page, a table or one PNG that is named takes the place of an older one; folders cannot take a file's place.
        # A table of scores per image is made inside the folder of results, whatever its name.
        replaces = verb in ("inspect", "predict one", "per image") and what in ("a file", "a dangling link")
        writable = ("out", "cache") if replaces else ("cache",)
        names = ("0.png", target.removesuffix("/deeper"))
        build = write_into(target, verb, prepare, names=names, writable=writable)
        yield Case(f"{verb}: output is {what}", build, "either" if replaces or verb == "per image" else "answered")


def full_disks(rng: Random) -> Iterator[Case]:
    """No file can grow beyond some bytes, as on a disk that is full."""
    for verb in ("train", "evaluate", "predict", "compare", "inspect", "folds"):
        for _ in range(2):
            size = rng.choice((0.0, 0.00002, 0.0001))
            build = write_into(
                "out/r", verb, lambda _: None, megabytes=size, names=("space", "large", "disk", "written")
            )
            yield Case(f"{verb}: files of {int(size * 2**20)} bytes at most", build)
    for _ in range(4):
        size = rng.uniform(0.001, 0.03)
        saving = ("--save_strategy", "steps", "--save_steps", "1", "--max_steps", "2")
        build = write_into(
            "out/r", "train", lambda _: None, *saving, megabytes=size, names=("space", "large", "disk", "written")
        )
        yield Case(f"train: files of {int(size * 2**20)} bytes at most, checkpoints", build, "either")


def folders_of_others(rng: Random) -> Iterator[Case]:
    """Yield output folders in which a person's own files lie: they stay as they are."""
    cases: list[tuple[str, str, dict[str, str], Expected]] = [
        ("train", "thesis.tex", {"thesis.tex": "x"}, "answered"), ("train", "README.md", {"README.md": "mine"},
        "answered"),
        ("train", "config.json", {"config.json": "{}", "model.safetensors": "x"}, "answered"), ("predict", "0.png",
        {"0.png": "mine"}, "either"),
        ("predict", "note", {"segplus_predictions.json": "{}"}, "answered"), ("predict", "note",
        {"segplus_predictions.json": "["}, "answered"),
        ("predict", "note", {"segplus_predictions.json": "[]"}, "answered"), ("predict", "note",
        {"segplus_predictions.json": "7"}, "answered"),
        ("predict", "note", {"segplus_predictions.json": "null"}, "answered"), ("predict", "note",
        {"segplus_predictions.json": "\x00"}, "answered"),
        ("predict", "note", {"segplus_predictions.json": json.dumps({"checkpoint": "x"})}, "answered"),
        ("predict", "note", {"segplus_predictions.json": "[" * 100_000}, "answered"), ("predict", "part",
        {".0.png.part": "mine"}, "runs"),
        ("train", "part", {"recipe.yaml.tmp": "x"}, "either"),
        ("evaluate", "a page", {"report.html": "mine"}, "answered"),
        ("evaluate", "numbers", {"metrics.json": '{"mean": 1}'}, "answered"),
        ("evaluate", "a table", {"per_image.csv": "mine"}, "answered"),
        ("evaluate", "a note", {"notes.txt": "mine"}, "runs"),
        ("compare", "a table", {"classes.csv": "mine"}, "answered"),
        ("compare", "numbers", {"comparison.json": "[1]"}, "answered"),
        ("compare", "a sheet", {"disagreements/1.png": "mine"}, "answered"),
    ]  # fmt: skip
    rng.shuffle(cases)
    for verb, told, held, expected in cases:

        def prepare(folder: Path, held: dict[str, str] = held) -> None:
            for name, content in held.items():
                write_bytes(folder / "out" / "r" / name, content)

        names = ("segplus_predictions", "not empty", "predictions", *held)
        yield Case(
            f"{verb}: out/r holds {told} {next(iter(held.values()))[:20]!r}",
            write_into("out/r", verb, prepare, names=names),
            expected,
        )


def links_to_others(rng: Random) -> Iterator[Case]:
    """Links in the output folder lead to a person's files: they are not followed."""
    lines = """
        predict 0.png
        predict .0.png.part
        predict segplus_predictions.json
        evaluate metrics.json
        evaluate report.html
        evaluate .metrics.json.part
        evaluate per_image.csv
        compare comparison.json
        train recipe.yaml.tmp
        folds folds.json
    """
    for verb, name in (line.split() for line in lines.strip().splitlines()):

        def prepare(folder: Path, name: str = name) -> None:
            write_bytes(folder / "own" / "file.json", json.dumps({"mine": 1}))
            (folder / "out" / "r").mkdir(parents=True)
            (folder / "out" / "r" / name).symlink_to("../../own/file.json")

        yield Case(
            f"{verb}: out/r/{name} is a link to a person's file",
            write_into("out/r", verb, prepare, names=(name, "r"), writable=("out", "cache")),
            "either",
        )
    del rng


def inputs_as_outputs(rng: Random) -> Iterator[Case]:
    """Yield outputs that are inputs: images, masks and models are not written over."""
    lines = """
        predict model data/masks -o data/masks
        predict model data/images -o data/masks
        predict model data/images -o model
        predict model data/masks/0.png -o data/masks/0.png
        inspect data --page data/masks/0.png
        inspect data --page data/id2label.json
        evaluate model data -o data
        evaluate model data -o model
        evaluate model data -o out/e --per-image ../../data/mine.csv
        compare model copy --data data -o model
        folds folds -o folds/fold-0
        train recipe.yaml --output_dir data
        train recipe.yaml --output_dir model
        train recipe.yaml --output_dir .
    """
    lists = [tuple(line.split()) for line in lines.strip().splitlines()]
    rng.shuffle(lists)
    for words in lists:

        def build(place: Place, words: tuple[str, ...] = words) -> Command:
            data = place.put_data()
            write_bytes(data / "mine.csv", "a,b\n1,2\n")
            place.put_model()
            place.put_model("copy")
            place.put_recipe()
            _put_folds(place)
            return Command(words[0], words[1:], writable=("cache",), makes=None)

        yield Case(" ".join(words), build, "either")


def damaged_results(rng: Random) -> Iterator[Case]:
    """`segplus folds` over results that are damaged."""
    contents = files.FOREIGN | {
        "[]": b"[]", "null": b"null", "{}": b"{}", "7": b"7", "NaN": b"NaN", "deep": b"[" * 100_000,
        "no scores": b'{"evaluations": {}}',
        "evaluations of text": b'{"evaluations": "x", "class_names": 7}',
        "null scores": b'{"evaluations": {"validation": null}, "class_names": []}',
    }  # fmt: skip
    pairs = [(told, name) for told in contents for name in ("metrics.json", "recipe.yaml")]
    rng.shuffle(pairs)
    for told, name in pairs:

        def prepare(folder: Path, told: str = told, name: str = name) -> None:
            (folder / "folds" / "fold-1" / name).write_bytes(contents[told])

        build = write_into("out/f", "folds", lambda _: None, names=(name, "fold-1", "folds"))

        def build_and_damage(place: Place, build=build, prepare=prepare) -> Command:
            command = build(place)
            prepare(place.folder)
            return command

        yield Case(f"folds: fold-1/{name} is {told}", build_and_damage)


GENERATORS = (
    places_that_are_taken, full_disks, folders_of_others, links_to_others, inputs_as_outputs, damaged_results,
)  # fmt: skip
