"""The loop of `segplus predict`: one thread decodes, this one runs the network, two more measure and write."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from segplus.classes import ClassMap, find_backgrounds
from segplus.commands.prediction_inputs import Item
from segplus.data.decoding.image_reader import ImageReader
from segplus.data.decoding.map_scale import read_map_scale
from segplus.data.decoding.stored import open_with_pillow
from segplus.data.parallel import read_ahead
from segplus.errors import InputError
from segplus.files import write_whole
from segplus.images import DecodedImage, show_as_rgb
from segplus.inference.annotations import annotate_coco
from segplus.inference.ensemble import Ensemble
from segplus.inference.output_kinds import KINDS, Arrays, Shown
from segplus.inference.prediction_folder import Records
from segplus.inference.predictor import Predictor
from segplus.inference.scoring import READ_AHEAD
from segplus.models import prepare_to_serve
from segplus.progress import Progress
from segplus.recipe.evaluation_section import ProtocolRecipe
from segplus.recipe.postprocess_section import check_class_names
from segplus.reporting.drawing import draw_overlay

_WRITERS = 2
_THUMBNAIL_PX = 360
_MM_PER_INCH = 25.4


@dataclass(frozen=True)
class PredictionRun:
    """What is asked of a folder of predictions.

    Args:
        output: The folder, or one PNG.
        protocol: How predictions are formed.
        kinds: Of files.
        measure: The table of areas and objects.
        pixel_size: Side of a pixel in millimetres, or `file`: what each image states.
        objects_of: The classes whose objects are measured; None for all that are not called background.
        contours: Whether the table lists the outlines of objects.
        gallery: Whether index.html is written.
        precision: What the network computes in.
        batch: Images that go through the network together.
        folded: Whether BatchNorm is folded into convolutions first.
        compiled: Whether the network is compiled.
        dropout_samples: Predictions with dropout, for the kind `disagreement`.
    """

    output: Path
    protocol: ProtocolRecipe
    kinds: tuple[str, ...]
    measure: Path | None
    pixel_size: float | str | None
    objects_of: tuple[str, ...] | None
    contours: bool
    gallery: bool
    precision: str
    batch: int
    folded: bool
    compiled: bool
    dropout_samples: int

    def __post_init__(self) -> None:
        """Refuse a batch of nothing, and what is asked of a table where none is."""
        if not 1 <= self.batch <= 1024 or not 0 <= self.dropout_samples <= 1000:
            raise InputError("--batch and --dropout-samples", found=f"{self.batch} and {self.dropout_samples}")
        if self.measure is None and (self.contours or self.objects_of is not None):
            raise InputError("--contours and --objects-of are of a table", fix="add --measure areas.csv")

    def list_record_keys(self) -> list[str]:
        """Return what must be known of each image for the files that are of all images; nothing without such files."""
        keys = ["objects"] if self.measure else []
        keys += ["coco"] if "coco" in self.kinds else []
        return ["classes", *keys] if keys or self.gallery else []

    def list_object_classes(self, class_names: Sequence[str]) -> list[str]:
        """Return the classes whose objects are measured.

        Raises:
            InputError: If one does not exist.
        """
        if self.objects_of is None:
            backgrounds = find_backgrounds(class_names)
            return [name for index, name in enumerate(class_names) if index not in backgrounds]
        check_class_names("--objects-of", dict.fromkeys(self.objects_of), class_names)
        return list(self.objects_of)

    def list_wanted(self) -> list[str]:
        """Return what predictions must hold beside their label maps."""
        wanted = {name for kind in self.kinds if kind in KINDS for name in KINDS[kind].needs} - {"disagreement"}
        return sorted(wanted | ({"confidence"} if self.measure else set()))


def predict_items(
    run: PredictionRun,
    found: Ensemble,
    items: Sequence[Item],
    classes: ClassMap,
    records: Records | None,
    device: torch.device,
    progress: bool,
) -> dict[str, str]:
    """Write the files of every image; return name -> message of those that could not be read.

    Raises:
        InputError: If a file cannot be written, or the network cannot take an image's size.
    """
    predictor = found.load(run.protocol, device, run.precision)
    for member in predictor.members:
        if run.folded:
            prepare_to_serve(member.model)
        if run.compiled:
            member.model.compile()
    left_out: dict[str, str] = {}
    reader = ImageReader(found.channels, found.image_range)
    pending: deque[Future[dict[str, Any] | None]] = deque()
    bar = Progress[None](total=len(items), title="predicting", unit="images", show=progress)
    with ThreadPoolExecutor(_WRITERS) as pool, bar:
        for batch in _iterate_batches(reader, items, run.batch, left_out):
            for (item, image), arrays in zip(batch, _predict_batch(run, predictor, batch), strict=True):
                pending.append(pool.submit(_write_item, run, item, image, arrays, classes))
                if len(pending) > 2 * _WRITERS:
                    _finish(pending, records, bar)
        while pending:
            _finish(pending, records, bar)
    return left_out


def _iterate_batches(
    reader: ImageReader, items: Sequence[Item], size: int, left_out: dict[str, str]
) -> Iterator[list[tuple[Item, DecodedImage]]]:
    """Yield images that can be read, so many at a time; note the others."""
    read = zip(items, read_ahead((_read(reader, item) for item in items), READ_AHEAD), strict=True)
    while batch := list(islice(read, size)):
        left_out |= {item.name: str(image) for item, image in batch if isinstance(image, InputError)}
        kept = [(item, image) for item, image in batch if not isinstance(image, InputError)]
        if kept:
            yield kept


def _read(reader: ImageReader, item: Item) -> DecodedImage | InputError:
    try:
        return reader.read(item.load(), str(item.path))
    except InputError as error:
        return error


def _predict_batch(
    run: PredictionRun, predictor: Predictor, batch: Sequence[tuple[Item, DecodedImage]]
) -> list[Arrays]:
    images = [image for _, image in batch]
    made = []
    for image, prediction in zip(images, predictor.predict_batch_with(images, run.list_wanted()), strict=True):
        arrays = {name: tensor.cpu().numpy() for name, tensor in vars(prediction).items() if tensor is not None}
        if "disagreement" in run.kinds:
            arrays["disagreement"] = predictor.measure_disagreement(image, run.dropout_samples).cpu().numpy()
        made.append(arrays)
    return made


def _write_item(
    run: PredictionRun, item: Item, image: DecodedImage, arrays: Arrays, classes: ClassMap
) -> dict[str, Any] | None:
    """Write the files of one image; return its record, where one is kept."""
    for kind, target in item.targets.items():
        KINDS[kind].write(target, Shown(image, item.path if item.rows is None else None, arrays, classes))
    if run.gallery:
        shown = draw_overlay(show_as_rgb(image), arrays["labels"], classes)
        shown.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
        with write_whole(item.thumbnail) as temporary:
            shown.save(temporary, "JPEG", quality=85)
    return _measure(run, item, arrays, classes) if run.list_record_keys() else None


def _measure(run: PredictionRun, item: Item, arrays: Arrays, classes: ClassMap) -> dict[str, Any]:
    from segplus.inference.object_measurements import measure_classes, measure_objects  # half a second

    labels, size = arrays["labels"], find_pixel_size(run.pixel_size, item)
    record: dict[str, Any] = {"image": item.name, "height_px": labels.shape[0], "width_px": labels.shape[1]}
    record["classes"] = measure_classes(labels, classes.names, size)
    if run.measure:
        among = run.list_object_classes(classes.names)
        record["objects"] = measure_objects(
            labels, classes.names, arrays["confidence"], size, among=among, with_contours=run.contours
        )
    if "coco" in run.kinds:
        record["coco"] = annotate_coco(labels, classes.num_classes)
    return record


def find_pixel_size(stated: float | str | None, item: Item) -> tuple[float, float] | None:
    """Return height and width of a pixel in millimetres, of the run or as the file says: on a map, or when printed.

    Raises:
        InputError: If the file is to say it and does not.
    """
    if not isinstance(stated, str):
        return None if stated is None else (stated, stated)
    on_the_map = read_map_scale(item.load(), str(item.path))
    if on_the_map is not None:
        return on_the_map
    try:
        with open_with_pillow(item.load()) as image:
            across, down = image.info.get("dpi", (0, 0))
    except OSError:  # an image that is none of Pillow's
        across = down = 0
    if not (across > 0 and down > 0):
        raise InputError(f"{item.path}: states no resolution", fix="give it: --pixel-size 0.05mm")
    return _MM_PER_INCH / float(down), _MM_PER_INCH / float(across)


def _finish(pending: deque[Future[dict[str, Any] | None]], records: Records | None, bar: Progress[None]) -> None:
    record = pending.popleft().result()
    if record is not None and records is not None:
        records.add(record)
    bar.update()
