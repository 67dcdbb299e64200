"""The images that `segplus predict` is to segment, and the files that each becomes."""

from __future__ import annotations

import glob
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segplus.data.decoding.image_reader import IMAGE_SUFFIXES
from segplus.data.decoding.stored import Stored
from segplus.errors import InputError
from segplus.files import place_outputs
from segplus.inference.output_kinds import KINDS

_SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves


@dataclass(frozen=True)
class Item:
    """One image to predict.

    Args:
        path: Its file; of a row the name that its file would have.
        name: What records and tables call it: its path below the folder that holds all.
        targets: Kind -> the file that it becomes.
        thumbnail: Its picture in the gallery.
        rows: A data set whose column `image` holds it; None for a file.
        row: Its row there.
    """

    path: Path
    name: str
    targets: dict[str, Path]
    thumbnail: Path
    rows: Any = None
    row: int = 0

    def load(self) -> Stored:
        """Return the image as it is stored: its path, or {"bytes", "path"}."""
        return str(self.path) if self.rows is None else self.rows[self.row]["image"]


def is_image_target(output: Path) -> bool:
    """Whether the output is one PNG and not a folder."""
    return output.suffix.lower() == ".png" and not output.is_dir()


def list_items(
    source: str | Path | Sequence[str | Path], output: Path, kinds: Sequence[str], column: str | None = None
) -> list[Item]:
    """Return the images of a file, a folder, a pattern, a list, stdin or a data set, with the files that each becomes.

    Args:
        source: See `list_images`, and `prediction_rows.open_rows`.
        output: Folder, or a PNG.
        kinds: Of files.
        column: Of a data set, that of the images.
    Raises:
        InputError: If there is no image, or a file cannot be placed.
    """
    if isinstance(source, str | Path) and is_data_set(str(source)):
        from segplus.commands.prediction_rows import open_rows  # the `datasets` library: half a second

        names, rows = open_rows(str(source), column)
        items = place_items([Path(name) for name in names], Path(), output, kinds)
        return [replace(item, rows=rows, row=number) for number, item in enumerate(items)]
    if column is not None:
        raise InputError("--image-column: the input is no data set", found=source, fix="leave it out")
    images, root = list_images(source, output)
    return place_items(images, root, output, kinds)


def is_data_set(source: str) -> bool:
    """Whether an input is a folder that save_to_disk wrote, or name:split, and no path of its own."""
    if Path(source).exists():
        return any((Path(source) / mark).is_file() for mark in _SAVED)
    return re.fullmatch(r"[^:*?]{2,}:[\w.-]+", source) is not None


def list_images(source: str | Path | Sequence[str | Path], output: Path) -> tuple[list[Path], Path]:
    """Return the images that a file, a folder, a pattern, a list, or "-" for the lines of stdin stands for.

    Returns:
        The images, and the folder that their names begin below.
    Raises:
        InputError: If there is no image.
    """
    if str(source) == "-":
        source = [line for line in (line.strip() for line in sys.stdin) if line]
    if not isinstance(source, str | Path):
        images = list(dict.fromkeys(Path(path) for path in source))
        root = _find_common_folder(images)
    elif Path(source).is_file():
        images, root = [Path(source)], Path(source).parent
    elif Path(source).is_dir():
        root = Path(source)
        images = sorted(path for path in root.rglob("*") if _is_image(path))
        if root.resolve() in output.resolve().parents:  # what an earlier command wrote there is no input
            images = [path for path in images if output.resolve() not in path.resolve().parents]
    else:
        images = sorted(Path(path) for path in glob.glob(str(source), recursive=True) if _is_image(Path(path)))
        root = _find_common_folder(images)
    if not images:
        raise InputError(f"{source}: no image found", allowed=", ".join(sorted(IMAGE_SUFFIXES)), fix="check the path")
    return images, root


def place_items(images: Sequence[Path], root: Path, output: Path, kinds: Sequence[str]) -> list[Item]:
    """Return each image with the files that it becomes; below a folder the subfolders are kept.

    One kind lies in the folder itself, several each in a folder of its own. The kind `coco` is one file of all images.

    Raises:
        InputError: If two images would become one file, several are to become one file, or a link, a folder or one of
            the images stands in a file's place.
    """
    own = [kind for kind in kinds if kind in KINDS]
    if is_image_target(output):
        if len(images) > 1:
            raise InputError(f"{output}: one file for {len(images)} images", fix="name a folder")
        if len(kinds) > 1 or not own or KINDS[own[0]].suffix != ".png":
            raise InputError(f"{output}: {', '.join(kinds)} are no single PNG", fix="name a folder")
        target = place_outputs(output.parent, [output.stem], output.suffix, images)[0]
        return [Item(images[0], images[0].name, {own[0]: target}, target)]
    if output.suffix and not output.is_dir() and len(images) == 1:
        raise InputError(f"{output}: label maps are PNG", found=output.suffix, fix="name it *.png, or name a folder")
    names = [str(image.relative_to(root).with_suffix("")) for image in images]
    placed = {
        kind: place_outputs(output / kind if len(kinds) > 1 else output, names, KINDS[kind].suffix, images)
        for kind in own
    }
    thumbnails = place_outputs(output / "thumbnails", names, ".jpg", images)
    return [
        Item(
            image,
            image.relative_to(root).as_posix(),
            {kind: paths[number] for kind, paths in placed.items()},
            thumbnails[number],
        )
        for number, image in enumerate(images)
    ]


def _is_image(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _find_common_folder(images: Sequence[Path]) -> Path:
    if not images:
        return Path()
    shared = set(images[0].parents).intersection(*(image.parents for image in images))
    return max(shared, key=lambda folder: len(folder.parts), default=Path())
