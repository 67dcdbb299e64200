"""What is of all images of a folder of predictions: tables, COCO annotations, the gallery."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from segplus.classes import ClassMap
from segplus.commands.prediction_inputs import Item
from segplus.commands.prediction_run import PredictionRun
from segplus.errors import InputError
from segplus.files import place_outputs, write_text
from segplus.inference.annotations import build_coco
from segplus.inference.prediction_files import write_table
from segplus.inference.prediction_folder import Records
from segplus.reporting.predictions_page import write_predictions_page

_SUFFIXES = (".csv", ".parquet", ".json")


def check_measure(name: str | None, output: Path) -> Path | None:
    """Return where the table of measurements goes.

    Raises:
        InputError: If it is no table, or not inside the folder.
    """
    if name is None:
        return None
    path = Path(name)
    if path.suffix not in _SUFFIXES:
        raise InputError("--measure: not a table", found=path.suffix or name, allowed=", ".join(_SUFFIXES))
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"--measure {name}: outside of the folder of predictions", allowed="a name inside it")
    return place_outputs(output, [str(path)], "")[0]


def write_summaries(run: PredictionRun, items: Sequence[Item], records: Records | None, classes: ClassMap) -> None:
    """Write what the records of all images give; nothing where none are kept."""
    if records is None:
        return
    from segplus.inference.object_measurements import state_areas, tabulate_images, tabulate_objects  # half a second

    listed = state_areas(records.list([item.name for item in items]))
    names = list(classes.names)
    if run.measure is not None:
        if run.measure.suffix == ".json":
            kept = [{key: value for key, value in record.items() if key != "coco"} for record in listed]
            write_text(run.measure, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
        else:
            write_table(run.measure, tabulate_images(listed, names, run.list_object_classes(names)))
            write_table(run.measure.with_stem(f"{run.measure.stem}_objects"), tabulate_objects(listed))
    if "coco" in run.kinds:
        content = build_coco(listed, [record["coco"] for record in listed], names)
        write_text(run.output / "coco.json", json.dumps(content, ensure_ascii=False) + "\n")
    if run.gallery:
        own = next((kind for kind in run.kinds if kind != "coco"), None)
        files = [
            (
                item.thumbnail.relative_to(run.output).as_posix(),
                "" if own is None else item.targets[own].relative_to(run.output).as_posix(),
            )
            for item in items
        ]
        write_predictions_page(run.output / "index.html", listed, files, classes)
