"""Predict images that lie on disk: what `segplus predict` runs."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from segplus.classes import ClassMap
from segplus.commands.chosen_decision import parse_pixel_size, read_chosen_decision
from segplus.commands.chosen_sections import read_sections
from segplus.commands.prediction_inputs import Item, is_image_target, list_items
from segplus.commands.prediction_run import PredictionRun, find_pixel_size, predict_items
from segplus.commands.prediction_summary import check_measure, write_summaries
from segplus.data.decoding.image_reader import read_size
from segplus.errors import InputError
from segplus.files import prepare_folder
from segplus.inference.checkpoint import Checkpoint, choose_device
from segplus.inference.decision_file import Changes
from segplus.inference.ensemble import PRECISIONS, Ensemble, find_ensemble
from segplus.inference.output_kinds import KINDS, check_kinds
from segplus.inference.prediction_folder import Records, claim_folder
from segplus.recipe.evaluation_section import ProtocolRecipe
from segplus.recipe.postprocess_section import DecisionRecipe
from segplus.reporting.metrics_file import read_metrics

EXIT_CODE_LEFT_OUT = 1


class LeftOutError(InputError):
    """Images that could not be predicted; all others were."""


def predict(
    checkpoint: str | Sequence[str],
    source: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    image_column: str | None = None,
    protocol: ProtocolRecipe | None = None,
    decision: DecisionRecipe | Changes | None = None,
    kinds: str | Sequence[str] = "ids",
    classes: ClassMap | None = None,
    measure: str | None = None,
    pixel_size: str | None = None,
    objects_of: Sequence[str] | None = None,
    contours: bool = False,
    gallery: bool = False,
    precision: str = "float32",
    batch: int = 1,
    folded: bool = False,
    compiled: bool = False,
    dropout_samples: int = 0,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Segment images, and write each as a file a kind; what the same command wrote before stays as it is.

    Args:
        checkpoint: Folder or Hub id of any semantic-segmentation model; several, or a folder that holds those of all
            folds, are an ensemble.
        source: An image, a folder (searched with its subfolders), a pattern such as `photos/*.jpg`, a list of files, or
            "-", the lines of stdin; or a data set: a folder that save_to_disk wrote, or `name:split`.
        output: A folder that gets `<name>.png`, or for several kinds `<kind>/<name>.png`; for one image also a file,
            named *.png, which is always written anew.
        image_column: Of a data set; by default its one column of images, or the one called image.
        protocol: How predictions are formed.
        decision: How probabilities become a label map; by default the decision stored with the checkpoint, a mapping
            says what to change of it.
        kinds: One or several of `output_kinds.KINDS`, and `coco`: one file of all images.
        classes: Colours; by default those of the run that left the checkpoint, or others for its class names.
        measure: Name of a table of areas and objects inside the folder: .csv, .parquet or .json.
        pixel_size: Side of a pixel, such as 0.05mm, or `file`: what each image states, a GeoTIFF that on the ground.
        objects_of: Classes whose objects are measured; by default all that are not called background.
        contours: Also list the outlines of objects in the table.
        gallery: Also write `index.html`, which shows all images.
        precision: `float32`, `bfloat16` or `float16`: what the network computes in.
        batch: Images that go through the network together, by the protocol `fixed`.
        folded: Fold BatchNorm into the convolutions before it, and on a CPU lay convolutional networks out channels
            last: faster, and scores differ by rounding from those that `evaluate` sees.
        compiled: Compile the network first, which takes minutes and pays for many images of one size.
        dropout_samples: For the kind `disagreement`: predictions with dropout.
        device: Where to run; by default the accelerator, or else the CPU.
        trust_remote_code: Run the model code that lies in the checkpoint.
        progress: Show a progress bar with images per second.
    Returns:
        The paths of all files of the first kind, in the order of the images.
    Raises:
        LeftOutError: If some images could not be read, after all others were written.
        InputError: If there is no image, none can be read, the checkpoint cannot be loaded, the folder holds the
            predictions of another model, of other weights, protocol, decision or kinds, or a file cannot be written.
    """
    chosen, output = [kinds] if isinstance(kinds, str) else list(kinds), Path(output)
    check_kinds([kind for kind in chosen if kind != "coco"] or (["ids"] if chosen else []), 1)
    if is_image_target(output) and (measure or gallery):
        raise InputError(f"{output}: a table or a gallery is of a folder", fix="name a folder")
    run = PredictionRun(
        output=output,
        protocol=protocol or ProtocolRecipe(),
        kinds=tuple(chosen),
        measure=check_measure(measure, output),
        pixel_size=pixel_size if pixel_size in (None, "file") else parse_pixel_size(str(pixel_size)),
        objects_of=None if objects_of is None else tuple(objects_of),
        contours=contours,
        gallery=gallery,
        precision=precision,
        batch=batch,
        folded=folded,
        compiled=compiled,
        dropout_samples=dropout_samples,
    )
    items = list_items(source, output, chosen, image_column)
    found = find_ensemble(checkpoint, decision, trust_remote_code=trust_remote_code)
    classes = _settle_classes(run, found.members[0], classes)
    records, waiting = _open_folder(run, found, items)
    left_out = _find_unreadable(run, waiting)
    readable = [item for item in waiting if item.name not in left_out]
    if readable:
        left_out |= predict_items(run, found, readable, classes, records, choose_device(device), progress)
    if len(left_out) == len(items):
        raise InputError("\n".join(left_out.values()))
    write_summaries(run, [item for item in items if item.name not in left_out], records, classes)
    if left_out:
        raise LeftOutError(_describe_left_out(left_out, len(items)))
    first = next((kind for kind in chosen if kind in KINDS), None)
    return [output / "coco.json"] if first is None else [item.targets[first] for item in items]


