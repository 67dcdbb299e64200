"""Caches that are damaged, foreign, not writable, or no folder: they are built again, or refused in one message."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from .fault import Case, Command
from .running import run_command
from .specimen import Place

COUNTED = {"class_weights": "inverse_frequency", "data.cache": "cache/pixels"}


def train_again(change: Callable[[Path, Path], object]):
    """Return a builder: a run that fills the cache, a change of one entry, and the run once more elsewhere.

    Args:
        change: Gets the cache's folder and one of its files.
    """

    def build(place: Place) -> Command:
        place.put_data()
        place.put_recipe(
            {"class_weights": _choose_formula(), "data.cache": "cache/pixels", "training.output_dir": "out/first"}
        )
        first = run_command(Command("train", ("recipe.yaml",)), place.folder, 60)
        assert first.code == 0, first.text
        change(place.folder / "cache", place.folder)
        again = ("recipe.yaml", "--training.output_dir", "out/run")
        files = ("out/run/model.safetensors", "out/first/model.safetensors")
        return Command("train", again, ("cache",), results=files, equal=files)

    return build


def _choose_formula() -> str:
    from segplus.losses.class_weights import FORMULAS

    return sorted(FORMULAS)[0]


def entries(rng: Random) -> Iterator[Case]:
    """Every file under the cache folder, damaged in every way."""
    hows: dict[str, Callable[[Path], object]] = {
        "emptied": lambda path: path.write_bytes(b""),
        "cut to half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
        "longer": lambda path: path.write_bytes(path.read_bytes() + b"\x00" * 7),
        "random": lambda path: path.write_bytes(bytes(rng.randrange(256) for _ in range(80))),
        "other JSON": lambda path: path.write_bytes(b'{"a": [1, 2, 3]}'),
        "a folder": lambda path: (path.unlink(), path.mkdir()),
        "a dangling link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
        "a bit flipped": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
    }  # fmt: skip
    kinds = (
        "contents/*",
        "statistics/*",
        "pixels/*/index.json",
        "pixels/*/table.npy",
        "pixels/*/images.bin",
        "pixels/*/labels.bin",
    )
    pairs = [(kind, how) for kind in kinds for how in hows]
    rng.shuffle(pairs)
    for kind, how in pairs:

        def change(cache: Path, _: Path, kind: str = kind, how: str = how) -> None:
            for path in [path for path in sorted(cache.glob(kind)) if path.is_file()]:
                hows[how](path)

        yield Case(f"cache/{kind} {how}", train_again(change), "runs")


def removed_folders(rng: Random) -> Iterator[Case]:
    for kind in ("contents", "statistics", "pixels", "."):

        def change(cache: Path, _: Path, kind: str = kind) -> None:
            shutil.rmtree(cache / kind, ignore_errors=True)

        yield Case(f"cache/{kind} removed", train_again(change), "runs")
    del rng


def folders_in_the_way(rng: Random) -> Iterator[Case]:
    """Yield cache folders that cannot be made, or hold something that is in the way."""

    def build(make: Callable[[Path], object], verb: str, environment: dict[str, str]):
        def build_one(place: Place) -> Command:
            place.put_data()
            make(place.folder)
            words: dict[str, object] = {"class_weights": _choose_formula()}
            place.put_recipe(words)
            arguments = ("recipe.yaml",) if verb == "train" else ("data",)
            names = ("cache", "SEGPLUS_CACHE", *environment.values())
            return Command(verb, arguments, names, environment=environment, writable=("out",))

        return build_one

    def touch(name: str) -> Callable[[Path], object]:
        def make(folder: Path) -> None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("x")

        return make

    def link(folder: Path) -> None:
        os.symlink("nowhere/at/all", folder / "cache")

    for verb in ("train", "inspect"):
        for told, make, environment in (
            ("is a file", touch("cache"), {}), ("holds a file contents", touch("cache/contents"), {}),
            ("holds a file statistics", touch("cache/statistics"), {}), ("is a dangling link", link, {}),
            ("lies in /proc", lambda _: None, {"SEGPLUS_CACHE": "/proc/nowhere"}), ("is /dev/null/x", lambda _: None,
            {"SEGPLUS_CACHE": "/dev/null/x"}),
            ("has a name of 300 letters", lambda _: None, {"SEGPLUS_CACHE": "x" * 300}), ("lies below a file",
            touch("file"), {"SEGPLUS_CACHE": "file/x"}),
        ):  # fmt: skip
            # A verb that uses no cache runs.
            yield Case(f"{verb}: the cache folder {told}", build(make, verb, environment), "either")
    del rng


GENERATORS = (entries, removed_folders, folders_in_the_way)
