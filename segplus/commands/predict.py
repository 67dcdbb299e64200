"""Predict images that lie on disk: what `segplus predict` runs."""

from __future__ import annotations

import argparse
import dataclasses
import glob
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from segplus.classes import ClassMap
from segplus.commands.chosen_sections import read_sections
from segplus.data.decoding.image_reader import IMAGE_SUFFIXES, ImageReader, read_size
from segplus.data.parallel import read_ahead
from segplus.errors import InputError
from segplus.files import explain_refusals, place_outputs, prepare_folder, sweep_leftovers, write_text
from segplus.inference.checkpoint import Checkpoint, choose_device, find_checkpoint
from segplus.inference.prediction_files import check_mask_format, write_labels
from segplus.inference.scoring import READ_AHEAD
from segplus.models import prepare_to_serve
from segplus.progress import Progress
from segplus.recipe.evaluation_section import ProtocolRecipe
from segplus.reporting.metrics_file import read_metrics

_NOTE = "segplus_predictions.json"


def predict(
    checkpoint: str,
    source: str | Path,
    output: str | Path,
    *,
    protocol: ProtocolRecipe | None = None,
    mask_format: str = "ids",
    classes: ClassMap | None = None,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Write the label map of each image as a PNG of its size; what the same command wrote before stays as it is.

    Args:
        checkpoint: Folder or Hub id of any semantic-segmentation model.
        source: An image, a folder (searched with its subfolders) or a pattern such as `photos/*.jpg`.
        output: A folder that gets `<name>.png`; for one image also a file, named *.png, which is always written anew.
        protocol: How predictions are formed.
        mask_format: `ids` (grey values), `palette` (ids with colours) or `overlay` (colours over the image).
        classes: Colours; by default those of the run that left the checkpoint, or others for its class names.
        device: Where to run; by default the accelerator, or else the CPU.
        trust_remote_code: Run the model code that lies in the checkpoint.
        progress: Show a progress bar with images per second.
    Returns:
        The paths of all PNGs, in the order of the images.
    Raises:
        InputError: If there is no image, one cannot be read, the checkpoint cannot be loaded, the folder holds the
            predictions of another model, of other weights, protocol or mask format, or a file cannot be written.
    """
    protocol = protocol or ProtocolRecipe()
    targets = list_targets(Path(source), Path(output))
    found = find_checkpoint(checkpoint, trust_remote_code=trust_remote_code)
    if classes is None:
        classes = read_classes(found)
    else:
        found.refuse_other_classes(classes)
    check_mask_format(mask_format, classes.num_classes)
    if not is_image_target(Path(output)):
        claim_folder(prepare_folder(output), found, protocol, mask_format, [target for _, target in targets])
        waiting = [(image, target) for image, target in targets if not target.exists()]
    else:
        prepare_folder(Path(output).parent)
        waiting = targets
    for image, _ in waiting:
        read_size(str(image), str(image))
    if waiting:
        _predict_files(found, waiting, protocol, mask_format, classes, choose_device(device), progress)
    return [target for _, target in targets]


def _predict_files(
    found: Checkpoint,
    waiting: list[tuple[Path, Path]],
    protocol: ProtocolRecipe,
    mask_format: str,
    classes: ClassMap,
    device: torch.device,
    progress: bool,
) -> None:
    predictor = found.load(protocol, device)
    prepare_to_serve(predictor.model)
    reader = ImageReader(found.channels, found.image_range)
    sources = [str(image) for image, _ in waiting]
    images = read_ahead(map(reader.read, sources, sources), READ_AHEAD)
    bar = Progress(images, total=len(waiting), title="predicting", unit="images", show=progress)
    for image, (_, target) in zip(bar, waiting, strict=True):
        write_labels(target, predictor.predict(image).cpu().numpy(), image, classes, mask_format)


def is_image_target(output: Path) -> bool:
    """Whether the output is one PNG and not a folder."""
    return output.suffix.lower() == ".png" and not output.is_dir()


def list_targets(source: Path, output: Path) -> list[tuple[Path, Path]]:
    """Return each image with the PNG that it becomes; below a folder the subfolders are kept.

    Raises:
        InputError: If there is no image, two would become one PNG, several are to become one file, or a link, a folder
            or one of the images stands in a PNG's place.
    """
    if source.is_file():
        images, root = [source], source.parent
    elif source.is_dir():
        images, root = sorted(path for path in source.rglob("*") if _is_image(path)), source
        if source.resolve() in output.resolve().parents:  # what an earlier command wrote there is no input
            images = [path for path in images if output.resolve() not in path.resolve().parents]
    else:
        images = sorted(Path(path) for path in glob.glob(str(source), recursive=True) if _is_image(Path(path)))
        root = _find_common_folder(images)
    if not images:
        raise InputError(f"{source}: no image found", allowed=", ".join(sorted(IMAGE_SUFFIXES)), fix="check the path")
    if is_image_target(output):
        if len(images) > 1:
            raise InputError(f"{output}: one file for {len(images)} images", fix="name a folder")
        return [(images[0], place_outputs(output.parent, [output.stem], output.suffix, images)[0])]
    if output.suffix and not output.is_dir() and len(images) == 1:
        raise InputError(f"{output}: label maps are PNG", found=output.suffix, fix="name it *.png, or name a folder")
    names = [str(image.relative_to(root).with_suffix("")) for image in images]
    return list(zip(images, place_outputs(output, names, ".png", images), strict=True))


def _is_image(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _find_common_folder(images: list[Path]) -> Path:
    if not images:
        return Path()
    shared = set(images[0].parents).intersection(*(image.parents for image in images))
    return max(shared, key=lambda folder: len(folder.parts))


def claim_folder(
    output: Path, found: Checkpoint, protocol: ProtocolRecipe, mask_format: str, targets: Sequence[Path]
) -> None:
    """Note in the folder what its images were made with.

    Raises:
        InputError: If another model, other weights, another protocol or mask format made those that lie there, or a
            file that no prediction wrote stands in the place of one.
    """
    wanted: dict[str, Any] = {
        "checkpoint": str(Path(found.source).resolve()) if Path(found.source).exists() else found.source,
        "weights": found.digest_weights(),
        "protocol": dataclasses.asdict(protocol),
        "kind": mask_format,
        "class_names": found.class_names,
    }
    path = output / _NOTE
    before = read_note(path)
    if before is not None:
        if before != wanted:
            key = next(key for key in wanted if before.get(key) != wanted[key])
            raise InputError(
                f"{output}: holds predictions made otherwise ({key})",
                found=before.get(key),
                allowed=wanted[key],
                fix="name another folder, or remove this one",
            )
        for parent in {target.parent for target in targets}:
            sweep_leftovers(parent)
        return
    standing = next((target for target in targets if target.exists()), None)
    if standing is not None:
        raise InputError(
            f"{standing}: lies where a prediction would, and {output} has no {_NOTE}",
            fix="name another folder, or move the file away",
        )
    write_text(path, json.dumps(wanted, indent=2) + "\n")


def read_note(path: Path) -> dict[str, Any] | None:
    """Return what a folder's predictions were made with, or None where there is no note.

    Raises:
        InputError: If the note is damaged.
    """
    if not os.path.lexists(path):
        return None
    with explain_refusals(path):
        content = path.read_bytes()
    try:
        note = json.loads(content)
    except (ValueError, RecursionError):
        note = None
    if not isinstance(note, dict):
        raise InputError(
            f"{path}: damaged, so nothing says what made the predictions beside it",
            fix="remove the folder, or name another one",
        )
    return note


def read_classes(found: Checkpoint) -> ClassMap:
    """Return the checkpoint's classes, in the colours that its run's metrics.json states where there is one."""
    names = make_names_unique(found.class_names)
    path = Path(found.source) / "metrics.json"
    stated = read_metrics(path) if path.is_file() else {}
    colors = stated.get("class_colors") if stated.get("class_names") == names else None
    return ClassMap.build(names, colors=dict(zip(names, colors, strict=True)) if colors else None)


def make_names_unique(names: list[str]) -> list[str]:
    """Return the names with a number behind those that occur again, as in some checkpoints of the Hub."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Write the label map of each image."""
    _, recipe = read_sections("predict", None, None, options.checkpoint, options.protocol, rest)
    written = predict(
        options.checkpoint,
        options.input,
        options.output,
        protocol=recipe.protocol,
        mask_format=options.kind,
        trust_remote_code=options.trust_remote_code,
    )
    print(f"{len(written)} images lie in {options.output}" if len(written) != 1 else f"written: {written[0]}")
    return 0