def _settle_classes(run: PredictionRun, found: Checkpoint, classes: ClassMap | None) -> ClassMap:
    """Return the classes as they are drawn, before anything is written.

    Raises:
        InputError: If they are not the checkpoint's, too many for a kind, or lack one whose objects are asked for.
    """
    if classes is None:
        classes = read_classes(found)
    else:
        found.refuse_other_classes(classes)
    check_kinds([kind for kind in run.kinds if kind != "coco"] or ["ids"], classes.num_classes)
    run.list_object_classes(classes.names)
    return classes


def _open_folder(run: PredictionRun, found: Ensemble, items: Sequence[Item]) -> tuple[Records | None, list[Item]]:
    """Claim the folder; return what is known of its images, and the images that are not done."""
    if is_image_target(run.output):
        prepare_folder(run.output.parent)
        return None, list(items)
    targets = [target for item in items for target in item.targets.values()]
    claim_folder(prepare_folder(run.output), describe_run(run, found), targets)
    keys = run.list_record_keys()
    records = Records(run.output, keys) if keys else None
    waiting = [
        item
        for item in items
        if not all(target.exists() for target in item.targets.values())
        or (records is not None and item.name not in records)
        or (run.gallery and not item.thumbnail.exists())
    ]
    return records, waiting


def describe_run(run: PredictionRun, found: Ensemble) -> dict[str, Any]:
    """Return what predictions are made with, in JSON's types."""
    return {
        "checkpoint": ", ".join(
            str(Path(one.source).resolve()) if Path(one.source).exists() else one.source for one in found.members
        ),
        "weights": found.digest_weights(),
        "protocol": dataclasses.asdict(run.protocol),
        "decision": {key: value for key, value in found.decision.list_chosen().items() if key != "chosen_on"},
        "kinds": list(run.kinds),
        "precision": run.precision,
        "folded": run.folded,
        "class_names": found.class_names,
        "pixel_size_mm": run.pixel_size,
        "objects_of": None if run.objects_of is None else list(run.objects_of),
        "contours": run.contours,
        "dropout_samples": run.dropout_samples,
    }


def _find_unreadable(run: PredictionRun, items: Sequence[Item]) -> dict[str, str]:
    """Return name -> message of the images whose header cannot be read, or does not state what it is to state."""
    left_out = {}
    for item in items:
        try:
            read_size(item.load(), str(item.path))
            find_pixel_size(run.pixel_size, item)
        except InputError as error:
            left_out[item.name] = str(error)
    return left_out


def _describe_left_out(left_out: dict[str, str], total: int) -> str:
    listed = "\n".join(left_out.values())
    done = total - len(left_out)
    return f"{len(left_out)} of {total} images left out, the other {done} are done:\n{listed}"


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
    """Write the files of each image; an image that cannot be read is told at the end."""
    _, recipe = read_sections("predict", None, None, options.checkpoint[0], options.protocol, rest)
    if options.precision not in PRECISIONS:
        raise InputError("--precision", found=options.precision, allowed=", ".join(PRECISIONS))
    try:
        written = predict(
            options.checkpoint,
            options.input,
            options.output,
            image_column=options.image_column,
            protocol=recipe.protocol,
            decision=read_chosen_decision(options, rest),
            kinds=options.kind or ["ids"],
            measure=options.measure,
            pixel_size=options.pixel_size,
            objects_of=options.objects_of,
            contours=options.contours,
            gallery=options.gallery,
            precision=options.precision,
            batch=options.batch,
            folded=options.fold,
            compiled=options.compile,
            dropout_samples=options.dropout_samples,
            trust_remote_code=options.trust_remote_code,
        )
    except LeftOutError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CODE_LEFT_OUT
    print(f"{len(written)} images lie in {options.output}" if len(written) != 1 else f"written: {written[0]}")
    return 0
